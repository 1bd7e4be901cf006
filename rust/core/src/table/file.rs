//! A table of fixed keys in a file: texthash, hash, btree, cdb, lmdb.

use super::options::Options;
use super::watched::{Source, Watched};
use super::{Each, EachAnswer, Table, key};
use crate::ask::Answer;
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Entries by key, in whatever form a file has them.
pub trait Entries: fmt::Debug + Send + Sync {
    /// Return the value of a key. Errors: why the file cannot answer.
    fn get(&self, key: &[u8]) -> Result<Option<Box<[u8]>>, String>;

    /// Call `each` with every key and its value, in their order, until it returns false.
    fn get_each(&self, keys: &[&[u8]], each: EachValue) {
        for (at, key) in keys.iter().enumerate() {
            let value = self.get(key);
            if !each(at, value.as_ref().map(Option::as_deref).map_err(Clone::clone)) {
                return;
            }
        }
    }

    /// Prepare for that many lookups.
    fn expect(&self, lookups: usize) {
        let _ = lookups;
    }

    /// Call `each` with every entry, until it returns false. Errors: the file cannot list them.
    fn each(&self, each: Each) -> Result<(), String>;

    /// Whether there is no entry.
    fn is_empty(&self) -> bool;

    /// Whether any key may have an `@`.
    fn has_addresses(&self) -> bool;

    /// See `Source::is_current`.
    fn is_current(&self) -> bool {
        true
    }
}

/// A callback for a value: the place of its key, and the value if there is one. False: no more values. Errors: as `get`.
pub type EachValue<'a> = &'a mut dyn FnMut(usize, Result<Option<&[u8]>, String>) -> bool;

/// The entries of a file, and the uid of its owner.
#[derive(Debug)]
pub struct Loaded {
    /// The entries.
    pub entries: Box<dyn Entries>,
    /// The uid.
    pub owner: u32,
}

/// The way to read a file of one type.
pub trait Format: fmt::Debug + Send + Sync {
    /// Return the files whose change changes the content.
    fn files(&self) -> Vec<PathBuf>;

    /// Read the entries, and collect warnings. Errors: why they cannot be read.
    fn read(&self, warnings: &mut Vec<String>) -> Result<Loaded, String>;

    /// See `Source::is_text`.
    fn is_text(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Boxed(Box<dyn Format>);

impl Source for Boxed {
    type Content = Loaded;

    fn files(&self) -> Vec<PathBuf> {
        self.0.files()
    }

    fn read(&self, warnings: &mut Vec<String>) -> Result<Loaded, String> {
        self.0.read(warnings)
    }

    fn is_empty(content: &Loaded) -> bool {
        content.entries.is_empty()
    }

    fn is_current(content: &Loaded) -> bool {
        content.entries.is_current()
    }

    fn is_text(&self) -> bool {
        self.0.is_text()
    }
}

/// A table of fixed keys in a file.
#[derive(Debug)]
pub struct FileTable {
    name: Box<str>,
    options: Options,
    content: Watched<Boxed>,
}

impl FileTable {
    /// Return the table; its file is read at the first use.
    pub fn new(name: &str, format: Box<dyn Format>, options: Options) -> Self {
        let content = Watched::new(Boxed(format), name, Arc::clone(&options.warn));
        Self { name: name.into(), options, content }
    }

    fn find(&self, key: &[u8]) -> Result<Option<Box<[u8]>>, String> {
        let content = self.content.get()?;
        let Some(key) = key::prepare(key, &self.options) else { return Ok(None) };
        let value = content.entries.get(&key);
        self.check(&key, value.as_ref().map(Option::as_deref).map_err(Clone::clone))?;
        value
    }

    /// Return the value of a key. Errors: why the table cannot give it.
    fn check<'a>(&self, key: &[u8], value: Result<Option<&'a [u8]>, String>) -> Result<Option<&'a [u8]>, String> {
        let value = value.map_err(|problem| format!("table {}: {problem}", self.name))?;
        if self.options.utf8 && value.is_some_and(|value| std::str::from_utf8(value).is_err()) {
            return Err(format!("table {}: non-UTF-8 value of key \"{}\"", self.name, String::from_utf8_lossy(key)));
        }
        Ok(value)
    }
}

impl Table for FileTable {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, key: &[u8]) -> Answer {
        match self.find(key) {
            Ok(Some(value)) => Answer::Found(value),
            Ok(None) => Answer::NotFound,
            Err(problem) => Answer::Failed(problem.into()),
        }
    }

    fn expect(&self, lookups: usize) {
        if let Ok(content) = self.content.get() {
            content.entries.expect(lookups);
        }
    }

    fn lookup_each(&self, keys: &[&[u8]], each: EachAnswer) {
        let content = match self.content.get() {
            Ok(content) => content,
            Err(problem) => {
                each(0, Err(problem));
                return;
            }
        };
        let asked: Vec<(usize, Cow<'_, [u8]>)> = keys
            .iter()
            .enumerate()
            .filter_map(|(place, key)| Some((place, key::prepare(key, &self.options)?)))
            .collect();
        let bare: Vec<&[u8]> = asked.iter().map(|(_, key)| &**key).collect();
        // Keys that no table has are not asked.
        let mut next = 0;
        let mut goes_on = true;
        content.entries.get_each(&bare, &mut |at, value| {
            let place = asked[at].0;
            goes_on = (next..place).all(|place| each(place, Ok(None)))
                && each(place, self.check(bare[at], value).map_err(Into::into));
            next = place + 1;
            goes_on
        });
        if goes_on {
            (next..keys.len()).all(|place| each(place, Ok(None)));
        }
    }

    fn owner(&self) -> Option<u32> {
        self.content.peek().map(|content| content.owner)
    }

    fn refresh(&self) -> Result<(), Box<str>> {
        self.content.refresh().map(|_| ())
    }

    fn is_outdated(&self) -> bool {
        self.content.is_outdated()
    }

    fn is_closed(&self) -> bool {
        self.content.is_closed()
    }

    fn has_addresses(&self) -> bool {
        self.content.get().map_or(true, |content| content.entries.has_addresses())
    }

    fn entries(&self, each: Each) -> Result<(), Box<str>> {
        let listed = self.content.get()?.entries.each(each);
        listed.map_err(|problem| format!("table {}: {problem}", self.name).into())
    }

    fn values(&self) -> Result<Vec<Box<[u8]>>, Box<str>> {
        let mut seen = hashbrown::HashSet::new();
        let mut values = Vec::new();
        self.entries(&mut |_, value| {
            if seen.insert(<Box<[u8]>>::from(value)) {
                values.push(value.into());
            }
            true
        })?;
        Ok(values)
    }
}
