//! What does a decision of the scheduler cost, and a waiting message, in a large queue?
//!
//! `cargo run --release --example decisions -- [WAITING [DECISIONS]]`: WAITING messages are deferred. Others arrive
//! for ten thousand destinations, faster than the agents deliver: several thousand are always under delivery and wait
//! for one of 200 places. A decision is a delivery given to an agent and its result: all work of the scheduler for it
//! counts, from the result to the next delivery, with admission, log lines and facts. Arrivals (`arrived`) and the
//! resolver's answers are counted apart. Prints one JSON object.
//!
//! `us_a_decision` includes the work of agents and connections here: it makes a result, and drops the request, the
//! log lines and the facts one by one. `us_of_the_scheduler` is a decision without that, in the same run: `BATCH`
//! results at a time, made before the clock is read, and the events dropped afterwards.

use postillion_core::clock::{Now, SECOND_US};
use postillion_core::ipc::frame::{Arrival, Job, JobKind, JobResult};
use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::id::{QueueId, SLOT_BITS};
use postillion_core::mail::locator::{Locator, SegmentId};
use postillion_core::mail::reply::Enhanced;
use postillion_core::mail::status::{Outcome, Status};
use postillion_core::qmgr::route::{Question, Resolved};
use postillion_core::qmgr::scheduler::{Event, Scheduler};
use postillion_core::qmgr::settings::{Settings, TransportSettings};
use postillion_core::queue::{Fact, Kept, Stored};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const START_US: u64 = 1_795_000_000 * SECOND_US;
/// A prime, so that neighbours go to different places.
const DESTINATIONS: u64 = 10_007;
/// Messages of 4 KiB that a segment holds by default.
const SEGMENT_RECORDS: u64 = 8_000;
/// Messages under delivery at any time.
const UNDER_DELIVERY: u64 = 5_000;
/// Capacity of the agents.
const CAPACITY: u32 = 200;
/// Results per measurement of the scheduler's own time: enough to make the clock's cost negligible, and few enough
/// for the caches.
const BATCH: u64 = 20;
/// Time until a waiting message is due: after the run.
const LATER_US: u64 = 3600 * SECOND_US;

struct Bench {
    scheduler: Scheduler,
    now: Now,
    next: u64,
    deliveries: VecDeque<Job>,
    removed: u64,
    /// Time of calls that are not decisions.
    apart: Duration,
}

impl Bench {
    fn new() -> Self {
        let now = Now { mono_us: 1000 * SECOND_US, wall_us: START_US };
        let mut scheduler = Scheduler::new(Settings::default(), now);
        scheduler.configure_transport(None, TransportSettings::default());
        scheduler.agent(1, "smtp", CAPACITY, now);
        Self { scheduler, now, next: 0, deliveries: VecDeque::new(), removed: 0, apart: Duration::ZERO }
    }

    fn arrival(&mut self) -> Arrival {
        self.next += 1;
        let n = self.next;
        let id = QueueId((START_US + n) << SLOT_BITS);
        let to = format!("recipient{n}@d{}.example", n % DESTINATIONS);
        let envelope = Envelope::plain(id, "sender@example.org", vec![Recipient::plain(&to)]);
        let (segment, nth) = (SegmentId(START_US + n / SEGMENT_RECORDS), n % SEGMENT_RECORDS);
        let locator = Locator { segment, offset: nth * 4200, record_octets: 4200 };
        Arrival { locator, envelope: Envelope { arrival_us: START_US, size_octets: 4096, ..envelope } }
    }

    /// Add a deferred message.
    fn wait(&mut self) {
        let arrival = self.arrival();
        let text = "connect to mx.example[192.0.2.1]:25: Connection timed out";
        let state = Kept {
            attempts: 1,
            next_attempt_us: Some(START_US + LATER_US),
            reasons: vec![(0, status(Outcome::Deferred, text).into())],
            ..Kept::default()
        };
        self.scheduler.restore(Stored { arrival, state }, self.now);
    }

    fn arrive(&mut self) {
        let arrival = self.arrival();
        let begun = Instant::now();
        self.scheduler.arrived(arrival, self.now);
        self.apart += begun.elapsed();
    }

    fn run_events(&mut self) {
        while let Some(event) = self.scheduler.next_event(self.now) {
            self.act(event);
        }
    }

    fn act(&mut self, event: Event) {
        match event {
            Event::Deliver { request, .. } => self.deliveries.push_back(*request),
            Event::Note(Fact::Removed { .. }) => self.removed += 1,
            Event::Resolve { address, sender } => {
                let begun = Instant::now();
                let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
                let route = Resolved { transport: "smtp", nexthop: domain, recipient: None };
                self.scheduler.resolved(Question { address: &address, sender: &sender }, route, self.now);
                self.apart += begun.elapsed();
            }
            Event::Load { .. } => unreachable!("there is room for every message"),
            _ => {}
        }
    }

    /// Return the result of the oldest delivery: the message was sent.
    fn answer(&mut self) -> Option<JobResult> {
        let job = self.deliveries.pop_front()?;
        assert_eq!(job.kind, JobKind::Deliver);
        let recipients = vec![(job.recipients[0].index, status(Outcome::Sent, "250 2.0.0 Ok: queued as 12345"))];
        Some(JobResult { job: job.job, id: job.envelope.id, site: None, recipients })
    }

    fn hear(&mut self, result: JobResult) {
        self.now = Now { mono_us: self.now.mono_us + 10, wall_us: self.now.wall_us + 10 };
        self.scheduler.result(result, self.now);
        self.scheduler.tick(self.now);
    }

    /// Take the result of the oldest delivery, and do what follows.
    fn decide(&mut self) {
        let Some(result) = self.answer() else { return };
        self.hear(result);
        self.run_events();
        self.scheduler.deadline();
    }

    /// Make `BATCH` decisions, and return the scheduler's time for them.
    fn decide_many(&mut self) -> Duration {
        let results: Vec<JobResult> = (0..BATCH).map_while(|_| self.answer()).collect();
        let mut events = Vec::with_capacity(results.len() * 8);
        let begun = Instant::now();
        for result in results {
            self.hear(result);
            while let Some(event) = self.scheduler.next_event(self.now) {
                events.push(event);
            }
            self.scheduler.deadline();
        }
        let took = begun.elapsed();
        events.into_iter().for_each(|event| self.act(event));
        took
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (waiting, decisions) = (number(1_000_000), number(1_000_000));
    let mut bench = Bench::new();
    let before = resident_octets();
    for _ in 0..waiting {
        bench.wait();
    }
    let held = resident_octets().saturating_sub(before);
    for _ in 0..UNDER_DELIVERY {
        bench.arrive();
    }
    bench.run_events();
    // Every destination is known, and every table has its size.
    for _ in 0..2 * DESTINATIONS {
        bench.decide();
        bench.arrive();
        bench.run_events();
    }
    (bench.removed, bench.apart) = (0, Duration::ZERO);
    let mut took = Duration::ZERO;
    for _ in 0..decisions {
        bench.arrive();
        let (begun, apart) = (Instant::now(), bench.apart);
        bench.decide();
        took += begun.elapsed().saturating_sub(bench.apart - apart);
    }
    let arriving = bench.apart;
    let batches = decisions.div_ceil(BATCH);
    let mut alone = Duration::ZERO;
    for _ in 0..batches {
        (0..BATCH).for_each(|_| bench.arrive());
        alone += bench.decide_many();
    }
    let us = |took: Duration| took.as_secs_f64() * 1e6 / decisions as f64;
    let under_delivery = bench.scheduler.catalogue().len() as u64 - waiting;
    let correct = bench.removed == decisions + batches * BATCH && under_delivery == UNDER_DELIVERY;
    println!(
        "{{\"waiting\": {waiting}, \"decisions\": {decisions}, \"us_a_decision\": {:.3}, \
         \"us_of_the_scheduler\": {:.3}, \"us_an_arrival\": {:.3}, \"octets_a_message\": {:.0}, \"correct\": {correct}}}",
        us(took),
        alone.as_secs_f64() * 1e6 / (batches * BATCH).max(1) as f64,
        us(arriving),
        held as f64 / waiting.max(1) as f64
    );
}

/// Return the resident memory of the process.
fn resident_octets() -> u64 {
    const PAGE_OCTETS: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0) * PAGE_OCTETS
}

fn status(outcome: Outcome, text: &str) -> Status {
    let class = if outcome == Outcome::Sent { 2 } else { 4 };
    Status { outcome, dsn: Enhanced { class, subject: 0, detail: 0 }, text: text.into(), remote: None }
}
