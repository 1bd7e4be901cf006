//! The structure of a message: any split gives the same events, and every octet comes out. A conversion to
//! quoted-printable leaves only wire form, in any split, and nothing wide in a part that it converts.
//!
//! Input: a byte of limits, the seed of the split, a message in wire form or anything else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::delivery::outgoing::{Outgoing, Unsendable};
use postillion_core::log::{Log, LogTarget};
use postillion_core::mail::header::End;
use postillion_core::mail::mime::{Fault, HeaderClass, Line, MimeEvents, MimeRules, Part, WireMime};
use postillion_core::mail::stuff::{Stuffer, WireWriter, unstuff};
use postillion_fuzz::{Choices, assert_wire_form, bit, splits};
use std::task::Poll;

/// Events as text, and the message that they add up to.
#[derive(Default)]
struct Told {
    events: Vec<String>,
    writer: WireWriter,
}

impl MimeEvents for Told {
    fn header(&mut self, class: HeaderClass, part: Part, header: &[u8]) {
        self.events.push(format!("{class:?} {part:?} {header:?}"));
        self.writer.line(header, true);
    }
    fn head_end(&mut self, class: HeaderClass, part: Part, end: End) {
        self.events.push(format!("{class:?} {part:?} {end:?}"));
    }
    fn line(&mut self, part: Part, line: Line<'_>) {
        self.events.push(format!("{part:?} {line:?}"));
        self.writer.line(line.text, line.ends);
    }
    fn fault(&mut self, fault: Fault, text: &[u8]) {
        self.events.push(format!("{fault:?} {text:?}"));
    }
}

fn told(rules: &MimeRules, pieces: &[&[u8]]) -> Told {
    let (mut mime, mut told) = (WireMime::new(rules.clone()), Told::default());
    pieces.iter().for_each(|piece| mime.feed(piece, &mut told));
    mime.finish(&mut told);
    told.writer.end_line();
    told
}

fn converted(rules: &MimeRules, pieces: &[&[u8]]) -> Result<Vec<u8>, Unsendable> {
    let log = Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory);
    let mut outgoing = Outgoing::new(rules.clone(), Default::default(), None, true, "ID");
    let mut out = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let Poll::Ready(piece) = outgoing.feed(piece, at + 1 == pieces.len(), &log) else {
            unreachable!("no address is mapped")
        };
        out.extend(piece?);
    }
    Ok(out)
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let limits = choices.byte();
    let rules = MimeRules {
        flat: bit(limits, 0),
        nesting_limit: if bit(limits, 1) { 1 } else { 100 },
        boundary_limit: if bit(limits, 2) { 3 } else { 2048 },
        line_limit: if bit(limits, 3) { 5 } else { 2048 },
        headers_are_ascii: bit(limits, 4),
        bodies_are_declared: bit(limits, 5),
        composites_are_plain: bit(limits, 6),
        ..MimeRules::default()
    };
    let seed = choices.byte();
    // The content of a queue has no bare line ends.
    let local = choices.rest().iter().copied().filter(|octet| *octet != b'\r').collect::<Vec<_>>();
    let (mut wire, mut stuffer) = (Vec::new(), Stuffer::default());
    stuffer.feed(&local, &mut wire);
    stuffer.finish(&mut wire);
    let whole = told(&rules, &[&wire]);
    if wire.len() < rules.header_limit {
        assert_eq!(whole.writer.wire, wire, "an octet is lost");
    }
    let out = converted(&rules, &[&wire]);
    for pieces in splits(&wire, seed) {
        assert_eq!(told(&rules, &pieces).events, whole.events);
        assert!(pieces.is_empty() || converted(&rules, &pieces) == out);
    }
    let Ok(out) = out else { return };
    assert_wire_form(&out);
    assert!(unstuff(&out).len() <= 4 * local.len() + 64 * (1 + local.len() / 8));
});
