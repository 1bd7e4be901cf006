//! `DeliverySession` and `Next`: see `postillion_core::delivery::session`.

use super::DeliveryJob;
use crate::ask::{AnswerTuple, LookupTuple, answers, lookups};
use crate::smtp::SmtpClientSettings;
use postillion_core::clock::wall_now_us;
use postillion_core::delivery::assignment::Assignment;
use postillion_core::delivery::session::{self, NotAccepted, Session};
use postillion_core::smtp::client::Peer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// The next step of a session's owner. Each member is one Python object, so that `is` compares it.
#[pyclass(frozen, skip_from_py_object, module = "postillion._core.delivery", rename_all = "SCREAMING_SNAKE_CASE")]
#[derive(Debug, Clone, Copy)]
pub enum Next {
    More,
    Sending,
    Asking,
    Followed,
    Finished,
    Closed,
    Stale,
}

impl Next {
    /// The names of the members in Python, in the order of the enum.
    const NAMES: [&str; 7] = ["MORE", "SENDING", "ASKING", "FOLLOWED", "FINISHED", "CLOSED", "STALE"];

    /// Return the member of the Python class; a conversion of the enum would create a new object each time.
    fn member(py: Python<'_>, next: session::Next) -> PyResult<Py<PyAny>> {
        static MEMBERS: PyOnceLock<Vec<Py<PyAny>>> = PyOnceLock::new();
        let members = MEMBERS.get_or_try_init(py, || {
            let class = py.get_type::<Self>();
            Self::NAMES.iter().map(|name| class.getattr(*name).map(Bound::unbind)).collect::<PyResult<_>>()
        })?;
        Ok(members[Self::from(next) as usize].clone_ref(py))
    }
}

impl From<session::Next> for Next {
    fn from(next: session::Next) -> Self {
        match next {
            session::Next::More => Self::More,
            session::Next::Sending => Self::Sending,
            session::Next::Asking => Self::Asking,
            session::Next::Followed => Self::Followed,
            session::Next::Finished => Self::Finished,
            session::Next::Closed => Self::Closed,
            session::Next::Stale => Self::Stale,
        }
    }
}

/// One connection to a server, and the jobs on it.
#[pyclass(module = "postillion._core.delivery")]
pub struct DeliverySession {
    inner: Session,
}

#[pymethods]
impl DeliverySession {
    #[new]
    #[pyo3(signature = (settings, host, address, port, nexthop, now, *, loop_detect=false, best=true))]
    #[allow(clippy::too_many_arguments, reason = "the fields of the server, passed by name")]
    fn new(
        settings: &SmtpClientSettings,
        host: &str,
        address: &str,
        port: u16,
        nexthop: &str,
        now: f64,
        loop_detect: bool,
        best: bool,
    ) -> Self {
        let peer = Peer::new(host, address, port, nexthop, loop_detect, best);
        Self { inner: Session::new(Arc::clone(&settings.inner), peer, now) }
    }

    #[pyo3(signature = (job, now, *, last_address=true, last_session=true, keep=true))]
    fn deliver(
        &mut self,
        py: Python<'_>,
        job: &DeliveryJob,
        now: f64,
        last_address: bool,
        last_session: bool,
        keep: bool,
    ) -> PyResult<Py<PyAny>> {
        let assignment = Assignment::new(Arc::clone(&job.work), last_address, last_session);
        Next::member(py, self.inner.deliver(assignment, keep, now, wall_now_us()).map_err(not_accepted)?)
    }

    fn may_follow(&self, now: f64) -> bool {
        self.inner.may_follow(now)
    }

    #[pyo3(signature = (job, *, last_session=true))]
    fn follow(&mut self, job: &DeliveryJob, last_session: bool) -> PyResult<()> {
        let assignment = Assignment::new(Arc::clone(&job.work), last_session, last_session);
        self.inner.follow(assignment, wall_now_us()).map_err(not_accepted)
    }

    fn withdraw(&mut self) {
        self.inner.withdraw();
    }

    fn receive(&mut self, py: Python<'_>, data: &[u8], now: f64) -> PyResult<Py<PyAny>> {
        Next::member(py, self.inner.receive(data, now, wall_now_us()))
    }

    fn lost(&mut self, py: Python<'_>, now: f64) -> PyResult<Py<PyAny>> {
        Next::member(py, self.inner.lost(now, wall_now_us()))
    }

    fn timeout(&mut self, py: Python<'_>, now: f64) -> PyResult<Py<PyAny>> {
        Next::member(py, self.inner.timeout(now, wall_now_us()))
    }

    fn send_body(&mut self, py: Python<'_>, now: f64) -> PyResult<Py<PyAny>> {
        Next::member(py, self.inner.send_body(now, wall_now_us()))
    }

    fn next(&mut self, py: Python<'_>, now: f64) -> PyResult<Py<PyAny>> {
        Next::member(py, self.inner.next(now, wall_now_us()))
    }

    fn asks<'py>(&mut self, py: Python<'py>) -> Vec<(usize, Bound<'py, PyBytes>)> {
        lookups(py, self.inner.asks())
    }

    fn answer(
        &mut self,
        py: Python<'_>,
        asked: Vec<LookupTuple>,
        given: Vec<AnswerTuple<'_>>,
        now: f64,
    ) -> PyResult<Py<PyAny>> {
        Next::member(py, self.inner.answer(answers(asked, given)?, now, wall_now_us()))
    }

    fn progressed(&mut self, octets: usize, now: f64) {
        self.inner.progressed(octets, now);
    }

    fn quit(&mut self) {
        self.inner.quit();
    }

    fn take_output<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.inner.take_output().map(|octets| PyBytes::new(py, &octets))
    }

    #[getter]
    fn sending(&self) -> bool {
        self.inner.is_sending()
    }

    #[getter]
    fn deadline(&self) -> Option<f64> {
        self.inner.deadline()
    }

    #[getter]
    fn transactions(&self) -> u32 {
        self.inner.transactions()
    }
}

fn not_accepted(error: NotAccepted) -> PyErr {
    PyValueError::new_err(error.to_string())
}
