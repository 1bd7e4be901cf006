//! STARTTLS (RFC 3207): the owner begins TLS, and the server forgets what the client has said before.

use super::command::Verb;
use super::{Ending, Event, Handshake, Mode, Server, Step};
use crate::log::Severity;
use crate::mail::reply::Reply;
use crate::tls::settings::Level;

impl Server {
    pub(super) fn starttls_command(&mut self, arguments: &str) {
        let is_offered = self.config.tls != Level::Off && !self.config.discards("STARTTLS");
        let refusal = if !arguments.is_empty() {
            Reply::new(501, [5, 4], "Syntax: STARTTLS")
        } else if self.secured {
            Reply::new(554, [5, 1], "Error: TLS already active")
        } else if !is_offered {
            Reply::new(502, [5, 1], "Error: command not implemented")
        } else {
            // The input so far came in the clear, from the client or from somebody between.
            self.forget_input();
            self.mode = Mode::Handshake(Handshake::Wanted);
            return;
        };
        self.answer(Verb::Starttls, refusal);
    }

    /// Ask the owner, then tell it to switch once the reply may go out; then wait for the end of the handshake.
    pub(super) fn go_on_to_tls(&mut self, progress: Handshake) -> Step {
        let (next, event) = match progress {
            Handshake::Wanted => (Handshake::Asked, Event::StartTls),
            Handshake::Accepted => {
                // In the clear, too: it came during a sleep.
                self.forget_input();
                (Handshake::Begun, Event::Switch)
            }
            Handshake::Asked | Handshake::Begun => {
                if self.eof {
                    self.log_handshake("lost connection");
                    self.close(Ending::Lost);
                }
                return Step::NeedInput;
            }
        };
        self.mode = Mode::Handshake(next);
        Step::Event(event)
    }

    /// The owner begins TLS behind this reply.
    pub fn start_tls(&mut self, now: f64) {
        self.now = now;
        self.mode = Mode::Handshake(Handshake::Accepted);
        // Only a complete handshake counts as a success.
        self.put(&Reply::new(220, [0, 0], "Ready to start TLS"));
        self.deadline = now + self.config.starttls_timeout_s;
    }

    /// The owner has no TLS now, for these problems.
    pub fn refuse_tls(&mut self, problems: &[String], now: f64) {
        self.now = now;
        self.log_problems(problems);
        self.mode = Mode::Command;
        self.answer(Verb::Starttls, Reply::new(454, [7, 0], "TLS not available due to local problem"));
    }

    /// TLS begins with the connection: `smtpd_tls_wrappermode`. The greeting comes after the handshake.
    pub fn wrap(&mut self, now: f64) {
        self.mode = Mode::Handshake(Handshake::Begun);
        self.deadline = now + self.config.starttls_timeout_s;
    }

    /// The handshake is complete: the dialogue begins anew (RFC 3207 §4.2). `refusal`: the reply to the next command,
    /// which ends the session.
    pub fn secured(&mut self, refusal: Option<Reply>, now: f64) {
        self.now = now;
        self.secured = true;
        // Input that came in the clear is never read as a command.
        self.forget_input();
        if self.greeted {
            self.done(Verb::Starttls, true);
        }
        self.helo = None;
        self.esmtp = false;
        self.identity = None;
        self.reset();
        self.last_reply = refusal;
        self.mode = if self.greeted { Mode::Command } else { Mode::Greeting };
        self.restart_deadline();
    }

    /// The handshake, or the channel behind it, has failed.
    pub fn insecure(&mut self, problems: &[String], now: f64) {
        self.now = now;
        if let Mode::Handshake(_) = self.mode {
            self.log_handshake(if problems.is_empty() { "lost connection" } else { "-1" });
        }
        self.log_problems(problems);
        self.close(Ending::Lost);
    }

    fn log_problems(&mut self, problems: &[String]) {
        let lines = problems.iter().map(|problem| (Severity::Warning, format!("TLS library problem: {problem}")));
        self.log.extend(lines);
    }

    pub(super) fn log_handshake(&mut self, problem: &str) {
        self.log.push_back((Severity::Info, format!("SSL_accept error from {}: {problem}", self.peer)));
    }

    /// Whether TLS has begun.
    pub fn is_secured(&self) -> bool {
        self.secured
    }
}
