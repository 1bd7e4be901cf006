//! The chain of a server and its match, read from the library.

use crate::{facts, ffi, link, trust, verify};
use openssl::hash::MessageDigest;
use openssl::ssl::SslRef;
use openssl::x509::X509Ref;
use postillion_core::tls::facts::{Shown, ShownCertificate};

/// Return what the server has shown to a client. Matches are those of the server that the policy wants.
pub fn of(ssl: &SslRef) -> Shown {
    let Some(policy) = link::policy(ssl) else { return Shown::default() };
    let Some(digest) = MessageDigest::from_name(&policy.digest) else { return Shown::default() };
    let chain =
        ssl.peer_cert_chain().into_iter().flatten().filter_map(|certificate| certificate_of(certificate, digest));
    let matches = policy.level.must_match() && trust::is_trusted(ssl);
    Shown {
        chain: chain.collect(),
        matched_name: matches.then(|| ffi::client::matched_name(ssl)).flatten(),
        matched_record: matches.then(|| ffi::client::matched_record(ssl)).flatten(),
    }
}

fn certificate_of(certificate: &X509Ref, digest: MessageDigest) -> Option<ShownCertificate> {
    Some(ShownCertificate {
        subject: verify::one_line(certificate.subject_name()),
        issuer: verify::one_line(certificate.issuer_name()),
        fingerprints: facts::fingerprints(certificate, digest)?,
        pem: String::from_utf8(certificate.to_pem().ok()?).ok()?,
    })
}
