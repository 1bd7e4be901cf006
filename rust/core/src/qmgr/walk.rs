//! Walks over the whole queue by threads of their own: a listing, and the search for a site's mail.
//!
//! A thread gets a snapshot of the catalogue, reads envelopes segment by segment, and tells what it found; the loop of
//! the queue manager reads nothing for it. A listing goes into a pipe whose other end its reader has. A reader that
//! takes nothing for long loses it. Threads give way to everything else on the machine.

use super::destination::Destination;
use super::listing::{queue_name, waits_for};
use super::route::domain;
use super::scheduler::Scheduler;
use super::waits::Waits;
use crate::clock::{Now, SECOND_US};
use crate::mail::envelope::Envelope;
use crate::mail::id::QueueId;
use crate::mail::locator::SegmentId;
use crate::pickup::listing::list_submissions;
use crate::queue::catalogue::{Entry, Place, Snapshot};
use crate::queue::listing::rows::{Form, Head, Rows, Tail};
use crate::queue::listing::{CHUNK_OCTETS, print};
use crate::queue::segment::envelopes::{EnvelopeReader, EnvelopeView};
use crate::queue::state::Kept;
use crate::queue::store::Store;
use crate::queue::store::unannounced::Unannounced;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Walks at a time.
pub const WALKS_MAX: usize = 16;
/// Walks at a time for users that are not the queue's; some are left for those who are.
pub const WALKS_FOR_OTHERS_MAX: usize = 12;
/// A listing ends when its reader takes nothing for so many seconds.
pub const STALLED_MAX_S: u32 = 600;
/// IDs that a search tells of at a time.
const FOUND_A_TIME: usize = 1000;
/// Messages that a thread prints before the other one's part follows.
const PART_MESSAGES: usize = 4096;
/// Parts that the second thread of a listing prints before they are handed on.
const PARTS_AHEAD: usize = 2;
/// Octets that wait for a listing's reader.
const PIPE_OCTETS: usize = 1 << 20;
/// How much a thread gives way (nice(1)): a listing on a busy machine is there soon, as long as it is short.
const NICE: i32 = 10;
/// The same for a listing of more than one part: those who send mail are not to notice it.
const NICE_LONG: i32 = 19;
/// A reader that takes nothing is looked at so often, to see whether the queue manager ends.
const LOOK_S: i64 = 1;
/// What a message waits for that is on disk and not in the catalogue yet.
const UNANNOUNCED: &str = "for the queue manager to hear of it";

/// What a walk tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A listing for this peer came to its end.
    Listed {
        /// Who asked.
        peer: u32,
        /// Messages listed.
        messages: u64,
    },
    /// Mail for the site that was searched for.
    Found(Vec<QueueId>),
    /// A thread is done.
    Over,
}

/// The walks that are under way.
#[derive(Debug)]
pub struct Walks {
    event: Option<Arc<OwnedFd>>,
    told: Arc<Mutex<Vec<Told>>>,
    stop: Arc<AtomicBool>,
    running: usize,
}

impl Default for Walks {
    fn default() -> Self {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok().map(Arc::new);
        Self { event, told: Arc::default(), stop: Arc::default(), running: 0 }
    }
}

impl Drop for Walks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Walks {
    /// Readable when a walk told something; `None` where the system gave no descriptor, and there are no walks.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.event.as_ref().map(|event| event.as_fd())
    }

    /// What walks told since the last call. `event_fd` is quiet afterwards.
    pub fn told(&mut self) -> Vec<Told> {
        if self.running == 0 {
            return Vec::new();
        }
        if let Some(event) = &self.event {
            let _ = rustix::io::read(event, &mut [0; 8]);
        }
        let mut all = std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        let over = |told: &Told| *told == Told::Over;
        self.running -= all.iter().filter(|told| over(told)).count();
        all.retain(|told| !over(told));
        all
    }

    fn start(&mut self, privileged: bool, work: impl FnOnce(&Teller) + Send + 'static) -> io::Result<()> {
        let most = if privileged { WALKS_MAX } else { WALKS_FOR_OTHERS_MAX };
        let Some(event) = self.event.as_ref().filter(|_| self.running < most) else {
            return Err(io::Error::other("too many listings of the queue at a time, try again later"));
        };
        let teller = Teller { event: Arc::clone(event), told: Arc::clone(&self.told), stop: Arc::clone(&self.stop) };
        thread::Builder::new().name("walk".into()).spawn(move || {
            give_way(NICE);
            work(&teller);
            teller.tell(Told::Over);
        })?;
        self.running += 1;
        Ok(())
    }

    /// List the queue for a peer; the end of the pipe to be read. `privileged`: the peer's user owns the queue.
    pub fn list(
        &mut self,
        peer: u32,
        privileged: bool,
        scheduler: &Scheduler,
        store: &impl Store,
        form: Form,
        now: Now,
    ) -> io::Result<OwnedFd> {
        let Some(queue_directory) = store.queue_directory() else {
            return Err(io::Error::other("this queue has no directory"));
        };
        let (reader, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        // Fewer turns between the two processes; a pipe stays as it is where the system grants no more.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_OCTETS);
        let long_queue_ids = scheduler.settings().long_queue_ids;
        let listing = Listing {
            snapshot: scheduler.catalogue().snapshot(),
            active: scheduler.waits_of_active(now),
            crowded: scheduler.waits_of_crowds(),
            unannounced: store.unannounced(),
            queue_directory: queue_directory.to_path_buf(),
            long_queue_ids,
            now,
        };
        self.start(privileged, move |teller| {
            if let Some(messages) = listing.write(Rows::new(form, long_queue_ids), &writer, teller) {
                drop(writer);
                teller.tell(Told::Listed { peer, messages });
            }
        })?;
        Ok(reader.into())
    }

    /// Search for deferred messages that have a recipient in `site` (lower case).
    pub fn find_site(&mut self, scheduler: &Scheduler, queue_directory: &Path, site: &str) -> io::Result<()> {
        let (snapshot, site) = (scheduler.catalogue().snapshot(), site.to_owned());
        let mut reader = EnvelopeReader::new(queue_directory);
        self.start(true, move |teller| {
            let mut found = Vec::new();
            for (_, _, _, slot) in order(&snapshot, |place| place == Place::Deferred) {
                if teller.stopped() {
                    return;
                }
                let Some(entry) = snapshot.get(slot) else { continue };
                let view = reader.read(&entry.at()).ok().and_then(|bytes| EnvelopeView::new(bytes).ok());
                let in_site = |(to, _): (&str, Option<&str>)| domain(to).eq_ignore_ascii_case(&site);
                if view.is_some_and(|view| view.recipients().any(in_site)) {
                    found.push(entry.id());
                }
                if found.len() >= FOUND_A_TIME {
                    teller.tell(Told::Found(std::mem::take(&mut found)));
                }
            }
            teller.tell(Told::Found(found));
        })
    }
}

/// Make this thread nicer than its process; where that is not granted, nothing is lost.
fn give_way(nice: i32) {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
}

struct Teller {
    event: Arc<OwnedFd>,
    told: Arc<Mutex<Vec<Told>>>,
    stop: Arc<AtomicBool>,
}

impl Teller {
    fn tell(&self, told: Told) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(told);
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A message's turn: Postfix's order of the queues, then its place on disk.
type Turn = (u8, SegmentId, u64, u32);

/// The slots of messages in the order in which their envelopes are read best.
fn order(snapshot: &Snapshot, wanted: impl Fn(Place) -> bool) -> Vec<Turn> {
    let rank = |place| match place {
        Place::Loading | Place::Active(_) => 0,
        Place::Fresh | Place::Overflow(_) => 1,
        Place::Deferred => 2,
        Place::Held => 3,
    };
    let turn = |entry: Entry<'_>| {
        let at = entry.at();
        (rank(entry.place()), at.segment, at.offset, entry.slot())
    };
    let mut turns: Vec<Turn> = snapshot.iter().filter(|entry| wanted(entry.place())).map(turn).collect();
    turns.sort_unstable();
    turns
}

/// A queue as it was when somebody asked for it.
struct Listing {
    snapshot: Snapshot,
    active: HashMap<u32, Waits>,
    crowded: HashMap<u32, Waits>,
    unannounced: Unannounced,
    queue_directory: PathBuf,
    long_queue_ids: bool,
    now: Now,
}

impl Listing {
    /// Print everything; how many messages, or `None` when the reader went away.
    ///
    /// Of a long listing a second thread prints every other part, so that two processors work on it.
    fn write(&self, rows: Rows, to: &PipeWriter, teller: &Teller) -> Option<u64> {
        let hand_on = |rows: &mut Rows, all: bool| {
            let whole = all || rows.out.len() >= CHUNK_OCTETS;
            let goes_on = !whole || write_all(to, rows.out.as_bytes(), teller);
            if whole {
                rows.out.clear();
            }
            goes_on
        };
        let turns = order(&self.snapshot, |_| true);
        let mut printer = self.printer(rows);
        if !list_submissions(&self.queue_directory, &mut printer.rows, &mut |rows| hand_on(rows, false)) {
            return None;
        }
        // After maildrop/: what pickup took from there meanwhile is in a segment.
        let mut print_unannounced = |envelope: &Envelope| {
            print(&mut printer.rows, envelope, &Kept::default(), self.long_queue_ids, UNANNOUNCED);
            hand_on(&mut printer.rows, false)
        };
        if !self.unannounced.read(&self.queue_directory, &mut print_unannounced) {
            return None;
        }
        let whole = thread::scope(|scope| {
            let (send, receive) = sync_channel(PARTS_AHEAD);
            let begun = printer.rows.continuation();
            if turns.len() > PART_MESSAGES {
                give_way(NICE_LONG);
                let parts = turns.chunks(PART_MESSAGES).skip(1).step_by(2);
                scope.spawn(|| self.print_parts(parts, begun, send, teller));
            }
            for (number, part) in turns.chunks(PART_MESSAGES).enumerate() {
                if number % 2 == 1 {
                    let Ok(rows) = receive.recv() else { return false };
                    printer.rows.append(&rows);
                } else {
                    part.iter().for_each(|(_, _, _, slot)| printer.print(*slot));
                }
                if !hand_on(&mut printer.rows, false) {
                    return false;
                }
            }
            true
        });
        printer.rows.finish();
        (whole && hand_on(&mut printer.rows, true)).then(|| printer.rows.messages())
    }

    /// Print parts for the thread that hands them on, which reads them in their order.
    fn print_parts<'a>(
        &self,
        parts: impl Iterator<Item = &'a [Turn]>,
        rows: Rows,
        send: SyncSender<Rows>,
        teller: &Teller,
    ) {
        give_way(NICE_LONG);
        let mut printer = self.printer(rows);
        for part in parts {
            part.iter().for_each(|(_, _, _, slot)| printer.print(*slot));
            let next = printer.rows.continuation();
            if teller.stopped() || send.send(std::mem::replace(&mut printer.rows, next)).is_err() {
                return;
            }
        }
    }

    fn printer(&self, rows: Rows) -> Printer<'_> {
        Printer { listing: self, reader: EnvelopeReader::new(&self.queue_directory), rows }
    }
}

/// Prints messages of a listing.
struct Printer<'a> {
    listing: &'a Listing,
    reader: EnvelopeReader,
    rows: Rows,
}

impl Printer<'_> {
    fn print(&mut self, slot: u32) {
        let listing = self.listing;
        let Some(entry) = listing.snapshot.get(slot) else { return };
        // What cannot be read is gone meanwhile, or damaged: the queue manager says so when it tries it.
        let Some(view) = self.reader.read(&entry.at()).ok().and_then(|bytes| EnvelopeView::new(bytes).ok()) else {
            return;
        };
        let waits = match (listing.active.get(&slot), entry.place()) {
            (Some(waits), _) => waits.clone(),
            (None, Place::Held) => Waits::Held,
            (None, Place::Deferred) if entry.due_us() > listing.now.mono_us => {
                let until_us = listing.now.wall_us + (entry.due_us() - listing.now.mono_us);
                Waits::Deferred { until_us, attempts: entry.attempts() }
            }
            (None, Place::Loading) => Waits::Reading,
            (None, Place::Overflow(key)) => listing.crowded.get(&key).cloned().unwrap_or(Waits::NoRoom),
            _ => Waits::NoRoom,
        };
        self.rows.begin(&Head {
            queue: queue_name(entry.place()),
            name: &entry.id().text(listing.long_queue_ids),
            arrival_s: view.arrival_us / SECOND_US,
            size_octets: view.size_octets,
            forced_expire: entry.forced_expire(),
            sender: view.sender,
        });
        for (index, (address, original)) in (0u32..).zip(view.recipients()) {
            if !entry.is_done(index) {
                self.rows.recipient(address, original, entry.reason(index).map(|status| &**status));
            }
        }
        let (text, next_us) = waits_for(&waits);
        self.rows.end(&Tail {
            attempts: entry.attempts(),
            next_attempt_s: next_us.map(|us| us / SECOND_US),
            waits: &text,
        });
    }
}

/// Write everything; false when the reader is gone, takes nothing for too long, or the queue manager ends.
fn write_all(to: &PipeWriter, bytes: &[u8], teller: &Teller) -> bool {
    let mut rest = bytes;
    let mut stalled_s = 0;
    while !rest.is_empty() {
        if teller.stopped() || stalled_s >= STALLED_MAX_S {
            return false;
        }
        match rustix::io::write(to, rest) {
            Ok(written) => {
                rest = &rest[written..];
                stalled_s = 0;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let patience = Timespec { tv_sec: LOOK_S, tv_nsec: 0 };
                if matches!(poll(&mut [PollFd::new(to, PollFlags::OUT)], Some(&patience)), Ok(0)) {
                    stalled_s += 1;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

impl Scheduler {
    /// What the messages that are being delivered wait for, by their slots.
    fn waits_of_active(&self, now: Now) -> HashMap<u32, Waits> {
        self.active.iter().map(|(_, message)| (message.slot, self.waits(message.slot, now))).collect()
    }

    /// What the messages wait for that are left out of the active queue for their destination, by its key.
    fn waits_of_crowds(&self) -> HashMap<u32, Waits> {
        let crowded =
            self.destinations.iter().filter(|(_, destination)| destination.crowd.iter().any(|line| !line.is_empty()));
        let waits = |(key, destination): (u32, &Destination)| {
            let transport = Arc::clone(&self.transports[destination.transport as usize].name);
            (key, Waits::Crowded { transport, nexthop: Arc::clone(&destination.nexthop) })
        };
        crowded.map(waits).collect()
    }
}
