//! The reader of a text, or of a part of one.
//!
//! The parts of a large text are read at the same time, each as if no block were open where it begins. A part for which
//! this is wrong is read again, once the parts before are joined.

use super::pattern::{self, Network};
use super::scope::Scope;
use super::values::Values;
use super::{Networks, plain};
use crate::table::pieces::Part;
use crate::table::ranges::{Lines, Ranges};
use crate::table::script::{self, DEPTH_MAX, Verb};
use crate::table::{source, threads};

/// Octets of a short line, for the number of lines that are expected.
const LINE_SHORT_OCTETS: usize = 16;
/// Number of ends of lines that are compared before a result is looked up.
const ENDS: usize = 16;

/// Ranges, results and errors of the lines so far.
#[derive(Debug, Default)]
pub struct Reader {
    /// The number of the last physical line.
    number: usize,
    /// The ranges of each part.
    v4: Vec<Lines<u32>>,
    v6: Vec<Lines<u128>>,
    values: Values,
    /// The open blocks: the line of each `if`, and the addresses that it leaves.
    blocks: Vec<(usize, Scope)>,
    /// The problems, each with the number of its line.
    pub problems: Vec<(usize, String)>,
    /// Why the table cannot be used.
    failure: Option<String>,
}

impl Reader {
    /// Read the parts of a text.
    pub fn read(parts: &[Part<'_>]) -> Self {
        let readers = threads::each(parts, parts.len(), |part| {
            let mut reader = Self::default();
            reader.part(part);
            reader
        });
        parts.iter().zip(readers).fold(Self::default(), |before, (part, reader)| before.join(part, reader))
    }

    /// Add the lines of the next part, which its own reader has read.
    fn join(mut self, part: &Part<'_>, mut next: Self) -> Self {
        if self.v4.is_empty() {
            return next;
        }
        let is_right = self.failure.is_none() && self.blocks.is_empty() && next.failure.is_none();
        let numbers = if is_right { self.values.join(&next.values).ok() } else { None };
        let Some(numbers) = numbers else {
            self.part(part);
            return self;
        };
        if !numbers.iter().copied().eq(0..numbers.len() as u32) {
            next.v4.iter_mut().for_each(|lines| lines.renumber(&numbers));
            next.v6.iter_mut().for_each(|lines| lines.renumber(&numbers));
        }
        self.v4.append(&mut next.v4);
        self.v6.append(&mut next.v6);
        self.blocks.extend(next.blocks.into_iter().map(|(number, scope)| (self.number + number, scope)));
        self.problems.extend(next.problems.into_iter().map(|(number, problem)| (self.number + number, problem)));
        self.number += next.number;
        self
    }

    /// Read a part, unless one before has failed.
    fn part(&mut self, part: &Part<'_>) {
        if self.failure.is_some() {
            return;
        }
        self.v4.push(Lines::with_capacity(part.octets() / LINE_SHORT_OCTETS));
        self.v6.push(Lines::default());
        let mut failure = None;
        let read = part.each(|piece| {
            if failure.is_none() {
                let mut lines = source::lines_after(self.number, piece);
                failure = self.lines(&mut lines).err();
                self.number = lines.number();
            }
        });
        self.failure = failure.or(read.err());
    }

    /// Read lines. Errors: too many results, or too many open blocks.
    fn lines(&mut self, lines: &mut source::Lines<'_>) -> Result<(), String> {
        loop {
            if self.blocks.is_empty() {
                self.plain_lines(lines)?;
            }
            match lines.next() {
                None => return Ok(()),
                Some(Ok(line)) => self.line(line.number, &line.text)?,
                Some(Err(problem)) => self.problems.push((problem.number, problem.text)),
            }
        }
    }

    /// Read plain lines up to one that is not. Errors: too many results.
    fn plain_lines(&mut self, lines: &mut source::Lines<'_>) -> Result<(), String> {
        let Some(list) = self.v4.last_mut() else { return Ok(()) };
        // Most lines end like one a short time ago. The ends, with their results, by the first octet of the result.
        let mut ends: [(&[u8], u32); ENDS] = [(b"", 0); ENDS];
        while let Some(network) = plain::network(lines.rest()) {
            let rest = &lines.rest()[network.octets..];
            let known = &mut ends[rest.get(1).map_or(0, |&octet| usize::from(octet)) % ENDS];
            let is_known = !known.0.is_empty() && rest.starts_with(known.0);
            let octets = if is_known { known.0.len() } else { source::line_octets(rest) };
            let (end, behind) = rest.split_at(octets);
            if source::continues(behind) || network.octets + octets > source::LINE_MAX_OCTETS {
                break;
            }
            if !is_known {
                let value = source::trim(end);
                if value.is_empty() || !source::is_space(end[0]) {
                    break;
                }
                *known = (end, self.values.number(value)?);
            }
            list.push_network(network.start, network.length, known.1);
            lines.skip_line(network.octets + octets);
        }
        Ok(())
    }

    /// Read a line. Errors: too many results, or too many open blocks.
    fn line(&mut self, number: usize, text: &[u8]) -> Result<(), String> {
        let statement = script::statement(text);
        match statement.verb {
            Verb::If => match pattern::network(statement.rest) {
                Ok(network) => self.begin_block(number, network, statement.negated)?,
                Err(problem) => self.skip(number, &problem),
            },
            Verb::EndIf => self.end_block(number, statement.rest),
            Verb::Match => match pattern::rule(statement.rest) {
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
        let scope = self.scope(network, negated);
        let (Some(v4), Some(v6)) = (self.v4.last_mut(), self.v6.last_mut()) else { return Ok(()) };
        match network {
            // Most lines are neither negated nor in a block.
            Network::V4(range) if self.blocks.is_empty() && !negated => v4.push(range, value),
            Network::V6(range) if self.blocks.is_empty() && !negated => v6.push(range, value),
            _ => match scope {
                Scope::V4(ranges) => ranges.into_iter().for_each(|range| v4.push(range, value)),
                Scope::V6(ranges) => ranges.into_iter().for_each(|range| v6.push(range, value)),
                Scope::All => {}
            },
        }
        Ok(())
    }

    /// Return the addresses of the open blocks that a pattern matches.
    fn scope(&self, network: Network, negated: bool) -> Scope {
        self.blocks.last().map_or(&Scope::All, |(_, scope)| scope).narrow(network, negated)
    }

    /// Note what is wrong with a line.
    fn skip(&mut self, number: usize, problem: &str) {
        self.problems.push((number, format!("{problem}: skipping this rule")));
    }

    /// End the text. Errors: why the table cannot be used.
    pub fn finish(&mut self) -> Result<Networks, String> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.problems.extend(self.blocks.iter().rev().map(|&(number, _)| (number, "IF has no matching ENDIF".into())));
        self.values.finish();
        let (threads, values) = (self.v4.len(), std::mem::take(&mut self.values));
        let (v4, v6) = (Ranges::flatten(&self.v4, threads), Ranges::flatten(&self.v6, threads));
        Ok(Networks { v4, v6, values, owner: None })
    }
}
