//! One client's session: the dialogue, its open question, its messages on their way into the queue, its log (smtpd(8)).
//!
//! Octets and time go in, octets and a `Next` come out. The owner moves octets, answers the open question, and passes
//! the journal's results on; `250` goes out only after `committed`. At most one question is open; input behind it
//! waits. Log lines are Postfix's word for word, because pflogsumm and fail2ban read them.
//!
//! ```text
//! recipient   the recipient in question, when it needs no question to the owner
//! message     a message on its way through cleanup into the journal
//! secure      TLS: its channel, and the steps behind the handshake
//! ```

mod message;
mod recipient;
mod secure;

use crate::ask::{Answer, Lookup};
use crate::mail::reply::Reply;
use crate::net::Dialogue;
use crate::smtp::server::{Event, Next, Server};
use crate::smtpd::accepted::Accepted;
use crate::smtpd::listing::Listing;
use crate::smtpd::site::{Client, Site};
use crate::tls::{Channel, Facts, Failure};
use message::{Content, error_reply};
use recipient::Recipients;
use secure::Secure;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// The cache of accepted recipients, for one client.
#[derive(Debug, Clone)]
pub struct Memory {
    /// All sessions of a process share it.
    pub accepted: Arc<Accepted>,
    /// The client's group.
    pub group: u8,
}

/// A session, shared by the service that moves its octets and the owner that answers its questions.
pub type Shared = Arc<Mutex<Session>>;

/// A session.
pub struct Session {
    site: Arc<Site>,
    client: Client,
    log_name: Box<str>,
    server: Server,
    content: Content,
    ticket: u64,
    /// A copy of the content for the owner, in wire form.
    copy: Vec<u8>,
    /// The length of a message that came by BDAT: the reply says it.
    chunked_octets: Option<u64>,
    open: Option<Next>,
    /// The time when lookups of an arriving message were asked for, and how long earlier ones of it took.
    waits: Waits,
    memory: Option<Memory>,
    /// The lookups for the recipient in question, and the answers so far.
    recipients: Recipients,
    secure: Secure,
    has_logged_end: bool,
}

/// The waits of one message for the tables of its checks, while it arrives.
#[derive(Debug, Clone, Copy, Default)]
struct Waits {
    since: f64,
    total_s: f64,
}

/// Longest time that a message waits for the tables of its checks while it arrives, as `answers.py` has it for the rest.
const WAITS_MAX_S: f64 = 100.0;

impl Session {
    /// A session with `client`, whose commits carry `ticket`. Logs `connect from`. Nothing is said before `greet`.
    ///
    /// `memory`: the recipients that need no question; `None` if each needs one.
    pub fn new(site: Arc<Site>, client: Client, memory: Option<Memory>, ticket: u64, now: f64) -> Self {
        let log_name = client.log_name(site.settings.log_client_port);
        let server = Server::new(Arc::clone(&site.server), &log_name, client.bare_newline_spared, now);
        site.log.info(format_args!("connect from {log_name}"));
        Self {
            site,
            client,
            log_name: log_name.into(),
            server,
            content: Content::None,
            ticket,
            copy: Vec::new(),
            chunked_octets: None,
            open: None,
            waits: Waits::default(),
            memory,
            recipients: Recipients::default(),
            secure: Secure::default(),
            has_logged_end: false,
        }
    }

    /// Take octets as they came.
    pub fn receive(&mut self, octets: &[u8], now: f64) -> Next {
        self.server.receive(octets, now);
        self.poll(now)
    }

    /// No more octets will come; the input before is still answered.
    pub fn eof(&mut self, now: f64) -> Next {
        self.server.eof();
        self.poll(now)
    }

    /// Accept, in the dialogue's own words. `None`: no question is open.
    pub fn accept(&mut self, now: f64) -> Option<Next> {
        self.answer(None, now)
    }

    /// Answer the open question; a reply below 400 accepts. `None`: no question is open.
    ///
    /// The replies that accept a message's content, DATA and end of data, are the session's own.
    pub fn reply(&mut self, reply: &Reply, now: f64) -> Option<Next> {
        self.answer(Some(reply), now)
    }

    /// Take the lookups of the open question `Next::Lookup`. `answer_lookups` takes their answers.
    pub fn lookups(&mut self) -> Vec<Lookup> {
        if self.open != Some(Next::Lookup) {
            return Vec::new();
        }
        match &mut self.content {
            _ if self.recipients.are_waiting() => self.recipients.asks(),
            Content::Asking(intake) | Content::Arriving(intake) => intake.asks(),
            Content::None | Content::Committing(_) | Content::Kept(_) => Vec::new(),
        }
    }

    /// Answer the question `Next::Lookup`. `None`: it is not open.
    pub fn answer_lookups(&mut self, answers: Vec<(Lookup, Answer)>, now: f64) -> Option<Next> {
        self.open.take_if(|open| *open == Next::Lookup)?;
        if self.recipients.are_waiting() {
            return Some(self.answer_recipient(answers, now));
        }
        match std::mem::replace(&mut self.content, Content::None) {
            // The client may be gone.
            Content::Asking(_) | Content::Arriving(_) if self.server.ended().is_some() => {}
            Content::Arriving(mut intake) => {
                let waited_s = now - self.waits.since;
                self.waits.total_s += waited_s;
                // The client did not let us wait.
                self.server.extend(waited_s);
                let is_late = self.waits.total_s >= WAITS_MAX_S;
                for (lookup, answer) in answers {
                    let late = || format!("the message needs more than {WAITS_MAX_S} seconds for its lookups");
                    intake.answer(&lookup, if is_late { Answer::Failed(late().into()) } else { answer });
                }
                self.content = Content::Arriving(intake);
            }
            Content::Asking(mut intake) => {
                answers.into_iter().for_each(|(lookup, answer)| intake.answer(&lookup, answer));
                self.commit(intake, now);
            }
            other => self.content = other,
        }
        Some(self.poll(now))
    }

    /// The journal has written the commit, or has failed: `error` is the text of the reply.
    pub fn committed(&mut self, error: Option<&str>, now: f64) -> Next {
        self.finish_commit(error, now);
        self.poll(now)
    }

    /// The message of a stand-alone session is stored as `id`, or is not (`error`: the text of the reply).
    pub fn stored(&mut self, id: &str, error: Option<&str>, now: f64) -> Next {
        let reply = error.map_or_else(|| self.queued_reply(id), error_reply);
        self.server.reply(&reply, now);
        self.poll(now)
    }

    /// Time has passed; see `Server::timeout`.
    pub fn timeout(&mut self, now: f64) -> Next {
        if self.checks_are_asked() {
            // The client waits for us. It gets the time back with the answers.
            return self.resting();
        }
        self.server.timeout(now);
        if self.server.ended().is_some() {
            self.content = Content::None;
        }
        self.poll(now)
    }

    /// The service stops; see `Server::shut_down`.
    pub fn shut_down(&mut self, now: f64) -> bool {
        let may_close = self.server.shut_down(now);
        self.poll(now);
        may_close
    }

    /// The connection is gone. A running commit goes on.
    pub fn lost(&mut self) {
        if let Content::Arriving(_) | Content::Asking(_) = self.content {
            self.content = Content::None;
            self.copy = Vec::new();
        }
        self.recipients = Recipients::default();
        self.server.lost();
        self.log_end();
    }

    /// A reply of 235 to the open question means this user; see `Server::authenticate`.
    pub fn authenticate(&mut self, method: &str, user: &str) {
        self.server.authenticate(method, user);
    }

    /// The whole content in wire form, while it is in question.
    pub fn content(&self) -> &[u8] {
        &self.copy
    }

    /// The message of a stand-alone session, in wire form.
    pub fn take_message(&mut self) -> Vec<u8> {
        match std::mem::replace(&mut self.content, Content::None) {
            Content::Kept(content) => content,
            other => {
                self.content = other;
                Vec::new()
            }
        }
    }

    /// The octets to be written since the last call.
    pub fn take_output(&mut self) -> Option<Vec<u8>> {
        self.server.take_output()
    }

    /// The dialogue, for its state and its deadline.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The reply to EHLO, without codes.
    pub fn ehlo_text(&self) -> String {
        self.site.server.ehlo_text(self.server.is_secured())
    }

    /// The client's group, if its recipients are remembered. A user has rights of its own.
    pub fn group(&self) -> Option<u8> {
        let is_user = self.server.identity().is_some();
        self.memory.as_ref().filter(|_| !is_user).map(|memory| memory.group)
    }

    /// While `Next::Rcpt` is open: the listing whose tables do not have the recipient. `None`: they were not asked.
    pub fn unlisted(&self) -> Option<Listing> {
        (self.open == Some(Next::Rcpt)).then(|| self.recipients.unlisted()).flatten()
    }

    /// Whether the journal holds a message of this session.
    pub fn is_committing(&self) -> bool {
        matches!(self.content, Content::Committing(_))
    }

    /// Answer the lookups for the recipient in question.
    fn answer_recipient(&mut self, answers: Vec<(Lookup, Answer)>, now: f64) -> Next {
        self.recipients.answer(answers);
        let question = match self.go_on_with_recipient() {
            // The client may be gone.
            _ if self.server.ended().is_some() => {
                self.recipients.forget();
                return self.poll(now);
            }
            Poll::Ready(true) => {
                self.server.reply(&Next::Rcpt.acceptance(), now);
                return self.poll(now);
            }
            Poll::Ready(false) => Next::Rcpt,
            Poll::Pending => Next::Lookup,
        };
        self.open = Some(question);
        question
    }

    fn answer(&mut self, reply: Option<&Reply>, now: f64) -> Option<Next> {
        let question = self.open.take_if(|open| *open != Next::Lookup)?;
        // The session may have ended while the owner decided.
        if self.server.ended().is_none() {
            let refusal = reply.filter(|reply| reply.code >= 400);
            match (question, refusal) {
                (Next::EndOfData, _) => self.end_content(refusal, now),
                (Next::Data, None) => self.begin_data(now),
                _ => match reply {
                    Some(reply) => self.server.reply(reply, now),
                    None => self.server.reply(&question.acceptance(), now),
                },
            }
        }
        Some(self.poll(now))
    }

    /// Go on until the owner must do something. Each round uses up a command of the input, which is bounded.
    fn poll(&mut self, now: f64) -> Next {
        let question = loop {
            match self.next_event() {
                Event::Idle if self.has_lookups() => {
                    self.waits.since = now;
                    break Next::Lookup;
                }
                Event::Idle => return self.rest(),
                Event::Log(severity, line) => self.site.log.line(severity, format_args!("{line}")),
                Event::Ask(Next::Data) if !self.site.asks_data => self.begin_data(now),
                Event::Ask(Next::Rcpt) => match self.is_accepted(now) {
                    Poll::Ready(true) => self.server.reply(&Next::Rcpt.acceptance(), now),
                    Poll::Ready(false) => break Next::Rcpt,
                    Poll::Pending => break Next::Lookup,
                },
                Event::Ask(question) => break question,
                Event::StartTls => self.start_tls(now),
                Event::Switch => return Next::StartTls,
                Event::EndOfData(end) => {
                    if let Some(next) = self.end_of_data(end, now) {
                        break next;
                    }
                }
            }
        };
        if question != Next::Message {
            self.open = Some(question);
        }
        question
    }

    fn next_event(&mut self) -> Event {
        let (content, copy) = (&mut self.content, &mut self.copy);
        let copies = self.site.asks_content;
        self.server.next_event(|octets| match content {
            Content::Arriving(intake) => {
                if copies {
                    copy.extend_from_slice(octets);
                }
                intake.feed(octets);
            }
            Content::Kept(kept) => kept.extend_from_slice(octets),
            Content::None | Content::Asking(_) | Content::Committing(_) => {}
        })
    }

    /// Whether the message waits for answers that nobody was asked for yet.
    fn has_lookups(&self) -> bool {
        let waits = match &self.content {
            Content::Asking(_) => true,
            Content::Arriving(intake) => intake.is_waiting() && self.server.is_receiving(),
            Content::None | Content::Committing(_) | Content::Kept(_) => false,
        };
        waits && self.open.is_none() && self.server.ended().is_none()
    }

    /// Whether an arriving message waits for its lookups: more of it would have to wait in memory.
    fn checks_are_asked(&self) -> bool {
        self.open == Some(Next::Lookup) && matches!(self.content, Content::Arriving(_))
    }

    /// The dialogue waits: say how.
    fn rest(&mut self) -> Next {
        if !self.server.is_receiving() && matches!(self.content, Content::Arriving(_) | Content::Kept(_)) {
            // RSET between two chunks, or a refused chunk.
            self.content = Content::None;
            self.copy = Vec::new();
        }
        if self.server.transaction().is_none() {
            self.recipients.end_transaction();
        }
        if self.server.ended().is_some() {
            self.log_end();
        }
        self.resting()
    }

    fn resting(&self) -> Next {
        if self.server.is_sleeping() {
            Next::Sleep
        } else if self.server.ended().is_some() {
            Next::Close
        } else if self.server.wants_input() && !self.checks_are_asked() {
            Next::Idle
        } else {
            Next::Full
        }
    }

    /// Log how the session ended: at most one `lost connection after` and one `disconnect from`.
    fn log_end(&mut self) {
        if std::mem::replace(&mut self.has_logged_end, true) {
            return;
        }
        if let Content::Arriving(_) | Content::Asking(_) = self.content {
            self.content = Content::None;
        }
        let log = &self.site.log;
        // Behind a message nothing is lost.
        if let Some(reason) = self.server.ended().and_then(|ending| ending.reason())
            && !self.server.is_behind_message()
        {
            log.info(format_args!("{reason} after {} from {}", self.server.place(), self.log_name));
        }
        log.info(format_args!("disconnect from {}{}", self.log_name, self.server.counts()));
    }
}

impl Drop for Session {
    /// Every `connect` line in the log has a `disconnect` line.
    fn drop(&mut self) {
        if !self.has_logged_end {
            self.lost();
        }
    }
}

/// The session behind its lock, which is held for the time of one call.
pub fn lock(shared: &Shared) -> MutexGuard<'_, Session> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dialogue for Shared {
    type Next = Next;

    fn is_idle(next: Next) -> bool {
        next == Next::Idle
    }

    fn is_question(next: Next) -> bool {
        next.waits_for_owner()
    }

    fn receive(&mut self, octets: &[u8], now: f64) -> Next {
        lock(self).receive(octets, now)
    }

    fn take_output(&mut self) -> Option<Vec<u8>> {
        lock(self).take_output()
    }

    fn wants_input(&self) -> bool {
        lock(self).resting() == Next::Idle
    }

    fn lost(&mut self) {
        lock(self).lost();
    }

    fn take_channel(&mut self) -> Option<Channel> {
        lock(self).secure.channel.take()
    }

    fn secured(&mut self, facts: Box<Facts>, now: f64) -> Next {
        lock(self).secured(facts, now)
    }

    fn insecure(&mut self, failure: &Failure, now: f64) -> Next {
        lock(self).insecure(failure, now)
    }
}
