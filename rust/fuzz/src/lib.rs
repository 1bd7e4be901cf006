//! Tools of the targets: choices and splits from a fuzzer's bytes, and checks of bytes that go out.
//!
//! Every target takes its settings from the first bytes of its input, and the rest as a peer's octets. It feeds them
//! whole, byte by byte and in pieces, and panics when the results differ or a promise is broken.

#![forbid(unsafe_code)]

pub mod queue;

use postillion_core::smtp::client::response::ResponseReader;
use std::path::PathBuf;

/// Maximum size of an input that is fed byte by byte.
const BYTEWISE_MAX_OCTETS: usize = 8192;

/// Reads an input from its front; missing bytes at its end are zero.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Return choices from the start of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Read one byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Read a number of two bytes.
    pub fn word(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Return the remaining bytes.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Whether this bit of a byte of choices is set.
pub fn bit(flags: u8, at: u8) -> bool {
    flags >> at & 1 == 1
}

/// Return the same stream whole, byte by byte, and in pieces of 1 to 16 octets with lengths from `seed`.
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
        // A multiplicative generator varies lengths well enough.
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

    /// Return the first digit of a reply's code; 0 without a reply.
    pub fn class(&self, at: usize) -> u16 {
        self.codes.get(at).map_or(0, |code| code / 100)
    }

    /// The codes.
    pub fn codes(&self) -> &[u16] {
        &self.codes
    }

    /// Whether all of the octets are replies to the `sent` commands. Other octets end the session at once or later,
    /// depending on the split.
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

/// Check that `wire` is a message that DATA can carry; panic otherwise. All lines end with CRLF, and none is a single
/// dot.
pub fn assert_wire_form(wire: &[u8]) {
    assert!(wire.is_empty() || wire.ends_with(b"\r\n"), "the last line is open");
    let framed = [b"\r\n", wire].concat();
    assert!(!framed.windows(5).any(|window| window == b"\r\n.\r\n"), "an end of data inside");
    assert!(!framed.windows(2).any(|window| window[1] == b'\n' && window[0] != b'\r'), "LF without CR");
}

/// Create a directory of this process among the temporary files; the runner of the fuzzer removes it.
pub fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("postillion-fuzz-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a directory for the queue can be made");
    path
}
