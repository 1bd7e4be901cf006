//! The search in a list of tables: the first value counts (DATABASE_README).

use super::{Entry, Maps};
use crate::ask::Answer;
use crate::inquiry::{Asker, Failure};

/// Whether a key is a whole name or address, or only a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Every table is asked.
    Whole,
    /// Pattern tables and the like are not asked.
    Part,
}

impl Maps {
    /// Return the first value of `key`, `None` without one. An empty key has no value.
    ///
    /// Errors: a table cannot answer, or its value is empty: Postfix takes this for a broken table.
    pub async fn find(&self, key: &[u8], kind: Key, asker: &Asker) -> Result<Option<Box<[u8]>>, Failure> {
        if key.is_empty() {
            return Ok(None);
        }
        for entry in &self.tables {
            let value = match entry {
                Entry::Local(table) if kind == Key::Whole || table.takes_parts() => match table.lookup(key) {
                    Answer::Found(value) => Some(value),
                    Answer::NotFound => None,
                    Answer::Failed(why) => return Err(Failure(why)),
                },
                Entry::Remote { index, takes_parts } if kind == Key::Whole || *takes_parts => {
                    asker.remote(*index, key).await?
                }
                Entry::Local(_) | Entry::Remote { .. } => None,
            };
            match value {
                Some(value) if value.is_empty() => return Err(empty_value(key)),
                Some(value) => return Ok(Some(value)),
                None => {}
            }
        }
        Ok(None)
    }
}

fn empty_value(key: &[u8]) -> Failure {
    let key = String::from_utf8_lossy(key);
    Failure(format!("a table has an empty value for {key}: remove the key, or give it a value").into())
}
