//! A cache of accepted recipients, so that the same question is not asked for every message.
//!
//! Only an acceptance is cached, for seconds, and only if it depends on nothing but the recipient and the client's
//! group. It is for one recipient, or (`@example.org`) for all recipients of a domain without a route of their own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Number of groups of clients.
pub const GROUPS_MAX: usize = 16;
/// Maximum number of recipients and domains of a group; then all are forgotten.
const ACCEPTED_MAX: usize = 10_000;

/// The recipients of each group, with the time until when they are accepted.
#[derive(Debug, Default)]
pub struct Accepted {
    groups: [Mutex<HashMap<Box<str>, f64>>; GROUPS_MAX],
}

impl Accepted {
    /// Clients of `group` (below `GROUPS_MAX`) may send to `scope`, a recipient or `@domain` in lower case, `until`.
    pub fn remember(&self, group: u8, scope: &str, until: f64) {
        let Some(group) = self.groups.get(usize::from(group)) else { return };
        let mut scopes = group.lock().unwrap_or_else(PoisonError::into_inner);
        if scopes.len() >= ACCEPTED_MAX {
            scopes.clear();
        }
        scopes.insert(scope.into(), until);
    }

    /// Whether clients of `group` may send to `recipient` without a question.
    pub fn has(&self, group: u8, recipient: &str, now: f64) -> bool {
        let Some(group) = self.groups.get(usize::from(group)) else { return false };
        let scopes = group.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |scope: &str| scopes.get(scope).is_some_and(|until| now < *until);
        domain_of_plain(recipient).is_some_and(holds) || (!recipient.starts_with('@') && holds(recipient))
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
        accepted.remember(1, "@next.example", 10.0);
        accepted.remember(1, "User@here.example", 10.0);
        let table = [
            ("of the domain", 1, "anybody@next.example", 9.9, true),
            ("too late", 1, "anybody@next.example", 10.0, false),
            ("of another group", 2, "anybody@next.example", 9.0, false),
            ("no such group", 16, "anybody@next.example", 9.0, false),
            ("below the domain", 1, "anybody@sub.next.example", 9.0, false),
            ("a route of its own", 1, "user%far.example@next.example", 9.0, false),
            ("a bang path", 1, "far.example!user@next.example", 9.0, false),
            ("an address in quotes", 1, "\"user@far.example\"@next.example", 9.0, false),
            ("two signs", 1, "user@far.example@next.example", 9.0, false),
            ("no local part", 1, "@next.example", 9.0, false),
            ("written otherwise", 1, "anybody@NEXT.example", 9.0, false),
            ("the recipient", 1, "User@here.example", 9.0, true),
            ("its neighbour", 1, "user@here.example", 9.0, false),
            ("a bare local part", 1, "next.example", 9.0, false),
        ];
        for (name, group, recipient, now, expected) in table {
            assert_eq!(accepted.has(group, recipient, now), expected, "{name}");
        }
    }

    #[test]
    fn the_cache_is_bounded() {
        let accepted = Accepted::default();
        for n in 0..3 * ACCEPTED_MAX {
            accepted.remember(0, &format!("{n}@example.org"), 1.0);
        }
        assert!(accepted.groups[0].lock().unwrap().len() <= ACCEPTED_MAX);
        assert!(accepted.has(0, &format!("{}@example.org", 3 * ACCEPTED_MAX - 1), 0.0));
    }
}
