//! The state log: facts, appended to `active/state.N` as they happen.
//!
//! ```text
//! file:   header (24 octets) | the same header again | entries
//! entry:  magic (2) | octets (u32) | CRC32C (u32) | payload
//! ```
//!
//! `append` writes to the page cache at once, so a fact survives the death of the process; a thread syncs within
//! `SYNC_DELAY`, so a power cut costs at most a second delivery of what was done just before. Every start and every
//! compaction writes a new file with the facts that still count, whole and synced before it gets its name; the file with
//! the highest number is the one that counts. A file that could not be written or synced is left for a new one.

use crate::ipc::codec::Put;
use crate::queue::ACTIVE;
use crate::queue::disk::{Disk, Open, read_exact, write_all};
use crate::queue::error::QueueError;
use crate::queue::journal::lock;
use crate::queue::recovery::names;
use crate::queue::segment::{make_directory, random_salt};
use crate::queue::state::{Entry, Fact, encode_fact};
use memchr::memmem;
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
/// A compacted log is written in pieces of so many octets.
const PIECE_OCTETS: usize = 1024 * 1024;

const FILE_PREFIX: &str = "state.";
const NEW_NAME: &str = "state.new";
const FILE_MAGIC: [u8; 4] = *b"\x93PST";
const FILE_VERSION: u16 = 1;
const FILE_HEADER_OCTETS: usize = 24;
/// The header stands twice: without its salt no entry can be believed.
const ENTRIES_AT: usize = 2 * FILE_HEADER_OCTETS;
const ENTRY_MAGIC: [u8; 2] = *b"\x93F";
const ENTRY_HEADER_OCTETS: usize = 10;

/// The log that is written to.
pub(crate) struct StateLog {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    number: u64,
    current: Option<Current>,
    syncer: Syncer,
    buffer: Vec<u8>,
}

struct Current {
    file: Arc<File>,
    salt: u32,
    end: u64,
    compacted_octets: u64,
}

/// What an earlier log held.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub number: u64,
    pub entries: Vec<Entry>,
    /// What could not be read, for the log.
    pub notices: Vec<String>,
}

impl StateLog {
    /// A log that goes on after the one numbered `number`. Nothing is written before the first `compact`.
    pub(crate) fn new(disk: Arc<dyn Disk>, queue_directory: &Path, number: u64) -> Result<Self, QueueError> {
        let directory = make_directory(&*disk, queue_directory, ACTIVE)?;
        let syncer = Syncer::start(Arc::clone(&disk))?;
        Ok(Self { disk, directory, number, current: None, syncer, buffer: Vec::new() })
    }

    /// Write entries to the page cache. False when they could not be: `compact` then has to write them.
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
        let Some(current) = &mut self.current else { return false };
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
                self.syncer.wake();
                true
            }
            Err(_) => {
                self.current = None;
                self.syncer.follow(None);
                false
            }
        }
    }

    /// Is the log broken, or much longer than what it says?
    pub(crate) fn wants_compaction(&self) -> bool {
        self.syncer.has_failed()
            || self.current.as_ref().is_none_or(|current| {
                current.end > COMPACT_LEAST_OCTETS && current.end > current.compacted_octets * COMPACT_FACTOR
            })
    }

    /// Go on in a new file that begins with `entries`; older files are removed once it is stable. After an error, what
    /// was appended before still counts; `wants_compaction` says whether this must be tried again before more can be.
    pub(crate) fn compact(&mut self, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), QueueError> {
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
        let number = self.number + 1;
        let mut buffer = file_header(number, salt).repeat(2);
        let mut end = 0;
        for entry in entries {
            put_entry(&mut buffer, salt, |out| entry.encode(out));
            if buffer.len() >= PIECE_OCTETS {
                end += write_all(&*self.disk, &file, &[&buffer], end).map_err(failed)?;
                buffer.clear();
            }
        }
        end += write_all(&*self.disk, &file, &[&buffer], end).map_err(failed)?;
        self.disk.sync_data(&file).map_err(failed)?;
        self.disk.rename(&new_path, &self.directory.join(format!("{FILE_PREFIX}{number}"))).map_err(failed)?;
        // From here on the new file counts for whoever starts now; the older one must not be written any more.
        self.number = number;
        self.current = None;
        self.syncer.follow(None);
        // Were its name lost in a power cut, the older log would count again, and facts since then would be lost.
        self.disk.sync_directory(&self.directory).map_err(failed)?;
        let file = Arc::new(file);
        self.syncer.follow(Some(Arc::clone(&file)));
        self.current = Some(Current { file, salt, end, compacted_octets: end });
        for (older, path) in log_files(&*self.disk, &self.directory)? {
            if older < number {
                let _ = self.disk.remove(&path);
            }
        }
        Ok(())
    }
}

/// What the newest log in the queue directory says. A torn end is ignored, damage in the middle costs the entries that
/// it hits. `Version` for a log of a later release.
pub(crate) fn load(disk: &dyn Disk, queue_directory: &Path) -> Result<Loaded, QueueError> {
    let directory = queue_directory.join(ACTIVE);
    let mut loaded = Loaded::default();
    let Some((number, path)) = log_files(disk, &directory)?.into_iter().max() else { return Ok(loaded) };
    loaded.number = number;
    let failed = |error: io::Error| QueueError::io("read", &path, &error);
    let file = disk.open(&path, Open::Read).map_err(failed)?;
    let mut bytes = vec![0; file.metadata().map_err(failed)?.len() as usize];
    read_exact(disk, &file, &mut bytes, 0).map_err(failed)?;
    let headers = bytes.chunks(FILE_HEADER_OCTETS).take(2);
    let Some(salt) = headers.filter_map(|bytes| read_file_header(bytes, &path).transpose()).next().transpose()? else {
        loaded.notices.push(format!("{}: no header can be read: its facts are lost", path.display()));
        return Ok(loaded);
    };
    let finder = memmem::Finder::new(&ENTRY_MAGIC);
    let mut at = ENTRIES_AT.min(bytes.len());
    while at < bytes.len() {
        if let Some((entry, octets)) = read_entry(&bytes[at..], salt) {
            loaded.entries.push(entry);
            at += octets;
            continue;
        }
        let next = finder.find_iter(&bytes[at + 1..]).map(|skip| at + 1 + skip);
        match next.into_iter().find(|next| read_entry(&bytes[*next..], salt).is_some()) {
            Some(next) => {
                let octets = next - at;
                loaded.notices.push(format!("{}: {octets} octets at {at} cannot be read, skipped", path.display()));
                at = next;
            }
            None => {
                let octets = bytes.len() - at;
                loaded.notices.push(format!("{}: {octets} octets at the end are not whole, ignored", path.display()));
                break;
            }
        }
    }
    Ok(loaded)
}

/// `state.N` with their numbers.
fn log_files(disk: &dyn Disk, directory: &Path) -> Result<Vec<(u64, PathBuf)>, QueueError> {
    let number = |name: &String| name.strip_prefix(FILE_PREFIX)?.parse().ok();
    let names = names(disk, directory)?;
    Ok(names.iter().filter_map(|name| Some((number(name)?, directory.join(name)))).collect())
}

fn file_header(number: u64, salt: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(FILE_HEADER_OCTETS);
    out.extend_from_slice(&FILE_MAGIC);
    out.put_u16(FILE_VERSION);
    out.put_u16(0);
    out.put_u64(number);
    out.put_u32(salt);
    out.put_u32(crc32c::crc32c(&out));
    out
}

/// The salt of a file header; `None` when it is none.
fn read_file_header(bytes: &[u8], path: &Path) -> Result<Option<u32>, QueueError> {
    let Some((checked, crc)) = bytes.split_at_checked(FILE_HEADER_OCTETS - 4) else { return Ok(None) };
    if checked[..4] != FILE_MAGIC || crc != crc32c::crc32c(checked).to_le_bytes() {
        return Ok(None);
    }
    let version = u16::from_le_bytes([checked[4], checked[5]]);
    if version > FILE_VERSION {
        return Err(QueueError::Version(path.display().to_string().into(), version, FILE_VERSION));
    }
    Ok(Some(u32::from_le_bytes(checked[16..20].try_into().expect("four octets"))))
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

fn read_entry(bytes: &[u8], salt: u32) -> Option<(Entry, usize)> {
    let (header, rest) = bytes.split_at_checked(ENTRY_HEADER_OCTETS)?;
    let octets = u32::from_le_bytes(header[2..6].try_into().ok()?);
    let payload = rest.get(..octets as usize)?;
    let whole = header[..2] == ENTRY_MAGIC && header[6..] == entry_crc(salt, octets, payload).to_le_bytes();
    let entry = Entry::decode(payload).ok().filter(|_| whole)?;
    Some((entry, ENTRY_HEADER_OCTETS + payload.len()))
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
    dirty: bool,
    failed: bool,
    ending: bool,
}

impl Syncer {
    fn start(disk: Arc<dyn Disk>) -> Result<Self, QueueError> {
        let shared = Arc::new((Mutex::new(SyncState::default()), Condvar::new()));
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("state log".into());
        let thread = thread.spawn(move || sync_when_dirty(&*disk, &of_thread.0, &of_thread.1))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    fn wake(&self) {
        let mut state = lock(&self.shared.0);
        if !std::mem::replace(&mut state.dirty, true) {
            self.shared.1.notify_one();
        }
    }

    /// Sync this file from now on. The one before is dropped unsynced: the new one says all that it said.
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

fn sync_when_dirty(disk: &dyn Disk, state: &Mutex<SyncState>, changed: &Condvar) {
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
        drop(held);
        let synced = disk.sync_data(&file);
        held = lock(state);
        // It is the newer file's turn when the log moved on while this one was synced.
        if synced.is_err() && held.file.as_ref().is_some_and(|now| Arc::ptr_eq(now, &file)) {
            held.failed = true;
            held.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::disk::RealDisk;
    use crate::queue::id::QueueId;
    use crate::queue::testing::{Call, Directory, Faulty};
    use std::fs;

    fn fact(n: u64) -> Fact {
        Fact::Done { id: QueueId(n), recipients: vec![n as u32] }
    }

    fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
        range.map(|n| Entry::Fact(fact(n))).collect()
    }

    fn written(directory: &Directory, count: u64) -> PathBuf {
        let mut log = StateLog::new(RealDisk::shared(), directory.path(), 0).unwrap();
        log.compact(&mut std::iter::empty()).unwrap();
        for n in 0..count {
            assert!(log.append(&[fact(n)]));
        }
        directory.path().join("active/state.1")
    }

    #[test]
    fn facts_are_there_at_once_and_a_new_file_takes_them_over() {
        let directory = Directory::new();
        let mut log = StateLog::new(RealDisk::shared(), directory.path(), 0).unwrap();
        assert!(!log.append(&[fact(0)]), "there is no file yet");
        log.compact(&mut entries(0..2).into_iter()).unwrap();
        assert!(log.append(&[fact(2), fact(3)]));
        assert_eq!(load(&RealDisk, directory.path()).unwrap().entries, entries(0..4));
        log.compact(&mut entries(1..4).into_iter()).unwrap();
        assert!(log.append(&[fact(4)]));
        let loaded = load(&RealDisk, directory.path()).unwrap();
        assert_eq!((loaded.number, loaded.entries, loaded.notices), (2, entries(1..5), vec![]));
        assert_eq!(directory.files("active").len(), 1);
    }

    #[test]
    fn a_torn_end_costs_only_what_is_torn() {
        let directory = Directory::new();
        let path = written(&directory, 3);
        let whole = fs::read(&path).unwrap();
        let each = (whole.len() - ENTRIES_AT) / 3;
        for end in ENTRIES_AT..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let loaded = load(&RealDisk, directory.path()).unwrap();
            assert_eq!(loaded.entries, entries(0..((end - ENTRIES_AT) / each) as u64), "cut at {end}");
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
            assert_eq!(load(&RealDisk, directory.path()).unwrap().entries, expected, "bit {bit}");
        }
    }

    #[test]
    fn a_log_of_a_later_release_is_refused() {
        let directory = Directory::new();
        let path = written(&directory, 1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[4] = 2;
        let crc = crc32c::crc32c(&bytes[..FILE_HEADER_OCTETS - 4]).to_le_bytes();
        bytes[FILE_HEADER_OCTETS - 4..FILE_HEADER_OCTETS].copy_from_slice(&crc);
        fs::write(&path, bytes).unwrap();
        assert!(matches!(load(&RealDisk, directory.path()), Err(QueueError::Version(_, 2, 1))));
    }

    #[test]
    fn syncs_come_late_and_together_and_an_idle_log_has_none() {
        let directory = Directory::new();
        let disk = Arc::new(Faulty::default());
        let mut log = StateLog::new(Arc::clone(&disk) as Arc<dyn Disk>, directory.path(), 0).unwrap();
        log.compact(&mut std::iter::empty()).unwrap();
        for n in 0..100 {
            log.append(&[fact(n)]);
        }
        std::thread::sleep(SYNC_DELAY * 6);
        let syncs = disk.count(Call::Sync);
        assert!((2..=10).contains(&syncs), "{syncs} syncs");
        std::thread::sleep(SYNC_DELAY * 4);
        assert_eq!(disk.count(Call::Sync), syncs);
    }

    #[test]
    fn a_log_that_fails_is_left_for_a_new_one() {
        for disk in
            [Faulty::failing_write(3, io::ErrorKind::StorageFull), Faulty::failing_sync(2, io::ErrorKind::Other)]
        {
            let directory = Directory::new();
            let mut log = StateLog::new(Arc::new(disk), directory.path(), 0).unwrap();
            log.compact(&mut std::iter::empty()).unwrap();
            assert!(log.append(&[fact(0)]));
            std::thread::sleep(SYNC_DELAY * 4);
            assert!(!log.append(&[fact(1)]));
            assert!(log.wants_compaction());
            log.compact(&mut entries(0..2).into_iter()).unwrap();
            assert!(log.append(&[fact(2)]) && !log.wants_compaction());
            assert_eq!(load(&RealDisk, directory.path()).unwrap().entries, entries(0..3));
        }
    }
}
