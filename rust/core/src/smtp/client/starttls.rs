//! STARTTLS (RFC 3207), from the client's side, and TLS from the first octet (RFC 8314 §3.3).
//!
//! ```text
//! EHLO, STARTTLS     ->  StartTls | Failed
//! wrapper mode       ->  StartTls
//! secured            ->  EHLO again, or the greeting; Failed if this is the wrong server
//! insecure           ->  Failed
//! ```
//!
//! The level of the connection's policy decides. Only at `may`, mail goes out in the clear: where STARTTLS is not offered
//! or refused, and later, on another connection, where TLS has failed. Messages that ask for REQUIRETLS may need more
//! (`requiretls`).

use super::auth::Protection;
use super::capability::Capabilities;
use super::expect::Expect;
use super::response::{Response, ResponseReader};
use super::{Client, Event, Phase, Protocol};
use crate::mail::reply::Enhanced;
use crate::tls::{ClientLevel, Facts, Policy};
use std::sync::Arc;

const STARTTLS: &[u8] = b"STARTTLS\r\n";
/// X.7.4: a security feature is missing (RFC 3463 §3.8).
const MISSING: Enhanced = Enhanced { class: 4, subject: 7, detail: 4 };
/// X.7.5: cryptography has failed.
const FAILED: Enhanced = Enhanced { class: 4, subject: 7, detail: 5 };

/// The state of TLS on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tls {
    /// In the clear.
    #[default]
    Off,
    /// The handshake is in progress.
    Handshake,
    /// All octets are encrypted.
    On,
}

impl Client {
    /// Return the policy of the connection; `None` for none.
    pub fn policy(&self) -> Option<&Arc<Policy>> {
        self.peer.tls.as_ref()
    }

    /// Return whether the octets of the connection are encrypted.
    pub fn is_secure(&self) -> bool {
        self.tls == Tls::On
    }

    /// Return whether the connection has used TLS that a new one may do without: a site that only prefers TLS wants its
    /// mail delivered.
    pub(super) fn may_clear(&self) -> bool {
        self.tls != Tls::Off && self.level() == ClientLevel::May && !self.peer.requiretls.needs_tls()
    }

    fn level(&self) -> ClientLevel {
        self.peer.tls.as_ref().map_or(ClientLevel::Off, |policy| policy.level)
    }

    /// Begin with TLS: the server greets inside it.
    pub(super) fn wrap(&mut self, now: f64) {
        if self.settings.starttls.wrapper && self.level() != ClientLevel::Off {
            self.shake_hands(now);
        }
    }

    /// Ask for TLS behind EHLO. Returns false if the dialogue goes on in the clear, or is inside TLS.
    pub(super) fn ask_for_tls(&mut self) -> bool {
        if self.tls == Tls::On {
            return false;
        }
        let (level, offered) = (self.level(), self.offered.starttls);
        if level == ClientLevel::Off {
            if self.leaves_without_tls(false) {
                return true;
            }
            if offered && self.settings.starttls.note_offer {
                let text = format!("Host offered STARTTLS: [{}]", self.peer.host());
                self.events.push_back(Event::Note(text));
            }
            return false;
        }
        let usable = self.settings.starttls.engines.is_some();
        if offered && usable {
            self.output.extend_from_slice(STARTTLS);
            self.pipeline.expect(Expect::StartTls);
            return true;
        }
        if !offered && self.leaves_without_tls(true) {
            return true;
        }
        if level.requires_tls() || self.peer.requiretls.needs_tls() {
            let name = &self.peer.name_address;
            let (dsn, text) = if offered {
                (FAILED, "TLS is required, but our TLS engine is unavailable".into())
            } else {
                (MISSING, format!("TLS is required, but was not offered by host {name}"))
            };
            self.leave(dsn, text);
            return true;
        }
        false
    }

    /// Handle the reply to STARTTLS.
    pub(super) fn starttls_answered(&mut self, response: &Response, now: f64) {
        // A server that says 250 begins TLS, too.
        if response.code / 100 == 2 {
            return self.shake_hands(now);
        }
        if self.leaves_for_refusal(&response.one_line()) {
            return;
        }
        if self.level().requires_tls() {
            let (name, said) = (&self.peer.name_address, response.one_line());
            let text = format!("TLS is required, but host {name} refused to start TLS: {said}");
            let mut dsn = response.dsn();
            // The reply came in the clear: an attacker who writes it must not be able to return the mail.
            dsn.class = 4;
            return self.leave(dsn, text);
        }
        // The server is as good as one without TLS.
        self.offered.starttls = false;
        self.welcome_done();
    }

    fn shake_hands(&mut self, now: f64) {
        self.tls = Tls::Handshake;
        self.phase = Phase::Handshake;
        self.pipeline.clear();
        self.deadline = Some(now + self.settings.starttls.timeout);
        self.events.push_back(Event::StartTls);
    }

    /// Note that the handshake is complete: the dialogue begins anew, or ends with the wrong server.
    pub fn secured(&mut self, facts: &Facts, now: f64) {
        if self.phase == Phase::Closed {
            return;
        }
        self.tls = Tls::On;
        if self.leaves_for_match(facts) {
            return;
        }
        let level = self.level();
        if level.must_match() && !facts.matched() {
            return self.leave(FAILED, "Server certificate not verified".into());
        }
        self.set_protection(if facts.matched() { Protection::Verified } else { Protection::Encrypted });
        // The client forgets all that came in the clear (RFC 3207 §4.2).
        self.reader = ResponseReader::default();
        self.offered = Capabilities::default();
        if self.settings.starttls.wrapper {
            self.pipeline.expect(Expect::Greeting);
        } else {
            self.send(if self.settings.protocol == Protocol::Lmtp { Expect::Lhlo } else { Expect::Ehlo });
        }
        self.set_deadline(now);
    }

    /// Say QUIT to a server whose TLS is not what the policy wants, and end the connection.
    fn leave(&mut self, dsn: Enhanced, text: String) {
        self.output.extend_from_slice(super::QUIT);
        self.fail(dsn, text);
    }

    /// Note that the handshake, or the channel behind it, has failed.
    pub fn insecure(&mut self) {
        match self.tls {
            Tls::On => self.lost(),
            _ => self.fail_to_start(),
        }
    }

    /// End the connection: the handshake has failed.
    pub(super) fn fail_to_start(&mut self) {
        self.fail_as(FAILED, "Cannot start TLS: handshake failure".into(), self.may_clear());
    }

    /// Return whether the handshake is in progress.
    pub fn is_shaking(&self) -> bool {
        self.tls == Tls::Handshake
    }
}
