//! Virtual aliases: one recipient becomes several, again and again (virtual(5)).
//!
//! An address may expand to itself once. Three limits end a loop or a list without end: the mail waits, and its
//! recipient stays as it was.

use super::map::{Mapping, Named, is_same};
use crate::inquiry::Failure;
use crate::settings;
use std::collections::HashSet;

settings! {
    /// The limits of an expansion.
    #[derive(Debug, Clone, Copy)]
    pub struct AliasLimits {
        addresses: usize = "virtual_alias_expansion_limit",
        depth: usize = "virtual_alias_recursion_limit",
        /// Octets.
        address_octets: usize = "virtual_alias_address_length_limit",
    }
}

/// The reason for no expansion: the mail waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AliasError {
    /// A table cannot answer.
    Failed(Failure),
    /// One of the limits.
    Limit,
}

impl From<Failure> for AliasError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Characters of an address in a warning.
const SHOWN_CHARS: usize = 300;

/// Return the addresses that a recipient stands for; the recipient itself if it is no alias.
pub async fn expanded(
    mapping: &Mapping<'_>,
    named: Named<'_>,
    recipient: &str,
    limits: &AliasLimits,
) -> Result<Vec<Box<str>>, AliasError> {
    let too_many = || format!("expansion size for {recipient}");
    let beyond = |problem: String| {
        mapping
            .warn(format!("unreasonable {} map {problem} -- message not accepted, try again later", named.parameter));
        AliasError::Limit
    };
    let mut found: Vec<Box<str>> = vec![recipient.into()];
    // Addresses that expanded to themselves, in lower case.
    let mut ends = HashSet::new();
    let mut at = 0;
    while at < found.len() {
        if found.len() > limits.addresses {
            return Err(beyond(too_many()));
        }
        let mut depth = 0;
        while !ends.contains(&found[at].to_lowercase()) {
            if depth >= limits.depth {
                return Err(beyond(format!("nesting for {recipient}")));
            }
            let Some(results) = mapping.results(named, &found[at]).await? else {
                break;
            };
            if let Some(long) = results.iter().find(|result| result.len() > limits.address_octets) {
                let shown = long.chars().take(SHOWN_CHARS).collect::<String>();
                return Err(beyond(format!("result {shown}...")));
            }
            if results.iter().any(|result| is_same(result, &found[at])) {
                ends.insert(found[at].to_lowercase());
            }
            let mut results = results.into_iter();
            if let Some(first) = results.next() {
                found[at] = first;
            }
            found.extend(results);
            // Postfix goes on up to the other limit, and holds as many times the longest list until then.
            if found.len() > limits.addresses {
                return Err(beyond(too_many()));
            }
            depth += 1;
        }
        at += 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::map::MapRules;
    use crate::address::rewrite::Rewrite;
    use crate::inquiry::Asker;
    use crate::table::testing::{Fixed, remote, run};

    /// The rows of a chain of aliases, each of the next one; the last one is that of `end`.
    fn chain(length: usize, end: &str) -> Vec<(String, String)> {
        let name = |at: usize| if at < length { format!("a{at}@x") } else { end.to_owned() };
        (0..length).map(|at| (name(at), name(at + 1))).collect()
    }

    #[test]
    fn long_lists_chains_and_cycles_end_within_their_limits() {
        const MANY: usize = 10_000;
        let limits = AliasLimits::default();
        let list = (0..=2 * MANY).map(|at| format!("u{at}@y")).collect::<Vec<_>>();
        let doubling = |name: &str, other: &str| (name.to_owned(), format!("{other}, {}", list[..MANY].join(",")));
        let whole = |length: usize| vec![("a0@x".to_owned(), list[..length].join(" "))];
        // The domain has one lookup for all of its addresses.
        for (name, rows, raised, expected, lookups) in [
            ("a list", whole(limits.addresses), false, Ok(limits.addresses), limits.addresses + 2),
            ("a longer list", whole(limits.addresses + 1), false, Err(AliasError::Limit), 1),
            ("many", whole(MANY), false, Err(AliasError::Limit), 1),
            ("many, with a raised limit", whole(MANY), true, Ok(MANY), MANY + 2),
            ("as many as a raised limit", whole(2 * MANY), true, Ok(2 * MANY), 2 * MANY + 2),
            ("more than a raised limit", whole(2 * MANY + 1), true, Err(AliasError::Limit), 1),
            ("a chain", chain(MANY, "end@y"), false, Err(AliasError::Limit), limits.depth),
            ("a cycle", chain(MANY, "a0@x"), false, Err(AliasError::Limit), limits.depth),
            ("the deepest chain", chain(limits.depth - 1, "end@y"), false, Ok(1), limits.depth + 1),
            // Without the limit inside, 1,000 lists of 10,000 addresses would be held.
            (
                "two that name each other and a list",
                vec![doubling("a0@x", "b@x"), doubling("b@x", "a0@x")],
                false,
                Err(AliasError::Limit),
                1,
            ),
            (
                "the same, with a raised limit",
                vec![doubling("a0@x", "b@x"), doubling("b@x", "a0@x")],
                true,
                Err(AliasError::Limit),
                2,
            ),
        ] {
            let rows = rows.iter().map(|(key, value)| (&**key, &**value)).collect::<Vec<_>>();
            let limits = AliasLimits { addresses: if raised { 2 * MANY } else { limits.addresses }, ..limits };
            let table = Fixed::new(&rows);
            let found = run(std::slice::from_ref(&table), false, async move |asker: Asker| {
                let (rules, complete, maps) = (MapRules::default(), Rewrite::local("mx.example.org"), remote(0));
                let mapping = Mapping::new(&rules, &complete, &asker);
                let named = Named { parameter: "virtual_alias_maps", maps: &maps, propagates: true };
                super::expanded(&mapping, named, "a0@x", &limits).await.map(|found| found.len())
            });
            assert_eq!((found, table.lookups()), (expected, lookups), "{name}");
        }
    }

    fn expanded(rows: &[(&str, &str)], recipient: &str, limits: AliasLimits) -> Result<String, AliasError> {
        let results = [false, true].map(|backwards| {
            let recipient = recipient.to_owned();
            run(&[Fixed::new(rows)], backwards, async move |asker: Asker| {
                let (rules, complete, maps) = (MapRules::default(), Rewrite::local("mx.example.org"), remote(0));
                let mapping = Mapping::new(&rules, &complete, &asker);
                let named = Named { parameter: "virtual_alias_maps", maps: &maps, propagates: true };
                super::expanded(&mapping, named, &recipient, &limits).await.map(|found| found.join(" "))
            })
        });
        assert_eq!(results[0], results[1]);
        results[0].clone()
    }

    #[test]
    fn aliases_expand_in_postfixs_order() {
        for (name, rows, recipient, expected) in [
            ("no alias", &[("b@x", "c@x")][..], "a@x", "a@x"),
            ("one", &[("a@x", "b@y")], "a@x", "b@y"),
            ("case", &[("a@x", "B@y")], "A@X", "B@y"),
            ("a list", &[("a@x", "b@y, c@y d@y")], "a@x", "b@y c@y d@y"),
            ("nested", &[("a@x", "b@x, c@x"), ("b@x", "d@x, e@x")], "a@x", "d@x c@x e@x"),
            ("itself", &[("a@x", "a@x, b@y")], "a@x", "a@x b@y"),
            ("itself in another place", &[("a@x", "b@x, a@x"), ("b@x", "c@y")], "a@x", "c@y a@x"),
            ("a bare name", &[("a@x", "root")], "a@x", "root@mx.example.org"),
            ("a whole domain", &[("@x", "@y")], "a@x", "a@y"),
            ("a domain's address", &[("@x", "all@y")], "a@x", "all@y"),
        ] {
            assert_eq!(expanded(rows, recipient, AliasLimits::default()).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn an_expansion_has_limits() {
        let limits = AliasLimits { addresses: 3, depth: 3, address_octets: 10 };
        for (name, rows, expected) in [
            ("three", &[("a@x", "b@x,c@x,d@x")][..], Ok("b@x c@x d@x".to_owned())),
            ("four", &[("a@x", "b@x,c@x,d@x,e@x")], Err(AliasError::Limit)),
            ("loop", &[("a@x", "b@x"), ("b@x", "a@x")], Err(AliasError::Limit)),
            ("depth", &[("a@x", "b@x"), ("b@x", "c@x"), ("c@x", "d@x")], Err(AliasError::Limit)),
            ("less depth", &[("a@x", "b@x"), ("b@x", "c@x")], Ok("c@x".to_owned())),
            ("length", &[("a@x", "123456789@x")], Err(AliasError::Limit)),
            ("less length", &[("a@x", "12345678@x")], Ok("12345678@x".to_owned())),
        ] {
            assert_eq!(expanded(rows, "a@x", limits), expected, "{name}");
        }
        let failed = expanded(&[("a@x", "b@x, c@x"), ("c@x", "!")], "a@x", AliasLimits::default());
        assert!(matches!(failed, Err(AliasError::Failed(_))));
    }
}
