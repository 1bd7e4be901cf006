//! Octets that are no TLS, that change on their way, or that come in pieces.

use crate::certificates::{authority, server};
use crate::wire::{Server, Trusting, meet, meet_through, opinion};
use openssl::ssl::SslVersion;
use postillion_core::tls::client_settings::Wanted;
use postillion_core::tls::{Channel, ClientEngines, ClientLevel, Policy};
use std::sync::Arc;

/// Steps between the octets that a test changes.
const STEP: usize = 7;

#[test]
fn the_first_octets_are_the_clients() {
    let root = authority("CA", None);
    let trusting = Trusting::new(&root);
    let mut channel = Channel::new(trusting.client.connect(&trusting.policy(ClientLevel::May)).unwrap());
    assert_eq!(channel.begin(), Ok(()));
    let hello = channel.take_output();
    assert_eq!((hello[0], hello[5]), (22, 1), "a record with a ClientHello");
    assert!(channel.take_output().is_empty());
}

#[test]
fn any_split_of_the_servers_octets_gives_the_same() {
    let root = authority("CA", None);
    let trusting = Trusting::new(&root);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let server =
            Server::with(Some(&server(&root)), |context| context.set_max_proto_version(Some(version)).unwrap());
        let policy = trusting.policy(ClientLevel::Secure);
        let whole = meet(&trusting.client, &policy, &server).facts.unwrap();
        for size in [1, 2, 3, 5, 100, 1000] {
            let cut = &mut |octets: Vec<u8>| octets.chunks(size).map(<[u8]>::to_vec).collect();
            let meeting = meet_through(&trusting.client, &policy, &server, cut);
            assert_eq!((meeting.facts.as_ref(), meeting.failure), (Some(&whole), None), "{size}");
        }
        assert_eq!(opinion(&whole), "Verified+");
    }
}

#[test]
fn octets_that_are_no_tls_fail() {
    let root = authority("CA", None);
    let trusting = Trusting::new(&root);
    let server = Server::new(&server(&root));
    for level in [ClientLevel::May, ClientLevel::Secure] {
        let policy = trusting.policy(level);
        for garbage in [&b"220 mx.example ESMTP\r\n"[..], b"\0\0\0\0\0\0", b"\x16\x03\x03\xff\xff\x00", &[0xff; 2000]] {
            let meeting = meet_through(&trusting.client, &policy, &server, &mut |_| vec![garbage.to_vec()]);
            assert!(meeting.facts.is_none(), "{garbage:?}");
            let problems = meeting.failure.expect("it fails").problems;
            assert!(problems[0].starts_with("error:"), "{problems:?}");
        }
        let meeting = meet_through(&trusting.client, &policy, &server, &mut |octets| vec![octets[..20].to_vec()]);
        assert!(meeting.facts.is_none());
    }
}

#[test]
fn no_changed_octet_makes_another_server_the_wanted_one() {
    let (root, other) = (authority("CA", None), authority("Other", None));
    let trusting = Trusting::new(&root);
    for (issued, expected) in [(server(&root), true), (server(&other), false)] {
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let server = Server::with(Some(&issued), |context| context.set_max_proto_version(Some(version)).unwrap());
            let policy = trusting.policy(ClientLevel::Secure);
            let octets = meet(&trusting.client, &policy, &server).octets;
            for at in (0..octets).step_by(STEP) {
                let mut passed = 0;
                let flip = &mut |mut octets: Vec<u8>| {
                    if let Some(octet) = at.checked_sub(passed).and_then(|at| octets.get_mut(at)) {
                        *octet ^= 1;
                    }
                    passed += octets.len();
                    vec![octets]
                };
                let meeting = meet_through(&trusting.client, &policy, &server, flip);
                if let Some(facts) = meeting.facts {
                    assert_eq!(facts.matched(), expected, "octet {at}");
                }
            }
        }
    }
}

#[test]
fn a_policy_that_would_match_anything_has_no_connection() {
    let root = authority("CA", None);
    let trusting = Trusting::new(&root);
    for level in [
        ClientLevel::Off,
        ClientLevel::Fingerprint,
        ClientLevel::HalfDane,
        ClientLevel::Dane,
        ClientLevel::DaneOnly,
        ClientLevel::Verify,
        ClientLevel::Secure,
    ] {
        let base = trusting.wanting(Wanted { level: ClientLevel::Encrypt, ..Wanted::default() });
        // The builder of policies refuses this one.
        let policy = Arc::new(Policy { level, ..(*base).clone() });
        assert!(trusting.client.connect(&policy).is_err(), "{level:?}");
    }
}
