//! What happens to a message between its arrival and the queue (cleanup(8)).
//!
//! The header block is read as a stream, one logical header at a time: some are dropped, some completed, missing ones
//! added behind the last. The body is copied in runs as long as nothing needs a change. Memory is bounded by
//! `header_size_limit`, whatever is fed. The first problem is latched: what follows is read and thrown away, for the
//! client must be heard to the end before it can be told.

use super::settings::{CleanupSettings, Octets};
use crate::address::rewrite::Rewrite;
use crate::log::{Log, Severity};
use crate::mail::date::compact_utc;
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::header::{End, Field, HeaderEvents, HeaderParser, Known, Seen, name_octets};
use crate::mail::phrase::phrase;
use crate::mail::reply::Reply;
use crate::mail::sink::Sink;
use memchr::memchr2;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;

/// Where a message comes from: it decides what is completed and added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From a client on the network. `trusted`: `local_header_rewrite_clients` names it.
    Network {
        /// Headers are completed and added as for local mail.
        trusted: bool,
    },
    /// From a program on this machine.
    Local,
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `hopcount_limit`
    TooManyHops,
    /// `message_size_limit`
    TooBig,
    /// `message_reject_characters`
    DisallowedCharacter,
    /// The disk is full.
    NoSpace,
    /// The queue cannot be written.
    WriteError,
}

impl Refusal {
    /// What the client is told, in Postfix's words.
    pub fn reply(self) -> Reply {
        match self {
            Self::TooManyHops => Reply::new(554, [4, 0], "Error: too many hops"),
            Self::TooBig => Reply::new(552, [3, 4], "Error: message file too big"),
            Self::DisallowedCharacter => Reply::new(550, [7, 1], "disallowed character"),
            Self::NoSpace => Reply::new(452, [3, 1], "Insufficient system storage"),
            Self::WriteError => Reply::new(451, [3, 0], "Error: queue file write error"),
        }
    }
}

/// The name of the attribute that holds the Message-Id, angle brackets and all.
pub const MESSAGE_ID: &str = "message_id";
/// The name of the attribute that holds the Resent-Message-Id.
pub const RESENT_MESSAGE_ID: &str = "resent_message_id";
/// A Message-Id is remembered up to here; in the message it stays whole.
const MESSAGE_ID_MAX_OCTETS: usize = 998;

/// A message on its way into the queue.
#[derive(Debug)]
pub struct Cleanup<S: Sink> {
    out: Output<S>,
    /// `None` once the body has begun.
    head: Option<HeaderParser>,
    /// At the start of a line of the body, or of the header block.
    line_start: bool,
    pending_cr: bool,
    /// What was fed, with a line end as two octets, without stuffed dots: what `message_size_limit` limits.
    received_octets: u64,
    /// Such a message gets through the piecewise path to its end.
    filtered: bool,
}

/// The message as it leaves cleanup, and what was found out about it.
#[derive(Debug)]
struct Output<S> {
    settings: Arc<CleanupSettings>,
    sink: S,
    envelope: Envelope,
    origin: Origin,
    full_name: Option<Box<str>>,
    wall_now_us: u64,
    seen: Seen,
    resent: bool,
    hops: u32,
    /// Octets with a line end as one, without stuffed dots.
    size_octets: u64,
    body_line_open: bool,
    refusal: Option<Refusal>,
}

enum Piece<'a> {
    Text(&'a [u8]),
    Stray(u8),
    LineEnd,
}

impl<S: Sink> Cleanup<S> {
    /// A message with this envelope; `wall_now_us`: microseconds since 1970. Addresses in the envelope that lack a
    /// domain are completed. Nothing is written yet.
    pub fn new(
        settings: Arc<CleanupSettings>,
        sink: S,
        mut envelope: Envelope,
        origin: Origin,
        wall_now_us: u64,
    ) -> Self {
        complete_envelope(&settings, origin, &mut envelope);
        let head = HeaderParser::new(settings.header_size_limit);
        let filtered = settings.strip_characters.is_some() || settings.reject_characters.is_some();
        let out = Output {
            settings,
            sink,
            envelope,
            origin,
            full_name: None,
            wall_now_us,
            seen: Seen::default(),
            resent: false,
            hops: 0,
            size_octets: 0,
            body_line_open: false,
            refusal: None,
        };
        Self { out, head: Some(head), line_start: true, pending_cr: false, received_octets: 0, filtered }
    }

    /// Write a trace header, `Received: from ...\n\tby ...` with LF inside and no LF at its end. Call it before `feed`.
    pub fn received(&mut self, header: &str) {
        self.out.hop();
        let mut wire = Vec::with_capacity(header.len() + 8);
        for line in header.trim_end_matches('\n').split('\n') {
            wire.extend(line.bytes().filter(|b| *b != b'\r'));
            wire.extend_from_slice(b"\r\n");
        }
        let line_ends = wire.iter().filter(|b| **b == b'\n').count();
        self.out.write(&wire);
        self.out.size_octets += (wire.len() - line_ends) as u64;
    }

    /// The sender's name, for a `From:` that has to be added (`sendmail -F`).
    pub fn full_name(&mut self, name: &str) {
        self.out.full_name = (!name.is_empty()).then(|| name.into());
    }

    /// What is wrong so far.
    pub fn refusal(&self) -> Option<Refusal> {
        self.out.refusal
    }

    /// The envelope as it stands.
    pub fn envelope(&self) -> &Envelope {
        &self.out.envelope
    }

    /// Take the next bytes of the message in wire form: any split, without the final dot line.
    pub fn feed(&mut self, wire: &[u8]) {
        if self.out.refusal.is_some() {
            return;
        }
        // Counted first: the dots that are taken off below are among them.
        self.received_octets += wire.len() as u64;
        let mut rest = wire;
        while !rest.is_empty() && (self.head.is_some() || self.filtered) {
            match self.next_piece(&mut rest) {
                Some(piece) => self.piece(piece),
                None => break,
            }
        }
        if !rest.is_empty() {
            self.body(rest);
        }
        let limit = self.out.settings.message_size_limit;
        if limit > 0 && self.received_octets > limit {
            self.out.refuse(Refusal::TooBig);
        }
    }

    /// The message is whole: what is missing is added. Gives back the sink and the envelope, complete with
    /// `size_octets` and `message_id`.
    pub fn finish(mut self) -> Result<(S, Envelope), Refusal> {
        if self.pending_cr {
            self.pending_cr = false;
            self.piece(Piece::Stray(b'\r'));
        }
        if let Some(mut head) = self.head.take() {
            head.message_end(&mut self.out);
        }
        if self.out.body_line_open {
            self.out.body_line_end();
        }
        let Output { sink, mut envelope, size_octets, refusal, .. } = self.out;
        envelope.size_octets = size_octets;
        match refusal {
            Some(refusal) => Err(refusal),
            None => Ok((sink, envelope)),
        }
    }

    /// Take the next piece off `rest`; `None` when more must come first.
    fn next_piece<'a>(&mut self, rest: &mut &'a [u8]) -> Option<Piece<'a>> {
        let input = *rest;
        if self.pending_cr {
            self.pending_cr = false;
            if input[0] == b'\n' {
                *rest = &input[1..];
                return Some(Piece::LineEnd);
            }
            return Some(Piece::Stray(b'\r'));
        }
        let at = memchr2(b'\r', b'\n', input).unwrap_or(input.len());
        if at > 0 {
            *rest = &input[at..];
            return Some(Piece::Text(&input[..at]));
        }
        let (first, after) = input.split_first()?;
        *rest = after;
        match (first, after.first()) {
            (b'\r', None) => {
                self.pending_cr = true;
                None
            }
            (b'\r', Some(b'\n')) => {
                *rest = &after[1..];
                Some(Piece::LineEnd)
            }
            (stray, _) => Some(Piece::Stray(*stray)),
        }
    }

    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Text(mut text) => {
                if self.line_start && text[0] == b'.' {
                    // A stuffed dot. Nothing but it may have come yet: the line is still at its start.
                    text = &text[1..];
                    self.received_octets -= 1;
                    self.line_start = false;
                }
                if !text.is_empty() {
                    self.text(text);
                }
            }
            Piece::Stray(octet) => {
                let octet = if self.out.settings.replace_stray_cr_lf { b' ' } else { octet };
                self.text(&[octet]);
            }
            Piece::LineEnd => {
                self.line_start = true;
                match &mut self.head {
                    None => self.out.body_line_end(),
                    Some(head) => {
                        if !head.line_end(&mut self.out) {
                            self.head = None;
                        }
                    }
                }
            }
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.line_start = false;
        let stripped;
        let mut text = text;
        if self.filtered {
            let settings = &self.out.settings;
            if settings.reject_characters.as_ref().is_some_and(|octets| octets.any_in(text)) {
                self.out.refuse(Refusal::DisallowedCharacter);
                return;
            }
            if let Some(octets) = settings.strip_characters.as_ref().filter(|octets| octets.any_in(text)) {
                stripped = strip(octets, text);
                text = &stripped;
            }
        }
        if text.is_empty() {
            return;
        }
        match &mut self.head {
            None => self.out.body(text),
            Some(head) => {
                if !head.text(text, &mut self.out) {
                    self.head = None;
                }
            }
        }
    }

    /// The body in runs: only line ends are looked at. Wire form in, wire form out, so dots need no change.
    fn body(&mut self, wire: &[u8]) {
        let replacement = self.out.settings.replace_stray_cr_lf.then_some(b' ');
        let (mut start, mut at) = (0, 0);
        let (mut octets, mut line_ends, mut dots) = (0u64, 0u64, 0u64);
        if self.pending_cr {
            self.pending_cr = false;
            self.line_start = wire[0] == b'\n';
            if self.line_start {
                self.out.write(b"\r\n");
                (start, at) = (1, 1);
            } else {
                self.out.write(&[replacement.unwrap_or(b'\r')]);
            }
            octets += 1;
        }
        loop {
            if self.line_start && at < wire.len() {
                dots += u64::from(wire[at] == b'.');
                self.line_start = false;
            }
            let Some(found) = memchr2(b'\r', b'\n', &wire[at..]).map(|found| at + found) else {
                break;
            };
            at = found + 1;
            if wire[found] == b'\r' {
                match wire.get(at) {
                    Some(b'\n') => {
                        at += 1;
                        line_ends += 1;
                        self.line_start = true;
                        continue;
                    }
                    Some(_) => {}
                    None => {
                        self.pending_cr = true;
                        break;
                    }
                }
            }
            if let Some(replacement) = replacement {
                self.out.write(&wire[start..found]);
                self.out.write(&[replacement]);
                octets += (at - start) as u64;
                start = at;
            }
        }
        let end = wire.len() - usize::from(self.pending_cr);
        self.out.write(&wire[start..end]);
        octets += (end - start) as u64;
        self.out.size_octets += octets - line_ends - dots;
        self.out.body_line_open = !self.line_start;
        self.received_octets -= dots;
    }
}

impl<S: Sink> Output<S> {
    fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    fn write(&mut self, wire: &[u8]) {
        if self.refusal.is_some() || wire.is_empty() {
            return;
        }
        if let Err(error) = self.sink.write(wire) {
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            self.refuse(if full { Refusal::NoSpace } else { Refusal::WriteError });
        }
    }

    /// Write a header without its last line end.
    fn write_header(&mut self, parts: &[&[u8]]) {
        if parts[0].first() == Some(&b'.') {
            self.write(b".");
        }
        for part in parts {
            self.write(part);
            self.size_octets += (part.len() - memchr::memchr_iter(b'\n', part).count()) as u64;
        }
        self.write(b"\r\n");
        self.size_octets += 1;
    }

    fn hop(&mut self) {
        self.hops += 1;
        if self.hops >= self.settings.hopcount_limit {
            self.refuse(Refusal::TooManyHops);
        }
    }

    /// What completes the addresses in this message's headers.
    fn rewrite(&self) -> Option<&Rewrite> {
        match self.origin {
            Origin::Local | Origin::Network { trusted: true } => Some(&self.settings.local_rewrite),
            Origin::Network { trusted: false } => self.settings.remote_rewrite.as_ref(),
        }
    }

    /// The headers that every message should have (RFC 5322 §3.6), in Postfix's order.
    fn add_missing(&mut self) {
        if self.rewrite().is_none() && !self.settings.always_add_missing_headers {
            return;
        }
        let settings = Arc::clone(&self.settings);
        let (prefix, message_id, date, from) = if self.resent {
            ("Resent-", Known::ResentMessageId, Known::ResentDate, Known::ResentFrom)
        } else {
            ("", Known::MessageId, Known::Date, Known::From)
        };
        if !self.seen.has(message_id) {
            let id = self.envelope.id.text(settings.long_queue_ids);
            let value = if settings.long_queue_ids {
                format!("<{id}@{}>", settings.myhostname)
            } else {
                format!("<{}.{id}@{}>", compact_utc(self.wall_now_us), settings.myhostname)
            };
            self.write_header(&[format!("{prefix}Message-Id: {value}").as_bytes()]);
            self.note_message_id(message_id, value);
        }
        if !self.seen.has(date) {
            self.write_header(&[format!("{prefix}Date: {}", settings.date(self.wall_now_us)).as_bytes()]);
        }
        if !self.seen.has(from) {
            self.write_header(&[format!("{prefix}From: {}", self.sender_as_header()).as_bytes()]);
        }
        let visible = [Known::To, Known::Cc, Known::ResentTo, Known::ResentCc].iter().any(|to| self.seen.has(*to));
        let undisclosed = &settings.undisclosed_recipients_header;
        if !visible && name_octets(undisclosed.as_bytes()).is_some() {
            self.write_header(&[undisclosed.as_bytes()]);
        }
    }

    /// The sender as a `From:` header names it.
    fn sender_as_header(&self) -> String {
        let sender = if self.envelope.sender.is_empty() { MAILER_DAEMON } else { &*self.envelope.sender };
        let address = self.rewrite().and_then(|rewrite| rewrite.apply(sender)).unwrap_or_else(|| sender.to_owned());
        match self.full_name.as_deref().filter(|_| !self.envelope.sender.is_empty()) {
            None => address,
            Some(name) if self.settings.obsolete_from_format => {
                let name = name.chars().filter(|c| !c.is_control() && !"()\\".contains(*c)).collect::<String>();
                format!("{address} ({name})")
            }
            Some(name) => format!("{} <{address}>", phrase(name)),
        }
    }

    fn note_message_id(&mut self, known: Known, mut value: String) {
        let mut end = value.len().min(MESSAGE_ID_MAX_OCTETS);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
        let name = if known == Known::MessageId { MESSAGE_ID } else { RESENT_MESSAGE_ID };
        self.envelope.attributes.retain(|(existing, _)| &**existing != name);
        self.envelope.attributes.push((name.into(), value.into()));
    }
}

impl<S: Sink> HeaderEvents for Output<S> {
    fn header(&mut self, header: &[u8]) {
        let Some(field) = Field::parse(header) else {
            return self.write_header(&[header]);
        };
        let known = Known::of(field.name);
        if let Some(known) = known {
            self.seen.note(known);
            self.resent |= known.is_resent();
            match known {
                Known::Received => self.hop(),
                Known::MessageId | Known::ResentMessageId => self.note_message_id(known, field.unfolded()),
                _ => {}
            }
        }
        if self.settings.drops(field.name, known) {
            return;
        }
        let addresses = known.is_some_and(|known| known.names_senders() || known.names_recipients());
        let tokens_max = self.settings.header_address_token_limit;
        let rewrite = self.rewrite().filter(|_| addresses);
        let rewritten = rewrite.and_then(|rewrite| rewrite.apply_to_list(field.value, tokens_max));
        self.write_header(&[field.name, b":", rewritten.as_deref().unwrap_or(field.value)]);
    }

    fn mbox(&mut self) -> Option<&'static str> {
        match self.origin {
            Origin::Network { .. } => Some("X-Mailbox-Line"),
            Origin::Local => None,
        }
    }

    fn end(&mut self, end: End) {
        self.add_missing();
        if end != End::Message {
            self.write(b"\r\n");
            self.size_octets += 1;
        }
    }

    fn body(&mut self, text: &[u8]) {
        let Some(first) = text.first() else {
            return;
        };
        if !self.body_line_open && *first == b'.' {
            self.write(b".");
        }
        self.body_line_open = true;
        self.write(text);
        self.size_octets += text.len() as u64;
    }

    fn body_line_end(&mut self) {
        self.body_line_open = false;
        self.write(b"\r\n");
        self.size_octets += 1;
    }
}

/// Who sends what nobody sent.
const MAILER_DAEMON: &str = "MAILER-DAEMON";

/// Give addresses of the envelope that lack a domain the site's own. What such a recipient was called before stays
/// known as its original.
fn complete_envelope(settings: &CleanupSettings, origin: Origin, envelope: &mut Envelope) {
    let complete = |address: &str| match origin {
        Origin::Local => settings.local_rewrite.apply(address),
        Origin::Network { .. } => settings.local_rewrite.complete(address),
    };
    if let Some(sender) = complete(&envelope.sender) {
        envelope.sender = sender.into();
    }
    for recipient in &mut envelope.recipients {
        if let Some(address) = complete(&recipient.address) {
            let given = std::mem::replace(&mut recipient.address, address.into());
            recipient.original.get_or_insert(given);
        }
    }
    drop_duplicates(&mut envelope.recipients);
}

/// Who is named twice receives one copy, unless the wishes about reports differ.
fn drop_duplicates(recipients: &mut Vec<Recipient>) {
    if recipients.len() < 2 {
        return;
    }
    let mut seen = HashSet::with_capacity(recipients.len());
    let first = recipients
        .iter()
        .map(|recipient| seen.insert((&recipient.address, &recipient.orcpt, recipient.notify.0)))
        .collect::<Vec<_>>();
    let mut first = first.into_iter();
    recipients.retain(|_| first.next().unwrap_or(true));
}

fn strip(octets: &Octets, text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|octet| !octets.has(*octet)).collect()
}

/// Log the Message-Id in the name of cleanup, as log parsers expect it for every message: `ID: message-id=<...>`.
pub fn log_message_id(log: &Log, settings: &CleanupSettings, envelope: &Envelope) {
    let id = envelope.id.text(settings.long_queue_ids);
    if let Some(value) = envelope.attribute(RESENT_MESSAGE_ID) {
        log.line_as("cleanup", Severity::Info, format_args!("{id}: resent-message-id={value}"));
    }
    let value = envelope.attribute(MESSAGE_ID).unwrap_or("<>");
    log.line_as("cleanup", Severity::Info, format_args!("{id}: message-id={value}"));
}

#[cfg(test)]
#[path = "cleanup_tests.rs"]
mod tests;
