//! The server's dialogue: any split gives the same replies, log lines and stored messages, BDAT included.
//!
//! Input: three bytes of settings, the seed of the split, the client's octets.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::mail::reply::Reply;
use postillion_core::smtp::server::command::Verb;
use postillion_core::smtp::server::config::{BareNewline, ServerConfig};
use postillion_core::smtp::server::{ContentFault, Ending, Event, Next, Server};
use postillion_fuzz::{Choices, assert_wire_form, bit, splits};
use std::sync::Arc;

const MESSAGE_SIZE_LIMIT: u64 = 300;
const AUTH_LINE_LIMIT: usize = 40;
const LINE_LENGTH_LIMIT: usize = 200;
/// Maximum octets of a reply line: an echoed argument and the words around it.
const REPLY_LINE_MAX_OCTETS: usize = LINE_LENGTH_LIMIT + 200;
/// Maximum number of replies without a command: the greeting, and a 421.
const UNASKED_MAX: usize = 2;

#[derive(Debug, Clone, PartialEq)]
struct Heard {
    output: Vec<u8>,
    log: Vec<String>,
    stored: Vec<Vec<u8>>,
    counts: String,
    ending: Option<Ending>,
}

fn config(choices: &mut Choices<'_>) -> ServerConfig {
    let (flags, more, limits) = (choices.byte(), choices.byte(), choices.byte());
    let mut config = ServerConfig {
        // The split decides whether a client waited for a reply; nothing else may.
        forbid_unauth_pipelining: false,
        error_sleep_s: 0.0,
        line_length_limit: LINE_LENGTH_LIMIT,
        bare_newline: match flags & 3 {
            0 => BareNewline::No,
            1 => BareNewline::Normalize,
            2 => BareNewline::Note,
            _ => BareNewline::Reject,
        },
        helo_required: bit(flags, 2),
        disable_vrfy: bit(flags, 3),
        asks_helo: bit(flags, 4),
        asks_mail: bit(flags, 5),
        asks_verbs: if bit(flags, 6) { vec![Verb::Rset, Verb::Noop, Verb::Quit] } else { vec![] },
        recipient_limit: if bit(limits, 0) { 2 } else { 1000 },
        recipient_overshoot_limit: if bit(limits, 1) { 1 } else { 1000 },
        hard_error_limit: if bit(limits, 2) { 3 } else { 1000 },
        junk_command_limit: if bit(limits, 3) { 2 } else { 100 },
        ..ServerConfig::default()
    };
    config.dialect.message_size_limit = if bit(more, 0) { MESSAGE_SIZE_LIMIT } else { 0 };
    config.dialect.strict_envelopes = bit(more, 1);
    config.dialect.strict_smtputf8 = bit(more, 2);
    config.dialect.smtputf8 = !bit(more, 3);
    if bit(more, 4) {
        config.discard_ehlo_keywords = vec!["CHUNKING".into(), "VRFY".into()];
    }
    if bit(more, 5) {
        config.noop_commands = vec!["ETRN".into()];
    }
    if bit(more, 6) {
        config.auth_mechanisms = vec!["PLAIN".into()];
        config.auth_line_limit = AUTH_LINE_LIMIT;
    }
    config
}

fn play(config: &Arc<ServerConfig>, spared: bool, eof: bool, pieces: &[&[u8]]) -> Heard {
    let mut server = Server::new(Arc::clone(config), "client.example[192.0.2.1]", spared, 0.0);
    server.greet(0.0);
    let mut heard = Heard { output: vec![], log: vec![], stored: vec![], counts: String::new(), ending: None };
    let mut arriving = Vec::new();
    run(&mut server, &mut arriving, &mut heard);
    for piece in pieces {
        server.receive(piece, 0.0);
        run(&mut server, &mut arriving, &mut heard);
        assert!(server.wants_input(), "everything was answered, and the server does not read");
    }
    if eof {
        server.eof();
        run(&mut server, &mut arriving, &mut heard);
    }
    (heard.counts, heard.ending) = (server.counts(), server.ended());
    heard
}

fn run(server: &mut Server, arriving: &mut Vec<u8>, heard: &mut Heard) {
    loop {
        let event = server.next_event(|bytes| arriving.extend_from_slice(bytes));
        let reply = match event {
            Event::Idle => break,
            Event::StartTls | Event::Switch => unreachable!("the site has no TLS"),
            Event::Log(_, line) => {
                if !line.starts_with("improper") {
                    heard.log.push(line);
                }
                continue;
            }
            Event::Ask(Next::Rcpt | Next::Vrfy) => match server.recipient().unwrap_or_default() {
                address if address.starts_with("bad") => Reply::new(550, [1, 1], format!("<{address}>: No")),
                address if address.starts_with("end") => Reply::new(421, [7, 0], "Enough"),
                address if address.starts_with("who") => Reply::bare(252, ""),
                _ => Reply::new(250, [1, 5], "Ok"),
            },
            Event::Ask(Next::Mail) if server.sender().is_some_and(|sender| sender.starts_with("bad")) => {
                Reply::new(450, [7, 1], "Not now")
            }
            Event::Ask(Next::Data) => {
                arriving.clear();
                match server.transaction().map_or(0, |transaction| transaction.recipients.len()) {
                    3 => Reply::new(452, [3, 1], "Full"),
                    _ => Reply::bare(354, "End data with <CR><LF>.<CR><LF>"),
                }
            }
            Event::Ask(Next::Auth) => match server.argument().len() % 3 {
                0 => Reply::bare(334, "Z28gb24="),
                1 => {
                    server.authenticate("PLAIN", "user");
                    Reply::new(235, [7, 0], "Authentication successful")
                }
                _ => Reply::new(535, [7, 8], "Error: authentication failed"),
            },
            Event::Ask(_) => Reply::new(250, [0, 0], "Ok"),
            Event::EndOfData(end) => match end.fault {
                None => {
                    assert_wire_form(arriving);
                    heard.stored.push(std::mem::take(arriving));
                    Reply::new(250, [0, 0], format!("Ok: {} octets", end.octets))
                }
                Some(ContentFault::TooLarge) => Reply::new(552, [3, 4], "Error: message file too big"),
                Some(ContentFault::BareNewline) => server.bare_newline_reply(),
            },
        };
        server.reply(&reply, 0.0);
    }
    heard.output.extend(server.take_output().unwrap_or_default());
}

/// Check that `output` is whole replies, and return their number; panic otherwise.
fn replies(output: &[u8]) -> usize {
    let text = std::str::from_utf8(output).expect("replies are UTF-8");
    let body = text.strip_suffix("\r\n").expect("the last reply is whole");
    let (mut count, mut open) = (0, None);
    for line in body.split("\r\n") {
        assert!(line.len() <= REPLY_LINE_MAX_OCTETS, "a reply line of {} octets", line.len());
        assert!(!line.bytes().any(|octet| octet < b' ' || octet == 0x7f), "{line:?}");
        let code: u16 = line[..3].parse().expect("a code");
        assert!((200..600).contains(&code) && open.is_none_or(|open| open == code), "{line:?}");
        match line.as_bytes().get(3) {
            Some(b'-') => open = Some(code),
            Some(b' ') => (open, count) = (None, count + 1),
            _ => panic!("{line:?}"),
        }
    }
    assert!(open.is_none(), "the last reply goes on");
    count
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let config = Arc::new(config(&mut choices));
    let seed = choices.byte();
    let (spared, eof) = (bit(seed, 6), bit(seed, 7));
    let dialogue = choices.rest();
    let mut first = None;
    for pieces in splits(dialogue, seed) {
        let heard = play(&config, spared, eof, &pieces);
        let said = dialogue.iter().filter(|octet| **octet == b'\n').count();
        assert!(replies(&heard.output) <= said + UNASKED_MAX, "more replies than commands");
        let stored: usize = heard.stored.iter().map(Vec::len).sum();
        // A dot, a CR or the last line's end may be added, at most one octet for each octet of input.
        assert!(stored <= 2 * dialogue.len() + 2, "more was stored than was sent");
        assert_eq!(first.get_or_insert_with(|| heard.clone()), &heard, "in another split");
    }
});
