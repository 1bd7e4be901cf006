//! The messages of each segment, and the segments' numbers.

use crate::mail::id::QueueId;
use crate::mail::locator::{Locator, SegmentId};
use crate::spread::NumberMap;

/// The messages of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resident {
    /// Number of queued messages in it.
    pub live: u32,
    /// Octets of their records.
    pub live_octets: u64,
    /// Messages in it that left the queue: they must stay gone while the file exists.
    pub gone: Vec<QueueId>,
    /// Messages of which it has a copy that does not count: their record is elsewhere.
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
    /// Return the number of a segment; afterwards `names` has its ID.
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

    /// Forget a segment whose file is gone. A segment with messages stays.
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
