//! The cost of a POSIX expression: the C library cannot be interrupted, so the pattern decides how long a subject may
//! be.
//!
//! glibc matches an expression without back-references by a deterministic automaton that it builds while it reads. It
//! reads a subject once for each place where a match may begin, as far as the longest match. `automaton` says whether
//! the states are few. For a back-reference it tries each place and length of its group, and does so again for each
//! repetition before it. The limits below keep a match within some two seconds. `tests` has the worst patterns that are
//! known.

use crate::automaton::Survey;
use crate::pattern::{Part, Repetition, Token, Tokens};
use std::sync::OnceLock;

/// Maximum octets of a subject.
pub const SUBJECT_MAX_OCTETS: usize = 128 * 1024;
/// Maximum number of parts that counted repetition adds to a pattern: `(ab){1,100}` adds 198.
pub const COPIES_MAX: usize = 1000;
/// Maximum number of parts that counts add to a pattern with back-references; with more, its subject is shorter.
const FEW_COPIES: usize = 12;
/// Maximum number of ways in which the parts before a back-reference may match.
pub const CHOICES_MAX: usize = 20;
/// Maximum number of octets that are read for a subject, at some 3 ns each: the places of a match, times its length.
const READ_MAX_OCTETS: usize = 128 * 1024 * 1024;
/// The same for a pattern of many states: each octet may build a new one, at some 30 us and 3 KiB.
const READ_WITH_MANY_STATES_MAX_OCTETS: usize = 32 * 1024;
/// Maximum octets of a subject for a pattern of many states that is read once.
const MANY_STATES_MAX_OCTETS: usize = 8 * 1024;
/// Maximum number of states that are kept for a pattern of many states; with more it is compiled anew.
pub const KEPT_STATES_MAX: usize = 4 * 1024;
/// Maximum octets of a subject in which a pattern with unlimited repetition may begin anywhere.
const ANYWHERE_MAX_OCTETS: usize = 16 * 1024;
/// The same, for a pattern with copies.
const ANYWHERE_COPIED_MAX_OCTETS: usize = 4 * 1024;
/// The same, for a pattern of many states.
pub const SHORT_MAX_OCTETS: usize = 256;
/// Maximum number of back-references, with those in copies.
pub const REFERENCES_MAX: usize = 50;
/// Maximum octets of a subject for back-references in a pattern with more than `FEW_COPIES` parts added.
const REFERENCES_MAX_OCTETS: usize = 1000;
/// Maximum octets of a subject for a back-reference with unlimited repetition, `\1+`, times the ways before it.
const REPEATED_REFERENCE_MAX_OCTETS: usize = 1000;
/// Maximum octets of a subject for back-references with unlimited repetition behind them.
const REFERENCE_THEN_ENDLESS_MAX_OCTETS: usize = 4 * 1024;
/// Maximum octets of a subject for other back-references, times the ways before them, times their number.
const REFERENCE_CHOICES_MAX_OCTETS: usize = 64 * 1024;

/// The properties of a pattern that decide about its time.
#[derive(Debug)]
pub struct Cost {
    pattern: Box<[u8]>,
    syntax: Syntax,
    /// Set by the first match: it costs more than all the rest, and most patterns of a table are never asked.
    survey: OnceLock<Survey>,
    /// Parts that counted repetition adds.
    copies: usize,
    /// Whether there is unlimited repetition.
    endless: bool,
    /// Whether a match begins at the start of the subject alone.
    anchored: bool,
    /// Back-references, with those in copies.
    references: usize,
    /// Ways in which the parts before the last back-reference may match.
    choices: usize,
    /// Whether a back-reference has unlimited repetition.
    repeated_reference: bool,
    /// Whether each parenthesis has its partner.
    balanced: bool,
}

/// The syntax of a pattern.
#[derive(Debug, Clone, Copy)]
pub struct Syntax {
    /// An extended expression, else a basic one.
    pub extended: bool,
    /// `^` is the start of any line.
    pub lines: bool,
    /// The case of letters is ignored.
    pub fold: bool,
}

impl Cost {
    /// Return the cost of a pattern, which need not be valid. Errors: why it may cost too much, and the fix.
    pub fn of(pattern: &[u8], syntax: Syntax) -> Result<Self, String> {
        Scan::new().run(pattern, syntax)
    }

    fn survey(&self) -> Survey {
        // `Scan` has limited the copies of counted repetition, which the survey writes out.
        *self.survey.get_or_init(|| Survey::of(&self.pattern, self.syntax.extended, self.syntax.fold))
    }

    /// Whether a search for any match should ask for one that begins at the start, `^.*(pattern)`: then the library
    /// reads the subject once.
    pub fn wants_single_pass(&self) -> bool {
        self.endless && !self.anchored && self.references == 0 && self.balanced
    }

    /// Return the maximum octets of a subject in a single pass.
    pub fn single_pass_max_octets(&self) -> usize {
        if self.survey().few_in_single_pass { SUBJECT_MAX_OCTETS } else { MANY_STATES_MAX_OCTETS }
    }

    /// Return the maximum octets of a subject for the pattern itself.
    pub fn max_octets(&self) -> usize {
        let Survey { few, longest, .. } = self.survey();
        if self.references > 0 {
            return if few { self.reference_max_octets() } else { self.reference_max_octets().min(SHORT_MAX_OCTETS) };
        }
        match (longest.filter(|_| !self.endless), self.anchored, few) {
            (_, true, true) => SUBJECT_MAX_OCTETS,
            (Some(longest), true, false) if longest <= MANY_STATES_MAX_OCTETS => SUBJECT_MAX_OCTETS,
            (_, true, false) => MANY_STATES_MAX_OCTETS,
            (None, false, true) if self.copies == 0 => ANYWHERE_MAX_OCTETS,
            (None, false, true) => ANYWHERE_COPIED_MAX_OCTETS,
            (None, false, false) => SHORT_MAX_OCTETS,
            (Some(longest), false, true) => {
                (READ_MAX_OCTETS / longest.max(1)).clamp(ANYWHERE_COPIED_MAX_OCTETS, SUBJECT_MAX_OCTETS)
            }
            (Some(longest), false, false) => {
                (READ_WITH_MANY_STATES_MAX_OCTETS / longest.max(1)).clamp(SHORT_MAX_OCTETS, MANY_STATES_MAX_OCTETS)
            }
        }
    }

    fn reference_max_octets(&self) -> usize {
        let few = self.copies <= FEW_COPIES;
        match (self.repeated_reference, self.choices, self.endless) {
            (true, _, _) => REPEATED_REFERENCE_MAX_OCTETS / self.choices.max(1),
            (false, 1, true) if few => REFERENCE_THEN_ENDLESS_MAX_OCTETS,
            (false, 1, false) if few => SUBJECT_MAX_OCTETS,
            (false, 1, _) => REFERENCES_MAX_OCTETS,
            (false, choices, _) => {
                let octets = REFERENCE_CHOICES_MAX_OCTETS / choices.saturating_mul(self.references);
                octets.clamp(SHORT_MAX_OCTETS, REFERENCE_THEN_ENDLESS_MAX_OCTETS)
            }
        }
    }

    /// Return the maximum number of states that a subject in a single pass adds to a pattern of many states.
    pub fn single_pass_adds(&self, octets: usize) -> usize {
        if self.survey().few_in_single_pass { 0 } else { octets }
    }

    /// The same for the pattern itself.
    pub fn adds(&self, octets: usize) -> usize {
        let Survey { few, longest, .. } = self.survey();
        if few {
            return 0;
        }
        let longest = longest.unwrap_or(octets).min(octets);
        if self.anchored { longest } else { octets.saturating_mul(longest) }
    }
}

/// A group whose end has not been read, or the whole pattern.
#[derive(Debug)]
struct Open {
    /// The parts before the last one.
    row: Part,
    /// The part that a repetition would apply to.
    last: Part,
    branches: usize,
}

impl Open {
    fn new() -> Self {
        Self { row: Part::EMPTY, last: Part::EMPTY, branches: 1 }
    }

    fn push(&mut self, part: Part) {
        self.row.add(self.last);
        self.last = part;
    }

    fn whole(&self) -> Part {
        let mut whole = self.row;
        whole.add(self.last);
        whole.choices = whole.choices.saturating_mul(self.branches);
        whole
    }
}

/// The state while a pattern is read.
#[derive(Debug)]
struct Scan {
    open: Vec<Open>,
    written: usize,
    /// Back-references, without their copies.
    references: usize,
    endless: bool,
    choices: usize,
    repeated_reference: bool,
    balanced: bool,
}

impl Scan {
    fn new() -> Self {
        Self {
            open: vec![Open::new()],
            written: 0,
            references: 0,
            endless: false,
            choices: 1,
            repeated_reference: false,
            balanced: true,
        }
    }

    fn run(mut self, pattern: &[u8], syntax: Syntax) -> Result<Cost, String> {
        for token in Tokens::new(pattern, syntax.extended) {
            match token {
                Token::Part(part) => {
                    self.written += 1;
                    if part.is_reference {
                        self.refer()?;
                    }
                    self.top().push(part);
                }
                Token::Open => self.open.push(Open::new()),
                Token::Close if self.open.len() > 1 => self.close(),
                Token::Close => self.balanced = false,
                Token::Branch => {
                    self.top().push(Part::EMPTY);
                    self.top().branches += 1;
                }
                Token::Repeat(repetition) => self.repeat(repetition)?,
            }
        }
        self.balanced &= self.open.len() == 1;
        // The library makes the copies before it finds that an end is missing.
        while self.open.len() > 1 {
            self.close();
        }
        let anchored = pattern.first() == Some(&b'^') && !syntax.lines && self.balanced && self.top().branches == 1;
        let whole = self.top().whole();
        let copies = whole.size.saturating_sub(self.written);
        if copies > COPIES_MAX {
            return Err(format!(
                "counted repetition stands for more than {COPIES_MAX} copies: use smaller counts, or a pcre table"
            ));
        }
        if whole.references > REFERENCES_MAX {
            return Err(many_references());
        }
        if whole.references > 0 && self.choices > CHOICES_MAX {
            return Err(format!(
                "a back-reference behind parts that match in more than {CHOICES_MAX} ways: use fewer ways, or a pcre table"
            ));
        }
        Ok(Cost {
            pattern: pattern.into(),
            syntax,
            survey: OnceLock::new(),
            copies,
            endless: self.endless,
            anchored,
            references: whole.references,
            choices: self.choices,
            repeated_reference: self.repeated_reference,
            balanced: self.balanced,
        })
    }

    /// The group that is open now. The whole pattern is never closed.
    fn top(&mut self) -> &mut Open {
        if self.open.is_empty() {
            self.open.push(Open::new());
        }
        let at = self.open.len() - 1;
        &mut self.open[at]
    }

    /// Make the group that is open now a part of the one around it.
    fn close(&mut self) {
        let whole = self.open.pop().as_ref().map_or(Part::EMPTY, Open::whole);
        self.top().push(whole);
    }

    /// Take notice of a back-reference. Errors: it has unlimited repetition before it.
    fn refer(&mut self) -> Result<(), String> {
        if self.endless {
            return Err("a back-reference behind unlimited repetition: use {1,9} instead of * and +, or a pcre table"
                .to_owned());
        }
        self.references += 1;
        if self.references > REFERENCES_MAX {
            return Err(many_references());
        }
        let ways = self.open.iter().fold(1_usize, |ways, open| ways.saturating_mul(open.whole().choices));
        self.choices = self.choices.max(ways);
        Ok(())
    }

    /// Repeat the last part. Errors: a group with a back-reference has unlimited repetition.
    fn repeat(&mut self, Repetition { least, most }: Repetition) -> Result<(), String> {
        let part = self.top().last;
        if most.is_none() {
            if part.references > 0 && !part.is_reference {
                return Err(
                    "unlimited repetition of a back-reference and more: use a count, or a pcre table".to_owned()
                );
            }
            self.repeated_reference |= part.is_reference;
            self.endless = true;
        }
        let times = most.unwrap_or(least).max(1);
        let power = u32::try_from(times).unwrap_or(u32::MAX);
        let ways =
            part.choices.saturating_pow(power).saturating_mul(most.map_or(1, |most| most.saturating_sub(least) + 1));
        if part.references > 0 && !part.is_reference {
            self.choices = self.choices.saturating_pow(power).max(ways);
        }
        self.top().last = Part {
            size: part.size.saturating_mul(times),
            references: part.references.saturating_mul(times),
            choices: ways,
            ..part
        };
        Ok(())
    }
}

fn many_references() -> String {
    format!("more than {REFERENCES_MAX} back-references: use fewer of them, or a pcre table")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENDED: Syntax = Syntax { extended: true, lines: false, fold: true };
    const BASIC: Syntax = Syntax { extended: false, ..EXTENDED };

    fn cost(pattern: &str) -> Result<Cost, String> {
        Cost::of(pattern.as_bytes(), EXTENDED)
    }

    #[test]
    fn copies_are_counted() {
        let rows = [
            ("abc", 0),
            ("a{10}", 9),
            ("(ab){1,100}", 198),
            ("((a{1,10}){1,10}){1,10}", 999),
            ("[0-9]{1,3}(\\.[0-9]{1,3}){3}", 12),
            ("a{3,}b", 2),
            ("a{,4}b", 3),
            ("a\\{9}[{9}]{2}", 1),
            ("a{x}", 0),
        ];
        for (pattern, copies) in rows {
            assert_eq!(cost(pattern).unwrap().copies, copies, "{pattern}");
        }
        assert_eq!(Cost::of(b"\\(ab\\)\\{1,100\\}c{9}", BASIC).unwrap().copies, 198);
    }

    #[test]
    fn patterns_of_sites_are_accepted() {
        let rows = [
            r"(.)\1{8}",
            r"(.)\1{8,}",
            r"^Subject: (.)\1\1\1.*",
            r"^([a-z])([a-z])\2\1@",
            r"(foo|bar)-\1",
            r"((.)\2){3}",
            r"^(From|To):.*<([^@]+)@(([a-z0-9-]+\.)+)example\.(com|org)>$",
            r"([^,]*,){50}",
            r"^[A-Za-z0-9+/]{60,80}$",
            r".{998,}",
            r"(([0-9]{1,3}\.){3}[0-9]{1,3}|([0-9a-f]{1,4}:){7}[0-9a-f]{1,4})",
            r"((a|b)*|(c+d)*)*",
        ];
        for pattern in rows {
            assert!(cost(pattern).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn patterns_without_a_bound_are_refused() {
        let rows = [
            (r"(.*)(.*)(.*)(.*)\1\2\3\4z", "behind unlimited repetition"),
            (r"((a{1,100}){1,100}){1,100}b", "more than 1000 copies"),
            (r"(a{1,10000}", "more than 1000 copies"),
            (r"a{1,10000}", "more than 1000 copies"),
            (r"(((a{1,32767}){1,32767}){1,32767}){1,32767}", "more than 1000 copies"),
            (r"a{99999999999999999999999}", "more than 1000 copies"),
            (r".*(.)\1", "behind unlimited repetition"),
            (r"([a-z]+)@\1", "behind unlimited repetition"),
            (r"((.)\2)*c", "unlimited repetition of a back-reference"),
            (r"(a?a)(a?a)(a?a)(a?a)(a?a)\1\2\3\4\5", "more than 20 ways"),
            (r"((a?)\2b){9}", "more than 20 ways"),
            (r"(.)\1{51}", "more than 50 back-references"),
            (r"(.{1,50})\1", "more than 20 ways"),
        ];
        for (pattern, problem) in rows {
            let found = cost(pattern).unwrap_err();
            assert!(found.contains(problem), "{pattern}: {found}");
            assert!(found.contains(": use "), "{pattern}: {found}");
        }
        assert!(Cost::of(br"\(.*\)\1", BASIC).is_err());
    }

    #[test]
    fn broken_patterns_have_a_cost() {
        for pattern in ["(", ")", "a)|b", "*", "a{", "[", "[a", "\\", "{1}", "a**{2}{3}", "(|)", "((((", "\\1", ""] {
            let found = cost(pattern).unwrap();
            assert!(found.max_octets() >= SHORT_MAX_OCTETS, "{pattern}");
        }
        assert!(!cost("a)|b*").unwrap().wants_single_pass());
    }

    #[test]
    fn the_longest_subject_depends_on_the_pattern() {
        let rows = [
            ("abc", SUBJECT_MAX_OCTETS),
            ("^a.*b.*c", SUBJECT_MAX_OCTETS),
            ("a.*b", ANYWHERE_MAX_OCTETS),
            ("^a|b*", ANYWHERE_MAX_OCTETS),
            ("a.*b{3}", ANYWHERE_COPIED_MAX_OCTETS),
            ("a.*b{30}", ANYWHERE_COPIED_MAX_OCTETS),
            ("^a.*b{30}", SUBJECT_MAX_OCTETS),
            ("a{30}", SUBJECT_MAX_OCTETS),
            ("a.{1000}", SUBJECT_MAX_OCTETS),
            ("a.{30}b.{20}c", SUBJECT_MAX_OCTETS),
            ("[ab]*a.{30}", SHORT_MAX_OCTETS),
            ("^[ab]*a.{30}", MANY_STATES_MAX_OCTETS),
            ("^a{30}", SUBJECT_MAX_OCTETS),
            ("[ab]{0,50}a[ab]{30}c", READ_WITH_MANY_STATES_MAX_OCTETS / 82),
            (r"(.)\1{8}", SUBJECT_MAX_OCTETS),
            (r"(.)\1{8}.*", REFERENCE_THEN_ENDLESS_MAX_OCTETS),
            (r"(.)\1{50}", REFERENCES_MAX_OCTETS),
            (r"(.)\1+", REPEATED_REFERENCE_MAX_OCTETS),
            (r"(.{1,20})\1", REFERENCE_CHOICES_MAX_OCTETS / 20),
        ];
        for (pattern, octets) in rows {
            assert_eq!(cost(pattern).unwrap().max_octets(), octets, "{pattern}");
        }
        let written_out = format!("[ab]*a{}c", ".".repeat(50));
        let rows = [
            ("a.*b", SUBJECT_MAX_OCTETS),
            ("a.*b{30}", SUBJECT_MAX_OCTETS),
            ("a.*b.{30}c", MANY_STATES_MAX_OCTETS),
            (written_out.as_str(), MANY_STATES_MAX_OCTETS),
        ];
        for (pattern, octets) in rows {
            assert_eq!(cost(pattern).unwrap().single_pass_max_octets(), octets, "{pattern}");
        }
        assert_eq!(cost(&format!(r"(.)\1{written_out}")).unwrap().max_octets(), SHORT_MAX_OCTETS);
        assert_eq!(cost(&"a".repeat(10_000)).unwrap().max_octets(), READ_MAX_OCTETS / 10_000);
    }

    #[test]
    fn a_pattern_of_many_states_adds_one_for_each_octet_that_is_read() {
        let rows = [
            ("a.*b", 0, 0),
            ("[ab]*a.{30}", 100, 100 * 100),
            ("^[ab]*a.{30}", 100, 100),
            ("[ab]{0,50}a[ab]{30}c", 100, 100 * 82),
            ("a.{30}.*", 100, 0),
        ];
        for (pattern, in_single_pass, itself) in rows {
            let cost = cost(pattern).unwrap();
            assert_eq!(cost.single_pass_adds(100), in_single_pass, "{pattern}");
            assert_eq!(cost.adds(100), itself, "{pattern}");
        }
    }
}
