//! The questions of a core, and their answers.
//!
//! A core never waits. A table in memory or in a local file answers at once (`table`). For any other table the core
//! returns its lookups to its program, and goes on when it has the answers.

/// The answer of a lookup table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The value of the key, as in the table.
    Found(Box<[u8]>),
    /// The table has no such key.
    NotFound,
    /// The table cannot answer now: the mail waits. The text says which table, and why.
    Failed(Box<str>),
}

/// A lookup that the program makes for the core.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lookup {
    /// The table's number in the program's list of remote tables.
    pub table: usize,
    /// The key, at most a few hundred octets for an address.
    pub key: Box<[u8]>,
}
