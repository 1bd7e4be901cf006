//! REQUIRETLS (RFC 8689), from the client's side: the needs of a policy, and the part of MAIL about it.
//!
//! `smtp_requiretls_policy` decides about the connection, and the message shares it only with other messages that ask
//! for REQUIRETLS. A server that does not meet the policy gets no message; the next
//! server is tried.

use super::{Client, Event};
use crate::mail::reply::Enhanced;
use crate::mail::status::{Status, outcome_of};
use crate::tls::Facts;

/// X.7.10: encryption is needed (RFC 5248).
const NEEDS_ENCRYPTION: Enhanced = Enhanced { class: 5, subject: 7, detail: 10 };
/// X.7.30: REQUIRETLS support is needed (RFC 8689 §4.2.1).
pub const NEEDS_SUPPORT: Enhanced = Enhanced { class: 5, subject: 7, detail: 30 };

/// The policy of a connection, weakest first (postconf(5), smtp_requiretls_policy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum RequireTls {
    /// `disable`: REQUIRETLS is not used. Also the policy of other mail.
    #[default]
    Disable,
    /// REQUIRETLS is used where a server has it.
    Opportunistic,
    /// TLS is needed, and no more.
    OpportunisticStartTls,
    /// A verified server and its REQUIRETLS are needed.
    Enforce,
}

/// The part of MAIL about REQUIRETLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mark {
    /// Nothing.
    #[default]
    None,
    /// The parameter.
    Required,
    /// RET=HDRS: the server has no REQUIRETLS, and its report must not show the content to others.
    HeadersOnly,
}

impl RequireTls {
    /// Return the policy that a site writes, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "disable" => Some(Self::Disable),
            "opportunistic" => Some(Self::Opportunistic),
            "opportunistic+starttls" => Some(Self::OpportunisticStartTls),
            "enforce" => Some(Self::Enforce),
            _ => None,
        }
    }

    /// Whether no message goes out without TLS.
    pub fn needs_tls(self) -> bool {
        self >= Self::OpportunisticStartTls
    }
}

impl Client {
    /// Return what MAIL says. Outside TLS, nobody offers REQUIRETLS.
    pub(super) fn mark(&self) -> Mark {
        match self.peer.requiretls {
            RequireTls::Disable => Mark::None,
            _ if self.is_secure() && self.offered.requiretls => Mark::Required,
            _ => Mark::HeadersOnly,
        }
    }

    /// Leave a server whose dialogue stays in the clear, if the policy needs TLS. `is_configured`: the level is not `none`.
    pub(super) fn leaves_without_tls(&mut self, is_configured: bool) -> bool {
        if !self.peer.requiretls.needs_tls() {
            return false;
        }
        let name = &self.peer.name_address;
        let (dsn, problem) = if is_configured {
            (NEEDS_SUPPORT, format!("it was not offered by host {name}"))
        } else {
            (NEEDS_ENCRYPTION, format!("none is configured for host {name}"))
        };
        self.leave_for_another(dsn, format!("REQUIRETLS needs TLS, but {problem}"));
        true
    }

    /// Leave a server that refuses to start TLS, if the policy needs it.
    pub(super) fn leaves_for_refusal(&mut self, said: &str) -> bool {
        let needed = self.peer.requiretls.needs_tls();
        if needed {
            let name = &self.peer.name_address;
            let text = format!("REQUIRETLS needs TLS, but host {name} refused to start it: {said}");
            self.leave_for_another(NEEDS_ENCRYPTION, text);
        }
        needed
    }

    /// Leave a server that is not verified, if the policy needs that.
    pub(super) fn leaves_for_match(&mut self, facts: &Facts) -> bool {
        let wrong = self.peer.requiretls == RequireTls::Enforce && !facts.matched();
        if wrong {
            let name = &self.peer.name_address;
            let text =
                format!("REQUIRETLS needs a verified server, but the certificate of host {name} is not verified");
            self.leave_for_another(NEEDS_ENCRYPTION, text);
        }
        wrong
    }

    /// Leave a server without REQUIRETLS behind its EHLO inside TLS, if the policy needs it.
    pub(super) fn leaves_for_support(&mut self) -> bool {
        if self.peer.requiretls == RequireTls::Disable || self.mark() == Mark::Required {
            return false;
        }
        let text = format!("REQUIRETLS was not offered by host {}", self.peer.name_address);
        if self.peer.requiretls == RequireTls::Enforce {
            self.leave_for_another(NEEDS_SUPPORT, text);
            return true;
        }
        self.events.push_back(Event::Note(text));
        false
    }

    fn leave_for_another(&mut self, dsn: Enhanced, text: String) {
        self.quit();
        let status = Status { outcome: outcome_of(dsn), dsn, text: text.into(), remote: None };
        self.events.push_back(Event::Failed { status, stale: false, elsewhere: true, clear: false });
    }
}
