//! The state machine: messages, transports, destinations and agents, driven by [`Now`].
//!
//! Calls tell what happened (`arrived`, `loaded`, `resolved`, `agent`, `result`, `lost`, `tick`). `next_event`
//! returns what is to be done, in order: a fact comes before the events that rely on it. Nothing here blocks, and
//! each wait has an end (`deadline`). `admission.rs`, `dispatch.rs` and `outcome.rs` are the arrows of the picture.
//!
//! ```text
//! arrived ─> Fresh ──────┐             ┌─ Delivering (and reading more recipients)
//!                        ├─> Loading ──┤       │  └────────> overflow
//! Deferred (due) ────────┤             │       │
//! overflow (readmitted) ─┘             └───────┴─> Bouncing ─> Warning ─> removed | Deferred | Held
//! ```
//!
//! ```text
//! admission   from the queue on disk into memory: room, order of fresh mail and retries, parts of a list
//! dispatch    from a route to a delivery: peers of a destination, agents
//! outcome     from a result to the state of recipient, message and destination
//! overflow    messages for a slow destination that wait outside the active queue
//! preemption  which job preempts
//! control     commands of the administrator
//! requeue     messages that a command moves to maildrop/
//! waits       why a message waits, and when it goes next
//! trace       the report of the first attempt: `sendmail -v` and `-bv`
//! ```

mod admission;
pub mod control;
pub mod dispatch;
mod outcome;
mod overflow;
mod preemption;
pub mod requeue;
mod trace;
pub mod waits;

use crate::clock::Now;
use crate::ipc::frame::{self, Arrival};
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::id::QueueId;
use crate::mail::locator::Locator;
use crate::mail::reply::Enhanced;
use crate::mail::status::{Outcome, Status};
use crate::qmgr::deliveries::Deliveries;
use crate::qmgr::destination::DestinationQueue;
use crate::qmgr::job::Job;
use crate::qmgr::line::Text;
use crate::qmgr::message::{Active, Phase};
use crate::qmgr::route::{Question, Resolved, Route, Routes};
use crate::qmgr::settings::{Settings, TransportSettings};
use crate::qmgr::transport::{Agent, Transport};
use crate::queue::catalogue::{Catalogue, Place};
use crate::queue::segment::recipients::Cursor;
use crate::queue::state::Fact;
use crate::queue::store::Stored;
use crate::slab::Slab;
use crate::spread::NumberMap;
use hashbrown::HashMap;
use preemption::FailedSearch;
use requeue::Requeued;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

/// A task, in the order of `next_event`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Write the fact to the state log before acting on a later event.
    Note(Fact),
    /// Write a log line, in the name of another program if there is one.
    Line {
        /// The other program.
        program: Option<&'static str>,
        /// The line is a warning.
        warning: bool,
        /// The line.
        text: Text,
    },
    /// Read this envelope and call `loaded`.
    Load {
        /// The message.
        id: QueueId,
        /// Its record.
        at: Locator,
    },
    /// Read more recipients of this envelope and call `read`.
    Read {
        /// The message.
        id: QueueId,
        /// Its record.
        at: Locator,
        /// The first recipient.
        from: Cursor,
        /// Maximum number of recipients, at least one.
        most: u32,
    },
    /// Find the route of this address and call `resolved` or `unresolved`.
    Resolve {
        /// The address.
        address: Box<str>,
        /// The sender; empty for the null sender, and while no route depends on the sender.
        sender: Box<str>,
    },
    /// Start an agent of this transport, which has none and has mail, or call `trigger_failed`.
    NeedAgent {
        /// The transport's name.
        transport: Arc<str>,
    },
    /// Send this delivery request to this agent. Its `path` is still empty.
    Deliver {
        /// The agent.
        agent: u32,
        /// The request.
        request: Box<frame::Job>,
    },
}

/// The owner of a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Destination(u32),
    Transport(u32),
}

/// The queue manager's state.
#[derive(Debug)]
pub struct Scheduler {
    settings: Settings,
    default_transport: TransportSettings,
    transport_settings: HashMap<Box<str>, TransportSettings>,
    catalogue: Catalogue,
    active: Slab<Active>,
    /// Messages whose envelope is being read for the first part.
    loading: usize,
    /// Active and loading messages that are retries.
    retries: usize,
    /// Recipients in memory, and those of loading messages.
    in_core: usize,
    transports: Vec<Transport>,
    transport_numbers: HashMap<Arc<str>, u32>,
    destinations: Slab<DestinationQueue>,
    idle: VecDeque<u32>,
    routes: Routes,
    deliveries: Deliveries,
    agents: NumberMap<u32, u32>,
    timers: BinaryHeap<Reverse<(u64, Timer)>>,
    finished: Vec<(u32, u64)>,
    dirty: Vec<u32>,
    events: VecDeque<Event>,
    jobs: Slab<Job>,
    arrivals: u64,
    /// Messages that a command moves to maildrop/.
    requeued: NumberMap<QueueId, Requeued>,
    /// The last failed search for a preempting job.
    last_search: FailedSearch,
    /// Source of the last admitted message: see `admit`.
    admitted: usize,
    /// Destinations whose overflow may enter the active queue, and the number of messages that may.
    readmitting: VecDeque<(u32, usize)>,
    /// Time of the next search of a full active queue for a slow destination (monotonic).
    relieve_us: Option<u64>,
    /// Time of the last such search (monotonic).
    relieved_us: u64,
}

impl Scheduler {
    /// Return the scheduler of an empty queue.
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
            deliveries: Deliveries::new(now.wall_us),
            agents: NumberMap::default(),
            timers: BinaryHeap::new(),
            finished: Vec::new(),
            dirty: Vec::new(),
            events: VecDeque::new(),
            jobs: Slab::default(),
            arrivals: 0,
            requeued: NumberMap::default(),
            last_search: FailedSearch::default(),
            admitted: 0,
            readmitting: VecDeque::new(),
            relieve_us: None,
            relieved_us: 0,
        }
    }

    /// Apply new settings. Routes are resolved again; deliveries under way go on.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
        self.routes.forget();
    }

    /// Apply the parameters of one transport, or without a name of all others.
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

    /// Return the settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Return the catalogue of all messages.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Return the catalogue for the changes of the store.
    pub(super) fn catalogue_mut(&mut self) -> &mut Catalogue {
        &mut self.catalogue
    }

    /// Return the message with this key (`Place::Active`).
    pub fn active(&self, key: u32) -> Option<&Active> {
        self.active.get(key)
    }

    /// Add a message that was on disk at the start.
    pub fn restore(&mut self, stored: Stored, now: Now) {
        let Stored { arrival: Arrival { locator, envelope }, state } = stored;
        let Some(slot) = self.catalogue.insert(envelope.id, locator, envelope.recipients.len() as u32) else {
            return;
        };
        let arrives_held = envelope.holds_on_arrival() && !state.released && !state.held;
        let (held, deferred) = (state.held, state.next_attempt_us.is_some());
        // A clock that was turned back must not defer an attempt beyond the longest back-off.
        let latest_us = now.mono_us + self.settings.lifetimes.maximal_backoff_us;
        let due_us = match state.next_attempt_us {
            // A command expired it, and it is not returned yet.
            _ if state.forced_expire => now.mono_us,
            Some(next_us) => now.mono_of_wall(next_us).min(latest_us),
            None => 0,
        };
        self.catalogue.keep(slot, state, due_us);
        if self.catalogue.entry(slot).finished() {
            self.forget(slot);
        } else if arrives_held {
            self.hold(envelope.id, now);
        } else if held {
            self.catalogue.place(slot, Place::Held);
        } else if deferred {
            self.catalogue.wait_until(slot, due_us);
        } else {
            self.enter(slot, envelope, now);
        }
    }

    /// Add a new message. A known message is ignored.
    pub fn arrived(&mut self, arrival: Arrival, now: Now) {
        let Arrival { locator, envelope } = arrival;
        if let Some(slot) = self.catalogue.insert(envelope.id, locator, envelope.recipients.len() as u32) {
            if envelope.recipients.is_empty() {
                self.forget(slot);
            } else if envelope.holds_on_arrival() {
                self.hold(envelope.id, now);
            } else {
                self.enter(slot, envelope, now);
            }
        }
    }

    /// Take the envelope of `Event::Load`. `Err`: it is unreadable; the text gives the reason.
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
                self.stop_loading(slot);
                self.retries += usize::from(self.catalogue.entry(slot).is_retry());
                self.activate(slot, envelope, now);
            }
            (Place::Loading, Err(_)) => {
                self.stop_loading(slot);
                self.catalogue.wait_until(slot, now.mono_us + self.settings.lifetimes.minimal_backoff_us);
            }
            _ => {}
        }
    }

    /// Take the recipients of `Event::Read`, and the position of the next ones. `Err`: they are unreadable and stay
    /// for another attempt; the text gives the reason.
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

    /// Take the route that answers a question.
    pub fn resolved(&mut self, question: Question<'_>, route: Resolved<'_>, now: Now) {
        let transport = self.transport_number(route.transport);
        let recipient = route.recipient.map(Into::into);
        let route = Route { transport, nexthop: route.nexthop.into(), recipient };
        for asker in self.routes.answered(question, self.settings.routes, Some(&route)) {
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

    /// Defer the recipients of an address without a route, or bounce them if it is not an address.
    pub fn unresolved(&mut self, question: Question<'_>, status: Status, now: Now) {
        let status = Arc::new(status);
        for asker in self.routes.answered(question, self.settings.routes, None) {
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

    /// Add an agent of `transport`, or change its capacity. An agent with capacity 0 finishes its deliveries and
    /// leaves.
    pub fn agent(&mut self, client: u32, transport: &str, capacity: u32, now: Now) {
        let number = self.transport_number(transport);
        let transport = &mut self.transports[number as usize];
        match transport.agents.iter_mut().find(|agent| agent.client == client) {
            Some(agent) => agent.capacity = capacity,
            None => transport.agents.push(Agent { client, capacity, busy: 0 }),
        }
        transport.count_room();
        self.agents.insert(client, number);
        if capacity > 0 {
            self.revive_transport(number, now);
        }
        self.dirty.push(number);
    }

    /// Remove a client. Another agent gets the deliveries of a lost agent: see `outcome.rs`.
    pub fn lost(&mut self, client: u32, now: Now) {
        let Some(number) = self.agents.remove(&client) else {
            return;
        };
        let transport = &mut self.transports[number as usize];
        transport.agents.retain(|agent| agent.client != client);
        transport.count_room();
        for delivery in self.deliveries.of_agent(client) {
            self.delivery_lost(delivery, now);
        }
        self.dirty.push(number);
    }

    /// Note that no agent of `transport` can be started.
    pub fn trigger_failed(&mut self, transport: &str, reason: &str, now: Now) {
        self.warn(format!("connect to transport private/{transport}: {reason}"));
        let number = self.transport_number(transport);
        if !self.transports[number as usize].agents.iter().any(|agent| agent.capacity > 0) {
            self.kill_transport(number, now);
        }
    }

    /// Do what is due.
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

    /// Return the time (monotonic) of the next `tick`; `None` without a timer.
    pub fn deadline(&mut self) -> Option<u64> {
        if self.has_work() {
            return Some(0);
        }
        let timer = self.timers.peek().map(|Reverse((due_us, _))| *due_us);
        // Without room a due retry waits for a result, not for a timer.
        let may_retry = self.has_room() && self.has_retry_room();
        let retry = if may_retry { self.catalogue.first_due().map(|(due_us, _)| due_us) } else { None };
        [timer, retry, self.relieve_us].into_iter().flatten().min()
    }

    fn has_work(&self) -> bool {
        !(self.events.is_empty() && self.finished.is_empty() && self.dirty.is_empty())
    }

    /// Return the next task; `None` when nothing can be done now.
    pub fn next_event(&mut self, now: Now) -> Option<Event> {
        if self.events.is_empty() {
            self.work(now);
        }
        self.events.pop_front()
    }

    fn work(&mut self, now: Now) {
        loop {
            while let Some((key, serial)) = self.finished.pop() {
                if self.active.is(key, serial) {
                    self.recipients_finished(key, now);
                }
            }
            self.admit(now);
            while let Some(number) = self.dirty.pop() {
                self.dispatch(number, now);
            }
            if self.finished.is_empty() && self.dirty.is_empty() {
                return;
            }
        }
    }

    /// Note that a transport may have something to send.
    fn touch(&mut self, number: u32) {
        if self.dirty.last() != Some(&number) {
            self.dirty.push(number);
        }
    }

    fn set_timer(&mut self, due_us: u64, timer: Timer) {
        self.timers.push(Reverse((due_us, timer)));
    }

    fn warn(&mut self, text: String) {
        self.events.push_back(Event::Line { program: None, warning: true, text: text.into() });
    }
}

/// Return a deferral decided here, with its enhanced code `4.subject.detail`.
fn deferral([subject, detail]: [u16; 2], text: &str) -> Status {
    let dsn = Enhanced { class: 4, subject, detail };
    Status { outcome: Outcome::Deferred, dsn, text: text.into(), remote: None }
}
