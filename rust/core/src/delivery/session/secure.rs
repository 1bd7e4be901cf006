//! TLS of a connection to a server: its channel, and the steps behind the handshake.

use super::{Next, Session};
use crate::delivery::assignment::Assignment;
use crate::delivery::request::TlsFault;
use crate::log::Log;
use crate::sasl::{Login, Refusal};
use crate::tls::{Channel, Facts, Failure};
use std::fmt::Arguments;

impl Session {
    /// Take the channel for all further octets, after `Next::StartTls`.
    pub fn take_channel(&mut self) -> Option<Channel> {
        self.channel.take()
    }

    /// Return whether the connection takes further jobs: inside TLS only if the site wants that.
    pub fn may_keep(&self) -> bool {
        self.reuses && (!self.client.is_secure() || self.reuses_tls)
    }

    /// Have a channel whose handshake has begun. Returns false if the library has none: the job has failed.
    pub(super) fn start_tls(&mut self) -> bool {
        let (Some(engines), Some(policy)) = (&self.client.settings().starttls.engines, self.client.policy()) else {
            self.client.insecure();
            return false;
        };
        let begun = engines.connect(policy).and_then(|engine| {
            let mut channel = Channel::new(engine);
            channel.begin().map(|()| channel)
        });
        match begun {
            Ok(channel) => {
                self.channel = Some(channel);
                true
            }
            Err(failure) => {
                self.tell_failure(&failure);
                self.client.insecure();
                false
            }
        }
    }

    /// Note that the handshake is complete.
    pub fn secured(&mut self, facts: &Facts, now: f64, wall_now_us: u64) -> Next {
        let peer = self.client.peer();
        let log_level = self.client.policy().map_or(0, |policy| policy.log_level.0);
        if let Some(distrust) = facts.distrust_of(&peer.name_address_port) {
            self.tell(format_args!("{distrust}"));
        }
        if log_level > 0 {
            self.tell(format_args!("{}", facts.established_to(&peer.name_address_port)));
        }
        self.client.secured(facts, now);
        let wrong = self.client.policy().is_some_and(|policy| policy.level.must_match()) && !facts.matched();
        let (kind, reason) = facts.failure();
        self.tls_result = Some(wrong.then(|| TlsFault { kind, reason: reason.to_owned() }));
        if !self.may_keep() {
            self.client.set_last_transaction(true);
        }
        self.next(now, wall_now_us)
    }

    /// Note that the handshake, or the channel behind it, has failed.
    pub fn insecure(&mut self, failure: &Failure, now: f64, wall_now_us: u64) -> Next {
        self.tell_failure(failure);
        self.client.insecure();
        self.next(now, wall_now_us)
    }

    /// Return whether a job may go out in the clear after TLS has failed: an active attacker gets no new message.
    pub(super) fn may_clear(&self, assignment: &Assignment) -> bool {
        let delivery = assignment.work.lock();
        let job = delivery.job();
        let waited_us = job.active_us.saturating_sub(job.envelope.arrival_us);
        let has_waited = waited_us as f64 >= self.client.settings().starttls.clear_after * 1e6;
        has_waited && matches!(self.client.peer().login, Login::Never) && delivery.left() > 0
    }

    /// Take the result of TLS, once it is known: for the reports to a domain.
    pub fn take_tls_result(&mut self) -> Option<Option<TlsFault>> {
        self.tls_result.take()
    }

    /// Take the reply of a server that does not know this user and password.
    pub fn take_refusal(&mut self) -> Option<Refusal> {
        self.client.take_refusal()
    }

    /// Note that the dialogue goes on, or ends, in the clear.
    pub(super) fn note_clear(&mut self) {
        if self.client.policy().is_some() && !self.client.is_secure() && !self.client.is_shaking() {
            self.tls_result = Some(Some(TlsFault { kind: "starttls-not-supported", reason: String::new() }));
        }
    }

    fn tell_failure(&mut self, failure: &Failure) {
        if !self.client.is_secure() {
            self.tell_no_handshake(if failure.problems.is_empty() { "lost connection" } else { "-1" });
        }
        if let Some(log) = self.log() {
            failure.problems.iter().for_each(|problem| log.warning(format_args!("TLS library problem: {problem}")));
        }
    }

    /// Log why the handshake has ended.
    pub(super) fn tell_no_handshake(&mut self, reason: &str) {
        self.tls_result = Some(Some(TlsFault { kind: "validation-failure", reason: reason.to_owned() }));
        self.tell(format_args!("SSL_connect error to {}: {reason}", self.client.peer().name_address_port));
    }

    pub(super) fn tell(&self, line: Arguments<'_>) {
        if let Some(log) = self.log() {
            log.info(line);
        }
    }

    fn log(&self) -> Option<&Log> {
        self.current.as_ref().map(|assignment| assignment.work.log())
    }
}
