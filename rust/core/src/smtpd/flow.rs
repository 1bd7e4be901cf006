//! Flow control where mail is accepted: `in_flow_delay` (postconf(5)).
//!
//! While the queue manager is behind, each new message waits before the 354. It is never refused for that, and other
//! sessions do not wait.

use std::sync::atomic::{AtomicBool, Ordering};

/// The queue manager's backlog, as the sessions of a process know it.
#[derive(Debug, Default)]
pub struct Flow {
    delay_s: f64,
    behind: AtomicBool,
}

impl Flow {
    /// `delay_s`: `in_flow_delay`; 0 disables flow control.
    pub fn new(delay_s: f64) -> Self {
        Self { delay_s, behind: AtomicBool::new(false) }
    }

    /// The queue manager has fallen behind, or has caught up.
    pub fn fall_behind(&self, behind: bool) {
        self.behind.store(behind, Ordering::Relaxed);
    }

    /// The delay of a message that begins now, in seconds; `None`: no delay.
    pub fn pause_s(&self) -> Option<f64> {
        (self.delay_s > 0.0 && self.behind.load(Ordering::Relaxed)).then_some(self.delay_s)
    }
}
