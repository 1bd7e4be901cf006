//! Addresses in tables: canonical(5), virtual(5), and tables of copies.
//!
//! A table is asked for `user+extension@domain`, `user@domain`, for a local domain `user+extension` and `user`, and
//! `@domain`. An address with quotes is a key with them, then without. The value is a list of addresses. `@domain` as a
//! value keeps the local part. The extension that the key did not match goes to each result, if the site wants it
//! (`propagate_unmatched_extensions`).

use super::domain::literal;
use super::local_part::{Extensions, quote, split, unquote};
use super::names::NameList;
use super::rewrite::Rewrite;
use crate::inquiry::{Asker, Failure};
use crate::lookup::{Key, Maps};
use crate::mail::address::addresses;
use crate::settings;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Maximum number of warnings about one message; others are not logged.
const WARNINGS_MAX: usize = 20;
/// The result of a failed lookup in cleanup, for the log.
const NOT_ACCEPTED: &str = " -- message not accepted, try again later";
/// Maximum number of times that an address is replaced by the same list of tables.
const REPLACED_MAX: usize = 10;

settings! {
    /// The parameters of keys and results.
    #[derive(Debug, Clone)]
    pub struct MapRules {
        /// Where an extension starts.
        extensions: Extensions => settings,
        /// Addresses that are keys without their domain as well.
        local: LocalDomains => settings,
    }
}

settings! {
    /// The domains whose addresses are keys without a domain as well.
    #[derive(Debug, Clone)]
    pub struct LocalDomains {
        origin: Box<str> = "myorigin",
        destinations: NameList = "mydestination",
        /// The addresses at which this machine receives mail: `[192.0.2.1]` is local.
        own_addresses: Box<[IpAddr]>,
    }
}

impl LocalDomains {
    async fn has(&self, domain: &str, asker: &Asker) -> Result<bool, Failure> {
        if domain.eq_ignore_ascii_case(&self.origin) {
            return Ok(true);
        }
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        if let Some((address, _)) = literal(domain) {
            return Ok(address.parse().is_ok_and(|address| self.own_addresses.contains(&address)));
        }
        self.destinations.has(domain, asker).await
    }
}

/// The value of a table for the null sender.
const NULL_ADDRESS: &[u8] = b"<>";

/// The lists of tables of one parameter, under its name.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// The parameter, for the log.
    pub parameter: &'static str,
    /// Its tables.
    pub maps: &'a Maps,
    /// Results get the extension that no key had.
    pub propagates: bool,
}

/// A value and the part of the local part that no key had.
struct Found {
    value: Box<[u8]>,
    /// With its delimiter: `+extension`.
    unmatched: Option<String>,
}

/// The mapping of one message's addresses.
#[derive(Debug)]
pub struct Mapping<'a> {
    /// The site's parameters.
    pub rules: &'a MapRules,
    /// Results are completed by these rules.
    pub complete: &'a Rewrite,
    /// Asks remote tables.
    pub asker: &'a Asker,
    /// Stands behind the report of a failed lookup.
    result: &'static str,
    warnings: Mutex<Vec<String>>,
}

impl<'a> Mapping<'a> {
    /// Return the mapping of a message that arrives, without warnings.
    pub fn new(rules: &'a MapRules, complete: &'a Rewrite, asker: &'a Asker) -> Self {
        Self { rules, complete, asker, result: NOT_ACCEPTED, warnings: Mutex::default() }
    }

    /// Return the mapping of a message that is delivered, without warnings.
    pub fn outgoing(rules: &'a MapRules, complete: &'a Rewrite, asker: &'a Asker) -> Self {
        Self { result: "", ..Self::new(rules, complete, asker) }
    }

    /// Return the warnings for the log.
    pub fn into_warnings(self) -> Vec<String> {
        self.warnings.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Note a warning.
    pub(super) fn warn(&self, text: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < WARNINGS_MAX {
            warnings.push(text);
        }
    }

    /// Note a failed lookup in Postfix's words.
    pub fn failed(&self, parameter: &str, address: &str, failure: Failure) -> Failure {
        self.warn(failure.to_string());
        self.warn(format!("{parameter} map lookup problem for {address}{}", self.result));
        failure
    }

    /// Return the addresses in the value for `address`, `None` without a value. Errors: see `Maps::find`; a value
    /// without an address is one, too.
    pub async fn results(&self, named: Named<'_>, address: &str) -> Result<Option<Vec<Box<str>>>, Failure> {
        match self.results_or_null(named, address).await? {
            Some(list) if list.is_empty() => Err(self.no_address(named, address)),
            results => Ok(results),
        }
    }

    /// Note that the value for `address` has no address.
    pub(super) fn no_address(&self, named: Named<'_>, address: &str) -> Failure {
        let failure = Failure(format!("the value for {address} has no address").into());
        self.failed(named.parameter, address, failure)
    }

    /// Return what `results` returns, and no address for the value `<>`.
    pub(super) async fn results_or_null(
        &self,
        named: Named<'_>,
        address: &str,
    ) -> Result<Option<Vec<Box<str>>>, Failure> {
        let found =
            self.find(named.maps, address).await.map_err(|error| self.failed(named.parameter, address, error))?;
        let Some(found) = found else {
            return Ok(None);
        };
        let mut value = found.value;
        if value[0] == b'@' {
            let local = unquote(split(address).0);
            let kept = found.unmatched.as_deref().and_then(|unmatched| local.strip_suffix(unmatched)).unwrap_or(&local);
            value = [quote(kept).as_bytes(), &value].concat().into();
        }
        // A token has at least one octet, so no address is cut off.
        let list = addresses(&value, value.len());
        if list.is_empty() && value.trim_ascii() != NULL_ADDRESS {
            return Err(self.no_address(named, address));
        }
        let extension = found.unmatched.filter(|_| named.propagates).unwrap_or_default();
        Ok(Some(list.into_iter().map(|found| self.result(&found.text, &extension)).collect()))
    }

    /// Return an address of a value in its one complete form, with an extension.
    fn result(&self, address: &str, extension: &str) -> Box<str> {
        let complete = self.complete.apply(address);
        let (local, domain) = split(complete.as_deref().unwrap_or(address));
        let mut text = quote(&(unquote(local) + extension)).into_owned();
        if let Some(domain) = domain {
            text.push('@');
            text.push_str(domain);
        }
        text.into()
    }

    /// Return the address that replaces `address`, `None` if it stays. A result is looked up again, up to
    /// `REPLACED_MAX` times, unless it is the same address. A loop gives a warning: as in Postfix, the mail goes on.
    /// `may_be_null`: the value `<>` gives an empty address, the null sender; otherwise it is an error.
    pub async fn replaced(
        &self,
        named: Named<'_>,
        address: &str,
        may_be_null: bool,
    ) -> Result<Option<Box<str>>, Failure> {
        let mut replaced: Option<Box<str>> = None;
        for _ in 0..REPLACED_MAX {
            let current = replaced.as_deref().unwrap_or(address);
            let Some(results) = self.results_or_null(named, current).await? else {
                return Ok(replaced);
            };
            if results.is_empty() {
                return if may_be_null { Ok(Some("".into())) } else { Err(self.no_address(named, current)) };
            }
            if results.len() > 1 {
                self.warn(format!("multi-valued {} entry for {current}", named.parameter));
            }
            let Some(result) = results.into_iter().next() else {
                return Ok(replaced);
            };
            let is_same = is_same(&result, current);
            replaced = Some(result);
            if is_same {
                return Ok(replaced);
            }
        }
        let current = replaced.as_deref().unwrap_or(address);
        self.warn(format!("unreasonable {} map nesting for {current}{NOT_ACCEPTED}", named.parameter));
        Ok(replaced)
    }

    /// Return the value for a copy's address (`sender_bcc_maps`, `recipient_bcc_maps`).
    pub async fn copy(&self, named: Named<'_>, address: &str) -> Result<Option<Box<str>>, Failure> {
        let found =
            self.find(named.maps, address).await.map_err(|error| self.failed(named.parameter, address, error))?;
        Ok(found.map(|found| String::from_utf8_lossy(&found.value).into()))
    }

    /// Return the first value, in the order of the keys.
    async fn find(&self, maps: &Maps, address: &str) -> Result<Option<Found>, Failure> {
        let (written, domain) = split(address);
        let local = unquote(written);
        let user = self.rules.extensions.split(&local).map(|extended| extended.user);
        let found = |value, unmatched: bool| {
            let unmatched = user.filter(|_| unmatched).map(|user| local[user.len()..].to_owned());
            Ok(Some(Found { value, unmatched }))
        };
        if let Some(value) = self.value(maps, &local, domain, Key::Whole).await? {
            return found(value, false);
        }
        if let Some(user) = user
            && let Some(value) = self.value(maps, user, domain, Key::Part).await?
        {
            return found(value, true);
        }
        let Some(domain) = domain else {
            return Ok(None);
        };
        if self.rules.local.has(domain, self.asker).await? {
            if let Some(value) = self.value(maps, &local, None, Key::Part).await? {
                return found(value, false);
            }
            if let Some(user) = user
                && let Some(value) = self.value(maps, user, None, Key::Part).await?
            {
                return found(value, true);
            }
        }
        match maps.find(format!("@{domain}").as_bytes(), Key::Part, self.asker).await? {
            Some(value) => found(value, false),
            None => Ok(None),
        }
    }

    /// Return the value of a local part (without quotes) at a domain: with quotes, then without.
    async fn value(
        &self,
        maps: &Maps,
        local: &str,
        domain: Option<&str>,
        kind: Key,
    ) -> Result<Option<Box<[u8]>>, Failure> {
        let key = |local: &str| match domain {
            Some(domain) => format!("{local}@{domain}"),
            None => local.to_owned(),
        };
        let quoted = quote(local);
        let value = maps.find(key(&quoted).as_bytes(), kind, self.asker).await?;
        if value.is_some() || quoted == local {
            return Ok(value);
        }
        maps.find(key(local).as_bytes(), kind, self.asker).await
    }
}

/// Whether two addresses are the same; case makes no difference.
pub(super) fn is_same(left: &str, right: &str) -> bool {
    left.eq_ignore_ascii_case(right) || (!left.is_ascii() && left.to_lowercase() == right.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Entry;
    use crate::table::testing::{Fixed, local, remote, run};
    use std::sync::Arc;

    fn rules() -> MapRules {
        let mut rules = MapRules::default();
        rules.extensions.delimiters = "+-".into();
        rules.local.origin = "origin.example".into();
        rules.local.destinations = NameList::of(&["example.org"]);
        rules.local.own_addresses = Box::new([[127, 0, 0, 1].into()]);
        rules
    }

    /// Return the addresses in the value for an address, from a remote table in both orders of answers, and from a local
    /// one.
    fn results(rows: &[(&str, &str)], address: &str, propagates: bool) -> Result<Option<Vec<Box<str>>>, Failure> {
        let find = |maps: Maps, backwards| {
            let address = address.to_owned();
            run(&[Fixed::new(rows)], backwards, async move |asker: Asker| {
                let (rules, complete) = (rules(), Rewrite::local("origin.example"));
                let mapping = Mapping::new(&rules, &complete, &asker);
                mapping.results(Named { parameter: "canonical_maps", maps: &maps, propagates }, &address).await
            })
        };
        let found = find(remote(0), false);
        assert_eq!(find(remote(0), true), found);
        assert_eq!(find(local(rows), false), found);
        found
    }

    #[test]
    fn keys_and_results_are_postfixs() {
        for (rows, address, propagates, expected) in [
            (&[("u@x", "r@y")][..], "u@x", true, "r@y"),
            (&[("u@x", "r@y")], "U@X", true, "r@y"),
            (&[("u@x", "r@y")], "u+e@x", true, "r+e@y"),
            (&[("u@x", "r@y")], "u-e+f@x", true, "r-e+f@y"),
            (&[("u@x", "r@y")], "u+e@x", false, "r@y"),
            (&[("u@x", "r@y"), ("u+e@x", "s@y")], "u+e@x", true, "s@y"),
            (&[("u@x", "r@y, root")], "u+e@x", true, "r+e@y root+e@origin.example"),
            (&[("u", "r@y")], "u@example.org", true, "r@y"),
            (&[("u", "r@y")], "u@ORIGIN.example", true, "r@y"),
            (&[("u", "r@y")], "u+e@[127.0.0.1]", true, "r+e@y"),
            (&[("u", "r@y")], "u@x", true, ""),
            (&[("u", "r@y")], "u@[127.0.0.2]", true, ""),
            (&[("@x", "@y")], "u+e@x", true, "u+e@y"),
            (&[("@x", "all@y")], "u+e@x", true, "all@y"),
            (&[("u@x", "@y")], "u+e@x", true, "u+e@y"),
            (&[("u@x", "@y")], "u+e@x", false, "u@y"),
            (&[("u", "@y")], "u@example.org", true, "u@y"),
            (&[("\"a b\"@x", "q@y")], "\"a b\"@x", true, "q@y"),
            (&[("a b@x", "q@y")], "\"a b\"@x", true, "q@y"),
            (&[("u@x", "r@y")], "\"u+a b\"@x", true, "\"r+a b\"@y"),
            (&[("u@x", "\"a b\"@y")], "u@x", true, "\"a b\"@y"),
            (&[("u@x", "Name <r@y> (c), g: s@y;")], "u@x", true, "r@y s@y"),
            (&[("u@x", "far!user")], "u@x", true, "user@far"),
            (&[], "u@x", true, ""),
        ] {
            let found = results(rows, address, propagates).unwrap().unwrap_or_default();
            assert_eq!(found.join(" "), expected, "{address} in {rows:?}");
        }
    }

    #[test]
    fn a_value_without_an_address_and_a_failed_table_are_failures() {
        for rows in [&[("u@x", ",")][..], &[("u@x", "")], &[("u@x", "!")], &[("@x", "!")]] {
            assert!(results(rows, "u@x", true).is_err(), "{rows:?}");
        }
    }

    #[test]
    fn a_pattern_table_is_asked_for_the_whole_address_alone() {
        let mut table = Fixed::new(&[("@x", "a@y"), ("u@x", "b@y"), ("u", "c@y")]);
        table.whole_only = true;
        let maps = Maps { tables: Box::new([Entry::Local(Arc::new(table))]) };
        for (address, expected) in [("u@x", Some("b@y")), ("u+e@x", None), ("u@example.org", None), ("v@x", None)] {
            let maps = maps.clone();
            let found = run(&[], false, async move |asker: Asker| {
                let (rules, complete) = (rules(), Rewrite::local("origin.example"));
                let mapping = Mapping::new(&rules, &complete, &asker);
                mapping.copy(Named { parameter: "sender_bcc_maps", maps: &maps, propagates: false }, address).await
            });
            assert_eq!(found.unwrap().as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn a_replaced_address_is_replaced_again_and_a_loop_ends() {
        for (rows, expected, warnings) in [
            (&[("a@x", "b@x"), ("b@x", "c@x")][..], Some("c@x"), 0),
            (&[("a@x", "A@x")], Some("A@x"), 0),
            (&[("a@x", "b@x, c@x")], Some("b@x"), 1),
            (&[("a@x", "b@x"), ("b@x", "a@x")], Some("a@x"), 1),
            (&[("a@x", "b@x"), ("b@x", " <> ")], Some(""), 0),
            (&[], None, 0),
        ] {
            let maps = local(rows);
            let (found, warned) = run(&[], false, async move |asker: Asker| {
                let (rules, complete) = (rules(), Rewrite::local("origin.example"));
                let mapping = Mapping::new(&rules, &complete, &asker);
                let named = Named { parameter: "canonical_maps", maps: &maps, propagates: true };
                let found = mapping.replaced(named, "a@x", true).await;
                (found, mapping.into_warnings())
            });
            assert_eq!((found.unwrap().as_deref(), warned.len()), (expected, warnings), "{rows:?} {warned:?}");
        }
    }
    #[test]
    fn null_sender_is_an_error_where_an_address_must_be() {
        for (value, may_be_null) in [("<>", false), (",", true), ("(c)", true)] {
            let maps = local(&[("a@x", value)]);
            let (found, warned) = run(&[], false, async move |asker: Asker| {
                let (rules, complete) = (rules(), Rewrite::local("origin.example"));
                let mapping = Mapping::new(&rules, &complete, &asker);
                let named = Named { parameter: "canonical_maps", maps: &maps, propagates: true };
                let found = mapping.replaced(named, "a@x", may_be_null).await;
                (found, mapping.into_warnings())
            });
            assert_eq!(found.unwrap_err().to_string(), "the value for a@x has no address");
            assert_eq!(warned.len(), 2, "{value}");
        }
    }
}
