//! The different results of a table, each once.

use crate::table::ranges::NONE;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// Number of results that are compared before the hash table is asked.
const RECENT: usize = 16;

/// The different results, in one allocation.
#[derive(Debug, Default)]
pub struct Values {
    octets: Vec<u8>,
    ends: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The numbers of the values that were added last, by their lengths: most tables have few values.
    recent: [u32; RECENT],
}

impl Values {
    /// Return the value of a number.
    pub fn get(&self, number: u32) -> &[u8] {
        value(&self.octets, &self.ends, number)
    }

    /// Return the number of values.
    pub fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Return the octets of the allocations.
    pub fn allocated_octets(&self) -> usize {
        self.octets.capacity() + self.ends.capacity() * size_of::<u32>() + self.index.allocation_size()
    }

    /// Add the values of another list; return their numbers here. Errors: there are too many.
    pub fn join(&mut self, others: &Self) -> Result<Vec<u32>, String> {
        (0..others.len()).map(|number| self.number(others.get(number))).collect()
    }

    /// Drop what only `number` needs.
    pub fn finish(&mut self) {
        self.index = HashTable::new();
        self.octets.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// Return the number of a value. Errors: there are too many.
    pub fn number(&mut self, wanted: &[u8]) -> Result<u32, String> {
        let number = self.len();
        let recent = wanted.len() % RECENT;
        if self.recent[recent] < number && self.get(self.recent[recent]) == wanted {
            return Ok(self.recent[recent]);
        }
        let hash = self.hasher.hash_one(wanted);
        let (octets, ends, hasher) = (&self.octets, &self.ends, &self.hasher);
        if let Some(&found) = self.index.find(hash, |&number| value(octets, ends, number) == wanted) {
            self.recent[recent] = found;
            return Ok(found);
        }
        let end = u32::try_from(octets.len() + wanted.len()).ok().filter(|_| number < NONE);
        let end = end.ok_or_else(|| "too many results".to_owned())?;
        self.index.insert_unique(hash, number, |&number| hasher.hash_one(value(octets, ends, number)));
        self.octets.extend_from_slice(wanted);
        self.ends.push(end);
        self.recent[recent] = number;
        Ok(number)
    }
}

fn value<'a>(octets: &'a [u8], ends: &[u32], number: u32) -> &'a [u8] {
    let start = number.checked_sub(1).map_or(0, |before| ends[before as usize]);
    &octets[start as usize..ends[number as usize] as usize]
}
