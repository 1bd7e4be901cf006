//! REQUIRETLS: which servers get a message at each policy, what MAIL says, and the status where none is good enough.

use super::starttls::{OFFER, client, facts};
use super::*;
use crate::smtp::client::requiretls::RequireTls;
use crate::tls::ClientLevel;
use crate::tls::facts::trust::Trust;

const NAME: &str = "mx[192.0.2.1]";
const CLEAR_DSN: &str = "220 mx ESMTP\r\n|250-mx\r\n250-REQUIRETLS\r\n250 DSN\r\n";
const MAIL: &str = "MAIL FROM:<s@example.org>";

/// The dialogue with a server at a level and a policy, up to the end of `server`.
fn begin(policy: RequireTls, level: ClientLevel, server: &str, bytewise: bool) -> Dialogue {
    let mut client = client(level, |_| {});
    client.peer.requiretls = policy;
    let mut dialogue = Dialogue::of(client, &[1]);
    dialogue.envelope = Arc::new(Envelope { requiretls: true, ..envelope() });
    play_on(dialogue, server, bytewise)
}

#[test]
fn a_server_without_tls_gets_only_mail_whose_policy_allows_it() {
    use ClientLevel::{Encrypt, May, Off, Secure};
    use RequireTls::{Disable, Enforce, Opportunistic, OpportunisticStartTls as StartTls};
    let refuses = format!("{OFFER}|454 4.7.0 no\r\n");
    let missing = "failed elsewhere 5.7.30 REQUIRETLS needs TLS, but it was not offered by host mx[192.0.2.1]";
    let off = "failed elsewhere 5.7.10 REQUIRETLS needs TLS, but none is configured for host mx[192.0.2.1]";
    let refused =
        "failed elsewhere 5.7.10 REQUIRETLS needs TLS, but host mx[192.0.2.1] refused to start it: 454 4.7.0 no";
    let usual = "failed 4.7.4 TLS is required, but was not offered by host mx[192.0.2.1]";
    for (policy, level, server, said, event) in [
        (Disable, May, CLEAR_DSN, "MAIL FROM:<s@example.org>\r\n|", "ready"),
        (Opportunistic, May, CLEAR_DSN, "MAIL FROM:<s@example.org> RET=HDRS\r\n|", "ready"),
        (Opportunistic, Off, CLEAR_DSN, "MAIL FROM:<s@example.org> RET=HDRS\r\n|", "ready"),
        (Opportunistic, May, &refuses, "STARTTLS\r\n|MAIL FROM:<s@example.org>\r\n|", "ready"),
        (Opportunistic, Encrypt, CLEAR_DSN, "QUIT\r\n|", usual),
        (StartTls, May, CLEAR_DSN, "QUIT\r\n|", missing),
        (StartTls, Off, CLEAR_DSN, "QUIT\r\n|", off),
        (StartTls, May, &refuses, "STARTTLS\r\n|QUIT\r\n|", refused),
        (Enforce, May, CLEAR_DSN, "QUIT\r\n|", missing),
        (Enforce, Secure, CLEAR_DSN, "QUIT\r\n|", missing),
        (Enforce, Off, OFFER, "QUIT\r\n|", off),
        (Enforce, Secure, &refuses, "STARTTLS\r\n|QUIT\r\n|", refused),
    ] {
        for bytewise in [false, true] {
            let dialogue = begin(policy, level, server, bytewise);
            let name = format!("{policy:?} {level:?} {server}");
            assert_eq!(dialogue.said, format!("EHLO me\r\n|{said}"), "{name}");
            assert_eq!(dialogue.events, [event], "{name}");
        }
    }
}

#[test]
fn a_library_that_does_not_work_keeps_the_mail() {
    for policy in [RequireTls::OpportunisticStartTls, RequireTls::Enforce] {
        let mut client = client(ClientLevel::May, |settings| settings.starttls.engines = None);
        client.peer.requiretls = policy;
        let events = play_on(Dialogue::of(client, &[1]), OFFER, false).events;
        assert_eq!(events, ["failed 4.7.5 TLS is required, but our TLS engine is unavailable"]);
    }
}

#[test]
fn inside_tls_the_policy_decides_about_the_certificate_and_the_keyword() {
    use RequireTls::{Disable, Enforce, Opportunistic, OpportunisticStartTls as StartTls};
    let (has, has_dsn, lacks) =
        ("250-mx\r\n250 REQUIRETLS\r\n", "250-mx\r\n250-DSN\r\n250 REQUIRETLS\r\n", "250-mx\r\n250 DSN\r\n");
    let helo_only = "500 what\r\n|250 mx\r\n";
    let note = "note REQUIRETLS was not offered by host mx[192.0.2.1]";
    let unverified = "failed elsewhere 5.7.10 REQUIRETLS needs a verified server, but the certificate of host \
                      mx[192.0.2.1] is not verified";
    let missing = "failed elsewhere 5.7.30 REQUIRETLS was not offered by host mx[192.0.2.1]";
    for (policy, level, matched, server, mail, events) in [
        (Enforce, ClientLevel::Secure, true, has, Some(" REQUIRETLS"), &["ready"][..]),
        (Enforce, ClientLevel::Secure, true, has_dsn, Some(" REQUIRETLS"), &["ready"]),
        (Enforce, ClientLevel::Dane, true, lacks, None, &[missing]),
        (Enforce, ClientLevel::Secure, true, helo_only, None, &[missing]),
        (Enforce, ClientLevel::Secure, false, "", None, &[unverified]),
        // The owner does not connect like this.
        (Enforce, ClientLevel::May, false, "", None, &[unverified]),
        (StartTls, ClientLevel::May, false, has, Some(" REQUIRETLS"), &["ready"]),
        (StartTls, ClientLevel::May, false, lacks, Some(" RET=HDRS"), &[note, "ready"]),
        (StartTls, ClientLevel::Secure, false, "", None, &["failed 4.7.5 Server certificate not verified"]),
        (Opportunistic, ClientLevel::May, false, has, Some(" REQUIRETLS"), &["ready"]),
        (Opportunistic, ClientLevel::May, false, lacks, Some(" RET=HDRS"), &[note, "ready"]),
        (Disable, ClientLevel::May, false, has, Some(""), &["ready"]),
        (Disable, ClientLevel::Secure, true, lacks, Some(""), &["ready"]),
    ] {
        for bytewise in [false, true] {
            let mut dialogue = begin(policy, level, &format!("{OFFER}|220 go\r\n"), false);
            dialogue.said.clear();
            dialogue.client.secured(&facts(Trust::Verified, matched), 2.0);
            dialogue.act();
            let dialogue = play_on(dialogue, server, bytewise);
            let name = format!("{policy:?} {level:?} {matched} {server}");
            assert_eq!(dialogue.events[1..], *events, "{name}");
            match mail {
                Some(parameters) => assert!(dialogue.said.ends_with(&format!("|{MAIL}{parameters}\r\n|")), "{name}"),
                None => assert!(dialogue.said.ends_with("QUIT\r\n|") && !dialogue.said.contains("MAIL"), "{name}"),
            }
        }
    }
}

#[test]
fn a_message_that_needs_tls_never_goes_out_in_the_clear_after_a_failure() {
    for (policy, expected) in [
        (RequireTls::Disable, true),
        (RequireTls::Opportunistic, true),
        (RequireTls::OpportunisticStartTls, false),
        (RequireTls::Enforce, false),
    ] {
        let mut client = begin(policy, ClientLevel::May, &format!("{OFFER}|220 go\r\n"), false).client;
        client.insecure();
        let Some(Event::Failed { clear, .. }) = client.next_event() else { panic!() };
        assert_eq!(clear, expected, "{policy:?}");
    }
}

#[test]
fn a_keyword_from_outside_tls_does_not_count_inside() {
    let offer = "220 mx ESMTP\r\n|250-mx\r\n250-STARTTLS\r\n250 REQUIRETLS\r\n|220 go\r\n";
    let mut dialogue = begin(RequireTls::Enforce, ClientLevel::Secure, offer, false);
    dialogue.client.secured(&facts(Trust::Verified, true), 2.0);
    dialogue.act();
    let dialogue = play_on(dialogue, "250 mx\r\n", false);
    assert_eq!(dialogue.events[1..], [format!("failed elsewhere 5.7.30 REQUIRETLS was not offered by host {NAME}")]);
}

#[test]
fn policies_are_words_in_any_case() {
    for (word, policy) in [
        ("enforce", Some(RequireTls::Enforce)),
        ("Opportunistic+STARTTLS", Some(RequireTls::OpportunisticStartTls)),
        ("opportunistic", Some(RequireTls::Opportunistic)),
        ("DISABLE", Some(RequireTls::Disable)),
        ("error", None),
        ("", None),
    ] {
        assert_eq!(RequireTls::parse(word), policy, "{word}");
    }
}
