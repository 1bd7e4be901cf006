//! The queue as `postqueue -j` prints it, read from disk while no queue manager runs (postqueue(1)).

use crate::ipc::frame::Arrival;
use crate::queue::disk::RealDisk;
use crate::queue::error::QueueError;
use crate::queue::recovery;
use crate::queue::scan::{Found, SegmentReader};
use crate::queue::state::Kept;
use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

/// One JSON object a message, without a line end, in the order of their IDs. `long_queue_ids`: the form of the IDs.
///
/// Nothing is changed, and what cannot be read is left out. Messages that a live process is just writing may be among
/// them or not.
pub fn read_queue(queue_directory: &Path, long_queue_ids: bool) -> Result<Vec<String>, QueueError> {
    let facts = recovery::facts(&RealDisk, queue_directory)?;
    let mut seen = HashSet::new();
    let mut lines = Vec::new();
    let disk = RealDisk::shared();
    for (_, id, path) in recovery::segments(&*disk, queue_directory)? {
        let Some(mut reader) = SegmentReader::open(&disk, path, id)? else { continue };
        let to = reader.octets()?.min(facts.ends.get(&id).copied().unwrap_or(u64::MAX));
        reader.scan(0, to, &mut |what| {
            let Found::Record { locator, envelope } = what else { return };
            let known = facts.messages.get(&envelope.id).cloned().unwrap_or_default();
            if !known.is_over(envelope.recipients.len()) && seen.insert(envelope.id) {
                let arrival = Arrival { locator, envelope };
                lines.push((arrival.envelope.id, json_line(&arrival, &known.kept, long_queue_ids)));
            }
        })?;
    }
    lines.sort();
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

fn json_line(Arrival { envelope, .. }: &Arrival, kept: &Kept, long_queue_ids: bool) -> String {
    let queue_name = match kept {
        Kept { held: true, .. } => "hold",
        Kept { next_attempt_us: Some(_), .. } => "deferred",
        _ => "incoming",
    };
    let mut line = format!(
        r#"{{"queue_name": "{queue_name}", "queue_id": "{}", "arrival_time": {}, "message_size": {}, "#,
        envelope.id.text(long_queue_ids),
        envelope.arrival_us / 1_000_000,
        envelope.size_octets,
    );
    line.push_str(r#""forced_expire": false, "sender": "#);
    let sender = if envelope.sender.is_empty() { "MAILER-DAEMON" } else { &envelope.sender };
    push_text(&mut line, sender);
    line.push_str(r#", "recipients": ["#);
    let mut first = true;
    for (index, recipient) in (0u32..).zip(&envelope.recipients) {
        if kept.done.binary_search(&index).is_ok() {
            continue;
        }
        line.push_str(if std::mem::take(&mut first) { r#"{"address": "# } else { r#", {"address": "# });
        push_text(&mut line, &recipient.address);
        if let Some((_, status)) = kept.reasons.iter().find(|(at, _)| *at == index) {
            line.push_str(r#", "delay_reason": "#);
            push_text(&mut line, &status.text);
        }
        line.push('}');
    }
    line.push_str("]}");
    line
}

/// A JSON string (RFC 8259 §7).
fn push_text(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(line, "\\u{:04x}", c as u32);
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::frame::{Outcome, Status};
    use crate::message::envelope::{Envelope, Recipient};
    use crate::queue::id::QueueId;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::spool::Spool;
    use crate::queue::state::Fact;
    use crate::queue::testing::{Directory, envelope};
    use crate::smtp::reply::Enhanced;
    use std::time::Duration;

    fn commit(journal: &Journal, change: impl FnOnce(&mut Envelope)) -> QueueId {
        let draft = journal.draft().unwrap();
        let id = draft.id();
        let mut envelope = envelope(id, 2);
        envelope.arrival_us = 1_795_000_000_999_999;
        change(&mut envelope);
        journal.commit(draft, &envelope, 0);
        assert!(journal.wait(Duration::from_secs(30))[0].result.is_ok());
        id
    }

    #[test]
    fn every_waiting_message_is_a_line_and_done_recipients_are_left_out() {
        let directory = Directory::new();
        assert_eq!(read_queue(directory.path(), false), Ok(vec![]));
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let deferred = commit(&journal, |_| {});
        let held = commit(&journal, |envelope| {
            envelope.sender = "".into();
            envelope.recipients = vec![Recipient::plain("\"a\\b\u{7}ü\"@example.net")];
        });
        let gone = commit(&journal, |_| {});
        let fresh = commit(&journal, |_| {});
        drop(journal);
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        let dsn = Enhanced { class: 4, subject: 4, detail: 1 };
        let status = Status { outcome: Outcome::Deferred, dsn, text: "no \"route\"".into(), remote: None };
        spool.note_all(&[
            Fact::Deferred { id: deferred, attempts: 1, next_attempt_us: 5, reasons: vec![(1, status)] },
            Fact::Done { id: deferred, recipients: vec![0] },
            Fact::Held { id: held },
            Fact::Removed { id: gone },
        ]);
        let line = |name: &str, id: QueueId, sender: &str, recipients: &str| {
            format!(
                r#"{{"queue_name": "{name}", "queue_id": "{}", "arrival_time": 1795000000, "message_size": 7, "forced_expire": false, "sender": "{sender}", "recipients": [{recipients}]}}"#,
                id.long()
            )
        };
        let expected = [
            line(
                "deferred",
                deferred,
                "sender@example.org",
                r#"{"address": "r1@example.net", "delay_reason": "no \"route\""}"#,
            ),
            line("hold", held, "MAILER-DAEMON", r#"{"address": "\"a\\b\u0007ü\"@example.net"}"#),
            line(
                "incoming",
                fresh,
                "sender@example.org",
                r#"{"address": "r0@example.net"}, {"address": "r1@example.net"}"#,
            ),
        ];
        assert_eq!(read_queue(directory.path(), true).unwrap(), expected);
    }
}
