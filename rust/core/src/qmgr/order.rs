//! Who is first, where nearly everybody who comes goes to the end: a row, and a tree for the others.
//!
//! Whoever comes with the last place joins the row's end, and whoever leaves from the front is taken off it: each costs a
//! few steps, however many stand there. One that leaves from the middle of the row leaves a gap, which goes away when it
//! comes to the front, or when there are more gaps than items. Those who come with an earlier place stand in a tree.

use std::collections::{BTreeSet, VecDeque};

/// So many gaps there may be beyond the number of items in the row.
const GAPS_MAX: usize = 64;

/// Items in order, each once.
#[derive(Debug)]
pub struct Order<K> {
    /// Ascending; `false` is a gap. The first one is no gap.
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
    /// Stand at its place: an item that does not stand there yet.
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

    /// Stand there no more.
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

    /// Where in the row, be it a gap.
    fn find(&self, item: &K) -> Option<usize> {
        match self.row.front() {
            Some((first, _)) if first == item => Some(0),
            Some((first, _)) if first < item => self.row.binary_search_by(|(other, _)| other.cmp(item)).ok(),
            _ => None,
        }
    }

    /// The first one.
    pub fn first(&self) -> Option<K> {
        let (row, tree) = (self.row.front().map(|(first, _)| *first), self.tree.first().copied());
        row.into_iter().chain(tree).min()
    }

    /// The first one at `from` or behind it. Cost: a search, and a look at each gap that follows.
    pub fn first_from(&self, from: K) -> Option<K> {
        let at = self.row.partition_point(|(item, _)| *item < from);
        let row = self.row.range(at..).find(|(_, stands)| *stands).map(|(item, _)| *item);
        row.into_iter().chain(self.tree.range(from..).next().copied()).min()
    }

    /// Does nobody stand there?
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
        fn it_is_as_a_tree_would_have_it(
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
                    // The middle of what came last, so that there are gaps.
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
    fn many_that_leave_from_the_middle_leave_no_long_row() {
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
