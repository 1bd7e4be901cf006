//! Log lines of the queue manager, with Postfix's fields, because log parsers depend on them.

use crate::clock::Now;
use crate::delivery::delays::Delay;
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::id::QueueId;
use crate::mail::status::{Outcome, Status};
use crate::mail::trace::Action;
use std::fmt;
use std::sync::Arc;

/// A log line that is formatted when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// A formatted line.
    Plain(String),
    /// `ID: from=<...>, size=..., nrcpt=... (queue active)`
    Active {
        /// The message.
        envelope: Arc<Envelope>,
        /// Recipients that are not done.
        recipients: u32,
        /// `enable_long_queue_ids`
        long_ids: bool,
    },
    /// `ID: removed`
    Removed {
        /// The message.
        id: QueueId,
        /// `enable_long_queue_ids`
        long_ids: bool,
    },
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::Active { envelope, recipients, long_ids } => write!(
                f,
                "{}: from=<{}>, size={}, nrcpt={recipients} (queue active)",
                envelope.id.text(*long_ids),
                envelope.sender,
                envelope.size_octets,
            ),
            Self::Removed { id, long_ids } => write!(f, "{}: removed", id.text(*long_ids)),
        }
    }
}

/// Return `to=<...>, relay=none, ...`: the line of a recipient whose outcome was decided here, without an agent.
pub fn decided_here(
    envelope: &Envelope,
    long_ids: bool,
    recipient: &Recipient,
    active_us: u64,
    now: Now,
    status: &Status,
    resolution_digits: u32,
) -> String {
    let (id, arrival_us) = (envelope.id.text(long_ids), envelope.arrival_us);
    let delay = |us| Delay { us, resolution_digits };
    let word = match status.outcome {
        _ if envelope.is_probe() => Action::of(envelope.trace, status).word(),
        Outcome::Sent => "sent",
        Outcome::Deferred => "deferred",
        Outcome::Bounced => "bounced",
    };
    let original = match &recipient.original {
        Some(original) if *original != recipient.address => format!(", orig_to=<{original}>"),
        _ => String::new(),
    };
    format!(
        "{id}: to=<{}>{original}, relay=none, delay={}, delays={}/{}/0/0, dsn={}, status={word} ({})",
        recipient.address,
        delay(now.age_us(arrival_us)),
        delay(active_us.saturating_sub(arrival_us)),
        delay(now.age_us(active_us)),
        status.dsn,
        status.text,
    )
}
