//! The state machine: messages, transports, destinations and agents, driven by [`Now`].
//!
//! Something happened (`arrived`, `loaded`, `resolved`, `agent`, `result`, `lost`, `tick`), and what is to be done comes
//! out of `next_event`, in order: a fact stands before whatever relies on it. Nothing here blocks, and every wait has a
//! moment at which it ends (`deadline`). `admission.rs`, `dispatch.rs` and `outcome.rs` are the arrows of the picture.
//!
//! ```text
//! arrived ─> Fresh ──┐             ┌─ Delivering (and reading more recipients)
//!                    ├─> Loading ──┤       │  └────────> Crowded
//! Deferred (due) ────┤             │       │
//! Crowded (called) ──┘             └───────┴─> Bouncing ─> Warning ─> removed | Deferred | Held
//! ```

use super::catalogue::{Catalogue, Place};
use super::destination::Destination;
use super::errand::Errand;
use super::job::Jobs;
use super::leaving::Leaving;
use super::line::Text;
use super::message::{Active, Phase};
use super::overtake::Look;
use super::route::{Route, Routes};
use super::settings::{Settings, TransportSettings};
use super::transport::{Agent, Transport};
use crate::clock::Now;
use crate::ipc::frame::{Arrival, Job};
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::id::QueueId;
use crate::mail::locator::Locator;
use crate::mail::reply::Enhanced;
use crate::mail::status::{Outcome, Status};
use crate::queue::segment::recipients::Cursor;
use crate::queue::state::Fact;
use crate::queue::store::Stored;
use crate::slab::Slab;
use crate::spread::NumberMap;
use hashbrown::HashMap;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// To be written to the state log before any later event is acted on.
    Note(Fact),
    /// A log line; in another program's name if one is given.
    Line {
        /// The other program.
        program: Option<&'static str>,
        /// More than an event: something to look at.
        warning: bool,
        /// The line.
        text: Text,
    },
    /// Read this envelope and say `loaded`.
    Load {
        /// The message.
        id: QueueId,
        /// Where it stands.
        at: Locator,
    },
    /// Read more recipients of this envelope and say `read`.
    Read {
        /// The message.
        id: QueueId,
        /// Where it stands.
        at: Locator,
        /// The first one.
        from: Cursor,
        /// How many, at most; at least one.
        most: u32,
    },
    /// Find out where this address goes and say `resolved` or `unresolved`.
    Resolve {
        /// The address.
        address: Box<str>,
    },
    /// Nobody serves this transport, and mail waits for it: start an agent, or say `trigger_failed`.
    NeedAgent {
        /// The transport's name.
        transport: Arc<str>,
    },
    /// Send this job to this peer. Its `path` is still empty.
    Deliver {
        /// The agent.
        peer: u32,
        /// The job.
        job: Box<Job>,
    },
}

/// What is due at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Destination(u32),
    Transport(u32),
}

/// The queue manager's state.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) settings: Settings,
    pub(super) default_transport: TransportSettings,
    pub(super) transport_settings: HashMap<Box<str>, TransportSettings>,
    pub(super) catalogue: Catalogue,
    pub(super) active: Slab<Active>,
    /// Messages whose envelope is being read for a first part.
    pub(super) loading: usize,
    /// Active and loading messages that were tried before.
    pub(super) retries: usize,
    /// Recipients in memory, and those that loading messages will bring.
    pub(super) in_core: usize,
    pub(super) transports: Vec<Transport>,
    pub(super) transport_numbers: HashMap<Arc<str>, u32>,
    pub(super) destinations: Slab<Destination>,
    pub(super) idle: VecDeque<u32>,
    pub(super) routes: Routes,
    pub(super) jobs: Jobs,
    pub(super) agents: NumberMap<u32, u32>,
    pub(super) timers: BinaryHeap<Reverse<(u64, Timer)>>,
    pub(super) settled: Vec<(u32, u64)>,
    pub(super) dirty: Vec<u32>,
    pub(super) events: VecDeque<Event>,
    pub(super) errands: Slab<Errand>,
    pub(super) draws: u64,
    /// Messages that a command moves elsewhere.
    pub(super) leaving: NumberMap<QueueId, Leaving>,
    /// The last look for a message that overtakes which found none.
    pub(super) look: Look,
    /// Where the last message that was admitted came from: see `admit`.
    pub(super) admitted: usize,
    /// Destinations whose crowd may come in, and how many of it.
    pub(super) calling: VecDeque<(u32, usize)>,
    /// When a destination that has much of a full active queue is looked at again (monotonic).
    pub(super) relieve_us: Option<u64>,
    /// When one was looked for last (monotonic).
    pub(super) relieved_us: u64,
}

impl Scheduler {
    /// An empty queue.
    pub fn new(settings: Settings, now: Now) -> Self {
        Self {
            settings,
            default_transport: TransportSettings::default(),
            transport_settings: HashMap::new(),
            catalogue: Catalogue::default(),
            active: Slab::default(),
            loading: 0,
            retries: 0,
            in_core: 0,
            transports: Vec::new(),
            transport_numbers: HashMap::new(),
            destinations: Slab::default(),
            idle: VecDeque::new(),
            routes: Routes::default(),
            jobs: Jobs::new(now.wall_us),
            agents: NumberMap::default(),
            timers: BinaryHeap::new(),
            settled: Vec::new(),
            dirty: Vec::new(),
            events: VecDeque::new(),
            errands: Slab::default(),
            draws: 0,
            leaving: NumberMap::default(),
            look: Look::default(),
            admitted: 0,
            calling: VecDeque::new(),
            relieve_us: None,
            relieved_us: 0,
        }
    }

    /// Go by these settings from now on. Routes are asked for anew; what is under way goes on as it is.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
        self.routes.forget();
    }

    /// Go by these parameters for one transport, or with no name for all that have none of their own.
    pub fn configure_transport(&mut self, name: Option<&str>, settings: TransportSettings) {
        match name {
            None => self.default_transport = settings,
            Some(name) => {
                self.transport_settings.insert(name.into(), settings);
            }
        }
        for transport in &mut self.transports {
            let chosen = self.transport_settings.get(&*transport.name).unwrap_or(&self.default_transport);
            if transport.settings != *chosen {
                transport.settings = *chosen;
                transport.count_room();
                for key in &transport.destinations {
                    self.destinations[*key].window.limited(&chosen.window_rules());
                }
            }
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Every message in the queue.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// As `catalogue`, for the store's part of it.
    pub(super) fn catalogue_mut(&mut self) -> &mut Catalogue {
        &mut self.catalogue
    }

    /// The message that is active under this key (`Place::Active`).
    pub fn active(&self, key: u32) -> Option<&Active> {
        self.active.get(key)
    }

    /// A message that was on disk when the queue manager began.
    pub fn restore(&mut self, stored: Stored, now: Now) {
        let Stored { arrival: Arrival { locator, envelope }, state } = stored;
        let Some(slot) = self.catalogue.insert(envelope.id, locator, envelope.recipients.len() as u32) else {
            return;
        };
        let (held, deferred) = (state.held, state.next_attempt_us.is_some());
        // A clock that was turned back must not put an attempt off beyond what back-off ever does.
        let latest_us = now.mono_us + self.settings.lifetimes.maximal_backoff_us;
        let due_us = match state.next_attempt_us {
            // A person wanted it returned at once, and that is still to come.
            _ if state.forced_expire => now.mono_us,
            Some(next_us) => now.mono_of_wall(next_us).min(latest_us),
            None => 0,
        };
        self.catalogue.keep(slot, state, due_us);
        if self.catalogue.entry(slot).finished() {
            self.forget(slot);
        } else if held {
            self.catalogue.place(slot, Place::Held);
        } else if deferred {
            self.catalogue.wait_until(slot, due_us);
        } else {
            self.enter(slot, envelope, now);
        }
    }

    /// A message is on disk. One that is known already is no news.
    pub fn arrived(&mut self, arrival: Arrival, now: Now) {
        let Arrival { locator, envelope } = arrival;
        if let Some(slot) = self.catalogue.insert(envelope.id, locator, envelope.recipients.len() as u32) {
            if envelope.recipients.is_empty() { self.forget(slot) } else { self.enter(slot, envelope, now) }
        }
    }

    /// The envelope asked for with `Event::Load`. `Err`: it cannot be read; the text says why.
    pub fn loaded(&mut self, id: QueueId, envelope: Result<Envelope, String>, now: Now) {
        let Some(slot) = self.catalogue.slot(id) else {
            return;
        };
        if let Err(reason) = &envelope {
            let name = id.text(self.settings.long_queue_ids);
            self.warn(format!("{name}: cannot be read: {reason}"));
        }
        match (self.catalogue.entry(slot).place(), envelope) {
            (Place::Loading, Ok(envelope)) => {
                self.leave_loading(slot);
                self.retries += usize::from(self.catalogue.entry(slot).is_retry());
                self.activate(slot, envelope, now);
            }
            (Place::Loading, Err(_)) => {
                self.leave_loading(slot);
                self.catalogue.wait_until(slot, now.mono_us + self.settings.lifetimes.minimal_backoff_us);
            }
            _ => {}
        }
    }

    /// The recipients asked for with `Event::Read`, and where to read on. `Err`: they cannot be read; the text says why,
    /// and they stay for another attempt.
    pub fn read(&mut self, id: QueueId, read: Result<(Vec<Recipient>, Cursor), String>, now: Now) {
        let Some(slot) = self.catalogue.slot(id) else {
            return;
        };
        if let Err(reason) = &read {
            let name = id.text(self.settings.long_queue_ids);
            self.warn(format!("{name}: cannot be read: {reason}"));
        }
        if let Place::Active(key) = self.catalogue.entry(slot).place()
            && self.active[key].reading
        {
            let (recipients, next) = read.unwrap_or_default();
            self.recipients_read(key, recipients, next, now);
        }
    }

    /// What the resolver says of `address`. `recipient`: what the address becomes, if it changes.
    pub fn resolved(&mut self, address: &str, transport: &str, nexthop: &str, recipient: Option<&str>, now: Now) {
        let transport = self.transport_number(transport);
        let route = Route { transport, nexthop: nexthop.into(), recipient: recipient.map(Into::into) };
        for asker in self.routes.answered(address, self.settings.route_by_domain, Some(&route)) {
            if !self.active.is(asker.message, asker.serial) {
                continue;
            }
            let message = &mut self.active[asker.message];
            if let Some(target) = message.targets.get_mut(asker.position as usize) {
                target.take(&route);
            }
            self.one_resolved(asker.message, now);
        }
    }

    /// The resolver cannot say where `address` goes: its recipients are deferred, or bounced if it is no address.
    pub fn unresolved(&mut self, address: &str, status: Status, now: Now) {
        let status = Arc::new(status);
        for asker in self.routes.answered(address, self.settings.route_by_domain, None) {
            if self.active.is(asker.message, asker.serial) {
                self.decide_here(asker.message, asker.position, &status, now);
                self.one_resolved(asker.message, now);
            }
        }
    }

    fn one_resolved(&mut self, key: u32, now: Now) {
        let message = &mut self.active[key];
        message.unresolved -= 1;
        if message.unresolved == 0 && message.phase == Phase::Delivering {
            self.place_recipients(key, now);
        }
    }

    /// An agent serves `transport` and takes `capacity` jobs at a time; 0 is an agent that finishes and leaves.
    pub fn agent(&mut self, peer: u32, transport: &str, capacity: u32, now: Now) {
        let number = self.transport_number(transport);
        let transport = &mut self.transports[number as usize];
        match transport.agents.iter_mut().find(|agent| agent.peer == peer) {
            Some(agent) => agent.capacity = capacity,
            None => transport.agents.push(Agent { peer, capacity, busy: 0 }),
        }
        transport.count_room();
        self.agents.insert(peer, number);
        if capacity > 0 {
            self.revive_transport(number, now);
        }
        self.dirty.push(number);
    }

    /// A peer is gone. If it was an agent its jobs are given to another one: see `outcome.rs`.
    pub fn lost(&mut self, peer: u32, now: Now) {
        let Some(number) = self.agents.remove(&peer) else {
            return;
        };
        let transport = &mut self.transports[number as usize];
        transport.agents.retain(|agent| agent.peer != peer);
        transport.count_room();
        for job in self.jobs.of_peer(peer) {
            self.job_lost(job, now);
        }
        self.dirty.push(number);
    }

    /// No agent can be started for `transport`.
    pub fn trigger_failed(&mut self, transport: &str, reason: &str, now: Now) {
        self.warn(format!("connect to transport private/{transport}: {reason}"));
        let number = self.transport_number(transport);
        if !self.transports[number as usize].agents.iter().any(|agent| agent.capacity > 0) {
            self.kill_transport(number, now);
        }
    }

    /// Let what is due happen.
    pub fn tick(&mut self, now: Now) {
        while let Some(Reverse((due_us, timer))) = self.timers.peek().copied() {
            if due_us > now.mono_us {
                break;
            }
            self.timers.pop();
            match timer {
                Timer::Destination(key) => self.destination_due(key, now),
                Timer::Transport(number) => self.transport_due(number, now),
            }
        }
    }

    /// The moment (monotonic) at which `tick` has something to do; `None` while it has not.
    pub fn deadline(&mut self) -> Option<u64> {
        if self.has_work() {
            return Some(0);
        }
        let timer = self.timers.peek().map(|Reverse((due_us, _))| *due_us);
        // Without room a retry that is due waits for room, which comes with a result, not with time.
        let may_retry = self.has_room() && self.has_retry_room();
        let retry = if may_retry { self.catalogue.first_due().map(|(due_us, _)| due_us) } else { None };
        [timer, retry, self.relieve_us].into_iter().flatten().min()
    }

    fn has_work(&self) -> bool {
        !(self.events.is_empty() && self.settled.is_empty() && self.dirty.is_empty())
    }

    /// The next thing to do, or `None` when all is done that can be done now.
    pub fn next_event(&mut self, now: Now) -> Option<Event> {
        if self.events.is_empty() {
            self.work(now);
        }
        self.events.pop_front()
    }

    fn work(&mut self, now: Now) {
        loop {
            while let Some((key, serial)) = self.settled.pop() {
                if self.active.is(key, serial) {
                    self.memory_settled(key, now);
                }
            }
            self.admit(now);
            while let Some(number) = self.dirty.pop() {
                self.dispatch(number, now);
            }
            if self.settled.is_empty() && self.dirty.is_empty() {
                return;
            }
        }
    }

    /// A transport may have something to send.
    pub(super) fn touch(&mut self, number: u32) {
        if self.dirty.last() != Some(&number) {
            self.dirty.push(number);
        }
    }

    pub(super) fn set_timer(&mut self, due_us: u64, timer: Timer) {
        self.timers.push(Reverse((due_us, timer)));
    }

    pub(super) fn warn(&mut self, text: String) {
        self.events.push_back(Event::Line { program: None, warning: true, text: text.into() });
    }
}

/// A deferral decided here, with its enhanced code `4.subject.detail`.
pub(super) fn deferral([subject, detail]: [u16; 2], text: &str) -> Status {
    let dsn = Enhanced { class: 4, subject, detail };
    Status { outcome: Outcome::Deferred, dsn, text: text.into(), remote: None }
}
