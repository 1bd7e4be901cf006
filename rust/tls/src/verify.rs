//! The check of a client's certificate: its first problem, in Postfix's words.

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslRef};
use openssl::x509::{X509NameRef, X509StoreContext, X509StoreContextRef};
use openssl_sys as sys;
use postillion_core::tls::facts::Distrust;
use std::fmt::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The problem of the certificate that is nearest to the client's, with its distance.
type Note = Mutex<Option<(u32, Distrust)>>;

static INDEX: OnceLock<Index<Ssl, Note>> = OnceLock::new();

/// Give a connection room for a problem.
pub fn prepare(ssl: &mut Ssl) -> Result<(), ErrorStack> {
    let index = match INDEX.get() {
        Some(index) => *index,
        None => {
            let made = Ssl::new_ex_index()?;
            *INDEX.get_or_init(|| made)
        }
    };
    ssl.set_ex_data(index, Note::default());
    Ok(())
}

/// OpenSSL's callback for each certificate: note a problem, and go on. `limit`: maximum length of a chain.
///
/// A certificate that nobody trusts is no reason to refuse the handshake: the site's rules decide.
pub fn note(is_good: bool, context: &mut X509StoreContextRef, limit: u32) -> bool {
    if !is_good && let Some(distrust) = describe(context, limit) {
        let depth = context.error_depth();
        let ssl = X509StoreContext::ssl_idx().ok().and_then(|index| context.ex_data(index));
        if let Some(note) = ssl.and_then(slot) {
            let mut first = note.lock().unwrap_or_else(PoisonError::into_inner);
            if first.as_ref().is_none_or(|(other, _)| depth < *other) {
                *first = Some((depth, distrust));
            }
        }
    }
    true
}

/// Return the problem of the client's certificate.
pub fn distrust(ssl: &SslRef) -> Option<Distrust> {
    let note = slot(ssl)?.lock().unwrap_or_else(PoisonError::into_inner);
    note.as_ref().map(|(_, distrust)| distrust.clone())
}

fn slot(ssl: &SslRef) -> Option<&Note> {
    ssl.ex_data(*INDEX.get()?)
}

fn describe(context: &X509StoreContextRef, limit: u32) -> Option<Distrust> {
    let error = context.error();
    Some(match error.as_raw() {
        sys::X509_V_ERR_CERT_NOT_YET_VALID | sys::X509_V_ERR_ERROR_IN_CERT_NOT_BEFORE_FIELD => {
            Distrust { whose: "client", reason: "certificate not yet valid".into() }
        }
        sys::X509_V_ERR_CERT_HAS_EXPIRED | sys::X509_V_ERR_ERROR_IN_CERT_NOT_AFTER_FIELD => {
            Distrust { whose: "client", reason: "certificate has expired".into() }
        }
        sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
        | sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        | sys::X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN => {
            other(format!("untrusted issuer {}", one_line(context.current_cert()?.issuer_name())))
        }
        sys::X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT => other("self-signed certificate"),
        sys::X509_V_ERR_INVALID_PURPOSE => other("not designated for use as a client certificate"),
        sys::X509_V_ERR_CERT_CHAIN_TOO_LONG => other(format!("certificate chain longer than limit({limit})")),
        number => other(format!("num={number}:{}", error.error_string())),
    })
}

fn other(reason: impl Into<String>) -> Distrust {
    Distrust { whose: "", reason: reason.into() }
}

/// Return a name as `/C=XX/CN=name`, safe to print.
fn one_line(name: &X509NameRef) -> String {
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
