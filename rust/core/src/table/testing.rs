//! Tables for tests.

use super::{Entry, Maps, Table};
use crate::ask::{Answer, Lookup};
use crate::inquiry::{Asker, Inquiry};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;

/// A table in memory. The value `!` is a failure.
#[derive(Debug, Clone, Default)]
pub struct Fixed {
    rows: HashMap<Vec<u8>, Vec<u8>>,
    /// See `Table::takes_parts`.
    pub whole_only: bool,
    lookups: Arc<AtomicUsize>,
}

impl Fixed {
    /// Return a table with these rows.
    pub fn new(rows: &[(&str, &str)]) -> Self {
        let row = |(key, value): &(&str, &str)| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        Self { rows: rows.iter().map(row).collect(), ..Self::default() }
    }

    /// Return the number of lookups so far.
    pub fn lookups(&self) -> usize {
        self.lookups.load(Relaxed)
    }
}

impl Table for Fixed {
    fn name(&self) -> &str {
        "fixed:test"
    }

    fn lookup(&self, key: &[u8]) -> Answer {
        self.lookups.fetch_add(1, Relaxed);
        match self.rows.get(&key.to_ascii_lowercase()) {
            None => Answer::NotFound,
            Some(value) if value == b"!" => Answer::Failed("table fixed:test: fails".into()),
            Some(value) => Answer::Found(value.as_slice().into()),
        }
    }

    fn takes_parts(&self) -> bool {
        !self.whole_only
    }
}

/// Return a list of one local table.
pub fn local(rows: &[(&str, &str)]) -> Maps {
    Maps { tables: Box::new([Entry::Local(Arc::new(Fixed::new(rows)))]) }
}

/// Return a list of one remote table.
pub fn remote(index: usize) -> Maps {
    Maps { tables: Box::new([Entry::Remote { index, takes_parts: true }]) }
}

/// Run an inquiry to its end. `tables`: the remote ones. `backwards`: the last lookup of a batch is answered first, one
/// at each poll.
pub fn run<T, F: Future<Output = T> + Send + Sync + 'static>(
    tables: &[Fixed],
    backwards: bool,
    begin: impl FnOnce(Asker) -> F,
) -> T {
    let mut inquiry = Inquiry::new(begin);
    let mut open: Vec<Lookup> = Vec::new();
    loop {
        if let Poll::Ready(result) = inquiry.poll() {
            return result;
        }
        open.extend(inquiry.asks());
        assert!(!open.is_empty(), "the future waits for nothing");
        let now = if backwards { vec![open.pop().unwrap()] } else { std::mem::take(&mut open) };
        for lookup in now {
            inquiry.answer(&lookup, tables[lookup.table].lookup(&lookup.key));
        }
    }
}
