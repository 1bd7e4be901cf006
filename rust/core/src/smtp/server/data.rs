//! Finds the end of a message (RFC 5321 §4.1.1.4, §4.5.2, §2.3.8).
//!
//! Bytes in, runs out: `feed` returns slices of its input and never copies. Only CRLF "." CRLF ends a message. The
//! output keeps its dot-stuffing and is stored and relayed unchanged. A line that ends in LF alone gets a CR
//! (`smtpd_forbid_bare_newline = normalize`), so no octets pass that the next server could take for an end. The
//! rejected alternative, to end a message also at LF "." LF, lets a sender hide a second message in the first
//! (CVE-2023-51764); it exists as `Ending::AnyLine` for sites that say `smtpd_forbid_bare_newline = no`.

use memchr::memchr;

/// The rule for the end of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// CRLF "." CRLF.
    #[default]
    Standard,
    /// A line with a single dot, after and before any kind of line end.
    AnyLine,
    /// CRLF "." CRLF, and a bare LF is text that stays unchanged: for an owner that relays nothing itself.
    Verbatim,
}

/// The meaning of the scanned bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run<'a> {
    /// Content in wire form: CRLF line ends except stray CRs (`Verbatim`: and stray LFs), dots stuffed.
    Content(&'a [u8]),
    /// Not known yet: more bytes are needed.
    More,
    /// The end of the message; the bytes behind it belong to the next command.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a line; `standard`: the line before ended in CRLF.
    Start { standard: bool },
    /// After a dot at the start of a line, which is not returned yet.
    Dot { standard: bool },
    /// The same, with a CR behind it.
    DotCr { standard: bool },
    /// Inside a line; `cr`: its last octet was CR.
    Inside { cr: bool },
    /// After the end.
    End,
}

/// Reads one message's content, from behind the line of DATA.
#[derive(Debug, Clone)]
pub struct DataReader {
    state: State,
    ending: Ending,
    bare_newlines: u64,
}

const CRLF: &[u8] = b"\r\n";

impl DataReader {
    /// Return a reader at the start of a message, which follows a CRLF: a dot there can be the end.
    pub fn new(ending: Ending) -> Self {
        Self { state: State::Start { standard: true }, ending, bare_newlines: 0 }
    }

    /// Return the number of lines that ended in LF alone.
    pub fn bare_newlines(&self) -> u64 {
        self.bare_newlines
    }

    /// Scan the next bytes. Return the number of used bytes, and their meaning.
    ///
    /// `input`: any split of the stream. Call again with the unused bytes until it returns `More` or `End`. Cost: one
    /// memchr pass.
    pub fn feed<'a>(&mut self, input: &'a [u8]) -> (usize, Run<'a>) {
        let Some(&first) = input.first() else {
            return (0, if self.state == State::End { Run::End } else { Run::More });
        };
        let lenient = self.ending == Ending::AnyLine;
        match (self.state, first) {
            (State::End, _) => (0, Run::End),
            (State::Start { standard }, b'.') => {
                // Within one input, a dot that is plainly stuffed need not end the run.
                if let [_, next, ..] = input
                    && !matches!(next, b'\r' | b'\n')
                {
                    return self.inside(input, false);
                }
                self.state = State::Dot { standard };
                let (used, run) = self.feed(&input[1..]);
                (used + 1, run)
            }
            (State::Start { .. }, _) => self.inside(input, false),
            (State::Dot { standard }, b'\r') => {
                self.state = State::DotCr { standard };
                let (used, run) = self.feed(&input[1..]);
                (used + 1, run)
            }
            (State::Dot { .. }, b'\n') if self.ending != Ending::Verbatim => {
                self.bare_newlines += 1;
                if lenient {
                    self.state = State::End;
                    return (1, Run::End);
                }
                // A lone dot that does not end the message is stuffing before an empty line.
                self.state = State::Start { standard: false };
                (1, Run::Content(CRLF))
            }
            (State::Dot { .. }, _) => {
                self.state = State::Inside { cr: false };
                (0, Run::Content(b"."))
            }
            (State::DotCr { standard }, b'\n') => {
                if standard || lenient {
                    self.state = State::End;
                    return (1, Run::End);
                }
                self.state = State::Start { standard: true };
                (1, Run::Content(CRLF))
            }
            (State::DotCr { .. }, _) => {
                self.state = State::Inside { cr: true };
                (0, Run::Content(b".\r"))
            }
            (State::Inside { cr }, _) => self.inside(input, cr),
        }
    }

    /// Return the longest run of content from inside a line; `cr`: the octet before `input` was a CR.
    fn inside<'a>(&mut self, input: &'a [u8], cr: bool) -> (usize, Run<'a>) {
        let mut at = 0;
        while let Some(found) = memchr(b'\n', &input[at..]) {
            let newline = at + found;
            let after_cr = if newline == 0 { cr } else { input[newline - 1] == b'\r' };
            if !after_cr && self.ending == Ending::Verbatim {
                self.bare_newlines += 1;
                at = newline + 1;
                continue;
            }
            if !after_cr {
                return self.bare_newline(input, newline);
            }
            at = newline + 1;
            // A dot decides unless it is plainly stuffed: stop before it.
            match &input[at..] {
                [] | [b'.'] | [b'.', b'\r' | b'\n', ..] => {
                    self.state = State::Start { standard: true };
                    return (at, Run::Content(&input[..at]));
                }
                _ => {}
            }
        }
        self.state = State::Inside { cr: input.last() == Some(&b'\r') };
        (input.len(), Run::Content(input))
    }

    /// Return content up to a bare LF; then the LF itself, as CRLF.
    fn bare_newline<'a>(&mut self, input: &'a [u8], newline: usize) -> (usize, Run<'a>) {
        if newline > 0 {
            self.state = State::Inside { cr: false };
            return (newline, Run::Content(&input[..newline]));
        }
        self.bare_newlines += 1;
        self.state = State::Start { standard: false };
        (1, Run::Content(CRLF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Return the content, whether it ended, the bytes left over, and the bare newlines.
    fn read(ending: Ending, wire: &[u8], step: usize) -> (Vec<u8>, bool, Vec<u8>, u64) {
        let mut reader = DataReader::new(ending);
        let mut content = Vec::new();
        let mut at = 0;
        for chunk in wire.chunks(step.max(1)) {
            let mut used_of_chunk = 0;
            loop {
                let (used, run) = reader.feed(&chunk[used_of_chunk..]);
                used_of_chunk += used;
                match run {
                    Run::Content(bytes) => content.extend_from_slice(bytes),
                    Run::More => break,
                    Run::End => {
                        at += used_of_chunk;
                        return (content, true, wire[at..].to_vec(), reader.bare_newlines());
                    }
                }
            }
            assert_eq!(used_of_chunk, chunk.len());
            at += chunk.len();
        }
        (content, false, Vec::new(), reader.bare_newlines())
    }

    /// Check the content of `wire` in any split, and whether it ends.
    fn check(ending: Ending, wire: &[u8], content: &[u8], ended: bool) {
        for step in 1..=wire.len() {
            let (got, over, _, _) = read(ending, wire, step);
            assert_eq!(
                (String::from_utf8_lossy(&got), over),
                (String::from_utf8_lossy(content), ended),
                "{:?} by {step}",
                String::from_utf8_lossy(wire)
            );
        }
    }

    const ENDED: bool = true;
    const OPEN: bool = false;

    #[test]
    fn only_crlf_dot_crlf_ends_a_message() {
        for (wire, content, ended) in [
            (&b".\r\n"[..], &b""[..], ENDED),
            (b"a\r\n.\r\n", b"a\r\n", ENDED),
            (b"..\r\n.\r\n", b"..\r\n", ENDED),
            (b"..a\r\n.\r\n", b"..a\r\n", ENDED),
            (b".a\r\n.\r\n", b".a\r\n", ENDED),
            (b"\r\n.\r\n", b"\r\n", ENDED),
            // Every end that some server accepts and that is none (RFC 5321 §4.1.1.4).
            (b"a\n.\n", b"a\r\n\r\n", OPEN),
            (b"a\n.\r\n", b"a\r\n\r\n", OPEN),
            (b"a\r\n.\n", b"a\r\n\r\n", OPEN),
            (b"a\r.\r\n", b"a\r.\r\n", OPEN),
            (b"a\r\n.\rb", b"a\r\n.\rb", OPEN),
            (b"a\r.\rb", b"a\r.\rb", OPEN),
            (b"a\n.\rb", b"a\r\n.\rb", OPEN),
            (b"a\r\n\0.\r\n", b"a\r\n\0.\r\n", OPEN),
            (b"a\r\n.\0\r\n", b"a\r\n.\0\r\n", OPEN),
            (b"a\r\n.\r\r\n", b"a\r\n.\r\r\n", OPEN),
            (b"a\r\r\n.\r\n", b"a\r\r\n", ENDED),
            (b"a\n.\r\n.\r\n", b"a\r\n\r\n", ENDED),
            (b"a\n\n.b\nc\r\n.\r\n", b"a\r\n\r\n.b\r\nc\r\n", ENDED),
        ] {
            check(Ending::Standard, wire, content, ended);
        }
    }

    #[test]
    fn bytes_behind_the_end_stay() {
        for step in [1, 2, 3, 4, 5, 100] {
            let (content, ended, rest, _) = read(Ending::Standard, b"a\r\n.\r\nQUIT\r\n", step);
            assert_eq!((&content[..], ended, &rest[..]), (&b"a\r\n"[..], true, &b"QUIT\r\n"[..]));
        }
    }

    #[test]
    fn a_lenient_reader_ends_at_any_lone_dot() {
        for wire in [&b"a\n.\n"[..], b"a\r\n.\n", b"a\n.\r\n", b"a\r\n.\r\n"] {
            for step in 1..=wire.len() {
                let (content, ended, _, _) = read(Ending::AnyLine, wire, step);
                assert_eq!((&content[..], ended), (&b"a\r\n"[..], true));
            }
        }
    }

    #[test]
    fn a_verbatim_reader_keeps_bare_newlines_and_ends_at_crlf_dot_crlf() {
        for (wire, content, ended) in [
            (&b".\r\n"[..], &b""[..], ENDED),
            (b"a\nb\r\n.\r\n", b"a\nb\r\n", ENDED),
            (b"a\n.\n", b"a\n.\n", OPEN),
            (b"a\n.\r\n.\r\n", b"a\n.\r\n", ENDED),
            (b"a\r\n.\n.\r\n", b"a\r\n.\n.\r\n", OPEN),
            (b"\n.\r\n\n\r\n.\r\n", b"\n.\r\n\n\r\n", ENDED),
            (b".\n\r\n.\r\n", b".\n\r\n", ENDED),
        ] {
            check(Ending::Verbatim, wire, content, ended);
        }
    }

    #[test]
    fn bare_newlines_are_counted() {
        assert_eq!(read(Ending::Standard, b"a\nb\n.\nc\r\n.\r\n", 3).3, 3);
        assert_eq!(read(Ending::Verbatim, b"a\nb\n.\nc\r\n.\r\n", 3).3, 3);
    }

    fn octets() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'), Just(0u8), any::<u8>()],
            0..60,
        )
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(wire in octets(), step in 1usize..8) {
            for ending in [Ending::Standard, Ending::AnyLine, Ending::Verbatim] {
                prop_assert_eq!(read(ending, &wire, step), read(ending, &wire, wire.len().max(1)));
            }
        }

        #[test]
        fn content_never_holds_an_end_or_a_bare_newline(wire in octets()) {
            let (content, _, _, _) = read(Ending::Standard, &wire, 7);
            let framed = [b"\r\n", &content[..]].concat();
            prop_assert!(!framed.windows(5).any(|w| w == b"\r\n.\r\n"));
            prop_assert!(!framed.windows(2).any(|w| w[1] == b'\n' && w[0] != b'\r'));
        }

        #[test]
        fn verbatim_content_ends_at_the_first_crlf_dot_crlf(wire in octets(), step in 1usize..8) {
            let framed = [b"\r\n", &wire[..]].concat();
            let (content, ended, rest, _) = read(Ending::Verbatim, &wire, step);
            let first = framed.windows(5).position(|w| w == b"\r\n.\r\n");
            prop_assert_eq!(ended, first.is_some());
            if let Some(first) = first {
                prop_assert_eq!(&content[..], &wire[..first]);
                prop_assert_eq!(rest, framed[first + 5..].to_vec());
            }
        }

        #[test]
        fn the_end_is_at_the_first_crlf_dot_crlf(wire in octets()) {
            let framed = [b"\r\n", &wire[..]].concat();
            // Without the bare newlines, the first CRLF.CRLF is the end and nothing before it is.
            if !framed.windows(2).any(|w| w[1] == b'\n' && w[0] != b'\r') {
                let first = framed.windows(5).position(|w| w == b"\r\n.\r\n");
                let (_, ended, rest, _) = read(Ending::Standard, &wire, 100);
                prop_assert_eq!(ended, first.is_some());
                if let Some(first) = first {
                    prop_assert_eq!(rest, framed[first + 5..].to_vec());
                }
            }
        }
    }
}
