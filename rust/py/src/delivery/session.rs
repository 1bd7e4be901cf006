//! `SmtpClientSettings` and `SmtpClient`: see `postillion_core::smtp::client`.

use crate::delivery::{DeliveryJob, Work};
use postillion_core::clock::wall_now_us;
use postillion_core::delivery::job::Handover;
use postillion_core::mail::reply::Enhanced;
use postillion_core::mail::status::{Status, local_status};
use postillion_core::queue::{ContentReader, QueueError};
use postillion_core::smtp::client::transaction::needs_smtputf8;
use postillion_core::smtp::client::{Client, ClientSettings, Event, Peer, Protocol, Timeouts};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// A message of at most so many octets goes out in one piece; of larger ones, as many wait in memory.
const PIECE_OCTETS: u64 = 256 * 1024;

/// The connection waits for the server.
const MORE: u8 = 0;
/// The transaction is over; the connection may be used again.
const FINISHED: u8 = 1;
/// The connection is of no use any more; write what is left to be written, and close it.
const CLOSED: u8 = 2;
/// A large message has more to send than was to be written at once: `send_body`.
const SENDING: u8 = 4;
/// Added for each job that is done with this server while the one that followed it is under way.
const NEXT: u8 = 8;
/// As `CLOSED`, but the server had closed a connection that was kept: the job deserves a new one.
const STALE: u8 = 3;

/// What a client does the same way on every connection.
#[pyclass(frozen, module = "postillion._core.smtp")]
pub struct SmtpClientSettings {
    inner: Arc<ClientSettings>,
}

#[pymethods]
impl SmtpClientSettings {
    #[new]
    #[pyo3(signature = (
        *, protocol, helo_name, myhostname, always_send_ehlo, never_send_ehlo, skip_5xx_greeting,
        discard_ehlo_keywords, line_length_limit, min_data_rate, helo_timeout, mail_timeout, rcpt_timeout, data_init_timeout, data_xfer_timeout,
        data_done_timeout, rset_timeout
    ))]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of main.cf, given by name")]
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
        let protocol = match protocol {
            "smtp" => Protocol::Smtp,
            "lmtp" => Protocol::Lmtp,
            _ => return Err(PyValueError::new_err(format!("no protocol is called {protocol:?}"))),
        };
        if helo_name.is_empty() || !helo_name.bytes().all(|b| (b'!'..=b'~').contains(&b)) {
            return Err(PyValueError::new_err(format!("{helo_name:?} is no name to say EHLO with")));
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

/// A job on a connection.
struct Assignment {
    work: Arc<Work>,
    last_address: bool,
    last_session: bool,
    begun_us: Option<u64>,
    /// Which transaction of the connection it is.
    conn_use: u32,
}

impl Assignment {
    fn new(job: &DeliveryJob, last_address: bool, last_session: bool) -> Self {
        Self { work: Arc::clone(&job.work), last_address, last_session, begun_us: None, conn_use: 0 }
    }
}

/// One connection to a server, and the job that it carries.
#[pyclass(module = "postillion._core.smtp")]
pub struct SmtpClient {
    client: Client,
    assignment: Option<Assignment>,
    /// The job that follows; when it has a beginning, its commands are on their way.
    next: Option<Assignment>,
    content: Option<ContentReader>,
}

#[pymethods]
impl SmtpClient {
    #[classattr]
    const MORE: u8 = MORE;
    #[classattr]
    const FINISHED: u8 = FINISHED;
    #[classattr]
    const CLOSED: u8 = CLOSED;
    #[classattr]
    const STALE: u8 = STALE;
    #[classattr]
    const SENDING: u8 = SENDING;
    #[classattr]
    const NEXT: u8 = NEXT;

    #[new]
    #[pyo3(signature = (settings, host, address, port, nexthop, now, *, loop_detect=false, best=true))]
    #[allow(clippy::too_many_arguments, reason = "who the peer is and how it was found")]
    fn new(
        settings: &SmtpClientSettings,
        host: &str,
        address: &str,
        port: u16,
        nexthop: &str,
        now: f64,
        loop_detect: bool,
        best: bool,
    ) -> Self {
        let name_address = format!("{host}[{address}]");
        // A socket in the file system has no port.
        let name_address_port = if port == 0 { name_address.clone() } else { format!("{name_address}:{port}") };
        let peer = Peer { name_address, name_address_port, nexthop: nexthop.into(), loop_detect, best };
        let client = Client::new(Arc::clone(&settings.inner), peer, now);
        Self { client, assignment: None, next: None, content: None }
    }

    #[pyo3(signature = (job, now, *, last_address=true, last_session=true, keep=true))]
    fn deliver(
        &mut self,
        job: &DeliveryJob,
        now: f64,
        last_address: bool,
        last_session: bool,
        keep: bool,
    ) -> PyResult<u8> {
        if self.assignment.is_some() {
            return Err(PyValueError::new_err("the connection carries a job already"));
        }
        self.client.set_last_transaction(!keep);
        self.assignment = Some(Assignment::new(job, last_address, last_session));
        if self.client.is_idle() {
            self.begin(now);
        }
        Ok(self.settle_events(now))
    }

    /// Another job may follow the one under way, and gains by it: not while a large message takes its time.
    fn takes_another(&self, now: f64) -> bool {
        let free = self.assignment.is_some() && self.next.is_none() && self.content.is_none();
        free && self.client.gains_by_going_ahead(now)
    }

    #[pyo3(signature = (job, *, last_session=true))]
    fn follow(&mut self, job: &DeliveryJob, last_session: bool) -> PyResult<()> {
        if self.assignment.is_none() || self.next.is_some() {
            return Err(PyValueError::new_err("one job follows another"));
        }
        self.next = Some(Assignment::new(job, last_session, last_session));
        self.begin_ahead();
        Ok(())
    }

    /// Take the job back that `follow` gave.
    fn withdraw(&mut self) {
        if self.next.take().is_some_and(|next| next.begun_us.is_some()) {
            self.client.abandon_ahead();
        }
    }

    fn receive(&mut self, data: &[u8], now: f64) -> u8 {
        self.client.receive(data, now);
        self.settle_events(now)
    }

    fn lost(&mut self, now: f64) -> u8 {
        self.client.lost();
        self.settle_events(now)
    }

    fn timeout(&mut self, now: f64) -> u8 {
        self.client.timeout(now);
        self.settle_events(now)
    }

    /// A piece of a large message may go out now.
    fn send_body(&mut self, now: f64) -> u8 {
        self.send_piece(now);
        self.settle_events(now)
    }

    fn progressed(&mut self, octets: usize, now: f64) {
        self.client.progressed(octets, now);
    }

    /// A large message has more to send.
    #[getter]
    fn sending(&self) -> bool {
        self.content.is_some()
    }

    fn quit(&mut self) {
        self.client.quit();
    }

    fn take_output<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.client.take_output().map(|bytes| PyBytes::new(py, &bytes))
    }

    #[getter]
    fn deadline(&self) -> Option<f64> {
        self.client.deadline()
    }

    #[getter]
    fn transactions(&self) -> u32 {
        self.client.transactions()
    }
}

impl SmtpClient {
    fn begin(&mut self, now: f64) {
        let Some(assignment) = &mut self.assignment else { return };
        assignment.begun_us = Some(wall_now_us());
        assignment.conn_use = self.client.transactions() + 1;
        let delivery = assignment.work.lock();
        let job = delivery.job();
        let open = || delivery.open().map(|position| (position, &job.recipients[position].recipient));
        // Only a message that asks for SMTPUTF8 and meets a server without it is read to see if it needs it.
        let needs = job.envelope.smtputf8 && !self.client.offered().smtputf8 && {
            // More than a header block may have.
            let directory = &assignment.work.surroundings.queue_directory;
            let reader = ContentReader::open(directory, &job.path, &job.locator);
            let header = reader.and_then(|mut reader| reader.piece(PIECE_OCTETS)).unwrap_or_default();
            needs_smtputf8(&job.envelope, open().map(|(_, recipient)| &*recipient.address), &header)
        };
        self.client.begin(&job.envelope, open(), needs, now);
    }

    /// Send the commands of the job that follows, if the message before it is sent.
    fn begin_ahead(&mut self) {
        let Some(next) = self.next.as_mut().filter(|next| next.begun_us.is_none()) else { return };
        if !self.client.may_begin_ahead() {
            return;
        }
        let delivery = next.work.lock();
        let job = delivery.job();
        let open = delivery.open().map(|position| (position, &job.recipients[position].recipient));
        let begun = self.client.begin_ahead(&job.envelope, open);
        drop(delivery);
        if begun {
            next.begun_us = Some(wall_now_us());
            next.conn_use = self.client.transactions() + 1;
        }
    }

    /// Act on what has happened, up to where the driver must.
    fn settle_events(&mut self, now: f64) -> u8 {
        let (mut code, mut passed) = (MORE, 0);
        while let Some(event) = self.client.next_event() {
            match event {
                Event::Ready => {
                    if self.assignment.is_some() {
                        self.begin(now);
                    }
                }
                Event::Body => self.open_content(now),
                Event::Warning(text) => {
                    if let Some(assignment) = &self.assignment {
                        assignment.work.surroundings.log.warning(format_args!("{text}"));
                    }
                }
                Event::Recipient { position, status } => {
                    if let Some(assignment) = &self.assignment {
                        let last = assignment.last_session;
                        let next_hop_reports = self.client.offered().dsn;
                        self.with_handover(assignment, |work, handover| {
                            let mut delivery = work.lock();
                            delivery.next_hop_reports(next_hop_reports);
                            delivery.verdict(position, status, last, handover, &work.surroundings.log);
                        });
                    }
                }
                Event::Finished { reusable } => {
                    if let Some(assignment) = self.assignment.take() {
                        assignment.work.lock().session_completed();
                    }
                    self.content = None;
                    let next = self.next.take().filter(|_| reusable);
                    if next.is_none() {
                        code = if reusable { FINISHED } else { CLOSED };
                        continue;
                    }
                    // What has happened since concerns that one.
                    // Begun ahead, it may be over already: all of its replies can come in one read.
                    let begun = next.as_ref().is_some_and(|next| next.begun_us.is_some());
                    self.assignment = next;
                    passed += NEXT;
                    if !begun {
                        self.begin(now);
                    }
                }
                Event::Failed { status, stale, elsewhere } => {
                    self.content = None;
                    self.next = None;
                    code = if stale { STALE } else { CLOSED };
                    if let Some(assignment) = self.assignment.take()
                        && !stale
                    {
                        self.failed(&assignment, &status, elsewhere);
                    }
                }
            }
        }
        if code == MORE && self.content.is_some() {
            code = SENDING;
        }
        code + passed
    }

    fn failed(&self, assignment: &Assignment, status: &Status, elsewhere: bool) {
        let last = if assignment.begun_us.is_some() { assignment.last_session } else { assignment.last_address };
        self.with_handover(assignment, |work, handover| {
            let log = &work.surroundings.log;
            if elsewhere && !last {
                work.lock().heard(status.clone(), log);
            } else {
                work.lock().failed(status, last, handover, log);
            }
        });
    }

    /// Set-up lasts until MAIL is sent; where it never was, until now.
    fn with_handover(&self, assignment: &Assignment, settle: impl FnOnce(&Work, &Handover<'_>)) {
        let wall_now_us = wall_now_us();
        let begun_us = assignment.begun_us.unwrap_or(wall_now_us);
        let setup_us = begun_us.saturating_sub(assignment.work.lock().handoff_us());
        let handover = Handover {
            relay: &self.client.peer().name_address_port,
            conn_use: assignment.conn_use,
            setup_us,
            transmission_us: Some(wall_now_us.saturating_sub(begun_us)),
            wall_now_us,
        };
        settle(&assignment.work, &handover);
    }

    fn open_content(&mut self, now: f64) {
        let Some(assignment) = &self.assignment else { return };
        match assignment.work.open_content(now) {
            Ok(reader) => {
                self.content = Some(reader);
                self.send_piece(now);
            }
            Err(error) => self.unreadable(&error),
        }
    }

    fn send_piece(&mut self, now: f64) {
        let Some(reader) = &mut self.content else { return };
        match reader.piece(PIECE_OCTETS) {
            Ok(piece) => {
                let last = reader.left_octets() == 0;
                if last {
                    self.content = None;
                }
                self.client.body(piece, last, now);
                if last {
                    self.begin_ahead();
                }
            }
            Err(error) => self.unreadable(&error),
        }
    }

    /// The message is not what was committed: the server must not see its end.
    fn unreadable(&mut self, error: &QueueError) {
        self.content = None;
        if let Some(assignment) = self.assignment.take() {
            let dsn = Enhanced { class: 4, subject: 3, detail: 0 };
            let status = local_status(dsn, "unreadable mail queue entry");
            self.with_handover(&assignment, |work, handover| {
                let log = &work.surroundings.log;
                let mut delivery = work.lock();
                log.warning(format_args!("{}: {error}", delivery.queue_id()));
                let open: Vec<_> = delivery.open().collect();
                for position in open {
                    delivery.settle(position, status.clone(), handover, log);
                }
            });
        }
        self.client.lost();
    }
}
