//! `DeliveryService` and `Request`: see `postillion_core::delivery::service`.

use super::{AgentLink, DeliveryJob, enhanced};
use crate::ask::{AnswerTuple, LookupTuple, answers, lookups};
use crate::config::MainCf;
use crate::log::Log;
use crate::smtp::{SmtpClientSettings, SmtpLogin};
use crate::tls::client::TlsPolicy;
use postillion_core::clock::wall_now_us;
use postillion_core::delivery::request;
use postillion_core::delivery::server::{Attempt, Server};
use postillion_core::delivery::service::Service;
use postillion_core::delivery::settings::ConnectionSettings;
use postillion_core::mail::status::local_status;
use postillion_core::smtp::client::requiretls::RequireTls;
use pyo3::exceptions::{PyConnectionError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// The server of a reused connection: its host, address and port.
type Tried = (String, String, u16);

/// A request of the service to its owner.
#[pyclass(frozen, module = "postillion._core.delivery")]
pub enum Request {
    Find { ticket: u64, nexthop: String, tried: Option<Tried>, completed: bool, tls: String },
    Ask { key: u64, ticket: u64, lookups: Vec<(usize, Py<PyBytes>)>, first: bool },
    Tls { ticket: u64, fault: Option<(String, String)> },
    Login { ticket: u64, dsn: String, said: String },
    Done { ticket: u64 },
    Sweep(),
}

impl Request {
    fn of(py: Python<'_>, request: request::Request) -> Self {
        match request {
            request::Request::Find { ticket, nexthop, tried, completed, tls } => {
                let tried = tried.map(|server| (server.host.to_string(), server.address.to_string(), server.port));
                Self::Find { ticket, nexthop: nexthop.to_string(), tried, completed, tls: tls.word().to_owned() }
            }
            request::Request::Ask { key, ticket, lookups: asked, first } => {
                let lookups = lookups(py, asked).into_iter().map(|(table, key)| (table, key.unbind())).collect();
                Self::Ask { key: key.token(), ticket, lookups, first }
            }
            request::Request::Tls { ticket, fault } => {
                Self::Tls { ticket, fault: fault.map(|fault| (fault.kind.to_owned(), fault.reason)) }
            }
            request::Request::Login { ticket, refusal } => {
                Self::Login { ticket, dsn: refusal.dsn.to_string(), said: refusal.said.into() }
            }
            request::Request::Done(ticket) => Self::Done { ticket },
            request::Request::Sweep => Self::Sweep(),
        }
    }
}

/// The connections of an agent.
#[pyclass(module = "postillion._core.delivery")]
pub struct DeliveryService {
    service: Service,
}

#[pymethods]
impl DeliveryService {
    #[new]
    fn new(client: &SmtpClientSettings, config: &Bound<'_, PyAny>, log: &Log) -> PyResult<Self> {
        let settings = ConnectionSettings::read_for(client.inner.protocol, &MainCf::new(config))?;
        let client = Arc::clone(&client.inner);
        Ok(Self { service: Service::new(client, settings, Arc::clone(&log.inner), wall_now_us)? })
    }

    fn fileno(&self) -> i32 {
        self.service.descriptor().as_raw_fd()
    }

    fn __len__(&self) -> usize {
        self.service.len()
    }

    fn job(&self, ticket: u64) -> Option<DeliveryJob> {
        self.service.work(ticket).map(|work| DeliveryJob { work: Arc::clone(work) })
    }

    fn receive(&mut self, link: &mut AgentLink, data: &[u8], now: f64) -> PyResult<()> {
        let jobs = link.inner.receive(data, wall_now_us());
        let jobs = jobs.map_err(|error| PyConnectionError::new_err(error.to_string()))?;
        jobs.into_iter().for_each(|work| self.service.start(Arc::new(work), now));
        Ok(())
    }

    #[pyo3(signature = (
        ticket, host, address, port, now, *, loop_detect=false, best=true, last_address=true, last_session=true,
        source=None, hosts=1, login=None, tls=None, requiretls="disable", reuses=true, reuses_tls=false
    ))]
    #[expect(clippy::too_many_arguments, reason = "the fields of the server, most of them by keyword")]
    fn connect(
        &mut self,
        ticket: u64,
        host: &str,
        address: &str,
        port: u16,
        now: f64,
        loop_detect: bool,
        best: bool,
        last_address: bool,
        last_session: bool,
        source: Option<&str>,
        hosts: usize,
        login: Option<&SmtpLogin>,
        tls: Option<&TlsPolicy>,
        requiretls: &str,
        reuses: bool,
        reuses_tls: bool,
    ) -> PyResult<()> {
        let source = source.map(str::parse::<IpAddr>).transpose();
        let source = source.map_err(|error| PyValueError::new_err(format!("source: {error}")))?;
        let server = Server { host: host.into(), address: address.into(), port, loop_detect, best };
        let login = login.map(|login| login.inner.clone()).unwrap_or_default();
        let tls = tls.map(TlsPolicy::policy);
        let requiretls = RequireTls::parse(requiretls)
            .ok_or_else(|| PyValueError::new_err(format!("unknown REQUIRETLS policy {requiretls:?}")))?;
        let attempt = Attempt { last_address, last_session, source, hosts, login, tls, requiretls, reuses, reuses_tls };
        self.service.connect(ticket, server, attempt, now);
        Ok(())
    }

    fn note(&mut self, ticket: u64, dsn: &str, text: &str) -> PyResult<()> {
        self.service.note(ticket, local_status(enhanced(dsn)?, text));
        Ok(())
    }

    fn give_up(&mut self, ticket: u64) {
        self.service.give_up(ticket);
    }

    fn defer(&mut self, ticket: u64, bug: &str) {
        self.service.defer(ticket, bug);
    }

    fn answer(
        &mut self,
        key: u64,
        ticket: u64,
        asked: Vec<LookupTuple>,
        given: Vec<AnswerTuple<'_>>,
        now: f64,
    ) -> PyResult<()> {
        if let Some(key) = self.service.key_of(key) {
            self.service.answer(key, ticket, answers(asked, given)?, now);
        }
        Ok(())
    }

    fn fail(&mut self, key: u64, ticket: u64, bug: &str, now: f64) {
        if let Some(key) = self.service.key_of(key) {
            self.service.fail(key, ticket, bug, now);
        }
    }

    fn poll(&mut self, now: f64) -> PyResult<()> {
        Ok(self.service.poll(now)?)
    }

    fn sweep(&mut self, now: f64) -> bool {
        self.service.sweep(now)
    }

    fn drain(&mut self) {
        self.service.drain();
    }

    fn stop(&mut self, now: f64) {
        self.service.stop(now);
    }

    fn take_requests(&mut self, py: Python<'_>) -> Vec<Request> {
        self.service.take_requests().into_iter().map(|request| Request::of(py, request)).collect()
    }

    fn take_results<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let results = self.service.take_results();
        (!results.is_empty()).then(|| PyBytes::new(py, &results))
    }
}
