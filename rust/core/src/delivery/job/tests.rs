//! A job in progress: its log lines and its result.

use super::*;
use crate::ipc::frame::{FrameReader, JobRecipient};
use crate::log::LogTarget;
use crate::mail::envelope::Envelope;
use crate::mail::id::QueueId;
use crate::mail::locator::{Locator, SegmentId};
use crate::mail::status::local_status;
use std::sync::Arc;

const SETTINGS: JobSettings = JobSettings { resolution_digits: 6, long_queue_ids: false, soft_bounce: false };

/// Return a job for recipients with these indexes, which arrived at 10 s and became active at 10.25 s.
pub(crate) fn job(indexes: &[u32]) -> Job {
    let recipient =
        |index| JobRecipient { index, recipient: Recipient::plain(&format!("r{index}@example.org")), status: None };
    Job {
        job: 7,
        kind: JobKind::Deliver,
        path: "incoming/0000000000000001".into(),
        locator: Locator { segment: SegmentId(1), offset: 0, record_octets: 10 },
        transport: "smtp".into(),
        nexthop: "example.org".into(),
        active_us: 10_250_000,
        envelope: Arc::new(Envelope {
            arrival_us: 10_000_000,
            size_octets: 5,
            ..Envelope::plain(QueueId(1 << 12), "s@example.org", vec![])
        }),
        recipients: indexes.iter().map(|index| recipient(*index)).collect(),
        traced: Vec::new(),
    }
}

fn handover(relay: &str, conn_use: u32) -> Handover<'_> {
    Handover { relay, conn_use, setup_us: 20_000, transmission_us: None, wall_now_us: 10_400_000 }
}

fn dsn(text: &str) -> Enhanced {
    text.parse().unwrap()
}

#[test]
fn a_final_status_is_logged_once_and_is_in_the_result() {
    let log = Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory);
    let mut job = job(&[4, 5, 9]);
    job.recipients[1].recipient.original = Some("list@example.org".into());
    let mut delivery = Delivery::new(job, SETTINGS, 10_251_000);
    let sent = local_status(dsn("2.0.0"), "250 2.0.0 Ok: queued as X");
    assert!(delivery.finish(1, sent.clone(), &handover("mx[192.0.2.1]:25", 2), &log));
    assert!(!delivery.finish(1, sent.clone(), &handover("none", 1), &log), "has a status");
    assert!(!delivery.finish(3, sent, &handover("none", 1), &log), "no such recipient");
    assert!(delivery.finish(2, local_status(dsn("5.1.1"), "no"), &handover("none", 1), &log));
    assert_eq!(
        log.take_lines(),
        [
            "000010: to=<r5@example.org>, orig_to=<list@example.org>, relay=mx[192.0.2.1]:25, conn_use=2, \
             delay=0.4, delays=0.25/0.001/0.02/0.13, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as X)",
            "000010: to=<r9@example.org>, relay=none, delay=0.4, delays=0.25/0.001/0.02/0.13, dsn=5.1.1, \
             status=bounced (no)",
        ]
    );
    let result = delivery.result();
    assert_eq!((result.job, result.id), (7, QueueId(1 << 12)));
    let indexes: Vec<_> = result.recipients.iter().map(|(index, status)| (*index, status.outcome)).collect();
    assert_eq!(indexes, [(5, Outcome::Sent), (9, Outcome::Bounced)]);
    assert_eq!((delivery.left(), delivery.open().collect::<Vec<_>>()), (1, vec![0]));
}

#[test]
fn the_line_shows_the_target_of_an_alias() {
    let log = Log::new("mx", "postfix", "local", 1, 0, LogTarget::Memory);
    let mut delivery = Delivery::new(job(&[0]), SETTINGS, 10_251_000);
    let status = local_status(dsn("2.0.0"), "delivered to mailbox");
    delivery.note(0, Some("a@example.org"), &status, None, &handover("local", 1), &log);
    assert_eq!(delivery.left(), 1);
    assert!(delivery.finish_as(0, Some("b@example.org"), status, None, &handover("local", 1), &log));
    let lines = log.take_lines();
    assert!(lines[0].starts_with("000010: to=<a@example.org>, orig_to=<r0@example.org>, relay=local, "));
    assert!(lines[1].starts_with("000010: to=<b@example.org>, orig_to=<r0@example.org>, relay=local, "));
}

/// Return a job of a message whose sender wants this report.
fn traced_job(trace: Trace, indexes: &[u32]) -> Job {
    let kind = if trace == Trace::Probe { JobKind::Probe } else { JobKind::Deliver };
    let job = job(indexes);
    Job { kind, envelope: Arc::new(Envelope { trace, ..Envelope::clone(&job.envelope) }), ..job }
}

fn frames(delivery: &Delivery) -> Vec<Frame> {
    let mut octets = Vec::new();
    delivery.encode_result(&mut octets);
    let mut reader = FrameReader::default();
    reader.receive(&octets);
    std::iter::from_fn(|| reader.next_frame().unwrap()).collect()
}

#[test]
fn a_probe_is_deliverable_or_not_and_never_sent() {
    let log = Log::new("mx", "postfix", "local", 1, 0, LogTarget::Memory);
    let settings = JobSettings { soft_bounce: true, ..SETTINGS };
    let mut delivery = Delivery::new(traced_job(Trace::Probe, &[0, 1, 2]), settings, 10_251_000);
    for (position, code, text) in [(0, "2.0.0", "delivers to maildir"), (1, "4.4.1", "later"), (2, "5.1.1", "no")] {
        delivery.finish(position, local_status(dsn(code), text), &handover("local", 1), &log);
    }
    let lines = log.take_lines();
    for (line, end) in lines.iter().zip([
        "dsn=2.0.0, status=deliverable (delivers to maildir)",
        "dsn=4.4.1, status=undeliverable (later)",
        "dsn=5.1.1, status=undeliverable (no)",
    ]) {
        assert!(line.ends_with(end), "{line}");
    }
    let [Frame::Traced { job: 7, traced }, Frame::Result(result)] = &frames(&delivery)[..] else { panic!() };
    let actions: Vec<_> = traced.iter().map(|one| (one.index, one.action.word(), &*one.relay)).collect();
    assert_eq!(actions, [(0, "deliverable", "local"), (1, "undeliverable", "local"), (2, "undeliverable", "local")]);
    assert_eq!(traced[2].status.dsn, dsn("5.1.1"), "soft_bounce defers nothing");
    assert!(result.recipients.iter().all(|(_, status)| status.outcome != Outcome::Sent));
}

#[test]
fn a_first_attempt_is_reported_as_it_is_logged() {
    let log = Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory);
    let mut delivery = Delivery::new(traced_job(Trace::Record, &[0, 1]), SETTINGS, 10_251_000);
    let target = local_status(dsn("2.0.0"), "forwarded as X");
    delivery.note(0, Some("t@example.org"), &target, Some(Action::Relayed), &handover("local", 1), &log);
    let status = Status { remote: Some("mx:25".into()), ..local_status(dsn("2.0.0"), "250 ok") };
    delivery.finish(0, status, &handover("mx[192.0.2.1]:25", 1), &log);
    delivery.finish(1, local_status(dsn("4.2.0"), "later"), &handover("none", 1), &log);
    let [Frame::Traced { traced, .. }, Frame::Result(result)] = &frames(&delivery)[..] else { panic!() };
    let actions: Vec<_> = traced.iter().map(|one| (&*one.address, one.action.word())).collect();
    assert_eq!(actions, [("t@example.org", "relayed"), ("r0@example.org", "relayed"), ("r1@example.org", "delayed")]);
    assert_eq!(result.recipients[0].1.outcome, Outcome::Sent);
}

#[test]
fn a_report_of_an_alias_with_many_targets_has_an_end() {
    let log = Log::new("mx", "postfix", "local", 1, 0, LogTarget::Memory);
    let mut delivery = Delivery::new(traced_job(Trace::Probe, &[0]), SETTINGS, 10_251_000);
    for _ in 0..=TRACED_MAX {
        delivery.note(0, Some("t@example.org"), &local_status(dsn("2.0.0"), "a"), None, &handover("local", 1), &log);
    }
    let Frame::Traced { traced, .. } = &frames(&delivery)[0] else { panic!() };
    assert_eq!(traced.len(), TRACED_MAX);
}

#[test]
fn only_a_bounce_finishes_recipients_by_telling_the_sender() {
    let log = Log::new("mx", "postfix", "bounce", 1, 0, LogTarget::Memory);
    for (kind, finishes) in
        [(JobKind::Bounce, true), (JobKind::Warn, false), (JobKind::Confirm, false), (JobKind::Report, false)]
    {
        let mut delivery = Delivery::new(Job { kind, ..job(&[0]) }, SETTINGS, 10_251_000);
        delivery.finish(0, local_status(dsn("2.0.0"), "reported"), &handover("none", 1), &log);
        assert_eq!(matches!(&frames(&delivery)[..], [Frame::Result(_)]), finishes, "{kind:?}");
        assert_eq!(delivery.result().recipients[0].1.outcome, Outcome::Sent);
    }
}

#[test]
fn a_report_logs_no_second_status() {
    let log = Log::new("mx", "postfix", "bounce", 1, 0, LogTarget::Memory);
    let mut delivery = Delivery::new(Job { kind: JobKind::Bounce, ..job(&[0]) }, SETTINGS, 10_251_000);
    assert!(delivery.finish(0, local_status(dsn("2.0.0"), "reported"), &handover("none", 1), &log));
    assert_eq!((delivery.result().recipients.len(), log.take_lines().len()), (1, 0));
}

#[test]
fn a_soft_status_is_final_only_from_the_last_server() {
    let log = Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory);
    let mut delivery = Delivery::new(job(&[0, 1, 2]), SETTINGS, 10_251_000);
    let later = local_status(dsn("4.2.0"), "later");
    delivery.apply(0, later.clone(), false, &handover("a[192.0.2.1]:25", 1), &log);
    delivery.apply(1, local_status(dsn("5.1.1"), "never"), false, &handover("a[192.0.2.1]:25", 1), &log);
    assert_eq!(delivery.open().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(log.take_lines()[0], "000010: later");
    delivery.failed(&later, false, &handover("a[192.0.2.1]:25", 1), &log);
    assert_eq!((log.take_lines(), delivery.result().site), (vec!["000010: later".to_owned()], None));
    delivery.failed(&later, true, &handover("b[192.0.2.2]:25", 1), &log);
    assert_eq!((log.take_lines().len(), delivery.left()), (2, 0));
    assert_eq!(delivery.result().site, Some(later));
}

#[test]
fn a_destination_that_completed_a_transaction_has_not_failed() {
    let log = Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory);
    let mut delivery = Delivery::new(job(&[0]), SETTINGS, 10_251_000);
    delivery.session_completed();
    delivery.failed(&local_status(dsn("4.4.1"), "connect"), true, &handover("none", 1), &log);
    assert_eq!((delivery.left(), delivery.result().site), (0, None));
}

#[test]
fn recipients_are_found_by_their_index() {
    let delivery = Delivery::new(job(&[3, 4, 8]), SETTINGS, 0);
    for (index, position) in [(3, Some(0)), (4, Some(1)), (8, Some(2)), (5, None), (0, None), (u32::MAX, None)] {
        assert_eq!(delivery.position(index), position, "{index}");
    }
    let report = Delivery::new(job(&[7, 2, 9]), SETTINGS, 0);
    for (index, position) in [(7, Some(0)), (2, Some(1)), (9, Some(2)), (8, None)] {
        assert_eq!(report.position(index), position, "{index}");
    }
}

#[test]
fn soft_bounce_defers() {
    let log = Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory);
    let settings = JobSettings { soft_bounce: true, ..SETTINGS };
    let mut delivery = Delivery::new(job(&[0]), settings, 10_251_000);
    delivery.finish(0, local_status(dsn("5.1.1"), "no"), &handover("none", 1), &log);
    let status = delivery.finished(0).unwrap();
    assert_eq!((status.outcome, status.dsn), (Outcome::Deferred, dsn("4.1.1")));
    let line = log.take_lines().concat();
    assert!(line.contains("dsn=4.1.1, status=SOFTBOUNCE (no)"), "{line}");
}
