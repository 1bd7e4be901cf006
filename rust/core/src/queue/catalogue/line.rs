//! A first-in, first-out queue with removal from the middle.

/// No slot.
const NONE: u32 = u32::MAX;

/// Slots in the order of joining; each is in the line at most once.
#[derive(Debug)]
pub(crate) struct Line {
    /// For each slot: the one before and the one behind; a slot that is not in the line links to itself.
    links: Vec<[u32; 2]>,
    first: u32,
    last: u32,
    count: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { links: Vec::new(), first: NONE, last: NONE, count: 0 }
    }
}

impl Line {
    /// Return the slot that waits longest.
    pub(crate) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// Return the number of slots.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Append a slot.
    pub(crate) fn join(&mut self, slot: u32) {
        self.leave(slot);
        let from = self.links.len() as u32;
        self.links.extend((from..=slot).map(|slot| [slot, slot]));
        self.links[slot as usize] = [self.last, NONE];
        match self.last {
            NONE => self.first = slot,
            last => self.links[last as usize][1] = slot,
        }
        self.last = slot;
        self.count += 1;
    }

    /// Remove `slot`, if it is in the line.
    pub(crate) fn leave(&mut self, slot: u32) {
        let Some([before, behind]) = self.links.get(slot as usize).copied().filter(|[before, _]| *before != slot)
        else {
            return;
        };
        self.count -= 1;
        self.links[slot as usize] = [slot, slot];
        match before {
            NONE => self.first = behind,
            before => self.links[before as usize][1] = behind,
        }
        match behind {
            NONE => self.last = before,
            behind => self.links[behind as usize][0] = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slots_leave_in_the_order_of_joining(steps in proptest::collection::vec((0u32..12, any::<bool>()), 1..200)) {
            let (mut line, mut model) = (Line::default(), Vec::new());
            for (slot, join) in steps {
                model.retain(|other| *other != slot);
                if join {
                    line.join(slot);
                    model.push(slot);
                } else {
                    line.leave(slot);
                }
                prop_assert_eq!(line.first(), model.first().copied());
                prop_assert_eq!(line.len(), model.len());
            }
            for expected in model {
                prop_assert_eq!(line.first(), Some(expected));
                line.leave(expected);
            }
            prop_assert_eq!(line.first(), None);
        }
    }
}
