//! Lookup tables as their users see them: a key in, a value out (DATABASE_README).
//!
//! A `Table` answers at once, from memory or by a read of its file; `table` has the types. A remote table has only a number
//! here: its program looks the key up (`ask`). `Maps` is the list of tables that a parameter names; the first value
//! counts.

mod lines;
mod search;

pub use lines::answer_lines;
pub use search::Key;

use crate::ask::Answer;
use std::fmt;
use std::sync::Arc;

/// A table that answers at once.
pub trait Table: fmt::Debug + Send + Sync {
    /// Return the table as main.cf names it: `hash:/etc/aliases`.
    fn name(&self) -> &str;

    /// Return the value of a key. A changed file is read again, and the old content answers until then.
    fn lookup(&self, key: &[u8]) -> Answer;

    /// Call `each` with the position of every key and its answer, in order, until it returns false. Many keys cost less
    /// than by `lookup`. A table that cannot be read may answer once for all keys: one error, at position 0.
    fn lookup_each(&self, keys: &[&[u8]], each: EachAnswer) {
        for (at, key) in keys.iter().enumerate() {
            let goes_on = match self.lookup(key) {
                Answer::Found(value) => each(at, Ok(Some(&value))),
                Answer::NotFound => each(at, Ok(None)),
                Answer::Failed(problem) => each(at, Err(problem)),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Prepare for that many lookups.
    fn expect(&self, lookups: usize) {
        let _ = lookups;
    }

    /// Whether the parts of an address are keys too, such as `@domain`. Pattern tables get the whole address alone.
    fn takes_parts(&self) -> bool {
        true
    }

    /// The uid of the owner of the table's source; `None` without a file.
    fn owner(&self) -> Option<u32> {
        None
    }

    /// Read the source if it has changed. Errors: why the table cannot answer.
    fn refresh(&self) -> Result<(), Box<str>> {
        Ok(())
    }

    /// Whether the source has changed and cannot be read, so that the answers are those of the old content.
    fn is_outdated(&self) -> bool {
        false
    }

    /// Whether the source has changed, and only root may read it.
    fn is_closed(&self) -> bool {
        false
    }

    /// Whether any key may be an address.
    fn has_addresses(&self) -> bool {
        true
    }

    /// Call `each` with every key and value, until it returns false. Errors: the table cannot list its entries.
    fn entries(&self, each: Each) -> Result<(), Box<str>> {
        let _ = each;
        Err(format!("table {}: sequence operation is not supported", self.name()).into())
    }

    /// Return the different values that a lookup may give, none if the table cannot tell. Errors: as `refresh`.
    fn values(&self) -> Result<Vec<Box<[u8]>>, Box<str>> {
        Ok(Vec::new())
    }
}

/// A callback for an entry: its key and its value. False: no more entries.
pub type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// A callback for an answer: the place of its key, and the value if there is one. False: no more answers. Errors: as
/// `Answer::Failed`.
pub type EachAnswer<'a> = &'a mut dyn FnMut(usize, Result<Option<&[u8]>, Box<str>>) -> bool;

/// One table of a list.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A table that answers at once.
    Local(Arc<dyn Table>),
    /// A table that the program asks. `index`: its number in the program's list of remote tables.
    Remote {
        /// See `Lookup::table`.
        index: usize,
        /// See `Table::takes_parts`.
        takes_parts: bool,
    },
}

/// The tables of a parameter, such as `virtual_alias_maps`, in their order.
#[derive(Debug, Clone, Default)]
pub struct Maps {
    /// The tables; the first value counts.
    pub tables: Box<[Entry]>,
}

impl Maps {
    /// Whether the list has no table.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}
