//! A destination: one next hop of one transport, and the peers that wait for it.

use super::feedback::{Window, WindowRules};
use super::job::Rank;
use super::transport::Candidate;
use crate::few::Few;
use crate::ipc::frame::JobKind;
use crate::mail::status::Status;
use std::collections::VecDeque;
use std::sync::Arc;

/// Recipients of one job for one destination that wait for their deliveries.
#[derive(Debug)]
pub struct Peer {
    /// Its rank among the waiting peers.
    pub rank: Rank,
    /// The job.
    pub job: u32,
    /// The serial of that key: a peer may outlive its job.
    pub serial: u64,
    /// The kind of its delivery requests.
    pub kind: JobKind,
    /// Positions in the message's memory, the next ones last. Empty for a report, which is about the whole message.
    pub positions: Few,
}

/// The queue of one next hop of one transport (Postfix's queue in the scheduler).
#[derive(Debug)]
pub struct DestinationQueue {
    /// The transport's number.
    pub transport: u32,
    /// Its key in the transport: the next hop, or `recipient@nexthop` with a concurrency per recipient.
    pub key: Arc<str>,
    /// Hash of the key.
    pub hash: u64,
    /// The next hop.
    pub nexthop: Arc<str>,
    /// Its concurrency window.
    pub window: Window,
    /// Deliveries under way.
    pub busy: u32,
    /// The reason and the end of its dead time (monotonic), if it is dead.
    pub dead: Option<(Arc<Status>, u64)>,
    /// End of the rate delay (monotonic).
    pub pause_until_us: u64,
    /// Waiting peers by rank: fresh mail, and retries.
    pub lanes: [VecDeque<Peer>; 2],
    /// Latest rounds of fresh mail and of retries.
    pub rounds: [u64; 2],
    /// The agent of its last delivery, which may have a connection open.
    pub agent: Option<u32>,
    /// It is in `Scheduler::idle`, the list of destinations without mail.
    pub idle_listed: bool,
    /// Its ranks in the transport's lanes, while it is there.
    pub ranks: [Option<Rank>; 2],
    /// Its preemption candidates in the transport's lanes, while it is there.
    pub candidates: [Option<Candidate>; 2],
    /// Its pace.
    pub pace: Pace,
    /// Messages that wait outside the active queue (slots of the catalogue): fresh mail, and retries.
    pub overflow: [VecDeque<u32>; 2],
    /// It is in `Scheduler::readmitting`.
    pub readmitting: bool,
    /// Time of the last warning that its mail fills the active queue (monotonic).
    pub clogged_us: Option<u64>,
}

/// The pace of a destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Moving average of the time of a delivery; 0 before the first result.
    pub delivery_us: u64,
    /// Time of the last result, or of the first delivery (monotonic).
    pub heard_us: u64,
}

impl Pace {
    /// Count a delivery that began at `sent_us` and ended now.
    pub fn hear(&mut self, sent_us: u64, now_us: u64) {
        const WEIGHT: u64 = 8;
        let took_us = now_us.saturating_sub(sent_us).max(1);
        self.delivery_us =
            if self.delivery_us == 0 { took_us } else { (self.delivery_us * (WEIGHT - 1) + took_us) / WEIGHT };
        self.heard_us = now_us;
    }

    /// Return the expected time of `waiting` deliveries, `concurrency` at a time.
    ///
    /// With deliveries under way, the time since the last result counts as a delivery time if it is longer than the
    /// average.
    pub fn drain_us(&self, waiting: u64, concurrency: u32, busy: bool, now_us: u64) -> u64 {
        let idle_us = if busy { now_us.saturating_sub(self.heard_us) } else { 0 };
        waiting.saturating_mul(self.delivery_us.max(idle_us)) / u64::from(concurrency.max(1))
    }
}

impl DestinationQueue {
    /// Return a new destination.
    pub fn new(transport: u32, key: Arc<str>, hash: u64, nexthop: Arc<str>, rules: &WindowRules) -> Self {
        Self {
            transport,
            key,
            hash,
            nexthop,
            window: Window::new(rules),
            busy: 0,
            dead: None,
            pause_until_us: 0,
            lanes: [VecDeque::new(), VecDeque::new()],
            rounds: [0; 2],
            agent: None,
            idle_listed: false,
            ranks: [None; 2],
            candidates: [None; 2],
            pace: Pace::default(),
            overflow: [VecDeque::new(), VecDeque::new()],
            readmitting: false,
            clogged_us: None,
        }
    }

    /// Return whether it may send now.
    pub fn has_room(&self, now_us: u64) -> bool {
        self.dead.is_none() && self.busy < self.window.size() && self.pause_until_us <= now_us
    }

    /// Return the number of waiting peers.
    pub fn waiting(&self) -> usize {
        self.lanes[0].len() + self.lanes[1].len()
    }

    /// Return whether it has no mail and no state worth keeping.
    pub fn is_idle(&self, now_us: u64) -> bool {
        self.waiting() == 0
            && self.busy == 0
            && self.dead.is_none()
            && self.pause_until_us <= now_us
            && self.overflow.iter().all(VecDeque::is_empty)
    }

    /// Insert a peer at its rank, behind others of the same rank.
    pub fn insert(&mut self, lane: usize, peer: Peer) {
        let queue = &mut self.lanes[lane];
        if queue.capacity() == 0 {
            // Most destinations have one peer at a time.
            queue.reserve_exact(1);
        }
        if queue.back().is_none_or(|last| last.rank <= peer.rank) {
            queue.push_back(peer);
        } else {
            let at = queue.partition_point(|other| other.rank <= peer.rank);
            queue.insert(at, peer);
        }
    }

    /// Remove and return the waiting peers of a job.
    pub fn take_peers(&mut self, lane: usize, job: u32, serial: u64) -> Vec<Peer> {
        let queue = &mut self.lanes[lane];
        let mut taken = Vec::new();
        let mut at = 0;
        while at < queue.len() {
            if queue[at].job == job && queue[at].serial == serial {
                taken.extend(queue.remove(at));
            } else {
                at += 1;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_time_counts_as_a_slow_delivery() {
        let mut pace = Pace::default();
        assert_eq!(pace.drain_us(100, 10, false, 1000), 0);
        pace.hear(0, 1000);
        assert_eq!(pace.drain_us(100, 10, true, 1000), 10_000);
        assert_eq!(pace.drain_us(100, 10, true, 61_000), 600_000);
        assert_eq!(pace.drain_us(100, 10, false, 61_000), 10_000);
        for n in 1..100 {
            pace.hear(n * 1000, n * 1000 + 3000);
        }
        assert!((2900..=3000).contains(&pace.delivery_us), "{}", pace.delivery_us);
    }
}
