//! Replies and enhanced status codes (RFC 5321 §4.2, RFC 3463, RFC 2034).

use std::borrow::Cow;
use std::fmt;

/// An enhanced status code: `class.subject.detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enhanced {
    /// 2, 4 or 5.
    pub class: u8,
    /// 0..=999
    pub subject: u16,
    /// 0..=999
    pub detail: u16,
}

impl Enhanced {
    /// Return the code at the start of `text`, and the text after it and its blank; `None` without a code.
    ///
    /// A reply may end right after the code: `550 5.7.2` has no text (the bug class of CVE-2026-43964).
    pub fn split(text: &str) -> Option<(Self, &str)> {
        let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some((code.parse().ok()?, rest))
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// The text is no enhanced status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotEnhanced;

impl fmt::Display for NotEnhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an enhanced status code has the form 2.0.0, 4.x.y or 5.x.y")
    }
}

impl std::error::Error for NotEnhanced {}

impl std::str::FromStr for Enhanced {
    type Err = NotEnhanced;

    fn from_str(text: &str) -> Result<Self, NotEnhanced> {
        let number = |part: Option<&str>| {
            part.filter(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|p| p.parse::<u16>().ok())
                .ok_or(NotEnhanced)
        };
        let mut parts = text.split('.');
        let class = match parts.next() {
            Some("2") => 2,
            Some("4") => 4,
            Some("5") => 5,
            _ => return Err(NotEnhanced),
        };
        let (subject, detail) = (number(parts.next())?, number(parts.next())?);
        if parts.next().is_some() { Err(NotEnhanced) } else { Ok(Self { class, subject, detail }) }
    }
}

/// A server's reply: code, enhanced code, and text of one line or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200..=599
    pub code: u16,
    /// Absent in greetings, 354 and the reply to EHLO.
    pub enhanced: Option<Enhanced>,
    /// Lines, separated by LF; without codes.
    pub text: Box<str>,
}

impl Reply {
    /// Return a reply with an enhanced code; its class digit is that of `code`.
    pub fn new(code: u16, [subject, detail]: [u16; 2], text: impl Into<Box<str>>) -> Self {
        let enhanced = Some(Enhanced { class: (code / 100) as u8, subject, detail });
        Self { code, enhanced, text: text.into() }
    }

    /// Return a reply without an enhanced code.
    pub fn bare(code: u16, text: impl Into<Box<str>>) -> Self {
        Self { code, enhanced: None, text: text.into() }
    }

    /// Return the reply under `soft_bounce`: 5xx becomes 4xx, others stay.
    pub fn softened(&self) -> Cow<'_, Self> {
        if self.code < 500 {
            return Cow::Borrowed(self);
        }
        let enhanced = self.enhanced.map(|enhanced| Enhanced { class: 4, ..enhanced });
        Cow::Owned(Self { code: self.code - 100, enhanced, text: self.text.clone() })
    }

    /// Append the reply in wire form. Control characters in the text become `?`, so that foreign text cannot end the
    /// line early.
    pub fn render(&self, out: &mut Vec<u8>) {
        // Room for the codes of a dozen lines: one allocation for most replies, also for EHLO's.
        out.reserve(self.text.len() + 96);
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { b'-' } else { b' ' };
            put_number(self.code, out);
            out.push(separator);
            if let Some(enhanced) = self.enhanced {
                for (number, end) in
                    [(u16::from(enhanced.class), b'.'), (enhanced.subject, b'.'), (enhanced.detail, b' ')]
                {
                    put_number(number, out);
                    out.push(end);
                }
            }
            let printable = |octet: u8| octet >= b' ' && octet != 0x7f;
            // Without an early exit the compiler checks many octets at once.
            if line.bytes().fold(true, |all, octet| all & printable(octet)) {
                out.extend_from_slice(line.as_bytes());
            } else {
                out.extend(line.bytes().map(|octet| if printable(octet) { octet } else { b'?' }));
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Append a number in decimal digits.
fn put_number(number: u16, out: &mut Vec<u8>) {
    if number >= 10 {
        put_number(number / 10, out);
    }
    out.push(b'0' + (number % 10) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softened_replies_ask_for_a_retry() {
        for (reply, softened) in [
            (Reply::new(554, [7, 1], "no"), Reply::new(454, [7, 1], "no")),
            (Reply::bare(521, "go"), Reply::bare(421, "go")),
            (Reply::new(450, [1, 1], "later"), Reply::new(450, [1, 1], "later")),
            (Reply::bare(250, "yes"), Reply::bare(250, "yes")),
        ] {
            assert_eq!(*reply.softened(), softened);
        }
    }

    #[test]
    fn replies_render_line_by_line() {
        for (reply, wire) in [
            (Reply::new(250, [1, 5], "Ok"), "250 2.1.5 Ok\r\n"),
            (Reply::bare(354, "End data with <CR><LF>.<CR><LF>"), "354 End data with <CR><LF>.<CR><LF>\r\n"),
            (
                Reply::bare(250, "mx.example.org\nPIPELINING\nSIZE 5"),
                "250-mx.example.org\r\n250-PIPELINING\r\n250 SIZE 5\r\n",
            ),
            (Reply::new(550, [1, 1], "a\r\rb"), "550 5.1.1 a??b\r\n"),
        ] {
            let mut out = Vec::new();
            reply.render(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wire);
        }
    }

    #[test]
    fn enhanced_codes_are_parsed_or_refused() {
        let code = |class, subject, detail| Enhanced { class, subject, detail };
        assert_eq!(Enhanced::split("5.7.2"), Some((code(5, 7, 2), "")));
        assert_eq!(Enhanced::split("2.1.5 Ok then"), Some((code(2, 1, 5), "Ok then")));
        for text in ["", "5", "5.7", "5.7.2.1", "3.1.1", "5.7.", "5..1", "5.1000.1", "5.-1.1", "Ok"] {
            assert_eq!(Enhanced::split(text), None, "{text:?}");
        }
    }
}
