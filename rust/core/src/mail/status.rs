//! The result of a recipient: the outcome, its enhanced status code and the reason.

use super::reply::Enhanced;
use crate::codec::{CodecError, Put, Take};

/// The outcome of a delivery attempt for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Delivered, or handed to the next hop.
    Sent,
    /// The queue manager will retry.
    Deferred,
    /// Failed permanently: the sender gets a report.
    Bounced,
}

/// The result of a delivery attempt for a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Status {
    /// The outcome.
    pub outcome: Outcome,
    /// The enhanced status code (RFC 3463).
    pub dsn: Enhanced,
    /// The reason, as in the log between parentheses.
    pub text: Box<str>,
    /// The host that gave the reason, as `name[address]:port`; `None` for a local reason.
    pub remote: Option<Box<str>>,
}

/// Return a status from this host: `dsn` decides the outcome (2 sent, 4 deferred, 5 bounced).
pub fn local_status(dsn: Enhanced, text: impl Into<Box<str>>) -> Status {
    Status { outcome: outcome_of(dsn), dsn, text: text.into(), remote: None }
}

/// Return the outcome for the class of a code.
pub fn outcome_of(dsn: Enhanced) -> Outcome {
    match dsn.class {
        2 => Outcome::Sent,
        5 => Outcome::Bounced,
        _ => Outcome::Deferred,
    }
}

pub(crate) fn encode_status(status: &Status, out: &mut Vec<u8>) {
    out.put_u8(match status.outcome {
        Outcome::Sent => 0,
        Outcome::Deferred => 1,
        Outcome::Bounced => 2,
    });
    out.put_u8(status.dsn.class);
    out.put_u16(status.dsn.subject);
    out.put_u16(status.dsn.detail);
    out.put_str(&status.text);
    out.put_option_str(status.remote.as_deref());
}

pub(crate) fn decode_status(take: &mut Take<'_>) -> Result<Status, CodecError> {
    let outcome = match take.u8()? {
        0 => Outcome::Sent,
        1 => Outcome::Deferred,
        2 => Outcome::Bounced,
        _ => return Err(CodecError::BadValue("outcome")),
    };
    let dsn = Enhanced { class: take.u8()?, subject: take.u16()?, detail: take.u16()? };
    Ok(Status { outcome, dsn, text: take.str()?.into(), remote: take.option_str()?.map(Into::into) })
}
