//! A destination: one next hop of one transport, and what waits for it.

use super::errand::Turn;
use super::feedback::{Window, WindowRules};
use super::transport::Draw;
use crate::few::Few;
use crate::ipc::frame::JobKind;
use crate::mail::status::Status;
use std::collections::VecDeque;
use std::sync::Arc;

/// Recipients of one errand for one destination, waiting to be made into jobs.
#[derive(Debug)]
pub struct Bundle {
    /// Its place among those that wait.
    pub turn: Turn,
    /// The errand.
    pub errand: u32,
    /// The serial of that key: a bundle may outlive its errand.
    pub serial: u64,
    /// What the jobs will ask.
    pub kind: JobKind,
    /// Positions in the message's memory, the next ones last. Empty for a report, which is about the whole message.
    pub positions: Few,
}

/// One next hop of one transport.
#[derive(Debug)]
pub struct Destination {
    /// The transport's number.
    pub transport: u32,
    /// What makes it one: the next hop, or `recipient@nexthop` where concurrency goes by recipient.
    pub key: Arc<str>,
    /// The hash of that, by which its transport finds it.
    pub hash: u64,
    /// The next hop.
    pub nexthop: Arc<str>,
    /// How many jobs it takes.
    pub window: Window,
    /// Jobs under way.
    pub busy: u32,
    /// Why it is dead, if it is, and until when (monotonic).
    pub dead: Option<(Arc<Status>, u64)>,
    /// It takes no job before this moment (rate delay, monotonic).
    pub pause_until_us: u64,
    /// What waits by turn: fresh mail, and retries.
    pub lanes: [VecDeque<Bundle>; 2],
    /// The latest rounds of fresh mail and of retries.
    pub rounds: [u64; 2],
    /// The peer that had its last job: it may have a connection open.
    pub agent: Option<u32>,
    /// It stands among those of which nothing waits, to be forgotten some time.
    pub idle_listed: bool,
    /// Its turns in the transport's lanes, while it stands there.
    pub turns: [Option<Turn>; 2],
    /// Its draws in the transport's lanes, while it stands there.
    pub draws: [Option<Draw>; 2],
    /// How busy it is with what it has.
    pub pace: Pace,
    /// Messages that wait outside of the active queue (slots of the catalogue): fresh mail, and retries.
    pub crowd: [VecDeque<u32>; 2],
    /// It stands among those whose crowd may come in.
    pub calling: bool,
    /// When the log was last told that its mail fills the active queue (monotonic).
    pub clogged_us: Option<u64>,
}

/// How fast a destination takes jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// What a job took lately (moving average); 0 while none came back.
    pub job_us: u64,
    /// The last time that a job came back, or that the first one went out (monotonic).
    pub heard_us: u64,
}

impl Pace {
    /// A job that was given to an agent at `sent_us` came back.
    pub fn hear(&mut self, sent_us: u64, now_us: u64) {
        const WEIGHT: u64 = 8;
        let took_us = now_us.saturating_sub(sent_us).max(1);
        self.job_us = if self.job_us == 0 { took_us } else { (self.job_us * (WEIGHT - 1) + took_us) / WEIGHT };
        self.heard_us = now_us;
    }

    /// How long `waiting` jobs will take with `concurrency` at a time.
    ///
    /// With jobs under way a silence that is longer than a job usually takes counts as one.
    pub fn drain_us(&self, waiting: u64, concurrency: u32, busy: bool, now_us: u64) -> u64 {
        let silence_us = if busy { now_us.saturating_sub(self.heard_us) } else { 0 };
        waiting.saturating_mul(self.job_us.max(silence_us)) / u64::from(concurrency.max(1))
    }
}

impl Destination {
    /// A destination that nothing is known of.
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
            turns: [None; 2],
            draws: [None; 2],
            pace: Pace::default(),
            crowd: [VecDeque::new(), VecDeque::new()],
            calling: false,
            clogged_us: None,
        }
    }

    /// May it send something now, if it has something?
    pub fn has_room(&self, now_us: u64) -> bool {
        self.dead.is_none() && self.busy < self.window.size() && self.pause_until_us <= now_us
    }

    /// Bundles that wait.
    pub fn waiting(&self) -> usize {
        self.lanes[0].len() + self.lanes[1].len()
    }

    /// Nothing waits, nothing is under way, and nothing must be remembered.
    pub fn is_idle(&self, now_us: u64) -> bool {
        self.waiting() == 0
            && self.busy == 0
            && self.dead.is_none()
            && self.pause_until_us <= now_us
            && self.crowd.iter().all(VecDeque::is_empty)
    }

    /// Put a bundle at its turn, behind others of the same turn.
    pub fn insert(&mut self, lane: usize, bundle: Bundle) {
        let queue = &mut self.lanes[lane];
        if queue.capacity() == 0 {
            // Most have one bundle at a time.
            queue.reserve_exact(1);
        }
        if queue.back().is_none_or(|last| last.turn <= bundle.turn) {
            queue.push_back(bundle);
        } else {
            let at = queue.partition_point(|other| other.turn <= bundle.turn);
            queue.insert(at, bundle);
        }
    }

    /// The bundles of an errand that wait here, taken out.
    pub fn take_errand(&mut self, lane: usize, errand: u32, serial: u64) -> Vec<Bundle> {
        let queue = &mut self.lanes[lane];
        let mut taken = Vec::new();
        let mut at = 0;
        while at < queue.len() {
            if queue[at].errand == errand && queue[at].serial == serial {
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
    fn a_silence_counts_as_a_slow_job() {
        let mut pace = Pace::default();
        assert_eq!(pace.drain_us(100, 10, false, 1000), 0);
        pace.hear(0, 1000);
        assert_eq!(pace.drain_us(100, 10, true, 1000), 10_000);
        assert_eq!(pace.drain_us(100, 10, true, 61_000), 600_000);
        assert_eq!(pace.drain_us(100, 10, false, 61_000), 10_000);
        for n in 1..100 {
            pace.hear(n * 1000, n * 1000 + 3000);
        }
        assert!((2900..=3000).contains(&pace.job_us), "{}", pace.job_us);
    }
}
