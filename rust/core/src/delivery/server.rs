//! A server that an agent connects to, and how.

use crate::sasl::Login;
use crate::smtp::client::requiretls::RequireTls;
use crate::tls::Policy;
use std::net::IpAddr;
use std::sync::Arc;

/// A server: a host at one of its addresses, or a socket in the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The host's name.
    pub host: Box<str>,
    /// An IP address, or the path of a socket.
    pub address: Box<str>,
    /// The port; 0 for a socket in the file system.
    pub port: u16,
    /// A server that gives our own name is a mail loop.
    pub loop_detect: bool,
    /// No other host of the next hop has a better preference.
    pub best: bool,
}

/// How to connect to a server, and what is left if it fails.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// No other server is left when this one fails before its handshake is done.
    pub last_address: bool,
    /// No other server is left when this one fails after it.
    pub last_session: bool,
    /// The address to connect from.
    pub source: Option<IpAddr>,
    /// The number of hosts of the next hop.
    pub hosts: usize,
    /// The use of TLS; `None` for none.
    pub tls: Option<Arc<Policy>>,
    /// The policy for a job that asks for REQUIRETLS.
    pub requiretls: RequireTls,
    /// Whether the connection takes further jobs.
    pub reuses: bool,
    /// Whether it takes them inside TLS, too.
    pub reuses_tls: bool,
    /// This client's account there.
    pub login: Login,
}
