//! Tools of the queue's tests: a temporary directory, a disk that counts and fails, messages.

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

/// The directory of one test, removed at its end.
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

    /// Return the segments of `incoming/` or `deferred/`, by name.
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

/// A kind of call on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Read,
    Write,
    /// A slot's own write (eight octets at 0), counted separately: its time depends on the clock.
    Reserve,
    Sync,
    Truncate,
    Rename,
    Remove,
    MakeDirectory,
    SyncDirectory,
    ReadDirectory,
}

/// `lasts` calls fail, from the `at`-th of their kind on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub call: Call,
    /// Counted from 1.
    pub at: u64,
    pub lasts: u64,
    /// `None`: a write writes half of its first buffer and returns that.
    pub errno: Option<Errno>,
}

/// A disk that counts its calls and fails some.
#[derive(Default)]
pub(crate) struct Faulty {
    counts: [AtomicU64; Call::ReadDirectory as usize + 1],
    faults: Mutex<Vec<Fault>>,
    sync_delay: Duration,
    unsynced: bool,
    /// The first sync of the directory with this name fails. Threads sync others, in any order.
    unstable: Mutex<Option<&'static str>>,
    /// While this is set, syncs of files with more octets wait.
    held_above: Mutex<Option<u64>>,
    released: Condvar,
    /// Files with a failed write or sync, and which: kept open, so that no other file gets their number.
    failed: Mutex<Vec<(File, Call)>>,
    /// Number of calls for a file that must not be used any more.
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

    /// Return a disk on which the first sync of the directory with this name fails.
    pub(crate) fn failing_sync_of(directory: &'static str) -> Self {
        Self { unstable: Mutex::new(Some(directory)), ..Self::default() }
    }

    /// Return a disk whose syncs count and do nothing.
    pub(crate) fn unsynced() -> Self {
        Self { unsynced: true, ..Self::default() }
    }

    /// Make all further calls succeed.
    pub(crate) fn heal(&self) {
        lock(&self.faults).clear();
    }

    /// Return a disk on which syncs of files with more octets wait until `release`.
    pub(crate) fn holding_syncs_above(octets: u64) -> Self {
        Self { held_above: Mutex::new(Some(octets)), ..Self::default() }
    }

    pub(crate) fn release(&self) {
        *lock(&self.held_above) = None;
        self.released.notify_all();
    }

    /// Make calls fail, besides earlier faults.
    pub(crate) fn fail(&self, fault: Fault) {
        lock(&self.faults).push(fault);
    }

    /// Return the number of calls of a kind.
    pub(crate) fn count(&self, call: Call) -> u64 {
        self.counts[call as usize].load(Ordering::SeqCst)
    }

    /// Return the number of syncs after a failed write or sync of the file, and of writes after a failed sync: there
    /// must be none.
    pub(crate) fn again(&self) -> u64 {
        self.again.load(Ordering::SeqCst)
    }

    /// Count a call; return the fault that hits it, if any.
    fn called(&self, call: Call) -> Option<Fault> {
        let count = self.counts[call as usize].fetch_add(1, Ordering::SeqCst) + 1;
        let hits = |fault: &&Fault| fault.call == call && (fault.at..fault.at + fault.lasts).contains(&count);
        lock(&self.faults).iter().find(hits).copied()
    }

    fn result(&self, call: Call) -> io::Result<()> {
        self.called(call).and_then(|fault| fault.errno).map_or(Ok(()), |errno| Err(errno.into()))
    }

    /// Check whether a file failed before; remember it when it fails now (and is not just interrupted).
    fn watch(&self, call: Call, file: &File, errno: Option<Errno>) {
        let number = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).unwrap();
        let mut failed = lock(&self.failed);
        let broken =
            |(known, before): &(File, Call)| number(known) == number(file) && [call, *before].contains(&Call::Sync);
        if failed.iter().any(broken) {
            self.again.fetch_add(1, Ordering::SeqCst);
        }
        if errno.is_some_and(|errno| errno != Errno::INTR) {
            // Open it anew: a copy of the descriptor would hold the file's lock.
            failed.push((File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap(), call));
        }
    }
}

/// Return an error number of that kind.
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

    /// A failing write first writes half of its first buffer, like a full disk.
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
        if lock(&self.unstable).take_if(|name| path.ends_with(*name)).is_some() {
            return Err(Errno::IO.into());
        }
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

/// Return an envelope with `recipients` recipients.
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

/// Return the journal's announcements to the queue manager.
pub(crate) fn frames(journal: &Journal) -> Vec<Frame> {
    let mut reader = FrameReader::default();
    let mut bytes = Vec::new();
    journal.take_announcements(&mut bytes);
    reader.receive(&bytes);
    std::iter::from_fn(|| reader.next_frame().unwrap()).collect()
}

/// Commit a message without a head to two recipients; return the result.
pub(crate) fn commit(journal: &Journal, body: &[u8]) -> Completion {
    commit_with_head(journal, b"", body)
}

/// Commit a message to two recipients; return the result.
pub(crate) fn commit_with_head(journal: &Journal, head: &[u8], body: &[u8]) -> Completion {
    let mut draft = journal.draft().unwrap();
    // A draft that broke during a write fails again at commit.
    let _ = draft.write(body);
    let envelope = envelope(draft.id(), 2);
    journal.commit(draft, head, &envelope, 77);
    let completions = journal.wait(Duration::from_secs(30));
    assert_eq!(completions.len(), 1);
    completions.into_iter().next().unwrap()
}

/// Return a copy of the queue after a crash: all written octets are there, and no lock is held.
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
