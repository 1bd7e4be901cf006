//! The MIME structure of a message as a stream (RFC 2045, 2046).
//!
//! Pieces of lines go in, in any split. Logical headers with their class and lines of bodies come out, all of them, in
//! order. The reader believes little: a header block ends at the first line that is no header, a boundary is known by
//! its start, and the end of an outer part ends the inner ones. In memory are one logical header, one line, and the
//! boundaries of the open multiparts: `nesting_limit` of them.

mod content_type;

use super::header::{End, Field, HeaderEvents, HeaderParser};
use super::stuff::Unstuffer;
use crate::settings;
use crate::settings::Source;
use content_type::ContentType;
use std::mem;

/// The class of a header: which of header_checks, mime_header_checks and nested_header_checks sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderClass {
    /// A header of the message.
    Primary,
    /// A header of a part, or a MIME header anywhere.
    Mime,
    /// A header of an attached message.
    Nested,
}

/// The type of a body, as far as the structure needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A body without structure.
    Leaf,
    /// multipart/*
    Multipart,
    /// message/rfc822
    Message,
    /// message/global (RFC 6532), which may have any encoding.
    Global,
    /// message/partial and message/external-body, which are 7bit.
    Fragment,
    /// Another subtype of message.
    Report,
}

/// Content-Transfer-Encoding (RFC 2045 §6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the encodings' names.
pub enum Encoding {
    SevenBit,
    EightBit,
    Binary,
    Base64,
    QuotedPrintable,
}

const ENCODINGS: [(&str, Encoding); 5] = [
    ("7bit", Encoding::SevenBit),
    ("8bit", Encoding::EightBit),
    ("binary", Encoding::Binary),
    ("base64", Encoding::Base64),
    ("quoted-printable", Encoding::QuotedPrintable),
];

impl Encoding {
    /// Return the encoding with this name, in any case.
    pub fn of(name: &[u8]) -> Option<Self> {
        ENCODINGS.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, encoding)| *encoding)
    }

    /// Return its name.
    pub fn name(self) -> &'static str {
        ENCODINGS.iter().find(|(_, encoding)| *encoding == self).map_or("", |(name, _)| name)
    }

    /// Whether the body's octets are the data's own.
    pub fn is_identity(self) -> bool {
        matches!(self, Self::SevenBit | Self::EightBit | Self::Binary)
    }

    /// Whether the body may have octets above 127.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::EightBit | Self::Binary)
    }
}

/// The part that a header or a line belongs to, as its headers so far describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The type.
    pub kind: Kind,
    /// The encoding.
    pub encoding: Encoding,
}

impl Part {
    /// The default (RFC 2045 §5.2, §6.1).
    const PLAIN: Self = Self { kind: Kind::Leaf, encoding: Encoding::SevenBit };
}

/// A line of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The text without its line end: at most `line_limit` octets of it.
    pub text: &'a [u8],
    /// Octets of the body segment before the line.
    pub offset: u64,
    /// The text is the start of the line.
    pub starts: bool,
    /// The line ends here. Otherwise its next piece follows, or the message ends.
    pub ends: bool,
}

/// A rule that a message breaks. Each is reported once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `mime_nesting_limit`
    Nesting,
    /// `strict_7bit_headers`
    EightBitHeader,
    /// `strict_8bitmime_body`
    EightBitBody,
    /// `strict_mime_encoding_domain`
    EncodingDomain,
}

impl Fault {
    /// Return Postfix's text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Nesting => "MIME nesting exceeds safety limit",
            Self::EightBitHeader => "improper use of 8-bit data in message header",
            Self::EightBitBody => "improper use of 8-bit data in message body",
            Self::EncodingDomain => "invalid message/* or multipart/* encoding domain",
        }
    }
}

/// The receiver of a message's headers and lines.
pub trait MimeEvents {
    /// Receive a logical header, with CRLF inside where it was folded, without its last line end.
    fn header(&mut self, class: HeaderClass, part: Part, header: &[u8]);
    /// Receive the end of a header block. After `End::Separator`, the empty line is the first line of the body.
    fn head_end(&mut self, class: HeaderClass, part: Part, end: End);
    /// Receive a line of a body, or a piece of a long one.
    fn line(&mut self, part: Part, line: Line<'_>);
    /// Receive a broken rule. `text`: the line, header or encoding that breaks it.
    fn fault(&mut self, fault: Fault, text: &[u8]);
}

settings! {
    /// The limits, and the rules to check.
    #[derive(Debug, Clone)]
    pub struct MimeRules {
        /// Take all text after the message's headers for one body, without a structure.
        flat: bool = "disable_mime_input_processing",
        /// Maximum depth of multiparts.
        nesting_limit: usize = "mime_nesting_limit",
        /// Octets of a boundary; the rest does not count.
        boundary_limit: usize = "mime_boundary_length_limit",
        /// Octets of a logical header; the rest is dropped.
        header_limit: usize = "header_size_limit",
        /// Octets of a line; a longer line comes in pieces.
        line_limit: usize = "line_length_limit",
        /// Report `Fault::EightBitHeader`.
        headers_are_ascii: bool = is_strict "strict_7bit_headers",
        /// Report `Fault::EightBitBody`.
        bodies_are_declared: bool = is_strict "strict_8bitmime_body",
        /// Report `Fault::EncodingDomain`.
        composites_are_plain: bool = "strict_mime_encoding_domain",
    }
}

/// `strict_8bitmime` stands for the parameters of headers and of bodies.
fn is_strict<S: Source>(source: &S, name: &str) -> Result<bool, S::Error> {
    Ok(source.flag(name)? || source.flag("strict_8bitmime")?)
}

impl MimeRules {
    /// Return the same limits for a message on its way out: its structure counts, and no rule is checked again.
    pub fn outgoing(self) -> Self {
        let off = false;
        Self { flat: off, headers_are_ascii: off, bodies_are_declared: off, composites_are_plain: off, ..self }
    }
}

#[derive(Debug)]
struct Level {
    boundary: Box<[u8]>,
    /// The type of a part without a Content-Type.
    default_kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Head(HeaderClass),
    Body,
}

/// Reads the structure.
#[derive(Debug)]
pub struct Mime {
    /// `None` in a body.
    parser: Option<HeaderParser>,
    inner: Structure,
}

/// The state besides the header block in progress.
#[derive(Debug)]
struct Structure {
    rules: MimeRules,
    place: Position,
    part: Part,
    /// The open multiparts, the outermost first.
    levels: Vec<Level>,
    /// The line so far.
    line: Vec<u8>,
    /// The next octet of a body starts a line.
    line_start: bool,
    /// A line of a body is open, whatever the place is: the rest of it belongs to the body too.
    open: bool,
    offset: u64,
    /// A bit for each reported fault.
    reported: u8,
}

impl Mime {
    /// Return a reader at the start of a message.
    pub fn new(rules: MimeRules) -> Self {
        let parser = Some(HeaderParser::strict(rules.header_limit));
        let inner = Structure {
            rules,
            place: Position::Head(HeaderClass::Primary),
            part: Part::PLAIN,
            levels: Vec::new(),
            line: Vec::new(),
            line_start: true,
            open: false,
            offset: 0,
            reported: 0,
        };
        Self { parser, inner }
    }

    /// Receive a header of the message from a caller that parses this block itself. `header`: as in `MimeEvents`.
    pub fn primary_header(&mut self, header: &[u8], on: &mut impl MimeEvents) {
        self.inner.header(header, on);
    }

    /// Receive the end of the block of `primary_header`. The body follows, with the empty line first, if any.
    pub fn primary_end(&mut self, end: End, on: &mut impl MimeEvents) {
        self.inner.head_end(end, on);
        self.parser = None;
        self.finish_head();
    }

    /// Whether a part or an attached message is open: headers may follow.
    pub fn has_structure(&self) -> bool {
        !self.inner.levels.is_empty() || self.inner.place != Position::Body
    }

    /// Receive a piece of a line: any octets but a line end, at least one; a stuffed dot is removed already.
    pub fn text(&mut self, text: &[u8], on: &mut impl MimeEvents) {
        let Some(parser) = self.parser.as_mut().filter(|_| !self.inner.open) else {
            return self.inner.body(text, on);
        };
        if !parser.text(text, &mut Block { inner: &mut self.inner, on }) {
            self.parser = None;
            self.finish_head();
        }
    }

    /// Receive the end of a line.
    pub fn line_end(&mut self, on: &mut impl MimeEvents) {
        match self.parser.as_mut().filter(|_| !self.inner.open) {
            Some(parser) => {
                if !parser.line_end(&mut Block { inner: &mut self.inner, on }) {
                    self.parser = None;
                    self.finish_head();
                }
            }
            None => {
                self.inner.body_line_end(on);
                self.finish_head();
            }
        }
    }

    /// Receive the end of the message: deliver the last header or the open line.
    pub fn finish(&mut self, on: &mut impl MimeEvents) {
        match self.parser.as_mut().filter(|_| !self.inner.open) {
            Some(parser) => parser.message_end(&mut Block { inner: &mut self.inner, on }),
            None => self.inner.flush(false, on),
        }
    }

    /// Begin to parse a header block that the last line has opened.
    fn finish_head(&mut self) {
        if self.parser.is_none() && self.inner.place != Position::Body {
            self.parser = Some(HeaderParser::strict(self.inner.rules.header_limit));
        }
    }
}

/// Reads the structure of a message in wire form.
#[derive(Debug)]
pub struct WireMime {
    unstuffer: Unstuffer,
    /// The last piece in local form.
    local: Vec<u8>,
    mime: Mime,
}

impl WireMime {
    /// Return a reader at the start of a message.
    pub fn new(rules: MimeRules) -> Self {
        Self { unstuffer: Unstuffer::lf(), local: Vec::new(), mime: Mime::new(rules) }
    }

    /// Receive the next octets, in any split.
    pub fn feed(&mut self, wire: &[u8], on: &mut impl MimeEvents) {
        self.local.clear();
        self.unstuffer.feed(wire, &mut self.local);
        let mut rest = &self.local[..];
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest);
            let text = &rest[..end.unwrap_or(rest.len())];
            if !text.is_empty() {
                self.mime.text(text, on);
            }
            rest = &rest[text.len()..];
            if end.is_some() {
                self.mime.line_end(on);
                rest = &rest[1..];
            }
        }
    }

    /// Receive the end of the message.
    pub fn finish(&mut self, on: &mut impl MimeEvents) {
        self.local.clear();
        std::mem::replace(&mut self.unstuffer, Unstuffer::lf()).finish(&mut self.local);
        if !self.local.is_empty() {
            self.mime.text(&self.local, on);
        }
        self.mime.finish(on);
    }
}

/// Passes the events of a header block on.
struct Block<'a, E> {
    inner: &'a mut Structure,
    on: &'a mut E,
}

impl<E: MimeEvents> HeaderEvents for Block<'_, E> {
    fn header(&mut self, header: &[u8]) {
        self.inner.header(header, self.on);
    }
    fn mbox(&mut self) -> Option<&'static str> {
        None
    }
    fn end(&mut self, end: End) {
        self.inner.head_end(end, self.on);
    }
    fn body(&mut self, text: &[u8]) {
        if !text.is_empty() {
            self.inner.body(text, self.on);
        }
    }
    fn body_line_end(&mut self) {
        self.inner.body_line_end(self.on);
    }
}

impl Structure {
    fn report(&mut self, fault: Fault, text: &[u8], on: &mut impl MimeEvents) {
        let bit = 1 << fault as u8;
        if self.reported & bit == 0 {
            self.reported |= bit;
            on.fault(fault, text);
        }
    }

    fn header(&mut self, header: &[u8], on: &mut impl MimeEvents) {
        let Position::Head(place) = self.place else { return };
        let mut class = place;
        if let Some(field) = Field::parse(header) {
            // As in Postfix, even where the structure does not count.
            class = if is_mime(field.name) { HeaderClass::Mime } else { place };
            if self.rules.flat {
            } else if field.name.eq_ignore_ascii_case(b"content-type") {
                self.content_type(field.value, header, on);
            } else if field.name.eq_ignore_ascii_case(b"content-transfer-encoding")
                && let Some(encoding) = content_type::first_atom(field.value).and_then(|name| Encoding::of(&name))
            {
                self.part.encoding = encoding;
            }
        }
        if self.rules.headers_are_ascii && !header.is_ascii() {
            self.report(Fault::EightBitHeader, header, on);
        }
        on.header(class, self.part, header);
    }

    fn content_type(&mut self, value: &[u8], header: &[u8], on: &mut impl MimeEvents) {
        let parsed = ContentType::parse(value);
        self.part.kind = parsed.kind;
        let default_kind = if parsed.is_digest { Kind::Message } else { Kind::Leaf };
        for mut boundary in parsed.boundaries {
            // Postfix counts from -1.
            if self.levels.len() > self.rules.nesting_limit + 1 {
                self.report(Fault::Nesting, header, on);
                return;
            }
            boundary.truncate(self.rules.boundary_limit);
            self.levels.push(Level { boundary: boundary.into(), default_kind });
        }
    }

    fn head_end(&mut self, end: End, on: &mut impl MimeEvents) {
        let Position::Head(class) = self.place else { return };
        let Part { kind, encoding } = self.part;
        let allowed = match kind {
            Kind::Leaf | Kind::Global => true,
            Kind::Multipart | Kind::Message | Kind::Report => encoding.is_identity(),
            Kind::Fragment => !encoding.is_wide(),
        };
        if self.rules.composites_are_plain && !allowed {
            self.report(Fault::EncodingDomain, encoding.name().as_bytes(), on);
        }
        on.head_end(class, self.part, end);
        self.offset = 0;
        self.place = Position::Body;
        if end == End::Message {
            return;
        }
        match kind {
            Kind::Message | Kind::Global if !self.rules.flat => {
                self.place = Position::Head(HeaderClass::Nested);
                self.part = Part::PLAIN;
            }
            Kind::Multipart => self.part = Part::PLAIN,
            _ => {}
        }
        // The line that ended the block without an empty line is no header of an attached message either: it belongs to
        // the body, and so does what follows.
        if end == End::NoSeparator && self.place != Position::Body {
            return self.head_end(end, on);
        }
        self.open = end == End::NoSeparator;
        if end == End::Separator {
            on.line(self.part, Line { text: b"", offset: 0, starts: true, ends: true });
            self.offset = 1;
        }
    }

    fn body(&mut self, mut text: &[u8], on: &mut impl MimeEvents) {
        self.open = true;
        while !text.is_empty() {
            let room = self.rules.line_limit.saturating_sub(self.line.len());
            if room == 0 {
                self.flush(false, on);
                continue;
            }
            let (now, later) = text.split_at(text.len().min(room));
            self.line.extend_from_slice(now);
            text = later;
        }
    }

    fn body_line_end(&mut self, on: &mut impl MimeEvents) {
        self.open = false;
        self.flush(true, on);
    }

    /// Deliver the line, or a piece of it.
    fn flush(&mut self, ends: bool, on: &mut impl MimeEvents) {
        if self.line.is_empty() && !ends {
            return;
        }
        let line = mem::take(&mut self.line);
        // As in Postfix, base64 and quoted-printable declare enough.
        if self.rules.bodies_are_declared && self.part.encoding == Encoding::SevenBit && !line.is_ascii() {
            self.report(Fault::EightBitBody, &line, on);
        }
        // As in Postfix, a lone `--` is no boundary, even where the boundary is empty.
        if self.line_start && line.len() > 2 && line.starts_with(b"--") {
            self.boundary(&line);
            // As in Postfix, the rest of a longer line is no header, and ends the header block of the part.
            if line.len() >= self.rules.line_limit {
                self.place = Position::Body;
            }
        }
        on.line(self.part, Line { text: &line, offset: self.offset, starts: self.line_start, ends });
        self.offset += line.len() as u64 + 1;
        self.line_start = ends;
        self.line = line;
        self.line.clear();
    }

    /// Begin or end a part if the line has the boundary of an open multipart; the innermost counts.
    fn boundary(&mut self, line: &[u8]) {
        let text = &line[2..];
        let Some(at) = self.levels.iter().rposition(|level| text.starts_with(&level.boundary)) else {
            return;
        };
        self.levels.truncate(at + 1);
        let level = &self.levels[at];
        if text[level.boundary.len()..].starts_with(b"--") {
            self.levels.pop();
            self.place = Position::Body;
            self.part = Part::PLAIN;
        } else {
            self.place = Position::Head(HeaderClass::Mime);
            self.part = Part { kind: level.default_kind, ..Part::PLAIN };
        }
    }
}

/// Whether mime_header_checks see the header, wherever it is.
fn is_mime(name: &[u8]) -> bool {
    const NAMES: [&str; 6] = [
        "content-description",
        "content-disposition",
        "content-id",
        "content-transfer-encoding",
        "content-type",
        "mime-version",
    ];
    NAMES.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests;
