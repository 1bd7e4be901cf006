//! `SmtpIntake`: see `postillion_core::smtp::server::intake`.

use postillion_core::smtp::server::intake::{Intake, Line};
use postillion_core::smtp::server::whole::{Bounds, Fault};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt};

/// A line of the message is longer than the limit.
const LINE_TOO_LONG: u8 = 1;
/// The message is longer than the limit.
const TOO_MUCH: u8 = 2;

/// The unread octets of a peer.
#[pyclass(module = "postillion._core.smtp")]
pub struct SmtpIntake {
    inner: Intake,
}

#[pymethods]
impl SmtpIntake {
    #[classattr]
    const LINE_TOO_LONG: u8 = LINE_TOO_LONG;
    #[classattr]
    const TOO_MUCH: u8 = TOO_MUCH;

    #[new]
    fn new(line_limit: usize) -> Self {
        Self { inner: Intake::new(line_limit) }
    }

    fn feed(&mut self, data: &[u8]) -> bool {
        self.inner.feed(data)
    }

    fn take_line<'py>(&mut self, py: Python<'py>, end: &[u8]) -> PyResult<Option<Bound<'py, PyAny>>> {
        if end.is_empty() {
            return Err(PyValueError::new_err("the end of a line has no octets"));
        }
        Ok(match self.inner.line(end) {
            Line::Whole(octets) => Some(PyBytes::new(py, self.inner.take(octets)).into_any()),
            Line::Overlong(octets) => Some(PyInt::new(py, octets).into_any()),
            Line::More => None,
        })
    }

    fn take<'py>(&mut self, py: Python<'py>, most: usize) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.take(most))
    }

    #[pyo3(signature = (*, line_octets, message_octets))]
    fn begin_message(&mut self, line_octets: usize, message_octets: Option<u64>) -> bool {
        self.inner.begin_message(Bounds { line_octets, message_octets })
    }

    fn take_message<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        Some(match self.inner.take_message()? {
            Ok(text) => PyBytes::new(py, &text).into_any(),
            Err(Fault::LineTooLong) => PyInt::new(py, LINE_TOO_LONG).into_any(),
            Err(Fault::TooMuch) => PyInt::new(py, TOO_MUCH).into_any(),
        })
    }

    #[getter]
    fn reads_message(&self) -> bool {
        self.inner.is_reading_message()
    }

    fn clear(&mut self) {
        self.inner.clear();
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }
}
