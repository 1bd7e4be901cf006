//! A priority queue optimised for appends: a deque, and a B-tree for the rest.
//!
//! An item after the last one is appended to the deque, and the first item is removed from its front: each costs a
//! few steps, whatever the length. An item removed from the middle leaves a gap. A gap goes away at the front, or
//! when there are more gaps than items. An item before the last one goes into the tree.

use std::collections::{BTreeSet, VecDeque};

/// Maximum number of gaps beyond the number of items in the deque.
const GAPS_MAX: usize = 64;

/// Items in order, each once.
#[derive(Debug)]
pub struct Order<K> {
    /// Ascending; `false` is a gap. The first one is never a gap.
    row: VecDeque<(K, bool)>,
    gaps: usize,
    tree: BTreeSet<K>,
}

impl<K> Default for Order<K> {
    fn default() -> Self {
        Self { row: VecDeque::new(), gaps: 0, tree: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Order<K> {
    /// Insert an item that is not there yet.
    pub fn insert(&mut self, item: K) {
        if self.row.back().is_none_or(|(last, _)| *last < item) {
            self.row.push_back((item, true));
            return;
        }
        match self.find(&item) {
            Some(at) => self.gaps -= usize::from(!std::mem::replace(&mut self.row[at].1, true)),
            None => drop(self.tree.insert(item)),
        }
    }

    /// Remove an item.
    pub fn remove(&mut self, item: &K) {
        match self.find(item) {
            Some(0) => {
                self.row.pop_front();
            }
            Some(at) => {
                self.gaps += usize::from(std::mem::replace(&mut self.row[at].1, false));
                if self.gaps > self.row.len() - self.gaps + GAPS_MAX {
                    self.row.retain(|(_, stands)| *stands);
                    self.gaps = 0;
                }
                return;
            }
            None => {
                self.tree.remove(item);
                return;
            }
        }
        while self.row.front().is_some_and(|(_, stands)| !stands) {
            self.row.pop_front();
            self.gaps -= 1;
        }
    }

    /// Return an index in the deque, also that of a gap.
    fn find(&self, item: &K) -> Option<usize> {
        match self.row.front() {
            Some((first, _)) if first == item => Some(0),
            Some((first, _)) if first < item => self.row.binary_search_by(|(other, _)| other.cmp(item)).ok(),
            _ => None,
        }
    }

    /// Return the first item.
    pub fn first(&self) -> Option<K> {
        let (row, tree) = (self.row.front().map(|(first, _)| *first), self.tree.first().copied());
        row.into_iter().chain(tree).min()
    }

    /// Return the first item at or after `from`. Cost: a search, and a step for each following gap.
    pub fn first_from(&self, from: K) -> Option<K> {
        let at = self.row.partition_point(|(item, _)| *item < from);
        let row = self.row.range(at..).find(|(_, stands)| *stands).map(|(item, _)| *item);
        row.into_iter().chain(self.tree.range(from..).next().copied()).min()
    }

    /// Return whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.row.is_empty() && self.tree.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_a_tree(
            steps in proptest::collection::vec((0u32..400, 0u8..4, 0u32..400), 1..600),
        ) {
            let (mut order, mut model, mut last) = (Order::default(), BTreeSet::new(), 400);
            for (item, what, from) in steps {
                match what {
                    0 => if model.insert(item) {
                        order.insert(item);
                    },
                    1 => {
                        last += 1;
                        order.insert(last);
                        model.insert(last);
                    }
                    2 => {
                        order.remove(&item);
                        model.remove(&item);
                    }
                    // Removing the middle item makes gaps.
                    _ => if let Some(item) = model.iter().nth(model.len() / 2).copied() {
                        order.remove(&item);
                        model.remove(&item);
                    },
                }
                prop_assert_eq!(order.first(), model.first().copied());
                prop_assert_eq!(order.first_from(from), model.range(from..).next().copied());
                prop_assert_eq!(order.is_empty(), model.is_empty());
                prop_assert!(order.gaps <= order.row.len() - order.gaps + GAPS_MAX);
            }
        }
    }

    #[test]
    fn gaps_do_not_accumulate() {
        let mut order = Order::default();
        (0..10_000).for_each(|item| order.insert(item));
        (1..9_999).for_each(|item| order.remove(&item));
        assert_eq!((order.first(), order.first_from(1)), (Some(0), Some(9_999)));
        assert!(order.row.len() <= 2 * 2 + GAPS_MAX + 1, "{}", order.row.len());
        order.insert(5);
        order.remove(&0);
        assert_eq!((order.first(), order.first_from(6)), (Some(5), Some(9_999)));
        order.remove(&5);
        order.remove(&9_999);
        assert!(order.is_empty());
    }
}
