//! Keys and values in memory: one allocation for all octets, and a hash table of offsets.

use super::Each;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// Maximum octets of a dictionary, lengths included.
pub const DICTIONARY_MAX_OCTETS: usize = u32::MAX as usize;
/// Octets of the two lengths before each entry.
const HEAD_OCTETS: usize = 8;

/// Entries by key, in the order in which they were added.
#[derive(Debug, Clone, Default)]
pub struct Dictionary {
    octets: Vec<u8>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Whether any key has an `@`.
    has_addresses: bool,
    /// Whether `octets` has entries that were replaced or removed.
    has_holes: bool,
}

impl Dictionary {
    /// Return the number of entries.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether any key has an `@`.
    pub fn has_addresses(&self) -> bool {
        self.has_addresses
    }

    /// Return the value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.index.find(self.hasher.hash_one(key), |&at| key_at(&self.octets, at) == key).map(|&at| self.value_at(at))
    }

    /// Add an entry unless its key is there; return whether it was added. Errors: the dictionary is full.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<bool, Full> {
        let hash = self.hasher.hash_one(key);
        if self.index.find(hash, |&at| key_at(&self.octets, at) == key).is_some() {
            return Ok(false);
        }
        let at = self.octets.len();
        if at + HEAD_OCTETS + key.len() + value.len() > DICTIONARY_MAX_OCTETS {
            return Err(Full);
        }
        self.octets.extend_from_slice(&(key.len() as u32).to_ne_bytes());
        self.octets.extend_from_slice(&(value.len() as u32).to_ne_bytes());
        self.octets.extend_from_slice(key);
        self.octets.extend_from_slice(value);
        self.has_addresses |= key.contains(&b'@');
        let (octets, hasher) = (&self.octets, &self.hasher);
        self.index.insert_unique(hash, at as u32, |&at| hasher.hash_one(key_at(octets, at)));
        Ok(true)
    }

    /// Add an entry, in place of the one of its key. Errors: the dictionary is full.
    pub fn replace(&mut self, key: &[u8], value: &[u8]) -> Result<(), Full> {
        self.remove(key);
        self.insert(key, value).map(|_| ())
    }

    /// Remove the entry of a key; return whether there was one.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key);
        let found = self.index.find_entry(hash, |&at| key_at(&self.octets, at) == key);
        let removed = found.map(|entry| entry.remove()).is_ok();
        self.has_holes |= removed;
        removed
    }

    /// Call `each` with every entry in order, until it returns false.
    pub fn each(&self, each: Each) {
        let mut at = 0;
        while at < self.octets.len() {
            let (key, value) = (key_at(&self.octets, at as u32), self.value_at(at as u32));
            let counts = !self.has_holes || self.get(key).is_some_and(|found| std::ptr::eq(found, value));
            if counts && !each(key, value) {
                return;
            }
            at += HEAD_OCTETS + key.len() + value.len();
        }
    }

    fn value_at(&self, at: u32) -> &[u8] {
        let start = at as usize + HEAD_OCTETS + length(&self.octets, at as usize);
        &self.octets[start..start + length(&self.octets, at as usize + 4)]
    }
}

/// A dictionary has no room for the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

fn length(octets: &[u8], at: usize) -> usize {
    u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]) as usize
}

fn key_at(octets: &[u8], at: u32) -> &[u8] {
    let start = at as usize + HEAD_OCTETS;
    &octets[start..start + length(octets, at as usize)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_key_counts() {
        let mut dictionary = Dictionary::default();
        assert_eq!(dictionary.insert(b"a", b"1"), Ok(true));
        assert_eq!(dictionary.insert(b"a", b"2"), Ok(false));
        assert_eq!(dictionary.insert(b"", b""), Ok(true));
        assert!(!dictionary.has_addresses());
        assert_eq!(dictionary.insert(b"x@y", b"3"), Ok(true));
        assert!(dictionary.has_addresses());
        assert_eq!(
            (dictionary.get(b"a"), dictionary.get(b""), dictionary.get(b"b")),
            (Some(&b"1"[..]), Some(&b""[..]), None)
        );
        let mut keys = Vec::new();
        dictionary.each(&mut |key, _| {
            keys.push(key.to_vec());
            keys.len() < 2
        });
        assert_eq!(keys, [b"a".to_vec(), b"".to_vec()]);
        assert_eq!(dictionary.len(), 3);
    }

    #[test]
    fn entries_are_replaced_and_removed() {
        let mut dictionary = Dictionary::default();
        for key in ["a", "b", "c"] {
            dictionary.insert(key.as_bytes(), b"1").unwrap();
        }
        dictionary.replace(b"a", b"2").unwrap();
        assert!(dictionary.remove(b"b") && !dictionary.remove(b"b"));
        let mut entries = Vec::new();
        dictionary.each(&mut |key, value| {
            entries.push([key, value].concat());
            true
        });
        assert_eq!(entries, [b"c1".to_vec(), b"a2".to_vec()]);
        assert_eq!(dictionary.len(), 2);
    }

    #[test]
    fn many_keys_are_found() {
        let mut dictionary = Dictionary::default();
        for number in 0..10_000u32 {
            dictionary.insert(number.to_string().as_bytes(), &number.to_le_bytes()).unwrap();
        }
        for number in 0..10_000u32 {
            assert_eq!(dictionary.get(number.to_string().as_bytes()), Some(&number.to_le_bytes()[..]));
        }
    }
}
