//! Ranges of addresses, each with the result of its first line, in one sorted array: a lookup is a binary search.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Debug;

/// The result of a range without one.
pub const NONE: u32 = u32::MAX;
/// Bits of a digit of the radix sort: its places stay in the processor's caches, those of page addresses too.
const DIGIT_BITS: usize = 8;
/// Minimum number of ranges for the radix sort.
pub const RADIX_SORT_MIN: usize = 4096;

/// An address as a number.
pub trait Bits: Copy + Ord + Debug + Default {
    /// The greatest address.
    const MAX: Self;
    /// The number of bits.
    const LENGTH: u32;
    /// Return the address behind this one.
    fn next(self) -> Option<Self>;
    /// Return the address before this one.
    fn previous(self) -> Option<Self>;
    /// Return the bits that a prefix of this length leaves free.
    fn free(length: u32) -> Self;
    /// Return the bits that both have.
    fn and(self, other: Self) -> Self;
    /// Return the digit that begins at bit `shift`.
    fn digit(self, shift: u32) -> usize;
    /// Return the bits that one of them has.
    fn or(self, other: Self) -> Self;
}

macro_rules! bits {
    ($type:ty, $length:literal) => {
        impl Bits for $type {
            const MAX: Self = <$type>::MAX;
            const LENGTH: u32 = $length;
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
            fn digit(self, shift: u32) -> usize {
                (self >> shift) as usize & ((1 << DIGIT_BITS) - 1)
            }
            fn or(self, other: Self) -> Self {
                self | other
            }
        }
    };
}
bits!(u32, 32);
bits!(u128, 128);

/// A range of addresses, both ends included.
pub type Range<A> = (A, A);

/// Disjoint ranges: each begins at its start, and ends before the next one.
#[derive(Debug, Default)]
pub struct Ranges<A> {
    starts: Box<[A]>,
    /// The result of each range: the number of a value, or `NONE`.
    results: Box<[u32]>,
}

impl<A: Bits> Ranges<A> {
    /// Return the number of ranges.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no range.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Return the octets of the arrays.
    pub fn octets(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.results)
    }

    /// Return the result of an address.
    pub fn find(&self, address: A) -> Option<u32> {
        let at = self.starts.partition_point(|&start| start <= address).checked_sub(1)?;
        Some(self.results[at]).filter(|&result| result != NONE)
    }

    /// Flatten ranges in the order of their lines; `.1` is the result.
    pub fn flatten(lines: &[(Range<A>, u32)]) -> Self {
        Self::disjoint(&sorted(lines)).unwrap_or_else(|| Self::overlapping(lines))
    }

    /// Return sorted ranges, and those between them. `None`: two of them overlap.
    fn disjoint(lines: &[(Range<A>, u32)]) -> Option<Self> {
        if lines.windows(2).any(|pair| pair[0].0.1 >= pair[1].0.0) {
            return None;
        }
        let mut ranges = Draft::with_capacity(lines.len() * 2 + 1);
        let mut at = Some(A::default());
        for &((first, last), result) in lines {
            if let Some(gap) = at.filter(|&at| at < first) {
                ranges.emit(gap, NONE);
            }
            ranges.emit(first, result);
            at = last.next();
        }
        if let Some(rest) = at {
            ranges.emit(rest, NONE);
        }
        Some(ranges.finish())
    }

    /// Flatten ranges of which some overlap: the first line counts.
    fn overlapping(lines: &[(Range<A>, u32)]) -> Self {
        let mut order: Vec<(A, A, u32)> =
            lines.iter().enumerate().map(|(line, &((first, last), _))| (first, last, line as u32)).collect();
        order.sort_unstable_by_key(|&(first, _, line)| (first, line));
        let mut ranges = Draft::with_capacity(lines.len());
        // The lines that hold the current address, the first one on top.
        let mut active: BinaryHeap<Reverse<(u32, A)>> = BinaryHeap::new();
        let mut next = 0;
        let mut at = A::default();
        loop {
            while active.peek().is_some_and(|&Reverse((_, last))| last < at) {
                active.pop();
            }
            while let Some(&(_, last, line)) = order.get(next).filter(|range| range.0 == at) {
                active.push(Reverse((line, last)));
                next += 1;
            }
            let top = active.peek().map(|&Reverse(top)| top);
            ranges.emit(at, top.map_or(NONE, |(line, _)| lines[line as usize].1));
            let end = top.and_then(|(_, last)| last.next());
            let start = order.get(next).map(|range| range.0);
            at = match (end, start) {
                (Some(end), Some(start)) => end.min(start),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => break,
            };
        }
        ranges.finish()
    }
}

/// Ranges while they are written, from the lowest up.
struct Draft<A> {
    starts: Vec<A>,
    results: Vec<u32>,
}

impl<A: Bits> Draft<A> {
    fn with_capacity(ranges: usize) -> Self {
        Self { starts: Vec::with_capacity(ranges), results: Vec::with_capacity(ranges) }
    }

    /// Add a range, which may have the result of the one before.
    fn emit(&mut self, start: A, result: u32) {
        if self.results.last().copied().unwrap_or(NONE) != result {
            self.starts.push(start);
            self.results.push(result);
        }
    }

    fn finish(self) -> Ranges<A> {
        Ranges { starts: self.starts.into(), results: self.results.into() }
    }
}

/// Return ranges by their first addresses; those with the same one keep their order.
fn sorted<A: Bits>(lines: &[(Range<A>, u32)]) -> Vec<(Range<A>, u32)> {
    let first = |line: &(Range<A>, u32)| line.0.0;
    let is_sorted = lines.is_sorted_by_key(first);
    if lines.len() >= RADIX_SORT_MIN && !is_sorted {
        return radix_sorted(lines);
    }
    let mut sorted = lines.to_vec();
    sorted.sort_by_key(first);
    sorted
}

/// The same for lines that are not sorted, digit by digit, from the lowest up.
fn radix_sorted<A: Bits>(lines: &[(Range<A>, u32)]) -> Vec<(Range<A>, u32)> {
    let shifts = (0..A::LENGTH).step_by(DIGIT_BITS);
    let mut counts = vec![[0_usize; 1 << DIGIT_BITS]; shifts.len()];
    for ((first, _), _) in lines {
        for (counts, shift) in counts.iter_mut().zip(shifts.clone()) {
            counts[first.digit(shift)] += 1;
        }
    }
    let (mut sorted, mut other) = (Vec::new(), Vec::new());
    for (mut places, shift) in counts.into_iter().zip(shifts) {
        // All lines have the same digit here, as in half of the digits of most IPv6 networks: the order stays.
        if places.contains(&lines.len()) {
            continue;
        }
        let mut start = 0;
        for place in &mut places {
            start += std::mem::replace(place, start);
        }
        other.resize(lines.len(), ((A::default(), A::default()), NONE));
        for line in if sorted.is_empty() { lines } else { &sorted } {
            let place = &mut places[line.0.0.digit(shift)];
            other[*place] = *line;
            *place += 1;
        }
        std::mem::swap(&mut sorted, &mut other);
    }
    sorted
}
