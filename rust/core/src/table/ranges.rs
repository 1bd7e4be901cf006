//! Networks and other ranges of addresses, each with the result of its first line, sorted: a lookup is a binary search.
//!
//! The addresses are cut into `SHARDS` equal parts by their first bits. Each part is sorted and searched by itself, so
//! several threads can prepare a large table. Networks that do not overlap, as in most large tables, stay one entry each.

mod radix;

use super::threads;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Debug;

pub use radix::RADIX_SORT_MIN;

/// Bits of an entry for its result.
const RESULT_BITS: u32 = 24;
/// The result of a range without one. The number of a result is less.
pub const NONE: u32 = (1 << RESULT_BITS) - 1;
/// The length of a range that ends before the next entry.
const UNTIL_NEXT: u32 = 255;
/// Bits of an address that choose its shard.
const SHARD_BITS: u32 = 4;
/// Number of parts of the addresses.
pub const SHARDS: usize = 1 << SHARD_BITS;

/// An address as a number.
pub trait Bits: Copy + Ord + Debug + Default + Send + Sync {
    /// An address as octets, which need no alignment.
    type Octets: Copy + Debug + Default + Send + Sync;
    /// The greatest address.
    const MAX: Self;
    /// The number of bits.
    const LENGTH: u32;
    /// Return the octets.
    fn octets(self) -> Self::Octets;
    /// Return the address of octets.
    fn of(octets: Self::Octets) -> Self;
    /// Return the address behind this one.
    fn next(self) -> Option<Self>;
    /// Return the address before this one.
    fn previous(self) -> Option<Self>;
    /// Return the bits that a prefix of this length leaves free.
    fn free(length: u32) -> Self;
    /// Return the bits that both have.
    fn and(self, other: Self) -> Self;
    /// Return the bits that one of them has.
    fn or(self, other: Self) -> Self;
    /// Return the lowest bits of the address without its `shift` lowest ones.
    fn low(self, shift: u32) -> usize;
    /// Return the length of the network that is this range.
    fn network_length(range: Range<Self>) -> Option<u32>;
}

macro_rules! bits {
    ($type:ty, $length:literal) => {
        impl Bits for $type {
            type Octets = [u8; $length / 8];
            const MAX: Self = <$type>::MAX;
            const LENGTH: u32 = $length;
            fn octets(self) -> Self::Octets {
                self.to_ne_bytes()
            }
            fn of(octets: Self::Octets) -> Self {
                Self::from_ne_bytes(octets)
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
            fn free(length: u32) -> Self {
                <$type>::MAX.checked_shr(length).unwrap_or(0)
            }
            fn and(self, other: Self) -> Self {
                self & other
            }
            fn or(self, other: Self) -> Self {
                self | other
            }
            fn low(self, shift: u32) -> usize {
                (self >> shift) as usize
            }
            fn network_length((first, last): Range<Self>) -> Option<u32> {
                let length = (first ^ last).leading_zeros();
                let free = Self::free(length);
                (first & free == 0 && last & free == free).then_some(length)
            }
        }
    };
}
bits!(u32, 32);
bits!(u128, 128);

/// A range of addresses, both ends included.
pub type Range<A> = (A, A);

/// The start of a range, with its length and its result.
#[derive(Debug, Clone, Copy, Default)]
struct Entry<A: Bits> {
    start: A::Octets,
    /// The length of the network, or `UNTIL_NEXT`, and the result.
    what: u32,
}

impl<A: Bits> Entry<A> {
    fn new(start: A, length: u32, result: u32) -> Self {
        Self { start: start.octets(), what: length << RESULT_BITS | result }
    }

    fn start(&self) -> A {
        A::of(self.start)
    }

    fn length(&self) -> u32 {
        self.what >> RESULT_BITS
    }

    fn result(&self) -> u32 {
        self.what & NONE
    }

    /// Return the last address of a network.
    fn last(&self) -> A {
        self.start().or(A::free(self.length()))
    }
}

fn shard<A: Bits>(address: A) -> usize {
    address.low(A::LENGTH - SHARD_BITS)
}

/// Ranges in the order of their lines.
#[derive(Debug, Default)]
pub struct Lines<A: Bits> {
    shards: [Shard<A>; SHARDS],
}

/// The ranges of one shard.
#[derive(Debug, Default)]
struct Shard<A: Bits> {
    /// A range that is no network has two entries; the second has its end.
    entries: Vec<Entry<A>>,
    /// Whether some ranges are no networks.
    has_others: bool,
    /// Whether a line holds the whole shard: no later line counts here, so wide ranges take little memory.
    is_full: bool,
}

impl<A: Bits> Lines<A> {
    /// Return an empty list with place for that many ranges. Place without ranges takes no memory, and a shard with more
    /// ranges grows as usual.
    pub fn with_capacity(ranges: usize) -> Self {
        let mut lines = Self::default();
        lines.shards.iter_mut().for_each(|shard| drop(shard.entries.try_reserve(ranges / SHARDS)));
        lines
    }

    /// Add a network.
    pub fn push_network(&mut self, start: A, length: u32, result: u32) {
        if length <= SHARD_BITS {
            return self.push((start, start.or(A::free(length))), result);
        }
        self.shards[shard(start)].entries.push(Entry::new(start, length, result));
    }

    /// Add a range.
    pub fn push(&mut self, (first, last): Range<A>, result: u32) {
        let mut start = first;
        for shard in &mut self.shards[shard(first)..=shard(last)] {
            let end = last.min(start.or(A::free(SHARD_BITS)));
            match A::network_length((start, end)) {
                _ if shard.is_full => {}
                Some(length) => {
                    shard.entries.push(Entry::new(start, length, result));
                    shard.is_full = length == SHARD_BITS;
                }
                None => {
                    shard.entries.extend([start, end].map(|address| Entry::new(address, UNTIL_NEXT, result)));
                    shard.has_others = true;
                }
            }
            start = end.next().unwrap_or_default();
        }
    }

    /// Replace each result by the one that `results` has in its place.
    pub fn renumber(&mut self, results: &[u32]) {
        for line in self.shards.iter_mut().flat_map(|shard| &mut shard.entries) {
            *line = Entry::new(line.start(), line.length(), results[line.result() as usize]);
        }
    }
}

/// Disjoint ranges.
#[derive(Debug)]
pub struct Ranges<A: Bits> {
    shards: [Box<[Entry<A>]>; SHARDS],
}

impl<A: Bits> Ranges<A> {
    /// Return the octets of the arrays.
    pub fn octets(&self) -> usize {
        self.shards.iter().map(|shard| size_of_val(&**shard)).sum()
    }

    /// Return the result of an address.
    pub fn find(&self, address: A) -> Option<u32> {
        let ranges = &self.shards[shard(address)];
        let range = &ranges[ranges.partition_point(|range| range.start() <= address).checked_sub(1)?];
        let holds = range.length() == UNTIL_NEXT || address <= range.last();
        Some(range.result()).filter(|&result| holds && result != NONE)
    }

    /// Flatten ranges in the order of their lines: the first line of an address counts. `threads`: maximum number of them.
    pub fn flatten(lines: &[Lines<A>], threads: usize) -> Self {
        let shards: [Vec<&Shard<A>>; SHARDS] =
            std::array::from_fn(|at| lines.iter().map(|lines| &lines.shards[at]).collect());
        let mut flat = threads::each(&shards, threads, |shards| {
            let lines: Vec<&[Entry<A>]> = shards.iter().map(|shard| &*shard.entries).collect();
            let disjoint = if shards.iter().any(|shard| shard.has_others) { None } else { disjoint(&lines) };
            disjoint.unwrap_or_else(|| overlapping(&lines)).into_boxed_slice()
        })
        .into_iter();
        Self { shards: std::array::from_fn(|_| flat.next().unwrap_or_default()) }
    }
}

/// Return sorted networks. `None`: two of them overlap.
fn disjoint<A: Bits>(lines: &[&[Entry<A>]]) -> Option<Vec<Entry<A>>> {
    let overlap = |pair: &[Entry<A>]| pair[0].last() >= pair[1].start();
    let mut networks = radix::sorted(lines);
    if networks.windows(2).any(overlap) {
        networks.dedup_by_key(|line| (line.start(), line.length()));
        networks.shrink_to_fit();
    }
    (!networks.windows(2).any(overlap)).then_some(networks)
}

/// Flatten ranges of which some overlap.
fn overlapping<A: Bits>(lines: &[&[Entry<A>]]) -> Vec<Entry<A>> {
    let mut entries = lines.iter().copied().flatten();
    let mut order: Vec<(A, u32, A, u32)> = Vec::new();
    while let Some(line) = entries.next() {
        let end = match line.length() {
            UNTIL_NEXT => entries.next().map_or(A::MAX, Entry::start),
            _ => line.last(),
        };
        order.push((line.start(), order.len() as u32, end, line.result()));
    }
    order.sort_unstable_by_key(|&(first, line, ..)| (first, line));
    let mut ranges = Vec::new();
    let mut emit = |start, result| {
        if ranges.last().map_or(NONE, Entry::result) != result {
            ranges.push(Entry::new(start, UNTIL_NEXT, result));
        }
    };
    // The lines that hold the current address, the first one on top.
    let mut active: BinaryHeap<Reverse<(u32, A, u32)>> = BinaryHeap::new();
    let mut next = 0;
    let mut at = A::default();
    loop {
        while active.peek().is_some_and(|&Reverse((_, last, _))| last < at) {
            active.pop();
        }
        while let Some(&(_, line, last, result)) = order.get(next).filter(|range| range.0 == at) {
            active.push(Reverse((line, last, result)));
            next += 1;
        }
        let top = active.peek().map(|&Reverse(top)| top);
        emit(at, top.map_or(NONE, |(.., result)| result));
        let end = top.and_then(|(_, last, _)| last.next());
        let start = order.get(next).map(|range| range.0);
        at = match (end, start) {
            (Some(end), Some(start)) => end.min(start),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => break,
        };
    }
    ranges.shrink_to_fit();
    ranges
}
