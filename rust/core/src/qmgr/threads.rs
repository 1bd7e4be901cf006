//! Threads that read the whole queue: listings, and the search for the mail of a site.
//!
//! A thread gets a snapshot of the catalogue, reads envelopes segment by segment, and reports what it found. The queue
//! manager's loop reads nothing for it. Threads have a low priority, and work only a part of the time while mail
//! arrives, so that acceptance keeps its rate.

use super::route::domain;
use super::scheduler::Scheduler;
use crate::mail::id::QueueId;
use crate::mail::locator::SegmentId;
use crate::queue::catalogue::{Entry, Place, Snapshot};
use crate::queue::segment::envelopes::{EnvelopeReader, EnvelopeView};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum number of listings and searches at a time.
pub const LISTINGS_MAX: usize = 16;
/// The same for users who do not own the queue, so that some are left for those who do.
pub const LISTINGS_FOR_OTHERS_MAX: usize = 12;
/// Maximum number of IDs in one report of a search.
const FOUND_IDS_MAX: usize = 1000;
/// Niceness of a thread (nice(1)). A short listing is fast on a busy machine, too.
const NICE: i32 = 10;
/// Messages that a thread reads between two checks for new mail: some 0.5 ms of work.
pub(super) const SLICE_MESSAGES: usize = 128;
/// While mail arrives, a thread pauses for this multiple of its working time: it works a sixth of the time.
const PAUSE_FACTOR: u32 = 5;
/// Longest pause, however long the last slice took.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// Mail counts as arriving for this time after an announcement.
const ARRIVING_FOR: Duration = Duration::from_millis(100);

/// A report of a thread to the queue manager's loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The end of a client's listing.
    Listed {
        /// The client that asked.
        client: u32,
        /// Number of messages.
        messages: u64,
    },
    /// Messages for the site of a search.
    Found(Vec<QueueId>),
    /// The end of a thread.
    Over,
}

/// The threads at work.
#[derive(Debug)]
pub struct Threads {
    event: Option<Arc<OwnedFd>>,
    reports: Arc<Mutex<Vec<Report>>>,
    stop: Arc<AtomicBool>,
    announcements: Arc<AtomicU64>,
    running: usize,
}

impl Default for Threads {
    fn default() -> Self {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok().map(Arc::new);
        Self { event, reports: Arc::default(), stop: Arc::default(), announcements: Arc::default(), running: 0 }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Threads {
    /// Return a descriptor that is readable when there is a report; `None` when the system has no descriptor left, and
    /// there are no threads.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.event.as_ref().map(|event| event.as_fd())
    }

    /// Note that mail arrived: threads work less for a while.
    pub fn note_announcement(&self) {
        self.announcements.fetch_add(1, Ordering::Relaxed);
    }

    /// Return the reports since the last call, and reset `event_fd`.
    pub fn take(&mut self) -> Vec<Report> {
        if self.running == 0 {
            return Vec::new();
        }
        if let Some(event) = &self.event {
            let _ = rustix::io::read(event, &mut [0; 8]);
        }
        let mut all = std::mem::take(&mut *self.reports.lock().unwrap_or_else(PoisonError::into_inner));
        let over = |report: &Report| *report == Report::Over;
        self.running -= all.iter().filter(|report| over(report)).count();
        all.retain(|report| !over(report));
        all
    }

    /// Start a thread. `privileged`: for a user who owns the queue.
    pub(super) fn start(&mut self, privileged: bool, work: impl FnOnce(&Reporter) + Send + 'static) -> io::Result<()> {
        let most = if privileged { LISTINGS_MAX } else { LISTINGS_FOR_OTHERS_MAX };
        let Some(event) = self.event.as_ref().filter(|_| self.running < most) else {
            return Err(io::Error::other("too many listings of the queue at a time, try again later"));
        };
        let reporter = Reporter {
            event: Arc::clone(event),
            reports: Arc::clone(&self.reports),
            stop: Arc::clone(&self.stop),
            announcements: Arc::clone(&self.announcements),
        };
        thread::Builder::new().name("listing".into()).spawn(move || {
            set_nice(NICE);
            work(&reporter);
            reporter.send(Report::Over);
        })?;
        self.running += 1;
        Ok(())
    }

    /// Search for deferred messages with a recipient in `site` (lower case).
    pub fn find_site(&mut self, scheduler: &Scheduler, queue_directory: &Path, site: &str) -> io::Result<()> {
        let (snapshot, site) = (scheduler.catalogue().snapshot(), site.to_owned());
        let mut reader = EnvelopeReader::new(queue_directory);
        self.start(true, move |reporter| {
            let mut found = Vec::new();
            let mut throttle = Throttle::new(Instant::now());
            for slice in read_order(&snapshot, |place| place == Place::Deferred).chunks(SLICE_MESSAGES) {
                let begun = Instant::now();
                for (_, _, _, slot) in slice {
                    let Some(entry) = snapshot.get(*slot) else { continue };
                    let view = reader.read(&entry.at()).ok().and_then(|bytes| EnvelopeView::new(bytes).ok());
                    let in_site = |(to, _): (&str, Option<&str>)| domain(to).eq_ignore_ascii_case(&site);
                    if view.is_some_and(|view| view.recipients().any(in_site)) {
                        found.push(entry.id());
                    }
                }
                if found.len() >= FOUND_IDS_MAX {
                    reporter.send(Report::Found(std::mem::take(&mut found)));
                }
                throttle.wait(begun, reporter);
                if reporter.stopped() {
                    return;
                }
            }
            reporter.send(Report::Found(found));
        })
    }
}

/// Change the niceness of this thread; without permission it keeps the old one.
pub(super) fn set_nice(nice: i32) {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
}

/// A thread's connection to the queue manager's loop.
pub(super) struct Reporter {
    event: Arc<OwnedFd>,
    reports: Arc<Mutex<Vec<Report>>>,
    stop: Arc<AtomicBool>,
    announcements: Arc<AtomicU64>,
}

impl Reporter {
    /// Hand a report over.
    pub(super) fn send(&self, report: Report) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Return whether the queue manager stops.
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The limit on the working time of a thread while mail arrives.
///
/// A low priority is not enough: a thread that runs while smtpd waits for the disk takes caches and memory bandwidth.
pub(super) struct Throttle {
    announcements: u64,
    arriving_until: Instant,
}

impl Throttle {
    /// Return the throttle of a thread. `now`: no mail arrives yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { announcements: 0, arriving_until: now }
    }

    /// Pause after a slice that began at `begun`, if mail arrives.
    pub(super) fn wait(&mut self, begun: Instant, reporter: &Reporter) {
        let pause = self.pause(begun, reporter.announcements.load(Ordering::Relaxed), Instant::now());
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }

    /// Return the pause after a slice from `begun` to `now`. `announcements`: their number so far.
    fn pause(&mut self, begun: Instant, announcements: u64, now: Instant) -> Duration {
        if std::mem::replace(&mut self.announcements, announcements) != announcements {
            self.arriving_until = now + ARRIVING_FOR;
        }
        let worked = now.saturating_duration_since(begun);
        if now < self.arriving_until { (worked * PAUSE_FACTOR).min(PAUSE_MAX) } else { Duration::ZERO }
    }
}

/// The position of a message in a listing: Postfix's order of the queues, then the place on disk; and its slot.
pub(super) type ReadOrder = (u8, SegmentId, u64, u32);

/// Return the slots of the messages in the best order for reading their envelopes.
pub(super) fn read_order(snapshot: &Snapshot, wanted: impl Fn(Place) -> bool) -> Vec<ReadOrder> {
    let rank = |place| match place {
        Place::Loading | Place::Active(_) => 0,
        Place::Fresh | Place::Overflow(_) => 1,
        Place::Deferred => 2,
        Place::Held => 3,
    };
    let position = |entry: Entry<'_>| {
        let at = entry.at();
        (rank(entry.place()), at.segment, at.offset, entry.slot())
    };
    let mut order: Vec<ReadOrder> = snapshot.iter().filter(|entry| wanted(entry.place())).map(position).collect();
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_pauses_only_while_mail_arrives() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        assert_eq!(throttle.pause(start, 0, start + ms(1)), Duration::ZERO, "no announcement yet");
        assert_eq!(throttle.pause(start + ms(1), 3, start + ms(2)), ms(5));
        assert_eq!(throttle.pause(start + ms(50), 3, start + ms(52)), ms(10), "mail arrived a moment ago");
        assert_eq!(throttle.pause(start + ms(60), 4, start + ms(80)), PAUSE_MAX);
        assert_eq!(throttle.pause(start + ms(178), 4, start + ms(179)), ms(5));
        assert_eq!(throttle.pause(start + ms(179), 4, start + ms(180)), Duration::ZERO);
    }
}
