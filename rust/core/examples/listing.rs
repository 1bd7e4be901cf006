//! How long does a listing of many deferred messages take, and how long does the queue manager's loop wait for it?
//!
//! `cargo run --release --example listing -- DIRECTORY MESSAGES OCTETS`: fills an empty directory, opens it as the
//! queue manager does, and lists it.

use postillion_core::clock::{Now, wall_now_us};
use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::reply::Enhanced;
use postillion_core::mail::sink::Sink;
use postillion_core::mail::status::{Outcome, Status};
use postillion_core::qmgr::listing;
use postillion_core::qmgr::scheduler::Scheduler;
use postillion_core::qmgr::settings::Settings;
use postillion_core::qmgr::threads::{Report, Threads};
use postillion_core::queue::journal::{Journal, JournalOptions};
use postillion_core::queue::listing::rows::Form;
use postillion_core::queue::state::Fact;
use postillion_core::queue::store::disk_store::DiskStore;
use postillion_core::queue::store::spool::Spool;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// Commits that wait for the disk at a time.
const PENDING: usize = 500;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, directory, messages, octets] = &arguments[..] else {
        panic!("usage: listing DIRECTORY MESSAGES OCTETS");
    };
    let (directory, messages) = (Path::new(directory), messages.parse().expect("a number of messages"));
    let octets: usize = octets.parse().expect("a number of octets");
    std::fs::create_dir_all(directory).expect("the directory can be made");
    if !directory.join("incoming").exists() {
        fill(directory, messages, octets);
    }
    let opened = Instant::now();
    let now = Now { mono_us: 1_000_000, wall_us: wall_now_us() };
    let (store, news) = DiskStore::open_whole(directory).expect("the queue opens");
    let mut scheduler = Scheduler::new(Settings::default(), now);
    for message in news.messages {
        scheduler.restore(message, now);
    }
    println!("{} messages, opened in {:.2} s", scheduler.catalogue().len(), opened.elapsed().as_secs_f64());
    for (name, form) in [("json", Form::Json), ("text", Form::Text { offsets: vec![], waits: true })] {
        let mut threads = Threads::default();
        let (began, before_s) = (Instant::now(), cpu_s());
        let pipe = listing::list(&mut threads, 1, true, &scheduler, &store, form, now).expect("a listing");
        let waited = began.elapsed();
        let (mut file, mut buffer, mut read) = (File::from(pipe), vec![0; 1 << 20], 0);
        loop {
            match file.read(&mut buffer).expect("the pipe is read") {
                0 => break,
                some => read += some,
            }
        }
        let took = began.elapsed();
        std::thread::sleep(Duration::from_millis(50));
        let whole =
            threads.take().iter().any(|report| matches!(report, Report::Listed { messages: n, .. } if *n == messages));
        println!(
            "{name}: {:.2} s, {:.2} s of processor time, {} octets, the loop waited {} us, correct: {whole}",
            took.as_secs_f64(),
            cpu_s() - before_s,
            read,
            waited.as_micros()
        );
    }
}

/// Processor time of this process so far, the reader's of the pipe included (proc(5)).
fn cpu_s() -> f64 {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc(5)");
    let fields = stat.rsplit(')').next().expect("fields behind the name").split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / TICKS_A_SECOND
}

fn fill(directory: &Path, messages: u64, octets: usize) {
    let journal = Journal::open(directory, JournalOptions::default()).expect("a journal");
    let content = vec![b'x'; octets];
    let dsn = Enhanced { class: 4, subject: 4, detail: 1 };
    let text = "connect to mx.example.net[192.0.2.1]:25: Connection refused".into();
    let status = Status { outcome: Outcome::Deferred, dsn, text, remote: None };
    let (mut pending, mut facts) = (0, Vec::new());
    for n in 0..messages {
        let mut draft = journal.draft().expect("a draft");
        let (head, body) = content.split_at(content.len() / 4);
        draft.write(body).expect("content");
        let id = draft.id();
        let mut envelope = Envelope::plain(
            id,
            "sender@example.org",
            vec![Recipient::plain(&format!("user{n}@d{}.example.net", n % 5000))],
        );
        envelope.size_octets = octets as u64;
        envelope.attributes = [
            ("client_name", "client.example.org"),
            ("client_address", "192.0.2.7"),
            ("helo_name", "client.example.org"),
            ("protocol_name", "ESMTP"),
            ("message_id", "<20261122170203.123456@example.org>"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
        journal.commit(draft, head, &envelope, n);
        facts.push(Fact::Deferred {
            id,
            attempts: 1,
            next_attempt_us: id.usec() + 3_600_000_000,
            reasons: vec![(0, status.clone().into())],
        });
        pending += 1;
        while pending >= PENDING {
            pending -= journal.wait(Duration::from_secs(60)).len();
        }
    }
    while pending > 0 {
        pending -= journal.wait(Duration::from_secs(60)).len();
    }
    drop(journal);
    let (mut spool, _) = Spool::open(directory).expect("the queue opens");
    for facts in facts.chunks(1000) {
        spool.note_all(facts);
    }
}
