//! `TlsChannel`: see `postillion_core::tls::channel`.

use super::client::{TlsClient, TlsPolicy};
use postillion_core::tls::facts::Shown;
use postillion_core::tls::{Channel, Facts, Failure, Policy};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// Subject, issuer, both digests and the PEM form of a certificate.
type CertificateTuple = (String, String, String, String, String);

/// One TLS connection of a client.
#[pyclass(module = "postillion._core.tls")]
pub struct TlsChannel {
    channel: Channel,
    policy: Arc<Policy>,
    established: Option<(Box<Facts>, Shown)>,
    failure: Option<Failure>,
    ended: bool,
}

#[pymethods]
impl TlsChannel {
    #[new]
    fn new(client: &TlsClient, policy: &TlsPolicy) -> PyResult<Self> {
        let refused = |failure: Failure| PyValueError::new_err(failure.problems.join("; "));
        let engines = client.engines().ok_or_else(|| PyValueError::new_err("TLS does not work: see problem"))?;
        let policy = policy.policy();
        let mut channel = Channel::new(engines.connect(&policy).map_err(refused)?);
        let failure = channel.begin().err();
        Ok(Self { channel, policy, established: None, failure, ended: false })
    }

    fn receive<'py>(&mut self, py: Python<'py>, octets: &[u8]) -> Bound<'py, PyBytes> {
        let heard = self.channel.receive(octets);
        if let Some(facts) = heard.established {
            self.established = Some((facts, self.channel.shown()));
        }
        self.failure = self.failure.take().or(heard.failure);
        self.ended |= heard.ended;
        PyBytes::new(py, &heard.plain)
    }

    fn send(&mut self, plain: &[u8]) {
        self.channel.send(plain);
    }

    fn close(&mut self) {
        self.channel.close();
    }

    fn take_output<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.channel.take_output())
    }

    #[getter]
    fn is_established(&self) -> bool {
        self.established.is_some()
    }

    #[getter]
    fn is_resumed(&self) -> bool {
        self.established.as_ref().is_some_and(|(facts, _)| facts.resumed)
    }

    #[getter]
    fn is_matched(&self) -> bool {
        self.established.as_ref().is_some_and(|(facts, _)| facts.matched())
    }

    #[getter]
    fn ended(&self) -> bool {
        self.ended
    }

    #[getter]
    fn failure(&self) -> Option<Vec<String>> {
        self.failure.as_ref().map(|failure| failure.problems.clone())
    }

    #[getter]
    fn chain(&self) -> Vec<CertificateTuple> {
        let chain = self.established.as_ref().map(|(_, shown)| &*shown.chain).unwrap_or_default();
        chain
            .iter()
            .cloned()
            .map(|one| (one.subject, one.issuer, one.fingerprints.certificate, one.fingerprints.public_key, one.pem))
            .collect()
    }

    fn established_to(&self, peer: &str) -> Option<String> {
        self.established.as_ref().map(|(facts, _)| facts.established_to(peer))
    }

    fn certificate_to(&self, peer: &str) -> Option<String> {
        self.established.as_ref().and_then(|(facts, shown)| facts.certificate_to(shown, peer))
    }

    fn distrust_of(&self, peer: &str) -> Option<String> {
        self.established.as_ref().and_then(|(facts, _)| facts.distrust_of(peer))
    }

    fn matches(&self, peer: &str) -> Vec<String> {
        self.established.as_ref().map(|(_, shown)| shown.matches(self.policy.level, peer)).unwrap_or_default()
    }
}
