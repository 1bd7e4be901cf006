//! When a message is tried again, when its sender is warned, and when it is given up (Postfix, qmgr(8)).
//!
//! The wait before the next attempt is the message's age, not less than `minimal_backoff_time` and not more than
//! `maximal_backoff_time`: so waits double without a stored count. Postfix finds due messages by scanning a directory
//! every `queue_run_delay`; here each has a timer of its own and is tried when it is due.

use crate::clock::Now;
use crate::settings;
use crate::settings::micros;

settings! {
    /// Postfix's time limits of a message.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Lifetimes {
        minimal_backoff_us: u64 = micros "minimal_backoff_time",
        maximal_backoff_us: u64 = micros "maximal_backoff_time",
        maximal_queue_us: u64 = micros "maximal_queue_lifetime",
        /// For messages from the null sender.
        bounce_queue_us: u64 = micros "bounce_queue_lifetime",
        /// 0: no warning.
        delay_warning_us: u64 = micros "delay_warning_time",
    }
}

impl Lifetimes {
    /// Return the wait of a message of this age before its next attempt.
    pub fn backoff_us(&self, age_us: u64) -> u64 {
        age_us.min(self.maximal_backoff_us).max(self.minimal_backoff_us)
    }

    /// Return whether a message of that arrival is expired. A lifetime of 0 allows one attempt.
    pub fn expired(&self, now: Now, arrival_us: u64, null_sender: bool) -> bool {
        now.age_us(arrival_us) >= if null_sender { self.bounce_queue_us } else { self.maximal_queue_us }
    }

    /// Return whether the sender of a message of that arrival is to be warned, if it was not warned yet.
    pub fn warning_due(&self, now: Now, arrival_us: u64) -> bool {
        self.delay_warning_us > 0 && now.age_us(arrival_us) >= self.delay_warning_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND_US;

    #[test]
    fn the_wait_is_the_age_between_two_bounds() {
        let lifetimes = Lifetimes::default();
        for (age_s, wait_s) in [(0, 300), (1, 300), (300, 300), (600, 600), (4000, 4000), (86_400, 4000)] {
            assert_eq!(lifetimes.backoff_us(age_s * SECOND_US), wait_s * SECOND_US, "age {age_s}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_expires_nothing() {
        let lifetimes = Lifetimes::default();
        let now = Now { mono_us: 0, wall_us: 1000 };
        assert!(!lifetimes.expired(now, 2000, false));
        assert!(Lifetimes { maximal_queue_us: 0, ..lifetimes }.expired(now, 2000, false), "one attempt, no more");
    }

    #[test]
    fn bounces_have_a_lifetime_of_their_own() {
        let lifetimes = Lifetimes { bounce_queue_us: 10, maximal_queue_us: 20, ..Lifetimes::default() };
        let now = Now { mono_us: 0, wall_us: 115 };
        assert!(lifetimes.expired(now, 100, true));
        assert!(!lifetimes.expired(now, 100, false));
    }
}
