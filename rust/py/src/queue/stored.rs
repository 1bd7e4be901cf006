//! `StoredMessage` and `read_message`: see `postillion_core::queue::listing::find`.

use super::journal::queue_error;
use crate::cleanup::trace_word;
use postillion_core::mail::id::QueueId;
use postillion_core::mail::locator::{Locator, SegmentId};
use postillion_core::mail::stuff::unstuff;
use postillion_core::queue::listing::find::{OnDisk, find, read_at};
use postillion_core::queue::read_content;
use postillion_core::queue::segment::fields::fields;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::path::{Path, PathBuf};

/// A message on disk.
#[pyclass(frozen, module = "postillion._core.queue")]
pub struct StoredMessage {
    queue_directory: PathBuf,
    message: OnDisk,
}

/// Address, original, ORCPT, NOTIFY bits, done.
type Row<'a> = (&'a str, Option<&'a str>, Option<&'a str>, u8, bool);

#[pymethods]
impl StoredMessage {
    #[getter]
    fn path(&self) -> &str {
        &self.message.path
    }

    #[getter]
    fn offset(&self) -> u64 {
        self.message.at.offset
    }

    #[getter]
    fn record_octets(&self) -> u64 {
        self.message.at.record_octets
    }

    #[getter]
    fn head_octets(&self) -> u64 {
        self.message.head_octets
    }

    #[getter]
    fn size_octets(&self) -> u64 {
        self.message.envelope.size_octets
    }

    #[getter]
    fn sender(&self) -> &str {
        &self.message.envelope.sender
    }

    #[getter]
    fn arrival(&self) -> f64 {
        self.message.envelope.arrival_us as f64 / 1e6
    }

    #[getter]
    fn envid(&self) -> Option<&str> {
        self.message.envelope.envid.as_deref()
    }

    #[getter]
    fn requiretls(&self) -> bool {
        self.message.envelope.requiretls
    }

    #[getter]
    fn smtputf8(&self) -> bool {
        self.message.envelope.smtputf8
    }

    #[getter]
    fn trace(&self) -> &'static str {
        trace_word(self.message.envelope.trace)
    }

    #[getter]
    fn body(&self) -> &'static str {
        self.message.envelope.body.keyword()
    }

    #[getter]
    fn ret(&self) -> &'static str {
        self.message.envelope.ret.keyword()
    }

    #[getter]
    fn attributes(&self) -> Vec<(&str, &str)> {
        self.message.envelope.attributes.iter().map(|(name, value)| (&**name, &**value)).collect()
    }

    /// Address, original, ORCPT, NOTIFY bits, done.
    #[getter]
    fn recipients(&self) -> Vec<Row<'_>> {
        let done = |index| self.message.done.binary_search(&index).is_ok();
        let recipients = (0u32..).zip(&self.message.envelope.recipients);
        recipients
            .map(|(index, r)| (&*r.address, r.original.as_deref(), r.orcpt.as_deref(), r.notify.0, done(index)))
            .collect()
    }

    /// Return offset, type and text of each field.
    #[pyo3(signature = (*, long_queue_ids=false))]
    fn fields(&self, long_queue_ids: bool) -> Vec<(u64, char, String)> {
        let OnDisk { at, envelope, done, .. } = &self.message;
        let fields = fields(at, envelope, done, long_queue_ids);
        fields.into_iter().map(|field| (field.offset, char::from(field.kind), field.text)).collect()
    }

    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let OnDisk { path, at, .. } = &self.message;
        let content = py.detach(|| read_content(&self.queue_directory, path, at).map(|wire| unstuff(&wire)));
        Ok(PyBytes::new(py, &content.map_err(queue_error)?))
    }
}

/// Return the message with this ID, or None.
#[pyfunction]
#[pyo3(signature = (queue_directory, id, place=None))]
pub fn read_message(
    py: Python<'_>,
    queue_directory: &str,
    id: &str,
    place: Option<(String, u64, u64)>,
) -> PyResult<Option<StoredMessage>> {
    let directory = Path::new(queue_directory);
    let Some(id) = QueueId::parse(id) else {
        return Ok(None);
    };
    let found = py.detach(|| match place {
        None => find(directory, id),
        Some((path, offset, record_octets)) => {
            let segment = path.rsplit_once('/').and_then(|(_, name)| SegmentId::parse(name)).unwrap_or(SegmentId(0));
            let at = Locator { segment, offset, record_octets };
            read_at(directory, &path, at).map(|found| Some(found).filter(|found| found.envelope.id == id))
        }
    });
    let found = found.map_err(queue_error)?;
    Ok(found.map(|message| StoredMessage { queue_directory: directory.into(), message }))
}
