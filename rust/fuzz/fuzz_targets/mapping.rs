//! Address maps: answers in any order give the same recipients, header and failure. A result is bounded, and nothing but
//! a lookup stops it.
//!
//! Input: flags, the order of answers, an address, then the answers of a remote table, one a line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::address::alias::AliasLimits;
use postillion_core::address::map::Mapping;
use postillion_core::address::masquerade::Masquerade;
use postillion_core::address::names::NameList;
use postillion_core::address::rewrite::Rewrite;
use postillion_core::address::rewriting::{RewriteClass, Rewriting};
use postillion_core::ask::{Answer, Lookup};
use postillion_core::inquiry::Inquiry;
use postillion_core::mail::envelope::Recipient;
use postillion_core::table::{Entry, Maps};
use postillion_fuzz::{Choices, bit};
use std::sync::Arc;
use std::task::Poll;

const ADDRESSES_MAX: usize = 20;
const ADDRESS_MAX_OCTETS: usize = 200;

/// Recipients and the header's new value, or the failure.
type Outcome = Result<(Vec<Recipient>, Option<Vec<u8>>), String>;

fn rewriting(flags: u8) -> Rewriting {
    let maps = || Maps { tables: Box::new([Entry::Remote { index: 0, takes_parts: bit(flags, 0) }]) };
    let mut rewriting = Rewriting {
        aliases: maps(),
        masquerade: Masquerade { domains: vec!["!b.a".into(), "a".into()], exceptions: NameList::of(&["root"]) },
        keeps_original: bit(flags, 1),
        always_bcc: if bit(flags, 2) { "copy+x@a".into() } else { "".into() },
        alias_limits: AliasLimits { addresses: ADDRESSES_MAX, depth: 5, address_octets: ADDRESS_MAX_OCTETS },
        ..Rewriting::default()
    };
    rewriting.rules.extensions.delimiters = if bit(flags, 3) { "+-".into() } else { "".into() };
    if bit(flags, 4) {
        rewriting.canonical = maps();
    }
    if bit(flags, 5) {
        rewriting.recipient_copies = maps();
    }
    rewriting
}

/// Run the inquiry. `backwards`: the last lookup of a batch is answered first, one at each poll.
fn run(flags: u8, address: &str, answers: &[&[u8]], backwards: bool) -> Outcome {
    let rewriting = Arc::new(rewriting(flags));
    let recipient = Recipient::plain(address);
    let mut inquiry = Inquiry::new(|asker| async move {
        let complete = Rewrite::local("mx.a");
        let mapping = Mapping::new(&rewriting.rules, &complete, &asker);
        let found = rewriting.recipients(&mapping, true, None, vec![recipient.clone(), recipient.clone()]).await;
        let found = found.map_err(|error| format!("{error:?}"))?;
        let value = recipient.address.as_bytes();
        let header = rewriting.header(&mapping, RewriteClass::HeaderSender, value, 100).await;
        Ok((found, header.map_err(|failure| failure.to_string())?))
    });
    let mut open: Vec<Lookup> = Vec::new();
    loop {
        if let Poll::Ready(outcome) = inquiry.poll() {
            return outcome;
        }
        open.extend(inquiry.asks());
        assert!(!open.is_empty(), "it waits for nothing");
        let now = if backwards { vec![open.remove(open.len() - 1)] } else { std::mem::take(&mut open) };
        for lookup in now {
            inquiry.answer(&lookup, answer(&lookup, answers));
        }
    }
}

/// Return an answer that depends on the key alone.
fn answer(lookup: &Lookup, answers: &[&[u8]]) -> Answer {
    let sum = lookup.key.iter().fold(0usize, |sum, octet| sum.wrapping_mul(31).wrapping_add(usize::from(*octet)));
    match answers.get(sum % (answers.len() + 1)).copied() {
        None => Answer::NotFound,
        Some(b"!") => Answer::Failed("down".into()),
        Some(value) => Answer::Found(value.into()),
    }
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let flags = choices.byte();
    let mut rest = choices.rest().split(|octet| *octet == b'\n');
    let Some(Ok(address)) = rest.next().map(std::str::from_utf8) else { return };
    let answers = rest.collect::<Vec<_>>();
    let outcome = run(flags, address, &answers, false);
    let other = run(flags, address, &answers, true);
    assert_eq!(outcome, other, "in another order");
    let Ok((recipients, header)) = outcome else { return };
    assert!((2..=5 * (ADDRESSES_MAX + address.len() + answers.concat().len())).contains(&recipients.len()));
    for recipient in &recipients {
        assert!(!recipient.address.chars().any(|c| c == '\n'), "{recipient:?}");
    }
    if let Some(header) = header {
        assert!(!header.contains(&b'\n') && !header.contains(&b'\r') || address.contains('\r'));
    }
});
