//! The part of LMDB that is used here, in Rust's types: environments, and transactions that write the entries of one
//! database.

use lmdb_master_sys as ffi;
use std::ffi::{CStr, CString, c_int, c_uint};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};

const FLAGS: c_uint = ffi::MDB_NOSUBDIR | ffi::MDB_NOLOCK | ffi::MDB_NOTLS;
/// LMDB's number for the one database of the file, which has no name.
const UNNAMED: ffi::MDB_dbi = 1;

/// An open environment.
pub struct Environment(NonNull<ffi::MDB_env>);

impl Drop for Environment {
    fn drop(&mut self) {
        // SAFETY: each transaction borrows the environment, so none is left.
        unsafe { ffi::mdb_env_close(self.0.as_ptr()) }
    }
}

/// A transaction; aborted when dropped.
pub struct Transaction<'a> {
    raw: NonNull<ffi::MDB_txn>,
    environment: PhantomData<&'a Environment>,
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
    /// Open a file, which is made if it is missing. `map_octets`: its maximum size.
    pub fn open(path: &Path, map_octets: usize) -> Result<Self, Code> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Code(libc::EINVAL))?;
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is that of a local variable.
        Code::check(unsafe { ffi::mdb_env_create(&mut raw) })?;
        let environment = Self(NonNull::new(raw).ok_or(Code(libc::ENOMEM))?);
        // SAFETY: the environment is new. The caller has locked the file against other writers, and checked its pages.
        unsafe {
            Code::check(ffi::mdb_env_set_mapsize(environment.0.as_ptr(), map_octets))?;
            Code::check(ffi::mdb_env_open(environment.0.as_ptr(), path.as_ptr(), FLAGS, 0o644))?;
        }
        let transaction = environment.begin()?;
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
    pub fn begin(&self) -> Result<Transaction<'_>, Code> {
        let mut raw = ptr::null_mut();
        // SAFETY: the environment is open.
        Code::check(unsafe { ffi::mdb_txn_begin(self.0.as_ptr(), ptr::null_mut(), 0, &mut raw) })?;
        Ok(Transaction { raw: NonNull::new(raw).ok_or(Code(libc::ENOMEM))?, environment: PhantomData })
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
}

fn value_of(octets: &[u8]) -> ffi::MDB_val {
    // LMDB does not write to keys or values.
    ffi::MDB_val { mv_size: octets.len(), mv_data: octets.as_ptr().cast_mut().cast() }
}
