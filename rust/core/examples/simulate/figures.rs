//! The figures of a run, as one JSON object.

use crate::traffic::{Fate, SECOND_US, Traffic};
use std::collections::HashMap;
use std::fmt::Write;

/// Kinds of mail, in the order of every series below.
pub const KINDS: [&str; 4] = ["healthy", "slow", "dead", "list"];
const LIST: usize = 3;
/// The large destinations that are watched: the largest slow one and the largest dead one.
const WATCHED: [(&str, u64); 2] = [("slow", 2), ("dead", 7)];
/// A single mail is in time when its first attempt begins within this time.
const IN_TIME_US: u64 = SECOND_US;
/// Destinations with fewer single mails say nothing about fairness.
const FAIRNESS_MESSAGES: u32 = 20;
/// First attempts are summed up by the minute in which a mail arrived.
const MINUTE_US: u64 = 60 * SECOND_US;
const UNTRIED: u64 = u64::MAX;

/// A sample of the run.
struct Sample {
    at_us: u64,
    in_flight: [u32; 4],
    open: [i64; 4],
    watched_in_flight: [u32; 2],
    watched_open: [i64; 2],
    active: usize,
    deferred: usize,
    delivered: u64,
}

/// The figures of a run.
pub struct Figures<'a> {
    traffic: &'a Traffic,
    /// Time from a message's arrival to its first delivery.
    first_us: Vec<u64>,
    /// First attempts that ended without a delivery, because the destination was dead.
    turned_away: u64,
    in_flight: [u32; 4],
    open: [i64; 4],
    watched_in_flight: [u32; 2],
    watched_open: [i64; 2],
    deliveries: [u64; 4],
    delivered: u64,
    attempts_max: u32,
    list_delivered: u64,
    /// Start of the last delivery of the list's first attempt, and end of that attempt.
    list_last_delivery_us: u64,
    list_first_pass_us: u64,
    samples: Vec<Sample>,
    end_us: u64,
}

impl<'a> Figures<'a> {
    /// Return empty figures.
    pub fn new(traffic: &'a Traffic) -> Self {
        Self {
            traffic,
            first_us: vec![UNTRIED; traffic.messages() as usize],
            turned_away: 0,
            in_flight: [0; 4],
            open: [0; 4],
            watched_in_flight: [0; 2],
            watched_open: [0; 2],
            deliveries: [0; 4],
            delivered: 0,
            attempts_max: 0,
            list_delivered: 0,
            list_last_delivery_us: 0,
            list_first_pass_us: 0,
            samples: Vec::new(),
            end_us: 0,
        }
    }

    fn kind_of(&self, destination: u64) -> usize {
        match self.traffic.fate(destination) {
            Fate::Well | Fate::Greylisting => 0,
            Fate::Slow => 1,
            Fate::Outage | Fate::Dead => 2,
        }
    }

    fn kind(&self, n: u64, destination: u64) -> usize {
        if self.traffic.is_list(n) { LIST } else { self.kind_of(destination) }
    }

    /// Count a message that is to be tried (`by` 1), or was tried (-1).
    pub fn opened(&mut self, n: u64, by: i64) {
        let destination = self.traffic.destination(n, 0);
        self.open[self.kind(n, destination)] += by;
        for (open, (_, watched)) in self.watched_open.iter_mut().zip(WATCHED) {
            *open += if watched == destination { by } else { 0 };
        }
    }

    /// Count a delivery that begins.
    pub fn job_begins(&mut self, n: u64, destination: u64, at_us: u64) {
        let kind = self.kind(n, destination);
        self.deliveries[kind] += 1;
        self.in_flight[self.kind_of(destination)] += 1;
        self.watch(destination, 1);
        let first_us = &mut self.first_us[n as usize];
        if *first_us == UNTRIED {
            *first_us = at_us - self.traffic.arrives_us(n);
        }
        if kind == LIST && self.list_first_pass_us == 0 {
            self.list_last_delivery_us = at_us;
        }
    }

    /// Count a delivery that ends.
    pub fn job_ends(&mut self, destination: u64) {
        self.in_flight[self.kind_of(destination)] -= 1;
        self.watch(destination, u32::MAX);
    }

    fn watch(&mut self, destination: u64, by: u32) {
        for (count, (_, watched)) in self.watched_in_flight.iter_mut().zip(WATCHED) {
            if watched == destination {
                *count = count.wrapping_add(by);
            }
        }
    }

    /// Count a recipient that has its mail.
    pub fn delivered(&mut self, n: u64) {
        self.delivered += 1;
        self.list_delivered += u64::from(self.traffic.is_list(n));
    }

    /// Count an attempt with a further one.
    pub fn deferred(&mut self, n: u64, attempts: u32, at_us: u64) {
        self.attempts_max = self.attempts_max.max(attempts);
        if self.first_us[n as usize] == UNTRIED && attempts == 1 {
            self.turned_away += 1;
        }
        self.list_tried(n, at_us);
    }

    /// Count a removed message.
    pub fn removed(&mut self, n: u64, at_us: u64) {
        self.list_tried(n, at_us);
    }

    fn list_tried(&mut self, n: u64, at_us: u64) {
        if self.traffic.is_list(n) && self.list_first_pass_us == 0 {
            self.list_first_pass_us = at_us;
        }
    }

    /// Take a sample.
    pub fn sample(&mut self, at_us: u64, counts: &HashMap<&str, usize>) {
        self.samples.push(Sample {
            at_us,
            in_flight: self.in_flight,
            open: self.open,
            watched_in_flight: self.watched_in_flight,
            watched_open: self.watched_open,
            active: counts["active"],
            deferred: counts["deferred"],
            delivered: self.delivered,
        });
    }

    /// End the run.
    pub fn ends(&mut self, at_us: u64) {
        self.end_us = at_us;
    }

    /// Return the number of all deliveries.
    pub fn deliveries(&self) -> u64 {
        self.deliveries.iter().sum()
    }

    /// Return the waits for the first attempt of the single mails of a kind that arrived in a span.
    fn waits(&self, kind: usize, from_us: u64, to_us: u64) -> Vec<u64> {
        let mut waits: Vec<u64> = (0..self.traffic.options.messages)
            .filter(|n| (from_us..to_us).contains(&self.traffic.arrives_us(*n)))
            .filter(|n| self.traffic.recipients_of(*n) == 1 && self.kind(*n, self.traffic.destination(*n, 0)) == kind)
            .map(|n| self.first_us[n as usize])
            .filter(|wait_us| *wait_us != UNTRIED)
            .collect();
        waits.sort_unstable();
        waits
    }

    /// Return Jain's index over healthy destinations, of the share of each one's single mails that was tried in time.
    fn fairness(&self, from_us: u64, to_us: u64) -> (f64, usize) {
        let mut seen: HashMap<u64, (u32, u32)> = HashMap::new();
        for n in 0..self.traffic.options.messages {
            let destination = self.traffic.destination(n, 0);
            let healthy = self.traffic.recipients_of(n) == 1 && self.kind_of(destination) == 0;
            if healthy && (from_us..to_us).contains(&self.traffic.arrives_us(n)) {
                let (all, in_time) = seen.entry(destination).or_default();
                *all += 1;
                *in_time += u32::from(self.first_us[n as usize] <= IN_TIME_US);
            }
        }
        seen.retain(|_, (all, _)| *all >= FAIRNESS_MESSAGES);
        // Sum in a fixed order, so that the same run prints the same digits.
        let mut parts: Vec<f64> = seen.values().map(|(all, in_time)| f64::from(*in_time) / f64::from(*all)).collect();
        parts.sort_unstable_by(f64::total_cmp);
        let (sum, squares) = parts.iter().fold((0.0, 0.0), |(sum, squares), part| (sum + part, squares + part * part));
        (if squares > 0.0 { sum * sum / (parts.len() as f64 * squares) } else { 0.0 }, parts.len())
    }

    /// Return everything as members of a JSON object.
    pub fn json(&self) -> String {
        let options = &self.traffic.options;
        let mut out = String::new();
        let end_us = options.seconds * SECOND_US;
        let list_at_us = options.list_at_s * SECOND_US;
        let list_until_us = if self.list_first_pass_us > 0 { self.list_first_pass_us } else { end_us };
        let _ = write!(out, "\"recipients\": {}, \"jobs\": {}, ", self.traffic.recipients(), self.deliveries());
        let _ = write!(out, "\"delivered\": {}, \"turned_away\": {}, ", self.delivered, self.turned_away);
        let _ = write!(out, "\"attempts_max\": {}, \"end_s\": {}, ", self.attempts_max, seconds(self.end_us));
        for (kind, name) in KINDS.iter().enumerate().take(LIST) {
            let _ = write!(out, "\"wait_{name}\": {}, ", quantiles(&self.waits(kind, 0, end_us)));
        }
        let during = self.waits(0, list_at_us, list_until_us);
        let _ = write!(out, "\"wait_healthy_during_list\": {}, ", quantiles(&during));
        for (name, from_us, to_us) in [("fairness", 0, end_us), ("fairness_during_list", list_at_us, list_until_us)] {
            let (index, destinations) = self.fairness(from_us, to_us);
            let _ = write!(out, "\"{name}\": {{\"jain\": {index:.6}, \"destinations\": {destinations}}}, ");
        }
        if options.list > 0 {
            let first_us = self.first_us[options.messages as usize];
            let _ = write!(
                out,
                "\"list\": {{\"jobs\": {}, \"delivered\": {}, ",
                self.deliveries[LIST], self.list_delivered
            );
            let spans = [first_us, self.list_last_delivery_us - list_at_us, self.list_first_pass_us - list_at_us];
            let [first, last, pass] = spans.map(seconds);
            let _ = write!(out, "\"first_job_s\": {first}, \"last_delivery_s\": {last}, \"first_pass_s\": {pass}}}, ");
        }
        let rows: Vec<String> = self.minutes().iter().map(|waits| format!("{waits:?}")).collect();
        let _ = write!(out, "\"minutes\": [{}], ", rows.join(", "));
        let rows: Vec<String> = self.samples.iter().map(Sample::json).collect();
        let _ = write!(out, "\"samples\": [{}]", rows.join(", "));
        out
    }

    /// Of the healthy single mails, by the minute of their arrival: the waits' median, 99th percentile and maximum, in
    /// seconds.
    fn minutes(&self) -> Vec<[f64; 3]> {
        let mut minutes = vec![Vec::new(); (self.traffic.options.seconds * SECOND_US).div_ceil(MINUTE_US) as usize];
        for n in 0..self.traffic.options.messages {
            let wait_us = self.first_us[n as usize];
            let healthy = self.traffic.recipients_of(n) == 1 && self.kind_of(self.traffic.destination(n, 0)) == 0;
            if healthy && wait_us != UNTRIED {
                minutes[(self.traffic.arrives_us(n) / MINUTE_US) as usize].push(wait_us);
            }
        }
        let three = |waits: &mut Vec<u64>| {
            waits.sort_unstable();
            [0.5, 0.99, 1.0].map(|part| quantile(waits, part))
        };
        minutes.iter_mut().map(three).collect()
    }
}

impl Sample {
    fn json(&self) -> String {
        let Self { in_flight, open, watched_in_flight, watched_open, active, deferred, delivered, .. } = self;
        format!(
            "{{\"at_s\": {}, \"in_flight\": {in_flight:?}, \"open\": {open:?}, \"watched_in_flight\": \
             {watched_in_flight:?}, \"watched_open\": {watched_open:?}, \"active\": {active}, \"deferred\": \
             {deferred}, \"delivered\": {delivered}}}",
            seconds(self.at_us)
        )
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / SECOND_US as f64
}

/// Return a time in seconds; 0 without a time.
fn quantile(sorted_us: &[u64], part: f64) -> f64 {
    let at = ((sorted_us.len() as f64 * part) as usize).min(sorted_us.len().saturating_sub(1));
    sorted_us.get(at).copied().map_or(0.0, seconds)
}

fn quantiles(sorted_us: &[u64]) -> String {
    let [p50, p90, p99, p999, max] = [0.5, 0.9, 0.99, 0.999, 1.0].map(|part| quantile(sorted_us, part));
    let count = sorted_us.len();
    format!("{{\"n\": {count}, \"p50\": {p50}, \"p90\": {p90}, \"p99\": {p99}, \"p999\": {p999}, \"max\": {max}}}")
}
