//! Lookup tables: a key in, a value out (DATABASE_README).
//!
//! A `Table` of this crate answers at once, from memory or by a read of its file. A remote table has only a number
//! here: its program looks the key up (`ask`). `Maps` is the list of tables that a parameter names; the first value
//! counts.

pub mod cdb;
pub mod cidr;
pub mod combined;
pub mod database;
pub mod dictionary;
pub mod file;
pub mod fixed;
mod hashed;
pub mod index;
pub mod indexed;
pub mod inline;
pub mod key;
pub mod lmdb;
pub mod octets;
pub mod options;
mod pieces;
pub mod prefix;
pub mod ranges;
pub mod rules;
pub mod script;
pub mod source;
pub mod template;
#[cfg(test)]
pub mod testing;
pub mod text;
mod threads;
pub mod watched;
pub mod words;

pub use crate::lookup::{Each, EachAnswer, Entry, Maps, Table};
