//! A peer's octets, until the owner takes them: by line, by count, or as a whole message.
//!
//! Bytes in, pieces out. The owner decides what to read next, so nothing is parsed ahead: octets behind a line or a
//! message stay octets. A line has a limit, a message has its `Bounds`. The owner limits the waiting octets: it stops
//! reading while `len` is too large (but not inside a message, which is read at once).

use super::whole::{Bounds, Fault, WholeMessage};
use memchr::memmem;

/// The result of a search for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// A line of this many octets, its end included.
    Whole(usize),
    /// At least this many octets of a line that exceeds the limit.
    Overlong(usize),
    /// The line has no end yet.
    More,
}

/// The octets of one direction of a connection.
#[derive(Debug)]
pub struct Intake {
    octets: Vec<u8>,
    start: usize,
    line_limit: usize,
    message: Option<WholeMessage>,
}

impl Intake {
    /// Return an empty intake. `line_limit`: maximum octets of a line without its end.
    pub fn new(line_limit: usize) -> Self {
        Self { octets: Vec::new(), start: 0, line_limit, message: None }
    }

    /// Append the next octets. Return whether a result is ready.
    ///
    /// While a message is read, the result is false until its end.
    pub fn feed(&mut self, input: &[u8]) -> bool {
        let used = self.feed_message(input);
        self.octets.extend_from_slice(&input[used..]);
        !self.is_reading_message()
    }

    /// Search for a line's end. Takes nothing.
    ///
    /// Cost: at most the limit's octets are searched in a line without an end.
    pub fn line(&self, end: &[u8]) -> Line {
        let waiting = self.waiting();
        let seen = &waiting[..waiting.len().min(self.line_limit + end.len())];
        match memmem::find(seen, end) {
            Some(at) => Line::Whole(at + end.len()),
            // Keep a possible beginning of the line end.
            None if seen.len() == self.line_limit + end.len() => Line::Overlong(seen.len() + 1 - end.len()),
            None => Line::More,
        }
    }

    /// Take at most `most` octets.
    pub fn take(&mut self, most: usize) -> &[u8] {
        if self.start == self.octets.len() {
            self.clear();
        } else if self.start > self.octets.len() / 2 {
            self.octets.drain(..self.start);
            self.start = 0;
        }
        let from = self.start;
        self.start = self.octets.len().min(from.saturating_add(most));
        &self.octets[from..self.start]
    }

    /// Start to read a message here. Return whether it is complete already.
    pub fn begin_message(&mut self, bounds: Bounds) -> bool {
        self.message = Some(WholeMessage::new(bounds));
        let mut octets = std::mem::take(&mut self.octets);
        let used = self.feed_message(&octets[self.start..]);
        octets.drain(..self.start + used);
        (self.octets, self.start) = (octets, 0);
        !self.is_reading_message()
    }

    /// Return the message; `None` while there is none, or it has no end.
    pub fn take_message(&mut self) -> Option<Result<Vec<u8>, Fault>> {
        self.message.take_if(|message| message.is_ended()).map(WholeMessage::finish)
    }

    /// Whether a message is being read.
    pub fn is_reading_message(&self) -> bool {
        self.message.as_ref().is_some_and(|message| !message.is_ended())
    }

    /// Drop the waiting octets.
    pub fn clear(&mut self) {
        self.octets.clear();
        self.start = 0;
    }

    /// Return the number of waiting octets.
    pub fn len(&self) -> usize {
        self.octets.len() - self.start
    }

    /// Whether no octet waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn waiting(&self) -> &[u8] {
        &self.octets[self.start..]
    }

    fn feed_message(&mut self, input: &[u8]) -> usize {
        match &mut self.message {
            Some(message) if !message.is_ended() => message.feed(input),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 8;
    const BOUNDS: Bounds = Bounds { line_octets: 8, message_octets: Some(40) };

    #[test]
    fn a_line_ends_within_the_limit_or_is_overlong() {
        for (waiting, end, expected) in [
            (&b""[..], &b"\n"[..], Line::More),
            (b"NOOP", b"\n", Line::More),
            (b"NOOP\r\nQ", b"\n", Line::Whole(6)),
            (b"NOOP\nQ", b"\n", Line::Whole(5)),
            (b"NOOP\nQ", b"\r\n", Line::More),
            (b"12345678\n", b"\n", Line::Whole(9)),
            (b"12345678", b"\n", Line::More),
            (b"123456789", b"\n", Line::Overlong(9)),
            (b"123456789\n", b"\n", Line::Overlong(9)),
            (b"12345678\r\n", b"\r\n", Line::Whole(10)),
            (b"12345678\r", b"\r\n", Line::More),
            (b"123456789\r\n", b"\r\n", Line::Overlong(9)),
            (b"12345678901234567890", b"\r\n", Line::Overlong(9)),
        ] {
            let mut intake = Intake::new(LIMIT);
            assert!(intake.feed(waiting));
            assert_eq!(intake.line(end), expected, "{waiting:?} {end:?}");
            assert_eq!(intake.len(), waiting.len());
        }
    }

    #[test]
    fn waiting_octets_are_taken_in_pieces() {
        let mut intake = Intake::new(LIMIT);
        intake.feed(b"abcdef");
        assert_eq!(intake.take(2), b"ab");
        assert_eq!(intake.take(0), b"");
        intake.feed(b"gh");
        assert_eq!(intake.take(3), b"cde");
        assert_eq!(intake.take(100), b"fgh");
        assert!(intake.is_empty());
        intake.feed(b"ij");
        intake.clear();
        assert_eq!(intake.take(1), b"");
    }

    #[test]
    fn taken_octets_free_their_memory() {
        let mut intake = Intake::new(LIMIT);
        intake.feed(b"NOO");
        for _ in 0..10_000 {
            intake.feed(b"P\r\nNOO");
            assert_eq!(intake.take(6), b"NOOP\r\n");
        }
        assert!(intake.octets.capacity() < 64);
    }

    #[test]
    fn octets_behind_a_message_stay_octets() {
        let wire = b"DATA\r\na\r\n..\r\n.\r\nQUIT\r\n";
        for step in 1..=wire.len() {
            let mut intake = Intake::new(LIMIT);
            let (mut begun, mut message) = (false, None);
            for chunk in wire.chunks(step) {
                let mut told = intake.feed(chunk);
                if !begun && let Line::Whole(octets) = intake.line(b"\n") {
                    assert_eq!(intake.take(octets), b"DATA\r\n");
                    told = intake.begin_message(BOUNDS);
                    begun = true;
                }
                assert_eq!(told, !intake.is_reading_message());
                message = message.or_else(|| intake.take_message());
            }
            assert_eq!(message, Some(Ok(b"a\r\n.\r\n".to_vec())), "by {step}");
            assert_eq!(intake.take(100), b"QUIT\r\n", "by {step}");
        }
    }

    #[test]
    fn a_message_is_returned_once_and_only_whole() {
        let mut intake = Intake::new(LIMIT);
        assert_eq!(intake.take_message(), None);
        assert!(!intake.begin_message(BOUNDS));
        assert!(!intake.feed(b"a\r\n.\r"));
        assert_eq!((intake.take_message(), intake.len()), (None, 0));
        assert!(intake.feed(b"\n"));
        assert_eq!(intake.take_message(), Some(Ok(b"a\r\n".to_vec())));
        assert_eq!(intake.take_message(), None);
        assert!(!intake.begin_message(BOUNDS));
        assert!(intake.feed(b"a line of a message that is too long\r\n.\r\n"));
        assert_eq!(intake.take_message(), Some(Err(Fault::LineTooLong)));
    }

    proptest! {
        #[test]
        fn lines_are_returned_unchanged(
            wire in prop::collection::vec(prop::sample::select(&b"\r\nab"[..]), 0..60),
            step in 1usize..9,
        ) {
            let mut intake = Intake::new(usize::MAX / 2);
            let mut lines = Vec::new();
            for chunk in wire.chunks(step) {
                intake.feed(chunk);
                while let Line::Whole(octets) = intake.line(b"\n") {
                    lines.push(intake.take(octets).to_vec());
                }
            }
            lines.push(intake.take(usize::MAX).to_vec());
            let expected: Vec<Vec<u8>> = wire.split_inclusive(|octet| *octet == b'\n').map(<[u8]>::to_vec).collect();
            lines.retain(|line| !line.is_empty());
            prop_assert_eq!(lines, expected);
        }
    }
}
