//! Local form and wire form: any split gives the same, each undoes the other, and a plain reading gives the same.
//!
//! Input: the seed of the split, a text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::mail::stuff::{Stuffer, Unstuffer};
use postillion_core::pickup::maildrop::{ContentWriter, LineEndings};
use postillion_fuzz::{Choices, assert_wire_form, splits};

fn stuffed(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut stuffer, mut wire) = (Stuffer::default(), Vec::new());
    pieces.iter().for_each(|piece| stuffer.feed(piece, &mut wire));
    stuffer.finish(&mut wire);
    wire
}

fn unstuffed(mut unstuffer: Unstuffer, pieces: &[&[u8]]) -> Vec<u8> {
    let mut local = Vec::new();
    pieces.iter().for_each(|piece| unstuffer.feed(piece, &mut local));
    unstuffer.finish(&mut local);
    local
}

/// Return each line with LF at its end, without one CR before it; the last line has an end.
fn lines(text: &[u8]) -> Vec<u8> {
    let mut local = Vec::new();
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(ended) => local.extend_from_slice(ended.strip_suffix(b"\r").unwrap_or(ended)),
            None => local.extend_from_slice(line),
        }
        local.push(b'\n');
    }
    local
}

/// Return a program's input to sendmail, as records in a file in maildrop/.
fn written(dot_ends: bool, line_endings: LineEndings, pieces: &[&[u8]]) -> Vec<u8> {
    let (mut writer, mut file) = (ContentWriter::new(dot_ends, line_endings), Vec::new());
    for piece in pieces {
        if !writer.feed(piece, &mut file) {
            break;
        }
    }
    writer.finish(&[], &mut file);
    file
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let seed = choices.byte();
    let text = choices.rest();
    let wire = stuffed(&[text]);
    assert_wire_form(&wire);
    let any = unstuffed(Unstuffer::lf(), &[text]);
    for pieces in splits(text, seed) {
        assert_eq!(stuffed(&pieces), wire, "stuffed in another split");
        assert_eq!(unstuffed(Unstuffer::lf(), &pieces), any, "unstuffed in another split");
    }
    for pieces in splits(&wire, seed) {
        assert_eq!(unstuffed(Unstuffer::lf(), &pieces), lines(text), "there and back");
        assert_eq!(stuffed(&[&unstuffed(Unstuffer::crlf(), &pieces)]), wire, "back and there");
    }
    for line_endings in [LineEndings::Always, LineEndings::Strict, LineEndings::Never] {
        for dot_ends in [false, true] {
            let file = written(dot_ends, line_endings, &[text]);
            for pieces in splits(text, seed) {
                assert_eq!(written(dot_ends, line_endings, &pieces), file, "written in another split");
            }
        }
    }
});
