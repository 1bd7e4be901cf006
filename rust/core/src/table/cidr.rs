//! `cidr:`: networks and their results (cidr_table(5)).
//!
//! The first line that matches counts, so no table of longest prefixes would do. The lines are flattened when they are
//! read: disjoint ranges of addresses (`ranges`), each with the result of its first line. Blocks of `if` and negated
//! networks become ranges as well.

use super::options::{Options, Warn};
use super::ranges::{Bits, Range, Ranges};
use super::script::{self, DEPTH_MAX, Script, Verb};
use super::source;
use super::watched::{Source, Watched};
use super::{EachAnswer, Table};
use crate::ask::Answer;
use hashbrown::{DefaultHashBuilder, HashTable};
use memchr::memchr_iter;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

/// The ranges that a list of conditions leaves: those of one family, since no address has two.
#[derive(Debug, Clone)]
enum Scope {
    All,
    V4(Vec<Range<u32>>),
    V6(Vec<Range<u128>>),
}

/// The pattern of a line.
#[derive(Debug, Clone, Copy)]
enum Network {
    V4(Range<u32>),
    V6(Range<u128>),
}

/// Return the addresses outside of a range.
fn outside<A: Bits>((first, last): Range<A>) -> Vec<Range<A>> {
    let below = first.previous().map(|end| (A::default(), end));
    let above = last.next().map(|start| (start, A::MAX));
    below.into_iter().chain(above).collect()
}

/// Return the common addresses of two lists of ranges.
fn common<A: Bits>(a: &[Range<A>], b: &[Range<A>]) -> Vec<Range<A>> {
    let meet = |x: &Range<A>, y: &Range<A>| (x.0.max(y.0), x.1.min(y.1));
    a.iter().flat_map(|x| b.iter().map(move |y| meet(x, y))).filter(|range| range.0 <= range.1).collect()
}

impl Scope {
    /// Return the addresses of this scope that a pattern matches.
    fn narrow(&self, network: Network, negated: bool) -> Self {
        fn ranges<A: Bits>(range: Range<A>, negated: bool) -> Vec<Range<A>> {
            if negated { outside(range) } else { vec![range] }
        }
        match (self, network) {
            (Self::All, Network::V4(range)) => Self::V4(ranges(range, negated)),
            (Self::All, Network::V6(range)) => Self::V6(ranges(range, negated)),
            (Self::V4(scope), Network::V4(range)) => Self::V4(common(scope, &ranges(range, negated))),
            (Self::V6(scope), Network::V6(range)) => Self::V6(common(scope, &ranges(range, negated))),
            (Self::V4(_), Network::V6(_)) | (Self::V6(_), Network::V4(_)) => Self::V4(Vec::new()),
        }
    }
}

/// The content of a table.
#[derive(Debug)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    values: Values,
    owner: Option<u32>,
}

/// Number of results that are compared before the hash table is asked.
const RECENT: usize = 16;

/// The different results, in one allocation.
#[derive(Debug, Default)]
struct Values {
    octets: Vec<u8>,
    ends: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The numbers of the values that were added last, by their lengths: most tables have few values.
    recent: [u32; RECENT],
}

impl Values {
    fn get(&self, number: u32) -> &[u8] {
        value(&self.octets, &self.ends, number)
    }

    /// Drop what only `number` needs.
    fn finish(&mut self) {
        self.index = HashTable::new();
        self.octets.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// Return the number of a value. Errors: there are too many.
    fn number(&mut self, wanted: &[u8]) -> Result<u32, String> {
        let number = self.ends.len() as u32;
        let recent = wanted.len() % RECENT;
        if self.recent[recent] < number && self.get(self.recent[recent]) == wanted {
            return Ok(self.recent[recent]);
        }
        let hash = self.hasher.hash_one(wanted);
        let (octets, ends, hasher) = (&self.octets, &self.ends, &self.hasher);
        if let Some(&found) = self.index.find(hash, |&number| value(octets, ends, number) == wanted) {
            self.recent[recent] = found;
            return Ok(found);
        }
        let end = u32::try_from(octets.len() + wanted.len()).map_err(|_| "too many results".to_owned())?;
        self.index.insert_unique(hash, number, |&number| hasher.hash_one(value(octets, ends, number)));
        self.octets.extend_from_slice(wanted);
        self.ends.push(end);
        self.recent[recent] = number;
        Ok(number)
    }
}

fn value<'a>(octets: &'a [u8], ends: &[u32], number: u32) -> &'a [u8] {
    let start = number.checked_sub(1).map_or(0, |before| ends[before as usize]);
    &octets[start as usize..ends[number as usize] as usize]
}

impl Networks {
    /// Read the lines of a text; `tell` gets the number of a line and what is wrong with it.
    fn read(text: &[u8], tell: &mut dyn FnMut(usize, &str)) -> Result<Self, String> {
        let mut reader = Reader::new(tell);
        // Place for each line at once; what is not written takes no memory. Without it, the list grows as usual.
        let _ = reader.v4.try_reserve(memchr_iter(b'\n', text).count() + 1);
        for line in source::lines(text) {
            match line {
                Ok(line) => reader.line(line.number, &line.text)?,
                Err(problem) => (reader.tell)(problem.number, &problem.text),
            }
        }
        Ok(reader.finish())
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
    /// IPv4, 20 for one of IPv6; a line by itself has its own and the one behind it), each different value once with the
    /// 4 octets of its end, and this structure. Nothing else is kept of a text.
    pub fn octets(&self) -> usize {
        let Values { octets, ends, index, hasher: _, recent: _ } = &self.values;
        let values = octets.capacity() + ends.capacity() * size_of::<u32>() + index.allocation_size();
        size_of::<Self>() + self.v4.octets() + self.v6.octets() + values
    }
}

/// The reader of a text, line by line.
struct Reader<'a> {
    tell: &'a mut dyn FnMut(usize, &str),
    v4: Vec<(Range<u32>, u32)>,
    v6: Vec<(Range<u128>, u32)>,
    values: Values,
    /// The open blocks: the line of each `if`, and the addresses that it leaves.
    blocks: Vec<(usize, Scope)>,
}

impl<'a> Reader<'a> {
    fn new(tell: &'a mut dyn FnMut(usize, &str)) -> Self {
        Self { tell, v4: Vec::new(), v6: Vec::new(), values: Values::default(), blocks: Vec::new() }
    }

    /// Read a line. Errors: too many results, or too many open blocks.
    fn line(&mut self, number: usize, text: &[u8]) -> Result<(), String> {
        if self.blocks.is_empty()
            && let Some((range, value)) = plain(text)
        {
            self.v4.push((range, self.values.number(value)?));
            return Ok(());
        }
        let statement = script::statement(text);
        match statement.verb {
            Verb::If => match network(statement.rest) {
                Ok(network) => self.begin_block(number, network, statement.negated)?,
                Err(problem) => self.skip(number, &problem),
            },
            Verb::EndIf => self.end_block(number, statement.rest),
            Verb::Match => match rule(statement.rest) {
                Ok((network, value)) => self.add(network, statement.negated, value)?,
                Err(problem) => self.skip(number, &problem),
            },
        }
        Ok(())
    }

    /// Begin a block of lines for the addresses that match. Errors: too many blocks are open.
    fn begin_block(&mut self, number: usize, network: Network, negated: bool) -> Result<(), String> {
        if self.blocks.len() == DEPTH_MAX {
            return Err(format!("line {number}: more than {DEPTH_MAX} nested IFs"));
        }
        let scope = self.scope(network, negated);
        self.blocks.push((number, scope));
        Ok(())
    }

    /// End a block.
    fn end_block(&mut self, number: usize, rest: &[u8]) {
        if !rest.is_empty() {
            self.skip(number, "garbage after ENDIF");
        } else if self.blocks.pop().is_none() {
            self.skip(number, "ENDIF without IF");
        }
    }

    /// Add the result of the addresses that match. Errors: there are too many results.
    fn add(&mut self, network: Network, negated: bool, value: &[u8]) -> Result<(), String> {
        let value = self.values.number(value)?;
        match network {
            // Most lines are neither negated nor in a block.
            Network::V4(range) if self.blocks.is_empty() && !negated => self.v4.push((range, value)),
            Network::V6(range) if self.blocks.is_empty() && !negated => self.v6.push((range, value)),
            network => match self.scope(network, negated) {
                Scope::V4(ranges) => self.v4.extend(ranges.into_iter().map(|range| (range, value))),
                Scope::V6(ranges) => self.v6.extend(ranges.into_iter().map(|range| (range, value))),
                Scope::All => {}
            },
        }
        Ok(())
    }

    /// Return the addresses of the open blocks that a pattern matches.
    fn scope(&self, network: Network, negated: bool) -> Scope {
        self.blocks.last().map_or(&Scope::All, |(_, scope)| scope).narrow(network, negated)
    }

    /// Tell what is wrong with a line.
    fn skip(&mut self, number: usize, problem: &str) {
        (self.tell)(number, &format!("{problem}: skipping this rule"));
    }

    /// End the text.
    fn finish(mut self) -> Networks {
        for (number, _) in self.blocks.iter().rev() {
            (self.tell)(*number, "IF has no matching ENDIF");
        }
        self.values.finish();
        Networks { v4: Ranges::flatten(&self.v4), v6: Ranges::flatten(&self.v6), values: self.values, owner: None }
    }
}

/// Return network and result of a line such as `192.0.2.0/24 REJECT`, as most are. `None`: the line has another form, or
/// an error.
fn plain(text: &[u8]) -> Option<(Range<u32>, &[u8])> {
    fn digit(octet: u8) -> Option<u32> {
        Some(u32::from(octet.wrapping_sub(b'0'))).filter(|&digit| digit < 10)
    }
    /// Take a number of at most three digits, without zeros in front, from the start of a text.
    fn number(text: &[u8], max: u32) -> Option<(u32, &[u8])> {
        let (first, mut rest) = text.split_first()?;
        let mut number = digit(*first)?;
        for _ in 1..3 {
            let Some((octet, behind)) = rest.split_first() else { break };
            let Some(next) = digit(*octet) else { break };
            if number == 0 {
                return None;
            }
            (number, rest) = (number * 10 + next, behind);
        }
        (number <= max).then_some((number, rest))
    }
    let (mut address, mut rest) = number(text, 255)?;
    for _ in 0..3 {
        let (part, behind) = number(rest.strip_prefix(b".")?, 255)?;
        (address, rest) = (address << 8 | part, behind);
    }
    let mut length = u32::BITS;
    if let Some(behind) = rest.strip_prefix(b"/") {
        (length, rest) = number(behind, u32::BITS)?;
    }
    let free = u32::free(length);
    let value = source::trim(rest);
    let is_plain = rest.first().is_some_and(|&octet| source::is_space(octet)) && !value.is_empty();
    (is_plain && address & free == 0).then_some(((address, address | free), value))
}

/// Parse a pattern and its result. Errors: what is wrong.
fn rule(text: &[u8]) -> Result<(Network, &[u8]), String> {
    let (pattern, value) = script::split(text);
    let network = network(pattern)?;
    if value.is_empty() { Err("no lookup result".to_owned()) } else { Ok((network, value)) }
}

/// Parse `network/length` or an address, perhaps in brackets. Errors: what is wrong.
fn network(pattern: &[u8]) -> Result<Network, String> {
    if pattern.is_empty() {
        return Err("no address pattern".to_owned());
    }
    let pattern = String::from_utf8_lossy(pattern);
    let text = match pattern.strip_prefix('[') {
        None => pattern,
        // `[network]/length` or `[network/length]`.
        Some(opened) => match opened.split_once(']') {
            None => return Err(format!("missing ']' character after \"{pattern}\"")),
            Some((inside, behind)) if behind.is_empty() || behind.starts_with('/') => [inside, behind].concat().into(),
            Some((inside, _)) => return Err(format!("garbage after \"[{inside}]\"")),
        },
    };
    let bad = || format!("bad address pattern: \"{text}\"");
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (&*text, None),
    };
    let family_bits = if address.contains(':') { u128::LENGTH } else { u32::LENGTH };
    let length = match length {
        None => family_bits,
        Some(digits) if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_digit()) => {
            return Err(format!("bad mask value in \"{text}\""));
        }
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|&length| length <= family_bits)
            .ok_or_else(|| format!("bad mask length in \"{text}\""))?,
    };
    let host_bits = |network: String| {
        format!("non-null host address bits in \"{text}\", perhaps you should use \"{network}/{length}\" instead")
    };
    fn range<A: Bits>(address: A, length: u32) -> Option<Range<A>> {
        let free = A::free(length);
        (address.and(free) == A::default()).then(|| (address, address.or(free)))
    }
    if family_bits == u128::LENGTH {
        let address = address.parse::<Ipv6Addr>().map_err(|_| bad())?.to_bits();
        let masked = || Ipv6Addr::from_bits(address & !u128::free(length)).to_string();
        range(address, length).map(Network::V6).ok_or_else(|| host_bits(masked()))
    } else {
        let address = address.parse::<Ipv4Addr>().map_err(|_| bad())?.to_bits();
        let masked = || Ipv4Addr::from_bits(address & !u32::free(length)).to_string();
        range(address, length).map(Network::V4).ok_or_else(|| host_bits(masked()))
    }
}

impl Source for Script {
    type Content = Networks;

    fn files(&self) -> Vec<PathBuf> {
        Self::files(self)
    }

    fn read(&self, warnings: &mut Vec<String>) -> Result<Networks, String> {
        let (text, owner) = Self::read(self)?;
        let mut tell = |number, problem: &str| warnings.push(self.place(number) + problem);
        Ok(Networks { owner, ..Networks::read(&text, &mut tell)? })
    }

    fn is_empty(content: &Networks) -> bool {
        content.values.ends.is_empty()
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
        Ok((0..content.values.ends.len() as u32).map(|number| content.values.get(number).into()).collect())
    }
}

#[cfg(test)]
mod tests;
