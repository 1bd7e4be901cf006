//! A hash for numbers that we gave ourselves: queue IDs, segments, jobs, peers.
//!
//! No stranger chooses them, so no seed is needed, and one multiplication spreads them. What strangers choose (domains,
//! addresses) is hashed with a seed: `hashbrown`'s own hasher.

use std::hash::{BuildHasherDefault, Hasher};

/// Maps by such a number.
pub type NumberMap<K, V> = hashbrown::HashMap<K, V, BuildHasherDefault<Spread>>;

/// The hash of a number.
pub fn spread(number: u64) -> u64 {
    let wide = u128::from(number) * 0x9e37_79b9_7f4a_7c15;
    ((wide >> 64) as u64 ^ wide as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Hashes one number, or a few one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = spread(self.0 ^ number);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn neighbours_and_multiples_fall_into_different_places() {
        for step in [1, 2, 64, 1000, 1 << 20, 1 << 40] {
            let hashes = (0..4096u64).map(|n| spread(n * step));
            // The table goes by the low bits for the place, and by the top seven beside it.
            let places: HashSet<u64> = hashes.clone().map(|hash| hash % 4096).collect();
            let tags: HashSet<u64> = hashes.map(|hash| hash >> 57).collect();
            assert!(places.len() > 1500 && tags.len() > 100, "step {step}: {} {}", places.len(), tags.len());
        }
    }
}
