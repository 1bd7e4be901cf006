//! The requests of an agent's service to its owner.

use super::server::Server;
use super::tls_request::TlsRequest;
use crate::ask::Lookup;
use crate::net::reactor::Key;
use crate::sasl::Refusal;
use std::sync::Arc;

/// The number of a job in progress. It is never used for another one.
pub type Ticket = u64;

/// Why a connection has no TLS, or TLS with the wrong server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFault {
    /// The kind, in the words of RFC 8460 §4.3.
    pub kind: &'static str,
    /// More about it.
    pub reason: String,
}

/// A request to the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Call `connect` with the next server to try, or `give_up`.
    Find {
        /// The job.
        ticket: Ticket,
        /// Its next hop.
        nexthop: Arc<str>,
        /// The server whose reused connection has left recipients open: it is not tried again.
        tried: Option<Arc<Server>>,
        /// The last server has seen a transaction, and has left recipients for another one.
        completed: bool,
        /// Its sender's request about TLS.
        tls: TlsRequest,
    },
    /// Make lookups, and call `answer`.
    Ask {
        /// The connection.
        key: Key,
        /// Its job.
        ticket: Ticket,
        /// The lookups.
        lookups: Vec<Lookup>,
        /// They begin a part of the message: the time for lookups begins anew.
        first: bool,
    },
    /// Count a TLS session, or the lack of one, for the reports to the domain of a job (RFC 8460).
    Tls {
        /// The job.
        ticket: Ticket,
        /// Why there is no session with the right server.
        fault: Option<TlsFault>,
    },
    /// Remember that a server has refused the login of a job.
    Login {
        /// The job.
        ticket: Ticket,
        /// The server's reply.
        refusal: Refusal,
    },
    /// Forget a job of an earlier `Find`: it needs no server any more.
    Done(Ticket),
    /// Call `sweep` from time to time, until it returns false.
    Sweep,
}
