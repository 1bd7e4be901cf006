//! A message in one piece, for an owner that wants it so: unstuffed, within limits (RFC 5321 §4.5.2, §4.5.3.1.6).
//!
//! Bytes in, used bytes out. `DataReader` finds the end of the message, `Unstuffer` removes the dots, this module keeps
//! the text. A message above a limit is still read to its end, and nothing of it is kept: stopping early would let its
//! text be read as commands.

use super::data::{DataReader, Ending, Run};
use crate::mail::stuff::Unstuffer;
use memchr::memchr;

const CRLF_OCTETS: usize = 2;

/// The limits of a message.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Maximum octets of a line, with its CRLF and its stuffed dot.
    pub line_octets: usize,
    /// Maximum octets of a message on the wire, without the final dot's line. `None`: no limit.
    pub message_octets: Option<u64>,
}

/// The reason why a message is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A line is longer than `line_octets`.
    LineTooLong,
    /// The message is longer than `message_octets`.
    TooMuch,
}

/// A message that is being received.
#[derive(Debug, Clone)]
pub struct WholeMessage {
    reader: DataReader,
    unstuffer: Unstuffer,
    bounds: Bounds,
    text: Vec<u8>,
    octets: u64,
    /// Octets of the current line.
    line: usize,
    after_cr: bool,
    fault: Option<Fault>,
    ended: bool,
}

impl WholeMessage {
    /// Return a message that starts with the next octet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            reader: DataReader::new(Ending::Verbatim),
            unstuffer: Unstuffer::crlf(),
            bounds,
            text: Vec::new(),
            octets: 0,
            line: 0,
            after_cr: false,
            fault: None,
            ended: false,
        }
    }

    /// Read further. Return how many octets of `input` belong to the message, its final dot included.
    ///
    /// `input`: any split of the stream. Octets stay unused only behind the end of the message. Memory: at most
    /// `message_octets` and a line, twice while the text grows.
    pub fn feed(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let (octets, run) = self.reader.feed(&input[used..]);
            used += octets;
            match run {
                Run::More => return used,
                Run::End => {
                    self.ended = true;
                    return used;
                }
                Run::Content(run) => {
                    if self.fault.is_none() {
                        self.check(run);
                    }
                    if self.fault.is_none() {
                        self.unstuffer.feed(run, &mut self.text);
                    }
                }
            }
        }
    }

    /// Whether its end was read.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Return the text, lines ended with CRLF, dots unstuffed; or the fault.
    pub fn finish(mut self) -> Result<Vec<u8>, Fault> {
        match self.fault {
            Some(fault) => Err(fault),
            None => {
                self.unstuffer.finish(&mut self.text);
                Ok(self.text)
            }
        }
    }

    /// Count a run's lines. A size is compared at the end of a line, so that any split gives the same result.
    fn check(&mut self, run: &[u8]) {
        let mut at = 0;
        while let Some(found) = memchr(b'\n', &run[at..]) {
            let newline = at + found;
            let after_cr = if newline == 0 { self.after_cr } else { run[newline - 1] == b'\r' };
            self.count(newline + 1 - at);
            at = newline + 1;
            if after_cr {
                self.end_line();
                self.line = 0;
            }
        }
        self.count(run.len() - at);
        self.after_cr = run.last() == Some(&b'\r');
        if self.line >= self.bounds.line_octets + CRLF_OCTETS {
            self.refuse(Fault::LineTooLong);
        }
    }

    fn count(&mut self, octets: usize) {
        self.line += octets;
        self.octets += octets as u64;
    }

    fn end_line(&mut self) {
        // A line that must exceed its limit is reported before the size, because it is known first.
        if self.line - CRLF_OCTETS > self.bounds.line_octets {
            self.refuse(Fault::LineTooLong);
        }
        if self.bounds.message_octets.is_some_and(|most| self.octets > most) {
            self.refuse(Fault::TooMuch);
        }
        if self.line > self.bounds.line_octets {
            self.refuse(Fault::LineTooLong);
        }
    }

    /// Note the first fault; later ones are ignored.
    fn refuse(&mut self, fault: Fault) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            self.text = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { line_octets: 8, message_octets: Some(30) };

    type Kept = Result<Vec<u8>, Fault>;

    /// Return the text or the fault, and the octets left over; `None` without an end.
    fn read(bounds: Bounds, wire: &[u8], step: usize) -> Option<(Kept, Vec<u8>)> {
        let mut message = WholeMessage::new(bounds);
        let mut at = 0;
        for chunk in wire.chunks(step.max(1)) {
            let used = message.feed(chunk);
            at += used;
            if message.is_ended() {
                return Some((message.finish(), wire[at..].to_vec()));
            }
            assert_eq!(used, chunk.len());
        }
        None
    }

    #[test]
    fn a_message_is_whole_or_refused() {
        for (name, wire, expected) in [
            ("empty", &b".\r\nQUIT\r\n"[..], Ok(&b""[..])),
            ("text", b"a\r\nb\r\n.\r\nQUIT\r\n", Ok(b"a\r\nb\r\n")),
            ("dots", b"..\r\n..a\r\n.b\r\n.\r\nQUIT\r\n", Ok(b".\r\n.a\r\nb\r\n")),
            ("bare newlines", b"a\n.\n..\r\n.\r\nQUIT\r\n", Ok(b"a\n.\n..\r\n")),
            ("stray CRs", b"a\rb\r\r\n.\r\nQUIT\r\n", Ok(b"a\rb\r\r\n")),
            ("a line at the limit", b"123456\r\n.\r\nQUIT\r\n", Ok(b"123456\r\n")),
            ("a line above it by its CRLF", b"1234567\r\n.\r\nQUIT\r\n", Err(Fault::LineTooLong)),
            ("a line above it", b"a\r\n123456789012345\r\n.\r\nQUIT\r\n", Err(Fault::LineTooLong)),
            ("a stuffed line at the limit", b"..3456\r\n.\r\nQUIT\r\n", Ok(b".3456\r\n")),
            ("a stuffed line above it", b"..34567\r\n.\r\nQUIT\r\n", Err(Fault::LineTooLong)),
            ("a message at the limit", b"12345\r\n12345\r\n12345\r\n12345\r\n\r\n.\r\nQUIT\r\n", {
                Ok(b"12345\r\n12345\r\n12345\r\n12345\r\n\r\n")
            }),
            ("above it", b"12345\r\n12345\r\n12345\r\n12345\r\n1\r\n.\r\nQUIT\r\n", Err(Fault::TooMuch)),
            ("too long, then too much", b"123456789\r\n12345\r\n12345\r\n12345\r\n12345\r\n.\r\nQUIT\r\n", {
                Err(Fault::LineTooLong)
            }),
            ("too much, then too long", b"12345\r\n12345\r\n12345\r\n12345\r\n12345\r\n123456789\r\n.\r\nQUIT\r\n", {
                Err(Fault::TooMuch)
            }),
        ] {
            for step in 1..=wire.len() {
                let (got, rest) = read(BOUNDS, wire, step).unwrap();
                assert_eq!(got, expected.map(<[u8]>::to_vec), "{name}, {step} octets at a time");
                assert_eq!(rest, b"QUIT\r\n", "{name}, {step} octets at a time");
            }
        }
    }

    #[test]
    fn nothing_is_kept_above_a_limit() {
        let mut message = WholeMessage::new(BOUNDS);
        for _ in 0..1000 {
            message.feed(b"12345\r\n");
        }
        assert_eq!((message.text.capacity(), message.fault), (0, Some(Fault::TooMuch)));
        let mut message = WholeMessage::new(Bounds { message_octets: None, ..BOUNDS });
        for _ in 0..1000 {
            message.feed(b"123456");
        }
        assert_eq!((message.text.capacity(), message.fault), (0, Some(Fault::LineTooLong)));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            wire in prop::collection::vec(prop::sample::select(&b"\r\n.aaaa"[..]), 0..80),
            step in 1usize..9,
        ) {
            let wire = [&wire[..], b"\r\n.\r\n"].concat();
            prop_assert_eq!(read(BOUNDS, &wire, step), read(BOUNDS, &wire, wire.len()));
        }
    }
}
