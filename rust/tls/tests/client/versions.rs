//! Versions of TLS, ciphers, and servers without a certificate.

use crate::certificates::{Request, authority, issue, rsa_key};
use crate::wire::{Server, Trusting, converse, meet, opinion};
use openssl::ssl::SslVersion;
use postillion_core::tls::ClientLevel;
use postillion_core::tls::client_settings::Wanted;

const VERSIONS: [(SslVersion, &str); 4] = [
    (SslVersion::TLS1, "TLSv1"),
    (SslVersion::TLS1_1, "TLSv1.1"),
    (SslVersion::TLS1_2, "TLSv1.2"),
    (SslVersion::TLS1_3, "TLSv1.3"),
];

#[test]
fn old_versions_work_where_nobody_must_show_who_it_is() {
    let root = authority("CA", None);
    let issued = issue(Request { issuer: Some(&root), key: rsa_key(), ..Request::default() });
    let trusting = Trusting::new(&root);
    let rows: [(ClientLevel, Option<&str>, &[&str]); 7] = [
        (ClientLevel::May, None, &["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]),
        (ClientLevel::Encrypt, None, &["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]),
        // Their signatures are too weak for OpenSSL, as in Postfix.
        (ClientLevel::Secure, None, &["TLSv1.2", "TLSv1.3"]),
        (ClientLevel::May, Some(">=TLSv1.2"), &["TLSv1.2", "TLSv1.3"]),
        (ClientLevel::May, Some("!TLSv1.3"), &["TLSv1", "TLSv1.1", "TLSv1.2"]),
        (ClientLevel::Secure, Some("<=TLSv1.2"), &["TLSv1.2"]),
        (ClientLevel::Encrypt, Some("TLSv1.1:TLSv1.2"), &["TLSv1.1", "TLSv1.2"]),
    ];
    for (level, protocols, expected) in rows {
        let policy = trusting.wanting(Wanted { level, protocols, ..Wanted::default() });
        let mut agreed = Vec::new();
        for (version, name) in VERSIONS {
            let server = Server::with(Some(&issued), |context| {
                context.set_min_proto_version(Some(version)).unwrap();
                context.set_max_proto_version(Some(version)).unwrap();
                context.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
            });
            let meeting = meet(&trusting.client, &policy, &server);
            assert_eq!(meeting.facts.is_none(), meeting.failure.is_some(), "{name}");
            if let Some(facts) = meeting.facts {
                assert_eq!((&*facts.protocol, facts.matched()), (name, level == ClientLevel::Secure));
                agreed.push(name);
                assert_eq!(converse(&trusting.client, &policy, &server, b"NOOP\r\n"), b"NOOP\r\n", "{name}");
            }
        }
        assert_eq!(agreed, expected, "{level:?} {protocols:?}");
    }
}

#[test]
fn a_server_without_a_certificate_is_anonymous() {
    let trusting = Trusting::new(&authority("CA", None));
    let server = Server::with(None, |context| {
        context.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        context.set_cipher_list("aNULL:@SECLEVEL=0").unwrap();
    });
    for level in [ClientLevel::May, ClientLevel::Encrypt] {
        let facts = trusting.facts(&trusting.policy(level), &server);
        assert_eq!((opinion(&facts), facts.server.is_none()), ("Anonymous-".into(), true));
        assert!(facts.established_to("mx").starts_with("Anonymous TLS connection established to mx: TLSv1.2 "));
    }
    for level in [ClientLevel::Verify, ClientLevel::Secure] {
        let meeting = meet(&trusting.client, &trusting.policy(level), &server);
        assert!(meeting.facts.is_none() && meeting.failure.is_some(), "{level:?}");
    }
}

#[test]
fn a_destination_chooses_ciphers() {
    let root = authority("CA", None);
    let issued = issue(Request { issuer: Some(&root), key: rsa_key(), ..Request::default() });
    let trusting = Trusting::with(&root, |settings, _| settings.lists.high = "AES256-GCM-SHA384".into());
    let server = Server::with(Some(&issued), |context| {
        context.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
    });
    let rows = [
        (None, None, "ECDHE-RSA-AES256-GCM-SHA384"),
        (Some("high"), None, "AES256-GCM-SHA384"),
        (None, Some("AES256"), "ECDHE-RSA-CHACHA20-POLY1305"),
        // Below, the list of the context is used again.
        (None, None, "ECDHE-RSA-AES256-GCM-SHA384"),
    ];
    for (ciphers, exclude, expected) in rows {
        let policy = trusting.wanting(Wanted { level: ClientLevel::May, ciphers, exclude, ..Wanted::default() });
        assert_eq!(trusting.facts(&policy, &server).cipher, expected);
    }
    let nothing = Wanted { level: ClientLevel::May, exclude: Some("ALL"), ..Wanted::default() };
    assert!(trusting.client.policy(nothing).unwrap_err().starts_with("no cipher of OpenSSL is in the list \""));
}

#[test]
fn plaintext_of_any_size_passes() {
    let root = authority("CA", None);
    let trusting = Trusting::new(&root);
    let server = Server::new(&crate::certificates::server(&root));
    let policy = trusting.policy(ClientLevel::Secure);
    for octets in [1, 16 * 1024, 16 * 1024 + 1, 100_000] {
        let said: Vec<u8> = (0..octets).map(|at: u32| at.to_le_bytes()[0]).collect();
        assert_eq!(converse(&trusting.client, &policy, &server, &said), said, "{octets}");
    }
}
