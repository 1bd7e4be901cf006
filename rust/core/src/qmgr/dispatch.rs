//! From a route to a job: recipients wait for a destination, and leave with an agent when their turn has come.
//!
//! Whatever changes what a destination may send ends in `stand`, which keeps its places in its transport's lanes, and in
//! `touch`, after which `dispatch` sends all that has room. `transport.rs` and `errand.rs` say what the turns are,
//! `overtake.rs` what comes before them.

use super::destination::{Bundle, Destination};
use super::errand::Errand;
use super::job::InFlight;
use super::message::Stage;
use super::overtake::Look;
use super::route::Route;
use super::scheduler::{Event, Scheduler, Timer, deferral};
use super::transport::{Draw, Transport};
use crate::address::local_part::split;
use crate::clock::{Now, SECOND_US};
use crate::few::Few;
use crate::ipc::frame::{Job, JobKind, JobRecipient};
use std::hash::BuildHasher;
use std::sync::Arc;

/// Destinations of which nothing waits that are still remembered, with the windows that they have learned.
pub const IDLE_DESTINATIONS_MAX: usize = 10_000;
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
            let user = self.settings.extensions.user(split(address).0);
            let key = format!("{user}@{}", route.nexthop);
            return self.destination_by_key(route.transport, &key, &route.nexthop);
        }
        self.destination_by_key(route.transport, &route.nexthop, &route.nexthop)
    }

    fn destination_by_key(&mut self, transport: u32, key: &str, nexthop: &Arc<str>) -> u32 {
        let owner = &mut self.transports[transport as usize];
        let hash = owner.hasher.hash_one(key);
        if let Some(number) = owner.destinations.find(hash, |number| *self.destinations[*number].key == *key) {
            return *number;
        }
        let key: Arc<str> = if **nexthop == *key { Arc::clone(nexthop) } else { key.into() };
        let rules = owner.settings.window_rules();
        let new = Destination::new(transport, key, hash, Arc::clone(nexthop), &rules);
        let (number, _) = self.destinations.insert(new);
        owner.destinations.insert_unique(hash, number, |number| self.destinations[*number].hash);
        number
    }

    /// Where reports go.
    pub(super) fn bounce_destination(&mut self) -> u32 {
        let service = self.settings.bounce_service.clone();
        let transport = self.transport_number(&service);
        self.destination_by_key(transport, "", &"".into())
    }

    /// Recipients of a message begin to wait for a destination; or not, if it is known to be dead.
    pub(super) fn wait_for(&mut self, destination: u32, key: u32, kind: JobKind, positions: Few, now: Now) {
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

    /// The errand of a message for a transport, begun now if there is none.
    fn errand(&mut self, message: u32, transport: u32, now: Now) -> u32 {
        let active = &mut self.active[message];
        if let Some(errand) = active.errands.iter().find(|errand| self.errands[**errand].transport == transport) {
            return *errand;
        }
        self.draws += 1;
        let lane = usize::from(active.retry);
        let (errand, _) = self.errands.insert(Errand::new(message, transport, lane, now.mono_us, self.draws));
        active.errands.push(errand);
        errand
    }

    fn line_up(&mut self, key: u32, message: u32, kind: JobKind, mut positions: Few, now: Now) {
        let number = self.destinations[key].transport;
        let errand = self.errand(message, number, now);
        let serial = self.errands.serial(errand);
        let active = &self.active[message];
        let is_long = self.catalogue.entry(active.slot).recipients() as usize > active.memory_limit;
        let transport = &self.transports[number as usize];
        let of_one = match transport.settings.recipient_limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let about = &mut self.errands[errand];
        let lane = about.lane;
        let destination = &mut self.destinations[key];
        let waits = |bundle: &Bundle| (bundle.errand, bundle.serial, bundle.kind) == (errand, serial, JobKind::Deliver);
        let queue = &mut destination.lanes[lane];
        let known = match queue.back() {
            _ if kind != JobKind::Deliver => None,
            Some(last) if waits(last) => Some(queue.len() - 1),
            // What is read later of a list joins what waits of it, however much came behind that.
            Some(_) if is_long => queue.iter().position(waits),
            _ => None,
        };
        if let Some(last) = known.and_then(|at| queue.get_mut(at)) {
            let deliveries = |recipients: usize| recipients.div_ceil(of_one) as u64;
            let before = deliveries(last.positions.len());
            // The next ones are last.
            positions.append(&mut last.positions);
            last.positions = positions;
            about.slots.read += deliveries(last.positions.len()) - before;
        } else {
            let round = transport.lanes[lane].round.max(destination.rounds[lane] + 1);
            destination.rounds[lane] = round;
            about.slots.read += positions.len().div_ceil(of_one).max(1) as u64;
            about.bundles += 1;
            let turn = about.turn(round, 0);
            destination.insert(lane, Bundle { turn, errand, serial, kind, positions });
        }
        self.stand(key, now);
    }

    /// A bundle of an errand waits no more: the errand is through if it was the last one and nothing is unread.
    pub(super) fn bundle_gone(&mut self, errand: u32, serial: u64) {
        let Some(about) = self.errands.same_mut(errand, serial) else {
            return;
        };
        about.bundles -= 1;
        if about.bundles == 0 {
            let message = about.message;
            let all = self.catalogue.entry(self.active[message].slot).recipients();
            if self.active[message].unread(all) == 0 {
                self.retire(errand);
            }
        }
    }

    /// An errand is through: what it overtook knows what that has cost.
    pub(super) fn retire(&mut self, errand: u32) {
        let Some(mut about) = self.errands.remove(errand) else {
            return;
        };
        self.unstack(&mut about);
        if let Some(message) = self.active.get_mut(about.message) {
            message.errands.retain(|other| *other != errand);
        }
    }

    /// See that a destination stands in its transport's lanes if it may send, and at the right turns.
    pub(super) fn stand(&mut self, key: u32, now: Now) {
        let destination = &self.destinations[key];
        let number = destination.transport;
        let has_room = destination.has_room(now.mono_us);
        let mut stands = false;
        for lane in 0..2 {
            let destination = &self.destinations[key];
            if destination.turns[lane].is_none() && (!has_room || destination.lanes[lane].is_empty()) {
                // It does not stand there, and has no reason to.
                continue;
            }
            let draw = if has_room { self.may_overtake(key, lane) } else { None };
            let draw = draw.map(|(bundle, large)| Draw { large, draw: bundle.turn.draw });
            let destination = &mut self.destinations[key];
            if destination.draws[lane] != draw {
                self.transports[number as usize].lanes[lane].move_draw(key, destination.draws[lane], draw);
                destination.draws[lane] = draw;
            }
            let turn = destination.lanes[lane].front().filter(|_| has_room).map(|bundle| bundle.turn);
            stands |= turn.is_some();
            if destination.turns[lane] != turn {
                self.transports[number as usize].lanes[lane].move_turn(key, destination.turns[lane], turn);
                // Who stands anew may overtake.
                if destination.turns[lane].is_none() {
                    self.look = Look::default();
                }
                destination.turns[lane] = turn;
            }
        }
        let destination = &mut self.destinations[key];
        if stands {
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
                let of_transport = &mut self.transports[destination.transport as usize].destinations;
                if let Ok(found) = of_transport.find_entry(destination.hash, |number| *number == key) {
                    found.remove();
                }
            }
        }
    }

    pub(super) fn dispatch(&mut self, number: u32, now: Now) {
        let transport = &mut self.transports[number as usize];
        if transport.dead.is_some() || transport.is_quiet() {
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
            let Some(lane) = transport.next_lane() else {
                return;
            };
            let Some((turn, destination)) = transport.lanes[lane].line.first() else {
                return;
            };
            if !self.overtake(lane, destination, turn, now) {
                self.send(lane, destination, now);
            }
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
    fn send(&mut self, lane: usize, key: u32, now: Now) {
        let destination = &mut self.destinations[key];
        let Some(bundle) = destination.lanes[lane].front_mut() else {
            return self.stand(key, now);
        };
        let (errand, serial, kind, turn) = (bundle.errand, bundle.serial, bundle.kind, bundle.turn);
        let number = destination.transport;
        let about = self.errands.same_mut(errand, serial);
        let message = about.map(|about| (about.message, &mut self.active[about.message]));
        let Some((message_key, message)) =
            message.filter(|(_, message)| !message.withdrawn || kind != JobKind::Deliver)
        else {
            destination.lanes[lane].pop_front();
            self.bundle_gone(errand, serial);
            return self.stand(key, now);
        };
        let transport = &mut self.transports[number as usize];
        let unread = message.unread(self.catalogue.entry(message.slot).recipients());
        let large = self.errands[errand].slots.is_large(&transport.settings.slots, unread);
        let limit = match transport.settings.recipient_limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let mut positions = if kind == JobKind::Deliver && bundle.positions.len() <= limit {
            let mut all = std::mem::take(&mut bundle.positions);
            all.reverse();
            all
        } else {
            let rest = bundle.positions.len() - limit.min(bundle.positions.len());
            bundle.positions.drain(rest..).rev().collect()
        };
        let mut recipients = Vec::with_capacity(positions.len());
        match kind {
            JobKind::Deliver => positions.retain(|position| {
                let target = &mut message.targets[*position as usize];
                // A result of a queue manager before this one may have settled it.
                let waits = target.stage == Stage::Waiting && target.destination == key;
                if waits {
                    target.stage = Stage::InFlight;
                    let recipient = target.recipient.clone();
                    recipients.push(JobRecipient { index: target.index, recipient, status: None });
                }
                waits
            }),
            JobKind::Bounce => recipients.clone_from(&message.left.bounced),
            JobKind::Warn => recipients.clone_from(&message.left.late),
            JobKind::Confirm => recipients.clone_from(&message.left.delivered),
        }
        let empty = bundle.positions.is_empty();
        bundle.turn.served += 1;
        if empty {
            destination.lanes[lane].pop_front();
        }
        if recipients.is_empty() {
            if empty {
                self.bundle_gone(errand, serial);
            }
            return self.stand(key, now);
        }
        if self.errands[errand].overtaking.is_none() {
            let round = &mut transport.lanes[lane].round;
            *round = turn.round.max(*round);
        }
        self.errands[errand].slots.count_one();
        let Some(agent) = transport.free_agent(destination.agent) else {
            unreachable!("room was counted before");
        };
        agent.busy += 1;
        let peer = agent.peer;
        transport.count_job(lane, large);
        if transport.settings.transport_rate_delay_us > 0 {
            transport.pause_until_us = now.mono_us + transport.settings.transport_rate_delay_us;
            let resume_us = transport.pause_until_us;
            self.timers.push(std::cmp::Reverse((resume_us, Timer::Transport(number))));
        }
        if destination.busy == 0 {
            destination.pace.heard_us = now.mono_us;
        }
        destination.busy += 1;
        destination.agent = Some(peer);
        message.jobs += 1;
        message.sent_us = now.mono_us;
        let sent_us = now.mono_us;
        let job = self.jobs.begin(InFlight {
            message: message_key,
            destination: key,
            peer,
            kind,
            positions,
            lane,
            large,
            sent_us,
        });
        let job = Job {
            job,
            kind,
            path: "".into(),
            locator: self.catalogue.entry(message.slot).at(),
            transport: Arc::clone(&transport.name),
            nexthop: Arc::clone(&destination.nexthop),
            active_us: message.active_us,
            envelope: Arc::clone(&message.envelope),
            recipients,
        };
        self.events.push_back(Event::Deliver { peer, job: Box::new(job) });
        if empty {
            self.bundle_gone(errand, serial);
        }
        self.stand(key, now);
        self.call(key, now);
    }

    /// An agent has room for one more.
    pub(super) fn agent_freed(&mut self, job: &InFlight) {
        let peer = job.peer;
        let Some(number) = self.agents.get(&peer).copied() else {
            return;
        };
        let transport = &mut self.transports[number as usize];
        transport.free_agents_place(peer);
        transport.uncount_job(job.lane, job.large);
        self.touch(number);
    }
}
