//! Events of a connection, and the next step of its session.

use super::Service;
use super::jobs::is_spent;
use crate::delivery::request::Request;
use crate::delivery::server::{Attempt, Server};
use crate::delivery::session::{Next, Session};
use crate::delivery::visit::{lock, step};
use crate::net::reactor::{Happening, Key};

impl Service {
    pub(super) fn see_to_pending(&mut self, now: f64) {
        let mut happened = std::mem::take(&mut self.happened);
        // A connection that is lost makes nothing else happen, so this ends.
        while self.reactor.has_pending() {
            self.reactor.take_pending(&mut happened);
            for what in happened.drain(..) {
                self.happened(what, now);
            }
        }
        self.happened = happened;
    }

    pub(super) fn happened(&mut self, what: Happening<Next>, now: f64) {
        match what {
            Happening::Connected(key, Ok(())) => self.connected(key, now),
            Happening::Connected(key, Err(error)) => self.not_connected(key, &error),
            Happening::Next(key, next) => self.act(key, next, now),
            Happening::Drained(key) => self.drained(key, now),
            Happening::Ended(key) => self.lost(key, now),
            Happening::Lost(key) => {
                self.lost(key, now);
                self.leave(key);
                if let Some(visit) = self.visits.remove(&key)
                    && let Some(route) = self.routes.of(&visit.route)
                {
                    route.forget(key);
                }
            }
            Happening::Accepted(..) | Happening::AcceptFailed(_) => {}
        }
    }

    /// The server has closed its side, or the connection is gone.
    pub(super) fn lost(&mut self, key: Key, now: f64) {
        match self.visits.get(&key) {
            Some(visit) if visit.ticket.is_some() => {
                self.with_session(key, now, |session, wall_now_us| session.lost(now, wall_now_us));
            }
            Some(_) => self.reactor.abort(key),
            None => {}
        }
    }

    /// The output is written: send the next piece of the message.
    pub(super) fn drained(&mut self, key: Key, now: f64) {
        self.progressed(key, now);
        let session = self.visits.get(&key).and_then(|visit| visit.session.as_ref());
        if session.is_some_and(|session| lock(session).session.is_sending()) {
            self.with_session(key, now, |session, wall_now_us| session.send_body(now, wall_now_us));
        }
    }

    pub(super) fn with_session(&mut self, key: Key, now: f64, act: impl FnOnce(&mut Session, u64) -> Next) {
        if let Some(session) = self.visits.get(&key).and_then(|visit| visit.session.as_ref()) {
            let next = step(session, act);
            self.act(key, next, now);
        }
    }

    /// Do what a session needs next.
    pub(super) fn act(&mut self, key: Key, mut next: Next, now: f64) {
        loop {
            let blocked = self.reactor.flush(key);
            let Some(visit) = self.visits.get_mut(&key) else { return };
            let Some(session) = visit.session.clone() else { return };
            if blocked {
                visit.unsent = self.reactor.unwritten(key);
            }
            if next != Next::Asking {
                visit.asking = false;
            }
            if self.settings.reports_tls
                && let Some(ticket) = visit.ticket
                && let Some(fault) = lock(&session).session.take_tls_result()
            {
                self.requests.push(Request::Tls { ticket, fault });
            }
            if self.settings.notes_refusals
                && let Some(ticket) = visit.ticket
                && let Some(refusal) = lock(&session).session.take_refusal()
            {
                self.requests.push(Request::Login { ticket, refusal });
            }
            next = match next {
                Next::More => return,
                // A lost connection takes no further piece.
                Next::Sending if blocked || self.reactor.dialogue(key).is_none() => return,
                Next::Sending => step(&session, |session, wall_now_us| session.send_body(now, wall_now_us)),
                Next::Asking => return self.ask(key),
                Next::StartTls => return self.reactor.secure(key),
                Next::Followed => {
                    self.followed(key);
                    step(&session, |session, wall_now_us| session.next(now, wall_now_us))
                }
                Next::Broken => {
                    let bug = lock(&session).bug.take().unwrap_or_default();
                    return self.broken(key, &bug, now);
                }
                Next::Clear => return self.start_clear(key, now),
                Next::Finished | Next::Closed | Next::Stale => return self.ended(key, next, now),
            };
        }
    }

    pub(super) fn ask(&mut self, key: Key) {
        let Some(visit) = self.visits.get_mut(&key) else { return };
        let (Some(ticket), Some(session)) = (visit.ticket, &visit.session) else { return };
        let lookups = lock(session).session.asks();
        if !lookups.is_empty() {
            let first = !std::mem::replace(&mut visit.asking, true);
            self.requests.push(Request::Ask { key, ticket, lookups, first });
        }
    }

    /// The job of a connection has ended, and its follower is in progress.
    pub(super) fn followed(&mut self, key: Key) {
        let Some(visit) = self.visits.get_mut(&key) else { return };
        let follower = visit.follower.take().map(|(ticket, _)| ticket);
        let ended = std::mem::replace(&mut visit.ticket, follower);
        let transactions = visit.session.as_ref().map_or(0, |session| lock(session).session.transactions());
        if let Some(route) = self.routes.of(&visit.route) {
            route.busy.push_back(key);
        }
        if let Some(ticket) = ended
            && !self.left(ticket, transactions)
        {
            self.find(ticket);
        }
    }

    /// The job of a connection has ended, and none follows.
    pub(super) fn ended(&mut self, key: Key, next: Next, now: f64) {
        self.leave(key);
        let Some(visit) = self.visits.get_mut(&key) else { return };
        let (ticket, opened, suits_others) = (visit.ticket.take(), visit.opened, visit.suits_others());
        let Some(session) = visit.session.clone() else { return };
        let (transactions, may_keep) = {
            let carried = lock(&session);
            (carried.session.transactions(), carried.session.may_keep())
        };
        let route = visit.route.clone();
        let finished = ticket.is_none_or(|ticket| next != Next::Stale && self.left(ticket, transactions));
        let spent = is_spent(&self.settings, opened, transactions, now);
        match self.routes.of(&route) {
            Some(route) if next == Next::Finished && !self.draining && !spent => {
                if may_keep && suits_others && route.has_room() && route.wants(&self.settings, route.active) {
                    route.idle.push_back(key);
                    if let Some(visit) = self.visits.get_mut(&key) {
                        visit.idle_since = now;
                    }
                } else {
                    self.quit(key, now);
                }
            }
            _ if next == Next::Finished => self.quit(key, now),
            _ => self.close(key, now),
        }
        match ticket {
            // The server had closed an idle connection, so the attempt does not count.
            Some(ticket) if next == Next::Stale => self.start_over(ticket),
            Some(ticket) if !finished => self.find(ticket),
            _ => {}
        }
    }

    /// TLS has failed where the site only prefers it: deliver the job to the same server in the clear. Younger mail does
    /// not use that connection.
    fn start_clear(&mut self, key: Key, now: f64) {
        self.leave(key);
        let Some(visit) = self.visits.get_mut(&key) else { return };
        let attempt = Attempt { tls: None, reuses: false, ..visit.attempt.clone() };
        let (server, ticket) = (Server::clone(&visit.server), visit.ticket.take());
        self.close(key, now);
        if let Some(ticket) = ticket {
            self.connect(ticket, server, attempt, now);
        }
    }

    /// A bug has ended the session of a connection: its job is deferred.
    pub(super) fn broken(&mut self, key: Key, bug: &str, now: f64) {
        let ticket = self.visits.get_mut(&key).and_then(|visit| visit.ticket.take());
        self.leave(key);
        if let Some(visit) = self.visits.get_mut(&key) {
            visit.closing_since = Some(now);
        }
        self.reactor.abort(key);
        if let Some(ticket) = ticket {
            self.defer(ticket, bug);
        }
    }
}
