//! The interface of a SASL mechanism, from the client's side, and of a library of mechanisms.
//!
//! ```text
//! begin                 ->  the initial response, if the client speaks first
//! respond(challenge)    ->  the response
//! finish                ->  after the server's success: whether anything is missing
//! ```

use super::credentials::{Credentials, Secret};
use super::kind::Kind;
use std::fmt;
use std::sync::Arc;

/// One exchange with a server. A failure is final.
pub trait Mechanism: Send + Sync + fmt::Debug {
    /// Return the initial response; `None` if the server speaks first. Called once, before all other calls.
    fn begin(&mut self) -> Result<Option<Secret>, Failure>;

    /// Return the response to a challenge. A challenge after the last one is a failure.
    fn respond(&mut self, challenge: &[u8]) -> Result<Secret, Failure>;

    /// Check the whole exchange after the server's success: a mechanism may want the server to prove its identity.
    fn finish(&mut self) -> Result<(), Failure>;
}

/// A library of mechanisms.
pub trait Mechanisms: Send + Sync + fmt::Debug {
    /// Start an exchange. Errors: the credentials do not suit the mechanism.
    fn start(&self, kind: Kind, request: &Request) -> Result<Box<dyn Mechanism>, Failure>;
}

/// The arguments of an exchange.
#[derive(Debug, Clone)]
pub struct Request {
    /// The user that the client proves to be.
    pub credentials: Arc<Credentials>,
    /// Name that user as the identity to act as, too (send_cyrus_sasl_authzid).
    pub names_identity: bool,
}

/// The reason why an exchange has ended on this side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind of the reason.
    pub fault: Fault,
    /// The reason, for the log. It holds nothing secret, and nothing from the server.
    pub problem: &'static str,
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server's challenge makes no sense.
    Challenge,
    /// The server does not prove that it knows the password.
    Server,
    /// This side cannot go on: the credentials do not suit the mechanism, or the server asks for more than they have.
    Client,
}

impl Failure {
    /// The server's challenge makes no sense.
    pub const fn challenge(problem: &'static str) -> Self {
        Self { fault: Fault::Challenge, problem }
    }

    /// The server does not prove that it knows the password.
    pub const fn server(problem: &'static str) -> Self {
        Self { fault: Fault::Server, problem }
    }

    /// This side cannot go on.
    pub const fn client(problem: &'static str) -> Self {
        Self { fault: Fault::Client, problem }
    }
}

impl fmt::Display for Fault {
    /// Write the words of Postfix's log and reports, which are those of the Cyrus library.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Challenge => "bad protocol / cancel",
            Self::Server => "authentication failure",
            Self::Client => "generic failure",
        })
    }
}
