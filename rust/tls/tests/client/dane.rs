//! TLSA records and trust anchors (RFC 7671, RFC 7672).

use crate::certificates::{Directory, Issued, OVER, Request, authority, issue, server};
use crate::wire::{Server, Trusting, opinion};
use openssl::hash::{MessageDigest, hash};
use postillion_core::tls::ClientLevel;
use postillion_core::tls::client_settings::Wanted;
use postillion_core::tls::dane::Tlsa;

/// Return the record of a certificate.
fn record(usage: u8, selector: u8, matching: u8, issued: &Issued) -> Tlsa {
    let der = if selector == 0 { issued.certificate.to_der() } else { issued.key.public_key_to_der() }.unwrap();
    let data = match matching {
        0 => der,
        1 => hash(MessageDigest::sha256(), &der).unwrap().to_vec(),
        _ => hash(MessageDigest::sha512(), &der).unwrap().to_vec(),
    };
    Tlsa { usage, selector, matching, data }
}

fn dane(level: ClientLevel, tlsa: &[Tlsa]) -> Wanted<'static> {
    Wanted { level, tlsa: tlsa.to_vec(), ..Wanted::default() }
}

struct World {
    /// The client trusts it, which means nothing with DANE.
    known: Issued,
    root: Issued,
    below: Issued,
    trusting: Trusting,
}

impl World {
    fn new() -> Self {
        let (known, root) = (authority("Known", None), authority("CA", None));
        let below = authority("Inter", Some(&root));
        let trusting = Trusting::new(&known);
        Self { known, root, below, trusting }
    }

    fn opinion(&self, tlsa: &[Tlsa], issued: &Issued) -> String {
        let policy = self.trusting.wanting(dane(ClientLevel::Dane, tlsa));
        assert_eq!(policy.level, ClientLevel::Dane, "usable");
        opinion(&self.trusting.facts(&policy, &Server::new(issued)))
    }
}

#[test]
fn an_end_entity_needs_neither_name_nor_date_nor_chain() {
    let world = World::new();
    let issuer = Some(&world.below);
    let strange = issue(Request { name: "x", alternatives: &["y.example"], ..Request::default() });
    let expired = issue(Request { issuer, days: OVER, ..Request::default() });
    let other = server(&world.known);
    for selector in [0, 1] {
        for matching in [0, 1, 2] {
            for (issued, of, expected) in [
                (&strange, &strange, "Verified+"),
                (&expired, &expired, "Verified+"),
                (&other, &other, "Verified+"),
                (&other, &strange, "Untrusted-"),
                (&other, &world.known, "Untrusted-"),
            ] {
                let tlsa = [record(3, selector, matching, of)];
                assert_eq!(world.opinion(&tlsa, issued), expected, "3 {selector} {matching}");
            }
        }
    }
}

#[test]
fn a_trust_anchor_needs_name_and_date() {
    let world = World::new();
    let mut good = server(&world.below);
    // Digests name certificates that the server sends.
    good.chain.push(world.root.certificate.clone());
    let chain = &good.chain;
    let with_chain = |request: Request<'_>| Issued { chain: chain.clone(), ..issue(request) };
    let issuer = Some(&world.below);
    let expired = with_chain(Request { issuer, days: OVER, ..Request::default() });
    let wrong = with_chain(Request { issuer, alternatives: &["other.example"], ..Request::default() });
    let of_known = server(&world.known);
    for selector in [0, 1] {
        for matching in [0, 1, 2] {
            for anchor in [&world.root, &world.below] {
                let tlsa = [record(2, selector, matching, anchor)];
                for (issued, expected) in
                    [(&good, "Verified+"), (&expired, "Untrusted-"), (&wrong, "Untrusted-"), (&of_known, "Untrusted-")]
                {
                    assert_eq!(world.opinion(&tlsa, issued), expected, "2 {selector} {matching}");
                }
            }
        }
    }
}

#[test]
fn an_anchor_that_the_server_does_not_send_is_known_by_all_of_its_octets() {
    let world = World::new();
    // The root is not in the chain.
    let good = server(&world.below);
    for (selector, matching, expected) in
        [(0, 0, "Verified+"), (1, 0, "Verified+"), (0, 1, "Untrusted-"), (1, 1, "Untrusted-"), (0, 2, "Untrusted-")]
    {
        let tlsa = [record(2, selector, matching, &world.root)];
        assert_eq!(world.opinion(&tlsa, &good), expected, "2 {selector} {matching}");
    }
}

#[test]
fn one_record_that_matches_is_enough() {
    let world = World::new();
    let (good, other) = (server(&world.below), server(&world.below));
    let tlsa = [record(3, 1, 1, &other), record(2, 0, 1, &world.known), record(2, 1, 0, &world.root)];
    assert_eq!(world.opinion(&tlsa, &good), "Verified+");
    assert_eq!(world.opinion(&tlsa[..2], &good), "Untrusted-");
    assert_eq!(world.opinion(&tlsa[..1], &other), "Verified+");
}

#[test]
fn the_strongest_digest_counts_alone() {
    let world = World::new();
    let (good, other) = (server(&world.below), server(&world.below));
    let tlsa = [record(3, 1, 1, &good), record(3, 1, 2, &other)];
    assert_eq!(world.opinion(&tlsa, &good), "Untrusted-");
    let turned = Trusting::with(&world.known, |settings, _| settings.dane_digests.known.reverse());
    let policy = turned.wanting(dane(ClientLevel::Dane, &tlsa));
    assert_eq!(opinion(&turned.facts(&policy, &Server::new(&good))), "Verified+");
    let only = Trusting::with(&world.known, |settings, _| settings.dane_digests.known = vec![("sha256", 1)]);
    let policy = only.wanting(dane(ClientLevel::Dane, &tlsa));
    assert_eq!((policy.tlsa.len(), opinion(&only.facts(&policy, &Server::new(&good)))), (1, "Verified+".into()));
}

#[test]
fn unusable_records_are_left_out_and_without_any_the_server_is_not_checked() {
    let world = World::new();
    let good = server(&world.below);
    let bad = |usage, selector, matching, data: &[u8]| Tlsa { usage, selector, matching, data: data.to_vec() };
    let mut longer = record(3, 0, 0, &good).data;
    longer.push(0);
    let unusable = [
        record(0, 0, 1, &world.root),
        record(1, 1, 1, &good),
        bad(4, 1, 1, &[0; 32]),
        bad(3, 2, 1, &[0; 32]),
        bad(3, 1, 3, &[0; 32]),
        bad(3, 1, 1, &[0; 31]),
        bad(3, 1, 2, &[0; 63]),
        bad(3, 1, 255, &[0; 32]),
        bad(3, 0, 0, b""),
        bad(3, 0, 0, b"no certificate"),
        bad(2, 0, 0, &longer),
        bad(2, 1, 0, b"no key"),
    ];
    let usable = record(3, 1, 1, &good);
    for tlsa in &unusable {
        let both = world.trusting.wanting(dane(ClientLevel::DaneOnly, &[tlsa.clone(), usable.clone()]));
        assert_eq!(both.tlsa, std::slice::from_ref(&usable));
    }
    for (level, effective) in [(ClientLevel::Dane, ClientLevel::Encrypt), (ClientLevel::HalfDane, ClientLevel::Encrypt)]
    {
        let policy = world.trusting.wanting(dane(level, &unusable));
        assert_eq!((policy.level, policy.tlsa.len()), (effective, 0));
        assert!(policy.cipher_list.ends_with(":!eNULL"));
        assert_eq!(opinion(&world.trusting.facts(&policy, &Server::new(&good))), "Untrusted-");
    }
    let names = vec!["mx.example".into()];
    let only = Wanted { names, ..dane(ClientLevel::DaneOnly, &unusable) };
    assert_eq!(world.trusting.client.policy(only).unwrap_err(), "no usable TLSA record at level dane-only");
}

#[test]
fn a_name_that_may_be_forged_is_no_verified_server() {
    let world = World::new();
    let good = server(&world.below);
    let half = world.trusting.wanting(dane(ClientLevel::HalfDane, &[record(3, 1, 1, &good)]));
    assert_eq!(opinion(&world.trusting.facts(&half, &Server::new(&good))), "Trusted+");
    assert_eq!(opinion(&world.trusting.facts(&half, &Server::new(&server(&world.known)))), "Untrusted-");
}

#[test]
fn the_servers_certificate_is_a_trust_anchor_that_needs_a_name() {
    let world = World::new();
    let directory = Directory::new();
    let issuer = Some(&world.below);
    let strange = issue(Request { issuer, alternatives: &["other.example"], ..Request::default() });
    let expired = issue(Request { issuer, days: OVER, ..Request::default() });
    for (name, issued, expected) in [("strange", &strange, "Untrusted-"), ("expired", &expired, "Verified+")] {
        let file = directory.write(name, &issued.certificate.to_pem().unwrap());
        let wanted = Wanted { level: ClientLevel::Verify, trust_anchor_files: vec![file], ..Wanted::default() };
        let policy = world.trusting.wanting(wanted);
        assert_eq!(opinion(&world.trusting.facts(&policy, &Server::new(issued))), expected, "{name}");
    }
}

#[test]
fn trust_anchors_of_a_site_take_the_place_of_its_authorities() {
    let world = World::new();
    let pem = |issued: &Issued| issued.certificate.to_pem().unwrap();
    let key = |issued: &Issued| issued.key.public_key_to_pem().unwrap();
    let (good, of_known) = (server(&world.below), server(&world.known));
    let directory = Directory::new();
    let rows = [
        (pem(&world.root), "Verified+", "Untrusted-"),
        (key(&world.root), "Verified+", "Untrusted-"),
        (pem(&world.below), "Verified+", "Untrusted-"),
        ([key(&world.below), pem(&world.known)].concat(), "Verified+", "Verified+"),
        (pem(&good), "Verified+", "Untrusted-"),
        (key(&good), "Verified+", "Untrusted-"),
    ];
    for (number, (text, of_good, of_other)) in rows.into_iter().enumerate() {
        let file = directory.write(&format!("{number}.pem"), &text);
        let main_cf = Trusting::with(&world.known, |settings, _| settings.trust_anchor_files = vec![file.clone()]);
        let of_site = main_cf.policy(ClientLevel::Secure);
        let of_table = world.trusting.wanting(Wanted {
            level: ClientLevel::Secure,
            trust_anchor_files: vec![file],
            ..Wanted::default()
        });
        assert_eq!(of_site, of_table);
        for (issued, expected) in [(&good, of_good), (&of_known, of_other)] {
            assert_eq!(opinion(&main_cf.facts(&of_site, &Server::new(issued))), expected, "{number}");
            assert_eq!(opinion(&world.trusting.facts(&of_table, &Server::new(issued))), expected, "{number}");
        }
        assert_eq!(main_cf.policy(ClientLevel::Encrypt).tlsa, []);
    }
    for (text, problem) in [
        (&b""[..], "no certificate or public key is there"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "a certificate or public key is malformed"),
        (&good.key.private_key_to_pem_pkcs8().unwrap(), "\"PRIVATE KEY\" is neither a certificate nor a public key"),
    ] {
        let file = directory.write("bad.pem", text);
        let names = vec!["mx.example".into()];
        let trust_anchor_files = vec![file.clone()];
        let wanted = Wanted { level: ClientLevel::Verify, names, trust_anchor_files, ..Wanted::default() };
        assert_eq!(world.trusting.client.policy(wanted).unwrap_err(), format!("{file}: {problem}"));
    }
}
