//! The database file of a table, such as `f.cdb` for `cdb:f` or `f.db` for `hash:f`, beside the text that postmap makes
//! it from.

use super::octets;
use super::options::Options;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A database file and its text.
#[derive(Debug)]
pub struct Database {
    kind: Box<str>,
    text: PathBuf,
    /// The file.
    pub path: PathBuf,
    command: &'static str,
}

impl Database {
    /// `kind`: the table's type, which is the suffix of the file, but for hash and btree. `text`: the path of the text.
    pub fn new(kind: &str, text: &Path, options: &Options) -> Self {
        let suffix = if matches!(kind, "hash" | "btree") { "db" } else { kind };
        let path = path_of(text, &format!(".{suffix}"));
        Self { kind: kind.into(), text: text.into(), path, command: options.form.command() }
    }

    /// Open the file, and warn if its text is newer. Errors: why it cannot be opened, with the command that makes it.
    pub fn open(&self, warnings: &mut Vec<String>) -> Result<(File, Metadata), String> {
        let path = self.path.display();
        let opened = octets::open(&self.path);
        if opened.is_err() && self.text.exists() && !self.path.exists() {
            return Err(format!("open database {path}: No such file or directory: run {}", self.fix()));
        }
        let (file, status) = opened?;
        warnings.extend(self.older(&status));
        Ok((file, status))
    }

    /// Return a warning if the file is older than its text. As in Postfix, whole seconds are compared.
    pub fn older(&self, status: &Metadata) -> Option<String> {
        let is_older = self.text.metadata().is_ok_and(|text| text.mtime() > status.mtime());
        is_older.then(|| format!("database {} is older than source file {}", self.path.display(), self.text.display()))
    }

    /// Return the command that makes the file, in quotes.
    pub fn fix(&self) -> String {
        format!("\"{} {}:{}\"", self.command, self.kind, self.text.display())
    }
}

/// Return the name of a database file: `f.db`.
pub fn path_of(text: &Path, suffix: &str) -> PathBuf {
    let mut name = text.as_os_str().as_bytes().to_vec();
    name.extend_from_slice(suffix.as_bytes());
    PathBuf::from(std::ffi::OsStr::from_bytes(&name))
}
