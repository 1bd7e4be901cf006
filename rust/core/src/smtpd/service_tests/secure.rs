//! Sessions with TLS, by an engine without cryptography.

use super::*;
use crate::tls::settings::LogLevel;
use crate::tls::testing::{HELLO, Plains};

const EHLO: &str = "EHLO c.example\r\n";
const READY: &str = "220 2.0.0 Ready to start TLS\r\n";
const SHAKEN: &str = "<shaken>";

fn by_starttls() -> SiteTls {
    SiteTls {
        engines: Arc::new(Plains),
        wrapper: false,
        log_level: LogLevel(1),
        in_received: true,
        asks_for_certificate: false,
        requires_certificate: false,
    }
}

fn wrapped() -> SiteTls {
    SiteTls { wrapper: true, ..by_starttls() }
}

fn picky() -> SiteTls {
    SiteTls { requires_certificate: true, ..by_starttls() }
}

/// A known client of a site with TLS, whose mail to `@next.example` is accepted.
fn begin(tls: fn() -> SiteTls) -> (Fixture, UnixStream) {
    let mut fixture = Fixture::build(0, CleanupSettings::new("mx.example.org"), Some(tls));
    fixture.service.know(known(1), 1e6, false);
    fixture.service.remember(1, "@next.example", Listing::All, 1e6, false);
    let (client, _) = fixture.client(1, 0.0);
    (fixture, client)
}

/// A client whose handshake may begin.
fn before_handshake(tls: fn() -> SiteTls) -> (Fixture, UnixStream) {
    let (mut fixture, mut client) = begin(tls);
    assert!(heard(&mut client).starts_with("220 "));
    assert!(fixture.say(&mut client, EHLO, 0.0).contains("250-STARTTLS\r\n"));
    assert_eq!(fixture.say(&mut client, "STARTTLS\r\n", 0.0), READY);
    (fixture, client)
}

fn hello() -> &'static str {
    std::str::from_utf8(HELLO).unwrap()
}

fn has_line(log: &[String], words: &str) -> bool {
    log.iter().any(|line| line.contains(words))
}

#[test]
fn a_message_comes_through_tls_whatever_the_split() {
    let opening = [hello(), EHLO].concat();
    for step in [1, 2, 3, 7, opening.len()] {
        let (mut fixture, mut client) = before_handshake(by_starttls);
        let mut answers = String::new();
        for words in [&[&opening[..]], &DIALOGUE[1..], &["QUIT\r\n"]].concat() {
            for piece in words.as_bytes().chunks(step) {
                answers += &fixture.say(&mut client, std::str::from_utf8(piece).unwrap(), 1.0);
            }
        }
        assert!(
            answers.starts_with(SHAKEN) && answers.ends_with("221 2.0.0 Bye\r\n><bye>(closed)"),
            "{step}: {answers}"
        );
        assert!(!answers.contains("STARTTLS"), "{step}: {answers}");
        assert_eq!(fixture.memory.records(), 1, "{step}: {answers}");
        let log = fixture.log.take_lines();
        let established = "Anonymous TLS connection established from c.example[192.0.2.1]: TLSv1.3 with cipher NONE";
        assert!(has_line(&log, established), "{log:?}");
        assert!(has_line(&log, " ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7"), "{log:?}");
    }
}

#[test]
fn plaintext_behind_starttls_has_no_effect() {
    let (mut fixture, mut client) = begin(by_starttls);
    heard(&mut client);
    fixture.say(&mut client, EHLO, 0.0);
    let injected = ["STARTTLS\r\n", &DIALOGUE[1..].concat()].concat();
    assert_eq!(fixture.say(&mut client, &injected, 0.0), READY);
    assert_eq!(fixture.say(&mut client, hello(), 0.0), SHAKEN);
    assert_eq!(fixture.say(&mut client, DIALOGUE[2], 0.0), "<503 5.5.1 Error: need MAIL command\r\n>");
    assert_eq!(fixture.memory.records(), 0);
}

#[test]
fn a_wrapped_session_says_nothing_before_its_handshake() {
    let (mut fixture, mut client) = begin(wrapped);
    assert_eq!(heard(&mut client), "");
    assert_eq!(fixture.say(&mut client, "hel", 0.0), "");
    assert_eq!(fixture.say(&mut client, "lo!", 0.0), "<shaken><220 localhost ESMTP Postfix\r\n>");
    assert!(!fixture.say(&mut client, EHLO, 0.0).contains("STARTTLS"));
    assert_eq!(fixture.say(&mut client, "QUIT\r\n", 0.0), "<221 2.0.0 Bye\r\n><bye>(closed)");
}

#[test]
fn a_client_is_turned_away_behind_its_handshake_in_wrapper_mode() {
    let mut fixture = Fixture::build(0, CleanupSettings::new("mx.example.org"), Some(wrapped));
    let (mut client, key) = fixture.client(3, 1.0);
    fixture.service.begin(key, known(3), &Opening::Dismiss("Error: too many".into()), 1.0);
    assert_eq!(heard(&mut client), "");
    let answer = fixture.say(&mut client, hello(), 1.0);
    assert_eq!(answer, "<shaken><421 4.7.0 localhost Error: too many\r\n><bye>(closed)");
}

#[test]
fn nothing_is_said_in_the_clear_behind_a_failed_handshake() {
    for (tls, words) in [(by_starttls as fn() -> SiteTls, "NOOP\r\n"), (by_starttls, "hellx"), (wrapped, "EHLO a\r\n")]
    {
        let (mut fixture, mut client) = if tls().wrapper { begin(tls) } else { before_handshake(tls) };
        assert_eq!(fixture.say(&mut client, words, 0.0), "(closed)");
        let log = fixture.log.take_lines();
        assert!(has_line(&log, "SSL_accept error from c.example[192.0.2.1]: -1"), "{log:?}");
        assert!(has_line(&log, "TLS library problem: error:wrong version number"), "{log:?}");
        assert!(fixture.service.is_empty());
    }
}

#[test]
fn a_handshake_that_takes_too_long_ends_without_a_word() {
    let timeout_s = ServerConfig::default().starttls_timeout_s;
    let (mut fixture, mut client) = before_handshake(by_starttls);
    assert_eq!(fixture.say(&mut client, "hell", 0.0), "");
    fixture.service.sweep(timeout_s - 0.1);
    assert_eq!(heard(&mut client), "");
    fixture.service.sweep(timeout_s);
    assert_eq!(heard(&mut client), "(closed)");
    assert!(has_line(&fixture.log.take_lines(), "SSL_accept error from c.example[192.0.2.1]: Connection timed out"));
}

#[test]
fn a_silent_session_is_told_so_through_tls() {
    let (mut fixture, mut client) = before_handshake(by_starttls);
    fixture.say(&mut client, hello(), 0.0);
    fixture.service.sweep(301.0);
    assert_eq!(heard(&mut client), "<421 4.4.2 localhost Error: timeout exceeded\r\n><bye>(closed)");
}

#[test]
fn a_service_that_stops_ends_handshakes_and_sessions_with_tls() {
    let (mut fixture, mut shaking) = before_handshake(by_starttls);
    let (mut open, _) = fixture.client(1, 0.0);
    fixture.say(&mut open, EHLO, 0.0);
    fixture.say(&mut open, "STARTTLS\r\n", 0.0);
    fixture.say(&mut open, hello(), 0.0);
    fixture.service.stop(1.0);
    assert_eq!(heard(&mut shaking), "(closed)");
    let answer = heard(&mut open);
    assert!(answer.starts_with("<421 4.3.2 ") && answer.ends_with("><bye>(closed)"), "{answer}");
}

#[test]
fn close_notify_ends_a_session_as_a_closed_socket_does() {
    for (words, expected) in
        [("", ""), ("NOOP\r\n", "<250 2.0.0 Ok\r\n>"), ("RSET\r\nQUIT\r\n", "<250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n>")]
    {
        let (mut fixture, mut client) = before_handshake(by_starttls);
        fixture.say(&mut client, &[hello(), EHLO].concat(), 0.0);
        assert_eq!(fixture.say(&mut client, &format!("{words}\x04"), 0.0), format!("{expected}<bye>(closed)"));
        assert!(fixture.service.is_empty());
    }
}

#[test]
fn a_message_before_close_notify_is_queued_and_half_a_one_is_not() {
    for (end, records) in [(".\r\n\x04", 1), ("\x04", 0), (".\r\n\x18", 1), ("\x18", 0)] {
        let (mut fixture, mut client) = before_handshake(by_starttls);
        fixture.say(&mut client, &[hello(), EHLO].concat(), 0.0);
        for words in &DIALOGUE[1..4] {
            fixture.say(&mut client, words, 0.0);
        }
        fixture.say(&mut client, &format!("x\r\n{end}"), 0.0);
        assert_eq!(fixture.memory.records(), records, "{end:?}");
        assert!(fixture.service.is_empty(), "{end:?}");
    }
}

#[test]
fn a_question_is_answered_before_the_session_ends_by_close_notify() {
    let (mut fixture, mut client) = before_handshake(by_starttls);
    fixture.say(&mut client, &[hello(), EHLO].concat(), 0.0);
    fixture.say(&mut client, DIALOGUE[1], 0.0);
    fixture.requests();
    assert_eq!(fixture.say(&mut client, "RCPT TO:<b@other.example>\r\n\x04", 0.0), "");
    let requests = fixture.requests();
    let [Request::Decide(key, Next::Rcpt)] = requests[..] else { panic!("{requests:?}") };
    let session = fixture.service.session(key).unwrap();
    let next = session.lock().unwrap().accept(0.0).unwrap();
    fixture.service.proceed(key, next, 0.0);
    assert_eq!(heard(&mut client), "<250 2.1.5 Ok\r\n><bye>(closed)");
    assert_eq!(fixture.requests(), [Request::Gone(key)]);
}

#[test]
fn a_client_without_the_required_certificate_is_sent_away_at_its_next_command() {
    let (mut fixture, mut client) = before_handshake(picky);
    assert_eq!(fixture.say(&mut client, hello(), 0.0), SHAKEN);
    let answer = fixture.say(&mut client, EHLO, 0.0);
    assert_eq!(answer, "<421 4.7.1 localhost Error: No client certificate presented\r\n><bye>(closed)");
    let abort = "NOQUEUE: abort: TLS from c.example[192.0.2.1]: No client certificate presented";
    assert!(has_line(&fixture.log.take_lines(), abort));
}
