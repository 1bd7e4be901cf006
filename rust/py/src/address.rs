//! `AddressRules`: see `postillion_core::address`.

use crate::config::MainCf;
use postillion_core::address::local_part::{self, Extensions};
use postillion_core::address::rewrite::Rewrite;
use postillion_core::address::routing::{self, Routing};
use postillion_core::address::syntax::Syntax;
use postillion_core::address::{keys, path::Path};
use pyo3::prelude::*;

/// A site's rules for addresses.
#[pyclass(frozen, module = "postillion._core.address")]
pub struct AddressRules {
    extensions: Extensions,
    syntax: Syntax,
    routing: Routing,
    remote: Option<Rewrite>,
}

#[pymethods]
impl AddressRules {
    #[new]
    fn new(config: &Bound<'_, PyAny>) -> PyResult<Self> {
        let source = MainCf::new(config);
        Ok(Self {
            extensions: Extensions::read(&source)?,
            syntax: Syntax::read(&source)?,
            routing: Routing::read(&source)?,
            remote: Rewrite::read_remote(&source, "remote_header_rewrite_domain")?,
        })
    }

    fn allows(&self, address: &str) -> bool {
        self.syntax.allows(address)
    }

    fn split(&self, address: &str) -> (String, String) {
        let (local, domain) = self.routing.split(address);
        (local, domain.unwrap_or_default().to_lowercase())
    }

    fn extension<'a>(&self, local: &'a str) -> Option<(&'a str, char, &'a str)> {
        self.extensions.split(local).map(|found| (found.user, found.delimiter, found.extension))
    }

    #[pyo3(signature = (address, *, remote=false))]
    fn complete(&self, address: &str, remote: bool) -> String {
        match remote {
            false => self.routing.complete(address).into_owned(),
            true => self.remote.as_ref().and_then(|remote| remote.apply(address)).unwrap_or_else(|| address.into()),
        }
    }

    fn completing(&self, address: &str) -> Vec<&'static str> {
        self.routing.completing(address)
    }

    fn parts(&self, address: &str) -> (String, Option<String>) {
        self.routing.split(address)
    }

    fn onward(&self, local: &str) -> Option<(String, Option<String>)> {
        self.routing.onward(local)
    }

    #[pyo3(signature = (local, domain, *, is_local))]
    fn recipient_keys(&self, local: &str, domain: &str, is_local: bool) -> Vec<String> {
        keys::recipient(local, domain, &self.extensions, is_local)
    }

    #[pyo3(signature = (local, domain, *, is_local))]
    fn sender_keys(&self, local: &str, domain: Option<&str>, is_local: bool) -> Vec<String> {
        keys::sender(local, domain, &self.extensions, is_local)
    }

    #[pyo3(signature = (local, domain, *, bare_parents))]
    fn transport_keys(&self, local: &str, domain: &str, bare_parents: bool) -> Vec<String> {
        keys::transport(local, domain, &self.extensions, bare_parents)
    }
}

/// Return whether the next system may take a local part for an address at another one.
#[pyfunction]
pub fn may_route(local: &str) -> bool {
    routing::may_route(local)
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
