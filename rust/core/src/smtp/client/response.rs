//! A server's replies as a client reads them (RFC 5321 §4.2, §4.2.1).
//!
//! Bytes in, one reply at a time out. A line ends at LF, with or without CR before it. What a hostile server may say is
//! bounded three ways: a line is cut at `LINE_MAX_OCTETS`, the text of a reply that is kept at `TEXT_MAX_OCTETS`, and a
//! reply that goes on for more than `RESPONSE_MAX_OCTETS` is an error.

use crate::mail::reply::Enhanced;
use std::fmt;

/// What is kept of a line; the rest of it is skipped (line_length_limit, postconf(5)).
pub const LINE_MAX_OCTETS: usize = 2048;
/// What is kept of a reply's text: no line is added once there is more.
pub const TEXT_MAX_OCTETS: usize = 2048;
/// The longest reply, all of its lines together.
pub const RESPONSE_MAX_OCTETS: usize = 1024 * 1024;

/// One reply of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 0..=999, of the last line.
    pub code: u16,
    /// The enhanced status code of the last line, when there is one and its class is that of `code`.
    pub enhanced: Option<Enhanced>,
    /// The lines as they came, codes and all, separated by LF; printable characters only.
    pub text: Box<str>,
    /// Lines came before it that are no part of any reply.
    pub garbage: bool,
}

impl Response {
    /// The first digit of the code.
    pub fn class(&self) -> u8 {
        (self.code / 100) as u8
    }

    /// The enhanced status code; where the server gave none, `x.0.0` with the class of the code. Codes that neither
    /// accept nor refuse are out of place wherever a verdict is looked for: 5.5.0.
    pub fn dsn(&self) -> Enhanced {
        self.enhanced.unwrap_or(match self.class() {
            class @ (2 | 4 | 5) => Enhanced { class, subject: 0, detail: 0 },
            _ => Enhanced { class: 5, subject: 5, detail: 0 },
        })
    }

    /// The text on one line, as logs and reports have it.
    pub fn one_line(&self) -> String {
        self.text.replace('\n', " ")
    }
}

/// A reply that has no end in sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a reply of more than {RESPONSE_MAX_OCTETS} octets")
    }
}

impl std::error::Error for TooLong {}

/// Puts replies together.
#[derive(Debug, Default)]
pub struct ResponseReader {
    line: Vec<u8>,
    text: String,
    octets: usize,
    garbage: bool,
}

impl ResponseReader {
    /// Nothing of a reply has come.
    pub fn is_empty(&self) -> bool {
        self.octets == 0
    }

    /// A line of the reply under way is no reply line.
    pub fn garbage(&self) -> bool {
        self.garbage
    }

    /// Read up to the end of the next reply. Returns the bytes used, and the reply once it is whole.
    ///
    /// `input`: any split of the stream. Lines that are no reply lines are skipped and counted as `garbage`, since a
    /// reply that comes after them is still the answer to the one command that waits for it.
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

    /// Keep a piece of a line, as far as there is room.
    fn keep(&mut self, piece: &[u8]) {
        let room = LINE_MAX_OCTETS - self.line.len();
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// Take a whole line in; when it is the last of its reply, returns the codes.
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

/// The enhanced status code at the start of a reply's text (RFC 2034 §4), when it fits the reply's class.
fn enhanced(code: u16, rest: &[u8]) -> Option<Enhanced> {
    let rest = rest.trim_ascii_start();
    let end = rest.iter().position(|b| *b == b' ' || *b == b'\t').unwrap_or(rest.len());
    let enhanced: Enhanced = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    (u16::from(enhanced.class) == code / 100).then_some(enhanced)
}

/// UTF-8 stays, control characters and what is no UTF-8 become `?`.
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
    fn a_code_without_a_verdict_has_the_dsn_of_a_protocol_error() {
        for (line, dsn) in [("250 ok\n", "2.0.0"), ("421 x\n", "4.0.0"), ("354 x\n", "5.5.0"), ("000 x\n", "5.5.0")] {
            assert_eq!(read(line.as_bytes(), 99).unwrap()[0].dsn().to_string(), dsn);
        }
    }

    #[test]
    fn long_replies_are_cut_and_endless_ones_refused() {
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

    /// What the reader does, said once more without buffers: lines by LF, cut, grouped up to a last line.
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
