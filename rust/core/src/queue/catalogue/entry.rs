//! The state of one message: 64 octets, and the view that reads them.

use super::Rows;
use super::reasons::{NO_REASON, Reason};
use crate::few::Few;
use crate::mail::id::QueueId;
use crate::mail::locator::Locator;
use crate::mail::status::Status;
use crate::queue::state::Fact;
use std::sync::Arc;

/// A message's place in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Not tried since it arrived or was released; waits for room.
    Fresh,
    /// Its envelope is being read; then it becomes active.
    Loading,
    /// In delivery: its key among the active messages.
    Active(u32),
    /// Waits for its next attempt.
    Deferred,
    /// On hold until the administrator releases it.
    Held,
    /// Waits outside of the active queue: this destination has its share of it.
    Overflow(u32),
}

impl Place {
    /// Return the queue in which Postfix would have a message.
    pub fn queue_name(self) -> &'static str {
        match self {
            Self::Fresh | Self::Overflow(_) => "incoming",
            Self::Loading | Self::Active(_) => "active",
            Self::Deferred => "deferred",
            Self::Held => "hold",
        }
    }
}

/// The data of one message. Segment and reasons are numbers; rare data is in `extra`.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub id: QueueId,
    pub offset: u64,
    pub record_octets: u64,
    /// Monotonic.
    pub due_us: u64,
    pub extra: Option<Box<Extra>>,
    pub segment: u32,
    pub recipients: u32,
    pub attempts: u32,
    /// The reason of a message's only recipient; those of several are in `extra`.
    pub reason: Reason,
    /// Its key while it is active; its destination while it waits for that outside of the active queue.
    pub key: u32,
    pub stage: Stage,
    pub flags: Flags,
}

/// `Place` without the key: with it, a row would be an octet too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Fresh,
    Loading,
    Active,
    Deferred,
    Held,
    Overflow,
}

impl Row {
    pub(crate) fn place(&self) -> Place {
        match self.stage {
            Stage::Fresh => Place::Fresh,
            Stage::Loading => Place::Loading,
            Stage::Active => Place::Active(self.key),
            Stage::Deferred => Place::Deferred,
            Stage::Held => Place::Held,
            Stage::Overflow => Place::Overflow(self.key),
        }
    }

    pub(crate) fn set_place(&mut self, place: Place) {
        self.stage = match place {
            Place::Fresh => Stage::Fresh,
            Place::Loading => Stage::Loading,
            Place::Active(key) => {
                self.key = key;
                Stage::Active
            }
            Place::Deferred => Stage::Deferred,
            Place::Held => Stage::Held,
            Place::Overflow(destination) => {
                self.key = destination;
                Stage::Overflow
            }
        };
    }
}

/// The yes-or-no facts about a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flags(u8);

impl Flags {
    /// The slot is in use.
    pub(crate) const USED: u8 = 1;
    pub(crate) const WARNED: u8 = 2;
    pub(crate) const FORCED_EXPIRE: u8 = 4;
    /// `due_us` is the time of an attempt that was put off.
    pub(crate) const PUT_OFF: u8 = 8;
    /// Its only recipient is done; for several, `Extra` has it.
    pub(crate) const DONE: u8 = 16;
    /// Released from hold at least once.
    pub(crate) const RELEASED: u8 = 32;

    pub(crate) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub(crate) fn set(&mut self, flag: u8) {
        self.0 |= flag;
    }
}

/// The state of the recipients, once a message with several has any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extra {
    pub done: Indices,
    /// In the order of the recipients.
    pub reasons: Box<[(u32, Reason)]>,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            id: QueueId(0),
            offset: 0,
            record_octets: 0,
            due_us: 0,
            extra: None,
            segment: 0,
            recipients: 0,
            attempts: 0,
            reason: NO_REASON,
            key: 0,
            stage: Stage::Fresh,
            flags: Flags::default(),
        }
    }
}

/// A set of recipients by index, one bit each; no allocation while empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Indices {
    words: Box<[u64]>,
}

impl Indices {
    /// Whether the set has `index`.
    pub(crate) fn contains(&self, index: u32) -> bool {
        self.words.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 != 0)
    }

    /// Add `index` (below `of`). Return whether it was new.
    pub(crate) fn insert(&mut self, index: u32, of: u32) -> bool {
        if index >= of || self.contains(index) {
            return false;
        }
        if self.words.is_empty() {
            self.words = vec![0; (of as usize).div_ceil(64)].into();
        }
        self.words[index as usize / 64] |= 1 << (index % 64);
        true
    }

    /// Return the number of members.
    pub(crate) fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }
}

/// A read-only view of a message in the queue.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub(super) rows: &'a Rows,
    pub(super) row: &'a Row,
    pub(super) slot: u32,
}

impl<'a> Entry<'a> {
    /// Return its number in the catalogue.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Return its queue ID.
    pub fn id(&self) -> QueueId {
        self.row.id
    }

    /// Return the place of its record on disk.
    pub fn at(&self) -> Locator {
        Locator {
            segment: self.rows.segments[self.row.segment as usize],
            offset: self.row.offset,
            record_octets: self.row.record_octets,
        }
    }

    /// Return the due time of a deferred message (monotonic).
    pub fn due_us(&self) -> u64 {
        self.row.due_us
    }

    /// Return the number of finished attempts.
    pub fn attempts(&self) -> u32 {
        self.row.attempts
    }

    /// Return the number of recipients in its envelope, done or not.
    pub fn recipients(&self) -> u32 {
        self.row.recipients
    }

    /// Return its place in its life.
    pub fn place(&self) -> Place {
        self.row.place()
    }

    /// Whether the sender was told of the delay.
    pub fn warned(&self) -> bool {
        self.row.flags.has(Flags::WARNED)
    }

    /// Whether the administrator wants it returned to the sender at once.
    pub fn forced_expire(&self) -> bool {
        self.row.flags.has(Flags::FORCED_EXPIRE)
    }

    /// Whether this recipient is done.
    pub fn is_done(&self, index: u32) -> bool {
        match self.row.recipients {
            1 => index == 0 && self.row.flags.has(Flags::DONE),
            _ => self.row.extra.as_ref().is_some_and(|extra| extra.done.contains(index)),
        }
    }

    /// Return the number of recipients that need a further attempt.
    pub fn open(&self) -> u32 {
        match self.row.recipients {
            1 => u32::from(!self.row.flags.has(Flags::DONE)),
            all => all - self.row.extra.as_ref().map_or(0, |extra| extra.done.count()),
        }
    }

    /// Whether all recipients are done.
    pub fn finished(&self) -> bool {
        self.open() == 0
    }

    /// Return the result of the last attempt for a recipient.
    pub fn reason(&self, index: u32) -> Option<&'a Arc<Status>> {
        let number = match &self.row.extra {
            _ if self.row.recipients == 1 && index == 0 => self.row.reason,
            Some(extra) => {
                let at = extra.reasons.binary_search_by_key(&index, |(index, _)| *index).ok()?;
                extra.reasons[at].1
            }
            None => return None,
        };
        self.status(number)
    }

    fn status(&self, number: Reason) -> Option<&'a Arc<Status>> {
        if number == NO_REASON { None } else { self.rows.reasons.get(number).as_ref() }
    }

    /// Whether it was tried before. Fresh mail goes before retries.
    pub fn is_retry(&self) -> bool {
        self.row.attempts > 0
    }

    /// Return the time of the next attempt (monotonic) if one was put off; it may be past.
    pub fn next_attempt_us(&self) -> Option<u64> {
        self.row.flags.has(Flags::PUT_OFF).then_some(self.row.due_us)
    }

    /// Return the known results of the last attempt, in the order of the recipients.
    pub fn reasons(&self) -> Vec<(u32, &'a Arc<Status>)> {
        let single = (self.row.recipients == 1).then_some((0, self.row.reason));
        let several = self.row.extra.iter().flat_map(|extra| extra.reasons.iter().copied());
        several.chain(single).filter_map(|(index, number)| Some((index, self.status(number)?))).collect()
    }

    /// Return the smallest list of facts that add up to its state. `wall_of`: converts a monotonic microsecond to the
    /// wall clock's.
    pub fn facts(&self, wall_of: impl Fn(u64) -> u64) -> Vec<Fact> {
        let id = self.row.id;
        let mut facts = Vec::new();
        if let Some(due_us) = self.next_attempt_us() {
            let reasons = self.reasons().into_iter().map(|(index, status)| (index, Arc::clone(status))).collect();
            facts.push(Fact::Deferred { id, attempts: self.row.attempts, next_attempt_us: wall_of(due_us), reasons });
        }
        let done: Few = (0..self.row.recipients).filter(|index| self.is_done(*index)).collect();
        if !done.is_empty() {
            facts.push(Fact::Done { id, recipients: done });
        }
        if self.row.flags.has(Flags::RELEASED) {
            facts.push(Fact::Released { id });
        }
        if self.row.place() == Place::Held {
            facts.push(Fact::Held { id });
        }
        if self.warned() {
            facts.push(Fact::Warned { id });
        }
        if self.forced_expire() {
            facts.push(Fact::ForcedExpire { id });
        }
        facts
    }
}
