//! Addresses that name their way through several systems (trivial-rewrite(8); RFC 5321 §3.6, appendix C).
//!
//! A local part at a domain of this site may hold another address: `user%far@near`, `far!user@near`,
//! `"user@far"@near`. `Routing::onward` takes off one of them. The caller goes on until a domain is not this site's, or
//! no address is left.

use super::domain::DomainKind;
use super::local_part::{quote, split, unquote};
use super::rewrite::{Rewrite, without_dot};
use crate::settings::Source;
use std::borrow::Cow;

/// The site's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// Operators that the site swaps, and how an incomplete domain is completed.
    rewrite: Rewrite,
    /// Quotes hide no operator (`resolve_dequoted_address`).
    dequoted: bool,
    /// `user@` is `user` (`resolve_null_domain`).
    null_domain: bool,
    /// `user@192.0.2.1` is `user@[192.0.2.1]` (`resolve_numeric_domain`).
    numeric_domain: bool,
}

impl Routing {
    /// Read the rules.
    pub fn read<S: Source>(source: &S) -> Result<Self, S::Error> {
        Ok(Self {
            rewrite: Rewrite::read(source)?,
            dequoted: source.flag("resolve_dequoted_address")?,
            null_domain: source.flag("resolve_null_domain")?,
            numeric_domain: source.flag("resolve_numeric_domain")?,
        })
    }

    /// Return an address in its complete form: `user` with this site's domain, `far!user` as `user@far`.
    pub fn complete<'a>(&self, address: &'a str) -> Cow<'a, str> {
        self.rewrite.apply(address).map_or(Cow::Borrowed(address), Cow::Owned)
    }

    /// Return the names of the parameters that `complete` follows for an address.
    pub fn completing(&self, address: &str) -> Vec<&'static str> {
        let mut names = Vec::new();
        self.rewrite.apply_noting(address, |name| names.push(name));
        names
    }

    /// Return the local part of an address without quotes, and its domain as the resolver sees it; `None` without one.
    pub fn split(&self, address: &str) -> (String, Option<String>) {
        let (local, domain) = split(address);
        (unquote(local), domain.and_then(|domain| self.seen(without_dot(domain))))
    }

    /// Return where a local part at a domain of this site routes on: a local part, and the domain as `split` returns
    /// it. `None`: it ends here. `local` has no quotes.
    pub fn onward(&self, local: &str) -> Option<(String, Option<String>)> {
        let quoted = matches!(quote(local), Cow::Owned(_));
        let (user, site) = match quoted {
            true if !self.dequoted => None,
            true => local
                .rsplit_once('@')
                .or_else(|| local.rsplit_once('%').filter(|_| self.rewrite.percent_hack))
                .or_else(|| self.rewrite.swapped(local)),
            false => self.rewrite.swapped(local),
        }?;
        Some((user.to_owned(), self.seen(&self.rewrite.domain(site))))
    }

    fn seen(&self, domain: &str) -> Option<String> {
        if domain.is_empty() && self.null_domain {
            return None;
        }
        let literal = self.numeric_domain && DomainKind::of(domain) == Some(DomainKind::Ipv4);
        Some(if literal { format!("[{domain}]") } else { domain.to_owned() })
    }
}

/// Return whether the next system may take a local part for an address at another one: `user%far`, `far!user`.
pub fn may_route(local: &str) -> bool {
    local.contains(['@', '%', '!'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routing() -> Routing {
        let mut rewrite = Rewrite::local("mx.example.org");
        rewrite.domain = Some("example.org".into());
        Routing { rewrite, dequoted: true, null_domain: false, numeric_domain: true }
    }

    #[test]
    fn one_address_is_taken_off_a_local_part() {
        for (local, user, domain) in [
            ("u%far.org", "u", "far.org"),
            ("u%host", "u", "host.example.org"),
            ("u%far.org.", "u", "far.org"),
            ("far.org!u", "u", "far.org"),
            ("a.org!b.org!u", "b.org!u", "a.org"),
            ("a.org!u%b.org", "u%b.org", "a.org"),
            ("u%a.org%b.org", "u%a.org", "b.org"),
            ("u@far.org", "u", "far.org"),
            ("a b@c.org@far.org", "a b@c.org", "far.org"),
            ("a b!c%far.org", "a b!c", "far.org"),
            ("a b%far.org", "a b", "far.org"),
            ("far.org!a b", "a b", "far.org"),
            ("!u", "u", ""),
            ("%far.org", "", "far.org"),
            ("u%192.0.2.1", "u", "[192.0.2.1]"),
        ] {
            assert_eq!(routing().onward(local), Some((user.into(), Some(domain.into()))), "{local:?}");
        }
        for local in ["u", "a b", "", "-x"] {
            assert_eq!(routing().onward(local), None, "{local:?}");
        }
    }

    #[test]
    fn flags_of_the_site_say_what_is_an_operator() {
        let quoted = Routing { dequoted: false, ..routing() };
        for local in ["u@far.org", "a b%far.org", "far.org!a b"] {
            assert_eq!(quoted.onward(local), None, "{local:?}");
        }
        assert!(quoted.onward("u%far.org").is_some());
        let rewrite = Rewrite { swap_bangpath: false, percent_hack: false, ..routing().rewrite };
        let plain = Routing { rewrite, ..routing() };
        for local in ["u%far.org", "far.org!u", "a b%far.org", "far.org!a b"] {
            assert_eq!(plain.onward(local), None, "{local:?}");
        }
        assert!(plain.onward("u@far.org").is_some());
    }

    #[test]
    fn address_is_split_as_the_resolver_sees_it() {
        for (address, local, domain) in [
            ("U@Far.ORG.", "U", Some("Far.ORG")),
            ("u", "u", None),
            ("u@", "u", Some("")),
            ("\"a b\"@far.org", "a b", Some("far.org")),
            ("u@far.org..", "u", Some("far.org..")),
            ("u@192.0.2.1", "u", Some("[192.0.2.1]")),
            ("@far.org", "", Some("far.org")),
        ] {
            assert_eq!(routing().split(address), (local.into(), domain.map(Into::into)), "{address:?}");
        }
        let null = Routing { null_domain: true, ..routing() };
        assert_eq!(null.split("u@"), ("u".into(), None));
        assert_eq!(null.onward("u%"), Some(("u".into(), None)));
    }
}
