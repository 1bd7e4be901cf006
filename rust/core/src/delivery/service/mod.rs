//! All connections of an agent to its servers: their sockets, the jobs on them, and the requests to the owner.
//!
//! The owner waits until `descriptor` is readable, calls `poll`, and handles the requests that come back: it finds the
//! server for a job, and makes lookups. A job that a connection to its next hop can carry needs no request. A job uses an
//! idle connection, or follows another job on a busy one. Results for the queue manager are collected in `take_results`.
//! Nothing here blocks.
//!
//! ```text
//! jobs     a job finds its connection, leaves it, and ends
//! sockets  connections begin and end, and have their timeouts
//! events   what happens on a connection, and what its session does next
//! ```

mod events;
mod jobs;
mod sockets;
#[cfg(test)]
mod tests;

use crate::ask::{Answer, Lookup};
use crate::delivery::request::{Request, Ticket};
use crate::delivery::route::{RouteKey, Routes};
use crate::delivery::server::{Attempt, Server};
use crate::delivery::session::Next;
use crate::delivery::settings::ConnectionSettings;
use crate::delivery::tls_request::TlsRequest;
use crate::delivery::visit::{Shared, Visit};
use crate::delivery::work::Work;
use crate::log::Log;
use crate::mail::reply::Enhanced;
use crate::mail::status::{Status, local_status};
use crate::net::outbound::Outbound;
use crate::net::reactor::{Happening, Key, Reactor};
use crate::smtp::client::ClientSettings;
use rustix::fd::BorrowedFd;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// Maximum number of times that the sockets are polled in one call, while there are no requests.
const POLLS_MAX: usize = 4;
/// X.3.0: an error of the mail system itself.
const LOCAL_ERROR: Enhanced = Enhanced { class: 4, subject: 3, detail: 0 };

/// A job in progress.
struct Progress {
    work: Arc<Work>,
    route: RouteKey,
    /// The server of a reused connection that has left recipients open.
    tried: Option<Arc<Server>>,
    /// The reason of the last failed connection; `None` when the job itself has the reason.
    failure: Option<Status>,
    /// A server has seen a transaction since the last `Request::Find`.
    completed: bool,
    /// The owner has had a request about it.
    requested: bool,
}

/// The connections of an agent.
pub struct Service {
    client: Arc<ClientSettings>,
    settings: ConnectionSettings,
    log: Arc<Log>,
    wall_clock: fn() -> u64,
    reactor: Reactor<Shared>,
    visits: HashMap<Key, Visit>,
    routes: Routes,
    jobs: HashMap<Ticket, Progress>,
    last_ticket: Ticket,
    happened: Vec<Happening<Next>>,
    requests: Vec<Request>,
    results: Vec<u8>,
    sweeping: bool,
    draining: bool,
}

impl Service {
    /// Return a service without connections. `wall_clock`: microseconds since 1970.
    pub fn new(
        client: Arc<ClientSettings>,
        settings: ConnectionSettings,
        log: Arc<Log>,
        wall_clock: fn() -> u64,
    ) -> io::Result<Self> {
        Ok(Self {
            client,
            settings,
            log,
            wall_clock,
            reactor: Reactor::new()?,
            visits: HashMap::new(),
            routes: Routes::default(),
            jobs: HashMap::new(),
            last_ticket: 0,
            happened: Vec::new(),
            requests: Vec::new(),
            results: Vec::new(),
            sweeping: false,
            draining: false,
        })
    }

    /// Return a descriptor that is readable while `poll` has something to do.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.reactor.descriptor()
    }

    /// Return the number of jobs in progress.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Return whether no job is in progress.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Return the connection with this number, while it is open.
    pub fn key_of(&self, token: u64) -> Option<Key> {
        self.reactor.key_of(token)
    }

    /// Return the job with this number, while it is in progress.
    pub fn work(&self, ticket: Ticket) -> Option<&Arc<Work>> {
        self.jobs.get(&ticket).map(|progress| &progress.work)
    }

    /// Take the requests since the last call.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// Take the frames for the queue manager since the last call.
    pub fn take_results(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.results)
    }

    /// Start a job: on a connection to its next hop, or with `Request::Find`.
    pub fn start(&mut self, work: Arc<Work>, now: f64) {
        let key = {
            let delivery = work.lock();
            let job = delivery.job();
            RouteKey { nexthop: Arc::clone(&job.nexthop), tls: TlsRequest::of(&job.envelope, &self.settings) }
        };
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let route = self.routes.started(&key, now);
        let (no_idle, last) = (route.idle.is_empty(), route.hosts <= 1 || self.settings.session_limit == 1);
        let progress =
            Progress { work, route: key.clone(), tried: None, failure: None, completed: false, requested: false };
        self.jobs.insert(ticket, progress);
        if no_idle && let Some(leader) = self.leader(&key, now) {
            self.follow(leader, ticket, last, now);
        } else if let Some(idle) = self.take_idle(&key, now) {
            self.carry(idle, ticket, last, now);
        } else {
            self.find(ticket);
        }
        self.see_to_pending(now);
    }

    /// Connect to a server for a job. When that fails, `Request::Find` comes again.
    pub fn connect(&mut self, ticket: Ticket, server: Server, attempt: Attempt, now: f64) {
        let Some(progress) = self.jobs.get(&ticket) else { return };
        let route = progress.route.clone();
        if let Some(known) = self.routes.of(&route) {
            known.hosts = attempt.hosts;
        }
        match self.outbound(&server, attempt.source) {
            Ok(Outbound { socket, connecting }) => {
                let key = self.reactor.open(socket, connecting);
                let timeout_s = self.settings.connect_timeout;
                let visit = Visit {
                    server: Arc::new(server),
                    route,
                    attempt,
                    ticket: Some(ticket),
                    follower: None,
                    session: None,
                    opened: now,
                    idle_since: now,
                    connect_until: if timeout_s > 0.0 { now + timeout_s } else { f64::INFINITY },
                    closing_since: None,
                    unsent: 0,
                    asking: false,
                };
                self.visits.insert(key, visit);
                if !std::mem::replace(&mut self.sweeping, true) {
                    self.requests.push(Request::Sweep);
                }
                if !connecting {
                    self.connected(key, now);
                }
            }
            Err(status) => self.try_next(ticket, status),
        }
        self.see_to_pending(now);
    }

    /// Note why no server was found for a job at one of its next hops.
    pub fn note(&mut self, ticket: Ticket, failure: Status) {
        if let Some(progress) = self.jobs.get_mut(&ticket) {
            progress.failure = Some(failure);
        }
    }

    /// End a job for which no server is left.
    pub fn give_up(&mut self, ticket: Ticket) {
        let Some(progress) = self.jobs.get_mut(&ticket) else { return };
        let wall_now_us = (self.wall_clock)();
        match progress.failure.take() {
            Some(failure) => progress.work.fail(&failure, wall_now_us),
            None => {
                let otherwise = local_status(LOCAL_ERROR, "server unavailable or unable to receive mail");
                progress.work.fail_as_heard(otherwise, wall_now_us);
            }
        }
        self.finish(ticket);
    }

    /// Receive the answers to the lookups of a job on a connection. They have no effect when it has left the connection.
    pub fn answer(&mut self, key: Key, ticket: Ticket, answers: Vec<(Lookup, Answer)>, now: f64) {
        if self.visits.get(&key).is_some_and(|visit| visit.ticket == Some(ticket)) {
            self.with_session(key, now, |session, wall_now_us| session.answer(answers, now, wall_now_us));
        }
        self.see_to_pending(now);
    }

    /// End a job on a connection whose lookups have met a bug, and close the connection.
    pub fn fail(&mut self, key: Key, ticket: Ticket, bug: &str, now: f64) {
        if self.visits.get(&key).is_some_and(|visit| visit.ticket == Some(ticket)) {
            self.broken(key, bug, now);
        }
        self.see_to_pending(now);
    }

    /// End a job after a bug.
    pub fn defer(&mut self, ticket: Ticket, bug: &str) {
        let Some(progress) = self.jobs.get(&ticket) else { return };
        let id = progress.work.lock().queue_id().to_owned();
        self.log.warning(format_args!("{id}: delivery failed, deferring: {bug}"));
        let status = local_status(LOCAL_ERROR, "unexpected failure of the delivery agent");
        progress.work.fail(&status, (self.wall_clock)());
        self.finish(ticket);
    }

    /// Serve all sockets that are ready.
    pub fn poll(&mut self, now: f64) -> io::Result<()> {
        for _ in 0..POLLS_MAX {
            let mut happened = std::mem::take(&mut self.happened);
            let polled = self.reactor.poll(now, &mut happened);
            let quiet = happened.is_empty();
            for what in happened.drain(..) {
                self.happened(what, now);
            }
            self.happened = happened;
            self.see_to_pending(now);
            polled?;
            if quiet || !self.requests.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Apply the timeouts of all connections. False when none is left; then `Request::Sweep` comes with the next one.
    pub fn sweep(&mut self, now: f64) -> bool {
        let keys: Vec<Key> = self.visits.keys().copied().collect();
        for key in keys {
            self.check(key, now);
        }
        self.see_to_pending(now);
        self.sweeping = !self.visits.is_empty();
        self.sweeping
    }

    /// Keep no connection from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Close all connections, and report the jobs in progress: the queue manager defers their open recipients.
    pub fn stop(&mut self, now: f64) {
        let keys: Vec<Key> = self.visits.keys().copied().collect();
        for key in keys {
            match self.visits.get_mut(&key).and_then(|visit| visit.ticket.take()) {
                Some(_) => self.reactor.abort(key),
                None => self.quit(key, now),
            }
        }
        let tickets: Vec<Ticket> = self.jobs.keys().copied().collect();
        tickets.into_iter().for_each(|ticket| self.finish(ticket));
        self.see_to_pending(now);
    }
}
