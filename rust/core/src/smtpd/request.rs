//! The requests of a service to its owner, and the answers about clients.

use crate::mail::reply::Reply;
use crate::net::reactor::Key;
use crate::smtp::server::Next;
use crate::smtpd::site::Client;

/// A request to the owner.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Find out about an unknown client, then call `begin`.
    Welcome(Key),
    /// Answer the session's question, then call `proceed`.
    Decide(Key, Next),
    /// Call `wake` at this time.
    WakeUp(Key, f64),
    /// A connection is gone that an earlier request was about.
    Gone(Key),
    /// Call `sweep` from time to time, until it returns false.
    Sweep,
    /// No session is left, after `drain`.
    Empty,
    /// No client can be accepted, for this reason: call `accept` after a while.
    AcceptFailed(String),
}

/// A client about whom the owner need not be asked again.
#[derive(Debug, Clone, Default)]
pub struct KnownClient {
    /// The client; the port differs each time.
    pub client: Client,
    /// The group of clients that share accepted recipients; `None`: each recipient is a question.
    pub group: Option<u8>,
}

/// The beginning of a session.
#[derive(Debug, Clone)]
pub enum Opening {
    /// With 220.
    Greet,
    /// With a refusal of the site's restrictions.
    Refuse(Reply),
    /// With 421 and this text: the client has too many connections.
    Dismiss(String),
}
