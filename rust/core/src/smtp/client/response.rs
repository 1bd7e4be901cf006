//! Parsing of a server's replies (RFC 5321 §4.2, §4.2.1).
//!
//! Bytes in, one reply at a time out. A line ends at LF, with or without CR before it. Three limits bound a hostile
//! server: a line is cut at `LINE_MAX_OCTETS`, the text of a reply at `TEXT_MAX_OCTETS`, and a reply of more than
//! `RESPONSE_MAX_OCTETS` is an error.

use crate::mail::reply::Enhanced;
use std::fmt;

/// Maximum octets of a line; the rest is skipped (line_length_limit, postconf(5)).
pub const LINE_MAX_OCTETS: usize = 2048;
/// Maximum octets of a reply's text before its last line.
pub const TEXT_MAX_OCTETS: usize = 2048;
/// Maximum octets of a reply with all of its lines.
pub const RESPONSE_MAX_OCTETS: usize = 1024 * 1024;

/// One reply of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 0..=999, of the last line.
    pub code: u16,
    /// The enhanced status code of the last line, if its class is that of `code`.
    pub enhanced: Option<Enhanced>,
    /// The received lines with their codes, separated by LF; printable characters only.
    pub text: Box<str>,
    /// Lines before it were no reply.
    pub garbage: bool,
}

impl Response {
    /// Return the first digit of the code.
    pub fn class(&self) -> u8 {
        (self.code / 100) as u8
    }

    /// Return the enhanced status code, or `x.0.0` with the class of the code. A code that neither accepts nor refuses
    /// is no verdict: 5.5.0.
    pub fn dsn(&self) -> Enhanced {
        self.enhanced.unwrap_or(match self.class() {
            class @ (2 | 4 | 5) => Enhanced { class, subject: 0, detail: 0 },
            _ => Enhanced { class: 5, subject: 5, detail: 0 },
        })
    }

    /// Return the text on one line, for logs and reports.
    pub fn one_line(&self) -> String {
        self.text.replace('\n', " ")
    }
}

/// A reply exceeds `RESPONSE_MAX_OCTETS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a reply of more than {RESPONSE_MAX_OCTETS} octets")
    }
}

impl std::error::Error for TooLong {}

/// Assembles replies from bytes.
#[derive(Debug, Default)]
pub struct ResponseReader {
    line: Vec<u8>,
    text: String,
    octets: usize,
    garbage: bool,
}

impl ResponseReader {
    /// Return whether no part of a reply was received.
    pub fn is_empty(&self) -> bool {
        self.octets == 0
    }

    /// Return whether a line of the incomplete reply is no reply line.
    pub fn garbage(&self) -> bool {
        self.garbage
    }

    /// Read up to the end of the next reply. Returns the number of bytes used, and the reply if it is complete.
    ///
    /// `input`: any split of the stream. Lines that are no reply lines are skipped and noted as `garbage`: the reply
    /// after them still answers the command that awaits it.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<Response>), TooLong> {
        let mut used = 0;
        while let Some(end) = memchr::memchr(b'\n', &input[used..]).map(|at| used + at) {
            self.count(end + 1 - used)?;
            let piece = &input[used..end];
            used = end + 1;
            let code = if self.line.is_empty() {
                self.take_line(piece)
            } else {
                self.keep(piece);
                let line = std::mem::take(&mut self.line);
                let code = self.take_line(&line);
                self.line = line;
                self.line.clear();
                code
            };
            if let Some((code, enhanced)) = code {
                let text = std::mem::take(&mut self.text).into();
                self.octets = 0;
                let garbage = std::mem::take(&mut self.garbage);
                return Ok((used, Some(Response { code, enhanced, text, garbage })));
            }
        }
        self.count(input.len() - used)?;
        self.keep(&input[used..]);
        Ok((input.len(), None))
    }

    fn count(&mut self, octets: usize) -> Result<(), TooLong> {
        self.octets += octets;
        if self.octets > RESPONSE_MAX_OCTETS { Err(TooLong) } else { Ok(()) }
    }

    /// Append a piece of a line, up to the limit.
    fn keep(&mut self, piece: &[u8]) {
        let room = LINE_MAX_OCTETS - self.line.len();
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// Add a complete line. Returns the codes if the line is the last of its reply.
    fn take_line(&mut self, line: &[u8]) -> Option<(u16, Option<Enhanced>)> {
        let line = &line[..line.len().min(LINE_MAX_OCTETS)];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let start = self.text.len();
        let room = start < TEXT_MAX_OCTETS;
        if room {
            if start > 0 {
                self.text.push('\n');
            }
            push_printable(&mut self.text, line);
        }
        let Some((digits, rest)) = line.split_first_chunk::<3>().filter(|(d, _)| d.iter().all(u8::is_ascii_digit))
        else {
            self.garbage = true;
            return None;
        };
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        match rest.first() {
            None => Some((code, None)),
            Some(b' ') => Some((code, enhanced(code, rest))),
            Some(b'-') => None,
            Some(_) => {
                self.garbage = true;
                None
            }
        }
    }
}

/// Return the enhanced status code at the start of a reply's text (RFC 2034 §4), if it has the reply's class.
fn enhanced(code: u16, rest: &[u8]) -> Option<Enhanced> {
    let rest = rest.trim_ascii_start();
    let end = rest.iter().position(|b| *b == b' ' || *b == b'\t').unwrap_or(rest.len());
    let enhanced: Enhanced = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    (u16::from(enhanced.class) == code / 100).then_some(enhanced)
}

/// Append a line; control characters and invalid UTF-8 become `?`.
fn push_printable(text: &mut String, line: &[u8]) {
    if line.iter().all(|b| (b' '..0x7f).contains(b)) {
        // The bytes are ASCII, so nothing is lost here.
        text.push_str(&String::from_utf8_lossy(line));
        return;
    }
    let lossy = String::from_utf8_lossy(line);
    text.extend(lossy.chars().map(|c| if c.is_control() || c == char::REPLACEMENT_CHARACTER { '?' } else { c }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(stream: &[u8], step: usize) -> Result<Vec<Response>, TooLong> {
        let mut reader = ResponseReader::default();
        let mut responses = Vec::new();
        for chunk in stream.chunks(step.max(1)) {
            let mut chunk = chunk;
            while !chunk.is_empty() {
                let (used, response) = reader.feed(chunk)?;
                responses.extend(response);
                chunk = &chunk[used..];
            }
        }
        Ok(responses)
    }

    fn response(code: u16, enhanced: &str, text: &str) -> Response {
        Response { code, enhanced: enhanced.parse().ok(), text: text.into(), garbage: false }
    }

    #[test]
    fn replies_are_read_in_any_split() {
        let cases: &[(&[u8], Vec<Response>)] = &[
            (b"220 mx.example.org ESMTP\r\n", vec![response(220, "", "220 mx.example.org ESMTP")]),
            (b"250-a\r\n250-b c\r\n250 2.1.0 d\r\n", vec![response(250, "2.1.0", "250-a\n250-b c\n250 2.1.0 d")]),
            (b"250\r\n", vec![response(250, "", "250")]),
            (b"250 \n354 go\n", vec![response(250, "", "250 "), response(354, "", "354 go")]),
            (b"550 5.7.2\r\n", vec![response(550, "5.7.2", "550 5.7.2")]),
            (b"450 5.7.2 wrong class\r\n", vec![response(450, "", "450 5.7.2 wrong class")]),
            (b"550  5.1.1  two blanks\r\n", vec![response(550, "5.1.1", "550  5.1.1  two blanks")]),
            (b"250 a\x00b\x1b\xff\r\r\n", vec![response(250, "", "250 a?b???")]),
            ("250 grüße\r\n".as_bytes(), vec![response(250, "", "250 grüße")]),
            (
                b"oops\r\n250x\r\n25\r\n\r\n250 ok\r\n250 next\r\n",
                vec![
                    Response { garbage: true, ..response(250, "", "oops\n250x\n25\n\n250 ok") },
                    response(250, "", "250 next"),
                ],
            ),
            (b"250-a\r\n550 b\r\n", vec![response(550, "", "250-a\n550 b")]),
            (b"999 z\r\n", vec![response(999, "", "999 z")]),
            (b"250 unfinished", vec![]),
        ];
        for (stream, expected) in cases {
            for step in 1..=stream.len() {
                assert_eq!(&read(stream, step).unwrap(), expected, "{step} at a time");
            }
        }
    }

    #[test]
    fn a_code_that_is_no_verdict_is_a_protocol_error() {
        for (line, dsn) in [("250 ok\n", "2.0.0"), ("421 x\n", "4.0.0"), ("354 x\n", "5.5.0"), ("000 x\n", "5.5.0")] {
            assert_eq!(read(line.as_bytes(), 99).unwrap()[0].dsn().to_string(), dsn);
        }
    }

    #[test]
    fn long_replies_are_cut_and_endless_ones_are_errors() {
        let long_line = [b"250 ".as_slice(), &vec![b'x'; 100_000], b"\r\n250 next\r\n"].concat();
        for step in [1000, long_line.len()] {
            let responses = read(&long_line, step).unwrap();
            assert_eq!((responses[0].text.len(), responses[1].code), (LINE_MAX_OCTETS, 250), "{step}");
        }
        let many_lines = ["250-some text\r\n".repeat(5000).as_bytes(), b"250 end\r\n250 next\r\n"].concat();
        for step in [7, many_lines.len()] {
            let responses = read(&many_lines, step).unwrap();
            assert!(responses[0].text.len() <= TEXT_MAX_OCTETS + LINE_MAX_OCTETS);
            assert_eq!((responses.len(), responses[1].code), (2, 250), "{step}");
        }
        assert_eq!(read(&b"250-some text\r\n".repeat(100_000), 4096), Err(TooLong));
        assert_eq!(read(&vec![b'x'; RESPONSE_MAX_OCTETS + 1], 4096), Err(TooLong));
    }

    /// The codes of the replies, read without buffers: lines by LF, cut, grouped up to a last line.
    fn model(stream: &[u8]) -> Vec<u16> {
        let mut codes = Vec::new();
        for line in stream.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n")) {
            let line = &line[..line.len() - 1];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let number = line.get(..3).filter(|d| d.iter().all(u8::is_ascii_digit));
            if let Some(number) = number
                && matches!(line.get(3), None | Some(b' '))
            {
                codes.push(std::str::from_utf8(number).unwrap().parse().unwrap());
            }
        }
        codes
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same_as_the_model(
            pieces in prop::collection::vec(
                prop_oneof![
                    Just("250 ".to_string()), Just("250-".into()), Just("\r\n".into()), Just("\n".into()),
                    Just("\r".into()), Just("5".into()), Just("4.2.1".into()), "[ -~]{0,6}", "\\PC{0,3}",
                ],
                0..40,
            ),
            steps in prop::collection::vec(1usize..9, 1..20),
        ) {
            let stream = pieces.concat().into_bytes();
            let whole = read(&stream, stream.len()).unwrap();
            let codes: Vec<u16> = whole.iter().map(|r| r.code).collect();
            prop_assert_eq!(codes, model(&stream));
            for step in steps {
                prop_assert_eq!(&read(&stream, step).unwrap(), &whole);
            }
        }
    }
}
