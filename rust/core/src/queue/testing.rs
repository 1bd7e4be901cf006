//! What the queue's tests share: a directory that goes away, a disk that counts and fails, messages.

use crate::ipc::frame::{Frame, FrameReader};
use crate::message::envelope::{Envelope, Recipient};
use crate::message::sink::Sink;
use crate::queue::disk::{Disk, RealDisk};
use crate::queue::id::QueueId;
use crate::queue::journal::{Completion, Journal};
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
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

/// A disk whose calls are counted, and whose n-th write or sync fails.
#[derive(Default)]
pub(crate) struct Faulty {
    pub writes: AtomicU64,
    pub syncs: AtomicU64,
    pub directory_syncs: AtomicU64,
    fail_write: Option<(u64, ErrorKind)>,
    fail_sync: Option<(u64, ErrorKind)>,
    fail_directory_sync: Option<u64>,
    sync_delay: Duration,
}

impl Faulty {
    pub(crate) fn counting(sync_delay: Duration) -> Self {
        Self { sync_delay, ..Self::default() }
    }
    pub(crate) fn failing_write(at: u64, kind: ErrorKind) -> Self {
        Self { fail_write: Some((at, kind)), ..Self::default() }
    }
    pub(crate) fn failing_sync(at: u64, kind: ErrorKind) -> Self {
        Self { fail_sync: Some((at, kind)), ..Self::default() }
    }
    pub(crate) fn failing_directory_sync(at: u64) -> Self {
        Self { fail_directory_sync: Some(at), ..Self::default() }
    }
}

impl Disk for Faulty {
    /// The failing write first writes half of its first buffer, as a full disk does.
    fn write_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let count = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some((at, kind)) = self.fail_write
            && count == at
        {
            RealDisk.write_at(file, &[IoSlice::new(&slices[0][..slices[0].len() / 2])], offset)?;
            return Err(kind.into());
        }
        RealDisk.write_at(file, slices, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        std::thread::sleep(self.sync_delay);
        let count = self.syncs.fetch_add(1, Ordering::SeqCst) + 1;
        match self.fail_sync {
            Some((at, kind)) if count == at => Err(kind.into()),
            _ => RealDisk.sync_data(file),
        }
    }

    fn truncate(&self, file: &File, octets: u64) -> io::Result<()> {
        RealDisk.truncate(file, octets)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let count = self.directory_syncs.fetch_add(1, Ordering::SeqCst) + 1;
        if self.fail_directory_sync == Some(count) {
            return Err(ErrorKind::Other.into());
        }
        RealDisk.sync_directory(path)
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
