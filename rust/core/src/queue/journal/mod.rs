//! The journal: where a process that receives mail makes it durable.
//!
//! `draft` gives a name, `commit` hands the message to the writer thread (`writer.rs`) or, when it is large, to one
//! beside it (`large.rs`), and once it is stable on disk
//! `event_fd` is readable and `completed` says so. What was committed is announced to the queue manager with
//! `take_announcements`. Announcements are a convenience, not a promise: they may be lost or dropped, for the queue
//! manager reads what it was not told of from the segment itself.

pub mod appender;
pub mod draft;
mod group_commit;
mod large;
pub(crate) mod slot;
mod writer;

use super::INCOMING;
use super::segment::record::ENVELOPE_MAX_OCTETS;
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

/// How long an answer of the file system about its free space is believed.
const SPACE_BELIEVED: Duration = Duration::from_secs(1);
/// One `Arrived` frame holds at most so many octets, or one message.
const ARRIVED_OCTETS: usize = 256 * 1024;
/// While nobody takes them, so many octets of announcements are kept; older ones are dropped, the queue manager reads
/// the segment instead.
const ANNOUNCED_MAX_OCTETS: usize = 8 * 1024 * 1024;
/// While nobody takes them, so many sealed segments are remembered.
const SEALED_MAX: usize = 4096;

/// Limits of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// A segment that has reached so many octets is sealed.
    pub segment_max_octets: u64,
    /// A segment is sealed so long after its first record.
    pub segment_max_age: Duration,
    /// A message with more octets of content gets a segment of its own.
    pub large_message_octets: u64,
    /// A segment that is written much has zeros ahead of its records, in pieces of so many octets; 0: none.
    pub ahead_octets: u64,
    /// `queue_minfree`: no draft is given while the file system has less free space; 0 asks nothing.
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

/// What came of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The caller's number.
    pub ticket: u64,
    /// The message.
    pub id: QueueId,
    /// Its place, stable on disk; or why there is none, and then the message is not in the queue.
    pub result: Result<Locator, QueueError>,
}

/// A process's journal. Every method takes `&self`: share it as `Arc<Journal>`.
pub struct Journal {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Journal {
    /// A journal in `queue_directory`, with a writer thread. It has no segment until something is committed.
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

    /// A new message, with its name. `NoSpace` while `queue_minfree` does not hold.
    pub fn draft(&self) -> Result<Draft, QueueError> {
        self.shared.check_space()?;
        let id = lock(&self.shared.slot).next_id(wall_now_us())?;
        Ok(Draft::new(Arc::clone(&self.shared), id))
    }

    /// Make a message durable. Returns at once; `completed` names the `ticket` when it is done. `envelope.id` must be
    /// the draft's.
    pub fn commit(&self, draft: Draft, envelope: &Envelope, ticket: u64) {
        let id = draft.id();
        let mut encoded = Vec::with_capacity(512);
        envelope.encode(&mut encoded);
        let body = if envelope.id != id {
            Err(QueueError::Io(io::ErrorKind::InvalidInput, "the envelope names another message".into()))
        } else if encoded.len() > ENVELOPE_MAX_OCTETS {
            let text = format!("an envelope of {} octets, at most {ENVELOPE_MAX_OCTETS} fit", encoded.len());
            Err(QueueError::Io(io::ErrorKind::InvalidInput, text.into()))
        } else {
            draft.finish(&encoded)
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

    /// Wake a thread for a large message or, when all have something to do, start one more.
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
                // One that runs already comes to it.
                Err(_) => {}
            }
        }
        self.shared.large_work.notify_one();
    }

    /// What was decided since the last call, without waiting. `event_fd` is quiet afterwards.
    pub fn completed(&self) -> Vec<Completion> {
        // The counter first: what completes in between is announced again, never missed.
        let _ = rustix::io::read(&self.shared.event, &mut [0u8; 8]);
        std::mem::take(&mut lock(&self.shared.queue).completions)
    }

    /// As `completed`, but waits until there is something, at most `timeout`.
    pub fn wait(&self, timeout: Duration) -> Vec<Completion> {
        let queue = lock(&self.shared.queue);
        let waited = self.shared.done.wait_timeout_while(queue, timeout, |queue| queue.completions.is_empty());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.completed()
    }

    /// Append `Arrived` and `Sealed` frames about everything durable that was not taken yet; and where some were
    /// dropped, a `Producer` frame behind them, so that the queue manager reads what they were about.
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

    /// Octets of announcements that wait to be taken.
    pub fn unannounced_octets(&self) -> usize {
        lock(&self.shared.queue).announcements.arrived_octets
    }

    /// Append the frame that a producer says first: its segment and where the last commit ends. The queue manager
    /// reads from disk what stands before, so announcements of single messages are dropped.
    pub fn hello(&self, pid: u32, out: &mut Vec<u8>) {
        let mut queue = lock(&self.shared.queue);
        let (segment, end) = queue.current.unwrap_or((SegmentId(0), 0));
        queue.announcements.forget_arrived();
        queue.announcements.dropped = false;
        drop(queue);
        Frame::Producer { pid, segment, end }.encode(out);
    }

    /// Readable while `completed` has something to say.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// Write what is pending, seal the segment, end the threads. What is committed later fails. Idempotent.
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

/// What the journal, its drafts and its writer thread share.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    /// `incoming/`
    pub directory: PathBuf,
    pub options: JournalOptions,
    slot: Mutex<Slot>,
    space: Mutex<Option<(Instant, bool)>>,
    pub queue: Mutex<Queue>,
    /// A small message is pending, or the journal ends.
    pub work: Condvar,
    /// A large message is pending, or the journal ends.
    pub large_work: Condvar,
    /// Something is completed.
    pub done: Condvar,
    event: OwnedFd,
}

/// What goes to the writer thread and comes from it.
#[derive(Default)]
pub(crate) struct Queue {
    pub small: VecDeque<Pending>,
    /// The writer thread is asleep until so many small messages are pending.
    pub awaited: usize,
    pub large: VecDeque<Pending>,
    /// Threads for large messages, and those of them that have nothing to do.
    pub large_writers: usize,
    pub large_idle: usize,
    pub completions: Vec<Completion>,
    pub announcements: Announcements,
    /// The segment in use and its committed octets.
    pub current: Option<(SegmentId, u64)>,
    /// Finish what is pending and end.
    pub ending: bool,
    /// The writer thread is gone.
    pub ended: bool,
}

/// A message on its way to the disk.
pub(crate) struct Pending {
    pub ticket: u64,
    pub id: QueueId,
    pub body: Body,
}

impl Queue {
    /// Answer every large message that waits with an error.
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

    /// Wake whoever waits for completions.
    pub(crate) fn signal(&self) {
        // The counter can only be full when nobody reads it, and then it is readable already.
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

/// What the queue manager is to be told, in order.
#[derive(Default)]
pub(crate) struct Announcements {
    entries: VecDeque<Announcement>,
    arrived_octets: usize,
    sealed: usize,
    /// Some were forgotten that nobody took.
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

/// A panic elsewhere while the lock was held left every value whole: each change is one push or one store.
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
    fn where_announcements_were_dropped_the_place_is_told() {
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
    fn a_commit_is_announced_and_is_where_it_says() {
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
    fn messages_that_come_while_a_sync_runs_share_the_next_one() {
        const MESSAGES: u64 = 200;
        let directory = Directory::new();
        let disk = Arc::new(Faulty::counting(Duration::from_millis(50)));
        let journal = open_on(Arc::clone(&disk), &directory, JournalOptions::default());
        for ticket in 0..MESSAGES {
            let draft = journal.draft().unwrap();
            let envelope = envelope(draft.id(), 1);
            journal.commit(draft, &envelope, ticket);
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
    fn an_idle_journal_writes_nothing_and_one_with_a_segment_seals_it_in_time() {
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
    fn a_segment_is_sealed_when_it_is_long_enough() {
        let directory = Directory::new();
        let options = JournalOptions { segment_max_octets: 600, ..Default::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        let segments: Vec<_> = (0..4).map(|_| commit(&journal, &[b'x'; 200]).result.unwrap().segment).collect();
        assert!(segments[0] == segments[1] && segments[1] != segments[2] && segments[2] == segments[3]);
    }

    #[test]
    fn nothing_is_written_or_synced_again_after_it_failed() {
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
    fn a_segment_without_a_stable_name_is_not_kept() {
        let directory = Directory::new();
        let journal = open_on(Arc::new(Faulty::failing_directory_sync(1)), &directory, JournalOptions::default());
        assert_eq!(commit(&journal, b"x").result.unwrap_err().reply().0, 451);
        assert_eq!(directory.files(INCOMING).len(), 0);
        assert!(commit(&journal, b"x").result.is_ok());
    }

    #[test]
    fn a_large_message_streams_to_a_segment_of_its_own_and_counts_only_when_committed() {
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
    fn a_draft_that_broke_stays_broken() {
        let directory = Directory::new();
        let options = JournalOptions { large_message_octets: 1000, ..Default::default() };
        let journal = open_on(Arc::new(Faulty::failing_write(1, ErrorKind::StorageFull)), &directory, options);
        let mut draft = journal.draft().unwrap();
        assert_eq!(draft.write(&[b'x'; 2000]).unwrap_err().kind(), ErrorKind::StorageFull);
        assert!(draft.write(b"more").is_err());
        let envelope = envelope(draft.id(), 1);
        journal.commit(draft, &envelope, 1);
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
    fn two_writers_share_a_directory_and_neither_a_segment_nor_an_id() {
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
    fn a_closed_journal_refuses_and_the_wrong_envelope_is_refused() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let draft = journal.draft().unwrap();
        let other = envelope(QueueId(1), 1);
        journal.commit(draft, &other, 3);
        let completions = journal.wait(Duration::from_secs(30));
        assert!(completions[0].ticket == 3 && completions[0].result.is_err());
        journal.close();
        assert_eq!(commit(&journal, b"x").result.unwrap_err().reply().0, 451);
    }

    #[test]
    fn announcements_that_nobody_takes_are_bounded() {
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
