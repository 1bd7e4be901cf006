//! A job while it is worked on: who is settled, with which log line, and the answer to the queue manager.
//!
//! A recipient is settled once. What is not settled when the answer is made up counts as deferred, so an agent that is
//! stopped at any point loses nothing.

use super::delays::Delay;
use crate::ipc::frame::{Job, JobKind, JobResult};
use crate::log::Log;
use crate::mail::reply::Enhanced;
use crate::mail::status::{Outcome, Status};
use std::fmt;

/// Times and names that a recipient's log line carries besides its status.
#[derive(Debug, Clone, Copy)]
pub struct Handover<'a> {
    /// The host that took or refused it, as `name[address]:port`; `none`; `local`; a program.
    pub relay: &'a str,
    /// Which delivery over the same connection this was, counted from 1; shown from 2 on.
    pub conn_use: u32,
    /// Microseconds until the connection stood.
    pub setup_us: u64,
    /// Microseconds since then; `None`: all the time since the agent got the job and `setup_us`.
    pub transmission_us: Option<u64>,
    /// Microseconds since 1970.
    pub wall_now_us: u64,
}

/// What an agent's settings say about its jobs.
#[derive(Debug, Clone, Copy)]
pub struct JobSettings {
    /// delay_logging_resolution_limit
    pub resolution_digits: u32,
    /// enable_long_queue_ids
    pub long_queue_ids: bool,
    /// soft_bounce: what would bounce is deferred.
    pub soft_bounce: bool,
}

/// A job and what has become of its recipients.
#[derive(Debug)]
pub struct Delivery {
    job: Job,
    id: Box<str>,
    settings: JobSettings,
    handoff_us: u64,
    settled: Vec<Option<Status>>,
    left: usize,
    site: Option<Status>,
    session_completed: bool,
    heard: Option<Status>,
    next_hop_reports: bool,
    delivered: Vec<u32>,
}

impl Delivery {
    /// Work that the queue manager handed over at `handoff_us` (microseconds since 1970).
    pub fn new(job: Job, settings: JobSettings, handoff_us: u64) -> Self {
        let id = job.envelope.id.text(settings.long_queue_ids).into();
        let left = job.recipients.len();
        Self {
            job,
            id,
            settings,
            handoff_us,
            settled: vec![None; left],
            left,
            site: None,
            session_completed: false,
            heard: None,
            next_hop_reports: false,
            delivered: Vec::new(),
        }
    }

    /// The work.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The message's name in the queue, in the form that the site chose.
    pub fn queue_id(&self) -> &str {
        &self.id
    }

    /// Recipients that are not settled.
    pub fn left(&self) -> usize {
        self.left
    }

    /// How the recipient at `position` in the job fared; `None` while that is open.
    pub fn settled(&self, position: usize) -> Option<&Status> {
        self.settled.get(position)?.as_ref()
    }

    /// Positions of the recipients that are not settled, in order.
    pub fn open(&self) -> impl Iterator<Item = usize> + '_ {
        self.settled.iter().enumerate().filter(|(_, status)| status.is_none()).map(|(position, _)| position)
    }

    /// Where in the job the recipient with this index in the envelope stands.
    pub fn position(&self, index: u32) -> Option<usize> {
        let recipients = &self.job.recipients;
        // Most jobs hold a run of the envelope's recipients: then this guess is right.
        let guess = index.checked_sub(recipients.first()?.index)? as usize;
        if recipients.get(guess).is_some_and(|r| r.index == index) {
            return Some(guess);
        }
        recipients.iter().position(|r| r.index == index)
    }

    /// Settle the recipient at `position`, and log it. A recipient that is settled already stays as it is: `false`.
    pub fn settle(&mut self, position: usize, status: Status, handover: &Handover<'_>, log: &Log) -> bool {
        self.settle_as(position, None, status, handover, log)
    }

    /// As `settle`; the line shows `address`, where an alias or a .forward file led, and the recipient as `orig_to`.
    ///
    /// A job that reports to the sender has no line: what it reports was logged when it happened. The line of what was
    /// refused for good and is tried again all the same (soft_bounce) says so: `SOFTBOUNCE`.
    pub fn settle_as(
        &mut self,
        position: usize,
        address: Option<&str>,
        status: Status,
        handover: &Handover<'_>,
        log: &Log,
    ) -> bool {
        match self.settled.get(position) {
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
        self.settled[position] = Some(status);
        self.left -= 1;
        true
    }

    /// Log what became of one of several places where the recipient's mail went; it stays unsettled.
    pub fn note(&self, position: usize, address: Option<&str>, status: &Status, handover: &Handover<'_>, log: &Log) {
        log.info(format_args!("{}", Line { delivery: self, position, address, status, handover }));
    }

    /// The destination as a whole failed: the queue manager slows it down. Not so when a server of the destination
    /// went through with a transaction in this delivery, whatever it said of the recipients.
    pub fn site_failed(&mut self, status: Status) {
        if !self.session_completed {
            self.site = Some(status);
        }
    }

    /// Does whoever takes the message now report its delivery to the sender (DSN, RFC 3461 §5.2)?
    pub fn next_hop_reports(&mut self, reports: bool) {
        self.next_hop_reports = reports;
    }

    /// The recipients whose delivery is for us to report, by their index in the envelope.
    pub fn delivered(&self) -> &[u32] {
        &self.delivered
    }

    /// A server went through with a transaction.
    pub fn session_completed(&mut self) {
        self.session_completed = true;
    }

    /// A server's verdict on one recipient: unless it is the `last` server to be tried, a soft one is only noted.
    pub fn verdict(&mut self, position: usize, status: Status, last: bool, handover: &Handover<'_>, log: &Log) {
        if !last && self.softened(status.clone()).outcome == Outcome::Deferred {
            self.heard(status, log);
        } else {
            self.settle(position, status, handover, log);
        }
    }

    /// A server failed in a way that concerns all recipients that are open: unless it is the `last` server to be
    /// tried, a soft failure is only noted.
    pub fn failed(&mut self, status: &Status, last: bool, handover: &Handover<'_>, log: &Log) {
        let soft = self.softened(status.clone()).outcome == Outcome::Deferred;
        if !last && soft {
            return self.heard(status.clone(), log);
        }
        let open: Vec<_> = self.open().collect();
        if open.is_empty() {
            // Our own trouble with the message ended the session: the site did nothing wrong.
            return;
        }
        for position in open {
            self.settle(position, status.clone(), handover, log);
        }
        if soft {
            self.site_failed(status.clone());
        }
    }

    /// A server failed in a way that another one may not: noted, and the last word if no other is found.
    pub fn heard(&mut self, status: Status, log: &Log) {
        log.info(format_args!("{}: {}", self.id, status.text));
        self.heard = Some(status);
    }

    /// What the last server said that did not settle everybody.
    pub fn last_heard(&self) -> Option<&Status> {
        self.heard.as_ref()
    }

    /// Microseconds since 1970 when the agent got the job.
    pub fn handoff_us(&self) -> u64 {
        self.handoff_us
    }

    /// The answer. Recipients that are open are left out, which the queue manager reads as deferred.
    pub fn result(&self) -> JobResult {
        let recipients = self.job.recipients.iter().zip(&self.settled);
        JobResult {
            job: self.job.job,
            id: self.job.envelope.id,
            site: self.site.clone(),
            recipients: recipients.filter_map(|(r, status)| Some((r.index, status.clone()?))).collect(),
        }
    }

    fn softened(&self, mut status: Status) -> Status {
        if self.settings.soft_bounce && status.outcome == Outcome::Bounced {
            status.outcome = Outcome::Deferred;
            status.dsn.class = 4;
        }
        status
    }
}

/// `ID: to=<...>, orig_to=<...>, relay=..., delay=..., delays=a/b/c/d, dsn=..., status=sent (...)`; log analysers read
/// it field by field. The four delays: before the queue manager, in it, setting up the connection, transmission.
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

/// The word that the log has for an outcome.
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
    use crate::log::Destination;
    use crate::mail::envelope::{Envelope, Recipient};
    use crate::mail::id::QueueId;
    use crate::mail::locator::{Locator, SegmentId};
    use crate::mail::status::local_status;
    use std::sync::Arc;

    const SETTINGS: JobSettings = JobSettings { resolution_digits: 6, long_queue_ids: false, soft_bounce: false };

    /// A job for recipients with these indexes; it arrived at 10 s and became active at 10.25 s.
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
    fn a_settled_recipient_has_a_line_and_a_place_in_the_result() {
        let log = Log::new("mx", "postfix", "smtp", 1, 0, Destination::Memory);
        let mut job = job(&[4, 5, 9]);
        job.recipients[1].recipient.original = Some("list@example.org".into());
        let mut delivery = Delivery::new(job, SETTINGS, 10_251_000);
        let sent = local_status(dsn("2.0.0"), "250 2.0.0 Ok: queued as X");
        assert!(delivery.settle(1, sent.clone(), &handover("mx[192.0.2.1]:25", 2), &log));
        assert!(!delivery.settle(1, sent.clone(), &handover("none", 1), &log), "settled twice");
        assert!(!delivery.settle(3, sent, &handover("none", 1), &log), "no such recipient");
        assert!(delivery.settle(2, local_status(dsn("5.1.1"), "no"), &handover("none", 1), &log));
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
    fn lines_show_where_an_alias_led() {
        let log = Log::new("mx", "postfix", "local", 1, 0, Destination::Memory);
        let mut delivery = Delivery::new(job(&[0]), SETTINGS, 10_251_000);
        let status = local_status(dsn("2.0.0"), "delivered to mailbox");
        delivery.note(0, Some("a@example.org"), &status, &handover("local", 1), &log);
        assert_eq!(delivery.left(), 1);
        assert!(delivery.settle_as(0, Some("b@example.org"), status, &handover("local", 1), &log));
        let lines = log.take_lines();
        assert!(lines[0].starts_with("000010: to=<a@example.org>, orig_to=<r0@example.org>, relay=local, "));
        assert!(lines[1].starts_with("000010: to=<b@example.org>, orig_to=<r0@example.org>, relay=local, "));
    }

    #[test]
    fn a_job_that_reports_logs_no_second_status() {
        let log = Log::new("mx", "postfix", "bounce", 1, 0, Destination::Memory);
        let mut delivery = Delivery::new(Job { kind: JobKind::Bounce, ..job(&[0]) }, SETTINGS, 10_251_000);
        assert!(delivery.settle(0, local_status(dsn("2.0.0"), "reported"), &handover("none", 1), &log));
        assert_eq!((delivery.result().recipients.len(), log.take_lines().len()), (1, 0));
    }

    #[test]
    fn a_soft_verdict_waits_for_the_last_server() {
        let log = Log::new("mx", "postfix", "smtp", 1, 0, Destination::Memory);
        let mut delivery = Delivery::new(job(&[0, 1, 2]), SETTINGS, 10_251_000);
        let later = local_status(dsn("4.2.0"), "later");
        delivery.verdict(0, later.clone(), false, &handover("a[192.0.2.1]:25", 1), &log);
        delivery.verdict(1, local_status(dsn("5.1.1"), "never"), false, &handover("a[192.0.2.1]:25", 1), &log);
        assert_eq!(delivery.open().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(log.take_lines()[0], "000010: later");
        delivery.failed(&later, false, &handover("a[192.0.2.1]:25", 1), &log);
        assert_eq!((log.take_lines(), delivery.result().site), (vec!["000010: later".to_owned()], None));
        delivery.failed(&later, true, &handover("b[192.0.2.2]:25", 1), &log);
        assert_eq!((log.take_lines().len(), delivery.left()), (2, 0));
        assert_eq!(delivery.result().site, Some(later));
    }

    #[test]
    fn a_destination_that_answered_has_not_failed() {
        let log = Log::new("mx", "postfix", "smtp", 1, 0, Destination::Memory);
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
    }

    #[test]
    fn soft_bounce_defers() {
        let log = Log::new("mx", "postfix", "smtp", 1, 0, Destination::Memory);
        let settings = JobSettings { soft_bounce: true, ..SETTINGS };
        let mut delivery = Delivery::new(job(&[0]), settings, 10_251_000);
        delivery.settle(0, local_status(dsn("5.1.1"), "no"), &handover("none", 1), &log);
        let status = delivery.settled(0).unwrap();
        assert_eq!((status.outcome, status.dsn), (Outcome::Deferred, dsn("4.1.1")));
        let line = log.take_lines().concat();
        assert!(line.contains("dsn=4.1.1, status=SOFTBOUNCE (no)"), "{line}");
    }
}
