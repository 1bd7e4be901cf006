//! A cache of acceptances, so that the same question is not asked for every message.
//!
//! Only an acceptance is cached, for seconds, and only if it depends on nothing but the recipient and the client's
//! group. It is for one recipient, or (`@example.org`) for the listed recipients of a domain without a route of their own.

use super::listing::Listing;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Number of groups of clients.
pub const GROUPS_MAX: usize = 16;
/// Maximum number of recipients and domains of a group; then all are forgotten.
const ACCEPTED_MAX: usize = 10_000;

/// The acceptances of each group.
#[derive(Debug, Default)]
pub struct Accepted {
    groups: [Mutex<HashMap<Box<str>, Acceptance>>; GROUPS_MAX],
}

/// An acceptance: whom it is for, and the time when it ends.
#[derive(Debug, Clone, Copy)]
struct Acceptance {
    listing: Listing,
    until: f64,
}

impl Accepted {
    /// Clients of `group` (below `GROUPS_MAX`) may send to `scope`, a recipient or `@domain` in lower case, `until`.
    /// `listing`: the recipients of the domain; `All` for a single one.
    pub fn remember(&self, group: u8, scope: &str, listing: Listing, until: f64) {
        let Some(group) = self.groups.get(usize::from(group)) else { return };
        let mut scopes = group.lock().unwrap_or_else(PoisonError::into_inner);
        if scopes.len() >= ACCEPTED_MAX {
            scopes.clear();
        }
        scopes.insert(scope.into(), Acceptance { listing, until });
    }

    /// Return the tables that must list `recipient` so that clients of `group` may send to it without a question. `None`:
    /// ask the owner.
    pub fn listing(&self, group: u8, recipient: &str, now: f64) -> Option<Listing> {
        let scopes = self.groups.get(usize::from(group))?.lock().unwrap_or_else(PoisonError::into_inner);
        let found = |scope: &str| scopes.get(scope).filter(|found| now < found.until).map(|found| found.listing);
        let of_domain = domain_of_plain(recipient).and_then(found);
        if of_domain == Some(Listing::All) || recipient.starts_with('@') {
            return of_domain;
        }
        found(recipient).or(of_domain)
    }
}

/// The domain of an address with its `@`; `None` if the local part may have a route of its own (`user%far`,
/// `far!user`, `"user@far"`), or if the domain is not in lower case.
fn domain_of_plain(address: &str) -> Option<&str> {
    let at = address.rfind('@')?;
    let (local, domain) = address.split_at(at);
    let routes = |octet: u8| matches!(octet, b'@' | b'%' | b'!' | b'"' | b'\\');
    let is_plain = !local.is_empty() && !local.bytes().any(routes);
    (is_plain && !domain.bytes().any(|octet| octet.is_ascii_uppercase())).then_some(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acceptance_is_for_a_group_a_recipient_or_domain_and_a_time() {
        let accepted = Accepted::default();
        accepted.remember(1, "@next.example", Listing::All, 10.0);
        accepted.remember(1, "@listed.example", Listing::Relay, 10.0);
        accepted.remember(1, "postmaster@listed.example", Listing::All, 5.0);
        accepted.remember(1, "User@here.example", Listing::All, 10.0);
        let (all, listed) = (Some(Listing::All), Some(Listing::Relay));
        let table = [
            ("of the domain", 1, "anybody@next.example", 9.9, all),
            ("too late", 1, "anybody@next.example", 10.0, None),
            ("of another group", 2, "anybody@next.example", 9.0, None),
            ("no such group", 16, "anybody@next.example", 9.0, None),
            ("below the domain", 1, "anybody@sub.next.example", 9.0, None),
            ("a route of its own", 1, "user%far.example@next.example", 9.0, None),
            ("a bang path", 1, "far.example!user@next.example", 9.0, None),
            ("an address in quotes", 1, "\"user@far.example\"@next.example", 9.0, None),
            ("two signs", 1, "user@far.example@next.example", 9.0, None),
            ("no local part", 1, "@next.example", 9.0, None),
            ("written otherwise", 1, "anybody@NEXT.example", 9.0, None),
            ("the recipient", 1, "User@here.example", 9.0, all),
            ("its neighbour", 1, "user@here.example", 9.0, None),
            ("a bare local part", 1, "next.example", 9.0, None),
            ("one that a table must list", 1, "anybody@listed.example", 9.0, listed),
            ("one that no table needs to list", 1, "postmaster@listed.example", 4.0, all),
            ("the same, later", 1, "postmaster@listed.example", 9.0, listed),
        ];
        for (name, group, recipient, now, expected) in table {
            assert_eq!(accepted.listing(group, recipient, now), expected, "{name}");
        }
    }

    #[test]
    fn the_cache_is_bounded() {
        let accepted = Accepted::default();
        for n in 0..3 * ACCEPTED_MAX {
            accepted.remember(0, &format!("{n}@example.org"), Listing::All, 1.0);
        }
        assert!(accepted.groups[0].lock().unwrap().len() <= ACCEPTED_MAX);
        let last = format!("{}@example.org", 3 * ACCEPTED_MAX - 1);
        assert_eq!(accepted.listing(0, &last, 0.0), Some(Listing::All));
    }
}
