//! Plays each cell of the table of states and commands in docs/dialogue.md.

use super::super::{Mode, Next, Server};
use super::{Event, Talk, config};
use crate::smtp::server::config::ServerConfig;
use std::fmt::Write;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dialogue.md");
/// The lines that bring a session into each state.
const STATES: [(&str, &[&str]); 9] = [
    ("connected", &[]),
    ("helo", &["EHLO c.example"]),
    ("auth", &["EHLO c.example", "AUTH PLAIN"]),
    ("mail", &["EHLO c.example", "MAIL FROM:<a@c.example>"]),
    ("rcpt", &["EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@example.org>"]),
    ("data", &["EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@example.org>", "DATA"]),
    ("bdat", &["EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@example.org>", "BDAT 1\r\nx"]),
    ("discard", &["EHLO c.example", "BDAT 1\r\nx"]),
    ("closed", &["QUIT"]),
];
/// The line for each command.
const COMMANDS: [(&str, &str); 15] = [
    ("HELO", "HELO c.example"),
    ("EHLO", "EHLO c.example"),
    ("AUTH", "AUTH PLAIN"),
    ("MAIL", "MAIL FROM:<a@c.example>"),
    ("RCPT", "RCPT TO:<b@example.org>"),
    ("DATA", "DATA"),
    ("BDAT", "BDAT 1\r\nx"),
    ("BDAT LAST", "BDAT 1 LAST\r\nx"),
    (".", "."),
    ("RSET", "RSET"),
    ("VRFY", "VRFY root@example.org"),
    ("NOOP", "NOOP"),
    ("HELP", "HELP"),
    ("QUIT", "QUIT"),
    ("other", "FROB"),
];

fn in_state(script: &[&str]) -> Talk {
    let auth = ServerConfig { auth_mechanisms: vec!["PLAIN".into()], ..config() };
    let mut talk = Talk::new(auth);
    for words in script {
        play(&mut talk, words);
    }
    talk
}

/// Send a line, or a line with its chunk.
fn play(talk: &mut Talk, words: &str) {
    talk.say(words.as_bytes());
    if !words.starts_with("BDAT") {
        talk.say(b"\r\n");
    }
}

fn state(server: &Server) -> &'static str {
    match (&server.mode, &server.chunks, &server.transaction) {
        (Mode::Closed(_), ..) => "closed",
        (Mode::Auth, ..) => "auth",
        (Mode::Data(_), ..) => "data",
        (_, Some(chunks), _) if chunks.failed => "discard",
        (_, Some(_), _) => "bdat",
        (.., Some(transaction)) if transaction.recipients.is_empty() => "mail",
        (.., Some(_)) => "rcpt",
        _ if server.helo().is_none() => "connected",
        _ => "helo",
    }
}

/// Return `250 mail`: the code of the reply and the next state, or the state alone without a reply.
fn cell(script: &[&str], words: &str) -> String {
    let mut talk = in_state(script);
    talk.output.clear();
    play(&mut talk, words);
    let last = talk.output.lines().last().map_or("", |line| &line[..3]);
    format!("{last} {}", state(&talk.server)).trim().to_owned()
}

#[test]
fn the_page_has_every_state_and_command() {
    let mut table = String::from("| |");
    for (name, script) in STATES {
        assert_eq!(state(&in_state(script).server), name);
        write!(table, " {name} |").unwrap();
    }
    write!(table, "\n|{}\n", "---|".repeat(STATES.len() + 1)).unwrap();
    for (command, words) in COMMANDS {
        write!(table, "| {command} |").unwrap();
        for (_, script) in STATES {
            write!(table, " {} |", cell(script, words)).unwrap();
        }
        table.push('\n');
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    assert!(page.contains(&table), "docs/dialogue.md must have this table:\n{table}");
}

#[test]
fn each_question_has_one_command() {
    for (words, question) in [
        ("EHLO c.example", Next::Helo),
        ("MAIL FROM:<>", Next::Mail),
        ("RCPT TO:<b@example.org>", Next::Rcpt),
        ("VRFY b@example.org", Next::Vrfy),
        ("DATA", Next::Data),
        ("BDAT 1", Next::Data),
        ("RSET", Next::Rset),
        ("NOOP", Next::Noop),
        ("QUIT", Next::Quit),
        ("AUTH PLAIN", Next::Auth),
    ] {
        use crate::smtp::server::command::Verb;
        let is_content = question == Next::Data;
        let script: &[&str] = match question {
            Next::Helo | Next::Mail => &[],
            Next::Auth => &["EHLO c.example"],
            _ => &["EHLO c.example", "MAIL FROM:<>", "RCPT TO:<b@example.org>"],
        };
        let asking = ServerConfig {
            auth_mechanisms: vec!["PLAIN".into()],
            asks_helo: true,
            asks_mail: true,
            asks_verbs: vec![Verb::Rset, Verb::Noop, Verb::Quit],
            ..config()
        };
        let mut talk = Talk::new(asking);
        for words in script {
            play(&mut talk, words);
        }
        talk.server.receive(format!("{words}\r\n").as_bytes(), 0.0);
        assert_eq!(talk.server.next_event(|_| ()), Event::Ask(question), "{words}");
        assert!(question.is_question());
        assert!(question.acceptance().code < 400, "{words}");
        assert_eq!(question.acceptance().code == 354, is_content, "{words}");
    }
}
