//! A transport: a delivery service of master.cf, its agents and its destinations.
//!
//! Destinations that may send stand in one line by the turn of what they would send next; a turn is a ticket, drawn
//! when a bundle begins to wait. The ticket is one above the latest of the transport's clock (the ticket served last),
//! of the message and of the destination. So messages take turns, whatever their number of recipients, and
//! destinations take turns, whatever their number of messages: a list of 100,000 recipients or a destination with
//! 100,000 messages has drawn tickets far ahead, and a single mail comes next. (Start-time fair queueing; Postfix
//! reaches for the same with delivery slots.) A retry's ticket is `RETRY_STRIDE` ahead of the latest retry, not one:
//! while both wait, fresh mail gets that many turns to one.

use super::destination::Turn;
use super::settings::TransportSettings;
use crate::ipc::frame::Status;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Turns that fresh mail gets for one of a retry while both wait.
pub const RETRY_STRIDE: u64 = 4;

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

/// A delivery service of master.cf.
#[derive(Debug)]
pub struct Transport {
    /// The service's name.
    pub name: Arc<str>,
    /// Its parameters.
    pub settings: TransportSettings,
    /// Its agents.
    pub agents: Vec<Agent>,
    /// Jobs that its agents would take now.
    pub room: u64,
    /// Why it is unavailable, if it is, and until when (monotonic).
    pub dead: Option<(Arc<Status>, u64)>,
    /// Mail has been waiting for a first agent since (monotonic).
    pub wanting_since_us: Option<u64>,
    /// When an agent was asked for last (monotonic).
    pub asked_us: Option<u64>,
    /// It takes no job before this moment (rate delay, monotonic).
    pub pause_until_us: u64,
    /// Its destinations by their key.
    pub destinations: HashMap<Arc<str>, u32>,
    /// Those that may send, by turn.
    pub line: BTreeSet<(Turn, u32)>,
    /// The ticket served last.
    pub clock: u64,
}

impl Transport {
    /// A transport that nothing is known of.
    pub fn new(name: Arc<str>, settings: TransportSettings) -> Self {
        Self {
            name,
            settings,
            agents: Vec::new(),
            room: 0,
            dead: None,
            wanting_since_us: None,
            asked_us: None,
            pause_until_us: 0,
            destinations: HashMap::new(),
            line: BTreeSet::new(),
            clock: 0,
        }
    }

    /// Count the room again, after agents came, went or changed their minds.
    pub fn count_room(&mut self) {
        self.room = self.agents.iter().map(|agent| u64::from(agent.capacity.saturating_sub(agent.busy))).sum();
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
}
