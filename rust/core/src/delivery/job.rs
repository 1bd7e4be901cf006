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
use crate::mail::trace::{Action, TRACED_MAX, Trace, Traced};
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
    next_hop_delivers: bool,
    delivered: Vec<u32>,
    traced: Vec<Traced>,
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
            next_hop_delivers: false,
            delivered: Vec::new(),
            traced: Vec::new(),
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
        self.finish_as(position, None, status, None, handover, log)
    }

    /// As `finish`, with the recipient as `orig_to` and the target of its alias or .forward file, `address`, as `to`.
    /// `action`: for the sender's report of the attempt; `None`: as the outcome says.
    ///
    /// A job that reports to the sender logs no line: the reported deliveries have theirs. With soft_bounce, the line
    /// of a bounce says `SOFTBOUNCE`. That of a probe says `deliverable` or `undeliverable`.
    pub fn finish_as(
        &mut self,
        position: usize,
        address: Option<&str>,
        status: Status,
        action: Option<Action>,
        handover: &Handover<'_>,
        log: &Log,
    ) -> bool {
        match self.finished.get(position) {
            Some(None) => {}
            _ => return false,
        }
        if self.tries() {
            self.note(position, address, &status, action, handover, log);
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
    pub fn note(
        &mut self,
        position: usize,
        address: Option<&str>,
        status: &Status,
        action: Option<Action>,
        handover: &Handover<'_>,
        log: &Log,
    ) {
        log.info(format_args!("{}", Line { delivery: self, position, address, status, handover }));
        let trace = self.job.envelope.trace;
        if trace == Trace::Off || self.traced.len() >= TRACED_MAX {
            return;
        }
        let action = match action {
            Some(action) if trace == Trace::Record => action,
            _ if trace == Trace::Record && status.outcome == Outcome::Sent && self.next_hop_delivers => {
                Action::Delivered
            }
            _ => Action::of(trace, status),
        };
        let recipient = &self.job.recipients[position];
        let address = address.unwrap_or(&recipient.recipient.address).into();
        let (index, relay, status) = (recipient.index, handover.relay.into(), self.softened(status.clone()));
        self.traced.push(Traced { index, address, action, relay, status });
    }

    /// Whether the job tries its recipients: it delivers or probes, and reports nothing.
    fn tries(&self) -> bool {
        matches!(self.job.kind, JobKind::Deliver | JobKind::Probe)
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

    /// Note whether the next hop is where the message ends: LMTP without DSN.
    pub fn next_hop_delivers(&mut self, delivers: bool) {
        self.next_hop_delivers = delivers;
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

    /// Return the result. It leaves out recipients without a final status; the queue manager defers them. No recipient of
    /// a probe counts as sent, whoever reads the result: what was found is in `Frame::Traced`.
    pub fn result(&self) -> JobResult {
        let recipients = self.job.recipients.iter().zip(&self.finished);
        let told = |status: &Status| match status.outcome {
            Outcome::Sent if self.job.envelope.is_probe() && self.job.kind != JobKind::Report => {
                Status { outcome: Outcome::Deferred, ..status.clone() }
            }
            _ => status.clone(),
        };
        JobResult {
            job: self.job.job,
            id: self.job.envelope.id,
            site: self.site.clone(),
            recipients: recipients.filter_map(|(r, status)| Some((r.index, told(status.as_ref()?)))).collect(),
        }
    }

    /// Append the frames for the queue manager: the recipients whose delivery is to be reported, what is to be reported of
    /// the attempt, then the result.
    pub fn encode_result(&self, out: &mut Vec<u8>) {
        if !self.delivered.is_empty() {
            Frame::Delivered { job: self.job.job, recipients: self.delivered.clone() }.encode(out);
        }
        if !self.traced.is_empty() {
            Frame::Traced { job: self.job.job, traced: self.traced.clone() }.encode(out);
        }
        let result = self.result();
        match self.job.kind {
            // Its recipients are done once the sender knows that they failed.
            JobKind::Deliver | JobKind::Probe | JobKind::Bounce => Frame::Result(result).encode(out),
            JobKind::Warn | JobKind::Confirm | JobKind::Report => Frame::Told(result).encode(out),
        }
    }

    fn softened(&self, mut status: Status) -> Status {
        if self.settings.soft_bounce && status.outcome == Outcome::Bounced && !self.job.envelope.is_probe() {
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
            status if job.envelope.is_probe() => (status.dsn, Action::of(Trace::Probe, status).word()),
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
pub(crate) mod tests;
