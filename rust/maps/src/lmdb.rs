//! `lmdb:f`: OpenLDAP's LMDB in `f.lmdb`, read and written.
//!
//! Postfix's rules: one unnamed database, no file beside it, and a lock on the file itself in place of LMDB's own. Keys
//! and values end with a null octet, unless postmap was told otherwise; both are read. The file is changed in place, in
//! one transaction.

use lmdb_master_sys as ffi;
use postillion_core::table::Each;
use postillion_core::table::database::Database;
use postillion_core::table::dictionary::Dictionary;
use postillion_core::table::file::{Entries, Format, Loaded};
use postillion_core::table::options::Options;
use std::ffi::{CStr, CString, c_int, c_uint};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

const FLAGS: c_uint = ffi::MDB_NOSUBDIR | ffi::MDB_NOLOCK | ffi::MDB_NOTLS;
/// Maximum octets of a key, LMDB's own limit.
const KEY_MAX_OCTETS: usize = 511;
/// Maximum number of attempts to read while others write.
const ATTEMPTS_MAX: usize = 4;
/// Maximum size of a database that is written.
const MAP_MAX_OCTETS: usize = 1 << 40;
/// The one database of the file: LMDB's number for the unnamed one.
const UNNAMED: ffi::MDB_dbi = 1;

/// An open environment.
struct Environment(NonNull<ffi::MDB_env>);

// SAFETY: LMDB lets threads use one environment; with MDB_NOTLS a transaction belongs to no thread.
unsafe impl Send for Environment {}
// SAFETY: as above.
unsafe impl Sync for Environment {}

impl Drop for Environment {
    fn drop(&mut self) {
        // SAFETY: each transaction borrows the environment, so none is left.
        unsafe { ffi::mdb_env_close(self.0.as_ptr()) }
    }
}

/// A transaction; aborted when dropped.
struct Transaction<'a> {
    raw: NonNull<ffi::MDB_txn>,
    environment: &'a Environment,
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SAFETY: the transaction is neither committed nor aborted: `commit` forgets it.
        unsafe { ffi::mdb_txn_abort(self.raw.as_ptr()) }
    }
}

/// An error of LMDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Code(c_int);

impl Code {
    fn check(code: c_int) -> Result<(), Self> {
        if code == 0 { Ok(()) } else { Err(Self(code)) }
    }

    fn text(self) -> String {
        // SAFETY: mdb_strerror returns a constant text, or that of strerror.
        unsafe { CStr::from_ptr(ffi::mdb_strerror(self.0)) }.to_string_lossy().into_owned()
    }
}

impl Environment {
    fn open(path: &Path, flags: c_uint, map_octets: usize) -> Result<Self, Code> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Code(libc::EINVAL))?;
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is that of a local variable.
        Code::check(unsafe { ffi::mdb_env_create(&mut raw) })?;
        let environment = Self(NonNull::new(raw).ok_or(Code(libc::ENOMEM))?);
        // SAFETY: the environment is new. The memory map is the file's: LMDB checks each access to a page by the
        // transaction's snapshot, and writers are kept away by the lock (see `LmdbEntries::find`).
        unsafe {
            if map_octets > 0 {
                Code::check(ffi::mdb_env_set_mapsize(environment.0.as_ptr(), map_octets))?;
            }
            Code::check(ffi::mdb_env_open(environment.0.as_ptr(), path.as_ptr(), FLAGS | flags, 0o644))?;
        }
        let transaction = environment.begin(if flags & ffi::MDB_RDONLY != 0 { ffi::MDB_RDONLY } else { 0 })?;
        let mut number = 0;
        // SAFETY: the transaction is open, the name is null for the unnamed database.
        Code::check(unsafe { ffi::mdb_dbi_open(transaction.raw.as_ptr(), ptr::null(), 0, &mut number) })?;
        transaction.commit()?;
        if number != UNNAMED {
            return Err(Code(libc::EINVAL));
        }
        Ok(environment)
    }

    fn begin(&self, flags: c_uint) -> Result<Transaction<'_>, Code> {
        let mut raw = ptr::null_mut();
        // SAFETY: the environment is open.
        Code::check(unsafe { ffi::mdb_txn_begin(self.0.as_ptr(), ptr::null_mut(), flags, &mut raw) })?;
        Ok(Transaction { raw: NonNull::new(raw).ok_or(Code(libc::ENOMEM))?, environment: self })
    }

    /// Return the number of the last committed transaction.
    fn last_transaction(&self) -> usize {
        // SAFETY: all of the structure's fields are numbers or a pointer that is not followed; the environment is open.
        let mut info: ffi::MDB_envinfo = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        unsafe { ffi::mdb_env_info(self.0.as_ptr(), &mut info) };
        info.me_last_txnid as usize
    }

    fn entries(&self) -> usize {
        // SAFETY: all of the structure's fields are numbers; the environment is open.
        let mut stat: ffi::MDB_stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        unsafe { ffi::mdb_env_stat(self.0.as_ptr(), &mut stat) };
        stat.ms_entries as usize
    }
}

impl Transaction<'_> {
    fn commit(self) -> Result<(), Code> {
        let raw = self.raw;
        std::mem::forget(self);
        // SAFETY: the transaction is open, and forgotten: mdb_txn_commit frees it in any case.
        Code::check(unsafe { ffi::mdb_txn_commit(raw.as_ptr()) })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Box<[u8]>>, Code> {
        if key.is_empty() || key.len() > KEY_MAX_OCTETS {
            return Ok(None);
        }
        let mut wanted = value_of(key);
        let mut found = value_of(b"");
        // SAFETY: the transaction is open, and the key is valid during the call.
        match unsafe { ffi::mdb_get(self.raw.as_ptr(), UNNAMED, &mut wanted, &mut found) } {
            ffi::MDB_NOTFOUND => Ok(None),
            code => {
                Code::check(code)?;
                // SAFETY: the value is in the map while the transaction is open.
                Ok(Some(bare(unsafe { octets_of(&found) }).into()))
            }
        }
    }

    fn each(&self, each: Each) -> Result<(), Code> {
        let mut cursor = ptr::null_mut();
        // SAFETY: the transaction is open; the cursor is closed before its end.
        Code::check(unsafe { ffi::mdb_cursor_open(self.raw.as_ptr(), UNNAMED, &mut cursor) })?;
        let (mut key, mut value) = (value_of(b""), value_of(b""));
        let mut step = ffi::MDB_FIRST;
        let result = loop {
            // SAFETY: the cursor is open.
            let code = unsafe { ffi::mdb_cursor_get(cursor, &mut key, &mut value, step) };
            if code != 0 {
                break if code == ffi::MDB_NOTFOUND { Ok(()) } else { Err(Code(code)) };
            }
            step = ffi::MDB_NEXT;
            // SAFETY: key and value are in the map while the transaction is open.
            let (key, value) = unsafe { (octets_of(&key), octets_of(&value)) };
            if !each(bare(key), bare(value)) {
                break Ok(());
            }
        };
        // SAFETY: the cursor is open.
        unsafe { ffi::mdb_cursor_close(cursor) };
        result
    }
}

fn value_of(octets: &[u8]) -> ffi::MDB_val {
    // LMDB does not write to keys or values.
    ffi::MDB_val { mv_size: octets.len(), mv_data: octets.as_ptr().cast_mut().cast() }
}

/// # Safety
///
/// The value comes from LMDB, and its transaction is open.
unsafe fn octets_of<'a>(value: &ffi::MDB_val) -> &'a [u8] {
    if value.mv_size == 0 {
        return &[];
    }
    // SAFETY: see above.
    unsafe { std::slice::from_raw_parts(value.mv_data.cast(), value.mv_size) }
}

/// Return octets without a null octet at the end.
fn bare(octets: &[u8]) -> &[u8] {
    octets.strip_suffix(b"\0").unwrap_or(octets)
}

/// The entries of an open file.
struct LmdbEntries {
    environment: Environment,
    path: PathBuf,
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

impl Entries for LmdbEntries {
    fn get(&self, key: &[u8]) -> Result<Option<Box<[u8]>>, String> {
        let with_null = [key, b"\0"].concat();
        self.read(|transaction| match transaction.get(&with_null)? {
            Some(value) => Ok(Some(value)),
            None => transaction.get(key),
        })
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
    // SAFETY: the transaction is open; 0 keeps the database and removes its entries.
    Code::check(unsafe { ffi::mdb_drop(transaction.raw.as_ptr(), UNNAMED, 0) })?;
    let mut result = Ok(());
    entries.each(&mut |key, value| {
        let (key, value) = ([key, null].concat(), [value, null].concat());
        let (mut key, mut value) = (value_of(&key), value_of(&value));
        // SAFETY: the transaction is open, and LMDB copies key and value.
        result = Code::check(unsafe { ffi::mdb_put(transaction.raw.as_ptr(), UNNAMED, &mut key, &mut value, 0) });
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
        let entries = LmdbEntries { environment, path: self.0.path.clone(), file };
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
