//! `SmtpClientSettings` and `SmtpLogin`: see `postillion_core::smtp::client` and `postillion_core::sasl`.

use crate::checks::{ListTuple, lists};
use crate::config::MainCf;
use crate::tls::client::TlsClient;
use postillion_core::sasl::{Credentials, Kind, Login, Refusal};
use postillion_core::smtp::client::{ClientSettings, Protocol};
use postillion_sasl::Library;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::Arc;

/// The settings that all connections of a client share.
#[pyclass(frozen, module = "postillion._core.smtp")]
pub struct SmtpClientSettings {
    /// The same settings for the Rust side.
    pub inner: Arc<ClientSettings>,
}

#[pymethods]
impl SmtpClientSettings {
    #[new]
    #[pyo3(signature = (config, protocol, checks=None, mechanisms=None, tls=None))]
    fn new(
        config: &Bound<'_, PyAny>,
        protocol: &str,
        checks: Option<[ListTuple<'_>; 4]>,
        mechanisms: Option<Vec<String>>,
        tls: Option<&TlsClient>,
    ) -> PyResult<Self> {
        let unknown = || PyValueError::new_err(format!("unknown protocol {protocol:?}"));
        let protocol = Protocol::parse(protocol).ok_or_else(unknown)?;
        let source = MainCf::new(config);
        let mut read = ClientSettings::read_for(protocol, &source)?;
        if let Some(generic) = &mut read.generic {
            Arc::make_mut(generic).rules.local.own_addresses = source.own_addresses()?;
        }
        read.auth.filter = mechanisms.map(|names| names.iter().filter_map(|name| Kind::named(name)).collect());
        read.auth.library = Some(Arc::new(Library));
        read.starttls.engines = tls.and_then(TlsClient::engines);
        Ok(Self { inner: Arc::new(ClientSettings { checks: lists(checks)?, ..read }) })
    }
}

/// A client's login at a server.
#[pyclass(frozen, module = "postillion._core.smtp")]
pub struct SmtpLogin {
    /// The same for the Rust side.
    pub inner: Login,
}

#[pymethods]
impl SmtpLogin {
    #[new]
    fn new(user: &str, password: &[u8]) -> Self {
        Self { inner: Login::As(Arc::new(Credentials::new(user, password))) }
    }

    #[staticmethod]
    fn unknown() -> Self {
        Self { inner: Login::Unknown }
    }

    #[staticmethod]
    fn refused(dsn: &str, said: &str) -> PyResult<Self> {
        let bad = || PyValueError::new_err(format!("bad status code {dsn:?}"));
        let dsn = dsn.parse().map_err(|_| bad())?;
        Ok(Self { inner: Login::Refused(Arc::new(Refusal { dsn, said: said.into() })) })
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.inner)
    }
}

/// Return the names of the SASL mechanisms, the preferred ones first.
pub fn sasl_mechanisms() -> [&'static str; Kind::ALL.len()] {
    Kind::ALL.map(Kind::name)
}
