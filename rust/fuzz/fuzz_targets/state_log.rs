//! Damaged state logs: exactly the facts with intact octets count; and entries of any octets with a valid checksum.
//!
//! Input: flags (bit 0: the rest is an entry's payload, otherwise damage to a log of twelve facts).

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::mail::id::QueueId;
use postillion_core::queue::{Fact, Spool};
use postillion_fuzz::queue::{Queue, damaged};
use postillion_fuzz::{Choices, bit};
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;

const MESSAGES: usize = 12;
const HEADER: usize = 24;
const SALT: Range<usize> = 16..20;
const MAGIC: &[u8] = b"\x93F";

/// A queue, and a state log in which each message is on hold.
struct Log {
    queue: Queue,
    path: PathBuf,
    octets: Vec<u8>,
    facts: Vec<Range<usize>>,
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let queue = Queue::write("state_log", &[&b"x"[..]; MESSAGES]);
        let (mut spool, _) = Spool::open(&queue.directory).expect("the queue opens");
        let active = fs::read_dir(queue.directory.join("active")).expect("active/");
        let paths = active.map(|entry| entry.expect("an entry").path());
        let is_log = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("state."));
        let path = paths.filter(is_log).max().expect("a state log");
        let octets = || fs::metadata(&path).expect("the log").len() as usize;
        let mut facts = Vec::new();
        for (id, _) in &queue.records {
            let begin = octets();
            spool.note(Fact::Held { id: *id });
            facts.push(begin..octets());
        }
        drop(spool);
        let octets = fs::read(&path).expect("the log");
        Log { queue, path, octets, facts }
    })
}

/// Return the messages with intact facts in `file`. The header is written twice; no entry can be verified without one.
fn expected(log: &Log, file: &[u8]) -> BTreeSet<QueueId> {
    let whole = |range: &Range<usize>| file.get(range.clone()) == log.octets.get(range.clone());
    if !whole(&(0..HEADER)) && !whole(&(HEADER..2 * HEADER)) {
        return BTreeSet::new();
    }
    let facts = log.queue.records.iter().zip(&log.facts);
    facts.filter(|(_, range)| whole(range)).map(|((id, _), _)| *id).collect()
}

/// Return an entry with this payload, in the form of `statelog/form.rs`.
fn entry(salt: u32, payload: &[u8]) -> Vec<u8> {
    let octets = (payload.len() as u32).to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(salt, &octets), payload).to_le_bytes();
    [MAGIC, &octets, &crc, payload].concat()
}

fuzz_target!(|input: &[u8]| {
    let log = log();
    let mut choices = Choices::new(input);
    let all: Vec<QueueId> = log.queue.records.iter().map(|(id, _)| *id).collect();
    let (file, held) = if bit(choices.byte(), 0) {
        let salt = u32::from_le_bytes(log.octets[SALT].try_into().expect("four octets"));
        let at = log.facts[MESSAGES / 2].start;
        let file = [&log.octets[..at], &entry(salt, choices.rest()), &log.octets[at..]].concat();
        (file, all.iter().copied().collect())
    } else {
        let file = damaged(&log.octets, choices);
        let held = expected(log, &file);
        (file, held)
    };
    fs::write(&log.path, &file).expect("the log is written");
    let listed = log.queue.listed().expect("a listing");
    assert_eq!(listed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), all, "a fact costs a message");
    let is_held = |(_, line): &&(QueueId, String)| line.contains("\"queue_name\": \"hold\"");
    assert_eq!(listed.iter().filter(is_held).map(|(id, _)| *id).collect::<BTreeSet<_>>(), held);
});
