//! Reads an earlier state log, file by file and piece by piece.

use super::form::{
    ENTRIES_AT, ENTRY_HEADER_OCTETS, ENTRY_MAGIC, FILE_HEADER_OCTETS, Kind, Parsed, read_entry, read_file_header,
};
use super::{PIECE_OCTETS, log_files};
use crate::mail::status::Status;
use crate::queue::ACTIVE;
use crate::queue::disk::{Disk, Open};
use crate::queue::error::QueueError;
use crate::queue::state::{Entry, Fact};
use memchr::memmem;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The summary of an earlier log.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The number of the last file in use.
    pub number: u64,
    pub base_octets: u64,
    pub octets: u64,
    pub files: usize,
    /// Unreadable parts, as lines for the log.
    pub notices: Vec<String>,
    pub damages: Vec<Damage>,
}

/// An unreadable part of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub path: PathBuf,
    pub offset: u64,
    pub octets: u64,
}

/// Give `each` the entries of the log in the queue directory. A torn end is ignored; damage in the middle costs the
/// entries it hits. `Version` for a log of a newer release.
pub(crate) fn load(disk: &dyn Disk, queue_directory: &Path, each: &mut dyn FnMut(Entry)) -> Result<Loaded, QueueError> {
    let directory = queue_directory.join(ACTIVE);
    let mut loaded = Loaded::default();
    let mut files = log_files(disk, &directory)?;
    files.sort();
    let mut readers = Vec::new();
    for (number, path) in files {
        if let Some(reader) = LogReader::open(disk, path, number)? {
            readers.push(reader);
        }
    }
    let first = readers.iter().rposition(|reader| matches!(reader.header, Some((Kind::Base, _)))).unwrap_or(0);
    let mut reasons = HashSet::new();
    for reader in readers.drain(..).skip(first) {
        if loaded.number != 0 && reader.number != loaded.number + 1 && reader.end > ENTRIES_AT as u64 {
            let (path, before) = (reader.path.display(), loaded.number);
            loaded.notices.push(format!("{path}: no state log file between this and {before}: its facts may be lost"));
        }
        loaded.number = reader.number;
        loaded.files += 1;
        loaded.octets += reader.end;
        if matches!(reader.header, Some((Kind::Base, _))) {
            loaded.base_octets = reader.end;
        }
        reader.read(&mut loaded, &mut |entry| each(share(entry, &mut reasons)))?;
    }
    Ok(loaded)
}

/// Share equal reasons: messages to one destination mostly wait for the same one.
fn share(mut entry: Entry, known: &mut HashSet<Arc<Status>>) -> Entry {
    if let Entry::Fact(Fact::Deferred { reasons, .. }) = &mut entry {
        for (_, status) in reasons {
            match known.get(status) {
                Some(same) => *status = Arc::clone(same),
                None => {
                    known.insert(Arc::clone(status));
                }
            }
        }
    }
    entry
}

/// Reads one file of the log.
struct LogReader<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    number: u64,
    file: File,
    end: u64,
    /// `None` when neither header can be read.
    header: Option<(Kind, u32)>,
}

impl<'a> LogReader<'a> {
    /// Open a file; `None` when it is gone by now.
    fn open(disk: &'a dyn Disk, path: PathBuf, number: u64) -> Result<Option<Self>, QueueError> {
        let file = match disk.open(&path, Open::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(QueueError::io("open", &path, &error)),
        };
        let end = file.metadata().map_err(|error| QueueError::io("read", &path, &error))?.len();
        let mut reader = Self { disk, path, number, file, end, header: None };
        let mut bytes = Vec::new();
        reader.more(&mut bytes, 0, ENTRIES_AT)?;
        for bytes in bytes.chunks(FILE_HEADER_OCTETS) {
            reader.header = reader.header.or(read_file_header(bytes, &reader.path)?);
        }
        Ok(Some(reader))
    }

    /// Append up to `octets` octets of the file, from `at` on, to the buffer.
    fn more(&self, buffer: &mut Vec<u8>, at: u64, octets: usize) -> Result<(), QueueError> {
        let begin = buffer.len();
        let wanted = octets.min(self.end.saturating_sub(at) as usize);
        buffer.resize(begin + wanted, 0);
        let mut filled = 0;
        while filled < wanted {
            match self.disk.read_at(&self.file, &mut buffer[begin + filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(some) => filled += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(QueueError::io("read", &self.path, &error)),
            }
        }
        buffer.truncate(begin + filled);
        Ok(())
    }

    fn read(&self, loaded: &mut Loaded, each: &mut dyn FnMut(Entry)) -> Result<(), QueueError> {
        let Some((_, salt)) = self.header else {
            // A crash left this file before its first entry.
            if self.end > ENTRIES_AT as u64 {
                loaded.notices.push(format!("{}: no header can be read: its facts are lost", self.path.display()));
                loaded.damages.push(Damage { path: self.path.clone(), offset: 0, octets: self.end });
            }
            return Ok(());
        };
        let finder = memmem::Finder::new(&ENTRY_MAGIC);
        // The window holds the octets from `base` on; those before `at` were read.
        let (mut window, mut base, mut at) = (Vec::new(), ENTRIES_AT as u64, 0);
        let mut bad: Option<u64> = None;
        while base + (at as u64) < self.end {
            let rest_is_there = base + window.len() as u64 >= self.end;
            let wanted = match read_entry(&window[at..], salt) {
                Parsed::Whole(entry, octets) => {
                    let offset = base + at as u64;
                    if let Some(from) = bad.take() {
                        let octets = offset - from;
                        let path = self.path.display();
                        loaded.notices.push(format!("{path}: {octets} octets at {from} cannot be read, skipped"));
                        loaded.damages.push(Damage { path: self.path.clone(), offset: from, octets });
                    }
                    each(entry);
                    at += octets;
                    continue;
                }
                Parsed::Short(octets) if !rest_is_there && base + ((at + octets) as u64) <= self.end => octets,
                _ if !rest_is_there && window.len() < at + ENTRY_HEADER_OCTETS => ENTRY_HEADER_OCTETS,
                Parsed::Short(_) | Parsed::Bad => {
                    bad.get_or_insert(base + at as u64);
                    at += 1;
                    at +=
                        finder.find(&window[at..]).unwrap_or((window.len() - at).saturating_sub(ENTRY_MAGIC.len() - 1));
                    continue;
                }
            };
            window.drain(..at);
            base += at as u64;
            at = 0;
            let missing = wanted.saturating_sub(window.len()).max(PIECE_OCTETS);
            let before = window.len();
            self.more(&mut window, base + before as u64, missing)?;
            if window.len() == before {
                break;
            }
        }
        if let Some(from) = bad.or((base + (at as u64) < self.end).then_some(base + at as u64)) {
            let octets = self.end - from;
            loaded.notices.push(format!("{}: {octets} octets at the end are incomplete, ignored", self.path.display()));
        }
        Ok(())
    }
}
