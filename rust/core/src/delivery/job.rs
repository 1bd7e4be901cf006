//! A job in progress: the status of each recipient, its log line, and the result for the queue manager.
//!
//! A recipient gets its final status once. A recipient without one counts as deferred, so an agent that is stopped at
//! any point loses no mail.

use super::delays::Delay;
use crate::ipc::frame::{Frame, Job, JobKind, JobResult};
use crate::log::Log;
use crate::mail::envelope::Recipient;
use crate::mail::reply::Enhanced;
use crate::mail::status::{Outcome, Status};
use std::fmt;

/// The fields of a recipient's log line besides its status.
#[derive(Debug, Clone, Copy)]
pub struct Handover<'a> {
    /// The host that accepted or refused the message, as `name[address]:port`; `none`; `local`; a program.
    pub relay: &'a str,
    /// The number of the delivery on its connection, counted from 1. The log line shows it from 2 on.
    pub conn_use: u32,
    /// Microseconds from the agent's receipt of the job until the connection was ready.
    pub setup_us: u64,
    /// Microseconds since then; `None`: calculated from the receipt of the job, `setup_us` and `wall_now_us`.
    pub transmission_us: Option<u64>,
    /// Microseconds since 1970.
    pub wall_now_us: u64,
}

/// An agent's settings for its jobs.
#[derive(Debug, Clone, Copy)]
pub struct JobSettings {
    /// delay_logging_resolution_limit
    pub resolution_digits: u32,
    /// enable_long_queue_ids
    pub long_queue_ids: bool,
    /// soft_bounce: a recipient is deferred instead of bounced.
    pub soft_bounce: bool,
}

/// A job and the status of its recipients.
#[derive(Debug)]
pub struct Delivery {
    job: Job,
    id: Box<str>,
    settings: JobSettings,
    handoff_us: u64,
    finished: Vec<Option<Status>>,
    left: usize,
    site: Option<Status>,
    session_completed: bool,
    heard: Option<Status>,
    next_hop_reports: bool,
    delivered: Vec<u32>,
}

impl Delivery {
    /// Create the state of a job that the agent received at `handoff_us` (microseconds since 1970).
    pub fn new(job: Job, settings: JobSettings, handoff_us: u64) -> Self {
        let id = job.envelope.id.text(settings.long_queue_ids).into();
        let left = job.recipients.len();
        Self {
            job,
            id,
            settings,
            handoff_us,
            finished: vec![None; left],
            left,
            site: None,
            session_completed: false,
            heard: None,
            next_hop_reports: false,
            delivered: Vec::new(),
        }
    }

    /// Return the job as the queue manager sent it.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Return the queue ID, in the form of enable_long_queue_ids.
    pub fn queue_id(&self) -> &str {
        &self.id
    }

    /// Return the number of recipients without a final status.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Return the final status of the recipient at `position` in the job; `None` while it has none.
    pub fn finished(&self, position: usize) -> Option<&Status> {
        self.finished.get(position)?.as_ref()
    }

    /// Return the positions of the recipients without a final status, in order.
    pub fn open(&self) -> impl Iterator<Item = usize> + '_ {
        self.finished.iter().enumerate().filter(|(_, status)| status.is_none()).map(|(position, _)| position)
    }

    /// Return the recipients without a final status, with their positions, in order.
    pub fn open_recipients(&self) -> impl Iterator<Item = (usize, &Recipient)> {
        self.open().map(|position| (position, &self.job.recipients[position].recipient))
    }

    /// Return the position in the job of the recipient with this index in the envelope.
    pub fn position(&self, index: u32) -> Option<usize> {
        let recipients = &self.job.recipients;
        // Most jobs hold consecutive recipients of the envelope. Then the first guess is right. The recipients of a report
        // come in the order in which they got their status.
        let guess = index.wrapping_sub(recipients.first()?.index) as usize;
        if recipients.get(guess).is_some_and(|r| r.index == index) {
            return Some(guess);
        }
        recipients.iter().position(|r| r.index == index)
    }

    /// Give the recipient at `position` its final status, and log it. Returns false, and changes nothing, when it has
    /// one.
    pub fn finish(&mut self, position: usize, status: Status, handover: &Handover<'_>, log: &Log) -> bool {
        self.finish_as(position, None, status, handover, log)
    }

    /// As `finish`, with the recipient as `orig_to` and the target of its alias or .forward file, `address`, as `to`.
    ///
    /// A job that reports to the sender logs no line: the reported deliveries have theirs. With soft_bounce, the line
    /// of a bounce says `SOFTBOUNCE`.
    pub fn finish_as(
        &mut self,
        position: usize,
        address: Option<&str>,
        status: Status,
        handover: &Handover<'_>,
        log: &Log,
    ) -> bool {
        match self.finished.get(position) {
            Some(None) => {}
            _ => return false,
        }
        if self.job.kind == JobKind::Deliver {
            self.note(position, address, &status, handover, log);
        }
        let status = self.softened(status);
        let recipient = &self.job.recipients[position];
        let asked = self.job.kind == JobKind::Deliver && recipient.recipient.notify.on_success();
        if asked && status.outcome == Outcome::Sent && !self.next_hop_reports {
            self.delivered.push(recipient.index);
        }
        self.finished[position] = Some(status);
        self.left -= 1;
        true
    }

    /// Log the status of one of a recipient's several targets. The recipient keeps its own status.
    pub fn note(&self, position: usize, address: Option<&str>, status: &Status, handover: &Handover<'_>, log: &Log) {
        log.info(format_args!("{}", Line { delivery: self, position, address, status, handover }));
    }

    /// Report that the whole destination failed, so that the queue manager reduces its concurrency. Has no effect when
    /// a server of the destination completed a transaction in this delivery, whatever its replies to the recipients
    /// were.
    pub fn site_failed(&mut self, status: Status) {
        if !self.session_completed {
            self.site = Some(status);
        }
    }

    /// Note whether the next hop reports the delivery to the sender (DSN, RFC 3461 §5.2).
    pub fn next_hop_reports(&mut self, reports: bool) {
        self.next_hop_reports = reports;
    }

    /// Note that a server completed a transaction.
    pub fn session_completed(&mut self) {
        self.session_completed = true;
    }

    /// Apply a server's status for one recipient. A soft one is final only from the `last` server.
    pub fn apply(&mut self, position: usize, status: Status, last: bool, handover: &Handover<'_>, log: &Log) {
        if !last && self.softened(status.clone()).outcome == Outcome::Deferred {
            self.heard(status, log);
        } else {
            self.finish(position, status, handover, log);
        }
    }

    /// Apply a server's failure to all recipients without a final status. A soft failure is final only from the `last`
    /// server.
    pub fn failed(&mut self, status: &Status, last: bool, handover: &Handover<'_>, log: &Log) {
        let soft = self.softened(status.clone()).outcome == Outcome::Deferred;
        if !last && soft {
            return self.heard(status.clone(), log);
        }
        let open: Vec<_> = self.open().collect();
        if open.is_empty() {
            // An unreadable message ended the session, not the server.
            return;
        }
        for position in open {
            self.finish(position, status.clone(), handover, log);
        }
        if soft {
            self.site_failed(status.clone());
        }
    }

    /// Log a server's failure that another server may not have, and keep it for `last_heard`.
    pub fn heard(&mut self, status: Status, log: &Log) {
        log.info(format_args!("{}: {}", self.id, status.text));
        self.heard = Some(status);
    }

    /// Return the last failure that left recipients for another server.
    pub fn last_heard(&self) -> Option<&Status> {
        self.heard.as_ref()
    }

    /// Return when the agent received the job, in microseconds since 1970.
    pub fn handoff_us(&self) -> u64 {
        self.handoff_us
    }

    /// Return the result. It leaves out recipients without a final status; the queue manager defers them.
    pub fn result(&self) -> JobResult {
        let recipients = self.job.recipients.iter().zip(&self.finished);
        JobResult {
            job: self.job.job,
            id: self.job.envelope.id,
            site: self.site.clone(),
            recipients: recipients.filter_map(|(r, status)| Some((r.index, status.clone()?))).collect(),
        }
    }

    /// Append the frames for the queue manager: the recipients whose delivery is to be reported, then the result.
    pub fn encode_result(&self, out: &mut Vec<u8>) {
        if !self.delivered.is_empty() {
            Frame::Delivered { job: self.job.job, recipients: self.delivered.clone() }.encode(out);
        }
        Frame::Result(self.result()).encode(out);
    }

    fn softened(&self, mut status: Status) -> Status {
        if self.settings.soft_bounce && status.outcome == Outcome::Bounced {
            status.outcome = Outcome::Deferred;
            status.dsn.class = 4;
        }
        status
    }
}

/// `ID: to=<...>, orig_to=<...>, relay=..., delay=..., delays=a/b/c/d, dsn=..., status=sent (...)`: Postfix's line,
/// which log analysers parse. The four delays: before the queue manager, in it, connection setup, transmission.
struct Line<'a> {
    delivery: &'a Delivery,
    position: usize,
    address: Option<&'a str>,
    status: &'a Status,
    handover: &'a Handover<'a>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Delivery { job, id, settings, handoff_us, .. } = self.delivery;
        let recipient = &job.recipients[self.position].recipient;
        let address = self.address.unwrap_or(&recipient.address);
        write!(f, "{id}: to=<{address}>")?;
        let original = recipient.original.as_deref().filter(|original| !original.is_empty());
        let original = original.unwrap_or(&recipient.address);
        if !original.eq_ignore_ascii_case(address) {
            write!(f, ", orig_to=<{original}>")?;
        }
        write!(f, ", relay={}", self.handover.relay)?;
        if self.handover.conn_use > 1 {
            write!(f, ", conn_use={}", self.handover.conn_use)?;
        }
        let (dsn, word) = match self.status {
            Status { outcome: Outcome::Bounced, dsn, .. } if settings.soft_bounce => {
                (Enhanced { class: 4, ..*dsn }, "SOFTBOUNCE")
            }
            Status { outcome, dsn, .. } => (*dsn, word(*outcome)),
        };
        let delay = |us| Delay { us, resolution_digits: settings.resolution_digits };
        let now = self.handover.wall_now_us;
        let arrival = job.envelope.arrival_us;
        let setup = self.handover.setup_us;
        let rest = now.saturating_sub(*handoff_us).saturating_sub(setup);
        write!(
            f,
            ", delay={}, delays={}/{}/{}/{}, dsn={}, status={} ({})",
            delay(now.saturating_sub(arrival)),
            delay(job.active_us.saturating_sub(arrival)),
            delay(handoff_us.saturating_sub(job.active_us)),
            delay(setup),
            delay(self.handover.transmission_us.unwrap_or(rest)),
            dsn,
            word,
            self.status.text,
        )
    }
}

/// Return the word for an outcome in a log line.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Sent => "sent",
        Outcome::Deferred => "deferred",
        Outcome::Bounced => "bounced",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ipc::frame::JobRecipient;
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
        delivery.note(0, Some("a@example.org"), &status, &handover("local", 1), &log);
        assert_eq!(delivery.left(), 1);
        assert!(delivery.finish_as(0, Some("b@example.org"), status, &handover("local", 1), &log));
        let lines = log.take_lines();
        assert!(lines[0].starts_with("000010: to=<a@example.org>, orig_to=<r0@example.org>, relay=local, "));
        assert!(lines[1].starts_with("000010: to=<b@example.org>, orig_to=<r0@example.org>, relay=local, "));
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
}
