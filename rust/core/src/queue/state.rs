//! The facts about a queued message, and the state that they add up to.

use crate::codec::{CodecError, Put, Take};
use crate::few::Few;
use crate::mail::id::QueueId;
use crate::mail::locator::SegmentId;
use crate::mail::status::{Status, decode_status, encode_status};
use std::sync::Arc;

/// An event in a message's life that must survive a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Recipients are done: delivered, or returned to the sender. The message is gone once all are.
    Done {
        /// The message.
        id: QueueId,
        /// Indexes of recipients in its envelope.
        recipients: Few,
    },
    /// The message is to be tried again. This replaces an earlier `Deferred`.
    Deferred {
        /// The message.
        id: QueueId,
        /// Number of attempts so far.
        attempts: u32,
        /// Time of the next attempt: microseconds since 1970.
        next_attempt_us: u64,
        /// The reason for each recipient that waits.
        reasons: Vec<(u32, Arc<Status>)>,
    },
    /// The administrator put it on hold.
    Held {
        /// The message.
        id: QueueId,
    },
    /// The administrator released it from hold.
    Released {
        /// The message.
        id: QueueId,
    },
    /// The sender was told of the delay.
    Warned {
        /// The message.
        id: QueueId,
    },
    /// The administrator wants it returned to the sender at its next attempt.
    ForcedExpire {
        /// The message.
        id: QueueId,
    },
    /// It is gone, in whatever state its recipients are.
    Removed {
        /// The message.
        id: QueueId,
    },
}

/// The state of a message, besides its envelope.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// Recipients that are done, ascending.
    pub done: Vec<u32>,
    /// Number of attempts so far.
    pub attempts: u32,
    /// Time of the next attempt: microseconds since 1970; `None` before the first attempt.
    pub next_attempt_us: Option<u64>,
    /// On hold.
    pub held: bool,
    /// Released from hold at least once: it does not arrive on hold again.
    pub released: bool,
    /// The reason for each recipient that waits.
    pub reasons: Vec<(u32, Arc<Status>)>,
    /// The sender was told of the delay.
    pub warned: bool,
    /// The administrator wants it returned to the sender at its next attempt.
    pub forced_expire: bool,
}

/// An entry of the state log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// About a message.
    Fact(Fact),
    /// About a segment: octets behind `end` were answered with an error and never count as mail.
    SegmentEnd { segment: SegmentId, end: u64 },
}

impl Fact {
    /// Return the message that the fact is about.
    pub fn id(&self) -> QueueId {
        match self {
            Self::Done { id, .. }
            | Self::Deferred { id, .. }
            | Self::Held { id }
            | Self::Released { id }
            | Self::Warned { id }
            | Self::ForcedExpire { id }
            | Self::Removed { id } => *id,
        }
    }
}

impl Kept {
    /// Apply a fact. `Removed` changes nothing here: the message no longer exists.
    pub(crate) fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::Done { recipients, .. } => {
                for index in recipients {
                    if let Err(at) = self.done.binary_search(&index) {
                        self.done.insert(at, index);
                    }
                }
                self.reasons.retain(|(index, _)| self.done.binary_search(index).is_err());
            }
            Fact::Deferred { attempts, next_attempt_us, reasons, .. } => {
                self.attempts = attempts;
                self.next_attempt_us = Some(next_attempt_us);
                self.reasons = reasons;
            }
            Fact::Held { .. } => self.held = true,
            Fact::Released { .. } => (self.held, self.released) = (false, true),
            Fact::Warned { .. } => self.warned = true,
            Fact::ForcedExpire { .. } => self.forced_expire = true,
            Fact::Removed { .. } => {}
        }
    }

    /// Return the smallest list of facts that add up to this state.
    pub(crate) fn facts(&self, id: QueueId) -> Vec<Fact> {
        let mut facts = Vec::new();
        if let Some(next_attempt_us) = self.next_attempt_us {
            facts.push(Fact::Deferred { id, attempts: self.attempts, next_attempt_us, reasons: self.reasons.clone() });
        }
        if !self.done.is_empty() {
            facts.push(Fact::Done { id, recipients: self.done.as_slice().into() });
        }
        if self.released {
            facts.push(Fact::Released { id });
        }
        if self.held {
            facts.push(Fact::Held { id });
        }
        if self.warned {
            facts.push(Fact::Warned { id });
        }
        if self.forced_expire {
            facts.push(Fact::ForcedExpire { id });
        }
        facts
    }
}

impl Entry {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Fact(fact) => encode_fact(fact, out),
            Self::SegmentEnd { segment, end } => {
                out.put_u8(7);
                out.put_u64(segment.0);
                out.put_u64(*end);
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut take = Take::new(bytes);
        let kind = take.u8()?;
        let id = take.u64()?;
        let entry = if kind == 7 {
            Self::SegmentEnd { segment: SegmentId(id), end: take.u64()? }
        } else {
            Self::Fact(decode_fact(kind, QueueId(id), &mut take)?)
        };
        take.end()?;
        Ok(entry)
    }
}

/// Append a fact as an entry of the state log.
pub(crate) fn encode_fact(fact: &Fact, out: &mut Vec<u8>) {
    out.put_u8(match fact {
        Fact::Done { .. } => 1,
        Fact::Deferred { .. } => 2,
        Fact::Held { .. } => 3,
        Fact::Released { .. } => 4,
        Fact::Warned { .. } => 5,
        Fact::Removed { .. } => 6,
        Fact::ForcedExpire { .. } => 8,
    });
    out.put_u64(fact.id().0);
    match fact {
        Fact::Done { recipients, .. } => {
            out.put_u32(recipients.len() as u32);
            recipients.iter().for_each(|index| out.put_u32(*index));
        }
        Fact::Deferred { attempts, next_attempt_us, reasons, .. } => {
            out.put_u32(*attempts);
            out.put_u64(*next_attempt_us);
            out.put_u32(reasons.len() as u32);
            for (index, status) in reasons {
                out.put_u32(*index);
                encode_status(status, out);
            }
        }
        Fact::Held { .. }
        | Fact::Released { .. }
        | Fact::Warned { .. }
        | Fact::ForcedExpire { .. }
        | Fact::Removed { .. } => {}
    }
}

fn decode_fact(kind: u8, id: QueueId, take: &mut Take<'_>) -> Result<Fact, CodecError> {
    Ok(match kind {
        1 => {
            let count = take.count(4)?;
            Fact::Done { id, recipients: (0..count).map(|_| take.u32()).collect::<Result<_, _>>()? }
        }
        2 => {
            let (attempts, next_attempt_us) = (take.u32()?, take.u64()?);
            let count = take.count(4)?;
            let reason = |_| Ok((take.u32()?, Arc::new(decode_status(take)?)));
            let reasons = (0..count).map(reason).collect::<Result<_, CodecError>>()?;
            Fact::Deferred { id, attempts, next_attempt_us, reasons }
        }
        3 => Fact::Held { id },
        4 => Fact::Released { id },
        5 => Fact::Warned { id },
        6 => Fact::Removed { id },
        8 => Fact::ForcedExpire { id },
        _ => return Err(CodecError::BadValue("fact")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::reply::Enhanced;
    use crate::mail::status::Outcome;

    fn examples() -> Vec<Fact> {
        let id = QueueId(9);
        let dsn = Enhanced { class: 4, subject: 4, detail: 1 };
        let status = Status { outcome: Outcome::Deferred, dsn, text: "no route".into(), remote: Some("mx".into()) };
        vec![
            Fact::Done { id, recipients: vec![5, 1].into() },
            Fact::Deferred { id, attempts: 2, next_attempt_us: 77, reasons: vec![(3, Arc::new(status))] },
            Fact::Held { id },
            Fact::Warned { id },
            Fact::Released { id },
            Fact::ForcedExpire { id },
            Fact::Removed { id },
        ]
    }

    #[test]
    fn an_entry_is_read_back_and_no_prefix_decodes() {
        let mut entries: Vec<_> = examples().into_iter().map(Entry::Fact).collect();
        entries.push(Entry::SegmentEnd { segment: SegmentId(3), end: 99 });
        for entry in entries {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            assert_eq!(Entry::decode(&bytes), Ok(entry));
            for end in 0..bytes.len() {
                assert!(Entry::decode(&bytes[..end]).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn the_smallest_list_of_facts_adds_up_to_the_same_state() {
        let mut kept = Kept::default();
        for fact in examples() {
            kept.apply(fact.clone());
            let mut again = Kept::default();
            kept.facts(QueueId(9)).into_iter().for_each(|fact| again.apply(fact));
            assert_eq!(again, kept, "after {fact:?}");
        }
        assert_eq!((kept.done, kept.attempts, kept.next_attempt_us), (vec![1, 5], 2, Some(77)));
        assert!(kept.warned && kept.forced_expire && !kept.held);
    }

    #[test]
    fn a_done_recipient_has_no_reason_to_wait() {
        let mut kept = Kept::default();
        kept.apply(examples().remove(1));
        kept.apply(Fact::Done { id: QueueId(9), recipients: vec![3].into() });
        assert_eq!(kept.reasons, []);
    }
}
