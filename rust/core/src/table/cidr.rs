//! `cidr:`: networks and their results (cidr_table(5)).
//!
//! The first line that matches counts, so no table of longest prefixes would do. The lines are flattened when they are
//! read: disjoint ranges of addresses (`ranges`), each with the result of its first line. Blocks of `if` and negated
//! networks become ranges as well.

mod pattern;
mod plain;
mod reader;
mod scope;
mod values;

use super::options::{Options, Warn};
use super::pieces::Part;
use super::ranges::Ranges;
use super::script::Script;
use super::watched::{Source, Watched};
use super::{EachAnswer, Table};
use crate::ask::Answer;
use reader::Reader;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use values::Values;

/// The content of a table.
#[derive(Debug)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    values: Values,
    owner: Option<u32>,
}

impl Networks {
    /// Read the parts of a text; `tell` gets the number of a line and what is wrong with it.
    fn read(parts: &[Part<'_>], tell: &mut dyn FnMut(usize, &str)) -> Result<Self, String> {
        let mut reader = Reader::read(parts);
        let networks = reader.finish();
        reader.problems.iter().for_each(|(number, problem)| tell(*number, problem));
        networks
    }

    /// Return the result of an address, `None` also for a key that is not an address.
    pub fn find(&self, key: &[u8]) -> Option<&[u8]> {
        let text = std::str::from_utf8(key).ok()?;
        let number = if key.contains(&b':') {
            self.v6.find(text.parse::<Ipv6Addr>().ok()?.to_bits())
        } else {
            self.v4.find(text.parse::<Ipv4Addr>().ok()?.to_bits())
        };
        number.map(|number| self.values.get(number))
    }

    /// Return the octets of the content. Counted are the starts and the results of all ranges (8 octets for a range of
    /// IPv4, 20 for one of IPv6; a line in the middle of a network needs two), each different value once with the 4 octets
    /// of its end, and this structure. Nothing else is kept of a text.
    pub fn octets(&self) -> usize {
        size_of::<Self>() + self.v4.octets() + self.v6.octets() + self.values.allocated_octets()
    }
}

impl Source for Script {
    type Content = Networks;

    fn files(&self) -> Vec<PathBuf> {
        Self::files(self)
    }

    fn read(&self, warnings: &mut Vec<String>) -> Result<Networks, String> {
        let (text, owner) = self.pieces()?;
        let mut tell = |number, problem: &str| warnings.push(self.place(number) + problem);
        Ok(Networks { owner, ..Networks::read(&text.parts()?, &mut tell)? })
    }

    fn is_empty(content: &Networks) -> bool {
        content.values.is_empty()
    }

    fn is_text(&self) -> bool {
        true
    }
}

/// `cidr:f`, or `cidr:{{rule}, ...}`.
#[derive(Debug)]
pub struct CidrTable {
    name: Box<str>,
    content: Watched<Script>,
}

impl CidrTable {
    /// `rest`: the name behind the type. Errors: the rules in the name are malformed.
    pub fn new(name: &str, rest: &[u8], options: &Options) -> Result<Self, String> {
        let warn: Warn = Arc::clone(&options.warn);
        Ok(Self { name: name.into(), content: Watched::new(Script::of("cidr", rest)?, name, warn) })
    }

    /// Return the octets of the content, if it has been read.
    pub fn octets(&self) -> Option<usize> {
        self.content.peek().map(|content| content.octets())
    }
}

impl Table for CidrTable {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, key: &[u8]) -> Answer {
        match self.content.get() {
            Ok(content) => content.find(key).map_or(Answer::NotFound, |value| Answer::Found(value.into())),
            Err(problem) => Answer::Failed(problem),
        }
    }

    fn lookup_each(&self, keys: &[&[u8]], each: EachAnswer) {
        match self.content.get() {
            Ok(content) => keys.iter().enumerate().all(|(at, key)| each(at, Ok(content.find(key)))),
            Err(problem) => each(0, Err(problem)),
        };
    }

    fn takes_parts(&self) -> bool {
        false
    }

    fn owner(&self) -> Option<u32> {
        self.content.peek().and_then(|content| content.owner)
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

    fn values(&self) -> Result<Vec<Box<[u8]>>, Box<str>> {
        let content = self.content.get()?;
        Ok((0..content.values.len()).map(|number| content.values.get(number).into()).collect())
    }
}

#[cfg(test)]
mod tests;
