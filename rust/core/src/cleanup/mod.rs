//! The processing of a message between its arrival and the queue (cleanup(8)).
//!
//! The header block is a stream of header fields: some are dropped, some completed, and missing ones follow the last.
//! They stay in memory as the message's head; the body goes to the sink in long runs while nothing needs a change.
//! `header_size_limit` and `HEAD_MAX_OCTETS` bound the memory. After the first problem, the rest of the message is read
//! and dropped, because a client gets its reply only at the end.
//!
//! ```text
//! settings    the parameters
//! envelope    completes addresses of the envelope, drops duplicates
//! checks      header_checks, body_checks, the rules about MIME
//! output      drops, completes and collects header fields, passes the body
//! missing     adds header fields
//! finish      maps addresses at the end of the message
//! submission  a message of a program on this machine
//! ```

mod checks;
mod envelope;
mod finish;
mod missing;
mod output;
pub mod settings;
pub mod submission;
#[cfg(test)]
mod tests;

pub use finish::{Finished, Finishing};

use crate::address::rewriting::Class;
use crate::ask::{Answer, Lookup};
use crate::log::{Log, Severity};
use crate::mail::envelope::Envelope;
use crate::mail::header::{HeaderEvents, HeaderParser, Seen, from_lf};
use crate::mail::reply::Reply;
use crate::mail::sink::Sink;
use crate::mail::source::MailSource;
use checks::Checks;
use envelope::complete_envelope;
use memchr::memchr2;
use settings::{CleanupSettings, Octets};
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

/// The origin of a message. It decides which header fields are completed and added.
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

/// The reason to refuse a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A check, with its reply. It has logged a line.
    Rejected(Box<Reply>),
    /// `hopcount_limit`
    TooManyHops,
    /// `message_size_limit`
    TooBig,
    /// `HEAD_MAX_OCTETS`
    HeadTooBig,
    /// `message_reject_characters`
    DisallowedCharacter,
    /// A lookup table cannot answer.
    LookupFailed,
    /// An alias expands without end.
    AliasLimit,
    /// The disk is full.
    NoSpace,
    /// The queue cannot be written.
    WriteError,
}

impl Refusal {
    /// Return the reply to the client, with Postfix's text.
    pub fn reply(self) -> Reply {
        match self {
            Self::Rejected(reply) => *reply,
            Self::TooManyHops => Reply::new(554, [4, 0], "Error: too many hops"),
            Self::TooBig => Reply::new(552, [3, 4], "Error: message file too big"),
            Self::HeadTooBig => Reply::new(552, [3, 4], "Error: message header too big"),
            Self::DisallowedCharacter => Reply::new(550, [7, 1], "disallowed character"),
            Self::LookupFailed => Reply::new(451, [3, 0], "Error: queue file write error"),
            Self::AliasLimit => Reply::new(451, [6, 0], "Alias expansion error"),
            Self::NoSpace => Reply::new(452, [3, 1], "Insufficient system storage"),
            Self::WriteError => Reply::new(451, [3, 0], "Error: queue file write error"),
        }
    }
}

/// Maximum number of octets in a message's head, with trace header and added fields.
pub const HEAD_MAX_OCTETS: usize = 2 * 1024 * 1024;
/// Initial capacity of a head: enough for a common message.
const HEAD_CAPACITY_OCTETS: usize = 2048;

/// The name of the attribute for the Message-Id with its angle brackets.
pub const MESSAGE_ID: &str = "message_id";
/// The name of the attribute for the Resent-Message-Id.
pub const RESENT_MESSAGE_ID: &str = "resent_message_id";

/// A message on its way into the queue.
#[derive(Debug)]
pub struct Cleanup<S: Sink> {
    out: Output<S>,
    /// `None` in the body.
    head: Option<HeaderParser>,
    /// At the start of a line of the body, or of the header block.
    line_start: bool,
    pending_cr: bool,
    /// Octets for `message_size_limit`: a line end counts as two, stuffed dots do not count.
    received_octets: u64,
    /// The whole message takes the slow path, piece by piece.
    filtered: bool,
}

/// The output of cleanup: the message, and the facts about it.
#[derive(Debug)]
struct Output<S> {
    settings: Arc<CleanupSettings>,
    /// The header fields in wire form, and the empty line behind them.
    head: Vec<u8>,
    /// Parts of the head whose addresses are mapped at the end of the message.
    later: Vec<Later>,
    /// Recipients of copies are added (`always_bcc` and others).
    copies: bool,
    /// Whether a header is not ASCII; `None`: nobody asks.
    utf8_header: Option<bool>,
    /// Receives the body.
    sink: S,
    envelope: Envelope,
    origin: Origin,
    full_name: Option<Box<str>>,
    wall_now_us: u64,
    seen: Seen,
    resent: bool,
    hops: u32,
    /// Octets: a line end counts as one, stuffed dots do not count.
    size_octets: u64,
    body_line_open: bool,
    /// `None` at a site without checks.
    checks: Option<Box<Checks>>,
    /// They see the lines of the body too.
    checks_body: bool,
    /// A check drops the message.
    discarding: bool,
    refusal: Option<Refusal>,
}

/// A part of the head that is mapped at the end.
#[derive(Debug)]
struct Later {
    span: Range<usize>,
    part: Part,
}

/// The kind of a part.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// The value of a header with addresses.
    Value(Class),
    /// The sender in a `From:` that cleanup has added.
    From,
}

enum Piece<'a> {
    Text(&'a [u8]),
    Stray(u8),
    LineEnd,
}

impl<S: Sink> Cleanup<S> {
    /// Start a message with this envelope, and complete the envelope's addresses. `sink` receives the body.
    /// `wall_now_us`: microseconds since 1970.
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
            head: Vec::with_capacity(HEAD_CAPACITY_OCTETS),
            later: Vec::new(),
            copies: true,
            utf8_header: None,
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
            checks: None,
            checks_body: false,
            discarding: false,
            refusal: None,
        };
        Self { out, head: Some(head), line_start: true, pending_cr: false, received_octets: 0, filtered }
    }

    /// Check the message's headers and lines, with their lines in `log`. Call it before `received`.
    pub fn check(&mut self, log: Arc<Log>) {
        self.out.checks = Checks::of(&self.out.settings, log, &self.out.envelope);
    }

    /// Add a trace header, `Received: from ...\n\tby ...` with LF inside and no LF at its end. Call it before `feed`.
    pub fn received(&mut self, header: &str) {
        if self.out.checks.is_some() {
            return self.out.header(&from_lf(header.trim_end_matches('\n').as_bytes()));
        }
        self.out.hop();
        let mut wire = Vec::with_capacity(header.len() + 8);
        for line in header.trim_end_matches('\n').split('\n') {
            wire.extend(line.bytes().filter(|b| *b != b'\r'));
            wire.extend_from_slice(b"\r\n");
        }
        let line_ends = wire.iter().filter(|b| **b == b'\n').count();
        self.out.write_head(&wire);
        self.out.size_octets += (wire.len() - line_ends) as u64;
    }

    /// Set the sender's name, for a missing `From:` (`sendmail -F`).
    pub fn full_name(&mut self, name: &str) {
        self.out.full_name = (!name.is_empty()).then(|| name.into());
    }

    /// Give the message SMTPUTF8 if an address or a header needs it, and the site wants that for mail of this source
    /// (`smtputf8_autodetect_classes`). Call it before `received`.
    pub fn autodetect(&mut self, source: MailSource) {
        self.out.utf8_header = self.out.settings.autodetected.has(source).then_some(false);
    }

    /// Treat the message as the mail system's own: nobody gets a copy.
    pub fn internal(&mut self) {
        self.out.copies = false;
    }

    /// Return the first problem so far.
    pub fn refusal(&self) -> Option<Refusal> {
        self.out.refusal.clone()
    }

    /// Return the envelope in its present state.
    pub fn envelope(&self) -> &Envelope {
        &self.out.envelope
    }

    /// Receive the next bytes of the message in wire form, in any split, without the final dot.
    pub fn feed(&mut self, wire: &[u8]) {
        if self.out.refusal.is_some() {
            return;
        }
        // Counted before stuffed dots are subtracted below.
        self.received_octets += wire.len() as u64;
        let mut rest = wire;
        while !rest.is_empty() && (self.head.is_some() || self.filtered || self.out.checks_body) {
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

    /// End the message, add missing header fields, and begin to map its addresses.
    pub fn begin_finish(mut self) -> Finishing<S> {
        if self.pending_cr {
            self.pending_cr = false;
            self.piece(Piece::Stray(b'\r'));
        }
        if let Some(mut head) = self.head.take() {
            head.message_end(&mut self.out);
        }
        if self.out.checks_body {
            self.out.check_end();
        }
        if self.out.is_waiting() { Finishing::checking(self.out) } else { self.out.finish() }
    }

    /// Whether the message waits for answers of remote tables of its checks: feed it no more before they are there.
    pub fn is_waiting(&self) -> bool {
        self.out.is_waiting()
    }

    /// Take the next lookups of the checks.
    pub fn asks(&mut self) -> Vec<Lookup> {
        self.out.asks()
    }

    /// Receive the answer of a lookup.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        self.out.answer(lookup, answer);
    }

    /// End a message of a site without remote tables. Returns the sink with the body, the head in wire form, and the
    /// envelope with `size_octets` and `message_id`. The message is the head, then the body.
    pub fn finish(self) -> Result<Finished<S>, Refusal> {
        match self.begin_finish().poll() {
            Poll::Ready(result) => result,
            Poll::Pending => Err(Refusal::LookupFailed),
        }
    }

    /// Remove the next piece from `rest`; `None` if it is incomplete.
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
                    // A stuffed dot, perhaps without the rest of its line.
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

    /// Copy the body in runs between line ends. Input and output are in wire form, so dots stay as they are.
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

fn strip(octets: &Octets, text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|octet| !octets.has(*octet)).collect()
}

/// Begin to map the addresses of an envelope as for a message from the network: a rehearsal, without content or queue.
/// `wall_now_us`: microseconds since 1970.
pub fn rehearse(settings: Arc<CleanupSettings>, envelope: Envelope, wall_now_us: u64) -> Finishing<Vec<u8>> {
    let origin = Origin::Network { trusted: false };
    Cleanup::new(settings, Vec::new(), envelope, origin, wall_now_us).begin_finish()
}

/// Log the Message-Id as cleanup: `ID: message-id=<...>`. Log parsers expect the line for every message, but not for one
/// that a check of a header has dropped.
pub fn log_message_id(log: &Log, settings: &CleanupSettings, envelope: &Envelope) {
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
