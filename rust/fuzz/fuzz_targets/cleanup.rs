//! Headers and body on their way into the queue: any split gives the same message, envelope and refusal. The output is
//! in wire form, has the envelope's size, and a second pass changes nothing.
//!
//! Input: three bytes of settings, the seed of the split, a message in wire form or anything else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::address::rewrite::Rewrite;
use postillion_core::cleanup::settings::{CleanupSettings, Octets};
use postillion_core::cleanup::{Intake, Options, Origin, Refusal};
use postillion_core::log::{Log, LogTarget};
use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::id::QueueId;
use postillion_core::mail::stuff::unstuff;
use postillion_core::pickup::recipients::{HeaderRecipients, TooLong};
use postillion_fuzz::{Choices, assert_wire_form, bit, splits};
use std::sync::Arc;

const WALL_US: u64 = 1_795_366_923_000_000;
const HOST: &str = "mx.example.org";
/// Maximum octets of added header fields: at most four.
const ADDED_MAX_OCTETS: usize = 1000;

struct Site {
    settings: Arc<CleanupSettings>,
    log: Arc<Log>,
    origin: Origin,
    received: bool,
}

fn site(choices: &mut Choices<'_>) -> Site {
    let (flags, more, limits) = (choices.byte(), choices.byte(), choices.byte());
    let defaults = CleanupSettings::new(HOST);
    let rewrite = Rewrite { domain: Some("example.org".into()), ..Rewrite::local(HOST) };
    let settings = CleanupSettings {
        local_rewrite: rewrite.clone(),
        remote_rewrite: bit(flags, 2).then_some(rewrite),
        always_add_missing_headers: bit(flags, 3),
        replace_stray_cr_lf: !bit(flags, 4),
        long_queue_ids: bit(flags, 5),
        obsolete_from_format: bit(flags, 6),
        undisclosed_recipients_header: if bit(flags, 7) { "To: undisclosed-recipients:;".into() } else { "".into() },
        strip_characters: if bit(more, 0) { Octets::parse(r"\0\177") } else { None },
        reject_characters: if bit(more, 1) { Octets::parse(r"\001") } else { None },
        header_size_limit: if bit(limits, 0) { 60 } else { defaults.header_size_limit },
        header_address_token_limit: if bit(limits, 1) { 3 } else { 10_240 },
        hopcount_limit: if bit(limits, 2) { 3 } else { 50 },
        message_size_limit: if bit(limits, 3) { 200 } else { 0 },
        ..defaults
    };
    let origin = match flags & 3 {
        0 => Origin::Local,
        1 => Origin::Network { trusted: true },
        _ => Origin::Network { trusted: false },
    };
    let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, LogTarget::Memory));
    Site { settings: Arc::new(settings), log, origin, received: bit(more, 2) }
}

fn run(site: &Site, pieces: &[&[u8]]) -> Result<(Vec<u8>, Envelope), Refusal> {
    let recipients = vec![Recipient::plain("r@example.net"), Recipient::plain("bare")];
    let envelope = Envelope::plain(QueueId(WALL_US << 12 | 1), "s@host", recipients);
    let (settings, log) = (Arc::clone(&site.settings), Arc::clone(&site.log));
    let mut intake = Intake::new(settings, log, Vec::new(), envelope, site.origin, Options::EXTERNAL, WALL_US);
    intake.full_name("Ann Ägypten");
    if site.received {
        intake.received("Received: from a (b [192.0.2.1])\n\tby mx.example.org with ESMTP id X; date");
    }
    pieces.iter().for_each(|piece| intake.feed(piece));
    let (body, head, envelope) = intake.finish()?;
    Ok(([head, body].concat(), envelope))
}

fn recipients(pieces: &[&[u8]]) -> Result<Vec<String>, TooLong> {
    let mut recipients = HeaderRecipients::default();
    pieces.iter().for_each(|piece| recipients.feed(piece));
    recipients.finish()
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let site = site(&mut choices);
    let seed = choices.byte();
    let message = choices.rest();
    let result = run(&site, &[message]);
    let named = recipients(&[message]);
    for pieces in splits(message, seed) {
        let other = run(&site, &pieces);
        // With two problems, the split may decide which one is reported.
        assert!(other == result || (other.is_err() && result.is_err()), "{other:?} and {result:?}");
        assert_eq!(recipients(&pieces), named, "in another split");
    }
    let Ok((content, envelope)) = result else { return };
    let replaces = site.settings.replace_stray_cr_lf;
    // Input from `smtp::server::data` and `smtp::server::chunk` never has a line with a single dot.
    let framed = [b"\r\n", message].concat();
    let is_wire = !framed.windows(5).any(|window| window == b"\r\n.\r\n") && !framed.ends_with(b"\r\n.");
    if replaces && is_wire {
        assert_wire_form(&content);
        let lone_cr = content.windows(2).any(|window| window[0] == b'\r' && window[1] != b'\n');
        assert!(!lone_cr, "a CR that ends no line");
        assert_eq!(envelope.size_octets, unstuff(&content).len() as u64);
    }
    // Each rewritten address grows by a domain; a comma or a blank separates two.
    let grown = message.len() * (HOST.len() + 3);
    assert!(content.len() <= 2 * message.len() + grown + ADDED_MAX_OCTETS);
    // A remote message without added headers: a second host's output is the same.
    let stranger = Site { origin: Origin::Network { trusted: false }, received: false, ..site };
    let plain = stranger.settings.remote_rewrite.is_none() && !stranger.settings.always_add_missing_headers;
    if replaces
        && plain
        && let Ok((once, envelope)) = run(&stranger, &[message])
    {
        match run(&stranger, &[&once]) {
            Ok((twice, again)) => {
                assert_eq!(once, twice, "a second pass changes something");
                assert_eq!(envelope, again);
            }
            // An empty line before a body without headers may exceed the limit by one octet.
            Err(refusal) => assert_eq!(refusal, Refusal::TooBig),
        }
    }
});
