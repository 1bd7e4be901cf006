//! `regexp:` and `pcre:`: patterns in the order of their lines; the first that matches gives the result.
//!
//! The library for expressions is an argument: it lives outside of this crate, which has no C.

use super::Table;
use super::options::{Options, Warn};
use super::prefix::Prefix;
use super::script::{DEPTH_MAX, Script, Statement, Verb, statement};
use super::source::{self, trim};
use super::template::{Span, Template};
use super::watched::{Source, Watched};
use crate::ask::Answer;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

/// Maximum octets of a subject: more than the longest header field or body line that is checked.
pub const SUBJECT_MAX_OCTETS: usize = 1024 * 1024;

/// A compiled expression.
pub trait Expression: fmt::Debug + Send + Sync + Sized + 'static {
    /// The table's type.
    const KIND: &'static str;

    /// A subject as the library takes it, with what a thread needs while it matches.
    type Subject<'a>;

    /// Return the library's options for the letters behind a pattern. `remark`: called for a letter without effect.
    /// Errors: the rule is skipped, and why.
    fn options(flags: &[u8], remark: &mut dyn FnMut(&str)) -> Result<u32, String>;

    /// Return why a pattern may need more steps than a lookup may, and how to write it. The whole table is refused: without
    /// this rule, it would let pass what the rule stops.
    fn excess(_pattern: &[u8], _options: u32) -> Option<String> {
        None
    }

    /// Compile a pattern. `places`: `matches` is asked for the places of groups. Errors: what is wrong.
    fn compile(pattern: &[u8], options: u32, places: bool) -> Result<Self, String>;

    /// Return the start of every match of a pattern, if it is known.
    fn prefix(pattern: &[u8], options: u32) -> Option<Prefix>;

    /// Return a subject in the library's form. Errors: the library cannot take it.
    fn subject(octets: &[u8]) -> Result<Self::Subject<'_>, String>;

    /// Return the number of groups.
    fn groups(&self) -> usize;

    /// Whether the subject matches. `spans`: the places of the whole match and of the groups; not needed if `None`.
    /// Errors: the library gave up.
    fn matches(&self, subject: &mut Self::Subject<'_>, spans: Option<&mut Vec<Span>>) -> Result<bool, String>;
}

/// A line of the table.
#[derive(Debug)]
struct Rule<E> {
    expression: E,
    /// The start of every match, if it is known.
    prefix: Option<Prefix>,
    negated: bool,
    number: usize,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Result(Template),
    /// If the pattern does not match, go on at this rule.
    If(usize),
}

/// The content of a table.
#[derive(Debug)]
pub struct Rules<E> {
    rules: Vec<Rule<E>>,
    owner: Option<u32>,
}

/// The text of a table, and how to compile it.
#[derive(Debug)]
pub struct Patterns<E> {
    script: Script,
    substitution: bool,
    expression: PhantomData<fn() -> E>,
}

/// The reason why a rule cannot be used.
enum Fault {
    /// The rule is skipped, with a warning, as in Postfix.
    Rule(String),
    /// The table is not used.
    Table(String),
}

impl From<String> for Fault {
    fn from(problem: String) -> Self {
        Self::Rule(problem)
    }
}

/// The result of a rule, and the number of its line.
type Hit = (Box<[u8]>, usize);

/// Return the pattern between the delimiters that a text begins with, and the text behind them. Errors: the delimiters
/// are missing.
fn split_pattern(text: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let Some(&delimiter) = text.first() else { return Err("no regexp: skipping this rule".to_owned()) };
    let mut at = 1;
    // An escape comes first: a backslash as delimiter never ends its pattern.
    while text.get(at).is_some_and(|&octet| octet == b'\\' || octet != delimiter) {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    if at >= text.len() {
        let delimiter = source::shown(&text[..1]);
        return Err(format!("no closing regexp delimiter \"{delimiter}\": skipping this rule"));
    }
    Ok((&text[1..at], &text[at + 1..]))
}

impl<E: Expression> Rules<E> {
    /// Read the lines of a text. `substitution`: results may contain text of the subject. `tell` gets the number of a
    /// line and what is wrong with it. Errors: the whole table is unusable.
    fn read(text: &[u8], substitution: bool, tell: &mut dyn FnMut(usize, &str)) -> Result<Self, String> {
        let mut rules: Vec<Rule<E>> = Vec::new();
        let mut blocks: Vec<usize> = Vec::new();
        for line in source::lines(text) {
            let line = match line {
                Ok(line) => line,
                Err(problem) => {
                    tell(problem.number, &problem.text);
                    continue;
                }
            };
            let statement = statement(&line.text);
            if statement.verb == Verb::EndIf {
                let end = rules.len();
                match blocks.pop().and_then(|at| rules.get_mut(at)) {
                    Some(rule) => {
                        rule.action = Action::If(end);
                        if !statement.rest.is_empty() {
                            tell(line.number, "ignoring extra text after ENDIF");
                        }
                    }
                    None => tell(line.number, "ignoring ENDIF without matching IF"),
                }
                continue;
            }
            match Self::rule(statement, line.number, substitution, tell) {
                Ok(rule) => {
                    if matches!(rule.action, Action::If(_)) {
                        if blocks.len() == DEPTH_MAX {
                            return Err(format!("line {}: more than {DEPTH_MAX} nested IFs", line.number));
                        }
                        blocks.push(rules.len());
                    }
                    rules.push(rule);
                }
                Err(Fault::Rule(problem)) => tell(line.number, &problem),
                Err(Fault::Table(problem)) => return Err(format!("line {}: {problem}", line.number)),
            }
        }
        let end = rules.len();
        for at in blocks.into_iter().rev() {
            tell(rules[at].number, "IF has no matching ENDIF");
            rules[at].action = Action::If(end);
        }
        Ok(Self { rules, owner: None })
    }

    fn rule(
        statement: Statement<'_>,
        number: usize,
        substitution: bool,
        tell: &mut dyn FnMut(usize, &str),
    ) -> Result<Rule<E>, Fault> {
        // Behind `if` and `!` there can be nothing but a pattern.
        if statement.verb == Verb::Match
            && !statement.marked
            && statement.rest.first().is_some_and(u8::is_ascii_alphanumeric)
        {
            return Err(Fault::Rule("ignoring unrecognized request".to_owned()));
        }
        let (pattern, behind) = split_pattern(statement.rest)?;
        let ends_flags = |&octet: &u8| source::is_space(octet) || E::KIND == "regexp" && octet == b'!';
        let (flags, rest) = behind.split_at(behind.iter().position(ends_flags).unwrap_or(behind.len()));
        let options = E::options(flags, &mut |text| tell(number, text))?;
        if let Some(second) = rest.strip_prefix(b"!").filter(|_| statement.verb == Verb::Match) {
            split_pattern(trim(second))?;
            // Postfix has this form, but does not document it. A rule that is skipped would let mail pass.
            return Err(Fault::Table("two patterns in one rule: use if, a rule with ! and endif".to_owned()));
        }
        let rest = trim(rest);
        let negated = statement.negated;
        let template = |groups| {
            let template = Template::of(rest, (!negated).then_some(groups));
            template.map_err(|problem| format!("{problem}: skipping this rule"))
        };
        let mut places = false;
        if statement.verb == Verb::If {
            if !rest.is_empty() {
                let rest = source::shown(rest);
                tell(number, &format!("ignoring extra text after IF statement: \"{rest}\""));
                tell(number, "do not prepend whitespace to statements between IF and ENDIF");
            }
        } else {
            if rest.is_empty() {
                tell(number, "no replacement text: using empty string");
            }
            // Its syntax, before the pattern's.
            places = template(usize::MAX)?.has_groups();
            if places && !substitution {
                let problem = "regular expression substitution is not allowed: skipping this rule";
                return Err(Fault::Rule(problem.to_owned()));
            }
        }
        if let Some(problem) = E::excess(pattern, options) {
            return Err(Fault::Table(problem));
        }
        let expression = E::compile(pattern, options, places)?;
        let action = match statement.verb {
            Verb::If => Action::If(0),
            _ => Action::Result(template(expression.groups())?),
        };
        Ok(Rule { expression, prefix: E::prefix(pattern, options), negated, number, action })
    }

    /// Return the result for a subject. Errors: the library gave up at a line.
    fn find(&self, subject: &[u8]) -> Result<Option<Hit>, (usize, String)> {
        let Some(first) = self.rules.first() else { return Ok(None) };
        let mut prepared = E::subject(subject).map_err(|problem| (first.number, problem))?;
        let mut spans = Vec::new();
        let mut at = 0;
        while let Some(rule) = self.rules.get(at) {
            let wanted = match &rule.action {
                Action::Result(template) if template.has_groups() => Some(&mut spans),
                _ => None,
            };
            let may_match = rule.prefix.as_ref().is_none_or(|prefix| prefix.begins(subject));
            let matches = may_match
                && rule.expression.matches(&mut prepared, wanted).map_err(|problem| (rule.number, problem))?;
            let hit = matches != rule.negated;
            at = match &rule.action {
                Action::If(end) if !hit => *end,
                Action::Result(template) if hit => return Ok(Some((template.expand(subject, &spans), rule.number))),
                _ => at + 1,
            };
        }
        Ok(None)
    }
}

impl<E: Expression> Source for Patterns<E> {
    type Content = Rules<E>;

    fn files(&self) -> Vec<PathBuf> {
        self.script.files()
    }

    fn read(&self, warnings: &mut Vec<String>) -> Result<Rules<E>, String> {
        let (text, owner) = self.script.read()?;
        let mut tell = |number, problem: &str| warnings.push(self.script.place(number) + problem);
        Ok(Rules { owner, ..Rules::read(&text, self.substitution, &mut tell)? })
    }

    fn is_empty(content: &Rules<E>) -> bool {
        content.rules.is_empty()
    }

    fn is_text(&self) -> bool {
        true
    }
}

/// `regexp:f` or `pcre:f`, or with the rules in the name: `regexp:{{rule}, ...}`.
#[derive(Debug)]
pub struct PatternTable<E: Expression> {
    name: Box<str>,
    content: Watched<Patterns<E>>,
}

impl<E: Expression> PatternTable<E> {
    /// `rest`: the name behind the type. Errors: the rules in the name are malformed.
    pub fn new(name: &str, rest: &[u8], options: &Options) -> Result<Self, String> {
        let warn: Warn = Arc::clone(&options.warn);
        let script = Script::of(E::KIND, rest)?;
        let patterns = Patterns { script, substitution: options.substitution, expression: PhantomData };
        Ok(Self { name: name.into(), content: Watched::new(patterns, name, warn) })
    }

    fn failed(&self, number: usize, problem: &str) -> Answer {
        let place = self.content.source().script.place(number);
        Answer::Failed(format!("table {}: {place}{problem}", self.name).into())
    }
}

impl<E: Expression> Table for PatternTable<E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, key: &[u8]) -> Answer {
        let content = match self.content.get() {
            Ok(content) => content,
            Err(problem) => return Answer::Failed(problem),
        };
        if key.len() > SUBJECT_MAX_OCTETS {
            return Answer::Failed(format!("table {}: a key of {} octets", self.name, key.len()).into());
        }
        match content.find(key) {
            Ok(Some((value, _))) => Answer::Found(value),
            Ok(None) => Answer::NotFound,
            Err((number, problem)) => self.failed(number, &problem),
        }
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
        let mut seen = hashbrown::HashSet::new();
        Ok(content
            .rules
            .iter()
            .filter_map(|rule| match &rule.action {
                Action::Result(template) => Some(template.written()),
                Action::If(_) => None,
            })
            .filter(|value| !value.is_empty() && seen.insert(value.clone()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An expression for tests: the subject contains the pattern; flag `x` is known, `o` is obsolete.
    #[derive(Debug)]
    struct Contains(Vec<u8>);

    impl Expression for Contains {
        const KIND: &'static str = "regexp";
        type Subject<'a> = &'a [u8];

        fn options(flags: &[u8], remark: &mut dyn FnMut(&str)) -> Result<u32, String> {
            for &flag in flags {
                match flag {
                    b'x' => {}
                    b'o' => remark("obsolete"),
                    _ => return Err(format!("unknown regexp option \"{}\": skipping this rule", char::from(flag))),
                }
            }
            Ok(0)
        }

        fn excess(pattern: &[u8], _: u32) -> Option<String> {
            (pattern == b"endless").then(|| "too many steps: use less".to_owned())
        }

        fn compile(pattern: &[u8], _: u32, _: bool) -> Result<Self, String> {
            if pattern == b"(" { Err("Unmatched (".to_owned()) } else { Ok(Self(pattern.to_vec())) }
        }

        fn prefix(_: &[u8], _: u32) -> Option<Prefix> {
            None
        }

        fn subject(octets: &[u8]) -> Result<&[u8], String> {
            Ok(octets)
        }

        fn groups(&self) -> usize {
            1
        }

        fn matches(&self, subject: &mut &[u8], spans: Option<&mut Vec<Span>>) -> Result<bool, String> {
            if self.0 == b"slow" {
                return Err("match limit exceeded".to_owned());
            }
            let found = subject.windows(self.0.len().max(1)).position(|part| part == self.0);
            if let (Some(spans), Some(at)) = (spans, found) {
                *spans = vec![Some((at, at + self.0.len())); 2];
            }
            Ok(found.is_some())
        }
    }

    fn read(text: &str) -> (Rules<Contains>, Vec<String>) {
        let mut told = Vec::new();
        let mut tell = |number: usize, problem: &str| told.push(format!("{number}: {problem}"));
        (Rules::read(text.as_bytes(), true, &mut tell).unwrap(), told)
    }

    #[test]
    fn rules_are_tried_in_order() {
        let text =
            "/ab/ one $1\n!/x/ no-x\nif /y/x\nif !/z/\n/q/ in\nendif\n/q/ out $$\nendif\n|s/t| slash\n/a\\/b/ esc\n";
        let rows = [
            ("cabx", Some("one ab")),
            ("c", Some("no-x")),
            ("xyq", Some("in")),
            ("xyzq", Some("out $")),
            ("xq", None),
            ("xs/t", Some("slash")),
        ];
        let (rules, told) = read(text);
        assert!(told.is_empty(), "{told:?}");
        for (key, value) in rows {
            let found = rules.find(key.as_bytes()).unwrap().map(|(value, _)| value);
            assert_eq!(found.as_deref(), value.map(str::as_bytes), "{key}");
        }
    }

    #[test]
    fn bad_rules_are_named_and_skipped() {
        let (rules, told) = read(
            "/(/ x\nabc no\n/open\n/f/q bad\n/g/\n/h/o v\nif\nif /(/\n/in/ x\nendif\n/a/ $2\n!/b/ $1\nif /k/ more\n",
        );
        assert_eq!(
            told,
            [
                "1: Unmatched (",
                "2: ignoring unrecognized request",
                "3: no closing regexp delimiter \"/\": skipping this rule",
                "4: unknown regexp option \"q\": skipping this rule",
                "5: no replacement text: using empty string",
                "6: obsolete",
                "7: no regexp: skipping this rule",
                "8: Unmatched (",
                "10: ignoring ENDIF without matching IF",
                "11: out of range replacement index \"2\": skipping this rule",
                "12: $number found in negative match replacement text: skipping this rule",
                "13: ignoring extra text after IF statement: \"more\"",
                "13: do not prepend whitespace to statements between IF and ENDIF",
                "13: IF has no matching ENDIF",
            ]
        );
        assert_eq!(rules.rules.len(), 4);
    }

    #[test]
    fn rules_with_text_of_the_subject_are_skipped_where_it_is_not_allowed() {
        let text = b"/^list-(.*)$/ $1\n/(a)/ ${1}\n/b/ price $$1\n!/(c)/ $1\n/(d)/ $2\nif /(e)/\n/(e)/ e\nendif\n";
        let mut told = Vec::new();
        let mut tell = |number: usize, problem: &str| told.push(format!("{number}: {problem}"));
        let rules: Rules<Contains> = Rules::read(text, false, &mut tell).unwrap();
        assert_eq!(
            told,
            [
                "1: regular expression substitution is not allowed: skipping this rule",
                "2: regular expression substitution is not allowed: skipping this rule",
                "4: $number found in negative match replacement text: skipping this rule",
                "5: regular expression substitution is not allowed: skipping this rule",
            ]
        );
        assert_eq!(rules.find(b"b").unwrap().map(|(value, _)| value), Some(b"price $1".as_slice().into()));
    }

    #[test]
    fn a_table_with_a_rule_that_cannot_be_skipped_is_refused() {
        let read = |text: &str| Rules::<Contains>::read(text.as_bytes(), true, &mut |_, _| ());
        for text in ["/a/ x\n/endless/ y\n", "/a/ x\nif /endless/\nendif\n", "/a/ x\n!/endless/ y\n"] {
            assert_eq!(read(text).unwrap_err(), "line 2: too many steps: use less");
        }
        for text in ["/a/!/b/ x\n", "/a/x!/b/x x\n"] {
            assert_eq!(read(text).unwrap_err(), "line 1: two patterns in one rule: use if, a rule with ! and endif");
        }
    }

    #[test]
    fn a_pattern_that_does_not_end_is_a_failure_and_not_a_missing_key() {
        let table = PatternTable::<Contains>::new("regexp:{}", b"{{/a/ b} {/slow/ x}}", &Options::plain()).unwrap();
        assert_eq!(table.lookup(b"a"), Answer::Found(b"b".as_slice().into()));
        let expected = "table regexp:{}: regexp map inline, line 2: match limit exceeded";
        assert_eq!(table.lookup(b"c"), Answer::Failed(expected.into()));
        assert_eq!(&*table.values().unwrap(), [b"b".as_slice().into(), b"x".as_slice().into()]);
    }
}
