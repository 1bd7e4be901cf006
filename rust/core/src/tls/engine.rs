//! The interface of a TLS library: one end of a connection, without its socket.

use super::facts::{Facts, Shown};
use std::fmt;

/// The failure of a handshake or of an open channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// The library's errors, the first one first; none when the peer only went away.
    pub problems: Vec<String>,
    /// Further lines about it, for the log.
    pub warnings: Vec<String>,
}

/// One end of a TLS connection.
///
/// A failure is final. Octets that the library still has for the peer, such as an alert, come from `take_output`.
pub trait Engine: Send + Sync {
    /// Take octets as the peer sent them.
    fn receive(&mut self, octets: &[u8]);

    /// Go on with the handshake; return whether it is complete.
    fn shake(&mut self) -> Result<bool, Failure>;

    /// Append the plaintext of the octets that were received; return whether more may follow. After the peer's
    /// close_notify none does.
    fn read(&mut self, plain: &mut Vec<u8>) -> Result<bool, Failure>;

    /// Encrypt. The handshake must be complete.
    fn write(&mut self, plain: &[u8]) -> Result<(), Failure>;

    /// Tell the peer that no more plaintext follows.
    fn close(&mut self);

    /// Return the octets for the peer since the last call.
    fn take_output(&mut self) -> Vec<u8>;

    /// Return the result of the handshake.
    fn facts(&self) -> Facts;

    /// Return what the server has shown, for a client.
    fn shown(&self) -> Shown {
        Shown::default()
    }
}

/// The source of engines for the sessions of a server.
pub trait Engines: Send + Sync + fmt::Debug {
    /// Return the engine of a new connection. Errors: why the library has none.
    fn accept(&self) -> Result<Box<dyn Engine>, Failure>;
}
