//! Queue IDs: each is given once in a queue directory.
//!
//! An ID is the microsecond of arrival and the writer's slot: `usec since 1970 << 12 | slot`. No two live writers share
//! a slot, and a writer never uses a microsecond twice, so IDs are unique without a file for each. Its two texts are
//! Postfix's: short (upper-case hexadecimal) and long (`enable_long_queue_ids`, digits and consonants, with a `z`
//! before the last part).

use std::fmt;

/// Bits of an ID for the writer's slot.
pub const SLOT_BITS: u32 = 12;
/// Maximum number of processes that write to one queue directory at a time.
pub const SLOTS: u16 = 1 << SLOT_BITS;

const USEC: u64 = 1_000_000;
const LONG_SECONDS_DIGITS: usize = 6;
const LONG_USEC_DIGITS: usize = 4;
/// Digits and consonants: no vowel, so no word arises by chance. Base 51 lacks the `z` that separates.
const BASE_52: &[u8; 52] = b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";

/// The ID of a message in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

impl QueueId {
    /// Return the time of the ID: microseconds since 1970.
    pub fn usec(self) -> u64 {
        self.0 >> SLOT_BITS
    }

    /// Return the slot of the writer.
    pub fn slot(self) -> u16 {
        (self.0 & u64::from(SLOTS - 1)) as u16
    }

    /// Return Postfix's short form: five hexadecimal digits of microseconds, then the rest.
    pub fn short(self) -> String {
        let (seconds, usec) = (self.usec() / USEC, self.usec() % USEC);
        format!("{:05X}{:X}", usec, seconds << SLOT_BITS | u64::from(self.slot()))
    }

    /// Return Postfix's long form: seconds and microseconds in base 52, `z`, and the slot in base 51.
    pub fn long(self) -> String {
        let (seconds, usec) = (self.usec() / USEC, self.usec() % USEC);
        let mut text = String::with_capacity(16);
        push_base(&mut text, seconds, 52, LONG_SECONDS_DIGITS);
        push_base(&mut text, usec, 52, LONG_USEC_DIGITS);
        text.push('z');
        push_base(&mut text, u64::from(self.slot()), 51, 1);
        text
    }

    /// Return the long or the short form (`enable_long_queue_ids`).
    pub fn text(self, long: bool) -> String {
        if long { self.long() } else { self.short() }
    }

    /// Return the ID of a text in either form; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self::parse_long(text).or_else(|| Self::parse_short(text))?;
        (id.short() == text || id.long() == text).then_some(id)
    }

    fn parse_short(text: &str) -> Option<Self> {
        if text.len() > 21 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let (usec, rest) = text.split_at_checked(5)?;
        let usec = u64::from_str_radix(usec, 16).ok().filter(|usec| *usec < USEC)?;
        let rest = u64::from_str_radix(rest, 16).ok()?;
        Self::of((rest >> SLOT_BITS).checked_mul(USEC)?.checked_add(usec)?, rest & u64::from(SLOTS - 1))
    }

    fn parse_long(text: &str) -> Option<Self> {
        let (time, slot) = text.rsplit_once('z')?;
        let (seconds, usec) = time.split_at_checked(time.len().checked_sub(LONG_USEC_DIGITS)?)?;
        let seconds = from_base(seconds, 52)?;
        let usec = from_base(usec, 52).filter(|usec| *usec < USEC)?;
        Self::of(seconds.checked_mul(USEC)?.checked_add(usec)?, from_base(slot, 51)?)
    }

    fn of(usec: u64, slot: u64) -> Option<Self> {
        (usec < 1 << (64 - SLOT_BITS) && slot < u64::from(SLOTS)).then_some(Self(usec << SLOT_BITS | slot))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// Makes one writer's IDs, each greater than the one before, at any step of the clock.
#[derive(Debug)]
pub struct IdSource {
    slot: u16,
    last_usec: u64,
}

impl IdSource {
    /// Return the source for the writer with `slot` (0..SLOTS).
    pub fn new(slot: u16) -> Self {
        assert!(slot < SLOTS, "a slot is below {SLOTS}");
        Self { slot, last_usec: 0 }
    }

    /// Return the next ID. `wall_now_us`: microseconds since 1970. If the clock stops or steps back, the ID gets the
    /// next microsecond after the last one.
    pub fn next(&mut self, wall_now_us: u64) -> QueueId {
        self.last_usec = wall_now_us.max(self.last_usec + 1);
        QueueId(self.last_usec << SLOT_BITS | u64::from(self.slot))
    }
}

fn push_base(text: &mut String, mut value: u64, base: u64, least_digits: usize) {
    let mut digits = Vec::with_capacity(12);
    while value > 0 || digits.len() < least_digits {
        digits.push(BASE_52[(value % base) as usize]);
        value /= base;
    }
    text.extend(digits.iter().rev().map(|digit| char::from(*digit)));
}

fn from_base(text: &str, base: u64) -> Option<u64> {
    let digit = |byte| BASE_52.iter().position(|b| *b == byte).map(|at| at as u64).filter(|at| *at < base);
    if text.is_empty() {
        return None;
    }
    text.bytes().try_fold(0u64, |value, byte| value.checked_mul(base)?.checked_add(digit(byte)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_the_same_id() {
        for (usec, slot) in [(1_795_000_000_123_456, 0), (1_795_000_000_000_000, 4095), (1_999_999_999_999_999, 51)] {
            let id = QueueId(usec << SLOT_BITS | slot);
            assert_eq!(QueueId::parse(&id.short()), Some(id));
            assert_eq!(QueueId::parse(&id.long()), Some(id));
            assert_eq!((id.usec(), u64::from(id.slot())), (usec, slot));
        }
    }

    #[test]
    fn texts_that_are_no_id_are_refused() {
        for text in ["", "z", "0", "ABCDE", "xyz", "../etc", "FFFFF1", "0000000000000000000000", "é", "0BBBBBBBBBBBz"]
        {
            assert_eq!(QueueId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn ids_rise_when_the_clock_stands_or_steps_back() {
        let mut source = IdSource::new(3);
        let ids: Vec<_> = [10, 10, 5, 11, 100].map(|now| source.next(now).usec()).into();
        assert_eq!(ids, [10, 11, 12, 13, 100]);
    }
}
