//! STARTTLS: the commands before and behind it, and the state that it clears.

use super::super::config::ServerConfig;
use super::super::{Ending, Event, Mode, Server};
use super::{GREETING, Talk, config};
use crate::log::Severity;
use crate::mail::reply::Reply;
use crate::tls::settings::Level;
use std::sync::Arc;

const READY: &str = "220 2.0.0 Ready to start TLS\r\n";
const TLS_FIRST: &str = "530 5.7.0 Must issue a STARTTLS command first\r\n";
const PEER: &str = "client.example.org[192.0.2.1]";

fn with_tls(level: Level) -> ServerConfig {
    ServerConfig { tls: level, auth_mechanisms: vec!["PLAIN".into()], ..config() }
}

/// A session that has begun.
fn talk(level: Level) -> Talk {
    let mut talk = Talk::new(with_tls(level));
    talk.run();
    assert_eq!(said(&mut talk), GREETING);
    talk
}

/// Return the replies since the last call.
fn said(talk: &mut Talk) -> String {
    std::mem::take(&mut talk.output)
}

fn answer(talk: &mut Talk, line: &str) -> String {
    talk.say(format!("{line}\r\n").as_bytes());
    said(talk)
}

/// Begin TLS, and complete its handshake.
fn secure(talk: &mut Talk) {
    assert_eq!(answer(talk, "STARTTLS"), READY);
    talk.server.secured(None, talk.now);
    talk.run();
}

#[test]
fn starttls_is_refused_in_postfix_words() {
    for (level, secured, line, expected) in [
        (Level::Off, false, "STARTTLS", "502 5.5.1 Error: command not implemented\r\n"),
        (Level::May, false, "STARTTLS x", "501 5.5.4 Syntax: STARTTLS\r\n"),
        (Level::May, true, "STARTTLS", "554 5.5.1 Error: TLS already active\r\n"),
        (Level::May, true, "STARTTLS x", "501 5.5.4 Syntax: STARTTLS\r\n"),
        (Level::May, false, "starttls ", READY),
    ] {
        let mut talk = talk(level);
        if secured {
            secure(&mut talk);
        }
        assert_eq!(answer(&mut talk, line), expected, "{line}");
        assert_eq!(talk.switched, u32::from(secured || expected == READY));
    }
}

#[test]
fn a_discarded_keyword_disables_starttls() {
    let mut talk = Talk::new(ServerConfig { discard_ehlo_keywords: vec!["STARTTLS".into()], ..with_tls(Level::May) });
    assert!(!answer(&mut talk, "EHLO a").contains("STARTTLS"));
    assert!(answer(&mut talk, "STARTTLS").starts_with("502 5.5.1 "));
}

#[test]
fn starttls_works_in_every_state_between_commands() {
    for script in [
        &[][..],
        &["HELO a"],
        &["EHLO a"],
        &["EHLO a", "MAIL FROM:<a@b.org>"],
        &["EHLO a", "MAIL FROM:<a@b.org>", "RCPT TO:<c@d.org>"],
        &["EHLO a", "MAIL FROM:<a@b.org>", "RCPT TO:<c@d.org>", "BDAT 1\r\nx"],
    ] {
        let mut talk = talk(Level::May);
        for line in script {
            talk.say(line.as_bytes());
            talk.say(if line.starts_with("BDAT") { b"" } else { b"\r\n" });
        }
        said(&mut talk);
        secure(&mut talk);
        assert_eq!(answer(&mut talk, "RCPT TO:<c@d.org>"), "503 5.5.1 Error: need MAIL command\r\n", "{script:?}");
        assert_eq!(talk.content, b"");
    }
}

#[test]
fn mail_needs_tls_where_it_is_required() {
    let refused =
        ["MAIL FROM:<a@b.org>", "RCPT TO:<c@d.org>", "DATA", "BDAT 1 LAST", "RSET", "VRFY a", "AUTH PLAIN", "ETRN a"];
    for line in refused {
        let mut talk = talk(Level::Encrypt);
        answer(&mut talk, "EHLO a");
        assert_eq!(answer(&mut talk, line), TLS_FIRST, "{line}");
        assert!(answer(&mut talk, "MAIL FROM:<a@b.org>").starts_with("530 "), "{line}");
        secure(&mut talk);
        assert_ne!(answer(&mut talk, line), TLS_FIRST, "{line}");
    }
    for (line, code) in
        [("NOOP", "250"), ("HELP", "214"), ("HELO a", "250"), ("EHLO a", "250"), ("FROB", "500"), ("QUIT", "221")]
    {
        assert!(answer(&mut talk(Level::Encrypt), line).starts_with(code), "{line}");
    }
}

#[test]
fn plaintext_behind_starttls_is_forgotten_however_it_is_split() {
    let input = b"EHLO a\r\nSTARTTLS\r\nNOOP\r\nMAIL FROM:<evil@b.org>\r\nRCPT TO:<c@";
    for at in 0..=input.len() {
        let mut talk = talk(Level::May);
        talk.say(&input[..at]);
        talk.say(&input[at..]);
        assert!(talk.output.ends_with(READY), "{at}");
        said(&mut talk);
        talk.server.secured(None, 0.0);
        talk.run();
        assert_eq!(said(&mut talk), "", "{at}");
        assert_eq!(answer(&mut talk, "d.org>\r\nRCPT TO:<c@d.org>").lines().count(), 2, "{at}");
        assert_eq!(talk.server.sender(), None, "{at}");
        assert!(!talk.server.counts().contains("noop"), "{at}");
    }
}

#[test]
fn the_dialogue_begins_anew_behind_the_handshake() {
    let mut talk = talk(Level::May);
    let ehlo = answer(&mut talk, "EHLO a");
    assert!(ehlo.contains("250-STARTTLS\r\n250-AUTH PLAIN\r\n"));
    assert!(answer(&mut talk, "AUTH PLAIN right").starts_with("235 "));
    answer(&mut talk, "MAIL FROM:<a@b.org>");
    answer(&mut talk, "RCPT TO:<c@d.org>");
    secure(&mut talk);
    let server = &talk.server;
    assert!(server.is_secured() && server.helo().is_none() && server.identity().is_none());
    assert!(server.transaction().is_none() && !server.is_extended());
    let inside = ehlo.replace("250-STARTTLS\r\n", "").replace("250 CHUNKING", "250-CHUNKING");
    assert_eq!(answer(&mut talk, "EHLO a"), format!("{inside}250 REQUIRETLS\r\n"));
    assert_eq!((talk.server.protocol(), talk.server.received_protocol(false)), ("ESMTP", "ESMTPS"));
    answer(&mut talk, "AUTH PLAIN right");
    assert_eq!(talk.server.received_protocol(false), "ESMTPSA");
    answer(&mut talk, "HELO a");
    assert_eq!(talk.server.counts(), " helo=1 ehlo=2 starttls=1 auth=2 mail=1 rcpt=1 commands=8");
}

#[test]
fn requiretls_is_a_parameter_only_inside_tls_and_where_it_is_offered() {
    let unknown = "555 5.5.4 Unsupported option: REQUIRETLS\r\n";
    for (secured, enabled, discards, reply) in [
        (false, true, "", unknown),
        (true, true, "", "250 2.1.0 Ok\r\n"),
        (true, false, "", unknown),
        (true, true, "REQUIRETLS", unknown),
    ] {
        let discard_ehlo_keywords = vec![discards.into()];
        let mut talk = Talk::new(ServerConfig { requiretls: enabled, discard_ehlo_keywords, ..with_tls(Level::May) });
        talk.run();
        said(&mut talk);
        if secured {
            secure(&mut talk);
        }
        let name = format!("{secured} {enabled} {discards}");
        assert_eq!(answer(&mut talk, "EHLO a").contains("REQUIRETLS"), reply != unknown, "{name}");
        assert_eq!(answer(&mut talk, "MAIL FROM:<a@b.org> REQUIRETLS"), reply, "{name}");
        let mail = talk.server.transaction().map(|transaction| transaction.mail.requiretls);
        assert_eq!(mail, (reply != unknown).then_some(true), "{name}");
        // The request belongs to one message.
        answer(&mut talk, "RSET");
        answer(&mut talk, "MAIL FROM:<a@b.org>");
        assert!(!talk.server.transaction().unwrap().mail.requiretls);
    }
}

#[test]
fn requiretls_has_no_value() {
    let mut talk = talk(Level::May);
    secure(&mut talk);
    answer(&mut talk, "EHLO a");
    let reply = answer(&mut talk, "MAIL FROM:<a@b.org> REQUIRETLS=yes");
    assert_eq!(reply, "555 5.5.4 Unsupported option: REQUIRETLS=yes\r\n");
    assert!(talk.server.transaction().is_none());
}

#[test]
fn helo_behind_the_handshake_has_no_name_for_tls() {
    let mut talk = talk(Level::May);
    secure(&mut talk);
    answer(&mut talk, "HELO a");
    assert_eq!(talk.server.received_protocol(false), "SMTP");
}

#[test]
fn auth_may_need_tls() {
    let mut talk = Talk::new(ServerConfig { auth_needs_tls: true, ..with_tls(Level::May) });
    assert!(!answer(&mut talk, "EHLO a").contains("AUTH"));
    for line in ["AUTH PLAIN right", "AUTH PLAIN", "AUTH"] {
        assert_eq!(answer(&mut talk, line), "503 5.5.1 Error: authentication not enabled\r\n");
        assert_eq!(talk.server.identity(), None);
    }
    secure(&mut talk);
    assert!(answer(&mut talk, "EHLO a").contains("250-AUTH PLAIN\r\n"));
    assert!(answer(&mut talk, "AUTH PLAIN right").starts_with("235 "));
}

#[test]
fn a_handshake_has_its_own_deadline() {
    let mut talk = Talk::new(ServerConfig { starttls_timeout_s: 7.0, timeout_s: 100.0, ..with_tls(Level::May) });
    talk.now = 50.0;
    answer(&mut talk, "STARTTLS");
    assert_eq!(talk.server.deadline(), 57.0);
    talk.server.timeout(56.9);
    assert_eq!(talk.server.ended(), None);
    talk.server.timeout(57.0);
    talk.run();
    assert_eq!((talk.server.ended(), said(&mut talk)), (Some(Ending::Lost), String::new()));
    assert_eq!(talk.log, [format!("SSL_accept error from {PEER}: Connection timed out")]);
    assert_eq!(talk.server.counts(), " starttls=0/1 commands=0/1");
}

#[test]
fn the_session_has_its_usual_deadline_behind_the_handshake() {
    let mut talk = Talk::new(ServerConfig { starttls_timeout_s: 7.0, timeout_s: 100.0, ..with_tls(Level::May) });
    answer(&mut talk, "STARTTLS");
    talk.server.secured(None, 5.0);
    assert_eq!(talk.server.deadline(), 105.0);
}

#[test]
fn a_shutdown_ends_a_handshake_without_a_word() {
    let mut talk = talk(Level::May);
    answer(&mut talk, "STARTTLS");
    assert!(talk.server.shut_down(1.0));
    talk.run();
    assert_eq!((talk.server.ended(), said(&mut talk)), (Some(Ending::Lost), String::new()));
}

#[test]
fn a_failed_handshake_ends_the_session_without_a_word() {
    for (problems, expected) in [(vec![], "lost connection"), (vec!["error:1".to_owned(), "error:2".to_owned()], "-1")]
    {
        let mut talk = talk(Level::May);
        answer(&mut talk, "STARTTLS");
        talk.server.insecure(&problems, 1.0);
        talk.say(b"NOOP\r\n");
        assert_eq!((talk.server.ended(), said(&mut talk)), (Some(Ending::Lost), String::new()));
        let mut log = vec![format!("SSL_accept error from {PEER}: {expected}")];
        log.extend(problems.iter().map(|problem| format!("TLS library problem: {problem}")));
        assert_eq!(talk.log, log);
    }
}

#[test]
fn a_channel_that_fails_later_is_no_failed_handshake() {
    let mut talk = talk(Level::May);
    secure(&mut talk);
    talk.server.insecure(&[], 1.0);
    talk.run();
    assert_eq!((talk.server.ended(), talk.log.len()), (Some(Ending::Lost), 0));
}

#[test]
fn a_client_that_leaves_the_handshake_is_lost() {
    let mut talk = talk(Level::May);
    answer(&mut talk, "STARTTLS");
    talk.server.eof();
    talk.run();
    assert_eq!((talk.server.ended(), said(&mut talk)), (Some(Ending::Lost), String::new()));
    assert_eq!(talk.log, [format!("SSL_accept error from {PEER}: lost connection")]);
}

#[test]
fn a_refusal_behind_the_handshake_is_the_reply_to_the_next_command() {
    let mut talk = talk(Level::Encrypt);
    answer(&mut talk, "STARTTLS");
    talk.server.secured(Some(Reply::new(421, [7, 1], "no")), 0.0);
    talk.run();
    assert_eq!(said(&mut talk), "");
    assert_eq!(answer(&mut talk, "EHLO a"), "421 4.7.1 no\r\n");
    assert_eq!(talk.server.ended(), Some(Ending::Orderly));
}

#[test]
fn a_wrapped_session_is_greeted_behind_its_handshake() {
    let mut server = Server::new(Arc::new(with_tls(Level::Encrypt)), PEER, false, 0.0);
    server.wrap(0.0);
    assert_eq!((server.next_event(|_| ()), server.take_output()), (Event::Idle, None));
    server.secured(None, 1.0);
    assert_eq!(server.take_output(), None);
    server.greet(1.0);
    assert_eq!(server.take_output().unwrap(), GREETING.as_bytes());
    for line in [&b"EHLO a\r\n"[..], b"STARTTLS\r\n", b"MAIL FROM:<>\r\n"] {
        server.receive(line, 1.0);
        assert_eq!(server.next_event(|_| ()), Event::Idle);
    }
    let output = String::from_utf8(server.take_output().unwrap()).unwrap();
    assert!(!output.contains("250-STARTTLS"), "{output}");
    assert!(output.ends_with("554 5.5.1 Error: TLS already active\r\n250 2.1.0 Ok\r\n"), "{output}");
    assert_eq!(server.counts(), " ehlo=1 starttls=0/1 mail=1 commands=2/3");
}

#[test]
fn a_client_goes_on_in_the_clear_where_the_library_fails() {
    let mut server = Server::new(Arc::new(with_tls(Level::May)), PEER, false, 0.0);
    server.greet(0.0);
    server.take_output();
    server.receive(b"STARTTLS\r\n", 0.0);
    assert_eq!(server.next_event(|_| ()), Event::StartTls);
    server.refuse_tls(&[], 0.0);
    assert_eq!(server.next_event(|_| ()), Event::Idle);
    assert_eq!(server.take_output().unwrap(), b"454 4.7.0 TLS not available due to local problem\r\n");
    assert!(!server.is_secured() && matches!(server.mode, Mode::Command));
}

#[test]
fn a_sleep_delays_tls_and_input_of_its_time_is_forgotten() {
    let sleepy = ServerConfig { soft_error_limit: 1, error_sleep_s: 5.0, ..with_tls(Level::May) };
    let mut server = Server::new(Arc::new(sleepy), PEER, false, 0.0);
    server.greet(0.0);
    server.receive(b"FROB\r\n", 0.0);
    assert_eq!(server.next_event(|_| ()), Event::Idle);
    server.timeout(5.0);
    server.take_output();
    server.receive(b"STARTTLS\r\n", 5.0);
    assert_eq!(server.next_event(|_| ()), Event::StartTls);
    server.start_tls(5.0);
    server.receive(b"MAIL FROM:<evil@b.org>\r\n", 6.0);
    assert_eq!((server.next_event(|_| ()), server.take_output()), (Event::Idle, None));
    server.timeout(10.0);
    assert_eq!(server.next_event(|_| ()), Event::Switch);
    assert_eq!(server.take_output().unwrap(), READY.as_bytes());
    assert_eq!(server.deadline(), 10.0 + ServerConfig::default().starttls_timeout_s);
    server.secured(None, 11.0);
    assert_eq!((server.next_event(|_| ()), server.sender()), (Event::Idle, None));
}

#[test]
fn problems_of_the_library_are_warnings() {
    let mut server = Server::new(Arc::new(with_tls(Level::May)), PEER, false, 0.0);
    server.wrap(0.0);
    server.insecure(&["error:1".into()], 0.0);
    let severities: Vec<_> = std::iter::from_fn(|| match server.next_event(|_| ()) {
        Event::Log(severity, _) => Some(severity),
        _ => None,
    })
    .collect();
    assert_eq!(severities, [Severity::Info, Severity::Warning]);
}
