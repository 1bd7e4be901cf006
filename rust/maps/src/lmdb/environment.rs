//! The part of LMDB that is used here, in Rust's types: environments, transactions, and the entries of one database.

use lmdb_master_sys as ffi;
use postillion_core::table::Each;
use std::ffi::{CStr, CString, c_int, c_uint};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};

const FLAGS: c_uint = ffi::MDB_NOSUBDIR | ffi::MDB_NOLOCK | ffi::MDB_NOTLS;
/// Maximum octets of a key, LMDB's own limit.
const KEY_MAX_OCTETS: usize = 511;
/// The one database of the file: LMDB's number for the unnamed one.
const UNNAMED: ffi::MDB_dbi = 1;

/// An open environment.
pub struct Environment(NonNull<ffi::MDB_env>);

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
pub struct Transaction<'a> {
    raw: NonNull<ffi::MDB_txn>,
    /// The environment.
    pub environment: &'a Environment,
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SAFETY: the transaction is neither committed nor aborted: `commit` forgets it.
        unsafe { ffi::mdb_txn_abort(self.raw.as_ptr()) }
    }
}

/// An error of LMDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub c_int);

impl Code {
    /// Return the error of a function's result, if it is one.
    pub fn check(code: c_int) -> Result<(), Self> {
        if code == 0 { Ok(()) } else { Err(Self(code)) }
    }

    /// Return LMDB's text.
    pub fn text(self) -> String {
        // SAFETY: mdb_strerror returns a constant text, or that of strerror.
        unsafe { CStr::from_ptr(ffi::mdb_strerror(self.0)) }.to_string_lossy().into_owned()
    }
}

impl Environment {
    /// Open a file; `map_octets`: its maximum size, 0 for that of the file.
    pub fn open(path: &Path, flags: c_uint, map_octets: usize) -> Result<Self, Code> {
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

    /// Begin a transaction.
    pub fn begin(&self, flags: c_uint) -> Result<Transaction<'_>, Code> {
        let mut raw = ptr::null_mut();
        // SAFETY: the environment is open.
        Code::check(unsafe { ffi::mdb_txn_begin(self.0.as_ptr(), ptr::null_mut(), flags, &mut raw) })?;
        Ok(Transaction { raw: NonNull::new(raw).ok_or(Code(libc::ENOMEM))?, environment: self })
    }

    /// Return the number of the last committed transaction.
    pub fn last_transaction(&self) -> usize {
        // SAFETY: all of the structure's fields are numbers or a pointer that is not followed; the environment is open.
        let mut info: ffi::MDB_envinfo = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        unsafe { ffi::mdb_env_info(self.0.as_ptr(), &mut info) };
        info.me_last_txnid as usize
    }

    /// Return the number of entries.
    pub fn entries(&self) -> usize {
        // SAFETY: all of the structure's fields are numbers; the environment is open.
        let mut stat: ffi::MDB_stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        unsafe { ffi::mdb_env_stat(self.0.as_ptr(), &mut stat) };
        stat.ms_entries as usize
    }
}

impl Transaction<'_> {
    /// Make the changes.
    pub fn commit(self) -> Result<(), Code> {
        let raw = self.raw;
        std::mem::forget(self);
        // SAFETY: the transaction is open, and forgotten: mdb_txn_commit frees it in any case.
        Code::check(unsafe { ffi::mdb_txn_commit(raw.as_ptr()) })
    }

    /// Return the value of a key. It is valid while the transaction is open and no other program writes twice.
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, Code> {
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
                // SAFETY: the value is in the map while the transaction is open, which the result borrows.
                Ok(Some(bare(unsafe { octets_of(&found) })))
            }
        }
    }

    /// Remove all entries.
    pub fn clear(&self) -> Result<(), Code> {
        // SAFETY: the transaction is open; 0 keeps the database and removes its entries.
        Code::check(unsafe { ffi::mdb_drop(self.raw.as_ptr(), UNNAMED, 0) })
    }

    /// Add an entry.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Code> {
        let (mut key, mut value) = (value_of(key), value_of(value));
        // SAFETY: the transaction is open, and LMDB copies key and value.
        Code::check(unsafe { ffi::mdb_put(self.raw.as_ptr(), UNNAMED, &mut key, &mut value, 0) })
    }

    /// Call `each` with every entry, until it returns false.
    pub fn each(&self, each: Each) -> Result<(), Code> {
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
