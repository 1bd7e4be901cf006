//! Tests of messages on their way out, with local tables and with remote ones, whose answers come in several orders.

use super::*;
use crate::address::generic::tests::generic;
use crate::inspection::held::HELD_MAX_OCTETS;
use crate::inspection::lists::List;
use crate::log::LogTarget;
use crate::table::testing::{Fixed, remote};
use crate::table::{Entry, Table};

/// A line `x-VALUE` has the value, with `_` for blanks.
#[derive(Debug)]
struct Inside;

impl Table for Inside {
    fn name(&self) -> &str {
        "inside:"
    }
    fn lookup(&self, key: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(key);
        match text.strip_prefix("x-").map(|value| value.trim_end_matches(":")) {
            Some("fail") => Answer::Failed("inside: is down".into()),
            Some(value) => Answer::Found(value.replace('_', " ").into_bytes().into()),
            None => Answer::NotFound,
        }
    }
}

/// The table of the checks, and the order of the answers of a remote one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tables {
    Local,
    /// The answers to a batch come in its order.
    InOrder,
    /// The last one comes first.
    Backwards,
    /// The piece is asked for again after each answer, the last one of a batch first.
    OneByOne,
}

const TABLES: [Tables; 4] = [Tables::Local, Tables::InOrder, Tables::Backwards, Tables::OneByOne];
/// The number of the remote table of the checks; 0 is that of the maps.
const CHECKS: usize = 3;

fn lists(tables: Tables) -> Arc<Lists> {
    let list = |name: &str| {
        let entry = match tables {
            Tables::Local => Entry::Local(Arc::new(Inside)),
            _ => Entry::Remote { index: CHECKS, takes_parts: true },
        };
        List { parameter: name.into(), tables: [entry].into() }
    };
    Arc::new(Lists {
        header: list("smtp_header_checks"),
        mime_header: list("smtp_mime_header_checks"),
        nested_header: list("smtp_nested_header_checks"),
        body: list("smtp_body_checks"),
    })
}

fn memory() -> Log {
    Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory)
}

/// Give a message to a converter in pieces of `step` octets, and answer its lookups. `maps`: the table of the addresses.
fn play(
    mut outgoing: Outgoing,
    wire: &[u8],
    step: usize,
    tables: Tables,
    maps: &Fixed,
) -> (Result<String, Unsendable>, Vec<String>) {
    let log = memory();
    let answer_to = |lookup: &Lookup| match lookup.table {
        CHECKS => Inside.lookup(&lookup.key),
        _ => maps.lookup(&lookup.key),
    };
    let mut out = Vec::new();
    let mut open = Vec::new();
    let mut pieces = wire.chunks(step).peekable();
    while let Some(piece) = pieces.next() {
        let mut polled = outgoing.feed(piece, pieces.peek().is_none(), &log);
        while polled.is_pending() {
            assert!(outgoing.is_asking());
            open.extend(outgoing.asks());
            assert!(!open.is_empty(), "a piece that waits has lookups");
            match tables {
                Tables::Local | Tables::InOrder => {
                    open.drain(..).for_each(|lookup| outgoing.answer(&lookup, answer_to(&lookup)));
                }
                Tables::Backwards => {
                    open.drain(..).rev().for_each(|lookup| outgoing.answer(&lookup, answer_to(&lookup)));
                }
                Tables::OneByOne => {
                    open.pop().iter().for_each(|lookup| outgoing.answer(lookup, answer_to(lookup)));
                }
            }
            polled = outgoing.poll(&log);
        }
        // After a failure, the answers of the others come too late.
        open.drain(..).for_each(|lookup| outgoing.answer(&lookup, answer_to(&lookup)));
        assert!(!outgoing.is_asking() && outgoing.asks().is_empty());
        match polled {
            Poll::Ready(Ok(piece)) => out.extend(piece),
            Poll::Ready(Err(unsendable)) => return (Err(unsendable), log.take_lines()),
            Poll::Pending => unreachable!("it is not pending"),
        }
    }
    (Ok(String::from_utf8(out).unwrap()), log.take_lines())
}

/// Check a message; all tables give the same.
fn run(wire: &str, step: usize, converts: bool) -> (Result<String, Unsendable>, Vec<String>) {
    let [first, others @ ..] = TABLES.map(|tables| {
        let outgoing = Outgoing::new(MimeRules::default(), lists(tables), None, converts, "ID");
        assert_eq!(outgoing.asks_for_lines(), tables != Tables::Local);
        play(outgoing, wire.as_bytes(), step, tables, &Fixed::default())
    });
    others.iter().zip(&TABLES[1..]).for_each(|(other, tables)| assert_eq!(*other, first, "{tables:?}, {step}"));
    first
}

#[test]
fn lines_are_checked_on_their_way_out() {
    let wire = "x-WARN_a: \r\nx-WARN_a:\r\nx-IGNORE:\r\nx-STRIP_b:\r\nx-REPLACE_A:_1:\r\nx-PREPEND_B:_2:\r\nx-REJECT:\r\n\
        x-PREPEND_y:\r\nFold: 1\r\n 2\r\n\r\nx-WARN\r\nx-IGNORE\r\nx-REPLACE_.z\r\nx-PREPEND_.y\r\n..dot\r\nx-HOLD\r\n";
    let expected = "x-WARN_a: \r\nx-WARN_a:\r\nA: 1\r\nB: 2\r\nx-PREPEND_B:_2:\r\nx-REJECT:\r\n\
        x-PREPEND_y:\r\nFold: 1\r\n 2\r\n\r\nx-WARN\r\n..z\r\n..y\r\nx-PREPEND_.y\r\n..dot\r\nx-HOLD\r\n";
    let lines = [
        "ID: warning: header x-WARN_a: : a: ",
        "ID: warning: header x-WARN_a:: a",
        "ID: strip: header x-STRIP_b:: b",
        "ID: replace: header x-REPLACE_A:_1:: A: 1",
        "ID: prepend: header x-PREPEND_B:_2:: B: 2",
        "warning: unsupported command in smtp_header_checks map: REJECT",
        "warning: bad PREPEND header text \"y\" in smtp_header_checks map -- need \"headername: headervalue\"",
        "ID: warning: body x-WARN",
        "ID: replace: body x-REPLACE_.z: .z",
        "ID: prepend: body x-PREPEND_.y: .y",
        "warning: unsupported command in smtp_body_checks map: HOLD",
    ];
    for step in 1..=wire.len() {
        let (out, logged) = run(wire, step, step % 2 == 0);
        assert_eq!(out.unwrap(), expected, "{step} octets at a time");
        assert_eq!(logged, lines, "{step} octets at a time");
    }
}

#[test]
fn the_pieces_of_a_long_line_are_checked_each() {
    let rules = || MimeRules { line_limit: 8, ..MimeRules::default() };
    let wire = "\r\n12345678x-IGNORE\r\nx-IGNOREx-IGNORE\r\n12345678x-REPLACE_y\r\n.x-STRIP12345678\r\n";
    for step in 1..=wire.len() {
        let [first, others @ ..] = TABLES.map(|tables| {
            let outgoing = Outgoing::new(rules(), lists(tables), None, false, "ID");
            play(outgoing, wire.as_bytes(), step, tables, &Fixed::default()).0
        });
        assert!(first.is_ok());
        others.iter().for_each(|other| assert_eq!(*other, first, "{step} octets at a time"));
    }
}

#[test]
fn a_failed_lookup_and_a_broken_limit_stop_the_message() {
    let down = "warning: ID: smtp header checks lookup error: inside: is down";
    for (wire, lines) in [
        ("A: 1\r\nx-fail:\r\nx-WARN:\r\n\r\nx\r\n", vec![down]),
        ("x-WARN:\r\nx-fail:\r\nx-fail:\r\n\r\nx-WARN\r\n", vec!["ID: warning: header x-WARN:", down]),
        ("A: 1\r\n\r\nx-fail\r\nx-WARN\r\n", vec!["warning: ID: smtp body checks lookup error: inside: is down"]),
    ] {
        for step in [1, 5, 100] {
            assert_eq!(run(wire, step, false), (Err(Unsendable::Lookup), lines.iter().map(|l| (*l).into()).collect()));
        }
    }
    let deep = (0..103).map(|n| format!("Content-Type: multipart/x; boundary=b{n}x\r\n\r\n--b{n}x\r\n"));
    let deep = deep.collect::<String>();
    assert_eq!(run(&deep, 99, true).0, Err(Unsendable::Mime(Fault::Nesting)));
    assert_eq!(run(&deep, 99, false).0, Ok(deep.clone()));
    // The problem that comes first decides.
    assert_eq!(run(&format!("x-fail:\r\n{deep}"), 10_000, true).0, Err(Unsendable::Lookup));
    assert_eq!(run(&format!("{deep}x-fail\r\n"), 10_000, true).0, Err(Unsendable::Mime(Fault::Nesting)));
}

#[test]
fn a_piece_waits_for_all_of_its_lines() {
    let log = memory();
    let mut outgoing = Outgoing::new(MimeRules::default(), lists(Tables::InOrder), None, false, "ID");
    assert!(outgoing.feed(b"A: 1\r\nx-WARN:\r\n\r\nx\r\n\r\nx\r\nx-IGN", false, &log).is_pending());
    let asked = outgoing.asks();
    let keys: Vec<_> = asked.iter().map(|lookup| String::from_utf8_lossy(&lookup.key).into_owned()).collect();
    assert_eq!(keys, ["A: 1", "x-WARN:", "x"], "an empty line is not asked for, and a line that comes twice once");
    for lookup in &asked[1..] {
        outgoing.answer(lookup, Inside.lookup(&lookup.key));
    }
    assert!(outgoing.poll(&log).is_pending() && outgoing.asks().is_empty());
    outgoing.answer(&asked[0], Answer::NotFound);
    outgoing.answer(&asked[0], Answer::Failed("too late".into()));
    assert_eq!(outgoing.poll(&log), Poll::Ready(Ok(b"A: 1\r\nx-WARN:\r\n\r\nx\r\n\r\nx\r\n".to_vec())));
    assert!(outgoing.feed(b"ORE\r\n", true, &log).is_pending());
    let asked = outgoing.asks();
    outgoing.answer(&asked[0], Inside.lookup(&asked[0].key));
    assert_eq!((asked.len(), outgoing.poll(&log)), (1, Poll::Ready(Ok(Vec::new()))));
}

#[test]
fn a_piece_beyond_the_limit_is_not_sent() {
    let log = memory();
    let mut outgoing = Outgoing::new(MimeRules::default(), lists(Tables::InOrder), None, false, "ID");
    let lines = format!("\r\n{}", format!("{}\r\n", "y".repeat(1022)).repeat(HELD_MAX_OCTETS / 1024));
    assert_eq!(outgoing.feed(lines.as_bytes(), false, &log), Poll::Ready(Err(Unsendable::Lookup)));
    assert!(outgoing.asks().is_empty());
    assert_eq!(log.take_lines(), ["warning: ID: too much content waits for the tables of checks"]);
}

/// Check a message, and map its addresses with a remote table.
fn mapped(wire: &str, step: usize) -> Result<String, Unsendable> {
    let maps = Fixed::new(&[("a@x", "mapped@y"), ("down@x", "!")]);
    let [first, others @ ..] = TABLES.map(|tables| {
        let generic = Some(Arc::new(generic(remote(0), false)));
        let outgoing = Outgoing::new(MimeRules::default(), lists(tables), generic, false, "ID");
        play(outgoing, wire.as_bytes(), step, tables, &maps).0
    });
    others.iter().zip(&TABLES[1..]).for_each(|(other, tables)| assert_eq!(*other, first, "{tables:?}, {step}"));
    first
}

#[test]
fn addresses_in_the_headers_of_the_message_are_mapped() {
    let wire =
        "To: a@x,\r\n b@x\r\nX-To: a@x\r\nReply-To:a@x\r\nContent-Type: message/rfc822\r\n\r\nTo: a@x\r\n\r\na@x\r\n";
    let expected = wire.replacen("a@x", "mapped@y", 1).replace("Reply-To:a@x", "Reply-To:mapped@y");
    for step in 1..=wire.len() {
        assert_eq!(mapped(wire, step).unwrap(), expected, "{step} octets at a time");
    }
    assert_eq!(mapped("To: a@x, down@x\r\n\r\nx\r\n", 99), Err(Unsendable::Lookup));
    assert_eq!(mapped("x-IGNORE:\r\nTo: a@x\r\n\r\nx-STRIP\r\nx\r\n", 99).unwrap(), "To: mapped@y\r\n\r\nx\r\n");
}

#[test]
fn checks_see_the_converted_message() {
    let wire = "Content-Transfer-Encoding: 8bit\r\n\r\nx-REPLACE_é\r\n";
    let (out, lines) = run(wire, 9, true);
    assert_eq!(out.unwrap(), "Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A9\r\n");
    assert_eq!(lines, ["ID: replace: body x-REPLACE_=C3=A9: =C3=A9"]);
}
