//! Files in maildrop/ and the recipients in headers: see `postillion_core::pickup::maildrop` and `recipients`.

use crate::cleanup::{RecipientTuple, body_type, microseconds, recipient, ret_of, trace_of, trace_word};
use postillion_core::mail::address;
use postillion_core::pickup::maildrop::{self, ContentWriter, LineEndings};
use postillion_core::pickup::recipients;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::BTreeMap;

/// The data of a file in maildrop/ besides the content.
#[pyclass(frozen, module = "postillion._core.pickup")]
pub struct Maildrop {
    inner: maildrop::Maildrop,
}

#[pymethods]
impl Maildrop {
    #[getter]
    fn arrival(&self) -> Option<f64> {
        (self.inner.arrival_us > 0).then_some(self.inner.arrival_us as f64 / 1e6)
    }

    #[getter]
    fn sender(&self) -> &str {
        &self.inner.sender
    }

    #[getter]
    fn full_name(&self) -> &str {
        &self.inner.full_name
    }

    #[getter]
    fn recipients(&self) -> Vec<(&str, Option<&str>, Option<&str>, u8)> {
        let recipients = self.inner.recipients.iter();
        recipients.map(|r| (&*r.address, r.original.as_deref(), r.orcpt.as_deref(), r.notify.0)).collect()
    }

    #[getter]
    fn body(&self) -> &'static str {
        self.inner.body.keyword()
    }

    #[getter]
    fn ret(&self) -> &'static str {
        self.inner.ret.keyword()
    }

    #[getter]
    fn envid(&self) -> Option<&str> {
        self.inner.envid.as_deref()
    }

    #[getter]
    fn trace(&self) -> &'static str {
        trace_word(self.inner.trace)
    }

    #[getter]
    fn requiretls(&self) -> bool {
        self.inner.requiretls
    }

    #[getter]
    fn remote(&self) -> bool {
        self.inner.remote
    }

    #[getter]
    fn attributes(&self) -> BTreeMap<&str, &str> {
        self.inner.attributes.iter().map(|(name, value)| (&**name, &**value)).collect()
    }
}

/// Reads a file in maildrop/ in pieces.
#[pyclass(module = "postillion._core.pickup")]
#[derive(Default)]
pub struct MaildropReader {
    inner: Option<maildrop::MaildropReader>,
    content: Vec<u8>,
}

#[pymethods]
impl MaildropReader {
    #[new]
    fn new() -> Self {
        Self { inner: Some(maildrop::MaildropReader::default()), content: Vec::new() }
    }

    fn feed<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let inner = self.inner.as_mut().ok_or_else(ended)?;
        self.content.clear();
        inner.feed(data, &mut self.content).map_err(value_error)?;
        Ok(PyBytes::new(py, &self.content))
    }

    fn finish(&mut self) -> PyResult<Maildrop> {
        let inner = self.inner.take().ok_or_else(ended)?;
        Ok(Maildrop { inner: inner.finish().map_err(value_error)? })
    }
}

/// Return the envelope segment of a file in maildrop/.
#[pyfunction]
#[pyo3(signature = (sender, recipients, *, wall_now, full_name="", body="", ret="", envid=None, trace="",
                    requiretls=false, remote=false, attributes=BTreeMap::new()))]
#[allow(clippy::too_many_arguments)]
pub fn maildrop_envelope<'py>(
    py: Python<'py>,
    sender: &str,
    recipients: Vec<RecipientTuple>,
    wall_now: f64,
    full_name: &str,
    body: &str,
    ret: &str,
    envid: Option<&str>,
    trace: &str,
    requiretls: bool,
    remote: bool,
    attributes: BTreeMap<String, String>,
) -> PyResult<Bound<'py, PyBytes>> {
    let maildrop = maildrop::Maildrop {
        arrival_us: microseconds(wall_now)?,
        sender: sender.into(),
        full_name: full_name.into(),
        recipients: recipients.into_iter().map(recipient).collect(),
        body: body_type(body)?,
        ret: ret_of(ret)?,
        envid: envid.map(Into::into),
        trace: trace_of(trace)?,
        requiretls,
        remote,
        attributes: attributes.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
    };
    let mut out = Vec::new();
    maildrop.encode_envelope(&mut out);
    Ok(PyBytes::new(py, &out))
}

/// Writes the content segment and the end of a file in maildrop/.
#[pyclass(module = "postillion._core.pickup")]
pub struct MaildropWriter {
    inner: Option<ContentWriter>,
    out: Vec<u8>,
}

#[pymethods]
impl MaildropWriter {
    #[new]
    #[pyo3(signature = (*, dot_ends, line_endings="always"))]
    fn new(dot_ends: bool, line_endings: &str) -> PyResult<Self> {
        let line_endings = match line_endings {
            "always" => LineEndings::Always,
            "strict" => LineEndings::Strict,
            "never" => LineEndings::Never,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "line endings are fixed always, strict or never, not {line_endings:?}"
                )));
            }
        };
        Ok(Self { inner: Some(ContentWriter::new(dot_ends, line_endings)), out: Vec::new() })
    }

    fn feed<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<(Bound<'py, PyBytes>, bool)> {
        let inner = self.inner.as_mut().ok_or_else(ended)?;
        self.out.clear();
        let goes_on = inner.feed(data, &mut self.out);
        Ok((PyBytes::new(py, &self.out), goes_on))
    }

    #[pyo3(signature = (extracted=Vec::new()))]
    fn finish<'py>(&mut self, py: Python<'py>, extracted: Vec<RecipientTuple>) -> PyResult<Bound<'py, PyBytes>> {
        let inner = self.inner.take().ok_or_else(ended)?;
        let extracted = extracted.into_iter().map(recipient).collect::<Vec<_>>();
        self.out.clear();
        inner.finish(&extracted, &mut self.out);
        Ok(PyBytes::new(py, &self.out))
    }
}

/// Collects the recipients in a message's headers.
#[pyclass(module = "postillion._core.pickup")]
pub struct HeaderRecipients {
    inner: Option<recipients::HeaderRecipients>,
}

#[pymethods]
impl HeaderRecipients {
    #[new]
    fn new() -> Self {
        Self { inner: Some(recipients::HeaderRecipients::default()) }
    }

    fn feed(&mut self, data: &[u8]) -> PyResult<()> {
        self.inner.as_mut().ok_or_else(ended)?.feed(data);
        Ok(())
    }

    fn finish(&mut self) -> PyResult<Vec<String>> {
        self.inner.take().ok_or_else(ended)?.finish().map_err(value_error)
    }
}

/// Return the addresses of an address list (RFC 5322 §3.4).
#[pyfunction]
pub fn parse_addresses(text: &str) -> Vec<String> {
    let found = address::addresses(text.as_bytes(), recipients::HEADER_MAX_OCTETS);
    found.into_iter().map(|address| address.text.into_string()).collect()
}

fn ended() -> PyErr {
    PyRuntimeError::new_err("it was finished already")
}

fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
