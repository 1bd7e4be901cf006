//! Routes of addresses: a cache of the resolver's answers.
//!
//! Unless a table is keyed by address (`Settings::routes_by_address`), all addresses of a domain have one route, and the
//! resolver is asked once per domain. Otherwise, and for an address without a domain, it is asked for each address.
//! An answer holds for `ROUTES_KEPT_US`, so that a changed table needs no reload.

use crate::clock::SECOND_US;
use hashbrown::HashMap;
use memchr::memrchr;
use std::sync::Arc;

/// Maximum number of cached routes; above it, the cache is emptied.
pub const ROUTES_MAX: usize = 100_000;
/// Longest time that an answer holds.
pub const ROUTES_KEPT_US: u64 = 10 * SECOND_US;

/// The resolver's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The transport's number.
    pub transport: u32,
    /// The next hop.
    pub nexthop: Arc<str>,
    /// The new address, if the route changes it. Only the route of a single address has one.
    pub recipient: Option<Arc<str>>,
}

/// A recipient that waits for its route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The message's key among the active ones.
    pub message: u32,
    /// The serial of that key.
    pub serial: u64,
    /// The recipient's position in the message's part.
    pub position: u32,
}

/// Known routes, and recipients that wait for one.
#[derive(Debug, Default)]
pub struct Routes {
    by_domain: HashMap<Box<str>, Route>,
    by_address: HashMap<Box<str>, Route>,
    /// Waiting recipients, by the first address that the resolver was asked for.
    asked: HashMap<Box<str>, Vec<Asker>>,
    /// The address that the resolver was asked for, by domain.
    asked_for: HashMap<Box<str>, Box<str>>,
    forget_us: u64,
}

/// Return the domain of an address, or nothing for a bare local part.
pub fn domain(address: &str) -> &str {
    memrchr(b'@', address.as_bytes()).map_or("", |at| &address[at + 1..])
}

fn lower(text: &str) -> Box<str> {
    text.to_ascii_lowercase().into()
}

impl Routes {
    /// Return the route of an address, if it is cached (`now_us`: monotonic).
    pub fn known(&mut self, address: &str, by_domain: bool, now_us: u64) -> Option<&Route> {
        if now_us >= self.forget_us {
            self.forget();
            self.forget_us = now_us + ROUTES_KEPT_US;
        }
        let domain = domain(address);
        if !by_domain || domain.is_empty() {
            return self.by_address.get(address);
        }
        match self.by_domain.get(domain) {
            None if domain.bytes().any(|byte| byte.is_ascii_uppercase()) => self.by_domain.get(&lower(domain)),
            known => known,
        }
    }

    /// Let `asker` wait for the route of `address`. Return whether to ask the resolver, which was not asked before.
    pub fn ask(&mut self, address: &str, by_domain: bool, asker: Asker) -> bool {
        let domain = domain(address);
        let first = if by_domain && !domain.is_empty() {
            &**self.asked_for.entry(lower(domain)).or_insert_with(|| address.into())
        } else {
            address
        };
        match self.asked.get_mut(first) {
            Some(askers) => askers.push(asker),
            None => drop(self.asked.insert(first.into(), vec![asker])),
        }
        self.asked[first].len() == 1
    }

    /// Take the resolver's answer for `address`, and return the recipients that waited for it. `None`: no answer.
    pub fn answered(&mut self, address: &str, by_domain: bool, route: Option<&Route>) -> Vec<Asker> {
        let domain = domain(address);
        if self.asked_for.get(&lower(domain)).is_some_and(|first| **first == *address) {
            self.asked_for.remove(&lower(domain));
        }
        if let Some(route) = route {
            if self.by_domain.len() + self.by_address.len() >= ROUTES_MAX {
                self.forget();
            }
            if by_domain && !domain.is_empty() && route.recipient.is_none() {
                self.by_domain.insert(lower(domain), route.clone());
            } else {
                self.by_address.insert(address.into(), route.clone());
            }
        }
        self.asked.remove(address).unwrap_or_default()
    }

    /// Empty the cache. Recipients go on waiting.
    pub fn forget(&mut self) {
        self.by_domain.clear();
        self.by_address.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(position: u32) -> Asker {
        Asker { message: 1, serial: 1, position }
    }

    fn route(recipient: Option<&str>) -> Route {
        Route { transport: 0, nexthop: "mx".into(), recipient: recipient.map(Into::into) }
    }

    #[test]
    fn the_resolver_is_asked_once_a_domain() {
        let mut routes = Routes::default();
        assert!(routes.ask("a@Example.org", true, asker(0)));
        assert!(!routes.ask("b@example.ORG", true, asker(1)));
        assert!(routes.ask("b@example.net", true, asker(2)));
        assert_eq!(routes.known("c@EXAMPLE.org", true, 5), None);
        assert_eq!(routes.answered("a@Example.org", true, Some(&route(None))), [asker(0), asker(1)]);
        assert_eq!(routes.known("c@EXAMPLE.org", true, 6), Some(&route(None)));
        assert_eq!(routes.known("c@example.net", true, 6), None);
        assert_eq!(routes.known("example.org", true, 6), None);
        assert_eq!(routes.known("c@example.org", true, 6 + ROUTES_KEPT_US), None, "a table may have changed");
    }

    #[test]
    fn addresses_without_a_domain_are_asked_for_one_by_one() {
        let mut routes = Routes::default();
        assert_eq!(routes.known("alice", true, 0), None);
        for by_domain in [true, false] {
            assert!(routes.ask("alice", by_domain, asker(0)));
            assert!(routes.ask("bob", by_domain, asker(1)));
            assert_eq!(routes.answered("alice", by_domain, Some(&route(Some("alice@x")))), [asker(0)]);
            assert_eq!(routes.answered("bob", by_domain, None), [asker(1)]);
            assert_eq!(routes.known("alice", by_domain, 1).and_then(|r| r.recipient.as_deref()), Some("alice@x"));
            assert_eq!(routes.known("bob", by_domain, 1), None);
            routes.forget();
        }
    }

    #[test]
    fn addresses_have_their_own_routes_with_a_table_by_address() {
        let mut routes = Routes::default();
        assert_eq!(routes.known("a@example.org", false, 0), None);
        assert!(routes.ask("a@example.org", false, asker(0)));
        assert!(routes.ask("b@example.org", false, asker(1)));
        assert!(!routes.ask("a@example.org", false, asker(2)));
        assert_eq!(routes.answered("a@example.org", false, Some(&route(None))), [asker(0), asker(2)]);
        assert_eq!(routes.known("a@example.org", false, 1), Some(&route(None)));
        assert_eq!(routes.known("b@example.org", false, 1), None);
    }

    #[test]
    fn a_question_from_before_a_reload_is_answered_after_it() {
        let mut routes = Routes::default();
        assert!(routes.ask("a@example.org", true, asker(0)));
        assert!(!routes.ask("b@example.org", true, asker(1)));
        assert_eq!(routes.answered("a@example.org", false, Some(&route(None))), [asker(0), asker(1)]);
    }
}
