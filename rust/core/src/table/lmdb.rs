//! `lmdb:f`: OpenLDAP's LMDB in `f.lmdb`, read without its library and without a map of the file.
//!
//! Postfix's rules: one unnamed database, no file beside it, and a lock on the file itself in place of LMDB's own. Keys
//! and values end with a null octet, unless postmap was told otherwise; both are read.
//!
//! Writers change the file in its place. Each transaction writes free pages, then a meta page with the next number.
//! Transaction N + 1 may free pages of N, and no transaction before N + 3 writes freed ones. So a reader of N finds whole
//! pages while the meta pages name at most N + 1. A small file is read whole; a larger one page by page, in lookups that are done
//! again if other transactions spoil them.

pub mod pages;
pub mod snapshot;

use super::Each;
use super::cdb::{Nulls, bare};
use super::database::Database;
use super::file::{EachValue, Entries, Format, Loaded};
use super::octets::{self, IN_MEMORY_MAX_OCTETS, Large, Octets};
use super::options::Options;
use pages::Metas;
use rustix::fs::{FlockOperation, flock};
use snapshot::Snapshot;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Number of keys of a large file that are looked up under one lock, which keeps writers waiting for some microseconds.
const KEYS_A_LOCK: usize = 64;
/// Maximum number of attempts to read while others write.
const ATTEMPTS_MAX: usize = 4;
/// Pieces of a large file that a lookup reads, about.
const PIECES_A_LOOKUP: u64 = 4;

/// The entries of an open file.
#[derive(Debug)]
pub struct LmdbEntries {
    file: File,
    loaded_max_octets: u64,
    /// The last content that was read. A small file's is never replaced.
    snapshot: RwLock<Arc<Snapshot>>,
    /// A `Nulls`, learnt from the first key that is found, as in Postfix.
    nulls: AtomicU8,
}

/// A lock that keeps Postfix's writers away, if none is at work.
struct Shared<'a>(&'a File);

impl<'a> Shared<'a> {
    fn lock(file: &'a File) -> Option<Self> {
        flock(file, FlockOperation::NonBlockingLockShared).is_ok().then_some(Self(file))
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

fn metas(file: &File) -> Result<Metas, String> {
    Metas::read(&|place, at| file.read_exact_at(place, at))
}

/// Whether other transactions may have written pages of the one that these meta pages name.
fn is_spoiled(metas: &Metas, file: &File) -> Result<bool, String> {
    let now = Metas::read_once(&|place, at| file.read_exact_at(place, at))?.newest()?;
    Ok(now.transaction > metas.newest()?.transaction.saturating_add(1))
}

fn spoiled() -> String {
    "the file changes too often".to_owned()
}

fn text(error: io::Error) -> String {
    pages::text(&error)
}

impl LmdbEntries {
    /// Read an open file. `memory_max_octets`: maximum length of a file that is read whole now. `loaded_max_octets`: see
    /// `Options`. Errors: it is no LMDB file, or is damaged.
    pub fn read(file: File, memory_max_octets: u64, loaded_max_octets: u64) -> Result<Self, String> {
        for _ in 0..ATTEMPTS_MAX {
            let lock = Shared::lock(&file);
            let metas = metas(&file)?;
            let length = file.metadata().map_err(text)?.len();
            let octets = if length > memory_max_octets {
                large(&file, length, loaded_max_octets)
            } else {
                let mut octets = vec![0; length as usize];
                file.read_exact_at(&mut octets, 0).map(|()| Octets::Memory(octets.into()))
            };
            let snapshot = octets.map_err(text).and_then(|octets| Snapshot::of(octets, metas.clone()));
            if is_spoiled(&metas, &file)? {
                continue;
            }
            drop(lock);
            let (snapshot, nulls) = (RwLock::new(Arc::new(snapshot?)), AtomicU8::new(Nulls::Unknown as u8));
            return Ok(Self { file, loaded_max_octets, snapshot, nulls });
        }
        Err(spoiled())
    }

    /// Return what was read last.
    fn last(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Return the snapshot of a file that was read whole when it was opened.
    fn whole(&self) -> Option<Arc<Snapshot>> {
        Some(self.last()).filter(|snapshot| matches!(snapshot.octets, Octets::Memory(_)))
    }

    /// Return the snapshot of a large file that has these meta pages.
    fn present(&self, metas: &Metas) -> Result<Arc<Snapshot>, String> {
        let last = self.last();
        if last.metas == *metas {
            return Ok(last);
        }
        let octets = self.file.metadata().and_then(|file| large(&self.file, file.len(), self.loaded_max_octets));
        let snapshot = Arc::new(Snapshot::of(octets.map_err(text)?, metas.clone())?);
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&snapshot);
        Ok(snapshot)
    }

    /// Call `work` with a snapshot that nobody has spoiled. The work may be done several times.
    fn with<T>(&self, mut work: impl FnMut(&Snapshot) -> io::Result<T>) -> Result<T, String> {
        if let Some(snapshot) = self.whole() {
            return work(&snapshot).map_err(text);
        }
        for _ in 0..ATTEMPTS_MAX {
            let _lock = Shared::lock(&self.file);
            let metas = metas(&self.file)?;
            let result = self.present(&metas).and_then(|snapshot| work(&snapshot).map_err(text));
            if !is_spoiled(&metas, &self.file)? {
                return result;
            }
        }
        Err(spoiled())
    }

    /// Call `found` with the value of a key, written with or without a null octet at its end. `wanted`: a place for the
    /// key.
    fn find(
        &self,
        snapshot: &Snapshot,
        key: &[u8],
        wanted: &mut Vec<u8>,
        found: &mut dyn FnMut(&[u8]),
    ) -> io::Result<bool> {
        let nulls = self.nulls.load(Ordering::Relaxed);
        if nulls != Nulls::Without as u8 {
            wanted.clear();
            wanted.extend_from_slice(key);
            wanted.push(0);
            if snapshot.find(wanted, &mut |value| found(bare(value)))? {
                self.nulls.store(Nulls::With as u8, Ordering::Relaxed);
                return Ok(true);
            }
        }
        if nulls != Nulls::With as u8 && snapshot.find(key, &mut |value| found(bare(value)))? {
            self.nulls.store(Nulls::Without as u8, Ordering::Relaxed);
            return Ok(true);
        }
        Ok(false)
    }
}

/// Return a large file's octets.
fn large(file: &File, length: u64, loaded_max_octets: u64) -> io::Result<Octets> {
    Ok(Octets::File(Large::new(file.try_clone()?, length, loaded_max_octets)))
}

impl Entries for LmdbEntries {
    fn get(&self, key: &[u8]) -> Result<Option<Box<[u8]>>, String> {
        self.with(|snapshot| {
            let mut value = None;
            self.find(snapshot, key, &mut Vec::new(), &mut |found| value = Some(found.into()))?;
            Ok(value)
        })
    }

    fn get_each(&self, keys: &[&[u8]], each: EachValue) {
        let mut wanted = Vec::new();
        if let Some(snapshot) = self.whole() {
            for (at, key) in keys.iter().enumerate() {
                let mut goes_on = true;
                match self.find(&snapshot, key, &mut wanted, &mut |value| goes_on = each(at, Ok(Some(value)))) {
                    Ok(true) => {}
                    Ok(false) => goes_on = each(at, Ok(None)),
                    Err(error) => goes_on = each(at, Err(text(error))),
                }
                if !goes_on {
                    return;
                }
            }
            return;
        }
        // One lock for some keys, and copies of their values: only copies may be thrown away.
        for (group, keys) in keys.chunks(KEYS_A_LOCK).enumerate() {
            let found = self.with(|snapshot| {
                let (mut octets, mut spans) = (Vec::new(), Vec::with_capacity(keys.len()));
                for key in keys {
                    let start = octets.len();
                    let is_there =
                        self.find(snapshot, key, &mut wanted, &mut |value| octets.extend_from_slice(value))?;
                    spans.push(is_there.then_some(start..octets.len()));
                }
                Ok((octets, spans))
            });
            let first = group * KEYS_A_LOCK;
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

    fn expect(&self, lookups: usize) {
        self.last().octets.expect(lookups as u64 * PIECES_A_LOOKUP);
    }

    fn each(&self, each: Each) -> Result<(), String> {
        if let Some(snapshot) = self.whole() {
            return snapshot.each(&mut |key, value| each(bare(key), bare(value))).map_err(text);
        }
        // Only a copy of all entries may be thrown away.
        let entries = self.with(|snapshot| {
            let mut entries = Vec::new();
            snapshot.each(&mut |key, value| {
                entries.push((<Box<[u8]>>::from(bare(key)), <Box<[u8]>>::from(bare(value))));
                true
            })?;
            Ok(entries)
        })?;
        entries.iter().all(|(key, value)| each(key, value));
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.with(|snapshot| Ok(snapshot.meta.main.entries == 0)).unwrap_or(false)
    }

    fn has_addresses(&self) -> bool {
        true
    }

    fn is_current(&self) -> bool {
        match self.whole() {
            Some(snapshot) => metas(&self.file).is_ok_and(|metas| metas == snapshot.metas),
            None => true,
        }
    }
}

/// Check all pages that a file has in use. Errors: it is no LMDB file, or is damaged.
pub fn check(path: &Path) -> Result<(), String> {
    let (file, _) = octets::open(path)?;
    let checked = LmdbEntries::read(file, 0, 0).and_then(|entries| entries.with(Snapshot::check));
    checked.map_err(|problem| format!("{problem}: remove the file, and run the command again"))
}

/// `lmdb:f`.
#[derive(Debug)]
pub struct LmdbFile {
    database: Database,
    loaded_max_octets: u64,
}

impl LmdbFile {
    /// `path`: that of the text.
    pub fn new(path: &Path, options: &Options) -> Self {
        Self { database: Database::new("lmdb", path, options), loaded_max_octets: options.loaded_max_octets }
    }
}

impl Format for LmdbFile {
    fn files(&self) -> Vec<PathBuf> {
        vec![self.database.path.clone()]
    }

    fn read(&self, warnings: &mut Vec<String>) -> Result<Loaded, String> {
        let (file, status) = self.database.open(warnings)?;
        let path = self.database.path.display();
        if status.size() == 0 {
            return Err(format!("open database {path}: the file is empty"));
        }
        let entries = LmdbEntries::read(file, IN_MEMORY_MAX_OCTETS, self.loaded_max_octets)
            .map_err(|problem| format!("open database {path}: {problem}"))?;
        Ok(Loaded { entries: Box::new(entries), owner: status.uid() })
    }
}

#[cfg(test)]
mod tests;
