//! A listing of the queue, from a snapshot into a pipe.
//!
//! The reader of the pipe is a command. A listing ends when its reader goes away, takes nothing for too long, or when the
//! queue manager stops. Two threads print a long listing.

use super::listing_text::waits_for;
use super::scheduler::Scheduler;
use super::scheduler::waits::Waits;
use super::threads::{ReadOrder, Report, Reporter, SLICE_MESSAGES, Threads, Throttle, read_order, set_nice};
use crate::clock::{Now, SECOND_US};
use crate::mail::envelope::Envelope;
use crate::pickup::listing::list_submissions;
use crate::queue::catalogue::{Place, Snapshot};
use crate::queue::listing::rows::{Form, Head, Rows, Tail};
use crate::queue::listing::{CHUNK_OCTETS, print};
use crate::queue::segment::envelopes::{EnvelopeReader, EnvelopeView};
use crate::queue::state::Kept;
use crate::queue::store::Store;
use crate::queue::store::unannounced::Unannounced;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

/// Timeout of a listing whose reader takes nothing.
pub const STALLED_MAX_S: u32 = 600;
/// Messages that a thread prints before the other thread's part follows. A shorter listing has one thread.
const PART_MESSAGES: usize = 4096;
/// Maximum number of parts that the second thread prints ahead.
const PARTS_AHEAD: usize = 2;
/// Octets that a pipe holds for the reader of a listing.
const PIPE_OCTETS: usize = 1 << 20;
/// Niceness of the threads of a long listing: senders of mail are not to notice it.
const NICE_LONG: i32 = 19;
/// Interval of the checks whether the queue manager stops, while the reader takes nothing.
const STOP_POLL_S: i64 = 1;
/// The words for a message that is on disk and not yet in the catalogue.
const UNANNOUNCED: &str = "for the queue manager to hear of it";

/// List the queue for a client, and return the read end of the pipe. `privileged`: the client's user owns the queue.
pub fn list(
    threads: &mut Threads,
    client: u32,
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
    // A larger pipe means fewer switches between the two processes. Without permission it keeps its size.
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_OCTETS);
    let listing = Listing::new(scheduler, store.unannounced(), queue_directory, now);
    let rows = Rows::new(form, scheduler.settings().long_queue_ids);
    threads.start(privileged, move |reporter| {
        if let Some(messages) = listing.write(rows, &writer, reporter) {
            drop(writer);
            reporter.send(Report::Listed { client, messages });
        }
    })?;
    Ok(reader.into())
}

/// The queue as of the moment of a request.
struct Listing {
    snapshot: Snapshot,
    active: HashMap<u32, Waits>,
    overflow: HashMap<u32, Waits>,
    unannounced: Unannounced,
    queue_directory: PathBuf,
    long_queue_ids: bool,
    now: Now,
}

impl Listing {
    /// Take a snapshot of the queue.
    fn new(scheduler: &Scheduler, unannounced: Unannounced, queue_directory: &Path, now: Now) -> Self {
        Self {
            snapshot: scheduler.catalogue().snapshot(),
            active: scheduler.waits_of_active(now),
            overflow: scheduler.waits_of_overflow(),
            unannounced,
            queue_directory: queue_directory.to_path_buf(),
            long_queue_ids: scheduler.settings().long_queue_ids,
            now,
        }
    }

    /// Print everything, and return the number of messages; `None` when the reader went away.
    ///
    /// A second thread prints every other part of a long listing, so that two processors work on it.
    fn write(&self, rows: Rows, to: &PipeWriter, reporter: &Reporter) -> Option<u64> {
        let hand_on = |rows: &mut Rows, all: bool| {
            let whole = all || rows.out.len() >= CHUNK_OCTETS;
            let goes_on = !whole || write_all(to, rows.out.as_bytes(), reporter);
            if whole {
                rows.out.clear();
            }
            goes_on
        };
        let order = read_order(&self.snapshot, |_| true);
        let mut printer = self.printer(rows);
        if !list_submissions(&self.queue_directory, &mut printer.rows, &mut |rows| hand_on(rows, false)) {
            return None;
        }
        // After maildrop/: a message that pickup took from there meanwhile is in a segment.
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
            let long = order.len() > PART_MESSAGES;
            if long {
                set_nice(NICE_LONG);
                let parts = order.chunks(PART_MESSAGES).skip(1).step_by(2);
                scope.spawn(|| self.print_parts(parts, begun, send, reporter));
            }
            for (number, part) in order.chunks(PART_MESSAGES).enumerate() {
                if number % 2 == 1 {
                    let Ok(rows) = receive.recv() else { return false };
                    printer.rows.append(&rows);
                } else {
                    printer.print_part(part, long, reporter);
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

    /// Print parts for the thread that writes them.
    fn print_parts<'a>(
        &self,
        parts: impl Iterator<Item = &'a [ReadOrder]>,
        rows: Rows,
        send: SyncSender<Rows>,
        reporter: &Reporter,
    ) {
        set_nice(NICE_LONG);
        let mut printer = self.printer(rows);
        for part in parts {
            printer.print_part(part, true, reporter);
            let next = printer.rows.continuation();
            if reporter.stopped() || send.send(std::mem::replace(&mut printer.rows, next)).is_err() {
                return;
            }
        }
    }

    fn printer(&self, rows: Rows) -> Printer<'_> {
        let throttle = Throttle::new(Instant::now());
        Printer { listing: self, reader: EnvelopeReader::new(&self.queue_directory), rows, throttle }
    }
}

/// Prints messages of a listing.
struct Printer<'a> {
    listing: &'a Listing,
    reader: EnvelopeReader,
    rows: Rows,
    throttle: Throttle,
}

impl Printer<'_> {
    /// Print a part; `long`: of a long listing, which pauses while mail arrives.
    fn print_part(&mut self, part: &[ReadOrder], long: bool, reporter: &Reporter) {
        for slice in part.chunks(SLICE_MESSAGES) {
            let begun = Instant::now();
            slice.iter().for_each(|(_, _, _, slot)| self.print(*slot));
            if long && !reporter.stopped() {
                self.throttle.wait(begun, reporter);
            }
        }
    }

    fn print(&mut self, slot: u32) {
        let listing = self.listing;
        let Some(entry) = listing.snapshot.get(slot) else { return };
        // An unreadable message is gone by now, or damaged: the queue manager logs that at the next attempt.
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
            (None, Place::Overflow(key)) => listing.overflow.get(&key).cloned().unwrap_or(Waits::NoRoom),
            _ => Waits::NoRoom,
        };
        self.rows.begin(&Head {
            queue: entry.place().queue_name(),
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

/// Write everything; return false when the reader is gone, takes nothing for too long, or the queue manager stops.
fn write_all(to: &PipeWriter, bytes: &[u8], reporter: &Reporter) -> bool {
    let mut rest = bytes;
    let mut stalled_s = 0;
    while !rest.is_empty() {
        if reporter.stopped() || stalled_s >= STALLED_MAX_S {
            return false;
        }
        match rustix::io::write(to, rest) {
            Ok(written) => {
                rest = &rest[written..];
                stalled_s = 0;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let timeout = Timespec { tv_sec: STOP_POLL_S, tv_nsec: 0 };
                if matches!(poll(&mut [PollFd::new(to, PollFlags::OUT)], Some(&timeout)), Ok(0)) {
                    stalled_s += 1;
                }
            }
            Err(_) => return false,
        }
    }
    true
}
