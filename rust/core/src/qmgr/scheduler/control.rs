//! Commands of the administrator: postqueue(1) and postsuper(1).
//!
//! A message that agents hold is held or deleted after their results. They may still deliver what they have, as with
//! Postfix.

use super::Scheduler;
use crate::clock::Now;
use crate::mail::id::QueueId;
use crate::qmgr::message::{Phase, Requested, Stage};
use crate::queue::catalogue::Place;
use crate::queue::state::Fact;
use std::collections::HashSet;

/// A command on messages by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Try it now: `postqueue -i`.
    Flush,
    /// `postsuper -h`
    Hold,
    /// `postsuper -H`
    Release,
    /// `postsuper -d`
    Delete,
    /// `postsuper -e`; `-f` is this and `Release`.
    Expire,
}

impl Verb {
    /// Return the verb of that name in a control request.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "flush" => Self::Flush,
            "hold" => Self::Hold,
            "release" => Self::Release,
            "delete" => Self::Delete,
            "expire" => Self::Expire,
            _ => return None,
        })
    }
}

impl Scheduler {
    /// Apply a command to the named messages, or to all, that are in one of `queues` (Postfix's names; an empty list
    /// is any). Return the messages that it changed.
    pub fn apply(&mut self, verb: Verb, ids: Option<Vec<QueueId>>, queues: &[String], now: Now) -> Vec<QueueId> {
        let ids = ids.unwrap_or_else(|| self.all());
        let mut done = Vec::new();
        for id in ids {
            let Some(slot) = self.catalogue.slot(id).filter(|_| !self.is_requeued(id)) else {
                continue;
            };
            let queue = self.catalogue.entry(slot).place().queue_name();
            if !queues.is_empty() && !queues.iter().any(|wanted| wanted == queue) {
                continue;
            }
            let changed = match verb {
                Verb::Flush => self.flush_message(id, now),
                Verb::Hold => self.hold(id, now),
                Verb::Release => self.release(id, now),
                Verb::Delete => self.delete(id, now),
                Verb::Expire => self.expire(id, now),
            };
            if changed {
                done.push(id);
            }
        }
        done
    }

    pub(super) fn all(&self) -> Vec<QueueId> {
        let mut ids: Vec<QueueId> = self.catalogue.iter().map(|entry| entry.id()).collect();
        ids.sort_unstable();
        ids
    }

    /// Return counts by name.
    pub fn counts(&self) -> [(&'static str, usize); 7] {
        let deferred = self.catalogue.deferred();
        let active = self.active.len() + self.loading;
        [
            ("messages", self.catalogue.len()),
            ("active", active),
            ("deferred", deferred),
            ("recipients_in_memory", self.in_core),
            ("jobs", self.deliveries.len()),
            ("destinations", self.destinations.len()),
            ("dead_destinations", self.destinations.iter().filter(|(_, to)| to.dead.is_some()).count()),
        ]
    }

    /// Try every deferred message, and every dead destination and transport, now.
    pub fn flush(&mut self, now: Now) {
        self.revive_all(now);
        let mut from = 0;
        while let Some(slot) = self.catalogue.next_from(from).map(|entry| entry.slot()) {
            self.flush_slot(slot, now);
            from = slot + 1;
        }
    }

    /// Try one message now. Return whether it was deferred.
    pub fn flush_message(&mut self, id: QueueId, now: Now) -> bool {
        self.revive_all(now);
        self.catalogue.slot(id).is_some_and(|slot| self.flush_slot(slot, now))
    }

    /// Try these messages now.
    pub fn flush_messages(&mut self, ids: &[QueueId], now: Now) {
        for id in ids {
            if let Some(slot) = self.catalogue.slot(*id) {
                self.flush_slot(slot, now);
            }
        }
    }

    fn flush_slot(&mut self, slot: u32, now: Now) -> bool {
        let deferred = self.catalogue.entry(slot).place() == Place::Deferred;
        if deferred {
            self.catalogue.wait_until(slot, now.mono_us);
        }
        deferred
    }

    /// Revive dead destinations and transports.
    pub fn revive_all(&mut self, now: Now) {
        let dead: Vec<u32> = self
            .destinations
            .iter()
            .filter(|(_, destination)| destination.dead.is_some())
            .map(|(key, _)| key)
            .collect();
        for key in dead {
            if let Some((_, until_us)) = &mut self.destinations[key].dead {
                *until_us = now.mono_us;
            }
            self.destination_due(key, now);
        }
        for number in 0..self.transports.len() as u32 {
            if self.transports[number as usize].dead.is_some() {
                self.revive_transport(number, now);
            }
        }
    }

    /// Put a message on hold. Return whether it was not on hold before.
    pub fn hold(&mut self, id: QueueId, now: Now) -> bool {
        let Some(slot) = self.catalogue.slot(id) else {
            return false;
        };
        match self.catalogue.entry(slot).place() {
            Place::Held => return false,
            Place::Active(key) => {
                if self.active[key].requested != Requested::Deliver {
                    return false;
                }
                self.withdraw(key, Requested::Hold, now);
                return true;
            }
            Place::Loading => self.stop_loading(slot),
            Place::Fresh | Place::Deferred | Place::Overflow(_) => {}
        }
        self.catalogue.place(slot, Place::Held);
        self.note(Fact::Held { id });
        true
    }

    /// Release a message from hold and try it at once. Return whether it was on hold.
    pub fn release(&mut self, id: QueueId, now: Now) -> bool {
        let Some(slot) = self.catalogue.slot(id) else {
            return false;
        };
        let entry = self.catalogue.entry(slot);
        match entry.place() {
            Place::Held => {}
            Place::Active(key) if self.active[key].requested == Requested::Hold => {
                self.active[key].requested = Requested::Deliver;
                return true;
            }
            _ => return false,
        }
        if entry.is_retry() {
            self.catalogue.wait_until(slot, now.mono_us);
        } else {
            self.catalogue.wait_fresh(slot);
        }
        self.catalogue.released(slot);
        self.note(Fact::Released { id });
        true
    }

    /// Delete a message. Return whether it existed.
    pub fn delete(&mut self, id: QueueId, now: Now) -> bool {
        let Some(slot) = self.catalogue.slot(id) else {
            return false;
        };
        if let Place::Active(key) = self.catalogue.entry(slot).place() {
            if self.active[key].requested == Requested::Delete {
                return false;
            }
            self.withdraw(key, Requested::Delete, now);
        } else {
            self.forget(slot);
        }
        true
    }

    /// Return a message to its sender at its next attempt, which is now for a deferred message. Return whether it was
    /// not expired by a command before.
    pub fn expire(&mut self, id: QueueId, now: Now) -> bool {
        let Some(slot) = self.catalogue.slot(id) else {
            return false;
        };
        if self.catalogue.entry(slot).forced_expire() {
            return false;
        }
        self.catalogue.force_expire(slot);
        let entry = self.catalogue.entry(slot);
        match entry.place() {
            Place::Overflow(_) if entry.is_retry() => self.catalogue.wait_until(slot, now.mono_us),
            Place::Overflow(_) => self.catalogue.wait_fresh(slot),
            _ => {}
        }
        self.note(Fact::ForcedExpire { id });
        self.flush_slot(slot, now);
        true
    }

    /// Give agents no more of an active message, and wait for their results.
    fn withdraw(&mut self, key: u32, requested: Requested, now: Now) {
        let message = &mut self.active[key];
        message.requested = requested;
        if requested == Requested::Delete {
            // If the queue manager dies now, only what agents have comes back.
            let targets = message.targets.iter().filter(|target| target.stage == Stage::InFlight);
            let in_flight: HashSet<u32> = targets.map(|target| target.index).collect();
            let slot = message.slot;
            let recipients = self.catalogue.entry(slot).recipients();
            let rest: Vec<u32> = (0..recipients).filter(|index| !in_flight.contains(index)).collect();
            self.done(slot, rest);
        }
        let message = &mut self.active[key];
        match message.phase {
            Phase::Delivering => {
                let targets = message.targets.iter().filter(|target| target.stage == Stage::InFlight);
                message.waiting = targets.count() as u32;
                message.reading = false;
                // Its waiting peers have nothing to send any more: only recipients with an agent are open.
                message.withdrawn = true;
                self.check_finished(key);
            }
            // A report under way is waited for; a waiting report is not sent.
            Phase::Bouncing | Phase::Warning | Phase::Confirming | Phase::Reporting => {
                if message.deliveries == 0 {
                    self.conclude(key, now);
                }
            }
        }
    }

    fn note(&mut self, fact: Fact) {
        self.events.push_back(super::Event::Note(fact));
    }
}
