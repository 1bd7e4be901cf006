//! The traffic of a run and the behaviour of its destinations, as a function of the seed.
//!
//! Nothing is drawn from a stream, so nothing depends on the order of questions: message `n` has the same recipients
//! whenever it is asked for, and an envelope need not be kept. Only additions, products and square roots are used,
//! which every machine rounds alike.

use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::id::{QueueId, SLOT_BITS};

/// Microseconds of a second.
pub const SECOND_US: u64 = 1_000_000;
/// The wall clock when the simulation begins.
pub const START_US: u64 = 1_795_000_000 * SECOND_US;
/// One message of this number has several recipients.
const SEVERAL_EVERY: u64 = 10;
/// Maximum number of recipients of such a message.
const SEVERAL_MAX: u64 = 5;
/// Time from the start until a destination with an outage works.
const OUTAGE_US: u64 = 1800 * SECOND_US;
/// A dead host answers nothing: `smtp_connect_timeout`.
const CONNECT_TIMEOUT_US: u64 = 30 * SECOND_US;
/// Time of each recipient in a delivery.
const RECIPIENT_US: u64 = 2_000;
/// Age of mail that a greylisting host accepts.
const GREYLISTED_US: u64 = 300 * SECOND_US;
/// One recipient of this number does not exist.
const UNKNOWN_EVERY: u64 = 400;

/// The options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Messages, besides the list's one.
    pub messages: u64,
    /// Destinations; the k-th gets a share of 1/k.
    pub destinations: u64,
    /// Time over which the messages arrive evenly.
    pub seconds: u64,
    /// Recipients of the list; 0: there is none.
    pub list: u64,
    /// Arrival of the list.
    pub list_at_s: u64,
    /// Concurrent deliveries of all smtp agents.
    pub capacity: u32,
    /// Mean time of a delivery at a slow destination.
    pub slow_ms: u64,
    /// No destination is dead, slow or greylisting.
    pub healthy: bool,
}

/// The behaviour of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A delivery takes 20 to 220 ms.
    Well,
    /// Takes long.
    Slow,
    /// Puts young mail off.
    Greylisting,
    /// Dead for the first half hour.
    Outage,
    /// Dead.
    Dead,
}

/// The result of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Taken.
    Taken,
    /// Not now.
    Later,
    /// Never.
    Never,
    /// The destination as a whole is out of reach.
    Unreachable,
}

/// The traffic of a run.
pub struct Traffic {
    /// The options.
    pub options: Options,
    /// Sums of the destinations' shares.
    shares: Vec<f64>,
    /// The number of the first recipient of each message, counted through.
    first_recipient: Vec<u32>,
}

impl Traffic {
    /// The traffic that these options say.
    pub fn new(options: Options) -> Self {
        let mut sum = 0.0;
        let shares = (1..=options.destinations).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        let shares = shares.collect();
        let mut traffic = Self { options, shares, first_recipient: Vec::new() };
        let mut first = 0;
        for n in 0..=traffic.messages() {
            traffic.first_recipient.push(first);
            first += if n < traffic.messages() { traffic.recipients_of(n) as u32 } else { 0 };
        }
        traffic
    }

    /// All messages; the list is the last.
    pub fn messages(&self) -> u64 {
        self.options.messages + u64::from(self.options.list > 0)
    }

    /// All recipients of all messages.
    pub fn recipients(&self) -> u64 {
        u64::from(self.first_recipient[self.messages() as usize])
    }

    /// Return whether a message is the list.
    pub fn is_list(&self, n: u64) -> bool {
        n == self.options.messages
    }

    /// Recipients of a message.
    pub fn recipients_of(&self, n: u64) -> u64 {
        if self.is_list(n) {
            return self.options.list;
        }
        match self.draw(1, n) {
            draw if draw % SEVERAL_EVERY == 0 => 2 + draw / SEVERAL_EVERY % (SEVERAL_MAX - 1),
            _ => 1,
        }
    }

    /// A recipient's number, counted through all messages.
    pub fn recipient_number(&self, n: u64, index: u32) -> usize {
        (self.first_recipient[n as usize] + index) as usize
    }

    /// Messages in the order of their arrival.
    pub fn order(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let singles = self.options.messages;
        let list_at_us = self.options.list_at_s * SECOND_US;
        let before = (0..singles).take_while(move |n| self.arrives_us(*n) < list_at_us);
        let list = (self.options.list > 0).then_some(singles);
        let after = (0..singles).skip_while(move |n| self.arrives_us(*n) < list_at_us);
        before.chain(list).chain(after).map(|n| (self.arrives_us(n), n))
    }

    /// Return the arrival of a message, in microseconds of the simulation.
    pub fn arrives_us(&self, n: u64) -> u64 {
        if self.is_list(n) {
            return self.options.list_at_s * SECOND_US;
        }
        let every_us = self.options.seconds * SECOND_US / self.options.messages;
        n * every_us + self.draw(2, n) % every_us.max(1)
    }

    /// The destination of a recipient.
    pub fn destination(&self, n: u64, index: u64) -> u64 {
        let total = self.shares[self.shares.len() - 1];
        let at = self.unit(3, n << 20 | index) * total;
        self.shares.partition_point(|sum| *sum <= at).min(self.shares.len() - 1) as u64
    }

    /// A message's envelope.
    pub fn envelope(&self, n: u64) -> Envelope {
        let recipients = self.some_recipients(n, 0, u64::MAX);
        let arrival_us = START_US + self.arrives_us(n);
        Envelope { arrival_us, size_octets: 4096, ..Envelope::plain(self.id(n), "s@example.org", recipients) }
    }

    /// Return at most `most` of a message's recipients, from this one on.
    pub fn some_recipients(&self, n: u64, from: u64, most: u64) -> Vec<Recipient> {
        let recipient = |index| {
            let destination = self.destination(n, index);
            Recipient::plain(&format!("r{index}@d{destination}.example"))
        };
        (from..self.recipients_of(n).min(from.saturating_add(most))).map(recipient).collect()
    }

    /// A message's name.
    pub fn id(&self, n: u64) -> QueueId {
        QueueId((START_US + n) << SLOT_BITS)
    }

    /// The message of a name.
    pub fn number(&self, id: QueueId) -> u64 {
        id.usec() - START_US
    }

    /// The behaviour of a destination. Each kind has large and small destinations.
    pub fn fate(&self, destination: u64) -> Fate {
        match (destination % 100, destination % 50, destination % 20) {
            _ if self.options.healthy => Fate::Well,
            (7, ..) => Fate::Dead,
            (57, ..) => Fate::Outage,
            (_, 11, _) => Fate::Greylisting,
            (.., 2) => Fate::Slow,
            _ => Fate::Well,
        }
    }

    /// Return whether it is dead at this moment.
    pub fn unreachable(&self, destination: u64, at_us: u64) -> bool {
        match self.fate(destination) {
            Fate::Dead => true,
            Fate::Outage => at_us < OUTAGE_US,
            _ => false,
        }
    }

    /// Return the time of a delivery that begins now.
    pub fn takes_us(&self, destination: u64, recipients: usize, delivery: u64, at_us: u64) -> u64 {
        if self.unreachable(destination, at_us) {
            return CONNECT_TIMEOUT_US;
        }
        let mean_us = match self.fate(destination) {
            Fate::Slow => self.options.slow_ms * 1000,
            _ => 20_000 + self.draw(4, destination) % 200_000,
        };
        // Pareto's distribution with exponent 2: mostly half the mean, sometimes many times it.
        let unit = self.unit(5, delivery).max(1e-4);
        (mean_us as f64 * 0.5 / unit.sqrt()) as u64 + recipients as u64 * RECIPIENT_US
    }

    /// Return the result of a recipient at an attempt.
    pub fn verdict(&self, n: u64, index: u32, destination: u64, began_us: u64) -> Verdict {
        if self.unreachable(destination, began_us) {
            Verdict::Unreachable
        } else if self.draw(6, n << 20 | u64::from(index)).is_multiple_of(UNKNOWN_EVERY) {
            Verdict::Never
        } else if self.fate(destination) == Fate::Greylisting && began_us < self.arrives_us(n) + GREYLISTED_US {
            Verdict::Later
        } else {
            Verdict::Taken
        }
    }

    fn draw(&self, what: u64, n: u64) -> u64 {
        mix(mix(self.options.seed ^ what << 56) ^ n)
    }

    /// At least 0, below 1.
    fn unit(&self, what: u64, n: u64) -> f64 {
        (self.draw(what, n) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// SplitMix64: a number that looks nothing like its neighbour's.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}
