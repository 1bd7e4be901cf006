//! `SmtpClientSettings`: see `postillion_core::smtp::client`.

use postillion_core::smtp::client::{ClientSettings, Protocol, Timeouts};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::Arc;

/// The settings that all connections of a client share.
#[pyclass(frozen, module = "postillion._core.smtp")]
pub struct SmtpClientSettings {
    /// The same settings for the Rust side.
    pub inner: Arc<ClientSettings>,
}

#[pymethods]
impl SmtpClientSettings {
    #[new]
    #[pyo3(signature = (
        *, protocol, helo_name, myhostname, always_send_ehlo, never_send_ehlo, skip_5xx_greeting,
        discard_ehlo_keywords, line_length_limit, min_data_rate, helo_timeout, mail_timeout, rcpt_timeout, data_init_timeout, data_xfer_timeout,
        data_done_timeout, rset_timeout
    ))]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of main.cf, passed by name")]
    fn new(
        protocol: &str,
        helo_name: String,
        myhostname: String,
        always_send_ehlo: bool,
        never_send_ehlo: bool,
        skip_5xx_greeting: bool,
        discard_ehlo_keywords: Vec<String>,
        line_length_limit: usize,
        min_data_rate: Option<f64>,
        helo_timeout: f64,
        mail_timeout: f64,
        rcpt_timeout: f64,
        data_init_timeout: f64,
        data_xfer_timeout: f64,
        data_done_timeout: f64,
        rset_timeout: f64,
    ) -> PyResult<Self> {
        let unknown = || PyValueError::new_err(format!("unknown protocol {protocol:?}"));
        let protocol = Protocol::parse(protocol).ok_or_else(unknown)?;
        if !ClientSettings::is_helo_name(&helo_name) {
            return Err(PyValueError::new_err(format!("{helo_name:?} cannot be the argument of EHLO")));
        }
        let timeouts = Timeouts {
            helo: helo_timeout,
            mail: mail_timeout,
            rcpt: rcpt_timeout,
            data_init: data_init_timeout,
            data_xfer: data_xfer_timeout,
            data_done: data_done_timeout,
            rset: rset_timeout,
        };
        let inner = ClientSettings {
            protocol,
            helo_name,
            myhostname,
            always_send_ehlo,
            never_send_ehlo,
            skip_5xx_greeting,
            discard_ehlo_keywords,
            line_length_limit,
            min_data_rate,
            timeouts,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}
