//! Preemption: which job goes before the first one of a lane (SCHEDULER_README).
//!
//! When a job with many deliveries is first in its lane and has slots (`slots.rs`), the best job behind it goes
//! first: the one with the longest wait per delivery, if its deliveries fit into the slots of the large one. It then
//! stands before the large job at each of its destinations, until it ends.
//!
//! Slots ration deliveries. With slots alone a list would limit small mail to one delivery in `cost + 1`, and small
//! mail of a busy site would wait for the end of the list, or for its slow and dead hosts. So while small fresh mail
//! waits, large jobs and retries together get half of the deliveries. When they have more, the next delivery goes to
//! the small job that waits longest, and costs no slots. Both rules are off with a `cost` below 2.

use super::Scheduler;
use crate::clock::{Now, SECOND_US};
use crate::qmgr::destination::Peer;
use crate::qmgr::job::{Job, Rank};
use crate::qmgr::message::Stage;

/// Maximum number of waiting jobs that are considered for preempting the first one.
pub const CANDIDATES_MAX: usize = 100;
/// Maximum number of waiting peers of one destination among which a small job is searched for.
pub const BEHIND_MAX: usize = 16;
/// Interval before a failed search is repeated, unless a new job came.
const SEARCH_AGAIN_US: u64 = SECOND_US;

/// A search that found no job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FailedSearch {
    job: u64,
    arrivals: u64,
    pays: bool,
    at_us: u64,
}

/// Which jobs may preempt.
#[derive(Debug, Clone, Copy)]
enum Most {
    /// Jobs with at most this number of deliveries left.
    Deliveries(i64),
    /// Jobs that no other job may preempt.
    Small,
}

impl Scheduler {
    /// Put the job that preempts the first one of `destination` before it. Return whether there is one.
    pub(super) fn preempt(&mut self, lane: usize, destination: u32, rank: Rank, now: Now) -> bool {
        let number = self.destinations[destination].transport as usize;
        let rules = self.transports[number].settings.slots;
        let Some(peer) = self.destinations[destination].lanes[lane].front() else {
            return false;
        };
        let (first, serial) = (peer.job, peer.serial);
        let Some(job) = self.jobs.same(first, serial) else {
            return false;
        };
        let unread = self.unread_by(job);
        let pays = !(job.slots.is_large(&rules, unread) && self.transports[number].is_filled());
        if pays && !job.slots.can_pay(&rules, unread) {
            return false;
        }
        let search = FailedSearch { job: serial, arrivals: self.arrivals, pays, at_us: now.mono_us };
        let last = self.last_search;
        if (FailedSearch { at_us: search.at_us, ..last }) == search && now.mono_us - last.at_us < SEARCH_AGAIN_US {
            return false;
        }
        let most = if pays { Most::Deliveries(job.slots.most(&rules)) } else { Most::Small };
        let Some((second, needed)) = self.candidate(lane, first, rank, most, now) else {
            self.last_search = search;
            return false;
        };
        let job = &self.jobs[first];
        let single = needed == 1;
        let Some(place) = job.next_position(rank, single) else {
            return false;
        };
        if pays && !job.slots.affords(&rules, needed) {
            return false;
        }
        self.unstack_job(second);
        let mut slots = self.jobs[second].slots;
        let job = &mut self.jobs[first];
        if pays {
            job.slots.pay(&mut slots, &rules, needed);
        }
        job.preempted += u64::from(!single);
        job.children += 1;
        let job = &mut self.jobs[second];
        job.slots = slots;
        job.stacked = Some(place);
        job.parent = Some((first, serial));
        job.pays = pays;
        self.allow_extra_recipients(second);
        self.move_peers(second, now);
        true
    }

    /// Return the peer of a destination that may best preempt others, and whether its job is large: the first one of
    /// a small job, or the first one of another job than the front's, or the front.
    pub(super) fn preemption_candidate(&self, destination: u32, lane: usize) -> Option<(&Peer, bool)> {
        let queue = &self.destinations[destination].lanes[lane];
        let front = queue.front()?;
        let is_small = |peer: &&Peer| self.jobs.is(peer.job, peer.serial) && !self.is_large(peer.job);
        let other = |peer: &&Peer| (peer.job, peer.serial) != (front.job, front.serial);
        if let Some(small) = queue.iter().take(BEHIND_MAX).find(is_small) {
            return Some((small, false));
        }
        Some((queue.iter().take(BEHIND_MAX).find(other).unwrap_or(front), true))
    }

    fn unread_by(&self, job: &Job) -> u64 {
        let message = &self.active[job.message];
        message.unread(self.catalogue.entry(message.slot).recipients())
    }

    /// Return whether others may preempt a job, because of the number of its deliveries.
    pub(super) fn is_large(&self, key: u32) -> bool {
        let job = &self.jobs[key];
        let rules = &self.transports[job.transport as usize].settings.slots;
        job.slots.is_large(rules, self.unread_by(job))
    }

    /// Return the job that preempts `first`, and its number of deliveries left.
    fn candidate(&self, lane: usize, first: u32, rank: Rank, most: Most, now: Now) -> Option<(u32, u64)> {
        if matches!(most, Most::Deliveries(..=0)) {
            return None;
        }
        let mut best: Option<(f64, u32, u64)> = None;
        // By arrival, not by round: rounds hardly advance during a long list, and mail for a destination that is new
        // in each round would wait for the end of the list.
        let lane_of = &self.transports[self.jobs[first].transport as usize].lanes[lane];
        let kinds = if matches!(most, Most::Small) { 1 } else { 2 };
        for line in &lane_of.by_arrival[..kinds] {
            let mut next = 0;
            for _ in 0..CANDIDATES_MAX {
                // One step per job, however many destinations it has.
                let Some((arrival, key)) = line.first_from((next, 0)) else {
                    break;
                };
                next = arrival + 1;
                if arrival == rank.arrival {
                    continue;
                }
                let Some((peer, _)) = self.preemption_candidate(key, lane) else {
                    continue;
                };
                let waited = self.jobs.same(peer.job, peer.serial).map_or(0.0, |job| waited_s(job, now));
                // Later jobs came later, and with a single delivery each they would not be better.
                if best.is_some_and(|(score, _, _)| waited <= score) {
                    break;
                }
                self.consider(&mut best, first, (peer.job, peer.serial), most, now);
            }
        }
        best.map(|(_, job, needed)| (job, needed))
    }

    fn consider(&self, best: &mut Option<(f64, u32, u64)>, first: u32, other: (u32, u64), most: Most, now: Now) {
        let Some(job) = self.jobs.same(other.0, other.1).filter(|job| job.children == 0) else {
            return;
        };
        let needed = job.slots.left(self.unread_by(job));
        let fits = match most {
            Most::Deliveries(most) => needed as i64 <= most,
            Most::Small => !self.is_large(other.0),
        };
        if other.0 == first || needed == 0 || !fits {
            return;
        }
        let score = waited_s(job, now) / needed as f64;
        if best.is_none_or(|(of_best, _, _)| score > of_best) {
            *best = Some((score, other.0, needed));
        }
    }

    /// End the preemption of a job, because it ends or preempts a third one. The job that it preempted gets unused
    /// slots back.
    pub(super) fn unstack(&mut self, job: &mut Job) {
        let transport = &mut self.transports[job.transport as usize];
        if let Some((parent, serial)) = job.parent.take()
            && let Some(parent) = self.jobs.same_mut(parent, serial)
        {
            parent.children -= 1;
            if parent.children == 0 {
                parent.preempted = 0;
            }
            if job.pays {
                parent.slots.finish(&job.slots, &transport.settings.slots);
            }
        }
        let extra_recipients = std::mem::take(&mut job.extra_recipients);
        transport.extra_recipients -= extra_recipients;
        if let Some(message) = self.active.get_mut(job.message) {
            message.memory_limit -= extra_recipients as usize;
        }
    }

    fn unstack_job(&mut self, key: u32) {
        let mut taken = Job { ..self.jobs[key] };
        self.unstack(&mut taken);
        self.jobs[key] = taken;
    }

    /// Allow a preempting job with recipients on disk half of the rest of the transport's extra pool.
    fn allow_extra_recipients(&mut self, key: u32) {
        if self.unread_by(&self.jobs[key]) == 0 {
            return;
        }
        let job = &mut self.jobs[key];
        let transport = &mut self.transports[job.transport as usize];
        let extra_recipients =
            transport.settings.refill.extra_limit.saturating_sub(transport.extra_recipients).div_ceil(2);
        transport.extra_recipients += extra_recipients;
        job.extra_recipients = extra_recipients;
        self.active[job.message].memory_limit += extra_recipients as usize;
    }

    /// Move the peers of a job to its new rank.
    fn move_peers(&mut self, key: u32, now: Now) {
        let (job, serial) = (&self.jobs[key], self.jobs.serial(key));
        let (lane, transport) = (job.lane, job.transport);
        let waiting = self.active[job.message].targets.iter().filter(|target| target.stage == Stage::Waiting);
        let mut destinations: Vec<u32> = waiting.map(|target| target.destination).collect();
        destinations.sort_unstable();
        destinations.dedup();
        destinations.retain(|at| self.destinations[*at].transport == transport);
        for at in destinations {
            for mut peer in self.destinations[at].take_peers(lane, key, serial) {
                peer.rank = self.jobs[key].rank(peer.rank.round, peer.rank.served);
                self.destinations[at].insert(lane, peer);
            }
            self.update_lanes(at, now);
        }
    }
}

/// Return the waiting time of a job, as Postfix counts it.
fn waited_s(job: &Job, now: Now) -> f64 {
    now.mono_us.saturating_sub(job.since_us) as f64 / SECOND_US as f64 + 1.0
}
