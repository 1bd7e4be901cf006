//! Converts between the form of local programs and the wire form (RFC 5321 §4.5.2, §2.3.8).
//!
//! Local: lines end with LF (or CRLF), a line may start with a dot. Wire: lines end with CRLF, and a line that starts
//! with a dot has one more. `Stuffer` and `Unstuffer` are inverse to each other, accept any split of the stream, and
//! parse only line ends. A CR that ends no line passes through both: cleanup decides about it.

use memchr::memchr;

/// Converts the local form to the wire form.
#[derive(Debug, Clone)]
pub struct Stuffer {
    line_start: bool,
    pending_cr: bool,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self { line_start: true, pending_cr: false }
    }
}

impl Stuffer {
    /// Append the wire form of the next bytes to `out`.
    pub fn feed(&mut self, local: &[u8], out: &mut Vec<u8>) {
        let mut rest = local;
        while !rest.is_empty() {
            let (line, ended, next) = match memchr(b'\n', rest) {
                Some(at) => (&rest[..at], true, &rest[at + 1..]),
                None => (rest, false, &rest[rest.len()..]),
            };
            rest = next;
            if self.pending_cr && !(ended && line.is_empty()) {
                out.push(b'\r');
            }
            self.pending_cr = line.last() == Some(&b'\r') || (self.pending_cr && line.is_empty());
            if self.line_start && line.first() == Some(&b'.') {
                out.push(b'.');
            }
            self.line_start = ended || (self.line_start && line.is_empty());
            out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            if ended {
                self.pending_cr = false;
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// End the last line, if the stream did not.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.pending_cr {
            out.push(b'\r');
        }
        if !self.line_start || self.pending_cr {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Writes lines in wire form.
#[derive(Debug)]
pub struct WireWriter {
    /// The output; the owner takes it.
    pub wire: Vec<u8>,
    line_start: bool,
}

impl Default for WireWriter {
    fn default() -> Self {
        Self { wire: Vec::new(), line_start: true }
    }
}

impl WireWriter {
    /// Write a piece of a line, without a line end in it. `ends`: the line ends with it.
    pub fn line(&mut self, text: &[u8], ends: bool) {
        if self.line_start && text.first() == Some(&b'.') {
            self.wire.push(b'.');
        }
        self.wire.extend_from_slice(text);
        self.line_start &= text.is_empty();
        if ends {
            self.wire.extend_from_slice(b"\r\n");
            self.line_start = true;
        }
    }

    /// End the line in progress, if there is one.
    pub fn end_line(&mut self) {
        if !self.line_start {
            self.line(b"", true);
        }
    }
}

/// Converts the wire form to the local form.
#[derive(Debug, Clone)]
pub struct Unstuffer {
    eol: &'static [u8],
    line_start: bool,
    pending_cr: bool,
}

impl Unstuffer {
    /// Return a converter that ends lines with LF.
    pub fn lf() -> Self {
        Self { eol: b"\n", line_start: true, pending_cr: false }
    }

    /// Return a converter that ends lines with CRLF.
    pub fn crlf() -> Self {
        Self { eol: b"\r\n", line_start: true, pending_cr: false }
    }

    /// Append the local form of the next bytes to `out`.
    pub fn feed(&mut self, wire: &[u8], out: &mut Vec<u8>) {
        let mut rest = wire;
        while let Some(first) = rest.first() {
            if self.pending_cr {
                self.pending_cr = false;
                if *first == b'\n' {
                    out.extend_from_slice(self.eol);
                    self.line_start = true;
                    rest = &rest[1..];
                    continue;
                }
                out.push(b'\r');
                self.line_start = false;
            }
            if self.line_start && rest[0] == b'.' {
                rest = &rest[1..];
                self.line_start = false;
                continue;
            }
            let text = memchr(b'\r', rest).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..text]);
            self.line_start &= text == 0;
            self.pending_cr = text < rest.len();
            rest = &rest[rest.len().min(text + 1)..];
        }
    }

    /// Append the octets held back at the end of the stream.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.pending_cr {
            out.push(b'\r');
        }
    }
}

/// Return the wire form of a whole text.
pub fn stuff(local: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(local.len() + local.len() / 32 + 2);
    let mut stuffer = Stuffer::default();
    stuffer.feed(local, &mut out);
    stuffer.finish(&mut out);
    out
}

/// Return the local form of a whole content, its lines ended with LF.
pub fn unstuff(wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(wire.len());
    let mut unstuffer = Unstuffer::lf();
    unstuffer.feed(wire, &mut out);
    unstuffer.finish(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuff_by(step: usize, local: &[u8]) -> Vec<u8> {
        let (mut stuffer, mut out) = (Stuffer::default(), Vec::new());
        local.chunks(step).for_each(|chunk| stuffer.feed(chunk, &mut out));
        stuffer.finish(&mut out);
        out
    }

    fn unstuff_by(step: usize, wire: &[u8]) -> Vec<u8> {
        let (mut unstuffer, mut out) = (Unstuffer::lf(), Vec::new());
        wire.chunks(step).for_each(|chunk| unstuffer.feed(chunk, &mut out));
        unstuffer.finish(&mut out);
        out
    }

    #[test]
    fn lines_are_stuffed_and_ended() {
        for (name, local, wire) in [
            ("empty", "", ""),
            ("one line", "a\n", "a\r\n"),
            ("no last line end", "a", "a\r\n"),
            ("dots", ".\n..\na.\n.x", "..\r\n...\r\na.\r\n..x\r\n"),
            ("CRLF as line end", "a\r\n.b\r\n", "a\r\n..b\r\n"),
            ("blank lines", "\n\r\n\n", "\r\n\r\n\r\n"),
            ("stray CR", "a\rb\n\r\r\n", "a\rb\r\n\r\r\n"),
            ("CR at the end", "a\r", "a\r\r\n"),
            ("CR alone", "\r", "\r\r\n"),
        ] {
            for step in 1..=local.len().max(1) {
                let out = String::from_utf8(stuff_by(step, local.as_bytes())).unwrap();
                assert_eq!(out, wire, "{name}, {step} octets at a time");
            }
        }
    }

    #[test]
    fn lines_are_unstuffed() {
        for (name, wire, local) in [
            ("empty", "", ""),
            ("dots", "..\r\n...\r\na.\r\n..x\r\n", ".\n..\na.\n.x\n"),
            ("a dot nobody needed", ".a\r\n", "a\n"),
            ("stray CR and LF", "a\rb\nc\r\r\n.\r\n", "a\rb\nc\r\n\n"),
            ("a dot after a bare LF starts no line", "a\n.b\r\n", "a\n.b\n"),
            ("CR at the end", "a\r", "a\r"),
        ] {
            for step in 1..=wire.len().max(1) {
                let out = String::from_utf8(unstuff_by(step, wire.as_bytes())).unwrap();
                assert_eq!(out, local, "{name}, {step} octets at a time");
            }
        }
    }

    proptest! {
        #[test]
        fn unstuffing_undoes_stuffing(lines in prop::collection::vec("[.a\u{0}é ]{0,6}(\r[a.])?", 0..12), step in 1usize..9) {
            let local = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let wire = stuff_by(step, local.as_bytes());
            prop_assert_eq!(&wire, &stuff(local.as_bytes()));
            prop_assert!(!wire.windows(5).any(|window| window == b"\r\n.\r\n") && !wire.starts_with(b".\r\n"));
            prop_assert_eq!(String::from_utf8(unstuff_by(step, &wire)).unwrap(), local);
        }

        #[test]
        fn stuffing_undoes_unstuffing(local in prop::collection::vec(prop::sample::select(&b".\r\na"[..]), 0..40)) {
            let wire = stuff(&local);
            let (mut unstuffer, mut back) = (Unstuffer::crlf(), Vec::new());
            unstuffer.feed(&wire, &mut back);
            unstuffer.finish(&mut back);
            prop_assert_eq!(stuff(&back), wire);
        }
    }
}
