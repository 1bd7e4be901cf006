//! `CleanupSettings`, `Options` and `Intake`: see `postillion_core::cleanup`.

use crate::ask::{AnswerTuple, LookupTuple, answers, lookups};
use crate::checks::{ListTuple, lists};
use crate::config::MainCf;
use crate::log::Log;
use crate::queue::Journal;
use postillion_core::cleanup::submission::Submission;
use postillion_core::cleanup::{Finishing, Origin, Refusal, intake, options, rehearse, settings};
use postillion_core::mail::date::Zone;
use postillion_core::mail::envelope::{BodyType, Envelope, Notify, Recipient, Ret};
use postillion_core::mail::id::QueueId;
use postillion_core::mail::reply::Reply;
use postillion_core::mail::source::MailSource;
use postillion_core::mail::trace::Trace;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;

/// A site's settings for incoming messages.
#[pyclass(frozen, module = "postillion._core.cleanup")]
pub struct CleanupSettings {
    /// The same settings for the Rust side.
    pub inner: Arc<settings::CleanupSettings>,
}

#[pymethods]
impl CleanupSettings {
    #[new]
    #[pyo3(signature = (config, utc_offset_s, zone_name, checks=None))]
    fn new(
        config: &Bound<'_, PyAny>,
        utc_offset_s: i32,
        zone_name: &str,
        checks: Option<[ListTuple<'_>; 4]>,
    ) -> PyResult<Self> {
        let source = MainCf::new(config);
        let read = settings::CleanupSettings::read(&source)?;
        let mut inner = settings::CleanupSettings { checks: lists(checks)?, ..read };
        if inner.rewriting.is_needed(true) {
            inner.rewriting.rules.local.own_addresses = source.own_addresses()?;
        }
        inner.set_zone(Zone { utc_offset_s, name: zone_name.into() });
        Ok(Self { inner: Arc::new(inner) })
    }

    fn set_zone(&self, utc_offset_s: i32, name: &str) {
        self.inner.set_zone(Zone { utc_offset_s, name: name.into() });
    }

    fn date(&self, wall_now: f64) -> PyResult<String> {
        Ok(self.inner.date(microseconds(wall_now)?))
    }
}

/// A recipient in Python: address, original, orcpt, notify.
pub type RecipientTuple = (String, Option<String>, Option<String>, u8);

/// Convert a recipient for the envelope.
pub fn recipient((address, original, orcpt, notify): RecipientTuple) -> Recipient {
    let (original, orcpt) = (original.map(Into::into), orcpt.map(Into::into));
    Recipient { address: address.into(), original, orcpt, notify: Notify(notify) }
}

/// Convert the keyword of BODY, empty for none.
pub fn body_type(keyword: &str) -> PyResult<BodyType> {
    let unknown = || PyValueError::new_err(format!("unknown BODY {keyword:?}"));
    if keyword.is_empty() { Ok(BodyType::Unsaid) } else { BodyType::of(keyword).ok_or_else(unknown) }
}

/// Convert the keyword of RET, empty for none.
pub fn ret_of(keyword: &str) -> PyResult<Ret> {
    let unknown = || PyValueError::new_err(format!("unknown RET {keyword:?}"));
    if keyword.is_empty() { Ok(Ret::Unsaid) } else { Ret::of(keyword).ok_or_else(unknown) }
}

/// Convert the word for a trace, empty for none.
pub fn trace_of(word: &str) -> PyResult<Trace> {
    let is_it = |trace: &Trace| trace_word(*trace) == word;
    let found = [Trace::Off, Trace::Record, Trace::Probe].into_iter().find(is_it);
    found.ok_or_else(|| PyValueError::new_err(format!("unknown trace {word:?}")))
}

/// Return the word for a trace.
pub fn trace_word(trace: Trace) -> &'static str {
    match trace {
        Trace::Off => "",
        Trace::Record => "record",
        Trace::Probe => "probe",
    }
}

/// The parts of cleanup that apply to a message.
#[pyclass(frozen, module = "postillion._core.cleanup")]
pub struct Options {
    inner: options::Options,
}

#[pymethods]
impl Options {
    #[classattr]
    const EXTERNAL: Self = Self { inner: options::Options::EXTERNAL };
    #[classattr]
    const INTERNAL: Self = Self { inner: options::Options::INTERNAL };

    #[staticmethod]
    fn received(config: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { inner: options::Options::received(&MainCf::new(config), "receive_override_options")? })
    }

    #[staticmethod]
    fn report(config: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { inner: options::Options::report(&MainCf::new(config))? })
    }
}

/// The way into the queue, for a message that a program on this machine submits.
#[pyclass(module = "postillion._core.cleanup")]
pub struct Intake {
    /// `None` after `commit`.
    inner: Option<intake::Intake>,
    #[pyo3(get)]
    queue_id: String,
}

#[pymethods]
impl Intake {
    #[new]
    #[pyo3(signature = (settings, journal, log, options, sender, recipients, *, wall_now, received=None, attributes=BTreeMap::new(),
                        arrival=None, full_name="", body="", smtputf8=false, requiretls=false, ret="", envid=None, trace="",
                        local=true, source="unknown"))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        settings: &CleanupSettings,
        journal: &Journal,
        log: &Log,
        options: &Options,
        sender: &str,
        recipients: Vec<RecipientTuple>,
        wall_now: f64,
        received: Option<&str>,
        attributes: BTreeMap<String, String>,
        arrival: Option<f64>,
        full_name: &str,
        body: &str,
        smtputf8: bool,
        requiretls: bool,
        ret: &str,
        envid: Option<&str>,
        trace: &str,
        local: bool,
        source: &str,
    ) -> PyResult<Self> {
        let wall_now_us = microseconds(wall_now)?;
        let submission = Submission {
            sender: sender.into(),
            recipients: recipients.into_iter().map(recipient).collect(),
            body: body_type(body)?,
            smtputf8,
            requiretls,
            ret: ret_of(ret)?,
            envid: envid.map(Into::into),
            trace: trace_of(trace)?,
            attributes: attributes.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            arrival_us: arrival.map_or(Ok(wall_now_us), microseconds)?,
            full_name: full_name.into(),
            received: received.map(Into::into),
            origin: if local { Origin::Local } else { Origin::Network { trusted: false } },
            source: MailSource::of(source)
                .ok_or_else(|| PyValueError::new_err(format!("unknown source {source:?}")))?,
            options: options.inner,
        };
        let inner = submission.begin(&settings.inner, &journal.inner, &log.inner, wall_now_us);
        let inner = inner.map_err(|reply| refused(py, &reply))?;
        Ok(Self { queue_id: inner.queue_id(), inner: Some(inner) })
    }

    fn write(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        let inner = self.inner.as_mut().ok_or_else(committed)?;
        py.detach(|| inner.feed_local(data));
        Ok(())
    }

    fn content_lookups<'py>(&mut self, py: Python<'py>) -> PyResult<Vec<(usize, Bound<'py, PyBytes>)>> {
        let inner = self.inner.as_mut().ok_or_else(committed)?;
        Ok(lookups(py, inner.asks()))
    }

    fn final_lookups<'py>(&mut self, py: Python<'py>) -> PyResult<Vec<(usize, Bound<'py, PyBytes>)>> {
        let inner = self.inner.as_mut().ok_or_else(committed)?;
        let asked = py.detach(|| match inner.poll() {
            Poll::Ready(()) => Vec::new(),
            Poll::Pending => inner.asks(),
        });
        Ok(lookups(py, asked))
    }

    fn answer(&mut self, asked: Vec<LookupTuple>, given: Vec<AnswerTuple<'_>>) -> PyResult<()> {
        let inner = self.inner.as_mut().ok_or_else(committed)?;
        answers(asked, given)?.into_iter().for_each(|(lookup, answer)| inner.answer(&lookup, answer));
        Ok(())
    }

    fn commit(&mut self, py: Python<'_>, ticket: u64) -> PyResult<String> {
        let mut inner = self.inner.take().ok_or_else(committed)?;
        match py.detach(|| inner.commit(ticket)) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(refusal)) => return Err(refused(py, &refusal.reply())),
            Poll::Pending => return Err(refused(py, &Refusal::LookupFailed.reply())),
        }
        Ok(self.queue_id.clone())
    }
}

/// A rehearsal of what cleanup makes of an envelope.
#[pyclass(module = "postillion._core.cleanup")]
pub struct Rehearsal {
    finishing: Finishing<Vec<u8>>,
    /// `None` before the last answer.
    result: Option<Result<Envelope, Reply>>,
}

#[pymethods]
impl Rehearsal {
    #[new]
    fn new(
        settings: &CleanupSettings,
        options: &Options,
        sender: &str,
        recipient: &str,
        wall_now: f64,
    ) -> PyResult<Self> {
        let wall_now_us = microseconds(wall_now)?;
        let recipients = vec![Recipient::plain(recipient)];
        let envelope = Envelope::plain(QueueId(wall_now_us << 12), sender, recipients);
        Ok(Self { finishing: rehearse(&settings.inner, envelope, options.inner, wall_now_us), result: None })
    }

    fn final_lookups<'py>(&mut self, py: Python<'py>) -> Vec<(usize, Bound<'py, PyBytes>)> {
        if self.result.is_none()
            && let Poll::Ready(finished) = self.finishing.poll()
        {
            self.result = Some(finished.map(|(_, _, envelope)| envelope).map_err(|refusal| refusal.reply()));
        }
        lookups(py, self.finishing.asks())
    }

    fn answer(&mut self, asked: Vec<LookupTuple>, given: Vec<AnswerTuple<'_>>) -> PyResult<()> {
        answers(asked, given)?.into_iter().for_each(|(lookup, answer)| self.finishing.answer(&lookup, answer));
        Ok(())
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.finishing.warnings().to_vec()
    }

    /// Return the sender and the recipients.
    fn result(&self, py: Python<'_>) -> PyResult<(String, Vec<String>)> {
        match &self.result {
            None => Err(PyRuntimeError::new_err("lookups have no answer yet")),
            Some(Err(reply)) => Err(refused(py, reply)),
            Some(Ok(envelope)) => {
                let recipients = envelope.recipients.iter().map(|recipient| recipient.address.to_string());
                Ok((envelope.sender.to_string(), recipients.collect()))
            }
        }
    }
}

fn committed() -> PyErr {
    PyRuntimeError::new_err("the message is committed")
}

/// Return `postillion.errors.MessageRefused` with this reply.
fn refused(py: Python<'_>, reply: &Reply) -> PyErr {
    let dsn = reply.enhanced.map(|enhanced| enhanced.to_string()).unwrap_or_default();
    let class = py.import("postillion.errors").and_then(|errors| errors.getattr("MessageRefused"));
    match class.and_then(|class| class.call1((reply.code, dsn, &*reply.text))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// Convert seconds since 1970 to microseconds.
pub fn microseconds(wall_s: f64) -> PyResult<u64> {
    const LATEST_S: f64 = 4_000_000_000.0;
    if (0.0..LATEST_S).contains(&wall_s) {
        Ok((wall_s * 1e6) as u64)
    } else {
        Err(PyValueError::new_err(format!("{wall_s} is not a time in seconds since 1970")))
    }
}
