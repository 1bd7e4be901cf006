//! Tests of cleanup: tables in any split, limits, properties.

use super::settings::Octets;
use super::*;
use crate::log::{Log, LogTarget};
use crate::mail::envelope::{Notify, Recipient};
use crate::mail::id::QueueId;
use crate::mail::sink::Sink;
use crate::mail::stuff::{stuff, unstuff};
use crate::table::testing::{Fixed, local, remote};
use crate::table::{Maps, Table};
use proptest::prelude::*;
use std::io;

const WALL_US: u64 = 1_795_366_923_000_000;
const STRANGER: Origin = Origin::Network { trusted: false };

fn envelope() -> Envelope {
    Envelope::plain(QueueId(WALL_US << 12 | 1), "s@example.net", vec![Recipient::plain("r@example.org")])
}

fn settings() -> CleanupSettings {
    CleanupSettings::new("mx.example.org")
}

fn log() -> Arc<Log> {
    Arc::new(Log::new("mx", "postfix", "smtpd", 7, 0, LogTarget::Memory))
}

fn intake(settings: CleanupSettings, origin: Origin) -> Intake<Vec<u8>> {
    of(settings, origin, envelope(), Options::EXTERNAL)
}

fn of(settings: CleanupSettings, origin: Origin, envelope: Envelope, options: Options) -> Intake<Vec<u8>> {
    Intake::new(Arc::new(settings), log(), Vec::new(), envelope, origin, options, WALL_US)
}

fn run(settings: CleanupSettings, origin: Origin, wire: &[u8], step: usize) -> Result<(String, Envelope), Refusal> {
    let mut intake = intake(settings, origin);
    wire.chunks(step).for_each(|chunk| intake.feed(chunk));
    let (body, head, envelope) = intake.finish()?;
    // The head has the empty line, the body starts behind it.
    assert!(head.is_empty() || head.ends_with(b"\r\n"), "{head:?}");
    assert!(body.is_empty() || head == b"\r\n" || head.ends_with(b"\r\n\r\n"), "{head:?}");
    Ok((String::from_utf8_lossy(&[head, body].concat()).into_owned(), envelope))
}

/// Play each row whole and in pieces of every size; check the sizes in the envelope.
fn table(settings: fn() -> CleanupSettings, origin: Origin, rows: &[(&str, &str, &str)]) {
    for (name, wire, expected) in rows {
        for step in 1..=wire.len().max(1) {
            let (content, envelope) = run(settings(), origin, wire.as_bytes(), step).unwrap();
            assert_eq!(content, *expected, "{name}, {step} octets at a time");
            let size = unstuff(content.as_bytes()).len() as u64;
            assert_eq!(envelope.size_octets, size, "{name}, {step} octets at a time");
        }
    }
}

#[test]
fn a_remote_message_stays_unchanged() {
    table(
        settings,
        STRANGER,
        &[
            ("plain", "A: 1\r\n\r\nbody\r\n", "A: 1\r\n\r\nbody\r\n"),
            ("no body", "A: 1\r\n\r\n", "A: 1\r\n\r\n"),
            ("no separator", "A: 1\r\n", "A: 1\r\n"),
            ("nothing", "", ""),
            ("folded", "A: 1\r\n 2\r\n\r\n", "A: 1\r\n 2\r\n\r\n"),
            ("blank before colon", "A \t: 1\r\n\r\n", "A: 1\r\n\r\n"),
            ("dots", "A: 1\r\n\r\n..\r\n..x\r\na.\r\n", "A: 1\r\n\r\n..\r\n..x\r\na.\r\n"),
            ("dotted header", "..A: 1\r\n\r\n", "..A: 1\r\n\r\n"),
            ("no last line end", "A: 1\r\n\r\nx", "A: 1\r\n\r\nx\r\n"),
            ("body first", "no header\r\nB: 1\r\n", "\r\nno header\r\nB: 1\r\n"),
            ("dotted body first", "..no header\r\nx\r\n", "\r\n..no header\r\nx\r\n"),
            ("body after header", "A: 1\r\nno header\r\n", "A: 1\r\n\r\nno header\r\n"),
            ("blank first", " x\r\n", "\r\n x\r\n"),
            ("mbox line", "From me\r\nA: 1\r\n", "X-Mailbox-Line: From me\r\nA: 1\r\n"),
            ("8 bits and NUL", "A: \u{e9}\0\r\n\r\n\0\u{e9}\r\n", "A: \u{e9}\0\r\n\r\n\0\u{e9}\r\n"),
            ("incomplete addresses", "To: root\r\n\r\n", "To: root\r\n\r\n"),
        ],
    );
}

#[test]
fn stray_line_end_characters_become_blanks() {
    table(
        settings,
        STRANGER,
        &[
            ("in the body", "A: 1\r\n\r\na\rb\nc\r\n", "A: 1\r\n\r\na b c\r\n"),
            ("no hidden end", "\r\n\n.\n\r.\r\r.\r\n", "\r\n .  .  .\r\n"),
            ("CR CRLF", "\r\na\r\r\n", "\r\na \r\n"),
            ("dot CR CRLF", "\r\n..\r\r\n", "\r\n.. \r\n"),
            ("in a header", "A: 1\r2\nB: 3\r\n\r\n", "A: 1 2 B: 3\r\n\r\n"),
            ("last", "\r\na\r", "\r\na \r\n"),
            ("last in a header", "A: 1\r", "A: 1 \r\n"),
        ],
    );
    let keep = || CleanupSettings { replace_stray_cr_lf: false, ..settings() };
    table(keep, STRANGER, &[("kept", "A: 1\r2\r\n\r\na\rb\r\n", "A: 1\r2\r\n\r\na\rb\r\n")]);
}

#[test]
fn tls_required_no_counts_as_a_header_of_the_message_itself() {
    let part = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nTLS-Required: no\r\n\r\nx\r\n--b--\r\n";
    for (wire, obeys, expected) in [
        ("TLS-Required: no\r\n\r\n", true, true),
        ("tls-required:NO\r\n\r\n", true, true),
        ("TLS-Required :\r\n no \r\nA: 1\r\n\r\n", true, true),
        ("TLS-Required: yes\r\nTLS-Required: no\r\n", true, true),
        ("TLS-Required: no\r\n\r\n", false, false),
        ("TLS-Required: yes\r\n\r\n", true, false),
        ("TLS-Required:\r\n\r\n", true, false),
        ("TLS-Required: no, please\r\n\r\n", true, false),
        ("X-TLS-Required: no\r\n\r\n", true, false),
        ("A: 1\r\n\r\nTLS-Required: no\r\n", true, false),
        ("Content-Type: message/rfc822\r\n\r\nTLS-Required: no\r\n\r\n", true, false),
        (part, true, false),
    ] {
        for step in 1..=wire.len() {
            let settings = CleanupSettings { obeys_tls_required: obeys, ..settings() };
            let (content, envelope) = run(settings, STRANGER, wire.as_bytes(), step).unwrap();
            assert_eq!(envelope.waives_tls(), expected, "{wire:?}, {step} octets at a time");
            let is_kept = content.to_ascii_lowercase().contains("tls-required");
            assert_eq!((is_kept, envelope.requiretls), (true, false), "the header stays: {wire:?}");
        }
    }
}

#[test]
fn a_value_of_tls_required_without_effect_is_logged_once() {
    let log = log();
    let settings = Arc::new(CleanupSettings { obeys_tls_required: true, ..settings() });
    let mut intake =
        Intake::new(settings, Arc::clone(&log), Vec::new(), envelope(), STRANGER, Options::EXTERNAL, WALL_US);
    let long = "x".repeat(200);
    intake.feed(format!("TLS-Required: y\r\n es{long}\r\nTLS-Required: maybe\r\n\r\n").as_bytes());
    let id = intake.queue_id();
    assert!(intake.finish().is_ok());
    let [line] = &log.take_lines()[..] else { panic!() };
    let shown = &format!("TLS-Required: y es{long}")[..100];
    assert!(line.ends_with(&format!("warning: {id}: ignoring malformed header: '{shown}'")), "{line}");
}

#[test]
fn require_tls_esmtp_carries_requiretls_through_a_filter() {
    let header = "Require-TLS-ESMTP: yes\r\n";
    for (wire, asked, obeys, expected, required) in [
        // It came with REQUIRETLS, and the filter gets the header.
        ("A: 1\r\n\r\nx\r\n", true, true, format!("A: 1\r\n{header}\r\nx\r\n"), true),
        ("A: 1\r\n\r\nx\r\n", true, false, "A: 1\r\n\r\nx\r\n".into(), true),
        // It comes from the filter.
        ("Require-TLS-ESMTP: YES\r\n\r\n", false, true, "Require-TLS-ESMTP: YES\r\n\r\n".into(), true),
        ("Require-TLS-ESMTP: yes\r\n\r\n", true, true, format!("{header}\r\n"), true),
        ("Require-TLS-ESMTP: yes\r\n\r\n", false, false, format!("{header}\r\n"), false),
        ("Require-TLS-ESMTP: no\r\n\r\n", false, true, "Require-TLS-ESMTP: no\r\n\r\n".into(), false),
        ("Require-TLS-ESMTP: no\r\n\r\n", true, true, format!("Require-TLS-ESMTP: no\r\n{header}\r\n"), true),
        ("A: 1\r\n\r\nRequire-TLS-ESMTP: yes\r\n", false, true, "A: 1\r\n\r\nRequire-TLS-ESMTP: yes\r\n".into(), false),
    ] {
        for step in [1, wire.len()] {
            let settings = CleanupSettings { requiretls_header: obeys, ..settings() };
            let envelope = Envelope { requiretls: asked, ..envelope() };
            let mut intake = of(settings, STRANGER, envelope, Options::EXTERNAL);
            wire.as_bytes().chunks(step).for_each(|chunk| intake.feed(chunk));
            let (body, head, envelope) = intake.finish().unwrap();
            assert_eq!(String::from_utf8_lossy(&[head, body].concat()), expected, "{wire:?} {asked} {obeys}");
            assert_eq!(envelope.requiretls, required, "{wire:?} {asked} {obeys}");
        }
    }
}

#[test]
fn local_mail_gets_missing_headers() {
    let id = envelope().id.short();
    let added = format!(
        "Message-Id: <20261122170203.{id}@mx.example.org>\r\n\
         Date: Sun, 22 Nov 2026 17:02:03 +0000 (UTC)\r\nFrom: s@example.net\r\n"
    );
    let full = "From: a@b.c\r\nDate: now\r\nMessage-ID: <x@y>\r\n";
    table(
        settings,
        Origin::Local,
        &[
            ("all", "Subject: x\r\n\r\nb\r\n", &format!("Subject: x\r\n{added}\r\nb\r\n")),
            ("all, no header", "b b\r\n", &format!("{added}\r\nb b\r\n")),
            ("all, no body", "Subject: x\r\n", &format!("Subject: x\r\n{added}")),
            ("nothing", full, full),
            ("mbox lines go", &format!(">From a\r\nFrom b\r\n{full}"), full),
            ("dropped", &format!("Bcc: v\r\n w\r\nReturn-Path: x\r\nCONTENT-LENGTH: 1\r\n{full}"), full),
            (
                "completed",
                &format!("{full}To: Root <root>, a@b.c\r\n\r\n"),
                &format!("{full}To: Root <root@mx.example.org>, a@b.c\r\n\r\n"),
            ),
        ],
    );
    for (origin, always, adds) in
        [(STRANGER, false, false), (STRANGER, true, true), (Origin::Network { trusted: true }, false, true)]
    {
        let settings = CleanupSettings { always_add_missing_headers: always, ..settings() };
        let (content, _) = run(settings, origin, b"Subject: x\r\n\r\n", 100).unwrap();
        assert_eq!(content.contains("Message-Id:"), adds, "{origin:?} {always}");
    }
}

#[test]
fn a_resent_message_gets_resent_headers() {
    let (content, envelope) = run(settings(), Origin::Local, b"Resent-To: a@b.c\r\nDate: x\r\n\r\n", 7).unwrap();
    for header in ["\r\nResent-Message-Id: <", "\r\nResent-Date: ", "\r\nResent-From: s@example.net\r\n"] {
        assert!(content.contains(header), "{content}");
    }
    assert!(envelope.attribute(RESENT_MESSAGE_ID).is_some() && envelope.attribute(MESSAGE_ID).is_none());
}

#[test]
fn a_sender_s_full_name_cannot_add_a_header() {
    for (name, obsolete, from) in [
        ("Charlie Root", false, "From: Charlie Root <s@example.net>\r\n"),
        ("A. \"B\"", false, "From: \"A. \\\"B\\\"\" <s@example.net>\r\n"),
        ("x\r\nBcc: v", false, "From: \"xBcc: v\" <s@example.net>\r\n"),
        ("x(\r\nBcc: v", true, "From: s@example.net (xBcc: v)\r\n"),
        ("", false, "From: s@example.net\r\n"),
    ] {
        let mut intake = intake(CleanupSettings { obsolete_from_format: obsolete, ..settings() }, Origin::Local);
        intake.full_name(name);
        let (_, head, _) = intake.finish().unwrap();
        let content = String::from_utf8(head).unwrap();
        assert!(content.contains(from), "{content}");
    }
}

#[test]
fn bare_addresses_of_the_envelope_are_completed() {
    for (origin, given, expected) in [
        (Origin::Local, "root", "root@mx.example.org"),
        (STRANGER, "postmaster", "postmaster@mx.example.org"),
        (Origin::Local, "u%x.org", "u@x.org"),
        (STRANGER, "u%x.org", "u@x.org"),
    ] {
        let envelope = Envelope { sender: "".into(), recipients: vec![Recipient::plain(given)], ..envelope() };
        let intake = of(settings(), origin, envelope, Options::EXTERNAL);
        let recipient = &intake.envelope().unwrap().recipients[0];
        assert_eq!((&*recipient.address, recipient.original.as_deref()), (expected, Some(given)));
        assert_eq!(&*intake.envelope().unwrap().sender, "");
    }
}

#[test]
fn mailer_daemon_of_our_own_domain_is_the_null_sender() {
    for (given, expected) in [
        ("mailer-daemon", ""),
        ("MAILER-DAEMON@mx.example.org", ""),
        ("MAILER-DAEMON@x.org", "MAILER-DAEMON@x.org"),
        ("mailer-daemons", "mailer-daemons@mx.example.org"),
    ] {
        let intake = of(settings(), STRANGER, Envelope { sender: given.into(), ..envelope() }, Options::EXTERNAL);
        assert_eq!(&*intake.envelope().unwrap().sender, expected, "{given}");
    }
}

#[test]
fn a_duplicate_recipient_receives_one_copy() {
    let reported = Recipient { notify: Notify(Notify::SUCCESS), ..Recipient::plain("b@x.org") };
    let given = ["root", "b@x.org", "root@mx.example.org", "ROOT", "b@x.org"].map(Recipient::plain);
    let recipients = given.into_iter().chain([reported]).collect();
    let given = Envelope { recipients, ..envelope() };
    for (keeps_original, expected) in [
        (true, &["root@mx.example.org", "b@x.org", "root@mx.example.org", "b@x.org"][..]),
        (false, &["root@mx.example.org", "b@x.org"]),
    ] {
        let mut settings = settings();
        settings.rewriting.keeps_original = keeps_original;
        let intake = of(settings, Origin::Local, given.clone(), Options::EXTERNAL);
        let recipients = &intake.envelope().unwrap().recipients;
        assert_eq!(recipients.iter().map(|recipient| &*recipient.address).collect::<Vec<_>>(), expected);
        assert_eq!(recipients[0].original.as_deref(), Some("root"));
    }
}

#[test]
fn the_trace_header_comes_first() {
    let mut intake = intake(settings(), STRANGER);
    intake.received("Received: from x (y [z])\n\tby mx");
    intake.feed(b" x\r\n");
    let (body, head, envelope) = intake.finish().unwrap();
    let content = [head, body].concat();
    assert_eq!(content, b"Received: from x (y [z])\r\n\tby mx\r\n\r\n x\r\n");
    assert_eq!(envelope.size_octets, unstuff(&content).len() as u64);
}

#[test]
fn message_ids_are_found() {
    for (wire, id) in [
        ("Message-Id: <a@b>\r\n\r\n", Some("<a@b>")),
        ("message-ID:\r\n <a@b>\r\n\r\nMessage-Id: <c>\r\n", Some("<a@b>")),
        ("A: b\r\n\r\nMessage-Id: <c>\r\n", None),
    ] {
        assert_eq!(run(settings(), STRANGER, wire.as_bytes(), 5).unwrap().1.attribute(MESSAGE_ID), id);
    }
}

#[test]
fn the_first_problem_is_reported_at_the_end() {
    let hops = "Received: x\r\n".repeat(50) + "\r\n";
    let size = format!("A: 1\r\n\r\n{}", "x".repeat(1000));
    for (wire, limits, refusal, code) in [
        (hops.as_str(), (50, 0), Some(Refusal::TooManyHops), 554),
        (&hops, (51, 0), None, 0),
        (&size, (50, 1007), Some(Refusal::TooBig), 552),
        (&size, (50, 1008), None, 0),
        // Stuffed dots do not count, in any split.
        ("\r\n..\r\n..\r\n..\r\n", (50, 10), Some(Refusal::TooBig), 552),
        ("\r\n..\r\n..\r\n..\r\n", (50, 11), None, 0),
        ("..A: 1\r\n..B: 2\r\n", (50, 13), Some(Refusal::TooBig), 552),
        ("..A: 1\r\n..B: 2\r\n", (50, 14), None, 0),
    ] {
        for step in [1, 2, 3, 7, wire.len()] {
            let (hopcount_limit, message_size_limit) = limits;
            let settings = CleanupSettings { hopcount_limit, message_size_limit, ..settings() };
            let result = run(settings, STRANGER, wire.as_bytes(), step);
            assert_eq!(result.err(), refusal);
            assert_eq!(refusal.clone().map_or(0, |refusal| refusal.reply().code), code);
        }
    }
}

#[test]
fn octets_are_stripped_or_refused_by_configuration() {
    let strip = || CleanupSettings { strip_characters: Octets::parse(r"\0"), ..settings() };
    table(
        strip,
        STRANGER,
        &[
            ("anywhere", "A: \x001\r\n\r\nb\0b\r\n", "A: 1\r\n\r\nbb\r\n"),
            ("no hidden end", "\r\n\0.\r\n.\0.\r\n\0\r\n", "\r\n..\r\n..\r\n\r\n"),
        ],
    );
    let reject = CleanupSettings { reject_characters: Octets::parse(r"\0"), ..settings() };
    assert_eq!(run(reject, STRANGER, b"\r\nx\0\r\n", 3).err(), Some(Refusal::DisallowedCharacter));
}

#[test]
fn hostile_messages_take_limited_memory() {
    let limit = settings().header_size_limit;
    let mut bomb = intake(CleanupSettings { message_size_limit: 0, ..settings() }, Origin::Local);
    (0..50_000).for_each(|_| bomb.feed(b"To: a\r\n"));
    bomb.feed(b"X: ");
    (0..1000).for_each(|_| bomb.feed(&[b'x'; 10_240]));
    bomb.feed(b"\r\n\r\n");
    (0..1000).for_each(|_| bomb.feed(&[b'y'; 10_240]));
    let (body, head, envelope) = bomb.finish().unwrap();
    let header = head.split(|b| *b == b'\n').find(|line| line.starts_with(b"X:")).unwrap();
    assert_eq!(header.len(), limit + 1);
    assert!(body.ends_with(b"yyy\r\n") && envelope.size_octets > 10_240_000);
}

#[test]
fn a_head_has_a_limit_and_a_body_has_none() {
    let line = [b"X: ", &[b'x'; 1019][..], b"\r\n"].concat();
    for (lines, body, refusal) in
        [(HEAD_MAX_OCTETS / 1024 - 1, 5000, None), (HEAD_MAX_OCTETS / 1024, 0, Some(Refusal::HeadTooBig))]
    {
        for step in [100, 1024, 10_000] {
            let mut intake = intake(CleanupSettings { message_size_limit: 0, ..settings() }, STRANGER);
            line.repeat(lines).chunks(step).for_each(|piece| intake.feed(piece));
            intake.feed(b"\r\n");
            (0..body).for_each(|_| intake.feed(&line));
            assert_eq!(intake.refusal(), refusal.as_ref(), "{lines} lines");
            let lengths = intake.finish().map(|(body, head, _)| (body.len(), head.len()));
            assert_eq!(lengths.ok(), refusal.is_none().then_some((body * 1024, lines * 1024 + 2)));
        }
    }
    assert_eq!(Refusal::HeadTooBig.reply(), Reply::new(552, [3, 4], "Error: message header too big"));
}

/// Finish a message of `settings`, with these remote tables.
fn mapped(
    settings: CleanupSettings,
    wire: &[u8],
    tables: &[Fixed],
    backwards: bool,
) -> Result<(String, Envelope), Refusal> {
    let mut intake = intake(settings, Origin::Local);
    intake.feed(wire);
    let mut open = Vec::new();
    loop {
        if intake.poll().is_ready() {
            let (body, head, envelope) = intake.finish()?;
            return Ok((String::from_utf8([head, body].concat()).unwrap(), envelope));
        }
        open.extend(intake.asks());
        let now = if backwards { vec![open.pop().unwrap()] } else { std::mem::take(&mut open) };
        assert!(!now.is_empty(), "it waits for nothing");
        now.iter().for_each(|lookup| intake.answer(lookup, tables[lookup.table].lookup(&lookup.key)));
    }
}

#[test]
fn addresses_are_mapped_at_the_end_by_local_and_remote_tables() {
    let rows =
        [("s@example.net", "sender@new.example"), ("r@example.org", "alias@new.example"), ("@old", "@new.example")];
    let wire = b"To: r@example.org,\r\n R <r@example.org> (x)\r\n..Cc: 1\r\nCc: u@old\r\n\r\nr@example.org\r\n";
    let settings = |maps: fn() -> Maps| {
        let mut settings = settings();
        settings.rewriting.canonical = maps();
        settings.rewriting.always_bcc = "copy".into();
        settings
    };
    let local = mapped(settings(|| local(&[])), wire, &[], false).unwrap();
    assert!(local.0.starts_with("To: r@example.org,\r\n R <r@"), "{}", local.0);
    let results = [false, true].map(|backwards| mapped(settings(|| remote(0)), wire, &[Fixed::new(&rows)], backwards));
    assert_eq!(results[0], results[1]);
    let (content, envelope) = results[0].clone().unwrap();
    assert!(
        content.starts_with(
            "To: alias@new.example,\r\n R <alias@new.example> (x)\r\n..Cc: 1\r\nCc: u@new.example\r\nMessage-Id"
        ),
        "{content}"
    );
    assert!(content.ends_with("\r\nFrom: sender@new.example\r\n\r\nr@example.org\r\n"), "{content}");
    assert_eq!(envelope.size_octets, unstuff(content.as_bytes()).len() as u64);
    assert_eq!(&*envelope.sender, "sender@new.example");
    let recipients = envelope.recipients.iter().map(|to| (&*to.address, to.original.as_deref(), to.notify.0));
    assert_eq!(
        recipients.collect::<Vec<_>>(),
        [("alias@new.example", Some("r@example.org"), 0), ("copy@mx.example.org", None, Notify::NEVER)]
    );
    let failed = mapped(settings(|| remote(0)), wire, &[Fixed::new(&[("@old", "!")])], false);
    assert_eq!(failed, Err(Refusal::LookupFailed));
}

#[test]
fn a_message_of_the_mail_system_itself_gets_no_copies() {
    let mut settings = settings();
    settings.rewriting.always_bcc = "copy@x.org".into();
    let intake = of(settings, Origin::Local, envelope(), Options::INTERNAL);
    let (_, _, envelope) = intake.finish().unwrap();
    assert_eq!(envelope.recipients.len(), 1);
}

struct Full;

impl Sink for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

#[test]
fn a_full_disk_is_reported_at_the_end() {
    let mut intake = Intake::new(Arc::new(settings()), log(), Full, envelope(), STRANGER, Options::EXTERNAL, WALL_US);
    (0..10).for_each(|_| intake.feed(b"A: 1\r\n"));
    assert_eq!(intake.refusal(), None, "the head is in memory");
    (0..10).for_each(|_| intake.feed(b"\r\n"));
    assert_eq!(intake.refusal(), Some(&Refusal::NoSpace));
    assert_eq!(intake.finish().map(|_| ()).unwrap_err().reply().code, 452);
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        wire in prop::collection::vec(prop::sample::select(&b".\r\n\r\n: aFrom\0"[..]), 0..60),
        steps in prop::collection::vec(1usize..7, 1..20),
        strip in any::<bool>(),
    ) {
        let settings = || CleanupSettings { strip_characters: Octets::parse(r"\0").filter(|_| strip), ..settings() };
        let whole = run(settings(), Origin::Local, &wire, wire.len().max(1)).unwrap();
        let mut parts = intake(settings(), Origin::Local);
        let (mut rest, mut steps) = (&wire[..], steps.iter().cycle());
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(rest.len().min(*steps.next().unwrap()));
            parts.feed(chunk);
            rest = after;
        }
        let (body, head, envelope) = parts.finish().unwrap();
        let content = [head, body].concat();
        prop_assert_eq!(String::from_utf8_lossy(&content), &*whole.0);
        prop_assert_eq!(&envelope, &whole.1);
        prop_assert_eq!(envelope.size_octets, unstuff(&content).len() as u64);
    }

    #[test]
    fn local_content_never_ends_early(local in prop::collection::vec(prop::sample::select(&b".\r\na"[..]), 0..60)) {
        let (content, _) = run(settings(), Origin::Local, &stuff(&local), 9).unwrap();
        prop_assert!(!content.contains("\r\n.\r\n") && !content.starts_with(".\r\n"));
        prop_assert!(content.is_empty() || content.ends_with("\r\n"));
        let bytes = content.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\r' => prop_assert_eq!(bytes.get(at + 1), Some(&b'\n')),
                b'\n' => prop_assert_eq!(at.checked_sub(1).map(|at| bytes[at]), Some(b'\r')),
                _ => {}
            }
        }
    }
}
