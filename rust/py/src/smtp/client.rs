//! `SmtpClientSettings`: see `postillion_core::smtp::client`.

use crate::checks::{ListTuple, lists};
use crate::config::MainCf;
use postillion_core::smtp::client::{ClientSettings, Protocol};
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
    #[pyo3(signature = (config, protocol, checks=None))]
    fn new(config: &Bound<'_, PyAny>, protocol: &str, checks: Option<[ListTuple<'_>; 4]>) -> PyResult<Self> {
        let unknown = || PyValueError::new_err(format!("unknown protocol {protocol:?}"));
        let protocol = Protocol::parse(protocol).ok_or_else(unknown)?;
        let source = MainCf::new(config);
        let mut read = ClientSettings::read_for(protocol, &source)?;
        if let Some(generic) = &mut read.generic {
            Arc::make_mut(generic).rules.local.own_addresses = source.own_addresses()?;
        }
        Ok(Self { inner: Arc::new(ClientSettings { checks: lists(checks)?, ..read }) })
    }
}
