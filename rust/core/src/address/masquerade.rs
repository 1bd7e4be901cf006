//! Address masquerading: host names below a domain are left out (ADDRESS_REWRITING_README).

use super::local_part::split;
use super::names::{NameList, match_word};
use crate::inquiry::{Asker, Failure};
use crate::settings;

settings! {
    /// The site's domains.
    #[derive(Debug, Clone)]
    pub struct Masquerade {
        /// In order; `!domain`: its addresses stay.
        domains: Vec<Box<str>> = "masquerade_domains",
        /// Local parts whose addresses stay.
        exceptions: NameList = "masquerade_exceptions",
    }
}

impl Masquerade {
    /// Return whether any address can change.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Return the address without host name, `None` if it stays.
    pub async fn apply(&self, address: &str, asker: &Asker) -> Result<Option<Box<str>>, Failure> {
        let (local, Some(domain)) = split(address) else {
            return Ok(None);
        };
        if self.exceptions.has(local, asker).await? {
            return Ok(None);
        }
        for word in &self.domains {
            let (strips, bare) = match_word(word);
            if domain.eq_ignore_ascii_case(bare) {
                return Ok(None);
            }
            let head = domain.len().checked_sub(bare.len()).and_then(|at| domain.split_at_checked(at));
            if head.is_some_and(|(head, tail)| head.ends_with('.') && tail.eq_ignore_ascii_case(bare)) {
                // As in Postfix, the new domain is in lower case, however main.cf has it.
                return Ok(strips.then(|| format!("{local}@{}", bare.to_lowercase()).into()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::run;

    #[test]
    fn host_names_below_a_domain_are_left_out() {
        for (domains, address, expected) in [
            (&["example.com"][..], "u@host.example.com", Some("u@example.com")),
            (&["example.com"], "u@a.b.Example.COM", Some("u@example.com")),
            (&["Example.Com"], "u@host.example.COM", Some("u@example.com")),
            (&["example.com"], "u@example.com", None),
            (&["example.com"], "u@myexample.com", None),
            (&["example.com"], "u@com", None),
            (&["example.com"], "u", None),
            (&["foo.example.com", "example.com"], "u@a.foo.example.com", Some("u@foo.example.com")),
            (&["foo.example.com", "example.com"], "u@foo.example.com", None),
            (&["!foo.example.com", "example.com"], "u@a.foo.example.com", None),
            (&["!foo.example.com", "example.com"], "u@foo.example.com", None),
            (&["!foo.example.com", "example.com"], "u@bar.example.com", Some("u@example.com")),
            (&["example.com", "!foo.example.com"], "u@foo.example.com", Some("u@example.com")),
            (&["example.com"], "root@host.example.com", None),
            (&["example.com"], "Root@host.example.com", None),
            (&["example.com"], "\"a b\"@host.example.com", Some("\"a b\"@example.com")),
        ] {
            let domains = domains.iter().map(|domain| (*domain).into()).collect();
            let masquerade = Masquerade { domains, exceptions: NameList::of(&["root"]) };
            let got = run(&[], false, async move |asker: Asker| masquerade.apply(address, &asker).await);
            assert_eq!(got.unwrap().as_deref(), expected, "{address}");
        }
    }
}
