//! Overflow: a limit on the share of the active queue that a slow destination may use.
//!
//! Postfix fills the active queue in the order of arrival, so that one slow next hop can use all of it. Here a
//! destination is slow when its mail will take longer than `SLOW_US`. It may use a quarter of the free part: a single
//! one a fifth of the active queue, ten of them seven tenths. A destination without any result yet may use a fifth of
//! the active queue. Mail for such destinations alone waits outside, without its envelope, in the order of arrival.
//! It is readmitted as its destination makes progress. When a destination with a larger share becomes slow, its last
//! messages leave the active queue again.

use super::Scheduler;
use crate::clock::{Now, SECOND_US};
use crate::ipc::frame::JobKind;
use crate::qmgr::message::{Active, Stage};
use crate::queue::catalogue::Place;

/// A destination is slow when its waiting mail takes longer than this.
pub const SLOW_US: u64 = 30 * SECOND_US;
/// Part of the free room that a slow destination may use: a quarter.
const SHARE_OF_ROOM: usize = 4;
/// Interval between two searches of a full active queue for a destination that became slow.
const RELIEVE_EVERY_US: u64 = 10 * SECOND_US;
/// Minimum share of a destination; its concurrency if that is more.
const SHARE_LEAST: usize = 5;
/// Maximum number of stale entries in an overflow queue, besides twice the messages of the queue.
const STALE_MAX: usize = 1024;

impl Scheduler {
    /// Return the maximum number of messages of this destination in the active queue while it is slow.
    fn share(&self, destination: u32) -> usize {
        let active = self.active.len() + self.loading;
        let left = self.settings.message_active_limit.saturating_sub(active);
        self.at_least(destination, left / SHARE_OF_ROOM)
    }

    fn at_least(&self, destination: u32, share: usize) -> usize {
        share.max(self.destinations[destination].window.size() as usize).max(SHARE_LEAST)
    }

    /// Return the share of a single slow destination, and of one without any result.
    fn most(&self, destination: u32) -> usize {
        self.at_least(destination, self.settings.message_active_limit / (SHARE_OF_ROOM + 1))
    }

    fn is_slow(&self, key: u32, now: Now) -> bool {
        let destination = &self.destinations[key];
        let (waiting, at_a_time) = (destination.waiting() as u64, destination.window.size());
        destination.pace.drain_us(waiting, at_a_time, destination.busy > 0, now.mono_us) > SLOW_US
    }

    /// Return whether a slow destination has used up its share of the active queue.
    pub(super) fn is_congested(&self, key: u32, now: Now) -> bool {
        let destination = &self.destinations[key];
        let waiting = destination.waiting();
        // Most destinations stay below the minimum share.
        if waiting < SHARE_LEAST || destination.dead.is_some() {
            return false;
        }
        if self.transports[destination.transport as usize].dead.is_some() {
            return false;
        }
        let without_result = destination.pace.delivery_us == 0 && waiting >= self.most(key);
        without_result || waiting >= self.share(key) && self.is_slow(key, now)
    }

    /// Move a newly resolved message to the overflow if all its destinations are congested. Return whether it was
    /// moved. `placed`: destination and position of each recipient, by destination.
    pub(super) fn overflow_if_congested(&mut self, key: u32, placed: &[(u32, u32)], now: Now) -> bool {
        let Some((last, _)) = placed.last() else {
            return false;
        };
        if self.active[key].announced || self.active[key].waiting as usize != placed.len() {
            return false;
        }
        if !placed.chunk_by(|a, b| a.0 == b.0).all(|run| self.is_congested(run[0].0, now)) {
            return false;
        }
        self.move_to_overflow(key, *last, false);
        self.clogged(*last, now);
        true
    }

    fn move_to_overflow(&mut self, key: u32, destination: u32, in_front: bool) {
        let Some(message) = self.active.remove(key) else {
            return;
        };
        self.in_core -= message.in_core();
        self.retries -= usize::from(message.retry);
        self.catalogue.place(message.slot, Place::Overflow(destination));
        let overflow = &mut self.destinations[destination].overflow[usize::from(message.retry)];
        if overflow.len() > 2 * self.catalogue.len() + STALE_MAX {
            let catalogue = &self.catalogue;
            overflow.retain(|slot| catalogue.is_at(*slot, Place::Overflow(destination)));
        }
        if in_front { overflow.push_front(message.slot) } else { overflow.push_back(message.slot) }
    }

    /// Note that a destination made progress: below its share, its overflow may enter the active queue.
    pub(super) fn readmit(&mut self, key: u32, now: Now) {
        let destination = &self.destinations[key];
        if destination.readmitting
            || destination.overflow.iter().all(|overflow| overflow.is_empty())
            || self.is_congested(key, now)
        {
            return;
        }
        let room = self.share(key).saturating_sub(destination.waiting()).max(1);
        self.destinations[key].readmitting = true;
        self.readmitting.push_back((key, room));
    }

    /// Return the next message to enter the active queue. Destinations take turns.
    pub(super) fn first_readmitted(&mut self) -> Option<u32> {
        for _ in 0..self.readmitting.len() {
            let (key, room) = self.readmitting.pop_front()?;
            for lane in 0..2 {
                while let Some(slot) = self.destinations[key].overflow[lane].front().copied() {
                    if !self.catalogue.is_at(slot, Place::Overflow(key)) {
                        self.destinations[key].overflow[lane].pop_front();
                    } else if lane == 0 || self.has_retry_room() {
                        self.readmitting.push_front((key, room));
                        return Some(slot);
                    } else {
                        break;
                    }
                }
            }
            let waits = self.destinations[key].overflow.iter().any(|overflow| !overflow.is_empty());
            self.destinations[key].readmitting = waits;
            if waits {
                self.readmitting.push_back((key, room));
            }
        }
        None
    }

    /// Count the message that `first_readmitted` returned as read.
    pub(super) fn readmitted(&mut self) {
        let Some((key, room)) = self.readmitting.pop_front() else {
            return;
        };
        let more = room > 1 && self.destinations[key].overflow.iter().any(|overflow| !overflow.is_empty());
        self.destinations[key].readmitting = more;
        if more {
            self.readmitting.push_back((key, room - 1));
        }
    }

    /// Make room for fresh mail: move the last messages of the largest destination to the overflow, if it is slow.
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
        // No destination has too much, and time alone changes nothing.
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
                let peer = &self.destinations[key].lanes[lane][at];
                let (job, serial) = (peer.job, peer.serial);
                let goes = peer.kind == JobKind::Deliver
                    && self.jobs.is(job, serial)
                    && is_untouched(&self.active[self.jobs[job].message], peer.positions.len());
                if goes {
                    let message = self.jobs[job].message;
                    self.destinations[key].lanes[lane].remove(at);
                    self.uncount(message);
                    self.peer_finished(job, serial);
                    self.move_to_overflow(message, key, true);
                    leave -= 1;
                }
            }
        }
        self.update_lanes(key, now);
        self.clogged(key, now);
    }

    /// Warn at intervals that mail for a destination fills the active queue (`qmgr_clog_warn_time`).
    fn clogged(&mut self, key: u32, now: Now) {
        let every_us = self.settings.clog_warn_us;
        let destination = &self.destinations[key];
        let recent = destination.clogged_us.is_some_and(|us| now.mono_us < us.saturating_add(every_us));
        if every_us == 0 || recent {
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

/// Return whether all recipients of a message wait in one peer, and nothing happened to it in this attempt.
fn is_untouched(message: &Active, recipients: usize) -> bool {
    message.deliveries == 0
        && message.jobs.len() == 1
        && message.in_core() == recipients
        && message.agents_lost == 0
        && message.left.deferred.is_empty()
        && message.left.bounced.is_empty()
        && message.left.late.is_empty()
        && !message.reading
        && !message.withdrawn
        && message.targets.iter().all(|target| matches!(target.stage, Stage::Free | Stage::Waiting))
}
