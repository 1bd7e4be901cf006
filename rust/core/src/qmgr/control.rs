//! What a person may do to the queue: postqueue(1) and postsuper(1).
//!
//! A message that agents hold at the moment is held or deleted as soon as they answer; what they have in hand may still
//! be delivered, as with Postfix.

use super::catalogue::Place;
use super::listing::queue_name;
use super::message::{Phase, Stage, Wish};
use super::scheduler::Scheduler;
use crate::clock::Now;
use crate::mail::id::QueueId;
use crate::queue::state::Fact;
use std::collections::HashSet;

/// What may be done to messages by name.
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
    /// The verb of that name in a control request.
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
    /// Do something to messages: those named, or all; and of these such as are in one of `queues` (by Postfix's names;
    /// none is any). Gives back those to which it was done.
    pub fn apply(&mut self, verb: Verb, ids: Option<Vec<QueueId>>, queues: &[String], now: Now) -> Vec<QueueId> {
        let ids = ids.unwrap_or_else(|| self.all());
        let mut done = Vec::new();
        for id in ids {
            let Some(slot) = self.catalogue.slot(id).filter(|_| !self.is_leaving(id)) else {
                continue;
            };
            let queue = queue_name(self.catalogue.entry(slot).place());
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

    /// How much there is of what, by name.
    pub fn counts(&self) -> [(&'static str, usize); 7] {
        let deferred = self.catalogue.deferred();
        let active = self.active.len() + self.loading;
        [
            ("messages", self.catalogue.len()),
            ("active", active),
            ("deferred", deferred),
            ("recipients_in_memory", self.in_core),
            ("jobs", self.jobs.len()),
            ("destinations", self.destinations.len()),
            ("dead_destinations", self.destinations.iter().filter(|(_, to)| to.dead.is_some()).count()),
        ]
    }

    /// Try every deferred message now, and every destination and transport that is set aside.
    pub fn flush(&mut self, now: Now) {
        self.revive_all(now);
        let mut from = 0;
        while let Some(slot) = self.catalogue.next_from(from).map(|entry| entry.slot()) {
            self.flush_slot(slot, now);
            from = slot + 1;
        }
    }

    /// Try one message now. Says whether it was deferred.
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

    /// Destinations and transports that are set aside get another chance.
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

    /// Put a message on hold. Says whether it was not.
    pub fn hold(&mut self, id: QueueId, now: Now) -> bool {
        let Some(slot) = self.catalogue.slot(id) else {
            return false;
        };
        match self.catalogue.entry(slot).place() {
            Place::Held => return false,
            Place::Active(key) => {
                if self.active[key].wish != Wish::Deliver {
                    return false;
                }
                self.withdraw(key, Wish::Hold, now);
                return true;
            }
            Place::Loading => self.leave_loading(slot),
            Place::Fresh | Place::Deferred | Place::Overflow(_) => {}
        }
        self.catalogue.place(slot, Place::Held);
        self.note(Fact::Held { id });
        true
    }

    /// Release a message from hold; it is tried at once. Says whether it was on hold.
    pub fn release(&mut self, id: QueueId, now: Now) -> bool {
        let Some(slot) = self.catalogue.slot(id) else {
            return false;
        };
        let entry = self.catalogue.entry(slot);
        match entry.place() {
            Place::Held => {}
            Place::Active(key) if self.active[key].wish == Wish::Hold => {
                self.active[key].wish = Wish::Deliver;
                return true;
            }
            _ => return false,
        }
        if entry.is_retry() {
            self.catalogue.wait_until(slot, now.mono_us);
        } else {
            self.catalogue.wait_fresh(slot);
        }
        self.note(Fact::Released { id });
        true
    }

    /// Delete a message. Says whether there was one.
    pub fn delete(&mut self, id: QueueId, now: Now) -> bool {
        let Some(slot) = self.catalogue.slot(id) else {
            return false;
        };
        if let Place::Active(key) = self.catalogue.entry(slot).place() {
            if self.active[key].wish == Wish::Delete {
                return false;
            }
            self.withdraw(key, Wish::Delete, now);
        } else {
            self.forget(slot);
        }
        true
    }

    /// Return a message to its sender at its next attempt; and have that now if it is deferred. Says whether nobody had
    /// wanted that before.
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

    /// Agents get no more of an active message; what they have is waited for.
    fn withdraw(&mut self, key: u32, wish: Wish, now: Now) {
        let message = &mut self.active[key];
        message.wish = wish;
        if wish == Wish::Delete {
            // Were the queue manager to die now, no more than what agents have would come back.
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
                // Its bundles in the lines have nothing to send any more: nobody but those in flight is open.
                message.withdrawn = true;
                self.check_settled(key);
            }
            // A report that is under way is waited for; one that waits in line is not sent.
            Phase::Bouncing | Phase::Warning | Phase::Confirming => {
                if message.jobs == 0 {
                    self.conclude(key, now);
                }
            }
        }
    }

    fn note(&mut self, fact: Fact) {
        self.events.push_back(super::scheduler::Event::Note(fact));
    }
}
