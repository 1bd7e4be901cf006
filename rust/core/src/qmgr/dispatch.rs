//! From a route to a job: recipients wait for a destination, and leave with an agent when their turn has come.
//!
//! Whatever changes what a destination may send ends in `stand`, which keeps its place in its transport's line, and in
//! `touch`, after which `dispatch` sends all that has room. `transport.rs` says what the turns are.

use super::clock::{Now, SECOND_US};
use super::destination::{Bundle, Destination};
use super::job::InFlight;
use super::route::Route;
use super::scheduler::{Event, Scheduler, Timer, deferral};
use super::transport::{RETRY_STRIDE, Transport};
use crate::ipc::frame::{Job, JobKind, JobRecipient};
use std::cmp::Reverse;
use std::sync::Arc;

/// Destinations of which nothing waits that are still remembered, with the windows that they have learned.
pub const IDLE_DESTINATIONS_MAX: usize = 1000;
/// Mail waits for an agent: the transport is asked for one again after this time.
pub const ASK_AGAIN_US: u64 = 5 * SECOND_US;

impl Scheduler {
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

    pub(super) fn destination(&mut self, route: &Route, position: usize, message: u32) -> u32 {
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

    pub(super) fn dispatch(&mut self, number: u32, now: Now) {
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
        message.sent_us = now.mono_us;
        let in_flight = InFlight { message: bundle.message, destination: key, peer, kind: bundle.kind, positions };
        let job = Job {
            job: self.jobs.begin(in_flight),
            kind: bundle.kind,
            path: "".into(),
            locator: self.catalogue.entry(message.slot).at(),
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
}
