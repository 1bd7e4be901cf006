//! Why a message waits, and when it goes next.

use super::catalogue::Place;
use super::message::{Active, Phase, Stage};
use super::scheduler::Scheduler;
use crate::clock::Now;
use crate::mail::status::Status;
use std::sync::Arc;

/// What a message waits for. Moments are on the wall clock, in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// On hold, until a person releases it.
    Held,
    /// For its next attempt.
    Deferred {
        /// The moment of it.
        until_us: u64,
        /// Attempts before it.
        attempts: u32,
    },
    /// For room in the active queue (`qmgr_message_active_limit`, `qmgr_message_recipient_limit`).
    NoRoom,
    /// For its next hop, which has its share of the active queue already.
    Crowded {
        /// The transport.
        transport: Arc<str>,
        /// The next hop.
        nexthop: Arc<str>,
    },
    /// For its envelope, or the next part of its recipients, to be read.
    Reading,
    /// For the resolver to say where its recipients go.
    Resolving,
    /// For the end of the time in which mail for the transport is deferred.
    TransportDead {
        /// The transport.
        transport: Arc<str>,
        /// The end.
        until_us: u64,
        /// What happened.
        reason: Arc<Status>,
    },
    /// For the end of the time in which mail for the next hop is deferred.
    DestinationDead {
        /// The transport.
        transport: Arc<str>,
        /// The next hop.
        nexthop: Arc<str>,
        /// The end.
        until_us: u64,
        /// What happened.
        reason: Arc<Status>,
    },
    /// For the end of a pause (`*_destination_rate_delay`, `*_transport_rate_delay`).
    RateDelay {
        /// The transport.
        transport: Arc<str>,
        /// The next hop.
        nexthop: Arc<str>,
        /// The end.
        until_us: u64,
    },
    /// For one of the deliveries to its next hop to end: there are as many as its concurrency allows.
    Concurrency {
        /// The transport.
        transport: Arc<str>,
        /// The next hop.
        nexthop: Arc<str>,
        /// Deliveries at a time, as of now.
        limit: u32,
    },
    /// For an agent of the transport: there is none.
    NoAgent {
        /// The transport.
        transport: Arc<str>,
    },
    /// For its turn: the transport's agents are all busy.
    Turn {
        /// The transport.
        transport: Arc<str>,
    },
    /// For the answer of an agent that has it.
    WithAgent {
        /// The transport.
        transport: Arc<str>,
        /// The next hop.
        nexthop: Arc<str>,
        /// When an agent was last given some of its recipients.
        since_us: u64,
    },
}

impl Scheduler {
    /// What the message in this slot of the catalogue waits for. Of many recipients, what an agent has counts first,
    /// then the first one that has no outcome yet.
    pub fn waits(&self, slot: u32, now: Now) -> Waits {
        let entry = self.catalogue.entry(slot);
        match entry.place() {
            Place::Held => Waits::Held,
            Place::Deferred if entry.due_us() <= now.mono_us => Waits::NoRoom,
            Place::Deferred => {
                Waits::Deferred { until_us: now.wall_of_mono(entry.due_us()), attempts: entry.attempts() }
            }
            Place::Fresh => Waits::NoRoom,
            Place::Loading => Waits::Reading,
            Place::Overflow(key) => {
                let destination = &self.destinations[key];
                let transport = Arc::clone(&self.transports[destination.transport as usize].name);
                Waits::Crowded { transport, nexthop: Arc::clone(&destination.nexthop) }
            }
            Place::Active(key) => self.active_waits(&self.active[key], now),
        }
    }

    fn active_waits(&self, message: &Active, now: Now) -> Waits {
        let at = |stage: Stage| message.targets.iter().find(|target| target.stage == stage);
        let destination = at(Stage::InFlight).or_else(|| at(Stage::Waiting)).map(|target| target.destination);
        let destination = match (message.phase, destination) {
            (Phase::Bouncing | Phase::Warning | Phase::Confirming, _) => None,
            (Phase::Delivering, None) if message.reading => return Waits::Reading,
            (Phase::Delivering, None) => return Waits::Resolving,
            (Phase::Delivering, Some(key)) => Some(&self.destinations[key]),
        };
        let transport: Arc<str> = match destination {
            Some(destination) => Arc::clone(&self.transports[destination.transport as usize].name),
            None => Arc::from(&*self.settings.bounce_service),
        };
        let nexthop = destination.map_or_else(|| Arc::from(""), |destination| Arc::clone(&destination.nexthop));
        if message.jobs > 0 {
            return Waits::WithAgent { transport, nexthop, since_us: now.wall_of_mono(message.sent_us) };
        }
        let Some(number) = self.transport_numbers.get(&transport) else {
            return Waits::NoAgent { transport };
        };
        let owner = &self.transports[*number as usize];
        if let Some((reason, until_us)) = &owner.dead {
            return Waits::TransportDead {
                transport,
                until_us: now.wall_of_mono(*until_us),
                reason: Arc::clone(reason),
            };
        }
        if let Some(destination) = destination {
            if let Some((reason, until_us)) = &destination.dead {
                let (until_us, reason) = (now.wall_of_mono(*until_us), Arc::clone(reason));
                return Waits::DestinationDead { transport, nexthop, until_us, reason };
            }
            if destination.busy >= destination.window.size() {
                return Waits::Concurrency { transport, nexthop, limit: destination.window.size() };
            }
            if destination.pause_until_us > now.mono_us {
                return Waits::RateDelay { transport, nexthop, until_us: now.wall_of_mono(destination.pause_until_us) };
            }
        }
        if owner.pause_until_us > now.mono_us {
            return Waits::RateDelay { transport, nexthop, until_us: now.wall_of_mono(owner.pause_until_us) };
        }
        if owner.agents.iter().any(|agent| agent.capacity > 0) {
            Waits::Turn { transport }
        } else {
            Waits::NoAgent { transport }
        }
    }
}
