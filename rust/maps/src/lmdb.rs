//! `lmdb:f`: OpenLDAP's LMDB in `f.lmdb`, written. `postillion_core::table::lmdb` reads it.
//!
//! Postfix's rules: one unnamed database, no file beside it, and a lock on the file itself in place of LMDB's own. Keys
//! and values end with a null octet, unless postmap was told otherwise. The file is changed in place, in one transaction.

mod environment;

use environment::{Code, Environment};
use lmdb_master_sys as ffi;
use postillion_core::table::dictionary::Dictionary;
use postillion_core::table::lmdb;
use std::path::Path;

/// Maximum size of a database that is written.
const MAP_MAX_OCTETS: usize = 1 << 40;

/// Write the entries in place of those of the file, in one transaction. `nulls`: whether keys and values get a null
/// octet. `map_octets`: the initial limit of the size. Errors: also for a key of more than 511 octets, LMDB's limit, and for
/// a file that is damaged.
pub fn write(entries: &Dictionary, path: &Path, nulls: bool, map_octets: usize) -> Result<(), String> {
    // The library trusts the pages that it frees: it would end this program with a signal.
    if path.metadata().is_ok_and(|file| file.len() > 0) {
        lmdb::check(path)?;
    }
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
    let environment = Environment::open(path, map_octets)?;
    let transaction = environment.begin()?;
    transaction.clear()?;
    let mut result = Ok(());
    entries.each(&mut |key, value| {
        result = transaction.put(&[key, null].concat(), &[value, null].concat());
        result.is_ok()
    });
    result?;
    transaction.commit()
}

#[cfg(test)]
mod tests;
