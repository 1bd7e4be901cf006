//! A Controller's connection: lines, octets and whole messages from one stream, the same in any split.
//!
//! Input: two bytes of limits, the seed of the split, the stream. A line that begins with `D` is followed by a message, one
//! that begins with `T` by three octets that are no line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::smtp::server::intake::{Intake, Line};
use postillion_core::smtp::server::whole::{Bounds, Fault};
use postillion_fuzz::{Choices, bit, splits};

/// Octets after a line with `T`.
const COUNTED_OCTETS: usize = 3;
const END: &[u8] = b"\r\n.\r\n";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Line(Vec<u8>),
    Overlong(usize),
    Octets(Vec<u8>),
    Message(Result<Vec<u8>, Fault>),
}

/// The owner's next request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Line,
    Octets,
    Message,
}

struct Limits {
    line: usize,
    end: &'static [u8],
    bounds: Bounds,
}

/// An owner that takes pieces from an `Intake` while it can.
struct Owner<'a> {
    limits: &'a Limits,
    intake: Intake,
    want: Want,
    taken: Vec<Piece>,
    octets: usize,
}

impl Owner<'_> {
    fn hear(&mut self, octets: &[u8]) {
        let mut ready = self.intake.feed(octets);
        assert_eq!(ready, !self.intake.is_reading_message());
        while ready && self.take() {
            ready = self.want != Want::Message || !self.intake.is_reading_message();
        }
    }

    /// Take one piece; return false when more octets are needed.
    fn take(&mut self) -> bool {
        let before = self.intake.len();
        match self.want {
            Want::Line => match self.intake.line(self.limits.end) {
                Line::More => return false,
                Line::Overlong(octets) => {
                    assert_eq!(self.intake.take(octets).len(), octets);
                    self.taken.push(Piece::Overlong(octets));
                    self.octets += octets;
                }
                Line::Whole(octets) => {
                    let line = self.intake.take(octets).to_vec();
                    assert!(line.ends_with(self.limits.end) && octets <= self.limits.line + self.limits.end.len());
                    self.octets += octets;
                    match line.first() {
                        Some(b'D') => {
                            self.want = Want::Message;
                            let ended = self.intake.begin_message(self.limits.bounds);
                            assert_eq!(ended, !self.intake.is_reading_message());
                        }
                        Some(b'T') => self.want = Want::Octets,
                        _ => {}
                    }
                    self.taken.push(Piece::Line(line));
                    return true;
                }
            },
            Want::Octets => {
                if before < COUNTED_OCTETS {
                    return false;
                }
                self.taken.push(Piece::Octets(self.intake.take(COUNTED_OCTETS).to_vec()));
                self.octets += COUNTED_OCTETS;
                self.want = Want::Line;
            }
            Want::Message => {
                let message = self.intake.take_message().expect("it has ended");
                assert_eq!(self.intake.take_message(), None, "given twice");
                self.taken.push(Piece::Message(message));
                self.want = Want::Line;
                return true;
            }
        }
        assert!(self.intake.len() < before);
        true
    }
}

/// Return lines with their CRLF; a bare LF does not end a line.
fn lines(content: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut rest) = (Vec::new(), content);
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let (line, after) = rest.split_at(at + 2);
        lines.push(line);
        rest = after;
    }
    assert!(rest.is_empty(), "the last line is open");
    lines
}

/// Check that the messages are those of a plain reading of the stream; panic otherwise.
fn compare(stream: &[u8], limits: &Limits, taken: &[Piece]) {
    let mut rest = stream;
    for piece in taken {
        match piece {
            Piece::Line(octets) | Piece::Octets(octets) => {
                rest = rest.strip_prefix(&octets[..]).expect("octets come in their order");
            }
            Piece::Overlong(octets) => {
                assert!(
                    *octets > limits.line && !rest[..limits.line].windows(limits.end.len()).any(|w| w == limits.end)
                );
                rest = &rest[*octets..];
            }
            Piece::Message(message) => {
                // As if a line end preceded the message: its first line may be the dot.
                let framed = [b"\r\n", rest].concat();
                let at = framed.windows(END.len()).position(|window| window == END).expect("it has an end");
                let content = &framed[2..at + 2];
                let lines = lines(content);
                let too_much = limits.bounds.message_octets.is_some_and(|most| content.len() as u64 > most);
                let too_long = lines.iter().any(|line| line.len() > limits.bounds.line_octets);
                match message {
                    Ok(text) => {
                        let plain: Vec<&[u8]> =
                            lines.iter().map(|line| line.strip_prefix(b".").unwrap_or(line)).collect();
                        assert_eq!(*text, plain.concat());
                        assert!(!too_much && !too_long);
                    }
                    Err(Fault::TooMuch) => assert!(too_much),
                    Err(Fault::LineTooLong) => assert!(too_long),
                }
                rest = &rest[at + END.len() - 2..];
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (flags, more) = (choices.byte(), choices.byte());
    let limits = Limits {
        line: usize::from(more & 0x1f) + 1,
        end: if bit(flags, 0) { b"\r\n" } else { b"\n" },
        bounds: Bounds {
            line_octets: if bit(flags, 1) { 12 } else { 1001 },
            message_octets: bit(flags, 2).then_some(40),
        },
    };
    let seed = choices.byte();
    let stream = choices.rest();
    let mut first = None;
    for pieces in splits(stream, seed) {
        let intake = Intake::new(limits.line);
        let mut owner = Owner { limits: &limits, intake, want: Want::Line, taken: Vec::new(), octets: 0 };
        for piece in pieces {
            owner.hear(piece);
        }
        assert!(owner.octets + owner.intake.len() <= stream.len());
        compare(stream, &limits, &owner.taken);
        let heard = (owner.taken, owner.intake.len());
        assert_eq!(first.get_or_insert_with(|| heard.clone()), &heard, "in another split");
    }
});
