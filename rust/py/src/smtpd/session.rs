//! `SmtpdConfig` and `SmtpdSession`: see `postillion_core::smtpd`.

use crate::cleanup::CleanupSettings;
use crate::log::Log;
use crate::queue::Journal;
use crate::smtpd::Next;
use postillion_core::address::syntax::Syntax;
use postillion_core::clock::wall_now_us;
use postillion_core::mail::envelope::{BodyType, Ret};
use postillion_core::mail::reply::{Enhanced, Reply};
use postillion_core::mail::stuff::{Unstuffer, unstuff};
use postillion_core::queue::Appender;
use postillion_core::smtp::server::command::{Dialect, MailArguments, Verb};
use postillion_core::smtp::server::config::{BareNewline, ServerConfig};
use postillion_core::smtpd::flow::Flow;
use postillion_core::smtpd::session::{Session, Shared, lock};
use postillion_core::smtpd::site::{Client, Site};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::{Arc, Mutex, MutexGuard};

/// The settings that all sessions of a process share.
#[pyclass(frozen, module = "postillion._core.smtpd")]
pub struct SmtpdConfig {
    /// The same for the Rust side.
    pub site: Arc<Site>,
}

#[pymethods]
impl SmtpdConfig {
    #[new]
    #[pyo3(signature = (log, cleanup_settings, journal, *, myhostname, banner, mail_name="Postfix",
                        message_size_limit=10_240_000, smtputf8=true, strict_smtputf8=false, strict_envelopes=false, allow_min_user=false, resolve_numeric_domain=false,
                        discard_ehlo_keywords=vec![], disable_vrfy=false, helo_required=false, line_length_limit=2048,
                        recipient_limit=1000, recipient_overshoot_limit=1000, soft_error_limit=10,
                        hard_error_limit=20, junk_command_limit=100, error_sleep_s=1.0, in_flow_delay_s=0.0, timeout_s=300.0,
                        per_request_deadline=false, min_data_rate=500, forbid_unauth_pipelining=true,
                        forbid_bare_newline="normalize", bare_newline_reject_code=550, forbidden_commands=vec![],
                        forbid_non_letters=true, noop_commands=vec![], asks_helo=false, asks_mail=false,
                        asks_data=false, asks_content=false, asks_verbs=vec![], log_client_port=false,
                        auth_mechanisms=vec![], auth_line_limit=12_288, names_users=false, rewrites_for_users=false,
                        soft_bounce=false))]
    #[expect(clippy::too_many_arguments, reason = "one a parameter of main.cf, all by keyword")]
    fn new(
        log: &Log,
        cleanup_settings: &CleanupSettings,
        journal: Option<&Journal>,
        myhostname: String,
        banner: String,
        mail_name: &str,
        message_size_limit: u64,
        smtputf8: bool,
        strict_smtputf8: bool,
        strict_envelopes: bool,
        allow_min_user: bool,
        resolve_numeric_domain: bool,
        discard_ehlo_keywords: Vec<String>,
        disable_vrfy: bool,
        helo_required: bool,
        line_length_limit: usize,
        recipient_limit: usize,
        recipient_overshoot_limit: u32,
        soft_error_limit: u32,
        hard_error_limit: u32,
        junk_command_limit: u32,
        error_sleep_s: f64,
        in_flow_delay_s: f64,
        timeout_s: f64,
        per_request_deadline: bool,
        min_data_rate: u32,
        forbid_unauth_pipelining: bool,
        forbid_bare_newline: &str,
        bare_newline_reject_code: u16,
        forbidden_commands: Vec<String>,
        forbid_non_letters: bool,
        noop_commands: Vec<String>,
        asks_helo: bool,
        asks_mail: bool,
        asks_data: bool,
        asks_content: bool,
        asks_verbs: Vec<String>,
        log_client_port: bool,
        auth_mechanisms: Vec<String>,
        auth_line_limit: usize,
        names_users: bool,
        rewrites_for_users: bool,
        soft_bounce: bool,
    ) -> PyResult<Self> {
        let bare_newline = match forbid_bare_newline {
            "no" => BareNewline::No,
            "normalize" => BareNewline::Normalize,
            "note" => BareNewline::Note,
            "reject" => BareNewline::Reject,
            other => return Err(PyValueError::new_err(format!("forbid_bare_newline={other:?}"))),
        };
        let upper = |words: Vec<String>| words.iter().map(|word| word.to_ascii_uppercase()).collect();
        let server = ServerConfig {
            myhostname,
            banner,
            dialect: Dialect {
                strict_envelopes,
                smtputf8,
                strict_smtputf8,
                message_size_limit,
                syntax: Syntax { min_user: allow_min_user, numeric_domain: resolve_numeric_domain },
            },
            discard_ehlo_keywords: upper(discard_ehlo_keywords),
            disable_vrfy,
            helo_required,
            line_length_limit,
            recipient_limit,
            recipient_overshoot_limit,
            soft_bounce,
            soft_error_limit,
            hard_error_limit,
            junk_command_limit,
            error_sleep_s,
            timeout_s,
            per_request_deadline,
            min_data_rate,
            forbid_unauth_pipelining,
            bare_newline,
            bare_newline_reject_code,
            forbidden_commands: upper(forbidden_commands),
            forbid_non_letters,
            noop_commands: upper(noop_commands),
            auth_mechanisms,
            auth_line_limit,
            asks_helo,
            asks_mail,
            asks_verbs: asks_verbs.iter().map(|name| Verb::split(name).0).collect(),
        };
        let site = Site {
            server: Arc::new(server),
            mail_name: mail_name.into(),
            log_client_port,
            names_users,
            rewrites_for_users,
            asks_data,
            asks_content,
            log: Arc::clone(&log.inner),
            cleanup: Arc::clone(&cleanup_settings.inner),
            journal: journal.map(|journal| Arc::new(Arc::clone(&journal.inner)) as Arc<dyn Appender>),
            flow: Flow::new(in_flow_delay_s),
            wall_clock: wall_now_us,
        };
        Ok(Self { site: Arc::new(site) })
    }

    fn fall_behind(&self, behind: bool) {
        self.site.flow.fall_behind(behind);
    }

    #[getter]
    fn ehlo_text(&self) -> String {
        self.site.server.ehlo_text()
    }
}

/// One client's session, owned by itself or by a `SmtpdService`.
#[pyclass(frozen, module = "postillion._core.smtpd")]
pub struct SmtpdSession {
    inner: Shared,
}

#[pymethods]
impl SmtpdSession {
    #[new]
    #[pyo3(signature = (config, name, address, port, now, *, reverse_name="unknown", rewrites_headers=false,
                        bare_newline_spared=false))]
    #[expect(clippy::too_many_arguments, reason = "a client's facts, half of them by keyword")]
    fn new(
        config: &SmtpdConfig,
        name: &str,
        address: &str,
        port: u16,
        now: f64,
        reverse_name: &str,
        rewrites_headers: bool,
        bare_newline_spared: bool,
    ) -> Self {
        let client = Client {
            name: name.into(),
            reverse_name: reverse_name.into(),
            address: address.into(),
            port,
            rewrites_headers,
            bare_newline_spared,
        };
        Self { inner: Arc::new(Mutex::new(Session::new(Arc::clone(&config.site), client, None, 0, now))) }
    }

    fn greet(&self, now: f64) -> Next {
        self.lock().greet(now).into()
    }

    fn receive(&self, data: &[u8], now: f64) -> Next {
        self.lock().receive(data, now).into()
    }

    fn eof(&self, now: f64) -> Next {
        self.lock().eof(now).into()
    }

    fn accept(&self, now: f64) -> PyResult<Next> {
        self.lock().accept(now).map(Next::from).ok_or_else(no_question)
    }

    fn reply(&self, code: u16, dsn: &str, text: &str, now: f64) -> PyResult<Next> {
        self.lock().reply(&to_reply(code, dsn, text)?, now).map(Next::from).ok_or_else(no_question)
    }

    /// The content in question, dots unstuffed, lines ended with CRLF.
    fn content<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let session = self.lock();
        let content = session.content();
        let mut text = Vec::with_capacity(content.len());
        let mut unstuffer = Unstuffer::crlf();
        unstuffer.feed(content, &mut text);
        unstuffer.finish(&mut text);
        PyBytes::new(py, &text)
    }

    /// The sender, the recipients with ORCPT and NOTIFY, BODY, RET and ENVID, and the content in local form.
    #[expect(clippy::type_complexity, reason = "a message as maildrop's writer takes it")]
    fn take_message<'py>(
        &self,
        py: Python<'py>,
    ) -> (String, Vec<(String, Option<String>, u8)>, &'static str, &'static str, Option<String>, Bound<'py, PyBytes>)
    {
        let mut session = self.lock();
        let transaction = session.server().transaction().cloned().unwrap_or_default();
        let recipients = transaction.recipients.into_iter();
        let recipients = recipients.map(|r| (r.address.into(), r.orcpt.map(Into::into), r.notify.0)).collect();
        let body = match transaction.mail.body {
            BodyType::Unsaid => "",
            BodyType::SevenBit => "7BIT",
            BodyType::EightBitMime => "8BITMIME",
        };
        let ret = match transaction.mail.ret {
            Ret::Unsaid => "",
            Ret::Full => "FULL",
            Ret::Hdrs => "HDRS",
        };
        let text = unstuff(&session.take_message());
        let sender = transaction.mail.reverse_path.address().to_owned();
        (sender, recipients, body, ret, transaction.mail.envid.map(Into::into), PyBytes::new(py, &text))
    }

    #[pyo3(signature = (queue_id, error, now))]
    fn stored(&self, queue_id: &str, error: Option<&str>, now: f64) -> Next {
        self.lock().stored(queue_id, error, now).into()
    }

    fn take_output<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.lock().take_output().map(|output| PyBytes::new(py, &output))
    }

    fn timeout(&self, now: f64) -> Next {
        self.lock().timeout(now).into()
    }

    fn lost(&self) {
        self.lock().lost();
    }

    fn authenticate(&self, method: &str, user: &str) {
        self.lock().authenticate(method, user);
    }

    #[getter]
    fn authenticated(&self) -> bool {
        self.lock().server().identity().is_some()
    }

    #[getter]
    fn client(&self) -> (String, String, String) {
        let session = self.lock();
        let client = session.client();
        (client.address.to_string(), client.name.to_string(), client.reverse_name.to_string())
    }

    #[getter]
    fn group(&self) -> Option<u8> {
        self.lock().group()
    }

    #[getter]
    fn deadline(&self) -> f64 {
        self.lock().server().deadline()
    }

    #[getter]
    fn committing(&self) -> bool {
        self.lock().is_committing()
    }

    #[getter]
    fn sender(&self) -> Option<String> {
        self.lock().server().sender().map(Into::into)
    }

    #[getter]
    fn recipient(&self) -> Option<String> {
        self.lock().server().recipient().map(Into::into)
    }

    #[getter]
    fn extended(&self) -> bool {
        self.lock().server().is_extended()
    }

    #[getter]
    fn argument(&self) -> String {
        self.lock().server().argument().into()
    }

    #[getter]
    fn mail_parameters(&self) -> Vec<String> {
        self.lock().server().mail().map(MailArguments::parameters).unwrap_or_default()
    }

    #[getter]
    fn rcpt_parameters(&self) -> Vec<String> {
        self.lock().server().rcpt_parameters()
    }

    #[getter]
    fn transactions(&self) -> u32 {
        self.lock().server().transactions()
    }

    #[getter]
    fn recipients(&self) -> Vec<String> {
        let session = self.lock();
        let transaction = session.server().transaction();
        transaction.map_or_else(Vec::new, |t| t.recipients.iter().map(|r| r.address.to_string()).collect())
    }

    #[getter]
    fn recipient_count(&self) -> usize {
        self.lock().server().transaction().map_or(0, |transaction| transaction.recipients.len())
    }

    #[getter]
    fn helo(&self) -> Option<String> {
        self.lock().server().helo().map(Into::into)
    }

    #[getter]
    fn protocol(&self) -> &'static str {
        self.lock().server().protocol()
    }

    #[getter]
    fn talked_early(&self) -> bool {
        self.lock().server().talked_early()
    }
}

impl SmtpdSession {
    /// A session that a service owns, too.
    pub fn of(inner: Shared) -> Self {
        Self { inner }
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        lock(&self.inner)
    }
}

fn no_question() -> PyErr {
    PyValueError::new_err("no question is open")
}

/// `dsn`: an enhanced status code of the code's class, or nothing.
pub fn to_reply(code: u16, dsn: &str, text: &str) -> PyResult<Reply> {
    if !(200..600).contains(&code) {
        return Err(PyValueError::new_err(format!("no reply has the code {code}")));
    }
    if dsn.is_empty() {
        return Ok(Reply::bare(code, text));
    }
    let enhanced: Enhanced = dsn.parse().map_err(|error| PyValueError::new_err(format!("{dsn:?}: {error}")))?;
    Ok(Reply::new(code, [enhanced.subject, enhanced.detail], text))
}
