//! Deliveries under way, by the number in their result.

use crate::few::Few;
use crate::ipc::frame::JobKind;
use crate::spread::NumberMap;
use hashbrown::hash_map::Entry;

/// A delivery request that an agent has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message's key in `Scheduler::active`. It stays active while a delivery is under way.
    pub message: u32,
    /// The destination's key.
    pub destination: u32,
    /// The agent.
    pub agent: u32,
    /// The kind of request.
    pub kind: JobKind,
    /// Positions in the message's memory.
    pub positions: Few,
    /// 0 for fresh mail, 1 for retries.
    pub lane: usize,
    /// The job was a large one.
    pub large: bool,
    /// Start of the delivery (monotonic).
    pub sent_us: u64,
}

/// All deliveries under way.
///
/// The first number is the wall clock's microsecond, so that the numbers of an earlier queue manager do not come
/// again.
#[derive(Debug)]
pub struct Deliveries {
    next: u64,
    under_way: NumberMap<u64, Delivery>,
}

impl Deliveries {
    /// Return no deliveries, as of `wall_us`.
    pub fn new(wall_us: u64) -> Self {
        Self { next: wall_us.max(1), under_way: NumberMap::default() }
    }

    /// Add a delivery and return its number.
    pub fn begin(&mut self, delivery: Delivery) -> u64 {
        let number = self.next;
        self.next += 1;
        self.under_way.insert(number, delivery);
        number
    }

    /// Return a delivery.
    pub fn get(&self, number: u64) -> Option<&Delivery> {
        self.under_way.get(&number)
    }

    /// Remove and return a delivery if `is_meant` accepts it.
    pub fn end_if(&mut self, number: u64, is_meant: impl FnOnce(&Delivery) -> bool) -> Option<Delivery> {
        match self.under_way.entry(number) {
            Entry::Occupied(known) if is_meant(known.get()) => Some(known.remove()),
            _ => None,
        }
    }

    /// Remove and return a delivery.
    pub fn end(&mut self, number: u64) -> Option<Delivery> {
        self.under_way.remove(&number)
    }

    /// Return the numbers of an agent's deliveries in ascending order.
    pub fn of_agent(&self, agent: u32) -> Vec<u64> {
        let mut numbers: Vec<u64> =
            self.under_way.iter().filter(|(_, delivery)| delivery.agent == agent).map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Return the number of deliveries under way.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Return whether no delivery is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}
