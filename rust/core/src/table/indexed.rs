//! `hash:f` and `btree:f`: the choice between the index `f.db` and the text.
//!
//! Beside a Berkeley DB file of Postfix the text decides: nothing here reads Berkeley DB.

use super::database::Database;
use super::file::{Format, Loaded};
use super::index::{Index, MAGIC};
use super::octets::{self, Octets};
use super::options::Options;
use super::text::Text;
use crate::errno::reason;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Berkeley DB's magic numbers of hash and btree files, at octet 12 of the file.
const BERKELEY: [u32; 2] = [0x0006_1561, 0x0005_3162];

/// `hash:f` and `btree:f`.
#[derive(Debug)]
pub struct Indexed {
    database: Database,
    text: Text,
}

impl Indexed {
    /// `kind`: hash or btree. `path`: that of the text.
    pub fn new(kind: &str, path: &Path, options: Options) -> Self {
        Self { database: Database::new(kind, path, &options), text: Text { path: path.into(), options } }
    }

    fn open(&self, warnings: &mut Vec<String>) -> Result<Loaded, String> {
        let (file, status) = octets::open(&self.database.path)?;
        let (path, index) = (self.text.path.display(), self.database.path.display());
        let (older, fix) = (self.database.older(&status), self.database.fix());
        let read = |error: io::Error| format!("read {index}: {}", reason(&error));
        match kind_of(&file).map_err(read)? {
            Kind::Ours => {
                warnings.extend(older);
                let octets = Octets::of(file, status.size(), self.text.options.loaded_max_octets).map_err(read)?;
                let entries = Index::of(octets).map_err(|problem| format!("open database {index}: {problem}"))?;
                Ok(Loaded { entries: Box::new(entries), owner: status.uid() })
            }
            Kind::Berkeley if !self.text.path.exists() => Err(format!(
                "open database {index}: a Berkeley DB file without its text {path}: run \"db5.3_dump -p {index}\", \
                 write the text from its output, then run {fix}"
            )),
            Kind::Berkeley => {
                warnings.extend(older.map(|older| {
                    format!(
                        "{older}, which is read because {index} is a Berkeley DB file; to make changes take effect with \
                         {fix} alone, run it now"
                    )
                }));
                self.text.read(warnings)
            }
            Kind::Other => Err(format!("open database {index}: not an index: run {fix}")),
        }
    }
}

impl Format for Indexed {
    fn files(&self) -> Vec<PathBuf> {
        vec![self.database.path.clone(), self.text.path.clone()]
    }

    fn read(&self, warnings: &mut Vec<String>) -> Result<Loaded, String> {
        if self.database.path.exists() {
            return self.open(warnings);
        }
        let index = self.database.path.display();
        match octets::open(&self.text.path) {
            Ok(_) => Err(format!("open database {index}: No such file or directory: run {}", self.database.fix())),
            Err(_) if !self.text.path.exists() => Err(format!("open database {index}: No such file or directory")),
            Err(problem) => Err(problem),
        }
    }
}

/// The kind of a file named `f.db`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Our index.
    Ours,
    /// A hash or btree file of Berkeley DB.
    Berkeley,
    /// Anything else.
    Other,
}

/// Return the kind of an open file by its first octets.
pub fn kind_of(file: &File) -> io::Result<Kind> {
    let mut start = Vec::with_capacity(16);
    let mut at = 0;
    let mut buffer = [0; 16];
    while start.len() < 16 {
        let read = file.read_at(&mut buffer[..16 - start.len()], at)?;
        if read == 0 {
            return Ok(Kind::Other);
        }
        start.extend_from_slice(&buffer[..read]);
        at += read as u64;
    }
    let magic: [u8; 4] = start[12..].try_into().unwrap_or_default();
    Ok(if start == MAGIC {
        Kind::Ours
    } else if BERKELEY.contains(&u32::from_le_bytes(magic)) || BERKELEY.contains(&u32::from_be_bytes(magic)) {
        Kind::Berkeley
    } else {
        Kind::Other
    })
}
