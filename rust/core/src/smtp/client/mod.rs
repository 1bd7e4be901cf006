//! The SMTP client as a state machine (RFC 5321 §3, RFC 2920); LMTP is its variant (RFC 2033).
//!
//! Bytes and `now` go in, events and bytes come out. One connection serves any number of transactions in sequence. With
//! PIPELINING, RSET, MAIL, RCPT and DATA of a transaction are one write. Each reply answers the oldest command without
//! one. Bytes that arrive when no reply is expected end the connection, because they answer an unknown command.
//!
//! ```text
//! greeting, EHLO (HELO), STARTTLS, AUTH  ->  Ready | StartTls | Failed
//! begin                  ->  Recipient*, Body | Finished | Failed
//! begin (a probe)        ->  Recipient*, Finished | Failed
//! body(.., last)         ->  Recipient*, Finished | Failed
//! ```
//!
//! With PIPELINING, `begin_ahead` sends the next transaction's commands after the final dot. The verdict on the message
//! and the replies to these commands then arrive together (RFC 2920 §3.1: the end of a message may start a group of
//! commands). Replies arrive in order, so the first transaction is over before the next one has a reply. If the
//! connection fails before that, the next transaction has not begun, and another connection may carry its mail.
//!
//! A probe ends behind RCPT: RSET takes the place of DATA in the same group of commands, so that the server keeps nothing
//! of it. It is never begun ahead.
//!
//! A recipient without an event at the end of its transaction has no verdict and stays queued.

mod auth;
pub mod capability;
mod expect;
mod output;
mod pace;
mod pipeline;
mod replies;
pub mod requiretls;
pub mod response;
mod settings;
pub mod starttls;
#[cfg(test)]
mod tests;
pub mod transaction;

pub use auth::Protection;
pub use pace::{PACE_RATIO, PACE_SLACK_S};
pub use pipeline::{PIPELINE_MAX_COMMANDS, PIPELINE_MAX_OCTETS};
pub use settings::{AuthSettings, ClientSettings, Lmtp, Peer, Protocol, Timeouts, TlsSettings, read_tls};

use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::line_limit::LineLimit;
use crate::mail::reply::Enhanced;
use crate::mail::status::{Status, outcome_of};
use crate::sasl::Refusal;
use auth::Auth;
use capability::Capabilities;
use expect::Expect;
use output::Output;
use pace::Pace;
use pipeline::Pipeline;
use response::ResponseReader;
use starttls::Tls;
use std::collections::VecDeque;
use std::sync::Arc;
use transaction::{BadAddress, push_mail, push_rcpt};

const END_OF_DATA: &[u8] = b".\r\n";
const QUIT: &[u8] = b"QUIT\r\n";
const RSET: &[u8] = b"RSET\r\n";

/// A step of the dialogue that the driver must handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// TLS begins: call `secured` or `insecure`. All further octets go through its channel.
    StartTls,
    /// The handshake is done: `begin` is possible.
    Ready,
    /// The server expects the message: call `body`.
    Body,
    /// A recipient has its verdict. Another server may replace a soft one.
    Recipient {
        /// The position in the argument of `begin`.
        position: usize,
        /// The verdict.
        status: Status,
    },
    /// The transaction is over. Unless `reusable`, send `quit` and close.
    Finished {
        /// Another transaction is possible.
        reusable: bool,
    },
    /// The connection is unusable. Recipients without a verdict stay queued.
    Failed {
        /// The status of the recipients if no other server is left.
        status: Status,
        /// The transaction has no reply, and the connection had completed an earlier one: the server closed it while
        /// it was idle. A new connection may work.
        stale: bool,
        /// Another server of the destination may accept the message, although the status is a refusal.
        elsewhere: bool,
        /// TLS has failed, and the site does not require it: a new connection without TLS may work.
        clear: bool,
    },
    /// A line for the log about the server.
    Warning(String),
    /// The same, without a warning.
    Note(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake,
    Idle,
    Envelope,
    Body,
    EndOfData,
    Closed,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    settings: Arc<ClientSettings>,
    peer: Peer,
    offered: Capabilities,
    tls: Tls,
    protection: Protection,
    auth: Auth,
    /// The reply of a server that has refused the login.
    refusal: Option<Refusal>,
    phase: Phase,
    reader: ResponseReader,
    events: VecDeque<Event>,
    output: Output,
    pipeline: Pipeline,
    /// Recipients that the server accepted, in the order of their commands.
    accepted: Vec<usize>,
    mail_refused: bool,
    /// The transaction in progress is a probe: no message follows.
    probes: bool,
    needs_reset: bool,
    reusable: bool,
    transactions: u32,
    answered: bool,
    body_ends_line: bool,
    lines: LineLimit,
    last_transaction: bool,
    /// Time at which the commands or the message in progress were sent.
    sent_at: f64,
    pace: Pace,
    /// The commands of the next transaction are sent or planned after the end of this one's message.
    ahead: bool,
    /// The transaction in progress was begun ahead and has no reply to DATA. Its replies may be out of step.
    begun_ahead: bool,
    /// Verdicts of such a transaction.
    held: VecDeque<Event>,
    deadline: Option<f64>,
}

impl Client {
    /// Create the client of a new connection. The server speaks first. `now`, here and below: seconds, monotonic.
    pub fn new(settings: Arc<ClientSettings>, peer: Peer, now: f64) -> Self {
        let lines = LineLimit::new(settings.line_length_limit);
        let mut client = Self {
            settings,
            peer,
            offered: Capabilities::default(),
            tls: Tls::Off,
            protection: Protection::None,
            auth: Auth::Off,
            refusal: None,
            phase: Phase::Handshake,
            reader: ResponseReader::default(),
            events: VecDeque::new(),
            output: Output::default(),
            pipeline: Pipeline::default(),
            accepted: Vec::new(),
            mail_refused: false,
            probes: false,
            needs_reset: false,
            reusable: true,
            transactions: 0,
            answered: false,
            body_ends_line: true,
            lines,
            last_transaction: false,
            sent_at: now,
            pace: Pace::default(),
            ahead: false,
            begun_ahead: false,
            held: VecDeque::new(),
            deadline: None,
        };
        client.pipeline.expect(Expect::Greeting);
        client.set_deadline(now);
        client.wrap(now);
        client
    }

    /// Return the settings.
    pub fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    /// Return the server.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Return the EHLO keywords of the server.
    pub fn offered(&self) -> &Capabilities {
        &self.offered
    }

    /// Return the number of transactions, with the one in progress.
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// Return whether `begin` is possible.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Receive bytes from the server, in any split.
    pub fn receive(&mut self, mut bytes: &[u8], now: f64) {
        while !bytes.is_empty() && self.phase != Phase::Closed {
            if self.is_shaking() {
                // Octets behind the reply to STARTTLS are no part of the dialogue inside TLS, whoever has sent them.
                return;
            }
            if self.pipeline.awaited() == 0 && self.phase != Phase::Body {
                return self.spoke_unasked();
            }
            match self.reader.feed(bytes) {
                Err(too_long) => return self.violated(&too_long.to_string()),
                Ok((used, response)) => {
                    bytes = &bytes[used..];
                    // Lines that are no reply can be skipped if one reply is expected. With several, the next reply
                    // may answer any of the commands.
                    let garbage = self.reader.garbage() || response.as_ref().is_some_and(|r| r.garbage);
                    if garbage {
                        self.reusable = false;
                        if self.pipeline.awaited() > 1 {
                            return self.violated("a line that is no reply while several replies were awaited");
                        }
                    }
                    if let Some(response) = response {
                        let last = self.pipeline.awaited() <= 1;
                        self.answer(&response, now);
                        if last && !bytes.is_empty() && self.phase != Phase::Closed && !self.is_shaking() {
                            // The server sent it before it received a command that it could answer.
                            return self.spoke_unasked();
                        }
                    }
                }
            }
        }
    }

    /// Note that the server closed the connection, or that it broke.
    pub fn lost(&mut self) {
        if self.is_shaking() {
            return self.fail_to_start();
        }
        self.break_off(format!("lost connection with {} while {}", self.peer.name_address, self.stage()));
    }

    /// Return when to call `timeout`; `None` while no reply is expected.
    pub fn deadline(&self) -> Option<f64> {
        self.deadline
    }

    /// End the connection if the deadline has passed.
    pub fn timeout(&mut self, now: f64) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            if self.is_shaking() {
                return self.fail_to_start();
            }
            self.break_off(format!("conversation with {} timed out while {}", self.peer.name_address, self.stage()));
        }
    }

    /// Return the oldest event; `None` if the client needs more bytes.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Return the bytes for the server since the last call: one write.
    pub fn take_output(&mut self) -> Option<Vec<u8>> {
        if self.output.is_empty() { None } else { Some(std::mem::take(&mut *self.output)) }
    }

    /// Begin a transaction; the client must be idle. `recipients`: addresses with their positions in events.
    /// `needs_smtputf8`: an address or the header is not ASCII, and the sender asked for SMTPUTF8.
    pub fn begin<'a>(
        &mut self,
        envelope: &Envelope,
        recipients: impl Iterator<Item = (usize, &'a Recipient)>,
        needs_smtputf8: bool,
        now: f64,
    ) {
        assert!(self.phase == Phase::Idle, "a transaction begins on an idle connection");
        self.enter_transaction();
        self.pipeline.begin();
        if needs_smtputf8 && !self.offered.smtputf8 {
            let text = format!("SMTPUTF8 is required, but was not offered by host {}", self.peer.name_address);
            self.quit();
            let status = refusal([6, 7], &text);
            return self.events.push_back(Event::Failed { status, stale: false, elsewhere: true, clear: false });
        }
        if let Some(status) = self.too_large(envelope) {
            return self.finish_all(recipients, &status);
        }
        if self.needs_reset {
            self.pipeline.plan_line(Expect::Rset, RSET);
        }
        if self.plan_mail(envelope).is_err() {
            self.pipeline.forget_planned();
            let status = refusal([1, 7], "bad sender address syntax");
            return self.finish_all(recipients, &status);
        }
        let mut takers = 0;
        for (position, recipient) in recipients {
            if self.plan_rcpt(position, recipient, envelope.smtputf8).is_ok() {
                takers += 1;
                continue;
            }
            let status = refusal([1, 3], "bad recipient address syntax");
            self.events.push_back(Event::Recipient { position, status });
        }
        if takers == 0 {
            self.pipeline.forget_planned();
            return self.finish();
        }
        self.probes = envelope.is_probe();
        if self.probes {
            self.pipeline.plan_line(Expect::Abort, RSET);
        } else {
            self.pipeline.plan_line(Expect::Data, b"DATA\r\n");
        }
        self.phase = Phase::Envelope;
        self.needs_reset = true;
        self.sent_at = now;
        self.send_commands();
        self.set_deadline(now);
    }

    /// Return whether the next transaction ends sooner when it is begun ahead than on its own connection. This needs
    /// PIPELINING, and verdicts that take no longer than the replies to commands. With slow verdicts, or when the
    /// server is late now, parallel connections are faster.
    pub fn gains_by_going_ahead(&self, now: f64) -> bool {
        let usable = self.phase != Phase::Closed && self.reusable && self.offered.pipelining;
        usable && !self.last_transaction && self.pace.is_even(now - self.sent_at)
    }

    /// Give up the transaction that was begun ahead: the connection ends with the transaction in progress.
    pub fn abandon_ahead(&mut self) {
        if self.ahead {
            self.reusable = false;
        }
    }

    /// Return whether `begin_ahead` is possible: the message is sent, and commands may follow it.
    pub fn may_begin_ahead(&self) -> bool {
        let waits = self.phase == Phase::EndOfData && !self.ahead && !self.accepted.is_empty();
        waits && self.reusable && self.offered.pipelining && self.pipeline.last() != Some(Expect::Quit)
    }

    /// Begin the next transaction before the verdict on this one's message. A reusable `Finished` then replaces
    /// `begin`. Returns false when the transaction must wait for `begin`, which refuses a part of it or needs a reply
    /// first.
    pub fn begin_ahead<'a>(
        &mut self,
        envelope: &Envelope,
        mut recipients: impl Iterator<Item = (usize, &'a Recipient)>,
    ) -> bool {
        let unsure = envelope.smtputf8 && !self.offered.smtputf8;
        if !self.may_begin_ahead() || unsure || envelope.is_probe() || self.too_large(envelope).is_some() {
            return false;
        }
        self.pipeline.begin();
        let good = self.plan_mail(envelope).is_ok()
            && recipients.all(|(position, recipient)| self.plan_rcpt(position, recipient, envelope.smtputf8).is_ok());
        if !good || self.pipeline.recipients(false).is_empty() {
            self.pipeline.forget_planned();
            return false;
        }
        self.pipeline.plan_line(Expect::Data, b"DATA\r\n");
        self.ahead = true;
        self.send_commands();
        true
    }

    fn enter_transaction(&mut self) {
        self.transactions += 1;
        self.answered = false;
        self.mail_refused = false;
        self.probes = false;
        self.accepted.clear();
        self.body_ends_line = true;
        self.lines.reset();
        self.begun_ahead = false;
    }

    /// Set whether the transaction in progress is the last one. With PIPELINING, QUIT then follows the final dot at
    /// once.
    pub fn set_last_transaction(&mut self, last: bool) {
        self.last_transaction = last;
    }

    /// Send a piece of the message in wire form (CRLF, dots stuffed). `last`: the final dot follows. Has no effect
    /// after the server ended the transaction.
    pub fn body(&mut self, piece: Vec<u8>, last: bool, now: f64) {
        if self.phase != Phase::Body {
            return;
        }
        if !piece.is_empty() {
            // The final dot must be at the start of a line; elsewhere it is a part of the message.
            self.body_ends_line = piece.ends_with(b"\n");
            let piece = self.lines.feed(piece);
            if self.output.is_empty() {
                *self.output = piece;
            } else {
                self.output.extend_from_slice(&piece);
            }
        }
        if !last {
            if self.settings.min_data_rate.is_none() {
                self.set_deadline(now);
            }
            return;
        }
        if !self.body_ends_line {
            self.output.extend_from_slice(b"\r\n");
        }
        self.output.extend_from_slice(END_OF_DATA);
        self.phase = Phase::EndOfData;
        self.sent_at = now;
        match self.settings.protocol {
            Protocol::Smtp => self.pipeline.expect(Expect::Dot),
            Protocol::Lmtp => {
                self.accepted.iter().for_each(|position| self.pipeline.expect(Expect::DotFor(*position)));
            }
        }
        if self.last_transaction && self.offered.pipelining {
            self.output.extend_from_slice(QUIT);
            self.pipeline.expect(Expect::Quit);
            self.reusable = false;
        }
        self.set_deadline(now);
    }

    /// Note that the server accepted octets of earlier output, which extends the deadline of the message.
    pub fn progressed(&mut self, octets: usize, now: f64) {
        let Some(deadline) = self.deadline else { return };
        let data_xfer = self.settings.timeouts.data_xfer;
        if self.phase == Phase::Body {
            self.deadline = Some(match self.settings.min_data_rate {
                None => now + data_xfer,
                Some(rate) => (deadline + octets as f64 / rate).min(now + data_xfer),
            });
        } else if self.phase == Phase::EndOfData {
            // The timeout of the verdict starts when the server has the whole message.
            self.deadline = Some(deadline.max(now + self.settings.timeouts.data_done));
        }
    }

    /// Give the server this time in addition: this system had no octets for it.
    pub fn extend_deadline(&mut self, seconds: f64) {
        if let Some(deadline) = &mut self.deadline {
            *deadline += seconds;
        }
    }

    /// Send QUIT. The reply is not read (smtp_skip_quit_response).
    pub fn quit(&mut self) {
        if self.phase != Phase::Closed {
            // Within a message, QUIT would be a part of it.
            if self.phase != Phase::Body && self.pipeline.last() != Some(Expect::Quit) {
                self.output.extend_from_slice(QUIT);
            }
            self.close();
        }
    }

    fn too_large(&self, envelope: &Envelope) -> Option<Status> {
        let (limit, size) = (self.offered.size_limit?, envelope.size_octets);
        let name = &self.peer.name_address;
        let text = format!("message size {size} exceeds size limit {limit} of server {name}");
        (size > limit).then(|| refusal([3, 4], &text))
    }

    fn finish_all<'a>(&mut self, recipients: impl Iterator<Item = (usize, &'a Recipient)>, status: &Status) {
        let recipient = |(position, _)| Event::Recipient { position, status: status.clone() };
        self.events.extend(recipients.map(recipient));
        self.finish();
    }

    // Sending.

    fn plan_mail(&mut self, envelope: &Envelope) -> Result<(), BadAddress> {
        let (dummy_auth, mark) = (self.sends_dummy_auth(), self.mark());
        self.pipeline.plan(Expect::Mail, |out| push_mail(envelope, &self.offered, mark, dummy_auth, out))
    }

    fn plan_rcpt(&mut self, position: usize, recipient: &Recipient, smtputf8: bool) -> Result<(), BadAddress> {
        self.pipeline.plan(Expect::Rcpt(position), |out| push_rcpt(recipient, &self.offered, smtputf8, out))
    }

    fn send_commands(&mut self) {
        self.pipeline.send(self.offered.pipelining, &mut self.output);
    }

    fn send(&mut self, hello: Expect) {
        let verb = match hello {
            Expect::Lhlo => "LHLO",
            Expect::Helo => "HELO",
            _ => "EHLO",
        };
        self.output.extend_from_slice(format!("{verb} {}\r\n", self.settings.helo_name).as_bytes());
        self.pipeline.expect(hello);
    }

    // Ends.

    fn finish(&mut self) {
        self.events.extend(self.held.drain(..));
        let reusable = self.reusable;
        if reusable {
            self.phase = Phase::Idle;
            self.deadline = None;
        } else {
            self.quit();
        }
        self.events.push_back(Event::Finished { reusable });
    }

    /// End the connection after bytes that answer no command. The verdicts of a transaction that just ended stay valid.
    fn spoke_unasked(&mut self) {
        self.close();
        let text = format!("host {} spoke out of turn", self.peer.name_address);
        let status = deferral([5, 0], &text);
        // If a transaction just ended and the driver has not seen it yet, its connection is not reusable.
        if let Some(Event::Finished { reusable }) = self.events.back_mut() {
            *reusable = false;
            return;
        }
        self.output.clear();
        self.events.retain(|event| !matches!(event, Event::Ready | Event::Body));
        self.events.push_back(Event::Failed { status, stale: false, elsewhere: false, clear: false });
    }

    fn violated(&mut self, what: &str) {
        let text = format!("Protocol error: host {} sent {what}", self.peer.name_address);
        self.fail(Enhanced { class: 4, subject: 5, detail: 0 }, text);
    }

    /// End a connection that is broken.
    fn break_off(&mut self, text: String) {
        self.fail_as(Enhanced { class: 4, subject: 4, detail: 2 }, text, self.may_clear());
    }

    fn fail(&mut self, dsn: Enhanced, text: String) {
        self.fail_as(dsn, text, false);
    }

    /// `clear`: see `Event::Failed`.
    fn fail_as(&mut self, dsn: Enhanced, text: String, clear: bool) {
        if self.phase == Phase::Closed {
            return;
        }
        let stale = self.phase == Phase::Idle || (self.transactions > 1 && !self.answered && self.phase != Phase::Body);
        self.close();
        let status = Status { outcome: outcome_of(dsn), dsn, text: text.into(), remote: None };
        self.events.push_back(Event::Failed { status, stale, elsewhere: false, clear });
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.held.clear();
        self.pipeline.clear();
        self.deadline = None;
    }

    fn stage(&self) -> &'static str {
        match (self.phase, self.pipeline.next()) {
            (Phase::Body, _) => "sending message body",
            (_, Some(expect)) => expect.stage(),
            (_, None) => "waiting for more mail",
        }
    }

    fn set_deadline(&mut self, now: f64) {
        let timeouts = &self.settings.timeouts;
        let timeout_s = match (self.phase, self.pipeline.next()) {
            (Phase::Body, _) => Some(timeouts.data_xfer),
            (_, Some(expect)) => Some(expect.timeout_s(timeouts)),
            (_, None) => None,
        };
        self.deadline = timeout_s.map(|timeout_s| now + timeout_s);
    }
}

fn refusal([subject, detail]: [u16; 2], text: &str) -> Status {
    let dsn = Enhanced { class: 5, subject, detail };
    Status { outcome: outcome_of(dsn), dsn, text: text.into(), remote: None }
}

fn deferral([subject, detail]: [u16; 2], text: &str) -> Status {
    let dsn = Enhanced { class: 4, subject, detail };
    Status { outcome: outcome_of(dsn), dsn, text: text.into(), remote: None }
}
