//! The opinion of a client about the server's certificate.
//!
//! OpenSSL checks everything in the handshake: the chain, the names, and the TLSA records, which also stand for fingerprints
//! and trust anchors. One result says whether the server is the one that the policy wants.

use crate::{facts, link, verify};
use openssl::ssl::SslRef;
use openssl::x509::{X509Ref, X509VerifyResult};
use postillion_core::tls::ClientLevel;
use postillion_core::tls::facts::{Distrust, ServerCertificate, Trust};
use postillion_core::tls::settings::LogLevel;

/// From this level on, the log says why a certificate is not trusted even where nobody needs it.
const LOGS_DISTRUST: LogLevel = LogLevel(2);
/// Postfix's words where the library has not said what is wrong.
const UNSPECIFIED: &str = "num=1:unspecified certificate verification error";
const RESUMED: &str = "an earlier session is resumed, which had this problem";

/// Return what the client of a connection thinks of the server's certificate.
pub fn of(ssl: &SslRef, certificate: &X509Ref) -> ServerCertificate {
    let (level, log_level) = link::policy(ssl).map(|policy| (policy.level, policy.log_level)).unwrap_or_default();
    let is_trusted = is_trusted(ssl);
    let matched = is_trusted && level.must_match();
    let says_why = level.must_match() || log_level >= LOGS_DISTRUST;
    ServerCertificate {
        subject: facts::subject(certificate),
        issuer: facts::issuer(certificate),
        trust: match (is_trusted, matched && level != ClientLevel::HalfDane) {
            (_, true) => Trust::Verified,
            (true, false) => Trust::Trusted,
            (false, false) => Trust::Untrusted,
        },
        matched,
        distrust: (says_why && !is_trusted).then(|| verify::distrust(ssl).unwrap_or_else(|| unspecified(ssl))),
    }
}

/// Return whether the library has found no problem: in this handshake, or in that of the session that is resumed.
pub fn is_trusted(ssl: &SslRef) -> bool {
    ssl.verify_result() == X509VerifyResult::OK && (verify::is_checked(ssl) || ssl.session_reused())
}

fn unspecified(ssl: &SslRef) -> Distrust {
    let reason = if ssl.session_reused() { RESUMED } else { UNSPECIFIED };
    Distrust { whose: "server", reason: reason.into() }
}
