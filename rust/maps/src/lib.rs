//! Lookup tables that need C libraries, and the one way to open a table by its name in main.cf.
//!
//! `postillion_core` has no C and no `unsafe`. Tables that need either are here, one library a file: LMDB (`lmdb`), PCRE2
//! (`pcre`), the C library's regular expressions (`regexp`) and accounts (`accounts`). Each `unsafe` block says why it
//! is sound.

pub mod accounts;
pub mod automaton;
pub mod build;
pub mod cost;
pub mod lmdb;
pub mod open;
pub mod pattern;
pub mod pcre;
pub mod regexp;
