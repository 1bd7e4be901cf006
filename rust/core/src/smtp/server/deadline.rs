//! Timers of a session: a silent client, a slow one (`smtpd_per_request_deadline`), the sleep after an error, a
//! shutdown.

use super::{Ending, Mode, Server};
use crate::mail::reply::Reply;

impl Server {
    /// Return the time when `timeout` must be called, if nothing happens before.
    pub fn deadline(&self) -> f64 {
        self.resume_at.unwrap_or(self.deadline)
    }

    /// Sleep: delay further output by `pause_s`, on top of the current sleep.
    pub fn pause(&mut self, pause_s: f64, now: f64) {
        self.resume_at = Some(self.resume_at.unwrap_or(now) + pause_s);
    }

    /// Whether a sleep lasts, for an error or by `pause`. Write and read nothing until `deadline`.
    pub fn is_sleeping(&self) -> bool {
        self.resume_at.is_some()
    }

    /// Handle the deadline: end a sleep, or close with 421 when the client was silent for too long.
    pub fn timeout(&mut self, now: f64) {
        self.now = now;
        if let Some(at) = self.resume_at {
            if now >= at {
                self.resume_at = None;
                let is_shaking = matches!(self.mode, Mode::Handshake(_));
                self.deadline = now + if is_shaking { self.config.starttls_timeout_s } else { self.config.timeout_s };
            }
            return;
        }
        match self.mode {
            Mode::Closed(_) => {}
            // The client waits for us, not we for the client.
            Mode::Greeting | Mode::Waiting(_) => self.deadline = now + self.config.timeout_s,
            Mode::Handshake(_) if now >= self.deadline => {
                self.log_handshake("Connection timed out");
                self.close(Ending::Lost);
            }
            _ if now >= self.deadline => {
                let text = format!("{} Error: timeout exceeded", self.config.myhostname);
                self.output.clear();
                Reply::new(421, [4, 2], text).render(&mut self.output);
                self.close(Ending::Timeout);
            }
            _ => {}
        }
    }

    /// Handle a shutdown: 421 if the client is between commands. Returns `false` when a message or an answer is on its
    /// way.
    pub fn shut_down(&mut self, now: f64) -> bool {
        self.now = now;
        match self.mode {
            Mode::Command | Mode::SkippingLine | Mode::Auth => {
                let text = format!("{} Service not available, closing transmission channel", self.config.myhostname);
                Reply::new(421, [3, 2], text).render(&mut self.output);
                self.close(Ending::Orderly);
                true
            }
            Mode::Handshake(_) => {
                self.close(Ending::Lost);
                true
            }
            Mode::Closed(_) => true,
            _ => false,
        }
    }

    pub(super) fn extend_deadline(&mut self, octets: usize) {
        let full = self.now + self.config.timeout_s;
        if !self.config.per_request_deadline {
            self.deadline = full;
        } else if matches!(self.mode, Mode::Data(_) | Mode::Chunk(_)) {
            let earned = octets as f64 / f64::from(self.config.min_data_rate.max(1));
            self.deadline = full.min(self.deadline + earned);
        }
    }
    /// Give the client this much more time: it waited for us.
    pub fn extend(&mut self, waited_s: f64) {
        self.deadline += waited_s;
    }

    /// Start the deadline of a new request.
    pub(super) fn restart_deadline(&mut self) {
        self.deadline = self.now + self.config.timeout_s;
    }
}
