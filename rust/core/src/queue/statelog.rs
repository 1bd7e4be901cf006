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

use crate::ipc::codec::Put;
use crate::ipc::frame::Status;
use crate::queue::ACTIVE;
use crate::queue::disk::{Disk, Open, write_all};
use crate::queue::error::QueueError;
use crate::queue::journal::lock;
use crate::queue::recovery::names;
use crate::queue::segment::{make_directory, random_salt};
use crate::queue::state::{Entry, Fact, encode_fact};
use memchr::memmem;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A fact is stable on disk so long after it was noted, and the time of a sync.
pub(crate) const SYNC_DELAY: Duration = Duration::from_millis(50);
/// A log shorter than this is not worth compacting.
const COMPACT_LEAST_OCTETS: u64 = 8 * 1024 * 1024;
/// A log is compacted when it is so many times as long as it was after the last compaction.
const COMPACT_FACTOR: u64 = 3;
/// A log of more files is compacted: each start adds one that something was noted in.
const FILES_MAX: usize = 32;
/// A file is read and a base is written in pieces of so many octets.
const PIECE_OCTETS: usize = 1024 * 1024;
/// An entry that says to be longer is none: a list of two million recipients has room.
const ENTRY_MAX_OCTETS: usize = 256 * 1024 * 1024;

const FILE_PREFIX: &str = "state.";
const NEW_NAME: &str = "state.new";
const FILE_MAGIC: [u8; 4] = *b"\x93PST";
/// Version 1 had a base alone and no forced expiry.
const FILE_VERSION: u16 = 2;
const FILE_HEADER_OCTETS: usize = 24;
/// The header stands twice: without its salt no entry can be believed.
const ENTRIES_AT: usize = 2 * FILE_HEADER_OCTETS;
const ENTRY_MAGIC: [u8; 2] = *b"\x93F";
const ENTRY_HEADER_OCTETS: usize = 10;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Whole by itself.
    Base,
    /// Goes on where the file before it ends.
    Continuation,
}

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

/// What an earlier log held.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The last file that counts.
    pub number: u64,
    pub base_octets: u64,
    pub octets: u64,
    pub files: usize,
    /// What could not be read, for the log.
    pub notices: Vec<String>,
    pub damages: Vec<Damage>,
}

/// A part of a file that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub path: PathBuf,
    pub offset: u64,
    pub octets: u64,
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

/// Tell `each` what the log in the queue directory says. A torn end is ignored, damage in the middle costs the entries
/// that it hits. `Version` for a log of a later release.
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

/// Messages of one destination mostly wait for the same reason: it is kept once.
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
    /// `None` when neither of the two can be read.
    header: Option<(Kind, u32)>,
}

impl<'a> LogReader<'a> {
    /// `None` when the file has gone meanwhile.
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

    /// Read up to `octets` octets from `at` on behind what is in the buffer.
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
            // A file that a crash left before anything was noted in it.
            if self.end > ENTRIES_AT as u64 {
                loaded.notices.push(format!("{}: no header can be read: its facts are lost", self.path.display()));
                loaded.damages.push(Damage { path: self.path.clone(), offset: 0, octets: self.end });
            }
            return Ok(());
        };
        let finder = memmem::Finder::new(&ENTRY_MAGIC);
        // The window holds the octets from `base` on; what is before `at` in it was read.
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
            loaded.notices.push(format!("{}: {octets} octets at the end are not whole, ignored", self.path.display()));
        }
        Ok(())
    }
}

/// `state.N` with their numbers.
fn log_files(disk: &dyn Disk, directory: &Path) -> Result<Vec<(u64, PathBuf)>, QueueError> {
    let number = |name: &String| name.strip_prefix(FILE_PREFIX)?.parse().ok();
    let names = names(disk, directory)?;
    Ok(names.iter().filter_map(|name| Some((number(name)?, directory.join(name)))).collect())
}

fn file_header(kind: Kind, number: u64, salt: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(FILE_HEADER_OCTETS);
    out.extend_from_slice(&FILE_MAGIC);
    out.put_u16(FILE_VERSION);
    out.put_u16(match kind {
        Kind::Base => 0,
        Kind::Continuation => 1,
    });
    out.put_u64(number);
    out.put_u32(salt);
    out.put_u32(crc32c::crc32c(&out));
    out
}

/// What a file header says of the file, and its salt; `None` when it is no header.
fn read_file_header(bytes: &[u8], path: &Path) -> Result<Option<(Kind, u32)>, QueueError> {
    let Some((checked, crc)) = bytes.split_at_checked(FILE_HEADER_OCTETS - 4) else { return Ok(None) };
    if checked[..4] != FILE_MAGIC || crc != crc32c::crc32c(checked).to_le_bytes() {
        return Ok(None);
    }
    let version = u16::from_le_bytes([checked[4], checked[5]]);
    if version > FILE_VERSION {
        return Err(QueueError::Version(path.display().to_string().into(), version, FILE_VERSION));
    }
    let kind = if checked[6] == 0 { Kind::Base } else { Kind::Continuation };
    Ok(Some((kind, u32::from_le_bytes(checked[16..20].try_into().expect("four octets")))))
}

/// The checksum begins with the file's salt: a text that a remote host sent can never pass for an entry.
fn put_entry(out: &mut Vec<u8>, salt: u32, encode: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&ENTRY_MAGIC);
    let lengths_at = out.len();
    out.put_u64(0);
    let start = out.len();
    encode(out);
    let octets = (out.len() - start) as u32;
    let crc = entry_crc(salt, octets, &out[start..]);
    out[lengths_at..lengths_at + 4].copy_from_slice(&octets.to_le_bytes());
    out[lengths_at + 4..start].copy_from_slice(&crc.to_le_bytes());
}

/// What the first octets are.
enum Parsed {
    /// An entry of so many octets.
    Whole(Entry, usize),
    /// The beginning of an entry, if anything: so many octets are needed to know.
    Short(usize),
    Bad,
}

fn read_entry(bytes: &[u8], salt: u32) -> Parsed {
    let Some((header, rest)) = bytes.split_at_checked(ENTRY_HEADER_OCTETS) else {
        return Parsed::Short(ENTRY_HEADER_OCTETS);
    };
    let octets = u32::from_le_bytes(header[2..6].try_into().expect("four octets"));
    if header[..2] != ENTRY_MAGIC || octets as usize > ENTRY_MAX_OCTETS {
        return Parsed::Bad;
    }
    let Some(payload) = rest.get(..octets as usize) else {
        return Parsed::Short(ENTRY_HEADER_OCTETS + octets as usize);
    };
    if header[6..] != entry_crc(salt, octets, payload).to_le_bytes() {
        return Parsed::Bad;
    }
    Entry::decode(payload).map_or(Parsed::Bad, |entry| Parsed::Whole(entry, ENTRY_HEADER_OCTETS + payload.len()))
}

fn entry_crc(salt: u32, octets: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &octets.to_le_bytes()), payload)
}

/// The thread that syncs the log a little later.
struct Syncer {
    shared: Arc<(Mutex<SyncState>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct SyncState {
    file: Option<Arc<File>>,
    /// The file's name is stable.
    named: bool,
    dirty: bool,
    failed: bool,
    ending: bool,
}

impl Syncer {
    fn start(disk: Arc<dyn Disk>, directory: PathBuf) -> Result<Self, QueueError> {
        let shared = Arc::new((Mutex::new(SyncState::default()), Condvar::new()));
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("state log".into());
        let thread = thread.spawn(move || sync_when_dirty(&*disk, &directory, &of_thread.0, &of_thread.1))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    fn wake(&self) {
        let mut state = lock(&self.shared.0);
        if !std::mem::replace(&mut state.dirty, true) {
            self.shared.1.notify_one();
        }
    }

    /// Sync this file from now on.
    fn follow(&self, file: Option<Arc<File>>) {
        let mut state = lock(&self.shared.0);
        *state = SyncState { file, ending: state.ending, ..SyncState::default() };
    }

    fn has_failed(&self) -> bool {
        lock(&self.shared.0).failed
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        lock(&self.shared.0).ending = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sync_when_dirty(disk: &dyn Disk, directory: &Path, state: &Mutex<SyncState>, changed: &Condvar) {
    let mut held = lock(state);
    loop {
        while !held.dirty && !held.ending {
            held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        if !held.dirty {
            return;
        }
        let waited = changed.wait_timeout_while(held, SYNC_DELAY, |state| !state.ending);
        held = waited.unwrap_or_else(PoisonError::into_inner).0;
        held.dirty = false;
        let Some(file) = held.file.clone() else { continue };
        let named = held.named;
        drop(held);
        let synced = disk.sync_data(&file);
        let synced = if named { synced } else { synced.and_then(|()| disk.sync_directory(directory)) };
        held = lock(state);
        // It is the newer file's turn when the log moved on while this one was synced.
        if held.file.as_ref().is_some_and(|now| Arc::ptr_eq(now, &file)) {
            held.named = synced.is_ok();
            if synced.is_err() {
                held.failed = true;
                held.file = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::disk::RealDisk;
    use crate::queue::id::QueueId;
    use crate::queue::testing::{Call, Directory, Fault, Faulty};
    use rustix::io::Errno;
    use std::fs;

    fn fact(n: u64) -> Fact {
        Fact::Done { id: QueueId(n), recipients: vec![n as u32] }
    }

    fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
        range.map(|n| Entry::Fact(fact(n))).collect()
    }

    fn log(disk: Arc<dyn Disk>, directory: &Directory) -> StateLog {
        let mut log = StateLog::new(disk, directory.path(), &Loaded::default()).unwrap();
        log.begin().unwrap();
        log
    }

    fn compact(log: &mut StateLog, entries: Vec<Entry>) -> Result<(), QueueError> {
        log.compact(|_| Ok(()), move |each| entries.iter().for_each(each))?;
        log.finish(true)
    }

    fn loaded(directory: &Directory) -> (Vec<Entry>, Loaded) {
        let mut entries = Vec::new();
        let loaded = load(&RealDisk, directory.path(), &mut |entry| entries.push(entry)).unwrap();
        (entries, loaded)
    }

    fn written(directory: &Directory, count: u64) -> PathBuf {
        let mut log = log(RealDisk::shared(), directory);
        for n in 0..count {
            assert!(log.append(&[fact(n)]));
        }
        directory.path().join("active/state.1")
    }

    #[test]
    fn facts_are_there_at_once_and_a_base_takes_them_over() {
        let directory = Directory::new();
        let mut log = StateLog::new(RealDisk::shared(), directory.path(), &Loaded::default()).unwrap();
        assert!(!log.append(&[fact(0)]) && log.wants_compaction(), "there is no file yet");
        compact(&mut log, entries(0..2)).unwrap();
        assert!(log.append(&[fact(2), fact(3)]));
        assert_eq!(loaded(&directory).0, entries(0..4));
        compact(&mut log, entries(1..4)).unwrap();
        assert!(log.append(&[fact(4)]));
        let (found, loaded) = loaded(&directory);
        assert_eq!((found, loaded.notices, directory.files("active").len()), (entries(1..5), vec![], 2));
        assert!(!log.wants_compaction());
    }

    #[test]
    fn a_start_goes_on_in_a_new_file() {
        let directory = Directory::new();
        for start in 0..4 {
            let (before, found) = loaded(&directory);
            assert_eq!((before, found.files), (entries(0..start), start as usize));
            let mut log = StateLog::new(RealDisk::shared(), directory.path(), &found).unwrap();
            log.begin().unwrap();
            assert!(log.append(&[fact(start)]));
        }
        fs::remove_file(directory.path().join("active/state.2")).unwrap();
        let (found, loaded) = loaded(&directory);
        assert_eq!(found, [entries(0..1), entries(2..4)].concat());
        assert!(loaded.notices[0].contains("state.3: no state log file between this and 1"), "{:?}", loaded.notices);
    }

    /// Plays a compaction step by step: after each call on the disk that changes something, what a crash would find is
    /// what was noted, whatever of the last step it keeps.
    #[test]
    fn a_crash_at_any_step_of_a_compaction_costs_nothing() {
        for step in 0..12 {
            let directory = Directory::new();
            let disk = Arc::new(Faulty::default());
            let mut log = log(Arc::clone(&disk) as Arc<dyn Disk>, &directory);
            assert!(log.append(&[fact(0), fact(1)]));
            compact(&mut log, entries(0..2)).unwrap();
            assert!(log.append(&[fact(2)]));
            // From here on every call of one kind fails: the compaction stops there for good.
            let kinds = [Call::Open, Call::Write, Call::Sync, Call::Rename, Call::SyncDirectory, Call::Remove];
            let (call, skip) = (kinds[step / 2], step as u64 % 2);
            disk.fail(Fault { call, at: disk.count(call) + 1 + skip, lasts: u64::MAX / 2, errno: Some(Errno::IO) });
            let compacted = compact(&mut log, entries(0..3));
            let mut expected = 3;
            if log.append(&[fact(3)]) {
                expected = 4;
            }
            assert!(compacted.is_ok() || log.wants_compaction(), "{call:?}: it is tried again");
            assert_eq!(found(&directory), entries(0..expected), "{call:?} {skip}: {compacted:?}");
            // What was begun and not finished counts for nothing.
            fs::write(directory.path().join("active/state.new"), b"half of it").unwrap();
            assert_eq!(found(&directory), entries(0..expected), "{call:?} {skip}");
            drop(log);
            let (_, again) = loaded(&directory);
            let mut log = StateLog::new(RealDisk::shared(), directory.path(), &again).unwrap();
            log.begin().unwrap();
            compact(&mut log, entries(0..expected)).unwrap();
            assert_eq!(found(&directory), entries(0..expected), "{call:?} {skip}: when all is well again");
            assert_eq!(directory.files("active").len(), 2);
        }
    }

    /// The facts in the order of their messages, each once.
    fn found(directory: &Directory) -> Vec<Entry> {
        let mut entries = loaded(directory).0;
        entries.sort_by_key(|entry| if let Entry::Fact(fact) = entry { fact.id() } else { QueueId(0) });
        entries.dedup();
        entries
    }

    #[test]
    fn a_log_of_the_first_version_is_read() {
        let directory = Directory::new();
        let path = written(&directory, 3);
        let mut bytes = fs::read(&path).unwrap();
        for header in bytes.chunks_mut(FILE_HEADER_OCTETS).take(2) {
            (header[4], header[6]) = (1, 0);
            let crc = crc32c::crc32c(&header[..FILE_HEADER_OCTETS - 4]).to_le_bytes();
            header[FILE_HEADER_OCTETS - 4..].copy_from_slice(&crc);
        }
        fs::write(&path, bytes).unwrap();
        let (found, before) = loaded(&directory);
        assert_eq!((found, before.base_octets > 0), (entries(0..3), true));
        let mut log = StateLog::new(RealDisk::shared(), directory.path(), &before).unwrap();
        log.begin().unwrap();
        assert!(log.append(&[fact(3)]));
        assert_eq!(loaded(&directory).0, entries(0..4));
    }

    #[test]
    fn entries_longer_than_a_piece_and_damage_across_pieces_are_read() {
        let directory = Directory::new();
        let long = |n: u64| Fact::Done { id: QueueId(n), recipients: (0..PIECE_OCTETS as u32 / 3).collect() };
        let mut log = log(RealDisk::shared(), &directory);
        for n in 0..5 {
            assert!(log.append(&[fact(100 + n), long(n)]));
        }
        drop(log);
        let path = directory.path().join("active/state.1");
        let mut bytes = fs::read(&path).unwrap();
        let count = |directory| loaded(directory).0.len();
        assert_eq!(count(&directory), 10);
        bytes[PIECE_OCTETS * 2] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (found, damaged) = loaded(&directory);
        assert_eq!((found.len(), damaged.damages.len()), (9, 1), "{:?}", damaged.notices);
        assert!(damaged.notices[0].contains("cannot be read, skipped"));
    }

    #[test]
    fn a_torn_end_costs_only_what_is_torn() {
        let directory = Directory::new();
        let path = written(&directory, 3);
        let whole = fs::read(&path).unwrap();
        let each = (whole.len() - ENTRIES_AT) / 3;
        for end in ENTRIES_AT..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(loaded(&directory).0, entries(0..((end - ENTRIES_AT) / each) as u64), "cut at {end}");
        }
    }

    #[test]
    fn a_flipped_bit_costs_one_entry_and_none_in_one_header() {
        let directory = Directory::new();
        let path = written(&directory, 4);
        let whole = fs::read(&path).unwrap();
        let each = (whole.len() - ENTRIES_AT) / 4;
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            let mut expected = entries(0..4);
            if bit / 8 >= ENTRIES_AT {
                expected.remove((bit / 8 - ENTRIES_AT) / each);
            }
            assert_eq!(loaded(&directory).0, expected, "bit {bit}");
        }
    }

    #[test]
    fn a_log_of_a_later_release_is_refused() {
        let directory = Directory::new();
        let path = written(&directory, 1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[4] = 3;
        let crc = crc32c::crc32c(&bytes[..FILE_HEADER_OCTETS - 4]).to_le_bytes();
        bytes[FILE_HEADER_OCTETS - 4..FILE_HEADER_OCTETS].copy_from_slice(&crc);
        fs::write(&path, bytes).unwrap();
        let error = load(&RealDisk, directory.path(), &mut |_| {}).unwrap_err();
        assert!(matches!(error, QueueError::Version(_, 3, FILE_VERSION)), "{error}");
    }

    #[test]
    fn syncs_come_late_and_together_and_an_idle_log_has_none() {
        let directory = Directory::new();
        let disk = Arc::new(Faulty::default());
        let mut log = log(Arc::clone(&disk) as Arc<dyn Disk>, &directory);
        for n in 0..100 {
            log.append(&[fact(n)]);
        }
        std::thread::sleep(SYNC_DELAY * 6);
        let syncs = disk.count(Call::Sync);
        assert!((1..=10).contains(&syncs), "{syncs} syncs");
        std::thread::sleep(SYNC_DELAY * 4);
        assert_eq!(disk.count(Call::Sync), syncs);
    }

    #[test]
    fn a_log_that_fails_is_left_for_a_new_one() {
        for disk in
            [Faulty::failing_write(3, io::ErrorKind::StorageFull), Faulty::failing_sync(1, io::ErrorKind::Other)]
        {
            let directory = Directory::new();
            let mut log = log(Arc::new(disk), &directory);
            assert!(log.append(&[fact(0)]));
            std::thread::sleep(SYNC_DELAY * 4);
            assert!(!log.append(&[fact(1)]));
            assert!(log.wants_compaction());
            compact(&mut log, entries(0..2)).unwrap();
            assert!(log.append(&[fact(2)]) && !log.wants_compaction());
            assert_eq!(loaded(&directory).0, entries(0..3));
        }
    }
}
