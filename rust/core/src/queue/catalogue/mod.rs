//! Every message in the queue, at about 100 octets of memory each, so that a million of them fit.
//!
//! One catalogue serves the scheduler and the store. The scheduler keeps each message's place in its life here, and the
//! order of waiting messages. The store finds the messages of each segment, and the facts of the state log that still
//! count. The envelope stays on disk until delivery. Fresh messages wait in the order of arrival, deferred ones by the
//! time of their next attempt, in separate lists: retries never delay new mail.
//!
//! ```text
//! entry      one message: 64 octets of its own, and the view that reads them
//! chunks     the memory of the entries: chunks that a snapshot shares until one is changed
//! ids        queue ID -> slot
//! reasons    why messages wait, each text once
//! residents  segments: the messages in them, now and before
//! line, due  fresh messages by arrival, deferred ones by time
//! ```

mod chunks;
mod due;
mod entry;
mod ids;
mod line;
mod reasons;
mod residents;

pub use entry::{Entry, Place};
pub use residents::Resident;

use crate::mail::id::QueueId;
use crate::mail::locator::{Locator, SegmentId};
use crate::mail::status::Status;
use crate::queue::state::Kept;
use chunks::Chunks;
use due::Due;
use entry::{Extra, Flags, Row};
use ids::Ids;
use line::Line;
use reasons::{NO_REASON, Reasons};
use residents::Residents;
use std::sync::Arc;

/// The data behind entries.
#[derive(Debug, Clone, Default)]
struct Rows {
    rows: Chunks<Row>,
    reasons: Chunks<Option<Arc<Status>>>,
    segments: Vec<SegmentId>,
}

impl Rows {
    fn entry(&self, slot: u32) -> Option<Entry<'_>> {
        let row = self.rows.get(slot);
        row.flags.has(Flags::USED).then_some(Entry { rows: self, row, slot })
    }

    fn iter_from(&self, slot: u32) -> impl Iterator<Item = Entry<'_>> {
        let used = |(_, row): &(u32, &Row)| row.flags.has(Flags::USED);
        self.rows.iter_from(slot).filter(used).map(|(slot, row)| Entry { rows: self, row, slot })
    }
}

/// The queue at a moment, for another thread to read.
///
/// It shares the catalogue's memory; changed chunks exist twice while it is kept.
#[derive(Debug, Clone)]
pub struct Snapshot {
    rows: Rows,
    len: usize,
}

impl Snapshot {
    /// Return its messages, in arbitrary order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.rows.iter_from(0)
    }

    /// Return the message in a slot, if any.
    pub fn get(&self, slot: u32) -> Option<Entry<'_>> {
        self.rows.entry(slot)
    }

    /// Return the number of messages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the queue was empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// All messages in the queue, and the two lists of waiting ones.
#[derive(Debug, Default)]
pub struct Catalogue {
    rows: Rows,
    free: Vec<u32>,
    ids: Ids,
    reasons: Reasons,
    residents: Residents,
    fresh: Line,
    due: Due,
}

impl Catalogue {
    /// Add a new message; `None` when it is known, and then its record is a copy that does not count. It is in no list
    /// yet.
    pub fn insert(&mut self, id: QueueId, at: Locator, recipients: u32) -> Option<u32> {
        let number = self.residents.number(at.segment, &mut self.rows.segments);
        if let Some(slot) = self.slot(id) {
            if self.entry(slot).at() != at {
                self.residents.row(number).copies.push(id);
            }
            return None;
        }
        self.residents.enter(number, &at);
        let mut flags = Flags::default();
        flags.set(Flags::USED);
        let Locator { offset, record_octets, .. } = at;
        let row = Row { id, offset, record_octets, segment: number, recipients, flags, ..Row::default() };
        let slot = match self.free.pop() {
            Some(slot) => {
                *self.rows.rows.get_mut(slot) = row;
                slot
            }
            None => self.rows.rows.push(row),
        };
        self.ids.insert(id, slot, &self.rows.rows);
        Some(slot)
    }

    /// Remove a message. Its segment remembers that it is gone.
    pub fn remove(&mut self, slot: u32) {
        self.leave(slot);
        self.forget_reasons(slot);
        let Row { id, segment, record_octets, .. } = *self.rows.rows.get(slot);
        *self.rows.rows.get_mut(slot) = Row { id, ..Row::default() };
        self.ids.remove(slot, &self.rows.rows, &mut self.free);
        self.residents.leave(segment, record_octets);
        self.residents.row(segment).gone.push(id);
    }

    /// Return the slot of a message.
    pub fn slot(&self, id: QueueId) -> Option<u32> {
        self.ids.get(id, &self.rows.rows)
    }

    /// Return the message in a slot of this catalogue; slots are valid until `remove`.
    pub fn entry(&self, slot: u32) -> Entry<'_> {
        self.rows.entry(slot).expect("a slot in use")
    }

    /// Return a message by its queue ID.
    pub fn get(&self, id: QueueId) -> Option<Entry<'_>> {
        self.slot(id).map(|slot| self.entry(slot))
    }

    /// Return the number of messages in the queue.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Return the number of messages that wait for their next attempt.
    pub fn deferred(&self) -> usize {
        self.due.len()
    }

    /// Return the number of different reasons to wait.
    pub fn reasons(&self) -> usize {
        self.reasons.len()
    }

    /// Return the first message at `slot` or after it, in arbitrary order.
    pub fn next_from(&self, slot: u32) -> Option<Entry<'_>> {
        self.rows.iter_from(slot).next()
    }

    /// Return all messages, in arbitrary order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.rows.iter_from(0)
    }

    /// Return the queue as it is now, for another thread: takes microseconds at any queue length.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { rows: self.rows.clone(), len: self.len() }
    }

    fn row(&mut self, slot: u32) -> &mut Row {
        self.rows.rows.get_mut(slot)
    }

    // The place of a message in its life.

    fn leave(&mut self, slot: u32) {
        match self.entry(slot).place() {
            Place::Fresh => self.fresh.leave(slot),
            Place::Deferred => self.due.remove(slot),
            Place::Loading | Place::Active(_) | Place::Held | Place::Overflow(_) => {}
        }
    }

    /// Return the number of waiting fresh messages.
    pub fn waiting_fresh(&self) -> usize {
        self.fresh.len()
    }

    /// Put the message at the end of the fresh ones.
    pub fn wait_fresh(&mut self, slot: u32) {
        self.leave(slot);
        self.row(slot).set_place(Place::Fresh);
        self.fresh.join(slot);
    }

    /// Let the message wait until `due_us` (monotonic).
    pub fn wait_until(&mut self, slot: u32, due_us: u64) {
        if self.entry(slot).place() != Place::Deferred {
            self.leave(slot);
        }
        let row = self.row(slot);
        row.set_place(Place::Deferred);
        row.due_us = due_us;
        self.due.set(slot, due_us);
    }

    /// Whether the slot has a message, and that is in this place.
    pub fn is_at(&self, slot: u32, place: Place) -> bool {
        self.rows.entry(slot).is_some_and(|entry| entry.place() == place)
    }

    /// Take the message out of both lists: it becomes `Loading`, `Active`, `Held` or `Overflow`.
    pub fn place(&mut self, slot: u32, place: Place) {
        self.leave(slot);
        self.row(slot).set_place(place);
    }

    /// Return the fresh message that waits longest, without removing it.
    pub fn first_fresh(&self) -> Option<u32> {
        self.fresh.first()
    }

    /// Return time and message of the next attempt.
    pub fn first_due(&self) -> Option<(u64, u32)> {
        self.due.first()
    }

    // The events of a message.

    /// Mark a recipient as done. Return whether it was not before.
    pub fn done(&mut self, slot: u32, index: u32) -> bool {
        let entry = self.entry(slot);
        if entry.is_done(index) || index >= entry.recipients() {
            return false;
        }
        let row = self.row(slot);
        match row.recipients {
            1 => row.flags.set(Flags::DONE),
            recipients => return row.extra.get_or_insert_default().done.insert(index, recipients),
        }
        true
    }

    /// Note that the sender was told of the delay.
    pub fn warned(&mut self, slot: u32) {
        self.row(slot).flags.set(Flags::WARNED);
    }

    /// Note that it was released from hold.
    pub fn released(&mut self, slot: u32) {
        self.row(slot).flags.set(Flags::RELEASED);
    }

    /// Note that the administrator wants it returned to the sender at once.
    pub fn force_expire(&mut self, slot: u32) {
        self.row(slot).flags.set(Flags::FORCED_EXPIRE);
    }

    /// Note the end of an attempt: the results for the recipients that wait, and the due time of the next one
    /// (monotonic). Return the number of attempts.
    pub fn tried(&mut self, slot: u32, reasons: &[(u32, Arc<Status>)], next_us: u64) -> u32 {
        let attempts = self.entry(slot).attempts().saturating_add(1);
        self.put_off(slot, attempts, next_us);
        self.set_reasons(slot, reasons);
        attempts
    }

    pub(crate) fn put_off(&mut self, slot: u32, attempts: u32, next_us: u64) {
        let row = self.row(slot);
        row.attempts = attempts;
        row.due_us = next_us;
        row.flags.set(Flags::PUT_OFF);
    }

    pub(crate) fn set_reasons(&mut self, slot: u32, reasons: &[(u32, Arc<Status>)]) {
        self.forget_reasons(slot);
        let Rows { rows, reasons: statuses, .. } = &mut self.rows;
        let row = rows.get_mut(slot);
        let mut numbered: Vec<_> =
            reasons.iter().map(|(index, status)| (*index, self.reasons.take(status, statuses))).collect();
        match numbered[..] {
            [] => {}
            [(0, only)] if row.recipients == 1 => row.reason = only,
            _ => {
                numbered.sort_unstable();
                row.extra.get_or_insert_default().reasons = numbered.into();
            }
        }
    }

    /// Forget the results of its last attempt.
    pub fn forget_reasons(&mut self, slot: u32) {
        let Rows { rows, reasons: statuses, .. } = &mut self.rows;
        if rows.get(slot).reason == NO_REASON && rows.get(slot).extra.is_none() {
            return;
        }
        let row = rows.get_mut(slot);
        self.reasons.release(std::mem::replace(&mut row.reason, NO_REASON), statuses);
        let reasons = row.extra.as_mut().map(|extra| std::mem::take(&mut extra.reasons)).unwrap_or_default();
        for (_, number) in reasons {
            self.reasons.release(number, statuses);
        }
        if row.extra.as_ref().is_some_and(|extra| **extra == Extra::default()) {
            row.extra = None;
        }
    }

    /// Set the state from the state log; `due_us`: the monotonic time of its next attempt.
    pub fn keep(&mut self, slot: u32, kept: Kept, due_us: u64) {
        for index in kept.done {
            self.done(slot, index);
        }
        if kept.next_attempt_us.is_some() {
            self.put_off(slot, kept.attempts, due_us);
        }
        if kept.released {
            self.released(slot);
        }
        if kept.warned {
            self.warned(slot);
        }
        if kept.forced_expire {
            self.force_expire(slot);
        }
        self.set_reasons(slot, &kept.reasons);
    }

    // The place of a record on disk.

    /// Set a new place for its record; the old one is now a copy that does not count.
    pub fn moved(&mut self, slot: u32, at: Locator) {
        let to = self.residents.number(at.segment, &mut self.rows.segments);
        let row = self.rows.rows.get_mut(slot);
        let (id, from, octets) = (row.id, row.segment, row.record_octets);
        (row.segment, row.offset, row.record_octets) = (to, at.offset, at.record_octets);
        self.residents.leave(from, octets);
        self.residents.row(from).copies.push(id);
        self.residents.enter(to, &at);
    }

    /// Return the messages of a segment; `None` when it never had any.
    pub fn resident(&self, segment: SegmentId) -> Option<&Resident> {
        self.residents.get(segment).map(|(_, resident)| resident)
    }

    /// Return the octets of the records of all messages.
    pub fn live_octets(&self) -> u64 {
        self.residents.iter().map(|resident| resident.live_octets).sum()
    }

    /// Note that a message in a segment is gone from the queue, according to the state log.
    pub fn gone(&mut self, segment: SegmentId, id: QueueId) {
        let number = self.residents.number(segment, &mut self.rows.segments);
        self.residents.row(number).gone.push(id);
    }

    /// Return all messages that are gone while a segment still has their record.
    pub fn all_gone(&self) -> Vec<QueueId> {
        let gone = self.residents.iter().flat_map(|resident| resident.gone.iter());
        let copies = self.residents.iter().flat_map(|resident| resident.copies.iter());
        gone.chain(copies.filter(|id| self.slot(**id).is_none())).copied().collect()
    }

    /// Forget a segment whose file is gone, and the messages that are gone from it.
    pub fn forget_segment(&mut self, segment: SegmentId) {
        self.residents.forget(segment);
    }

    /// Return the messages in any of these segments.
    pub fn residents_of(&self, segments: &[SegmentId]) -> Vec<Entry<'_>> {
        let mut wanted = vec![false; self.rows.segments.len()];
        for (number, _) in segments.iter().filter_map(|segment| self.residents.get(*segment)) {
            wanted[number as usize] = true;
        }
        self.iter().filter(|entry| wanted[entry.row.segment as usize]).collect()
    }
}

#[cfg(test)]
mod tests;
