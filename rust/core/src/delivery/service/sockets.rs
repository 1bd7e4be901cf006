//! Connections: they begin and end, and have their timeouts.

use super::Service;
use crate::delivery::server::{Attempt, Server};
use crate::delivery::session::Session;
use crate::delivery::visit::{Carried, lock};
use crate::errno::reason;
use crate::mail::reply::Enhanced;
use crate::mail::status::{Status, local_status};
use crate::net::outbound::{self, Outbound, Problem};
use crate::net::reactor::Key;
use crate::smtp::client::Peer;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Longest wait of a job for the job that it follows; then it gets its own connection.
const FOLLOW_MAX_S: f64 = 1.0;
/// Timeout for a server that does not read its last command.
const CLOSING_MAX_S: f64 = 30.0;
/// X.4.1: no answer from the host (RFC 3463 §3.5).
const NO_ANSWER: Enhanced = Enhanced { class: 4, subject: 4, detail: 1 };
/// X.4.0: another error of the network.
const NETWORK: Enhanced = Enhanced { class: 4, subject: 4, detail: 0 };

impl Service {
    /// Return a socket whose connection to a server has begun. Errors: the status of a job that has no other server.
    pub(super) fn outbound(&self, server: &Server, source: Option<IpAddr>) -> Result<Outbound, Status> {
        let problem = match self.begin(server, source) {
            Ok(outbound) => return Ok(outbound),
            Err(Problem::Source(error)) => {
                let text = format!("cannot connect from {}: {}", source.expect("a source"), reason(&error));
                self.log.warning(format_args!("{text}"));
                if self.settings.bind_address_enforce {
                    return Err(local_status(NETWORK, text));
                }
                match self.begin(server, None) {
                    Ok(outbound) => return Ok(outbound),
                    Err(Problem::Source(error) | Problem::Server(error)) => error,
                }
            }
            Err(Problem::Server(error)) => error,
        };
        Err(self.unreachable(server, &problem))
    }

    pub(super) fn begin(&self, server: &Server, source: Option<IpAddr>) -> Result<Outbound, Problem> {
        if server.port == 0 {
            return outbound::local(Path::new(&*server.address));
        }
        let address = server.address.parse::<IpAddr>();
        let address = address.map_err(|error| Problem::Server(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        outbound::tcp(SocketAddr::new(address, server.port), source)
    }

    /// Log that a server cannot be reached, and return the status for it.
    pub(super) fn unreachable(&self, server: &Server, error: &io::Error) -> Status {
        let Server { host, address, port, .. } = server;
        let port = if *port == 0 { String::new() } else { format!(":{port}") };
        let text = format!("connect to {host}[{address}]{port}: {}", reason(error));
        self.log.info(format_args!("{text}"));
        local_status(NO_ANSWER, text)
    }

    pub(super) fn connected(&mut self, key: Key, now: f64) {
        let Some(visit) = self.visits.get_mut(&key) else { return };
        let Server { host, address, port, loop_detect, best } = &*visit.server;
        let mut peer = Peer::new(host, address, *port, &visit.route.nexthop, *loop_detect, *best);
        let Attempt { last_address, last_session, reuses, reuses_tls, .. } = visit.attempt;
        (peer.tls, peer.login) = (visit.attempt.tls.clone(), visit.attempt.login.clone());
        peer.requiretls = visit.attempt.requiretls;
        let mut session = Session::new(Arc::clone(&self.client), peer, now);
        session.set_reuse(reuses, reuses_tls);
        let shared = Arc::new(Mutex::new(Carried { session, wall_clock: self.wall_clock, bug: None }));
        visit.session = Some(Arc::clone(&shared));
        visit.opened = now;
        let route = self.routes.of(&visit.route);
        let keep = reuses && route.is_some_and(|route| route.wants(&self.settings, route.active.saturating_sub(1)));
        let ticket = visit.ticket;
        self.reactor.attach(key, shared);
        match ticket {
            Some(ticket) => self.deliver(key, ticket, last_address, last_session, keep, now),
            None => self.reactor.abort(key),
        }
    }

    /// A connection was not made.
    pub(super) fn not_connected(&mut self, key: Key, error: &io::Error) {
        let Some(visit) = self.visits.remove(&key) else { return };
        let failure = self.unreachable(&visit.server, error);
        if let Some(ticket) = visit.ticket {
            self.try_next(ticket, failure);
        }
    }

    /// Send QUIT, and close.
    pub(super) fn quit(&mut self, key: Key, now: f64) {
        if let Some(session) = self.visits.get(&key).and_then(|visit| visit.session.as_ref()) {
            lock(session).session.quit();
        }
        self.close(key, now);
    }

    /// Close when the output is written. A server that does not read keeps no connection open.
    pub(super) fn close(&mut self, key: Key, now: f64) {
        if let Some(visit) = self.visits.get_mut(&key) {
            visit.closing_since.get_or_insert(now);
            if let Some(route) = self.routes.of(&visit.route) {
                route.forget(key);
            }
        }
        if self.reactor.unwritten(key) > 0 { self.reactor.abort(key) } else { self.reactor.finish(key) }
    }

    pub(super) fn check(&mut self, key: Key, now: f64) {
        let Some(visit) = self.visits.get_mut(&key) else { return };
        if let Some(since) = visit.closing_since {
            if now - since > CLOSING_MAX_S {
                self.reactor.abort(key);
            }
            return;
        }
        let Some(session) = visit.session.clone() else {
            if visit.connect_until <= now {
                self.not_connected(key, &io::Error::from(rustix::io::Errno::TIMEDOUT));
                self.reactor.abort(key);
            }
            return;
        };
        if visit.ticket.is_none() {
            if now - visit.idle_since >= self.settings.time_limit {
                self.quit(key, now);
            }
            return;
        }
        if visit.follower.is_some_and(|(_, since)| now - since >= FOLLOW_MAX_S) {
            lock(&session).session.withdraw();
            self.leave(key);
        }
        self.progressed(key, now);
        let deadline = lock(&session).session.deadline();
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.with_session(key, now, |session, wall_now_us| session.timeout(now, wall_now_us));
        }
    }

    /// Note how much of its output a server has accepted since the last check.
    pub(super) fn progressed(&mut self, key: Key, now: f64) {
        let Some(visit) = self.visits.get_mut(&key).filter(|visit| visit.unsent > 0) else { return };
        let before = std::mem::replace(&mut visit.unsent, self.reactor.unwritten(key));
        if let Some(session) = visit.session.as_ref().filter(|_| visit.unsent < before) {
            lock(session).session.progressed(before - visit.unsent, now);
        }
    }
}
