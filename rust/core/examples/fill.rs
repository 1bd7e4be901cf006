//! Fill a queue through the journal, as fast as the disk allows: for benches with a full queue.
//!
//! `cargo run --release --example fill -- DIRECTORY MESSAGES OCTETS WRITERS [DEFER_SECONDS]`: each of WRITERS writers
//! waits until its message is stable before it writes the next one. With `DEFER_SECONDS` the messages are marked as
//! tried once and due after that time; no queue manager may work in the directory then. Prints one JSON object. Each
//! message has one recipient, in one of 10,007 domains.

use postillion_core::clock::wall_now_us;
use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::id::QueueId;
use postillion_core::mail::reply::Enhanced;
use postillion_core::mail::sink::Sink;
use postillion_core::mail::status::{Outcome, Status};
use postillion_core::queue::{Fact, Journal, JournalOptions, Spool};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A prime, so that neighbours go to different places.
const DOMAINS: u64 = 10_007;
/// Timeout of a commit: the disk is broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("fill DIRECTORY MESSAGES OCTETS WRITERS [DEFER_SECONDS]");
    let mut number = || arguments.next().map(|text| text.parse::<u64>().expect("a number"));
    let [messages, octets, writers] = [number(), number(), number()].map(|number| number.expect("three numbers"));
    let defer_s = number();
    let directory = Path::new(&directory);
    let content = content(octets as usize);

    let journal = Journal::open(directory, JournalOptions::default()).expect("the directory can be written");
    let mut waits_us = Vec::with_capacity(messages as usize);
    let mut begun_at = vec![Instant::now(); messages as usize];
    let mut ids = Vec::with_capacity(messages as usize);
    let begun = Instant::now();
    let (mut given, mut failed) = (0, 0);
    while (waits_us.len() as u64) < messages {
        while given < messages && given - (waits_us.len() as u64) < writers {
            begun_at[given as usize] = Instant::now();
            ids.push(commit(&journal, &content, given));
            given += 1;
        }
        let completions = journal.wait(PATIENCE);
        assert!(!completions.is_empty(), "the disk is silent");
        for completion in completions {
            failed += u64::from(completion.result.is_err());
            waits_us.push(begun_at[completion.ticket as usize].elapsed().as_micros() as u64);
        }
        journal.take_announcements(&mut Vec::new());
    }
    let took_s = begun.elapsed().as_secs_f64();
    journal.close();
    if let Some(defer_s) = defer_s {
        failed += messages.abs_diff(defer(directory, &ids, defer_s));
    }
    waits_us.sort_unstable();
    let wait_ms = |part: f64| waits_us[((messages as f64 * part) as usize).min(waits_us.len() - 1)] as f64 / 1000.0;
    println!(
        "{{\"messages\": {messages}, \"octets\": {octets}, \"writers\": {writers}, \"took_s\": {took_s:.3}, \
         \"per_s\": {:.0}, \"wait_p50_ms\": {:.3}, \"wait_p99_ms\": {:.3}, \"correct\": {}}}",
        messages as f64 / took_s,
        wait_ms(0.5),
        wait_ms(0.99),
        failed == 0
    );
}

/// A header and lines of text.
fn content(octets: usize) -> Vec<u8> {
    let mut content = b"From: sender@example.org\r\nSubject: one of many\r\n\r\n".to_vec();
    while content.len() < octets {
        content.extend_from_slice(&[b'x'; 70]);
        content.extend_from_slice(b"\r\n");
    }
    content.truncate(octets.saturating_sub(2));
    content.extend_from_slice(b"\r\n");
    content
}

fn commit(journal: &Journal, content: &[u8], n: u64) -> QueueId {
    let mut draft = journal.draft().expect("there is space");
    let (head, body) = content.split_at(content.len() / 4);
    draft.write(body).expect("there is space");
    let id = draft.id();
    let recipient = Recipient::plain(&format!("recipient{n}@d{}.example", n % DOMAINS));
    let attribute = |name: &str, value: &str| (Box::from(name), Box::from(value));
    let envelope = Envelope {
        size_octets: content.len() as u64,
        attributes: vec![attribute("client_name", "localhost"), attribute("client_address", "127.0.0.1")],
        ..Envelope::plain(id, "sender@example.org", vec![recipient])
    };
    journal.commit(draft, head, &envelope, n);
    id
}

/// Note for each message that it was tried; how many there are in the queue.
fn defer(directory: &Path, ids: &[QueueId], seconds: u64) -> u64 {
    let (mut spool, stored) = Spool::open(directory).expect("nobody else manages the queue");
    let next_attempt_us = wall_now_us() + seconds * 1_000_000;
    let dsn = Enhanced { class: 4, subject: 4, detail: 1 };
    let text = "connect to mx.example[192.0.2.1]:25: Connection timed out";
    let status = Arc::new(Status { outcome: Outcome::Deferred, dsn, text: text.into(), remote: None });
    for some in ids.chunks(1000) {
        let deferred = |id: &QueueId| {
            let reasons = vec![(0, Arc::clone(&status))];
            Fact::Deferred { id: *id, attempts: 1, next_attempt_us, reasons }
        };
        spool.note_all(&some.iter().map(deferred).collect::<Vec<Fact>>());
    }
    spool.tick(0);
    stored.len() as u64
}
