//! Dialogues with the server core, each played whole and in pieces.

mod chunks;
mod starttls;
mod states;

use super::config::{BareNewline, ServerConfig};
use super::{ContentFault, Ending, Event, Next, READ_AHEAD_MAX_OCTETS, Server};
use crate::mail::reply::Reply;
use proptest::prelude::*;
use std::sync::Arc;

const GREETING: &str = "220 mx.example.org ESMTP Postfix\r\n";
const EHLO: &str = "250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-VRFY\r\n250-ENHANCEDSTATUSCODES\r\n\
                    250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n";
const GO_AHEAD: &str = "354 End data with <CR><LF>.<CR><LF>";

fn config() -> ServerConfig {
    let mut config = ServerConfig {
        myhostname: "mx.example.org".into(),
        banner: "mx.example.org ESMTP Postfix".into(),
        forbid_unauth_pipelining: false,
        recipient_limit: 3,
        recipient_overshoot_limit: 2,
        ..ServerConfig::default()
    };
    config.dialect.message_size_limit = 1000;
    config.dialect.smtputf8 = true;
    config
}

/// A session, and an owner with simple rules: `bad@...` is refused; every content is stored.
struct Talk {
    server: Server,
    now: f64,
    output: String,
    arriving: Vec<u8>,
    /// The stored content.
    content: Vec<u8>,
    log: Vec<String>,
    logs_early_talk: bool,
    /// The number of times that TLS has begun.
    switched: u32,
}

impl Talk {
    fn new(config: ServerConfig) -> Self {
        // Whether a client waits depends on the split of its octets; the tests of splits must not depend on it.
        let logs_early_talk = config.forbid_unauth_pipelining;
        let mut server = Server::new(Arc::new(config), "client.example.org[192.0.2.1]", false, 0.0);
        server.greet(0.0);
        let arriving = Vec::new();
        Self {
            arriving,
            logs_early_talk,
            switched: 0,
            server,
            now: 0.0,
            output: String::new(),
            content: Vec::new(),
            log: Vec::new(),
        }
    }

    fn run(&mut self) {
        loop {
            let arriving = &mut self.arriving;
            let event = self.server.next_event(|bytes| arriving.extend_from_slice(bytes));
            let reply = match event {
                Event::Idle => {
                    if !self.server.is_receiving() {
                        self.arriving.clear();
                    }
                    break;
                }
                Event::Log(_, line) => {
                    if self.logs_early_talk || !line.starts_with("improper") {
                        self.log.push(line);
                    }
                    continue;
                }
                Event::StartTls => {
                    self.server.start_tls(self.now);
                    continue;
                }
                Event::Switch => {
                    self.switched += 1;
                    continue;
                }
                Event::Ask(Next::Rcpt | Next::Vrfy) => {
                    let recipient = self.server.recipient().unwrap();
                    match recipient.split('@').next() {
                        Some("bad") => Reply::new(550, [1, 1], format!("<{recipient}>: No")),
                        Some("root") => Reply::bare(252, ""),
                        Some("end") => Reply::new(421, [7, 0], "Enough"),
                        _ => Reply::new(250, [1, 5], "Ok"),
                    }
                }
                Event::Ask(Next::Data) => {
                    self.arriving.clear();
                    Reply::bare(354, &GO_AHEAD[4..])
                }
                Event::Ask(Next::Auth) => self.judge_auth(),
                Event::Ask(_) => Reply::new(250, [0, 0], "Ok"),
                Event::EndOfData(end) => match end.fault {
                    None => {
                        self.content.append(&mut self.arriving);
                        let octets = if end.chunked { format!("{} bytes ", end.octets) } else { String::new() };
                        Reply::new(250, [0, 0], format!("Ok: {octets}queued as X"))
                    }
                    Some(ContentFault::TooLarge) => Reply::new(552, [3, 4], "Error: message file too big"),
                    Some(ContentFault::BareNewline) => self.server.bare_newline_reply(),
                },
            };
            self.server.reply(&reply, self.now);
        }
        if let Some(output) = self.server.take_output() {
            self.output.push_str(&String::from_utf8(output).unwrap());
        }
    }

    /// Answer AUTH: `AUTH PLAIN` gets a challenge; `right` is the answer, and `*` ends the exchange.
    fn judge_auth(&mut self) -> Reply {
        let said = self.server.argument().to_owned();
        match said.split(' ').collect::<Vec<_>>()[..] {
            ["PLAIN"] => Reply::bare(334, ""),
            ["PLAIN", "right"] | ["right"] => {
                self.server.authenticate("PLAIN", "us\ner");
                Reply::new(235, [7, 0], "Authentication successful")
            }
            ["*"] => Reply::new(501, [7, 0], "Authentication aborted"),
            _ => Reply::new(535, [7, 8], "Error: authentication failed"),
        }
    }

    fn say(&mut self, bytes: &[u8]) -> &mut Self {
        self.server.receive(bytes, self.now);
        self.run();
        self
    }

    /// Play an input and end it, `step` octets at a time.
    fn play(config: ServerConfig, input: &[u8], step: usize) -> Self {
        let mut talk = Self::new(config);
        talk.run();
        for chunk in input.chunks(step.max(1)) {
            talk.say(chunk);
            while talk.server.is_sleeping() {
                talk.now = talk.server.deadline();
                talk.server.timeout(talk.now);
                talk.run();
            }
        }
        talk.server.eof();
        talk.run();
        talk
    }
}

/// Play an input whole and in small steps; the replies after the greeting must always be the same.
fn replies(config: &ServerConfig, input: &[u8]) -> String {
    let whole = Talk::play(config.clone(), input, input.len());
    for step in [1, 2, 3, 7] {
        let parts = Talk::play(config.clone(), input, step);
        assert_eq!(parts.output, whole.output, "{step} octets at a time");
        assert_eq!(parts.content, whole.content);
        assert_eq!(parts.server.counts(), whole.server.counts());
        assert_eq!(parts.server.ended(), whole.server.ended());
    }
    whole.output.strip_prefix(GREETING).unwrap().to_owned()
}

#[test]
fn a_message_is_accepted() {
    let input = b"EHLO client\r\nMAIL FROM:<a@b.org> SIZE=5\r\nRCPT TO:<c@d.org>\r\nDATA\r\nhi\r\n..\r\n.\r\nQUIT\r\n";
    let expected =
        format!("{EHLO}250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n{GO_AHEAD}\r\n250 2.0.0 Ok: queued as X\r\n221 2.0.0 Bye\r\n");
    assert_eq!(replies(&config(), input), expected);
    let talk = Talk::play(config(), input, 5);
    assert_eq!(talk.content, b"hi\r\n..\r\n");
    assert_eq!(talk.server.ended(), Some(Ending::Orderly));
    assert_eq!(talk.server.counts(), " ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5");
    assert_eq!(talk.log, [""; 0]);
}

#[test]
fn commands_are_answered_in_postfix_words() {
    let mut required = config();
    required.helo_required = true;
    let mut no_vrfy = config();
    no_vrfy.disable_vrfy = true;
    for (config, input, expected) in [
        (config(), "HELO", "501 Syntax: HELO hostname"),
        (config(), "EHLO", "501 Syntax: EHLO hostname"),
        (config(), "HELO a b", "250 mx.example.org"),
        (config(), "MAIL", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        (config(), "MAIL FROM:<a b>", "501 5.1.7 Bad sender address syntax"),
        (config(), "MAIL FROM:<a@b.org>\r\nMAIL FROM:<a@b.org>", "250 2.1.0 Ok\n503 5.5.1 Error: nested MAIL command"),
        (required, "MAIL FROM:<a@b.org>", "503 5.5.1 Error: send HELO/EHLO first"),
        (config(), "RCPT TO:<a@b.org>", "503 5.5.1 Error: need MAIL command"),
        (config(), "MAIL FROM:<>\r\nRCPT TO:<>", "250 2.1.0 Ok\n501 5.1.3 Bad recipient address syntax"),
        (config(), "MAIL FROM:<>\r\nRCPT TO:<bad@b.org>", "250 2.1.0 Ok\n550 5.1.1 <bad@b.org>: No"),
        (config(), "DATA", "503 5.5.1 Error: need RCPT command"),
        (config(), "MAIL FROM:<>\r\nDATA", "250 2.1.0 Ok\n554 5.5.1 Error: no valid recipients"),
        (config(), "MAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA x", "250 2.1.0 Ok\n250 2.1.5 Ok\n501 5.5.4 Syntax: DATA"),
        (
            config(),
            "MAIL FROM:<>\r\nRSET\r\nRCPT TO:<a>",
            "250 2.1.0 Ok\n250 2.0.0 Ok\n503 5.5.1 Error: need MAIL command",
        ),
        (
            config(),
            "MAIL FROM:<>\r\nHELO x\r\nRCPT TO:<a>",
            "250 2.1.0 Ok\n250 mx.example.org\n503 5.5.1 Error: need MAIL command",
        ),
        (config(), "RSET x", "501 5.5.4 Syntax: RSET"),
        (config(), "NOOP x", "250 2.0.0 Ok"),
        (config(), "NOOP\r\r", "250 2.0.0 Ok"),
        (config(), "\r\r", "500 5.5.2 Error: bad syntax"),
        (config(), "VRFY", "501 5.5.4 Syntax: VRFY address [SMTPUTF8]"),
        (config(), "VRFY root@example.org", "252 2.0.0 root@example.org"),
        (config(), "VRFY bad", "550 5.1.1 <bad>: No"),
        (no_vrfy, "VRFY root", "502 5.5.1 VRFY command is disabled"),
        (config(), "HELP", "214 2.0.0 Commands: BDAT DATA EHLO HELO HELP MAIL NOOP QUIT RCPT RSET VRFY"),
        (config(), "STARTTLS", "502 5.5.1 Error: command not implemented"),
        (config(), "AUTH PLAIN", "503 5.5.1 Error: authentication not enabled"),
        (config(), "MAIL FROM:<a@b.org> AUTH=<>", "250 2.1.0 Ok"),
        (config(), "MAIL FROM:<a@b.org> AUTH=a+ZZ", "250 2.1.0 Ok"),
        (config(), "ETRN x", "502 5.5.1 Error: command not implemented"),
        (config(), "BDAT 6\r\nQUIT", "503 5.5.1 Error: need RCPT command"),
        (config(), "EXPN x", "500 5.5.2 Error: command not recognized"),
        (config(), "", "500 5.5.2 Error: bad syntax"),
        (config(), "  \t", "500 5.5.2 Error: bad syntax"),
        (config(), "NOOP \0", "500 5.5.2 Error: bad syntax"),
        (config(), "GET / HTTP/1.0\r\nHost: x", "221 2.7.0 Error: I can break rules, too. Goodbye."),
        (config(), "Host: x\r\nNOOP", "221 2.7.0 Error: I can break rules, too. Goodbye."),
        (config(), "\u{1}\u{2}\r\nNOOP", "221 2.7.0 Error: I can break rules, too. Goodbye."),
        (config(), "MAIL FROM:<>\r\nRCPT TO:<end@b>\r\nNOOP", "250 2.1.0 Ok\n421 4.7.0 Enough"),
    ] {
        let got = replies(&config, format!("{input}\r\n").as_bytes());
        assert_eq!(got.trim_end().replace("\r\n", "\n"), expected, "{input:?}");
    }
    assert_eq!(replies(&config(), b"NOOP \xff\xfe\r\n"), "500 5.5.2 Error: bad UTF-8 syntax\r\n");
}

#[test]
fn recipients_are_limited_and_a_message_can_still_be_sent() {
    let mut input = b"MAIL FROM:<>\r\n".to_vec();
    for n in 0..6 {
        input.extend_from_slice(format!("RCPT TO:<r{n}@d.org>\r\n").as_bytes());
    }
    input.extend_from_slice(b"DATA\r\n.\r\n");
    let got = replies(&config(), &input);
    assert_eq!(got.matches("250 2.1.5 Ok").count(), 3);
    assert_eq!(got.matches("452 4.5.3 Error: too many recipients").count(), 3);
    assert!(got.ends_with("250 2.0.0 Ok: queued as X\r\n"));
    // Two overshoots are forgiven, the third is an error.
    assert!(Talk::play(config(), &input, 9).server.counts().starts_with(" mail=1 rcpt=5/6 data=1"));
}

#[test]
fn a_message_that_is_refused_at_its_end_leaves_no_trace() {
    let mut input = b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n".to_vec();
    input.extend_from_slice(&b"0123456789\r\n".repeat(100));
    input.extend_from_slice(b".\r\nRCPT TO:<b>\r\nDATA\r\n");
    let got = replies(&config(), &input);
    assert!(got.contains("552 5.3.4 Error: message file too big\r\n503 5.5.1 Error: need MAIL command\r\n"));
    assert!(got.ends_with("503 5.5.1 Error: need RCPT command\r\n"));
    assert!(Talk::play(config(), &input, 50).content.len() <= 1000);
}

#[test]
fn a_smuggled_message_stays_content() {
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\n.\r", "\r\n.\r", "\r\n\0.\r\n", "\r\n.\0\r\n", "\r\n.\r\r\n"]
    {
        let smuggled = format!("a{end}MAIL FROM:<x@y>\r\nRCPT TO:<z>\r\nDATA\r\nsmuggled\r\n.\r\n");
        let input = format!("MAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n{smuggled}QUIT\r\n");
        let got = replies(&config(), input.as_bytes());
        assert_eq!(got.matches("queued as").count(), 1, "{end:?}");
        assert!(got.ends_with("221 2.0.0 Bye\r\n"));
    }
}

#[test]
fn bare_newlines_are_noted_or_refused() {
    let input = b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\nx\ny\r\n.\r\nNOOP\n";
    let note = ServerConfig { bare_newline: BareNewline::Note, ..config() };
    let talk = Talk::play(note, input, 4);
    assert_eq!(talk.content, b"x\r\ny\r\n");
    assert_eq!(talk.log, ["bare <LF> received after DATA (8 bytes) from client.example.org[192.0.2.1]"]);
    let reject = ServerConfig { bare_newline: BareNewline::Reject, ..config() };
    let got = replies(&reject, input);
    assert!(got.ends_with(
        "550 5.5.2 mx.example.org Error: bare <LF> received\r\n550 5.5.2 mx.example.org Error: bare <LF> received\r\n"
    ));
    let no = ServerConfig { bare_newline: BareNewline::No, ..config() };
    let got = replies(&no, b"MAIL FROM:<>\nRCPT TO:<a>\nDATA\nx\n.\nQUIT\n");
    assert!(got.ends_with("250 2.0.0 Ok: queued as X\r\n221 2.0.0 Bye\r\n"));
}

#[test]
fn a_client_that_pipelines_too_early_is_disconnected() {
    let strict = || ServerConfig { forbid_unauth_pipelining: true, ..config() };
    for input in
        ["EHLO x\r\nMAIL FROM:<>\r\n", "MAIL FROM:<>\r\nRSET\r\n", "NOOP\r\nQUIT\r\n", "HELO x\r\n\r\n", "VRFY a\r\nx"]
    {
        let mut talk = Talk::new(strict());
        talk.say(input.as_bytes());
        assert_eq!(talk.output, format!("{GREETING}554 5.5.0 Error: SMTP protocol synchronization\r\n"), "{input:?}");
        assert_eq!(talk.server.ended(), Some(Ending::Orderly));
        assert!(talk.log[0].starts_with("improper command pipelining after "), "{:?}", talk.log);
    }
    let mut talk = Talk::new(strict());
    talk.say(b"EHLO x\r\n").say(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\nSubject: x\r\n\xff\\\r\n.\r\n");
    assert!(talk.output.ends_with("554 5.5.0 Error: SMTP protocol synchronization\r\n"));
    assert_eq!(
        talk.log,
        ["improper command pipelining after DATA from client.example.org[192.0.2.1]: \
          Subject: x\\r\\n\\377\\\\\\r\\n.\\r\\n"]
    );
    // A whole transaction in one packet, as RFC 2920 allows, and the next one behind the dot.
    let mut talk = Talk::new(strict());
    talk.say(b"EHLO x\r\n").say(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n").say(b".\r\nMAIL FROM:<>\r\nQUIT\r\n");
    assert!(talk.output.ends_with("queued as X\r\n250 2.1.0 Ok\r\n221 2.0.0 Bye\r\n"));
}

#[test]
fn a_client_that_speaks_before_the_greeting_is_disconnected() {
    for (forbid, expected) in [(true, "554 5.5.0 Error: SMTP protocol synchronization\r\n"), (false, GREETING)] {
        let config = ServerConfig { forbid_unauth_pipelining: forbid, ..config() };
        let mut server = Server::new(Arc::new(config), "x[192.0.2.1]", false, 0.0);
        server.receive(b"EHLO x\r\n", 0.0);
        server.greet(0.1);
        let Event::Log(_, line) = server.next_event(|_| ()) else { panic!("no log line") };
        assert_eq!(line, "improper command pipelining after CONNECT from x[192.0.2.1]: EHLO x\\r\\n");
        assert_eq!(String::from_utf8(server.take_output().unwrap()).unwrap(), expected);
    }
}

#[test]
fn soft_bounce_refuses_nothing_permanently() {
    let mut talk = Talk::new(ServerConfig { soft_bounce: true, ..config() });
    talk.say(b"x\r\nEHLO\r\nMAIL FROM:\r\n");
    let codes: Vec<&str> = talk.output.lines().skip(1).map(|line| &line[..9]).collect();
    assert_eq!(codes, ["400 4.5.2", "401 Synta", "401 4.5.4"], "{}", talk.output);
    talk.say(b"EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n");
    assert!(!talk.output.contains("\n5"), "{}", talk.output);
}

#[test]
fn errors_slow_a_client_down_and_then_end_the_session() {
    let config = ServerConfig { soft_error_limit: 2, hard_error_limit: 4, ..config() };
    let mut talk = Talk::new(config);
    talk.say(b"x\r\nx\r\n");
    assert_eq!(talk.output.matches("500 ").count(), 2);
    talk.say(b"x\r\nx\r\nx\r\n");
    // The third reply waits a second; the next line is not read before.
    assert_eq!(talk.output.matches("500 ").count(), 2);
    assert_eq!(talk.server.deadline(), 1.0);
    for now in [1.0, 2.0, 3.0] {
        talk.now = now;
        talk.server.timeout(now);
        talk.run();
    }
    assert!(talk.output.ends_with(
        "500 5.5.2 Error: command not recognized\r\n\
                                   421 4.7.0 mx.example.org Error: too many errors\r\n"
    ));
    assert_eq!(talk.server.ended(), Some(Ending::TooManyErrors));
    assert_eq!(talk.server.counts(), " unknown=0/4 commands=0/4");
}

#[test]
fn junk_commands_become_errors() {
    let config = ServerConfig { junk_command_limit: 5, hard_error_limit: 10, error_sleep_s: 0.0, ..config() };
    let talk = Talk::play(config, &b"RSET\r\n".repeat(1000), 64);
    assert_eq!(talk.server.ended(), Some(Ending::TooManyErrors));
    assert_eq!(talk.server.counts(), " rset=16 commands=16");
}

#[test]
fn a_long_line_costs_an_error_and_no_memory() {
    for (octets, step) in [(2049, 2049), (5000, 100), (1_000_000, 4096)] {
        let mut input = vec![b'x'; octets];
        input.extend_from_slice(b"\r\nNOOP\r\n");
        let talk = Talk::play(config(), &input, step);
        assert_eq!(talk.output, format!("{GREETING}500 5.5.2 Error: line too long\r\n250 2.0.0 Ok\r\n"));
        assert_eq!(
            talk.log,
            [format!("client.example.org[192.0.2.1]: request longer than 2048: {}...", "x".repeat(30))]
        );
        assert!(talk.server.wants_input());
    }
}

#[test]
fn a_line_that_ends_with_many_crs_has_the_same_result_in_any_split() {
    let config = || ServerConfig { line_length_limit: 100, ..config() };
    for (count, reply) in [(1, "250 2.0.0 Ok"), (98, "250 2.0.0 Ok"), (99, "500 5.5.2 Error: line too long")] {
        let input = format!("NOOP{}\n", "\r".repeat(count));
        for step in 1..=input.len() {
            let talk = Talk::play(config(), input.as_bytes(), step);
            assert_eq!(talk.output, format!("{GREETING}{reply}\r\n"), "{count} CRs, {step} octets at a time");
        }
    }
}

#[test]
fn an_idle_client_gets_421() {
    let mut talk = Talk::new(ServerConfig { timeout_s: 10.0, ..config() });
    talk.run();
    talk.now = 5.0;
    talk.say(b"NOO");
    talk.server.timeout(14.9);
    assert_eq!(talk.server.ended(), None);
    talk.server.timeout(15.0);
    talk.run();
    assert_eq!(talk.output, format!("{GREETING}421 4.4.2 mx.example.org Error: timeout exceeded\r\n"));
    assert_eq!(talk.server.ended(), Some(Ending::Timeout));
    assert_eq!(talk.server.place(), "CONNECT");
}

#[test]
fn a_slow_request_ends_with_its_deadline() {
    let mut talk =
        Talk::new(ServerConfig { timeout_s: 10.0, per_request_deadline: true, min_data_rate: 100, ..config() });
    talk.run();
    talk.now = 9.0;
    talk.say(b"NOO");
    assert_eq!(talk.server.deadline(), 10.0);
    talk.say(b"P\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n");
    assert_eq!(talk.server.deadline(), 19.0);
    talk.now = 18.0;
    talk.say(&[b'x'; 100]);
    assert_eq!(talk.server.deadline(), 20.0);
}

#[test]
fn a_client_may_disconnect_at_any_point() {
    let input = b"EHLO c\r\nMAIL FROM:<a@b.org>\r\nRCPT TO:<c@d.org>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n";
    for end in 0..=input.len() {
        let talk = Talk::play(config(), &input[..end], 16);
        let ending = talk.server.ended().expect("the session ends");
        assert_eq!(ending == Ending::Orderly, end == input.len());
        assert!(talk.output.is_empty() || talk.output.ends_with("\r\n"));
    }
    let talk = Talk::play(config(), &input[..59], 16);
    assert_eq!(talk.server.place(), "DATA (5 bytes)");
}

#[test]
fn a_refused_client_may_only_quit() {
    let mut server = Server::new(Arc::new(config()), "x[192.0.2.1]", false, 0.0);
    server.refuse(&Reply::new(554, [7, 1], "<x[192.0.2.1]>: Client host rejected: Access denied"), 0.0);
    server.receive(b"EHLO x\r\nQUIT\r\n", 0.0);
    let mut log = Vec::new();
    while let Event::Log(_, line) = server.next_event(|_| ()) {
        log.push(line);
    }
    assert_eq!(
        String::from_utf8(server.take_output().unwrap()).unwrap(),
        "554 5.7.1 <x[192.0.2.1]>: Client host rejected: Access denied\r\n\
         503 5.7.0 Error: access denied for x[192.0.2.1]\r\n221 2.0.0 Bye\r\n"
    );
    assert_eq!(
        log,
        ["NOQUEUE: reject: CONNECT from x[192.0.2.1]: \
          554 5.7.1 <x[192.0.2.1]>: Client host rejected: Access denied; proto=SMTP"]
    );
}

#[test]
fn rejects_are_logged_like_postfix() {
    let talk = Talk::play(config(), b"EHLO x (y)\r\nMAIL FROM:<a@b.com>\r\nRCPT TO:<bad@other.com>\r\n", 100);
    assert_eq!(
        talk.log,
        ["NOQUEUE: reject: RCPT from client.example.org[192.0.2.1]: 550 5.1.1 <bad@other.com>: No; \
          from=<a@b.com> to=<bad@other.com> proto=ESMTP helo=<x??y?>"]
    );
    let talk = Talk::play(config(), b"MAIL FROM:<a@b> SIZE=9999999\r\nMAIL FROM:<a b>\r\n", 100);
    assert_eq!(
        talk.log,
        [
            "NOQUEUE: reject: MAIL from client.example.org[192.0.2.1]: \
             552 5.3.4 Message size exceeds fixed limit; from=<a@b> proto=SMTP",
            "Illegal address syntax from client.example.org[192.0.2.1] in MAIL command: <a b>"
        ]
    );
}

#[test]
fn input_behind_an_open_question_is_limited() {
    let mut server = Server::new(Arc::new(config()), "x[192.0.2.1]", false, 0.0);
    server.greet(0.0);
    server.receive(b"EHLO x\r\n", 0.0);
    assert_eq!(server.next_event(|_| ()), Event::Idle);
    server.receive(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\n", 0.0);
    assert_eq!(server.next_event(|_| ()), Event::Ask(Next::Rcpt));
    assert!(server.wants_input());
    server.receive(&[b'x'; READ_AHEAD_MAX_OCTETS], 0.0);
    assert_eq!(server.next_event(|_| ()), Event::Idle);
    assert!(!server.wants_input());
}

#[test]
fn a_shutdown_lets_a_message_in_progress_end() {
    let mut talk = Talk::new(config());
    talk.say(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\nx");
    assert!(!talk.server.shut_down(1.0));
    talk.say(b"\r\n.\r\n");
    assert!(talk.server.shut_down(1.0));
    talk.run();
    assert!(talk.output.ends_with(
        "queued as X\r\n421 4.3.2 mx.example.org Service not available, closing \
                                   transmission channel\r\n"
    ));
}

fn dialogue() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        &b"EHLO x\r\n"[..],
        b"MAIL FROM:<a@b.org>\r\n",
        b"MAIL FROM:<> SIZE=5000\r\n",
        b"RCPT TO:<c@d.org>\r\n",
        b"RCPT TO:<bad@d.org>\r\n",
        b"DATA\r\n",
        b"BDAT 6\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 9 LAST\r\n",
        b"BDAT 5000\r\n",
        b"text\r\n.\r\n",
        b".\r\n",
        b"\n.\n",
        b"\r\n",
        b"RSET\r\n",
        b"VRFY a\r\n",
        b"\0\xff\r",
        b"QUIT\r\n",
        b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ]);
    prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_replies(input in dialogue(), step in 1usize..40, rejects in any::<bool>()) {
        let bare_newline = if rejects { BareNewline::Reject } else { BareNewline::Normalize };
        let config = ServerConfig { line_length_limit: 100, bare_newline, ..config() };
        let whole = Talk::play(config.clone(), &input, input.len());
        let parts = Talk::play(config, &input, step);
        prop_assert_eq!(&parts.output, &whole.output);
        prop_assert_eq!(parts.content, whole.content);
        prop_assert_eq!(parts.log, whole.log);
        prop_assert!(whole.output.split_inclusive('\n').all(|line| line.ends_with("\r\n")));
    }

    #[test]
    fn no_bytes_cause_a_panic(input in prop::collection::vec(any::<u8>(), 0..300), step in 1usize..300) {
        Talk::play(config(), &input, step);
    }
}

#[test]
fn a_client_stays_authenticated_until_the_end() {
    let config = ServerConfig { auth_mechanisms: vec!["LOGIN".into(), "PLAIN".into()], ..config() };
    let long = format!("EHLO x\r\nAUTH PLAIN\r\n{}\r\nQUIT", "x".repeat(config.auth_line_limit + 1));
    for (input, expected, user, counts) in [
        ("AUTH PLAIN", "503 5.5.1 Error: send HELO/EHLO first", None, " auth=0/1 commands=0/1"),
        ("EHLO x\r\nAUTH", "ehlo\n501 5.5.4 Syntax: AUTH mechanism", None, " ehlo=1 auth=0/1 commands=1/2"),
        ("EHLO x\r\nAUTH A b c", "ehlo\n501 5.5.4 Syntax: AUTH mechanism", None, " ehlo=1 auth=0/1 commands=1/2"),
        (
            "EHLO x\r\nAUTH PLAIN\r\nright\r\nNOOP",
            "ehlo\n334 \n235 2.7.0 Authentication successful\n250 2.0.0 Ok",
            Some("us?er"),
            " ehlo=1 auth=1 noop=1 commands=3",
        ),
        (
            "EHLO x\r\nauth PLAIN right\r\nEHLO x\r\nAUTH PLAIN",
            "ehlo\n235 2.7.0 Authentication successful\nehlo\n503 5.5.1 Error: already authenticated",
            Some("us?er"),
            " ehlo=2 auth=1/2 commands=3/4",
        ),
        (
            "EHLO x\r\nAUTH PLAIN wrong\r\nAUTH PLAIN\r\n*\r\nAUTH PLAIN\r\nQUIT\r\nNOOP",
            "ehlo\n535 5.7.8 Error: authentication failed\n334 \n501 5.7.0 Authentication aborted\n334 \n\
             535 5.7.8 Error: authentication failed\n250 2.0.0 Ok",
            None,
            " ehlo=1 auth=0/3 noop=1 commands=2/5",
        ),
        (
            "EHLO x\r\nMAIL FROM:<> AUTH=<>\r\nMAIL FROM:<>\r\nAUTH PLAIN right",
            "ehlo\n250 2.1.0 Ok\n503 5.5.1 Error: nested MAIL command\n\
             503 5.5.1 Error: MAIL transaction in progress",
            None,
            " ehlo=1 auth=0/1 mail=1/2 commands=2/4",
        ),
        (
            "EHLO x\r\nAUTH PLAIN right\r\nMAIL FROM:<> AUTH=a+40b",
            "ehlo\n235 2.7.0 Authentication successful\n250 2.1.0 Ok",
            Some("us?er"),
            " ehlo=1 auth=1 mail=1 commands=3",
        ),
        (
            &long,
            "ehlo\n334 \n500 5.5.6 Authentication Exchange line is too long",
            None,
            " ehlo=1 auth=0/1 commands=1/2",
        ),
    ] {
        let said = replies(&config, format!("{input}\r\n").as_bytes());
        let ehlo = EHLO.replace("250-ENH", "250-AUTH LOGIN PLAIN\r\n250-ENH");
        assert_eq!(
            said,
            format!("{expected}\n").replace("ehlo\n", &ehlo.replace('\r', "")).replace('\n', "\r\n"),
            "{input}"
        );
        let talk = Talk::play(config.clone(), format!("{input}\r\n").as_bytes(), 5);
        assert_eq!(talk.server.identity().map(|identity| &*identity.user), user, "{input}");
        assert_eq!(talk.server.counts(), counts, "{input}");
        assert_eq!(talk.server.protocol() == "ESMTPA", user.is_some());
    }
}
