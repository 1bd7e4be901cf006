//! `CleanupSettings` and `Submission`: see `postillion_core::cleanup`.

use crate::log::Log;
use crate::queue::Journal;
use postillion_core::address::rewrite::Rewrite;
use postillion_core::cleanup::settings::{self, Octets};
use postillion_core::cleanup::{Cleanup, Origin, log_message_id};
use postillion_core::mail::date::Zone;
use postillion_core::mail::envelope::{BodyType, Envelope, Notify, Recipient, Ret};
use postillion_core::mail::reply::Reply;
use postillion_core::mail::stuff::Stuffer;
use postillion_core::queue::{Appender, Incoming, QueueError};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a site says about messages that come in.
#[pyclass(frozen, module = "postillion._core.cleanup")]
pub struct CleanupSettings {
    /// The same settings for the Rust side.
    pub inner: Arc<settings::CleanupSettings>,
}

#[pymethods]
impl CleanupSettings {
    #[new]
    #[pyo3(signature = (*, myhostname, myorigin=None, mydomain=None, remote_header_rewrite_domain=None,
                        header_size_limit=102_400, header_address_token_limit=10_240, hopcount_limit=50,
                        message_size_limit=10_240_000, always_add_missing_headers=false, drop_headers=None,
                        undisclosed_recipients_header="", replace_stray_cr_lf=true, strip_characters="",
                        reject_characters="", long_queue_ids=false, obsolete_from_format=false, swap_bangpath=true,
                        percent_hack=true, utc_offset_s=0, zone_name="UTC"))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        myhostname: &str,
        myorigin: Option<&str>,
        mydomain: Option<&str>,
        remote_header_rewrite_domain: Option<&str>,
        header_size_limit: usize,
        header_address_token_limit: usize,
        hopcount_limit: u32,
        message_size_limit: u64,
        always_add_missing_headers: bool,
        drop_headers: Option<Vec<String>>,
        undisclosed_recipients_header: &str,
        replace_stray_cr_lf: bool,
        strip_characters: &str,
        reject_characters: &str,
        long_queue_ids: bool,
        obsolete_from_format: bool,
        swap_bangpath: bool,
        percent_hack: bool,
        utc_offset_s: i32,
        zone_name: &str,
    ) -> Self {
        let rewrite = |origin: Option<&str>, domain: Option<&str>| Rewrite {
            origin: origin.map(Into::into),
            domain: domain.map(Into::into),
            swap_bangpath,
            percent_hack,
        };
        let defaults = settings::CleanupSettings::new(myhostname);
        let drop_headers = drop_headers.map(|names| names.into_iter().map(Into::into).collect());
        let inner = settings::CleanupSettings {
            local_rewrite: rewrite(myorigin, mydomain),
            remote_rewrite: remote_header_rewrite_domain.map(|domain| rewrite(Some(domain), Some(domain))),
            header_size_limit,
            header_address_token_limit,
            hopcount_limit,
            message_size_limit,
            always_add_missing_headers,
            drop_headers: drop_headers.unwrap_or_else(|| defaults.drop_headers.clone()),
            undisclosed_recipients_header: undisclosed_recipients_header.into(),
            replace_stray_cr_lf,
            strip_characters: Octets::parse(strip_characters),
            reject_characters: Octets::parse(reject_characters),
            long_queue_ids,
            obsolete_from_format,
            ..defaults
        };
        inner.set_zone(Zone { utc_offset_s, name: zone_name.into() });
        Self { inner: Arc::new(inner) }
    }

    fn set_zone(&self, utc_offset_s: i32, name: &str) {
        self.inner.set_zone(Zone { utc_offset_s, name: name.into() });
    }

    fn date(&self, wall_now: f64) -> PyResult<String> {
        Ok(self.inner.date(microseconds(wall_now)?))
    }
}

/// A recipient as Python names it: address, original, orcpt, notify.
pub type RecipientTuple = (String, Option<String>, Option<String>, u8);

/// A recipient for the envelope.
pub fn recipient((address, original, orcpt, notify): RecipientTuple) -> Recipient {
    let (original, orcpt) = (original.map(Into::into), orcpt.map(Into::into));
    Recipient { address: address.into(), original, orcpt, notify: Notify(notify) }
}

struct Parts {
    cleanup: Cleanup<Box<dyn Incoming>>,
    stuffer: Stuffer,
    wire: Vec<u8>,
}

/// A message that a program on this machine hands over.
#[pyclass(module = "postillion._core.cleanup")]
pub struct Submission {
    parts: Option<Parts>,
    settings: Arc<settings::CleanupSettings>,
    log: Arc<postillion_core::log::Log>,
    #[pyo3(get)]
    queue_id: String,
}

#[pymethods]
impl Submission {
    #[new]
    #[pyo3(signature = (settings, journal, log, sender, recipients, *, wall_now, received=None, attributes=BTreeMap::new(),
                        arrival=None, full_name="", body="", smtputf8=false, ret="", envid=None, local=true))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        settings: &CleanupSettings,
        journal: &Journal,
        log: &Log,
        sender: &str,
        recipients: Vec<RecipientTuple>,
        wall_now: f64,
        received: Option<&str>,
        attributes: BTreeMap<String, String>,
        arrival: Option<f64>,
        full_name: &str,
        body: &str,
        smtputf8: bool,
        ret: &str,
        envid: Option<&str>,
        local: bool,
    ) -> PyResult<Self> {
        let wall_now_us = microseconds(wall_now)?;
        let body = match body {
            "" => BodyType::Unsaid,
            "7BIT" => BodyType::SevenBit,
            "8BITMIME" => BodyType::EightBitMime,
            _ => return Err(PyValueError::new_err(format!("no BODY is called {body:?}"))),
        };
        let ret = match ret {
            "" => Ret::Unsaid,
            "FULL" => Ret::Full,
            "HDRS" => Ret::Hdrs,
            _ => return Err(PyValueError::new_err(format!("no RET is called {ret:?}"))),
        };
        let arrival_us = arrival.map_or(Ok(wall_now_us), microseconds)?;
        let draft = journal.inner.incoming().map_err(|error| queue_refused(py, &error))?;
        let id = draft.id();
        let envelope = Envelope {
            id,
            arrival_us,
            sender: sender.into(),
            recipients: recipients.into_iter().map(recipient).collect(),
            body,
            smtputf8,
            ret,
            envid: envid.map(Into::into),
            size_octets: 0,
            attributes: attributes.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        };
        let origin = if local { Origin::Local } else { Origin::Network { trusted: false } };
        let inner = Arc::clone(&settings.inner);
        let queue_id = id.text(inner.long_queue_ids);
        let mut cleanup = Cleanup::new(Arc::clone(&inner), draft, envelope, origin, wall_now_us);
        cleanup.full_name(full_name);
        if let Some(received) = received {
            let date = inner.date(wall_now_us);
            cleanup.received(&received.replace("{id}", &queue_id).replace("{date}", &date));
        }
        let parts = Some(Parts { cleanup, stuffer: Stuffer::default(), wire: Vec::new() });
        Ok(Self { parts, settings: inner, log: Arc::clone(&log.inner), queue_id })
    }

    #[getter]
    fn sender(&self) -> PyResult<String> {
        let parts = self.parts.as_ref().ok_or_else(handed_over)?;
        Ok(parts.cleanup.envelope().sender.to_string())
    }

    fn write(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        let parts = self.parts.as_mut().ok_or_else(handed_over)?;
        py.detach(|| {
            parts.wire.clear();
            parts.stuffer.feed(data, &mut parts.wire);
            parts.cleanup.feed(&parts.wire);
        });
        Ok(())
    }

    fn commit(&mut self, py: Python<'_>, ticket: u64) -> PyResult<String> {
        let Parts { mut cleanup, stuffer, mut wire } = self.parts.take().ok_or_else(handed_over)?;
        let finished = py.detach(|| {
            wire.clear();
            stuffer.finish(&mut wire);
            cleanup.feed(&wire);
            cleanup.finish()
        });
        let (draft, envelope) = finished.map_err(|refusal| refused(py, &refusal.reply()))?;
        if envelope.recipients.is_empty() {
            return Err(refused(py, &Reply::new(550, [1, 0], "Error: no recipients specified")));
        }
        log_message_id(&self.log, &self.settings, &envelope);
        draft.commit(&envelope, ticket);
        Ok(self.queue_id.clone())
    }
}

fn handed_over() -> PyErr {
    PyRuntimeError::new_err("the submission was committed already")
}

fn queue_refused(py: Python<'_>, error: &QueueError) -> PyErr {
    let (code, dsn, text) = error.reply();
    refused(py, &Reply::new(code, dsn, text))
}

/// `postillion.errors.MessageRefused` with this reply.
fn refused(py: Python<'_>, reply: &Reply) -> PyErr {
    let dsn = reply.enhanced.map(|enhanced| enhanced.to_string()).unwrap_or_default();
    let class = py.import("postillion.errors").and_then(|errors| errors.getattr("MessageRefused"));
    match class.and_then(|class| class.call1((reply.code, dsn, &*reply.text))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// Microseconds since 1970, of seconds.
pub fn microseconds(wall_s: f64) -> PyResult<u64> {
    const LATEST_S: f64 = 4_000_000_000.0;
    if (0.0..LATEST_S).contains(&wall_s) {
        Ok((wall_s * 1e6) as u64)
    } else {
        Err(PyValueError::new_err(format!("{wall_s} is no time in seconds since 1970")))
    }
}
