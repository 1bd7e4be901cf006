//! A job: the work of one transport for one message (SCHEDULER_README).
//!
//! A job has a peer of recipients at each of its destinations. All of them stand at its rank in the transport's
//! order. One delivery takes up to `*_destination_recipient_limit` recipients of a peer.

use super::slots::Slots;

/// Maximum depth of preemption: each job is a fifth of the one before, or less.
pub const PREEMPTION_DEPTH_MAX: u32 = 4;
/// Bits of a path for one level of preemption.
const PATH_BITS: u32 = 64 / PREEMPTION_DEPTH_MAX;

/// A position in the order of a transport: the lowest is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// The round of its destination. A destination gets one new peer in each round, so that congested destinations
    /// leave room.
    pub round: u64,
    /// The order of arrival, within a round.
    pub arrival: u64,
    /// The stack of preemption: jobs that preempt a job have its arrival and a lower path.
    pub path: u64,
    /// Deliveries of this peer so far: the peers of a job take turns.
    pub served: u32,
}

/// The work of one transport for one message.
#[derive(Debug)]
pub struct Job {
    /// The message's key in `Scheduler::active`. A message outlives its jobs.
    pub message: u32,
    /// The transport.
    pub transport: u32,
    /// 0 for fresh mail, 1 for retries.
    pub lane: usize,
    /// Start of the job (monotonic).
    pub since_us: u64,
    /// Number in the order of arrival.
    pub arrival: u64,
    /// Its position while it preempts: before the job that it preempted.
    pub stacked: Option<StackPosition>,
    /// The job that it preempted: key and serial (Postfix's stack parent).
    pub parent: Option<(u32, u64)>,
    /// It preempted for slots, not for the share that large jobs leave to small ones.
    pub pays: bool,
    /// Positions used by jobs that preempted it, since no such job was left.
    pub preempted: u64,
    /// Jobs that preempt it now (Postfix's stack children).
    pub children: u32,
    /// Its peers that wait.
    pub peers: u32,
    /// Its delivery slots.
    pub slots: Slots,
    /// Recipients in memory beyond the message's limit while it preempts (`*_extra_recipient_limit`).
    pub extra_recipients: u32,
}

/// The round, arrival and path of a job that preempts; see `Rank`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackPosition {
    /// Round of the preempted job.
    pub round: u64,
    /// Arrival of the preempted job.
    pub arrival: u64,
    /// Path, lower than that of the preempted job.
    pub path: u64,
    /// Depth of preemption.
    pub depth: u32,
}

impl Job {
    /// Return the job of a message on a transport. `arrival`: a number that grows with each job.
    pub fn new(message: u32, transport: u32, lane: usize, since_us: u64, arrival: u64) -> Self {
        Self {
            message,
            transport,
            lane,
            since_us,
            arrival,
            stacked: None,
            parent: None,
            pays: false,
            preempted: 0,
            children: 0,
            peers: 0,
            slots: Slots::default(),
            extra_recipients: 0,
        }
    }

    /// Return the position for the next job that preempts this one's peer at `rank`; `None` when no position is left.
    ///
    /// Jobs with a single delivery end at once. They all share the last position.
    pub fn next_position(&self, rank: Rank, single: bool) -> Option<StackPosition> {
        let depth = self.stacked.map_or(0, |position| position.depth);
        let places = 1 << PATH_BITS;
        if depth >= PREEMPTION_DEPTH_MAX || !single && self.preempted + 3 >= places {
            return None;
        }
        // The low bits of a path are all ones below its own depth, so positions before it are lower.
        let shift = 64 - PATH_BITS * (depth + 1);
        let nth = if single { places - 3 } else { self.preempted };
        let below = (places - 1 - nth - 1) << shift;
        let path = rank.path - below;
        Some(StackPosition { round: rank.round, arrival: rank.arrival, path, depth: depth + 1 })
    }

    /// Return the rank of a peer in a round of its destination.
    pub fn rank(&self, round: u64, served: u32) -> Rank {
        match self.stacked {
            Some(StackPosition { round, arrival, path, .. }) => Rank { round, arrival, path, served },
            None => Rank { round, arrival: self.arrival, path: u64::MAX, served },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(stacked: Option<StackPosition>) -> Job {
        Job { stacked, ..Job::new(0, 0, 0, 0, 7) }
    }

    #[test]
    fn preempting_jobs_stand_before_the_preempted_one_in_their_order() {
        let mut list = job(None);
        let rank = list.rank(3, 40);
        let mut before = Rank { round: 3, arrival: 6, path: u64::MAX, served: 0 };
        for nth in 0..60_000 {
            let mut second = job(list.next_position(rank, false));
            list.preempted += 1;
            let position = second.rank(9, 0);
            assert!(before < position && position < rank, "the {nth}th");
            if nth % 10_000 == 0 {
                let mut deepest = position;
                while let Some(position) = second.next_position(deepest, false) {
                    let third = job(Some(position)).rank(9, 0);
                    assert!(before < third && third < deepest);
                    deepest = third;
                    second = job(Some(position));
                }
            }
            before = position;
        }
        list.preempted = 65_532;
        before = job(list.next_position(rank, false)).rank(9, 0);
        list.preempted = 65_533;
        assert_eq!(list.next_position(rank, false), None);
        let single = job(list.next_position(rank, true)).rank(9, 0);
        assert!(before < single && single < rank);
    }
}
