//! A small world around the scheduler for tests: messages, agents, a resolver, a state log, two clocks.
//!
//! It checks the invariants after every step, and knows the outcome of every recipient.

use super::route::{Question, Resolved};
use super::scheduler::waits::Waits;
use super::scheduler::{Event, Scheduler};
use super::settings::{Settings, TransportSettings};
use crate::clock::{Now, SECOND_US};
use crate::ipc::frame::{self, Arrival, JobKind, JobResult};
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::id::{QueueId, SLOT_BITS};
use crate::mail::locator::{Locator, SegmentId};
use crate::mail::reply::Enhanced;
use crate::mail::status::{Outcome, Status};
use crate::mail::trace::Trace;
use crate::queue::segment::recipients::Cursor;
use crate::queue::state::{Fact, Kept};
use crate::queue::store::Stored;
use std::collections::{BTreeMap, HashMap, HashSet};

pub(super) const START_US: u64 = 1_795_000_000_000_000;

/// A message as the world outside the scheduler knows it.
pub(super) struct Known {
    pub envelope: Envelope,
    pub kept: Kept,
    pub removed: bool,
    pub deleted: bool,
    pub sent: HashSet<u32>,
    pub reported: HashSet<u32>,
    pub attempts_seen: u32,
}

pub(super) struct World {
    pub scheduler: Scheduler,
    pub now: Now,
    pub known: BTreeMap<QueueId, Known>,
    pub agents: HashMap<u32, (String, u32)>,
    pub deliveries: Vec<(u32, frame::Job)>,
    pub lines: Vec<String>,
    pub wanted: Vec<String>,
    pub transport: TransportSettings,
    /// Parameters of the transport `other`, if it has its own.
    pub other: Option<TransportSettings>,
    settings: Settings,
    next_id: u64,
    next_agent: u32,
}

impl World {
    pub fn new(settings: Settings, transport: TransportSettings) -> Self {
        let now = Now { mono_us: 1000 * SECOND_US, wall_us: START_US };
        let mut world = Self {
            scheduler: Scheduler::new(settings.clone(), now),
            now,
            known: BTreeMap::new(),
            agents: HashMap::new(),
            deliveries: Vec::new(),
            lines: Vec::new(),
            wanted: Vec::new(),
            transport,
            other: None,
            settings,
            next_id: START_US << SLOT_BITS,
            next_agent: 1,
        };
        world.scheduler.configure_transport(None, transport);
        world
    }

    /// Set the parameters of the transport `other`.
    pub fn configure_other(&mut self, other: TransportSettings) {
        self.other = Some(other);
        self.scheduler.configure_transport(Some("other"), other);
    }

    /// Set the parameters of all other transports.
    pub fn configure_all(&mut self, transport: TransportSettings) {
        self.transport = transport;
        self.scheduler.configure_transport(None, transport);
    }

    fn settings_of(&self, transport: &str) -> TransportSettings {
        self.other.filter(|_| transport == "other").unwrap_or(self.transport)
    }

    pub fn arrive(&mut self, sender: &str, recipients: &[&str]) -> QueueId {
        self.arrive_with(sender, recipients, &[])
    }

    pub fn arrive_with(&mut self, sender: &str, recipients: &[&str], attributes: &[(&str, &str)]) -> QueueId {
        self.arrive_traced(sender, recipients, attributes, Trace::Off)
    }

    pub fn arrive_traced(
        &mut self,
        sender: &str,
        recipients: &[&str],
        attributes: &[(&str, &str)],
        trace: Trace,
    ) -> QueueId {
        self.next_id += 1;
        let id = QueueId(self.next_id);
        let envelope = Envelope {
            arrival_us: self.now.wall_us,
            size_octets: 5,
            trace,
            attributes: attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ..Envelope::plain(id, sender, recipients.iter().map(|to| Recipient::plain(to)).collect())
        };
        let known = Known {
            envelope: envelope.clone(),
            kept: Kept::default(),
            removed: false,
            deleted: false,
            sent: HashSet::new(),
            reported: HashSet::new(),
            attempts_seen: 0,
        };
        self.known.insert(id, known);
        self.scheduler.arrived(Arrival { locator: place(id), envelope }, self.now);
        self.run_events();
        id
    }

    pub fn join(&mut self, transport: &str, capacity: u32) -> u32 {
        let agent = self.next_agent;
        self.next_agent += 1;
        self.agents.insert(agent, (transport.into(), capacity));
        self.scheduler.agent(agent, transport, capacity, self.now);
        self.run_events();
        agent
    }

    pub fn leave(&mut self, agent: u32) {
        self.agents.remove(&agent);
        self.deliveries.retain(|(other, _)| *other != agent);
        self.scheduler.lost(agent, self.now);
        self.run_events();
    }

    pub fn advance(&mut self, seconds: u64) {
        let end_us = self.now.mono_us + seconds * SECOND_US;
        // Timers fire one by one, as in the shell.
        let mut polls = 0;
        while let Some(due_us) = self.scheduler.deadline().filter(|due_us| *due_us <= end_us) {
            polls += 1;
            assert!(polls < 100_000, "the scheduler wants to be called again and again");
            let step_us = due_us.saturating_sub(self.now.mono_us);
            self.now = Now { mono_us: self.now.mono_us + step_us, wall_us: self.now.wall_us + step_us };
            self.scheduler.tick(self.now);
            self.run_events();
        }
        let step_us = end_us - self.now.mono_us;
        self.now = Now { mono_us: end_us, wall_us: self.now.wall_us + step_us };
        self.scheduler.tick(self.now);
        self.run_events();
    }

    /// Take the result of an agent's oldest delivery, or of the `nth` modulo their number.
    pub fn answer(&mut self, nth: usize, outcome: &dyn Fn(u32) -> Option<Status>, site: Option<Status>) -> bool {
        if self.deliveries.is_empty() {
            return false;
        }
        let (_, delivery) = self.deliveries.remove(nth % self.deliveries.len());
        let known = self.known.get_mut(&delivery.envelope.id).expect("a delivery is about a message");
        let mut recipients = Vec::new();
        for recipient in &delivery.recipients {
            if let Some(status) = outcome(recipient.index) {
                if status.outcome == Outcome::Sent {
                    match delivery.kind {
                        JobKind::Deliver => known.sent.insert(recipient.index),
                        JobKind::Bounce => known.reported.insert(recipient.index),
                        JobKind::Warn | JobKind::Confirm | JobKind::Probe | JobKind::Report => false,
                    };
                }
                recipients.push((recipient.index, status));
            }
        }
        self.scheduler.result(JobResult { job: delivery.job, id: delivery.envelope.id, site, recipients }, self.now);
        self.run_events();
        true
    }

    /// Kill the process and start from the facts.
    pub fn restart(&mut self) {
        self.scheduler = Scheduler::new(self.settings.clone(), self.now);
        self.scheduler.configure_transport(None, self.transport);
        if let Some(other) = self.other {
            self.scheduler.configure_transport(Some("other"), other);
        }
        self.agents.clear();
        self.deliveries.clear();
        for (id, known) in &self.known {
            if !known.removed {
                let arrival = Arrival { locator: place(*id), envelope: known.envelope.clone() };
                self.scheduler.restore(Stored { arrival, state: known.kept.clone() }, self.now);
            }
        }
        self.run_events();
    }

    pub fn run_events(&mut self) {
        while let Some(event) = self.scheduler.next_event(self.now) {
            match event {
                Event::Note(fact) => self.note(&fact),
                Event::Line { text, .. } => self.lines.push(text.to_string()),
                Event::Load { id, at } => {
                    assert_eq!(at, place(id));
                    let envelope = self.known[&id].envelope.clone();
                    self.scheduler.loaded(id, Ok(envelope), self.now);
                }
                Event::Read { id, at, from, most } => {
                    assert_eq!(at, place(id));
                    assert!(most > 0 && (from.octets == 0 || from.octets == octets(from.index)));
                    let all = &self.known[&id].envelope.recipients;
                    let recipients: Vec<_> =
                        all.iter().skip(from.index as usize).take(most as usize).cloned().collect();
                    let index = from.index + recipients.len() as u32;
                    self.scheduler.read(id, Ok((recipients, Cursor { index, octets: octets(index) })), self.now);
                }
                Event::Resolve { address, sender } => {
                    let question = Question { address: &address, sender: &sender };
                    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
                    if domain == "unknown.example" {
                        let status = status(Outcome::Deferred, "no way");
                        self.scheduler.unresolved(question, status, self.now);
                    } else {
                        let transport = if domain.starts_with("other") { "other" } else { "smtp" };
                        let route = Resolved { transport, nexthop: domain, recipient: None };
                        self.scheduler.resolved(question, route, self.now);
                    }
                }
                Event::NeedAgent { transport } => self.wanted.push(transport.to_string()),
                Event::Deliver { agent, request } => self.deliver(agent, *request),
            }
        }
        let limit = self.settings.message_active_limit;
        let counts: HashMap<_, _> = self.scheduler.counts().into();
        assert!(counts["active"] <= limit, "{} active", counts["active"]);
        assert_eq!(counts["messages"], self.known.values().filter(|known| !known.removed).count());
        assert_eq!(counts["jobs"], self.deliveries.len());
        let settings = &self.settings;
        let extra = self.transport.refill.extra_limit.max(self.other.map_or(0, |other| other.refill.extra_limit));
        let most = settings.message_recipient_limit
            + settings.part_recipients()
            + settings.message_active_limit * settings.message_recipient_minimum
            + extra as usize;
        assert!(counts["recipients_in_memory"] <= most, "{} recipients", counts["recipients_in_memory"]);
    }

    fn note(&mut self, fact: &Fact) {
        let known = self.known.get_mut(&fact.id()).expect("a fact is about a message");
        assert!(!known.removed, "a fact about a message that is gone: {fact:?}");
        match fact {
            Fact::Done { recipients, .. } => {
                for index in recipients {
                    assert!(!known.kept.done.contains(index), "done twice");
                    known.kept.done.push(*index);
                }
                known.kept.done.sort_unstable();
            }
            Fact::Deferred { attempts, next_attempt_us, reasons, .. } => {
                assert_eq!(*attempts, known.kept.attempts + 1, "an attempt is counted once");
                known.attempts_seen += 1;
                known.kept.attempts = *attempts;
                known.kept.next_attempt_us = Some(*next_attempt_us);
                known.kept.reasons.clone_from(reasons);
            }
            Fact::Held { .. } => known.kept.held = true,
            Fact::Released { .. } => (known.kept.held, known.kept.released) = (false, true),
            Fact::Warned { .. } => known.kept.warned = true,
            Fact::ForcedExpire { .. } => known.kept.forced_expire = true,
            Fact::Removed { .. } => {
                let all = known.envelope.recipients.len();
                assert!(known.deleted || known.kept.done.len() == all, "removed with recipients left");
                known.removed = true;
            }
        }
    }

    fn deliver(&mut self, agent: u32, delivery: frame::Job) {
        let (transport, capacity) = self.agents.get(&agent).expect("a delivery goes to an agent that is there");
        assert_eq!(*transport, *delivery.transport);
        let has = self.deliveries.iter().filter(|(other, _)| *other == agent).count() as u32;
        assert!(has < *capacity, "more deliveries than an agent takes");
        let of_transport = |(_, other): &&(u32, frame::Job)| other.transport == delivery.transport;
        let busy = self.deliveries.iter().filter(of_transport).count() as u32;
        let process_limit = self.settings_of(transport).process_limit;
        assert!(process_limit == 0 || busy < process_limit, "more deliveries than maxproc");
        let is_retry = |delivery: &frame::Job| self.known[&delivery.envelope.id].kept.attempts > 0;
        if is_retry(&delivery) {
            let places: u32 = self.agents.values().filter(|(name, _)| name == transport).map(|(_, many)| many).sum();
            let places = if process_limit == 0 { places } else { places.min(process_limit) };
            let retries =
                self.deliveries.iter().filter(of_transport).filter(|(_, other)| is_retry(other)).count() as u32;
            assert!(retries < (places - places / 5).max(1), "{retries} retries of {places} places");
        }
        let known = &self.known[&delivery.envelope.id];
        assert!(!known.removed && !known.kept.held, "a delivery for a message that is gone or held");
        if delivery.kind == JobKind::Deliver {
            let settings = self.settings_of(transport);
            let limit = settings.window_rules().limit;
            let same = |other: &frame::Job| other.transport == delivery.transport && other.nexthop == delivery.nexthop;
            let busy =
                self.deliveries.iter().filter(|(_, other)| same(other) && other.kind == JobKind::Deliver).count();
            assert!(
                limit == 0 || settings.recipient_limit == 1 || (busy as u32) < limit,
                "more deliveries than allowed"
            );
            let recipient_limit = settings.recipient_limit as usize;
            assert!(recipient_limit == 0 || delivery.recipients.len() <= recipient_limit, "too many recipients");
        }
        for recipient in &delivery.recipients {
            let index = recipient.index;
            let over = known.kept.done.contains(&index);
            let told_of_attempt = delivery.kind == JobKind::Report;
            assert!(
                told_of_attempt || over == (delivery.kind == JobKind::Confirm),
                "a delivery for a recipient that is done"
            );
            let is_probe = known.envelope.trace == Trace::Probe;
            assert!(!is_probe || matches!(delivery.kind, JobKind::Probe | JobKind::Report), "a probe under delivery");
            assert_eq!(recipient.recipient.address, known.envelope.recipients[index as usize].address);
            for (_, other) in &self.deliveries {
                let twice =
                    other.envelope.id == delivery.envelope.id && other.recipients.iter().any(|r| r.index == index);
                assert!(!twice, "a recipient in two deliveries");
            }
        }
        self.deliveries.push((agent, delivery));
    }

    pub fn waits(&self, id: QueueId) -> Waits {
        self.scheduler.waits(self.scheduler.catalogue().slot(id).unwrap(), self.now)
    }

    /// Deliver everything that is not held, with enough agents and time.
    pub fn finish(&mut self) {
        for transport in ["smtp", "other", "bounce"] {
            self.join(transport, 1000);
        }
        let sent = |_| Some(status(Outcome::Sent, "ok"));
        let open = |world: &Self| world.known.values().any(|known| !known.removed && !known.kept.held);
        for _ in 0..1000 {
            while self.answer(0, &sent, None) {}
            if !open(self) {
                break;
            }
            // Addresses without a route expire in the end.
            self.advance(4000);
        }
        assert!(!open(self), "mail is stuck: {:#?}", self.scheduler);
        for known in self.known.values().filter(|known| known.removed && !known.deleted) {
            for index in 0..known.envelope.recipients.len() as u32 {
                let told = known.envelope.sender.is_empty() || known.reported.contains(&index);
                assert!(known.sent.contains(&index) || told, "a recipient is lost");
            }
        }
    }
}

pub(super) fn place(id: QueueId) -> Locator {
    Locator { segment: SegmentId(id.0), offset: 32, record_octets: 100 }
}

fn octets(index: u32) -> u64 {
    40 + u64::from(index) * 20
}

pub(super) fn status(outcome: Outcome, text: &str) -> Status {
    let class = match outcome {
        Outcome::Sent => 2,
        Outcome::Deferred => 4,
        Outcome::Bounced => 5,
    };
    Status { outcome, dsn: Enhanced { class, subject: 0, detail: 0 }, text: text.into(), remote: None }
}
