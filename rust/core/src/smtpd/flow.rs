//! Flow control where mail is accepted: `in_flow_delay` (postconf(5)).
//!
//! While the queue manager falls behind, each new message waits before its content is asked for. It is never refused
//! for that, and other sessions do not notice.

use std::sync::atomic::{AtomicBool, Ordering};

/// What the sessions of a process know of the queue manager's backlog.
#[derive(Debug, Default)]
pub struct Flow {
    delay_s: f64,
    behind: AtomicBool,
}

impl Flow {
    /// `delay_s`: `in_flow_delay`; 0 turns flow control off.
    pub fn new(delay_s: f64) -> Self {
        Self { delay_s, behind: AtomicBool::new(false) }
    }

    /// The queue manager has fallen behind, or has caught up.
    pub fn fall_behind(&self, behind: bool) {
        self.behind.store(behind, Ordering::Relaxed);
    }

    /// How long a message that begins now waits, in seconds; `None`: not at all.
    pub fn pause_s(&self) -> Option<f64> {
        (self.delay_s > 0.0 && self.behind.load(Ordering::Relaxed)).then_some(self.delay_s)
    }
}
