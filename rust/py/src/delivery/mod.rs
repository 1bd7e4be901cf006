//! `AgentLink`, `DeliveryJob`, `DeliveryService`, `JobRecipient`, `JobStatus`, `TracedStatus`: see `postillion_core::delivery`, `ipc::frame`.

mod service;

pub use service::{DeliveryService, Request};

use crate::cleanup::trace_word;
use crate::log::Log;
use crate::queue::queue_error;
use postillion_core::clock::wall_now_us;
use postillion_core::delivery::job::{Handover, JobSettings, word};
use postillion_core::delivery::link::Link;
use postillion_core::delivery::work::{Agent, Work};
use postillion_core::ipc::frame::{self, JobKind};
use postillion_core::mail::reply::Enhanced;
use postillion_core::mail::status::{Outcome, Status, local_status};
use postillion_core::mail::stuff::Unstuffer;
use postillion_core::mail::trace::{Action, Traced};
use pyo3::exceptions::{PyConnectionError, PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::path::PathBuf;
use std::sync::Arc;

/// The agent's end of its connection to the queue manager.
#[pyclass(module = "postillion._core.delivery")]
pub struct AgentLink {
    inner: Link,
}

#[pymethods]
impl AgentLink {
    #[new]
    #[pyo3(signature = (log, queue_directory, *, long_queue_ids=false, delay_resolution_digits=6, soft_bounce=false))]
    fn new(
        log: &Log,
        queue_directory: PathBuf,
        long_queue_ids: bool,
        delay_resolution_digits: u32,
        soft_bounce: bool,
    ) -> Self {
        let settings = JobSettings { resolution_digits: delay_resolution_digits, long_queue_ids, soft_bounce };
        Self { inner: Link::new(Agent::new(Arc::clone(&log.inner), queue_directory, settings)) }
    }

    fn register<'py>(&mut self, py: Python<'py>, transport: &str, pid: u32, capacity: u32) -> Bound<'py, PyBytes> {
        let mut octets = Vec::new();
        self.inner.register(transport, pid, capacity, &mut octets);
        PyBytes::new(py, &octets)
    }

    fn receive(&mut self, data: &[u8]) -> PyResult<Vec<DeliveryJob>> {
        let jobs = self.inner.receive(data, wall_now_us());
        let jobs = jobs.map_err(|error| PyConnectionError::new_err(error.to_string()))?;
        Ok(jobs.into_iter().map(|work| DeliveryJob { work: Arc::new(work) }).collect())
    }

    fn close_idle_files(&self, now: f64) -> usize {
        self.inner.agent().close_idle_files(now)
    }
}

/// A job for a delivery agent.
#[pyclass(frozen, module = "postillion._core.delivery")]
pub struct DeliveryJob {
    /// The job, shared with its session.
    pub work: Arc<Work>,
}

#[pymethods]
impl DeliveryJob {
    #[getter]
    fn job(&self) -> u64 {
        self.work.lock().job().job
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match self.work.lock().job().kind {
            JobKind::Deliver => "deliver",
            JobKind::Bounce => "bounce",
            JobKind::Warn => "warn",
            JobKind::Confirm => "confirm",
            JobKind::Probe => "probe",
            JobKind::Report => "report",
        }
    }

    #[getter]
    fn queue_id(&self) -> String {
        self.work.lock().queue_id().into()
    }

    #[getter]
    fn sender(&self) -> String {
        self.work.lock().job().envelope.sender.to_string()
    }

    #[getter]
    fn transport(&self) -> String {
        self.work.lock().job().transport.to_string()
    }

    #[getter]
    fn nexthop(&self) -> String {
        self.work.lock().job().nexthop.to_string()
    }

    #[getter]
    fn size_octets(&self) -> u64 {
        self.work.lock().job().envelope.size_octets
    }

    #[getter]
    fn arrival(&self) -> f64 {
        self.work.lock().job().envelope.arrival_us as f64 / 1e6
    }

    #[getter]
    fn waives_tls(&self) -> bool {
        self.work.lock().job().envelope.waives_tls()
    }

    #[getter]
    fn requiretls(&self) -> bool {
        self.work.lock().job().envelope.requiretls
    }

    #[getter]
    fn smtputf8(&self) -> bool {
        self.work.lock().job().envelope.smtputf8
    }

    #[getter]
    fn body(&self) -> &'static str {
        self.work.lock().job().envelope.body.keyword()
    }

    #[getter]
    fn envid(&self) -> Option<String> {
        self.work.lock().job().envelope.envid.as_deref().map(Into::into)
    }

    #[getter]
    fn ret(&self) -> &'static str {
        self.work.lock().job().envelope.ret.keyword()
    }

    #[getter]
    fn recipients(&self) -> Vec<JobRecipient> {
        self.work.lock().job().recipients.iter().map(|inner| JobRecipient { inner: inner.clone() }).collect()
    }

    #[getter]
    fn trace(&self) -> &'static str {
        trace_word(self.work.lock().job().envelope.trace)
    }

    #[getter]
    fn traced(&self) -> Vec<TracedStatus> {
        self.work.lock().job().traced.iter().map(|inner| TracedStatus { inner: inner.clone() }).collect()
    }

    #[getter]
    fn left(&self) -> usize {
        self.work.lock().left()
    }

    fn content<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.work.content().map_err(queue_error)?))
    }

    #[pyo3(signature = (eol=b"\n".as_slice()))]
    fn text<'py>(&self, py: Python<'py>, eol: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let unstuffer = match eol {
            b"\n" => Unstuffer::lf(),
            b"\r\n" => Unstuffer::crlf(),
            _ => return Err(PyValueError::new_err("eol is neither LF nor CRLF")),
        };
        Ok(PyBytes::new(py, &self.work.text(unstuffer).map_err(queue_error)?))
    }

    fn attribute(&self, name: &str) -> Option<String> {
        self.work.lock().job().envelope.attribute(name).map(Into::into)
    }

    #[pyo3(signature = (
        index, outcome, dsn, text, *, relay="none", remote=None, setup_s=0.0, transmission_s=None, conn_use=0,
        address=None, action=None
    ))]
    #[allow(clippy::too_many_arguments, reason = "each is a field of the log line, passed by name")]
    fn status(
        &self,
        index: u32,
        outcome: &str,
        dsn: &str,
        text: &str,
        relay: &str,
        remote: Option<&str>,
        setup_s: f64,
        transmission_s: Option<f64>,
        conn_use: u32,
        address: Option<&str>,
        action: Option<&str>,
    ) -> PyResult<bool> {
        let action = action.map(action_of).transpose()?;
        let status = status_of(outcome, dsn, text, remote)?;
        let handover = Handover {
            relay,
            conn_use,
            setup_us: micros(setup_s),
            transmission_us: transmission_s.map(micros),
            wall_now_us: wall_now_us(),
        };
        let mut delivery = self.work.lock();
        let no_such = || PyIndexError::new_err(format!("the job has no recipient {index}"));
        let position = delivery.position(index).ok_or_else(no_such)?;
        Ok(delivery.finish_as(position, address, status, action, &handover, self.work.log()))
    }

    #[pyo3(signature = (index, address, outcome, dsn, text, *, relay="none", action=None))]
    #[allow(clippy::too_many_arguments, reason = "each is a field of the log line, passed by name")]
    fn note(
        &self,
        index: u32,
        address: &str,
        outcome: &str,
        dsn: &str,
        text: &str,
        relay: &str,
        action: Option<&str>,
    ) -> PyResult<()> {
        let action = action.map(action_of).transpose()?;
        let status = status_of(outcome, dsn, text, None)?;
        let handover = Handover { relay, conn_use: 0, setup_us: 0, transmission_us: None, wall_now_us: wall_now_us() };
        let mut delivery = self.work.lock();
        let no_such = || PyIndexError::new_err(format!("the job has no recipient {index}"));
        let position = delivery.position(index).ok_or_else(no_such)?;
        delivery.note(position, Some(address), &status, action, &handover, self.work.log());
        Ok(())
    }

    fn site_failed(&self, dsn: &str, text: &str) -> PyResult<()> {
        self.work.lock().site_failed(local_status(enhanced(dsn)?, text));
        Ok(())
    }

    fn result<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut octets = Vec::new();
        self.work.lock().encode_result(&mut octets);
        PyBytes::new(py, &octets)
    }
}

/// A recipient of a job.
#[pyclass(frozen, module = "postillion._core.delivery")]
pub struct JobRecipient {
    inner: frame::JobRecipient,
}

#[pymethods]
impl JobRecipient {
    #[getter]
    fn index(&self) -> u32 {
        self.inner.index
    }

    #[getter]
    fn address(&self) -> &str {
        &self.inner.recipient.address
    }

    #[getter]
    fn original(&self) -> Option<&str> {
        self.inner.recipient.original.as_deref()
    }

    #[getter]
    fn orcpt(&self) -> Option<&str> {
        self.inner.recipient.orcpt.as_deref()
    }

    #[getter]
    fn notify(&self) -> u8 {
        self.inner.recipient.notify.0
    }

    #[getter]
    fn status(&self) -> Option<JobStatus> {
        self.inner.status.clone().map(|inner| JobStatus { inner })
    }
}

/// The status of a recipient, in a job that reports it.
#[pyclass(frozen, module = "postillion._core.delivery")]
pub struct JobStatus {
    inner: Status,
}

#[pymethods]
impl JobStatus {
    #[getter]
    fn outcome(&self) -> &'static str {
        word(self.inner.outcome)
    }

    #[getter]
    fn dsn(&self) -> String {
        self.inner.dsn.to_string()
    }

    #[getter]
    fn text(&self) -> &str {
        &self.inner.text
    }

    #[getter]
    fn remote(&self) -> Option<&str> {
        self.inner.remote.as_deref()
    }
}

/// The result of a recipient, in a job that reports the attempt.
#[pyclass(frozen, module = "postillion._core.delivery")]
pub struct TracedStatus {
    inner: Traced,
}

#[pymethods]
impl TracedStatus {
    #[getter]
    fn index(&self) -> u32 {
        self.inner.index
    }

    #[getter]
    fn address(&self) -> &str {
        &self.inner.address
    }

    #[getter]
    fn action(&self) -> &'static str {
        self.inner.action.word()
    }

    #[getter]
    fn relay(&self) -> &str {
        &self.inner.relay
    }

    #[getter]
    fn status(&self) -> JobStatus {
        JobStatus { inner: self.inner.status.clone() }
    }
}

/// Convert the word of an action.
fn action_of(word: &str) -> PyResult<Action> {
    Action::parse(word).ok_or_else(|| PyValueError::new_err(format!("unknown action {word:?}")))
}

/// Convert seconds to microseconds; a negative time is 0.
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// Parse an enhanced status code.
fn enhanced(dsn: &str) -> PyResult<Enhanced> {
    dsn.parse().map_err(|_| PyValueError::new_err(format!("{dsn:?} is not an enhanced status code")))
}

fn status_of(outcome: &str, dsn: &str, text: &str, remote: Option<&str>) -> PyResult<Status> {
    let outcome = match outcome {
        "sent" => Outcome::Sent,
        "deferred" => Outcome::Deferred,
        "bounced" => Outcome::Bounced,
        _ => return Err(PyValueError::new_err(format!("unknown outcome {outcome:?}"))),
    };
    Ok(Status { outcome, dsn: enhanced(dsn)?, text: text.into(), remote: remote.map(Into::into) })
}
