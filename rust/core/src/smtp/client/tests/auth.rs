//! Logins: what the client says to each kind of server, and the status of its mail.

use super::*;
use crate::sasl::testing::Fake;
use crate::sasl::{Credentials, Kind, Kinds, Options, Refusal};

const HELLO: &str = "220 mx ESMTP\r\n|250-mx\r\n250 AUTH ";
const SENT: [&str; 4] = ["ready", "body", "0 Sent 2.0.0 250 ok", "finished"];
const MAIL: &str = "250 ok\r\n|250 ok\r\n|354 go\r\n|250 ok\r\n";
const SAID_MAIL: &str = "MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@x>\r\n|DATA\r\n|body\r\n.\r\n|";
const CANNOT: &str = "SASL authentication failed; cannot authenticate to server mx[192.0.2.1]:";
const NO_COMPATIBLE: &str = "failed 4.7.0 SASL authentication failed: server mx[192.0.2.1] offered no compatible \
     authentication mechanisms for this type of connection security";

fn with_auth(change: impl FnOnce(&mut AuthSettings)) -> ClientSettings {
    let mut settings = settings();
    settings.auth.options = Options::parse(["noanonymous"]).unwrap();
    settings.auth.library = Some(Arc::new(Fake));
    change(&mut settings.auth);
    settings
}

fn user(name: &str, password: &str) -> Login {
    Login::As(Arc::new(Credentials::new(name, password.as_bytes())))
}

fn login(settings: ClientSettings, login: Login, server: &str, bytewise: bool) -> Dialogue {
    let client = Client::new(Arc::new(settings), Peer { login, ..peer() }, 0.0);
    play_on(Dialogue::of(client, &[1]), server, bytewise)
}

#[test]
fn a_client_logs_in_before_its_first_message() {
    for (name, settings, offered, exchange, said) in [
        ("at once", with_auth(|_| {}), "PLAIN LOGIN", "235 ok", "AUTH PLAIN AHUAcA==\r\n|"),
        ("in small letters", with_auth(|_| {}), "plain", "250 well", "AUTH PLAIN AHUAcA==\r\n|"),
        (
            "in steps",
            with_auth(|_| {}),
            "LOGIN",
            "334 VTo=\r\n|334 UDo=\r\n|235 ok",
            "AUTH LOGIN\r\n|dQ==\r\n|cA==\r\n|",
        ),
        (
            "with empty challenges",
            with_auth(|_| {}),
            "LOGIN",
            "334\r\n|334 \r\n|235 ok",
            "AUTH LOGIN\r\n|dQ==\r\n|cA==\r\n|",
        ),
        ("with an empty response", with_auth(|_| {}), "CRAM-MD5", "334 \r\n|235 ok", "AUTH CRAM-MD5\r\n|\r\n|"),
        (
            "without octets",
            with_auth(|auth| auth.filter = Some(Kinds::from_iter(Kind::ALL))),
            "EXTERNAL",
            "235 ok",
            "AUTH EXTERNAL =\r\n|",
        ),
        (
            "with a filter",
            with_auth(|auth| auth.filter = Some([Kind::Login].into_iter().collect())),
            "PLAIN LOGIN",
            "334 VTo=\r\n|334 UDo=\r\n|235 ok",
            "AUTH LOGIN\r\n|dQ==\r\n|cA==\r\n|",
        ),
    ] {
        for bytewise in [false, true] {
            let server = format!("{HELLO}{offered}\r\n|{exchange}\r\n|{MAIL}");
            let dialogue = login(settings.clone(), user("u", "p"), &server, bytewise);
            assert_eq!(dialogue.said, format!("EHLO me\r\n|{said}{SAID_MAIL}"), "{name}");
            assert_eq!(dialogue.events, SENT, "{name}");
        }
    }
}

#[test]
fn a_server_without_auth_gets_mail_without_a_login() {
    let server = format!("220 mx ESMTP\r\n|250-mx\r\n250 X\r\n|{MAIL}");
    let hello = "220 mx\r\n|250 mx AUTH PLAIN\r\n|".to_string() + MAIL;
    let discards = ClientSettings { discard_ehlo_keywords: vec!["auth".into()], ..with_auth(|_| {}) };
    let offers = format!("{HELLO}PLAIN\r\n|{MAIL}");
    for (settings, login_as, server, verb) in [
        (with_auth(|_| {}), user("u", "p"), &server, "EHLO"),
        (with_auth(|_| {}), Login::Unknown, &server, "EHLO"),
        (with_auth(|_| {}), Login::Never, &offers, "EHLO"),
        (discards, user("u", "p"), &offers, "EHLO"),
        (ClientSettings { never_send_ehlo: true, ..with_auth(|_| {}) }, user("u", "p"), &hello, "HELO"),
    ] {
        let dialogue = login(settings, login_as, server, false);
        assert_eq!(
            (dialogue.said.as_str(), &dialogue.events[..]),
            (
                &*format!("{verb} me\r\n|{SAID_MAIL}"),
                &SENT[..].iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()[..]
            )
        );
    }
}

#[test]
fn a_refused_login_defers_mail_or_returns_it() {
    let text = "SASL authentication failed; server mx[192.0.2.1] said:";
    for (reply, soft_bounce, status, quits) in [
        ("535 5.7.8 no", true, "4.7.8", true),
        ("535 no", true, "4.0.0", true),
        ("500 5.5.1 what", true, "4.5.1", true),
        ("535 5.7.8 no", false, "5.7.8", true),
        ("534 no", false, "5.0.0", true),
        ("454 4.7.0 later", false, "4.7.0", true),
        ("421 4.7.0 bye", false, "4.7.0", false),
        ("535 4.7.8 no", false, "5.0.0", true),
    ] {
        let settings = with_auth(|auth| auth.soft_bounce = soft_bounce);
        let dialogue = login(settings, user("u", "p"), &format!("{HELLO}PLAIN\r\n|{reply}\r\n"), true);
        assert_eq!(dialogue.events, [format!("failed {status} {text} {reply}")]);
        let quit = if quits { "QUIT\r\n|" } else { "" };
        assert_eq!(dialogue.said, format!("EHLO me\r\n|AUTH PLAIN AHUAcA==\r\n|{quit}"));
    }
}

#[test]
fn without_a_common_mechanism_mail_waits() {
    let plain = || Kinds::from_iter([Kind::Plain]);
    let forbids = |auth: &mut AuthSettings| auth.options = Options::parse(["noplaintext"]).unwrap();
    let no_mechanism = format!("failed 4.7.0 {CANNOT} no mechanism available");
    let worthy = |names: &str| {
        format!(
            "warning SASL authentication failure: No worthy mechs found: mx[192.0.2.1]:25 offers {names}; \
             smtp_sasl_security_options decides what is allowed"
        )
    };
    for (settings, offered, warning, failure) in [
        (
            with_auth(|_| {}),
            "",
            "warning mx[192.0.2.1]:25 offered null AUTH mechanism list".into(),
            NO_COMPATIBLE.into(),
        ),
        (
            with_auth(|auth| auth.filter = Some(plain())),
            "LOGIN FOO",
            "warning mx[192.0.2.1]:25 offered no supported AUTH mechanisms: 'LOGIN'".into(),
            NO_COMPATIBLE.into(),
        ),
        (with_auth(|_| {}), "FOO", worthy("unknown mechanisms alone"), no_mechanism.clone()),
        (with_auth(|_| {}), "XOAUTH2", worthy("unknown mechanisms alone"), no_mechanism.clone()),
        (with_auth(forbids), "LOGIN PLAIN", worthy("PLAIN LOGIN"), no_mechanism.clone()),
    ] {
        let dialogue = login(settings, user("u", "p"), &format!("{HELLO}{offered}\r\n"), false);
        assert_eq!(dialogue.events, [warning, failure], "{offered}");
        assert_eq!(dialogue.said, "EHLO me\r\n|QUIT\r\n|");
    }
}

#[test]
fn tls_decides_about_mechanisms() {
    let parse = |names| Options::parse([names]).unwrap();
    let settings = with_auth(|auth| {
        auth.options = parse("noplaintext");
        auth.tls_options = parse("mutual_auth");
        auth.verified_options = parse("noanonymous");
    });
    for (protection, said) in [
        (Protection::None, "AUTH CRAM-MD5\r\n"),
        (Protection::Encrypted, "AUTH SCRAM-SHA-256\r\n"),
        (Protection::Verified, "AUTH PLAIN AHUAcA==\r\n"),
    ] {
        let offered = if protection == Protection::Verified { "PLAIN" } else { "SCRAM-SHA-256 CRAM-MD5 PLAIN" };
        let offered = offered.trim_start_matches(if protection == Protection::None { "SCRAM-SHA-256 " } else { "" });
        let peer = Peer { login: user("u", "p"), ..peer() };
        let mut client = Client::new(Arc::new(settings.clone()), peer, 0.0);
        client.set_protection(protection);
        let dialogue = play_on(Dialogue::of(client, &[1]), &format!("{HELLO}{offered}\r\n"), false);
        assert_eq!(dialogue.said, format!("EHLO me\r\n|{said}|"));
    }
}

#[test]
fn a_challenge_without_sense_ends_the_exchange() {
    let long = format!("334 {}", "A".repeat(2004));
    let endless = "334 VTo=\r\n|".repeat(3);
    let not_a_line = "the server's challenge is not one line of limited length";
    for (challenges, problem, reason) in [
        ("334 !!!!", "the server's challenge is not in base64", "bad protocol / cancel"),
        ("334 VTo", "the server's challenge is not in base64", "bad protocol / cancel"),
        ("354 VTo=", not_a_line, "bad protocol / cancel"),
        ("334-VTo=\r\n334 VTo=", not_a_line, "bad protocol / cancel"),
        (&*long, not_a_line, "bad protocol / cancel"),
        // "nonsense"
        ("334 bm9uc2Vuc2U=", "this is nonsense", "bad protocol / cancel"),
        (endless.trim_end_matches("\r\n|"), "a challenge after the last one", "generic failure"),
    ] {
        let server = format!("{HELLO}LOGIN\r\n|{challenges}\r\n|501 5.7.0 cancelled\r\n");
        let dialogue = login(with_auth(|_| {}), user("u", "p"), &server, false);
        let warning = format!("warning SASL authentication failure: {problem}");
        assert_eq!(dialogue.events, [warning, format!("failed 4.7.0 {CANNOT} {reason}")], "{challenges}");
        assert!(dialogue.said.ends_with("|*\r\n|QUIT\r\n|"), "{}", dialogue.said);
    }
    let server = format!("{HELLO}CRAM-MD5\r\n|{}501 end\r\n", "334 VTo=\r\n|".repeat(20));
    let dialogue = login(with_auth(|_| {}), user("u", "p"), &server, false);
    assert_eq!(dialogue.said.matches("VTo=").count(), 10, "challenges are bounded");
    assert_eq!(dialogue.events[0], "warning SASL authentication failure: the server does not come to an end");
}

#[test]
fn a_server_must_prove_itself_if_the_mechanism_wants_it() {
    let failed = [
        "warning SASL authentication failure: the server proves nothing".to_owned(),
        format!("failed 4.7.0 {CANNOT} authentication failure"),
    ];
    let exchange = format!("{HELLO}LOGIN\r\n|334 \r\n|334 \r\n|");
    let dialogue = login(with_auth(|_| {}), user("u", "prove it"), &format!("{exchange}235 ok\r\n"), false);
    assert_eq!(dialogue.events, failed);
    assert!(dialogue.said.ends_with("|QUIT\r\n|"));
    let dialogue = login(
        with_auth(|_| {}),
        user("u", "prove it"),
        &format!("{exchange}334 cHJvb2Y=\r\n|235 ok\r\n|{MAIL}"),
        false,
    );
    assert_eq!(dialogue.events, SENT);
}

#[test]
fn a_login_that_cannot_begin_defers_mail() {
    let local = "failed 4.3.0 local data error while talking to mx[192.0.2.1]";
    let nameless = "warning SASL authentication failure: the user has no name";
    let generic = format!("failed 4.7.0 {CANNOT} generic failure");
    for (settings, login_as, events) in [
        (with_auth(|_| {}), Login::Unknown, vec![local]),
        (with_auth(|auth| auth.library = None), user("u", "p"), vec![local]),
        (with_auth(|_| {}), user("", "p"), vec![nameless, &generic]),
    ] {
        let dialogue = login(settings, login_as, &format!("{HELLO}PLAIN\r\n"), false);
        assert_eq!(
            (dialogue.events, dialogue.said.as_str()),
            (events.iter().map(|text| (*text).to_owned()).collect(), "EHLO me\r\n|QUIT\r\n|")
        );
    }
}

#[test]
fn a_long_response_has_a_line_of_its_own() {
    // "AUTH PLAIN " and CRLF leave 499 octets: 372 in base64 are 496.
    for (octets, in_command) in [(368, true), (369, true), (370, false), (9000, false)] {
        let password = "x".repeat(octets);
        let server = format!("{HELLO}PLAIN\r\n|{}235 ok\r\n|{MAIL}", if in_command { "" } else { "334 \r\n|" });
        let dialogue = login(with_auth(|_| {}), user("u", &password), &server, false);
        assert_eq!(dialogue.events, SENT);
        assert_eq!(dialogue.said.contains("AUTH PLAIN\r\n|"), !in_command, "{octets}");
        assert!(dialogue.said.split('|').all(|line| line.len() <= 12_288));
    }
    let server = format!("{HELLO}PLAIN\r\n|334 \r\n|501 end\r\n");
    let dialogue = login(with_auth(|_| {}), user("u", &"x".repeat(9300)), &server, false);
    assert_eq!(dialogue.said, "EHLO me\r\n|AUTH PLAIN\r\n|*\r\n|QUIT\r\n|");
    assert_eq!(dialogue.events[0], "warning SASL authentication failure: the response is too long for a line");
}

#[test]
fn mail_has_the_parameter_auth_if_the_site_wants_it() {
    let wants = || with_auth(|auth| auth.dummy_mail_auth = true);
    for (login_as, server, parameter) in [
        (user("u", "p"), format!("{HELLO}PLAIN\r\n|235 ok\r\n|{MAIL}"), true),
        (Login::Never, format!("{HELLO}PLAIN\r\n|{MAIL}"), false),
        (user("u", "p"), format!("220 mx ESMTP\r\n|250-mx\r\n250 X\r\n|{MAIL}"), false),
    ] {
        let dialogue = login(wants(), login_as, &server, false);
        assert_eq!(dialogue.said.contains("MAIL FROM:<s@example.org> AUTH=<>\r\n"), parameter);
    }
}

#[test]
fn a_login_is_a_part_of_the_handshake() {
    for (end, text) in
        [("EOF", "lost connection with mx[192.0.2.1]"), ("TIMEOUT", "conversation with mx[192.0.2.1] timed out")]
    {
        for step in ["", "334 VTo=\r\n|", "334 !\r\n|"] {
            let dialogue = login(with_auth(|_| {}), user("u", "p"), &format!("{HELLO}LOGIN\r\n|{step}{end}"), false);
            assert_eq!(dialogue.events, [format!("failed 4.4.2 {text} while performing the EHLO handshake")]);
        }
    }
    let unasked = login(with_auth(|_| {}), user("u", "p"), &format!("{HELLO}PLAIN\r\n|235 ok\r\n250 ok\r\n"), false);
    assert_eq!(unasked.events, ["failed 4.5.0 host mx[192.0.2.1] spoke out of turn"]);
}

#[test]
fn a_client_shows_no_password() {
    let client = Client::new(Arc::new(with_auth(|_| {})), Peer { login: user("u", "canary"), ..peer() }, 0.0);
    let mut dialogue = Dialogue::of(client, &[1]);
    for piece in ["220 mx ESMTP\r\n", "250-mx\r\n250 AUTH LOGIN\r\n", "334 VTo=\r\n", "334 UDo=\r\n"] {
        dialogue.client.receive(piece.as_bytes(), 1.0);
        let shown = format!("{:?}", dialogue.client);
        // "canary", and its base64 as octets.
        for form in ["canary", "Y2FuYXJ5", "99, 97, 110, 97", "89, 50, 70, 117"] {
            assert!(!shown.contains(form), "{shown}");
        }
        dialogue.client.take_output();
    }
}

#[test]
fn an_account_that_was_refused_is_not_tried_again() {
    let refused = |dsn: &str| {
        Login::Refused(Arc::new(Refusal { dsn: dsn.parse().expect("a code"), said: format!("535 {dsn} no").into() }))
    };
    let told = "SASL [CACHED] authentication failed; server mx said: 535 5.7.8 no";
    for (soft, dsn) in [(true, "4.7.8"), (false, "5.7.8")] {
        let server = format!("{HELLO}PLAIN\r\n");
        let dialogue = login(with_auth(|auth| auth.soft_bounce = soft), refused("5.7.8"), &server, false);
        assert_eq!(dialogue.events, [format!("failed {dsn} {told}")]);
        assert_eq!(dialogue.said, "EHLO me\r\n|QUIT\r\n|");
    }
    let server = format!("220 mx ESMTP\r\n|250-mx\r\n250 X\r\n|{MAIL}");
    assert_eq!(login(with_auth(|_| {}), refused("5.7.8"), &server, false).events, SENT, "AUTH is not offered");
}

#[test]
fn only_a_wrong_user_or_password_is_to_be_remembered() {
    for (reply, remembered) in [
        ("535 5.7.8 no", Some(("5.7.8", "535 5.7.8 no"))),
        ("535-5.7.8 a\r\n535 5.7.8 b", Some(("5.7.8", "535-5.7.8 a 535 5.7.8 b"))),
        ("535 no", Some(("5.0.0", "535 no"))),
        ("454 4.7.0 later", None),
        ("534 5.7.9 too weak", None),
        ("235 ok", None),
    ] {
        let mut dialogue = login(with_auth(|_| {}), user("u", "p"), &format!("{HELLO}PLAIN\r\n|{reply}\r\n"), false);
        let found = dialogue.client.take_refusal();
        let found = found.as_ref().map(|refusal| (refusal.dsn.to_string(), &*refusal.said));
        assert_eq!(found.as_ref().map(|(dsn, said)| (dsn.as_str(), *said)), remembered, "{reply}");
    }
}
