//! Many lookups: a key a line, and a line for each key that a table has (`postmap -q -`).

use super::Table;
use crate::ask::Answer;
use memchr::{memchr, memchr_iter};
use std::sync::Arc;

/// Number of keys that a table gets at once: some hundred cover the cost of a transaction or a lock.
const KEYS_AT_ONCE: usize = 256;

/// Write a line for each key that a table has to `out`: the key, `separator`, the value. The first table with it counts.
///
/// `keys`: lines, the last one with or without its end. Errors: a table cannot answer; `out` has the lines so far.
pub fn answer_lines(
    tables: &[Arc<dyn Table>],
    keys: &[u8],
    separator: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Box<str>> {
    let keys = keys.strip_suffix(b"\n").unwrap_or(keys);
    let mut write = |key: &[u8], value: &[u8]| {
        out.reserve(key.len() + separator.len() + value.len() + 1);
        for part in [key, separator, value, b"\n"] {
            out.extend_from_slice(part);
        }
    };
    let mut rest = Some(keys);
    let mut lines = std::iter::from_fn(|| {
        let text = rest?;
        let end = memchr(b'\n', text);
        rest = end.map(|at| &text[at + 1..]);
        let line = &text[..end.unwrap_or(text.len())];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    });
    let [table] = tables else {
        for key in lines {
            if let Some(value) = first(tables, key)? {
                write(key, &value);
            }
        }
        return Ok(());
    };
    table.expect(memchr_iter(b'\n', keys).count() + 1);
    let mut batch: Vec<&[u8]> = Vec::with_capacity(KEYS_AT_ONCE);
    loop {
        batch.clear();
        batch.extend(lines.by_ref().take(KEYS_AT_ONCE));
        if batch.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        table.lookup_each(&batch, &mut |at, answer| {
            match answer {
                Ok(Some(value)) => write(batch[at], value),
                Ok(None) => {}
                Err(problem) => result = Err(problem),
            }
            result.is_ok()
        });
        result?;
    }
}

/// Return the first value of a key. Errors: a table cannot answer.
fn first(tables: &[Arc<dyn Table>], key: &[u8]) -> Result<Option<Box<[u8]>>, Box<str>> {
    for table in tables {
        match table.lookup(key) {
            Answer::Found(value) => return Ok(Some(value)),
            Answer::NotFound => {}
            Answer::Failed(problem) => return Err(problem),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A table that has some keys, and cannot answer for `broken`.
    #[derive(Debug)]
    struct Few(BTreeMap<&'static str, &'static str>);

    impl Table for Few {
        fn name(&self) -> &str {
            "some"
        }

        fn lookup(&self, key: &[u8]) -> Answer {
            match std::str::from_utf8(key).unwrap() {
                "broken" => Answer::Failed("cannot answer".into()),
                key => self.0.get(key).map_or(Answer::NotFound, |value| Answer::Found(value.as_bytes().into())),
            }
        }
    }

    fn table(entries: &[(&'static str, &'static str)]) -> Arc<dyn Table> {
        Arc::new(Few(entries.iter().copied().collect()))
    }

    fn lines(tables: &[Arc<dyn Table>], keys: &str) -> (String, Option<String>) {
        let mut out = Vec::new();
        let problem = answer_lines(tables, keys.as_bytes(), b"=", &mut out).err();
        (String::from_utf8(out).unwrap(), problem.map(String::from))
    }

    #[test]
    fn found_keys_give_a_line_each_in_the_order_of_the_keys() {
        let one = [table(&[("a", "1"), ("b", "2"), ("", "empty")])];
        for (keys, expected) in [
            ("b\na\nx\nb\n", "b=2\na=1\nb=2\n"),
            ("a\r\nb", "a=1\nb=2\n"),
            ("a\n\n", "a=1\n=empty\n"),
            ("\n", "=empty\n"),
            ("x", ""),
        ] {
            assert_eq!(lines(&one, keys), (expected.to_owned(), None), "{keys:?}");
        }
        let many = "a\nx\nb\n".repeat(KEYS_AT_ONCE);
        assert_eq!(lines(&one, &many).0, "a=1\nb=2\n".repeat(KEYS_AT_ONCE));
    }

    #[test]
    fn the_first_table_with_the_key_counts() {
        let two = [table(&[("a", "1")]), table(&[("a", "2"), ("b", "3")])];
        assert_eq!(lines(&two, "b\na\nc\n"), ("b=3\na=1\n".to_owned(), None));
    }

    #[test]
    fn a_failure_ends_the_lookups_behind_the_lines_so_far() {
        let failed = ("a=1\n".to_owned(), Some("cannot answer".to_owned()));
        for count in [1, 2] {
            let tables = vec![table(&[("a", "1")]); count];
            assert_eq!(lines(&tables, "a\nbroken\na\n"), failed);
        }
    }
}
