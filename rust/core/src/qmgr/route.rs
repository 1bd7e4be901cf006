//! Where addresses go: answers of the resolver, remembered by domain.
//!
//! Where no table is looked up by address (`Settings::route_by_domain`), all addresses of a domain go one way, and the
//! resolver is asked once a domain. Otherwise it is asked for each recipient.

use std::collections::HashMap;
use std::sync::Arc;

/// Domains remembered at a time; beyond that, all are forgotten and asked for again.
pub const ROUTES_MAX: usize = 100_000;

/// The resolver's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The transport's number.
    pub transport: u32,
    /// The next hop.
    pub nexthop: Arc<str>,
}

/// A recipient whose route is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The message's key among the active ones.
    pub message: u32,
    /// The serial of that key.
    pub serial: u64,
    /// The recipient's position in the message's part.
    pub position: u32,
}

/// Routes that are known, and recipients that wait for one.
#[derive(Debug, Default)]
pub struct Routes {
    by_domain: HashMap<Box<str>, Route>,
    asked: HashMap<Box<str>, Vec<Asker>>,
}

/// The part of an address by which it is routed: its domain, or nothing for a bare local part.
pub fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

fn lower(text: &str) -> Box<str> {
    text.to_ascii_lowercase().into()
}

impl Routes {
    /// The route of an address, if its domain has one.
    pub fn known(&self, address: &str) -> Option<&Route> {
        let domain = domain(address);
        match self.by_domain.get(domain) {
            None if domain.bytes().any(|byte| byte.is_ascii_uppercase()) => self.by_domain.get(&lower(domain)),
            known => known,
        }
    }

    /// `asker` waits for the route of `address`. Says whether the resolver is to be asked: nobody did before.
    pub fn ask(&mut self, address: &str, by_domain: bool, asker: Asker) -> bool {
        let key = if by_domain { lower(domain(address)) } else { address.into() };
        let askers = self.asked.entry(key).or_default();
        askers.push(asker);
        askers.len() == 1
    }

    /// The resolver answered for `address`: who waited for it. `None`: it could not say.
    pub fn answered(&mut self, address: &str, by_domain: bool, route: Option<&Route>) -> Vec<Asker> {
        if !by_domain {
            return self.asked.remove(address).unwrap_or_default();
        }
        let domain = lower(domain(address));
        let askers = self.asked.remove(&domain).unwrap_or_default();
        if let Some(route) = route {
            if self.by_domain.len() >= ROUTES_MAX {
                self.by_domain.clear();
            }
            self.by_domain.insert(domain, route.clone());
        }
        askers
    }

    /// The configuration changed: nothing that was known holds. Who waits goes on waiting.
    pub fn forget(&mut self) {
        self.by_domain.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_is_asked_once_a_domain() {
        let mut routes = Routes::default();
        let asker = |position| Asker { message: 1, serial: 1, position };
        assert!(routes.ask("a@Example.org", true, asker(0)));
        assert!(!routes.ask("b@example.ORG", true, asker(1)));
        assert!(routes.ask("b@example.net", true, asker(2)));
        let route = Route { transport: 0, nexthop: "mx".into() };
        assert_eq!(routes.answered("a@Example.org", true, Some(&route)), [asker(0), asker(1)]);
        assert_eq!(routes.known("c@EXAMPLE.org"), Some(&route));
        assert_eq!(routes.known("c@example.net"), None);
        assert_eq!(routes.known("example.org"), None);
        routes.forget();
        assert_eq!(routes.known("c@example.org"), None);
    }
}
