//! Jobs: each finds its connection, leaves it, and ends.

use super::Service;
use crate::delivery::assignment::Assignment;
use crate::delivery::request::{Request, Ticket};
use crate::delivery::route::RouteKey;
use crate::delivery::settings::ConnectionSettings;
use crate::delivery::visit::lock;
use crate::mail::status::{Outcome, Status};
use crate::net::reactor::Key;
use std::sync::Arc;

impl Service {
    pub(super) fn find(&mut self, ticket: Ticket) {
        let Some(progress) = self.jobs.get_mut(&ticket) else { return };
        progress.requested = true;
        self.requests.push(Request::Find {
            ticket,
            nexthop: Arc::clone(&progress.route.nexthop),
            tls: progress.route.tls,
            tried: progress.tried.clone(),
            completed: std::mem::take(&mut progress.completed),
        });
    }

    /// Try the next server of a job after this failure of a connection.
    pub(super) fn try_next(&mut self, ticket: Ticket, failure: Status) {
        self.note(ticket, failure);
        self.find(ticket);
    }

    pub(super) fn finish(&mut self, ticket: Ticket) {
        let Some(progress) = self.jobs.remove(&ticket) else { return };
        if let Some(route) = self.routes.of(&progress.route) {
            route.active -= 1;
        }
        progress.work.lock().encode_result(&mut self.results);
        if progress.requested {
            self.requests.push(Request::Done(ticket));
        }
    }

    /// Finish a job that has left its connection, or note that another server must take the rest. Return whether it is
    /// finished.
    pub(super) fn left(&mut self, ticket: Ticket, transactions: u32) -> bool {
        let Some(progress) = self.jobs.get_mut(&ticket) else { return true };
        if progress.work.lock().left() == 0 {
            self.finish(ticket);
            return true;
        }
        progress.failure = None;
        progress.completed |= transactions > 0;
        false
    }

    /// Return a connection whose job this one may follow: only the oldest one is considered.
    pub(super) fn leader(&mut self, route: &RouteKey, now: f64) -> Option<Key> {
        let key = *self.routes.of(route)?.busy.front()?;
        let visit = self.visits.get(&key).filter(|visit| visit.suits_others())?;
        let carried = lock(visit.session.as_ref()?);
        let spent = is_spent(&self.settings, visit.opened, carried.session.transactions(), now);
        (carried.session.may_follow(now) && !spent).then_some(key)
    }

    /// Return the most recently used idle connection within the limits, so that older ones can expire.
    pub(super) fn take_idle(&mut self, route: &RouteKey, now: f64) -> Option<Key> {
        while let Some(key) = self.routes.of(route)?.idle.pop_back() {
            let opened = self.visits.get(&key)?.opened;
            if now - opened < self.settings.reuse_time_limit {
                return Some(key);
            }
            self.quit(key, now);
        }
        None
    }

    /// Start a job on an idle connection.
    pub(super) fn carry(&mut self, key: Key, ticket: Ticket, last: bool, now: f64) {
        let (Some(visit), Some(progress)) = (self.visits.get_mut(&key), self.jobs.get_mut(&ticket)) else { return };
        visit.ticket = Some(ticket);
        progress.tried = Some(Arc::clone(&visit.server));
        if let Some(route) = self.routes.of(&progress.route) {
            route.busy.push_back(key);
        }
        self.deliver(key, ticket, last, last, true, now);
    }

    /// Let a job follow the job in progress on a connection.
    pub(super) fn follow(&mut self, key: Key, ticket: Ticket, last: bool, now: f64) {
        let (Some(visit), Some(progress)) = (self.visits.get_mut(&key), self.jobs.get_mut(&ticket)) else { return };
        let Some(session) = visit.session.clone() else { return };
        visit.follower = Some((ticket, now));
        progress.tried = Some(Arc::clone(&visit.server));
        if let Some(route) = self.routes.of(&visit.route) {
            route.busy.retain(|busy| *busy != key);
        }
        let assignment = Assignment::new(Arc::clone(&progress.work), last, last);
        let accepted = lock(&session).session.follow(assignment, (self.wall_clock)());
        if accepted.is_err() {
            return self.leave(key);
        }
        self.reactor.flush(key);
    }

    /// Let the job that follows another one on a connection find its own.
    pub(super) fn leave(&mut self, key: Key) {
        let Some(visit) = self.visits.get_mut(&key) else { return };
        if let Some(route) = self.routes.of(&visit.route) {
            route.busy.retain(|busy| *busy != key);
        }
        if let Some((ticket, _)) = visit.follower.take() {
            self.start_over(ticket);
        }
    }

    /// Find a connection for a job that no server has seen.
    pub(super) fn start_over(&mut self, ticket: Ticket) {
        if let Some(progress) = self.jobs.get_mut(&ticket) {
            progress.tried = None;
        }
        self.find(ticket);
    }

    pub(super) fn deliver(
        &mut self,
        key: Key,
        ticket: Ticket,
        last_address: bool,
        last_session: bool,
        keep: bool,
        now: f64,
    ) {
        let Some(progress) = self.jobs.get(&ticket) else { return };
        let mut assignment = Assignment::new(Arc::clone(&progress.work), last_address, last_session);
        assignment.has_passed_a_server = progress.failure.as_ref().is_some_and(is_temporary)
            || progress.work.lock().last_heard().is_some_and(is_temporary);
        self.with_session(key, now, |session, wall_now_us| {
            session.deliver(assignment, keep, now, wall_now_us).expect("a session without a job accepts one")
        });
    }
}

fn is_temporary(failure: &Status) -> bool {
    failure.outcome == Outcome::Deferred
}

/// Return whether a connection has reached a limit of reuse, in time or in number.
pub(super) fn is_spent(settings: &ConnectionSettings, opened: f64, transactions: u32, now: f64) -> bool {
    let limit = settings.reuse_count_limit;
    now - opened >= settings.reuse_time_limit || 0 < limit && limit < transactions
}
