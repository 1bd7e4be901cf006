//! Who stands in which segment: the segments' numbers, and what of them is in use.

use crate::mail::id::QueueId;
use crate::mail::locator::{Locator, SegmentId};
use crate::spread::NumberMap;

/// A segment, as far as its messages are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resident {
    /// Messages of the queue that stand in it.
    pub live: u32,
    /// Octets of their records.
    pub live_octets: u64,
    /// Messages that stood in it and are gone from the queue: they must stay gone for as long as the file is there.
    pub gone: Vec<QueueId>,
    /// Messages of which a copy stands in it that does not count: theirs is elsewhere.
    pub copies: Vec<QueueId>,
}

/// Segments by their number.
#[derive(Debug, Default)]
pub(crate) struct Residents {
    rows: Vec<Resident>,
    numbers: NumberMap<SegmentId, u32>,
    free: Vec<u32>,
}

impl Residents {
    /// The number of a segment; `names` has its ID afterwards.
    pub(crate) fn number(&mut self, id: SegmentId, names: &mut Vec<SegmentId>) -> u32 {
        *self.numbers.entry(id).or_insert_with(|| match self.free.pop() {
            Some(number) => {
                names[number as usize] = id;
                number
            }
            None => {
                names.push(id);
                self.rows.push(Resident::default());
                self.rows.len() as u32 - 1
            }
        })
    }

    pub(crate) fn get(&self, id: SegmentId) -> Option<(u32, &Resident)> {
        let number = *self.numbers.get(&id)?;
        Some((number, &self.rows[number as usize]))
    }

    pub(crate) fn row(&mut self, number: u32) -> &mut Resident {
        &mut self.rows[number as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Resident> {
        self.numbers.values().map(|number| &self.rows[*number as usize])
    }

    pub(crate) fn enter(&mut self, number: u32, at: &Locator) {
        let row = self.row(number);
        row.live += 1;
        row.live_octets += at.record_octets;
    }

    pub(crate) fn leave(&mut self, number: u32, record_octets: u64) {
        let row = self.row(number);
        row.live -= 1;
        row.live_octets -= record_octets;
    }

    /// The file is gone. A segment with messages stays.
    pub(crate) fn forget(&mut self, id: SegmentId) {
        if let Some(number) = self.numbers.get(&id).copied()
            && self.rows[number as usize].live == 0
        {
            self.numbers.remove(&id);
            self.rows[number as usize] = Resident::default();
            self.free.push(number);
        }
    }
}
