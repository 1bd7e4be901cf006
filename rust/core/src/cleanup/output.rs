//! The output of cleanup: header fields one at a time into the head, the body in runs into the sink.

use super::settings::CleanupSettings;
use super::{HEAD_MAX_OCTETS, Options, Origin, Output, Part, Refusal};
use crate::address::rewrite::Rewrite;
use crate::address::rewriting::RewriteClass;
use crate::mail::envelope::Envelope;
use crate::mail::header::{End, Field, HeaderEvents, Known, Seen, from_lf};
use crate::mail::sink::Sink;
use std::io;
use std::sync::Arc;

/// Initial capacity of a head: enough for a common message.
const HEAD_CAPACITY_OCTETS: usize = 2048;
/// Octets of a header in a warning.
const SHOWN_OCTETS: usize = 100;

impl<S: Sink> Output<S> {
    /// Return the output of a message without checks.
    pub(super) fn new(
        settings: &Arc<CleanupSettings>,
        sink: S,
        envelope: Envelope,
        origin: Origin,
        options: Options,
        wall_now_us: u64,
    ) -> Self {
        Self {
            settings: Arc::clone(settings),
            head: Vec::with_capacity(HEAD_CAPACITY_OCTETS),
            later: Vec::new(),
            options,
            utf8_header: None,
            ignored: None,
            carries_requiretls: false,
            sink,
            envelope,
            origin,
            full_name: None,
            asker: None,
            wall_now_us,
            seen: Seen::default(),
            resent: false,
            hops: 0,
            size_octets: 0,
            body_line_open: false,
            checks: None,
            checks_body: false,
            discarding: false,
            refusal: None,
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
        self.head = Vec::new();
    }

    /// Append to the head.
    pub(super) fn write_head(&mut self, wire: &[u8]) {
        if !self.discarding && self.has_room(wire.len()) {
            self.head.extend_from_slice(wire);
        }
    }

    /// Return whether the head takes this number of octets more; refuse the message if it is too long then.
    fn has_room(&mut self, octets: usize) -> bool {
        if self.head.len() + octets > HEAD_MAX_OCTETS {
            self.refuse(Refusal::HeadTooBig);
        }
        self.refusal.is_none()
    }

    /// Write to the sink, which receives the body.
    pub(super) fn write(&mut self, wire: &[u8]) {
        if self.refusal.is_some() || self.discarding || wire.is_empty() {
            return;
        }
        if let Err(error) = self.sink.write(wire) {
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            self.refuse(if full { Refusal::NoSpace } else { Refusal::WriteError });
        }
    }

    /// Write a header without its last line end.
    pub(super) fn write_header(&mut self, parts: &[&[u8]]) {
        // A dot at the start, and the line end.
        let octets = parts.iter().map(|part| part.len()).sum::<usize>() + 3;
        if self.discarding || !self.has_room(octets) {
            return;
        }
        self.head.reserve(octets);
        if parts[0].first() == Some(&b'.') {
            self.head.push(b'.');
        }
        for part in parts {
            self.head.extend_from_slice(part);
            self.size_octets += (part.len() - memchr::memchr_iter(b'\n', part).count()) as u64;
        }
        self.head.extend_from_slice(b"\r\n");
        self.size_octets += 1;
        if let Some(utf8 @ false) = &mut self.utf8_header {
            *utf8 = !parts.iter().all(|part| part.is_ascii());
        }
    }

    /// Write a trace header, with LF inside and no LF at its end.
    pub(super) fn received(&mut self, header: &str) {
        if self.checks.is_some() {
            return self.header(&from_lf(header.trim_end_matches('\n').as_bytes()));
        }
        self.hop();
        let mut wire = Vec::with_capacity(header.len() + 8);
        let mut line_ends = 0;
        for line in header.trim_end_matches('\n').split('\n') {
            // A CR of its own would be a stray one.
            line.split('\r').for_each(|part| wire.extend_from_slice(part.as_bytes()));
            wire.extend_from_slice(b"\r\n");
            line_ends += 1;
        }
        self.write_head(&wire);
        self.size_octets += (wire.len() - line_ends) as u64;
    }

    fn hop(&mut self) {
        self.hops += 1;
        if self.hops >= self.settings.hopcount_limit {
            self.refuse(Refusal::TooManyHops);
        }
    }

    /// Return the rules to complete addresses in this message's headers, `None` to leave them unchanged.
    pub(super) fn rewrite(&self) -> Option<&Rewrite> {
        match self.origin {
            Origin::Local | Origin::Network { trusted: true } => Some(&self.settings.local_rewrite),
            Origin::Network { trusted: false } => self.settings.remote_rewrite.as_ref(),
        }
    }
}

/// Return the class of a header's addresses, `None` for a header without them.
fn class_of(known: Known) -> Option<RewriteClass> {
    if known.names_senders() {
        Some(RewriteClass::HeaderSender)
    } else if known.names_recipients() {
        Some(RewriteClass::HeaderRecipient)
    } else {
        None
    }
}

impl<S: Sink> Output<S> {
    /// Note a header, complete its addresses, and write it.
    pub(super) fn take_header(&mut self, header: &[u8]) {
        let Some(field) = Field::parse(header) else {
            return self.write_header(&[header]);
        };
        let known = Known::of(field.name).filter(|_| !self.discarding);
        if let Some(known) = known {
            self.seen.note(known);
            self.resent |= known.is_resent();
            match known {
                Known::Received => self.hop(),
                Known::MessageId | Known::ResentMessageId => self.note_message_id(known, field.unfolded()),
                Known::TlsRequired if self.settings.obeys_tls_required => self.note_tls_required(header, field),
                Known::RequireTlsEsmtp if self.settings.requiretls_header => {
                    self.carries_requiretls |= field.unfolded().eq_ignore_ascii_case("yes");
                    self.envelope.requiretls |= self.carries_requiretls;
                }
                _ => {}
            }
        }
        self.note_encoding(field);
        if self.settings.drops(field.name) {
            return;
        }
        let class = known.and_then(class_of);
        let tokens_max = self.settings.header_address_token_limit;
        let rewrite = self.rewrite().filter(|_| class.is_some());
        let rewrites = rewrite.is_some();
        let rewritten = rewrite.and_then(|rewrite| rewrite.apply_to_list(field.value, tokens_max));
        let start = self.head.len();
        self.write_header(&[field.name, b":", rewritten.as_deref().unwrap_or(field.value)]);
        if let Some(class) =
            class.filter(|class| rewrites && self.options.maps && self.settings.rewriting.touches(*class))
        {
            let dot = usize::from(field.name.first() == Some(&b'.'));
            self.later(start + dot + field.name.len() + 1, Part::Value(class));
        }
    }

    /// Note `TLS-Required: no` (RFC 8689 §3). Another value has no effect.
    fn note_tls_required(&mut self, header: &[u8], field: Field<'_>) {
        if field.unfolded().eq_ignore_ascii_case("no") {
            self.envelope.waive_tls();
        } else {
            let shown = header.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).take(SHOWN_OCTETS);
            self.ignored.get_or_insert(String::from_utf8_lossy(&shown.collect::<Vec<_>>()).into());
        }
    }

    /// Write a piece of a line of the body.
    pub(super) fn body_text(&mut self, text: &[u8]) {
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

    /// Write the end of a line of the body.
    pub(super) fn body_end(&mut self) {
        self.body_line_open = false;
        self.write(b"\r\n");
        self.size_octets += 1;
    }
}

impl<S: Sink> Output<S> {
    /// Add missing headers, and end the head.
    pub(super) fn head_done(&mut self, end: End) {
        if !self.discarding {
            self.add_missing();
            self.add_requiretls();
        }
        if end != End::Message {
            self.write_head(b"\r\n");
            self.size_octets += 1;
        }
    }
}

impl<S: Sink> HeaderEvents for Output<S> {
    fn header(&mut self, header: &[u8]) {
        if self.checks.is_some() { self.check_header(header) } else { self.take_header(header) }
    }

    fn mbox(&mut self) -> Option<&'static str> {
        match self.origin {
            Origin::Network { .. } => Some("X-Mailbox-Line"),
            Origin::Local => None,
        }
    }

    fn end(&mut self, end: End) {
        if self.checks.is_some() {
            self.check_head_end(end);
        }
        if !self.hold_head_end(end) {
            self.head_done(end);
        }
    }

    fn body(&mut self, text: &[u8]) {
        if self.checks_body { self.check_text(text) } else { self.body_text(text) }
    }

    fn body_line_end(&mut self) {
        if self.checks_body { self.check_line_end() } else { self.body_end() }
    }
}
