//! `AddressRules`: see `postillion_core::address`.

use postillion_core::address::domain::DomainKind;
use postillion_core::address::local_part::{self, Extensions};
use postillion_core::address::rewrite::Rewrite;
use postillion_core::address::syntax::Syntax;
use postillion_core::address::{keys, path::Path};
use pyo3::prelude::*;

/// A site's rules for addresses.
#[pyclass(frozen, module = "postillion._core.address")]
pub struct AddressRules {
    extensions: Extensions,
    syntax: Syntax,
    rewrite: Rewrite,
}

#[pymethods]
impl AddressRules {
    #[new]
    #[pyo3(signature = (*, recipient_delimiter="", owner_request_special=true, double_bounce_sender="double-bounce",
                        allow_min_user=false, resolve_numeric_domain=false, swap_bangpath=true,
                        allow_percent_hack=true))]
    fn new(
        recipient_delimiter: &str,
        owner_request_special: bool,
        double_bounce_sender: &str,
        allow_min_user: bool,
        resolve_numeric_domain: bool,
        swap_bangpath: bool,
        allow_percent_hack: bool,
    ) -> Self {
        let extensions = Extensions {
            delimiters: recipient_delimiter.into(),
            owner_request_special,
            double_bounce_sender: double_bounce_sender.into(),
        };
        let syntax = Syntax { min_user: allow_min_user, numeric_domain: resolve_numeric_domain };
        let rewrite = Rewrite { origin: None, domain: None, swap_bangpath, percent_hack: allow_percent_hack };
        Self { extensions, syntax, rewrite }
    }

    fn allows(&self, address: &str) -> bool {
        self.syntax.allows(address)
    }

    fn split(&self, address: &str) -> (String, String) {
        let (local, domain) = local_part::split(address);
        (local_part::unquote(local), self.domain(domain.unwrap_or_default()))
    }

    fn domain(&self, domain: &str) -> String {
        let name = domain.to_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let literal = self.syntax.numeric_domain && DomainKind::of(name) == Some(DomainKind::Ipv4);
        if literal { format!("[{name}]") } else { name.to_owned() }
    }

    fn extension<'a>(&self, local: &'a str) -> Option<(&'a str, char, &'a str)> {
        self.extensions.split(local).map(|found| (found.user, found.delimiter, found.extension))
    }

    fn onward<'a>(&self, local: &'a str) -> Option<(&'a str, &'a str)> {
        self.rewrite.onward(local)
    }

    #[pyo3(signature = (local, domain, *, is_local))]
    fn recipient_keys(&self, local: &str, domain: &str, is_local: bool) -> Vec<String> {
        keys::recipient(local, domain, &self.extensions, is_local)
    }

    fn transport_keys(&self, local: &str, domain: &str) -> Vec<String> {
        keys::transport(local, domain, &self.extensions)
    }
}

/// Return the canonical form of an address, None for a text that is no address.
#[pyfunction]
pub fn canonical(address: &str) -> Option<String> {
    Path::of(address).ok().map(|path| path.address().to_owned())
}

/// Return a local part, quoted where it needs quotes.
#[pyfunction]
pub fn quote(local: &str) -> String {
    local_part::quote(local).into_owned()
}
