//! The elements of a POSIX expression (regex(7)), extended or basic, with the operators that glibc adds to basic ones.
//!
//! The C library decides what a pattern means. This is for a survey of it: text that is no operator counts as characters,
//! and a broken pattern has elements too.

/// A set of octets: a bit for each.
pub type Octets = [u64; 4];

/// A part of a pattern: a character, a class, a group, or a row of these.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Characters and classes, with all copies.
    pub size: usize,
    /// Back-references, with all copies.
    pub references: usize,
    /// Ways in which it may match.
    pub choices: usize,
    /// Whether it is a back-reference and nothing else.
    pub is_reference: bool,
}

impl Part {
    /// No text.
    pub const EMPTY: Self = Self { size: 0, references: 0, choices: 1, is_reference: false };
    /// A character or a class.
    pub const CHARACTER: Self = Self { size: 1, ..Self::EMPTY };
    /// A back-reference.
    pub const REFERENCE: Self = Self { references: 1, is_reference: true, ..Self::CHARACTER };

    /// Append another part.
    pub fn add(&mut self, other: Self) {
        self.size = self.size.saturating_add(other.size);
        self.references = self.references.saturating_add(other.references);
        self.choices = self.choices.saturating_mul(other.choices);
    }
}

/// How often a part may be repeated; `most` `None`: without a limit.
#[derive(Debug, Clone, Copy)]
pub struct Repetition {
    /// Lowest number of times.
    pub least: usize,
    /// Highest number of times.
    pub most: Option<usize>,
}

/// An element of a pattern.
#[derive(Debug, Clone, Copy)]
pub enum Token {
    /// Text that matches.
    Part(Part),
    /// The start of a group.
    Open,
    /// The end of a group.
    Close,
    /// The end of an alternative.
    Branch,
    /// The repetition of the part before it.
    Repeat(Repetition),
}

/// The elements of a pattern, in their order.
#[derive(Debug)]
pub struct Tokens<'a> {
    pattern: &'a [u8],
    at: usize,
    extended: bool,
}

impl<'a> Tokens<'a> {
    /// `extended`: the pattern is no basic one.
    pub fn new(pattern: &'a [u8], extended: bool) -> Self {
        Self { pattern, at: 0, extended }
    }

    /// Return the place behind the last element.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Read a count behind its opening brace, `1,9}`; `None`: it is none, and nothing is read.
    fn count(&mut self) -> Option<Repetition> {
        let text = self.pattern.get(self.at..)?;
        let end = text.iter().position(|&octet| !(octet.is_ascii_digit() || octet == b','))?;
        let close: &[u8] = if self.extended { b"}" } else { b"\\}" };
        if end == 0 || !text[end..].starts_with(close) {
            return None;
        }
        let mut numbers = text[..end].splitn(2, |&octet| octet == b',');
        let least = numbers.next().map_or(0, number);
        let most = match numbers.next() {
            None => Some(least),
            Some(b"") => None,
            Some(digits) => Some(number(digits).max(least)),
        };
        self.at += end + close.len();
        Some(Repetition { least, most })
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let (&octet, rest) = self.pattern.get(self.at..)?.split_first()?;
        let start = self.at;
        self.at += 1;
        let (operator, octet) = match (octet, rest.first()) {
            (b'\\', Some(&octet)) => {
                self.at += 1;
                if octet.is_ascii_digit() && octet != b'0' {
                    return Some(Token::Part(Part::REFERENCE));
                }
                (!self.extended, octet)
            }
            (b'[', _) => {
                self.at = end_of_class(self.pattern, start) + 1;
                return Some(Token::Part(Part::CHARACTER));
            }
            (b'*', _) => (true, octet),
            _ => (self.extended, octet),
        };
        let endless = |least| Token::Repeat(Repetition { least, most: None });
        Some(match (operator, octet) {
            (true, b'(') => Token::Open,
            (true, b')') => Token::Close,
            (true, b'|') => Token::Branch,
            (true, b'*') => endless(0),
            (true, b'+') => endless(1),
            (true, b'?') => Token::Repeat(Repetition { least: 0, most: Some(1) }),
            (true, b'{') => self.count().map_or(Token::Part(Part::CHARACTER), Token::Repeat),
            _ => Token::Part(Part::CHARACTER),
        })
    }
}

/// Return the value of digits; 0 without any, the largest number for too many.
fn number(digits: &[u8]) -> usize {
    digits
        .iter()
        .fold(0_usize, |value, &digit| value.saturating_mul(10).saturating_add(usize::from(digit.wrapping_sub(b'0'))))
}

/// Return the octets that an expression in brackets matches in the C locale.
pub fn bracket(text: &[u8]) -> Octets {
    let inside = text.strip_prefix(b"[").unwrap_or(text);
    let inside = inside.strip_suffix(b"]").unwrap_or(inside);
    let (inside, others) = inside.strip_prefix(b"^").map_or((inside, false), |rest| (rest, true));
    let mut found = [0; 4];
    let mut add = |octet: u8| found[usize::from(octet >> 6)] |= 1 << (octet & 63);
    let mut at = 0;
    while let Some(&octet) = inside.get(at) {
        let rest = &inside[at..];
        if let [b'[', kind @ (b':' | b'.' | b'='), behind @ ..] = rest
            && let Some(end) = behind.windows(2).position(|pair| pair == [*kind, b']'])
        {
            match (&behind[..end], kind) {
                (name, b':') => (0..=u8::MAX).filter(|octet| is_in(name, *octet)).for_each(&mut add),
                (name, _) => name.iter().for_each(|octet| add(*octet)),
            }
            at += end + 4;
        } else if let [_, b'-', last, ..] = rest {
            (octet..=*last).for_each(&mut add);
            at += 3;
        } else {
            add(octet);
            at += 1;
        }
    }
    if others { found.map(|word: u64| !word) } else { found }
}

/// Whether a class, such as `alpha`, has an octet.
fn is_in(class: &[u8], octet: u8) -> bool {
    match class {
        b"alpha" => octet.is_ascii_alphabetic(),
        b"digit" => octet.is_ascii_digit(),
        b"alnum" => octet.is_ascii_alphanumeric(),
        b"upper" => octet.is_ascii_uppercase(),
        b"lower" => octet.is_ascii_lowercase(),
        b"space" => octet.is_ascii_whitespace() || octet == 11,
        b"blank" => matches!(octet, b' ' | b'\t'),
        b"punct" => octet.is_ascii_punctuation(),
        b"print" => octet.is_ascii_graphic() || octet == b' ',
        b"graph" => octet.is_ascii_graphic(),
        b"cntrl" => octet.is_ascii_control(),
        b"xdigit" => octet.is_ascii_hexdigit(),
        _ => false,
    }
}

/// Return the place of the bracket that ends the class of characters that begins at `start`.
pub fn end_of_class(pattern: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    at += usize::from(pattern.get(at) == Some(&b'^'));
    // A closing bracket at the start is a character.
    at += usize::from(pattern.get(at) == Some(&b']'));
    while let Some(&octet) = pattern.get(at) {
        match (octet, pattern.get(at + 1)) {
            (b']', _) => return at,
            (b'[', Some(&kind @ (b':' | b'.' | b'='))) => {
                let inside = &pattern[at + 2..];
                let end = inside.windows(2).position(|pair| pair == [kind, b']']);
                at += end.map_or(1, |end| end + 4);
            }
            _ => at += 1,
        }
    }
    at
}
