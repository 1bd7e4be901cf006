//! Tables without a source: `static:`, `fail:`, `environ:`, `internal:`, and `debug:` around another table.

use super::options::{Options, Warn};
use super::{Each, Table, text, words};
use crate::ask::Answer;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

/// `static:value`: one value for every key.
#[derive(Debug)]
pub struct Static {
    name: Box<str>,
    value: Box<[u8]>,
}

impl Static {
    /// `rest`: the value, perhaps in braces. Errors: a brace is missing.
    pub fn new(name: &str, rest: &[u8], options: &Options) -> Result<Self, String> {
        let value = match words::inside(rest) {
            Some(value) => value,
            None if rest.starts_with(b"{") => {
                return Err(format!("bad static:name syntax: missing '}}' in \"{}\"", String::from_utf8_lossy(rest)));
            }
            None => rest,
        };
        let value = if options.files { text::files_content(value)?.into() } else { value.into() };
        Ok(Self { name: name.into(), value })
    }
}

impl Table for Static {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, _: &[u8]) -> Answer {
        Answer::Found(self.value.clone())
    }

    fn values(&self) -> Result<Vec<Box<[u8]>>, Box<str>> {
        Ok(vec![self.value.clone()])
    }
}

/// `fail:reason`: every lookup fails, to test a configuration.
#[derive(Debug)]
pub struct Fail {
    /// The name.
    pub name: Box<str>,
}

impl Table for Fail {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, _: &[u8]) -> Answer {
        Answer::Failed(format!("table {}: fails for every key, as configured", self.name).into())
    }
}

/// `environ:`: the variables of the environment.
#[derive(Debug)]
pub struct Environ {
    /// The name.
    pub name: Box<str>,
}

impl Table for Environ {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, key: &[u8]) -> Answer {
        // `var_os` panics for a name that no variable can have.
        if key.is_empty() || key.contains(&b'=') || key.contains(&0) {
            return Answer::NotFound;
        }
        std::env::var_os(OsStr::from_bytes(key))
            .map_or(Answer::NotFound, |value| Answer::Found(value.into_vec().into()))
    }

    fn entries(&self, each: Each) -> Result<(), Box<str>> {
        std::env::vars_os().all(|(name, value)| each(name.as_bytes(), value.as_bytes()));
        Ok(())
    }
}

/// `internal:name`: a table in a program's memory, empty at its start.
#[derive(Debug)]
pub struct Internal {
    /// The name.
    pub name: Box<str>,
}

impl Table for Internal {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, _: &[u8]) -> Answer {
        Answer::NotFound
    }

    fn has_addresses(&self) -> bool {
        false
    }

    fn entries(&self, _: Each) -> Result<(), Box<str>> {
        Ok(())
    }
}

/// `debug:type:name`: logs each lookup in another table (Postfix 3.11).
pub struct Debug {
    name: Box<str>,
    table: Arc<dyn Table>,
    log: Warn,
}

impl Debug {
    /// Return the table around another one.
    pub fn new(name: &str, table: Arc<dyn Table>, log: Warn) -> Self {
        Self { name: name.into(), table, log }
    }
}

impl std::fmt::Debug for Debug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Debug").field(&self.table).finish()
    }
}

impl Table for Debug {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, key: &[u8]) -> Answer {
        let answer = self.table.lookup(key);
        let shown = match &answer {
            Answer::Found(value) => String::from_utf8_lossy(value),
            Answer::NotFound => "not_found".into(),
            Answer::Failed(_) => "error".into(),
        };
        (self.log)(&format!("{} lookup: \"{}\" = \"{shown}\"", self.table.name(), String::from_utf8_lossy(key)));
        answer
    }

    fn takes_parts(&self) -> bool {
        self.table.takes_parts()
    }

    fn owner(&self) -> Option<u32> {
        self.table.owner()
    }

    fn refresh(&self) -> Result<(), Box<str>> {
        self.table.refresh()
    }

    fn is_outdated(&self) -> bool {
        self.table.is_outdated()
    }

    fn is_closed(&self) -> bool {
        self.table.is_closed()
    }

    fn has_addresses(&self) -> bool {
        self.table.has_addresses()
    }

    fn entries(&self, each: Each) -> Result<(), Box<str>> {
        self.table.entries(each)
    }

    fn values(&self) -> Result<Vec<Box<[u8]>>, Box<str>> {
        self.table.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_static_value_may_be_in_braces() {
        let value = |rest: &str| Static::new("static:x", rest.as_bytes(), &Options::plain()).map(|table| table.value);
        assert_eq!(value("a b").unwrap().as_ref(), b"a b");
        assert_eq!(value("{ a b }").unwrap().as_ref(), b"a b");
        assert_eq!(value("{a").unwrap_err(), "bad static:name syntax: missing '}' in \"{a\"");
    }

    #[test]
    fn the_environment_is_a_table() {
        let table = Environ { name: "environ:".into() };
        assert!(matches!(table.lookup(b"PATH"), Answer::Found(_)));
        for key in ["no such name", "", "a=b", "a\0b"] {
            assert_eq!(table.lookup(key.as_bytes()), Answer::NotFound);
        }
    }

    #[test]
    fn lookups_in_a_debug_table_are_logged() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&lines);
        let log: Warn = Arc::new(move |text| told.lock().unwrap().push(text.to_owned()));
        let found = Answer::Found(b"x".as_slice().into());
        let tables: [(Arc<dyn Table>, _, _); 3] = [
            (Arc::new(Static::new("static:x", b"x", &Options::plain()).unwrap()), found, "x"),
            (Arc::new(Internal { name: "internal:".into() }), Answer::NotFound, "not_found"),
            (Arc::new(Fail { name: "fail:".into() }), Fail { name: "fail:".into() }.lookup(b"k"), "error"),
        ];
        for (inner, answer, shown) in tables {
            let name = inner.name().to_owned();
            let table = Debug::new(&format!("debug:{name}"), inner, Arc::clone(&log));
            assert_eq!(table.lookup(b"k"), answer);
            assert_eq!(lines.lock().unwrap().pop(), Some(format!("{name} lookup: \"k\" = \"{shown}\"")));
        }
    }
}
