//! `TlsServer`, and the versions of the library: see `postillion_tls::server`, `postillion_tls::version`. A client's side
//! is in `client`, and one of its connections in `channel`.

pub mod channel;
pub mod client;

use crate::config::MainCf;
use crate::tables::Table;
use postillion_core::smtpd::site::SiteTls;
use postillion_core::tls::Engines;
use postillion_core::tls::settings::{Level, ServerTls};
use postillion_tls::self_signed;
use postillion_tls::server::{Parts, Problem, Refusal, Server};
use postillion_tls::sni::Chains;
use postillion_tls::tickets::{Root, SECRET_OCTETS};
use postillion_tls::version;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// The parameter to blame, the text and the fix.
type ProblemTuple = (&'static str, String, &'static str);

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

/// Return a new RSA key and a certificate for it that nobody else has signed.
#[pyfunction]
pub fn self_signed_chain(py: Python<'_>, name: &str) -> PyResult<Vec<u8>> {
    py.detach(|| self_signed::self_signed(name))
        .map_err(|errors| PyValueError::new_err(format!("no certificate for {name:?}: {errors}")))
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
    #[pyo3(signature = (config, chains=Vec::new(), secret=None))]
    fn new(
        config: &Bound<'_, PyAny>,
        chains: Vec<Bound<'_, Table>>,
        secret: Option<([u8; SECRET_OCTETS], f64)>,
    ) -> PyResult<Self> {
        let chains = chains.iter().map(|table| Arc::clone(&table.borrow().inner)).collect();
        let root = secret.map(|(secret, age_s)| Root { secret, age: Duration::from_secs_f64(age_s.max(0.0)) });
        let parts = Parts { chains: Chains::new(chains), root };
        let settings = ServerTls::read(&MainCf::new(config))?;
        let (server, problem) = match settings.level() {
            Level::Off => (None, None),
            _ => match Server::new(&settings, parts) {
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
    fn problem(&self) -> Option<ProblemTuple> {
        self.problem.clone().map(tuple)
    }

    #[getter]
    fn expiries(&self) -> Vec<(&'static str, String, i32)> {
        let found = self.server.iter().flat_map(|server| server.expiries());
        found.map(|expiry| (expiry.parameter, expiry.subject, expiry.days)).collect()
    }

    #[getter]
    fn has_changed(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.has_changed())
    }

    fn renew(&self, py: Python<'_>) -> (&'static str, Option<ProblemTuple>) {
        let renewed = py.detach(|| self.server.as_ref().map_or(Ok(()), |server| server.renew()));
        match renewed {
            Ok(()) => ("renewed", None),
            Err(Refusal::Closed) => ("closed", None),
            Err(Refusal::Problem(problem)) => ("refused", Some(tuple(problem))),
        }
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.server.as_ref().map(|server| server.warnings()).unwrap_or_default()
    }
}

fn tuple(problem: Problem) -> ProblemTuple {
    (problem.parameter, problem.text, problem.fix)
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
