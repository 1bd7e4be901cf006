//! From a route to a delivery: recipients wait for a destination, and go to an agent by rank.
//!
//! Each change of what a destination may send ends in `update_lanes`, which keeps its ranks in its transport's lanes,
//! and in `touch`. `dispatch` then sends all that has room. `transport.rs` and `job.rs` define the ranks,
//! `preemption.rs` the exceptions from them.

use super::preemption::FailedSearch;
use super::{Event, Scheduler, Timer, deferral};
use crate::address::local_part::split;
use crate::clock::{Now, SECOND_US};
use crate::few::Few;
use crate::ipc::frame::{self, JobKind, JobRecipient};
use crate::qmgr::deliveries::Delivery;
use crate::qmgr::destination::{DestinationQueue, Peer};
use crate::qmgr::job::Job;
use crate::qmgr::message::Stage;
use crate::qmgr::route::Route;
use crate::qmgr::transport::{Candidate, Transport};
use std::hash::BuildHasher;
use std::sync::Arc;

/// Maximum number of idle destinations in memory, with the windows that they have learned.
pub const IDLE_DESTINATIONS_MAX: usize = 10_000;
/// Interval between two requests for an agent while mail waits.
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
        let new = DestinationQueue::new(transport, key, hash, Arc::clone(nexthop), &rules);
        let (number, _) = self.destinations.insert(new);
        owner.destinations.insert_unique(hash, number, |number| self.destinations[*number].hash);
        number
    }

    /// Return the destination of reports.
    pub(super) fn bounce_destination(&mut self) -> u32 {
        let service = self.settings.bounce_service.clone();
        let transport = self.transport_number(&service);
        self.destination_by_key(transport, "", &"".into())
    }

    /// Let recipients of a message wait for a destination; defer them if it is dead.
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
            Some(status) => self.defer_instead(key, kind, &positions, &status, now),
            None => self.enqueue(destination, key, kind, positions, now),
        }
    }

    /// Return the job of a message on a transport, and begin one if there is none.
    fn job(&mut self, message: u32, transport: u32, now: Now) -> u32 {
        let active = &mut self.active[message];
        if let Some(job) = active.jobs.iter().find(|job| self.jobs[**job].transport == transport) {
            return *job;
        }
        self.arrivals += 1;
        let lane = usize::from(active.retry);
        let (job, _) = self.jobs.insert(Job::new(message, transport, lane, now.mono_us, self.arrivals));
        active.jobs.push(job);
        job
    }

    fn enqueue(&mut self, key: u32, message: u32, kind: JobKind, mut positions: Few, now: Now) {
        let number = self.destinations[key].transport;
        let job = self.job(message, number, now);
        let serial = self.jobs.serial(job);
        let active = &self.active[message];
        let is_long = self.catalogue.entry(active.slot).recipients() as usize > active.memory_limit;
        let transport = &self.transports[number as usize];
        let of_one = match transport.settings.recipient_limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let about = &mut self.jobs[job];
        let lane = about.lane;
        let destination = &mut self.destinations[key];
        let waits = |peer: &Peer| (peer.job, peer.serial, peer.kind) == (job, serial, JobKind::Deliver);
        let queue = &mut destination.lanes[lane];
        let known = match queue.back() {
            _ if kind != JobKind::Deliver => None,
            Some(last) if waits(last) => Some(queue.len() - 1),
            // A later part of a list joins its waiting peer, however much came behind that one.
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
            about.peers += 1;
            let rank = about.rank(round, 0);
            destination.insert(lane, Peer { rank, job, serial, kind, positions });
        }
        self.update_lanes(key, now);
    }

    /// Note that a peer of a job no longer waits. The job ends with its last peer, when no recipient is unread.
    pub(super) fn peer_finished(&mut self, job: u32, serial: u64) {
        let Some(about) = self.jobs.same_mut(job, serial) else {
            return;
        };
        about.peers -= 1;
        if about.peers == 0 {
            let message = about.message;
            let all = self.catalogue.entry(self.active[message].slot).recipients();
            if self.active[message].unread(all) == 0 {
                self.retire(job);
            }
        }
    }

    /// End a job, and account its deliveries to the job that it preempted.
    pub(super) fn retire(&mut self, job: u32) {
        let Some(mut about) = self.jobs.remove(job) else {
            return;
        };
        self.unstack(&mut about);
        if let Some(message) = self.active.get_mut(about.message) {
            message.jobs.retain(|other| *other != job);
        }
    }

    /// Put a destination into its transport's lanes at the right ranks if it may send, or take it out.
    pub(super) fn update_lanes(&mut self, key: u32, now: Now) {
        let destination = &self.destinations[key];
        let number = destination.transport;
        let has_room = destination.has_room(now.mono_us);
        let mut stands = false;
        for lane in 0..2 {
            let destination = &self.destinations[key];
            if destination.ranks[lane].is_none() && (!has_room || destination.lanes[lane].is_empty()) {
                // It is not there, and has no reason to be.
                continue;
            }
            let candidate = if has_room { self.preemption_candidate(key, lane) } else { None };
            let candidate = candidate.map(|(peer, large)| Candidate { large, arrival: peer.rank.arrival });
            let destination = &mut self.destinations[key];
            if destination.candidates[lane] != candidate {
                let lane_of = &mut self.transports[number as usize].lanes[lane];
                lane_of.move_candidate(key, destination.candidates[lane], candidate);
                destination.candidates[lane] = candidate;
            }
            let rank = destination.lanes[lane].front().filter(|_| has_room).map(|peer| peer.rank);
            stands |= rank.is_some();
            if destination.ranks[lane] != rank {
                self.transports[number as usize].lanes[lane].move_rank(key, destination.ranks[lane], rank);
                // A new destination may preempt.
                if destination.ranks[lane].is_none() {
                    self.last_search = FailedSearch::default();
                }
                destination.ranks[lane] = rank;
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
            let Some((rank, destination)) = transport.lanes[lane].by_rank.first() else {
                return;
            };
            if !self.preempt(lane, destination, rank, now) {
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

    /// Give the first peer of a destination that may send to an agent with room.
    fn send(&mut self, lane: usize, key: u32, now: Now) {
        let destination = &mut self.destinations[key];
        let Some(peer) = destination.lanes[lane].front_mut() else {
            return self.update_lanes(key, now);
        };
        let (job, serial, kind, rank) = (peer.job, peer.serial, peer.kind, peer.rank);
        let number = destination.transport;
        let about = self.jobs.same_mut(job, serial);
        let message = about.map(|about| (about.message, &mut self.active[about.message]));
        let Some((message_key, message)) =
            message.filter(|(_, message)| !message.withdrawn || kind != JobKind::Deliver)
        else {
            destination.lanes[lane].pop_front();
            self.peer_finished(job, serial);
            return self.update_lanes(key, now);
        };
        let transport = &mut self.transports[number as usize];
        let unread = message.unread(self.catalogue.entry(message.slot).recipients());
        let large = self.jobs[job].slots.is_large(&transport.settings.slots, unread);
        let limit = match transport.settings.recipient_limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let mut positions = if kind == JobKind::Deliver && peer.positions.len() <= limit {
            let mut all = std::mem::take(&mut peer.positions);
            all.reverse();
            all
        } else {
            let rest = peer.positions.len() - limit.min(peer.positions.len());
            peer.positions.drain(rest..).rev().collect()
        };
        let mut recipients = Vec::with_capacity(positions.len());
        match kind {
            JobKind::Deliver | JobKind::Probe => positions.retain(|position| {
                let target = &mut message.targets[*position as usize];
                // The result of an earlier queue manager may have finished it.
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
            JobKind::Report => recipients.clone_from(&message.left.reported),
        }
        let empty = peer.positions.is_empty();
        peer.rank.served += 1;
        if empty {
            destination.lanes[lane].pop_front();
        }
        if recipients.is_empty() {
            if empty {
                self.peer_finished(job, serial);
            }
            return self.update_lanes(key, now);
        }
        if self.jobs[job].stacked.is_none() {
            let round = &mut transport.lanes[lane].round;
            *round = rank.round.max(*round);
        }
        self.jobs[job].slots.count_one();
        let Some(agent) = transport.free_agent(destination.agent) else {
            unreachable!("the room was counted");
        };
        agent.busy += 1;
        let agent = agent.client;
        transport.count_delivery(lane, large);
        if transport.settings.transport_rate_delay_us > 0 {
            transport.pause_until_us = now.mono_us + transport.settings.transport_rate_delay_us;
            let resume_us = transport.pause_until_us;
            self.timers.push(std::cmp::Reverse((resume_us, Timer::Transport(number))));
        }
        if destination.busy == 0 {
            destination.pace.heard_us = now.mono_us;
        }
        destination.busy += 1;
        destination.agent = Some(agent);
        message.deliveries += 1;
        message.sent_us = now.mono_us;
        let sent_us = now.mono_us;
        let number = self.deliveries.begin(Delivery {
            message: message_key,
            destination: key,
            agent,
            kind,
            positions,
            lane,
            large,
            sent_us,
        });
        let request = frame::Job {
            job: number,
            kind: if kind == JobKind::Deliver && message.envelope.is_probe() { JobKind::Probe } else { kind },
            path: "".into(),
            locator: self.catalogue.entry(message.slot).at(),
            transport: Arc::clone(&transport.name),
            nexthop: Arc::clone(&destination.nexthop),
            active_us: message.active_us,
            envelope: Arc::clone(&message.envelope),
            recipients,
            traced: if kind == JobKind::Report { Self::lines(message) } else { Vec::new() },
        };
        self.events.push_back(Event::Deliver { agent, request: Box::new(request) });
        if empty {
            self.peer_finished(job, serial);
        }
        self.update_lanes(key, now);
        self.readmit(key, now);
    }

    /// Count the free place of an agent after a result.
    pub(super) fn agent_freed(&mut self, delivery: &Delivery) {
        let client = delivery.agent;
        let Some(number) = self.agents.get(&client).copied() else {
            return;
        };
        let transport = &mut self.transports[number as usize];
        transport.free_agents_place(client);
        transport.uncount_delivery(delivery.lane, delivery.large);
        self.touch(number);
    }
}
