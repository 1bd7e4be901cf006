//! The queue as text: one line of JSON a message, as `postqueue -j` prints it.
//!
//! Postfix's names come first (`queue_name`, `queue_id`, `arrival_time`, `message_size`, `forced_expire`, `sender`,
//! `recipients` with `address`, `orig_address`, `delay_reason`, `bounce_reason`); `attempts` and `next_attempt`
//! (seconds since 1970) follow, which Postfix does not have.

use super::catalogue::{Entry, Place};
use super::clock::{Now, SECOND_US};
use crate::ipc::frame::{Outcome, Status};
use crate::message::envelope::{Envelope, Recipient};
use std::fmt::Write as _;

/// How the null sender is shown.
pub const NULL_SENDER: &str = "MAILER-DAEMON";

/// The queue that Postfix would have a message in.
pub fn queue_name(place: Place) -> &'static str {
    match place {
        Place::Fresh | Place::Crowded(_) => "incoming",
        Place::Loading | Place::Active(_) => "active",
        Place::Deferred => "deferred",
        Place::Held => "hold",
    }
}

/// Append a JSON string.
pub fn json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Writes the line of one message.
pub struct Row<'a> {
    out: &'a mut String,
    recipients: usize,
}

impl<'a> Row<'a> {
    /// Begin a line: all but the recipients.
    pub fn begin(out: &'a mut String, queue: &str, name: &str, envelope: &Envelope, forced_expire: bool) -> Self {
        out.push_str("{\"queue_name\": ");
        json_string(out, queue);
        let _ = write!(
            out,
            ", \"queue_id\": \"{name}\", \"arrival_time\": {}, \"message_size\": {}, \"forced_expire\": {forced_expire}, \
             \"sender\": ",
            envelope.arrival_us / SECOND_US,
            envelope.size_octets,
        );
        json_string(out, if envelope.sender.is_empty() { NULL_SENDER } else { &envelope.sender });
        out.push_str(", \"recipients\": [");
        Self { out, recipients: 0 }
    }

    /// A recipient that is not done, and how its last attempt ended.
    pub fn recipient(&mut self, recipient: &Recipient, status: Option<&Status>) {
        if self.recipients > 0 {
            self.out.push_str(", ");
        }
        self.recipients += 1;
        self.out.push_str("{\"address\": ");
        json_string(self.out, &recipient.address);
        if let Some(original) = recipient.original.as_deref().filter(|original| *original != &*recipient.address) {
            self.out.push_str(", \"orig_address\": ");
            json_string(self.out, original);
        }
        if let Some(status) = status {
            self.out.push_str(match status.outcome {
                Outcome::Bounced => ", \"bounce_reason\": ",
                _ => ", \"delay_reason\": ",
            });
            json_string(self.out, &status.text);
        }
        self.out.push('}');
    }

    /// End the line. `next_attempt_s`: seconds since 1970.
    pub fn end(self, attempts: u32, next_attempt_s: Option<u64>) {
        let _ = write!(self.out, "], \"attempts\": {attempts}");
        if let Some(next_attempt_s) = next_attempt_s {
            let _ = write!(self.out, ", \"next_attempt\": {next_attempt_s}");
        }
        self.out.push_str("}\n");
    }
}

/// Append the line of a message. `recipients`: those of `envelope`, by their index.
pub fn row<'r>(
    out: &mut String,
    entry: Entry<'_>,
    name: &str,
    envelope: &Envelope,
    recipients: impl Iterator<Item = (u32, &'r Recipient)>,
    now: Now,
) {
    let mut row = Row::begin(out, queue_name(entry.place()), name, envelope, entry.forced_expire());
    for (index, recipient) in recipients {
        if !entry.is_done(index) {
            row.recipient(recipient, entry.reason(index).map(|status| &**status));
        }
    }
    let wait_us = entry.due_us().saturating_sub(now.mono_us);
    let next = (entry.place() == Place::Deferred).then_some((now.wall_us + wait_us) / SECOND_US);
    row.end(entry.attempts(), next);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts_stay_inside_their_string() {
        let mut out = String::new();
        json_string(&mut out, "a\"b\\c\r\n\u{1}\u{9b}ü");
        assert_eq!(out, r#""a\"b\\c\r\n\u0001\u009bü""#);
    }
}
