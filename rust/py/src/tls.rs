//! `TlsServer`, and the versions of the library: see `postillion_tls::server`, `postillion_tls::version`. A client's side
//! is in `client`.

pub mod client;

use crate::config::MainCf;
use postillion_core::smtpd::site::SiteTls;
use postillion_core::tls::Engines;
use postillion_core::tls::settings::{Level, ServerTls};
use postillion_tls::server::{Problem, Server};
use postillion_tls::version;
use pyo3::prelude::*;
use std::sync::Arc;

/// Return the version of the library that the program was built with.
#[pyfunction]
pub fn compile_version() -> &'static str {
    version::COMPILED
}

/// Return the version of the library in use.
#[pyfunction]
pub fn run_version() -> &'static str {
    version::running()
}

/// Return the kinds of keys that a certificate may have.
#[pyfunction]
pub fn public_key_algorithms() -> Vec<&'static str> {
    version::PUBLIC_KEY_ALGORITHMS.to_vec()
}

/// TLS of an SMTP server: its parameters, keys and certificates.
#[pyclass(frozen, module = "postillion._core.tls")]
pub struct TlsServer {
    settings: ServerTls,
    server: Option<Arc<Server>>,
    problem: Option<Problem>,
}

#[pymethods]
impl TlsServer {
    #[new]
    fn new(config: &Bound<'_, PyAny>) -> PyResult<Self> {
        let settings = ServerTls::read(&MainCf::new(config))?;
        let (server, problem) = match settings.level() {
            Level::Off => (None, None),
            _ => match Server::new(&settings) {
                Ok(server) => (Some(Arc::new(server)), None),
                Err(problem) => (None, Some(problem)),
            },
        };
        Ok(Self { settings, server, problem })
    }

    #[getter]
    fn level(&self) -> &'static str {
        match self.settings.level() {
            Level::Off => "none",
            Level::May => "may",
            Level::Encrypt => "encrypt",
        }
    }

    #[getter]
    fn problem(&self) -> Option<(&'static str, &str, &'static str)> {
        self.problem.as_ref().map(|problem| (problem.parameter, &*problem.text, problem.fix))
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.server.as_ref().map(|server| server.warnings.clone()).unwrap_or_default()
    }
}

impl TlsServer {
    /// Return the use of TLS in the dialogue, and TLS of the sessions.
    pub fn parts(&self) -> (Level, Option<SiteTls>) {
        match &self.server {
            None => (Level::Off, None),
            Some(server) => {
                let engines = Arc::clone(server) as Arc<dyn Engines>;
                (self.settings.level(), Some(SiteTls::new(&self.settings, engines)))
            }
        }
    }
}
