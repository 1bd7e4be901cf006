//! `SmtpdConfig` and `SmtpdSession`: see `postillion_core::smtpd`.

use crate::ask::{AnswerTuple, LookupTuple, answers, lookups};
use crate::cleanup::CleanupSettings;
use crate::config::{MainCf, entry};
use crate::log::Log;
use crate::queue::Journal;
use crate::smtpd::Next;
use crate::tls::TlsServer;
use postillion_core::address::local_part::Extensions;
use postillion_core::clock::wall_now_us;
use postillion_core::lookup::Maps;
use postillion_core::mail::reply::{Enhanced, Reply};
use postillion_core::mail::stuff::{Unstuffer, unstuff};
use postillion_core::queue::Appender;
use postillion_core::smtp::server::command::MailArguments;
use postillion_core::smtp::server::config::ServerConfig;
use postillion_core::smtpd::flow::Flow;
use postillion_core::smtpd::listing::{Listing, RecipientTables};
use postillion_core::smtpd::request::Opening;
use postillion_core::smtpd::session::{Session, Shared, lock};
use postillion_core::smtpd::site::{Client, Site, SiteSettings};
use postillion_core::tls::settings::LogLevel;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::HashSet;
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
    #[pyo3(signature = (config, log, cleanup_settings, journal, *, asks, auth_mechanisms, tls=None,
                        recipient_tables=None, stand_alone=false))]
    #[expect(clippy::too_many_arguments, reason = "the parts of a site, most of them by keyword")]
    fn new(
        config: &Bound<'_, PyAny>,
        log: &Log,
        cleanup_settings: &CleanupSettings,
        journal: Option<&Journal>,
        asks: HashSet<String>,
        auth_mechanisms: Vec<String>,
        tls: Option<&TlsServer>,
        recipient_tables: Option<[Vec<Bound<'_, PyAny>>; 4]>,
        stand_alone: bool,
    ) -> PyResult<Self> {
        let source = MainCf::new(config);
        let server = ServerConfig::read(&source)?;
        let server = if stand_alone { server.stand_alone() } else { server };
        let settings = SiteSettings::read(&source)?;
        let (level, tls) = tls.map(TlsServer::parts).unwrap_or_default();
        let site = Site {
            flow: Flow::new(settings.in_flow_delay_s),
            settings,
            server: Arc::new(ServerConfig {
                auth_mechanisms,
                tls: level,
                ..server.asking(|stage| asks.contains(stage))
            }),
            tls,
            asks_data: asks.contains("data"),
            asks_content: asks.contains("end_of_data"),
            log: Arc::clone(&log.inner),
            cleanup: Arc::clone(&cleanup_settings.inner),
            recipients: recipient_tables_of(&source, recipient_tables)?,
            journal: journal.map(|journal| Arc::new(Arc::clone(&journal.inner)) as Arc<dyn Appender>),
            wall_clock: wall_now_us,
        };
        Ok(Self { site: Arc::new(site) })
    }

    fn fall_behind(&self, behind: bool) {
        self.site.flow.fall_behind(behind);
    }

    #[getter]
    fn hostname(&self) -> &str {
        &self.site.server.myhostname
    }
}

fn recipient_tables_of(
    source: &MainCf<'_, '_>,
    tables: Option<[Vec<Bound<'_, PyAny>>; 4]>,
) -> PyResult<RecipientTables> {
    let maps = |tables: Vec<Bound<'_, PyAny>>| -> PyResult<Maps> {
        Ok(Maps { tables: tables.iter().map(entry).collect::<PyResult<_>>()? })
    };
    let [aliases, local, relay, virtual_mailbox] = tables.unwrap_or_default();
    Ok(RecipientTables {
        extensions: Extensions::read(source)?,
        aliases: maps(aliases)?,
        local: maps(local)?,
        relay: maps(relay)?,
        virtual_mailbox: maps(virtual_mailbox)?,
    })
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
                        bare_newline_spared=false, tls_log_level=None))]
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
        tls_log_level: Option<u8>,
    ) -> Self {
        let client = Client {
            name: name.into(),
            reverse_name: reverse_name.into(),
            address: address.into(),
            port,
            rewrites_headers,
            bare_newline_spared,
            tls_log_level: tls_log_level.map(LogLevel),
        };
        Self { inner: Arc::new(Mutex::new(Session::new(Arc::clone(&config.site), client, None, 0, now))) }
    }

    #[getter]
    fn ehlo_text(&self) -> String {
        self.lock().ehlo_text()
    }

    fn greet(&self, now: f64) -> Next {
        self.lock().open(Opening::Greet, now).into()
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

    fn lookups<'py>(&self, py: Python<'py>) -> Vec<(usize, Bound<'py, PyBytes>)> {
        lookups(py, self.lock().lookups())
    }

    fn answer_lookups(&self, asked: Vec<LookupTuple>, given: Vec<AnswerTuple<'_>>, now: f64) -> PyResult<Next> {
        let answers = answers(asked, given)?;
        self.lock().answer_lookups(answers, now).map(Next::from).ok_or_else(no_question)
    }

    /// Return the content in question, dots unstuffed, lines ended with CRLF.
    fn content<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let session = self.lock();
        let content = session.content();
        let mut text = Vec::with_capacity(content.len());
        let mut unstuffer = Unstuffer::crlf();
        unstuffer.feed(content, &mut text);
        unstuffer.finish(&mut text);
        PyBytes::new(py, &text)
    }

    /// Return the sender, the recipients with ORCPT and NOTIFY, BODY, RET and ENVID, and the content in local form.
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
        let body = transaction.mail.body.keyword();
        let ret = transaction.mail.ret.keyword();
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
    fn certificate(&self) -> Option<(String, String, bool)> {
        let session = self.lock();
        let facts = session.tls_facts()?;
        let (client, prints) = (facts.client.as_ref()?, facts.fingerprints.clone()?);
        Some((prints.certificate, prints.public_key, client.trusted))
    }

    fn complete_headers(&self) {
        self.lock().complete_headers();
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
    fn unlisted(&self) -> Option<&'static str> {
        self.lock().unlisted().map(Listing::name)
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
    /// Return a session that a service owns too.
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

/// Return a reply. `dsn`: an enhanced status code of the code's class, or empty.
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
