//! TLS for Postillion's sessions, by OpenSSL: the engine behind `postillion_core::tls`.
//!
//! ```text
//! server       the context that all sessions of a server share
//! client       the context that all connections of a client share
//! context      versions, curves and trusted authorities of both
//! identity     keys and certificates
//! anchors      trust anchors in files
//! files        whether the files of keys and certificates have changed
//! renewal      the use of changed files
//! sni          the chain for the name that a client asks for
//! tickets      the keys of session tickets
//! options      options and workarounds of the library
//! session      one end of a connection, in memory
//! facts        the result of a handshake
//! verify       the first problem of the other side's certificate
//! trust        the opinion of a client about the server
//! shown        what the server has shown to a client
//! link         the policy of a client beside its connection
//! guest        facts beside a connection of a server
//! resume       sessions that a client may resume
//! self_signed  a certificate for measurements
//! slot         data of this crate in a connection of the library
//! version      the versions of OpenSSL
//! ffi          calls that the `openssl` crate does not have: the only unsafe code
//! ```

mod anchors;
pub mod client;
mod context;
mod facts;
#[expect(unsafe_code, reason = "calls of OpenSSL that the crate does not have")]
mod ffi;
mod files;
mod guest;
mod identity;
mod link;
mod options;
mod renewal;
mod resume;
pub mod self_signed;
pub mod server;
mod session;
mod shown;
mod slot;
pub mod sni;
pub mod tickets;
mod trust;
mod verify;
pub mod version;

use openssl::error::{Error, ErrorStack};
use postillion_core::tls::Failure;

/// Return the errors of the library, the first one first.
fn failure(errors: &ErrorStack) -> Failure {
    Failure { problems: errors.errors().iter().map(text).collect(), ..Failure::default() }
}

/// Return an error in Postfix's words.
fn text(error: &Error) -> String {
    let (library, reason) = (error.library().unwrap_or_default(), error.reason().unwrap_or_default());
    let data = error.data().map(|data| format!("{data}:")).unwrap_or_default();
    format!("error:{:08X}:{library}::{reason}:{}:{}:{data}", error.code(), error.file(), error.line())
}
