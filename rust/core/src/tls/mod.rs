//! TLS around any dialogue: octets in, octets out. It owns no socket and no library.
//!
//! ```text
//! channel    the handshake, and plaintext through it
//! engine     the interface of a library: `postillion-tls` has one for OpenSSL
//! facts      the result of a handshake, for the log and the Received header
//! settings   the parameters of a server
//! protocols  lists such as `>=TLSv1.2` and `!SSLv3`
//! ciphers    grades, and the exclusions from them
//! ```

pub mod channel;
pub mod ciphers;
pub mod engine;
pub mod facts;
pub mod protocols;
pub mod settings;
#[cfg(test)]
pub mod testing;

pub use channel::{Channel, Heard};
pub use engine::{Engine, Engines, Failure};
pub use facts::Facts;

/// Return the words of a list: blanks, commas and colons separate them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t', '\r', '\n', ',', ':']).filter(|word| !word.is_empty())
}
