//! The state log: facts, appended to `active/state.N` as they happen.
//!
//! ```text
//! file:   header (24 octets) | the same header again | entries
//! entry:  magic (2) | octets (u32) | CRC32C (u32) | payload
//! ```
//!
//! What counts is the newest file that is a base, and all files after it, in the order of their numbers. `append` writes
//! to the page cache at once, so a fact survives the death of the process; a thread syncs within `SYNC_DELAY`, so a power
//! cut costs at most a second delivery of what was done just before. Every start goes on in a new file: nothing is ever
//! appended behind an end that a crash may have torn.
//!
//! A compaction begins a new file K+1 for what is noted from now on, and a thread writes what counted until then as a
//! base, whole and synced before it takes the name of file K; after that the older files go. Whenever a crash comes in
//! between, the files that are there say the same. A file that could not be written or synced is left for a new one.
//!
//! ```text
//! form     headers and entries as octets
//! reader   what an earlier log says
//! syncer   the thread that makes facts stable a little later
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

/// A log shorter than this is not worth compacting.
const COMPACT_LEAST_OCTETS: u64 = 8 * 1024 * 1024;
/// A log is compacted when it is so many times as long as it was after the last compaction.
const COMPACT_FACTOR: u64 = 3;
/// A log of more files is compacted: each start adds one that something was noted in.
const FILES_MAX: usize = 32;
/// A file is read and a base is written in pieces of so many octets.
const PIECE_OCTETS: usize = 1024 * 1024;

const FILE_PREFIX: &str = "state.";
const NEW_NAME: &str = "state.new";
/// The log that is written to.
pub(crate) struct StateLog {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// The file that was begun last.
    number: u64,
    current: Option<Current>,
    /// Octets of the base, and of all files that count.
    base_octets: u64,
    octets: u64,
    files: usize,
    /// A fact is in no file: only a compaction can write it down.
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
    /// A log that goes on after what was `loaded`. Nothing can be appended before the first `begin`.
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

    /// Go on in a new file. After an error nothing can be appended, and `wants_compaction` says so.
    pub(crate) fn begin(&mut self) -> Result<(), QueueError> {
        self.current = None;
        self.syncer.follow(None);
        // A number is tried once: a file that failed is not written again.
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

    /// Write entries to the page cache. False when they could not be: a compaction then has to write them.
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

    /// Is the log broken, or much longer than what it says?
    pub(crate) fn wants_compaction(&self) -> bool {
        self.compaction.is_none()
            && (self.syncer.has_failed()
                || self.incomplete
                || self.current.is_none()
                || self.files > FILES_MAX
                || self.octets > COMPACT_LEAST_OCTETS && self.octets > self.base_octets * COMPACT_FACTOR)
    }

    /// Begin to write a base of `entries`, which say all that was noted until now; `first` is done before. Returns at
    /// once; `finish` says what came of it. After an error, what was appended before still counts.
    pub(crate) fn compact(
        &mut self,
        first: impl FnOnce(&dyn Disk) -> Result<(), QueueError> + Send + 'static,
        entries: impl FnOnce(&mut dyn FnMut(&Entry)) + Send + 'static,
    ) -> Result<(), QueueError> {
        if self.compaction.is_some() {
            return Ok(());
        }
        let before = self.current.take().filter(|_| !self.syncer.has_failed());
        // Of a log without a file there is none to take the name of.
        self.number = self.number.max(1);
        let number = self.number;
        self.begin()?;
        // What is noted from now on is in the new file; what was before is in the entries.
        self.incomplete = false;
        let base = Base { disk: Arc::clone(&self.disk), directory: self.directory.clone(), number };
        let thread = std::thread::Builder::new().name("state log base".into());
        let spawned = thread.spawn(move || {
            // Nobody else syncs what was noted just before. If that fails, the base says it all the same.
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

    /// What came of a compaction that has ended since the last call; with `wait`, of one that is under way.
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
                // The older files still count; but what they lack, if anything, is nowhere.
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

/// What a thread needs to write a base.
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
            // Never the file of an attempt that failed: its pages may be lost though they look written.
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
        // Were its name lost in a power cut, the older files would have to count again.
        self.disk.sync_directory(&self.directory).map_err(failed)?;
        for (older, path) in log_files(&*self.disk, &self.directory)? {
            if older < self.number {
                let _ = self.disk.remove(&path);
            }
        }
        Ok(octets)
    }

    /// Write what is in the buffer behind what was written so far.
    fn piece(&self, file: &File, buffer: &mut Vec<u8>, written: io::Result<u64>) -> io::Result<u64> {
        let written = written?;
        let octets = write_all(&*self.disk, file, &[buffer], written)?;
        buffer.clear();
        Ok(written + octets)
    }
}

/// `state.N` with their numbers.
fn log_files(disk: &dyn Disk, directory: &Path) -> Result<Vec<(u64, PathBuf)>, QueueError> {
    let number = |name: &String| name.strip_prefix(FILE_PREFIX)?.parse().ok();
    let names = names(disk, directory)?;
    Ok(names.iter().filter_map(|name| Some((number(name)?, directory.join(name)))).collect())
}
