//! `Journal`, `convert_queue`, `list_queue`, `repair_queue` and `QueueError`: see `postillion_core::queue`.

use postillion_core::pickup::listing::list_submissions;
use postillion_core::queue::convert::convert_to_v1;
use postillion_core::queue::listing::rows::{Form, Offsets};
use postillion_core::queue::repair::{Repair, repair};
use postillion_core::queue::{self, Completion, JournalOptions};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pyo3::create_exception!(
    postillion._core.queue,
    QueueError,
    PyOSError,
    "The queue cannot be read or written; the text says what failed and where."
);

/// Return the Python exception for an error of the queue.
pub fn queue_error(error: queue::QueueError) -> PyErr {
    QueueError::new_err(error.to_string())
}

/// A process's journal.
#[pyclass(frozen, module = "postillion._core.queue")]
pub struct Journal {
    /// The same journal for the Rust side.
    pub inner: Arc<queue::Journal>,
}

#[pymethods]
impl Journal {
    #[new]
    #[pyo3(signature = (queue_directory, *, minfree_octets=0, segment_max_octets=33_554_432, segment_max_age_s=30.0,
                        large_message_octets=1_048_576, ahead_octets=65_536))]
    fn new(
        py: Python<'_>,
        queue_directory: PathBuf,
        minfree_octets: u64,
        segment_max_octets: u64,
        segment_max_age_s: f64,
        large_message_octets: u64,
        ahead_octets: u64,
    ) -> PyResult<Self> {
        let segment_max_age = seconds(segment_max_age_s)?;
        let options =
            JournalOptions { segment_max_octets, segment_max_age, large_message_octets, ahead_octets, minfree_octets };
        let journal = py.detach(|| queue::Journal::open(&queue_directory, options)).map_err(queue_error)?;
        Ok(Self { inner: Arc::new(journal) })
    }

    fn fileno(&self) -> i32 {
        self.inner.event_fd().as_raw_fd()
    }

    fn completed(&self) -> Vec<(u64, Option<String>)> {
        self.inner.completed().into_iter().map(outcome).collect()
    }

    fn wait(&self, py: Python<'_>, timeout_s: f64) -> PyResult<Vec<(u64, Option<String>)>> {
        let timeout = seconds(timeout_s)?;
        let completions = py.detach(|| self.inner.wait(timeout));
        Ok(completions.into_iter().map(outcome).collect())
    }

    fn announcements<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut frames = Vec::new();
        self.inner.take_announcements(&mut frames);
        PyBytes::new(py, &frames)
    }

    #[getter]
    fn unannounced_octets(&self) -> usize {
        self.inner.unannounced_octets()
    }

    fn hello<'py>(&self, py: Python<'py>, pid: u32) -> Bound<'py, PyBytes> {
        let mut frame = Vec::new();
        self.inner.hello(pid, &mut frame);
        PyBytes::new(py, &frame)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }
}

/// Print the queue from disk in parts to `take`, which can end it with an exception.
#[pyfunction]
#[pyo3(signature = (queue_directory, take, *, long_queue_ids=false, text=false, waits=false, offsets=Vec::new()))]
pub fn list_queue(
    py: Python<'_>,
    queue_directory: PathBuf,
    take: Py<PyAny>,
    long_queue_ids: bool,
    text: bool,
    waits: bool,
    offsets: Offsets,
) -> PyResult<()> {
    let form = if text { Form::Text { offsets, waits } } else { Form::Json };
    let mut refused = Ok(());
    let listed = py.detach(|| {
        let mut hand_on = |printed: &str| {
            let taken = Python::attach(|py| take.call1(py, (PyBytes::new(py, printed.as_bytes()),)).map(|_| ()));
            let goes_on = taken.is_ok();
            refused = taken;
            goes_on
        };
        queue::list_queue(&queue_directory, form, long_queue_ids, list_submissions, &mut hand_on)
    });
    listed.map_err(queue_error)?;
    refused
}

/// Repair a queue directory.
#[pyfunction]
#[pyo3(signature = (queue_directory, *, purge, structure, owner=None))]
pub fn repair_queue(
    py: Python<'_>,
    queue_directory: PathBuf,
    purge: bool,
    structure: bool,
    owner: Option<(u32, u32)>,
) -> PyResult<Vec<String>> {
    let wanted = Repair { purge, structure, owner };
    py.detach(|| repair(&queue_directory, &wanted)).map_err(queue_error)
}

/// Convert a queue to version 1; return the numbers of segments and records that changed.
#[pyfunction]
pub fn convert_queue(py: Python<'_>, queue_directory: PathBuf) -> PyResult<(u64, u64)> {
    let converted = py.detach(|| convert_to_v1(&queue_directory)).map_err(queue_error)?;
    Ok((converted.segments, converted.records))
}

/// Return the ticket, and the reply for a failure.
fn outcome(completion: Completion) -> (u64, Option<String>) {
    (completion.ticket, completion.result.err().map(|error| error.reply_text()))
}

fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(format!("{seconds} s: {error}")))
}
