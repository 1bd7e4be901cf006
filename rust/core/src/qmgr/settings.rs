//! Settings of the queue manager: Postfix's parameters, read once from main.cf.

use super::backoff::Lifetimes;
use super::feedback::WindowRules;
use crate::address::local_part::Extensions;
use crate::address::syntax::Syntax;
use crate::clock::SECOND_US;

/// Parameters for all transports. Names and defaults are Postfix's; see postconf(5).
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `qmgr_message_active_limit`
    pub message_active_limit: usize,
    /// `qmgr_message_recipient_limit`: recipients of all messages in memory.
    pub message_recipient_limit: usize,
    /// `qmgr_message_recipient_minimum`: recipients that each message may have in memory, even when it is full.
    pub message_recipient_minimum: usize,
    /// Back-off, expiry, delay warning.
    pub lifetimes: Lifetimes,
    /// `qmgr_clog_warn_time`: interval of the warning that one destination fills the active queue; 0 is never.
    pub clog_warn_us: u64,
    /// `transport_retry_time`
    pub transport_retry_us: u64,
    /// `qmgr_ipc_timeout`: timeout of mail that waits for the first agent of its transport.
    pub ipc_timeout_us: u64,
    /// Address extensions, which do not make another recipient with a concurrency per recipient.
    pub extensions: Extensions,
    /// The syntax of a recipient's address; others bounce.
    pub syntax: Syntax,
    /// `defer_transports`
    pub defer_transports: Vec<Box<str>>,
    /// `confirm_delay_cleared`
    pub confirm_delay_cleared: bool,
    /// `soft_bounce`
    pub soft_bounce: bool,
    /// `enable_long_queue_ids`
    pub long_queue_ids: bool,
    /// `delay_logging_resolution_limit`
    pub delay_resolution_digits: u32,
    /// All addresses of a domain have one route: no table is keyed by address.
    pub route_by_domain: bool,
    /// `bounce_service_name`
    pub bounce_service: Box<str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            message_active_limit: 20_000,
            message_recipient_limit: 20_000,
            message_recipient_minimum: 10,
            lifetimes: Lifetimes::default(),
            clog_warn_us: 300 * SECOND_US,
            transport_retry_us: 60 * SECOND_US,
            ipc_timeout_us: 60 * SECOND_US,
            extensions: Extensions::default(),
            syntax: Syntax::default(),
            defer_transports: Vec::new(),
            confirm_delay_cleared: false,
            soft_bounce: false,
            long_queue_ids: false,
            delay_resolution_digits: 2,
            route_by_domain: true,
            bounce_service: "bounce".into(),
        }
    }
}

impl Settings {
    /// Return the maximum number of recipients of one message in memory. A longer list is read in parts of this size,
    /// so that no list fills the memory.
    pub fn part_recipients(&self) -> usize {
        const PARTS: usize = 4;
        (self.message_recipient_limit / PARTS).max(self.message_recipient_minimum).max(1)
    }

    /// Return the maximum number of active retries: a fifth of the active queue is reserved for fresh mail.
    pub fn retry_active_limit(&self) -> usize {
        const FRESH_SHARE: usize = 5;
        (self.message_active_limit - self.message_active_limit / FRESH_SHARE).max(1)
    }
}

/// Parameters of one transport: `default_*`, or `<transport>_*` if main.cf has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransportSettings {
    /// Concurrency of a destination.
    pub window: WindowRules,
    /// `*_destination_recipient_limit`: recipients of a delivery; 0 is no limit, 1 makes the concurrency one per
    /// recipient.
    pub recipient_limit: u32,
    /// `*_destination_rate_delay`: pause between two deliveries to a destination; it makes the concurrency 1.
    pub destination_rate_delay_us: u64,
    /// `*_transport_rate_delay`: pause between two deliveries of the transport.
    pub transport_rate_delay_us: u64,
    /// `maxproc` of its service in master.cf: concurrent deliveries, whatever its agents allow; 0 is no limit.
    pub process_limit: u32,
    /// When a job may preempt another.
    pub slots: SlotRules,
    /// How a list that stays on disk is read.
    pub refill: RefillRules,
}

/// When a small job may preempt a large one (Postfix, SCHEDULER_README; `slots.rs` has the arithmetic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRules {
    /// `*_delivery_slot_cost`: deliveries of a job that earn one delivery of a preempting job; below 2 there is no
    /// preemption.
    pub cost: u32,
    /// `*_delivery_slot_loan`: slots that need not be earned beforehand.
    pub loan: u32,
    /// `*_delivery_slot_discount`: percentage of the slots that need not be earned beforehand.
    pub discount_percent: u32,
    /// `*_minimum_delivery_slots`: a job that can never earn this number of slots is not preempted.
    pub minimum: u32,
}

impl Default for SlotRules {
    fn default() -> Self {
        Self { cost: 5, loan: 3, discount_percent: 50, minimum: 3 }
    }
}

/// Recipients of a transport in memory, and when more are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefillRules {
    /// `*_recipient_limit`: of all its messages; each has `qmgr_message_recipient_minimum` all the same.
    pub recipient_limit: u32,
    /// `*_extra_recipient_limit`: beyond that, for preempting jobs.
    pub extra_limit: u32,
    /// `*_recipient_refill_limit`: more are read when there is room for this number,
    pub least: u32,
    /// `*_recipient_refill_delay`: or when there is any room this time after the last read.
    pub delay_us: u64,
}

impl Default for RefillRules {
    fn default() -> Self {
        Self { recipient_limit: 20_000, extra_limit: 1000, least: 100, delay_us: 5 * SECOND_US }
    }
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            window: WindowRules::default(),
            recipient_limit: 50,
            destination_rate_delay_us: 0,
            transport_rate_delay_us: 0,
            process_limit: 0,
            slots: SlotRules::default(),
            refill: RefillRules::default(),
        }
    }
}

impl TransportSettings {
    /// Return the rules of a window: a rate delay allows one delivery at a time.
    pub fn window_rules(&self) -> WindowRules {
        let mut rules = self.window;
        if self.destination_rate_delay_us > 0 {
            rules.limit = 1;
        }
        rules
    }
}
