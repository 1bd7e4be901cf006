//! The literal text that every match of a pattern begins with, so that most subjects need no matching.
//!
//! It is known for patterns such as `^Subject: .*`: an anchor, then characters that stand for themselves. In doubt there
//! is none, and the library for expressions decides. The rules are those that regex(7) and pcre2pattern(3) share.

/// The start of every match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    octets: Box<[u8]>,
    ignores_case: bool,
}

impl Prefix {
    /// Return the start of every match of an extended pattern whose `^` is the start of the subject alone.
    pub fn of(pattern: &[u8], ignores_case: bool) -> Option<Self> {
        let rest = pattern.strip_prefix(b"^")?;
        if may_have_branches(pattern) {
            return None;
        }
        let mut octets = Vec::new();
        let mut at = 0;
        while let Some((octet, length)) = literal(&rest[at..]) {
            at += length;
            // A repetition may be one of zero times.
            if matches!(rest.get(at), Some(b'*' | b'?' | b'+' | b'{')) {
                break;
            }
            octets.push(octet);
        }
        (!octets.is_empty()).then(|| Self { octets: octets.into(), ignores_case })
    }

    /// Whether a subject begins so. If not, the pattern does not match it.
    pub fn begins(&self, subject: &[u8]) -> bool {
        let Some(start) = subject.get(..self.octets.len()) else { return false };
        if self.ignores_case { start.eq_ignore_ascii_case(&self.octets) } else { start == &*self.octets }
    }
}

/// Return the character that a pattern begins with, if it stands for itself, and its length in the pattern.
fn literal(pattern: &[u8]) -> Option<(u8, usize)> {
    match *pattern {
        [octet, ..] if octet.is_ascii_alphanumeric() || b" !\"%&',-/:;<=>@_~".contains(&octet) => Some((octet, 1)),
        // The C library has operators such as \< and \w.
        [b'\\', octet, ..] if b" !\"#$%&()*+,-./:;=?@[\\]^{|}~".contains(&octet) => Some((octet, 2)),
        _ => None,
    }
}

/// Whether a `|` may stand outside of all groups.
fn may_have_branches(pattern: &[u8]) -> bool {
    if !pattern.contains(&b'|') {
        return false;
    }
    // Text in which parentheses do not count: comments, quotes, names and strings.
    let opaque: [&[u8]; 4] = [b"#", b"\\Q", b"(*", b"(?C"];
    if opaque.iter().any(|text| memchr::memmem::find(pattern, text).is_some()) {
        return true;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&octet) = pattern.get(at) {
        match octet {
            b'\\' => at += 1,
            b'[' => match end_of_class(pattern, at) {
                Some(end) => at = end,
                None => return true,
            },
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'|' if depth == 0 => return true,
            _ => {}
        }
        at += 1;
    }
    false
}

/// Return the place of the bracket that ends a class of characters. `None`: the libraries differ, or there is none.
fn end_of_class(pattern: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    at += usize::from(pattern.get(at) == Some(&b'^'));
    // A closing bracket at the start is a character.
    at += usize::from(pattern.get(at) == Some(&b']'));
    loop {
        match pattern.get(at)? {
            b']' => return Some(at),
            b'\\' => return None,
            b'[' => {
                let name = pattern.get(at + 1..)?.strip_prefix(b":")?;
                let length = name.iter().position(|octet| !octet.is_ascii_lowercase())?;
                name[length..].strip_prefix(b":]")?;
                at += length + 4;
            }
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_text_behind_the_anchor_is_the_prefix() {
        let rows: [(&str, Option<&str>); 26] = [
            ("^Subject: .*", Some("Subject: ")),
            ("^user1@(.*)\\.example$", Some("user1@")),
            ("^a\\.b\\|c", Some("a.b|c")),
            ("^abc*", Some("ab")),
            ("^ab{0,1}", Some("a")),
            ("^ab+", Some("a")),
            ("^ab?c", Some("a")),
            ("^a(b|c)", Some("a")),
            ("^a[|]b", Some("a")),
            ("^a([(]|x)", Some("a")),
            ("^a([[:alpha:])]|x)", Some("a")),
            ("abc", None),
            ("^", None),
            ("^.a", None),
            ("^a*", None),
            ("^\\wa", None),
            ("^\\<a", None),
            ("^a|b", None),
            ("^a[(]|b", None),
            ("^a\\(|b", None),
            ("^a\\Q(\\E|b", None),
            ("^a(?#()|b", None),
            ("^a[\\](]|b", None),
            ("^a[[.(.]]|b", None),
            ("^a(*MARK:()|b", None),
            ("^ä", None),
        ];
        for (pattern, expected) in rows {
            let found = Prefix::of(pattern.as_bytes(), false);
            assert_eq!(found.map(|prefix| prefix.octets), expected.map(|text| text.as_bytes().into()), "{pattern}");
        }
    }

    #[test]
    fn case_counts_as_in_the_pattern() {
        let rows = [("Sub", false, true), ("sub", false, false), ("sUBx", true, true), ("Su", true, false)];
        for (subject, ignores_case, begins) in rows {
            assert_eq!(Prefix::of(b"^Sub", ignores_case).unwrap().begins(subject.as_bytes()), begins, "{subject}");
        }
    }
}
