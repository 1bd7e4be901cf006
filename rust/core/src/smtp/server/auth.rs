//! AUTH (RFC 4954): the exchange between the client and the owner, which knows the mechanisms.
//!
//! The command is a question to the owner. A reply of 334 is a challenge, and the client's next line is the next
//! question. Every other reply ends the exchange; 235 authenticates the client as the user that `authenticate` has set.
//! The owner also judges lines that are no SASL answer, for example `*`.

use super::command::{MailArguments, Verb};
use super::{Ending, Event, Mode, Next, Pending, Position, Server, Step};
use crate::mail::reply::Reply;
use memchr::memchr;

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The SASL mechanism, in upper case.
    pub method: Box<str>,
    /// The user's name, safe to print.
    pub user: Box<str>,
}

impl Server {
    /// Return the user, once the client has authenticated.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Set the user for a reply of 235 to the open question.
    pub fn authenticate(&mut self, method: &str, user: &str) {
        if let Mode::Waiting(Pending::Auth { identity, .. }) = &mut self.mode {
            let printable = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
            *identity = Some(Identity { method: printable(method).into(), user: printable(user).into() });
        }
    }

    pub(super) fn auth_command(&mut self, arguments: &str) {
        let is_enabled = self.config.allows_auth(self.secured);
        let refusal = if self.helo.is_none() && (is_enabled || self.config.helo_required) {
            Reply::new(503, [5, 1], "Error: send HELO/EHLO first")
        } else if !is_enabled {
            Reply::new(503, [5, 1], "Error: authentication not enabled")
        } else if self.transaction.is_some() {
            Reply::new(503, [5, 1], "Error: MAIL transaction in progress")
        } else if self.identity.is_some() {
            Reply::new(503, [5, 1], "Error: already authenticated")
        } else if !(1..=2).contains(&arguments.split_ascii_whitespace().count()) {
            Reply::new(501, [5, 4], "Syntax: AUTH mechanism")
        } else {
            self.mode = Mode::Waiting(Pending::Auth { said: arguments.to_owned(), identity: None });
            return;
        };
        self.answer(Verb::Auth, refusal);
    }

    /// Continue after the owner's answer to a command or a line of the exchange.
    pub(super) fn go_on_with_auth(&mut self, identity: Option<Identity>, reply: &Reply) {
        self.put(reply);
        if reply.code == 334 {
            self.mode = Mode::Auth;
            return;
        }
        if reply.code == 235 {
            self.identity = identity;
        }
        self.done(Verb::Auth, reply.code == 235);
    }

    /// Read the client's next line of the exchange.
    pub(super) fn read_auth_line(&mut self) -> Step {
        let limit = self.config.auth_line_limit;
        let Some(found) = memchr(b'\n', &self.input[self.start..]) else {
            if self.unread() > limit {
                self.end_long_auth();
                return Step::Again;
            }
            return Step::NeedInput;
        };
        if found > limit {
            self.end_long_auth();
            return Step::Again;
        }
        let line = &self.input[self.start..self.start + found];
        let said = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
        self.start += found + 1;
        self.mode = Mode::Waiting(Pending::Auth { said, identity: None });
        Step::Event(Event::Ask(Next::Auth))
    }

    /// End the exchange after an overlong line. Its rest must not be read as commands.
    fn end_long_auth(&mut self) {
        self.put(&Reply::new(500, [5, 6], "Authentication Exchange line is too long"));
        self.done(Verb::Auth, false);
        self.place = Position::Command(Verb::Auth);
        self.close(Ending::Orderly);
    }

    /// Return MAIL's arguments with the AUTH= sender that the server accepts: a client that has not authenticated
    /// speaks for nobody (RFC 4954 §5).
    pub(super) fn believed(&self, mut mail: MailArguments) -> MailArguments {
        if self.identity.is_none() {
            mail.auth = mail.auth.map(|_| "<>".into());
        }
        mail
    }
}
