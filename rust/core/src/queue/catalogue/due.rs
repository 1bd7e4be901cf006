//! Timers of deferred messages: a heap with four children a parent, and the position of each slot in it.
//!
//! A slot is in the heap at most once, so nothing stale stays in it, however often a timer changes.

/// Position of a slot that is not in the heap.
const NOWHERE: u32 = u32::MAX;
/// Children of a node: four share a cache line, and the tree is half as high as a binary one.
const CHILDREN: usize = 4;

/// Slots by due time; at the same time the lower slot comes first.
#[derive(Debug, Default)]
pub(crate) struct Due {
    moments: Vec<u64>,
    slots: Vec<u32>,
    /// For each slot: its position in the heap.
    places: Vec<u32>,
}

impl Due {
    /// Return the number of slots that wait.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Return the earliest due time and its slot.
    pub(crate) fn first(&self) -> Option<(u64, u32)> {
        Some((*self.moments.first()?, *self.slots.first()?))
    }

    /// Set the due time of `slot`, in place of an earlier one.
    pub(crate) fn set(&mut self, slot: u32, moment: u64) {
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, NOWHERE);
        }
        let at = match self.places[slot as usize] {
            NOWHERE => {
                self.moments.push(moment);
                self.slots.push(slot);
                self.slots.len() - 1
            }
            at => {
                self.moments[at as usize] = moment;
                at as usize
            }
        };
        self.places[slot as usize] = at as u32;
        self.sift(at);
    }

    /// Remove `slot`, if it waits.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(at) = self.places.get(slot as usize).copied().filter(|at| *at != NOWHERE) else {
            return;
        };
        let at = at as usize;
        self.moments.swap_remove(at);
        self.slots.swap_remove(at);
        self.places[slot as usize] = NOWHERE;
        if at < self.slots.len() {
            self.places[self.slots[at] as usize] = at as u32;
            self.sift(at);
        }
    }

    fn key(&self, at: usize) -> (u64, u32) {
        (self.moments[at], self.slots[at])
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.moments.swap(a, b);
        self.slots.swap(a, b);
        self.places[self.slots[a] as usize] = a as u32;
        self.places[self.slots[b] as usize] = b as u32;
    }

    /// Move the item at `at` to its position.
    fn sift(&mut self, mut at: usize) {
        while at > 0 && self.key(at) < self.key((at - 1) / CHILDREN) {
            self.swap(at, (at - 1) / CHILDREN);
            at = (at - 1) / CHILDREN;
        }
        loop {
            let children = CHILDREN * at + 1..(CHILDREN * at + CHILDREN + 1).min(self.slots.len());
            let Some(least) =
                children.min_by_key(|child| self.key(*child)).filter(|child| self.key(*child) < self.key(at))
            else {
                return;
            };
            self.swap(at, least);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn the_earliest_slot_is_always_first(
            steps in proptest::collection::vec((0u32..40, proptest::option::of(0u64..30)), 1..200),
        ) {
            let (mut due, mut model) = (Due::default(), BTreeMap::new());
            for (slot, moment) in steps {
                match moment {
                    Some(moment) => {
                        due.set(slot, moment);
                        model.insert(slot, moment);
                    }
                    None => {
                        due.remove(slot);
                        model.remove(&slot);
                    }
                }
                prop_assert_eq!(due.first(), model.iter().map(|(slot, moment)| (*moment, *slot)).min());
                prop_assert_eq!(due.len(), model.len());
            }
        }
    }
}
