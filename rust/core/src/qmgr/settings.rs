//! Settings of the queue manager (qmgr(8)).

use super::backoff::Lifetimes;
use super::feedback::WindowRules;
use super::route::Keyed;
use crate::address::local_part::Extensions;
use crate::address::syntax::Syntax;
use crate::settings;
use crate::settings::micros;

settings! {
    /// Parameters for all transports.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Settings {
        message_active_limit: usize = "qmgr_message_active_limit",
        /// Recipients of all messages in memory.
        message_recipient_limit: usize = "qmgr_message_recipient_limit",
        /// Recipients that each message may have in memory, even when it is full.
        message_recipient_minimum: usize = "qmgr_message_recipient_minimum",
        /// Back-off, expiry, delay warning.
        lifetimes: Lifetimes => settings,
        /// Interval between two searches for messages without an announcement.
        queue_run_delay_us: u64 = micros "queue_run_delay",
        /// Interval of the warning that one destination fills the active queue; 0: never.
        clog_warn_us: u64 = micros "qmgr_clog_warn_time",
        transport_retry_us: u64 = micros "transport_retry_time",
        /// Timeout of mail that waits for the first agent of its transport.
        ipc_timeout_us: u64 = micros "qmgr_ipc_timeout",
        /// Address extensions. With a concurrency per recipient, addresses that differ in the extension are one.
        extensions: Extensions => settings,
        /// The syntax of a recipient's address; others bounce.
        syntax: Syntax => settings,
        defer_transports: Vec<Box<str>> = "defer_transports",
        confirm_delay_cleared: bool = "confirm_delay_cleared",
        soft_bounce: bool = "soft_bounce",
        long_queue_ids: bool = "enable_long_queue_ids",
        delay_resolution_digits: u32 = "delay_logging_resolution_limit",
        bounce_service: Box<str> = "bounce_service_name",
        /// Kinds of tables that routes depend on.
        routes: Keyed,
    }
}

impl Settings {
    /// Return the same settings for a tool that changes the queue and delivers nothing: no message becomes active.
    pub fn offline(self) -> Self {
        Self { message_active_limit: 0, ..self }
    }

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

settings! {
    /// Parameters of one transport: `<transport>_*` if main.cf has it, else `default_*`.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub struct TransportSettings {
        /// Concurrency of a destination.
        window: WindowRules => settings,
        /// Recipients of a delivery; 0: no limit, 1 makes the concurrency one per recipient.
        recipient_limit: u32 = "_destination_recipient_limit",
        /// Pause between two deliveries to a destination; it makes the concurrency 1.
        destination_rate_delay_us: u64 = micros "_destination_rate_delay",
        /// Pause between two deliveries of the transport.
        transport_rate_delay_us: u64 = micros "_transport_rate_delay",
        /// The conditions for preemption.
        slots: SlotRules => settings,
        /// The reading of lists that stay on disk.
        refill: RefillRules => settings,
        /// `maxproc` of its service in master.cf: concurrent deliveries, whatever its agents allow; 0: no limit.
        process_limit: u32,
    }
}

settings! {
    /// The conditions under which a small job may preempt a large one (Postfix, SCHEDULER_README; `slots.rs` has the arithmetic).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct SlotRules {
        /// Deliveries of a job that earn one delivery of a preempting job; below 2 there is no preemption.
        cost: u32 = "_delivery_slot_cost",
        /// Slots that need not be earned beforehand.
        loan: u32 = "_delivery_slot_loan",
        /// Percentage of the slots that need not be earned beforehand.
        discount_percent: u32 = "_delivery_slot_discount",
        /// A job that can never earn this number of slots is not preempted.
        minimum: u32 = "_minimum_delivery_slots",
    }
}

settings! {
    /// Recipients of a transport in memory, and when more are read.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct RefillRules {
        /// Recipients of all its messages. Each message may have `qmgr_message_recipient_minimum` beyond the limit.
        recipient_limit: u32 = "_recipient_limit",
        /// Recipients of preempting jobs beyond that limit.
        extra_limit: u32 = "_extra_recipient_limit",
        /// Minimum room at which more are read.
        least: u32 = "_recipient_refill_limit",
        /// Time after the last read from which any room is enough.
        delay_us: u64 = micros "_recipient_refill_delay",
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
