//! Our own index of a table, `f.db` for `hash:f` and `btree:f`.
//!
//! postmap writes the index whole and renames it into its place, so a reader never sees a part of one. It is read
//! without being parsed:
//!
//! ```text
//! header   64 octets: magic, version, flags, number of entries, number of slots, offsets, length, CRC32C
//! records  length of the key (u32), length of the value (u32), key, value
//! slots    a power of two; u64: the upper 16 bits of the key's hash, 48 bits of the record's offset; 0 is free
//! ```
//!
//! All numbers are little-endian. A key's slot is the lower bits of its hash, or one of the next until a free one.

use super::Each;
use super::dictionary::Dictionary;
use super::file::{EachValue, Entries};
use super::hashed::{self, Hashed, KEYS_WARMED};
use super::octets::Octets;
use crate::errno::reason;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// The first octets of an index.
pub(super) const MAGIC: &[u8; 16] = b"PostillionIndex\n";
const VERSION: u32 = 1;
/// A flag: some key has an `@`.
const HAS_ADDRESSES: u32 = 1;
const HEADER_OCTETS: usize = 64;
const RECORD_HEAD_OCTETS: usize = 8;
const OFFSET_BITS: u32 = 48;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
/// Maximum octets of a key or a value.
const PART_MAX_OCTETS: usize = 16 * 1024 * 1024;
/// Octets of a record that are read at once; most records are shorter.
const RECORD_READ_OCTETS: usize = 512;
/// Pieces of the file that a lookup reads: slots, and two of the record.
const PIECES_A_LOOKUP: u64 = 3;
/// Slots that are read at once.
const SLOTS_READ: u64 = 16;
/// An open index.
#[derive(Debug)]
pub struct Index {
    octets: Octets,
    entries: u64,
    slots: u64,
    slots_at: u64,
    has_addresses: bool,
}

impl Index {
    /// Read the header of an index. Errors: the file is no index, or is damaged.
    pub fn of(octets: Octets) -> Result<Self, String> {
        let mut buffer = Vec::new();
        let header = octets.piece(0, HEADER_OCTETS, &mut buffer).map_err(|_| "not an index".to_owned())?;
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap_or_default());
        let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap_or_default());
        if header[..MAGIC.len()] != MAGIC[..] {
            return Err("not an index".to_owned());
        }
        if u32_at(16) != VERSION {
            return Err(format!("an index of version {}; this program reads {VERSION}", u32_at(16)));
        }
        let damaged = || "the index is damaged".to_owned();
        if u32_at(56) != crc32c::crc32c(&header[..56]) {
            return Err(damaged());
        }
        let (entries, slots, slots_at, length) = (u64_at(24), u64_at(32), u64_at(40), u64_at(48));
        let end = slots.checked_mul(8).and_then(|octets| octets.checked_add(slots_at));
        if length != octets.len() || end != Some(length) || !slots.is_power_of_two() || entries >= slots {
            return Err(damaged());
        }
        let has_addresses = u32_at(20) & HAS_ADDRESSES != 0;
        Ok(Self { octets, entries, slots, slots_at, has_addresses })
    }

    /// Return key and value of the record at an offset.
    fn record<'a>(&'a self, at: u64, buffer: &'a mut Vec<u8>) -> io::Result<(&'a [u8], &'a [u8])> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the index is damaged");
        let room = self.slots_at.checked_sub(at).ok_or_else(damaged)?;
        let first = (RECORD_READ_OCTETS as u64).min(room) as usize;
        let head = self.octets.piece(at, first, buffer)?;
        let length =
            |at: usize| -> Option<usize> { Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?) as usize) };
        let (key, value) = length(0).zip(length(4)).ok_or_else(damaged)?;
        if key > PART_MAX_OCTETS || value > PART_MAX_OCTETS {
            return Err(damaged());
        }
        let record = self.octets.piece(at, RECORD_HEAD_OCTETS + key + value, buffer)?;
        Ok(record[RECORD_HEAD_OCTETS..].split_at(key))
    }
}

impl Hashed for Index {
    type Hash = u64;

    fn hash(key: &[u8]) -> u64 {
        hash(key)
    }

    fn warm(&self, hashes: &[u64]) {
        let Some(octets) = self.octets.in_memory() else { return };
        let mut places = [0; KEYS_WARMED];
        for (place, hash) in places.iter_mut().zip(hashes) {
            let at = (self.slots_at + (hash & (self.slots - 1)) * 8) as usize;
            *place = octets.get(at..at + 8).map_or(0, |slot| u64::from_le_bytes(slot.try_into().unwrap_or_default()));
        }
        let read = places[..hashes.len()].iter().filter_map(|&entry| octets.get((entry & OFFSET_MASK) as usize));
        std::hint::black_box(read.fold(0, |sum, octet| sum ^ octet));
    }

    fn find(&self, key: &[u8], hash: u64, found: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let tag = hash >> OFFSET_BITS;
        let mask = self.slots - 1;
        let (mut slot, mut left) = (hash & mask, self.slots);
        let (mut slots_buffer, mut record_buffer) = (Vec::new(), Vec::new());
        while left > 0 {
            let count = SLOTS_READ.min(self.slots - slot).min(left);
            let slots = self.octets.piece(self.slots_at + slot * 8, count as usize * 8, &mut slots_buffer)?;
            for entry in slots.chunks_exact(8) {
                let entry = u64::from_le_bytes(entry.try_into().unwrap_or_default());
                if entry == 0 {
                    return Ok(false);
                }
                if entry >> OFFSET_BITS == tag {
                    let (written, value) = self.record(entry & OFFSET_MASK, &mut record_buffer)?;
                    if written == key {
                        found(value);
                        return Ok(true);
                    }
                }
            }
            (slot, left) = ((slot + count) & mask, left - count);
        }
        Ok(false)
    }
}

impl Entries for Index {
    fn get(&self, key: &[u8]) -> Result<Option<Box<[u8]>>, String> {
        let mut value = None;
        self.find(key, hash(key), &mut |found| value = Some(found.into())).map_err(|error| reason(&error))?;
        Ok(value)
    }

    fn expect(&self, lookups: usize) {
        self.octets.expect(lookups as u64 * PIECES_A_LOOKUP);
    }

    fn get_each(&self, keys: &[&[u8]], each: EachValue) {
        hashed::get_each(self, keys, each);
    }

    fn each(&self, each: Each) -> Result<(), String> {
        let (mut at, mut buffer) = (HEADER_OCTETS as u64, Vec::new());
        while at < self.slots_at {
            let (key, value) = self.record(at, &mut buffer).map_err(|error| reason(&error))?;
            if !each(key, value) {
                return Ok(());
            }
            at += (RECORD_HEAD_OCTETS + key.len() + value.len()) as u64;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.entries == 0
    }

    fn has_addresses(&self) -> bool {
        self.has_addresses
    }
}

/// Write an index of entries. Errors: those of the file, and an entry that is too long.
pub fn write(entries: &Dictionary, file: &File) -> io::Result<()> {
    let slots = (entries.len() as u64 * 2).max(1).next_power_of_two().max(2);
    let mut table = vec![0_u64; slots as usize];
    let mut out = io::BufWriter::with_capacity(1 << 20, file);
    out.write_all(&[0; HEADER_OCTETS])?;
    let mut at = HEADER_OCTETS as u64;
    let mut result = Ok(());
    entries.each(&mut |key, value| {
        if key.len() > PART_MAX_OCTETS || value.len() > PART_MAX_OCTETS || at >> OFFSET_BITS != 0 {
            result = Err(io::ErrorKind::FileTooLarge.into());
            return false;
        }
        let hash = hash(key);
        let mut slot = hash & (slots - 1);
        while table[slot as usize] != 0 {
            slot = (slot + 1) & (slots - 1);
        }
        table[slot as usize] = hash >> OFFSET_BITS << OFFSET_BITS | at;
        let lengths = (key.len() as u64 | (value.len() as u64) << 32).to_le_bytes();
        result = out.write_all(&lengths).and_then(|()| out.write_all(key)).and_then(|()| out.write_all(value));
        at += (RECORD_HEAD_OCTETS + key.len() + value.len()) as u64;
        result.is_ok()
    });
    result?;
    for slot in &table {
        out.write_all(&slot.to_le_bytes())?;
    }
    out.flush()?;
    let mut header = Vec::with_capacity(HEADER_OCTETS);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&(if entries.has_addresses() { HAS_ADDRESSES } else { 0 }).to_le_bytes());
    for number in [entries.len() as u64, slots, at, at + slots * 8] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header.resize(HEADER_OCTETS, 0);
    file.write_all_at(&header, 0)
}

/// Return the hash of a key, the same on every machine.
fn hash(key: &[u8]) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        (product as u64) ^ (product >> 64) as u64
    };
    let mut state = STEP ^ key.len() as u64;
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = mix(state ^ u64::from_le_bytes(word), STEP).wrapping_add(STEP);
    }
    mix(state ^ state >> 32, 0xd6e8_feb8_6659_fd93)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::octets::Large;

    /// Return the octets of an index.
    fn index(entries: &[(&[u8], &[u8])], name: &str) -> Vec<u8> {
        let mut dictionary = Dictionary::default();
        for (key, value) in entries {
            dictionary.insert(key, value).unwrap();
        }
        let path = std::env::temp_dir().join(format!("postillion-index-{}-{name}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        write(&dictionary, &file).unwrap();
        let octets = std::fs::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        octets
    }

    #[test]
    fn entries_are_found_in_memory_and_in_a_file() {
        let long = vec![b'v'; 3000];
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> =
            (0..5000).map(|number| (format!("key{number}").into_bytes(), format!("{number}").into_bytes())).collect();
        entries.push((b"long".to_vec(), long.clone()));
        let borrowed: Vec<(&[u8], &[u8])> = entries.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        let octets = index(&borrowed, "both");
        let path = std::env::temp_dir().join(format!("postillion-index-{}-file", std::process::id()));
        std::fs::write(&path, &octets).unwrap();
        let file = Octets::File(Large::new(File::open(&path).unwrap(), octets.len() as u64, 0));
        for octets in [Octets::Memory(octets.into()), file] {
            let index = Index::of(octets).unwrap();
            for (key, value) in &borrowed {
                assert_eq!(index.get(key).unwrap().as_deref(), Some(*value));
            }
            assert_eq!(index.get(b"key5000"), Ok(None));
            let keys: Vec<&[u8]> = borrowed.iter().flat_map(|(key, _)| [*key, b"key5000"]).collect();
            let mut found = Vec::new();
            index.get_each(&keys, &mut |at, value| {
                assert_eq!(value.as_ref().unwrap().is_none(), at % 2 == 1);
                found.extend(value.unwrap().map(Vec::from));
                true
            });
            assert!(found.iter().map(Vec::as_slice).eq(borrowed.iter().map(|(_, value)| *value)));
            assert!(!index.has_addresses());
            let mut listed = 0;
            index
                .each(&mut |key, value| {
                    assert_eq!((key, value), borrowed[listed]);
                    listed += 1;
                    true
                })
                .unwrap();
            assert_eq!(listed, entries.len());
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_empty_index_has_no_entries() {
        let index = Index::of(Octets::Memory(index(&[], "empty").into())).unwrap();
        assert!(index.is_empty());
        assert_eq!(index.get(b"a"), Ok(None));
    }

    #[test]
    fn a_damaged_index_is_an_error_and_never_a_crash() {
        let whole = index(&[(b"a@b", b"1"), (b"c", b"2")], "damage");
        for end in 0..whole.len() {
            assert!(Index::of(Octets::Memory(whole[..end].into())).is_err());
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            if let Ok(index) = Index::of(Octets::Memory(damaged.into())) {
                index.get_each(&[b"a@b", b"c"], &mut |_, _| true);
                let _ = (index.get(b"a@b"), index.get(b"c"), index.get(b"d"), index.each(&mut |_, _| true));
            }
        }
    }

    #[test]
    fn the_hash_is_the_same_on_every_machine() {
        assert_eq!(hash(b""), hash(&[]));
        assert_ne!(hash(b"a"), hash(b"a\0"));
        assert_ne!(hash(b"12345678"), hash(b"12345679"));
    }
}
