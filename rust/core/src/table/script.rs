//! The text of a table of rules: a file, or the rules in the table's name. Conditions and negation.

use super::pieces::Pieces;
use super::source::{self, trim};
use super::{text, words};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Maximum depth of conditions.
pub const DEPTH_MAX: usize = 32;

/// The text of a table of rules.
#[derive(Debug)]
pub struct Script {
    /// The table's type.
    pub kind: &'static str,
    /// The text in the table's name; `None`: the file has it.
    inline: Option<Vec<u8>>,
    path: PathBuf,
}

/// A line of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The use of the pattern.
    pub verb: Verb,
    /// Whether the pattern must not match: an odd number of `!`.
    pub negated: bool,
    /// Whether `!` stands before the pattern.
    pub marked: bool,
    /// The pattern and what follows it.
    pub rest: &'a [u8],
}

/// The kinds of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Gives the result if the pattern matches.
    Match,
    /// Begins a block of lines that count if the pattern matches.
    If,
    /// Ends a block.
    EndIf,
}

impl Script {
    /// `rest`: the table's name behind the type. Errors: braces are missing.
    pub fn of(kind: &'static str, rest: &[u8]) -> Result<Self, String> {
        let inline = if rest.starts_with(b"{") { Some(words::rules(kind, rest)?) } else { None };
        Ok(Self { kind, inline, path: PathBuf::from(std::ffi::OsStr::from_bytes(rest)) })
    }

    /// Return the files to watch.
    pub fn files(&self) -> Vec<PathBuf> {
        if self.inline.is_some() { Vec::new() } else { vec![self.path.clone()] }
    }

    /// Return the text, and the uid of the file's owner. Errors: why the file cannot be read.
    pub fn read(&self) -> Result<(Vec<u8>, Option<u32>), String> {
        match &self.inline {
            Some(text) => Ok((text.clone(), None)),
            None => text::read(&self.path).map(|(text, owner)| (text, Some(owner))),
        }
    }

    /// Return the text for reading it piece by piece, and the uid of the file's owner. Errors: why the file cannot be read.
    pub fn pieces(&self) -> Result<(Pieces<'_>, Option<u32>), String> {
        match &self.inline {
            Some(text) => Ok((Pieces::of(text), None)),
            None => Pieces::open(&self.path).map(|(pieces, owner)| (pieces, Some(owner))),
        }
    }

    /// Return the start of a warning: `cidr map f, line 3: `.
    pub fn place(&self, number: usize) -> String {
        let name = if self.inline.is_some() { "inline".into() } else { self.path.to_string_lossy() };
        format!("{} map {name}, line {number}: ", self.kind)
    }
}

/// Return the parts of a logical line.
pub fn statement(line: &[u8]) -> Statement<'_> {
    let text = trim(line);
    let word = text.iter().position(|octet| !octet.is_ascii_alphabetic()).map_or(text, |end| &text[..end]);
    let (verb, rest) = if word.eq_ignore_ascii_case(b"if") {
        (Verb::If, &text[2..])
    } else if word.eq_ignore_ascii_case(b"endif") {
        (Verb::EndIf, &text[5..])
    } else {
        (Verb::Match, text)
    };
    let mut rest = trim(rest);
    let (mut negated, marked) = (false, rest.starts_with(b"!"));
    while let Some(behind) = rest.strip_prefix(b"!") {
        negated = !negated;
        rest = trim(behind);
    }
    Statement { verb, negated, marked, rest }
}

/// Return the part before the first white space, and the part behind it.
pub fn split(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|&octet| source::is_space(octet)).unwrap_or(text.len());
    (&text[..end], trim(&text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_negation_are_recognised() {
        let rows: [(&str, Verb, bool, &str); 7] = [
            ("/a/ b", Verb::Match, false, "/a/ b"),
            ("! /a/ b", Verb::Match, true, "/a/ b"),
            ("IF /a/", Verb::If, false, "/a/"),
            ("if!/a/", Verb::If, true, "/a/"),
            ("if !!/a/", Verb::If, false, "/a/"),
            ("endif", Verb::EndIf, false, ""),
            ("iffy x", Verb::Match, false, "iffy x"),
        ];
        for (text, verb, negated, rest) in rows {
            let marked = text.contains('!');
            let expected = Statement { verb, negated, marked, rest: rest.as_bytes() };
            assert_eq!(statement(text.as_bytes()), expected, "{text}");
        }
    }
}
