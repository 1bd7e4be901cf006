//! The check of the other side's certificate: its first problem, in Postfix's words.

use crate::slot::Slot;
use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslRef};
use openssl::x509::{X509NameRef, X509StoreContext, X509StoreContextRef};
use openssl_sys as sys;
use postillion_core::tls::facts::Distrust;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// In a log line, an authority between both ends of a chain.
const AUTHORITY: &str = "CA";

/// The certificates that the library has seen.
#[derive(Debug, Default)]
struct Note {
    /// It has seen one.
    seen: bool,
    /// The problem of the one that is nearest to the other side's, with its distance.
    problem: Option<(u32, Distrust)>,
}

static NOTES: Slot<Mutex<Note>> = Slot::new();

/// Give a connection room for a problem.
pub fn prepare(ssl: &mut Ssl) -> Result<(), ErrorStack> {
    NOTES.put(ssl, Mutex::default())
}

/// OpenSSL's callback for each certificate: note a problem, and go on. `whose`: `client` or `server`, the other side.
/// `limit`: maximum length of a chain.
///
/// A certificate that nobody trusts is no reason to refuse the handshake: the site's rules decide.
pub fn note(is_good: bool, context: &mut X509StoreContextRef, whose: &'static str, limit: u32) -> bool {
    let ssl = X509StoreContext::ssl_idx().ok().and_then(|index| context.ex_data(index));
    if let Some(mut note) = ssl.and_then(note_of) {
        note.seen = true;
        let depth = context.error_depth();
        if !is_good && note.problem.as_ref().is_none_or(|(other, _)| depth < *other) {
            note.problem = Some((depth, describe(context, whose, limit)));
        }
    }
    true
}

/// Return the problem of the other side's certificate.
pub fn distrust(ssl: &SslRef) -> Option<Distrust> {
    note_of(ssl)?.problem.as_ref().map(|(_, distrust)| distrust.clone())
}

/// Return whether the library has checked a certificate in this handshake, and has found no problem.
pub fn is_checked(ssl: &SslRef) -> bool {
    note_of(ssl).is_some_and(|note| note.seen && note.problem.is_none())
}

fn note_of(ssl: &SslRef) -> Option<MutexGuard<'_, Note>> {
    Some(NOTES.of(ssl)?.lock().unwrap_or_else(PoisonError::into_inner))
}

fn describe(context: &X509StoreContextRef, whose: &'static str, limit: u32) -> Distrust {
    let whose = if context.error_depth() > 0 { AUTHORITY } else { whose };
    let error = context.error();
    let of = |reason: String| Distrust { whose, reason };
    match error.as_raw() {
        sys::X509_V_ERR_CERT_UNTRUSTED => other("not trusted by local or TLSA policy"),
        sys::X509_V_ERR_CERT_NOT_YET_VALID | sys::X509_V_ERR_ERROR_IN_CERT_NOT_BEFORE_FIELD => {
            of("certificate not yet valid".into())
        }
        sys::X509_V_ERR_CERT_HAS_EXPIRED | sys::X509_V_ERR_ERROR_IN_CERT_NOT_AFTER_FIELD => {
            of("certificate has expired".into())
        }
        sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY | sys::X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN => {
            let issuer = context.current_cert().map(|certificate| one_line(certificate.issuer_name()));
            other(format!("untrusted issuer {}", issuer.as_deref().unwrap_or("<unknown>")))
        }
        sys::X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT => other("self-signed certificate"),
        sys::X509_V_ERR_INVALID_PURPOSE => other(format!("not designated for use as a {whose} certificate")),
        sys::X509_V_ERR_CERT_CHAIN_TOO_LONG => other(format!("certificate chain longer than limit({limit})")),
        number => of(format!("num={number}:{}", error.error_string())),
    }
}

fn other(reason: impl Into<String>) -> Distrust {
    Distrust { whose: "", reason: reason.into() }
}

/// Return a name as `/C=XX/CN=name`, safe to print.
pub fn one_line(name: &X509NameRef) -> String {
    let mut text = String::new();
    for entry in name.entries() {
        let _ = write!(text, "/{}=", entry.object().nid().short_name().unwrap_or("unknown"));
        for &octet in entry.data().as_slice() {
            let _ = match octet {
                b' '..=b'~' => write!(text, "{}", char::from(octet)),
                _ => write!(text, "\\x{octet:02X}"),
            };
        }
    }
    text
}
