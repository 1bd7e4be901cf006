//! One connection of an agent to a server, and what the service knows about it.

use super::request::Ticket;
use super::route::RouteKey;
use super::server::{Attempt, Server};
use super::session::{Next, Session};
use super::tls_request::TlsRequest;
use crate::errno::reason;
use crate::net::Dialogue;
use crate::smtp::client::requiretls::RequireTls;
use crate::tls::{Channel, Facts, Failure};
use rustix::io::Errno;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A session with its clock. The reactor moves its octets, and the service ends its jobs.
#[derive(Debug)]
pub struct Carried {
    /// The session.
    pub session: Session,
    /// Microseconds since 1970.
    pub wall_clock: fn() -> u64,
    /// The message of the panic that has ended the session.
    pub bug: Option<String>,
}

/// A session, shared by the reactor and the service: it ends its job when the reactor has lost its connection.
pub type Shared = Arc<Mutex<Carried>>;

/// A connection.
#[derive(Debug)]
pub struct Visit {
    /// The server.
    pub server: Arc<Server>,
    /// The next hop, for mail of one request about TLS.
    pub route: RouteKey,
    /// The attempt that has begun it.
    pub attempt: Attempt,
    /// The job in progress.
    pub ticket: Option<Ticket>,
    /// The job that follows, and when it began to wait.
    pub follower: Option<(Ticket, f64)>,
    /// The session; `None` while the connection is being made.
    pub session: Option<Shared>,
    /// When the connection was established.
    pub opened: f64,
    /// When it began to wait for the next job.
    pub idle_since: f64,
    /// When the attempt to connect ends.
    pub connect_until: f64,
    /// When its last octets were written and it began to close.
    pub closing_since: Option<f64>,
    /// Octets that waited to be written at the last check.
    pub unsent: usize,
    /// The session waits for answers to lookups.
    pub asking: bool,
}

impl Visit {
    /// Return whether other jobs of its route may use it. Mail with REQUIRETLS has a policy for each message, which may have
    /// become `enforce`: only a server that meets this one suits.
    pub fn suits_others(&self) -> bool {
        self.route.tls != TlsRequest::Required || self.attempt.requiretls == RequireTls::Enforce
    }
}

/// Lock a session. After a panic its state is still good enough to end it.
pub fn lock(shared: &Shared) -> MutexGuard<'_, Carried> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Let a session do a step. A panic is a bug of ours, and ends this session alone.
pub fn step(shared: &Shared, act: impl FnOnce(&mut Session, u64) -> Next) -> Next {
    let mut carried = lock(shared);
    let wall_now_us = (carried.wall_clock)();
    match catch_unwind(AssertUnwindSafe(|| act(&mut carried.session, wall_now_us))) {
        Ok(next) => next,
        Err(panic) => {
            carried.bug = Some(message(&*panic));
            Next::Broken
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("panic").to_owned()
}

impl Dialogue for Shared {
    type Next = Next;
    const HEARS_WHILE_BLOCKED: bool = true;

    fn is_idle(next: Next) -> bool {
        next == Next::More
    }

    fn is_question(_next: Next) -> bool {
        false
    }

    fn receive(&mut self, octets: &[u8], now: f64) -> Next {
        step(self, |session, wall_now_us| session.receive(octets, now, wall_now_us))
    }

    fn take_output(&mut self) -> Option<Vec<u8>> {
        lock(self).session.take_output()
    }

    fn broke(&mut self, why: Errno) {
        lock(self).session.broke(reason(&why.into()));
    }

    fn take_channel(&mut self) -> Option<Channel> {
        lock(self).session.take_channel()
    }

    fn secured(&mut self, facts: Box<Facts>, now: f64) -> Next {
        step(self, |session, wall_now_us| session.secured(&facts, now, wall_now_us))
    }

    fn insecure(&mut self, failure: &Failure, now: f64) -> Next {
        step(self, |session, wall_now_us| session.insecure(failure, now, wall_now_us))
    }
}
