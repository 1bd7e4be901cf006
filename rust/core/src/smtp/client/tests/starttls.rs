//! STARTTLS: what the client says to each kind of server, at each level, and the status of its mail.

use super::*;
use crate::tls::facts::trust::{ServerCertificate, Trust};
use crate::tls::testing::Plains;
use crate::tls::{ClientLevel, Facts, Policy};

pub(super) const OFFER: &str = "220 mx ESMTP\r\n|250-mx\r\n250 STARTTLS\r\n";
const NO_OFFER: &str = "220 mx ESMTP\r\n|250 mx\r\n";
const CLEAR: &str = "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|";
const ASKED: &str = "EHLO me\r\n|STARTTLS\r\n|";
const LEFT: &str = "EHLO me\r\n|STARTTLS\r\n|QUIT\r\n|";

pub(super) fn client(level: ClientLevel, change: impl FnOnce(&mut ClientSettings)) -> Client {
    let mut settings = settings();
    settings.starttls.engines = Some(Arc::new(Plains));
    change(&mut settings);
    let policy = Policy { level, ..Policy::default() };
    Client::new(Arc::new(settings), Peer { tls: Some(Arc::new(policy)), ..peer() }, 0.0)
}

/// A handshake with a server of this certificate.
pub(super) fn facts(trust: Trust, matched: bool) -> Facts {
    Facts { server: Some(ServerCertificate { trust, matched, ..ServerCertificate::default() }), ..Facts::default() }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).into()).collect()
}

#[test]
fn the_level_decides_about_servers_without_tls() {
    use ClientLevel::{Encrypt, May, Off, Secure};
    let missing = "failed 4.7.4 TLS is required, but was not offered by host mx[192.0.2.1]";
    let refused = "failed 4.7.0 TLS is required, but host mx[192.0.2.1] refused to start TLS: 454 4.7.0 no";
    let kept = "failed 4.7.1 TLS is required, but host mx[192.0.2.1] refused to start TLS: 550 5.7.1 no";
    let [refuses, never, agrees] =
        ["454 4.7.0 no", "550 5.7.1 no", "250 2.0.0 fine"].map(|reply| format!("{OFFER}|{reply}\r\n"));
    for (level, server, said, events) in [
        (Off, OFFER, CLEAR, &["ready"][..]),
        (May, NO_OFFER, CLEAR, &["ready"]),
        (Encrypt, NO_OFFER, "EHLO me\r\n|QUIT\r\n|", &[missing]),
        (Secure, NO_OFFER, "EHLO me\r\n|QUIT\r\n|", &[missing]),
        (May, OFFER, ASKED, &[]),
        (May, &refuses, "EHLO me\r\n|STARTTLS\r\n|MAIL FROM:<s@example.org>\r\n|", &["ready"]),
        (Encrypt, &refuses, LEFT, &[refused]),
        (Secure, &refuses, LEFT, &[refused]),
        (Secure, &never, LEFT, &[kept]),
        (May, &agrees, ASKED, &["TLS"]),
        (Encrypt, &agrees, ASKED, &["TLS"]),
    ] {
        for bytewise in [false, true] {
            let dialogue = play_on(Dialogue::of(client(level, |_| {}), &[1]), server, bytewise);
            assert_eq!((&*dialogue.said, &*dialogue.events), (said, &*strings(events)), "{level:?} {server}");
        }
    }
}

#[test]
fn a_library_that_does_not_work_counts_as_a_server_without_tls() {
    for (level, event) in [
        (ClientLevel::May, "ready"),
        (ClientLevel::Encrypt, "failed 4.7.5 TLS is required, but our TLS engine is unavailable"),
    ] {
        let client = client(level, |settings| settings.starttls.engines = None);
        assert_eq!(play_on(Dialogue::of(client, &[1]), OFFER, false).events, [event]);
    }
}

#[test]
fn the_dialogue_begins_anew_inside_tls() {
    for behind in ["", "250 injected\r\n"] {
        let server = format!("{OFFER}|220 go\r\n{behind}");
        let mut dialogue = play_on(Dialogue::of(client(ClientLevel::Encrypt, |_| {}), &[1]), &server, false);
        assert_eq!((&*dialogue.said, &*dialogue.events), (ASKED, &["TLS".to_owned()][..]));
        dialogue.hear(behind.as_bytes());
        dialogue.said.clear();
        dialogue.client.secured(&facts(Trust::Untrusted, false), 2.0);
        dialogue.act();
        // The server offers STARTTLS again: nobody asks for it.
        let mut dialogue = play_on(dialogue, "250-mx\r\n250-STARTTLS\r\n250 SIZE\r\n", true);
        assert_eq!(dialogue.said, "EHLO me\r\n|MAIL FROM:<s@example.org> SIZE=5\r\n|");
        assert!(dialogue.client.is_secure() && dialogue.client.offered().size);
        dialogue.client.lost();
        dialogue.act();
        assert_eq!(
            dialogue.events[1..],
            ["ready", "failed 4.4.2 lost connection with mx[192.0.2.1] while sending MAIL FROM"]
        );
    }
}

#[test]
fn the_wrong_server_gets_quit_and_no_mail() {
    use ClientLevel::{Dane, Encrypt, Fingerprint, Secure, Verify};
    let unverified = "failed 4.7.5 Server certificate not verified";
    for (level, trust, matched, event) in [
        (Encrypt, Trust::Untrusted, false, ""),
        (Fingerprint, Trust::Untrusted, false, unverified),
        (Fingerprint, Trust::Verified, true, ""),
        (Dane, Trust::Untrusted, false, unverified),
        (Dane, Trust::Verified, true, ""),
        (Verify, Trust::Untrusted, false, unverified),
        (Secure, Trust::Trusted, false, unverified),
        (Secure, Trust::Anonymous, false, unverified),
        (Secure, Trust::Verified, true, ""),
    ] {
        let mut dialogue = play_on(Dialogue::of(client(level, |_| {}), &[1]), &format!("{OFFER}|220 go\r\n"), false);
        dialogue.said.clear();
        dialogue.client.secured(&facts(trust, matched), 2.0);
        dialogue.act();
        let events: Vec<_> = dialogue.events[1..].to_vec();
        let said = if event.is_empty() { "EHLO me\r\n|" } else { "QUIT\r\n|" };
        let expected: Vec<String> = if event.is_empty() { vec![] } else { vec![event.into()] };
        assert_eq!((&*dialogue.said, events), (said, expected), "{level:?} {trust:?}");
    }
}

#[test]
fn only_a_site_that_prefers_tls_may_do_without() {
    type End = fn(&mut Client);
    let ends: [(&str, End); 3] = [
        ("failure", Client::insecure),
        ("lost", Client::lost),
        ("timeout", |client| client.timeout(client.deadline().unwrap())),
    ];
    for (name, end) in ends {
        for (level, expected) in [(ClientLevel::May, true), (ClientLevel::Encrypt, false), (ClientLevel::Dane, false)] {
            // In the handshake, and behind it.
            for is_open in [false, true] {
                let dialogue = Dialogue::of(client(level, |_| {}), &[1]);
                let mut client = play_on(dialogue, &format!("{OFFER}|220 go\r\n"), false).client;
                if is_open {
                    client.secured(&facts(Trust::Verified, true), 2.0);
                }
                end(&mut client);
                let Some(Event::Failed { status, clear, stale: false, .. }) = client.next_event() else { panic!() };
                assert_eq!(clear, expected, "{name} {level:?} {is_open}");
                let text = "Cannot start TLS: handshake failure";
                assert_eq!((status.dsn.to_string() == "4.7.5", &*status.text == text), (!is_open, !is_open));
            }
        }
    }
}

#[test]
fn in_wrapper_mode_the_greeting_comes_inside_tls() {
    let client = client(ClientLevel::Encrypt, |settings| settings.starttls.wrapper = true);
    let mut dialogue = Dialogue::of(client, &[1]);
    assert_eq!((&*dialogue.said, &*dialogue.events), ("", &["TLS".to_owned()][..]));
    assert_eq!(dialogue.client.deadline(), Some(settings().starttls.timeout));
    dialogue.client.secured(&facts(Trust::Untrusted, false), 2.0);
    let dialogue = play_on(dialogue, NO_OFFER, true);
    assert_eq!(dialogue.said, CLEAR);
}

#[test]
fn an_offer_that_nobody_wants_is_noted_on_request() {
    let client = client(ClientLevel::Off, |settings| settings.starttls.note_offer = true);
    let dialogue = play_on(Dialogue::of(client, &[1]), OFFER, false);
    assert_eq!(dialogue.events, ["note Host offered STARTTLS: [mx]", "ready"]);
}
