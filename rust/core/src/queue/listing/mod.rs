//! The output of postqueue(1), read from disk while no queue manager runs.

pub mod find;
pub mod rows;

use super::segment::scan::{Found, SegmentReader};
use super::store::recovery;
use crate::mail::envelope::Envelope;
use crate::queue::disk::RealDisk;
use crate::queue::error::QueueError;
use crate::queue::state::Kept;
use rows::{Form, Head, Rows, Tail};
use std::collections::HashSet;
use std::path::Path;

/// Octets collected before a chunk is handed on.
pub const CHUNK_OCTETS: usize = 256 * 1024;

/// Prints the messages that are not in the queue yet; calls the function after every message, and stops when that
/// returns false.
pub type Submissions = fn(&Path, &mut Rows, &mut dyn FnMut(&mut Rows) -> bool) -> bool;

/// Print the queue: `submissions` first, then segment by segment. `take` gets the output in parts, and ends the listing
/// with false.
///
/// Changes nothing, and leaves out unreadable messages. A message that is being written may or may not be listed.
/// `long_queue_ids`: the form of the IDs.
/// them or not. `long_queue_ids`: the form of the IDs.
pub fn list_queue(
    queue_directory: &Path,
    form: Form,
    long_queue_ids: bool,
    submissions: Submissions,
    take: &mut dyn FnMut(&str) -> bool,
) -> Result<(), QueueError> {
    let disk = RealDisk::shared();
    let facts = recovery::facts(&*disk, queue_directory)?;
    let mut rows = Rows::new(form, long_queue_ids);
    let mut hand_on = |rows: &mut Rows| {
        let goes_on = rows.out.len() < CHUNK_OCTETS || take(&rows.out);
        if rows.out.len() >= CHUNK_OCTETS {
            rows.out.clear();
        }
        goes_on
    };
    let mut wanted = submissions(queue_directory, &mut rows, &mut hand_on);
    let mut seen = HashSet::new();
    for (_, id, path) in recovery::segments(&*disk, queue_directory)? {
        let Some(mut reader) = SegmentReader::open(&disk, path, id)? else { continue };
        let to = reader.octets()?.min(facts.ends.get(&id).copied().unwrap_or(u64::MAX));
        reader.scan(0, to, &mut |what| {
            let Found::Record { envelope, .. } = what else { return };
            let known = facts.messages.get(&envelope.id);
            let over = known.is_some_and(|known| known.is_over(envelope.recipients.len()));
            if !wanted || over || !seen.insert(envelope.id) {
                return;
            }
            let nothing = Kept::default();
            let kept = known.map_or(&nothing, |known| &known.kept);
            print(&mut rows, &envelope, kept, long_queue_ids, "for the mail system, which is down");
            wanted = hand_on(&mut rows);
        })?;
        if !wanted {
            return Ok(());
        }
    }
    rows.finish();
    take(&rows.out);
    Ok(())
}

/// Print a message with its envelope and its state. `waits`: its reason to wait unless it is on hold.
pub(crate) fn print(rows: &mut Rows, envelope: &Envelope, kept: &Kept, long_queue_ids: bool, waits: &str) {
    let (queue, waits) = match kept {
        Kept { held, released, .. } if *held || envelope.holds_on_arrival() && !released => {
            ("hold", "until it is released from hold")
        }
        Kept { next_attempt_us: Some(_), .. } => ("deferred", waits),
        _ => ("incoming", waits),
    };
    rows.begin(&Head {
        queue,
        name: &envelope.id.text(long_queue_ids),
        arrival_s: envelope.arrival_us / 1_000_000,
        size_octets: envelope.size_octets,
        forced_expire: kept.forced_expire,
        sender: &envelope.sender,
    });
    for (index, recipient) in (0u32..).zip(&envelope.recipients) {
        if kept.done.binary_search(&index).is_err() {
            let status = kept.reasons.iter().find(|(at, _)| *at == index).map(|(_, status)| &**status);
            rows.recipient(&recipient.address, recipient.original.as_deref(), status);
        }
    }
    let next_attempt_s = kept.next_attempt_us.map(|next_us| next_us / 1_000_000);
    rows.end(&Tail { attempts: kept.attempts, next_attempt_s, waits });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::envelope::Recipient;
    use crate::mail::id::QueueId;
    use crate::mail::reply::Enhanced;
    use crate::mail::status::{Outcome, Status};
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, envelope};
    use crate::queue::state::Fact;
    use crate::queue::store::spool::Spool;
    use std::sync::Arc;
    use std::time::Duration;

    fn commit(journal: &Journal, change: impl FnOnce(&mut Envelope)) -> QueueId {
        let draft = journal.draft().unwrap();
        let id = draft.id();
        let mut envelope = envelope(id, 2);
        envelope.arrival_us = 1_795_000_000_999_999;
        change(&mut envelope);
        journal.commit(draft, b"", &envelope, 0);
        assert!(journal.wait(Duration::from_secs(30))[0].result.is_ok());
        id
    }

    fn listed(directory: &Directory) -> String {
        let mut all = String::new();
        let mut take = |text: &str| {
            all.push_str(text);
            true
        };
        list_queue(directory.path(), Form::Json, true, |_, _, _| true, &mut take).unwrap();
        all
    }

    #[test]
    fn every_waiting_message_is_a_row_without_its_done_recipients() {
        let directory = Directory::new();
        assert_eq!(listed(&directory), "");
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
            Fact::Deferred {
                id: deferred,
                attempts: 1,
                next_attempt_us: 5_000_000,
                reasons: vec![(1, Arc::new(status))],
            },
            Fact::Done { id: deferred, recipients: vec![0].into() },
            Fact::Held { id: held },
            Fact::ForcedExpire { id: held },
            Fact::Removed { id: gone },
        ]);
        let line = |name: &str, id: QueueId, sender: &str, rest: &str| {
            let expired = id == held;
            format!(
                r#"{{"queue_name": "{name}", "queue_id": "{}", "arrival_time": 1795000000, "message_size": 7, "forced_expire": {expired}, "sender": "{sender}", "recipients": [{rest}}}
"#,
                id.long()
            )
        };
        let expected = [
            line(
                "deferred",
                deferred,
                "sender@example.org",
                r#"{"address": "r1@example.net", "delay_reason": "no \"route\""}], "attempts": 1, "next_attempt": 5, "waits": "for the mail system, which is down""#,
            ),
            line(
                "hold",
                held,
                "MAILER-DAEMON",
                r#"{"address": "\"a\\b\u0007ü\"@example.net"}], "attempts": 0, "waits": "until it is released from hold""#,
            ),
            line(
                "incoming",
                fresh,
                "sender@example.org",
                r#"{"address": "r0@example.net"}, {"address": "r1@example.net"}], "attempts": 0, "waits": "for the mail system, which is down""#,
            ),
        ];
        assert_eq!(listed(&directory), expected.concat());
    }

    #[test]
    fn a_reader_can_end_the_listing() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let long = "x".repeat(1000);
        commit(&journal, |envelope| {
            envelope.recipients = (0..1000).map(|n| Recipient::plain(&format!("{n}{long}@example.net"))).collect();
        });
        commit(&journal, |_| {});
        drop(journal);
        let mut calls = 0;
        let mut take = |_: &str| {
            calls += 1;
            false
        };
        list_queue(directory.path(), Form::Json, false, |_, _, _| true, &mut take).unwrap();
        assert_eq!(calls, 1);
    }
}
