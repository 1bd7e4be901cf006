//! The state machine: messages, transports, destinations and agents, driven by [`Now`].
//!
//! Something happened (`arrived`, `loaded`, `resolved`, `agent`, `result`, `lost`, `tick`), and what is to be done comes
//! out of `next_event`, in order: a fact stands before whatever relies on it. Nothing here blocks, and every wait has a
//! moment at which it ends (`deadline`).
//!
//! ```text
//! arrived ─> Fresh ─┐           ┌─ Resolving ─> Delivering ─> Reading (next part)
//!                   ├─ Loading ─┤                   │
//! Deferred (due) ───┘           └───────────────────┴─> Bouncing ─> Warning ─> removed | Deferred | Held
//! ```

use super::catalogue::{Catalogue, Entry, Place};
use super::clock::{Now, SECOND_US};
use super::destination::{Bundle, Destination};
use super::job::{InFlight, Jobs};
use super::message::{Active, Phase, Target, Wish};
use super::route::{Asker, Route, Routes};
use super::settings::{Settings, TransportSettings};
use super::slab::Slab;
use super::transport::{Agent, RETRY_STRIDE, Transport};
use crate::ipc::frame::{Arrival, Job, JobKind, JobRecipient, Outcome, Status};
use crate::message::envelope::{Envelope, Recipient};
use crate::queue::id::QueueId;
use crate::queue::locator::Locator;
use crate::queue::spool::Stored;
use crate::queue::state::Fact;
use crate::smtp::reply::Enhanced;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

/// Destinations of which nothing waits that are still remembered, with the windows that they have learned.
pub const IDLE_DESTINATIONS_MAX: usize = 1000;
/// Mail waits for an agent: the transport is asked for one again after this time.
pub const ASK_AGAIN_US: u64 = 5 * SECOND_US;

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
        text: String,
    },
    /// Read this envelope and say `loaded`.
    Load {
        /// The message.
        id: QueueId,
        /// Where it stands.
        at: Locator,
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
    transport_numbers: HashMap<Arc<str>, u32>,
    pub(super) destinations: Slab<Destination>,
    idle: VecDeque<u32>,
    pub(super) routes: Routes,
    pub(super) jobs: Jobs,
    agents: HashMap<u32, u32>,
    pub(super) timers: BinaryHeap<Reverse<(u64, Timer)>>,
    pub(super) settled: Vec<(u32, u64)>,
    dirty: Vec<u32>,
    pub(super) events: VecDeque<Event>,
    draws: u64,
    retry_turn: bool,
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
            agents: HashMap::new(),
            timers: BinaryHeap::new(),
            settled: Vec::new(),
            dirty: Vec::new(),
            events: VecDeque::new(),
            draws: 0,
            retry_turn: false,
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
                for key in transport.destinations.values() {
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

    /// The message that is active under this key (`Place::Active`).
    pub fn active(&self, key: u32) -> Option<&Active> {
        self.active.get(key)
    }

    /// A message that was on disk when the queue manager began.
    pub fn restore(&mut self, stored: Stored, now: Now) {
        let Stored { arrival: Arrival { locator, envelope }, state } = stored;
        let mut entry = Entry::fresh(envelope.id, locator, envelope.recipients.len() as u32);
        let (held, next_attempt_us) = (state.held, state.next_attempt_us);
        entry.keep(state);
        let Some(slot) = self.catalogue.insert(entry) else {
            return;
        };
        if self.catalogue.entry(slot).finished() {
            self.forget(slot);
        } else if held {
            self.catalogue.place(slot, Place::Held);
        } else if let Some(next_attempt_us) = next_attempt_us {
            // A clock that was turned back must not put an attempt off beyond what back-off ever does.
            let latest_us = now.mono_us + self.settings.lifetimes.maximal_backoff_us;
            self.catalogue.wait_until(slot, now.mono_of_wall(next_attempt_us).min(latest_us));
        } else {
            self.enter(slot, envelope, now);
        }
    }

    /// A message is on disk. One that is known already is no news.
    pub fn arrived(&mut self, arrival: Arrival, now: Now) {
        let Arrival { locator, envelope } = arrival;
        let entry = Entry::fresh(envelope.id, locator, envelope.recipients.len() as u32);
        if let Some(slot) = self.catalogue.insert(entry) {
            if envelope.recipients.is_empty() { self.forget(slot) } else { self.enter(slot, envelope, now) }
        }
    }

    /// Deliver it now if there is room and nobody waits; else it waits without its envelope.
    fn enter(&mut self, slot: u32, envelope: Envelope, now: Now) {
        if self.catalogue.first_fresh().is_none() && self.has_room() {
            self.retries += usize::from(self.catalogue.entry(slot).is_retry());
            self.activate(slot, envelope, now);
        } else {
            self.catalogue.wait_fresh(slot);
        }
    }

    /// The record of a message stands elsewhere now.
    pub fn moved(&mut self, id: QueueId, at: Locator) {
        if let Some(slot) = self.catalogue.slot(id) {
            self.catalogue.entry_mut(slot).at = at;
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
        match (self.catalogue.entry(slot).place, envelope) {
            (Place::Loading, Ok(envelope)) => {
                self.leave_loading(slot);
                self.retries += usize::from(self.catalogue.entry(slot).is_retry());
                self.activate(slot, envelope, now);
            }
            (Place::Loading, Err(_)) => {
                self.leave_loading(slot);
                self.catalogue.wait_until(slot, now.mono_us + self.settings.lifetimes.minimal_backoff_us);
            }
            (Place::Active(key), envelope) if self.active[key].phase == Phase::Reading => match envelope {
                Ok(envelope) => self.begin_part(key, envelope.recipients, now),
                Err(_) => self.end_attempt(key, now),
            },
            _ => {}
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
            let target = &mut message.targets[asker.position as usize];
            target.take(&route);
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
        if message.unresolved == 0 && message.phase == Phase::Resolving {
            self.place_part(key, now);
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
        let may_retry = self.has_room() && self.retries < self.settings.retry_active_limit();
        let retry = if may_retry { self.catalogue.first_due().map(|(due_us, _)| due_us) } else { None };
        [timer, retry].into_iter().flatten().min()
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
                    self.part_settled(key, now);
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

    // Admission.

    /// Another message may become active: always the first one, however many recipients it has; none with a limit of 0.
    pub(super) fn has_room(&self) -> bool {
        let messages = self.active.len() + self.loading;
        messages < self.settings.message_active_limit
            && (messages == 0 || self.in_core < self.settings.message_recipient_limit)
    }

    /// Recipients that a message will bring into memory at first.
    fn first_part(&self, slot: u32) -> usize {
        let entry = self.catalogue.entry(slot);
        ((entry.recipients - entry.done.count()) as usize).min(self.settings.part_recipients())
    }

    /// Fill the room there is: fresh mail and retries take turns, and retries never take all of it.
    fn admit(&mut self, now: Now) {
        while self.has_room() {
            let fresh = self.catalogue.first_fresh();
            let due = self.catalogue.first_due().filter(|(due_us, _)| *due_us <= now.mono_us).map(|(_, slot)| slot);
            let due = due.filter(|_| self.retries < self.settings.retry_active_limit());
            let slot = match (fresh, due) {
                (None, None) => return,
                (Some(slot), None) | (None, Some(slot)) => slot,
                (Some(fresh), Some(due)) => {
                    self.retry_turn = !self.retry_turn;
                    if self.retry_turn { due } else { fresh }
                }
            };
            self.catalogue.place(slot, Place::Loading);
            self.loading += 1;
            self.in_core += self.first_part(slot);
            let entry = self.catalogue.entry(slot);
            self.retries += usize::from(entry.is_retry());
            self.events.push_back(Event::Load { id: entry.id, at: entry.at });
        }
    }

    pub(super) fn leave_loading(&mut self, slot: u32) {
        self.loading -= 1;
        self.in_core = self.in_core.saturating_sub(self.first_part(slot));
        self.retries -= usize::from(self.catalogue.entry(slot).is_retry());
    }

    fn activate(&mut self, slot: u32, mut envelope: Envelope, now: Now) {
        let entry = self.catalogue.entry(slot);
        let text = format!(
            "{}: from=<{}>, size={}, nrcpt={} (queue active)",
            entry.id.text(self.settings.long_queue_ids),
            envelope.sender,
            envelope.size_octets,
            entry.recipients - entry.done.count(),
        );
        let retry = entry.is_retry();
        self.events.push_back(Event::Line { program: None, warning: false, text });
        let recipients = std::mem::take(&mut envelope.recipients);
        let (key, _) = self.active.insert(Active {
            slot,
            envelope,
            targets: Vec::new(),
            waiting: 0,
            jobs: 0,
            unresolved: 0,
            unread_from: 0,
            active_us: now.wall_us,
            phase: Phase::Resolving,
            wish: Wish::Deliver,
            withdrawn: false,
            retry,
            expired: false,
            ticket: 0,
            agents_lost: 0,
            deferred: Vec::new(),
            bounced: Vec::new(),
            late: Vec::new(),
        });
        self.catalogue.place(slot, Place::Active(key));
        self.begin_part(key, recipients, now);
    }

    /// Take the next part of the recipients into memory and find out where they go.
    fn begin_part(&mut self, key: u32, recipients: Vec<Recipient>, now: Now) {
        let part = self.settings.part_recipients();
        let message = &mut self.active[key];
        let entry = self.catalogue.entry(message.slot);
        let forced_expire = entry.forced_expire;
        let from = message.unread_from;
        message.unread_from = entry.recipients;
        for (index, recipient) in (0..entry.recipients).zip(recipients).skip(from as usize) {
            if message.targets.len() >= part {
                message.unread_from = index;
                break;
            }
            if entry.done.contains(index) {
                continue;
            }
            match entry.reason(index).filter(|status| status.outcome == Outcome::Bounced) {
                // It failed for good, and only the report is missing.
                Some(status) => {
                    message.bounced.push(JobRecipient { index, recipient, status: Some(Status::clone(status)) });
                }
                None => {
                    message.targets.push(Target { index, recipient, route: None, in_flight: false, outcome: None });
                }
            }
        }
        message.waiting = message.targets.len() as u32;
        message.phase = Phase::Resolving;
        self.in_core += message.targets.len();
        if forced_expire {
            let status = Arc::new(deferral([7, 0], "message is administratively expired"));
            for position in 0..self.active[key].targets.len() as u32 {
                self.decide_here(key, position, &status, now);
            }
        }
        self.resolve_part(key, now);
    }

    fn resolve_part(&mut self, key: u32, now: Now) {
        let by_domain = self.settings.route_by_domain;
        let serial = self.active.serial(key);
        let message = &mut self.active[key];
        let mut malformed = Vec::new();
        for (position, target) in (0u32..).zip(&mut message.targets) {
            if target.outcome.is_some() {
                continue;
            }
            let address = &target.recipient.address;
            if address.is_empty() {
                malformed.push(position);
                continue;
            }
            if let Some(route) = self.routes.known(address, by_domain, now.mono_us) {
                target.take(route);
                continue;
            }
            message.unresolved += 1;
            if self.routes.ask(address, by_domain, Asker { message: key, serial, position }) {
                self.events.push_back(Event::Resolve { address: address.clone() });
            }
        }
        let unresolved = message.unresolved;
        if !malformed.is_empty() {
            let dsn = Enhanced { class: 5, subject: 1, detail: 3 };
            let text = "null recipient address".into();
            let status = Arc::new(Status { outcome: Outcome::Bounced, dsn, text, remote: None });
            for position in malformed {
                self.decide_here(key, position, &status, now);
            }
        }
        if unresolved == 0 {
            self.place_part(key, now);
        }
    }

    /// Every recipient of the part has its route: put them into bundles by destination.
    fn place_part(&mut self, key: u32, now: Now) {
        self.active[key].phase = Phase::Delivering;
        let mut placed = Vec::with_capacity(self.active[key].targets.len());
        for position in 0..self.active[key].targets.len() {
            let target = &self.active[key].targets[position];
            if target.outcome.is_none()
                && let Some(route) = target.route.clone()
            {
                let destination = self.destination(&route, position, key);
                placed.push((destination, position as u32));
            }
        }
        placed.sort_unstable();
        for run in placed.chunk_by(|a, b| a.0 == b.0) {
            let positions = run.iter().rev().map(|(_, position)| *position).collect();
            self.wait_for(run[0].0, key, JobKind::Deliver, positions, now);
        }
        self.check_settled(key);
    }

    // Transports and destinations.

    pub(super) fn transport_number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.transport_numbers.get(name) {
            return *number;
        }
        let number = self.transports.len() as u32;
        let name: Arc<str> = name.into();
        let settings = self.transport_settings.get(&*name).unwrap_or(&self.default_transport);
        self.transports.push(Transport::new(Arc::clone(&name), *settings));
        self.transport_numbers.insert(name, number);
        number
    }

    fn destination(&mut self, route: &Route, position: usize, message: u32) -> u32 {
        if self.transports[route.transport as usize].settings.recipient_limit == 1 {
            let address = &self.active[message].targets[position].recipient.address;
            let local = address.rsplit_once('@').map_or(&**address, |(local, _)| local);
            let end = local
                .char_indices()
                .skip(1)
                .find(|(_, c)| self.settings.recipient_delimiter.contains(*c))
                .map_or(local.len(), |(at, _)| at);
            let key = format!("{}@{}", &local[..end], route.nexthop);
            return self.destination_by_key(route.transport, &key, &route.nexthop);
        }
        self.destination_by_key(route.transport, &route.nexthop, &route.nexthop)
    }

    fn destination_by_key(&mut self, transport: u32, key: &str, nexthop: &Arc<str>) -> u32 {
        let owner = &mut self.transports[transport as usize];
        if let Some(destination) = owner.destinations.get(key) {
            return *destination;
        }
        let key: Arc<str> = if **nexthop == *key { Arc::clone(nexthop) } else { key.into() };
        let rules = owner.settings.window_rules();
        let new = Destination::new(transport, Arc::clone(&key), Arc::clone(nexthop), &rules);
        let (number, _) = self.destinations.insert(new);
        owner.destinations.insert(key, number);
        number
    }

    /// Where reports go.
    pub(super) fn bounce_destination(&mut self) -> u32 {
        let service = self.settings.bounce_service.clone();
        let transport = self.transport_number(&service);
        self.destination_by_key(transport, "", &"".into())
    }

    /// Recipients of a message begin to wait for a destination; or not, if it is known to be dead.
    pub(super) fn wait_for(&mut self, destination: u32, key: u32, kind: JobKind, positions: Vec<u32>, now: Now) {
        let transport = &self.transports[self.destinations[destination].transport as usize];
        let deferred_transport = self.settings.defer_transports.iter().any(|name| **name == *transport.name);
        let reason = if deferred_transport && kind == JobKind::Deliver {
            Some(Arc::new(deferral([3, 2], "deferred transport")))
        } else if let Some((status, _)) = &transport.dead {
            Some(Arc::clone(status))
        } else {
            self.destinations[destination].dead.as_ref().map(|(status, _)| Arc::clone(status))
        };
        match reason {
            Some(status) => self.turn_away(key, kind, &positions, &status, now),
            None => self.line_up(destination, key, kind, positions, now),
        }
    }

    /// Draw a ticket and wait. See `transport.rs` for what tickets do.
    pub(super) fn line_up(&mut self, destination: u32, key: u32, kind: JobKind, positions: Vec<u32>, now: Now) {
        let serial = self.active.serial(key);
        let message = &mut self.active[key];
        let waits_at = &mut self.destinations[destination];
        let clock = self.transports[waits_at.transport as usize].clock;
        let (class, stride) = if message.retry { (1, RETRY_STRIDE) } else { (0, 1) };
        let ticket = clock.max(message.ticket).max(waits_at.tickets[class]) + stride;
        message.ticket = ticket;
        waits_at.tickets[class] = ticket;
        self.draws += 1;
        let bundle = Bundle { message: key, serial, kind, positions, retry: message.retry };
        waits_at.queue.insert((ticket, self.draws), bundle);
        self.stand(destination, now);
    }

    /// See that a destination stands in its transport's line if it may send, and at the right turn.
    pub(super) fn stand(&mut self, key: u32, now: Now) {
        let destination = &mut self.destinations[key];
        let number = destination.transport;
        let turn = destination.next_turn(now.mono_us);
        if destination.turn != turn {
            let line = &mut self.transports[number as usize].line;
            if let Some(old) = destination.turn {
                line.remove(&(old, key));
            }
            if let Some(new) = turn {
                line.insert((new, key));
            }
            destination.turn = turn;
        }
        if turn.is_some() {
            self.touch(number);
        } else if destination.is_idle(now.mono_us) && !destination.idle_listed {
            destination.idle_listed = true;
            self.idle.push_back(key);
            self.forget_idle(now);
        }
    }

    fn forget_idle(&mut self, now: Now) {
        while self.idle.len() > IDLE_DESTINATIONS_MAX {
            let Some(key) = self.idle.pop_front() else {
                return;
            };
            let Some(destination) = self.destinations.get_mut(key) else {
                continue;
            };
            destination.idle_listed = false;
            // It may have been in use since.
            if destination.is_idle(now.mono_us)
                && let Some(destination) = self.destinations.remove(key)
            {
                self.transports[destination.transport as usize].destinations.remove(&destination.key);
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

    // Sending.

    fn dispatch(&mut self, number: u32, now: Now) {
        let transport = &mut self.transports[number as usize];
        if transport.dead.is_some() || transport.line.is_empty() {
            return;
        }
        if !transport.agents.iter().any(|agent| agent.capacity > 0) {
            return self.want_agent(number, now);
        }
        loop {
            let transport = &mut self.transports[number as usize];
            if transport.room == 0 || transport.pause_until_us > now.mono_us {
                return;
            }
            let Some((_, destination)) = transport.line.first().copied() else {
                return;
            };
            self.send(number, destination, now);
        }
    }

    fn want_agent(&mut self, number: u32, now: Now) {
        let transport = &mut self.transports[number as usize];
        if transport.asked_us.is_some_and(|asked_us| asked_us + ASK_AGAIN_US > now.mono_us) {
            return;
        }
        if transport.wanting_since_us.is_none() {
            transport.wanting_since_us = Some(now.mono_us);
        }
        transport.asked_us = Some(now.mono_us);
        let wanted = Arc::clone(&transport.name);
        self.events.push_back(Event::NeedAgent { transport: wanted });
        self.set_timer(now.mono_us + ASK_AGAIN_US, Timer::Transport(number));
    }

    /// Make a job of what is first at a destination that may send, and give it to an agent with room.
    fn send(&mut self, number: u32, key: u32, now: Now) {
        let destination = &mut self.destinations[key];
        let Some((turn, mut bundle)) = destination.queue.pop_first() else {
            return self.stand(key, now);
        };
        if !self.active.is(bundle.message, bundle.serial)
            || self.active[bundle.message].withdrawn && bundle.kind == JobKind::Deliver
        {
            return self.stand(key, now);
        }
        let transport = &mut self.transports[number as usize];
        transport.clock = transport.clock.max(turn.0);
        let message = &mut self.active[bundle.message];
        let limit = match transport.settings.recipient_limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let mut positions = Vec::new();
        let mut recipients = Vec::new();
        match bundle.kind {
            JobKind::Deliver => {
                while positions.len() < limit
                    && let Some(position) = bundle.positions.pop()
                {
                    let target = &mut message.targets[position as usize];
                    if target.outcome.is_some() || target.in_flight {
                        continue;
                    }
                    target.in_flight = true;
                    positions.push(position);
                    let recipient = target.recipient.clone();
                    recipients.push(JobRecipient { index: target.index, recipient, status: None });
                }
            }
            JobKind::Bounce => recipients.clone_from(&message.bounced),
            JobKind::Warn => recipients.clone_from(&message.late),
        }
        if recipients.is_empty() {
            return self.stand(key, now);
        }
        let Some(agent) = transport.free_agent(destination.agent) else {
            unreachable!("room was counted before");
        };
        agent.busy += 1;
        let peer = agent.peer;
        transport.room -= 1;
        if transport.settings.transport_rate_delay_us > 0 {
            transport.pause_until_us = now.mono_us + transport.settings.transport_rate_delay_us;
            let resume_us = transport.pause_until_us;
            self.timers.push(Reverse((resume_us, Timer::Transport(number))));
        }
        destination.busy += 1;
        destination.agent = Some(peer);
        message.jobs += 1;
        let in_flight = InFlight { message: bundle.message, destination: key, peer, kind: bundle.kind, positions };
        let job = Job {
            job: self.jobs.begin(in_flight),
            kind: bundle.kind,
            path: "".into(),
            locator: self.catalogue.entry(message.slot).at,
            transport: (*transport.name).into(),
            nexthop: (*destination.nexthop).into(),
            active_us: message.active_us,
            envelope: message.envelope.clone(),
            recipients,
        };
        self.events.push_back(Event::Deliver { peer, job: Box::new(job) });
        if bundle.positions.is_empty() {
            self.stand(key, now);
        } else {
            self.line_up(key, bundle.message, bundle.kind, bundle.positions, now);
        }
    }

    /// An agent has room for one more.
    pub(super) fn agent_freed(&mut self, peer: u32) {
        let Some(number) = self.agents.get(&peer).copied() else {
            return;
        };
        let transport = &mut self.transports[number as usize];
        if let Some(agent) = transport.agents.iter_mut().find(|agent| agent.peer == peer) {
            agent.busy -= 1;
        }
        transport.count_room();
        self.touch(number);
    }

    pub(super) fn warn(&mut self, text: String) {
        self.events.push_back(Event::Line { program: None, warning: true, text });
    }
}

/// A deferral decided here, with its enhanced code `4.subject.detail`.
pub(super) fn deferral([subject, detail]: [u16; 2], text: &str) -> Status {
    let dsn = Enhanced { class: 4, subject, detail };
    Status { outcome: Outcome::Deferred, dsn, text: text.into(), remote: None }
}
