//! Breaks long lines during delivery (smtp_line_length_limit, postconf(5); RFC 5321 §4.5.3.1.6).
//!
//! Content in wire form goes in, in any split, and comes out without a line above the limit: a long line continues on
//! the next line, after a space. The space counts, the line end and a stuffed dot don't. A character of UTF-8 is split
//! only between pieces of input. Content without long lines, nearly all of it, isn't copied.

/// Minimum limit: a lower one would leave lines of little but spaces.
pub const LIMIT_LEAST_OCTETS: usize = 12;
const CONTINUED: &[u8] = b"\r\n ";
/// Maximum number of octets of a UTF-8 character after the first one.
const UTF8_TAIL_MAX: usize = 3;

/// The position in a line, and the limit.
#[derive(Debug, Clone)]
pub struct LineLimit {
    /// `None`: lines of any length.
    limit: Option<usize>,
    /// Octets of the current line in the output.
    used: usize,
    /// No octet of the line is in the output, not even a dot.
    at_start: bool,
}

impl LineLimit {
    /// Return a limit of `octets` for a line without its end; 0 for no limit.
    pub fn new(octets: usize) -> Self {
        let limit = (octets > 0).then(|| octets.max(LIMIT_LEAST_OCTETS));
        Self { limit, used: 0, at_start: true }
    }

    /// Begin the next message.
    pub fn reset(&mut self) {
        (self.used, self.at_start) = (0, true);
    }

    /// Return the next piece of a message, with its long lines broken.
    pub fn feed(&mut self, piece: Vec<u8>) -> Vec<u8> {
        let Some(limit) = self.limit else { return piece };
        let mut out = Vec::new();
        let mut copied = 0;
        let mut at = 0;
        while at < piece.len() {
            let dot = usize::from(self.at_start && piece[at] == b'.');
            let room = limit - self.used + dot;
            // Room for CR and LF is included: every line that ends within is short enough.
            let window = &piece[at..piece.len().min(at + room + 2)];
            if let Some(end) = memchr::memrchr(b'\n', window) {
                at += end + 1;
                self.reset();
                continue;
            }
            let octets = window.len() - usize::from(window.ends_with(b"\r"));
            if octets <= room {
                self.used += octets - dot.min(octets);
                self.at_start = false;
                break;
            }
            let mut cut = room;
            while cut > 0 && room - cut < UTF8_TAIL_MAX && matches!(window[cut], 0x80..=0xbf) {
                cut -= 1;
            }
            out.extend_from_slice(&piece[copied..at + cut]);
            out.extend_from_slice(CONTINUED);
            at += cut;
            copied = at;
            (self.used, self.at_start) = (1, false);
        }
        if copied == 0 && out.is_empty() {
            return piece;
        }
        out.extend_from_slice(&piece[copied..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn broken(limit: usize, content: &[u8], step: usize) -> Vec<u8> {
        let mut lines = LineLimit::new(limit);
        content.chunks(step.max(1)).flat_map(|piece| lines.feed(piece.to_vec())).collect()
    }

    #[test]
    fn long_lines_continue_after_a_space() {
        for (content, expected) in [
            ("", ""),
            ("short\r\n", "short\r\n"),
            ("123456789012\r\n", "123456789012\r\n"),
            ("1234567890123\r\n", "123456789012\r\n 3\r\n"),
            ("12345678901234567890123\r\n", "123456789012\r\n 34567890123\r\n"),
            ("123456789012345678901234\r\nx\r\n", "123456789012\r\n 34567890123\r\n 4\r\nx\r\n"),
            // The first dot is a stuffed one.
            ("..34567890123\r\n", "..34567890123\r\n"),
            ("..345678901234\r\n", "..34567890123\r\n 4\r\n"),
            ("12345678901.x\r\n", "12345678901.\r\n x\r\n"),
            ("123456789012.x\r\n", "123456789012\r\n .x\r\n"),
            // ü has two octets, € three.
            ("12345678901üx\r\n", "12345678901\r\n üx\r\n"),
            ("1234567890ü\r\n", "1234567890ü\r\n"),
            ("1234567890€\r\n", "1234567890\r\n €\r\n"),
            ("no end 12345", "no end 12345"),
            ("no end 123456", "no end 12345\r\n 6"),
        ] {
            for step in [content.len(), 1000] {
                assert_eq!(String::from_utf8_lossy(&broken(12, content.as_bytes(), step)), expected);
            }
            assert_eq!(broken(0, content.as_bytes(), 5), content.as_bytes());
            assert_eq!(broken(1, content.as_bytes(), 1000), expected.as_bytes(), "the least limit");
        }
    }

    #[test]
    fn content_without_long_lines_is_not_copied() {
        let content = b"a line\r\n\r\n..another\r\n".repeat(100);
        let before = content.as_ptr();
        let out = LineLimit::new(998).feed(content);
        assert_eq!(out.as_ptr(), before);
    }

    /// A second implementation, a line at a time.
    fn model(limit: usize, content: &str) -> String {
        let mut out = String::new();
        for line in content.split_inclusive('\n') {
            let body = line.strip_suffix("\r\n").unwrap_or(line);
            let (mut head, mut rest) = body.split_at(body.len().min(limit + usize::from(body.starts_with('.'))));
            out.push_str(head);
            while !rest.is_empty() {
                (head, rest) = rest.split_at(rest.len().min(limit - 1));
                out.extend(["\r\n ", head]);
            }
            out.push_str(&line[body.len()..]);
        }
        out
    }

    proptest! {
        #[test]
        fn any_split_gives_the_lines_of_the_model(
            pieces in prop::collection::vec(
                prop_oneof![Just("\r\n".to_string()), Just("\r\n..".into()), "[a-z .]{0,30}"], 0..30,
            ),
            step in 1usize..50,
        ) {
            let content = pieces.concat();
            let out = broken(20, content.as_bytes(), step);
            prop_assert_eq!(String::from_utf8_lossy(&out), model(20, &content));
        }
    }
}
