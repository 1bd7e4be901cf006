//! The state log returns every noted fact, and damage costs only the entries it hits.

use super::form::{ENTRIES_AT, FILE_HEADER_OCTETS, FILE_VERSION};
use super::syncer::SYNC_DELAY;
use super::*;
use crate::mail::id::QueueId;
use crate::queue::disk::RealDisk;
use crate::queue::proofs::testing::{Call, Directory, Fault, Faulty};
use rustix::io::Errno;
use std::fs;

fn fact(n: u64) -> Fact {
    Fact::Done { id: QueueId(n), recipients: vec![n as u32].into() }
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
fn facts_are_readable_at_once_and_a_base_takes_them_over() {
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
fn a_start_continues_in_a_new_file() {
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

/// Play a compaction step by step: after each call on the disk that changes something, a crash finds all noted facts,
/// whichever part of the last step it keeps.
#[test]
fn a_crash_at_any_step_of_a_compaction_loses_no_fact() {
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
        // An unfinished file counts for nothing.
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

/// Return the facts in the order of their messages, each once.
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
fn a_torn_end_costs_only_the_torn_entry() {
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
fn a_flipped_bit_costs_one_entry_or_one_of_two_headers() {
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
fn a_log_of_a_newer_release_is_refused() {
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
fn syncs_are_delayed_and_shared_and_an_idle_log_has_none() {
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
fn a_failed_file_is_abandoned_for_a_new_one() {
    for disk in [Faulty::failing_write(3, io::ErrorKind::StorageFull), Faulty::failing_sync(1, io::ErrorKind::Other)] {
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
