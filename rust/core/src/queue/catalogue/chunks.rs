//! A growing list of items in chunks, of which a copy costs next to nothing.
//!
//! A clone shares every chunk; a change to an item of a shared chunk copies that chunk first. So another thread gets a
//! million items within microseconds, and growth moves no item.

use std::sync::Arc;

/// Items in a chunk: a power of two.
const PIECE: usize = 512;

/// Items by their number.
#[derive(Debug, Clone)]
pub(crate) struct Chunks<T> {
    pieces: Vec<Arc<[T]>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }
}

impl<T: Clone + Default> Chunks<T> {
    /// Number of items.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Add an item; return its number.
    pub(crate) fn push(&mut self, item: T) -> u32 {
        let number = self.len as u32;
        if self.len == self.pieces.len() * PIECE {
            self.pieces.push((0..PIECE).map(|_| T::default()).collect());
        }
        self.len += 1;
        *self.get_mut(number) = item;
        number
    }

    /// Return the item with a number from `push`.
    pub(crate) fn get(&self, number: u32) -> &T {
        &self.pieces[number as usize / PIECE][number as usize % PIECE]
    }

    /// Like `get`, to change the item.
    pub(crate) fn get_mut(&mut self, number: u32) -> &mut T {
        &mut Arc::make_mut(&mut self.pieces[number as usize / PIECE])[number as usize % PIECE]
    }

    /// Return the items from a number on, with their numbers.
    pub(crate) fn iter_from(&self, number: u32) -> impl Iterator<Item = (u32, &T)> {
        let (first, skip) = (number as usize / PIECE, number as usize % PIECE);
        let items = self.pieces.iter().skip(first).flat_map(|piece| piece.iter()).skip(skip);
        (number..self.len as u32).zip(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_its_items_and_shares_the_unchanged_ones() {
        let mut chunks = Chunks::default();
        for n in 0..3 * PIECE as u32 + 5 {
            assert_eq!(chunks.push(n), n);
        }
        let before = chunks.clone();
        *chunks.get_mut(PIECE as u32) = 7;
        chunks.push(9);
        assert_eq!((*before.get(PIECE as u32), *chunks.get(PIECE as u32)), (PIECE as u32, 7));
        assert_eq!((before.len() + 1, before.iter_from(0).count()), (chunks.len(), before.len()));
        assert!(
            Arc::ptr_eq(&before.pieces[0], &chunks.pieces[0]) && !Arc::ptr_eq(&before.pieces[1], &chunks.pieces[1])
        );
        for from in [0, 1, PIECE as u32 - 1, PIECE as u32, 3 * PIECE as u32 + 4, 3 * PIECE as u32 + 5, 9999] {
            let expected: Vec<_> = (from..before.len() as u32).map(|n| (n, n)).collect();
            assert_eq!(before.iter_from(from).map(|(number, item)| (number, *item)).collect::<Vec<_>>(), expected);
        }
    }
}
