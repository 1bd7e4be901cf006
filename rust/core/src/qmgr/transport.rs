//! A transport: a delivery service of master.cf, its agents and its destinations.
//!
//! A transport has two lanes, fresh mail and retries, each in the order of `job::Rank`. A destination is in a lane at
//! the rank of its first peer while it may send. So messages go in the order of arrival; a congested destination gets
//! one peer in each round; small jobs preempt large ones for slots (`slots.rs`). Large jobs and retries together get
//! half of the deliveries while small fresh mail waits (`preemption.rs`), so that small mail of a busy site does not
//! wait for the end of a list. While both lanes wait, fresh mail gets `FRESH_IN_A_ROW` of `FRESH_IN_A_ROW + 1`
//! deliveries. A fifth of the agents is reserved for it, however long retries take.

use super::job::Rank;
use super::order::Order;
use super::settings::TransportSettings;
use crate::mail::status::Status;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::sync::Arc;

/// Deliveries of fresh mail for one of a retry, while both wait.
pub const FRESH_IN_A_ROW: u32 = 4;
/// Part of the agents that is reserved for fresh mail: a fifth.
const FRESH_SHARE: u64 = 5;
/// Part of the deliveries that large jobs and retries leave to small fresh mail while it waits: half.
const SMALL_SHARE: u64 = 2;

/// A delivery agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    /// Its number as a client of the queue manager.
    pub client: u32,
    /// Maximum number of its deliveries at a time.
    pub capacity: u32,
    /// Its deliveries under way.
    pub busy: u32,
}

/// A lane: fresh mail, or retries.
#[derive(Debug, Default)]
pub struct Lane {
    /// Destinations that may send, by the rank of their first peer.
    pub by_rank: Order<(Rank, u32)>,
    /// The same destinations by the arrival of their preemption candidate: small jobs, large jobs.
    pub by_arrival: [Order<(u64, u32)>; 2],
    /// The current round.
    pub round: u64,
}

/// The job of a destination that may best preempt others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// It may be preempted itself.
    pub large: bool,
    /// The arrival of its rank.
    pub arrival: u64,
}

impl Lane {
    /// Change the rank of a destination, or remove it.
    pub fn move_rank(&mut self, destination: u32, old: Option<Rank>, new: Option<Rank>) {
        if let Some(rank) = old {
            self.by_rank.remove(&(rank, destination));
        }
        if let Some(rank) = new {
            self.by_rank.insert((rank, destination));
        }
    }

    /// Change the preemption candidate of a destination, or remove it.
    pub fn move_candidate(&mut self, destination: u32, old: Option<Candidate>, new: Option<Candidate>) {
        if let Some(Candidate { large, arrival }) = old {
            self.by_arrival[usize::from(large)].remove(&(arrival, destination));
        }
        if let Some(Candidate { large, arrival }) = new {
            self.by_arrival[usize::from(large)].insert((arrival, destination));
        }
    }
}

/// A delivery service of master.cf.
#[derive(Debug)]
pub struct Transport {
    /// The service's name.
    pub name: Arc<str>,
    /// Its parameters.
    pub settings: TransportSettings,
    /// Its agents.
    pub agents: Vec<Agent>,
    /// Deliveries that its agents can take now, within `maxproc`.
    pub room: u64,
    /// Deliveries that its agents can take now.
    free: u64,
    /// Deliveries under way.
    pub busy: u64,
    /// Deliveries of retries under way.
    pub busy_retries: u64,
    /// Maximum number of concurrent deliveries of retries.
    pub retry_room: u64,
    /// Deliveries of large jobs or retries under way.
    pub busy_late: u64,
    /// Maximum number of them while small fresh mail waits.
    pub late_room: u64,
    /// The reason and the end of its dead time (monotonic), if it is dead.
    pub dead: Option<(Arc<Status>, u64)>,
    /// Start of the wait for a first agent (monotonic).
    pub wanting_since_us: Option<u64>,
    /// Time of the last request for an agent (monotonic).
    pub asked_us: Option<u64>,
    /// End of the rate delay (monotonic).
    pub pause_until_us: u64,
    /// Its destinations by the hash of their key, which senders choose.
    pub destinations: HashTable<u32>,
    /// The hash function, with a random key.
    pub hasher: DefaultHashBuilder,
    /// Fresh mail, and retries.
    pub lanes: [Lane; 2],
    /// Deliveries of fresh mail since the last one of a retry.
    pub fresh_in_a_row: u32,
    /// Its recipients in memory.
    pub in_core: usize,
    /// Recipients of the extra pool that preempting jobs use.
    pub extra_recipients: u32,
}

impl Transport {
    /// Return a new transport.
    pub fn new(name: Arc<str>, settings: TransportSettings) -> Self {
        Self {
            name,
            settings,
            agents: Vec::new(),
            room: 0,
            free: 0,
            busy: 0,
            busy_retries: 0,
            retry_room: 0,
            busy_late: 0,
            late_room: 0,
            dead: None,
            wanting_since_us: None,
            asked_us: None,
            pause_until_us: 0,
            destinations: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            lanes: [Lane::default(), Lane::default()],
            fresh_in_a_row: 0,
            in_core: 0,
            extra_recipients: 0,
        }
    }

    /// Count the room again, after agents came, left or changed their capacity.
    pub fn count_room(&mut self) {
        let limit = match self.settings.process_limit {
            0 => u64::MAX,
            limit => u64::from(limit),
        };
        let capacity = self.agents.iter().map(|agent| u64::from(agent.capacity)).sum::<u64>().min(limit);
        self.retry_room = (capacity - capacity / FRESH_SHARE).max(1);
        self.late_room = (capacity - capacity / SMALL_SHARE).max(1);
        self.busy = self.agents.iter().map(|agent| u64::from(agent.busy)).sum();
        self.free = self.agents.iter().map(|agent| u64::from(agent.capacity.saturating_sub(agent.busy))).sum();
        self.limit_room();
    }

    /// Count a result of one agent, as `count_room` would.
    pub fn free_agents_place(&mut self, client: u32) {
        let Some(agent) = self.agents.iter_mut().find(|agent| agent.client == client) else { return };
        // An agent that lowered its capacity may still be above it.
        self.free += u64::from(agent.busy <= agent.capacity);
        agent.busy -= 1;
        self.busy -= 1;
        self.limit_room();
    }

    fn limit_room(&mut self) {
        let limit = match self.settings.process_limit {
            0 => u64::MAX,
            limit => u64::from(limit),
        };
        self.room = self.free.min(limit.saturating_sub(self.busy));
    }

    /// Return the agent for the next delivery: `preferred` if it has room, or the one with most room; `None` if none
    /// has.
    pub fn free_agent(&mut self, preferred: Option<u32>) -> Option<&mut Agent> {
        let has_room = |agent: &&mut Agent| agent.busy < agent.capacity;
        if let Some(at) =
            self.agents.iter().position(|agent| Some(agent.client) == preferred && agent.busy < agent.capacity)
        {
            return Some(&mut self.agents[at]);
        }
        self.agents.iter_mut().filter(has_room).max_by_key(|agent| agent.capacity - agent.busy)
    }

    /// Return whether no destination may send.
    pub fn is_quiet(&self) -> bool {
        self.lanes.iter().all(|lane| lane.by_rank.is_empty())
    }

    /// Return the lane of the next delivery; `None` if neither has one.
    pub fn next_lane(&self) -> Option<usize> {
        let fresh = !self.lanes[0].by_rank.is_empty();
        let retries = !self.lanes[1].by_rank.is_empty() && self.busy_retries < self.retry_room;
        match (fresh, retries) {
            (true, true) if self.is_filled() && !self.lanes[0].by_arrival[0].is_empty() => Some(0),
            (true, true) => Some(usize::from(self.fresh_in_a_row >= FRESH_IN_A_ROW)),
            (true, false) => Some(0),
            (false, true) => Some(1),
            (false, false) => None,
        }
    }

    /// Return whether large jobs and retries use their maximum while small fresh mail waits.
    pub fn is_filled(&self) -> bool {
        self.busy_late >= self.late_room
    }

    /// Count a delivery that begins.
    pub fn count_delivery(&mut self, lane: usize, large: bool) {
        self.room -= 1;
        self.free -= 1;
        self.busy += 1;
        self.busy_retries += lane as u64;
        self.busy_late += u64::from(large || lane == 1);
        self.fresh_in_a_row = if lane == 0 { (self.fresh_in_a_row + 1).min(FRESH_IN_A_ROW) } else { 0 };
    }

    /// Count a delivery whose result came, or whose agent is gone.
    pub fn uncount_delivery(&mut self, lane: usize, large: bool) {
        self.busy_retries -= lane as u64;
        self.busy_late -= u64::from(large || lane == 1);
    }
}
