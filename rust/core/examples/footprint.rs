//! How much memory does a queued message need: deferred, with one recipient and a reason?
//!
//! `cargo run --release --example footprint -- 10000 100000 1000000` puts these numbers of messages into a scheduler.
//! For the name of a queue directory it loads the messages there as a start does, and prints the time of that. The
//! allocator counts allocated octets; resident memory is the kernel's number.

#![allow(unsafe_code)] // An allocator that counts cannot be had without.

use postillion_core::clock::{Now, wall_now_us};
use postillion_core::ipc::frame::Arrival;
use postillion_core::log::{Log, LogTarget};
use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::id::{QueueId, SLOT_BITS};
use postillion_core::mail::locator::{Locator, SegmentId};
use postillion_core::mail::reply::Enhanced;
use postillion_core::mail::status::{Outcome, Status};
use postillion_core::qmgr::hub::Hub;
use postillion_core::qmgr::scheduler::Scheduler;
use postillion_core::qmgr::settings::Settings;
use postillion_core::queue::{DiskStore, Kept, Stored};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Messages of 4 KiB in a segment of 32 MiB.
const SEGMENT_MESSAGES: u64 = 7_500;
/// Different reasons: as many destinations that fail.
const REASONS: u64 = 1_000;
const RESCAN_US: u64 = 300_000_000;

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    for argument in std::env::args().skip(1) {
        match argument.parse() {
            Ok(count) => made_up(count),
            Err(_) => loaded(Path::new(&argument)),
        }
    }
}

/// Octets of the process that are in memory, and the most that ever were.
fn resident() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says what a process has");
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of this name");
        line.trim_end_matches("kB").trim().parse::<usize>().expect("a number") * 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn now() -> Now {
    Now { mono_us: 1_000_000_000, wall_us: wall_now_us() }
}

fn made_up(count: u64) {
    let now = now();
    let (allocated, (in_memory, _)) = (ALLOCATED.load(Ordering::Relaxed), resident());
    let mut scheduler = Scheduler::new(Settings::default(), now);
    for n in 0..count {
        scheduler.restore(message(n, now), now);
    }
    assert_eq!((scheduler.catalogue().len() as u64, scheduler.catalogue().deferred() as u64), (count, count));
    report(count, ALLOCATED.load(Ordering::Relaxed) - allocated, resident().0.saturating_sub(in_memory));
    let begun = Instant::now();
    let snapshot = scheduler.catalogue().snapshot();
    let taken = begun.elapsed();
    let begun = Instant::now();
    let octets: u64 = snapshot.iter().map(|entry| entry.at().record_octets).sum();
    println!("  a snapshot takes {taken:?}, a scan of it {:?} ({octets} octets of records)", begun.elapsed());
}

fn message(n: u64, now: Now) -> Stored {
    let id = QueueId((now.wall_us + n) << SLOT_BITS);
    let segment = SegmentId((now.wall_us + n / SEGMENT_MESSAGES) << SLOT_BITS);
    let locator = Locator { segment, offset: 32 + n % SEGMENT_MESSAGES * 4400, record_octets: 4400 };
    let dsn = Enhanced { class: 4, subject: 4, detail: 1 };
    let text = format!("connect to mx{}.example.com[192.0.2.1]:25: Connection timed out", n % REASONS);
    let status = Arc::new(Status { outcome: Outcome::Deferred, dsn, text: text.into(), remote: None });
    let state = Kept {
        attempts: 1,
        next_attempt_us: Some(now.wall_us + 300_000_000 + n),
        reasons: vec![(0, status)],
        ..Kept::default()
    };
    let recipient = Recipient::plain(&format!("r{n}@example.com"));
    Stored { arrival: Arrival { locator, envelope: Envelope::plain(id, "s@example.org", vec![recipient]) }, state }
}

fn loaded(directory: &Path) {
    let (allocated, (in_memory, _)) = (ALLOCATED.load(Ordering::Relaxed), resident());
    let begun = Instant::now();
    let store = DiskStore::open(directory).expect("nobody else manages the queue");
    let opened = begun.elapsed();
    let log = Log::new("mx", "postfix", "qmgr", 1, 0, LogTarget::Memory);
    let mut hub = Hub::new(Scheduler::new(Settings::default(), now()), store, Arc::new(log), RESCAN_US, now());
    let mut longest = std::time::Duration::ZERO;
    while hub.is_recovering() {
        let poll = Instant::now();
        hub.tick(Now { mono_us: now().mono_us + begun.elapsed().as_micros() as u64, ..now() });
        longest = longest.max(poll.elapsed());
    }
    let whole = begun.elapsed();
    let count = hub.scheduler().catalogue().len() as u64;
    println!(
        "opened in {opened:?}, all loaded in {whole:?}, longest poll {longest:?}, most in memory {} MB",
        resident().1 / 1_000_000
    );
    report(count, ALLOCATED.load(Ordering::Relaxed) - allocated, resident().0.saturating_sub(in_memory));
}

fn report(count: u64, allocated: usize, resident: usize) {
    let each = |octets: usize| octets as f64 / count.max(1) as f64;
    println!("{count} messages: {:.1} octets allocated for each, {:.1} in memory", each(allocated), each(resident));
}
