//! The content of BDAT's chunks in wire form (RFC 3030 §2).
//!
//! A chunk has a length, so a lone dot means nothing in it. Stored content is relayed by DATA, where a lone dot ends
//! the message: so dots at the start of a line are stuffed here, LF alone becomes CRLF, and the last line gets an end.
//! The output of `feed` has the same form as that of `data`, for any chunks and any split of them. A CR without LF
//! passes through, as it does there: cleanup decides about it.

use memchr::memchr;

const CRLF: &[u8] = b"\r\n";

/// Reads the chunks of one message.
#[derive(Debug, Clone)]
pub struct ChunkReader {
    /// No octet of the line has arrived yet.
    at_start: bool,
    /// The last octet was CR.
    cr: bool,
    bare_newlines: u64,
    octets: u64,
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self { at_start: true, cr: false, bare_newlines: 0, octets: 0 }
    }
}

impl ChunkReader {
    /// Return the number of lines that ended in LF alone.
    pub fn bare_newlines(&self) -> u64 {
        self.bare_newlines
    }

    /// Return the octets of the message so far, line ends as CRLF, without added dots.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Give the next octets of the message to `content`; any split of the chunks is allowed.
    pub fn feed(&mut self, input: &[u8], content: &mut impl FnMut(&[u8])) {
        self.octets += input.len() as u64;
        let mut run = 0;
        let mut line = 0;
        while line < input.len() {
            if self.at_start && input[line] == b'.' {
                give(&input[run..line], content);
                content(b".");
                run = line;
            }
            let Some(found) = memchr(b'\n', &input[line..]) else {
                self.at_start = false;
                self.cr = input.last() == Some(&b'\r');
                break;
            };
            let newline = line + found;
            let after_cr = if found == 0 { self.cr } else { input[newline - 1] == b'\r' };
            if !after_cr {
                give(&input[run..newline], content);
                content(CRLF);
                run = newline + 1;
                self.bare_newlines += 1;
                self.octets += 1;
            }
            line = newline + 1;
            self.at_start = true;
            self.cr = false;
        }
        give(&input[run..], content);
    }

    /// End the message's last line.
    pub fn finish(&mut self, content: &mut impl FnMut(&[u8])) {
        if !self.at_start {
            content(CRLF);
            self.octets += CRLF.len() as u64;
            self.at_start = true;
            self.cr = false;
        }
    }
}

fn give(run: &[u8], content: &mut impl FnMut(&[u8])) {
    if !run.is_empty() {
        content(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::stuff::{stuff, unstuff};
    use proptest::prelude::*;

    /// Return wire form, octets, and bare newlines.
    fn read(chunks: &[u8], step: usize) -> (Vec<u8>, u64, u64) {
        let (mut reader, mut out) = (ChunkReader::default(), Vec::new());
        for chunk in chunks.chunks(step.max(1)) {
            reader.feed(chunk, &mut |run| out.extend_from_slice(run));
        }
        reader.finish(&mut |run| out.extend_from_slice(run));
        (out, reader.octets(), reader.bare_newlines())
    }

    #[test]
    fn chunks_get_the_same_form_as_data() {
        for (chunks, wire, octets, bare_newlines) in [
            ("", "", 0, 0),
            ("a\r\n", "a\r\n", 3, 0),
            ("abc", "abc\r\n", 5, 0),
            (".\r\n", "..\r\n", 3, 0),
            (".", "..\r\n", 3, 0),
            ("..a\r\n.b", "...a\r\n..b\r\n", 9, 0),
            ("a\n.\nb", "a\r\n..\r\nb\r\n", 9, 2),
            ("a\r.\r\n", "a\r.\r\n", 5, 0),
            ("a\r\r\n", "a\r\r\n", 4, 0),
            ("a\r", "a\r\r\n", 4, 0),
            ("\n\r\n\n", "\r\n\r\n\r\n", 6, 2),
            ("\r", "\r\r\n", 3, 0),
            ("a\r\n\r\n.\r\n.", "a\r\n\r\n..\r\n..\r\n", 11, 0),
        ] {
            for step in 1..=chunks.len().max(1) {
                let got = read(chunks.as_bytes(), step);
                assert_eq!(got, (wire.as_bytes().to_vec(), octets, bare_newlines), "{chunks:?} by {step}");
            }
        }
    }

    fn octets() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'), any::<u8>()], 0..60)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(chunks in octets(), step in 1usize..8) {
            prop_assert_eq!(read(&chunks, step), read(&chunks, 100));
        }

        #[test]
        fn chunk_output_can_be_sent_by_data(chunks in octets(), step in 1usize..8) {
            let (wire, octets, _) = read(&chunks, step);
            let framed = [CRLF, &wire[..]].concat();
            prop_assert!(!framed.windows(5).any(|w| w == b"\r\n.\r\n"));
            prop_assert!(!framed.windows(2).any(|w| w[1] == b'\n' && w[0] != b'\r'));
            prop_assert!(wire.is_empty() || wire.ends_with(CRLF));
            prop_assert_eq!(&wire, &stuff(&chunks));
            let dots = framed.windows(3).filter(|w| w == b"\r\n.").count();
            prop_assert_eq!(wire.len() as u64, octets + dots as u64);
        }

        #[test]
        fn content_with_standard_line_ends_is_read_back(lines in prop::collection::vec("[.a-c]{0,4}", 0..8)) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let (wire, _, _) = read(text.replace('\n', "\r\n").as_bytes(), 3);
            prop_assert_eq!(unstuff(&wire), text.into_bytes());
        }
    }
}
