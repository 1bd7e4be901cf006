//! The result of a pattern: text with `$1`, `${1}`, `$(1)` for the parts that groups matched, `$$` for a dollar.

/// A result with its places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    Group(usize),
}

/// The place of a group in a subject; `None`: the group took no part in the match.
pub type Span = Option<(usize, usize)>;

impl Template {
    /// Parse a result. `groups`: the number of groups of the pattern, `None` for a negated one. Errors: what is wrong.
    pub fn of(text: &[u8], groups: Option<usize>) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some((&octet, behind)) = rest.split_first() {
            rest = behind;
            if octet != b'$' {
                literal.push(octet);
                continue;
            }
            if let Some(behind) = rest.strip_prefix(b"$") {
                literal.push(b'$');
                rest = behind;
                continue;
            }
            let (name, behind) = name(rest)?;
            rest = behind;
            let number = group(name)?;
            let groups = groups.ok_or("$number found in negative match replacement text")?;
            if number > groups || number == 0 {
                return Err(format!("out of range replacement index \"{number}\""));
            }
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Group(number));
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self { parts: parts.into() })
    }

    /// Whether the result has places for groups.
    pub fn has_groups(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Group(_)))
    }

    /// Return the result for a subject. A group without a part in the match is empty.
    pub fn expand(&self, subject: &[u8], spans: &[Span]) -> Box<[u8]> {
        let mut out = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Group(number) => {
                    if let Some((start, end)) = spans.get(*number).copied().flatten() {
                        out.extend_from_slice(subject.get(start..end).unwrap_or_default());
                    }
                }
            }
        }
        out.into()
    }

    /// Return the result as it is written.
    pub fn written(&self) -> Box<[u8]> {
        let mut out = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Group(number) => out.extend_from_slice(format!("${{{number}}}").as_bytes()),
            }
        }
        out.into()
    }
}

/// Split a name behind a dollar sign from the text behind it.
fn name(text: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let close = match text.first() {
        Some(b'{') => b'}',
        Some(b'(') => b')',
        _ => {
            let end = text.iter().position(|&octet| !(octet.is_ascii_alphanumeric() || octet == b'_'));
            return Ok(text.split_at(end.unwrap_or(text.len())));
        }
    };
    let Some(end) = text.iter().position(|&octet| octet == close) else {
        return Err(format!("truncated macro reference: \"${}\"", String::from_utf8_lossy(text)));
    };
    Ok((&text[1..end], &text[end + 1..]))
}

fn group(name: &[u8]) -> Result<usize, String> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    if name.is_empty() {
        return Err("empty macro name: bad replacement syntax".to_owned());
    }
    if !name.iter().all(u8::is_ascii_digit) {
        return Err(format!("non-numeric replacement index \"{}\"", shown()));
    }
    shown().parse().map_err(|_| format!("out of range replacement index \"{}\"", shown()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_replaced() {
        let spans = [Some((0, 4)), Some((0, 1)), None, Some((2, 4))];
        let rows = [
            ("got $1", "got a"),
            ("1=${1} 2=$(2) 3=$3", "1=a 2= 3=cd"),
            ("a$$b$$1", "a$b$1"),
            ("", ""),
            ("plain", "plain"),
        ];
        for (text, expected) in rows {
            let template = Template::of(text.as_bytes(), Some(3)).unwrap();
            assert_eq!(&*template.expand(b"abcd", &spans), expected.as_bytes(), "{text}");
        }
    }

    #[test]
    fn bad_places_are_named() {
        let rows = [
            ("$4", "out of range replacement index \"4\""),
            ("$12", "out of range replacement index \"12\""),
            ("$0", "out of range replacement index \"0\""),
            ("$99999999999999999999", "out of range replacement index \"99999999999999999999\""),
            ("$name", "non-numeric replacement index \"name\""),
            ("$1a", "non-numeric replacement index \"1a\""),
            ("$", "empty macro name: bad replacement syntax"),
            ("${}", "empty macro name: bad replacement syntax"),
            ("${1", "truncated macro reference: \"${1\""),
        ];
        for (text, expected) in rows {
            assert_eq!(Template::of(text.as_bytes(), Some(3)).unwrap_err(), expected);
        }
        let negated = Template::of(b"$1", None).unwrap_err();
        assert_eq!(negated, "$number found in negative match replacement text");
    }
}
