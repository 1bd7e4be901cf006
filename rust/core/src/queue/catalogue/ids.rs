//! From a queue ID to its slot: four octets and one for each message.
//!
//! The table holds slots alone; the IDs stand in the entries. It is in parts, for a part that grows looks at all of its
//! entries again: no arrival waits for a million others. Who leaves is taken out together with others: each costs a look
//! at two places in a large memory, and those of several that do not wait for each other are looked at side by side.

use super::chunks::Chunks;
use super::entry::{Flags, Row};
use crate::mail::id::QueueId;
use crate::spread::spread;
use hashbrown::HashTable;

/// Parts of the table: a power of two.
const PARTS: usize = 64;
/// So many that have left are taken out at a time.
const LEAVING_MAX: usize = 32;

/// Slots by queue ID.
#[derive(Debug)]
pub(crate) struct Ids {
    parts: Vec<HashTable<u32>>,
    len: usize,
    /// Slots of those that have left and are in it yet. Their rows keep the ID and are not in use.
    leaving: Vec<u32>,
}

impl Default for Ids {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| HashTable::new()).collect(), len: 0, leaving: Vec::new() }
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

    /// `id`, which is not in it, has this slot; its row is filled.
    pub(crate) fn insert(&mut self, id: QueueId, slot: u32, rows: &Chunks<Row>) {
        let hashed = hash(id);
        self.parts[part(hashed)].insert_unique(hashed, slot, |slot| hash(rows.get(*slot).id));
        self.len += 1;
    }

    /// The message in `slot` has left; its row keeps the ID. Slots that nothing knows any more are added to `free`.
    pub(crate) fn remove(&mut self, slot: u32, rows: &Chunks<Row>, free: &mut Vec<u32>) {
        self.len -= 1;
        self.leaving.push(slot);
        if self.leaving.len() < LEAVING_MAX {
            return;
        }
        for slot in self.leaving.drain(..) {
            let hash = hash(rows.get(slot).id);
            if let Ok(found) = self.parts[part(hash)].find_entry(hash, |other| *other == slot) {
                found.remove();
            }
            free.push(slot);
        }
    }
}
