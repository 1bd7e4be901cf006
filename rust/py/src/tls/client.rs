//! `TlsClient` and `TlsPolicy`: see `postillion_tls::client`.

use crate::config::MainCf;
use postillion_core::smtp::client::{Protocol, read_tls};
use postillion_core::tls::client_settings::{ClientTls, Wanted};
use postillion_core::tls::dane::Tlsa;
use postillion_core::tls::settings::LogLevel;
use postillion_core::tls::{ClientEngines, ClientLevel, Policy};
use postillion_tls::client::{Client, Prefix};
use postillion_tls::server::Problem;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::Arc;

/// TLS of an SMTP or LMTP client: its parameters, keys and authorities.
#[pyclass(frozen, module = "postillion._core.tls")]
pub struct TlsClient {
    settings: ClientTls,
    client: Result<Arc<Client>, Problem>,
}

/// The policy of one connection.
#[pyclass(frozen, eq, hash, module = "postillion._core.tls")]
#[derive(PartialEq, Eq, Hash)]
pub struct TlsPolicy(Arc<Policy>);

#[pymethods]
impl TlsClient {
    #[new]
    fn new(config: &Bound<'_, PyAny>, prefix: &str) -> PyResult<Self> {
        let (protocol, prefix) = match Protocol::parse(prefix) {
            Some(protocol @ Protocol::Smtp) => (protocol, Prefix::Smtp),
            Some(protocol @ Protocol::Lmtp) => (protocol, Prefix::Lmtp),
            None => return Err(PyValueError::new_err(format!("prefix: {prefix:?} is neither smtp nor lmtp"))),
        };
        let settings = read_tls(protocol, &MainCf::new(config))?;
        let client = Client::new(settings.clone(), prefix).map(Arc::new);
        Ok(Self { settings, client })
    }

    #[getter]
    fn problem(&self) -> Option<(&'static str, &str, &'static str)> {
        self.client.as_ref().err().map(|problem| (problem.parameter, &*problem.text, problem.fix))
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.client.as_ref().map(|client| client.warnings.clone()).unwrap_or_default()
    }

    #[getter]
    fn sessions(&self) -> usize {
        self.client.as_ref().map_or(0, |client| client.sessions())
    }

    #[getter]
    fn log_level(&self) -> u8 {
        self.settings.loglevel.0
    }

    #[expect(clippy::too_many_arguments, reason = "the attributes of a table of policies, by name")]
    #[pyo3(signature = (
        level, *, names=vec![], fingerprints=vec![], tlsa=vec![], trust_anchor_files=vec![], protocols=None,
        ciphers=None, exclude=None, servername=None, session_key="", insecure_mx=false, log_level=None
    ))]
    fn policy(
        &self,
        level: &str,
        names: Vec<String>,
        fingerprints: Vec<String>,
        tlsa: Vec<(u8, u8, u8, Vec<u8>)>,
        trust_anchor_files: Vec<String>,
        protocols: Option<&str>,
        ciphers: Option<&str>,
        exclude: Option<&str>,
        servername: Option<&str>,
        session_key: &str,
        insecure_mx: bool,
        log_level: Option<u8>,
    ) -> PyResult<TlsPolicy> {
        let level = match ClientLevel::parse(level) {
            Some(ClientLevel::Dane) if insecure_mx => ClientLevel::HalfDane,
            Some(level) => level,
            None => return Err(PyValueError::new_err(format!("bad TLS security level {level:?}"))),
        };
        let record = |(usage, selector, matching, data)| Tlsa { usage, selector, matching, data };
        let tlsa = tlsa.into_iter().map(record).collect();
        let wanted = Wanted {
            level,
            names,
            fingerprints,
            tlsa,
            trust_anchor_files,
            protocols,
            ciphers,
            exclude,
            servername,
            session_key: session_key.to_owned(),
            log_level: log_level.map(LogLevel),
        };
        let policy = match &self.client {
            Ok(client) => client.policy(wanted),
            Err(_) => self.settings.policy(wanted),
        };
        policy.map(|policy| TlsPolicy(Arc::new(policy))).map_err(PyValueError::new_err)
    }
}

impl TlsClient {
    /// Return the source of engines; `None` if TLS does not work.
    pub fn engines(&self) -> Option<Arc<dyn ClientEngines>> {
        self.client.as_ref().ok().map(|client| Arc::clone(client) as Arc<dyn ClientEngines>)
    }
}

#[pymethods]
impl TlsPolicy {
    #[getter]
    fn level(&self) -> &'static str {
        self.0.level.name()
    }

    #[getter]
    fn requires_tls(&self) -> bool {
        self.0.level.requires_tls()
    }

    #[getter]
    fn must_match(&self) -> bool {
        self.0.level.must_match()
    }

    fn __repr__(&self) -> String {
        format!("TlsPolicy({:?}, names={:?})", self.0.level.name(), self.0.names)
    }
}

impl TlsPolicy {
    /// Return the policy for a connection.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.0)
    }
}
