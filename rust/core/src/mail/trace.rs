//! The report that a sender wants of the first delivery attempt: Postfix's trace flags.
//!
//! `sendmail -v` asks what happened, `sendmail -bv` what would happen. Of the latter, a probe, nothing may ever be
//! delivered: whoever does not know what it is must refuse it.

use super::status::{Outcome, Status, decode_status, encode_status};
use crate::codec::{CodecError, Put, Take};

/// The name of the attribute in Postfix's queue files, and in an envelope.
pub const TRACE_FLAGS: &str = "trace_flags";
/// Maximum number of reported targets of a job: an alias may expand to any number.
pub const TRACED_MAX: usize = 10_000;

/// A probe of Postfix's own, for its address verification.
const SYSTEM_PROBE: u32 = 1 << 8;
/// `sendmail -bv`
const PROBE: u32 = 1 << 9;
/// `sendmail -v`
const RECORD: u32 = 1 << 10;

/// The report that the sender wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Trace {
    /// None.
    #[default]
    Off,
    /// The results of the first attempt.
    Record,
    /// The results that an attempt would have: nothing is delivered.
    Probe,
}

impl Trace {
    /// Return the value of Postfix's flags. Errors: a probe of Postfix's address verification, or no number.
    pub fn parse(flags: &str) -> Result<Self, CodecError> {
        let flags: u32 = flags.parse().map_err(|_| CodecError::BadValue(TRACE_FLAGS))?;
        match flags {
            _ if flags & PROBE != 0 => Ok(Self::Probe),
            // It must not become mail.
            _ if flags & SYSTEM_PROBE != 0 => Err(CodecError::BadValue(TRACE_FLAGS)),
            _ if flags & RECORD != 0 => Ok(Self::Record),
            _ => Ok(Self::Off),
        }
    }

    /// Return Postfix's flags; `None` without a report.
    pub fn flags(self) -> Option<u32> {
        match self {
            Self::Off => None,
            Self::Record => Some(RECORD),
            Self::Probe => Some(PROBE),
        }
    }
}

/// The Action field of a report (RFC 3464 §2.3.3), with Postfix's two for probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// In a mailbox.
    Delivered,
    /// With another mail system.
    Relayed,
    /// On its way to the targets of an alias.
    Expanded,
    /// Waits for another attempt.
    Delayed,
    /// Returned to the sender.
    Failed,
    /// A probe that would be delivered.
    Deliverable,
    /// A probe that would fail, for good or for now.
    Undeliverable,
}

impl Action {
    const ALL: [Self; 7] = [
        Self::Delivered,
        Self::Relayed,
        Self::Expanded,
        Self::Delayed,
        Self::Failed,
        Self::Deliverable,
        Self::Undeliverable,
    ];

    /// Return the word of the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
            Self::Delayed => "delayed",
            Self::Failed => "failed",
            Self::Deliverable => "deliverable",
            Self::Undeliverable => "undeliverable",
        }
    }

    /// Return the action with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.word() == word)
    }

    /// Return the action for an outcome. A remote host that took the message has relayed it.
    pub fn of(trace: Trace, status: &Status) -> Self {
        match (trace, status.outcome) {
            (Trace::Probe, Outcome::Sent) => Self::Deliverable,
            (Trace::Probe, _) => Self::Undeliverable,
            (_, Outcome::Sent) if status.remote.is_some() => Self::Relayed,
            (_, Outcome::Sent) => Self::Delivered,
            (_, Outcome::Deferred) => Self::Delayed,
            (_, Outcome::Bounced) => Self::Failed,
        }
    }
}

/// The result of a recipient, or of one target of its alias or .forward file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// The recipient, by its index in the envelope.
    pub index: u32,
    /// The address: the recipient's, or that of the target.
    pub address: Box<str>,
    /// The word for the report.
    pub action: Action,
    /// The agent or host, as in the log.
    pub relay: Box<str>,
    /// Code and text.
    pub status: Status,
}

pub(crate) fn encode_traced(traced: &[Traced], out: &mut Vec<u8>) {
    out.put_u32(traced.len() as u32);
    for one in traced {
        out.put_u32(one.index);
        out.put_str(&one.address);
        out.put_u8(Action::ALL.iter().position(|action| *action == one.action).unwrap_or(0) as u8);
        out.put_str(&one.relay);
        encode_status(&one.status, out);
    }
}

pub(crate) fn decode_traced(take: &mut Take<'_>) -> Result<Vec<Traced>, CodecError> {
    /// Index, address, action, relay, and a status: the lengths of their texts alone.
    const LEAST_OCTETS: usize = 4 + 4 + 1 + 4 + 11;
    let count = take.count(LEAST_OCTETS)?;
    let one = |take: &mut Take<'_>| {
        let (index, address) = (take.u32()?, take.str()?.into());
        let action = Action::ALL.get(usize::from(take.u8()?)).copied().ok_or(CodecError::BadValue("action"))?;
        Ok(Traced { index, address, action, relay: take.str()?.into(), status: decode_status(take)? })
    };
    (0..count).map(|_| one(take)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::reply::Enhanced;

    #[test]
    fn flags_are_those_of_postfix() {
        for (flags, expected) in [
            ("0", Ok(Trace::Off)),
            ("512", Ok(Trace::Probe)),
            ("1024", Ok(Trace::Record)),
            ("1536", Ok(Trace::Probe)),
            ("768", Ok(Trace::Probe)),
            ("256", Err(CodecError::BadValue(TRACE_FLAGS))),
            ("1280", Err(CodecError::BadValue(TRACE_FLAGS))),
            ("", Err(CodecError::BadValue(TRACE_FLAGS))),
            ("x", Err(CodecError::BadValue(TRACE_FLAGS))),
            ("-1", Err(CodecError::BadValue(TRACE_FLAGS))),
        ] {
            assert_eq!(Trace::parse(flags), expected, "{flags}");
        }
        for trace in [Trace::Record, Trace::Probe] {
            assert_eq!(Trace::parse(&trace.flags().unwrap().to_string()), Ok(trace));
        }
    }

    #[test]
    fn every_action_is_read_back() {
        let dsn = Enhanced { class: 2, subject: 1, detail: 5 };
        let status = Status { outcome: Outcome::Sent, dsn, text: "250 ok".into(), remote: Some("mx:25".into()) };
        let one = |action: Action| Traced {
            index: 7,
            address: "a@example.org".into(),
            action,
            relay: "mx[192.0.2.1]:25".into(),
            status: status.clone(),
        };
        let all: Vec<Traced> = Action::ALL.into_iter().map(one).collect();
        let mut octets = Vec::new();
        encode_traced(&all, &mut octets);
        assert_eq!(decode_traced(&mut Take::new(&octets)), Ok(all));
        for end in 0..octets.len() {
            assert!(decode_traced(&mut Take::new(&octets[..end])).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn an_action_follows_from_the_outcome() {
        let dsn = Enhanced { class: 2, subject: 0, detail: 0 };
        let status =
            |outcome, remote: Option<&str>| Status { outcome, dsn, text: "".into(), remote: remote.map(Into::into) };
        for (trace, outcome, remote, expected) in [
            (Trace::Probe, Outcome::Sent, None, "deliverable"),
            (Trace::Probe, Outcome::Deferred, None, "undeliverable"),
            (Trace::Probe, Outcome::Bounced, Some("mx"), "undeliverable"),
            (Trace::Record, Outcome::Sent, None, "delivered"),
            (Trace::Record, Outcome::Sent, Some("mx"), "relayed"),
            (Trace::Record, Outcome::Deferred, Some("mx"), "delayed"),
            (Trace::Record, Outcome::Bounced, None, "failed"),
        ] {
            let action = Action::of(trace, &status(outcome, remote));
            assert_eq!((action.word(), Action::parse(expected)), (expected, Some(action)));
        }
    }
}
