//! The rewriting of incomplete addresses (trivial-rewrite(8)).

use super::local_part::quote;
use crate::mail::address::{addresses, at_sign};
use crate::settings::Source;
use std::borrow::Cow;

/// The site's rules for incomplete addresses (trivial-rewrite(8)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// `user` becomes `user@origin`, and then, without a dot in it, `user@origin.domain`; `None`: it stays
    /// (`append_at_myorigin = no`).
    pub origin: Option<Box<str>>,
    /// `user@host` becomes `user@host.domain`; `None`: it stays (`append_dot_mydomain = no`).
    pub domain: Option<Box<str>>,
    /// `site!user` becomes `user@site` (`swap_bangpath`).
    pub swap_bangpath: bool,
    /// `user%domain` becomes `user@domain` (`allow_percent_hack`).
    pub percent_hack: bool,
}

impl Rewrite {
    /// Return the rules for addresses that local clients write.
    pub fn read<S: Source>(source: &S) -> Result<Self, S::Error> {
        Self::read_named(source, ["myorigin", "mydomain"])
    }

    /// Return the rules for headers of remote clients, whose bare addresses become addresses of a domain that is surely
    /// not this site's. `name`: `remote_header_rewrite_domain`. `None`: such headers stay unchanged.
    pub fn read_remote<S: Source>(source: &S, name: &str) -> Result<Option<Self>, S::Error> {
        match source.text(name)?.is_empty() {
            true => Ok(None),
            false => Self::read_named(source, [name, name]).map(Some),
        }
    }

    /// Return the rules with the parameters that name the origin and the domain. `append_at_myorigin` and
    /// `append_dot_mydomain` decide for remote clients, too.
    fn read_named<S: Source>(source: &S, [origin, domain]: [&str; 2]) -> Result<Self, S::Error> {
        let named =
            |flag: &str, name: &str| Ok(if source.flag(flag)? { Some(source.text(name)?.into()) } else { None });
        Ok(Self {
            origin: named("append_at_myorigin", origin)?,
            domain: named("append_dot_mydomain", domain)?,
            swap_bangpath: source.flag("swap_bangpath")?,
            percent_hack: source.flag("allow_percent_hack")?,
        })
    }

    /// Return the rules that Postfix has by default for mail of this site.
    pub fn local(myorigin: &str) -> Self {
        Self { origin: Some(myorigin.into()), domain: None, swap_bangpath: true, percent_hack: true }
    }

    /// The complete form of `address`; `None` when it is complete, or empty.
    pub fn apply(&self, address: &str) -> Option<String> {
        self.apply_noting(address, |_| {})
    }

    /// The same. `note` gets the name of each parameter that changes the address.
    pub fn apply_noting(&self, address: &str, note: impl FnMut(&'static str)) -> Option<String> {
        // `user@` stays as it is, and bounces: Postfix does not guess its domain.
        let complete = |at| address.len() == at + 1 || (address[at + 1..].contains('.') && !address.ends_with('.'));
        if address.is_empty() || at_sign(address).is_some_and(complete) {
            return None;
        }
        let rewritten = self.rewrite(address, note);
        (rewritten != address).then_some(rewritten)
    }

    fn rewrite(&self, address: &str, mut note: impl FnMut(&'static str)) -> String {
        let (mut local, mut domain) = match at_sign(address) {
            Some(at) => (address[..at].to_owned(), address[at + 1..].to_owned()),
            None => (address.to_owned(), String::new()),
        };
        let quoted = local.starts_with('"');
        let mut swaps = false;
        if domain.is_empty() && !quoted {
            if let Some((user, site)) = self.swapped(&local) {
                swaps = true;
                let bang = local.contains('!') && self.swap_bangpath;
                note(if bang { "swap_bangpath" } else { "allow_percent_hack" });
                (local, domain) = (quote(user).into_owned(), site.to_owned());
            }
            if matches!(&*local, "" | "\"\"") {
                return address.to_owned();
            }
        }
        if domain.is_empty() && !swaps {
            let Some(origin) = &self.origin else {
                return local;
            };
            note("append_at_myorigin");
            domain = origin.to_string();
        }
        match &*self.domain(&domain) {
            // `u%` and `!u` name no domain: such an address bounces.
            "" if swaps && domain.is_empty() => format!("{local}@"),
            "" => address.to_owned(),
            complete => {
                if complete.len() > domain.len() {
                    note("append_dot_mydomain");
                }
                format!("{local}@{complete}")
            }
        }
    }

    /// Return a domain without the dot at its end, and with the site's domain behind it if it has no dot at all.
    pub fn domain<'a>(&self, domain: &'a str) -> Cow<'a, str> {
        let bare = without_dot(domain);
        match &self.domain {
            Some(ours) if !bare.is_empty() && !domain.contains('.') && !bare.starts_with('[') => {
                format!("{bare}.{ours}").into()
            }
            _ => bare.into(),
        }
    }

    /// Return the user and the domain that a local part names by `site!user` or `user%domain`, as far as the site
    /// swaps these.
    pub fn swapped<'a>(&self, local: &'a str) -> Option<(&'a str, &'a str)> {
        if let Some((site, user)) = local.split_once('!').filter(|_| self.swap_bangpath) {
            return Some((user, site));
        }
        local.rsplit_once('%').filter(|_| self.percent_hack)
    }

    /// Replace the incomplete addresses in a header's value; `None` when all are complete.
    pub fn apply_to_list(&self, value: &[u8], tokens_max: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut copied = 0;
        for address in addresses(value, tokens_max) {
            let Some(rewritten) = self.apply(&address.text).filter(|_| address.certain) else {
                continue;
            };
            out.extend_from_slice(&value[copied..address.span.start]);
            out.extend_from_slice(rewritten.as_bytes());
            copied = address.span.end;
        }
        if copied == 0 {
            return None;
        }
        out.extend_from_slice(&value[copied..]);
        Some(out)
    }
}

/// Return a domain without the one dot at its end. Of two dots none goes: what is no domain stays as it was written.
pub fn without_dot(domain: &str) -> &str {
    domain.strip_suffix('.').filter(|bare| !bare.ends_with('.')).unwrap_or(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_addresses_are_completed() {
        let mut rewrite = Rewrite::local("mx.example.org");
        rewrite.domain = Some("example.org".into());
        for (address, expected) in [
            ("root", Some("root@mx.example.org")),
            ("root@", None),
            ("u@host", Some("u@host.example.org")),
            ("u@host.", Some("u@host")),
            ("u@x.org.", Some("u@x.org")),
            ("u@x.org", None),
            ("u@[127.0.0.1]", None),
            ("", None),
            ("site!u", Some("u@site.example.org")),
            ("u%x.org", Some("u@x.org")),
            ("a%b@x.org", None),
            ("\"u%x\"", Some("\"u%x\"@mx.example.org")),
            ("\"a@b\"", Some("\"a@b\"@mx.example.org")),
            ("\"a@b\"@x.org", None),
            ("a@b@c.org", None),
            ("@", None),
            ("u@.", None),
            ("u@x..", None),
            ("u@..", None),
            ("u%", Some("u@")),
            ("!u", Some("u@")),
            ("u%x.%y.org", Some("\"u%x.\"@y.org")),
        ] {
            assert_eq!(rewrite.apply(address).as_deref(), expected, "{address:?}");
        }
    }

    #[test]
    fn an_origin_without_a_dot_is_completed() {
        let mut rewrite = Rewrite::local("host");
        assert_eq!(rewrite.apply("u").as_deref(), Some("u@host"));
        rewrite.domain = Some("example.org".into());
        assert_eq!(rewrite.apply("u").as_deref(), Some("u@host.example.org"));
    }

    #[test]
    fn parameters_that_change_an_address_are_noted() {
        let mut rewrite = Rewrite::local("mx.example.org");
        rewrite.domain = Some("example.org".into());
        for (address, names) in [
            ("root", &["append_at_myorigin"][..]),
            ("u@host", &["append_dot_mydomain"]),
            ("site!u", &["swap_bangpath", "append_dot_mydomain"]),
            ("u%x.org", &["allow_percent_hack"]),
            ("u@x.org.", &[]),
            ("u@x.org", &[]),
        ] {
            let mut noted = Vec::new();
            rewrite.apply_noting(address, |name| noted.push(name));
            assert_eq!(noted, names, "{address:?}");
        }
    }

    #[test]
    fn the_rest_of_a_header_stays_as_it_was_written() {
        let rewrite = Rewrite::local("mx.example.org");
        let value = b" Root  <root> (r),\r\n\tx@y.org (X), admin (A)";
        let expected = " Root  <root@mx.example.org> (r),\r\n\tx@y.org (X), admin@mx.example.org (A)";
        assert_eq!(rewrite.apply_to_list(value, 100).unwrap(), expected.as_bytes());
        assert_eq!(rewrite.apply_to_list(b" x@y.org", 100), None);
        assert_eq!(rewrite.apply_to_list(b" Charlie Root", 100), None);
        assert_eq!(rewrite.apply_to_list(b" a, b, c", 3).unwrap(), b" a@mx.example.org, b@mx.example.org, c");
    }
}
