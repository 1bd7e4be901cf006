//! How many messages per second does one journal make durable?
//!
//! `cargo run --release --example append -- DIRECTORY [MESSAGES [OCTETS [IN_FLIGHT]]]`: one producer keeps IN_FLIGHT
//! commits pending, as the same number of sessions would. Afterwards it reads the queue as a start does. The figure
//! depends on the disk's sync as well as on the program: use a directory on the disk in question.

use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::sink::Sink;
use postillion_core::queue::{Fact, Journal, JournalOptions, Spool};
use std::path::Path;
use std::time::{Duration, Instant};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("append DIRECTORY [MESSAGES [OCTETS [IN_FLIGHT]]]");
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (messages, octets, in_flight) = (number(100_000), number(4096), number(32));
    let directory = Path::new(&directory);
    let journal = Journal::open(directory, JournalOptions::default()).expect("the directory can be written");
    let content = vec![b'x'; octets as usize];

    let begun = Instant::now();
    let (mut committed, mut completed, mut failed, mut batches) = (0, 0, 0, 0u64);
    while completed < messages {
        while committed < messages && committed - completed < in_flight {
            commit(&journal, &content, committed);
            committed += 1;
        }
        let completions = journal.wait(Duration::from_secs(60));
        failed += completions.iter().filter(|completion| completion.result.is_err()).count();
        completed += completions.len() as u64;
        batches += 1;
        journal.take_announcements(&mut Vec::new());
    }
    let took = begun.elapsed();
    journal.close();

    let begun = Instant::now();
    let (mut spool, stored) = Spool::open(directory).expect("the queue can be read");
    let read = begun.elapsed();
    let found = stored.len() as u64;
    let begun = Instant::now();
    for stored in &stored {
        spool.note(Fact::Done { id: stored.arrival.envelope.id, recipients: vec![0].into() });
    }
    let noted = begun.elapsed();
    spool.tick(0);

    let rate = |took: Duration| messages as f64 / took.as_secs_f64();
    println!("{messages} messages of {octets} octets, {in_flight} in flight, {batches} wake-ups");
    println!("commit   {:9.0} messages/s  {:?}", rate(took), took);
    println!("recover  {:9.0} messages/s  {:?}", rate(read), read);
    println!("note     {:9.0} facts/s     {:?}", rate(noted), noted);
    println!("correct  {}", failed == 0 && found == messages);
}

fn commit(journal: &Journal, content: &[u8], ticket: u64) {
    let mut draft = journal.draft().expect("there is space");
    let (head, body) = content.split_at(content.len() / 4);
    draft.write(body).expect("there is space");
    let envelope = Envelope {
        size_octets: content.len() as u64,
        attributes: vec![("client_address".into(), "127.0.0.1".into())],
        ..Envelope::plain(draft.id(), "sender@example.org", vec![Recipient::plain("recipient@example.net")])
    };
    journal.commit(draft, head, &envelope, ticket);
}
