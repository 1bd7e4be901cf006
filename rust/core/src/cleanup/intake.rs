//! The one way into the queue: envelope, options and content in, a queued record out.
//!
//! ```text
//! Arriving   `feed` or `feed_local` takes content; while `is_waiting`, checks need answers before more of it
//! Mapping    the content is complete; addresses are mapped after the last checks
//! Ended      `commit` hands the message to the journal, or returns the refusal
//! ```
//!
//! Remote tables are asked through `asks` and `answer`. `poll` and `commit` go on as far as there are answers. Dropping an
//! intake before `commit` leaves no trace.

use super::checks::Checks;
use super::envelope::{complete_envelope, drop_duplicates};
use super::finish::{Finished, Finishing};
use super::lines::Lines;
use super::settings::CleanupSettings;
use super::{MESSAGE_ID, Options, Origin, Output, RESENT_MESSAGE_ID, Refusal};
use crate::ask::{Answer, Lookup};
use crate::inquiry::Asker;
use crate::log::{Log, Severity};
use crate::mail::envelope::Envelope;
use crate::mail::id::QueueId;
use crate::mail::sink::Sink;
use crate::mail::source::MailSource;
use crate::mail::stuff::Stuffer;
use crate::queue::Incoming;
use std::sync::Arc;
use std::task::Poll;

/// A message on its way into the queue. Its body goes to `S`: a draft of the journal, or memory.
pub struct Intake<S: Sink = Box<dyn Incoming>> {
    stage: Stage<S>,
    id: QueueId,
    settings: Arc<CleanupSettings>,
    log: Arc<Log>,
    /// For local content; `None` for content in wire form.
    local: Option<Local>,
    has_recipients: bool,
}

enum Stage<S: Sink> {
    Arriving(Box<Lines<S>>),
    Mapping(Box<Finishing<S>>),
    /// `None` after `commit`.
    Ended(Option<Box<Result<Finished<S>, Refusal>>>),
}

#[derive(Default)]
struct Local {
    stuffer: Stuffer,
    /// The last piece, in wire form.
    wire: Vec<u8>,
}

impl<S: Sink> Intake<S> {
    /// Start a message, and complete the addresses of its envelope. `sink` receives the body; `log` gets cleanup's lines.
    /// `wall_now_us`: microseconds since 1970.
    pub fn new(
        settings: Arc<CleanupSettings>,
        log: Arc<Log>,
        sink: S,
        mut envelope: Envelope,
        origin: Origin,
        options: Options,
        wall_now_us: u64,
    ) -> Self {
        complete_envelope(&settings, origin, &mut envelope);
        let id = envelope.id;
        let has_recipients = !envelope.recipients.is_empty();
        // Before duplicates are dropped: log lines name the last recipient that was given.
        let checks = options.checks.then(|| Checks::of(&settings, Arc::clone(&log), &envelope, options.maps)).flatten();
        drop_duplicates(&mut envelope.recipients, settings.rewriting.keeps_original);
        let mut lines = Box::new(Lines::new(Output::new(&settings, sink, envelope, origin, options, wall_now_us)));
        lines.out.checks = checks;
        Self { stage: Stage::Arriving(lines), id, settings, log, local: None, has_recipients }
    }

    /// Set the sender's name, for a missing `From:` (`sendmail -F`).
    pub fn full_name(&mut self, name: &str) {
        if let Stage::Arriving(lines) = &mut self.stage {
            lines.out.full_name = (!name.is_empty()).then(|| name.into());
        }
    }

    /// Give the message SMTPUTF8 if an address or a header needs it, and the site wants that for mail of this source
    /// (`smtputf8_autodetect_classes`). Call it before `received`.
    pub fn autodetect(&mut self, source: MailSource) {
        if let Stage::Arriving(lines) = &mut self.stage {
            lines.out.utf8_header = self.settings.autodetected.has(source).then_some(false);
        }
    }

    /// Take the answers of the lookups for the message's recipients: no lookup of a message is made twice. Call it before
    /// `poll`.
    pub fn answered(&mut self, asker: Asker) {
        if let Stage::Arriving(lines) = &mut self.stage {
            lines.out.asker = Some(asker);
        }
    }

    /// Add a trace header, `Received: from ...\n\tby ...` with LF inside and no LF at its end. Call it before `feed`.
    pub fn received(&mut self, header: &str) {
        if let Stage::Arriving(lines) = &mut self.stage {
            lines.out.received(header);
        }
    }

    /// Return the queue ID.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Return the queue ID, in the form of enable_long_queue_ids.
    pub fn queue_id(&self) -> String {
        self.id.text(self.settings.long_queue_ids)
    }

    /// Return the envelope, while content may come: its addresses are complete, and not mapped yet.
    pub fn envelope(&self) -> Option<&Envelope> {
        match &self.stage {
            Stage::Arriving(lines) => Some(&lines.out.envelope),
            Stage::Mapping(_) | Stage::Ended(_) => None,
        }
    }

    /// Return the first problem so far.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.stage {
            Stage::Arriving(lines) => lines.out.refusal.as_ref(),
            Stage::Ended(Some(result)) => result.as_ref().as_ref().err(),
            Stage::Mapping(_) | Stage::Ended(None) => None,
        }
    }

    /// Whether checks see the lines of the body.
    #[cfg(test)]
    pub(super) fn checks_body(&self) -> bool {
        matches!(&self.stage, Stage::Arriving(lines) if lines.out.checks_body)
    }

    /// Receive the next octets of the content in wire form, in any split, without the final dot. Octets after `poll` are
    /// dropped.
    pub fn feed(&mut self, wire: &[u8]) {
        if let Stage::Arriving(lines) = &mut self.stage {
            lines.feed(wire);
        }
    }

    /// The same for content in local form: lines end with LF or CRLF, and no dot is stuffed. Use one form for a message.
    pub fn feed_local(&mut self, octets: &[u8]) {
        if let Stage::Arriving(lines) = &mut self.stage {
            let local = self.local.get_or_insert_default();
            local.wire.clear();
            local.stuffer.feed(octets, &mut local.wire);
            lines.feed(&local.wire);
        }
    }

    /// End the content, and go on as far as there are answers. `Pending`: `asks` has lookups. `Ready`: `commit` may
    /// follow.
    pub fn poll(&mut self) -> Poll<()> {
        self.advance().map(|result| self.stage = Stage::Ended(Some(Box::new(result))))
    }

    /// Whether content waits for its checks, or for the names in their log lines: feed no more before the answers are
    /// there.
    pub fn is_waiting(&self) -> bool {
        matches!(&self.stage, Stage::Arriving(lines) if lines.out.is_waiting())
    }

    /// Take the next lookups in remote tables; see `Inquiry::asks`.
    pub fn asks(&mut self) -> Vec<Lookup> {
        match &mut self.stage {
            Stage::Arriving(lines) => lines.out.asks(),
            Stage::Mapping(finishing) => finishing.asks(),
            Stage::Ended(_) => Vec::new(),
        }
    }

    /// Receive an answer.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        match &mut self.stage {
            Stage::Arriving(lines) => lines.out.answer(lookup, answer),
            Stage::Mapping(finishing) => finishing.answer(lookup, answer),
            Stage::Ended(_) => {}
        }
    }

    /// End the message. Returns the sink with the body, the head in wire form, and the envelope with `size_octets` and
    /// `message_id`: the message is the head, then the body. Errors: `LookupFailed` while lookups have no answer.
    pub fn finish(mut self) -> Result<Finished<S>, Refusal> {
        match self.advance() {
            Poll::Ready(result) => result,
            Poll::Pending => Err(Refusal::LookupFailed),
        }
    }

    /// Return the result once it is there; then the stage is `Ended(None)`.
    fn advance(&mut self) -> Poll<Result<Finished<S>, Refusal>> {
        let mut finishing = match std::mem::replace(&mut self.stage, Stage::Ended(None)) {
            Stage::Arriving(mut lines) => {
                if let Some(Local { stuffer, mut wire }) = self.local.take() {
                    // The last line gets an end.
                    wire.clear();
                    stuffer.finish(&mut wire);
                    lines.feed(&wire);
                }
                lines.end()
            }
            Stage::Mapping(finishing) => *finishing,
            Stage::Ended(Some(result)) => return Poll::Ready(*result),
            Stage::Ended(None) => return Poll::Ready(Err(Refusal::WriteError)),
        };
        let Poll::Ready(result) = finishing.poll() else {
            self.stage = Stage::Mapping(Box::new(finishing));
            return Poll::Pending;
        };
        for warning in finishing.warnings() {
            self.log.line_as("cleanup", Severity::Warning, format_args!("{}: {warning}", self.queue_id()));
        }
        Poll::Ready(if self.has_recipients { result } else { result.and(Err(Refusal::NoRecipients)) })
    }
}

impl Intake {
    /// Log the Message-Id and commit the message, as far as there are answers; the appender reports `ticket` when it is
    /// durable. `Pending`: `asks` has lookups. A refusal: nothing is queued.
    pub fn commit(&mut self, ticket: u64) -> Poll<Result<(), Refusal>> {
        self.advance().map_ok(|(draft, head, envelope)| {
            log_message_id(&self.log, &self.settings, &envelope);
            draft.commit(&head, &envelope, ticket);
        })
    }
}

/// Begin to map the addresses of an envelope as for a message from the network: a rehearsal, without content or queue.
/// `wall_now_us`: microseconds since 1970.
pub fn rehearse(
    settings: &Arc<CleanupSettings>,
    mut envelope: Envelope,
    options: Options,
    wall_now_us: u64,
) -> Finishing<Vec<u8>> {
    let origin = Origin::Network { trusted: false };
    complete_envelope(settings, origin, &mut envelope);
    drop_duplicates(&mut envelope.recipients, settings.rewriting.keeps_original);
    Box::new(Lines::new(Output::new(settings, Vec::new(), envelope, origin, options, wall_now_us))).end()
}

/// Log the Message-Id as cleanup: `ID: message-id=<...>`. Log parsers expect the line for every message, but not for one
/// that a check of a header has dropped.
fn log_message_id(log: &Log, settings: &CleanupSettings, envelope: &Envelope) {
    if envelope.recipients.is_empty() && envelope.attribute(MESSAGE_ID).is_none() {
        return;
    }
    let id = envelope.id.text(settings.long_queue_ids);
    if let Some(value) = envelope.attribute(RESENT_MESSAGE_ID) {
        log.line_as("cleanup", Severity::Info, format_args!("{id}: resent-message-id={value}"));
    }
    let value = envelope.attribute(MESSAGE_ID).unwrap_or("<>");
    log.line_as("cleanup", Severity::Info, format_args!("{id}: message-id={value}"));
}
