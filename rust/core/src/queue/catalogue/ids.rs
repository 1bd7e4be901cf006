//! The map from queue ID to slot: five octets for each message.
//!
//! The table holds only slots; the IDs are in the entries. It has parts, because a growing part rehashes all of its
//! entries: no arrival waits for a million others. Removals happen in batches: each reads two places in a large memory,
//! and independent reads overlap.

use super::chunks::Chunks;
use super::entry::{Flags, Row};
use crate::mail::id::QueueId;
use crate::spread::spread;
use hashbrown::HashTable;

/// Parts of the table: a power of two.
const PARTS: usize = 64;
/// Number of removed slots in a batch.
const REMOVED_MAX: usize = 32;

/// Slots by queue ID.
#[derive(Debug)]
pub(crate) struct Ids {
    parts: Vec<HashTable<u32>>,
    len: usize,
    /// Removed slots that are still in the table. Their rows keep the ID and are not in use.
    removed: Vec<u32>,
}

impl Default for Ids {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| HashTable::new()).collect(), len: 0, removed: Vec::new() }
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
        let is = |slot: &u32| {
            let row = rows.get(*slot);
            row.id == id && row.flags.has(Flags::USED)
        };
        self.parts[part(hash)].find(hash, is).copied()
    }

    /// Map `id`, which is not in the table yet, to this slot; its row is filled.
    pub(crate) fn insert(&mut self, id: QueueId, slot: u32, rows: &Chunks<Row>) {
        let hashed = hash(id);
        self.parts[part(hashed)].insert_unique(hashed, slot, |slot| hash(rows.get(*slot).id));
        self.len += 1;
    }

    /// Remove the message in `slot`; its row keeps the ID. Slots that are out of the table are added to `free`.
    pub(crate) fn remove(&mut self, slot: u32, rows: &Chunks<Row>, free: &mut Vec<u32>) {
        self.len -= 1;
        self.removed.push(slot);
        if self.removed.len() < REMOVED_MAX {
            return;
        }
        for slot in self.removed.drain(..) {
            let hash = hash(rows.get(slot).id);
            if let Ok(found) = self.parts[part(hash)].find_entry(hash, |other| *other == slot) {
                found.remove();
            }
            free.push(slot);
        }
    }
}
