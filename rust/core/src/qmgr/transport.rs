//! A transport: a delivery service of master.cf, its agents and its destinations.
//!
//! What it has to deliver stands in two lanes, fresh mail and retries, each in the order of `errand::Turn`. In a lane a
//! destination stands at the turn of its first bundle while it may send. So messages go in the order in which they came;
//! a destination with a crowd of them has one in each round of destinations; small messages overtake large ones for
//! slots (`slots.rs`). Large messages and retries together have half of the places while small fresh mail waits
//! (`overtake.rs`), so that that of a busy site does not wait for the end of a list. Between the lanes, fresh mail has `FRESH_TURNS` of `FRESH_TURNS + 1` deliveries while both wait,
//! and a fifth of the agents is kept for it, however long retries take.

use super::errand::Turn;
use super::order::Order;
use super::settings::TransportSettings;
use crate::mail::status::Status;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::sync::Arc;

/// Deliveries of fresh mail for one of a retry while both wait.
pub const FRESH_TURNS: u32 = 4;
/// One agent in so many is kept for fresh mail.
const FRESH_SHARE: u64 = 5;
/// Large messages and retries leave one place in so many to small fresh mail, as long as any waits.
const SMALL_SHARE: u64 = 2;

/// A delivery agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    /// The peer that it is.
    pub peer: u32,
    /// Jobs that it takes at a time.
    pub capacity: u32,
    /// Jobs that it has.
    pub busy: u32,
}

/// Fresh mail, or retries.
#[derive(Debug, Default)]
pub struct Lane {
    /// Destinations that may send, by the turn of their first bundle.
    pub line: Order<(Turn, u32)>,
    /// The same destinations by the draw of the message there that may best overtake: those with a small one, the others.
    pub by_draw: [Order<(u64, u32)>; 2],
    /// The round that is being served.
    pub round: u64,
}

/// The message at a destination that may best overtake others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// It is one that may be overtaken itself.
    pub large: bool,
    /// The draw of its turn.
    pub draw: u64,
}

impl Lane {
    /// A destination stands at another turn than before, or not any more.
    pub fn move_turn(&mut self, destination: u32, old: Option<Turn>, new: Option<Turn>) {
        if let Some(turn) = old {
            self.line.remove(&(turn, destination));
        }
        if let Some(turn) = new {
            self.line.insert((turn, destination));
        }
    }

    /// Another message than before may best overtake at a destination that stands, or none any more.
    pub fn move_draw(&mut self, destination: u32, old: Option<Draw>, new: Option<Draw>) {
        if let Some(Draw { large, draw }) = old {
            self.by_draw[usize::from(large)].remove(&(draw, destination));
        }
        if let Some(Draw { large, draw }) = new {
            self.by_draw[usize::from(large)].insert((draw, destination));
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
    /// Jobs that its agents would take now, and `maxproc` allows.
    pub room: u64,
    /// Jobs that its agents would take now.
    free: u64,
    /// Jobs under way.
    pub busy: u64,
    /// Of these, of retries.
    pub busy_retries: u64,
    /// Jobs at a time that may be of retries.
    pub retry_room: u64,
    /// Jobs under way that are of large messages, or of retries.
    pub busy_late: u64,
    /// So many of them there may be at a time while small fresh mail waits.
    pub late_room: u64,
    /// Why it is unavailable, if it is, and until when (monotonic).
    pub dead: Option<(Arc<Status>, u64)>,
    /// Mail has been waiting for a first agent since (monotonic).
    pub wanting_since_us: Option<u64>,
    /// When an agent was asked for last (monotonic).
    pub asked_us: Option<u64>,
    /// It takes no job before this moment (rate delay, monotonic).
    pub pause_until_us: u64,
    /// Its destinations by the hash of their key, which strangers choose.
    pub destinations: HashTable<u32>,
    /// What makes that hash.
    pub hasher: DefaultHashBuilder,
    /// Fresh mail, and retries.
    pub lanes: [Lane; 2],
    /// Deliveries of fresh mail since the last of a retry.
    pub fresh_turns: u32,
    /// Recipients in memory that go by it.
    pub in_core: usize,
    /// Recipients of the extra pool that are given to messages which overtake.
    pub granted: u32,
    /// When the log was last told that mail for it fills the active queue (monotonic).
    pub clogged_us: Option<u64>,
}

impl Transport {
    /// A transport that nothing is known of.
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
            fresh_turns: 0,
            in_core: 0,
            granted: 0,
            clogged_us: None,
        }
    }

    /// Count the room again, after agents came, went or changed their minds.
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

    /// An agent has answered a job: as `count_room`, for this one alone.
    pub fn free_agents_place(&mut self, peer: u32) {
        let Some(agent) = self.agents.iter_mut().find(|agent| agent.peer == peer) else { return };
        // One that was told to take fewer has no room by that.
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

    /// The agent for the next job: `preferred` if it has room, or the one with the most; `None` if none has.
    pub fn free_agent(&mut self, preferred: Option<u32>) -> Option<&mut Agent> {
        let has_room = |agent: &&mut Agent| agent.busy < agent.capacity;
        if let Some(at) =
            self.agents.iter().position(|agent| Some(agent.peer) == preferred && agent.busy < agent.capacity)
        {
            return Some(&mut self.agents[at]);
        }
        self.agents.iter_mut().filter(has_room).max_by_key(|agent| agent.capacity - agent.busy)
    }

    /// Does nothing wait that may be sent?
    pub fn is_quiet(&self) -> bool {
        self.lanes.iter().all(|lane| lane.line.is_empty())
    }

    /// The lane whose turn it is, of those that have something to send; `None` if neither has.
    pub fn next_lane(&self) -> Option<usize> {
        let fresh = !self.lanes[0].line.is_empty();
        let retries = !self.lanes[1].line.is_empty() && self.busy_retries < self.retry_room;
        match (fresh, retries) {
            (true, true) if self.is_filled() && !self.lanes[0].by_draw[0].is_empty() => Some(0),
            (true, true) => Some(usize::from(self.fresh_turns >= FRESH_TURNS)),
            (true, false) => Some(0),
            (false, true) => Some(1),
            (false, false) => None,
        }
    }

    /// Have large messages and retries the places that they may have while small fresh mail waits?
    pub fn is_filled(&self) -> bool {
        self.busy_late >= self.late_room
    }

    /// A job of that lane goes to an agent; of a large message, or not.
    pub fn count_job(&mut self, lane: usize, large: bool) {
        self.room -= 1;
        self.free -= 1;
        self.busy += 1;
        self.busy_retries += lane as u64;
        self.busy_late += u64::from(large || lane == 1);
        self.fresh_turns = if lane == 0 { (self.fresh_turns + 1).min(FRESH_TURNS) } else { 0 };
    }

    /// A job that was counted so has ended, or its agent has.
    pub fn uncount_job(&mut self, lane: usize, large: bool) {
        self.busy_retries -= lane as u64;
        self.busy_late -= u64::from(large || lane == 1);
    }
}
