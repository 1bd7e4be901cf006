//! From a queue ID to its slot: four octets and one for each message.
//!
//! The table holds slots alone; the IDs stand in the entries. It is in parts, for a part that grows looks at all of its
//! entries again: no arrival waits for a million others.

use super::chunks::Chunks;
use super::entry::Row;
use crate::queue::id::QueueId;
use crate::spread::spread;
use hashbrown::HashTable;

/// Parts of the table: a power of two.
const PARTS: usize = 64;

/// Slots by queue ID.
#[derive(Debug)]
pub(crate) struct Ids {
    parts: Vec<HashTable<u32>>,
    len: usize,
}

impl Default for Ids {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| HashTable::new()).collect(), len: 0 }
    }
}

fn hash(id: QueueId) -> u64 {
    spread(id.0)
}

fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

impl Ids {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, id: QueueId, rows: &Chunks<Row>) -> Option<u32> {
        let hash = hash(id);
        self.parts[part(hash)].find(hash, |slot| rows.get(*slot).id == id).copied()
    }

    /// `id`, which is not in it, has this slot; its row is filled.
    pub(crate) fn insert(&mut self, id: QueueId, slot: u32, rows: &Chunks<Row>) {
        let hashed = hash(id);
        self.parts[part(hashed)].insert_unique(hashed, slot, |slot| hash(rows.get(*slot).id));
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, id: QueueId, slot: u32) {
        let hash = hash(id);
        if let Ok(found) = self.parts[part(hash)].find_entry(hash, |other| *other == slot) {
            found.remove();
            self.len -= 1;
        }
    }
}
