//! Reads and writes the files in maildrop/, in Postfix's record format.
//!
//! A record is a type, a length in groups of seven bits (the lowest first, the high bit says that more follow), and
//! data. A file has three segments: the envelope (ended by `M`), the content (ended by `X`), and the extracted data
//! (ended by `E`). The end record proves that the writer has finished.
//!
//! ```text
//! T arrival   F full name   S sender   A name=value   R recipient   O original recipient   n i o: the same as A for DSN
//! N a line    L a part of a line
//! ```
//!
//! Records that Postfix's pickup and cleanup skip are skipped here, too: other writers and Postfix's `postsuper -r` have
//! them. A text that is no more in a queue file (`w`) and a pointer that points nowhere (`p`) may be anywhere.
//!
//! A file with Postfix's `trace_flags` of a probe (`sendmail -bv`) is never mail. Releases that know no probes would
//! deliver it: for them the file has an attribute with a control character, which makes it ill-formed. Postfix ignores
//! that attribute. A message with REQUIRETLS has such an attribute, too, and Postfix's bit in a size record (`C`).
//!
//! ENVID= and ORCPT= are plain text in a file; in an envelope they have their xtext form (RFC 3461 §4).

use crate::mail::envelope::{BodyType, Notify, Recipient, Ret};
use crate::mail::sendopts;
use crate::mail::trace::{TRACE_FLAGS, Trace};
use crate::mail::xtext::{from_typed_xtext, from_xtext, xtext};
use memchr::memchr;
use std::fmt;

/// Maximum number of octets in a record of the envelope.
pub const ENVELOPE_RECORD_MAX_OCTETS: usize = 16 * 1024;
/// Maximum number of recipients in a file.
pub const RECIPIENTS_MAX: usize = 100_000;
/// Maximum number of attributes in a file.
pub const ATTRIBUTES_MAX: usize = 100;
/// Maximum number of octets of a line in one record (Postfix's line_length_limit).
const LINE_RECORD_MAX_OCTETS: usize = 2048;
/// Types of records without effect in the envelope: times, filters, finished recipients, VERP.
const SKIPPED_ENVELOPE: &[u8] = b"cILDWVK/>wp";
/// Types of records without effect in the content.
const SKIPPED_CONTENT: &[u8] = b"wp";
/// Types of records without effect in the extracted data: those of headers, filters, finished recipients.
const SKIPPED_EXTRACTED: &[u8] = b"FILDK/>Prewp";
/// The attribute of a probe that other releases refuse.
const PROBE_MARK: &str = "probe=\u{7f}";
/// The same for a message with REQUIRETLS.
const REQUIRETLS_MARK: &str = "requiretls=\u{7f}";
/// The place of a sender's options among the numbers of a size record.
const SENDOPTS_AT: usize = 5;
/// Maximum number of groups in a length: 35 bits, more than any file needs.
const LENGTH_MAX_GROUPS: usize = 5;

/// The data of a file besides the content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maildrop {
    /// Time at which it was written: microseconds since 1970; 0 without a time.
    pub arrival_us: u64,
    /// The reverse path; empty for the null sender.
    pub sender: String,
    /// The sender's name, for a From: header.
    pub full_name: String,
    /// The recipients.
    pub recipients: Vec<Recipient>,
    /// The type of the content.
    pub body: BodyType,
    /// RET=
    pub ret: Ret,
    /// ENVID=
    pub envid: Option<Box<str>>,
    /// The report that the sender wants of the first attempt.
    pub trace: Trace,
    /// The sender asks for REQUIRETLS (`sendmail -O requiretls=yes`).
    pub requiretls: bool,
    /// Submitted by a gateway (`sendmail -G`): headers are not those of a user of this site.
    pub remote: bool,
    /// Every other attribute, by Postfix's names.
    pub attributes: Vec<(Box<str>, Box<str>)>,
}

/// The reason why a file is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaildropError {
    /// It ends before its end record.
    CutShort,
    /// A record of this type is not allowed here.
    UnexpectedRecord(u8),
    /// A record's length is no number, or too large.
    BadLength,
    /// A text has control characters, or is no UTF-8.
    BadText(&'static str),
    /// A number, a flag or an attribute is invalid.
    BadValue(&'static str),
    /// There are more of them than the limit.
    TooMany(&'static str),
    /// Octets follow the end record.
    Trailing,
    /// There is no sender.
    NoSender,
}

impl fmt::Display for MaildropError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutShort => f.write_str("no end record"),
            Self::UnexpectedRecord(kind) => write!(f, "unexpected record type {:?}", char::from(*kind)),
            Self::BadLength => f.write_str("bad record length"),
            Self::BadText(what) => write!(f, "bad text in {what}"),
            Self::BadValue(what) => write!(f, "bad value of {what}"),
            Self::TooMany(what) => write!(f, "too many {what}"),
            Self::Trailing => f.write_str("data after the end record"),
            Self::NoSender => f.write_str("no sender"),
        }
    }
}

impl std::error::Error for MaildropError {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    Envelope,
    Content,
    Extracted,
    End,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Type,
    Length { kind: u8, groups: usize, value: u64 },
    Data { kind: u8, left: u64 },
}

/// Reads a file in pieces.
#[derive(Debug)]
pub struct MaildropReader {
    maildrop: Maildrop,
    has_sender: bool,
    notify: Notify,
    orcpt: Option<Box<str>>,
    original: Option<Box<str>>,
    segment: Segment,
    state: State,
    data: Vec<u8>,
}

impl Default for MaildropReader {
    fn default() -> Self {
        Self {
            maildrop: Maildrop::default(),
            has_sender: false,
            notify: Notify::default(),
            orcpt: None,
            original: None,
            segment: Segment::Envelope,
            state: State::Type,
            data: Vec::new(),
        }
    }
}

impl MaildropReader {
    /// Receive the next bytes of the file, in any split, and append the content in them to `content` in its local form:
    /// lines end with LF. After an error the reader is unusable.
    pub fn feed(&mut self, bytes: &[u8], content: &mut Vec<u8>) -> Result<(), MaildropError> {
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            match self.state {
                State::Type => {
                    self.expect(*first)?;
                    self.state = State::Length { kind: *first, groups: 0, value: 0 };
                    rest = after;
                }
                State::Length { kind, groups, value } => {
                    let value = value | u64::from(first & 0x7f) << (7 * groups);
                    rest = after;
                    if first & 0x80 == 0 {
                        self.begin(kind, value, content)?;
                    } else if groups + 1 < LENGTH_MAX_GROUPS {
                        self.state = State::Length { kind, groups: groups + 1, value };
                    } else {
                        return Err(MaildropError::BadLength);
                    }
                }
                State::Data { kind, left } => {
                    let count = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let (data, after) = rest.split_at(count);
                    rest = after;
                    if self.segment == Segment::Content && matches!(kind, b'N' | b'L') {
                        let start = content.len();
                        content.extend_from_slice(data);
                        // The record is the line: an LF in it must not begin another one, such as the end of the header.
                        for octet in content[start..].iter_mut().filter(|octet| **octet == b'\n') {
                            *octet = b' ';
                        }
                    } else {
                        self.data.extend_from_slice(data);
                    }
                    self.state = State::Data { kind, left: left - count as u64 };
                    if left == count as u64 {
                        self.end(kind, content)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// End the file; return its data.
    pub fn finish(self) -> Result<Maildrop, MaildropError> {
        match (self.segment, self.state) {
            (Segment::End, State::Type) if self.has_sender => Ok(self.maildrop),
            (Segment::End, State::Type) => Err(MaildropError::NoSender),
            _ => Err(MaildropError::CutShort),
        }
    }

    fn expect(&self, kind: u8) -> Result<(), MaildropError> {
        let allowed: &[u8] = match self.segment {
            Segment::Envelope => b"CMTFSRAOnio",
            Segment::Content => b"NLX",
            Segment::Extracted => b"EAROnio",
            Segment::End => return Err(MaildropError::Trailing),
        };
        let is_allowed = allowed.contains(&kind) || self.skips(kind);
        if is_allowed { Ok(()) } else { Err(MaildropError::UnexpectedRecord(kind)) }
    }

    fn skips(&self, kind: u8) -> bool {
        let skipped = match self.segment {
            Segment::Envelope => SKIPPED_ENVELOPE,
            Segment::Content => SKIPPED_CONTENT,
            Segment::Extracted => SKIPPED_EXTRACTED,
            Segment::End => return false,
        };
        skipped.contains(&kind)
    }

    fn begin(&mut self, kind: u8, octets: u64, content: &mut Vec<u8>) -> Result<(), MaildropError> {
        let is_line = self.segment == Segment::Content && matches!(kind, b'N' | b'L');
        if !is_line && octets > ENVELOPE_RECORD_MAX_OCTETS as u64 {
            return Err(MaildropError::BadLength);
        }
        self.state = State::Data { kind, left: octets };
        if octets == 0 { self.end(kind, content) } else { Ok(()) }
    }

    fn end(&mut self, kind: u8, content: &mut Vec<u8>) -> Result<(), MaildropError> {
        self.state = State::Type;
        let data = std::mem::take(&mut self.data);
        match kind {
            // A pointer says where the file goes on. A pointer of 0 or blanks was never used.
            b'p' if data.iter().any(|octet| !matches!(octet, b'0' | b' ')) => {
                return Err(MaildropError::UnexpectedRecord(kind));
            }
            // A finished recipient: what stands before it is not the next one's.
            b'D' => (self.notify, self.orcpt, self.original) = (Notify::default(), None, None),
            _ if self.skips(kind) => {}
            b'N' => content.push(b'\n'),
            b'L' => {}
            b'M' => self.segment = Segment::Content,
            b'X' => self.segment = Segment::Extracted,
            b'E' => self.segment = Segment::End,
            b'F' => self.maildrop.full_name = String::from_utf8_lossy(&data).replace(is_unreadable, "?"),
            b'A' if data == PROBE_MARK.as_bytes() => self.maildrop.trace = Trace::Probe,
            b'A' if data == REQUIRETLS_MARK.as_bytes() => self.maildrop.requiretls = true,
            b'C' => self.maildrop.requiretls |= asks_for_requiretls(&data),
            _ => {
                let text = std::str::from_utf8(&data).ok().filter(|text| !text.contains(char::is_control));
                self.envelope(kind, text.ok_or(MaildropError::BadText(record_name(kind)))?)?;
            }
        }
        Ok(())
    }

    fn envelope(&mut self, kind: u8, text: &str) -> Result<(), MaildropError> {
        match kind {
            b'T' => {
                let mut parts = text.split(' ').map(str::parse::<u64>);
                let (Some(Ok(seconds)), usec) = (parts.next(), parts.next()) else {
                    return Err(MaildropError::BadValue("arrival time"));
                };
                let usec = usec.and_then(Result::ok).unwrap_or(0).min(999_999);
                let arrival = seconds.checked_mul(1_000_000).and_then(|us| us.checked_add(usec));
                self.maildrop.arrival_us = arrival.ok_or(MaildropError::BadValue("arrival time"))?;
            }
            b'S' if self.has_sender => return Err(MaildropError::TooMany("senders")),
            b'S' => {
                self.maildrop.sender = text.into();
                self.has_sender = true;
            }
            b'R' => {
                if self.maildrop.recipients.len() >= RECIPIENTS_MAX {
                    return Err(MaildropError::TooMany("recipients"));
                }
                let (notify, orcpt) = (std::mem::take(&mut self.notify), self.orcpt.take());
                let original = self.original.take();
                if !text.is_empty() {
                    self.maildrop.recipients.push(Recipient { address: text.into(), original, orcpt, notify });
                }
            }
            b'O' => self.original = Some(text.into()),
            b'n' => self.notify = Notify(flags("notify_flags", text, 15)?),
            b'i' => self.maildrop.envid = Some(xtext(text).into()),
            b'o' => self.orcpt = Some(typed_xtext(text)?),
            _ => {
                let (name, value) = text.split_once('=').ok_or(MaildropError::BadValue("attribute"))?;
                self.attribute(name, value)?;
            }
        }
        Ok(())
    }

    fn attribute(&mut self, name: &str, value: &str) -> Result<(), MaildropError> {
        match name {
            "notify_flags" => self.notify = Notify(flags("notify_flags", value, 15)?),
            "dsn_orig_rcpt" => self.orcpt = Some(typed_xtext(value)?),
            "envelope_id" => self.maildrop.envid = Some(xtext(value).into()),
            "ret_flags" => {
                self.maildrop.ret = match flags("ret_flags", value, 2)? {
                    0 => Ret::Unsaid,
                    1 => Ret::Full,
                    _ => Ret::Hdrs,
                }
            }
            "encoding" => {
                self.maildrop.body = match value {
                    "7bit" => BodyType::SevenBit,
                    "8bit" => BodyType::EightBitMime,
                    _ => BodyType::Unsaid,
                }
            }
            "rewrite_context" => self.maildrop.remote = value == "remote",
            TRACE_FLAGS => {
                let trace = Trace::parse(value).map_err(|_| MaildropError::BadValue(TRACE_FLAGS))?;
                self.maildrop.trace = self.maildrop.trace.max(trace);
            }
            _ if self.maildrop.attributes.len() >= ATTRIBUTES_MAX => return Err(MaildropError::TooMany("attributes")),
            _ => self.maildrop.attributes.push((name.into(), value.into())),
        }
        Ok(())
    }
}

/// Return whether a size record has the bit of REQUIRETLS. Postfix before 3.11 writes it with fewer numbers, or without
/// the bit.
fn asks_for_requiretls(data: &[u8]) -> bool {
    let text = std::str::from_utf8(data).unwrap_or_default();
    let options = text.split_ascii_whitespace().nth(SENDOPTS_AT).and_then(|word| word.parse::<u32>().ok());
    options.is_some_and(|bits| bits & sendopts::REQUIRETLS != 0)
}

fn is_unreadable(c: char) -> bool {
    c.is_control() || c == char::REPLACEMENT_CHARACTER
}

fn flags(name: &'static str, text: &str, most: u8) -> Result<u8, MaildropError> {
    text.parse().ok().filter(|flags| *flags <= most).ok_or(MaildropError::BadValue(name))
}

fn record_name(kind: u8) -> &'static str {
    match kind {
        b'T' => "arrival time",
        b'S' => "sender",
        b'R' => "recipient",
        _ => "attribute",
    }
}

/// Encode the text after `rfc822;` as xtext.
fn typed_xtext(text: &str) -> Result<Box<str>, MaildropError> {
    let (kind, address) = text.split_once(';').ok_or(MaildropError::BadValue("dsn_orig_rcpt"))?;
    Ok(format!("{kind};{}", xtext(address)).into())
}

/// Append a text record. Control characters are left out: they could not be read back.
fn put_text(out: &mut Vec<u8>, kind: u8, text: &str) {
    let text = text.chars().filter(|c| !c.is_control()).collect::<String>();
    let mut end = text.len().min(ENVELOPE_RECORD_MAX_OCTETS);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    put_record(out, kind, &text.as_bytes()[..end]);
}

fn put_recipient(out: &mut Vec<u8>, recipient: &Recipient) {
    if let Some(orcpt) = &recipient.orcpt {
        put_text(out, b'A', &format!("dsn_orig_rcpt={}", from_typed_xtext(orcpt)));
    }
    if recipient.notify != Notify::default() {
        put_text(out, b'A', &format!("notify_flags={}", recipient.notify.0));
    }
    if let Some(original) = &recipient.original {
        put_text(out, b'O', original);
    }
    put_text(out, b'R', &recipient.address);
}

fn put_record(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    out.push(kind);
    let mut length = data.len();
    while length > 0x7f {
        out.push(length as u8 & 0x7f | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(data);
}

impl Maildrop {
    /// Append the envelope segment.
    pub fn encode_envelope(&self, out: &mut Vec<u8>) {
        let mut put = |kind: u8, text: &str| put_text(out, kind, text);
        put(b'T', &format!("{} {}", self.arrival_us / 1_000_000, self.arrival_us % 1_000_000));
        if let Some(envid) = &self.envid {
            put(b'A', &format!("envelope_id={}", from_xtext(envid)));
        }
        match self.ret {
            Ret::Unsaid => {}
            Ret::Full => put(b'A', "ret_flags=1"),
            Ret::Hdrs => put(b'A', "ret_flags=2"),
        }
        match self.body {
            BodyType::Unsaid => {}
            BodyType::SevenBit => put(b'A', "encoding=7bit"),
            BodyType::EightBitMime => put(b'A', "encoding=8bit"),
        }
        put(b'A', if self.remote { "rewrite_context=remote" } else { "rewrite_context=local" });
        for (name, value) in &self.attributes {
            put(b'A', &format!("{name}={value}"));
        }
        if !self.full_name.is_empty() {
            put(b'F', &self.full_name);
        }
        put(b'S', &self.sender);
        if let Some(flags) = self.trace.flags() {
            put(b'A', &format!("{TRACE_FLAGS}={flags}"));
        }
        if self.trace == Trace::Probe {
            put_record(out, b'A', PROBE_MARK.as_bytes());
        }
        if self.requiretls {
            let numbers = [0, 0, 0, 0, 0, sendopts::REQUIRETLS].map(|number| format!("{number:>15}"));
            put_record(out, b'C', numbers.join(" ").as_bytes());
            put_record(out, b'A', REQUIRETLS_MARK.as_bytes());
        }
        for recipient in &self.recipients {
            put_recipient(out, recipient);
        }
        put_record(out, b'M', b"");
    }
}

/// The meaning of line ends (`sendmail_fix_line_endings`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEndings {
    /// CRLF is LF.
    Always,
    /// CRLF is LF if the first line ends in CRLF.
    Strict,
    /// A CR is text.
    Never,
}

/// Writes the content segment of a program's input to sendmail: drops mbox lines at its start, and may end at a line
/// with a single dot.
#[derive(Debug)]
pub struct ContentWriter {
    line: Vec<u8>,
    /// A part of the line is written already.
    continued: bool,
    dot_ends: bool,
    line_endings: LineEndings,
    mbox_allowed: bool,
    ended: bool,
}

impl ContentWriter {
    /// Return a writer. `dot_ends`: a dot ends the message, as for sendmail without `-i`.
    pub fn new(dot_ends: bool, line_endings: LineEndings) -> Self {
        Self { line: Vec::new(), continued: false, dot_ends, line_endings, mbox_allowed: true, ended: false }
    }

    /// Receive the next bytes, in any split, and append records to `out`. Return false once a dot has ended the
    /// message.
    pub fn feed(&mut self, local: &[u8], out: &mut Vec<u8>) -> bool {
        let mut rest = local;
        while !self.ended && !rest.is_empty() {
            match memchr(b'\n', rest) {
                Some(at) => {
                    self.part(&rest[..at], out);
                    self.line_end(out);
                    rest = &rest[at + 1..];
                }
                None => {
                    self.part(rest, out);
                    rest = &[];
                }
            }
        }
        !self.ended
    }

    /// End the message: append the end of the content, the recipients in its headers, and the end of the file.
    pub fn finish(mut self, extracted: &[Recipient], out: &mut Vec<u8>) {
        let ends = self.dot_ends && !self.continued && self.line == b".";
        if !ends && !self.line.is_empty() && !self.is_mbox() {
            put_record(out, b'L', &self.line);
        }
        self.line.clear();
        put_record(out, b'X', b"");
        for recipient in extracted {
            put_recipient(out, recipient);
        }
        put_record(out, b'E', b"");
    }

    fn part(&mut self, text: &[u8], out: &mut Vec<u8>) {
        self.line.extend_from_slice(text);
        // Keep one octet back: it may be the CR of the line end.
        while self.line.len() > LINE_RECORD_MAX_OCTETS + 1 {
            if !self.is_mbox() {
                put_record(out, b'L', &self.line[..LINE_RECORD_MAX_OCTETS]);
                self.continued = true;
                self.mbox_allowed = false;
                self.line.drain(..LINE_RECORD_MAX_OCTETS);
            } else {
                self.line.truncate(LINE_RECORD_MAX_OCTETS);
            }
        }
    }

    fn line_end(&mut self, out: &mut Vec<u8>) {
        if self.line_endings == LineEndings::Strict {
            let crlf = self.line.last() == Some(&b'\r');
            self.line_endings = if crlf { LineEndings::Always } else { LineEndings::Never };
        }
        if self.line_endings == LineEndings::Always && self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        if self.is_mbox() {
            self.line.clear();
            return;
        }
        if self.dot_ends && !self.continued && self.line == b"." {
            self.ended = true;
        } else {
            put_record(out, b'N', &self.line);
        }
        self.line.clear();
        self.continued = false;
        self.mbox_allowed = false;
    }

    fn is_mbox(&self) -> bool {
        let quotes = self.line.iter().take_while(|b| **b == b'>').count();
        self.mbox_allowed && self.line[quotes..].starts_with(b"From ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The output of Postfix 3.7's postdrop for `sendmail -i -f me@x.org -F 'Jöe "x" R' -N never -V env -R hdrs a@b.org
    /// root`.
    const BY_POSTFIX: &[u8] = b"T\x111795369366 530396A\x0fenvelope_id=envA\x0bret_flags=2A\x15rewrite_context=local\
        F\x0aJ\xc3\xb6e \"x\" RS\x08me@x.orgA\x0enotify_flags=1R\x07a@b.orgA\x0enotify_flags=1R\x04rootM\0\
        N\x0aSubject: xN\0N\x01.N\x02hiN\x01.L\x03endX\0E\0";

    fn read(bytes: &[u8], step: usize) -> Result<(Maildrop, Vec<u8>), MaildropError> {
        let (mut reader, mut content) = (MaildropReader::default(), Vec::new());
        for chunk in bytes.chunks(step) {
            reader.feed(chunk, &mut content)?;
        }
        reader.finish().map(|maildrop| (maildrop, content))
    }

    fn by_postfix() -> Maildrop {
        let recipient = |address| Recipient { notify: Notify(Notify::NEVER), ..Recipient::plain(address) };
        Maildrop {
            arrival_us: 1_795_369_366_530_396,
            sender: "me@x.org".into(),
            full_name: "Jöe \"x\" R".into(),
            recipients: vec![recipient("a@b.org"), recipient("root")],
            ret: Ret::Hdrs,
            envid: Some("env".into()),
            ..Maildrop::default()
        }
    }

    #[test]
    fn a_file_by_postfix_is_read() {
        for step in 1..BY_POSTFIX.len() {
            let (maildrop, content) = read(BY_POSTFIX, step).unwrap();
            assert_eq!(maildrop, by_postfix(), "{step} octets at a time");
            assert_eq!(content, b"Subject: x\n\n.\nhi\n.\nend");
        }
    }

    #[test]
    fn a_file_is_written_like_postfix_writes_it() {
        let mut out = Vec::new();
        by_postfix().encode_envelope(&mut out);
        let mut writer = ContentWriter::new(false, LineEndings::Always);
        assert!(writer.feed(b"From foo bar\nSubject: x\n\n.\nhi\r\n.\nend", &mut out));
        writer.finish(&[], &mut out);
        assert_eq!(out, BY_POSTFIX);
    }

    /// The output of Postfix 3.7's postdrop for `sendmail -bv -f me@x.org -F "" a@b.org`, but for its time.
    const PROBE_BY_POSTFIX: &[u8] = b"T\x031 0A\x15rewrite_context=localS\x08me@x.orgA\x0ftrace_flags=512R\x07a@b.org\
        M\0N\x0eFrom: me@x.orgN\x0eSubject: probeL\x03To:N\x08\ta@b.orgX\0E\0";

    #[test]
    fn a_probe_is_read_as_one_and_other_releases_refuse_it() {
        let (maildrop, content) = read(PROBE_BY_POSTFIX, 3).unwrap();
        assert_eq!(maildrop.trace, Trace::Probe);
        assert_eq!(content, b"From: me@x.org\nSubject: probe\nTo:\ta@b.org\n");
        for (trace, flags, marked) in
            [(Trace::Off, None, false), (Trace::Record, Some("1024"), false), (Trace::Probe, Some("512"), true)]
        {
            let mut out = Vec::new();
            Maildrop { trace, ..maildrop.clone() }.encode_envelope(&mut out);
            let text = String::from_utf8_lossy(&out).into_owned();
            assert_eq!(text.split("trace_flags=").nth(1).map(|rest| rest.split(['A', 'R']).next().unwrap()), flags);
            // A control character in an attribute makes a file ill-formed for every release before.
            assert_eq!(out.contains(&0x7f), marked);
            ContentWriter::new(false, LineEndings::Always).finish(&[], &mut out);
            assert_eq!(read(&out, 2).unwrap().0.trace, trace);
            if marked {
                let mark = out.windows(PROBE_MARK.len()).position(|window| window == PROBE_MARK.as_bytes()).unwrap();
                out[mark] = b'P';
                assert_eq!(read(&out, 2), Err(MaildropError::BadText("attribute")));
            }
        }
    }

    #[test]
    fn requiretls_is_read_from_postfixs_number_and_from_the_mark() {
        let size = |sendopts: &str| format!("C\x60{:>15} {:>15} {:>15} {:>15} {:>15} {sendopts:>16}", 9, 0, 1, 0, 9);
        for (name, record, expected) in [
            ("without", String::new(), false),
            ("Postfix 3.7", size("1"), false),
            ("REQUIRETLS", size("32"), true),
            ("with SMTPUTF8", size("33"), true),
            ("the header's bit", size("16"), false),
            ("no number", size("x"), false),
            ("five numbers", "C\x091 2 3 4 5".into(), false),
            ("the mark", "A\x0crequiretls=\x7f".into(), true),
            ("another value", "A\x0crequiretls=x".into(), false),
        ] {
            let file = format!("T\x0a1795366923{record}S\x01sR\x01rM\0X\0E\0");
            for step in [1, file.len()] {
                let (mut reader, mut content) = (MaildropReader::default(), Vec::new());
                file.as_bytes().chunks(step).for_each(|piece| reader.feed(piece, &mut content).unwrap());
                assert_eq!(reader.finish().unwrap().requiretls, expected, "{name}");
            }
        }
    }

    #[test]
    fn requiretls_is_written_so_that_other_releases_refuse_the_file() {
        let maildrop = Maildrop { requiretls: true, sender: "s".into(), ..Maildrop::default() };
        let mut out = Vec::new();
        maildrop.encode_envelope(&mut out);
        out.extend_from_slice(b"X\0E\0");
        let mut reader = MaildropReader::default();
        reader.feed(&out, &mut Vec::new()).unwrap();
        assert_eq!(reader.finish(), Ok(maildrop));
        let mark = out.windows(REQUIRETLS_MARK.len()).position(|window| window == REQUIRETLS_MARK.as_bytes()).unwrap();
        // For them it is an attribute like this one.
        out[mark] = b'X';
        let problem = MaildropReader::default().feed(&out, &mut Vec::new());
        assert_eq!(problem, Err(MaildropError::BadText("attribute")));
    }

    #[test]
    fn a_mark_alone_makes_a_probe_and_a_probe_of_address_verification_is_no_mail() {
        let with = |records: &[u8]| read(&[b"S\x01s", records, b"R\x01rM\0X\0E\0"].concat(), 5);
        assert_eq!(with(b"A\x07probe=\x7f").unwrap().0.trace, Trace::Probe);
        assert_eq!(with(b"A\x07probe=\x7fA\x10trace_flags=1024").unwrap().0.trace, Trace::Probe);
        for flags in [&b"A\x0ftrace_flags=256"[..], b"A\x0ctrace_flags=", b"A\x0dtrace_flags=x"] {
            assert_eq!(with(flags), Err(MaildropError::BadValue("trace_flags")));
        }
    }

    #[test]
    fn invalid_files_are_refused_with_a_reason() {
        let cut = |end: usize| BY_POSTFIX[..end].to_vec();
        let with = |records: &[u8]| [b"S\x01s", records, b"M\0X\0E\0"].concat();
        for (name, bytes, error) in [
            ("empty", vec![], MaildropError::CutShort),
            ("no end record", cut(BY_POSTFIX.len() - 2), MaildropError::CutShort),
            ("cut in a length", cut(BY_POSTFIX.len() - 1), MaildropError::CutShort),
            ("trailing", [BY_POSTFIX, b"N"].concat(), MaildropError::Trailing),
            ("type 0", vec![0; 100], MaildropError::UnexpectedRecord(0)),
            ("content type in the envelope", b"N\x01a".to_vec(), MaildropError::UnexpectedRecord(b'N')),
            ("no sender", b"R\x01aM\0X\0E\0".to_vec(), MaildropError::NoSender),
            ("endless length", b"S\xff\xff\xff\xff\xff\xff".to_vec(), MaildropError::BadLength),
            ("huge sender", b"S\xff\xff\xff\xff\x01".to_vec(), MaildropError::BadLength),
            ("line end in a recipient", with(b"R\x03a\nb"), MaildropError::BadText("recipient")),
            ("NUL in a recipient", with(b"R\x03a\0b"), MaildropError::BadText("recipient")),
            ("no UTF-8", with(b"R\x01\xff"), MaildropError::BadText("recipient")),
            ("no attribute", with(b"A\x01x"), MaildropError::BadValue("attribute")),
            ("no time", with(b"T\x01x"), MaildropError::BadValue("arrival time")),
            ("far time", with(b"T\x1418446744073709551615"), MaildropError::BadValue("arrival time")),
            ("no flags", with(b"n\x0216"), MaildropError::BadValue("notify_flags")),
            ("two senders", with(b"S\x01t"), MaildropError::TooMany("senders")),
            ("a used pointer", with(b"p\x0212"), MaildropError::UnexpectedRecord(b'p')),
            ("long skipped record", with(b"W\x81\x80\x01"), MaildropError::BadLength),
            ("many attributes", with(&b"A\x03x=y".repeat(101)), MaildropError::TooMany("attributes")),
            ("many recipients", with(&b"R\x01a".repeat(100_001)), MaildropError::TooMany("recipients")),
        ] {
            assert_eq!(read(&bytes, 1000).unwrap_err(), error, "{name}");
            assert_eq!(read(&bytes, 1).unwrap_err(), error, "{name}");
        }
    }

    #[test]
    fn records_that_postfix_skips_have_no_effect() {
        let of = |kinds: &[u8]| kinds.iter().flat_map(|kind| [&[*kind][..], b"\x010"].concat()).collect::<Vec<_>>();
        let bytes = [
            &b"S\x01sR\x01a"[..],
            &of(b"CcILDWVK/>wp"),
            b"M\0N\x01x",
            &of(b"wp"),
            b"N\x01yX\0",
            &of(b"FILDK/>Prewp"),
            b"R\x01bE\0",
        ]
        .concat();
        for step in [1, bytes.len()] {
            let (maildrop, content) = read(&bytes, step).unwrap();
            assert_eq!(maildrop.recipients, [Recipient::plain("a"), Recipient::plain("b")]);
            assert_eq!((maildrop.sender.as_str(), &content[..]), ("s", &b"x\ny\n"[..]));
        }
        for kind in *b"fdPremN" {
            let bytes = [b"S\x01s", &of(&[kind])[..], b"R\x01aM\0X\0E\0"].concat();
            assert_eq!(read(&bytes, 3), Err(MaildropError::UnexpectedRecord(kind)));
        }
    }

    /// A file in maildrop/ by `postsuper -r` of Postfix 3.7, after a first delivery.
    const REQUEUED_BY_POSTFIX: &[u8] = b"C_           5291             375               2               4            \
        5291               0T\x111796110280 265524A\x16create_time=1796110280A\x10envelope_id=env1\
        A\x15rewrite_context=localF\x04rootS\x0eme@example.orgA\x0enotify_flags=2\
        A#dsn_orig_rcpt=rfc822;a@next.exampleO\x0ea@next.exampleD\x0ea@next.exampleR\x0eb@next.exampleM\0\
        N\x0bSubject: hiN\0N\x04bodyX\0E\0";

    #[test]
    fn a_file_that_postsuper_of_postfix_requeued_is_read_without_finished_recipients() {
        let (maildrop, content) = read(REQUEUED_BY_POSTFIX, 5).unwrap();
        assert_eq!(maildrop.recipients, [Recipient::plain("b@next.example")]);
        assert_eq!((maildrop.envid.as_deref(), maildrop.arrival_us), (Some("env1"), 1_796_110_280_265_524));
        assert_eq!(content, b"Subject: hi\n\nbody\n");
    }

    #[test]
    fn line_end_in_a_line_becomes_a_blank() {
        let (_, content) = read(b"S\0M\0N\x03x\nyL\x02\nzN\x02q\nX\0E\0", 3).unwrap();
        assert_eq!(content, b"x y\n zq \n");
    }

    #[test]
    fn full_name_in_another_charset_keeps_what_can_be_read() {
        let (maildrop, _) = read(b"S\0F\x06J\xf6\trg.M\0X\0E\0", 3).unwrap();
        assert_eq!(maildrop.full_name, "J??rg.");
    }

    #[test]
    fn dsn_options_are_read_back_in_their_xtext_form() {
        let recipient = Recipient {
            orcpt: Some("rfc822;a+2Bb@x".into()),
            notify: Notify(Notify::SUCCESS | Notify::DELAY),
            ..Recipient::plain("a+b@x")
        };
        let given =
            Maildrop { envid: Some("a+20b".into()), recipients: vec![recipient.clone()], ..Maildrop::default() };
        let mut bytes = Vec::new();
        given.encode_envelope(&mut bytes);
        assert!(bytes.windows(15).any(|window| window == b"envelope_id=a b"), "{bytes:?}");
        ContentWriter::new(true, LineEndings::Always).finish(std::slice::from_ref(&recipient), &mut bytes);
        let (read, _) = read(&bytes, 3).unwrap();
        assert_eq!((read.envid, read.recipients), (given.envid, vec![recipient.clone(), recipient]));
        assert_eq!(from_typed_xtext("a+2B;b+2Bc;d"), "a+2B;b+c;d");
        assert_eq!(from_xtext("+"), "+");
        assert_eq!(from_xtext("+4"), "+4");
        assert_eq!(from_xtext("+ü"), "+ü");
    }

    #[test]
    fn recipients_may_follow_the_content() {
        let (maildrop, content) = read(b"S\0M\0N\x01xX\0R\x01aE\0", 2).unwrap();
        assert_eq!((maildrop.recipients, content), (vec![Recipient::plain("a")], b"x\n".to_vec()));
    }

    fn written(input: &[u8], step: usize, dot_ends: bool, line_endings: LineEndings) -> Vec<u8> {
        let mut bytes = Vec::new();
        Maildrop::default().encode_envelope(&mut bytes);
        let mut writer = ContentWriter::new(dot_ends, line_endings);
        for chunk in input.chunks(step) {
            writer.feed(chunk, &mut bytes);
        }
        writer.finish(&[], &mut bytes);
        read(&bytes, 64).unwrap().1
    }

    #[test]
    fn content_is_read_like_sendmail_reads_it() {
        use LineEndings::{Always, Never, Strict};
        for (name, input, dot_ends, line_endings, expected) in [
            ("a dot ends", "a\n.\nb\n", true, Always, "a\n"),
            ("a dot with CRLF ends", "a\r\n.\r\nb\r\n", true, Always, "a\n"),
            ("a dot at the end ends", "a\n.", true, Always, "a\n"),
            ("a dot is text with -i", "a\n.\nb", false, Always, "a\n.\nb"),
            ("more than a dot", "..\n.x\n", true, Always, "..\n.x\n"),
            ("strict, CRLF first", "a\r\nb\n", true, Strict, "a\nb\n"),
            ("strict, LF first", "a\nb\r\n", true, Strict, "a\nb\r\n"),
            ("never", "a\r\n", true, Never, "a\r\n"),
            ("mbox lines", ">From a\nFrom b\nSubject: x\n\nFrom c\n", true, Always, "Subject: x\n\nFrom c\n"),
            ("nothing", "", true, Always, ""),
        ] {
            for step in 1..=input.len().max(1) {
                let content = written(input.as_bytes(), step, dot_ends, line_endings);
                assert_eq!(String::from_utf8(content).unwrap(), expected, "{name}, {step} octets at a time");
            }
        }
        let long = [&b"x".repeat(5000)[..], b"\r\n.\r\n"].concat();
        assert_eq!(written(&long, 999, true, Always), [&b"x".repeat(5000)[..], b"\n"].concat());
        assert_eq!(written(&b"From ".repeat(5000), 999, true, Always), b"");
    }

    proptest! {
        #[test]
        fn any_content_is_read_back(
            content in prop::collection::vec(prop::sample::select(&b".\r\nFrom >\0\xff"[..]), 0..60),
            step in 1usize..9,
        ) {
            prop_assume!(!content.starts_with(b"From ") && !content.starts_with(b">"));
            prop_assert_eq!(written(&content, step, false, LineEndings::Never), content);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let whole = read(&[BY_POSTFIX, &bytes].concat(), 7);
            prop_assert_eq!(whole.is_ok(), bytes.is_empty());
            let mut damaged = BY_POSTFIX.to_vec();
            for (at, byte) in bytes.iter().enumerate().take(3) {
                damaged[usize::from(*byte) * 7 % BY_POSTFIX.len()] = at as u8;
            }
            let _ = read(&damaged, 5);
        }
    }
}
