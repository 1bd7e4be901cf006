//! Fingerprints of certificates and public keys.

use crate::certificates::{Issued, OVER, Request, authority, issue};
use crate::wire::{Server, Trusting, opinion};
use openssl::hash::{MessageDigest, hash};
use postillion_core::tls::ClientLevel;
use postillion_core::tls::client_settings::Wanted;

fn hex(octets: &[u8], separator: &str) -> String {
    octets.iter().map(|octet| format!("{octet:02X}")).collect::<Vec<_>>().join(separator)
}

fn of_certificate(issued: &Issued, digest: MessageDigest) -> String {
    hex(&issued.certificate.digest(digest).unwrap(), ":")
}

fn of_key(issued: &Issued, digest: MessageDigest) -> String {
    hex(&hash(digest, &issued.key.public_key_to_der().unwrap()).unwrap(), "").to_lowercase()
}

#[test]
fn the_digest_of_the_certificate_or_of_its_key_says_who_the_server_is() {
    let root = authority("CA", None);
    let alone = issue(Request { name: "x", alternatives: &[], ..Request::default() });
    let expired = issue(Request { issuer: Some(&root), days: OVER, ..Request::default() });
    let other = issue(Request { issuer: Some(&root), ..Request::default() });
    for (name, digest) in
        [("md5", MessageDigest::md5()), ("sha256", MessageDigest::sha256()), ("SHA512", MessageDigest::sha512())]
    {
        let trusting = Trusting::with(&root, |settings, _| settings.fingerprint_digest = name.into());
        let rows = [
            (&alone, vec![of_certificate(&alone, digest)], "Verified+"),
            (&alone, vec![of_key(&alone, digest)], "Verified+"),
            (&alone, vec![of_key(&other, digest), of_key(&alone, digest)], "Verified+"),
            (&expired, vec![of_certificate(&expired, digest)], "Verified+"),
            (&other, vec![of_key(&alone, digest), of_certificate(&expired, digest)], "Untrusted-"),
            // The fingerprint of an authority says nothing.
            (&other, vec![of_certificate(&root, digest), of_key(&root, digest)], "Untrusted-"),
        ];
        for (issued, fingerprints, expected) in rows {
            let wanted = Wanted { level: ClientLevel::Fingerprint, fingerprints, ..Wanted::default() };
            let facts = trusting.facts(&trusting.wanting(wanted), &Server::new(issued));
            assert_eq!(opinion(&facts), expected, "{name}");
            let line = "server certificate verification failed for mx: num=65:no matching DANE TLSA records";
            assert_eq!(facts.distrust_of("mx").as_deref(), (!facts.matched()).then_some(line));
        }
    }
}

#[test]
fn a_fingerprint_has_the_length_of_its_digest() {
    let trusting = Trusting::new(&authority("CA", None));
    for octets in [1, 16, 20, 31, 33, 64] {
        let fingerprints = vec!["00".repeat(32), "00".repeat(octets)];
        let wanted = Wanted { level: ClientLevel::Fingerprint, fingerprints, ..Wanted::default() };
        let problem = trusting.client.policy(wanted).unwrap_err();
        assert_eq!(problem, "a fingerprint has not the length of sha256", "{octets}");
    }
}
