//! The content of a message as lines: the header block to its parser, the body to the output.
//!
//! Content comes in wire form, in any split. Pieces of a line go to the header parser, or to the body where something
//! checks or changes it; otherwise the body passes in long runs.

use super::finish::Finishing;
use super::settings::Octets;
use super::{Output, Refusal};
use crate::mail::header::{HeaderEvents, HeaderParser};
use crate::mail::sink::Sink;
use memchr::memchr2;

/// The content of a message that arrives.
#[derive(Debug)]
pub(super) struct Lines<S: Sink> {
    pub out: Output<S>,
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

enum Piece<'a> {
    Text(&'a [u8]),
    Stray(u8),
    LineEnd,
}

impl<S: Sink> Lines<S> {
    /// Start the content of a message.
    pub fn new(out: Output<S>) -> Self {
        let settings = &out.settings;
        let head = HeaderParser::new(settings.header_size_limit);
        let filtered = settings.strip_characters.is_some() || settings.reject_characters.is_some();
        Self { out, head: Some(head), line_start: true, pending_cr: false, received_octets: 0, filtered }
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

    /// End the message, add missing header fields, and begin to map its addresses once all checks have their answers.
    #[expect(clippy::boxed_local, reason = "out of its box, a large struct would be copied once more")]
    pub fn end(mut self: Box<Self>) -> Finishing<S> {
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
