//! AUTH (RFC 4954), from the client's side: one exchange, behind EHLO, before the first message.
//!
//! ```text
//! log_in  ->  AUTH mechanism [initial response]
//! 334     ->  the response, or "*" if the challenge makes no sense
//! 2xx     ->  Ready, if the mechanism is content with the server
//! other   ->  Failed
//! ```
//!
//! As in Postfix, a server that does not offer AUTH gets mail without a login. If it offers AUTH, a client with
//! credentials logs in or delivers nothing: another host of the destination may do better.

use super::expect::Expect;
use super::response::Response;
use super::{Client, Event};
use crate::mail::base64;
use crate::mail::reply::Enhanced;
use crate::mail::status::{Status, outcome_of};
use crate::sasl::{Failure, Fault, Kind, Kinds, Login, Mechanism, Refusal, Request, Secret, choose};
use std::mem;
use std::sync::Arc;

/// Maximum octets of the command with its initial response and CRLF (RFC 5321 §4.5.3.1.4, RFC 4954 §4).
const COMMAND_MAX_OCTETS: usize = 512;
/// Maximum octets of a response with its CRLF (RFC 4954 §4).
const RESPONSE_MAX_OCTETS: usize = 12_288;
/// Maximum octets of a challenge in base64. The challenges of the known mechanisms have a few hundred; longer lines are
/// cut at `response::LINE_MAX_OCTETS`.
const CHALLENGE_MAX_OCTETS: usize = 2000;
/// Maximum number of challenges in one exchange. SCRAM has two.
const CHALLENGES_MAX: usize = 10;
/// The code of a reply to a wrong user name or password (RFC 4954 §4).
const BAD_CREDENTIALS: u16 = 535;
/// X.7.0: security (RFC 3463 §3.8).
const SECURITY: Enhanced = Enhanced { class: 4, subject: 7, detail: 0 };
/// X.3.0: the mail system itself (RFC 3463 §3.4).
const LOCAL_ERROR: Enhanced = Enhanced { class: 4, subject: 3, detail: 0 };

/// The protection of a connection, which decides about the mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protection {
    /// Everybody on the way can read it.
    #[default]
    None,
    /// TLS, with whatever server.
    Encrypted,
    /// TLS, with the right server.
    Verified,
}

/// The state of a connection's login.
#[derive(Debug, Default)]
pub(super) enum Auth {
    /// No login.
    #[default]
    Off,
    /// The server's reply is awaited.
    Exchange(Box<Exchange>),
    /// The server's reply to the end of the exchange is awaited.
    Cancelled(Failure),
    /// The server has accepted the client.
    On,
}

/// An exchange in progress.
#[derive(Debug)]
pub(super) struct Exchange {
    mechanism: Box<dyn Mechanism>,
    /// The initial response, if it is too long for the command.
    initial: Option<Secret>,
    challenges: usize,
}

impl Client {
    /// Note that the connection is inside TLS now, or that it is not.
    pub fn set_protection(&mut self, protection: Protection) {
        self.protection = protection;
    }

    /// Return whether MAIL has the parameter AUTH=<> (RFC 4954 §5).
    pub(super) fn sends_dummy_auth(&self) -> bool {
        self.settings.auth.dummy_mail_auth && matches!(self.auth, Auth::On)
    }

    /// Begin to log in, if the server offers it and this client has an account there. Returns false if the dialogue
    /// goes on without a login.
    pub(super) fn log_in(&mut self) -> bool {
        if !self.offered.auth.is_present {
            return false;
        }
        let request = match &self.peer.login {
            Login::Never => return false,
            Login::As(credentials) => {
                Request { credentials: Arc::clone(credentials), names_identity: self.settings.auth.names_identity }
            }
            Login::Refused(refusal) => {
                let refusal = Arc::clone(refusal);
                self.refused_before(&refusal);
                return true;
            }
            Login::Unknown => {
                self.local_auth_error();
                return true;
            }
        };
        match (self.chosen(), self.settings.auth.library.clone()) {
            (Some(kind), Some(library)) => {
                let started = library.start(kind, &request).and_then(|mechanism| self.begin_exchange(kind, mechanism));
                if let Err(failure) = started {
                    self.cannot_authenticate(&failure);
                }
            }
            (Some(_), None) => self.local_auth_error(),
            (None, _) => {}
        }
        true
    }

    /// Return the mechanism for this server; without one the connection has failed.
    fn chosen(&mut self) -> Option<Kind> {
        let (offer, auth) = (self.offered.auth, &self.settings.auth);
        let (name, options) = match self.protection {
            Protection::None => ("smtp_sasl_security_options", auth.options),
            Protection::Encrypted => ("smtp_sasl_tls_security_options", auth.tls_options),
            Protection::Verified => ("smtp_sasl_tls_verified_security_options", auth.verified_options),
        };
        let allowed = offer.kinds.both(auth.filter.unwrap_or(Kinds::BY_PASSWORD));
        // Other mechanisms pass only without a filter.
        let passes = !allowed.is_empty() || (auth.filter.is_none() && (offer.has_others || !offer.kinds.is_empty()));
        let host = &self.peer.name_address_port;
        if !passes {
            let names = offer.kinds.names();
            self.events.push_back(Event::Warning(if names.is_empty() && !offer.has_others {
                format!("{host} offered null AUTH mechanism list")
            } else {
                format!("{host} offered no supported AUTH mechanisms: '{names}'")
            }));
            let text = format!(
                "SASL authentication failed: server {} offered no compatible authentication mechanisms for this type of \
                 connection security",
                self.peer.name_address
            );
            self.auth_failed(SECURITY, text);
            return None;
        }
        let chosen = choose(offer.kinds, allowed, options);
        if chosen.is_none() {
            let names = if allowed.is_empty() { "unknown mechanisms alone".into() } else { allowed.names() };
            let problem = format!("No worthy mechs found: {host} offers {names}; {name} decides what is allowed");
            self.events.push_back(Event::Warning(format!("SASL authentication failure: {problem}")));
            self.auth_failed(SECURITY, self.cannot("no mechanism available"));
        }
        chosen
    }

    fn begin_exchange(&mut self, kind: Kind, mut mechanism: Box<dyn Mechanism>) -> Result<(), Failure> {
        let initial = mechanism.begin()?;
        let mut line = format!("AUTH {}", kind.name()).into_bytes();
        // Without octets, the response is "=" (RFC 4954 §4).
        let encoded = initial.as_ref().map(|initial| match initial.expose() {
            b"" => b"=".to_vec(),
            octets => base64::encode(octets),
        });
        let mut exchange = Exchange { mechanism, initial, challenges: 0 };
        if let Some(encoded) = encoded
            && line.len() + 1 + encoded.len() + 2 <= COMMAND_MAX_OCTETS
        {
            exchange.initial = None;
            line.push(b' ');
            line.extend(encoded);
        }
        self.auth = Auth::Exchange(Box::new(exchange));
        self.send_auth_line(&line);
        Ok(())
    }

    fn send_auth_line(&mut self, line: &[u8]) {
        self.output.extend_from_slice(line);
        self.output.extend_from_slice(b"\r\n");
        self.pipeline.expect(Expect::Auth);
    }

    /// Handle the reply to AUTH or to a response.
    pub(super) fn auth_answered(&mut self, response: &Response) {
        match mem::take(&mut self.auth) {
            Auth::Exchange(mut exchange) => match response.class() {
                2 => match exchange.mechanism.finish() {
                    Ok(()) => {
                        self.auth = Auth::On;
                        self.ready();
                    }
                    Err(failure) => self.cannot_authenticate(&failure),
                },
                3 => match exchange.answer(response) {
                    Ok(line) => {
                        self.auth = Auth::Exchange(exchange);
                        self.send_auth_line(&line);
                    }
                    Err(failure) => {
                        self.auth = Auth::Cancelled(failure);
                        self.send_auth_line(b"*");
                    }
                },
                _ => self.login_refused(response),
            },
            Auth::Cancelled(failure) => self.cannot_authenticate(&failure),
            Auth::Off | Auth::On => self.violated("a reply to AUTH without AUTH"),
        }
    }

    fn login_refused(&mut self, response: &Response) {
        let said = response.one_line();
        if response.code == BAD_CREDENTIALS {
            self.refusal = Some(Refusal { dsn: response.dsn(), said: said.as_str().into() });
        }
        let dsn = self.softened(response.dsn());
        if response.code == 421 {
            // The server closes the connection (RFC 5321 §3.8), and reads no QUIT.
            self.close();
        }
        let name = &self.peer.name_address;
        let text = format!("SASL authentication failed; server {name} said: {said}");
        let remote = Some(self.peer.name_address_port.as_str().into());
        self.fail_with(Status { outcome: outcome_of(dsn), dsn, text: text.into(), remote });
    }

    /// Fail as the server did when it refused this account.
    fn refused_before(&mut self, refusal: &Refusal) {
        let dsn = self.softened(refusal.dsn);
        let said = &refusal.said;
        let text = format!("SASL [CACHED] authentication failed; server {} said: {said}", self.peer.host());
        let remote = Some(self.peer.name_address_port.as_str().into());
        self.fail_with(Status { outcome: outcome_of(dsn), dsn, text: text.into(), remote });
    }

    /// Take the reply of a server that does not know this user and password.
    pub fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusal.take()
    }

    fn softened(&self, mut dsn: Enhanced) -> Enhanced {
        if dsn.class == 5 && self.settings.auth.soft_bounce {
            dsn.class = 4;
        }
        dsn
    }

    fn cannot_authenticate(&mut self, failure: &Failure) {
        self.events.push_back(Event::Warning(format!("SASL authentication failure: {}", failure.problem)));
        self.auth_failed(SECURITY, self.cannot(&failure.fault.to_string()));
    }

    fn cannot(&self, reason: &str) -> String {
        let name = &self.peer.name_address;
        format!("SASL authentication failed; cannot authenticate to server {name}: {reason}")
    }

    fn local_auth_error(&mut self) {
        let text = format!("local data error while talking to {}", self.peer.name_address);
        self.auth_failed(LOCAL_ERROR, text);
    }

    fn auth_failed(&mut self, dsn: Enhanced, text: String) {
        self.fail_with(Status { outcome: outcome_of(dsn), dsn, text: text.into(), remote: None });
    }

    fn fail_with(&mut self, status: Status) {
        self.quit();
        self.events.push_back(Event::Failed { status, stale: false, elsewhere: false, clear: false });
    }
}

impl Exchange {
    /// Return the line that answers a challenge.
    fn answer(&mut self, response: &Response) -> Result<Vec<u8>, Failure> {
        self.challenges += 1;
        if self.challenges > CHALLENGES_MAX {
            return Err(Failure::challenge("the server does not come to an end"));
        }
        let challenge = challenge(response)?;
        let answer = match self.initial.take() {
            // This challenge asks for the response that does not fit into the command.
            Some(initial) => initial,
            None => self.mechanism.respond(&challenge)?,
        };
        let line = base64::encode(answer.expose());
        if line.len() + 2 > RESPONSE_MAX_OCTETS {
            return Err(Failure { fault: Fault::Client, problem: "the response is too long for a line" });
        }
        Ok(line)
    }
}

/// Return the octets of a challenge: one line, with base64 behind the code.
fn challenge(response: &Response) -> Result<Vec<u8>, Failure> {
    let text = response.text.get(4..).unwrap_or("").trim_ascii();
    let is_challenge = response.code == 334 && !response.text.contains('\n');
    if !is_challenge || text.len() > CHALLENGE_MAX_OCTETS {
        return Err(Failure::challenge("the server's challenge is not one line of limited length"));
    }
    base64::decode(text.as_bytes()).ok_or(Failure::challenge("the server's challenge is not in base64"))
}
