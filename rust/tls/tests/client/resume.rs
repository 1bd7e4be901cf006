//! Sessions that later connections resume.

use crate::certificates::{Issued, Request};
use crate::certificates::{authority, issue, rsa_key, server};
use crate::wire::{Server, Trusting, meet, meet_through, opinion};
use openssl::ssl::SslVersion;
use postillion_core::tls::client_settings::Wanted;
use postillion_core::tls::{ClientLevel, Policy};
use std::sync::Arc;

const PEER: &str = "mx.example[192.0.2.1]:25";

fn caching(root: &Issued) -> Trusting {
    Trusting::with(root, |settings, _| settings.session_cache_database = vec!["btree:scache".into()])
}

fn policy(trusting: &Trusting, level: ClientLevel, session_key: &str) -> Arc<Policy> {
    trusting.wanting(Wanted { level, session_key: session_key.into(), ..Wanted::default() })
}

fn of_version(issued: &Issued, version: SslVersion) -> Server {
    Server::with(Some(issued), |context| context.set_max_proto_version(Some(version)).unwrap())
}

#[test]
fn a_resumed_session_has_the_result_of_its_first_handshake() {
    let root = authority("CA", None);
    let (good, alone) = (server(&root), issue(Request::default()));
    let trusting = caching(&root);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for (level, issued, expected) in [
            (ClientLevel::May, &good, "Trusted-"),
            (ClientLevel::May, &alone, "Untrusted-"),
            (ClientLevel::Secure, &good, "Verified+"),
        ] {
            let server = of_version(issued, version);
            let policy = policy(&trusting, level, &format!("{version:?} {expected}"));
            for is_later in [false, true, true] {
                let facts = trusting.facts(&policy, &server);
                assert_eq!((facts.resumed, opinion(&facts)), (is_later, expected.into()), "{version:?} {level:?}");
                assert_eq!(facts.server.unwrap().issuer, if expected == "Untrusted-" { "mx.example" } else { "CA" });
            }
        }
    }
}

#[test]
fn a_session_is_resumed_by_an_equal_policy_alone() {
    let root = authority("CA", None);
    let server = Server::new(&server(&root));
    let trusting = caching(&root);
    let base = || Wanted { level: ClientLevel::May, session_key: "a".into(), ..Wanted::default() };
    let first = trusting.wanting(base());
    assert!(!trusting.facts(&first, &server).resumed);
    let names = vec!["other.example".into()];
    for other in [
        Wanted { session_key: "b".into(), ..base() },
        Wanted { session_key: String::new(), ..base() },
        Wanted { level: ClientLevel::Encrypt, ..base() },
        Wanted { level: ClientLevel::Secure, ..base() },
        Wanted { level: ClientLevel::Secure, names, ..base() },
        Wanted { servername: Some("mx.example"), ..base() },
        Wanted { ciphers: Some("high"), ..base() },
        Wanted { protocols: Some(">=TLSv1.2"), ..base() },
    ] {
        let policy = trusting.wanting(other);
        let facts = trusting.facts(&policy, &server);
        assert!(!facts.resumed, "{policy:?}");
        assert_eq!(facts.matched(), policy.level == ClientLevel::Secure && policy.names == ["mx.example"]);
    }
    assert!(trusting.facts(&first, &server).resumed);
    let without_cache = Trusting::new(&root);
    let policy = without_cache.wanting(base());
    assert!(!(0..2).any(|_| without_cache.facts(&policy, &server).resumed));
}

#[test]
fn a_session_with_another_server_than_the_wanted_one_is_not_kept() {
    let root = authority("CA", None);
    let alone = issue(Request { key: rsa_key(), ..Request::default() });
    let trusting = caching(&root);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let server = of_version(&alone, version);
        let policy = policy(&trusting, ClientLevel::Verify, "a");
        for _ in 0..2 {
            let facts = trusting.facts(&policy, &server);
            assert_eq!((facts.resumed, facts.matched()), (false, false));
            let line = format!("certificate verification failed for {PEER}: self-signed certificate");
            assert_eq!(facts.distrust_of(PEER), Some(line));
        }
    }
}

#[test]
fn a_server_that_forgets_its_sessions_gets_a_whole_handshake() {
    let root = authority("CA", None);
    let (first, second) = (server(&root), server(&authority("Other", None)));
    let trusting = caching(&root);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let policy = policy(&trusting, ClientLevel::Secure, &format!("{version:?}"));
        assert!(trusting.facts(&policy, &of_version(&first, version)).matched());
        let facts = trusting.facts(&policy, &of_version(&second, version));
        assert_eq!((facts.resumed, facts.matched()), (false, false), "the other server's certificate is checked");
    }
}

#[test]
fn a_failed_handshake_forgets_the_session() {
    let root = authority("CA", None);
    let server = Server::new(&server(&root));
    let trusting = caching(&root);
    let policy = policy(&trusting, ClientLevel::Secure, "a");
    assert!(!trusting.facts(&policy, &server).resumed);
    let broken = meet_through(&trusting.client, &policy, &server, &mut |_| vec![b"220 hello\r\n".to_vec()]);
    assert!(broken.facts.is_none() && broken.failure.is_some());
    assert!(!meet(&trusting.client, &policy, &server).facts.unwrap().resumed);
    assert!(meet(&trusting.client, &policy, &server).facts.unwrap().resumed);
}

#[test]
fn the_line_of_a_resumed_session_names_the_key_without_a_digest() {
    let root = authority("CA", None);
    let rsa = issue(Request { issuer: Some(&root), key: rsa_key(), ..Request::default() });
    let trusting = caching(&root);
    for (issued, signature) in [(&server(&root), "ECDSA (prime256v1)"), (&rsa, "RSA-PSS (2048 bits)")] {
        let server = Server::new(issued);
        let policy = policy(&trusting, ClientLevel::Secure, signature);
        trusting.facts(&policy, &server);
        assert_eq!(
            trusting.facts(&policy, &server).established_to(PEER),
            format!(
                "Verified TLS connection established to {PEER}: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 \
                 bits) key-exchange X25519 server-signature {signature}"
            )
        );
    }
}
