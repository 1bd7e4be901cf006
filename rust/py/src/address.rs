//! `AddressRules`: see `postillion_core::address`.

use crate::config::MainCf;
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
    fn new(config: &Bound<'_, PyAny>) -> PyResult<Self> {
        let source = MainCf::new(config);
        Ok(Self {
            extensions: Extensions::read(&source)?,
            syntax: Syntax::read(&source)?,
            rewrite: Rewrite::read(&source)?,
        })
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
