//! A destination: one next hop of one transport, and what waits for it.

use super::feedback::{Window, WindowRules};
use crate::ipc::frame::{JobKind, Status};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A place in the line: tickets first, then the order in which they were drawn.
pub type Turn = (u64, u64);

/// Recipients of one message for one destination, waiting to be made into jobs.
#[derive(Debug)]
pub struct Bundle {
    /// The message's key among the active ones.
    pub message: u32,
    /// The serial of that key: a bundle may outlive its message.
    pub serial: u64,
    /// What the jobs will ask.
    pub kind: JobKind,
    /// Positions in the message's part, the next ones last. Empty for a report, which is about the whole message.
    pub positions: Vec<u32>,
    /// Of a message that was tried before.
    pub retry: bool,
}

/// One next hop of one transport.
#[derive(Debug)]
pub struct Destination {
    /// The transport's number.
    pub transport: u32,
    /// What makes it one: the next hop, or `recipient@nexthop` where concurrency goes by recipient.
    pub key: Arc<str>,
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
    /// What waits, by turn.
    pub queue: BTreeMap<Turn, Bundle>,
    /// The latest tickets of fresh mail and of retries.
    pub tickets: [u64; 2],
    /// The peer that had its last job: it may have a connection open.
    pub agent: Option<u32>,
    /// It stands among those of which nothing waits, to be forgotten some time.
    pub idle_listed: bool,
    /// Its turn in the transport's line, while it stands there.
    pub turn: Option<Turn>,
}

impl Destination {
    /// A destination that nothing is known of.
    pub fn new(transport: u32, key: Arc<str>, nexthop: Arc<str>, rules: &WindowRules) -> Self {
        Self {
            transport,
            key,
            nexthop,
            window: Window::new(rules),
            busy: 0,
            dead: None,
            pause_until_us: 0,
            queue: BTreeMap::new(),
            tickets: [0; 2],
            agent: None,
            idle_listed: false,
            turn: None,
        }
    }

    /// The turn of what it would send next; `None` while it may not send or has nothing.
    pub fn next_turn(&self, now_us: u64) -> Option<Turn> {
        if self.dead.is_some() || self.busy >= self.window.size() || self.pause_until_us > now_us {
            return None;
        }
        self.queue.first_key_value().map(|(turn, _)| *turn)
    }

    /// Nothing waits, nothing is under way, and nothing must be remembered.
    pub fn is_idle(&self, now_us: u64) -> bool {
        self.queue.is_empty() && self.busy == 0 && self.dead.is_none() && self.pause_until_us <= now_us
    }
}
