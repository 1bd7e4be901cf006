//! `AgentLink`, `DeliveryJob`, `JobRecipient`, `JobStatus`: see `postillion_core::delivery` and `ipc::frame`.

use crate::log::Log;
use crate::queue::queue_error;
use postillion_core::clock::wall_now_us;
use postillion_core::delivery::job::{Delivery, Handover, JobSettings, word};
use postillion_core::ipc::frame::{self, Frame, FrameReader, JobKind};
use postillion_core::log;
use postillion_core::mail::envelope::{BodyType, Ret};
use postillion_core::mail::reply::Enhanced;
use postillion_core::mail::status::{Outcome, Status, local_status};
use postillion_core::mail::stuff::Unstuffer;
use postillion_core::queue::{self, ContentReader, QueueError, SegmentFiles};
use pyo3::exceptions::{PyConnectionError, PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Seconds as microseconds; a negative time is none.
pub fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// What a process's jobs have in common.
pub struct Surroundings {
    /// Where their log lines go.
    pub log: Arc<log::Log>,
    /// Where segment paths start.
    pub queue_directory: PathBuf,
    settings: JobSettings,
    files: Mutex<SegmentFiles>,
}

/// A job that Python and a protocol core work on.
pub struct Work {
    delivery: Mutex<Delivery>,
    /// Log and queue.
    pub surroundings: Arc<Surroundings>,
}

impl Work {
    /// The state, for one call. What a panic left half-done is at worst a recipient that is tried again.
    pub fn lock(&self) -> MutexGuard<'_, Delivery> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// Settle who is open: there is no server to be had.
    fn fail(&self, status: &Status) {
        let wall_now_us = wall_now_us();
        let mut delivery = self.lock();
        let setup_us = wall_now_us.saturating_sub(delivery.handoff_us());
        let handover = Handover { relay: "none", conn_use: 0, setup_us, transmission_us: Some(0), wall_now_us };
        delivery.failed(status, true, &handover, &self.surroundings.log);
    }

    /// A reader of the message, on a segment that is kept open for the next one. `now`: seconds, monotonic.
    pub fn open_content(&self, now: f64) -> Result<ContentReader, QueueError> {
        let delivery = self.lock();
        let job = delivery.job();
        let Surroundings { queue_directory, files, .. } = &*self.surroundings;
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = files.open(queue_directory, &job.path, job.locator.segment, now)?;
        drop(files);
        ContentReader::of(segment, &job.locator)
    }

    /// The message in its wire form, checked.
    fn read_content(&self) -> PyResult<Vec<u8>> {
        let (path, locator) = {
            let delivery = self.lock();
            (delivery.job().path.clone(), delivery.job().locator)
        };
        queue::read_content(&self.surroundings.queue_directory, &path, &locator).map_err(queue_error)
    }
}

/// The agent's end of its connection to the queue manager.
#[pyclass(module = "postillion._core.delivery")]
pub struct AgentLink {
    reader: FrameReader,
    surroundings: Arc<Surroundings>,
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
        let surroundings =
            Surroundings { log: Arc::clone(&log.inner), queue_directory, settings, files: Mutex::default() };
        Self { reader: FrameReader::default(), surroundings: Arc::new(surroundings) }
    }

    fn register<'py>(&mut self, py: Python<'py>, transport: &str, pid: u32, capacity: u32) -> Bound<'py, PyBytes> {
        self.reader = FrameReader::default();
        encoded(py, &Frame::Agent { transport: transport.into(), pid, capacity })
    }

    fn receive(&mut self, data: &[u8]) -> PyResult<Vec<DeliveryJob>> {
        let broken = |error: String| PyConnectionError::new_err(format!("the queue manager sent {error}"));
        let handoff_us = wall_now_us();
        self.reader.receive(data);
        let mut jobs = Vec::new();
        while let Some(frame) = self.reader.next_frame().map_err(|error| broken(error.to_string()))? {
            let Frame::Deliver(job) = frame else {
                return Err(broken("a frame that is no job".into()));
            };
            let delivery = Mutex::new(Delivery::new(*job, self.surroundings.settings, handoff_us));
            let surroundings = Arc::clone(&self.surroundings);
            jobs.push(DeliveryJob { work: Arc::new(Work { delivery, surroundings }) });
        }
        Ok(jobs)
    }

    fn close_idle_files(&self, now: f64) -> usize {
        self.surroundings.files.lock().unwrap_or_else(PoisonError::into_inner).close_idle(now)
    }
}

/// Work for a delivery agent.
#[pyclass(frozen, module = "postillion._core.delivery")]
pub struct DeliveryJob {
    /// The job itself, shared with the protocol core that works on it.
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
    fn smtputf8(&self) -> bool {
        self.work.lock().job().envelope.smtputf8
    }

    #[getter]
    fn body(&self) -> &'static str {
        match self.work.lock().job().envelope.body {
            BodyType::Unsaid => "",
            BodyType::SevenBit => "7BIT",
            BodyType::EightBitMime => "8BITMIME",
        }
    }

    #[getter]
    fn envid(&self) -> Option<String> {
        self.work.lock().job().envelope.envid.as_deref().map(Into::into)
    }

    #[getter]
    fn ret(&self) -> &'static str {
        match self.work.lock().job().envelope.ret {
            Ret::Unsaid => "",
            Ret::Full => "FULL",
            Ret::Hdrs => "HDRS",
        }
    }

    #[getter]
    fn recipients(&self) -> Vec<JobRecipient> {
        self.work.lock().job().recipients.iter().map(|inner| JobRecipient { inner: inner.clone() }).collect()
    }

    /// Recipients that are not settled.
    #[getter]
    fn left(&self) -> usize {
        self.work.lock().left()
    }

    fn content<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.work.read_content()?))
    }

    #[pyo3(signature = (eol=b"\n".as_slice()))]
    fn text<'py>(&self, py: Python<'py>, eol: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let mut unstuffer = match eol {
            b"\n" => Unstuffer::lf(),
            b"\r\n" => Unstuffer::crlf(),
            _ => return Err(PyValueError::new_err("a line ends with LF or CRLF")),
        };
        let wire = self.work.read_content()?;
        let mut text = Vec::with_capacity(wire.len());
        unstuffer.feed(&wire, &mut text);
        unstuffer.finish(&mut text);
        Ok(PyBytes::new(py, &text))
    }

    fn fail(&self, dsn: &str, text: &str) -> PyResult<()> {
        self.work.fail(&local_status(enhanced(dsn)?, text));
        Ok(())
    }

    fn fail_as_heard(&self, dsn: &str, text: &str) -> PyResult<()> {
        let heard = self.work.lock().last_heard().cloned();
        self.work.fail(&heard.unwrap_or(local_status(enhanced(dsn)?, text)));
        Ok(())
    }

    fn attribute(&self, name: &str) -> Option<String> {
        self.work.lock().job().envelope.attribute(name).map(Into::into)
    }

    #[pyo3(signature = (
        index, outcome, dsn, text, *, relay="none", remote=None, setup_s=0.0, transmission_s=None, conn_use=0,
        address=None
    ))]
    #[allow(clippy::too_many_arguments, reason = "each is a field of the log line, given by name")]
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
    ) -> PyResult<bool> {
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
        Ok(delivery.settle_as(position, address, status, &handover, &self.work.surroundings.log))
    }

    #[pyo3(signature = (index, address, outcome, dsn, text, *, relay="none"))]
    fn note(&self, index: u32, address: &str, outcome: &str, dsn: &str, text: &str, relay: &str) -> PyResult<()> {
        let status = status_of(outcome, dsn, text, None)?;
        let handover = Handover { relay, conn_use: 0, setup_us: 0, transmission_us: None, wall_now_us: wall_now_us() };
        let delivery = self.work.lock();
        let no_such = || PyIndexError::new_err(format!("the job has no recipient {index}"));
        let position = delivery.position(index).ok_or_else(no_such)?;
        delivery.note(position, Some(address), &status, &handover, &self.work.surroundings.log);
        Ok(())
    }

    fn site_failed(&self, dsn: &str, text: &str) -> PyResult<()> {
        let dsn = enhanced(dsn)?;
        let outcome = postillion_core::mail::status::outcome_of(dsn);
        self.work.lock().site_failed(Status { outcome, dsn, text: text.into(), remote: None });
        Ok(())
    }

    fn result<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let delivery = self.work.lock();
        let mut bytes = Vec::new();
        if !delivery.delivered().is_empty() {
            let recipients = delivery.delivered().to_vec();
            Frame::Delivered { job: delivery.job().job, recipients }.encode(&mut bytes);
        }
        Frame::Result(delivery.result()).encode(&mut bytes);
        PyBytes::new(py, &bytes)
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

/// How a recipient fared, for a job that reports it.
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

fn encoded<'py>(py: Python<'py>, frame: &Frame) -> Bound<'py, PyBytes> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    PyBytes::new(py, &bytes)
}

/// An enhanced status code from its text.
pub fn enhanced(dsn: &str) -> PyResult<Enhanced> {
    dsn.parse().map_err(|_| PyValueError::new_err(format!("{dsn:?} is no enhanced status code")))
}

fn status_of(outcome: &str, dsn: &str, text: &str, remote: Option<&str>) -> PyResult<Status> {
    let outcome = match outcome {
        "sent" => Outcome::Sent,
        "deferred" => Outcome::Deferred,
        "bounced" => Outcome::Bounced,
        _ => return Err(PyValueError::new_err(format!("no outcome is called {outcome:?}"))),
    };
    Ok(Status { outcome, dsn: enhanced(dsn)?, text: text.into(), remote: remote.map(Into::into) })
}
