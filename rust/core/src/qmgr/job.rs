//! Jobs under way: what agents were asked, by the number they answer with.

use crate::few::Few;
use crate::ipc::frame::JobKind;
use crate::spread::NumberMap;
use hashbrown::hash_map::Entry;

/// What an agent was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// The message's key among the active ones; it stays active while a job is under way.
    pub message: u32,
    /// The destination's key.
    pub destination: u32,
    /// The agent.
    pub peer: u32,
    /// What was asked.
    pub kind: JobKind,
    /// Positions in the message's memory.
    pub positions: Few,
    /// 0 of fresh mail, 1 of retries.
    pub lane: usize,
    /// Its message was a large one for its transport.
    pub large: bool,
    /// When it began (monotonic).
    pub sent_us: u64,
}

/// All jobs under way.
///
/// Numbers begin at the wall clock's microsecond, so that those of a queue manager before this one do not come again.
#[derive(Debug)]
pub struct Jobs {
    next: u64,
    in_flight: NumberMap<u64, InFlight>,
}

impl Jobs {
    /// No job, as of `wall_us`.
    pub fn new(wall_us: u64) -> Self {
        Self { next: wall_us.max(1), in_flight: NumberMap::default() }
    }

    /// A job begins; its number.
    pub fn begin(&mut self, job: InFlight) -> u64 {
        let number = self.next;
        self.next += 1;
        self.in_flight.insert(number, job);
        number
    }

    /// A job, if the number is known.
    pub fn get(&self, number: u64) -> Option<&InFlight> {
        self.in_flight.get(&number)
    }

    /// A job ends if its number is known and it is the one that is meant.
    pub fn end_if(&mut self, number: u64, is_meant: impl FnOnce(&InFlight) -> bool) -> Option<InFlight> {
        match self.in_flight.entry(number) {
            Entry::Occupied(known) if is_meant(known.get()) => Some(known.remove()),
            _ => None,
        }
    }

    /// A job ends.
    pub fn end(&mut self, number: u64) -> Option<InFlight> {
        self.in_flight.remove(&number)
    }

    /// The jobs of a peer, in the order in which they began.
    pub fn of_peer(&self, peer: u32) -> Vec<u64> {
        let mut numbers: Vec<u64> =
            self.in_flight.iter().filter(|(_, job)| job.peer == peer).map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Jobs under way.
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Is none under way?
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }
}
