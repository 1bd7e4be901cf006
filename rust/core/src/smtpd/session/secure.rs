//! TLS of a session: its channel, and the steps behind the handshake.

use super::Session;
use crate::mail::reply::Reply;
use crate::smtp::server::Next;
use crate::smtpd::request::Opening;
use crate::tls::facts::ServerName;
use crate::tls::settings::LogLevel;
use crate::tls::{Channel, Facts, Failure};

/// TLS of a session.
#[derive(Debug, Default)]
pub(super) struct Secure {
    /// For the owner of the socket.
    pub channel: Option<Channel>,
    /// The result of the handshake.
    pub facts: Option<Box<Facts>>,
    /// The beginning of a session in wrapper mode, after the handshake.
    pub opening: Option<Opening>,
}

impl Session {
    /// Begin: greet the client, or refuse it. In wrapper mode that is after the handshake.
    pub fn open(&mut self, opening: Opening, now: f64) -> Next {
        let Some(tls) = self.site.tls.as_ref().filter(|tls| tls.wrapper) else {
            return self.say_first(&opening, now);
        };
        match tls.engines.accept() {
            Ok(engine) => {
                self.secure.channel = Some(Channel::new(engine));
                self.secure.opening = Some(opening);
                self.server.wrap(now);
                Next::StartTls
            }
            Err(failure) => self.insecure(&failure, now),
        }
    }

    fn say_first(&mut self, opening: &Opening, now: f64) -> Next {
        match opening {
            Opening::Greet => self.server.greet(now),
            Opening::Refuse(reply) => self.server.refuse(reply, now),
            Opening::Dismiss(text) => self.server.dismiss(text, now),
        }
        self.poll(now)
    }

    /// STARTTLS: have a channel for the owner of the socket. Without one the client stays in the clear.
    pub(super) fn start_tls(&mut self, now: f64) {
        match self.site.tls.as_ref().map(|tls| tls.engines.accept()) {
            Some(Ok(engine)) => {
                self.secure.channel = Some(Channel::new(engine));
                self.server.start_tls(now);
            }
            Some(Err(failure)) => self.server.refuse_tls(&failure.problems, now),
            None => self.server.refuse_tls(&[], now),
        }
    }

    /// The handshake is complete.
    pub(super) fn secured(&mut self, facts: Box<Facts>, now: f64) -> Next {
        let mut refusal = None;
        match &facts.server_name {
            Some(ServerName::Unmatched(name)) => {
                let peer = &self.log_name;
                self.site.log.info(format_args!("TLS SNI {name} from {peer} not matched, using default chain"));
            }
            Some(ServerName::Invalid(name)) => {
                self.site.log.warning(format_args!("TLS SNI from {} is invalid: {name}", self.log_name));
            }
            Some(ServerName::Matched(_)) | None => {}
        }
        if let Some(tls) = &self.site.tls {
            let distrust = facts.client.as_ref().and_then(|certificate| certificate.distrust.as_ref());
            let LogLevel(log_level) = self.client.tls_log_level.unwrap_or(tls.log_level);
            if (log_level > 1 || tls.requires_certificate)
                && let Some(distrust) = distrust
            {
                self.site.log.info(format_args!("{}", distrust.told_of(&self.log_name)));
            }
            if log_level > 1
                && let Some(line) = facts.certificate_from(&self.log_name)
            {
                self.site.log.info(format_args!("{line}"));
            }
            if log_level > 0 {
                self.site.log.info(format_args!("{}", facts.established_from(&self.log_name)));
            }
            if tls.requires_certificate && !facts.client.as_ref().is_some_and(|certificate| certificate.trusted) {
                let problem = match &facts.client {
                    Some(_) => "Client certificate not trusted",
                    None => "No client certificate presented",
                };
                self.site.log.info(format_args!("NOQUEUE: abort: TLS from {}: {problem}", self.log_name));
                let text = format!("{} Error: {problem}", self.site.server.myhostname);
                refusal = Some(Reply::new(421, [7, 1], text));
            }
        }
        self.secure.facts = Some(facts);
        self.server.secured(refusal, now);
        match self.secure.opening.take() {
            Some(opening) => self.say_first(&opening, now),
            None => self.poll(now),
        }
    }

    /// The handshake, or the channel behind it, has failed.
    pub(super) fn insecure(&mut self, failure: &Failure, now: f64) -> Next {
        for warning in &failure.warnings {
            self.site.log.warning(format_args!("{warning}"));
        }
        self.server.insecure(&failure.problems, now);
        self.poll(now)
    }

    /// Return the result of the handshake; `None` in the clear.
    pub fn tls_facts(&self) -> Option<&Facts> {
        self.secure.facts.as_deref()
    }

    /// Complete the headers of the client's messages as those of local mail.
    pub fn complete_headers(&mut self) {
        self.client.rewrites_headers = true;
    }

    /// Return the lines about TLS in the Received header.
    pub(super) fn received_tls(&self) -> String {
        match (&self.secure.facts, &self.site.tls) {
            (Some(facts), Some(tls)) if tls.in_received => facts.received(tls.asks_for_certificate),
            _ => String::new(),
        }
    }
}
