//! Tests of the MIME structure: tables in any split, limits, hostile messages.

use super::*;
use proptest::prelude::*;

/// Writes events as lines of text.
#[derive(Default)]
struct Told(Vec<String>);

impl MimeEvents for Told {
    fn header(&mut self, class: HeaderClass, _: Part, header: &[u8]) {
        self.0.push(format!("{class:?} {}", String::from_utf8_lossy(header)));
    }
    fn head_end(&mut self, _: HeaderClass, part: Part, end: End) {
        if end == End::Message {
            self.0.push(format!("no body of {:?} {:?}", part.kind, part.encoding));
        }
    }
    fn line(&mut self, part: Part, line: Line<'_>) {
        let mark = if part.encoding == Encoding::SevenBit { "" } else { part.encoding.name() };
        let (before, after) = (if line.starts { "" } else { "+" }, if line.ends { "" } else { "..." });
        self.0.push(format!("{}|{mark}{before}{}{after}", line.offset, String::from_utf8_lossy(line.text)));
    }
    fn fault(&mut self, fault: Fault, text: &[u8]) {
        self.0.push(format!("fault {fault:?}: {}", String::from_utf8_lossy(text)));
    }
}

fn told(rules: &MimeRules, message: &[u8], step: usize) -> Vec<String> {
    let (mut mime, mut told) = (Mime::new(rules.clone()), Told::default());
    for line in message.split_inclusive(|b| *b == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        text.chunks(step.max(1)).for_each(|piece| mime.text(piece, &mut told));
        if line.len() > text.len() {
            mime.line_end(&mut told);
        }
    }
    mime.finish(&mut told);
    told.0
}

fn table(rules: &MimeRules, rows: &[(&str, &str, &[&str])]) {
    for (name, message, expected) in rows {
        for step in 1..=message.len().max(1) {
            assert_eq!(told(rules, message.as_bytes(), step), *expected, "{name}, {step} octets at a time");
        }
    }
}

const MULTI: &str = "Content-Type: multipart/mixed; boundary=b";

#[test]
fn headers_have_classes_and_bodies_lines() {
    let mixed = |rest: &str| format!("{MULTI}\n\n{rest}");
    let multi = "Mime Content-Type: multipart/mixed; boundary=b";
    table(
        &MimeRules::default(),
        &[
            ("nothing", "", &["no body of Leaf SevenBit"]),
            ("no structure", "A: 1\n\nx\n--b\n", &["Primary A: 1", "0|", "1|x", "3|--b"]),
            ("no last line end", "A: 1\n\nx", &["Primary A: 1", "0|", "1|x..."]),
            ("folded", "A: 1\n 2\n\n", &["Primary A: 1\r\n 2", "0|"]),
            ("no empty line", "A: 1\nx y\nB: 2\n", &["Primary A: 1", "0|x y", "4|B: 2"]),
            (
                "mime headers",
                "Mime-Version: 1\nContent-Id: x\n\n",
                &["Mime Mime-Version: 1", "Mime Content-Id: x", "0|"],
            ),
            (
                "parts",
                &mixed("pro\n--b\nA: 1\n\nx\n--b-- \nepi\n"),
                &[multi, "0|", "1|pro", "5|--b", "Mime A: 1", "0|", "1|x", "3|--b-- ", "10|epi"],
            ),
            (
                "no headers in parts",
                &mixed("--b\n\nx\n--b\nno header\nC: 1\n--b\n--b\n D: 1\n--b--\n"),
                &[
                    multi,
                    "0|",
                    "1|--b",
                    "0|",
                    "1|x",
                    "3|--b",
                    "0|no header",
                    "10|C: 1",
                    "15|--b",
                    "0|--b",
                    "0| D: 1",
                    "6|--b--",
                ],
            ),
            (
                "a boundary is known by its start",
                &mixed("--bx\nA: 1\n\n--b--x\nA: 1\n"),
                &[multi, "0|", "1|--bx", "Mime A: 1", "0|", "1|--b--x", "8|A: 1"],
            ),
            (
                "a lone -- is no boundary",
                "Content-Type: multipart/x; boundary=\"\"\n\n--\nA: 1\n--x\nB: 1\n\n",
                &["Mime Content-Type: multipart/x; boundary=\"\"", "0|", "1|--", "4|A: 1", "9|--x", "Mime B: 1", "0|"],
            ),
            (
                "blanks before the colon",
                "Content-Type \t: multipart/x; boundary=b\n\n--b\nB\t:\n 1\n\n",
                &["Mime Content-Type \t: multipart/x; boundary=b", "0|", "1|--b", "Mime B\t:\r\n 1", "0|"],
            ),
            (
                "an attached message",
                "Content-Type: message/rfc822\n\nA: 1\nContent-Type: message/global\n\nB: 1\n\nFrom x\nC: 1\n",
                &[
                    "Mime Content-Type: message/rfc822",
                    "0|",
                    "Nested A: 1",
                    "Mime Content-Type: message/global",
                    "0|",
                    "Nested B: 1",
                    "0|",
                    "1|From x",
                    "8|C: 1",
                ],
            ),
            (
                "an mbox line is no header of an attached message",
                "Content-Type: message/rfc822\n\nFrom a b\nA: 1\n",
                &["Mime Content-Type: message/rfc822", "0|", "0|From a b", "9|A: 1"],
            ),
            (
                "a line that is no header ends an attached message's header too",
                "Content-Type: message/rfc822\nno header\nA: 1\n\nx\n",
                &["Mime Content-Type: message/rfc822", "0|no header", "10|A: 1", "15|", "16|x"],
            ),
            (
                "such a line in a digest",
                "Content-Type: multipart/digest; boundary=b\n\n--b\nno header\nA: 1\n\n--b\n--b\nB: 1\n",
                &[
                    "Mime Content-Type: multipart/digest; boundary=b",
                    "0|",
                    "1|--b",
                    "0|no header",
                    "10|A: 1",
                    "15|",
                    "16|--b",
                    "0|--b",
                    "Mime B: 1",
                    "no body of Message SevenBit",
                ],
            ),
            (
                "a digest",
                "Content-Type: multipart/digest; boundary=b\n\n--b\n\nA: 1\n\nx\n--b\nContent-Type: text/x\n\nB: 1\n",
                &[
                    "Mime Content-Type: multipart/digest; boundary=b",
                    "0|",
                    "1|--b",
                    "0|",
                    "Nested A: 1",
                    "0|",
                    "1|x",
                    "3|--b",
                    "Mime Content-Type: text/x",
                    "0|",
                    "1|B: 1",
                ],
            ),
            (
                "other messages are bodies",
                "Content-Type: message/partial\n\nA: 1\n",
                &["Mime Content-Type: message/partial", "0|", "1|A: 1"],
            ),
            (
                "the end of an outer part ends the inner ones",
                &mixed("--b\nContent-Type: multipart/x; boundary=\"in\"\n\n--in\n\nx\n--b\nA: 1\n\n--in\nB: 1\n"),
                &[
                    multi,
                    "0|",
                    "1|--b",
                    "Mime Content-Type: multipart/x; boundary=\"in\"",
                    "0|",
                    "1|--in",
                    "0|",
                    "1|x",
                    "3|--b",
                    "Mime A: 1",
                    "0|",
                    "1|--in",
                    "6|B: 1",
                ],
            ),
            (
                "two boundaries",
                "Content-Type: multipart/x; boundary=o; boundary=i\n\n--i\nA: 1\n\n--o\nB: 1\n\n--i\nC: 1\n",
                &[
                    "Mime Content-Type: multipart/x; boundary=o; boundary=i",
                    "0|",
                    "1|--i",
                    "Mime A: 1",
                    "0|",
                    "1|--o",
                    "Mime B: 1",
                    "0|",
                    "1|--i",
                    "5|C: 1",
                ],
            ),
            (
                "encodings",
                &format!(
                    "{MULTI}\nContent-Transfer-Encoding: 8bit\n\n--b\nContent-transfer-encoding: Base64 (x)\n\nx\n"
                ),
                &[
                    multi,
                    "Mime Content-Transfer-Encoding: 8bit",
                    "0|",
                    "1|--b",
                    "Mime Content-transfer-encoding: Base64 (x)",
                    "0|base64",
                    "1|base64x",
                ],
            ),
        ],
    );
}

#[test]
fn without_structure_all_text_is_one_body() {
    let rules = MimeRules { flat: true, ..MimeRules::default() };
    let message = format!("{MULTI}\n\n--b\nA: 1\n\nx\n");
    let primary = format!("Mime {MULTI}");
    table(&rules, &[("off", &message, &[&primary, "0|", "1|--b", "5|A: 1", "10|", "11|x"])]);
}

#[test]
fn long_lines_come_in_pieces_and_long_boundaries_are_cut() {
    let rules = MimeRules { line_limit: 8, boundary_limit: 3, ..MimeRules::default() };
    let message =
        "Content-Type: multipart/x; boundary=abcdef\n\n--abcXYZxyz\nA: 1\n\n12345678\n123456789\n--\n--abc\nB: 1\n\n";
    table(
        &rules,
        &[(
            "both",
            message,
            &[
                "Mime Content-Type: multipart/x; boundary=abcdef",
                "0|",
                "1|--abcXYZ...",
                "10|+xyz",
                "14|A: 1",
                "19|",
                "20|12345678",
                "29|12345678...",
                "38|+9",
                "40|--",
                "43|--abc",
                "Mime B: 1",
                "0|",
            ],
        )],
    );
}

#[test]
fn broken_rules_are_reported_once() {
    let rules = MimeRules {
        headers_are_ascii: true,
        bodies_are_declared: true,
        composites_are_plain: true,
        ..MimeRules::default()
    };
    let faults = |message: &str| {
        let mut told = told(&rules, message.as_bytes(), 7);
        told.retain(|line| line.starts_with("fault"));
        told
    };
    let cte =
        |kind: &str, encoding: &str| format!("Content-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n\nx\n");
    let domain = |encoding: &str| vec![format!("fault EncodingDomain: {encoding}")];
    for (message, expected) in [
        ("A: é\nB: é\n\n".to_owned(), vec!["fault EightBitHeader: A: é".into()]),
        ("A: 1\n\né\né\n".into(), vec!["fault EightBitBody: é".into()]),
        ("Content-Transfer-Encoding: 8bit\n\né\n".into(), vec![]),
        ("Content-Transfer-Encoding: binary\n\né\n".into(), vec![]),
        ("Content-Transfer-Encoding: 7bit\n\né\n".into(), vec!["fault EightBitBody: é".into()]),
        ("Content-Transfer-Encoding: base64\n\né\n".into(), vec![]),
        ("Content-Transfer-Encoding: quoted-printable\n\né\n".into(), vec![]),
        (cte("multipart/x; boundary=b", "base64"), domain("base64")),
        (cte("multipart/x; boundary=b", "8bit"), vec![]),
        (cte("message/rfc822", "quoted-printable"), domain("quoted-printable")),
        (cte("message/delivery-status", "base64"), domain("base64")),
        (cte("message/partial", "8bit"), domain("8bit")),
        (cte("message/partial", "7bit"), vec![]),
        (cte("message/global", "base64"), vec![]),
        (cte("text/plain", "base64"), vec![]),
    ] {
        assert_eq!(faults(&message), expected, "{message}");
    }
}

/// Counts events, and keeps nothing.
#[derive(Default)]
struct Counted {
    headers: u64,
    lines: u64,
    faults: Vec<Fault>,
}

impl MimeEvents for Counted {
    fn header(&mut self, _: HeaderClass, _: Part, _: &[u8]) {
        self.headers += 1;
    }
    fn head_end(&mut self, _: HeaderClass, _: Part, _: End) {}
    fn line(&mut self, _: Part, _: Line<'_>) {
        self.lines += 1;
    }
    fn fault(&mut self, fault: Fault, _: &[u8]) {
        self.faults.push(fault);
    }
}

#[test]
fn deep_and_wide_trees_take_bounded_memory() {
    const PARTS: u64 = 10_000;
    let deep = |n: u64| format!("Content-Type: multipart/mixed; boundary=b{n}x\n\n--b{n}x\n");
    for (name, part, faults, levels) in [
        ("deep", &deep as &dyn Fn(u64) -> String, vec![Fault::Nesting], 102),
        ("wide", &|n| if n == 0 { deep(0) } else { "A: 1\n\nx\n--b0x\n".into() }, vec![], 1),
        ("messages in messages", &|_| "Content-Type: message/rfc822\n\n".into(), vec![], 0),
    ] {
        let (mut mime, mut counted) = (Mime::new(MimeRules::default()), Counted::default());
        for n in 0..PARTS {
            for line in part(n).split_terminator('\n') {
                if !line.is_empty() {
                    mime.text(line.as_bytes(), &mut counted);
                }
                mime.line_end(&mut counted);
            }
        }
        assert_eq!((&counted.faults, mime.inner.levels.len()), (&faults, levels), "{name}");
        assert!(counted.lines >= PARTS && mime.inner.line.capacity() <= 4096, "{name}");
    }
}

#[test]
fn the_limit_of_levels_is_postfixs() {
    for (levels, faults) in [(102, vec![]), (103, vec![Fault::Nesting])] {
        let (mut mime, mut counted) = (Mime::new(MimeRules::default()), Counted::default());
        for n in 0..levels {
            let header = format!("Content-Type: multipart/mixed; boundary=b{n}x");
            mime.text(header.as_bytes(), &mut counted);
            mime.line_end(&mut counted);
            mime.line_end(&mut counted);
            mime.text(format!("--b{n}x").as_bytes(), &mut counted);
            mime.line_end(&mut counted);
        }
        assert_eq!(counted.faults, faults, "{levels} levels");
    }
}

#[test]
fn a_caller_may_parse_the_messages_headers_itself() {
    let mut told = Told::default();
    let mut mime = Mime::new(MimeRules::default());
    mime.primary_header(b"Content-Type: message/rfc822", &mut told);
    mime.primary_end(End::NoSeparator, &mut told);
    for line in ["no header", "A: 1"] {
        mime.text(line.as_bytes(), &mut told);
        mime.line_end(&mut told);
    }
    mime.finish(&mut told);
    let expected = ["Mime Content-Type: message/rfc822", "0|no header", "10|A: 1"];
    assert_eq!(told.0, expected);
}

proptest! {
    #[test]
    fn any_split_gives_the_same_and_every_octet_comes_out(
        lines in prop::collection::vec(prop::sample::select(&[
            "Content-Type: multipart/mixed; boundary=b", "Content-Type: multipart/digest;\n boundary=c", "--b", "--c", "--b--",
            "--c--", "", "", "A: 1", " folded", "text", "Content-Type: message/rfc822", "From x", ":",
        ][..]), 0..40),
        step in 1usize..9,
    ) {
        let message = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let rules = MimeRules { line_limit: 5, ..MimeRules::default() };
        let whole = told(&rules, message.as_bytes(), 1000);
        prop_assert_eq!(&told(&rules, message.as_bytes(), step), &whole);
        let mut out = String::new();
        for line in whole.iter().filter(|line| !line.starts_with("no body")) {
            match line.split_once('|') {
                Some((offset, text)) if offset.bytes().all(|b| b.is_ascii_digit()) => match text.strip_suffix("...") {
                    Some(text) => out.push_str(text.trim_start_matches('+')),
                    None => out.extend([text.trim_start_matches('+'), "\n"]),
                },
                _ => out.extend([&line[line.find(' ').unwrap() + 1..].replace('\r', ""), "\n"]),
            }
        }
        prop_assert_eq!(out, message);
    }
}
