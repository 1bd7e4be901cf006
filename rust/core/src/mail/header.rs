//! The header block as a stream: lines in, logical header fields out (RFC 5322 §2.2).
//!
//! One logical header is in memory at a time, up to the limit; its excess is dropped. The block ends at an empty line,
//! or at the first line that is no header, which belongs to the body. `mbox` lines (`From user date`) may precede the
//! first header.

use std::borrow::Cow;

/// A header with a special treatment in cleanup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the headers' names.
pub enum Known {
    ApparentlyTo,
    Bcc,
    Cc,
    ContentLength,
    Date,
    DispositionNotificationTo,
    ErrorsTo,
    From,
    MailFollowupTo,
    MessageId,
    Received,
    ReplyTo,
    RequireTlsEsmtp,
    ResentBcc,
    ResentCc,
    ResentDate,
    ResentFrom,
    ResentMessageId,
    ResentReplyTo,
    ResentSender,
    ResentTo,
    ReturnPath,
    ReturnReceiptTo,
    Sender,
    TlsRequired,
    To,
}

/// In the order of `Known`, so that a table's index is a header's bit.
const KNOWN: [(&str, Known); 26] = [
    ("apparently-to", Known::ApparentlyTo),
    ("bcc", Known::Bcc),
    ("cc", Known::Cc),
    ("content-length", Known::ContentLength),
    ("date", Known::Date),
    ("disposition-notification-to", Known::DispositionNotificationTo),
    ("errors-to", Known::ErrorsTo),
    ("from", Known::From),
    ("mail-followup-to", Known::MailFollowupTo),
    ("message-id", Known::MessageId),
    ("received", Known::Received),
    ("reply-to", Known::ReplyTo),
    ("require-tls-esmtp", Known::RequireTlsEsmtp),
    ("resent-bcc", Known::ResentBcc),
    ("resent-cc", Known::ResentCc),
    ("resent-date", Known::ResentDate),
    ("resent-from", Known::ResentFrom),
    ("resent-message-id", Known::ResentMessageId),
    ("resent-reply-to", Known::ResentReplyTo),
    ("resent-sender", Known::ResentSender),
    ("resent-to", Known::ResentTo),
    ("return-path", Known::ReturnPath),
    ("return-receipt-to", Known::ReturnReceiptTo),
    ("sender", Known::Sender),
    ("tls-required", Known::TlsRequired),
    ("to", Known::To),
];

impl Known {
    /// Return the header with this name, in any case.
    pub fn of(name: &[u8]) -> Option<Self> {
        KNOWN.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, known)| *known)
    }

    /// Whether its value is a list of recipients.
    pub fn names_recipients(self) -> bool {
        self.is_resent_recipient() || matches!(self, Self::ApparentlyTo | Self::Bcc | Self::Cc | Self::To)
    }

    /// Whether its value is a list of recipients of a resent message.
    pub fn is_resent_recipient(self) -> bool {
        matches!(self, Self::ResentBcc | Self::ResentCc | Self::ResentTo)
    }

    /// Whether its value is a list of senders, or of addresses for reports.
    pub fn names_senders(self) -> bool {
        matches!(
            self,
            Self::DispositionNotificationTo
                | Self::ErrorsTo
                | Self::From
                | Self::MailFollowupTo
                | Self::ReplyTo
                | Self::ResentFrom
                | Self::ResentReplyTo
                | Self::ResentSender
                | Self::ReturnPath
                | Self::ReturnReceiptTo
                | Self::Sender
        )
    }

    /// Whether it is about a resent message (RFC 5322 §3.6.6).
    pub fn is_resent(self) -> bool {
        (Self::ResentBcc as u8..=Self::ResentTo as u8).contains(&(self as u8))
    }
}

/// The headers that a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen(u32);

impl Seen {
    /// Note a header.
    pub fn note(&mut self, known: Known) {
        self.0 |= 1 << known as u8;
    }

    /// Whether the header was noted.
    pub fn has(self, known: Known) -> bool {
        self.0 & 1 << known as u8 != 0
    }
}

/// Return the octets of a header's name, without blanks before the colon; `None` for a line that is no header.
pub fn name_octets(line: &[u8]) -> Option<usize> {
    let colon = memchr::memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(|b| is_name(*b))).then_some(name.len())
}

/// Return a header without blanks before its colon: with them, a check would miss the header's name.
pub fn without_blanks_before_colon(header: &[u8]) -> Cow<'_, [u8]> {
    match Field::parse(header) {
        Some(Field { name, value }) if name.len() + 1 + value.len() < header.len() => {
            Cow::Owned([name, b":", value].concat())
        }
        _ => Cow::Borrowed(header),
    }
}

/// Return a logical header with LF in place of each CRLF inside, as tables see it.
pub fn with_lf(header: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\r', header).is_none() {
        return Cow::Borrowed(header);
    }
    Cow::Owned(header.split_inclusive(|b| *b == b'\n').fold(Vec::with_capacity(header.len()), |mut text, line| {
        match line.strip_suffix(b"\r\n") {
            Some(line) => {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
            None => text.extend_from_slice(line),
        }
        text
    }))
}

/// Return a text from a table as a logical header: with CRLF inside, and a blank at the start of each further line.
pub fn from_lf(text: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(text.len());
    for line in text.split(|b| *b == b'\n') {
        if !header.is_empty() {
            header.extend_from_slice(b"\r\n");
            if !line.first().is_some_and(|b| is_blank(*b)) {
                header.push(b'\t');
            }
        }
        header.extend(line.iter().copied().filter(|b| *b != b'\r'));
    }
    header
}

/// A logical header: its name, and its value with the line ends (CRLF) inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as received.
    pub name: &'a [u8],
    /// The text after the colon, blanks included.
    pub value: &'a [u8],
}

impl<'a> Field<'a> {
    /// Return the field in `header`; `None` without a name and a colon.
    pub fn parse(header: &'a [u8]) -> Option<Self> {
        let name = &header[..name_octets(header)?];
        let colon = memchr::memchr(b':', header)?;
        Some(Self { name, value: &header[colon + 1..] })
    }

    /// Return the value as one line: without line ends, and without blanks at its ends.
    pub fn unfolded(&self) -> String {
        let text = self.value.iter().copied().filter(|b| *b != b'\r' && *b != b'\n').collect::<Vec<_>>();
        String::from_utf8_lossy(text.trim_ascii()).into_owned()
    }
}

/// The end of a header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// An empty line.
    Separator,
    /// No empty line: the next line is no header.
    NoSeparator,
    /// The end of the message: there is no body.
    Message,
}

/// The receiver of a header block's parts.
pub trait HeaderEvents {
    /// Receive a logical header, with CRLF inside where it was folded, without its last line end.
    fn header(&mut self, header: &[u8]);
    /// Receive an mbox line before the headers: return the name of its header, or `None` to drop it.
    fn mbox(&mut self) -> Option<&'static str>;
    /// Receive the end of the block.
    fn end(&mut self, end: End);
    /// After `End::NoSeparator`: receive the first piece of the body, from an incomplete line.
    fn body(&mut self, text: &[u8]);
    /// After `body`: receive the end of its line.
    fn body_line_end(&mut self);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a line; it may continue the header before it.
    LineStart,
    /// In a possible name, or in the blanks after it.
    Name,
    /// After the colon.
    Value,
    /// In an mbox line to drop.
    Skip,
}

/// Joins pieces of lines to logical headers. Each method returns whether the block continues; after `false` the parser
/// is done.
#[derive(Debug)]
pub struct HeaderParser {
    held: Vec<u8>,
    limit_octets: usize,
    state: State,
    mbox_allowed: bool,
    /// The header exceeds the limit: its further text is dropped.
    cut: bool,
}

impl HeaderParser {
    /// Return a parser that cuts a logical header after `limit_octets` (`header_size_limit`).
    pub fn new(limit_octets: usize) -> Self {
        let limit_octets = limit_octets.max(LIMIT_LEAST_OCTETS);
        Self { held: Vec::new(), limit_octets, state: State::LineStart, mbox_allowed: true, cut: false }
    }

    /// Return a parser of a block inside a message: there, an mbox line is no header.
    pub fn strict(limit_octets: usize) -> Self {
        Self { mbox_allowed: false, ..Self::new(limit_octets) }
    }

    /// Receive a piece of a line: any octets but a line end, at least one; a stuffed dot is removed already.
    pub fn text(&mut self, text: &[u8], on: &mut impl HeaderEvents) -> bool {
        match self.state {
            // Nothing to fold, or an mbox line, which is one line.
            State::LineStart if is_blank(text[0]) && (self.held.is_empty() || self.mbox_allowed) => {
                self.flush(on);
                on.end(End::NoSeparator);
                on.body(text);
                return false;
            }
            State::LineStart if is_blank(text[0]) => {
                self.fold(text);
                self.state = State::Value;
            }
            State::LineStart => {
                self.flush(on);
                return self.name(text, on);
            }
            State::Name => return self.name(text, on),
            State::Value => self.hold(text),
            State::Skip => {}
        }
        true
    }

    /// Receive the end of a line.
    pub fn line_end(&mut self, on: &mut impl HeaderEvents) -> bool {
        match self.state {
            State::LineStart => {
                self.flush(on);
                on.end(End::Separator);
                return false;
            }
            State::Name => {
                if !self.mbox(on) {
                    on.end(End::NoSeparator);
                    on.body(&self.held);
                    on.body_line_end();
                    return false;
                }
                self.state = State::LineStart;
            }
            State::Value | State::Skip => self.state = State::LineStart,
        }
        true
    }

    /// Receive the end of the message: deliver the last header.
    pub fn message_end(&mut self, on: &mut impl HeaderEvents) {
        if self.state == State::LineStart || self.line_end(on) {
            self.flush(on);
            on.end(End::Message);
        }
    }

    /// Read further in a line that may be a header.
    fn name(&mut self, text: &[u8], on: &mut impl HeaderEvents) -> bool {
        self.state = State::Name;
        let mut blank = self.held.last().is_some_and(|b| is_blank(*b));
        for (at, byte) in text.iter().enumerate() {
            let named = at > 0 || !self.held.is_empty();
            if self.held.len() + at >= self.limit_octets {
                return self.no_header(text, at, on);
            } else if *byte == b':' && named {
                self.hold(text);
                self.state = State::Value;
                self.mbox_allowed = false;
                return true;
            } else if is_blank(*byte) && named {
                blank = true;
            } else if blank || !is_name(*byte) {
                return self.no_header(text, at, on);
            }
        }
        self.held.extend_from_slice(text);
        true
    }

    /// Handle a line that is no header, as `text[at]` shows.
    fn no_header(&mut self, text: &[u8], at: usize, on: &mut impl HeaderEvents) -> bool {
        let (before, after) = text.split_at(at);
        self.held.extend_from_slice(before);
        if self.mbox(on) {
            if self.state == State::Value {
                self.hold(after);
            }
            return true;
        }
        on.end(End::NoSeparator);
        on.body(&self.held);
        on.body(after);
        false
    }

    /// Handle an mbox line, if the text so far starts one.
    fn mbox(&mut self, on: &mut impl HeaderEvents) -> bool {
        let quotes = self.held.iter().take_while(|b| **b == b'>').count();
        if !self.mbox_allowed || !self.held[quotes..].starts_with(b"From ") {
            return false;
        }
        match on.mbox() {
            Some(name) => {
                self.held.splice(0..0, name.bytes().chain(*b": "));
                self.state = State::Value;
            }
            None => {
                self.held.clear();
                self.state = State::Skip;
            }
        }
        true
    }

    fn flush(&mut self, on: &mut impl HeaderEvents) {
        if !self.held.is_empty() {
            on.header(&self.held);
            self.held.clear();
            self.cut = false;
        }
    }

    fn hold(&mut self, text: &[u8]) {
        let room = if self.cut { 0 } else { self.limit_octets.saturating_sub(self.held.len()) };
        self.held.extend_from_slice(&text[..text.len().min(room)]);
    }

    /// Append the next line of a folded header, or cut the header before it: a cut after its CRLF would end the block,
    /// one inside it would leave a bare CR.
    fn fold(&mut self, text: &[u8]) {
        self.cut |= self.limit_octets.saturating_sub(self.held.len()) < FOLD_LEAST_OCTETS;
        self.hold(b"\r\n");
        self.hold(text);
    }
}

/// Minimum limit: a lower one would cut names, and no site means that.
const LIMIT_LEAST_OCTETS: usize = 100;

/// CRLF and a blank.
const FOLD_LEAST_OCTETS: usize = 3;

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 5322 §3.6.8: printable US-ASCII without the colon.
fn is_name(byte: u8) -> bool {
    (33..=126).contains(&byte) && byte != b':'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told(Vec<String>, Option<&'static str>);

    impl HeaderEvents for Told {
        fn header(&mut self, header: &[u8]) {
            self.0.push(format!("header {}", String::from_utf8_lossy(header)));
        }
        fn mbox(&mut self) -> Option<&'static str> {
            self.1
        }
        fn end(&mut self, end: End) {
            self.0.push(format!("{end:?}"));
        }
        fn body(&mut self, text: &[u8]) {
            let text = String::from_utf8_lossy(text);
            match self.0.last_mut().filter(|last| last.starts_with("body ")) {
                Some(last) => last.push_str(&text),
                None => self.0.push(format!("body {text}")),
            }
        }
        fn body_line_end(&mut self) {
            self.0.push("line end".into());
        }
    }

    /// Return the events for `input`. Its lines end with LF, and the text after the block is ignored.
    fn told(input: &str, step: usize, mbox: Option<&'static str>) -> Vec<String> {
        let (mut parser, mut told) = (HeaderParser::new(0), Told(Vec::new(), mbox));
        for line in input.split_inclusive('\n') {
            let (text, ended) = line.strip_suffix('\n').map_or((line, false), |text| (text, true));
            let chunks = text.as_bytes().chunks(step);
            for chunk in chunks.clone() {
                if !parser.text(chunk, &mut told) {
                    return told.0;
                }
            }
            if ended && !parser.line_end(&mut told) {
                return told.0;
            }
        }
        parser.message_end(&mut told);
        told.0
    }

    #[test]
    fn tables_see_headers_with_lf() {
        for (wire, lf) in [("A: 1", "A: 1"), ("A: 1\r\n 2\r\n\t3", "A: 1\n 2\n\t3"), ("A: 1\r2", "A: 1\r2")] {
            assert_eq!(&*with_lf(wire.as_bytes()), lf.as_bytes());
        }
        for (lf, wire) in [
            ("A: 1", "A: 1"),
            ("A: 1\n 2\n\t3", "A: 1\r\n 2\r\n\t3"),
            ("A: 1\nBcc: x", "A: 1\r\n\tBcc: x"),
            ("A: 1\r\n\r\n.\r\n", "A: 1\r\n\t\r\n\t.\r\n\t"),
        ] {
            assert_eq!(from_lf(lf.as_bytes()), wire.as_bytes());
        }
    }

    #[test]
    fn header_blocks_are_read_in_any_split() {
        for (name, input, expected) in [
            ("headers and separator", "A: 1\nB: 2\n\nbody", vec!["header A: 1", "header B: 2", "Separator"]),
            ("folded", "A: 1\n 2\n\t3\n\n", vec!["header A: 1\r\n 2\r\n\t3", "Separator"]),
            ("no body", "A: 1\n", vec!["header A: 1", "Message"]),
            ("cut short", "A: 1", vec!["header A: 1", "Message"]),
            ("nothing", "", vec!["Message"]),
            ("no header", "\n", vec!["Separator"]),
            ("blank before the colon", "A \t: 1\n\n", vec!["header A \t: 1", "Separator"]),
            ("odd names", "__proto__: 1\n.x: 2\n\n", vec!["header __proto__: 1", "header .x: 2", "Separator"]),
        ] {
            for step in 1..=input.len().max(1) {
                assert_eq!(told(input, step, None), expected, "{name}, {step} octets at a time");
            }
        }
    }

    #[test]
    fn a_line_that_is_no_header_starts_the_body() {
        for (name, input, before) in [
            ("words", "A: 1\nnot a header\n", vec!["header A: 1"]),
            ("at once", "hello\n", vec![]),
            ("no name", ": x\n", vec![]),
            ("a blank line of blanks", " \nx", vec![]),
            ("a binary line", "\u{1}x: 1\n", vec![]),
            ("mbox line after a header", "A: 1\nFrom a b\n", vec!["header A: 1"]),
        ] {
            for step in 1..=input.len() {
                let told = told(input, step, None);
                assert_eq!(told[..before.len()], before, "{name}");
                assert_eq!(told[before.len()], "NoSeparator", "{name}");
                assert!(told[before.len() + 1].starts_with("body "), "{name}");
            }
        }
        let long = "x".repeat(1000);
        assert_eq!(told(&long, 7, None)[0], "NoSeparator");
    }

    #[test]
    fn mbox_lines_are_renamed_or_dropped() {
        let input = ">From me  Sun\nFrom you\nA: 1\n\n";
        for step in 1..=input.len() {
            assert_eq!(told(input, step, None), ["header A: 1", "Separator"]);
            assert_eq!(
                told(input, step, Some("X-Mailbox-Line")),
                ["header X-Mailbox-Line: >From me  Sun", "header X-Mailbox-Line: From you", "header A: 1", "Separator"]
            );
        }
        assert_eq!(told("From: a\nFrom : b\n", 3, None), ["header From: a", "header From : b", "Message"]);
        for mbox in [None, Some("X-Mailbox-Line")] {
            let ended = told("From me\n folded\nA: 1\n", 3, mbox);
            let header = mbox.map(|_| "header X-Mailbox-Line: From me".to_owned());
            assert_eq!(ended, header.into_iter().chain(["NoSeparator".into(), "body  fo".into()]).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_header_is_cut_at_the_limit_and_the_next_one_is_read() {
        let input = format!("A: {}\n {}\nB: 2\n\n", "x".repeat(80), "y".repeat(10_000));
        for step in [1, 3, 1000, 100_000] {
            let told = told(&input, step, None);
            assert_eq!(told[0].len(), "header ".len() + LIMIT_LEAST_OCTETS);
            assert_eq!(told[1..], ["header B: 2", "Separator"]);
        }
    }

    #[test]
    fn a_cut_at_a_fold_leaves_no_part_of_the_line_end() {
        for held in LIMIT_LEAST_OCTETS - 4..=LIMIT_LEAST_OCTETS {
            let first = format!("A: {}", "x".repeat(held - 3));
            let room = LIMIT_LEAST_OCTETS - held;
            let expected = if room < FOLD_LEAST_OCTETS {
                format!("header {first}")
            } else {
                format!("header {first}\r\n{}", &" yz"[..room - 2])
            };
            for step in [1, 2, 1000] {
                let told = told(&format!("{first}\n yz\nB: 2\n\n"), step, None);
                assert_eq!(told, [expected.as_str(), "header B: 2", "Separator"], "{held} held, {step} at a time");
            }
        }
    }

    #[test]
    fn fields_have_a_name_and_a_value() {
        let field = Field::parse(b"Message-Id :\r\n <a@b> ").unwrap();
        assert_eq!((field.name, field.unfolded().as_str()), (&b"Message-Id"[..], "<a@b>"));
        assert_eq!(Known::of(field.name), Some(Known::MessageId));
        assert_eq!(Field::parse(b"no colon"), None);
        for (at, (name, known)) in KNOWN.iter().enumerate() {
            assert_eq!((Known::of(name.to_uppercase().as_bytes()), *known as usize), (Some(*known), at));
            assert_eq!(known.is_resent(), name.starts_with("resent-"));
        }
    }
}
