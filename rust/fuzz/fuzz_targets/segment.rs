//! Damaged segments: exactly the records with intact octets are found; and envelopes of any octets with valid
//! checksums. The same messages with the same contents are found once the segment is converted to version 1.
//!
//! Input: flags (bit 0: the rest is an envelope's octets, otherwise damage to a segment of seven records; bits 1 and 2:
//! octets of head and of body before such an envelope; bit 3: the record has version 1).

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::codec::Take;
use postillion_core::mail::envelope::Envelope;
use postillion_core::mail::id::QueueId;
use postillion_core::queue::convert::convert_to_v1;
use postillion_fuzz::queue::{Queue, damaged};
use postillion_fuzz::{Choices, bit};
use std::fs;
use std::ops::Range;
use std::sync::OnceLock;

const SEGMENT_HEADER: usize = 32;
const RECORD_HEADER: usize = 48;
const SALT: Range<usize> = 16..24;
const MAGIC: &[u8] = b"\x93PRC";
const BODY_BITS: u32 = 40;
const HEAD: &[u8] = b"Subject: head\r\n\r\n";
const BODY: &[u8] = b"body\r\n";

fn queue() -> &'static Queue {
    static QUEUE: OnceLock<Queue> = OnceLock::new();
    QUEUE.get_or_init(|| {
        let magic = MAGIC.repeat(30);
        let long = vec![b'x'; 1500];
        Queue::write("segment", &[b"", b"a\r\n", &magic, &long, b"\0\0\0\0", &[0x93; 49], b"last\r\n"])
    })
}

/// Return the intact messages in `file`, unless both copies of the salt are lost: in the segment's header and in the
/// first record's.
fn expected(queue: &Queue, file: &[u8]) -> Vec<QueueId> {
    let whole = |range: &Range<usize>| file.get(range.clone()) == queue.octets.get(range.clone());
    let first = SEGMENT_HEADER..SEGMENT_HEADER + RECORD_HEADER;
    if !whole(&(0..SEGMENT_HEADER)) && !whole(&first) {
        return vec![];
    }
    queue.records.iter().filter(|(_, range)| whole(range)).map(|(id, _)| *id).collect()
}

/// Return a record with these octets as its envelope, in the form of docs/queue.md and `record.rs`.
fn record(flags: u8, salt: &[u8], id: u64, envelope: &[u8]) -> Vec<u8> {
    let version = if bit(flags, 3) { 1 } else { 2 };
    // Version 1 has no head.
    let head = if bit(flags, 1) && version > 1 { HEAD } else { b"" };
    let body = if bit(flags, 2) { BODY } else { b"" };
    let lengths = body.len() as u64 | (head.len() as u64) << BODY_BITS;
    let mut out = [MAGIC, &[version, 0, 0, 0], salt, &id.to_le_bytes(), &lengths.to_le_bytes()].concat();
    out.extend_from_slice(&(envelope.len() as u32).to_le_bytes());
    let content = [body, head].concat();
    out.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(envelope).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    assert_eq!(out.len(), RECORD_HEADER);
    [&out, &content, envelope].concat()
}

fuzz_target!(|input: &[u8]| {
    let queue = queue();
    let mut choices = Choices::new(input);
    let flags = choices.byte();
    let (file, ids) = if bit(flags, 0) {
        let octets = choices.rest();
        let mut take = Take::new(octets);
        let envelope = Envelope::decode(&mut take).ok().filter(|_| take.end().is_ok());
        let id = octets.first_chunk::<8>().map_or(7, |id| u64::from_le_bytes(*id));
        let mut ids = expected(queue, &queue.octets);
        if envelope.is_some_and(|envelope| envelope.recipients.is_empty() || !ids.contains(&envelope.id)) {
            ids.push(QueueId(id));
        }
        ([&queue.octets[..], &record(flags, &queue.octets[SALT], id, octets)].concat(), ids)
    } else {
        let file = damaged(&queue.octets, choices);
        let ids = expected(queue, &file);
        (file, ids)
    };
    fs::write(&queue.segment, &file).expect("the segment is written");
    let found: Vec<QueueId> = queue.listed().expect("a listing").into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, ids);
    let contents = queue.contents();
    convert_to_v1(&queue.directory).expect("a conversion");
    assert!(queue.contents() == contents, "the conversion changed a message");
    let converted = fs::read(&queue.segment).expect("the converted segment");
    let is_version_2 = converted.get(..SEGMENT_HEADER) == queue.octets.get(..SEGMENT_HEADER);
    assert!(!is_version_2, "the segment was not converted");
});
