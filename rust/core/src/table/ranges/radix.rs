//! The order of ranges by their starts; those with the same start keep their order.

use super::{Bits, Entry};

/// Bits of a digit: three digits are an IPv4 address, and the places of one stay in the processor's cache.
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;
/// Minimum number of ranges for the radix sort.
pub const RADIX_SORT_MIN: usize = 4096;

fn digit<A: Bits>(entry: &Entry<A>, shift: u32) -> usize {
    entry.start().low(shift) % DIGITS
}

/// Return the ranges of some lists, sorted.
pub fn sorted<A: Bits>(lists: &[&[Entry<A>]]) -> Vec<Entry<A>> {
    let count: usize = lists.iter().map(|list| list.len()).sum();
    if count >= RADIX_SORT_MIN && !lists.iter().copied().flatten().is_sorted_by_key(Entry::start) {
        return radix_sorted(lists, count);
    }
    let mut sorted = lists.concat();
    sorted.sort_by_key(Entry::start);
    sorted
}

/// The same for ranges that are not sorted, digit by digit, from the lowest up.
fn radix_sorted<A: Bits>(lists: &[&[Entry<A>]], count: usize) -> Vec<Entry<A>> {
    let shifts = (0..A::LENGTH).step_by(DIGIT_BITS as usize);
    let mut counts = vec![[0_u32; DIGITS]; shifts.len()];
    for list in lists {
        for entry in *list {
            for (counts, shift) in counts.iter_mut().zip(shifts.clone()) {
                counts[digit(entry, shift)] += 1;
            }
        }
    }
    let (mut sorted, mut other) = (Vec::new(), Vec::new());
    for (mut places, shift) in counts.into_iter().zip(shifts) {
        // All ranges have the same digit here, as in half of the digits of most IPv6 networks: the order stays.
        if places.contains(&(count as u32)) {
            continue;
        }
        let mut start = 0;
        for place in &mut places {
            start += std::mem::replace(place, start);
        }
        other.resize(count, Entry::default());
        if sorted.is_empty() {
            scatter(lists, &mut places, shift, &mut other);
        } else {
            scatter(&[&sorted], &mut places, shift, &mut other);
        }
        std::mem::swap(&mut sorted, &mut other);
    }
    sorted
}

/// Put the ranges of some lists in the places of their digits.
fn scatter<A: Bits>(lists: &[&[Entry<A>]], places: &mut [u32; DIGITS], shift: u32, into: &mut [Entry<A>]) {
    for list in lists {
        for entry in *list {
            let place = &mut places[digit(entry, shift)];
            into[*place as usize] = *entry;
            *place += 1;
        }
    }
}
