//! The arguments of MAIL and RCPT: the client writes them so that the next server reads the same.
//!
//! Input: flags, a command's line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::address::path::Path;
use postillion_core::address::syntax::Syntax;
use postillion_core::mail::envelope::{Envelope, Notify, Recipient};
use postillion_core::mail::id::QueueId;
use postillion_core::sasl::Kinds;
use postillion_core::smtp::client::capability::{Capabilities, Offer};
use postillion_core::smtp::client::requiretls::Mark;
use postillion_core::smtp::client::transaction::{push_mail, push_rcpt};
use postillion_core::smtp::server::command::{Dialect, MailArguments, RcptArguments, Verb};
use postillion_fuzz::{Choices, bit};

const ALL: Capabilities = Capabilities {
    pipelining: true,
    eight_bit_mime: true,
    smtputf8: true,
    requiretls: true,
    dsn: true,
    starttls: true,
    size: true,
    size_limit: None,
    auth: Offer { is_present: false, kinds: Kinds::BY_PASSWORD, has_others: false },
};

fn check_path(text: &str) {
    let Ok(path) = Path::of(text) else { return };
    let address = path.address();
    assert!(!address.chars().any(|c| c.is_ascii_control()), "{address:?}");
    let parts = path.domain().map_or(path.local().to_owned(), |domain| format!("{}@{domain}", path.local()));
    assert_eq!(parts, address);
    assert_eq!(Path::of(address).as_ref(), Ok(&path), "{text:?} becomes {address:?}");
    for strict in [false, true] {
        let enclosed = format!("<{address}> SIZE=1");
        assert_eq!(Path::parse(&enclosed, strict), Ok((path.clone(), " SIZE=1")), "{enclosed:?}");
    }
}

/// Return the arguments in a command of the client.
fn arguments(line: &[u8]) -> &str {
    let line = std::str::from_utf8(line).expect("a command is UTF-8");
    let line = line.strip_suffix("\r\n").expect("a command has a line end");
    assert!(!line.contains(['\r', '\n']), "a command of two lines: {line:?}");
    Verb::split(line).1
}

fn check_mail(text: &str, dialect: &Dialect) {
    let Ok(mut mail) = MailArguments::parse(text, dialect, true) else { return };
    let mut envelope = Envelope::plain(QueueId(1), mail.reverse_path.address(), vec![]);
    (envelope.body, envelope.smtputf8, envelope.ret) = (mail.body, mail.smtputf8, mail.ret);
    (envelope.envid, envelope.size_octets) = (mail.envid.clone(), mail.size_octets);
    let mut line = Vec::new();
    // RFC 3461 allows only US-ASCII: other text is accepted and not passed on, and neither is an empty one.
    mail.envid = mail.envid.filter(|envid| envid.is_ascii() && !envid.is_empty());
    let mark = if mail.requiretls { Mark::Required } else { Mark::None };
    if push_mail(&envelope, &ALL, mark, false, &mut line).is_ok() {
        assert_eq!(MailArguments::parse(arguments(&line), dialect, true), Ok(mail), "{text:?}");
    }
}

fn check_rcpt(text: &str, dialect: &Dialect) {
    let Ok(rcpt) = RcptArguments::parse(text, dialect, true) else { return };
    let RcptArguments { forward_path, notify, orcpt } = rcpt.clone();
    let recipient = Recipient { orcpt: orcpt.clone(), notify, ..Recipient::plain(forward_path.address()) };
    let mut line = Vec::new();
    if push_rcpt(&recipient, &ALL, true, &mut line).is_ok() {
        let again = RcptArguments::parse(arguments(&line), dialect, true).expect("what was read can be read again");
        assert_eq!((again.forward_path, again.notify), (forward_path, notify), "{text:?}");
        // Without an ORCPT, the address itself is passed on.
        let orcpt = orcpt.filter(|orcpt| orcpt.is_ascii());
        assert!(orcpt.is_none() || again.orcpt == orcpt, "{text:?}");
        assert!(notify.0 & Notify::NEVER == 0 || notify.0 == Notify::NEVER);
    }
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let flags = choices.byte();
    let Ok(line) = std::str::from_utf8(choices.rest()) else { return };
    let dialect = Dialect {
        strict_envelopes: bit(flags, 0),
        smtputf8: true,
        strict_smtputf8: bit(flags, 1),
        message_size_limit: if bit(flags, 2) { 1000 } else { 0 },
        syntax: Syntax { min_user: bit(flags, 3), numeric_domain: bit(flags, 4) },
    };
    check_path(line);
    let (verb, rest) = Verb::split(line);
    assert_eq!(Verb::split(&format!("{}\t {rest}", verb.name())).0, verb);
    check_path(rest);
    check_mail(rest, &dialect);
    check_rcpt(rest, &dialect);
    if let Ok((path, behind)) = Path::parse(rest, true) {
        assert_eq!(Path::parse(rest, false), Ok((path, behind)), "strict reads {rest:?} otherwise");
    }
});
