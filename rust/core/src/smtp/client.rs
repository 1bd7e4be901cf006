//! The SMTP client as a state machine (RFC 5321 §3, RFC 2920); LMTP is its variant (RFC 2033).
//!
//! Bytes and `now` go in, events and bytes come out. One connection serves any number of transactions, one after the
//! other; where PIPELINING is offered, RSET, MAIL, RCPT and DATA of a transaction are one write. Each reply answers the
//! oldest command that has none. Bytes that come when no reply is awaited end the connection: what they answer cannot
//! be known.
//!
//! ```text
//! greeting, EHLO (HELO)  ->  Ready | Failed
//! begin                  ->  Recipient*, Body | Finished | Failed
//! body(.., last)         ->  Recipient*, Finished | Failed
//! ```
//!
//! With PIPELINING, `begin_ahead` sends the next transaction's commands behind the final dot: the verdict on the message
//! and the replies to the next one's commands then come together (RFC 2920 §3.1 has a message's end begin a group of
//! commands). Replies come in order, so nothing of the next transaction is answered before the first one is over; when
//! the connection fails before that, the next one was never begun, and its mail may go elsewhere.
//!
//! A recipient without an event when the transaction ends has no verdict: it stays queued.

use super::capability::Capabilities;
pub use super::client_settings::{ClientSettings, Peer, Protocol, Timeouts};
use super::expect::Expect;
use super::reply::Enhanced;
use super::response::{Response, ResponseReader};
use super::transaction::{BadAddress, push_mail, push_rcpt};
use crate::delivery::job::outcome_of;
use crate::ipc::frame::Status;
use crate::message::envelope::{Envelope, Recipient};
use crate::message::line_limit::LineLimit;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many octets of commands are sent before their replies are waited for.
pub const PIPELINE_MAX_OCTETS: usize = 64 * 1024;
/// How many commands may wait for their replies.
pub const PIPELINE_MAX_COMMANDS: usize = 1000;
/// A verdict that takes so much longer than the replies to the commands is slow.
pub const PACE_RATIO: f64 = 1.5;
/// What is taken for no time at all: the clock of an event loop stands still for about as long.
pub const PACE_SLACK_S: f64 = 0.002;
/// What a new time counts beside those before it.
const PACE_WEIGHT: f64 = 0.25;
const END_OF_DATA: &[u8] = b".\r\n";
const QUIT: &[u8] = b"QUIT\r\n";

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The handshake is done: `begin` may be called.
    Ready,
    /// The server wants the message: call `body`.
    Body,
    /// A recipient has its verdict, but for a soft one, which another server may better.
    Recipient {
        /// Its position as given to `begin`.
        position: usize,
        /// The verdict.
        status: Status,
    },
    /// The transaction is over. Unless `reusable`, send `quit` and close.
    Finished {
        /// Another transaction may begin.
        reusable: bool,
    },
    /// The connection is of no use any more; recipients without verdict stay queued.
    Failed {
        /// Why: what becomes of the recipients when no other server is left to try.
        status: Status,
        /// Nothing of the transaction was answered, on a connection that had served before: the server closed it
        /// while it was idle, and a new connection may well do.
        stale: bool,
        /// Although the status is a refusal, another server of the destination may do better.
        elsewhere: bool,
    },
    /// A line for the log, about the server.
    Warning(String),
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

/// How long a server takes, smoothed; `None` until it has answered once. Seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    commands_s: Option<f64>,
    verdict_s: Option<f64>,
}

impl Pace {
    fn commands_took(&mut self, time_s: f64) {
        self.commands_s = Some(smoothed(self.commands_s, time_s));
    }

    fn verdict_took(&mut self, time_s: f64) {
        self.verdict_s = Some(smoothed(self.verdict_s, time_s));
    }

    /// Do verdicts take no longer than replies to commands, what is awaited for `waited_s` included?
    fn is_even(&self, waited_s: f64) -> bool {
        let (Some(commands_s), Some(verdict_s)) = (self.commands_s, self.verdict_s) else { return false };
        verdict_s.max(waited_s) <= PACE_RATIO * commands_s + PACE_SLACK_S
    }
}

fn smoothed(before: Option<f64>, time_s: f64) -> f64 {
    before.map_or(time_s, |before| before + (time_s - before) * PACE_WEIGHT)
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    settings: Arc<ClientSettings>,
    peer: Peer,
    offered: Capabilities,
    phase: Phase,
    reader: ResponseReader,
    events: VecDeque<Event>,
    output: Vec<u8>,
    /// Commands of the transaction that are not sent, and where each ends.
    commands: Vec<u8>,
    commands_sent: usize,
    planned: VecDeque<(Expect, usize)>,
    awaited: VecDeque<Expect>,
    /// Recipients that the server took, in the order of their commands.
    accepted: Vec<usize>,
    mail_refused: bool,
    needs_reset: bool,
    reusable: bool,
    transactions: u32,
    answered: bool,
    body_ends_line: bool,
    lines: LineLimit,
    last_transaction: bool,
    /// When the commands or the message under way were sent.
    sent_at: f64,
    pace: Pace,
    /// The commands of the next transaction are sent or planned, behind the end of this one's message.
    ahead: bool,
    /// The transaction under way was begun ahead, and DATA is not answered: its replies may yet prove out of step.
    begun_ahead: bool,
    /// Verdicts of such a transaction.
    held: VecDeque<Event>,
    deadline: Option<f64>,
}

impl Client {
    /// A connection that was just made; the server speaks first. `now`: seconds, monotonic, here and below.
    pub fn new(settings: Arc<ClientSettings>, peer: Peer, now: f64) -> Self {
        let lines = LineLimit::new(settings.line_length_limit);
        let mut client = Self {
            settings,
            peer,
            offered: Capabilities::default(),
            phase: Phase::Handshake,
            reader: ResponseReader::default(),
            events: VecDeque::new(),
            output: Vec::new(),
            commands: Vec::new(),
            commands_sent: 0,
            planned: VecDeque::new(),
            awaited: VecDeque::new(),
            accepted: Vec::new(),
            mail_refused: false,
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
        client.awaited.push_back(Expect::Greeting);
        client.set_deadline(now);
        client
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What the server offers.
    pub fn offered(&self) -> &Capabilities {
        &self.offered
    }

    /// Transactions begun, the one under way included.
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// A transaction may begin.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Bytes came from the server; any split of the stream.
    pub fn receive(&mut self, mut bytes: &[u8], now: f64) {
        while !bytes.is_empty() && self.phase != Phase::Closed {
            if self.awaited.is_empty() && self.phase != Phase::Body {
                return self.spoke_unasked();
            }
            match self.reader.feed(bytes) {
                Err(too_long) => return self.violated(&too_long.to_string()),
                Ok((used, response)) => {
                    bytes = &bytes[used..];
                    // With one reply awaited, lines that are no reply can be skipped. With several, it cannot be
                    // known which command the next reply answers.
                    let garbage = self.reader.garbage() || response.as_ref().is_some_and(|r| r.garbage);
                    if garbage {
                        self.reusable = false;
                        if self.awaited.len() > 1 {
                            return self.violated("a line that is no reply while several replies were awaited");
                        }
                    }
                    if let Some(response) = response {
                        let last = self.awaited.len() <= 1;
                        self.answer(&response, now);
                        if last && !bytes.is_empty() && self.phase != Phase::Closed {
                            // Said before we could have said anything that it answers.
                            return self.spoke_unasked();
                        }
                    }
                }
            }
        }
    }

    /// The server closed the connection, or it broke.
    pub fn lost(&mut self) {
        let text = format!("lost connection with {} while {}", self.peer.name_address, self.stage());
        self.fail(Enhanced { class: 4, subject: 4, detail: 2 }, text);
    }

    /// When `timeout` has something to do; `None`: nothing is awaited.
    pub fn deadline(&self) -> Option<f64> {
        self.deadline
    }

    /// End the connection if it has waited for too long.
    pub fn timeout(&mut self, now: f64) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            let text = format!("conversation with {} timed out while {}", self.peer.name_address, self.stage());
            self.fail(Enhanced { class: 4, subject: 4, detail: 2 }, text);
        }
    }

    /// What has happened, oldest first; `None`: more bytes are needed.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Bytes for the server since the last call: one write.
    pub fn take_output(&mut self) -> Option<Vec<u8>> {
        if self.output.is_empty() { None } else { Some(std::mem::take(&mut self.output)) }
    }

    /// Begin a transaction; the client must be idle. `recipients`: positions that events name, and addresses.
    /// `needs_smtputf8`: an address or a header of the message is not ASCII, and the sender asked for SMTPUTF8.
    pub fn begin<'a>(
        &mut self,
        envelope: &Envelope,
        recipients: impl Iterator<Item = (usize, &'a Recipient)>,
        needs_smtputf8: bool,
        now: f64,
    ) {
        assert!(self.phase == Phase::Idle, "a transaction begins on an idle connection");
        self.enter_transaction();
        self.commands.clear();
        self.commands_sent = 0;
        self.planned.clear();
        if needs_smtputf8 && !self.offered.smtputf8 {
            let text = format!(
                "message requires SMTPUTF8, but no server was found that supports SMTPUTF8. \
                 The last attempted server was {}",
                self.peer.name_address
            );
            self.quit();
            let status = refusal([6, 7], &text);
            return self.events.push_back(Event::Failed { status, stale: false, elsewhere: true });
        }
        if let Some(status) = self.too_large(envelope) {
            return self.settle_all(recipients, &status);
        }
        if self.needs_reset {
            self.plan(Expect::Rset, b"RSET\r\n");
        }
        if push_mail(envelope, &self.offered, &mut self.commands).is_err() {
            self.planned.clear();
            let status = refusal([1, 7], "bad sender address syntax");
            return self.settle_all(recipients, &status);
        }
        self.planned.push_back((Expect::Mail, self.commands.len()));
        let mut takers = 0;
        for (position, recipient) in recipients {
            match push_rcpt(recipient, &self.offered, &mut self.commands) {
                Ok(()) => {
                    self.planned.push_back((Expect::Rcpt(position), self.commands.len()));
                    takers += 1;
                }
                Err(BadAddress) => {
                    let status = refusal([1, 3], "bad recipient address syntax");
                    self.events.push_back(Event::Recipient { position, status });
                }
            }
        }
        if takers == 0 {
            self.planned.clear();
            return self.finish();
        }
        self.plan(Expect::Data, b"DATA\r\n");
        self.phase = Phase::Envelope;
        self.needs_reset = true;
        self.sent_at = now;
        self.send_commands();
        self.set_deadline(now);
    }

    /// Would the next transaction, begun ahead, come sooner to its end than on a connection of its own? So it is with
    /// PIPELINING where the verdict on a message takes no longer than the replies to its commands. Where the server is
    /// slow with its verdicts, or late with what is awaited now, connections beside each other are faster.
    pub fn gains_by_going_ahead(&self, now: f64) -> bool {
        let usable = self.phase != Phase::Closed && self.reusable && self.offered.pipelining;
        usable && !self.last_transaction && self.pace.is_even(now - self.sent_at)
    }

    /// What was begun ahead will not be carried on: the connection ends with the transaction under way.
    pub fn abandon_ahead(&mut self) {
        if self.ahead {
            self.reusable = false;
        }
    }

    /// May `begin_ahead` be called? The message has been sent, and what is next can be sent behind it.
    pub fn may_begin_ahead(&self) -> bool {
        let waits = self.phase == Phase::EndOfData && !self.ahead && !self.accepted.is_empty();
        waits && self.reusable && self.offered.pipelining && self.awaited.back() != Some(&Expect::Quit)
    }

    /// Begin the next transaction while the verdict on this one's message is awaited; `Finished` of this one, reusable,
    /// then stands for `begin` of the next. False when it must wait for `Finished` and `begin`: something in it is for
    /// `begin` to refuse, or needs the server's answer first.
    pub fn begin_ahead<'a>(
        &mut self,
        envelope: &Envelope,
        recipients: impl Iterator<Item = (usize, &'a Recipient)>,
    ) -> bool {
        let unsure = envelope.smtputf8 && !self.offered.smtputf8;
        if !self.may_begin_ahead() || unsure || self.too_large(envelope).is_some() {
            return false;
        }
        self.commands.clear();
        self.commands_sent = 0;
        self.planned.clear();
        let mut good = push_mail(envelope, &self.offered, &mut self.commands).is_ok();
        self.planned.push_back((Expect::Mail, self.commands.len()));
        for (position, recipient) in recipients {
            good = good && push_rcpt(recipient, &self.offered, &mut self.commands).is_ok();
            self.planned.push_back((Expect::Rcpt(position), self.commands.len()));
        }
        if !good || self.planned.len() < 2 {
            self.planned.clear();
            return false;
        }
        self.plan(Expect::Data, b"DATA\r\n");
        self.ahead = true;
        self.send_commands();
        true
    }

    fn enter_transaction(&mut self) {
        self.transactions += 1;
        self.answered = false;
        self.mail_refused = false;
        self.accepted.clear();
        self.body_ends_line = true;
        self.lines.reset();
        self.begun_ahead = false;
    }

    /// Nothing will follow the transaction under way: where PIPELINING is offered, QUIT goes with the final dot.
    pub fn set_last_transaction(&mut self, last: bool) {
        self.last_transaction = last;
    }

    /// Send a piece of the message: wire form (CRLF, dot-stuffed), without the final dot. `last`: the dot follows.
    /// Nothing is sent when the server ended the transaction meanwhile.
    pub fn body(&mut self, piece: Vec<u8>, last: bool, now: f64) {
        if self.phase != Phase::Body {
            return;
        }
        if !piece.is_empty() {
            // The dot must stand at the start of a line, or it would be part of the message.
            self.body_ends_line = piece.ends_with(b"\n");
            let piece = self.lines.feed(piece);
            if self.output.is_empty() {
                self.output = piece;
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
            Protocol::Smtp => self.awaited.push_back(Expect::Dot),
            Protocol::Lmtp => self.awaited.extend(self.accepted.iter().map(|position| Expect::DotFor(*position))),
        }
        if self.last_transaction && self.offered.pipelining {
            self.output.extend_from_slice(QUIT);
            self.awaited.push_back(Expect::Quit);
            self.reusable = false;
        }
        self.set_deadline(now);
    }

    /// The server has taken octets of what was sent before: while it does, a message may take its time.
    pub fn progressed(&mut self, octets: usize, now: f64) {
        let Some(deadline) = self.deadline else { return };
        let data_xfer = self.settings.timeouts.data_xfer;
        if self.phase == Phase::Body {
            self.deadline = Some(match self.settings.min_data_rate {
                None => now + data_xfer,
                Some(rate) => (deadline + octets as f64 / rate).min(now + data_xfer),
            });
        } else if self.phase == Phase::EndOfData {
            // The verdict is awaited from when the server has it all.
            self.deadline = Some(deadline.max(now + self.settings.timeouts.data_done));
        }
    }

    /// Take leave; nothing that comes after it is read (smtp_skip_quit_response).
    pub fn quit(&mut self) {
        if self.phase != Phase::Closed {
            // In the middle of a message, QUIT would become a part of it.
            if self.phase != Phase::Body && self.awaited.back() != Some(&Expect::Quit) {
                self.output.extend_from_slice(QUIT);
            }
            self.close();
        }
    }

    // What the reply of each command means.

    fn answer(&mut self, response: &Response, now: f64) {
        self.answered = true;
        let Some(expect) = self.awaited.pop_front() else {
            return self.answered_early(response);
        };
        match expect {
            Expect::Greeting => self.greeted(response),
            Expect::Ehlo if response.class() != 2 && response.code != 421 => self.send(Expect::Helo),
            Expect::Ehlo | Expect::Helo | Expect::Lhlo => self.welcomed(expect, response),
            Expect::Rset if response.class() != 2 => return self.spent(expect, response),
            Expect::Rset => {}
            _ if response.code == 421 => return self.closing(expect, response),
            _ if self.begun_ahead && self.is_out_of_step(expect, response) => return self.spent(expect, response),
            Expect::Mail => {
                if response.class() != 2 {
                    self.mail_refused = true;
                    let open = self.open_recipients();
                    self.refuse(&open, expect, response);
                }
            }
            Expect::Rcpt(_) if self.mail_refused => {}
            Expect::Rcpt(position) if response.class() == 2 => self.accepted.push(position),
            Expect::Rcpt(position) => self.refuse(&[position], expect, response),
            Expect::Data => {
                if !self.begun_ahead {
                    self.pace.commands_took(now - self.sent_at);
                }
                self.data_answered(response);
            }
            Expect::Dot => {
                self.needs_reset = response.class() != 2;
                let accepted = std::mem::take(&mut self.accepted);
                self.verdict(&accepted, expect, response);
            }
            Expect::DotFor(position) => {
                self.needs_reset = false;
                self.verdict(&[position], expect, response);
            }
            Expect::Quit => {}
        }
        self.go_on(now);
    }

    /// What comes next, once a reply is dealt with.
    fn go_on(&mut self, now: f64) {
        if self.phase == Phase::Envelope {
            let nobody = self.mail_refused || (self.accepted.is_empty() && !self.awaits_rcpt());
            if nobody {
                // Commands that are not sent are not needed; replies to those that are sent must still be read.
                self.planned.clear();
                if self.awaited.is_empty() {
                    return self.finish();
                }
            }
            self.send_commands();
        } else if self.phase == Phase::EndOfData
            && !matches!(self.awaited.front(), Some(Expect::Dot | Expect::DotFor(_)))
        {
            self.pace.verdict_took(now - self.sent_at);
            self.finish();
            if !self.ahead || self.phase == Phase::Closed {
                return;
            }
            self.ahead = false;
            self.enter_transaction();
            self.begun_ahead = true;
            self.phase = Phase::Envelope;
            self.needs_reset = true;
            self.send_commands();
        }
        self.set_deadline(now);
    }

    /// Does a reply to a transaction begun ahead leave doubt about which command it answers? A server that refused the
    /// message before may be in no state for another one, and one that answered a message twice has all further replies
    /// taken for those of the commands before them: then DATA is not answered by 354. The job deserves a connection
    /// where nothing was sent ahead.
    fn is_out_of_step(&self, expect: Expect, response: &Response) -> bool {
        match expect {
            Expect::Mail => response.class() != 2,
            Expect::Rcpt(_) => !matches!(response.class(), 2 | 4 | 5),
            Expect::Data => match response.class() {
                3 => false,
                4 | 5 => !self.accepted.is_empty(),
                _ => true,
            },
            _ => false,
        }
    }

    fn awaits_rcpt(&self) -> bool {
        let is_rcpt = |expect: &Expect| matches!(expect, Expect::Rcpt(_) | Expect::Mail | Expect::Rset);
        self.awaited.iter().any(is_rcpt) || self.planned.iter().any(|(expect, _)| is_rcpt(expect))
    }

    fn greeted(&mut self, response: &Response) {
        if response.class() != 2 {
            let soften = response.class() != 5 || self.settings.skip_5xx_greeting;
            return self.unwelcome(response, soften);
        }
        let mut words = response.text.split([' ', '-', '\t', '\n']).skip(1);
        let esmtp = words.any(|word| word.eq_ignore_ascii_case("ESMTP"));
        self.send(match self.settings.protocol {
            Protocol::Lmtp => Expect::Lhlo,
            Protocol::Smtp if self.settings.never_send_ehlo => Expect::Helo,
            Protocol::Smtp if esmtp || self.settings.always_send_ehlo => Expect::Ehlo,
            Protocol::Smtp => Expect::Helo,
        });
    }

    fn welcomed(&mut self, expect: Expect, response: &Response) {
        if response.class() != 2 {
            return self.unwelcome(response, response.class() != 5);
        }
        let first = response.text.split('\n').next().unwrap_or("");
        let name = first.get(4..).unwrap_or("").split_ascii_whitespace().next().unwrap_or("");
        if self.peer.loop_detect && name.eq_ignore_ascii_case(&self.settings.myhostname) {
            let name = &self.peer.name_address_port;
            let warning = format!("host {name} replied to HELO/EHLO with my own hostname {}", self.settings.myhostname);
            self.events.push_back(Event::Warning(warning));
            let class = if self.peer.best { 5 } else { 4 };
            let text = format!("mail for {} loops back to myself", self.peer.nexthop);
            return self.fail(Enhanced { class, subject: 4, detail: 6 }, text);
        }
        if expect != Expect::Helo {
            self.offered = Capabilities::parse(response, &self.settings.discard_ehlo_keywords);
        }
        self.phase = Phase::Idle;
        self.events.push_back(Event::Ready);
    }

    fn unwelcome(&mut self, response: &Response, soften: bool) {
        let mut dsn = response.dsn();
        if soften {
            dsn.class = 4;
        }
        let text = format!("host {} refused to talk to me: {}", self.peer.name_address, response.one_line());
        self.fail(dsn, text);
    }

    fn data_answered(&mut self, response: &Response) {
        self.begun_ahead = false;
        self.events.extend(self.held.drain(..));
        if response.class() != 3 {
            let accepted = std::mem::take(&mut self.accepted);
            return self.refuse(&accepted, Expect::Data, response);
        }
        if self.accepted.is_empty() {
            // The server wants a message although it took nobody: give it an empty one (RFC 2920 §3.1).
            self.output.extend_from_slice(END_OF_DATA);
            self.phase = Phase::EndOfData;
            if self.settings.protocol == Protocol::Smtp {
                self.awaited.push_back(Expect::Dot);
            } else {
                self.reusable = false;
            }
            return;
        }
        self.phase = Phase::Body;
        self.events.push_back(Event::Body);
    }

    /// The server is about to close the connection (RFC 5321 §3.8): nothing that is awaited will come.
    fn closing(&mut self, expect: Expect, response: &Response) {
        self.reusable = false;
        if expect == Expect::Mail && self.transactions > 1 {
            return self.spent(expect, response);
        }
        if !self.mail_refused {
            let mut open = match expect {
                Expect::DotFor(position) => vec![position],
                Expect::Rcpt(position) => [std::mem::take(&mut self.accepted), vec![position]].concat(),
                _ => std::mem::take(&mut self.accepted),
            };
            open.extend(self.open_recipients());
            self.refuse(&open, expect, response);
        }
        self.finish();
    }

    /// The connection served before and has had enough; a new one may well do.
    fn spent(&mut self, expect: Expect, response: &Response) {
        let status = self.said(expect, response);
        self.close();
        self.events.push_back(Event::Failed { status, stale: true, elsewhere: false });
    }

    /// A reply while the message is being sent: the server has made up its mind before the end of it.
    fn answered_early(&mut self, response: &Response) {
        if matches!(response.class(), 4 | 5) {
            self.reusable = false;
            let accepted = std::mem::take(&mut self.accepted);
            self.refuse(&accepted, Expect::Dot, response);
            self.finish();
        } else {
            self.violated(&format!("{} before the end of the message", response.one_line()));
        }
    }

    /// Recipients of the transaction that have no reply, sent or not.
    fn open_recipients(&self) -> Vec<usize> {
        // What follows the end of a message belongs to the next one.
        let at_end = self.phase == Phase::EndOfData;
        let position = |expect: &Expect| match expect {
            Expect::Rcpt(position) if !at_end => Some(*position),
            Expect::DotFor(position) => Some(*position),
            _ => None,
        };
        let planned = self.planned.iter().map(|(expect, _)| expect);
        self.awaited.iter().chain(planned).filter_map(position).collect()
    }

    fn verdict(&mut self, positions: &[usize], expect: Expect, response: &Response) {
        if response.class() != 2 {
            return self.refuse(positions, expect, response);
        }
        let dsn = response.dsn();
        let remote = Some(self.peer.name_address_port.as_str().into());
        let status = Status { outcome: outcome_of(dsn), dsn, text: response.one_line().into(), remote };
        self.tell(positions, &status);
    }

    fn refuse(&mut self, positions: &[usize], expect: Expect, response: &Response) {
        // Replies that say "I do not understand you" put the whole dialogue in doubt.
        if !(400..600).contains(&response.code) || response.code == 555 || (500..510).contains(&response.code) {
            self.reusable = false;
        }
        let status = self.said(expect, response);
        self.tell(positions, &status);
    }

    fn tell(&mut self, positions: &[usize], status: &Status) {
        let recipient = |position: &usize| Event::Recipient { position: *position, status: status.clone() };
        let events = if self.begun_ahead { &mut self.held } else { &mut self.events };
        events.extend(positions.iter().map(recipient));
    }

    fn said(&self, expect: Expect, response: &Response) -> Status {
        let refuses = matches!(response.class(), 4 | 5);
        let dsn = if refuses { response.dsn() } else { Enhanced { class: 5, subject: 5, detail: 0 } };
        let prefix = if refuses { "" } else { "Protocol error: " };
        let (name, said, command) = (&self.peer.name_address, response.one_line(), expect.command());
        let text = format!("{prefix}host {name} said: {said} (in reply to {command})").into();
        let remote = Some(self.peer.name_address_port.as_str().into());
        Status { outcome: outcome_of(dsn), dsn, text, remote }
    }

    fn too_large(&self, envelope: &Envelope) -> Option<Status> {
        let (limit, size) = (self.offered.size_limit?, envelope.size_octets);
        let name = &self.peer.name_address;
        let text = format!("message size {size} exceeds size limit {limit} of server {name}");
        (size > limit).then(|| refusal([3, 4], &text))
    }

    fn settle_all<'a>(&mut self, recipients: impl Iterator<Item = (usize, &'a Recipient)>, status: &Status) {
        let recipient = |(position, _)| Event::Recipient { position, status: status.clone() };
        self.events.extend(recipients.map(recipient));
        self.finish();
    }

    // Sending.

    fn plan(&mut self, expect: Expect, command: &[u8]) {
        self.commands.extend_from_slice(command);
        self.planned.push_back((expect, self.commands.len()));
    }

    /// Send what may be sent now: one command, or with PIPELINING all that the limits allow.
    fn send_commands(&mut self) {
        let mut end = self.commands_sent;
        while let Some((expect, at)) = self.planned.front().copied() {
            let room = if self.offered.pipelining {
                self.awaited.len() < PIPELINE_MAX_COMMANDS
                    && (at - self.commands_sent <= PIPELINE_MAX_OCTETS || self.awaited.is_empty())
            } else {
                self.awaited.is_empty()
            };
            if !room {
                break;
            }
            self.planned.pop_front();
            self.awaited.push_back(expect);
            end = at;
        }
        self.output.extend_from_slice(&self.commands[self.commands_sent..end]);
        self.commands_sent = end;
    }

    fn send(&mut self, hello: Expect) {
        let verb = match hello {
            Expect::Lhlo => "LHLO",
            Expect::Helo => "HELO",
            _ => "EHLO",
        };
        self.output.extend_from_slice(format!("{verb} {}\r\n", self.settings.helo_name).as_bytes());
        self.awaited.push_back(hello);
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

    /// Bytes that nothing asked for: with a transaction just finished, its verdicts stand all the same.
    fn spoke_unasked(&mut self) {
        self.close();
        let text = format!("host {} spoke out of turn", self.peer.name_address);
        let status = deferral([5, 0], &text);
        // The transaction that just ended, if its end was not taken yet, leaves no reusable connection.
        if let Some(Event::Finished { reusable }) = self.events.back_mut() {
            *reusable = false;
            return;
        }
        self.output.clear();
        self.events.retain(|event| !matches!(event, Event::Ready | Event::Body));
        self.events.push_back(Event::Failed { status, stale: false, elsewhere: false });
    }

    fn violated(&mut self, what: &str) {
        let text = format!("Protocol error: host {} sent {what}", self.peer.name_address);
        self.fail(Enhanced { class: 4, subject: 5, detail: 0 }, text);
    }

    fn fail(&mut self, dsn: Enhanced, text: String) {
        if self.phase == Phase::Closed {
            return;
        }
        let stale = self.phase == Phase::Idle || (self.transactions > 1 && !self.answered && self.phase != Phase::Body);
        self.close();
        let status = Status { outcome: outcome_of(dsn), dsn, text: text.into(), remote: None };
        self.events.push_back(Event::Failed { status, stale, elsewhere: false });
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.held.clear();
        self.awaited.clear();
        self.planned.clear();
        self.deadline = None;
    }

    fn stage(&self) -> &'static str {
        match (self.phase, self.awaited.front()) {
            (Phase::Body, _) => "sending message body",
            (_, Some(expect)) => expect.stage(),
            (_, None) => "waiting for more mail",
        }
    }

    fn set_deadline(&mut self, now: f64) {
        let timeouts = &self.settings.timeouts;
        let timeout_s = match (self.phase, self.awaited.front()) {
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
