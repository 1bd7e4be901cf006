//! TLS of source and sink: which handshakes a run has.

use crate::tls::{Channel, ClientEngines, Engines, Failure, Policy};
use std::sync::Arc;

/// TLS of a source.
#[derive(Debug, Clone)]
pub struct SourceTls {
    /// The library. It keeps TLS sessions by policy.
    pub engines: Arc<dyn ClientEngines>,
    /// The policy of all connections. With a `session_key`, each one goes on with the TLS session of an earlier one.
    pub policy: Arc<Policy>,
    /// TLS begins with the connection.
    pub wrapper: bool,
}

impl SourceTls {
    /// Return whether connections resume TLS sessions. The first connection of a run obtains the session, and sends no mail.
    pub fn resumes(&self) -> bool {
        !self.policy.session_key.is_empty()
    }

    /// Return the channel of a new connection, with the first octets for the server.
    pub fn begin(&self) -> Result<Channel, Failure> {
        let mut channel = Channel::new(self.engines.connect(&self.policy)?);
        channel.begin()?;
        Ok(channel)
    }
}

/// TLS of a sink.
#[derive(Debug, Clone)]
pub struct SinkTls {
    /// The library.
    pub engines: Arc<dyn Engines>,
    /// TLS begins with the connection.
    pub wrapper: bool,
}

impl SinkTls {
    /// Return the channel of a new connection.
    pub fn begin(&self) -> Result<Channel, Failure> {
        Ok(Channel::new(self.engines.accept()?))
    }
}

/// Return a complaint about a failed handshake or channel.
pub fn complaint(failure: &Failure) -> String {
    format!("TLS: {}", failure.problems.first().map_or("lost connection", String::as_str))
}
