//! header_checks(5), body_checks, and the rules about MIME, while a message arrives.
//!
//! Each header is checked before its addresses are completed, each line of a body before it is written. An action about
//! the whole message is kept in `Decisions` until the end. A part that needs an answer of a remote table waits, and all
//! later parts wait behind it (`Inspection`).
//! The log lines are Postfix's, word for word. After REJECT, DISCARD, PASS and REDIRECT, no further line is checked.
//! Headers that cleanup adds are not checked.

mod actions;
mod names;

use super::settings::CleanupSettings;
use super::{Output, Refusal};
use crate::action::Section;
use crate::ask::{Answer, Lookup};
use crate::inspection::lists::List;
use crate::inspection::{Course, Inspection, Judge, Reader};
use crate::log::{Log, Severity};
use crate::mail::envelope::{BodyType, Envelope, Notify, Recipient};
use crate::mail::header::{End, Field, from_lf, with_lf};
use crate::mail::mime::{Encoding, Fault, HeaderClass, Mime};
use crate::mail::reply::Reply;
use crate::mail::sink::Sink;
use actions::{Actions, Judgement, Written};
use names::Names;
use std::sync::Arc;

/// Octets of a line that breaks a rule about MIME, in a log line.
const FAULT_OCTETS: usize = 100;

/// The decisions of actions about a whole message.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    /// Put it on hold.
    hold: bool,
    /// Accept it and drop it.
    pub discard: bool,
    /// Its only recipient.
    redirect: Option<Box<str>>,
    /// Further recipients.
    copies: Vec<Box<str>>,
}

impl Decisions {
    /// Add the recipients of copies. Address maps apply to them.
    pub fn add_copies(&self, settings: &CleanupSettings, envelope: &mut Envelope) {
        for copy in &self.copies {
            let address: Box<str> = completed(settings, copy);
            let notify = Notify(Notify::NEVER);
            let is_known = |to: &Recipient| to.address.eq_ignore_ascii_case(&address) && to.notify == notify;
            if !envelope.recipients.iter().any(is_known) {
                envelope.recipients.push(Recipient { notify, ..Recipient::plain(&address) });
            }
        }
    }

    /// Apply the other decisions, once the addresses are mapped.
    pub fn apply(self, settings: &CleanupSettings, envelope: &mut Envelope) {
        if let Some(target) = self.redirect {
            // As in Postfix, the log names the first recipient by address as the original one.
            let first = envelope.recipients.drain(..).min_by(|a, b| a.address.cmp(&b.address));
            if let Some(first) = first {
                let original = Some(first.original.unwrap_or(first.address));
                envelope.recipients.push(Recipient {
                    address: completed(settings, &target),
                    original,
                    ..Recipient::plain("")
                });
            }
        }
        if self.hold {
            envelope.hold_on_arrival();
        }
        if self.discard {
            envelope.recipients.clear();
        }
    }
}

/// Return an address with a domain.
fn completed(settings: &CleanupSettings, address: &str) -> Box<str> {
    settings.local_rewrite.apply(address).map_or_else(|| address.into(), Into::into)
}

/// The checks of one message.
#[derive(Debug)]
pub(super) struct Checks {
    mime: Mime,
    actions: Actions,
    inspection: Inspection,
}

impl Checks {
    /// Return the checks of a message; `None` if its site has none. `maps`: its addresses are mapped.
    pub fn of(settings: &Arc<CleanupSettings>, log: Arc<Log>, envelope: &Envelope, maps: bool) -> Option<Box<Self>> {
        let rules = &settings.mime;
        let strict = rules.headers_are_ascii || rules.bodies_are_declared || rules.composites_are_plain;
        if settings.checks.is_empty() && !strict {
            return None;
        }
        let mut protocol = String::new();
        if let Some(name) = envelope.attribute("protocol_name") {
            protocol.push_str(&format!(" proto={name}"));
        }
        if let Some(name) = envelope.attribute("helo_name") {
            protocol.push_str(&format!(" helo=<{name}>"));
        }
        let mime = Mime::new(rules.clone());
        let actions = Actions {
            log,
            id: envelope.id.text(settings.long_queue_ids),
            names: Names::of(envelope, maps),
            protocol,
            on: true,
            decisions: Decisions::default(),
            settings: Arc::clone(settings),
        };
        let inspection = Inspection::new(Arc::clone(&settings.checks), settings.body_checks_size_limit);
        Some(Box::new(Self { mime, actions, inspection }))
    }

    /// Return the decisions about the whole message.
    pub fn decisions(self) -> Decisions {
        self.actions.decisions
    }

    /// Whether no line of the body needs a check, and none must wait.
    pub fn is_done_with_head(&self) -> bool {
        if self.inspection.is_waiting() {
            return false;
        }
        let Actions { settings, on, .. } = &self.actions;
        let (rules, lists) = (&settings.mime, &settings.checks);
        let bodies = rules.bodies_are_declared || *on && !lists.body.tables.is_empty();
        let parts = rules.headers_are_ascii || rules.composites_are_plain || *on && !lists.no_headers();
        let reads_parts = parts && self.mime.has_structure();
        !(bodies || reads_parts)
    }
}

/// Connects the checks and the output.
struct Pass<'a, S> {
    out: &'a mut Output<S>,
    actions: &'a mut Actions,
}

impl<S: Sink> Pass<'_, S> {
    fn refuse(&mut self, refusal: Refusal) {
        self.actions.on = false;
        self.out.refuse(refusal);
    }

    fn judge(&mut self, list: &List, place: Section, line: &[u8], answer: Answer) -> Judgement {
        let mut judgement = self.actions.judge(list, place, line, answer);
        if let Some(refusal) = judgement.refusal.take() {
            self.refuse(refusal);
        }
        self.out.discarding = self.actions.decisions.discard;
        judgement
    }

    fn write_header(&mut self, in_head: bool, header: &[u8]) {
        if in_head {
            return self.out.take_header(header);
        }
        if let Some(field) = Field::parse(header) {
            self.out.note_encoding(field);
        }
        self.write_line(header, true);
    }

    fn write_line(&mut self, text: &[u8], ends: bool) {
        self.out.body_text(text);
        if ends {
            self.out.body_end();
        }
    }

    /// End a line of the body whose rest was dropped.
    fn end_line(&mut self) {
        if self.out.body_line_open {
            self.out.body_end();
        }
    }
}

impl<S: Sink> Judge for Pass<'_, S> {
    fn course(&self) -> Course {
        if self.out.refusal.is_some() {
            Course::Dropped
        } else if self.actions.on {
            Course::Checked
        } else {
            Course::Unchecked
        }
    }

    fn can_log(&mut self) -> bool {
        let Actions { settings, names, .. } = &mut *self.actions;
        names.are_known(settings)
    }

    fn header(&mut self, class: HeaderClass, in_head: bool, header: &[u8], answer: Answer) {
        if answer == Answer::NotFound {
            return self.write_header(in_head, header);
        }
        let settings = Arc::clone(&self.actions.settings);
        let judgement = self.judge(settings.checks.of(class), Section::Header, &with_lf(header), answer);
        if let Some(before) = judgement.before {
            match in_head {
                // It is not the sender's: its addresses stay, and it is no Date or From.
                true => self.out.write_header(&[&from_lf(&before)]),
                false => self.write_line(&from_lf(&before), true),
            }
        }
        match judgement.written {
            Written::Same => self.write_header(in_head, header),
            Written::Other(text) => self.write_header(in_head, &from_lf(&text)),
            Written::Nothing => {}
        }
    }

    fn head_end(&mut self, end: End) {
        self.out.head_done(end);
    }

    fn line(&mut self, text: &[u8], ends: bool, answer: Answer) {
        if answer == Answer::NotFound {
            return self.write_line(text, ends);
        }
        let settings = Arc::clone(&self.actions.settings);
        let judgement = self.judge(&settings.checks.body, Section::Body, text, answer);
        if let Some(before) = judgement.before {
            self.end_line();
            self.write_line(&before, true);
        }
        match judgement.written {
            Written::Same => self.write_line(text, ends),
            Written::Other(text) => self.write_line(&text, ends),
            Written::Nothing if ends => self.end_line(),
            Written::Nothing => {}
        }
    }

    fn fault(&mut self, fault: Fault, text: &[u8]) {
        let Actions { id, names, .. } = &*self.actions;
        let shown = String::from_utf8_lossy(&text[..text.len().min(FAULT_OCTETS)]);
        self.actions.log.line_as(
            "cleanup",
            Severity::Info,
            format_args!("{id}: reject: mime-error {}: {shown}{names}", fault.text()),
        );
        self.out.refuse(Refusal::Rejected(Box::new(Reply::new(550, [6, 0], fault.text()))));
    }

    fn too_much(&mut self) {
        self.actions.warn(&format!("{}: too much content waits for the tables of checks", self.actions.id));
        self.refuse(Refusal::CheckLimit);
    }
}

impl<S: Sink> Output<S> {
    /// Let the checks see an event.
    fn pass(&mut self, in_head: bool, see: impl FnOnce(&mut Mime, &mut Reader<'_, Pass<'_, S>>)) {
        let Some(mut checks) = self.checks.take() else { return };
        let Checks { mime, actions, inspection } = &mut *checks;
        see(mime, &mut inspection.reader(&mut Pass { out: self, actions }, in_head));
        self.checks = Some(checks);
    }

    /// Check a header of the message.
    pub(super) fn check_header(&mut self, header: &[u8]) {
        self.pass(true, |mime, reader| mime.primary_header(header, reader));
    }

    /// Note the end of the message's headers.
    pub(super) fn check_head_end(&mut self, end: End) {
        self.pass(true, |mime, reader| mime.primary_end(end, reader));
        self.checks_body =
            end != End::Message && self.checks.as_ref().is_some_and(|checks| !checks.is_done_with_head());
    }

    /// Let the end of the message's headers wait behind a header that waits. False: none does.
    pub(super) fn hold_head_end(&mut self, end: End) -> bool {
        let waits = self.is_waiting();
        if waits {
            self.pass(true, |_, reader| reader.hold_head_end(end));
        }
        waits
    }

    /// Whether a part of the message waits for answers.
    pub(super) fn is_waiting(&self) -> bool {
        self.refusal.is_none() && self.checks.as_ref().is_some_and(|checks| checks.inspection.is_waiting())
    }

    /// Take the next lookups of the checks.
    pub(super) fn asks(&mut self) -> Vec<Lookup> {
        let Some(Checks { inspection, actions, .. }) = self.checks.as_deref_mut() else { return Vec::new() };
        let mut asks = inspection.asks();
        asks.extend(actions.names.asks());
        asks
    }

    /// Receive the answer of a lookup, and go on as far as there are answers.
    pub(super) fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        let Some(mut checks) = self.checks.take() else { return };
        let Checks { actions, inspection, .. } = &mut *checks;
        actions.names.answer(lookup, answer.clone());
        inspection.answer(lookup, answer);
        inspection.go_on(&mut Pass { out: self, actions });
        self.checks = Some(checks);
    }

    /// Check a piece of a line of the body.
    pub(super) fn check_text(&mut self, text: &[u8]) {
        self.pass(false, |mime, reader| mime.text(text, reader));
    }

    /// Check the end of a line of the body.
    pub(super) fn check_line_end(&mut self) {
        self.pass(false, |mime, reader| mime.line_end(reader));
    }

    /// Check what is left at the end of the message.
    pub(super) fn check_end(&mut self) {
        self.pass(false, |mime, reader| mime.finish(reader));
    }

    /// Believe a header that says that the content has octets above 127 (`detect_8bit_encoding_header`).
    pub(super) fn note_encoding(&mut self, field: Field<'_>) {
        if field.name.eq_ignore_ascii_case(b"content-transfer-encoding")
            && self.settings.detects_8bit
            && Encoding::of(field.value.trim_ascii()).is_some_and(Encoding::is_wide)
        {
            self.envelope.body = BodyType::EightBitMime;
        }
    }
}

#[cfg(test)]
mod tests;
