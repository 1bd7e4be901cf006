//! Routes of addresses: a cache of the resolver's answers.
//!
//! Unless a table is keyed by address (`Keyed::by_address`), all plain addresses of a domain have one route, and the
//! resolver is asked once per domain. Otherwise, and for an address that the resolver may change, it is asked for each
//! address. With a table of senders (`Keyed::by_sender`), each sender has routes of its own. An answer holds for
//! `ROUTES_KEPT_US`, so that a changed table needs no reload.

use crate::clock::SECOND_US;
use hashbrown::HashMap;
use memchr::memrchr;
use std::borrow::Cow;
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

/// The resolver's answer, with the name of the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// The transport.
    pub transport: &'a str,
    /// The next hop.
    pub nexthop: &'a str,
    /// The new address, if the route changes it.
    pub recipient: Option<&'a str>,
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

/// The tables that routes depend on, beside those of domains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keyed {
    /// A table is keyed by address: the addresses of a domain may have different routes.
    pub by_address: bool,
    /// A table is keyed by sender.
    pub by_sender: bool,
}

/// A question to the resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The recipient's address.
    pub address: &'a str,
    /// The sender's address; empty for the null sender, and without a table of senders.
    pub sender: &'a str,
}

/// Known routes, and recipients that wait for one.
#[derive(Debug, Default)]
pub struct Routes {
    known: HashMap<Box<str>, Route>,
    /// Waiting recipients, and the key of their route, by the question that the resolver was asked.
    asked: HashMap<Box<str>, (Box<str>, Vec<Asker>)>,
    /// The question that the resolver was asked, by key.
    asked_for: HashMap<Box<str>, Box<str>>,
    forget_us: u64,
}

/// Return the domain of an address, or nothing for a bare local part.
pub fn domain(address: &str) -> &str {
    memrchr(b'@', address.as_bytes()).map_or("", |at| &address[at + 1..])
}

/// Return `@domain` of an address that shares the route of its domain: the resolver changes neither part.
///
/// No address is `@domain` itself: `Syntax::allows` asks for a local part.
fn shared(address: &str) -> Option<&str> {
    let at = memrchr(b'@', address.as_bytes())?;
    let (local, domain) = (&address.as_bytes()[..at], &address.as_bytes()[at + 1..]);
    let mut previous = b'.';
    for byte in local {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'=' | 0x80..);
        if !(plain || (*byte == b'.' && previous != b'.')) {
            return None;
        }
        previous = *byte;
    }
    // Digits and dots alone may be an address literal.
    let is_name = domain.first() != Some(&b'[') && domain.iter().any(|byte| !matches!(byte, b'0'..=b'9' | b'.'));
    (previous != b'.' && is_name && domain.last() != Some(&b'.')).then_some(&address[at..])
}

/// Return the key of a route.
fn key(question: Question<'_>, keyed: Keyed) -> Cow<'_, str> {
    let recipient = match shared(question.address).filter(|_| !keyed.by_address) {
        Some(domain) if domain.bytes().any(|byte| byte.is_ascii_uppercase()) => domain.to_ascii_lowercase().into(),
        Some(domain) => Cow::Borrowed(domain),
        None => Cow::Borrowed(question.address),
    };
    if keyed.by_sender { [question.sender, "\0", &recipient].concat().into() } else { recipient }
}

/// Return the text of a question.
fn text(question: Question<'_>) -> Cow<'_, str> {
    match question.sender {
        "" => question.address.into(),
        sender => [sender, "\0", question.address].concat().into(),
    }
}

impl Routes {
    /// Return the route that answers a question, if it is cached (`now_us`: monotonic).
    pub fn known(&mut self, question: Question<'_>, keyed: Keyed, now_us: u64) -> Option<&Route> {
        if now_us >= self.forget_us {
            self.forget();
            self.forget_us = now_us + ROUTES_KEPT_US;
        }
        self.known.get(&*key(question, keyed))
    }

    /// Let `asker` wait for a route. Return whether to ask the resolver, which was not asked before.
    pub fn ask(&mut self, question: Question<'_>, keyed: Keyed, asker: Asker) -> bool {
        let key: Box<str> = key(question, keyed).into();
        let first = self.asked_for.entry(key.clone()).or_insert_with(|| text(question).into());
        match self.asked.get_mut(first) {
            Some((_, askers)) => {
                askers.push(asker);
                false
            }
            None => {
                self.asked.insert(first.clone(), (key, vec![asker]));
                true
            }
        }
    }

    /// Take the resolver's answer, and return the recipients that waited for it. `None`: no answer.
    pub fn answered(&mut self, question: Question<'_>, keyed: Keyed, route: Option<&Route>) -> Vec<Asker> {
        if let Some(route) = route {
            if self.known.len() >= ROUTES_MAX {
                self.forget();
            }
            self.known.insert(key(question, keyed).into(), route.clone());
        }
        let Some((key, askers)) = self.asked.remove(&*text(question)) else {
            return Vec::new();
        };
        self.asked_for.remove(&key);
        askers
    }

    /// Empty the cache. Recipients go on waiting.
    pub fn forget(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_DOMAIN: Keyed = Keyed { by_address: false, by_sender: false };
    const BY_ADDRESS: Keyed = Keyed { by_address: true, by_sender: false };

    fn asker(position: u32) -> Asker {
        Asker { message: 1, serial: 1, position }
    }

    fn to(address: &str) -> Question<'_> {
        Question { address, sender: "" }
    }

    fn route(recipient: Option<&str>) -> Route {
        Route { transport: 0, nexthop: "mx".into(), recipient: recipient.map(Into::into) }
    }

    #[test]
    fn the_resolver_is_asked_once_a_domain() {
        let mut routes = Routes::default();
        assert!(routes.ask(to("a@Example.org"), BY_DOMAIN, asker(0)));
        assert!(!routes.ask(to("b@example.ORG"), BY_DOMAIN, asker(1)));
        assert!(routes.ask(to("b@example.net"), BY_DOMAIN, asker(2)));
        assert_eq!(routes.known(to("c@EXAMPLE.org"), BY_DOMAIN, 5), None);
        assert_eq!(routes.answered(to("a@Example.org"), BY_DOMAIN, Some(&route(None))), [asker(0), asker(1)]);
        assert_eq!(routes.known(to("c@EXAMPLE.org"), BY_DOMAIN, 6), Some(&route(None)));
        assert_eq!(routes.known(to("c@example.net"), BY_DOMAIN, 6), None);
        assert_eq!(routes.known(to("example.org"), BY_DOMAIN, 6), None);
        let later = 6 + ROUTES_KEPT_US;
        assert_eq!(routes.known(to("c@example.org"), BY_DOMAIN, later), None, "a table may have changed");
    }

    #[test]
    fn addresses_that_the_resolver_may_change_are_asked_for_one_by_one() {
        for address in [
            "alice",
            "u%far.org@example.org",
            "far.org!u@example.org",
            "\"u@far.org\"@example.org",
            "\"u\"@example.org",
            "a..b@example.org",
            ".a@example.org",
            "a.@example.org",
            "u@example.org.",
            "u@192.0.2.1",
            "u@[192.0.2.1]",
            "u@",
        ] {
            let mut routes = Routes::default();
            assert!(routes.ask(to(address), BY_DOMAIN, asker(0)), "{address}");
            let other = format!("x{address}");
            assert!(routes.ask(to(&other), BY_DOMAIN, asker(1)), "{address}");
            let changed = route(Some("alice@x"));
            assert_eq!(routes.answered(to(address), BY_DOMAIN, Some(&changed)), [asker(0)], "{address}");
            assert_eq!(routes.answered(to(&other), BY_DOMAIN, None), [asker(1)], "{address}");
            assert_eq!(routes.known(to(address), BY_DOMAIN, 1), None, "the first search empties the cache");
            assert!(routes.answered(to(address), BY_DOMAIN, Some(&changed)).is_empty());
            assert_eq!(routes.known(to(address), BY_DOMAIN, 2), Some(&changed), "{address}");
            assert_eq!(routes.known(to(&other), BY_DOMAIN, 2), None, "{address}");
            assert_eq!(routes.known(to("bob@example.org"), BY_DOMAIN, 2), None, "{address}");
        }
    }

    #[test]
    fn addresses_have_their_own_routes_with_a_table_by_address() {
        let mut routes = Routes::default();
        assert_eq!(routes.known(to("a@example.org"), BY_ADDRESS, 0), None);
        assert!(routes.ask(to("a@example.org"), BY_ADDRESS, asker(0)));
        assert!(routes.ask(to("b@example.org"), BY_ADDRESS, asker(1)));
        assert!(!routes.ask(to("a@example.org"), BY_ADDRESS, asker(2)));
        assert_eq!(routes.answered(to("a@example.org"), BY_ADDRESS, Some(&route(None))), [asker(0), asker(2)]);
        assert_eq!(routes.known(to("a@example.org"), BY_ADDRESS, 1), Some(&route(None)));
        assert_eq!(routes.known(to("b@example.org"), BY_ADDRESS, 1), None);
    }

    #[test]
    fn senders_have_their_own_routes_with_a_table_of_senders() {
        for by_address in [false, true] {
            let keyed = Keyed { by_address, by_sender: true };
            let mut routes = Routes::default();
            let from = |sender| Question { address: "a@example.org", sender };
            assert_eq!(routes.known(from("s"), keyed, 0), None);
            assert!(routes.ask(from("s"), keyed, asker(0)));
            assert!(routes.ask(from("t"), keyed, asker(1)));
            assert!(routes.ask(from(""), keyed, asker(2)));
            assert!(!routes.ask(from("s"), keyed, asker(3)));
            assert_eq!(routes.answered(from("s"), keyed, Some(&route(None))), [asker(0), asker(3)]);
            assert_eq!(routes.known(from("s"), keyed, 1), Some(&route(None)));
            assert_eq!(routes.known(from("t"), keyed, 1), None);
            assert_eq!(routes.answered(from(""), keyed, None), [asker(2)]);
        }
    }

    #[test]
    fn a_question_from_before_a_reload_is_answered_after_it() {
        let mut routes = Routes::default();
        assert!(routes.ask(to("a@example.org"), BY_DOMAIN, asker(0)));
        assert!(!routes.ask(to("b@example.org"), BY_DOMAIN, asker(1)));
        assert_eq!(routes.answered(to("a@example.org"), BY_ADDRESS, Some(&route(None))), [asker(0), asker(1)]);
        assert!(routes.ask(to("b@example.org"), BY_DOMAIN, asker(1)), "the resolver is asked again");
    }
}
