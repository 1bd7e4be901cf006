//! What the targets share: choices and splits out of a fuzzer's bytes, and what must be true of bytes that go out.
//!
//! Every target takes its settings from the first bytes of its input and the rest as what a peer sent, feeds that
//! whole, byte by byte and in pieces, and panics when the results differ or a promise is broken.

#![forbid(unsafe_code)]

pub mod queue;

use postillion_core::smtp::client::response::ResponseReader;
use std::path::PathBuf;

/// Above so many octets an input is not fed byte by byte.
const BYTEWISE_MAX_OCTETS: usize = 8192;

/// Reads an input from its front; what is missing at its end is zero.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Choices from the start of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number of two bytes.
    pub fn word(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// Is nothing left?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Is this bit of a byte of choices set?
pub fn bit(flags: u8, at: u8) -> bool {
    flags >> at & 1 == 1
}

/// The same stream whole, byte by byte, and in pieces of 1 to 16 octets whose lengths follow from `seed`.
pub fn splits(stream: &[u8], seed: u8) -> Vec<Vec<&[u8]>> {
    let mut splits = vec![vec![stream], pieces(stream, seed)];
    if stream.len() <= BYTEWISE_MAX_OCTETS {
        splits.push(stream.chunks(1).collect());
    }
    splits
}

fn pieces(stream: &[u8], seed: u8) -> Vec<&[u8]> {
    let (mut rest, mut pieces) = (stream, Vec::new());
    let mut state = u32::from(seed) << 1 | 1;
    while !rest.is_empty() {
        // A multiplicative generator is enough to vary lengths.
        state = state.wrapping_mul(0x915f_77f5);
        let (piece, after) = rest.split_at(rest.len().min((state >> 28) as usize + 1));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// The replies of a server, read a second time beside the client that is tested.
#[derive(Default)]
pub struct Replies {
    reader: ResponseReader,
    /// The octets of an incomplete reply.
    tail: Vec<u8>,
    /// The codes of the complete ones.
    codes: Vec<u16>,
}

impl Replies {
    /// Read the server's next octets.
    pub fn read(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while let Ok((used, reply)) = self.reader.feed(rest) {
            self.tail.extend_from_slice(&rest[..used]);
            if let Some(reply) = reply {
                self.codes.push(reply.code);
                self.tail.clear();
            }
            rest = &rest[used..];
            if rest.is_empty() {
                break;
            }
        }
    }

    /// The first digit of a reply's code; 0 without a reply.
    pub fn class(&self, at: usize) -> u16 {
        self.codes.get(at).map_or(0, |code| code / 100)
    }

    /// The codes.
    pub fn codes(&self) -> &[u16] {
        &self.codes
    }

    /// Do all of the octets answer the `sent` commands? Other octets end the session at once or later, as the split has
    /// it.
    pub fn answer_commands(&self, octets: &[u8], sent: usize) -> bool {
        let (mut reader, mut open) = (ResponseReader::default(), sent.saturating_sub(self.codes.len()));
        let octets = [&self.tail, octets].concat();
        let mut rest = &octets[..];
        while open > 0 && !rest.is_empty() {
            let Ok((used, reply)) = reader.feed(rest) else { return true };
            rest = &rest[used..];
            open -= usize::from(reply.is_some());
        }
        rest.is_empty()
    }
}

/// Panics unless `wire` is a message that DATA can carry: lines end with CRLF, the last one too, and none is a dot.
pub fn assert_wire_form(wire: &[u8]) {
    assert!(wire.is_empty() || wire.ends_with(b"\r\n"), "the last line is open");
    let framed = [b"\r\n", wire].concat();
    assert!(!framed.windows(5).any(|window| window == b"\r\n.\r\n"), "an end of data inside");
    assert!(!framed.windows(2).any(|window| window[1] == b'\n' && window[0] != b'\r'), "LF without CR");
}

/// A directory of this process, in the system's place for temporary files: whoever runs the fuzzer removes it.
pub fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("postillion-fuzz-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a directory for the queue can be made");
    path
}
