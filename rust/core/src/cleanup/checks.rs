//! header_checks(5), body_checks, and the rules about MIME, while a message arrives.
//!
//! Each header is checked before its addresses are completed, each line of a body before it is written. An action about
//! the whole message is kept in `Decisions` until the end. The log lines are Postfix's, word for word. After REJECT,
//! DISCARD, PASS and REDIRECT, no further line is checked. Headers that cleanup adds are not checked.

use super::settings::CleanupSettings;
use super::{Output, Refusal};
use crate::action::{Section, Verb};
use crate::log::{Log, Severity};
use crate::mail::envelope::{BodyType, Envelope, Notify, Recipient};
use crate::mail::header::{End, Field, from_lf, with_lf};
use crate::mail::mime::{Class, Encoding, Fault, Line, Mime, MimeEvents, Part};
use crate::mail::reply::{Enhanced, Reply};
use crate::mail::sink::Sink;
use crate::table::checks::{Found, List};
use std::sync::Arc;

/// Octets of a line in a log line.
const SHOWN_OCTETS: usize = 200;
/// The same for a line that breaks a rule about MIME.
const FAULT_OCTETS: usize = 100;
/// Maximum number of recipients that BCC adds to a message. Postfix has no limit; more than that is an error of the table.
const BCC_MAX: usize = 1000;

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
    judge: Judge,
}

/// Looks lines up.
#[derive(Debug)]
struct Judge {
    settings: Arc<CleanupSettings>,
    log: Arc<Log>,
    id: String,
    /// ` from HOST[ADDRESS]; from=<> to=<>`
    origin: String,
    /// ` proto=... helo=<>`
    protocol: String,
    /// Lines are still checked.
    on: bool,
    decisions: Decisions,
}

/// The text to write for a line.
enum Written {
    Same,
    Other(Vec<u8>),
    Nothing,
}

/// The judgement about a line.
struct Judgement {
    /// A line to write before it.
    before: Option<Vec<u8>>,
    written: Written,
    refusal: Option<Refusal>,
}

impl Checks {
    /// Return the checks of a message; `None` if its site has none.
    pub fn of(settings: &Arc<CleanupSettings>, log: Arc<Log>, envelope: &Envelope) -> Option<Box<Self>> {
        let rules = &settings.mime;
        let strict = rules.headers_are_ascii || rules.bodies_are_declared || rules.composites_are_plain;
        if settings.checks.is_empty() && !strict {
            return None;
        }
        let host = envelope.attribute("client_name").zip(envelope.attribute("client_address"));
        let host = host.map_or("local".into(), |(name, address)| format!("{name}[{address}]"));
        let recipient = envelope.recipients.last().map_or("unknown", |recipient| &*recipient.address);
        let mut protocol = String::new();
        if let Some(name) = envelope.attribute("protocol_name") {
            protocol.push_str(&format!(" proto={name}"));
        }
        if let Some(name) = envelope.attribute("helo_name") {
            protocol.push_str(&format!(" helo=<{name}>"));
        }
        let mime = Mime::new(rules.clone());
        let judge = Judge {
            log,
            id: envelope.id.text(settings.long_queue_ids),
            origin: format!(" from {host}; from=<{}> to=<{recipient}>", envelope.sender),
            protocol,
            on: true,
            decisions: Decisions::default(),
            settings: Arc::clone(settings),
        };
        Some(Box::new(Self { mime, judge }))
    }

    /// Return the decisions about the whole message.
    pub fn decisions(self) -> Decisions {
        self.judge.decisions
    }

    /// Whether no line of the body needs a check.
    pub fn is_done_with_head(&self) -> bool {
        let Judge { settings, on, .. } = &self.judge;
        let (rules, lists) = (&settings.mime, &settings.checks);
        let bodies = rules.bodies_are_declared || *on && !lists.body.tables.is_empty();
        let parts = rules.headers_are_ascii || rules.composites_are_plain || *on && !lists.no_headers();
        let reads_parts = parts && self.mime.has_structure();
        !(bodies || reads_parts)
    }
}

impl Judge {
    fn warn(&self, text: &str) {
        self.log.line_as("cleanup", Severity::Warning, format_args!("{text}"));
    }

    fn note(&self, word: &str, place: Section, line: &[u8], text: &[u8]) {
        let (Self { id, origin, protocol, .. }, place) = (self, place.word());
        let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN_OCTETS)]);
        let colon = if text.is_empty() { "" } else { ": " };
        let text = String::from_utf8_lossy(text);
        self.log.line_as(
            "cleanup",
            Severity::Info,
            format_args!("{id}: {word}: {place} {shown}{origin}{protocol}{colon}{text}"),
        );
    }

    /// Judge a line: look it up and apply its action.
    fn judge(&mut self, list: &List, place: Section, line: &[u8]) -> Judgement {
        let mut judgement = Judgement { before: None, written: Written::Same, refusal: None };
        let value = match list.find(line) {
            Found::Nothing => return judgement,
            Found::Value(value) => value,
            Found::Failed(why) => {
                let (id, parameter) = (&self.id, &list.parameter);
                self.warn(&why);
                self.warn(&format!("{id}: {parameter} map lookup problem -- message not accepted, try again later"));
                judgement.refusal = Some(Refusal::WriteError);
                return judgement;
            }
        };
        let action = match list.action(&value, place) {
            Ok(action) => action,
            Err(warning) => {
                self.warn(&warning);
                return judgement;
            }
        };
        let silent = match action.verb {
            Verb::Dunno | Verb::Ignore | Verb::Reject => true,
            Verb::Hold => self.decisions.hold,
            _ => false,
        };
        if !silent {
            self.note(action.verb.word(), place, line, action.text);
        }
        let text = || String::from_utf8_lossy(action.text).into_owned().into_boxed_str();
        match action.verb {
            Verb::Dunno | Verb::Info | Verb::Warn => {}
            Verb::Ignore | Verb::Strip => judgement.written = Written::Nothing,
            Verb::Replace => judgement.written = Written::Other(action.text.into()),
            Verb::Prepend => judgement.before = Some(action.text.into()),
            Verb::Pass => self.on = false,
            Verb::Hold => self.decisions.hold = true,
            Verb::Discard => (self.decisions.discard, self.on) = (true, false),
            Verb::Redirect => (self.decisions.redirect, self.on) = (Some(text()), false),
            Verb::Bcc => {
                let copies = &mut self.decisions.copies;
                if copies.contains(&text()) {
                } else if copies.len() < BCC_MAX {
                    copies.push(text());
                } else {
                    self.warn(&format!("{}: more than {BCC_MAX} BCC addresses in {}", self.id, list.parameter));
                    judgement.refusal = Some(Refusal::WriteError);
                }
            }
            Verb::Filter => {
                // Without the filter, the message would go on unfiltered.
                let why = "FILTER is not supported yet -- message not accepted, try again later";
                self.warn(&format!("{}: {}: {why}", self.id, list.parameter));
                let reply = Reply::new(451, [3, 5], "Server configuration error");
                judgement.refusal = Some(Refusal::Rejected(Box::new(reply)));
            }
            Verb::Reject => {
                let reply = self.rejection(action.text);
                let enhanced = reply.enhanced.map(|enhanced| format!("{enhanced} ")).unwrap_or_default();
                self.note("reject", place, line, format!("{enhanced}{}", reply.text).as_bytes());
                judgement.refusal = Some(Refusal::Rejected(Box::new(reply)));
            }
        }
        judgement
    }

    /// Return the reply for the text of REJECT.
    fn rejection(&self, text: &[u8]) -> Reply {
        let text = String::from_utf8_lossy(text).replace(['\r', '\n'], " ");
        match Enhanced::split(&text) {
            _ if text.is_empty() => Reply::new(550, [7, 1], "message content rejected"),
            None => Reply::new(550, [7, 1], text),
            Some((Enhanced { class, subject, detail }, rest)) => {
                if !matches!(class, 4 | 5) {
                    self.warn(&format!("bad DSN action in {text} -- need 4.x.x or 5.x.x"));
                }
                Reply::new(if class == 5 { 550 } else { 451 }, [subject, detail], rest.trim_start())
            }
        }
    }
}

/// Connects the structure, the checks and the output.
struct Pass<'a, S> {
    out: &'a mut Output<S>,
    judge: &'a mut Judge,
    /// The line of the head's end is with the head.
    in_head: bool,
}

impl<S: Sink> Pass<'_, S> {
    fn check(&mut self, list: impl Fn(&CleanupSettings) -> &List, place: Section, line: &[u8]) -> Option<Judgement> {
        let settings = Arc::clone(&self.judge.settings);
        let list = list(&settings);
        if !self.judge.on || list.tables.is_empty() {
            return None;
        }
        let mut judgement = self.judge.judge(list, place, line);
        if let Some(refusal) = judgement.refusal.take() {
            self.judge.on = false;
            self.out.refuse(refusal);
        }
        self.out.discarding = self.judge.decisions.discard;
        Some(judgement)
    }

    fn write_header(&mut self, header: &[u8]) {
        if self.in_head {
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

impl<S: Sink> MimeEvents for Pass<'_, S> {
    fn header(&mut self, class: Class, _: Part, header: &[u8]) {
        let Some(judgement) = self.check(|settings| settings.checks.of(class), Section::Header, &with_lf(header))
        else {
            return self.write_header(header);
        };
        if let Some(before) = judgement.before {
            match self.in_head {
                // It is not the sender's: its addresses stay, and it is no Date or From.
                true => self.out.write_header(&[&from_lf(&before)]),
                false => self.write_line(&from_lf(&before), true),
            }
        }
        match judgement.written {
            Written::Same => self.write_header(header),
            Written::Other(text) => self.write_header(&from_lf(&text)),
            Written::Nothing => {}
        }
    }

    fn head_end(&mut self, _: Class, _: Part, _: End) {}

    fn line(&mut self, _: Part, line: Line<'_>) {
        if self.in_head {
            return;
        }
        let limit = self.judge.settings.body_checks_size_limit;
        let is_checked = limit == 0 || line.offset < limit;
        let judgement =
            if is_checked { self.check(|settings| &settings.checks.body, Section::Body, line.text) } else { None };
        let Some(judgement) = judgement else {
            return self.write_line(line.text, line.ends);
        };
        if let Some(before) = judgement.before {
            self.end_line();
            self.write_line(&before, true);
        }
        match judgement.written {
            Written::Same => self.write_line(line.text, line.ends),
            Written::Other(text) => self.write_line(&text, line.ends),
            Written::Nothing if line.ends => self.end_line(),
            Written::Nothing => {}
        }
    }

    fn fault(&mut self, fault: Fault, text: &[u8]) {
        let Judge { id, origin, .. } = &*self.judge;
        let shown = String::from_utf8_lossy(&text[..text.len().min(FAULT_OCTETS)]);
        self.judge.log.line_as(
            "cleanup",
            Severity::Info,
            format_args!("{id}: reject: mime-error {}: {shown}{origin}", fault.text()),
        );
        self.out.refuse(Refusal::Rejected(Box::new(Reply::new(550, [6, 0], fault.text()))));
    }
}

impl<S: Sink> Output<S> {
    /// Let the checks see an event.
    fn pass(&mut self, in_head: bool, see: impl FnOnce(&mut Mime, &mut Pass<'_, S>)) {
        let Some(mut checks) = self.checks.take() else { return };
        let Checks { mime, judge } = &mut *checks;
        see(mime, &mut Pass { out: self, judge, in_head });
        self.checks = Some(checks);
    }

    /// Check a header of the message.
    pub(super) fn check_header(&mut self, header: &[u8]) {
        self.pass(true, |mime, pass| mime.primary_header(header, pass));
    }

    /// Note the end of the message's headers.
    pub(super) fn check_head_end(&mut self, end: End) {
        self.pass(true, |mime, pass| mime.primary_end(end, pass));
        self.checks_body =
            end != End::Message && self.checks.as_ref().is_some_and(|checks| !checks.is_done_with_head());
    }

    /// Check a piece of a line of the body.
    pub(super) fn check_text(&mut self, text: &[u8]) {
        self.pass(false, |mime, pass| mime.text(text, pass));
    }

    /// Check the end of a line of the body.
    pub(super) fn check_line_end(&mut self) {
        self.pass(false, |mime, pass| mime.line_end(pass));
    }

    /// Check what is left at the end of the message.
    pub(super) fn check_end(&mut self) {
        self.pass(false, |mime, pass| mime.finish(pass));
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
