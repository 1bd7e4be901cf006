//! A session and the question that is open in it.
//!
//! Each call says in one number what the owner does next: `IDLE` and below, or a question's number. At most one
//! question is open; what the client says meanwhile waits. A recipient that was accepted a moment ago is accepted
//! again without a question.

use crate::clock::wall_now_us;
use crate::mail::reply::Reply;
use crate::net::Dialogue;
use crate::smtp::server::command::Verb;
use crate::smtp::server::{Question, plain_reply};
use crate::smtpd::accepted::Accepted;
use crate::smtpd::session::{Session, Turn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Write the output, and wait.
pub const IDLE: i8 = 0;
/// The session has ended: write the output and close.
pub const ENDED: i8 = -1;
/// It sleeps until its deadline; then `timeout`.
pub const SLEEPING: i8 = -2;
/// Read no more until something was answered.
pub const FULL: i8 = -3;
/// HELO or EHLO is in question.
pub const HELO: i8 = 1;
/// MAIL is.
pub const MAIL: i8 = 2;
/// A recipient is.
pub const RCPT: i8 = 3;
/// VRFY is.
pub const VRFY: i8 = 4;
/// DATA is, or a message's first BDAT.
pub const DATA: i8 = 5;
/// A stand-alone session has a whole message: `take_message` and `stored`.
pub const MESSAGE: i8 = 6;
/// A whole content is in question.
pub const CONTENT: i8 = 7;
/// What is to be said to RSET?
pub const RSET: i8 = 8;
/// To NOOP?
pub const NOOP: i8 = 9;
/// To QUIT?
pub const QUIT: i8 = 10;
/// To AUTH, or to the client's answer to a challenge?
pub const AUTH: i8 = 11;

/// What the owner was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Question(Question),
    /// Is the whole content to be taken?
    Judgement,
}

/// What is remembered of recipients, for the group that the client is in.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Shared by all sessions of a process.
    pub accepted: Arc<Accepted>,
    /// The client's group.
    pub group: u8,
}

/// A session, shared by the one that moves its bytes and the one that answers its questions.
pub type Shared = Arc<Mutex<Conversation>>;

/// One client's session with its open question.
pub struct Conversation {
    session: Session,
    open: Option<Open>,
    memory: Option<Memory>,
}

impl Conversation {
    /// `memory`: what may be accepted without a question.
    pub fn new(session: Session, memory: Option<Memory>) -> Self {
        Self { session, open: None, memory }
    }

    /// The session, for what it knows.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The session, for what asks nothing.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The group of the client, if what it may do is remembered.
    pub fn group(&self) -> Option<u8> {
        let is_user = self.session.server().identity().is_some();
        self.memory.as_ref().filter(|_| !is_user).map(|memory| memory.group)
    }

    /// Say `220`.
    pub fn greet(&mut self, now: f64) -> i8 {
        self.session.greet(now);
        self.turn(now)
    }

    /// Say `reply` in place of the greeting; see `Server::refuse`.
    pub fn refuse(&mut self, reply: &Reply, now: f64) -> i8 {
        self.session.refuse(reply, now);
        self.turn(now)
    }

    /// Say 421 in place of the greeting, and end.
    pub fn turn_away(&mut self, text: &str, now: f64) -> i8 {
        self.session.turn_away(text, now);
        self.turn(now)
    }

    /// Take bytes as they came.
    pub fn receive(&mut self, bytes: &[u8], now: f64) -> i8 {
        self.session.receive(bytes, now);
        self.turn(now)
    }

    /// No more bytes will come.
    pub fn eof(&mut self, now: f64) -> i8 {
        self.session.eof();
        self.turn(now)
    }

    /// Answer the open question with yes, in the dialogue's own words. `None`: no question is open.
    pub fn accept(&mut self, now: f64) -> Option<i8> {
        let reply = match self.open? {
            Open::Judgement => None,
            Open::Question(Question::Helo) => Some(Reply::bare(250, "")),
            Open::Question(Question::Mail) => Some(Reply::new(250, [1, 0], "Ok")),
            Open::Question(Question::Rcpt) => Some(recipient_accepted()),
            Open::Question(Question::Vrfy) => Some(Reply::new(252, [0, 0], "")),
            Open::Question(Question::Data) => Some(Reply::bare(354, "")),
            Open::Question(Question::Plain(verb)) => Some(plain_reply(verb)),
            Open::Question(Question::Auth) => Some(Reply::new(235, [7, 0], "Authentication successful")),
        };
        self.answer(reply.as_ref(), now)
    }

    /// Answer the open question. `None`: none is open.
    pub fn reply(&mut self, reply: &Reply, now: f64) -> Option<i8> {
        self.answer(Some(reply), now)
    }

    fn answer(&mut self, reply: Option<&Reply>, now: f64) -> Option<i8> {
        let open = self.open.take()?;
        if self.session.server().ended().is_some() {
            // It ended while its owner made up its mind.
            return Some(self.turn(now));
        }
        match (open, reply) {
            (Open::Judgement, refusal) => self.session.judge(refusal, now),
            (Open::Question(question), Some(reply)) => self.session.reply(question, reply, now, wall_now_us()),
            (Open::Question(_), None) => {}
        }
        Some(self.turn(now))
    }

    /// The journal has settled the commit: `error` is the text of the reply that a failure asks for.
    pub fn committed(&mut self, error: Option<&str>, now: f64) -> i8 {
        self.session.committed(error, now);
        self.turn(now)
    }

    /// A stand-alone session's message is stored, or is not; see `Session::stored`.
    pub fn stored(&mut self, id: &str, error: Option<&str>, now: f64) -> i8 {
        self.session.stored(id, error, now);
        self.turn(now)
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: f64) -> i8 {
        self.session.timeout(now);
        self.turn(now)
    }

    /// The service stops; see `Server::shut_down`.
    pub fn shut_down(&mut self, now: f64) -> bool {
        let may_close = self.session.shut_down(now);
        self.turn(now);
        may_close
    }

    fn turn(&mut self, now: f64) -> i8 {
        // Each round uses up a command of the input, which is bounded.
        loop {
            let turn = self.session.next(now, wall_now_us());
            match turn {
                Turn::Ask(Question::Rcpt) if self.remembers(now) => {
                    self.session.reply(Question::Rcpt, &recipient_accepted(), now, wall_now_us());
                }
                Turn::Ask(question) => {
                    self.open = Some(Open::Question(question));
                    return number(question);
                }
                Turn::Judge => {
                    self.open = Some(Open::Judgement);
                    return CONTENT;
                }
                Turn::Message => return MESSAGE,
                Turn::Idle => return self.at_rest(),
            }
        }
    }

    fn at_rest(&self) -> i8 {
        let server = self.session.server();
        if server.is_sleeping() {
            SLEEPING
        } else if server.ended().is_some() {
            ENDED
        } else if server.wants_input() {
            IDLE
        } else {
            FULL
        }
    }

    fn remembers(&self, now: f64) -> bool {
        if self.session.server().identity().is_some() {
            // What a user may do is not what the group of its address may.
            return false;
        }
        let recipient = self.session.server().recipient();
        let remembered = |memory: &Memory| recipient.is_some_and(|to| memory.accepted.has(memory.group, to, now));
        self.memory.as_ref().is_some_and(remembered)
    }
}

/// The session behind a lock that nobody holds for long.
pub fn lock(shared: &Shared) -> MutexGuard<'_, Conversation> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dialogue for Shared {
    fn receive(&mut self, octets: &[u8], now: f64) -> i8 {
        lock(self).receive(octets, now)
    }

    fn take_output(&mut self) -> Option<Vec<u8>> {
        lock(self).session.take_output()
    }

    fn wants_input(&self) -> bool {
        lock(self).at_rest() == IDLE
    }

    fn lost(&mut self) {
        lock(self).session.lost();
    }
}

/// A question's number, the same for all owners.
fn number(question: Question) -> i8 {
    match question {
        Question::Helo => HELO,
        Question::Mail => MAIL,
        Question::Rcpt => RCPT,
        Question::Vrfy => VRFY,
        Question::Data => DATA,
        Question::Plain(Verb::Rset) => RSET,
        Question::Plain(Verb::Quit) => QUIT,
        Question::Plain(_) => NOOP,
        Question::Auth => AUTH,
    }
}

fn recipient_accepted() -> Reply {
    Reply::new(250, [1, 5], "Ok")
}
