//! How fast does cleanup read headers and bodies, beside a bare search for line ends?
//!
//! `cargo run --release --example parser -- DIRECTORY PASSES`: DIRECTORY has messages in wire form (`NAME.wire`) and
//! what each is to become (`NAME.arrives`, wire form as well). Each pass takes every message through cleanup in pieces
//! of 16 KiB, as a socket gives them, and then has memchr find every line end in the same octets; the best pass counts.
//! `correct`: each message becomes what it should, whole, in these pieces, and byte by byte. Prints one JSON object.

use postillion_core::cleanup::settings::CleanupSettings;
use postillion_core::cleanup::{Intake, Options, Origin};
use postillion_core::log::{Log, LogTarget};
use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::id::QueueId;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PIECE_OCTETS: usize = 16 * 1024;
const WALL_US: u64 = 1_795_000_000_000_000;

struct Message {
    wire: Vec<u8>,
    arrives: Vec<u8>,
}

fn read(directory: &Path) -> Vec<Message> {
    let entries = fs::read_dir(directory).expect("the directory");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|name| name == "wire"));
    paths.sort();
    let file = |path: &Path| fs::read(path).expect("a message");
    paths.iter().map(|path| Message { wire: file(path), arrives: file(&path.with_extension("arrives")) }).collect()
}

/// Return the head of the message as it goes into the queue, and write its body to `out`. The caller's buffer keeps
/// most allocations out of the measurement.
fn cleaned(settings: &Arc<CleanupSettings>, wire: &[u8], piece_octets: usize, out: &mut Vec<u8>) -> Vec<u8> {
    let recipients = vec![Recipient::plain("recipient@example.net")];
    let envelope = Envelope::plain(QueueId(WALL_US << 12), "sender@example.org", recipients);
    let origin = Origin::Network { trusted: false };
    out.clear();
    let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, LogTarget::Memory));
    let mut intake = Intake::new(Arc::clone(settings), log, out, envelope, origin, Options::EXTERNAL, WALL_US);
    wire.chunks(piece_octets).for_each(|piece| intake.feed(piece));
    let (_, head, envelope) = intake.finish().expect("no message of the corpus is refused");
    black_box(envelope);
    head
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, passes] = &arguments[..] else { panic!("usage: parser DIRECTORY PASSES") };
    let passes: usize = passes.parse().expect("a number");
    let messages = read(Path::new(directory));
    let settings = Arc::new(CleanupSettings::new("mx.example.org"));
    let mut out = Vec::with_capacity(16 * 1024 * 1024);
    let mut correct = !messages.is_empty();
    for message in &messages {
        for piece_octets in [usize::MAX, PIECE_OCTETS, 1] {
            let head = cleaned(&settings, &message.wire, piece_octets, &mut out);
            correct &= [&head[..], &out].concat() == message.arrives;
        }
    }
    let (mut cleanup, mut search) = (Duration::MAX, Duration::MAX);
    for _ in 0..passes {
        let begun = Instant::now();
        for message in &messages {
            black_box(cleaned(&settings, &message.wire, PIECE_OCTETS, &mut out));
            black_box(&out);
        }
        cleanup = cleanup.min(begun.elapsed());
        let begun = Instant::now();
        for message in &messages {
            black_box(memchr::memchr_iter(b'\n', black_box(&message.wire)).count());
        }
        search = search.min(begun.elapsed());
    }
    let octets: usize = messages.iter().map(|message| message.wire.len()).sum();
    println!(
        "{{\"messages\": {}, \"octets\": {octets}, \"cleanup_s\": {:.9}, \"memchr_s\": {:.9}, \"correct\": {correct}}}",
        messages.len(),
        cleanup.as_secs_f64(),
        search.as_secs_f64()
    );
}
