//! Lookups of many keys in a file with a hash table: cdb, and our own index.

use super::file::EachValue;
use crate::errno::reason;
use std::io;

/// Maximum number of keys whose records are read ahead together.
pub(super) const KEYS_WARMED: usize = 32;

/// A file whose hash table names the place of each record.
pub(super) trait Hashed {
    /// The hash of a key.
    type Hash: Copy + Default;

    /// Return the hash of a key.
    fn hash(key: &[u8]) -> Self::Hash;
    /// Read the first slot and record of each hash, so that they are in the processor's cache. One lookup waits for the
    /// memory twice; here the waits of many overlap. `hashes`: at most `KEYS_WARMED`.
    fn warm(&self, hashes: &[Self::Hash]);
    /// Call `found` with the value of a key, and return whether there is one. `hash`: the key's. Errors: the file cannot
    /// be read, or is damaged.
    fn find(&self, key: &[u8], hash: Self::Hash, found: &mut dyn FnMut(&[u8])) -> io::Result<bool>;
}

/// Look keys up, in their order, until `each` wants no more.
pub(super) fn get_each<T: Hashed>(table: &T, keys: &[&[u8]], each: EachValue) {
    let mut hashes = [T::Hash::default(); KEYS_WARMED];
    for (group, keys) in keys.chunks(KEYS_WARMED).enumerate() {
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = T::hash(key);
        }
        table.warm(&hashes[..keys.len()]);
        for (at, key) in keys.iter().enumerate() {
            let place = group * KEYS_WARMED + at;
            let mut goes_on = true;
            match table.find(key, hashes[at], &mut |value| goes_on = each(place, Ok(Some(value)))) {
                Ok(true) => {}
                Ok(false) => goes_on = each(place, Ok(None)),
                Err(error) => goes_on = each(place, Err(reason(&error))),
            }
            if !goes_on {
                return;
            }
        }
    }
}
