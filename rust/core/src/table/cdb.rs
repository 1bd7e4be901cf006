//! `cdb:f`: D. J. Bernstein's constant database in `f.cdb`, read and written.
//!
//! ```text
//! header   256 pairs: offset of a hash table, its number of slots
//! records  length of the key, length of the value, key, value
//! tables   pairs: hash, offset of the record; 0 is free
//! ```
//!
//! All numbers are u32, little-endian. Postfix writes keys and values without a null octet at their end, and reads both.

use super::Each;
use super::database::Database;
use super::dictionary::Dictionary;
use super::file::{EachValue, Entries, Format, Loaded};
use super::hashed::{self, Hashed, KEYS_WARMED};
use super::octets::Octets;
use super::options::Options;
use crate::errno::reason;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

const HEADER_OCTETS: u64 = 2048;
/// Pieces of the file that a lookup reads: two pairs, and two of the record.
const PIECES_A_LOOKUP: u64 = 4;
/// Maximum octets of a key or a value.
const PART_MAX_OCTETS: usize = 16 * 1024 * 1024;

/// Whether keys end with a null octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Nulls {
    /// Nothing was found yet.
    Unknown,
    /// They do not.
    Without,
    /// They do.
    With,
}

/// A callback for a value.
type Found<'a> = &'a mut dyn FnMut(&[u8]);

/// An open file.
#[derive(Debug)]
pub struct Cdb {
    octets: Octets,
    /// A `Nulls`, learnt from the first key that is found, as in Postfix.
    nulls: AtomicU8,
}

impl Cdb {
    /// Read the header. Errors: the file is no cdb file.
    pub fn of(octets: Octets) -> Result<Self, String> {
        if octets.len() < HEADER_OCTETS {
            return Err("not a cdb file".to_owned());
        }
        Ok(Self { octets, nulls: AtomicU8::new(Nulls::Unknown as u8) })
    }

    /// Call `found` with the value of a key as it is written, without a null octet at the value's end.
    fn exact(&self, key: &[u8], hash: u32, found: Found) -> io::Result<bool> {
        let (table, slots) = self.pair(u64::from(hash & 255) * 8)?;
        if slots == 0 {
            return Ok(false);
        }
        let start = (hash >> 8) % slots;
        let mut buffer = Vec::new();
        for slot in (start..slots).chain(0..start) {
            let (slot_hash, at) = self.pair(u64::from(table) + u64::from(slot) * 8)?;
            if at == 0 {
                return Ok(false);
            }
            if slot_hash == hash {
                let (written, value) = self.record(u64::from(at), &mut buffer)?;
                if written == key {
                    found(bare(value));
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn pair(&self, at: u64) -> io::Result<(u32, u32)> {
        let mut buffer = Vec::new();
        let octets = self.octets.piece(at, 8, &mut buffer)?;
        let number = |at: usize| u32::from_le_bytes(octets[at..at + 4].try_into().unwrap_or_default());
        Ok((number(0), number(4)))
    }

    fn record<'a>(&'a self, at: u64, buffer: &'a mut Vec<u8>) -> io::Result<(&'a [u8], &'a [u8])> {
        let (key, value) = self.pair(at)?;
        if key as usize > PART_MAX_OCTETS || value as usize > PART_MAX_OCTETS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is damaged"));
        }
        let record = self.octets.piece(at + 8, (key + value) as usize, buffer)?;
        Ok(record.split_at(key as usize))
    }
}

impl Hashed for Cdb {
    type Hash = u32;

    fn hash(key: &[u8]) -> u32 {
        hash(key)
    }

    fn warm(&self, hashes: &[u32]) {
        let Some(octets) = self.octets.in_memory() else { return };
        let number = |at: u64| {
            let octets = octets.get(at as usize..at as usize + 4)?;
            Some(u32::from_le_bytes(octets.try_into().ok()?))
        };
        let has_nulls = self.nulls.load(Ordering::Relaxed) == Nulls::With as u8;
        let slot = |&hash: &u32| {
            let hash = if has_nulls { hash_on(hash, 0) } else { hash };
            let at = u64::from(hash & 255) * 8;
            let (table, slots) = (number(at)?, number(at + 4).filter(|&slots| slots > 0)?);
            Some(u64::from(table) + u64::from((hash >> 8) % slots) * 8)
        };
        let mut places = [0; KEYS_WARMED];
        for (place, hash) in places.iter_mut().zip(hashes) {
            *place = slot(hash).unwrap_or_default();
        }
        for place in &mut places[..hashes.len()] {
            *place = number(*place + 4).unwrap_or_default().into();
        }
        let read = places[..hashes.len()].iter().filter_map(|&place| octets.get(place as usize));
        std::hint::black_box(read.fold(0, |sum, octet| sum ^ octet));
    }

    fn find(&self, key: &[u8], hash: u32, found: Found) -> io::Result<bool> {
        let nulls = self.nulls.load(Ordering::Relaxed);
        if nulls != Nulls::With as u8 && self.exact(key, hash, found)? {
            self.nulls.store(Nulls::Without as u8, Ordering::Relaxed);
            return Ok(true);
        }
        if nulls != Nulls::Without as u8 && self.exact(&[key, b"\0"].concat(), hash_on(hash, 0), found)? {
            self.nulls.store(Nulls::With as u8, Ordering::Relaxed);
            return Ok(true);
        }
        Ok(false)
    }
}

impl Entries for Cdb {
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
        let (end, _) = self.pair(0).map_err(|error| reason(&error))?;
        let (mut at, mut buffer) = (HEADER_OCTETS, Vec::new());
        while at < u64::from(end) {
            let (key, value) = self.record(at, &mut buffer).map_err(|error| reason(&error))?;
            if !each(bare(key), bare(value)) {
                return Ok(());
            }
            at += 8 + (key.len() + value.len()) as u64;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.octets.len() == HEADER_OCTETS
    }

    fn has_addresses(&self) -> bool {
        true
    }
}

/// Return octets without a null octet at the end.
pub(super) fn bare(octets: &[u8]) -> &[u8] {
    octets.strip_suffix(b"\0").unwrap_or(octets)
}

fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381, |hash, &octet| hash_on(hash, octet))
}

/// Return the hash of a key with one more octet.
fn hash_on(hash: u32, octet: u8) -> u32 {
    (hash << 5).wrapping_add(hash) ^ u32::from(octet)
}

/// Write the entries. `nulls`: whether keys and values get a null octet. Errors: also for more than 4 GiB.
pub fn write(entries: &Dictionary, file: &File, nulls: bool) -> io::Result<()> {
    let null: &[u8] = if nulls { b"\0" } else { b"" };
    let mut tables: Vec<Vec<(u32, u32)>> = vec![Vec::new(); 256];
    let mut out = io::BufWriter::with_capacity(1 << 20, file);
    out.write_all(&[0; HEADER_OCTETS as usize])?;
    let mut at = HEADER_OCTETS;
    let mut result = Ok(());
    entries.each(&mut |key, value| {
        let (key, value) = ([key, null].concat(), [value, null].concat());
        let lengths = key.len() as u64 | (value.len() as u64) << 32;
        if at + 8 + (key.len() + value.len()) as u64 > u64::from(u32::MAX) {
            result = Err(io::ErrorKind::FileTooLarge.into());
            return false;
        }
        let hash = hash(&key);
        tables[(hash & 255) as usize].push((hash, at as u32));
        result = out.write_all(&lengths.to_le_bytes()).and_then(|()| out.write_all(&key));
        if result.is_ok() {
            result = out.write_all(&value);
        }
        at += 8 + (key.len() + value.len()) as u64;
        result.is_ok()
    });
    result?;
    let mut header = Vec::with_capacity(HEADER_OCTETS as usize);
    for table in &tables {
        let slots = table.len() * 2;
        if at + slots as u64 * 8 > u64::from(u32::MAX) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        header.extend_from_slice(&(at as u32).to_le_bytes());
        header.extend_from_slice(&(slots as u32).to_le_bytes());
        let mut placed = vec![(0, 0); slots];
        for &(hash, record) in table {
            let mut slot = (hash >> 8) as usize % slots;
            while placed[slot].1 != 0 {
                slot = (slot + 1) % slots;
            }
            placed[slot] = (hash, record);
        }
        for (hash, record) in placed {
            out.write_all(&u64::to_le_bytes(u64::from(hash) | u64::from(record) << 32))?;
        }
        at += slots as u64 * 8;
    }
    out.flush()?;
    file.write_all_at(&header, 0)
}

/// `cdb:f`.
#[derive(Debug)]
pub struct CdbFile {
    database: Database,
    loaded_max_octets: u64,
}

impl CdbFile {
    /// `path`: that of the text.
    pub fn new(path: &Path, options: &Options) -> Self {
        Self { database: Database::new("cdb", path, options), loaded_max_octets: options.loaded_max_octets }
    }
}

impl Format for CdbFile {
    fn files(&self) -> Vec<PathBuf> {
        vec![self.database.path.clone()]
    }

    fn read(&self, warnings: &mut Vec<String>) -> Result<Loaded, String> {
        let (file, status) = self.database.open(warnings)?;
        let path = self.database.path.display();
        let octets = Octets::of(file, status.size(), self.loaded_max_octets)
            .map_err(|error| format!("read {path}: {}", reason(&error)))?;
        let entries = Cdb::of(octets).map_err(|problem| format!("open database {path}: {problem}"))?;
        Ok(Loaded { entries: Box::new(entries), owner: status.uid() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(nulls: bool, name: &str) -> Vec<u8> {
        let mut dictionary = Dictionary::default();
        for number in 0..2000 {
            dictionary.insert(format!("key{number}").as_bytes(), format!("{number}").as_bytes()).unwrap();
        }
        let path = std::env::temp_dir().join(format!("postillion-cdb-{}-{name}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        write(&dictionary, &file, nulls).unwrap();
        let octets = std::fs::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        octets
    }

    #[test]
    fn keys_with_and_without_null_octets_are_found() {
        for nulls in [false, true] {
            let cdb = Cdb::of(Octets::Memory(written(nulls, &format!("{nulls}")).into())).unwrap();
            for number in 0..2000 {
                let value = cdb.get(format!("key{number}").as_bytes()).unwrap();
                assert_eq!(value.as_deref(), Some(format!("{number}").as_bytes()));
            }
            assert_eq!(cdb.get(b"key2000"), Ok(None));
            let mut listed = 0;
            cdb.each(&mut |_, _| {
                listed += 1;
                true
            })
            .unwrap();
            assert_eq!(listed, 2000);
        }
    }

    #[test]
    fn many_keys_have_the_answers_of_one_after_the_other() {
        for nulls in [false, true] {
            let cdb = Cdb::of(Octets::Memory(written(nulls, &format!("each-{nulls}")).into())).unwrap();
            let keys: Vec<String> = (0..100).map(|number| format!("key{}", number * 31)).collect();
            let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            let mut answers = Vec::new();
            cdb.get_each(&keys, &mut |at, value| {
                assert_eq!(at, answers.len());
                answers.push(value.map(|value| value.map(Box::from)));
                true
            });
            assert_eq!(answers, keys.iter().map(|key| cdb.get(key)).collect::<Vec<_>>());
            assert_eq!(answers.iter().filter(|answer| matches!(answer, Ok(Some(_)))).count(), 65);
            let mut count = 0;
            cdb.get_each(&keys, &mut |at, _| {
                count += 1;
                at < 40
            });
            assert_eq!(count, 41);
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_crash() {
        let whole = written(false, "damage");
        assert!(Cdb::of(Octets::Memory(whole[..2047].into())).is_err());
        for at in (0..whole.len()).step_by(997) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let cdb = Cdb::of(Octets::Memory(damaged.into())).unwrap();
            cdb.get_each(&[b"key1", b"key1999"], &mut |_, _| true);
            let _ = (cdb.get(b"key1"), cdb.get(b"key1999"), cdb.each(&mut |_, _| true));
        }
        let cut = Cdb::of(Octets::Memory(whole[..2100].into())).unwrap();
        assert!(cut.get(b"key1").is_err());
    }
}
