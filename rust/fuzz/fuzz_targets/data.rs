//! The end of a message: `DataReader` and `ChunkReader` in any split, against a plain reading line by line.
//!
//! Input: flags (bit 0: any lone dot ends), the seed of the split, the octets after the line of DATA or BDAT.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::mail::stuff::unstuff;
use postillion_core::smtp::server::chunk::ChunkReader;
use postillion_core::smtp::server::data::{DataReader, Ending, Run};
use postillion_fuzz::{Choices, assert_wire_form, bit, splits};

#[derive(Debug, Clone, PartialEq, Default)]
struct Read {
    content: Vec<u8>,
    /// Octets up to the end of the message.
    ended_at: Option<usize>,
    bare_newlines: u64,
}

fn read(ending: Ending, pieces: &[&[u8]]) -> Read {
    let (mut reader, mut read, mut used_in_all) = (DataReader::new(ending), Read::default(), 0);
    'pieces: for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, run) = reader.feed(rest);
            rest = &rest[used..];
            used_in_all += used;
            match run {
                Run::Content(bytes) => read.content.extend_from_slice(bytes),
                Run::More => break,
                Run::End => {
                    read.ended_at = Some(used_in_all);
                    break 'pieces;
                }
            }
        }
        assert!(rest.is_empty(), "bytes are left over without an end");
    }
    read.bare_newlines = reader.bare_newlines();
    read
}

/// RFC 5321 §4.1.1.4, line by line: the text before LF decides.
fn plainly(ending: Ending, stream: &[u8]) -> Read {
    let (mut read, mut rest, mut standard) = (Read::default(), stream, true);
    let lenient = ending == Ending::AnyLine;
    while let Some(at) = rest.iter().position(|octet| *octet == b'\n') {
        let line = &rest[..at];
        rest = &rest[at + 1..];
        let ends_standard = line.ends_with(b"\r");
        read.bare_newlines += u64::from(!ends_standard);
        if (line == b".\r" && (standard || lenient)) || (line == b"." && lenient) {
            read.ended_at = Some(stream.len() - rest.len());
            return read;
        }
        let text = if line == b"." || line == b".\r" { b"" } else { line.strip_suffix(b"\r").unwrap_or(line) };
        read.content.extend_from_slice(text);
        read.content.extend_from_slice(b"\r\n");
        standard = ends_standard;
    }
    // A dot and a CR at the start of a line are held back: they may be the end.
    if rest != b"." && rest != b".\r" {
        read.content.extend_from_slice(rest);
    }
    read
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let ending = if bit(choices.byte(), 0) { Ending::AnyLine } else { Ending::Standard };
    let seed = choices.byte();
    let stream = choices.rest();
    let expected = plainly(ending, stream);
    for pieces in splits(stream, seed) {
        let read = read(ending, &pieces);
        assert_eq!(read, expected);
        if read.ended_at.is_some() {
            assert_wire_form(&read.content);
        }
    }
    let mut local = Vec::new();
    for line in stream.split_inclusive(|octet| *octet == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = if line.ends_with(b"\n") { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        local.extend_from_slice(text);
        local.push(b'\n');
    }
    for pieces in splits(stream, seed) {
        let (mut reader, mut wire) = (ChunkReader::default(), Vec::new());
        pieces.iter().for_each(|piece| reader.feed(piece, &mut |run| wire.extend_from_slice(run)));
        reader.finish(&mut |run| wire.extend_from_slice(run));
        assert_wire_form(&wire);
        assert_eq!(unstuff(&wire), local, "a chunk is not what it was");
        let dots = local.split(|octet| *octet == b'\n').filter(|line| line.starts_with(b".")).count();
        assert_eq!(reader.octets() as usize, wire.len() - dots);
    }
});
