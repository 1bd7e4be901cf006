//! Tests of the checks while a message arrives. The expected lines and contents are those of Postfix 3.7.11.

use super::actions::BCC_MAX;
use super::*;
use crate::ask::Answer;
use crate::cleanup::{Intake, Options, Origin};
use crate::inspection::held::HELD_MAX_OCTETS;
use crate::inspection::lists::Lists;
use crate::log::LogTarget;
use crate::mail::id::QueueId;
use crate::mail::stuff::unstuff;
use crate::table::testing::remote;
use crate::table::{Entry, Table};

const WALL_US: u64 = 1_795_366_923_000_000;

/// A header `X-DO: VALUE` and a line `do-VALUE` have the value; `CLASS` in it stands for the table's name.
#[derive(Debug)]
struct Do(&'static str);

impl Table for Do {
    fn name(&self) -> &str {
        self.0
    }
    fn lookup(&self, key: &[u8]) -> Answer {
        let key = String::from_utf8_lossy(key);
        let value = key.strip_prefix("X-Do: ").or_else(|| key.strip_prefix("do-"));
        match value.or_else(|| key.strip_prefix("Content-Id: ")) {
            Some("fail") => Answer::Failed("do: is down".into()),
            Some(value) => Answer::Found(value.replace("CLASS", self.0).into_bytes().into()),
            None => Answer::NotFound,
        }
    }
}

const NAMES: [&str; 4] = ["header_checks", "mime_header_checks", "nested_header_checks", "body_checks"];

/// The lists with local tables, or with remote ones that are numbered by their parameters.
fn lists(remote: bool) -> Lists {
    let [header, mime_header, nested_header, body] = [0, 1, 2, 3].map(|index| {
        let entry = match remote {
            true => Entry::Remote { index, takes_parts: true },
            false => Entry::Local(Arc::new(Do(NAMES[index]))),
        };
        List { parameter: NAMES[index].into(), tables: [entry].into() }
    });
    Lists { header, mime_header, nested_header, body }
}

#[derive(Debug, PartialEq)]
struct Run {
    result: Result<(String, Envelope), Refusal>,
    /// Without the origin and the protocol.
    lines: Vec<String>,
}

fn run_with(settings: CleanupSettings, wire: &[u8], step: usize) -> Run {
    let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, LogTarget::Memory));
    let recipients = vec![Recipient::plain("r@example.org"), Recipient::plain("q@example.org")];
    let mut envelope = Envelope::plain(QueueId(WALL_US << 12 | 1), "s@example.net", recipients);
    for (name, value) in [
        ("client_name", "unknown"),
        ("client_address", "192.0.2.1"),
        ("protocol_name", "ESMTP"),
        ("helo_name", "client.example"),
    ] {
        envelope.attributes.push((name.into(), value.into()));
    }
    let id = envelope.id.short().to_string();
    let origin = Origin::Network { trusted: false };
    let mut intake =
        Intake::new(Arc::new(settings), Arc::clone(&log), Vec::new(), envelope, origin, Options::EXTERNAL, WALL_US);
    for piece in wire.chunks(step) {
        intake.feed(piece);
        while intake.is_waiting() {
            let asked = intake.asks();
            assert!(!asked.is_empty(), "a message that waits has lookups");
            // The last answer comes first.
            asked.iter().rev().for_each(|lookup| intake.answer(lookup, answer_to(lookup)));
        }
    }
    let from = " from unknown[192.0.2.1]; from=<s@example.net> to=<q@example.org>";
    let protocol = " proto=ESMTP helo=<client.example>";
    while intake.poll().is_pending() {
        intake.asks().iter().for_each(|lookup| intake.answer(lookup, answer_to(lookup)));
    }
    let result = intake.finish().map(|(body, mut head, envelope)| {
        head.extend(body);
        if !envelope.recipients.is_empty() {
            assert_eq!(envelope.size_octets, unstuff(&head).len() as u64, "{}", String::from_utf8_lossy(&head));
        }
        (String::from_utf8(head).unwrap(), envelope)
    });
    let lines =
        log.take_lines().into_iter().map(|line| line.replace(&id, "ID").replace(from, "").replace(protocol, ""));
    Run { result, lines: lines.collect() }
}

fn answer_to(lookup: &Lookup) -> Answer {
    Do(NAMES[lookup.table]).lookup(&lookup.key)
}

fn checked(remote: bool) -> CleanupSettings {
    CleanupSettings { checks: Arc::new(lists(remote)), ..CleanupSettings::new("mx.example.org") }
}

/// Return the result of a message. Remote tables give the same as local ones.
fn run(wire: &str, step: usize) -> Run {
    let found = run_with(checked(false), wire.as_bytes(), step);
    assert_eq!(run_with(checked(true), wire.as_bytes(), step), found, "with remote tables");
    found
}

#[test]
fn all_lookups_of_a_piece_come_at_once_and_what_follows_waits() {
    let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, LogTarget::Memory));
    let envelope =
        Envelope::plain(QueueId(WALL_US << 12 | 1), "s@example.net", vec![Recipient::plain("r@example.org")]);
    let origin = Origin::Network { trusted: false };
    let mut intake = Intake::new(
        Arc::new(checked(true)),
        Arc::clone(&log),
        Vec::new(),
        envelope,
        origin,
        Options::EXTERNAL,
        WALL_US,
    );
    intake.feed(b"A: 1\r\nX-Do: WARN\r\n\r\nx\r\nx\r\ndo-IGNORE\r\n");
    let asked = intake.asks();
    let keys: Vec<_> = asked.iter().map(|lookup| String::from_utf8_lossy(&lookup.key).into_owned()).collect();
    assert_eq!(keys, ["A: 1", "X-Do: WARN", "x", "do-IGNORE"], "a line that comes twice is asked once");
    assert_eq!(intake.asks(), []);
    for lookup in &asked[1..] {
        intake.answer(lookup, answer_to(lookup));
    }
    assert!(intake.is_waiting() && log.take_lines().is_empty(), "the first header has no answer yet");
    intake.answer(&asked[0], Answer::NotFound);
    intake.answer(&asked[0], Answer::Failed("too late".into()));
    assert!(!intake.is_waiting());
    assert_eq!(log.take_lines().len(), 1);
    let (body, head, _) = intake.finish().unwrap();
    assert_eq!([head, body].concat(), b"A: 1\r\nX-Do: WARN\r\n\r\nx\r\nx\r\n");
}

#[test]
fn a_piece_beyond_the_limit_is_refused() {
    let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, LogTarget::Memory));
    let envelope =
        Envelope::plain(QueueId(WALL_US << 12 | 1), "s@example.net", vec![Recipient::plain("r@example.org")]);
    let settings = CleanupSettings { message_size_limit: 0, ..checked(true) };
    let origin = Origin::Network { trusted: false };
    let mut intake =
        Intake::new(Arc::new(settings), Arc::clone(&log), Vec::new(), envelope, origin, Options::EXTERNAL, WALL_US);
    intake.feed(b"A: 1\r\n\r\n");
    let lines = HELD_MAX_OCTETS / 1000;
    (0..lines).for_each(|_| intake.feed(&[&[b'y'; 998][..], b"\r\n"].concat()));
    assert_eq!(intake.refusal(), Some(&Refusal::CheckLimit));
    assert!(!intake.is_waiting() && intake.asks().is_empty());
    assert!(log.take_lines()[0].contains("too much content waits for the tables of checks"));
}

/// Play each row in pieces of every size: the message, what is queued, and the log.
fn table(rows: &[(&str, &str, &str, &[&str])]) {
    for (name, wire, expected, lines) in rows {
        for step in 1..=wire.len() {
            let Run { result, lines: logged } = run(wire, step);
            assert_eq!(result.expect(name).0, *expected, "{name}, {step} octets at a time");
            assert_eq!(logged, *lines, "{name}, {step} octets at a time");
        }
    }
}

#[test]
fn actions_about_a_line_change_it() {
    table(&[
        (
            "warn",
            "X-Do: WARN\r\n\r\ndo-WARN a\r\n",
            "X-Do: WARN\r\n\r\ndo-WARN a\r\n",
            &["ID: warning: header X-Do: WARN", "ID: warning: body do-WARN a: a"],
        ),
        ("info", "X-Do: INFO x\r\n\r\n", "X-Do: INFO x\r\n\r\n", &["ID: info: header X-Do: INFO x: x"]),
        ("ignore", "A: 1\r\nX-Do: IGNORE\r\n\r\n1\r\ndo-IGNORE\r\n2\r\n", "A: 1\r\n\r\n1\r\n2\r\n", &[]),
        (
            "strip",
            "X-Do: STRIP x\r\nA: 1\r\n\r\ndo-STRIP\r\n",
            "A: 1\r\n\r\n",
            &["ID: strip: header X-Do: STRIP x: x", "ID: strip: body do-STRIP"],
        ),
        ("dunno", "X-Do: DUNNO x\r\n\r\ndo-OK\r\n", "X-Do: DUNNO x\r\n\r\ndo-OK\r\n", &[]),
        (
            "prepend",
            "X-Do: PREPEND A: 1\r\nX-Do: PREPEND x\r\n\r\ndo-PREPEND .x\r\n",
            "A: 1\r\nX-Do: PREPEND A: 1\r\nX-Do: PREPEND x\r\n\r\n..x\r\ndo-PREPEND .x\r\n",
            &[
                "ID: prepend: header X-Do: PREPEND A: 1: A: 1",
                "warning: bad PREPEND header text \"x\" in header_checks map -- need \"headername: headervalue\"",
                "ID: prepend: body do-PREPEND .x: .x",
            ],
        ),
        (
            "replace",
            "X-Do: REPLACE A: 1\r\n\r\ndo-REPLACE .x\r\ndo-REPLACE\r\n",
            "A: 1\r\n\r\n..x\r\ndo-REPLACE\r\n",
            &[
                "ID: replace: header X-Do: REPLACE A: 1: A: 1",
                "ID: replace: body do-REPLACE .x: .x",
                "warning: REPLACE action without text in body_checks map",
            ],
        ),
        (
            "a replaced header is the sender's",
            "X-Do: REPLACE Bcc: x\r\nA: 1\r\n\r\n",
            "A: 1\r\n\r\n",
            &["ID: replace: header X-Do: REPLACE Bcc: x: Bcc: x"],
        ),
        (
            "a dropped header is checked before",
            "Bcc: x\r\nX-Do: WARN\r\n\r\n",
            "X-Do: WARN\r\n\r\n",
            &["ID: warning: header X-Do: WARN"],
        ),
        (
            "unknown",
            "X-Do: bogus a\r\n\r\n",
            "X-Do: bogus a\r\n\r\n",
            &["warning: unknown command in header_checks map: bogus a"],
        ),
        (
            "folded",
            "X-Do: WARN x\r\n  more\r\n\ttab\r\n\r\n",
            "X-Do: WARN x\r\n  more\r\n\ttab\r\n\r\n",
            &["ID: warning: header X-Do: WARN x?  more??tab: x?  more??tab"],
        ),
        ("a dotted line", "A: 1\r\n\r\n..\r\n..do-WARN\r\n", "A: 1\r\n\r\n..\r\n..do-WARN\r\n", &[]),
        (
            "no header first",
            "X-Do: WARN 1\r\ndo-WARN\r\nX-Do: WARN 2\r\n",
            "X-Do: WARN 1\r\n\r\ndo-WARN\r\nX-Do: WARN 2\r\n",
            &["ID: warning: header X-Do: WARN 1: 1", "ID: warning: body do-WARN", "ID: warning: body X-Do: WARN 2: 2"],
        ),
        ("no last line end", "A: 1\r\n\r\ndo-WARN", "A: 1\r\n\r\ndo-WARN\r\n", &["ID: warning: body do-WARN"]),
        (
            "pass",
            "X-Do: PASS x\r\nX-Do: WARN\r\n\r\ndo-WARN\r\n",
            "X-Do: PASS x\r\nX-Do: WARN\r\n\r\ndo-WARN\r\n",
            &["ID: pass: header X-Do: PASS x: x"],
        ),
    ]);
}

#[test]
fn each_header_has_its_list() {
    let wire = "Content-Id: WARN CLASS\r\nX-Do: WARN CLASS\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\ndo-WARN pro\r\n\
        --b\r\nX-Do: WARN CLASS\r\n\r\nX-Do: WARN body\r\n\
        --b\r\nContent-Type: message/rfc822\r\n\r\nX-Do: WARN CLASS\r\nContent-Id: WARN CLASS\r\n\r\n..x\r\n--b--\r\n";
    table(&[(
        "all",
        wire,
        wire,
        &[
            "ID: warning: header Content-Id: WARN CLASS: mime_header_checks",
            "ID: warning: header X-Do: WARN CLASS: header_checks",
            "ID: warning: body do-WARN pro: pro",
            "ID: warning: header X-Do: WARN CLASS: mime_header_checks",
            "ID: warning: body X-Do: WARN body: body",
            "ID: warning: header X-Do: WARN CLASS: nested_header_checks",
            "ID: warning: header Content-Id: WARN CLASS: mime_header_checks",
        ],
    )]);
}

#[test]
fn a_message_may_be_refused() {
    let rejected = |code, enhanced, text: &str| Refusal::Rejected(Box::new(Reply::new(code, enhanced, text)));
    for (value, refusal, line) in [
        ("REJECT", rejected(550, [7, 1], "message content rejected"), ": 5.7.1 message content rejected"),
        ("REJECT no such", rejected(550, [7, 1], "no such"), ": 5.7.1 no such"),
        ("REJECT 4.7.0 later", rejected(451, [7, 0], "later"), ": 4.7.0 later"),
        ("REJECT 2.7.0 bad", rejected(451, [7, 0], "bad"), ": 4.7.0 bad"),
        ("FILTER smtp:x", rejected(451, [3, 5], "Server configuration error"), ""),
        ("fail", Refusal::LookupFailed, ""),
    ] {
        for (wire, place, name) in [
            (format!("X-Do: {value}\r\nX-Do: WARN\r\n\r\ndo-WARN\r\n"), "header", "X-Do: "),
            (format!("A: 1\r\n\r\ndo-{value}\r\ndo-WARN\r\n"), "body", "do-"),
        ] {
            for step in [1, 7, 1000] {
                let Run { result, lines } = run(&wire, step);
                assert_eq!(result.map(|_| ()), Err(refusal.clone()), "{wire}");
                if !line.is_empty() {
                    let expected = format!("ID: reject: {place} {name}{value}{line}");
                    assert_eq!(lines.last(), Some(&expected), "{wire}");
                }
                assert!(lines.iter().all(|line| !line.contains("warning: header") && !line.contains("do-WARN")));
            }
        }
    }
    let Run { lines, .. } = run("X-Do: fail\r\n\r\n", 3);
    let why = "warning: ID: header_checks map lookup problem -- message not accepted, try again later";
    assert_eq!(lines, ["warning: do: is down", why]);
    assert_eq!(
        run("X-Do: REJECT 2.7.0 bad\r\n\r\n", 3).lines[0],
        "warning: bad DSN action in 2.7.0 bad -- need 4.x.x or 5.x.x"
    );
}

fn recipients(envelope: &Envelope) -> Vec<(String, Option<&str>, u8)> {
    let tuple = |to: &'_ Recipient| to.address.to_string();
    envelope.recipients.iter().map(|to| (tuple(to), to.original.as_deref(), to.notify.0)).collect()
}

#[test]
fn actions_about_the_message_change_its_envelope() {
    let (r, q) = (("r@example.org".to_owned(), None, 0), ("q@example.org".to_owned(), None, 0));
    let copy = |address: &str| (address.to_owned(), None, Notify::NEVER);
    for (value, expected, holds) in [
        ("HOLD x", vec![r.clone(), q.clone()], true),
        ("BCC b@example.org", vec![r.clone(), q.clone(), copy("b@example.org")], false),
        ("BCC Q@example.org", vec![r.clone(), q.clone(), copy("Q@example.org")], false),
        ("REDIRECT Z@example.org", vec![("Z@example.org".to_owned(), Some("q@example.org"), 0)], false),
        ("DISCARD", vec![], false),
    ] {
        for wire in
            [format!("X-Do: {value}\r\nX-Do: {value}\r\n\r\n"), format!("A: 1\r\n\r\ndo-{value}\r\ndo-{value}\r\n")]
        {
            let Run { result, lines } = run(&wire, 9);
            let (_, envelope) = result.unwrap();
            assert_eq!((recipients(&envelope), envelope.holds_on_arrival()), (expected.clone(), holds), "{wire}");
            let twice = value.starts_with("BCC");
            assert_eq!(lines.len(), if twice { 2 } else { 1 }, "{lines:?}");
        }
    }
    let (content, envelope) = run("A: 1\r\nX-Do: DISCARD\r\nMessage-Id: <a@b>\r\n\r\nx\r\n", 4).result.unwrap();
    assert_eq!((&*content, envelope.attribute(crate::cleanup::MESSAGE_ID)), ("A: 1\r\n", None));
    let many = (0..=BCC_MAX).map(|n| format!("X-Do: BCC u{n}@x\r\n")).collect::<String>();
    assert_eq!(run(&many, 1000).result.map(|_| ()), Err(Refusal::CheckLimit));
}

#[test]
fn a_body_is_checked_up_to_a_limit_in_each_part() {
    let settings = |limit| CleanupSettings {
        checks: Arc::new(lists(false)),
        body_checks_size_limit: limit,
        ..CleanupSettings::new("mx.example.org")
    };
    let lines = "do-WARN x\r\n".repeat(9);
    let plain = format!("A: 1\r\n\r\n{lines}");
    let parts = format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n{lines}--b\r\n\r\n{lines}--b\r\nX-Do: WARN\r\n\r\n{lines}"
    );
    for (limit, of_plain, of_parts) in [(0, 9, 28), (31, 3, 10), (32, 4, 13), (1, 0, 1), (2, 1, 4)] {
        for (wire, expected) in [(&plain, of_plain), (&parts, of_parts)] {
            let warned = run_with(settings(limit), wire.as_bytes(), 5).lines.len();
            assert_eq!(warned, expected, "{limit}: {wire}");
        }
    }
}

#[test]
fn rules_about_mime_refuse_a_message() {
    let strict = || CleanupSettings {
        mime: crate::mail::mime::MimeRules {
            headers_are_ascii: true,
            bodies_are_declared: true,
            composites_are_plain: true,
            ..Default::default()
        },
        ..CleanupSettings::new("mx.example.org")
    };
    let part = |n| format!("Content-Type: multipart/mixed; boundary=b{n}x\r\n\r\n--b{n}x\r\n");
    for (wire, expected) in [
        ("X: é\r\n\r\n".into(), "improper use of 8-bit data in message header: X: é"),
        ("A: 1\r\n\r\né\r\n".into(), "improper use of 8-bit data in message body: é"),
        (
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n".into(),
            "invalid message/* or multipart/* encoding domain: base64",
        ),
        (
            (0..103).map(part).collect::<String>(),
            "MIME nesting exceeds safety limit: Content-Type: multipart/mixed; boundary=b102x",
        ),
    ] {
        let Run { result, lines } = run_with(strict(), wire.as_bytes(), 99);
        let reply = Reply::new(550, [6, 0], expected.split_once(": ").unwrap().0);
        assert_eq!(result.map(|_| ()), Err(Refusal::Rejected(Box::new(reply))), "{expected}");
        assert_eq!(lines, [format!("ID: reject: mime-error {expected}")]);
    }
    let good = "Content-Transfer-Encoding: 8bit\r\n\r\né\r\n";
    let (content, envelope) = run_with(strict(), good.as_bytes(), 3).result.unwrap();
    assert_eq!((&*content, envelope.body), (good, BodyType::EightBitMime));
}

#[test]
fn log_lines_name_mapped_addresses_and_wait_for_them() {
    let message = b"A: 1\r\nX-Do: WARN\r\nB: 2\r\n\r\ndo-REJECT\r\n";
    let answer = |lookup: &Lookup| match (lookup.table, &*lookup.key) {
        (9, b"s@example.net") => Answer::Found(b"sender@new.example"[..].into()),
        (9, b"r@example.org") => Answer::Found(b"mapped"[..].into()),
        (9, _) => Answer::NotFound,
        _ => answer_to(lookup),
    };
    let named = "from=<sender@new.example> to=<mapped@mx.example.org>";
    let given = "from=<s@example.net> to=<r@example.org>";
    for (remote_checks, maps, failing, expected) in [
        (false, true, false, named),
        (true, true, false, named),
        (false, false, false, given),
        (true, true, true, given),
    ] {
        let mut settings = checked(remote_checks);
        settings.rewriting.canonical = remote(9);
        let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, LogTarget::Memory));
        let recipients = ["r@example.org", "q@example.org", "r@example.org"].map(Recipient::plain).to_vec();
        let envelope = Envelope::plain(QueueId(WALL_US << 12 | 1), "s@example.net", recipients);
        let options = Options { maps, ..Options::EXTERNAL };
        let origin = Origin::Network { trusted: false };
        let mut intake =
            Intake::new(Arc::new(settings), Arc::clone(&log), Vec::new(), envelope, origin, options, WALL_US);
        intake.feed(message);
        assert_eq!(intake.is_waiting(), maps || remote_checks);
        let mut asked = 0;
        while intake.is_waiting() {
            assert!(log.take_lines().is_empty(), "no line before its names are known");
            let asks = intake.asks();
            assert!(!asks.is_empty(), "a message that waits has lookups");
            for lookup in &asks {
                asked += usize::from(lookup.table == 9);
                let fails = failing && lookup.table == 9;
                intake.answer(lookup, if fails { Answer::Failed("down".into()) } else { answer(lookup) });
            }
        }
        assert!(matches!(intake.refusal(), Some(Refusal::Rejected(_))));
        let lines = log.take_lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.contains(expected)), "{lines:?}");
        assert_eq!(asked > 0, maps);
    }
}

#[test]
fn a_message_without_log_lines_maps_no_names() {
    let mut settings = checked(false);
    settings.rewriting.canonical = remote(9);
    let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, LogTarget::Memory));
    let envelope = Envelope::plain(QueueId(1), "s@x", vec![Recipient::plain("r@x")]);
    let origin = Origin::Network { trusted: false };
    let mut intake = Intake::new(Arc::new(settings), log, Vec::new(), envelope, origin, Options::EXTERNAL, WALL_US);
    intake.feed(b"A: 1\r\n\r\nx\r\n");
    assert!(!intake.is_waiting() && intake.asks().is_empty());
}

#[test]
fn a_trace_header_is_checked_too() {
    let settings = CleanupSettings { checks: Arc::new(lists(false)), ..CleanupSettings::new("mx.example.org") };
    let envelope = Envelope::plain(QueueId(1), "s@x", vec![Recipient::plain("r@x")]);
    let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, LogTarget::Memory));
    let origin = Origin::Network { trusted: false };
    let mut intake =
        Intake::new(Arc::new(settings), Arc::clone(&log), Vec::new(), envelope, origin, Options::EXTERNAL, WALL_US);
    intake.received("X-Do: STRIP a\n\tx");
    intake.received("Received: by\n\tmx");
    let (_, head, _) = intake.finish().unwrap();
    assert_eq!(head, b"Received: by\r\n\tmx\r\n");
    assert!(log.take_lines()[0].contains(": strip: header X-Do: STRIP a??x from local; from=<s@x> to=<r@x>: a??x"));
}

#[test]
fn a_body_that_nothing_concerns_takes_the_fast_path() {
    let only_headers = Lists { body: List::default(), ..lists(false) };
    let settings =
        Arc::new(CleanupSettings { checks: Arc::new(only_headers), ..CleanupSettings::new("mx.example.org") });
    for (head, slow) in [
        ("A: 1\r\n\r\n", false),
        ("Content-Type: multipart/mixed; boundary=b\r\n\r\n", true),
        ("Content-Type: message/rfc822\r\n\r\n", true),
        ("Content-Type: multipart/mixed\r\n\r\n", false),
        ("X-Do: PASS\r\nContent-Type: message/rfc822\r\n\r\n", false),
    ] {
        let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, LogTarget::Memory));
        let envelope = Envelope::plain(QueueId(1), "s@x", vec![Recipient::plain("r@x")]);
        let origin = Origin::Network { trusted: false };
        let mut intake =
            Intake::new(Arc::clone(&settings), log, Vec::new(), envelope, origin, Options::EXTERNAL, WALL_US);
        intake.feed(head.as_bytes());
        assert_eq!(intake.checks_body(), slow, "{head}");
    }
}
