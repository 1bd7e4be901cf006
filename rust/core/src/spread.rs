//! A hash for numbers that we assign: queue IDs, segments, jobs, peers.
//!
//! Outsiders do not choose them, so they need no seed, and one multiplication spreads them. Keys that outsiders choose
//! (domains, addresses) are hashed with a seed: `hashbrown`'s own hasher.

use std::hash::{BuildHasherDefault, Hasher};

/// A map with such a number as its key.
pub type NumberMap<K, V> = hashbrown::HashMap<K, V, BuildHasherDefault<Spread>>;

/// Return the hash of a number.
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
    fn neighbours_and_multiples_fall_into_different_buckets() {
        for step in [1, 2, 64, 1000, 1 << 20, 1 << 40] {
            let hashes = (0..4096u64).map(|n| spread(n * step));
            // The table uses the low bits for the bucket, and the top seven bits as a tag.
            let places: HashSet<u64> = hashes.clone().map(|hash| hash % 4096).collect();
            let tags: HashSet<u64> = hashes.map(|hash| hash >> 57).collect();
            assert!(places.len() > 1500 && tags.len() > 100, "step {step}: {} {}", places.len(), tags.len());
        }
    }
}
