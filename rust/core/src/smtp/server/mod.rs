//! The server's half of the SMTP dialogue (RFC 5321), with Postfix's replies, limits and log lines.
//!
//! Octets and `now` go in by `receive`; `next_event` returns the next question; `reply` answers it; `take_output` returns
//! the octets to be written. At most one question is open, so pipelined replies stay in order (RFC 2920 §3.2). The order
//! of checks on a command is Postfix's. Content goes to the closure of `next_event`, in runs. docs/dialogue.md has the
//! states.

mod auth;
mod bdat;
pub mod chunk;
pub mod command;
mod commands;
pub mod config;
mod content;
pub mod data;
mod deadline;
pub mod intake;
mod line;
mod next;
mod starttls;
#[cfg(test)]
mod tests;
pub mod whole;

pub use auth::Identity;
pub use next::Next;

use crate::log::Severity;
use crate::mail::envelope::Recipient;
use crate::mail::reply::Reply;
use bdat::{Chunk, Chunks};
use command::{MailArguments, VERBS, Verb, rcpt_parameters};
use config::{BareNewline, ServerConfig};
use data::{DataReader, Ending as DataEnding};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

/// Maximum number of octets of unread input. Above it the owner stops reading until a question is answered.
pub const READ_AHEAD_MAX_OCTETS: usize = 64 * 1024;

/// An event for the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Write the output; then wait for octets, for `deadline`, or for the answer to the open question.
    Idle,
    /// Decide, then `reply`. Never a step without a question, nor `EndOfData` or `Message`.
    Ask(Next),
    /// The content is complete: store it, then `reply`.
    EndOfData(EndOfData),
    /// The client wants TLS: answer by `start_tls` or `refuse_tls`.
    StartTls,
    /// Write the output; all octets behind it are TLS.
    Switch,
    /// Write a log line.
    Log(Severity, String),
}

/// The facts about a complete content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfData {
    /// Octets of the message, line ends as CRLF; those of DATA as received, dot-stuffing included.
    pub octets: u64,
    /// It arrived by BDAT.
    pub chunked: bool,
    /// The reason not to store the content.
    pub fault: Option<ContentFault>,
}

/// The reason not to store a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentFault {
    /// Longer than `message_size_limit`.
    TooLarge,
    /// It has LF without CR, and `smtpd_forbid_bare_newline = reject`.
    BareNewline,
}

/// The end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// QUIT, or the server closed it for a reason that is in the log already.
    Orderly,
    /// The client went away.
    Lost,
    /// The client was silent for too long.
    Timeout,
    /// `smtpd_hard_error_limit`
    TooManyErrors,
}

impl Ending {
    /// Return the start of the log line `lost connection after ...`; `None` for an orderly end.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Orderly => None,
            Self::Lost => Some("lost connection"),
            Self::Timeout => Some("timeout"),
            Self::TooManyErrors => Some("too many errors"),
        }
    }
}

/// The current message: the arguments of MAIL and of the accepted RCPTs.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    /// The arguments of MAIL.
    pub mail: MailArguments,
    /// The accepted recipients.
    pub recipients: Vec<Recipient>,
}

/// The question to the owner, with the parsed command.
#[derive(Debug)]
enum Pending {
    Helo {
        name: String,
        verb: Verb,
    },
    Mail(Box<MailArguments>),
    Rcpt(Recipient),
    Vrfy {
        argument: String,
        recipient: Recipient,
    },
    Plain {
        verb: Verb,
        argument: String,
    },
    /// AUTH and its arguments, or a line of the exchange; and the user on success.
    Auth {
        said: String,
        identity: Option<Identity>,
    },
    /// DATA, or a message's first BDAT with its chunk.
    Data(Option<Chunk>),
    EndOfData,
}

impl Pending {
    /// Return the question in the owner's form.
    fn question(&self) -> Next {
        match self {
            Self::Helo { .. } => Next::Helo,
            Self::Mail(_) => Next::Mail,
            Self::Rcpt(_) => Next::Rcpt,
            Self::Vrfy { .. } => Next::Vrfy,
            Self::Plain { verb, .. } => commands::question_about(*verb),
            Self::Auth { .. } => Next::Auth,
            Self::Data(_) => Next::Data,
            Self::EndOfData => Next::EndOfData,
        }
    }
}

#[derive(Debug)]
enum Mode {
    Greeting,
    Command,
    SkippingLine,
    /// A challenge was sent.
    Auth,
    /// STARTTLS has come.
    Handshake(Handshake),
    Waiting(Pending),
    Data(DataReader),
    Chunk(Chunk),
    Closed(Ending),
}

/// The progress of STARTTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handshake {
    /// The owner does not know yet.
    Wanted,
    /// The owner has been asked.
    Asked,
    /// 220 is in the output, perhaps after a sleep.
    Accepted,
    /// All octets are TLS.
    Begun,
}

/// The position in the dialogue, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Connect,
    Command(Verb),
    Content,
    Chunk,
    EndOfMessage,
}

/// One session.
#[derive(Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    peer: Box<str>,
    bare_newline: BareNewline,
    mode: Mode,
    place: Position,
    input: Vec<u8>,
    start: usize,
    scanned: usize,
    line: String,
    output: Vec<u8>,
    log: VecDeque<(Severity, String)>,
    helo: Option<Box<str>>,
    esmtp: bool,
    identity: Option<Identity>,
    transaction: Option<Box<Transaction>>,
    chunks: Option<Chunks>,
    content_octets: u64,
    bare_newline_seen: bool,
    counts: [(u32, u32); VERBS],
    transactions: u32,
    errors: u32,
    junk: u32,
    overshoot: u32,
    talked_early: bool,
    denied: bool,
    /// The banner was sent, or its refusal.
    greeted: bool,
    /// TLS has begun.
    secured: bool,
    /// The reply to the next command, whichever it is; then the session ends.
    last_reply: Option<Reply>,
    eof: bool,
    now: f64,
    deadline: f64,
    resume_at: Option<f64>,
}

impl Server {
    /// Return a session with `peer` (`name[address]`, for the log). It is silent until `greet`.
    ///
    /// `spared`: the client is among `smtpd_forbid_bare_newline_exclusions`, so LF alone is neither noted nor refused.
    /// Its messages still end only at CRLF.CRLF, except with `smtpd_forbid_bare_newline = no`: smuggled messages arrive
    /// through forwarders inside one's own networks.
    pub fn new(config: Arc<ServerConfig>, peer: &str, spared: bool, now: f64) -> Self {
        let bare_newline = match config.bare_newline {
            BareNewline::Note | BareNewline::Reject if spared => BareNewline::Normalize,
            mode => mode,
        };
        let deadline = now + config.timeout_s;
        Self {
            config,
            peer: peer.into(),
            bare_newline,
            mode: Mode::Greeting,
            place: Position::Connect,
            input: Vec::new(),
            start: 0,
            scanned: 0,
            line: String::new(),
            output: Vec::new(),
            log: VecDeque::new(),
            helo: None,
            esmtp: false,
            identity: None,
            transaction: None,
            chunks: None,
            content_octets: 0,
            bare_newline_seen: false,
            counts: [(0, 0); VERBS],
            transactions: 0,
            errors: 0,
            junk: 0,
            overshoot: 0,
            talked_early: false,
            denied: false,
            greeted: false,
            secured: false,
            last_reply: None,
            eof: false,
            now,
            deadline,
            resume_at: None,
        }
    }

    /// Send `220`; or `554` if the client sent something first and that is forbidden.
    pub fn greet(&mut self, now: f64) {
        self.now = now;
        self.mode = Mode::Command;
        self.greeted = true;
        if self.unread() > 0 && !self.may_talk_early() {
            return;
        }
        let banner = Reply::bare(220, self.config.banner.as_str());
        self.put(&banner);
    }

    /// Send `reply` in place of the greeting. A 421 or 521 closes; after another refusal only QUIT is accepted.
    pub fn refuse(&mut self, reply: &Reply, now: f64) {
        self.now = now;
        self.mode = Mode::Command;
        self.greeted = true;
        self.denied = true;
        self.log_reject("CONNECT", reply, None, None);
        self.put(reply);
        self.close_on_421(reply);
    }

    /// Send 421 in place of the greeting, and close. The caller has logged the reason.
    pub fn dismiss(&mut self, text: &str, now: f64) {
        self.now = now;
        let reply = Reply::new(421, [7, 0], format!("{} {text}", self.config.myhostname));
        self.put(&reply);
        self.close(Ending::Orderly);
    }

    /// Append octets from the client; never parses, never fails.
    pub fn receive(&mut self, bytes: &[u8], now: f64) {
        self.now = now;
        if let Mode::Closed(_) = self.mode {
            return;
        }
        self.extend_deadline(bytes.len());
        if self.start > 0 {
            self.input.drain(..self.start);
            self.scanned = self.scanned.saturating_sub(self.start);
            self.start = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// Note the end of the input. The input before it is still answered.
    pub fn eof(&mut self) {
        self.eof = true;
    }

    /// Return the next event; call until it is `Idle`. `content` receives the message's content in wire form.
    pub fn next_event(&mut self, mut content: impl FnMut(&[u8])) -> Event {
        loop {
            if let Some((severity, line)) = self.log.pop_front() {
                return Event::Log(severity, line);
            }
            if self.resume_at.is_some() {
                return Event::Idle;
            }
            let event = match self.mode {
                Mode::Closed(_) | Mode::Greeting | Mode::Waiting(_) => return Event::Idle,
                Mode::Command => self.next_command(),
                Mode::SkippingLine => self.skip_line(),
                Mode::Auth => self.read_auth_line(),
                Mode::Handshake(progress) => self.go_on_to_tls(progress),
                Mode::Data(_) => self.read_data(&mut content),
                Mode::Chunk(_) => self.read_chunk(&mut content),
            };
            match event {
                Step::Again => {}
                Step::Event(event) => return event,
                Step::NeedInput if !self.log.is_empty() => {}
                Step::NeedInput => {
                    if self.eof {
                        self.close(Ending::Lost);
                    }
                    return Event::Idle;
                }
            }
        }
    }

    /// Answer the open question. After `Data`, a 354 allows content.
    pub fn reply(&mut self, reply: &Reply, now: f64) {
        self.now = now;
        let Mode::Waiting(pending) = std::mem::replace(&mut self.mode, Mode::Command) else {
            debug_assert!(false, "a reply without a question");
            return;
        };
        self.extend_deadline(0);
        let accepted = reply.code < 400;
        match pending {
            Pending::Helo { name, verb } => {
                if accepted {
                    self.accept_helo(name, verb, reply);
                } else {
                    let previous = self.helo.replace(name.into());
                    self.log_reject(verb.name(), reply, None, None);
                    self.helo = previous;
                    self.put(reply);
                }
                self.done(verb, accepted);
            }
            Pending::Mail(mail) => {
                if accepted {
                    self.begin_transaction(*mail);
                } else {
                    self.log_reject("MAIL", reply, Some(mail.reverse_path.address()), None);
                }
                self.put(reply);
                self.done(Verb::Mail, accepted);
            }
            Pending::Rcpt(recipient) => {
                if accepted {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.recipients.push(recipient);
                    }
                } else {
                    let sender = self.sender().map(str::to_owned);
                    self.log_reject("RCPT", reply, sender.as_deref(), Some(&recipient.address));
                }
                self.put(reply);
                self.done(Verb::Rcpt, accepted);
            }
            Pending::Vrfy { argument, recipient } => {
                if accepted && reply.text.is_empty() {
                    self.put(&Reply::new(252, [0, 0], argument));
                } else if accepted {
                    self.put(reply);
                } else {
                    self.log_reject("VRFY", reply, None, Some(&recipient.address));
                    self.put(reply);
                }
                self.done(Verb::Vrfy, accepted);
            }
            Pending::Plain { verb, .. } => {
                self.put(reply);
                self.done(verb, accepted);
                if verb == Verb::Quit {
                    self.close(Ending::Orderly);
                }
            }
            Pending::Auth { identity, .. } => self.go_on_with_auth(identity, reply),
            Pending::Data(Some(chunk)) => self.begin_chunks(chunk, reply),
            Pending::Data(None) => {
                if reply.code == 354 {
                    let ending = match self.bare_newline {
                        BareNewline::No => DataEnding::AnyLine,
                        _ => DataEnding::Standard,
                    };
                    self.mode = Mode::Data(DataReader::new(ending));
                    self.place = Position::Content;
                    self.content_octets = 0;
                    self.bare_newline_seen = false;
                } else {
                    let sender = self.sender().map(str::to_owned);
                    self.log_reject("DATA", reply, sender.as_deref(), None);
                }
                self.put(reply);
                if reply.code != 354 {
                    self.done(Verb::Data, false);
                }
            }
            Pending::EndOfData => {
                let verb = if self.chunks.is_some() { Verb::Bdat } else { Verb::Data };
                // Accepted or refused, this message is finished: the next one starts at MAIL.
                self.reset();
                if accepted {
                    self.errors = 0;
                    self.junk = 0;
                }
                self.put(reply);
                self.done(verb, accepted);
            }
        }
        self.close_on_421(reply);
    }

    /// Return the octets to be written since the last call; `None` for nothing, or during a sleep.
    pub fn take_output(&mut self) -> Option<Vec<u8>> {
        if self.output.is_empty() || self.resume_at.is_some() { None } else { Some(std::mem::take(&mut self.output)) }
    }

    /// Note the loss of the connection. An open question or content is dropped.
    pub fn lost(&mut self) {
        self.close(Ending::Lost);
    }

    /// Return how the session ended, if it has: write the output and close the connection.
    pub fn ended(&self) -> Option<Ending> {
        if let Mode::Closed(ending) = self.mode { Some(ending) } else { None }
    }

    /// Whether there is room for more input. If not, stop reading until a question is answered.
    pub fn wants_input(&self) -> bool {
        self.unread() < READ_AHEAD_MAX_OCTETS
    }

    /// Return the client's name in HELO or EHLO, safe to print; `None` before it.
    pub fn helo(&self) -> Option<&str> {
        match &self.mode {
            Mode::Waiting(Pending::Helo { name, .. }) => Some(name),
            _ => self.helo.as_deref(),
        }
    }

    /// Return `SMTP`, `ESMTP`, or `ESMTPA` for an authenticated user (RFC 3848).
    pub fn protocol(&self) -> &'static str {
        match (self.esmtp, &self.identity) {
            (true, Some(_)) => "ESMTPA",
            (true, None) => "ESMTP",
            (false, _) => "SMTP",
        }
    }

    /// Return the same for a Received header: `S` for TLS, and another word for a message with SMTPUTF8 (RFC 6531 §4.3).
    pub fn received_protocol(&self, smtputf8: bool) -> &'static str {
        let is_user = self.identity.is_some();
        match (smtputf8, self.esmtp, self.secured, is_user) {
            (true, _, false, false) => "UTF8SMTP",
            (true, _, false, true) => "UTF8SMTPA",
            (true, _, true, false) => "UTF8SMTPS",
            (true, _, true, true) => "UTF8SMTPSA",
            (false, true, true, false) => "ESMTPS",
            (false, true, true, true) => "ESMTPSA",
            (false, _, _, _) => self.protocol(),
        }
    }

    /// Return the number of accepted MAIL commands.
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// Return the current message.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_deref()
    }

    /// Whether a message's content is on its way. Otherwise the content so far can be discarded.
    pub fn is_receiving(&self) -> bool {
        match self.mode {
            Mode::Data(_) | Mode::Waiting(Pending::EndOfData) => true,
            _ => self.chunks.as_ref().is_some_and(|chunks| !chunks.failed),
        }
    }

    /// Return the reverse path of MAIL, accepted or in question; `None` before MAIL.
    pub fn sender(&self) -> Option<&str> {
        match &self.mode {
            Mode::Waiting(Pending::Mail(mail)) => Some(mail.reverse_path.address()),
            _ => self.transaction.as_ref().map(|t| t.mail.reverse_path.address()),
        }
    }

    /// Return the recipient in question.
    pub fn recipient(&self) -> Option<&str> {
        match &self.mode {
            Mode::Waiting(Pending::Rcpt(recipient) | Pending::Vrfy { recipient, .. }) => Some(&recipient.address),
            _ => None,
        }
    }

    /// Whether the client said EHLO, not HELO.
    pub fn is_extended(&self) -> bool {
        match &self.mode {
            Mode::Waiting(Pending::Helo { verb, .. }) => *verb == Verb::Ehlo,
            _ => self.esmtp,
        }
    }

    /// Return the arguments of MAIL, accepted or in question.
    pub fn mail(&self) -> Option<&MailArguments> {
        match &self.mode {
            Mode::Waiting(Pending::Mail(mail)) => Some(mail),
            _ => self.transaction.as_ref().map(|t| &t.mail),
        }
    }

    /// Return the parameters of RCPT in question: `NOTIFY=`, `ORCPT=`.
    pub fn rcpt_parameters(&self) -> Vec<String> {
        match &self.mode {
            Mode::Waiting(Pending::Rcpt(recipient)) => rcpt_parameters(recipient),
            _ => Vec::new(),
        }
    }

    /// Return the argument of the command in question.
    pub fn argument(&self) -> &str {
        match &self.mode {
            Mode::Waiting(Pending::Plain { argument, .. } | Pending::Vrfy { argument, .. }) => argument,
            Mode::Waiting(Pending::Auth { said, .. }) => said,
            _ => "",
        }
    }

    /// Whether the client sent a command too early (`reject_unauth_pipelining`).
    pub fn talked_early(&self) -> bool {
        self.talked_early
    }

    /// Return the log's words for the position in the dialogue: `RCPT`, `DATA (12 bytes)`.
    pub fn place(&self) -> String {
        match self.place {
            Position::Connect => "CONNECT".into(),
            Position::Command(verb) => verb.name().into(),
            Position::Content => format!("DATA ({} bytes)", self.content_octets),
            Position::Chunk => format!("BDAT ({} bytes)", self.content_octets),
            Position::EndOfMessage => "END-OF-MESSAGE".into(),
        }
    }

    /// Whether the last thing that the client has sent is the end of a message.
    pub fn is_behind_message(&self) -> bool {
        self.place == Position::EndOfMessage
    }

    /// Return the end of the `disconnect from` line: ` ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4`.
    pub fn counts(&self) -> String {
        use std::fmt::Write;
        let mut text = String::with_capacity(96);
        let mut write = |name: &str, (succeeded, total): (u32, u32)| {
            let _ = write!(text, " {name}={succeeded}");
            if succeeded != total {
                let _ = write!(text, "/{total}");
            }
        };
        let mut sum = (0, 0);
        for verb in Verb::all() {
            let (succeeded, total) = self.counts[verb as usize];
            if total > 0 {
                write(&verb.name().to_ascii_lowercase(), (succeeded, total));
                sum = (sum.0 + succeeded, sum.1 + total);
            }
        }
        write("commands", sum);
        text
    }

    fn unread(&self) -> usize {
        self.input.len() - self.start
    }

    /// Send the answer to a command, and count it.
    fn answer(&mut self, verb: Verb, reply: Reply) {
        self.put(&reply);
        self.done(verb, reply.code < 400);
    }

    fn done(&mut self, verb: Verb, succeeded: bool) {
        if succeeded {
            self.counts[verb as usize].0 += 1;
        } else {
            self.errors += 1;
        }
        if verb.is_junk() {
            self.count_junk();
        }
    }

    fn count_junk(&mut self) {
        // The first one above the limit is free, as in Postfix: under stress the limit is 1, and a client says EHLO before
        // STARTTLS and behind it.
        if self.junk > self.config.junk_command_limit {
            self.errors += 1;
        }
        self.junk += 1;
    }

    /// Drop the current message (RFC 5321 §4.1.1.5).
    fn reset(&mut self) {
        self.transaction = None;
        self.chunks = None;
        self.overshoot = 0;
    }

    /// Queue a reply. A client with many errors has to wait for it.
    fn put(&mut self, reply: &Reply) {
        self.as_said(reply).render(&mut self.output);
        if self.errors >= self.config.soft_error_limit && self.config.error_sleep_s > 0.0 {
            self.pause(self.config.error_sleep_s, self.now);
        }
        if self.config.per_request_deadline {
            self.restart_deadline();
        }
    }

    /// Return the reply in the form for the client: `soft_bounce`.
    fn as_said<'a>(&self, reply: &'a Reply) -> Cow<'a, Reply> {
        if self.config.soft_bounce { reply.softened() } else { Cow::Borrowed(reply) }
    }

    fn close(&mut self, ending: Ending) {
        if !matches!(self.mode, Mode::Closed(_)) {
            self.mode = Mode::Closed(ending);
            self.forget_input();
        }
    }

    /// Close after 421 and 521 (RFC 5321 §3.8, RFC 7504).
    fn close_on_421(&mut self, reply: &Reply) {
        if matches!(reply.code, 421 | 521) {
            self.close(Ending::Orderly);
        }
    }

    /// Add Postfix's `NOQUEUE: reject:` line, which pflogsumm and fail2ban read.
    fn log_reject(&mut self, place: &str, reply: &Reply, sender: Option<&str>, recipient: Option<&str>) {
        use std::fmt::Write;
        let reply = self.as_said(reply);
        let mut line = format!("NOQUEUE: reject: {place} from {}: {} ", self.peer, reply.code);
        if let Some(enhanced) = reply.enhanced {
            let _ = write!(line, "{enhanced} ");
        }
        let _ = write!(line, "{};", reply.text);
        for (name, value) in [("from", sender), ("to", recipient)] {
            if let Some(value) = value {
                let _ = write!(line, " {name}=<{value}>");
            }
        }
        let _ = write!(line, " proto={}", self.protocol());
        if let Some(helo) = &self.helo {
            let _ = write!(line, " helo=<{helo}>");
        }
        self.log.push_back((Severity::Info, line));
    }
}

enum Step {
    Again,
    NeedInput,
    Event(Event),
}
