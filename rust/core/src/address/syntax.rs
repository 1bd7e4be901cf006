//! The syntax that a site asks of envelope addresses beyond RFC 5321 (postconf(5): allow_min_user,
//! resolve_numeric_domain).
//!
//! smtpd refuses an address that fails with 501 5.1.3 or 5.1.7, the queue manager bounces it with 5.1.3: both ask
//! `Syntax::allows`, so they cannot disagree.

use super::domain::DomainKind;
use super::local_part::split;
use super::path::Path;
use crate::settings;

settings! {
    /// The site's rules.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Syntax {
        /// A local part may start with `-`, which commands would take for an option.
        min_user: bool = "allow_min_user",
        /// `user@192.0.2.1` is `user@[192.0.2.1]`.
        numeric_domain: bool = "resolve_numeric_domain",
    }
}

impl Syntax {
    /// May mail have this address, `local@domain` or a bare local part? The null address is no matter of syntax: no.
    pub fn allows(&self, address: &str) -> bool {
        let (local, domain) = split(address);
        let kind = domain.map(DomainKind::of);
        !local.is_empty()
            && self.allows_local(local)
            && kind.is_none_or(|kind| kind.is_some_and(|k| self.allows_domain(k)))
    }

    /// The same for a path that was parsed.
    pub fn allows_path(&self, path: &Path) -> bool {
        !path.is_null()
            && self.allows_local(path.local())
            && path.domain_kind().is_none_or(|kind| self.allows_domain(kind))
    }

    fn allows_local(&self, local: &str) -> bool {
        self.min_user || !local.strip_prefix('"').unwrap_or(local).starts_with('-')
    }

    fn allows_domain(&self, kind: DomainKind) -> bool {
        match kind {
            DomainKind::Name | DomainKind::Literal => true,
            DomainKind::Ipv4 => self.numeric_domain,
            DomainKind::Numeric => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_pass_as_in_postfix() {
        let lax = Syntax { min_user: true, numeric_domain: true };
        for (address, strictly, laxly) in [
            ("u@next.example", true, true),
            ("u", true, true),
            ("\"u v\"@next.example", true, true),
            ("u@[127.0.0.1]", true, true),
            ("u@[IPv6:::1]", true, true),
            ("+u@next.example", true, true),
            ("u-@next.example", true, true),
            ("-x@next.example", false, true),
            ("\"-x\"@next.example", false, true),
            ("\"-x y\"@next.example", false, true),
            ("-x", false, true),
            ("-", false, true),
            ("u@127.0.0.1", false, true),
            ("u@1.2.3", false, false),
            ("u@1", false, false),
            ("u@-a.example", false, false),
            ("u@a-.example", false, false),
            ("u@a..b", false, false),
            ("u@", false, false),
            ("@next.example", false, false),
            ("", false, false),
        ] {
            assert_eq!(Syntax::default().allows(address), strictly, "{address:?}");
            assert_eq!(lax.allows(address), laxly, "{address:?}");
            if let Ok(path) = Path::of(address) {
                assert_eq!(Syntax::default().allows_path(&path), strictly, "{address:?}");
                assert_eq!(lax.allows_path(&path), laxly, "{address:?}");
            }
        }
    }
}
