//! The state log: facts, appended to `active/state.N` as they are noted.
//!
//! ```text
//! file:   header (24 octets) | the same header again | entries
//! entry:  magic (2) | octets (u32) | CRC32C (u32) | payload
//! ```
//!
//! The log consists of the newest base and all files after it, in the order of their numbers. `append` writes to the
//! page cache at once, so a fact survives the death of the process. A thread syncs within `SYNC_DELAY`, so a power cut
//! costs at most a second delivery of the messages just before it. Every start begins a new file: nothing is ever
//! appended behind an end that a crash may have torn.
//!
//! A compaction begins a new file K+1 for later facts. A thread writes the facts until then as a base, and syncs it
//! before it gets the name of file K; then the older files are removed. At a crash at any point, the remaining files
//! have the same facts. After a failed write or sync, a file is abandoned for a new one.
//!
//! ```text
//! form     headers and entries as octets
//! reader   reads an earlier log
//! syncer   the thread that syncs facts
//! ```

mod form;
mod reader;
mod syncer;

#[cfg(test)]
mod tests;

pub(crate) use reader::{Damage, Loaded, load};

use crate::queue::ACTIVE;
use crate::queue::disk::{Disk, Open, names, write_all};
use crate::queue::error::QueueError;
use crate::queue::segment::{make_directory, random_salt};
use crate::queue::state::{Entry, Fact, encode_fact};
use form::{Kind, file_header, put_entry};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use syncer::Syncer;

/// Minimum size of a log that is compacted.
const COMPACT_LEAST_OCTETS: u64 = 8 * 1024 * 1024;
/// A log is compacted when it is this many times as long as after the last compaction.
const COMPACT_FACTOR: u64 = 3;
/// Maximum number of files before a compaction: each start with facts adds one.
const FILES_MAX: usize = 32;
/// Octets of one read of a file, and of one write of a base.
const PIECE_OCTETS: usize = 1024 * 1024;

const FILE_PREFIX: &str = "state.";
const NEW_NAME: &str = "state.new";
/// The log that is written.
pub(crate) struct StateLog {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// The number of the newest file.
    number: u64,
    current: Option<Current>,
    /// Octets of the base, and of all files in use.
    base_octets: u64,
    octets: u64,
    files: usize,
    /// A fact is in no file: only a compaction can write it.
    incomplete: bool,
    compaction: Option<JoinHandle<Result<u64, QueueError>>>,
    syncer: Syncer,
    buffer: Vec<u8>,
}

struct Current {
    file: Arc<File>,
    salt: u32,
    end: u64,
}

impl StateLog {
    /// Return a log that continues `loaded`. `append` works only after the first `begin`.
    pub(crate) fn new(disk: Arc<dyn Disk>, queue_directory: &Path, loaded: &Loaded) -> Result<Self, QueueError> {
        let directory = make_directory(&*disk, queue_directory, ACTIVE)?;
        let syncer = Syncer::start(Arc::clone(&disk), directory.clone())?;
        Ok(Self {
            disk,
            directory,
            number: loaded.number,
            current: None,
            base_octets: loaded.base_octets,
            octets: loaded.octets,
            files: loaded.files,
            incomplete: false,
            compaction: None,
            syncer,
            buffer: Vec::new(),
        })
    }

    /// Continue in a new file. After an error `append` fails, and `wants_compaction` returns true.
    pub(crate) fn begin(&mut self) -> Result<(), QueueError> {
        self.current = None;
        self.syncer.follow(None);
        // Each number is used once: a file that failed is never written again.
        self.number += 1;
        let path = self.directory.join(format!("{FILE_PREFIX}{}", self.number));
        let failed = |error: io::Error| QueueError::io("write", &path, &error);
        let file = self.disk.open(&path, Open::Fresh).map_err(failed)?;
        let salt = random_salt() as u32;
        let header = file_header(Kind::Continuation, self.number, salt).repeat(2);
        let end = write_all(&*self.disk, &file, &[&header], 0).map_err(failed)?;
        let file = Arc::new(file);
        self.syncer.follow(Some(Arc::clone(&file)));
        self.current = Some(Current { file, salt, end });
        self.octets += end;
        self.files += 1;
        Ok(())
    }

    /// Write entries to the page cache. Returns false on failure: then a compaction has to write them.
    pub(crate) fn append(&mut self, facts: &[Fact]) -> bool {
        self.append_entries(facts.iter().map(|fact| move |out: &mut Vec<u8>| encode_fact(fact, out)))
    }

    pub(crate) fn append_entry(&mut self, entry: &Entry) -> bool {
        self.append_entries([|out: &mut Vec<u8>| entry.encode(out)])
    }

    fn append_entries<F: FnOnce(&mut Vec<u8>)>(&mut self, entries: impl IntoIterator<Item = F>) -> bool {
        if self.syncer.has_failed() {
            self.current = None;
        }
        let Some(current) = &mut self.current else {
            self.incomplete = true;
            return false;
        };
        self.buffer.clear();
        for encode in entries {
            put_entry(&mut self.buffer, current.salt, encode);
        }
        if self.buffer.is_empty() {
            return true;
        }
        match write_all(&*self.disk, &current.file, &[&self.buffer], current.end) {
            Ok(octets) => {
                current.end += octets;
                self.octets += octets;
                self.syncer.wake();
                true
            }
            Err(_) => {
                self.current = None;
                self.incomplete = true;
                self.syncer.follow(None);
                false
            }
        }
    }

    /// Whether the log is broken, or much longer than its facts.
    pub(crate) fn wants_compaction(&self) -> bool {
        self.compaction.is_none()
            && (self.syncer.has_failed()
                || self.incomplete
                || self.current.is_none()
                || self.files > FILES_MAX
                || self.octets > COMPACT_LEAST_OCTETS && self.octets > self.base_octets * COMPACT_FACTOR)
    }

    /// Start to write a base of `entries`, the sum of all facts until now; `first` runs before. Return at once;
    /// `finish` returns the result. After an error, the older entries still count.
    pub(crate) fn compact(
        &mut self,
        first: impl FnOnce(&dyn Disk) -> Result<(), QueueError> + Send + 'static,
        entries: impl FnOnce(&mut dyn FnMut(&Entry)) + Send + 'static,
    ) -> Result<(), QueueError> {
        if self.compaction.is_some() {
            return Ok(());
        }
        let before = self.current.take().filter(|_| !self.syncer.has_failed());
        // A log without a file has no name to replace.
        self.number = self.number.max(1);
        let number = self.number;
        self.begin()?;
        // Later facts are in the new file; earlier ones are in the entries.
        self.incomplete = false;
        let base = Base { disk: Arc::clone(&self.disk), directory: self.directory.clone(), number };
        let thread = std::thread::Builder::new().name("state log base".into());
        let spawned = thread.spawn(move || {
            // Only this syncs the facts noted just before. If it fails, the base has them anyway.
            let _ = before.map(|before| base.disk.sync_data(&before.file));
            first(&*base.disk)?;
            base.write(entries)
        });
        match spawned {
            Ok(thread) => self.compaction = Some(thread),
            Err(error) => {
                self.incomplete = true;
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Return the result of a compaction that ended since the last call; `wait` waits for a running one.
    pub(crate) fn finish(&mut self, wait: bool) -> Result<(), QueueError> {
        let Some(thread) = self.compaction.take_if(|thread| wait || thread.is_finished()) else { return Ok(()) };
        let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that compacts panicked").into()));
        match ended {
            Ok(octets) => {
                self.base_octets = octets;
                self.octets = octets + self.current.as_ref().map_or(0, |current| current.end);
                self.files = 2;
                Ok(())
            }
            Err(error) => {
                // The older files still count; but any facts they lack are in no file.
                self.incomplete = true;
                Err(error)
            }
        }
    }
}

impl Drop for StateLog {
    fn drop(&mut self) {
        let _ = self.finish(true);
    }
}

/// The data for a thread that writes a base.
struct Base {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    number: u64,
}

impl Base {
    fn write(&self, entries: impl FnOnce(&mut dyn FnMut(&Entry))) -> Result<u64, QueueError> {
        let new_path = self.directory.join(NEW_NAME);
        let failed = |error: io::Error| QueueError::io("write", &new_path, &error);
        let file = match self.disk.open(&new_path, Open::New) {
            // Never the file of a failed attempt: its pages may be lost though they look written.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&new_path).and_then(|()| self.disk.open(&new_path, Open::New))
            }
            opened => opened,
        };
        let file = file.map_err(failed)?;
        let salt = random_salt() as u32;
        let mut buffer = file_header(Kind::Base, self.number, salt).repeat(2);
        let mut written = Ok(0);
        entries(&mut |entry| {
            put_entry(&mut buffer, salt, |out| entry.encode(out));
            if buffer.len() >= PIECE_OCTETS {
                written = self.piece(&file, &mut buffer, std::mem::replace(&mut written, Ok(0)));
            }
        });
        let octets = self.piece(&file, &mut buffer, written).map_err(failed)?;
        self.disk.sync_data(&file).map_err(failed)?;
        self.disk.rename(&new_path, &self.directory.join(format!("{FILE_PREFIX}{}", self.number))).map_err(failed)?;
        // If its name were lost in a power cut, the older files would have to count again.
        self.disk.sync_directory(&self.directory).map_err(failed)?;
        for (older, path) in log_files(&*self.disk, &self.directory)? {
            if older < self.number {
                let _ = self.disk.remove(&path);
            }
        }
        Ok(octets)
    }

    /// Write the buffer behind the octets written so far.
    fn piece(&self, file: &File, buffer: &mut Vec<u8>, written: io::Result<u64>) -> io::Result<u64> {
        let written = written?;
        let octets = write_all(&*self.disk, file, &[buffer], written)?;
        buffer.clear();
        Ok(written + octets)
    }
}

/// Return the files `state.N` with their numbers.
fn log_files(disk: &dyn Disk, directory: &Path) -> Result<Vec<(u64, PathBuf)>, QueueError> {
    let number = |name: &String| name.strip_prefix(FILE_PREFIX)?.parse().ok();
    let names = names(disk, directory)?;
    Ok(names.iter().filter_map(|name| Some((number(name)?, directory.join(name)))).collect())
}
