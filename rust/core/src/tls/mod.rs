//! TLS around any dialogue: octets in, octets out. It owns no socket and no library.
//!
//! ```text
//! channel    the handshake, and plaintext through it
//! engine     the interface of a library: `postillion-tls` has one for OpenSSL
//! facts      the result of a handshake, for the log and the Received header
//! settings   the parameters of a server
//! client     the policy of a client for one connection, and the parameters behind it in `client_settings`
//! level      its security levels
//! dane       TLSA records
//! protocols  lists such as `>=TLSv1.2` and `!SSLv3`
//! ciphers    grades, and the exclusions from them
//! ```

pub mod channel;
pub mod ciphers;
pub mod client;
pub mod client_settings;
pub mod dane;
pub mod engine;
pub mod facts;
pub mod level;
pub mod protocols;
pub mod settings;
#[cfg(test)]
pub mod testing;

pub use channel::{Channel, Heard};
pub use client::{ClientEngines, Policy};
pub use engine::{Engine, Engines, Failure};
pub use facts::Facts;
pub use level::ClientLevel;

/// Return the curves of `tls_eecdh_auto_curves`.
fn listed_curves(text: &str) -> Vec<&str> {
    words(text).flat_map(|word| word.split('/')).filter(|word| !word.is_empty()).collect()
}

/// Return the words of a list: blanks, commas and colons separate them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t', '\r', '\n', ',', ':']).filter(|word| !word.is_empty())
}
