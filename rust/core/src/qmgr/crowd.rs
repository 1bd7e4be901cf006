//! No destination fills the active queue: the share of one that is slow is bounded.
//!
//! Postfix gives the active queue to who comes first, so that one slow next hop can take all of it. Here a destination
//! whose mail will take longer than `CROWDED_US` may have a quarter of the room that is left: a single one a fifth of
//! the active queue, ten of them seven tenths, so that there is always room for the others. One of which nothing was
//! heard yet may have a fifth of the active queue. What goes to nobody else
//! waits outside, without its envelope, in the order in which it came, and is called in as its destination gets through
//! what it has. When a destination becomes slow while it has more than that, its last messages leave again.

use super::catalogue::Place;
use super::message::{Active, Stage};
use super::scheduler::Scheduler;
use crate::clock::{Now, SECOND_US};
use crate::ipc::frame::JobKind;

/// A destination whose mail is through sooner than this is not slow: it may have any share of the active queue.
pub const CROWDED_US: u64 = 30 * SECOND_US;
/// A slow destination may have one part in so many of the room that is left.
const SHARE_OF_ROOM: usize = 4;
/// How often a full active queue is looked through for a destination that has become slow.
const RELIEVE_EVERY_US: u64 = 10 * SECOND_US;
/// A destination may always have so many, or as many as its concurrency.
const SHARE_LEAST: usize = 5;
/// Turns of messages that moved on may outnumber those that wait by so many.
const STALE_MAX: usize = 1024;

impl Scheduler {
    /// Messages that may wait for this destination in the active queue while it is slow.
    fn share(&self, destination: u32) -> usize {
        let active = self.active.len() + self.loading;
        let left = self.settings.message_active_limit.saturating_sub(active);
        self.at_least(destination, left / SHARE_OF_ROOM)
    }

    fn at_least(&self, destination: u32, share: usize) -> usize {
        share.max(self.destinations[destination].window.size() as usize).max(SHARE_LEAST)
    }

    /// What a single slow destination has at most, and one of which nothing was heard yet.
    fn most(&self, destination: u32) -> usize {
        self.at_least(destination, self.settings.message_active_limit / (SHARE_OF_ROOM + 1))
    }

    fn is_slow(&self, key: u32, now: Now) -> bool {
        let destination = &self.destinations[key];
        let (waiting, at_a_time) = (destination.waiting() as u64, destination.window.size());
        destination.pace.drain_us(waiting, at_a_time, destination.busy > 0, now.mono_us) > CROWDED_US
    }

    /// Has this destination its share of the active queue?
    pub(super) fn is_crowded(&self, key: u32, now: Now) -> bool {
        let destination = &self.destinations[key];
        let waiting = destination.waiting();
        // Most destinations never have more than they may have anyway.
        if waiting < SHARE_LEAST || destination.dead.is_some() {
            return false;
        }
        if self.transports[destination.transport as usize].dead.is_some() {
            return false;
        }
        let unheard = destination.pace.job_us == 0 && waiting >= self.most(key);
        unheard || waiting >= self.share(key) && self.is_slow(key, now)
    }

    /// A message that has just been resolved waits outside if all its recipients go to crowded destinations. Says
    /// whether it does. `placed`: destination and position of its recipients, in the order of the destinations.
    pub(super) fn set_aside(&mut self, key: u32, placed: &[(u32, u32)], now: Now) -> bool {
        let Some((last, _)) = placed.last() else {
            return false;
        };
        if self.active[key].announced || self.active[key].waiting as usize != placed.len() {
            return false;
        }
        if !placed.chunk_by(|a, b| a.0 == b.0).all(|run| self.is_crowded(run[0].0, now)) {
            return false;
        }
        self.put_outside(key, *last, false);
        self.clogged(*last, now);
        true
    }

    fn put_outside(&mut self, key: u32, destination: u32, in_front: bool) {
        let Some(message) = self.active.remove(key) else {
            return;
        };
        self.in_core -= message.in_core();
        self.retries -= usize::from(message.retry);
        self.catalogue.place(message.slot, Place::Overflow(destination));
        let crowd = &mut self.destinations[destination].crowd[usize::from(message.retry)];
        if crowd.len() > 2 * self.catalogue.len() + STALE_MAX {
            let catalogue = &self.catalogue;
            crowd.retain(|slot| catalogue.is_at(*slot, Place::Overflow(destination)));
        }
        if in_front { crowd.push_front(message.slot) } else { crowd.push_back(message.slot) }
    }

    /// A destination gets on with what it has: if it has less than its share, its crowd may come in.
    pub(super) fn call(&mut self, key: u32, now: Now) {
        let destination = &self.destinations[key];
        if destination.calling || destination.crowd.iter().all(|crowd| crowd.is_empty()) || self.is_crowded(key, now) {
            return;
        }
        let room = self.share(key).saturating_sub(destination.waiting()).max(1);
        self.destinations[key].calling = true;
        self.calling.push_back((key, room));
    }

    /// The message that comes in next, of the destinations that call. They take turns.
    pub(super) fn first_called(&mut self) -> Option<u32> {
        for _ in 0..self.calling.len() {
            let (key, room) = self.calling.pop_front()?;
            for lane in 0..2 {
                while let Some(slot) = self.destinations[key].crowd[lane].front().copied() {
                    if !self.catalogue.is_at(slot, Place::Overflow(key)) {
                        self.destinations[key].crowd[lane].pop_front();
                    } else if lane == 0 || self.has_retry_room() {
                        self.calling.push_front((key, room));
                        return Some(slot);
                    } else {
                        break;
                    }
                }
            }
            let waits = self.destinations[key].crowd.iter().any(|crowd| !crowd.is_empty());
            self.destinations[key].calling = waits;
            if waits {
                self.calling.push_back((key, room));
            }
        }
        None
    }

    /// The message that `first_called` named is being read.
    pub(super) fn called_in(&mut self) {
        let Some((key, room)) = self.calling.pop_front() else {
            return;
        };
        let more = room > 1 && self.destinations[key].crowd.iter().any(|crowd| !crowd.is_empty());
        self.destinations[key].calling = more;
        if more {
            self.calling.push_back((key, room - 1));
        }
    }

    /// Fresh mail waits for room: take the last messages from the destination that has the most, if it is slow.
    pub(super) fn relieve(&mut self, now: Now) {
        if self.has_room() || self.catalogue.first_fresh().is_none() {
            self.relieve_us = None;
            return;
        }
        if now.mono_us < self.relieved_us + RELIEVE_EVERY_US && self.relieved_us > 0 {
            return;
        }
        self.relieved_us = now.mono_us.max(1);
        self.relieve_us = None;
        let most = self.destinations.iter().max_by_key(|(_, destination)| destination.waiting());
        let Some((key, waiting)) = most.map(|(key, destination)| (key, destination.waiting())) else {
            return;
        };
        let share = self.most(key);
        // Nobody has too much: nothing changes with time alone.
        if waiting <= share {
            return;
        }
        self.relieve_us = Some(now.mono_us + RELIEVE_EVERY_US);
        if !self.is_slow(key, now) {
            return;
        }
        let mut leave = waiting - share;
        for lane in [1, 0] {
            let mut at = self.destinations[key].lanes[lane].len();
            while at > 0 && leave > 0 {
                at -= 1;
                let bundle = &self.destinations[key].lanes[lane][at];
                let (errand, serial) = (bundle.errand, bundle.serial);
                let goes = bundle.kind == JobKind::Deliver
                    && self.errands.is(errand, serial)
                    && is_untouched(&self.active[self.errands[errand].message], bundle.positions.len());
                if goes {
                    let message = self.errands[errand].message;
                    self.destinations[key].lanes[lane].remove(at);
                    self.uncount(message);
                    self.bundle_gone(errand, serial);
                    self.put_outside(message, key, true);
                    leave -= 1;
                }
            }
        }
        self.stand(key, now);
        self.clogged(key, now);
    }

    /// The log says now and then that mail for a destination fills the active queue (`qmgr_clog_warn_time`).
    fn clogged(&mut self, key: u32, now: Now) {
        let every_us = self.settings.clog_warn_us;
        let destination = &self.destinations[key];
        let silent = destination.clogged_us.is_some_and(|us| now.mono_us < us.saturating_add(every_us));
        if every_us == 0 || silent {
            return;
        }
        let name = if destination.nexthop.is_empty() { &destination.key } else { &destination.nexthop };
        let transport = &self.transports[destination.transport as usize].name;
        let (waiting, active) = (destination.waiting(), self.active.len() + self.loading);
        let lines = [
            format!("mail for {name} is using up {waiting} of {active} active queue entries"),
            format!("more of it waits outside of the active queue until transport {transport} gets on with that"),
        ];
        self.destinations[key].clogged_us = Some(now.mono_us);
        lines.into_iter().for_each(|line| self.warn(line));
    }
}

/// Nothing happened to it yet, and all its recipients are in a bundle of so many.
fn is_untouched(message: &Active, recipients: usize) -> bool {
    message.jobs == 0
        && message.errands.len() == 1
        && message.in_core() == recipients
        && message.agents_lost == 0
        && message.left.deferred.is_empty()
        && message.left.bounced.is_empty()
        && message.left.late.is_empty()
        && !message.reading
        && !message.withdrawn
        && message.targets.iter().all(|target| matches!(target.stage, Stage::Free | Stage::Waiting))
}
