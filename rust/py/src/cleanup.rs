//! `CleanupSettings` and `Submission`: see `postillion_core::cleanup`.

use crate::log::Log;
use crate::queue::Journal;
use postillion_core::address::rewrite::Rewrite;
use postillion_core::cleanup::Origin;
use postillion_core::cleanup::settings::{self, Octets};
use postillion_core::cleanup::submission::{self, NewMessage};
use postillion_core::mail::date::Zone;
use postillion_core::mail::envelope::{BodyType, Notify, Recipient, Ret};
use postillion_core::mail::reply::Reply;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A site's settings for incoming messages.
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

/// A recipient in Python: address, original, orcpt, notify.
pub type RecipientTuple = (String, Option<String>, Option<String>, u8);

/// Convert a recipient for the envelope.
pub fn recipient((address, original, orcpt, notify): RecipientTuple) -> Recipient {
    let (original, orcpt) = (original.map(Into::into), orcpt.map(Into::into));
    Recipient { address: address.into(), original, orcpt, notify: Notify(notify) }
}

/// A message that a program on this machine submits.
#[pyclass(module = "postillion._core.cleanup")]
pub struct Submission {
    /// `None` after `commit`.
    inner: Option<submission::Submission>,
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
            _ => return Err(PyValueError::new_err(format!("unknown BODY {body:?}"))),
        };
        let ret = match ret {
            "" => Ret::Unsaid,
            "FULL" => Ret::Full,
            "HDRS" => Ret::Hdrs,
            _ => return Err(PyValueError::new_err(format!("unknown RET {ret:?}"))),
        };
        let message = NewMessage {
            sender: sender.into(),
            recipients: recipients.into_iter().map(recipient).collect(),
            body,
            smtputf8,
            ret,
            envid: envid.map(Into::into),
            attributes: attributes.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            arrival_us: arrival.map_or(Ok(wall_now_us), microseconds)?,
            full_name: full_name.into(),
            received: received.map(Into::into),
            origin: if local { Origin::Local } else { Origin::Network { trusted: false } },
        };
        let (settings, log) = (Arc::clone(&settings.inner), Arc::clone(&log.inner));
        let inner = submission::Submission::new(settings, &journal.inner, log, message, wall_now_us);
        let inner = inner.map_err(|reply| refused(py, &reply))?;
        Ok(Self { queue_id: inner.queue_id().into(), inner: Some(inner) })
    }

    #[getter]
    fn sender(&self) -> PyResult<&str> {
        Ok(self.inner.as_ref().ok_or_else(committed)?.sender())
    }

    fn write(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        let inner = self.inner.as_mut().ok_or_else(committed)?;
        py.detach(|| inner.write(data));
        Ok(())
    }

    fn commit(&mut self, py: Python<'_>, ticket: u64) -> PyResult<String> {
        let inner = self.inner.take().ok_or_else(committed)?;
        py.detach(|| inner.commit(ticket)).map_err(|reply| refused(py, &reply))
    }
}

fn committed() -> PyErr {
    PyRuntimeError::new_err("the submission is committed")
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
