//! What the queue's tests share: a directory that goes away, a disk that counts and fails, messages.

use crate::ipc::frame::{Frame, FrameReader};
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::id::QueueId;
use crate::mail::sink::Sink;
use crate::queue::disk::{Disk, Open, RealDisk};
use crate::queue::journal::{Completion, Journal, lock};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// A directory of one test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("postillion-queue-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The segments of `incoming/` or `deferred/`, by name.
    pub(crate) fn files(&self, directory: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.0.join(directory)) else { return vec![] };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| !path.file_name().unwrap().to_str().unwrap().starts_with("slot."));
        paths.sort();
        paths
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a disk is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Read,
    Write,
    /// A slot's own write (eight octets at 0), counted by itself: when it comes depends on the clock.
    Reserve,
    Sync,
    Truncate,
    Rename,
    Remove,
    MakeDirectory,
    SyncDirectory,
    ReadDirectory,
}

/// The calls from the `at`-th of its kind on, `lasts` of them, fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub call: Call,
    /// Counted from 1.
    pub at: u64,
    pub lasts: u64,
    /// `None`: a write writes half of its first buffer and says so.
    pub errno: Option<Errno>,
}

/// A disk whose calls are counted, and where some fail.
#[derive(Default)]
pub(crate) struct Faulty {
    counts: [AtomicU64; Call::ReadDirectory as usize + 1],
    faults: Mutex<Vec<Fault>>,
    sync_delay: Duration,
    unsynced: bool,
    /// Syncs of files with more octets wait while this is set.
    held_above: Mutex<Option<u64>>,
    released: Condvar,
    /// Files that a write or a sync failed for, and which: kept open, so that no other file gets their number.
    failed: Mutex<Vec<(File, Call)>>,
    /// Calls for a file that must not be trusted any more.
    again: AtomicU64,
}

impl Faulty {
    pub(crate) fn counting(sync_delay: Duration) -> Self {
        Self { sync_delay, ..Self::default() }
    }

    pub(crate) fn failing(call: Call, at: u64, errno: Errno) -> Self {
        let disk = Self::default();
        disk.fail(Fault { call, at, lasts: 1, errno: Some(errno) });
        disk
    }

    pub(crate) fn failing_write(at: u64, kind: ErrorKind) -> Self {
        Self::failing(Call::Write, at, errno(kind))
    }

    pub(crate) fn failing_sync(at: u64, kind: ErrorKind) -> Self {
        Self::failing(Call::Sync, at, errno(kind))
    }

    pub(crate) fn failing_directory_sync(at: u64) -> Self {
        Self::failing(Call::SyncDirectory, at, Errno::IO)
    }

    /// Syncs count, and do nothing.
    pub(crate) fn unsynced() -> Self {
        Self { unsynced: true, ..Self::default() }
    }

    /// Let nothing fail any more.
    pub(crate) fn heal(&self) {
        lock(&self.faults).clear();
    }

    /// Syncs of files with more octets wait until `release`.
    pub(crate) fn holding_syncs_above(octets: u64) -> Self {
        Self { held_above: Mutex::new(Some(octets)), ..Self::default() }
    }

    pub(crate) fn release(&self) {
        *lock(&self.held_above) = None;
        self.released.notify_all();
    }

    /// Let calls fail, besides those that do already.
    pub(crate) fn fail(&self, fault: Fault) {
        lock(&self.faults).push(fault);
    }

    /// Calls of a kind so far.
    pub(crate) fn count(&self, call: Call) -> u64 {
        self.counts[call as usize].load(Ordering::SeqCst)
    }

    /// Syncs of files that a write or a sync failed for, and writes to files that a sync failed for: there must be none.
    pub(crate) fn again(&self) -> u64 {
        self.again.load(Ordering::SeqCst)
    }

    /// Count a call: the fault that hits it, if any does.
    fn called(&self, call: Call) -> Option<Fault> {
        let count = self.counts[call as usize].fetch_add(1, Ordering::SeqCst) + 1;
        let hits = |fault: &&Fault| fault.call == call && (fault.at..fault.at + fault.lasts).contains(&count);
        lock(&self.faults).iter().find(hits).copied()
    }

    fn result(&self, call: Call) -> io::Result<()> {
        self.called(call).and_then(|fault| fault.errno).map_or(Ok(()), |errno| Err(errno.into()))
    }

    /// Look whether a file failed before; when it fails now (and is not just interrupted), remember it.
    fn watch(&self, call: Call, file: &File, errno: Option<Errno>) {
        let number = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).unwrap();
        let mut failed = lock(&self.failed);
        let broken =
            |(known, before): &(File, Call)| number(known) == number(file) && [call, *before].contains(&Call::Sync);
        if failed.iter().any(broken) {
            self.again.fetch_add(1, Ordering::SeqCst);
        }
        if errno.is_some_and(|errno| errno != Errno::INTR) {
            // Opened anew: a copy of the descriptor would hold the file's lock.
            failed.push((File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap(), call));
        }
    }
}

/// An error number of that kind.
fn errno(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::StorageFull => Errno::NOSPC,
        ErrorKind::QuotaExceeded => Errno::DQUOT,
        ErrorKind::FileTooLarge => Errno::FBIG,
        _ => Errno::IO,
    }
}

impl Disk for Faulty {
    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        self.result(Call::Open)?;
        RealDisk.open(path, how)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.result(Call::Read)?;
        RealDisk.read_at(file, buffer, offset)
    }

    /// The failing write first writes half of its first buffer, as a full disk does.
    fn write_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let reserves = offset == 0 && slices.len() == 1 && slices[0].len() == 8;
        let fault = self.called(if reserves { Call::Reserve } else { Call::Write });
        self.watch(Call::Write, file, fault.and_then(|fault| fault.errno));
        let Some(Fault { errno, .. }) = fault else { return RealDisk.write_at(file, slices, offset) };
        if errno == Some(Errno::INTR) {
            return Err(Errno::INTR.into());
        }
        let half = slices[0].len().div_ceil(2);
        let octets = RealDisk.write_at(file, &[IoSlice::new(&slices[0][..half])], offset)?;
        errno.map_or(Ok(octets), |errno| Err(errno.into()))
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        std::thread::sleep(self.sync_delay);
        let held = |above: &mut Option<u64>| above.is_some_and(|octets| file.metadata().unwrap().len() > octets);
        drop(self.released.wait_while(lock(&self.held_above), held).unwrap());
        let errno = self.called(Call::Sync).and_then(|fault| fault.errno);
        self.watch(Call::Sync, file, errno);
        match errno {
            Some(errno) => Err(errno.into()),
            None if self.unsynced => Ok(()),
            None => RealDisk.sync_data(file),
        }
    }

    fn truncate(&self, file: &File, octets: u64) -> io::Result<()> {
        self.result(Call::Truncate)?;
        RealDisk.truncate(file, octets)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.result(Call::Rename)?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.result(Call::Remove)?;
        RealDisk.remove(path)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.result(Call::MakeDirectory)?;
        RealDisk.make_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.result(Call::SyncDirectory)?;
        if self.unsynced {
            return Ok(());
        }
        RealDisk.sync_directory(path)
    }

    fn read_directory(&self, path: &Path) -> io::Result<Vec<String>> {
        self.result(Call::ReadDirectory)?;
        RealDisk.read_directory(path)
    }
}

/// An envelope with `recipients` recipients.
pub(crate) fn envelope(id: QueueId, recipients: usize) -> Envelope {
    Envelope {
        size_octets: 7,
        attributes: vec![("client_name".into(), "localhost".into())],
        ..Envelope::plain(
            id,
            "sender@example.org",
            (0..recipients).map(|n| Recipient::plain(&format!("r{n}@example.net"))).collect(),
        )
    }
}

/// What the journal tells the queue manager now.
pub(crate) fn frames(journal: &Journal) -> Vec<Frame> {
    let mut reader = FrameReader::default();
    let mut bytes = Vec::new();
    journal.take_announcements(&mut bytes);
    reader.receive(&bytes);
    std::iter::from_fn(|| reader.next_frame().unwrap()).collect()
}

/// Commit a message of `content` to two recipients; returns what came of it.
pub(crate) fn commit(journal: &Journal, content: &[u8]) -> Completion {
    let mut draft = journal.draft().unwrap();
    // A draft that broke while it was written says so again at commit.
    let _ = draft.write(content);
    let envelope = envelope(draft.id(), 2);
    journal.commit(draft, &envelope, 77);
    let completions = journal.wait(Duration::from_secs(30));
    assert_eq!(completions.len(), 1);
    completions.into_iter().next().unwrap()
}

/// A copy of the queue as a crash leaves it: what is written is there, and nobody holds a lock.
pub(crate) fn crash_image(queue: &Directory) -> Directory {
    let image = Directory::new();
    for name in ["incoming", "deferred", "active", "corrupt"] {
        let Ok(entries) = fs::read_dir(queue.path().join(name)) else { continue };
        fs::create_dir_all(image.path().join(name)).unwrap();
        for entry in entries {
            let path = entry.unwrap().path();
            fs::copy(&path, image.path().join(name).join(path.file_name().unwrap())).unwrap();
        }
    }
    image
}
