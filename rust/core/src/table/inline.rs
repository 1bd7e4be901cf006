//! `inline:{ key=value, { key = text } }`: a table in main.cf.

use super::options::Options;
use super::source::{is_space, trim};
use super::{Each, Table, key, text, words};
use crate::ask::Answer;
use hashbrown::HashMap;

/// A key and its value.
type Pair = (Box<[u8]>, Box<[u8]>);

/// Keys and values of main.cf. The last value of a key counts, and a value may be empty: lists of hosts or domains use
/// only the key.
#[derive(Debug)]
pub struct Inline {
    name: Box<str>,
    options: Options,
    /// The place of each key in `entries`.
    index: HashMap<Box<[u8]>, usize>,
    entries: Vec<Pair>,
}

impl Inline {
    /// `rest`: the name behind the type. Errors: the list is malformed.
    pub fn new(name: &str, rest: &[u8], options: Options) -> Result<Self, String> {
        let need = "need \"inline:{name=value...}\"";
        let bad = || format!("bad syntax: \"{name}\"; {need}");
        let parts = words::inside(rest).map(words::parts).filter(|parts| !parts.is_empty()).ok_or_else(bad)?;
        let mut table = Self { name: name.into(), options, index: HashMap::new(), entries: Vec::new() };
        for part in parts {
            let entry = match words::inside(part) {
                Some(entry) => entry,
                None if part.starts_with(b"{") => {
                    let part = String::from_utf8_lossy(part);
                    return Err(format!("syntax error after '}}' in \"{part}\": \"{name}\"; {need}"));
                }
                None => part,
            };
            let sign = entry.iter().position(|&octet| octet == b'=');
            let Some((key, value)) = sign.map(|sign| (trim(&entry[..sign]), trim(&entry[sign + 1..]))) else {
                return Err(format!("missing '=' after attribute name: \"{name}\"; {need}"));
            };
            if key.iter().any(|&octet| is_space(octet)) {
                return Err(format!("missing '=' after attribute name: \"{name}\"; {need}"));
            }
            if key.is_empty() {
                return Err(format!("missing attribute name: \"{name}\"; {need}"));
            }
            let Some(key) = key::prepare(key, &table.options) else { return Err(bad()) };
            let value = if table.options.files { text::files_content(value)?.into() } else { value.into() };
            match table.index.get(&*key) {
                Some(&at) => table.entries[at].1 = value,
                None => {
                    table.index.insert((&*key).into(), table.entries.len());
                    table.entries.push(((&*key).into(), value));
                }
            }
        }
        Ok(table)
    }
}

impl Table for Inline {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, key: &[u8]) -> Answer {
        let found = key::prepare(key, &self.options).and_then(|key| self.index.get(&*key).copied());
        found.map_or(Answer::NotFound, |at| Answer::Found(self.entries[at].1.clone()))
    }

    fn has_addresses(&self) -> bool {
        self.entries.iter().any(|(key, _)| key.contains(&b'@'))
    }

    fn entries(&self, each: Each) -> Result<(), Box<str>> {
        self.entries.iter().all(|(key, value)| each(key, value));
        Ok(())
    }

    fn values(&self) -> Result<Vec<Box<[u8]>>, Box<str>> {
        Ok(self.entries.iter().map(|(_, value)| value.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(rest: &str, key: &str) -> Option<String> {
        let table = Inline::new("inline:x", rest.as_bytes(), Options::plain()).unwrap();
        match table.lookup(key.as_bytes()) {
            Answer::Found(value) => Some(String::from_utf8_lossy(&value).into_owned()),
            _ => None,
        }
    }

    #[test]
    fn entries_are_read_as_by_postfix() {
        let rows = [
            ("{a=b}", "A", Some("b")),
            ("{ a=b, { c = d e } }", "c", Some("d e")),
            ("{ a=b=c }", "a", Some("b=c")),
            ("{ a=b }", "c", None),
            ("{ { a = } }", "a", Some("")),
            ("{ a=b a=c }", "a", Some("c")),
        ];
        for (rest, key, value) in rows {
            assert_eq!(find(rest, key).as_deref(), value, "{rest}");
        }
    }

    #[test]
    fn malformed_lists_are_errors() {
        for rest in ["a=b", "{}", "{ a }", "{ =b }", "{a=b", "{{a=1}}}", "{{a=1}b=2}", "{{a=1},{c d=3}}"] {
            let problem = Inline::new("inline:x", rest.as_bytes(), Options::plain()).unwrap_err();
            assert!(problem.ends_with("need \"inline:{name=value...}\""), "{problem}");
        }
    }
}
