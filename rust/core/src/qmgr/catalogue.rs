//! Every message in the queue, in a form that fits a million of them in memory.
//!
//! An entry knows where its record stands and what happened to it; the envelope stays on disk until the message is
//! delivered. Fresh messages wait in the order of their arrival, deferred ones by the moment of their next attempt,
//! each list apart from the other: no crowd of retries stands before new mail.

use crate::ipc::frame::Status;
use crate::queue::id::QueueId;
use crate::queue::locator::Locator;
use crate::queue::state::Kept;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

/// Where a message stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Never tried since it came or was released; waits for room.
    Fresh,
    /// Its envelope is being read, and then it is active.
    Loading,
    /// Being delivered: its key among the active messages.
    Active(u32),
    /// Waits for its next attempt.
    Deferred,
    /// On hold until a person releases it.
    Held,
}

/// A set of recipients by their index, one bit each; costs nothing while empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indices {
    words: Box<[u64]>,
}

impl Indices {
    /// Is it in the set?
    pub fn contains(&self, index: u32) -> bool {
        self.words.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 != 0)
    }

    /// Put `index` (below `of`) into the set. Says whether it was new.
    pub fn insert(&mut self, index: u32, of: u32) -> bool {
        if index >= of || self.contains(index) {
            return false;
        }
        if self.words.is_empty() {
            self.words = vec![0; (of as usize).div_ceil(64)].into();
        }
        self.words[index as usize / 64] |= 1 << (index % 64);
        true
    }

    /// How many are in the set.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }
}

/// What is known of a message in the queue.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub id: QueueId,
    /// Where its record stands.
    pub at: Locator,
    /// When a deferred message is due (monotonic).
    pub due_us: u64,
    /// Attempts that came to an end.
    pub attempts: u32,
    /// Recipients in its envelope, done or not.
    pub recipients: u32,
    /// Where it stands.
    pub place: Place,
    /// The sender was told of the delay.
    pub warned: bool,
    /// A person wants it returned to the sender at once.
    pub forced_expire: bool,
    /// Recipients that need no further attempt.
    pub done: Indices,
    /// How the last attempt ended for those that do, in the order of their index.
    pub reasons: Box<[(u32, Arc<Status>)]>,
}

impl Entry {
    /// A message that has just come.
    pub fn fresh(id: QueueId, at: Locator, recipients: u32) -> Self {
        Self {
            id,
            at,
            due_us: 0,
            attempts: 0,
            recipients,
            place: Place::Fresh,
            warned: false,
            forced_expire: false,
            done: Indices::default(),
            reasons: Box::default(),
        }
    }

    /// Take over what the state log kept.
    pub fn keep(&mut self, kept: Kept) {
        for index in kept.done {
            self.done.insert(index, self.recipients);
        }
        self.attempts = kept.attempts;
        self.warned = kept.warned;
        self.reasons = kept.reasons.into_iter().map(|(index, status)| (index, Arc::new(status))).collect();
    }

    /// Does no recipient need a further attempt?
    pub fn finished(&self) -> bool {
        self.done.count() == self.recipients
    }

    /// How the last attempt ended for a recipient.
    pub fn reason(&self, index: u32) -> Option<&Arc<Status>> {
        self.reasons.binary_search_by_key(&index, |(index, _)| *index).ok().map(|at| &self.reasons[at].1)
    }

    /// Was it tried before? Then fresh mail goes first.
    pub fn is_retry(&self) -> bool {
        self.attempts > 0
    }
}

/// All messages in the queue, and the two lines in which they wait.
#[derive(Debug, Default)]
pub struct Catalogue {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_id: HashMap<QueueId, u32>,
    fresh: VecDeque<u32>,
    due: BinaryHeap<Reverse<(u64, u32)>>,
    deferred: usize,
}

impl Catalogue {
    /// Add a message; `None` when it is known. It does not wait anywhere yet.
    pub fn insert(&mut self, entry: Entry) -> Option<u32> {
        let slot = self.free.last().copied().unwrap_or(self.entries.len() as u32);
        let std::collections::hash_map::Entry::Vacant(vacant) = self.by_id.entry(entry.id) else {
            return None;
        };
        vacant.insert(slot);
        if self.free.pop().is_some() {
            self.entries[slot as usize] = Some(entry);
        } else {
            self.entries.push(Some(entry));
        }
        Some(slot)
    }

    /// Forget a message.
    pub fn remove(&mut self, slot: u32) {
        self.leave(slot);
        if let Some(entry) = self.entries[slot as usize].take() {
            self.by_id.remove(&entry.id);
            self.free.push(slot);
        }
    }

    /// The slot of a message.
    pub fn slot(&self, id: QueueId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The message in a slot; slots come from this catalogue and live until `remove`.
    pub fn entry(&self, slot: u32) -> &Entry {
        self.entries[slot as usize].as_ref().expect("a slot in use")
    }

    /// As `entry`, to change it; its place is changed by the methods below.
    pub fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        self.entries[slot as usize].as_mut().expect("a slot in use")
    }

    /// Messages in the queue.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Is the queue empty?
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Messages that wait for their next attempt.
    pub fn deferred(&self) -> usize {
        self.deferred
    }

    /// The first message in use at `slot` or after it, in no order that means anything.
    pub fn next_from(&self, slot: u32) -> Option<(u32, &Entry)> {
        let from = slot as usize;
        let found = self.entries.get(from..)?.iter().position(Option::is_some)? + from;
        Some((found as u32, self.entry(found as u32)))
    }

    fn leave(&mut self, slot: u32) {
        if self.entry(slot).place == Place::Deferred {
            self.deferred -= 1;
        }
    }

    /// It waits among the fresh.
    pub fn wait_fresh(&mut self, slot: u32) {
        self.place(slot, Place::Fresh);
        self.fresh.push_back(slot);
    }

    /// It waits until `due_us` (monotonic).
    pub fn wait_until(&mut self, slot: u32, due_us: u64) {
        self.place(slot, Place::Deferred);
        self.entry_mut(slot).due_us = due_us;
        self.deferred += 1;
        // Stale turns, of messages that were flushed or deleted, may outnumber the true ones for a while, not for long.
        const STALE_MAX: usize = 1024;
        if self.due.len() > 2 * self.deferred + STALE_MAX {
            let entries = &self.entries;
            self.due.retain(|Reverse((due_us, slot))| is_due_at(entries, *slot, *due_us));
        }
        self.due.push(Reverse((due_us, slot)));
    }

    /// It waits nowhere: `Loading`, `Active` or `Held`.
    pub fn place(&mut self, slot: u32, place: Place) {
        self.leave(slot);
        self.entry_mut(slot).place = place;
    }

    /// The fresh message that waits longest, without taking it.
    pub fn first_fresh(&mut self) -> Option<u32> {
        while let Some(slot) = self.fresh.front().copied() {
            if self.entries[slot as usize].as_ref().is_some_and(|entry| entry.place == Place::Fresh) {
                return Some(slot);
            }
            self.fresh.pop_front();
        }
        None
    }

    /// The moment and message of the next attempt.
    pub fn first_due(&mut self) -> Option<(u64, u32)> {
        while let Some(Reverse((due_us, slot))) = self.due.peek().copied() {
            if is_due_at(&self.entries, slot, due_us) {
                return Some((due_us, slot));
            }
            self.due.pop();
        }
        None
    }
}

fn is_due_at(entries: &[Option<Entry>], slot: u32, due_us: u64) -> bool {
    entries[slot as usize].as_ref().is_some_and(|entry| entry.place == Place::Deferred && entry.due_us == due_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::locator::SegmentId;

    fn entry(id: u64) -> Entry {
        Entry::fresh(QueueId(id), Locator { segment: SegmentId(1), offset: id, record_octets: 10 }, 2)
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Option<Entry>>() <= 112, "{}", size_of::<Option<Entry>>());
    }

    #[test]
    fn fresh_messages_come_in_the_order_of_arrival_and_deferred_ones_when_due() {
        let mut catalogue = Catalogue::default();
        let slots: Vec<u32> = (1..=4).map(|id| catalogue.insert(entry(id)).unwrap()).collect();
        assert_eq!(catalogue.insert(entry(1)), None, "a message has one entry");
        catalogue.wait_fresh(slots[1]);
        catalogue.wait_fresh(slots[0]);
        catalogue.wait_until(slots[2], 50);
        catalogue.wait_until(slots[3], 20);
        assert_eq!(catalogue.first_fresh(), Some(slots[1]));
        catalogue.place(slots[1], Place::Loading);
        assert_eq!(catalogue.first_fresh(), Some(slots[0]));
        assert_eq!(catalogue.first_due(), Some((20, slots[3])));
        catalogue.wait_until(slots[3], 90);
        assert_eq!(catalogue.first_due(), Some((50, slots[2])));
        catalogue.remove(slots[2]);
        assert_eq!(catalogue.first_due(), Some((90, slots[3])));
        assert_eq!((catalogue.len(), catalogue.deferred()), (3, 1));
    }

    #[test]
    fn turns_of_messages_that_moved_on_do_not_pile_up() {
        let mut catalogue = Catalogue::default();
        let slot = catalogue.insert(entry(1)).unwrap();
        for due_us in 0..10_000 {
            catalogue.wait_until(slot, due_us);
        }
        assert!(catalogue.due.len() < 1100, "{}", catalogue.due.len());
        assert_eq!(catalogue.first_due(), Some((9_999, slot)));
    }

    #[test]
    fn indices_are_a_set() {
        let mut indices = Indices::default();
        assert!(!indices.contains(70));
        assert!(indices.insert(70, 71) && !indices.insert(70, 71) && !indices.insert(71, 71));
        assert!(indices.contains(70) && !indices.contains(6) && !indices.contains(700));
        assert_eq!(indices.count(), 1);
    }
}
