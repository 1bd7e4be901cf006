//! The world around the scheduler on a virtual clock: agents, a resolver, a heap of what happens next.
//!
//! Every step checks what must hold: no agent, destination or delivery above its limit, no recipient in two deliveries or
//! delivered again; and at the end that every recipient had its mail or the sender a report.

use crate::figures::Figures;
use crate::traffic::{START_US, Traffic, Verdict, mix};
use postillion_core::clock::Now;
use postillion_core::ipc::frame::{Arrival, Job, JobKind, JobResult};
use postillion_core::mail::locator::{Locator, SegmentId};
use postillion_core::mail::reply::Enhanced;
use postillion_core::mail::status::{Outcome, Status};
use postillion_core::qmgr::route::{Question, Resolved};
use postillion_core::qmgr::scheduler::{Event, Scheduler};
use postillion_core::qmgr::settings::{Settings, TransportSettings};
use postillion_core::queue::Fact;
use postillion_core::queue::segment::recipients::Cursor;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// The monotonic clock when the simulation begins.
const MONO_US: u64 = 1_000_000_000;
/// Agents of the smtp transport; they share its capacity.
const SMTP_AGENTS: u32 = 4;
/// Maximum number of concurrent reports, and the time of one.
const BOUNCE_CAPACITY: u32 = 20;
const BOUNCE_US: u64 = 5_000;
/// Interval between two samples of the figures.
pub const SAMPLE_US: u64 = 10_000_000;
/// Maximum number of rounds at one moment of virtual time.
const ROUNDS_MAX: u32 = 1_000_000;

/// A set of numbers.
struct Bits(Vec<u64>);

impl Bits {
    fn new(numbers: u64) -> Self {
        Self(vec![0; numbers as usize / 64 + 1])
    }

    fn has(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 != 0
    }

    fn set(&mut self, number: usize, on: bool) {
        let bit = 1 << (number % 64);
        if on { self.0[number / 64] |= bit } else { self.0[number / 64] &= !bit }
    }
}

/// A delivery under way.
struct Flight {
    job: Job,
    agent: u32,
    began_us: u64,
}

/// A run.
pub struct World<'a> {
    traffic: &'a Traffic,
    scheduler: Scheduler,
    settings: Settings,
    transport: TransportSettings,
    at_us: u64,
    flights: HashMap<u64, Flight>,
    /// Ends of deliveries.
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    agents: HashMap<u32, (u32, u32)>,
    busy: Vec<u32>,
    flying: Bits,
    sent: Bits,
    reported: Bits,
    /// Messages under way: fresh, or being tried.
    open: Bits,
    removed: u64,
    digest: u64,
    figures: Figures<'a>,
}

impl<'a> World<'a> {
    /// Return a new world.
    pub fn new(traffic: &'a Traffic, settings: Settings, transport: TransportSettings) -> Self {
        let now = Now { mono_us: MONO_US, wall_us: START_US };
        let mut scheduler = Scheduler::new(settings.clone(), now);
        scheduler.configure_transport(None, transport);
        let mut agents = HashMap::new();
        for agent in 0..SMTP_AGENTS {
            let capacity = traffic.options.capacity / SMTP_AGENTS;
            agents.insert(agent, (capacity, 0));
            scheduler.agent(agent, "smtp", capacity, now);
        }
        agents.insert(SMTP_AGENTS, (BOUNCE_CAPACITY, 0));
        scheduler.agent(SMTP_AGENTS, "bounce", BOUNCE_CAPACITY, now);
        let recipients = traffic.recipients();
        Self {
            traffic,
            scheduler,
            settings,
            transport,
            at_us: 0,
            flights: HashMap::new(),
            ends: BinaryHeap::new(),
            agents,
            busy: vec![0; traffic.options.destinations as usize],
            flying: Bits::new(recipients),
            sent: Bits::new(recipients),
            reported: Bits::new(recipients),
            open: Bits::new(traffic.messages()),
            removed: 0,
            digest: 0,
            figures: Figures::new(traffic),
        }
    }

    /// Run until the end; return the figures and the digest of all events.
    pub fn run(mut self) -> (Figures<'a>, u64) {
        let traffic = self.traffic;
        let mut arrivals = traffic.order().peekable();
        let mut sample_us = 0;
        let mut rounds = 0;
        while self.removed < traffic.messages() {
            let arrival_us = arrivals.peek().map(|(at_us, _)| *at_us);
            let end_us = self.ends.peek().map(|Reverse((at_us, _))| *at_us);
            let due_us = self.scheduler.deadline().map(|due_us| due_us.saturating_sub(MONO_US));
            let next = [arrival_us, end_us, due_us].into_iter().flatten().min();
            let next_us = next.expect("mail waits for nothing").max(self.at_us);
            rounds = if next_us > self.at_us { 0 } else { rounds + 1 };
            assert!(rounds < ROUNDS_MAX, "time stands still");
            while sample_us <= next_us {
                self.sample(sample_us);
                sample_us += SAMPLE_US;
            }
            self.at_us = next_us;
            if end_us == Some(next_us) {
                self.answer();
            } else if arrival_us == Some(next_us)
                && let Some((_, n)) = arrivals.next()
            {
                self.arrive(n);
            }
            self.scheduler.tick(self.now());
            self.run_events();
        }
        assert!(self.flights.is_empty(), "a job is about a message that is gone");
        for number in 0..traffic.recipients() as usize {
            assert!(self.sent.has(number) != self.reported.has(number), "recipient {number} is lost or told twice");
        }
        self.figures.ends(self.at_us);
        (self.figures, self.digest)
    }

    fn now(&self) -> Now {
        Now { mono_us: MONO_US + self.at_us, wall_us: START_US + self.at_us }
    }

    fn note(&mut self, number: u64) {
        self.digest = mix(self.digest ^ number);
    }

    fn note_text(&mut self, text: &str) {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.note(u64::from_le_bytes(word));
        }
    }

    fn arrive(&mut self, n: u64) {
        self.open.set(n as usize, true);
        self.figures.opened(n, 1);
        let id = self.traffic.id(n);
        let arrival = Arrival { locator: place(id.0), envelope: self.traffic.envelope(n) };
        self.scheduler.arrived(arrival, self.now());
    }

    /// End the delivery with the earliest end.
    fn answer(&mut self) {
        let Some(Reverse((_, number))) = self.ends.pop() else { return };
        let Flight { job, agent, began_us } = self.flights.remove(&number).expect("it was begun");
        self.agents.get_mut(&agent).expect("it was given to an agent").1 -= 1;
        let n = self.traffic.number(job.envelope.id);
        let mut site = None;
        let mut recipients = Vec::with_capacity(job.recipients.len());
        let destination = match job.kind {
            JobKind::Deliver => destination(&job.nexthop),
            _ => u64::MAX,
        };
        for recipient in &job.recipients {
            let number = self.traffic.recipient_number(n, recipient.index);
            self.flying.set(number, false);
            let verdict = match job.kind {
                JobKind::Deliver => self.traffic.verdict(n, recipient.index, destination, began_us),
                _ => Verdict::Taken,
            };
            let outcome = match verdict {
                Verdict::Taken => status(Outcome::Sent, "250 ok"),
                Verdict::Never => status(Outcome::Bounced, "550 no such user"),
                Verdict::Later => status(Outcome::Deferred, "450 come again"),
                Verdict::Unreachable => {
                    site = Some(status(Outcome::Deferred, "connect: Connection timed out"));
                    continue;
                }
            };
            match (job.kind, verdict) {
                (JobKind::Deliver, Verdict::Taken) => {
                    self.sent.set(number, true);
                    self.figures.delivered(n);
                }
                (JobKind::Bounce, _) => self.reported.set(number, true),
                _ => {}
            }
            recipients.push((recipient.index, outcome));
        }
        if job.kind == JobKind::Deliver {
            self.busy[destination as usize] -= 1;
            self.figures.job_ends(destination);
        }
        self.note(self.at_us);
        self.note(number);
        self.scheduler.result(JobResult { job: job.job, id: job.envelope.id, site, recipients }, self.now());
    }

    fn run_events(&mut self) {
        while let Some(event) = self.scheduler.next_event(self.now()) {
            match event {
                Event::Note(fact) => self.fact(&fact),
                Event::Line { text, .. } => self.note_text(&text.to_string()),
                Event::Load { id, .. } => {
                    let n = self.traffic.number(id);
                    self.note(n);
                    if !self.open.has(n as usize) {
                        self.open.set(n as usize, true);
                        self.figures.opened(n, 1);
                    }
                    self.scheduler.loaded(id, Ok(self.traffic.envelope(n)), self.now());
                }
                Event::Read { id, from, most, .. } => {
                    let n = self.traffic.number(id);
                    self.note(n);
                    let read = self.traffic.some_recipients(n, u64::from(from.index), u64::from(most));
                    let next = Cursor { index: from.index + read.len() as u32, octets: 0 };
                    self.scheduler.read(id, Ok((read, next)), self.now());
                }
                Event::Resolve { address, sender } => {
                    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
                    let route = Resolved { transport: "smtp", nexthop: domain, recipient: None };
                    self.note_text(domain);
                    self.scheduler.resolved(Question { address: &address, sender: &sender }, route, self.now());
                }
                Event::NeedAgent { transport } => panic!("{transport} has its agents"),
                Event::Deliver { agent, request } => self.deliver(agent, *request),
            }
        }
    }

    fn fact(&mut self, fact: &Fact) {
        let n = self.traffic.number(fact.id());
        self.note(n);
        match fact {
            Fact::Deferred { next_attempt_us, attempts, .. } => {
                assert!(*next_attempt_us > START_US + self.at_us, "an attempt in the past");
                self.note(*next_attempt_us);
                self.figures.deferred(n, *attempts, self.at_us);
                self.close(n);
            }
            Fact::Removed { .. } => {
                self.removed += 1;
                self.figures.removed(n, self.at_us);
                self.close(n);
            }
            _ => {}
        }
    }

    fn close(&mut self, n: u64) {
        assert!(self.open.has(n as usize), "an attempt of a message that was not tried");
        self.open.set(n as usize, false);
        self.figures.opened(n, -1);
    }

    fn deliver(&mut self, agent: u32, job: Job) {
        self.note(self.at_us);
        self.note(job.job);
        self.note(u64::from(agent));
        let (capacity, busy) = self.agents.get_mut(&agent).expect("a delivery goes to a present agent");
        *busy += 1;
        assert!(busy <= capacity, "an agent has more deliveries than its capacity");
        let n = self.traffic.number(job.envelope.id);
        self.note(n);
        for recipient in &job.recipients {
            let number = self.traffic.recipient_number(n, recipient.index);
            assert!(!self.sent.has(number) && !self.reported.has(number), "a job for a recipient that is done");
            assert!(!self.flying.has(number), "a recipient in two deliveries");
            self.flying.set(number, true);
            self.note(u64::from(recipient.index));
        }
        let took_us = match job.kind {
            JobKind::Deliver => {
                let destination = destination(&job.nexthop);
                let limit = self.transport.recipient_limit as usize;
                assert!(limit == 0 || job.recipients.len() <= limit, "too many recipients in a job");
                let busy = &mut self.busy[destination as usize];
                *busy += 1;
                let limit = self.transport.window_rules().limit;
                assert!(limit == 0 || *busy <= limit, "a destination has more deliveries than its limit");
                self.figures.job_begins(n, destination, self.at_us);
                self.traffic.takes_us(destination, job.recipients.len(), job.job, self.at_us)
            }
            _ => BOUNCE_US,
        };
        self.ends.push(Reverse((self.at_us + took_us.max(1), job.job)));
        self.flights.insert(job.job, Flight { job, agent, began_us: self.at_us });
    }

    fn sample(&mut self, at_us: u64) {
        let counts: HashMap<&str, usize> = self.scheduler.counts().into_iter().collect();
        assert!(counts["active"] <= self.settings.message_active_limit, "{} active", counts["active"]);
        let recipients_max = self.settings.message_recipient_limit + self.settings.part_recipients();
        assert!(counts["recipients_in_memory"] <= recipients_max, "{} recipients", counts["recipients_in_memory"]);
        assert_eq!(counts["jobs"], self.flights.len());
        self.figures.sample(at_us, &counts);
    }
}

fn destination(nexthop: &str) -> u64 {
    let number = nexthop.strip_prefix('d').and_then(|rest| rest.strip_suffix(".example"));
    number.and_then(|number| number.parse().ok()).expect("a next hop of this world")
}

fn place(segment: u64) -> Locator {
    Locator { segment: SegmentId(segment), offset: 32, record_octets: 4200 }
}

fn status(outcome: Outcome, text: &str) -> Status {
    let class = match outcome {
        Outcome::Sent => 2,
        Outcome::Deferred => 4,
        Outcome::Bounced => 5,
    };
    Status { outcome, dsn: Enhanced { class, subject: 0, detail: 0 }, text: text.into(), remote: None }
}
