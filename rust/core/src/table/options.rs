//! How a table is read: the form of its lines, and its keys.

use super::octets::IN_MEMORY_MAX_OCTETS;
use std::fmt;
use std::sync::Arc;

/// The callback for a line of the log, such as one about a problem in a table's source.
pub type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// The form of the lines of a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `key whitespace value` (postmap(1)).
    Map,
    /// `name: value` (aliases(5)).
    Alias,
    /// Either, line by line: a texthash in alias_maps.
    Mixed,
}

impl Form {
    /// Return the command that makes the database of a text.
    pub fn command(self) -> &'static str {
        if self == Self::Map { "postmap" } else { "postalias" }
    }
}

/// How a table is read.
#[derive(Clone)]
pub struct Options {
    /// The form of a text file.
    pub form: Form,
    /// Whether keys ignore case, in tables whose keys are fixed texts.
    pub fold: bool,
    /// Whether keys and values must be UTF-8 (`smtputf8_enable`).
    pub utf8: bool,
    /// Whether a value is a list of files, whose content in base64 replaces it (postmap -F).
    pub files: bool,
    /// Whether the result of a pattern may contain text of the key, such as `$1`.
    pub substitution: bool,
    /// Maximum octets of an index that is read into memory once there are many lookups in it.
    pub loaded_max_octets: u64,
    /// The callback for problems.
    pub warn: Warn,
    /// The callback for lookups in a `debug:` table.
    pub log: Warn,
}

impl Options {
    /// Return the options of a table in postmap's form, without warnings.
    pub fn plain() -> Self {
        let silent: Warn = Arc::new(|_| ());
        Self {
            form: Form::Map,
            fold: true,
            utf8: true,
            files: false,
            substitution: true,
            loaded_max_octets: IN_MEMORY_MAX_OCTETS,
            warn: Arc::clone(&silent),
            log: silent,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("form", &self.form).field("fold", &self.fold).finish_non_exhaustive()
    }
}
