//! A message for a server without 8BITMIME: its 8-bit parts in quoted-printable (RFC 2045 §6.7, RFC 6152 §3).
//!
//! Each part that declares `8bit` or `binary` is converted, and declares `quoted-printable`; a multipart and an attached
//! message declare `7bit`. Parts that declare nothing stay as they are, like all headers: nobody knows what their octets
//! mean. Lines break as in Postfix: after 73 octets at the earliest, before 76.

use super::header::{End, Field};
use super::mime::{Encoding, Fault, HeaderClass, Kind, Line, MimeEvents, Part};

/// A line continues on the next one when it has more octets.
const LINE_OCTETS: usize = 72;
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Converts the events of a message, and passes them on.
#[derive(Debug)]
pub struct Downgrade<E> {
    /// The receiver of the converted message.
    pub next: E,
    /// The line of output so far.
    line: Vec<u8>,
    offset: u64,
}

impl<E: MimeEvents> Downgrade<E> {
    /// Return a converter at the start of a message.
    pub fn new(next: E) -> Self {
        Self { next, line: Vec::new(), offset: 0 }
    }

    /// Deliver the open line at the end of the message.
    pub fn finish(&mut self) {
        if !self.line.is_empty() {
            self.put(Part { kind: Kind::Leaf, encoding: Encoding::QuotedPrintable });
        }
    }

    fn put(&mut self, part: Part) {
        self.next.line(part, Line { text: &self.line, offset: self.offset, starts: true, ends: true });
        self.offset += self.line.len() as u64 + 1;
        self.line.clear();
    }

    fn encode(&mut self, octet: u8) {
        self.line.extend([b'=', HEX[usize::from(octet >> 4)], HEX[usize::from(octet & 15)]]);
    }
}

impl<E: MimeEvents> MimeEvents for Downgrade<E> {
    fn header(&mut self, class: HeaderClass, part: Part, header: &[u8]) {
        let replaced = part.encoding.is_wide()
            && Field::parse(header).is_some_and(|field| field.name.eq_ignore_ascii_case(b"content-transfer-encoding"));
        if !replaced {
            self.next.header(class, part, header);
        }
    }

    fn head_end(&mut self, class: HeaderClass, part: Part, end: End) {
        if part.encoding.is_wide() {
            let header: &[u8] = match part.kind {
                Kind::Leaf => b"Content-Transfer-Encoding: quoted-printable",
                _ => b"Content-Transfer-Encoding: 7bit",
            };
            self.next.header(HeaderClass::Mime, part, header);
        }
        self.next.head_end(class, part, end);
        self.offset = 0;
    }

    fn line(&mut self, part: Part, line: Line<'_>) {
        if !part.encoding.is_wide() {
            self.next.line(part, Line { offset: self.offset, ..line });
            self.offset += line.text.len() as u64 + 1;
            return;
        }
        for octet in line.text {
            if self.line.len() > LINE_OCTETS {
                self.line.push(b'=');
                self.put(part);
            }
            match octet {
                b'\t' | b' '..=b'<' | b'>'..=b'~' => self.line.push(*octet),
                other => self.encode(*other),
            }
        }
        if line.ends {
            // A blank at the end of a line would get lost on the way.
            if let Some(blank @ (b' ' | b'\t')) = self.line.last().copied() {
                self.line.pop();
                self.encode(blank);
            }
            self.put(part);
        }
    }

    fn fault(&mut self, fault: Fault, text: &[u8]) {
        self.next.fault(fault, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::mime::{MimeRules, WireMime};
    use crate::mail::stuff::{WireWriter, stuff, unstuff};
    use proptest::prelude::*;

    /// Writes the events.
    #[derive(Default)]
    struct Written(WireWriter);

    impl MimeEvents for Written {
        fn header(&mut self, _: HeaderClass, _: Part, header: &[u8]) {
            self.0.line(header, true);
        }
        fn head_end(&mut self, _: HeaderClass, _: Part, _: End) {}
        fn line(&mut self, _: Part, line: Line<'_>) {
            self.0.line(line.text, line.ends);
        }
        fn fault(&mut self, fault: Fault, text: &[u8]) {
            panic!("{fault:?}: {text:?}");
        }
    }

    fn through(local: &[u8], step: usize, downgrade: bool) -> Vec<u8> {
        let wire = stuff(local);
        let mut mime = WireMime::new(MimeRules::default().outgoing());
        let mut writer = Downgrade::new(Written::default());
        let mut plain = Written::default();
        for piece in wire.chunks(step.max(1)) {
            if downgrade { mime.feed(piece, &mut writer) } else { mime.feed(piece, &mut plain) }
        }
        if downgrade {
            mime.finish(&mut writer);
            writer.finish();
        } else {
            mime.finish(&mut plain)
        }
        unstuff(&if downgrade { writer.next.0.wire } else { plain.0.wire })
    }

    fn converted(local: &str, step: usize) -> String {
        String::from_utf8_lossy(&through(local.as_bytes(), step, true)).into_owned()
    }

    #[test]
    fn bodies_are_converted_as_postfix_does_it() {
        let (a, b) = ("a".repeat(80), "b".repeat(72));
        let long = format!("{}\n", "é".repeat(40));
        let long_out = "=C3=A9".repeat(12)
            + "=C3=\n"
            + &"=A9=C3".repeat(12)
            + "=A9=\n"
            + &"=C3=A9".repeat(12)
            + "=C3=\n"
            + "=A9"
            + &"=C3=A9".repeat(2)
            + "\n";
        for (name, body, expected) in [
            ("text", "héllo = x \ntab\t\n\nlast\n", "h=C3=A9llo =3D x=20\ntab=09\n\nlast\n".to_owned()),
            ("a long line", &format!("{a}\n"), format!("{}=\n{}\n", &a[..73], &a[..7])),
            ("72 octets", &format!("{b}\n"), format!("{b}\n")),
            ("74 octets", &format!("{b}bb\n"), format!("{b}b=\nb\n")),
            ("a blank at the limit", &format!("{b} \n"), format!("{b}=20\n")),
            ("dots", &format!(".dot\n{b}.dot\n"), format!(".dot\n{b}.=\ndot\n")),
            ("octets of two", &long, long_out),
            ("control characters", "\0\x7f\x1b\n", "=00=7F=1B\n".into()),
            ("no body", "", String::new()),
        ] {
            let message = format!("MIME-Version: 1.0\nContent-Transfer-Encoding: 8bit\nX: é\n\n{body}");
            let expected =
                format!("MIME-Version: 1.0\nX: é\nContent-Transfer-Encoding: quoted-printable\n\n{expected}");
            for step in 1..message.len() + 9 {
                assert_eq!(converted(&message, step), expected, "{name}, {step} octets at a time");
            }
        }
    }

    #[test]
    fn each_part_is_converted_by_its_own_encoding() {
        let message = "Content-Type: multipart/mixed; boundary=\"b d\"\nContent-Transfer-Encoding: 8bit\n\nproé\n\
            --b d\nContent-Transfer-Encoding: BINARY\n\npé\n\
            --b d\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: né\n\
            Content-Transfer-Encoding: 8bit\n\niné\n\
            --b d\nContent-Transfer-Encoding: base64\n\nYQ==\n\
            --b d\n\né\n--b d--\nepié\n";
        let expected = "Content-Type: multipart/mixed; boundary=\"b d\"\nContent-Transfer-Encoding: 7bit\n\nproé\n\
            --b d\nContent-Transfer-Encoding: quoted-printable\n\np=C3=A9\n\
            --b d\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\nSubject: né\n\
            Content-Transfer-Encoding: quoted-printable\n\nin=C3=A9\n\
            --b d\nContent-Transfer-Encoding: base64\n\nYQ==\n\
            --b d\n\né\n--b d--\nepié\n";
        for step in 1..message.len() {
            assert_eq!(converted(message, step), expected, "{step} octets at a time");
        }
    }

    fn decoded(text: &[u8]) -> Vec<u8> {
        let text = String::from_utf8(text.to_vec()).unwrap().replace("=\n", "");
        let mut parts = text.split('=');
        let mut out = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            out.push(u8::from_str_radix(&part[..2], 16).unwrap());
            out.extend(part[2..].bytes());
        }
        out
    }

    proptest! {
        #[test]
        fn a_converted_body_decodes_to_itself(body in prop::collection::vec(any::<u8>(), 0..400), step in 1usize..99) {
            // A CR before LF is a part of the line end on the wire.
            let body = body.into_iter().filter(|octet| *octet != b'\r').collect::<Vec<_>>();
            let head = b"Content-Transfer-Encoding: 8bit\n\n";
            let out = through(&[&head[..], &body].concat(), step, true);
            let start = out.windows(2).position(|pair| pair == b"\n\n").unwrap() + 2;
            let mut expected = body;
            if expected.last().is_some_and(|last| *last != b'\n') {
                expected.push(b'\n');
            }
            prop_assert_eq!(decoded(&out[start..]), expected);
            prop_assert!(out.is_ascii() && out.split(|b| *b == b'\n').all(|line| line.len() <= 76));
        }

        #[test]
        fn without_conversion_the_message_stays(
            message in prop::collection::vec(prop::sample::select(&b"ab: -.\n\n\xc3"[..]), 0..200), step in 1usize..40,
        ) {
            let mut expected = message.clone();
            if expected.last().is_some_and(|last| *last != b'\n') {
                expected.push(b'\n');
            }
            prop_assert_eq!(through(&message, step, false), expected);
        }
    }
}
