//! The plan of a source: its messages.

use super::tls::SourceTls;
use crate::clock::wall_now_us;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The header field that identifies a message of a source: run, number, and time of sending.
pub const HEADER: &str = "X-Postillion-Bench";
const LINE_OCTETS: usize = 72;
/// Latest time of a message, some thirty years after the start.
const DUE_MAX_S: f64 = 1e9;

/// The plan that all clients of a source share.
#[derive(Debug)]
pub struct Plan {
    /// Number of clients.
    pub sessions: usize,
    /// Total number of messages; `None`: until `stop`.
    pub messages: Option<u64>,
    /// Octets of the messages, used in turn, header included; a message has at least its header.
    pub octets: Vec<usize>,
    /// Recipients of a message.
    pub recipients: usize,
    /// Domains of the recipients, used in turn.
    pub domains: Vec<Box<str>>,
    /// The envelope's sender.
    pub sender: Box<str>,
    /// Messages per connection; 0 is no limit.
    pub reuse: u32,
    /// A client's pause between two messages.
    pub think: Duration,
    /// The clients begin one after the other over this time; a rate grows over this time.
    pub ramp: Duration,
    /// Messages per second that begin by the clock, also while earlier ones are unanswered; `None`: a client begins
    /// one after the other.
    pub rate: Option<f64>,
    /// MAIL, RCPT and DATA in one write (RFC 2920), if the server announces it.
    pub pipelining: bool,
    /// TLS of all connections.
    pub tls: Option<SourceTls>,
    /// Name in EHLO.
    pub helo: Box<str>,
    /// The number that identifies this run's messages.
    pub run: u64,
    /// Its progress.
    pub progress: Progress,
}

/// The progress of a plan.
#[derive(Debug, Default)]
pub struct Progress {
    next: AtomicU64,
    stopped: AtomicBool,
    begun: OnceLock<Instant>,
}

/// A plan of 20 sessions with a new connection for each message of 4 KiB to one recipient.
impl Default for Plan {
    fn default() -> Self {
        Self {
            sessions: 20,
            messages: None,
            octets: vec![4096],
            recipients: 1,
            domains: vec!["sink.example".into()],
            sender: "bench@source.example".into(),
            reuse: 1,
            think: Duration::ZERO,
            ramp: Duration::ZERO,
            rate: None,
            pipelining: false,
            tls: None,
            helo: "source.example".into(),
            run: wall_now_us(),
            progress: Progress::default(),
        }
    }
}

impl Plan {
    /// Return the number of the next message, or `None` when all are sent.
    pub fn take(&self) -> Option<u64> {
        if self.progress.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.progress.next.fetch_add(1, Ordering::Relaxed);
        if self.messages.is_some_and(|messages| number + 1 >= messages) {
            self.stop();
        }
        self.messages.is_none_or(|messages| number < messages).then_some(number)
    }

    /// Return when the next message begins by the clock; `None` without a rate, or without further messages.
    pub fn next_due(&self) -> Option<Instant> {
        if self.stopped() { None } else { self.due(self.progress.next.load(Ordering::Relaxed)) }
    }

    /// Return when message `number` begins by the clock; `None` without a rate. The clock starts with the first call.
    ///
    /// The rate grows evenly over the ramp: `t` seconds after the start, `rate * t * t / (2 * ramp)` messages have
    /// begun.
    pub fn due(&self, number: u64) -> Option<Instant> {
        let rate = self.rate?;
        let (number, ramp) = (number as f64, self.ramp.as_secs_f64());
        let after =
            if number < rate * ramp / 2.0 { (2.0 * number * ramp / rate).sqrt() } else { number / rate + ramp / 2.0 };
        let begun = *self.progress.begun.get_or_init(Instant::now);
        Some(begun + Duration::from_secs_f64(after.min(DUE_MAX_S)))
    }

    /// Return the octets of message `number`.
    pub fn octets_of(&self, number: u64) -> usize {
        self.octets[(number % self.octets.len() as u64) as usize]
    }

    /// Begin no more messages, and finish those under way.
    pub fn stop(&self) {
        self.progress.stopped.store(true, Ordering::Relaxed);
    }

    /// Return whether no message is left to begin.
    pub fn stopped(&self) -> bool {
        self.progress.stopped.load(Ordering::Relaxed)
    }

    /// Return the recipient of message `number` at `place`.
    pub fn recipient(&self, number: u64, place: usize) -> String {
        let nth = number.wrapping_mul(self.recipients as u64).wrapping_add(place as u64);
        let domain = &self.domains[(nth % self.domains.len() as u64) as usize];
        if self.recipients == 1 { format!("sink@{domain}") } else { format!("sink{place}@{domain}") }
    }

    /// Append message `number` in wire form, with the final dot.
    pub fn put_message(&self, number: u64, out: &mut Vec<u8>) {
        let mut head = String::with_capacity(256);
        let _ = write!(
            head,
            "From: <{}>\r\nTo: <{}>\r\nSubject: message {number}\r\nMessage-ID: <{}.{number}@{}>\r\n{HEADER}: {} {number} {}\r\n\r\n",
            self.sender,
            self.recipient(number, 0),
            self.run,
            self.helo,
            self.run,
            wall_now_us(),
        );
        let end = out.len() + self.octets_of(number).max(head.len());
        out.extend_from_slice(head.as_bytes());
        while out.len() + 2 < end {
            let line = (end - out.len() - 2).min(LINE_OCTETS);
            out.resize(out.len() + line, b'x');
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

/// Return run, number and time of sending from a header of `put_message`.
pub fn read_header(head: &[u8]) -> Option<(u64, u64, u64)> {
    let at = memchr::memmem::find(head, HEADER.as_bytes())? + HEADER.len() + 2;
    let line = head.get(at..)?;
    let line = &line[..memchr::memchr(b'\r', line)?];
    let mut numbers = std::str::from_utf8(line).ok()?.split(' ').map(|word| word.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_size_and_its_header_field() {
        for octets in [0, 300, 301, 302, 303, 374, 375, 376, 4096, 100_000] {
            let plan = Plan { octets: vec![octets], ..Plan::default() };
            let mut out = Vec::new();
            plan.put_message(7, &mut out);
            let content = out.len() - 3;
            assert!(out.ends_with(b"\r\n.\r\n"));
            let head = memchr::memmem::find(&out, b"\r\n\r\n").unwrap() + 4;
            assert!(content == octets || content == head || content + 2 >= octets, "{octets}: {content}");
            assert!(content <= octets.max(head));
            assert!(out.split(|octet| *octet == b'\n').all(|line| line.len() < 200));
            let (run, number, sent_us) = read_header(&out).unwrap();
            assert_eq!((run, number), (plan.run, 7));
            assert!(wall_now_us().abs_diff(sent_us) < 60_000_000);
        }
    }

    #[test]
    fn numbers_come_once_and_end() {
        let plan = Plan { messages: Some(3), ..Plan::default() };
        assert_eq!([plan.take(), plan.take()], [Some(0), Some(1)]);
        assert!(!plan.stopped());
        assert_eq!([plan.take(), plan.take()], [Some(2), None]);
        assert!(plan.stopped());
        let endless = Plan::default();
        assert_eq!(endless.take(), Some(0));
        endless.stop();
        assert_eq!(endless.take(), None);
    }

    #[test]
    fn messages_are_due_by_the_clock() {
        let ms = |plan: &Plan, number| {
            let begun = plan.due(0).unwrap();
            (plan.due(number).unwrap() - begun).as_millis() as u64
        };
        let plan = Plan { rate: Some(100.0), ..Plan::default() };
        assert_eq!([1, 50, 1000].map(|number| ms(&plan, number)), [10, 500, 10_000]);
        // Half of the rate on average while it grows: 100 messages in the first two seconds, then 100 a second.
        let plan = Plan { rate: Some(100.0), ramp: Duration::from_secs(2), ..Plan::default() };
        assert_eq!([25, 100, 200].map(|number| ms(&plan, number)), [1000, 2000, 3000]);
        let slow = Plan { rate: Some(1e-9), ..Plan::default() };
        assert_eq!(ms(&slow, u64::MAX), DUE_MAX_S as u64 * 1000);
        assert_eq!(Plan::default().due(1), None);
        assert!(plan.next_due().is_some());
        plan.stop();
        assert_eq!(plan.next_due(), None);
    }

    #[test]
    fn sizes_are_used_in_order() {
        let plan = Plan { octets: vec![1000, 2000, 5000], ..Plan::default() };
        for (number, octets) in [(0, 1000), (1, 2000), (2, 5000), (3, 1000)] {
            let mut out = Vec::new();
            plan.put_message(number, &mut out);
            assert_eq!((plan.octets_of(number), out.len()), (octets, octets + 3), "{number}");
        }
    }

    #[test]
    fn recipients_use_the_domains_in_order() {
        let domains = vec!["a.example".into(), "b.example".into(), "c.example".into()];
        let plan = Plan { recipients: 2, domains, ..Plan::default() };
        let got: Vec<String> = (0..2).flat_map(|n| [plan.recipient(n, 0), plan.recipient(n, 1)]).collect();
        assert_eq!(got, ["sink0@a.example", "sink1@b.example", "sink0@c.example", "sink1@a.example"]);
    }
}
