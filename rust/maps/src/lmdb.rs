//! `lmdb:f`: OpenLDAP's LMDB in `f.lmdb`, read and written.
//!
//! Postfix's rules: one unnamed database, no file beside it, and a lock on the file itself in place of LMDB's own. Keys
//! and values end with a null octet, unless postmap was told otherwise; both are read. The file is changed in place, in
//! one transaction.

mod environment;

use environment::{Code, Environment, Transaction};
use lmdb_master_sys as ffi;
use postillion_core::table::Each;
use postillion_core::table::cdb::Nulls;
use postillion_core::table::database::Database;
use postillion_core::table::dictionary::Dictionary;
use postillion_core::table::file::{EachValue, Entries, Format, Loaded};
use postillion_core::table::options::Options;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

/// Number of keys that are looked up in one transaction, which keeps writers waiting for some microseconds.
const KEYS_A_TRANSACTION: usize = 64;
/// Maximum number of attempts to read while others write.
const ATTEMPTS_MAX: usize = 4;
/// Maximum size of a database that is written.
const MAP_MAX_OCTETS: usize = 1 << 40;
/// The entries of an open file.
struct LmdbEntries {
    environment: Environment,
    path: PathBuf,
    /// A `Nulls`, learnt from the first key that is found, as in Postfix.
    nulls: AtomicU8,
    /// The same file, for its lock.
    file: File,
}

impl std::fmt::Debug for LmdbEntries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LmdbEntries").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LmdbEntries {
    /// Call `work` with a transaction whose pages nobody has overwritten. The work may be done several times.
    ///
    /// Writers of Postfix lock the file. A reader does not wait for one: a writer leaves the last snapshot alone, so
    /// only a second commit during the work can spoil it, and then the work is done again.
    fn read<T>(&self, mut work: impl FnMut(&Transaction<'_>) -> Result<T, Code>) -> Result<T, String> {
        for _ in 0..ATTEMPTS_MAX {
            // SAFETY: flock takes a descriptor and flags.
            let locked = unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } == 0;
            let result = self.environment.begin(ffi::MDB_RDONLY).and_then(|transaction| {
                let before = transaction.environment.last_transaction();
                let result = work(&transaction)?;
                Ok((result, transaction.environment.last_transaction() <= before + 1))
            });
            if locked {
                // SAFETY: as above.
                unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_UN) };
            }
            match result {
                Ok((found, true)) => return Ok(found),
                Ok((_, false)) => {}
                Err(Code(ffi::MDB_MAP_RESIZED)) => {
                    // Another program has made the file larger. The next check of the file opens it anew.
                    let larger = Environment::open(&self.path, ffi::MDB_RDONLY, 0).map_err(Code::text)?;
                    return larger
                        .begin(ffi::MDB_RDONLY)
                        .and_then(|transaction| work(&transaction))
                        .map_err(Code::text);
                }
                Err(code) => return Err(code.text()),
            }
        }
        Err("the file changes too often".to_owned())
    }
}

impl LmdbEntries {
    /// Return the value of a key, written with or without a null octet at its end. `wanted`: a place for the key.
    fn find<'a>(
        &self,
        transaction: &'a Transaction<'_>,
        key: &[u8],
        wanted: &mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, Code> {
        let nulls = self.nulls.load(Ordering::Relaxed);
        if nulls != Nulls::Without as u8 {
            wanted.clear();
            wanted.extend_from_slice(key);
            wanted.push(0);
            if let Some(value) = transaction.get(wanted)? {
                self.nulls.store(Nulls::With as u8, Ordering::Relaxed);
                return Ok(Some(value));
            }
        }
        if nulls != Nulls::With as u8
            && let Some(value) = transaction.get(key)?
        {
            self.nulls.store(Nulls::Without as u8, Ordering::Relaxed);
            return Ok(Some(value));
        }
        Ok(None)
    }
}

impl Entries for LmdbEntries {
    fn get(&self, key: &[u8]) -> Result<Option<Box<[u8]>>, String> {
        self.read(|transaction| Ok(self.find(transaction, key, &mut Vec::new())?.map(Into::into)))
    }

    fn get_each(&self, keys: &[&[u8]], each: EachValue) {
        // One transaction and one lock for some keys, and copies of their values: only copies may be thrown away.
        let mut wanted = Vec::new();
        for (group, keys) in keys.chunks(KEYS_A_TRANSACTION).enumerate() {
            let found = self.read(|transaction| {
                let (mut octets, mut spans) = (Vec::new(), Vec::with_capacity(keys.len()));
                for key in keys {
                    let start = octets.len();
                    let value = self.find(transaction, key, &mut wanted)?;
                    spans.push(value.map(|value| {
                        octets.extend_from_slice(value);
                        start..octets.len()
                    }));
                }
                Ok((octets, spans))
            });
            let first = group * KEYS_A_TRANSACTION;
            let goes_on = match found {
                Ok((octets, spans)) => {
                    spans.into_iter().enumerate().all(|(at, span)| each(first + at, Ok(span.map(|span| &octets[span]))))
                }
                Err(problem) => each(first, Err(problem)),
            };
            if !goes_on {
                return;
            }
        }
    }

    fn each(&self, each: Each) -> Result<(), String> {
        // Only a copy of all entries may be thrown away.
        let entries = self.read(|transaction| {
            let mut entries = Vec::new();
            transaction.each(&mut |key, value| {
                entries.push((<Box<[u8]>>::from(key), <Box<[u8]>>::from(value)));
                true
            })?;
            Ok(entries)
        })?;
        entries.iter().all(|(key, value)| each(key, value));
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.environment.entries() == 0
    }

    fn has_addresses(&self) -> bool {
        true
    }
}

/// Write the entries in place of those of the file, in one transaction. `nulls`: whether keys and values get a null
/// octet. `map_octets`: the initial limit of the size. Errors: also for a key of more than `KEY_MAX_OCTETS`.
pub fn write(entries: &Dictionary, path: &Path, nulls: bool, map_octets: usize) -> Result<(), String> {
    let mut map_octets = map_octets.clamp(1 << 20, MAP_MAX_OCTETS).next_multiple_of(4096);
    loop {
        match write_once(entries, path, nulls, map_octets) {
            Err(Code(ffi::MDB_MAP_FULL)) if map_octets < MAP_MAX_OCTETS => map_octets *= 2,
            result => return result.map_err(Code::text),
        }
    }
}

fn write_once(entries: &Dictionary, path: &Path, nulls: bool, map_octets: usize) -> Result<(), Code> {
    let null: &[u8] = if nulls { b"\0" } else { b"" };
    let environment = Environment::open(path, 0, map_octets)?;
    let transaction = environment.begin(0)?;
    transaction.clear()?;
    let mut result = Ok(());
    entries.each(&mut |key, value| {
        result = transaction.put(&[key, null].concat(), &[value, null].concat());
        result.is_ok()
    });
    result?;
    transaction.commit()
}

/// `lmdb:f`.
#[derive(Debug)]
pub struct LmdbFile(Database);

impl LmdbFile {
    /// `path`: that of the text.
    pub fn new(path: &Path, options: &Options) -> Self {
        Self(Database::new("lmdb", path, options))
    }
}

impl Format for LmdbFile {
    fn files(&self) -> Vec<PathBuf> {
        vec![self.0.path.clone()]
    }

    fn read(&self, warnings: &mut Vec<String>) -> Result<Loaded, String> {
        let (file, status) = self.0.open(warnings)?;
        let path = self.0.path.display();
        // LMDB takes an empty file for a new database, which a reader may not make.
        if status.size() == 0 {
            return Err(format!("open database {path}: the file is empty"));
        }
        let environment = Environment::open(&self.0.path, ffi::MDB_RDONLY, 0)
            .map_err(|code| format!("open database {path}: {}", code.text()))?;
        let nulls = AtomicU8::new(Nulls::Unknown as u8);
        let entries = LmdbEntries { environment, path: self.0.path.clone(), nulls, file };
        Ok(Loaded { entries: Box::new(entries), owner: status.uid() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postillion_core::table::index;

    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("postillion-lmdb-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(index::path_of(&path, ".lmdb"));
        path
    }

    fn dictionary(count: usize) -> Dictionary {
        let mut dictionary = Dictionary::default();
        for number in 0..count {
            dictionary.insert(format!("key{number}").as_bytes(), format!("value {number}").as_bytes()).unwrap();
        }
        dictionary
    }

    #[test]
    fn entries_with_and_without_null_octets_are_found() {
        for nulls in [false, true] {
            let text = path(&format!("nulls-{nulls}"));
            let file = index::path_of(&text, ".lmdb");
            write(&dictionary(3000), &file, nulls, 0).unwrap();
            let loaded = LmdbFile::new(&text, &Options::plain()).read(&mut Vec::new()).unwrap();
            for number in [0, 1, 2999] {
                let value = loaded.entries.get(format!("key{number}").as_bytes()).unwrap();
                assert_eq!(value.as_deref(), Some(format!("value {number}").as_bytes()));
            }
            for missing in [&b"key3000"[..], b"", &[b'k'; 600]] {
                assert_eq!(loaded.entries.get(missing), Ok(None));
            }
            let mut listed = 0;
            loaded
                .entries
                .each(&mut |key, value| {
                    assert!(key.starts_with(b"key") && value.starts_with(b"value ") && !value.ends_with(b"\0"));
                    listed += 1;
                    true
                })
                .unwrap();
            assert_eq!(listed, 3000);
            assert!(!index::path_of(&text, ".lmdb-lock").exists());
            std::fs::remove_file(file).unwrap();
        }
    }

    #[test]
    fn a_reader_sees_changes_and_growth() {
        let text = path("growth");
        let file = index::path_of(&text, ".lmdb");
        write(&dictionary(10), &file, true, 0).unwrap();
        let loaded = LmdbFile::new(&text, &Options::plain()).read(&mut Vec::new()).unwrap();
        assert_eq!(loaded.entries.get(b"key10"), Ok(None));
        write(&dictionary(100_000), &file, true, 0).unwrap();
        assert_eq!(loaded.entries.get(b"key99999").unwrap().as_deref(), Some(&b"value 99999"[..]));
        write(&Dictionary::default(), &file, true, 0).unwrap();
        assert_eq!(loaded.entries.get(b"key1"), Ok(None));
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn files_of_another_kind_are_errors() {
        let text = path("bad");
        let file = index::path_of(&text, ".lmdb");
        let read = || LmdbFile::new(&text, &Options::plain()).read(&mut Vec::new()).map(|_| ());
        assert!(read().unwrap_err().ends_with("No such file or directory"));
        for content in [&b""[..], b"short", &[7; 5000]] {
            std::fs::write(&file, content).unwrap();
            assert!(read().unwrap_err().starts_with("open database"), "{content:?}");
        }
        std::fs::write(&text, "a b\n").unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(read().unwrap_err().contains("run \"postmap lmdb:"));
        std::fs::remove_file(&text).unwrap();
    }

    #[test]
    fn a_key_that_is_too_long_is_an_error_and_changes_nothing() {
        let text = path("long");
        let file = index::path_of(&text, ".lmdb");
        write(&dictionary(5), &file, true, 0).unwrap();
        let mut long = dictionary(1);
        long.insert(&[b'k'; 600], b"v").unwrap();
        assert!(write(&long, &file, true, 0).is_err());
        let loaded = LmdbFile::new(&text, &Options::plain()).read(&mut Vec::new()).unwrap();
        assert_eq!(loaded.entries.get(b"key4").unwrap().as_deref(), Some(&b"value 4"[..]));
        std::fs::remove_file(file).unwrap();
    }
}
