//! The queue manager's log lines, field by field as Postfix writes them: log parsers go by them.

use super::clock::Now;
use crate::delivery::delays::Delay;
use crate::ipc::frame::{Outcome, Status};
use crate::message::envelope::Recipient;

/// `to=<...>, relay=none, ...`: a recipient whose fate was decided here, without a delivery agent.
pub fn decided_here(
    id: &str,
    recipient: &Recipient,
    arrival_us: u64,
    active_us: u64,
    now: Now,
    status: &Status,
    resolution_digits: u32,
) -> String {
    let delay = |us| Delay { us, resolution_digits };
    let word = match status.outcome {
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
