//! The database file of a table, such as `f.cdb` for `cdb:f`, beside the text that postmap makes it from.

use super::index;
use super::octets;
use super::options::Options;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A database file and its text.
#[derive(Debug)]
pub struct Database {
    kind: &'static str,
    text: PathBuf,
    /// The file.
    pub path: PathBuf,
    command: &'static str,
}

impl Database {
    /// `kind`: the table's type, which is the suffix of the file. `text`: the path of the text.
    pub fn new(kind: &'static str, text: &Path, options: &Options) -> Self {
        let path = index::path_of(text, &format!(".{kind}"));
        Self { kind, text: text.into(), path, command: options.form.command() }
    }

    /// Open the file, and warn if its text is newer. Errors: why it cannot be opened, with the command that makes it.
    pub fn open(&self, warnings: &mut Vec<String>) -> Result<(File, Metadata), String> {
        let (path, text) = (self.path.display(), self.text.display());
        let opened = octets::open(&self.path);
        if opened.is_err() && self.text.exists() && !self.path.exists() {
            let Self { kind, command, .. } = self;
            return Err(format!("open database {path}: No such file or directory: run \"{command} {kind}:{text}\""));
        }
        let (file, status) = opened?;
        if self.text.metadata().is_ok_and(|text| text.mtime() > status.mtime()) {
            warnings.push(format!("database {path} is older than source file {text}"));
        }
        Ok((file, status))
    }
}
