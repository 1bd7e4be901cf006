//! What the queue manager goes by: Postfix's parameters, read once from main.cf.

use super::backoff::Lifetimes;
use super::feedback::WindowRules;
use crate::address::local_part::Extensions;
use crate::address::syntax::Syntax;
use crate::clock::SECOND_US;

/// What concerns all transports. Names and defaults are Postfix's; see postconf(5).
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `qmgr_message_active_limit`
    pub message_active_limit: usize,
    /// `qmgr_message_recipient_limit`: recipients in memory, of all messages together.
    pub message_recipient_limit: usize,
    /// `qmgr_message_recipient_minimum`: what a message may have in memory however full it is.
    pub message_recipient_minimum: usize,
    /// Back-off, expiry, delay warning.
    pub lifetimes: Lifetimes,
    /// `qmgr_clog_warn_time`: how often the log says that one destination fills the active queue; 0 is never.
    pub clog_warn_us: u64,
    /// `transport_retry_time`
    pub transport_retry_us: u64,
    /// `qmgr_ipc_timeout`: how long mail waits for a first delivery agent of its transport.
    pub ipc_timeout_us: u64,
    /// Extensions do not make another recipient where concurrency goes by recipient.
    pub extensions: Extensions,
    /// What a recipient's address may look like; others bounce.
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
    /// Addresses of one domain all go one way: no table is looked up by address.
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
    /// Recipients of one message that are in memory at a time; a longer list is read in parts of this size, so that no
    /// list fills the memory that all share.
    pub fn part_recipients(&self) -> usize {
        const PARTS: usize = 4;
        (self.message_recipient_limit / PARTS).max(self.message_recipient_minimum).max(1)
    }

    /// Messages under delivery that may be retries: a fifth of the places is kept for fresh mail.
    pub fn retry_active_limit(&self) -> usize {
        const FRESH_SHARE: usize = 5;
        (self.message_active_limit - self.message_active_limit / FRESH_SHARE).max(1)
    }
}

/// What concerns one transport: `default_*`, or `<transport>_*` where main.cf has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransportSettings {
    /// Concurrency of a destination.
    pub window: WindowRules,
    /// `*_destination_recipient_limit`: recipients of a job; 0 is no limit, 1 makes concurrency go by recipient.
    pub recipient_limit: u32,
    /// `*_destination_rate_delay`: pause between two jobs to a destination; it makes concurrency 1.
    pub destination_rate_delay_us: u64,
    /// `*_transport_rate_delay`: pause between two jobs of the transport.
    pub transport_rate_delay_us: u64,
    /// `maxproc` of its service in master.cf: deliveries at a time, whatever its agents say; 0 is no limit.
    pub process_limit: u32,
    /// When one message may overtake another.
    pub slots: SlotRules,
    /// How a list of recipients that stays on disk is read.
    pub refill: RefillRules,
}

/// When a small message may overtake a large one (Postfix, SCHEDULER_README; `slots.rs` has the arithmetic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRules {
    /// `*_delivery_slot_cost`: deliveries of a message that earn others one of theirs before it; below 2 none.
    pub cost: u32,
    /// `*_delivery_slot_loan`: slots that need not be earned yet.
    pub loan: u32,
    /// `*_delivery_slot_discount`: percent of the slots needed that need not be earned yet.
    pub discount_percent: u32,
    /// `*_minimum_delivery_slots`: a message that can never earn so many is not overtaken at all.
    pub minimum: u32,
}

impl Default for SlotRules {
    fn default() -> Self {
        Self { cost: 5, loan: 3, discount_percent: 50, minimum: 3 }
    }
}

/// How many recipients a transport has in memory, and when more are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefillRules {
    /// `*_recipient_limit`: of all its messages together; each has `qmgr_message_recipient_minimum` all the same.
    pub recipient_limit: u32,
    /// `*_extra_recipient_limit`: beyond that, for messages that overtake others.
    pub extra_limit: u32,
    /// `*_recipient_refill_limit`: more are read when there is room for so many,
    pub least: u32,
    /// `*_recipient_refill_delay`: or when there is any and the last ones were read so long ago.
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
    /// The rules of a window: a rate delay has its destination take one job at a time.
    pub fn window_rules(&self) -> WindowRules {
        let mut rules = self.window;
        if self.destination_rate_delay_us > 0 {
            rules.limit = 1;
        }
        rules
    }
}
