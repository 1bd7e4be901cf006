//! The journal: where a process that receives mail makes it durable.
//!
//! `draft` returns a new message with a queue ID. `commit` hands it to the writer thread (`writer.rs`) or, when it is
//! large, to a thread beside it (`large.rs`). Once the message is stable on disk, `event_fd` is readable and
//! `completed` returns it. `take_announcements` returns the announcements for the queue manager. They only save time
//! and may be lost or dropped: the queue manager reads unannounced messages from the segment itself.

pub mod appender;
pub mod draft;
mod group_commit;
mod large;
pub(crate) mod slot;
mod writer;

use super::INCOMING;
use super::segment::record::{ENVELOPE_MAX_OCTETS, HEAD_MAX_OCTETS};
use crate::clock::wall_now_us;
use crate::ipc::frame::{Frame, encode_arrived};
use crate::mail::envelope::Envelope;
use crate::mail::id::QueueId;
use crate::mail::locator::{Locator, SegmentId};
use crate::queue::disk::{Disk, RealDisk};
use crate::queue::error::QueueError;
use crate::queue::segment::{AHEAD_PIECE_MAX_OCTETS, make_directory};
use draft::{Body, Draft};
use rustix::event::{EventfdFlags, eventfd};
use slot::Slot;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest time that a result of the free space check is reused.
const SPACE_BELIEVED: Duration = Duration::from_secs(1);
/// Maximum number of octets in an `Arrived` frame; one message may be longer.
const ARRIVED_OCTETS: usize = 256 * 1024;
/// Maximum number of octets of announcements kept while nobody takes them. Older ones are dropped: the queue manager
/// reads the segment instead.
const ANNOUNCED_MAX_OCTETS: usize = 8 * 1024 * 1024;
/// Maximum number of sealed segments remembered while nobody takes them.
const SEALED_MAX: usize = 4096;

/// Limits of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// Size at which a segment is sealed.
    pub segment_max_octets: u64,
    /// Age at which a segment is sealed, counted from its first record.
    pub segment_max_age: Duration,
    /// Maximum octets of a body in a shared segment; a longer message gets a segment of its own.
    pub large_message_octets: u64,
    /// Octets in one write of zeros ahead of the records of a busy segment; 0 writes none.
    pub ahead_octets: u64,
    /// `queue_minfree`: minimum free space for a new draft; 0 disables the check.
    pub minfree_octets: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_max_octets: 32 * 1024 * 1024,
            segment_max_age: Duration::from_secs(30),
            large_message_octets: 1024 * 1024,
            ahead_octets: AHEAD_PIECE_MAX_OCTETS,
            minfree_octets: 0,
        }
    }
}

/// The result of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The caller's number for the commit.
    pub ticket: u64,
    /// The message.
    pub id: QueueId,
    /// Its place, stable on disk; or the error, and then the message is not in the queue.
    pub result: Result<Locator, QueueError>,
}

/// A process's journal. Every method takes `&self`: share it as `Arc<Journal>`.
pub struct Journal {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Journal {
    /// Open a journal in `queue_directory` and start its writer thread. The first commit makes the first segment.
    pub fn open(queue_directory: &Path, options: JournalOptions) -> Result<Self, QueueError> {
        Self::open_on(RealDisk::shared(), queue_directory, options)
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        queue_directory: &Path,
        options: JournalOptions,
    ) -> Result<Self, QueueError> {
        let directory = make_directory(&*disk, queue_directory, INCOMING)?;
        let slot = Mutex::new(Slot::take(&disk, &directory)?);
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let shared = Arc::new(Shared {
            disk,
            directory,
            options,
            slot,
            space: Mutex::new(None),
            queue: Mutex::new(Queue::default()),
            work: Condvar::new(),
            large_work: Condvar::new(),
            done: Condvar::new(),
            event,
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("journal".into());
        let writer = thread.spawn(move || writer::run(&of_thread))?;
        Ok(Self { shared, threads: Mutex::new(vec![writer]) })
    }

    /// Return a new message with a queue ID. `NoSpace` while `queue_minfree` is not met.
    pub fn draft(&self) -> Result<Draft, QueueError> {
        self.shared.check_space()?;
        let id = lock(&self.shared.slot).next_id(wall_now_us())?;
        Ok(Draft::new(Arc::clone(&self.shared), id))
    }

    /// Make a message durable. Return at once; `completed` names the `ticket` when it is done. `head`: the header fields
    /// in wire form, and the empty line before the body. `envelope.id` must be the draft's ID.
    pub fn commit(&self, draft: Draft, head: &[u8], envelope: &Envelope, ticket: u64) {
        let id = draft.id();
        let mut encoded = Vec::with_capacity(512);
        envelope.encode(&mut encoded);
        let body = if envelope.id != id {
            Err(QueueError::Io(io::ErrorKind::InvalidInput, "the envelope has the ID of another message".into()))
        } else if head.len() > HEAD_MAX_OCTETS {
            let text = format!("the header has {} octets, the limit is {HEAD_MAX_OCTETS}", head.len());
            Err(QueueError::Io(io::ErrorKind::InvalidInput, text.into()))
        } else if encoded.len() > ENVELOPE_MAX_OCTETS {
            let text = format!("the envelope has {} octets, the limit is {ENVELOPE_MAX_OCTETS}", encoded.len());
            Err(QueueError::Io(io::ErrorKind::InvalidInput, text.into()))
        } else {
            draft.finish(head, &encoded)
        };
        let mut queue = lock(&self.shared.queue);
        let over = queue.ending || queue.ended;
        let body = if over { Err(QueueError::from(io::Error::other("the journal is closed"))) } else { body };
        match body {
            Ok(body @ Body::Small { .. }) => {
                queue.small.push_back(Pending { ticket, id, body });
                let wakes = queue.small.len() >= queue.awaited;
                drop(queue);
                if wakes {
                    self.shared.work.notify_one();
                }
            }
            Ok(body @ Body::Large { .. }) => {
                queue.large.push_back(Pending { ticket, id, body });
                self.see_to_large(&mut queue);
            }
            Err(error) => {
                queue.completions.push(Completion { ticket, id, result: Err(error) });
                self.shared.signal();
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Wake a thread for a large message or, when all are busy, start one more.
    fn see_to_large(&self, queue: &mut Queue) {
        if queue.large_idle < queue.large.len() && queue.large_writers < large::LARGE_WRITERS_MAX {
            match large::start(&self.shared) {
                Ok(thread) => {
                    queue.large_writers += 1;
                    lock(&self.threads).push(thread);
                }
                Err(error) if queue.large_writers == 0 => {
                    queue.refuse_large(&QueueError::from(error));
                    self.shared.signal();
                }
                // A running thread will take it.
                Err(_) => {}
            }
        }
        self.shared.large_work.notify_one();
    }

    /// Return the commits that finished since the last call, without waiting. Resets `event_fd`.
    pub fn completed(&self) -> Vec<Completion> {
        // Reset the counter first: a commit that finishes in between is signalled again, never missed.
        let _ = rustix::io::read(&self.shared.event, &mut [0u8; 8]);
        std::mem::take(&mut lock(&self.shared.queue).completions)
    }

    /// Like `completed`, but wait until a commit finishes, at most `timeout`.
    pub fn wait(&self, timeout: Duration) -> Vec<Completion> {
        let queue = lock(&self.shared.queue);
        let waited = self.shared.done.wait_timeout_while(queue, timeout, |queue| queue.completions.is_empty());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.completed()
    }

    /// Append `Arrived` and `Sealed` frames about durable messages that were not taken yet. Where some were dropped, a
    /// `Producer` frame follows them, so that the queue manager reads these messages from disk.
    pub fn take_announcements(&self, out: &mut Vec<u8>) {
        let mut queue = lock(&self.shared.queue);
        let announcements = std::mem::take(&mut queue.announcements);
        let current = queue.current.filter(|_| announcements.dropped);
        drop(queue);
        announcements.encode(out);
        if let Some((segment, end)) = current {
            Frame::Producer { pid: std::process::id(), segment, end }.encode(out);
        }
    }

    /// Return the octets of announcements that wait to be taken.
    pub fn unannounced_octets(&self) -> usize {
        lock(&self.shared.queue).announcements.arrived_octets
    }

    /// Append a producer's first frame: its segment and the end of the last commit. The queue manager reads the part
    /// before that end from disk, so announcements of single messages are dropped.
    pub fn hello(&self, pid: u32, out: &mut Vec<u8>) {
        let mut queue = lock(&self.shared.queue);
        let (segment, end) = queue.current.unwrap_or((SegmentId(0), 0));
        queue.announcements.forget_arrived();
        queue.announcements.dropped = false;
        drop(queue);
        Frame::Producer { pid, segment, end }.encode(out);
    }

    /// Readable while `completed` has results.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// Write all pending messages, seal the segment, end the threads. Later commits fail. Idempotent.
    pub fn close(&self) {
        lock(&self.shared.queue).ending = true;
        self.shared.work.notify_all();
        self.shared.large_work.notify_all();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// The state that the journal, its drafts and its threads share.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    /// `incoming/`
    pub directory: PathBuf,
    pub options: JournalOptions,
    slot: Mutex<Slot>,
    space: Mutex<Option<(Instant, bool)>>,
    pub queue: Mutex<Queue>,
    /// Signals a pending small message, or the journal's end.
    pub work: Condvar,
    /// Signals a pending large message, or the journal's end.
    pub large_work: Condvar,
    /// Signals a finished commit.
    pub done: Condvar,
    event: OwnedFd,
}

/// The work and the results of the writer thread.
#[derive(Default)]
pub(crate) struct Queue {
    pub small: VecDeque<Pending>,
    /// Number of pending small messages that wakes the writer thread.
    pub awaited: usize,
    pub large: VecDeque<Pending>,
    /// Number of threads for large messages, and of idle ones among them.
    pub large_writers: usize,
    pub large_idle: usize,
    pub completions: Vec<Completion>,
    pub announcements: Announcements,
    /// The current segment and its committed octets.
    pub current: Option<(SegmentId, u64)>,
    /// Set to finish all pending messages and end.
    pub ending: bool,
    /// The writer thread has ended.
    pub ended: bool,
}

/// A message on its way to disk.
pub(crate) struct Pending {
    pub ticket: u64,
    pub id: QueueId,
    pub body: Body,
}

impl Queue {
    /// Fail all waiting large messages with `error`.
    pub(crate) fn refuse_large(&mut self, error: &QueueError) {
        let refused = |pending: Pending| Completion::refused(&pending, error);
        self.completions.extend(self.large.drain(..).map(refused));
    }
}

impl Completion {
    pub(crate) fn refused(pending: &Pending, error: &QueueError) -> Self {
        Self { ticket: pending.ticket, id: pending.id, result: Err(error.clone()) }
    }
}

impl Shared {
    pub(crate) fn segment_id(&self) -> Result<SegmentId, QueueError> {
        Ok(SegmentId(lock(&self.slot).next_id(wall_now_us())?.0))
    }

    /// Wake all threads that wait for completions.
    pub(crate) fn signal(&self) {
        // The counter is full only when nobody reads it; then it is readable already.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        self.done.notify_all();
    }

    fn check_space(&self) -> Result<(), QueueError> {
        if self.options.minfree_octets == 0 {
            return Ok(());
        }
        let mut space = lock(&self.space);
        let enough = match *space {
            Some((at, enough)) if at.elapsed() < SPACE_BELIEVED => enough,
            _ => {
                let found = rustix::fs::statvfs(&self.directory).map_err(io::Error::from)?;
                let enough = found.f_bavail.saturating_mul(found.f_frsize) >= self.options.minfree_octets;
                *space = Some((Instant::now(), enough));
                enough
            }
        };
        if enough { Ok(()) } else { Err(QueueError::NoSpace) }
    }
}

/// The announcements for the queue manager, in order.
#[derive(Default)]
pub(crate) struct Announcements {
    entries: VecDeque<Announcement>,
    arrived_octets: usize,
    sealed: usize,
    /// Some announcements were dropped before anybody took them.
    dropped: bool,
}

enum Announcement {
    Arrived { count: u32, encoded: Vec<u8> },
    Sealed { segment: SegmentId, end: u64 },
}

impl Announcements {
    pub(crate) fn arrived(&mut self, locator: &Locator, envelope: &[u8]) {
        let octets = Locator::ENCODED_OCTETS + envelope.len();
        let full = |encoded: &Vec<u8>| encoded.len() + octets > ARRIVED_OCTETS;
        match self.entries.back_mut() {
            Some(Announcement::Arrived { count, encoded }) if !full(encoded) => {
                *count += 1;
                locator.encode(encoded);
                encoded.extend_from_slice(envelope);
            }
            _ => {
                let mut encoded = Vec::with_capacity(octets);
                locator.encode(&mut encoded);
                encoded.extend_from_slice(envelope);
                self.entries.push_back(Announcement::Arrived { count: 1, encoded });
            }
        }
        self.arrived_octets += octets;
        if self.arrived_octets > ANNOUNCED_MAX_OCTETS {
            self.forget_arrived();
            self.dropped = true;
        }
    }

    pub(crate) fn sealed(&mut self, segment: SegmentId, end: u64) {
        self.entries.push_back(Announcement::Sealed { segment, end });
        self.sealed += 1;
        if self.sealed > SEALED_MAX {
            let oldest = self.entries.iter().position(|entry| matches!(entry, Announcement::Sealed { .. }));
            oldest.map(|at| self.entries.remove(at));
            self.sealed -= 1;
        }
    }

    fn forget_arrived(&mut self) {
        self.entries.retain(|entry| matches!(entry, Announcement::Sealed { .. }));
        self.arrived_octets = 0;
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for entry in &self.entries {
            match entry {
                Announcement::Arrived { count, encoded } => encode_arrived(*count, encoded, out),
                Announcement::Sealed { segment, end } => Frame::Sealed { segment: *segment, end: *end }.encode(out),
            }
        }
    }
}

/// Lock a mutex, poisoned or not. A panic under the lock leaves every value whole: each change is one push or one
/// store.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::frame::FrameReader;
    use crate::mail::sink::Sink;
    use crate::queue::proofs::testing::{Call, Directory, Faulty, commit, envelope, frames};
    use crate::queue::read_content;
    use crate::queue::segment::is_live;
    use std::fs::File;
    use std::io::ErrorKind;

    fn hello(journal: &Journal) -> Frame {
        let mut reader = FrameReader::default();
        let mut bytes = Vec::new();
        journal.hello(7, &mut bytes);
        reader.receive(&bytes);
        reader.next_frame().unwrap().unwrap()
    }

    fn open_on(disk: Arc<Faulty>, directory: &Directory, options: JournalOptions) -> Journal {
        Journal::open_on(disk, directory.path(), options).unwrap()
    }

    #[test]
    fn dropped_announcements_leave_a_producer_frame() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let place = commit(&journal, b"one\r\n").result.unwrap();
        assert!(journal.unannounced_octets() > 0);
        lock(&journal.shared.queue).announcements.arrived(&place, &[0; ANNOUNCED_MAX_OCTETS]);
        assert_eq!(journal.unannounced_octets(), 0);
        let end = place.offset + place.record_octets;
        let told = Frame::Producer { pid: std::process::id(), segment: place.segment, end };
        assert_eq!(frames(&journal), [told]);
        assert_eq!(frames(&journal), []);
    }

    #[test]
    fn a_commit_is_announced_with_its_place_on_disk() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        assert_eq!(hello(&journal), Frame::Producer { pid: 7, segment: SegmentId(0), end: 0 });
        let first = commit(&journal, b"one\r\n");
        let second = commit(&journal, b"two\r\n");
        let (one, two) = (first.result.unwrap(), second.result.unwrap());
        assert!(second.id > first.id);
        assert_eq!((two.segment, two.offset), (one.segment, one.offset + one.record_octets));
        let path = format!("incoming/{}", two.segment.file_name());
        assert_eq!(read_content(directory.path(), &path, &two).unwrap(), b"two\r\n");
        let told: Vec<_> = frames(&journal)
            .into_iter()
            .flat_map(|frame| if let Frame::Arrived(arrivals) = frame { arrivals } else { panic!("{frame:?}") })
            .map(|arrival| (arrival.locator, arrival.envelope))
            .collect();
        assert_eq!(told, [(one, envelope(first.id, 2)), (two, envelope(second.id, 2))]);
        assert_eq!(frames(&journal), []);
        let end = two.offset + two.record_octets;
        assert_eq!(hello(&journal), Frame::Producer { pid: 7, segment: two.segment, end });
        journal.close();
        assert_eq!(frames(&journal), [Frame::Sealed { segment: two.segment, end }]);
        assert!(!is_live(&File::open(directory.path().join(path)).unwrap()));
        assert_eq!(hello(&journal), Frame::Producer { pid: 7, segment: SegmentId(0), end: 0 });
    }

    #[test]
    fn messages_that_arrive_during_a_sync_share_the_next_one() {
        const MESSAGES: u64 = 200;
        let directory = Directory::new();
        let disk = Arc::new(Faulty::counting(Duration::from_millis(50)));
        let journal = open_on(Arc::clone(&disk), &directory, JournalOptions::default());
        for ticket in 0..MESSAGES {
            let draft = journal.draft().unwrap();
            let envelope = envelope(draft.id(), 1);
            journal.commit(draft, b"", &envelope, ticket);
        }
        let mut tickets = Vec::new();
        while tickets.len() < MESSAGES as usize {
            let completions = journal.wait(Duration::from_secs(30));
            assert!(!completions.is_empty());
            tickets.extend(completions.into_iter().map(|completion| {
                assert!(completion.result.is_ok());
                completion.ticket
            }));
        }
        assert!(tickets.into_iter().eq(0..MESSAGES));
        let syncs = disk.count(Call::Sync);
        assert!((1..=10).contains(&syncs), "{syncs} syncs");
        assert_eq!(disk.count(Call::SyncDirectory), 1);
    }

    #[test]
    fn an_idle_journal_writes_nothing_and_seals_its_segment_in_time() {
        let directory = Directory::new();
        let disk = Arc::new(Faulty::default());
        let options = JournalOptions { segment_max_age: Duration::from_millis(100), ..Default::default() };
        let journal = open_on(Arc::clone(&disk), &directory, options);
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(directory.files(INCOMING).len(), 0);
        let first = commit(&journal, b"x").result.unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let end = first.offset + first.record_octets;
        assert_eq!(frames(&journal).pop(), Some(Frame::Sealed { segment: first.segment, end }));
        assert_ne!(commit(&journal, b"x").result.unwrap().segment, first.segment);
        assert_eq!(disk.count(Call::Sync), 2);
    }

    #[test]
    fn a_segment_is_sealed_at_its_maximum_size() {
        let directory = Directory::new();
        let options = JournalOptions { segment_max_octets: 600, ..Default::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        let segments: Vec<_> = (0..4).map(|_| commit(&journal, &[b'x'; 200]).result.unwrap().segment).collect();
        assert!(segments[0] == segments[1] && segments[1] != segments[2] && segments[2] == segments[3]);
    }

    #[test]
    fn a_file_is_not_written_or_synced_again_after_an_error() {
        for (name, disk, code) in [
            ("full", Faulty::failing_write(2, ErrorKind::StorageFull), 452),
            ("quota", Faulty::failing_write(2, ErrorKind::QuotaExceeded), 452),
            ("file size", Faulty::failing_write(2, ErrorKind::FileTooLarge), 452),
            ("full at sync", Faulty::failing_sync(2, ErrorKind::StorageFull), 452),
            ("write", Faulty::failing_write(2, ErrorKind::Other), 451),
            ("sync", Faulty::failing_sync(2, ErrorKind::Other), 451),
        ] {
            let directory = Directory::new();
            let disk = Arc::new(disk);
            let journal = open_on(Arc::clone(&disk), &directory, JournalOptions::default());
            let first = commit(&journal, b"one").result.unwrap();
            let octets = first.offset + first.record_octets;
            assert_eq!(commit(&journal, b"two").result.unwrap_err().reply().0, code, "{name}");
            let path = directory.path().join(INCOMING).join(first.segment.file_name());
            assert_eq!(path.metadata().unwrap().len(), octets, "{name}: nothing half-written stays");
            let third = commit(&journal, b"three").result.unwrap();
            assert_ne!(third.segment, first.segment, "{name}");
            assert_eq!(path.metadata().unwrap().len(), octets, "{name}");
            let sealed: Vec<_> = frames(&journal).into_iter().filter(|f| matches!(f, Frame::Sealed { .. })).collect();
            assert_eq!(sealed, [Frame::Sealed { segment: first.segment, end: octets }], "{name}");
            assert_eq!(disk.again(), 0, "{name}");
        }
    }

    #[test]
    fn a_segment_without_a_stable_name_is_removed() {
        let directory = Directory::new();
        let journal = open_on(Arc::new(Faulty::failing_directory_sync(1)), &directory, JournalOptions::default());
        assert_eq!(commit(&journal, b"x").result.unwrap_err().reply().0, 451);
        assert_eq!(directory.files(INCOMING).len(), 0);
        assert!(commit(&journal, b"x").result.is_ok());
    }

    #[test]
    fn a_large_message_streams_to_its_own_segment_and_counts_only_when_committed() {
        let directory = Directory::new();
        let disk = Arc::new(Faulty::failing_sync(3, ErrorKind::Other));
        let options = JournalOptions { large_message_octets: 1000, ..Default::default() };
        let journal = open_on(disk, &directory, options);
        let small = commit(&journal, b"small").result.unwrap();
        let mut draft = journal.draft().unwrap();
        for _ in 0..300 {
            draft.write(&[b'x'; 2000]).unwrap();
        }
        let files = directory.files(INCOMING);
        assert!(files[1].to_str().unwrap().contains("new.") && files[1].metadata().unwrap().len() > 500_000);
        drop(draft);
        assert_eq!(directory.files(INCOMING).len(), 1, "a dropped draft leaves nothing");
        let large = commit(&journal, &[b'y'; 700_000]).result.unwrap();
        assert_ne!(large.segment, small.segment);
        let end = large.offset + large.record_octets;
        assert_eq!(frames(&journal).pop(), Some(Frame::Sealed { segment: large.segment, end }));
        let path = format!("incoming/{}", large.segment.file_name());
        assert_eq!(read_content(directory.path(), &path, &large).unwrap(), [b'y'; 700_000]);
        assert_eq!(commit(&journal, &[b'z'; 700_000]).result.unwrap_err().reply().0, 451);
        assert_eq!(directory.files(INCOMING).len(), 2, "a failed commit leaves nothing");
    }

    #[test]
    fn a_broken_draft_stays_broken() {
        let directory = Directory::new();
        let options = JournalOptions { large_message_octets: 1000, ..Default::default() };
        let journal = open_on(Arc::new(Faulty::failing_write(1, ErrorKind::StorageFull)), &directory, options);
        let mut draft = journal.draft().unwrap();
        assert_eq!(draft.write(&[b'x'; 2000]).unwrap_err().kind(), ErrorKind::StorageFull);
        assert!(draft.write(b"more").is_err());
        let envelope = envelope(draft.id(), 1);
        journal.commit(draft, b"", &envelope, 1);
        assert_eq!(journal.completed()[0].result, Err(QueueError::NoSpace));
        assert_eq!(directory.files(INCOMING).len(), 0);
    }

    #[test]
    fn minfree_holds() {
        let directory = Directory::new();
        let options = JournalOptions { minfree_octets: u64::MAX, ..Default::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        assert_eq!(journal.draft().err(), Some(QueueError::NoSpace));
    }

    #[test]
    fn two_writers_share_a_directory_but_no_segment_and_no_id() {
        let directory = Directory::new();
        let journals = [(); 2].map(|()| Journal::open(directory.path(), JournalOptions::default()).unwrap());
        let mut ids = std::collections::HashSet::new();
        let mut segments = std::collections::HashSet::new();
        std::thread::scope(|scope| {
            let run = |journal| (0..50).map(|_| commit(journal, b"x")).collect::<Vec<_>>();
            let threads = journals.each_ref().map(|journal| scope.spawn(move || run(journal)));
            for completion in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
                assert!(ids.insert(completion.id));
                segments.insert(completion.result.unwrap().segment);
            }
        });
        assert_eq!((ids.len(), segments.len()), (100, 2));
    }

    #[test]
    fn a_closed_journal_and_a_wrong_envelope_are_refused() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let draft = journal.draft().unwrap();
        let other = envelope(QueueId(1), 1);
        journal.commit(draft, b"", &other, 3);
        let completions = journal.wait(Duration::from_secs(30));
        assert!(completions[0].ticket == 3 && completions[0].result.is_err());
        journal.close();
        assert_eq!(commit(&journal, b"x").result.unwrap_err().reply().0, 451);
    }

    #[test]
    fn announcements_that_nobody_takes_are_limited() {
        let mut announcements = Announcements::default();
        let locator = Locator { segment: SegmentId(1), offset: 0, record_octets: 1 };
        for n in 0..100_000 {
            announcements.arrived(&locator, &[0; 1000]);
            announcements.sealed(SegmentId(n), 1);
        }
        assert!(announcements.arrived_octets <= ANNOUNCED_MAX_OCTETS);
        assert!(announcements.entries.len() <= SEALED_MAX + ANNOUNCED_MAX_OCTETS / 1000);
        let kept = |entry: &Announcement| matches!(entry, Announcement::Sealed { segment, .. } if segment.0 == 99_999);
        assert!(announcements.entries.iter().any(kept), "the newest are kept");
    }
}
