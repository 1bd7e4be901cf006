//! `SmtpdConfig` and `SmtpdSession`: see `postillion_core::smtpd`.

use crate::cleanup::CleanupSettings;
use crate::journal::Journal;
use crate::log::Log;
use postillion_core::clock::wall_now_us;
use postillion_core::message::envelope::{BodyType, Ret};
use postillion_core::message::stuff::{Unstuffer, unstuff};
use postillion_core::queue::Appender;
use postillion_core::smtp::command::{Dialect, MailArguments, Verb};
use postillion_core::smtp::reply::{Enhanced, Reply};
use postillion_core::smtp::server::{Question, plain_reply};
use postillion_core::smtp::server_config::{BareNewline, ServerConfig};
use postillion_core::smtpd::flow::Flow;
use postillion_core::smtpd::session::{Client, Session, Site, Turn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// What all sessions of a process share.
#[pyclass(frozen, module = "postillion._core")]
pub struct SmtpdConfig {
    site: Arc<Site>,
}

#[pymethods]
impl SmtpdConfig {
    #[new]
    #[pyo3(signature = (log, cleanup_settings, journal, *, myhostname, banner, mail_name="Postfix",
                        message_size_limit=10_240_000, smtputf8=true, strict_smtputf8=false, strict_envelopes=false,
                        discard_ehlo_keywords=vec![], disable_vrfy=false, helo_required=false, line_length_limit=2048,
                        recipient_limit=1000, recipient_overshoot_limit=1000, soft_error_limit=10,
                        hard_error_limit=20, junk_command_limit=100, error_sleep_s=1.0, in_flow_delay_s=0.0, timeout_s=300.0,
                        per_request_deadline=false, min_data_rate=500, forbid_unauth_pipelining=true,
                        forbid_bare_newline="normalize", bare_newline_reject_code=550, forbidden_commands=vec![],
                        forbid_non_letters=true, noop_commands=vec![], asks_helo=false, asks_mail=false,
                        asks_data=false, asks_content=false, asks_verbs=vec![], log_client_port=false,
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
            dialect: Dialect { strict_envelopes, smtputf8, strict_smtputf8, message_size_limit },
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
            asks_helo,
            asks_mail,
            asks_verbs: asks_verbs.iter().map(|name| Verb::split(name).0).collect(),
        };
        let site = Site {
            server: Arc::new(server),
            mail_name: mail_name.into(),
            log_client_port,
            asks_data,
            asks_content,
            log: Arc::clone(&log.inner),
            cleanup: Arc::clone(&cleanup_settings.inner),
            journal: journal.map(|journal| Arc::new(Arc::clone(&journal.inner)) as Arc<dyn Appender>),
            flow: Flow::new(in_flow_delay_s),
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

/// What a session's owner does next, as a number. Positive: a question to answer.
fn turn_code(session: &Session, turn: Turn) -> i8 {
    match turn {
        Turn::Ask(Question::Helo) => 1,
        Turn::Ask(Question::Mail) => 2,
        Turn::Ask(Question::Rcpt) => 3,
        Turn::Ask(Question::Vrfy) => 4,
        Turn::Ask(Question::Data) => 5,
        Turn::Message => 6,
        Turn::Judge => 7,
        Turn::Ask(Question::Plain(Verb::Rset)) => 8,
        Turn::Ask(Question::Plain(Verb::Quit)) => 10,
        Turn::Ask(Question::Plain(_)) => 9,
        Turn::Idle => {
            let server = session.server();
            if server.is_sleeping() {
                -2
            } else if server.ended().is_some() {
                -1
            } else if server.wants_input() {
                0
            } else {
                -3
            }
        }
    }
}

/// One client's session.
#[pyclass(module = "postillion._core")]
pub struct SmtpdSession {
    session: Session,
    question: Option<Question>,
    judging: bool,
}

#[pymethods]
impl SmtpdSession {
    #[new]
    #[pyo3(signature = (config, name, address, port, ticket, now, *, reverse_name="unknown", rewrites_headers=false,
                        bare_newline_spared=false))]
    #[expect(clippy::too_many_arguments, reason = "a client's facts, half of them by keyword")]
    fn new(
        config: &SmtpdConfig,
        name: &str,
        address: &str,
        port: u16,
        ticket: u64,
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
        Self { session: Session::new(Arc::clone(&config.site), client, ticket, now), question: None, judging: false }
    }

    fn greet(&mut self, now: f64) -> i8 {
        self.session.greet(now);
        self.turn(now)
    }

    fn refuse(&mut self, code: u16, dsn: &str, text: &str, now: f64) -> PyResult<i8> {
        self.session.refuse(&to_reply(code, dsn, text)?, now);
        Ok(self.turn(now))
    }

    fn turn_away(&mut self, text: &str, now: f64) -> i8 {
        self.session.turn_away(text, now);
        self.turn(now)
    }

    fn receive(&mut self, data: &[u8], now: f64) -> i8 {
        self.session.receive(data, now);
        self.turn(now)
    }

    fn eof(&mut self, now: f64) -> i8 {
        self.session.eof();
        self.turn(now)
    }

    fn accept(&mut self, now: f64) -> PyResult<i8> {
        if self.judging {
            self.session.judge(None, now);
            return Ok(self.turn(now));
        }
        let reply = match self.question {
            Some(Question::Helo) => Reply::bare(250, ""),
            Some(Question::Mail) => Reply::new(250, [1, 0], "Ok"),
            Some(Question::Rcpt) => Reply::new(250, [1, 5], "Ok"),
            Some(Question::Vrfy) => Reply::new(252, [0, 0], ""),
            Some(Question::Data) => Reply::bare(354, ""),
            Some(Question::Plain(verb)) => plain_reply(verb),
            None => return Err(no_question()),
        };
        self.answer(&reply, now)
    }

    fn reply(&mut self, code: u16, dsn: &str, text: &str, now: f64) -> PyResult<i8> {
        let reply = to_reply(code, dsn, text)?;
        if self.judging {
            self.session.judge(Some(&reply), now);
            return Ok(self.turn(now));
        }
        self.answer(&reply, now)
    }

    /// The content in question, dots unstuffed, lines ended with CRLF.
    fn content<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut text = Vec::with_capacity(self.session.content().len());
        let mut unstuffer = Unstuffer::crlf();
        unstuffer.feed(self.session.content(), &mut text);
        unstuffer.finish(&mut text);
        PyBytes::new(py, &text)
    }

    #[pyo3(signature = (error, now))]
    fn committed(&mut self, error: Option<&str>, now: f64) -> i8 {
        self.session.committed(error, now);
        self.turn(now)
    }

    /// The sender, the recipients with ORCPT and NOTIFY, BODY, RET and ENVID, and the content in local form.
    #[expect(clippy::type_complexity, reason = "a message as maildrop's writer takes it")]
    fn take_message<'py>(
        &mut self,
        py: Python<'py>,
    ) -> (String, Vec<(String, Option<String>, u8)>, &'static str, &'static str, Option<String>, Bound<'py, PyBytes>)
    {
        let transaction = self.session.server().transaction().cloned().unwrap_or_default();
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
        let text = unstuff(&self.session.take_message());
        let sender = transaction.mail.reverse_path.address().to_owned();
        (sender, recipients, body, ret, transaction.mail.envid.map(Into::into), PyBytes::new(py, &text))
    }

    #[pyo3(signature = (queue_id, error, now))]
    fn stored(&mut self, queue_id: &str, error: Option<&str>, now: f64) -> i8 {
        self.session.stored(queue_id, error, now);
        self.turn(now)
    }

    fn take_output<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.session.take_output().map(|output| PyBytes::new(py, &output))
    }

    fn timeout(&mut self, now: f64) -> i8 {
        self.session.timeout(now);
        self.turn(now)
    }

    fn shut_down(&mut self, now: f64) -> bool {
        let may_close = self.session.shut_down(now);
        self.turn(now);
        may_close
    }

    fn lost(&mut self) {
        self.session.lost();
    }

    #[getter]
    fn deadline(&self) -> f64 {
        self.session.server().deadline()
    }

    #[getter]
    fn committing(&self) -> bool {
        self.session.is_committing()
    }

    #[getter]
    fn sender(&self) -> Option<&str> {
        self.session.server().sender()
    }

    #[getter]
    fn recipient(&self) -> Option<&str> {
        self.session.server().recipient()
    }

    #[getter]
    fn extended(&self) -> bool {
        self.session.server().is_extended()
    }

    #[getter]
    fn argument(&self) -> &str {
        self.session.server().argument()
    }

    #[getter]
    fn mail_parameters(&self) -> Vec<String> {
        self.session.server().mail().map(MailArguments::parameters).unwrap_or_default()
    }

    #[getter]
    fn rcpt_parameters(&self) -> Vec<String> {
        self.session.server().rcpt_parameters()
    }

    #[getter]
    fn transactions(&self) -> u32 {
        self.session.server().transactions()
    }

    #[getter]
    fn recipients(&self) -> Vec<String> {
        let transaction = self.session.server().transaction();
        transaction.map_or_else(Vec::new, |t| t.recipients.iter().map(|r| r.address.to_string()).collect())
    }

    #[getter]
    fn recipient_count(&self) -> usize {
        self.session.server().transaction().map_or(0, |transaction| transaction.recipients.len())
    }

    #[getter]
    fn helo(&self) -> Option<&str> {
        self.session.server().helo()
    }

    #[getter]
    fn protocol(&self) -> &str {
        self.session.server().protocol()
    }

    #[getter]
    fn talked_early(&self) -> bool {
        self.session.server().talked_early()
    }
}

impl SmtpdSession {
    fn turn(&mut self, now: f64) -> i8 {
        let turn = self.session.next(now, wall_now_us());
        self.judging = turn == Turn::Judge;
        self.question = if let Turn::Ask(question) = turn { Some(question) } else { None };
        turn_code(&self.session, turn)
    }

    fn answer(&mut self, reply: &Reply, now: f64) -> PyResult<i8> {
        let question = self.question.take().ok_or_else(no_question)?;
        self.session.reply(question, reply, now, wall_now_us());
        Ok(self.turn(now))
    }
}

fn no_question() -> PyErr {
    PyValueError::new_err("no question is open")
}

/// `dsn`: an enhanced status code of the code's class, or nothing.
fn to_reply(code: u16, dsn: &str, text: &str) -> PyResult<Reply> {
    if !(200..600).contains(&code) {
        return Err(PyValueError::new_err(format!("no reply has the code {code}")));
    }
    if dsn.is_empty() {
        return Ok(Reply::bare(code, text));
    }
    let enhanced: Enhanced = dsn.parse().map_err(|error| PyValueError::new_err(format!("{dsn:?}: {error}")))?;
    Ok(Reply::new(code, [enhanced.subject, enhanced.detail], text))
}
