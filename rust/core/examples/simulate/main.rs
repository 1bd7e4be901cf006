//! How long does mail wait when a million messages go to a hundred thousand destinations, some dead, some slow, and a
//! list of a hundred thousand recipients comes in between?
//!
//! ```text
//! cargo run --release --example simulate -- [--messages N] [--destinations N] [--seconds N] [--seed N] [--list N]
//!     [--list-at SECONDS] [--capacity DELIVERIES] [--slow-ms MS] [--active N] [--healthy]
//!     [--slot-cost N] [--slot-discount PERCENT] [--slot-loan N] [--minimum-slots N]
//! ```
//!
//! The queue manager's scheduler on a virtual clock: arrivals, agents and their latencies are a function of the seed, so
//! that two runs are the same to the last event, which the digest shows. Prints one JSON object;
//! `benches/simulate.py` makes tables and plots of several. It stops with a panic where a limit is exceeded
//! or a recipient is lost.

mod figures;
mod traffic;
mod world;

use postillion_core::clock::SECOND_US;
use postillion_core::qmgr::settings::{Settings, TransportSettings};
use std::time::Instant;
use traffic::{Options, Traffic};
use world::World;

/// The expiry of mail: short enough for a run to end, long enough for a dozen attempts.
const LIFETIME_US: u64 = 4 * 3600 * SECOND_US;

/// The run of the issue: a million messages in an hour; the largest slow destination is busy, and not too busy.
fn usual() -> Options {
    Options {
        seed: 1,
        messages: 1_000_000,
        destinations: 100_000,
        seconds: 3600,
        list: 100_000,
        list_at_s: 1200,
        capacity: 400,
        slow_ms: 2000,
        healthy: false,
    }
}

/// The parameters of main.cf.
fn settings() -> (Settings, TransportSettings) {
    let mut settings = Settings::default();
    settings.lifetimes.maximal_queue_us = LIFETIME_US;
    settings.lifetimes.bounce_queue_us = LIFETIME_US;
    (settings, TransportSettings::default())
}

fn main() {
    let mut options = usual();
    let (mut settings, mut transport) = settings();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--healthy" {
            options.healthy = true;
            continue;
        }
        let number: u64 = arguments.next().and_then(|text| text.parse().ok()).expect("a number after each option");
        match name.as_str() {
            "--messages" => options.messages = number,
            "--destinations" => options.destinations = number,
            "--seconds" => options.seconds = number,
            "--seed" => options.seed = number,
            "--list" => options.list = number,
            "--list-at" => options.list_at_s = number,
            "--capacity" => options.capacity = number as u32,
            "--slow-ms" => options.slow_ms = number,
            "--slot-cost" => transport.slots.cost = number as u32,
            "--slot-discount" => transport.slots.discount_percent = number as u32,
            "--slot-loan" => transport.slots.loan = number as u32,
            "--minimum-slots" => transport.slots.minimum = number as u32,
            "--active" => settings.message_active_limit = number as usize,
            _ => panic!("unknown option {name}"),
        }
    }
    let traffic = Traffic::new(options);
    let begun = Instant::now();
    let (figures, digest) = World::new(&traffic, settings, transport).run();
    let took_s = begun.elapsed().as_secs_f64();
    let Options { seed, messages, destinations, seconds, list, capacity, .. } = traffic.options;
    println!(
        "{{\"seed\": {seed}, \"messages\": {messages}, \"destinations\": {destinations}, \"seconds\": {seconds}, \
         \"list_recipients\": {list}, \"list_at_s\": {}, \"capacity\": {capacity}, \"took_s\": {took_s:.2}, \
         \"digest\": \"{digest:016x}\", \"correct\": true, {}}}",
        traffic.options.list_at_s,
        figures.json()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(seed: u64) -> u64 {
        let small = Options {
            seed,
            messages: 10_000,
            destinations: 1_000,
            seconds: 600,
            list: 2_000,
            list_at_s: 200,
            capacity: 40,
            ..usual()
        };
        let traffic = Traffic::new(small);
        let (settings, transport) = settings();
        let (figures, digest) = World::new(&traffic, settings, transport).run();
        assert!(figures.deliveries() > 10_000, "every message is tried");
        digest
    }

    #[test]
    fn the_same_seed_gives_the_same_trace_to_the_last_event() {
        assert_eq!(digest(1), digest(1));
        assert_ne!(digest(1), digest(2), "the digest sees what happens");
    }
}
