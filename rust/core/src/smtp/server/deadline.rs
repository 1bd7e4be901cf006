//! Time: a silent client, a slow one (`smtpd_per_request_deadline`), the sleep after an error, the service's end.

use super::{Ending, Mode, Server};
use crate::mail::reply::Reply;

impl Server {
    /// When `timeout` must be called, if nothing happens before.
    pub fn deadline(&self) -> f64 {
        self.resume_at.unwrap_or(self.deadline)
    }

    /// Sleep: what is written from now on goes out `pause_s` later, behind what the session sleeps for already.
    pub fn pause(&mut self, pause_s: f64, now: f64) {
        self.resume_at = Some(self.resume_at.unwrap_or(now) + pause_s);
    }

    /// Does a sleep last, for an error or by `pause`? Until then (`deadline`) nothing is written and nothing read.
    pub fn is_sleeping(&self) -> bool {
        self.resume_at.is_some()
    }

    /// Time has passed: ends a sleep, or closes with 421 when the client was silent for too long.
    pub fn timeout(&mut self, now: f64) {
        self.now = now;
        if let Some(at) = self.resume_at {
            if now >= at {
                self.resume_at = None;
                self.deadline = now + self.config.timeout_s;
            }
            return;
        }
        match self.mode {
            Mode::Closed(_) => {}
            // The client waits for us, not we for it.
            Mode::Greeting | Mode::Waiting(_) => self.deadline = now + self.config.timeout_s,
            _ if now >= self.deadline => {
                let text = format!("{} Error: timeout exceeded", self.config.myhostname);
                self.output.clear();
                Reply::new(421, [4, 2], text).render(&mut self.output);
                self.close(Ending::Timeout);
            }
            _ => {}
        }
    }

    /// The service stops: 421 if the client is between commands. `false` when a message is on its way, or an answer.
    pub fn shut_down(&mut self, now: f64) -> bool {
        self.now = now;
        match self.mode {
            Mode::Command | Mode::SkippingLine | Mode::Auth => {
                let text = format!("{} Service not available, closing transmission channel", self.config.myhostname);
                Reply::new(421, [3, 2], text).render(&mut self.output);
                self.close(Ending::Orderly);
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
    /// A request begins now.
    pub(super) fn restart_deadline(&mut self) {
        self.deadline = self.now + self.config.timeout_s;
    }
}
