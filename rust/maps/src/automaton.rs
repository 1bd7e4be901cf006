//! The number of states that the C library builds for a POSIX expression.
//!
//! A state is a set of positions in the pattern: those that may match the next octet. glibc adds a state for each new
//! set that a subject leads to, and keeps it until the expression is freed. Many states cost memory, and also time,
//! because the hash table of states does not grow. Literal text has few states. Behind repetition, each part that matches many
//! octets may double their number: `[ab]*a` and 50 dots have 2^50.
//!
//! `Survey::of` parses a pattern into a tree (`Node`). For literal text, `segments` computes an upper bound. For
//! other patterns, `Positions` builds the sets for all subjects at once, up to `STATES_MAX`. A back-reference counts as
//! any text.

use crate::pattern::{Octets, Repetition, Token, Tokens, bracket};
use std::collections::{HashMap, HashSet};

/// Maximum number of states that count as few. A state takes 2.3 KiB, and 4 octets or more for each position.
pub const STATES_MAX: usize = 4096;
/// The same for literal text with any text between: the hash table has a place for each octet of the pattern.
const TEXT_STATES_MAX: usize = 32 * 1024;
/// Maximum number of links between positions, and of positions in all sets that are built: some 80 ms.
const WORK_MAX: usize = 4_000_000;
/// Maximum depth of nested groups; a deeper pattern counts as one of many states.
const DEPTH_MAX: usize = 64;
/// Maximum number of operators that repeat the same part, `a**`; a pattern with more counts as one of many states.
const REPEATS_MAX: usize = 8;

/// All octets.
const ANY: Octets = [u64::MAX; 4];

/// The states that a pattern needs, and how far it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// Whether a match that begins at a given place needs few states.
    pub few: bool,
    /// Whether a match that begins anywhere, found in a single pass, needs few states.
    pub few_in_single_pass: bool,
    /// Maximum octets of a match; `None`: there is unlimited repetition.
    pub longest: Option<usize>,
}

impl Survey {
    /// The survey of a pattern that is too large to count its states.
    pub const MANY: Self = Self { few: false, few_in_single_pass: false, longest: None };

    /// Return the survey of a pattern, which need not be valid. `extended`: an extended expression, else a basic one.
    /// `fold`: the case of letters is ignored.
    pub fn of(pattern: &[u8], extended: bool, fold: bool) -> Self {
        let Some(node) = parse(pattern, extended, fold) else {
            return Self::MANY;
        };
        let longest = node.longest();
        if node.segments().is_some_and(|states| states <= TEXT_STATES_MAX) {
            return Self { few: true, few_in_single_pass: true, longest };
        }
        let positions = Positions::of(&node);
        let few = |anywhere| positions.as_ref().is_some_and(|positions| positions.has_few_sets(anywhere));
        Self { few: few(false), few_in_single_pass: few(true), longest }
    }
}

/// A part of a pattern.
#[derive(Debug)]
enum Node {
    /// One octet of a set.
    Octets(Octets),
    /// Parts that follow each other.
    Row(Vec<Node>),
    /// Alternatives, `a|b`.
    Choice(Vec<Node>),
    /// A part that is repeated.
    Repeat(Box<Node>, Repetition),
}

/// The number of sets behind a part of literal text, and the number of ways to its end.
#[derive(Debug, Clone, Copy)]
struct Literal {
    sets: usize,
    ways: usize,
}

impl Node {
    const EMPTY: Self = Self::Row(Vec::new());

    /// Return the maximum octets that match; `None` without a limit.
    fn longest(&self) -> Option<usize> {
        match self {
            Self::Octets(_) => Some(1),
            Self::Row(parts) => parts.iter().try_fold(0_usize, |sum, part| Some(sum.saturating_add(part.longest()?))),
            Self::Choice(branches) => branches.iter().try_fold(0, |most, branch| Some(branch.longest()?.max(most))),
            Self::Repeat(part, Repetition { most, .. }) => Some(part.longest()?.saturating_mul((*most)?)),
        }
    }

    /// Return the maximum number of sets of literal text with any text between; `None`: the pattern has other parts.
    fn segments(&self) -> Option<usize> {
        let Self::Row(parts) = self else { return self.literal().map(|literal| literal.sets) };
        let (mut sets, mut segment) = (1_usize, Literal { sets: 0, ways: 1 });
        for part in parts {
            if part.is_any_text() {
                // The text before it has matched, and no later octet changes that: its sets end here.
                sets = sets.saturating_add(segment.sets).saturating_add(1);
                segment = Literal { sets: 0, ways: 1 };
            } else {
                segment = segment.then(part.literal()?);
            }
        }
        Some(sets.saturating_add(segment.sets))
    }

    /// Whether this is `.*` or `.+`, or a back-reference.
    fn is_any_text(&self) -> bool {
        matches!(self, Self::Repeat(part, Repetition { most: None, .. }) if matches!(**part, Self::Octets(ANY)))
    }

    /// Return the number of sets of literal text; `None`: the part is no literal text.
    fn literal(&self) -> Option<Literal> {
        match self {
            Self::Octets(octets) if is_one(octets) => Some(Literal { sets: 1, ways: 1 }),
            Self::Row(parts) => {
                parts.iter().try_fold(Literal { sets: 0, ways: 1 }, |row, part| Some(row.then(part.literal()?)))
            }
            Self::Choice(branches) => branches.iter().try_fold(Literal { sets: 0, ways: 0 }, |all, branch| {
                let Literal { sets, ways } = branch.literal()?;
                Some(Literal { sets: all.sets.saturating_add(sets), ways: all.ways.saturating_add(ways) })
            }),
            Self::Octets(_) | Self::Repeat(..) => None,
        }
    }
}

impl Literal {
    /// Return the text with another text behind it.
    fn then(self, next: Self) -> Self {
        let Self { sets, ways } = self;
        Self { sets: sets.saturating_add(ways.saturating_mul(next.sets)), ways: ways.saturating_mul(next.ways) }
    }
}

/// Whether a set has one octet, or a letter in both cases.
fn is_one(octets: &Octets) -> bool {
    let count: u32 = octets.iter().map(|word| word.count_ones()).sum();
    let both = (b'a'..=b'z').any(|letter| has(octets, letter) && has(octets, letter.to_ascii_uppercase()));
    count == 1 || (count == 2 && both)
}

fn has(octets: &Octets, octet: u8) -> bool {
    (octets[usize::from(octet >> 6)] >> (octet & 63)) & 1 == 1
}

/// Return the tree of a pattern; `None`: it is too deep, or repeats a part too often.
fn parse(pattern: &[u8], extended: bool, fold: bool) -> Option<Node> {
    // For each open group: its alternatives that have ended, and the parts of the current one.
    let mut open: Vec<(Vec<Node>, Vec<Node>)> = vec![(Vec::new(), Vec::new())];
    let close = |(mut branches, row): (Vec<Node>, Vec<Node>)| {
        if branches.is_empty() {
            return Node::Row(row);
        }
        branches.push(Node::Row(row));
        Node::Choice(branches)
    };
    let mut tokens = Tokens::new(pattern, extended);
    let (mut start, mut repeats) = (0, 0);
    while let Some(token) = tokens.next() {
        let text = &pattern[start..tokens.at().min(pattern.len())];
        start = tokens.at();
        repeats = if matches!(token, Token::Repeat(_)) { repeats + 1 } else { 0 };
        if open.len() > DEPTH_MAX || repeats > REPEATS_MAX {
            return None;
        }
        let depth = open.len() - 1;
        let (branches, row) = &mut open[depth];
        match token {
            Token::Part(part) if part.is_reference => {
                row.push(Node::Repeat(Box::new(Node::Octets(ANY)), Repetition { least: 0, most: None }));
            }
            Token::Part(_) => row.push(octets(text, fold)),
            Token::Open => open.push((Vec::new(), Vec::new())),
            Token::Close if depth > 0 => {
                let group = open.pop().map_or(Node::EMPTY, close);
                open[depth - 1].1.push(group);
            }
            Token::Close => {}
            Token::Branch => branches.push(Node::Row(std::mem::take(row))),
            Token::Repeat(repetition) => {
                if let Some(part) = row.pop() {
                    row.push(Node::Repeat(Box::new(part), repetition));
                }
            }
        }
    }
    while open.len() > 1 {
        let group = open.pop().map_or(Node::EMPTY, close);
        open.last_mut()?.1.push(group);
    }
    open.pop().map(close)
}

/// Return the node of an element: the octets that it matches, or an empty row for an assertion.
fn octets(text: &[u8], fold: bool) -> Node {
    let mut found = match text {
        [b'.'] => ANY,
        [b'^' | b'$'] => return Node::EMPTY,
        [b'\\', b'b' | b'B' | b'<' | b'>' | b'`' | b'\''] => return Node::EMPTY,
        [b'\\', b'w'] => bracket(b"[[:alnum:]_]"),
        [b'\\', b'W'] => bracket(b"[^[:alnum:]_]"),
        [b'\\', b's'] => bracket(b"[[:space:]]"),
        [b'\\', b'S'] => bracket(b"[^[:space:]]"),
        [b'[', ..] => bracket(text),
        [.., last] => bracket(&[b'[', *last, b']']),
        [] => return Node::EMPTY,
    };
    if fold {
        for letter in b'a'..=b'z' {
            let upper = letter.to_ascii_uppercase();
            if has(&found, letter) || has(&found, upper) {
                for octet in [letter, upper] {
                    found[usize::from(octet >> 6)] |= 1 << (octet & 63);
                }
            }
        }
    }
    Node::Octets(found)
}

/// The positions of a pattern: the places where it matches one octet.
#[derive(Debug, Default)]
struct Positions {
    /// The octets that each position matches.
    octets: Vec<Octets>,
    /// The positions that may follow each position.
    follow: Vec<Vec<u32>>,
    /// The positions where a match may begin.
    first: Vec<u32>,
    /// Links between positions that were made so far.
    work: usize,
}

/// A part whose positions are known.
#[derive(Debug)]
struct Fragment {
    /// The positions where it may begin.
    first: Vec<u32>,
    /// The positions where it may end.
    last: Vec<u32>,
    /// Whether it matches empty text.
    nullable: bool,
}

impl Fragment {
    fn empty() -> Self {
        Self { first: Vec::new(), last: Vec::new(), nullable: true }
    }
}

impl Positions {
    /// Return the positions of a pattern; `None`: they are too many.
    fn of(node: &Node) -> Option<Self> {
        let mut made = Self::default();
        made.first = made.add(node)?.first;
        Some(made)
    }

    /// Add the positions of a part; `None`: they are too many.
    fn add(&mut self, node: &Node) -> Option<Fragment> {
        match node {
            Node::Octets(octets) => {
                let at = u32::try_from(self.octets.len()).ok()?;
                self.octets.push(*octets);
                self.follow.push(Vec::new());
                Some(Fragment { first: vec![at], last: vec![at], nullable: false })
            }
            Node::Row(parts) => parts.iter().rev().try_fold(Fragment::empty(), |behind, part| {
                let part = self.add(part)?;
                self.join(part, behind)
            }),
            Node::Choice(branches) => {
                let mut all = Fragment { nullable: false, ..Fragment::empty() };
                for branch in branches {
                    let branch = self.add(branch)?;
                    all.first.extend(branch.first);
                    all.last.extend(branch.last);
                    all.nullable |= branch.nullable;
                }
                Some(all)
            }
            Node::Repeat(part, Repetition { least, most }) => {
                let mut row = Fragment::empty();
                let mut required = *least;
                match most {
                    None => {
                        row = self.add(part)?;
                        self.link(&row.last, &row.first)?;
                        row.nullable |= *least == 0;
                        required = required.saturating_sub(1);
                    }
                    Some(most) => {
                        for _ in *least..*most {
                            let copy = self.add(part)?;
                            row = self.join(copy, row)?;
                            row.nullable = true;
                        }
                    }
                }
                for _ in 0..required {
                    let copy = self.add(part)?;
                    row = self.join(copy, row)?;
                }
                Some(row)
            }
        }
    }

    /// Return a part with another one behind it; `None`: too many links.
    fn join(&mut self, mut part: Fragment, mut behind: Fragment) -> Option<Fragment> {
        self.link(&part.last, &behind.first)?;
        if part.nullable {
            part.first.extend(behind.first);
        }
        if behind.nullable {
            behind.last.extend(part.last);
        }
        Some(Fragment { first: part.first, last: behind.last, nullable: part.nullable && behind.nullable })
    }

    /// Let each position of `first` follow each one of `last`; `None`: too many links.
    fn link(&mut self, last: &[u32], first: &[u32]) -> Option<()> {
        self.work = self.work.saturating_add(1 + last.len().saturating_mul(first.len()));
        if self.work > WORK_MAX {
            return None;
        }
        for &at in last {
            self.follow[at as usize].extend(first);
        }
        Some(())
    }

    /// Whether all subjects together lead to few sets. `anywhere`: a match may begin at each octet.
    fn has_few_sets(&self, anywhere: bool) -> bool {
        let (classes, count) = self.classes();
        let mut first = self.first.clone();
        first.sort_unstable();
        first.dedup();
        let mut known = HashSet::from([first.clone()]);
        let mut waiting = vec![first];
        let mut next: Vec<Vec<u32>> = vec![Vec::new(); count];
        let mut work = 0;
        while let Some(set) = waiting.pop() {
            for &at in &set {
                for &class in &classes[at as usize] {
                    next[class].extend(&self.follow[at as usize]);
                }
            }
            for positions in &mut next {
                if anywhere {
                    positions.extend(&self.first);
                }
                work += positions.len() + 1;
                positions.sort_unstable();
                positions.dedup();
                if !known.contains(positions.as_slice()) {
                    known.insert(positions.clone());
                    waiting.push(positions.clone());
                }
                positions.clear();
            }
            if known.len() > STATES_MAX || work > WORK_MAX {
                return false;
            }
        }
        true
    }

    /// Return the classes of octets that each position matches, and the number of classes. A position matches all octets
    /// of a class, or none.
    fn classes(&self) -> (Vec<Vec<usize>>, usize) {
        let mut class_of = [0_usize; 256];
        let mut count = 1;
        for octets in self.octets.iter().collect::<HashSet<_>>() {
            let mut split: HashMap<(usize, bool), usize> = HashMap::new();
            for octet in 0..=u8::MAX {
                let found = split.len();
                let class = &mut class_of[usize::from(octet)];
                *class = *split.entry((*class, has(octets, octet))).or_insert(found);
            }
            count = split.len();
        }
        let of = |octets: &Octets| {
            let mut classes: Vec<usize> =
                (0..=u8::MAX).filter(|&octet| has(octets, octet)).map(|octet| class_of[usize::from(octet)]).collect();
            classes.sort_unstable();
            classes.dedup();
            classes
        };
        (self.octets.iter().map(of).collect(), count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(pattern: &str) -> Survey {
        Survey::of(pattern.as_bytes(), true, true)
    }

    #[test]
    fn the_longest_match_is_that_of_the_longest_branch() {
        let rows = [
            ("abc", Some(3)),
            ("^a(bc|d|efgh)$", Some(5)),
            ("[0-9]{1,3}(\\.[0-9]{1,3}){3}", Some(15)),
            ("a?b{0}", Some(1)),
            ("ab*", None),
            ("(a|b{3,})", None),
            (r"(.)\1", None),
        ];
        for (pattern, longest) in rows {
            assert_eq!(survey(pattern).longest, longest, "{pattern}");
        }
    }

    #[test]
    fn ordinary_patterns_have_few_states() {
        let words = (0..300).map(|n| format!("word{n}x")).collect::<Vec<_>>().join("|");
        let rows = [
            "^Subject:.*(viagra|cialis).*buy now",
            "^Received:.*[[:space:]]from[[:space:]]+[^ ]+ \\(.*\\[([0-9]{1,3}\\.){3}[0-9]{1,3}\\]\\)",
            "^(From|To):.*<([^@]+)@(([a-z0-9-]+\\.)+)example\\.(com|org)>$",
            "name=\"?.*\\.(exe|com|bat|pif|scr|vb[es]|[a-z]{3})\"?",
            "([0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12})",
            "[A-Za-z0-9+/]{60,80}",
            "b.*{30}",
            words.as_str(),
        ];
        for pattern in rows {
            assert!(survey(pattern).few, "{pattern}");
            assert!(survey(pattern).few_in_single_pass, "{pattern}");
        }
    }

    #[test]
    fn many_states_are_noticed_however_they_are_written() {
        let rows = [
            format!("[ab]*a{}c", ".".repeat(50)),
            format!("[ab]*a{}c", "[ab]".repeat(50)),
            format!("[ab]*a{}c", "[[:alpha:]]".repeat(50)),
            format!("[ab]*a{}c", "(a|b)".repeat(50)),
            format!("[ab]*a{}c", "(aa|ab|ba|bb)".repeat(25)),
            format!("[ab]*a{}c", "\\w".repeat(50)),
            format!("[ab]*a.{{11}}{}c", "a".repeat(300)),
            format!("{}a{}c", "[ab]?".repeat(16), "[ab]".repeat(16)),
            "[ab]{0,50}a[ab]{30}c".to_owned(),
            format!("({})", ('a'..='p').map(|c| format!("{c}[^0]*{}", c as u8 % 8)).collect::<Vec<_>>().join("|")),
        ];
        for pattern in rows {
            assert!(!survey(&pattern).few_in_single_pass, "{pattern}");
            assert_eq!(survey(&pattern).few, pattern.starts_with('('), "{pattern}");
        }
        assert!(survey("a.{300}c").few);
        assert!(!survey("a.{300}c").few_in_single_pass);
    }

    #[test]
    fn deep_patterns_end() {
        for pattern in ["(".repeat(100_000), "a*".repeat(1000), format!("a{}", "*".repeat(100_000))] {
            survey(&pattern);
        }
        assert!(!survey(&"(".repeat(100_000)).few);
    }
}
