//! Why a message waits, and when it goes next.

use super::Scheduler;
use crate::clock::Now;
use crate::mail::status::Status;
use crate::qmgr::destination::DestinationQueue;
use crate::qmgr::message::{Active, Phase, Stage};
use crate::queue::catalogue::Place;
use std::collections::HashMap;
use std::sync::Arc;

/// The reason why a message waits. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// On hold, until an administrator releases it.
    Held,
    /// For its next attempt.
    Deferred {
        /// Time of the attempt.
        until_us: u64,
        /// Attempts before it.
        attempts: u32,
    },
    /// For room in the active queue (`qmgr_message_active_limit`, `qmgr_message_recipient_limit`).
    NoRoom,
    /// For its destination, which has used up its share of the active queue.
    Overflow {
        /// The transport.
        transport: Arc<str>,
        /// The next hop.
        nexthop: Arc<str>,
    },
    /// For its envelope, or the next part of its recipients.
    Reading,
    /// For the resolver.
    Resolving,
    /// For the end of the transport's dead time.
    TransportDead {
        /// The transport.
        transport: Arc<str>,
        /// The end.
        until_us: u64,
        /// The reason.
        reason: Arc<Status>,
    },
    /// For the end of the destination's dead time.
    DestinationDead {
        /// The transport.
        transport: Arc<str>,
        /// The next hop.
        nexthop: Arc<str>,
        /// The end.
        until_us: u64,
        /// The reason.
        reason: Arc<Status>,
    },
    /// For the end of a rate delay (`*_destination_rate_delay`, `*_transport_rate_delay`).
    RateDelay {
        /// The transport.
        transport: Arc<str>,
        /// The next hop.
        nexthop: Arc<str>,
        /// The end.
        until_us: u64,
    },
    /// For one of the deliveries to its destination to end: they use up the concurrency.
    Concurrency {
        /// The transport.
        transport: Arc<str>,
        /// The next hop.
        nexthop: Arc<str>,
        /// Current concurrency.
        limit: u32,
    },
    /// For the first agent of the transport.
    NoAgent {
        /// The transport.
        transport: Arc<str>,
    },
    /// For an agent: the transport's agents are all busy.
    AgentsBusy {
        /// The transport.
        transport: Arc<str>,
    },
    /// For the result of an agent.
    WithAgent {
        /// The transport.
        transport: Arc<str>,
        /// The next hop.
        nexthop: Arc<str>,
        /// Start of its last delivery.
        since_us: u64,
    },
}

impl Scheduler {
    /// Return the reason why the message in this slot of the catalogue waits. Recipients with an agent count first,
    /// then the first recipient without an outcome.
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
                Waits::Overflow { transport, nexthop: Arc::clone(&destination.nexthop) }
            }
            Place::Active(key) => self.active_waits(&self.active[key], now),
        }
    }

    /// Return the reasons why the messages under delivery wait, by their slots.
    pub fn waits_of_active(&self, now: Now) -> HashMap<u32, Waits> {
        self.active.iter().map(|(_, message)| (message.slot, self.waits(message.slot, now))).collect()
    }

    /// Return the reasons why messages wait in the overflow, by the key of their destination.
    pub fn waits_of_overflow(&self) -> HashMap<u32, Waits> {
        let congested = self
            .destinations
            .iter()
            .filter(|(_, destination)| destination.overflow.iter().any(|queue| !queue.is_empty()));
        let waits = |(key, destination): (u32, &DestinationQueue)| {
            let transport = Arc::clone(&self.transports[destination.transport as usize].name);
            (key, Waits::Overflow { transport, nexthop: Arc::clone(&destination.nexthop) })
        };
        congested.map(waits).collect()
    }

    fn active_waits(&self, message: &Active, now: Now) -> Waits {
        let at = |stage: Stage| message.targets.iter().find(|target| target.stage == stage);
        let destination = at(Stage::InFlight).or_else(|| at(Stage::Waiting)).map(|target| target.destination);
        let destination = match (message.phase, destination) {
            (Phase::Bouncing | Phase::Warning | Phase::Confirming | Phase::Reporting, _) => None,
            (Phase::Delivering, None) if message.reading => return Waits::Reading,
            (Phase::Delivering, None) => return Waits::Resolving,
            (Phase::Delivering, Some(key)) => Some(&self.destinations[key]),
        };
        let transport: Arc<str> = match destination {
            Some(destination) => Arc::clone(&self.transports[destination.transport as usize].name),
            None => Arc::from(&*self.settings.bounce_service),
        };
        let nexthop = destination.map_or_else(|| Arc::from(""), |destination| Arc::clone(&destination.nexthop));
        if message.deliveries > 0 {
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
            Waits::AgentsBusy { transport }
        } else {
            Waits::NoAgent { transport }
        }
    }
}
