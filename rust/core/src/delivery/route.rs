//! One next hop of an agent: its idle connections, the connections whose job another one may follow, and its demand.
//!
//! Demand decides whether a connection waits for the next job (smtp_connection_cache_on_demand): two jobs within a
//! second, or other jobs in progress.

use super::settings::ConnectionSettings;
use super::tls_request::TlsRequest;
use crate::net::reactor::Key;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Two jobs within this time are demand for a cached connection.
const DEMAND_S: f64 = 1.0;
/// Maximum number of idle connections to one next hop.
const IDLE_MAX: usize = 50;
/// Maximum number of next hops in memory; above it, those without a job and a connection are dropped.
pub const ROUTES_MAX: usize = 10_000;

/// The key of mail that shares connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteKey {
    /// The next hop.
    pub nexthop: Arc<str>,
    /// The senders' request about TLS.
    pub tls: TlsRequest,
}

/// One next hop.
#[derive(Debug)]
pub struct Route {
    /// The next hop in lower case.
    name: String,
    /// The number of jobs in progress.
    pub active: usize,
    /// Connections without a job, the most recently used one last.
    pub idle: VecDeque<Key>,
    /// Connections in progress whose job has no follower, the oldest first.
    pub busy: VecDeque<Key>,
    /// The number of hosts at the last lookup.
    pub hosts: usize,
    last_start: f64,
    previous_start: f64,
}

impl Route {
    fn new(nexthop: &str) -> Self {
        Self {
            name: nexthop.to_lowercase(),
            active: 0,
            idle: VecDeque::new(),
            busy: VecDeque::new(),
            hosts: 1,
            last_start: f64::NEG_INFINITY,
            previous_start: f64::NEG_INFINITY,
        }
    }

    /// Return whether to keep a connection. `others`: the number of jobs in progress on other connections.
    pub fn wants(&self, settings: &ConnectionSettings, others: usize) -> bool {
        if settings.destinations.contains(&self.name) {
            return true;
        }
        settings.on_demand && (others > 0 || self.last_start - self.previous_start <= DEMAND_S)
    }

    /// Return whether there is room for another idle connection.
    pub fn has_room(&self) -> bool {
        self.idle.len() < IDLE_MAX
    }

    /// Forget a connection.
    pub fn forget(&mut self, key: Key) {
        self.idle.retain(|idle| *idle != key);
        self.busy.retain(|busy| *busy != key);
    }

    fn is_unused(&self) -> bool {
        self.active == 0 && self.idle.is_empty()
    }
}

/// The next hops of an agent.
#[derive(Debug, Default)]
pub struct Routes {
    routes: HashMap<RouteKey, Route>,
}

impl Routes {
    /// Count a new job for a next hop.
    pub fn started(&mut self, key: &RouteKey, now: f64) -> &mut Route {
        if self.routes.len() >= ROUTES_MAX && !self.routes.contains_key(key) {
            self.routes.retain(|_, route| !route.is_unused());
        }
        let route = self.routes.entry(key.clone()).or_insert_with(|| Route::new(&key.nexthop));
        route.active += 1;
        (route.previous_start, route.last_start) = (route.last_start, now);
        route
    }

    /// Return a next hop that has a job or a connection.
    pub fn of(&mut self, key: &RouteKey) -> Option<&mut Route> {
        self.routes.get_mut(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(nexthop: &str) -> RouteKey {
        RouteKey { nexthop: nexthop.into(), tls: TlsRequest::Usual }
    }

    #[test]
    fn demand_is_two_jobs_within_a_second_or_others_in_progress() {
        let settings = ConnectionSettings::default();
        let nexthop = key("example.org");
        let mut routes = Routes::default();
        let wants = |now, others| routes.started(&nexthop, now).wants(&settings, others);
        let found: Vec<_> = [(0.0, 0), (2.0, 0), (3.0, 0), (9.0, 1)].map(wants_of(wants)).into();
        assert_eq!(found, [false, false, true, true]);
    }

    fn wants_of(mut wants: impl FnMut(f64, usize) -> bool) -> impl FnMut((f64, usize)) -> bool {
        move |(now, others)| wants(now, others)
    }

    #[test]
    fn a_listed_destination_needs_no_demand() {
        let destinations = ["[mx.example.org]:25".to_owned()].into();
        let settings = ConnectionSettings { on_demand: false, destinations, ..ConnectionSettings::default() };
        let mut routes = Routes::default();
        assert!(routes.started(&key("[MX.example.org]:25"), 0.0).wants(&settings, 0));
        assert!(!routes.started(&key("mx.example.org"), 0.0).wants(&settings, 1));
    }

    #[test]
    fn next_hops_without_a_job_and_a_connection_are_dropped_above_the_limit() {
        let mut routes = Routes::default();
        for number in 0..ROUTES_MAX {
            let nexthop = key(&format!("{number}.example"));
            routes.started(&nexthop, 0.0).active -= usize::from(number != 7);
        }
        routes.started(&key("new.example"), 1.0);
        assert_eq!(routes.routes.len(), 2);
        assert_eq!(routes.of(&key("7.example")).map(|route| route.active), Some(1));
    }
}
