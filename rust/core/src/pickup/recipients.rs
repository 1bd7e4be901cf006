//! The recipients in a message's own headers (`sendmail -t`).

use crate::mail::address::addresses;
use crate::mail::header::{End, Field, HeaderEvents, HeaderParser, Known};
use memchr::memchr;

/// Maximum octets of a header with recipients. A longer one is an error, because its rest would be lost.
pub const HEADER_MAX_OCTETS: usize = 4 * 1024 * 1024;
const TOKENS_MAX: usize = HEADER_MAX_OCTETS;

/// Collects recipients from a message as it is read.
#[derive(Debug)]
pub struct HeaderRecipients {
    parser: Option<HeaderParser>,
    line: Vec<u8>,
    found: Found,
}

#[derive(Debug, Default)]
struct Found {
    plain: Vec<String>,
    resent: Vec<String>,
    resending: bool,
    too_long: bool,
}

/// A header with recipients is longer than `HEADER_MAX_OCTETS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl std::fmt::Display for TooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a header with recipients is longer than {HEADER_MAX_OCTETS} octets")
    }
}

impl std::error::Error for TooLong {}

impl Default for HeaderRecipients {
    fn default() -> Self {
        let parser = Some(HeaderParser::new(HEADER_MAX_OCTETS));
        Self { parser, line: Vec::new(), found: Found::default() }
    }
}

impl HeaderRecipients {
    /// Receive the next bytes of the message in its local form, in any split. The body is ignored.
    pub fn feed(&mut self, local: &[u8]) {
        let mut rest = local;
        while let Some(parser) = self.parser.as_mut().filter(|_| !rest.is_empty()) {
            let end = memchr(b'\n', rest);
            self.line.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            rest = end.map_or(&[], |at| &rest[at + 1..]);
            // A CR is held back until the next octet shows whether it belongs to the line end.
            let held = if self.line.last() == Some(&b'\r') { self.line.len() - 1 } else { self.line.len() };
            let mut goes_on = held == 0 || parser.text(&self.line[..held], &mut self.found);
            self.line.drain(..held);
            if end.is_some() {
                self.line.clear();
                goes_on = goes_on && parser.line_end(&mut self.found);
            }
            if !goes_on {
                self.parser = None;
            }
        }
    }

    /// Return the recipients in the order of the headers: of `Resent-` headers if there are any, else of To, Cc and
    /// Bcc.
    pub fn finish(mut self) -> Result<Vec<String>, TooLong> {
        if let Some(mut parser) = self.parser.take() {
            parser.message_end(&mut self.found);
        }
        match self.found {
            Found { too_long: true, .. } => Err(TooLong),
            Found { resending: true, resent, .. } => Ok(resent),
            Found { plain, .. } => Ok(plain),
        }
    }
}

impl HeaderEvents for Found {
    fn header(&mut self, header: &[u8]) {
        let Some(field) = Field::parse(header) else {
            return;
        };
        let Some(known) = Known::of(field.name) else {
            return;
        };
        let resent = known.is_resent_recipient();
        if !resent && !matches!(known, Known::To | Known::Cc | Known::Bcc) {
            return;
        }
        self.too_long |= header.len() >= HEADER_MAX_OCTETS;
        self.resending |= resent;
        let list = if resent { &mut self.resent } else { &mut self.plain };
        list.extend(addresses(field.value, TOKENS_MAX).into_iter().map(|address| address.text.into_string()));
    }

    fn mbox(&mut self) -> Option<&'static str> {
        None
    }

    fn end(&mut self, _: End) {}

    fn body(&mut self, _: &[u8]) {}

    fn body_line_end(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_read_from_headers() {
        for (name, message, expected) in [
            ("to, cc, bcc", "To: a@x\nX: y\nCC: b@x, C <c@x>\nbcc: d\n\nTo: body@x\n", vec!["a@x", "b@x", "c@x", "d"]),
            ("CRLF", "To: a@x,\r\n\tb@x\r\n\r\nTo: body@x\r\n", vec!["a@x", "b@x"]),
            ("resent", "To: a@x\nResent-To: r@x\nResent-Bcc: s@x\n\n", vec!["r@x", "s@x"]),
            ("resent without recipients", "To: a@x\nResent-From: r@x\n\n", vec!["a@x"]),
            ("mbox line", "From me\nTo: a@x\n", vec!["a@x"]),
            ("no separator", "To: a@x\nhello\nCc: b@x\n", vec!["a@x"]),
            ("cut short", "To: a@x", vec!["a@x"]),
            ("none", "Subject: x\n\n", vec![]),
            ("group", "To: undisclosed-recipients:;\nBcc: a@x\n", vec!["a@x"]),
        ] {
            for step in 1..=message.len() {
                let mut recipients = HeaderRecipients::default();
                message.as_bytes().chunks(step).for_each(|chunk| recipients.feed(chunk));
                assert_eq!(recipients.finish().unwrap(), expected, "{name}, {step} octets at a time");
            }
        }
    }

    #[test]
    fn no_recipient_is_dropped_silently() {
        let mut recipients = HeaderRecipients::default();
        recipients.feed(b"Bcc: ");
        (0..20_000).for_each(|_| recipients.feed(&b"u@example.org, ".repeat(100)));
        assert_eq!(recipients.finish(), Err(TooLong));
    }
}
