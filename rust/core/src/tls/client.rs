//! The policy of a client for one connection (postconf(5), smtp_tls_security_level; RFC 7672).

use super::dane::Tlsa;
use super::engine::{Engine, Failure};
use super::level::ClientLevel;
use super::protocols::Protocols;
use super::settings::LogLevel;
use std::fmt;
use std::sync::Arc;

/// The policy of one connection. Equal policies may share a TLS session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Policy {
    /// The use of TLS.
    pub level: ClientLevel,
    /// The versions that the server may use.
    pub protocols: Protocols,
    /// The ciphers, in OpenSSL's syntax.
    pub cipher_list: String,
    /// The names of which the certificate must have one, in lower case. `.example.com` stands for each name below
    /// `example.com`.
    pub names: Vec<String>,
    /// The digests of which the server's certificate or its public key must have one.
    pub fingerprints: Vec<Vec<u8>>,
    /// The digest of these fingerprints, such as `sha256`.
    pub digest: String,
    /// At a level of DANE, the server's records. At `verify` and `secure`, trust anchors in place of the site's authorities.
    pub tlsa: Vec<Tlsa>,
    /// The name that the client asks for (SNI).
    pub servername: Option<String>,
    /// The amount of log lines.
    pub log_level: LogLevel,
    /// The server's part of the key under which the TLS session is cached; empty: it is not. The policy is the other part.
    pub session_key: String,
}

/// The source of engines for the connections of a client.
pub trait ClientEngines: Send + Sync + fmt::Debug {
    /// Return the engine of a new connection. Errors: why the library has none; mail must not go out in the clear instead
    /// where the policy requires TLS.
    fn connect(&self, policy: &Arc<Policy>) -> Result<Box<dyn Engine>, Failure>;
}
