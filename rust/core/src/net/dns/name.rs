//! A domain name in the form of the wire: octets of a label behind their number (RFC 1035 §3.1).
//!
//! `parse` reads the form of master files (RFC 1035 §5.1), `text` writes it, so a label may have any octet. A `Name` is
//! in lower case; names in answers keep their case.

use thiserror::Error;

/// Maximum number of octets of a label (RFC 1035 §3.1).
const LABEL_MAX_OCTETS: usize = 63;
/// Maximum number of octets of a name, with the root's (RFC 1035 §3.1).
const NAME_MAX_OCTETS: usize = 255;

/// A domain name in lower case, without the root at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    wire: Box<[u8]>,
}

/// The text is not a domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("invalid host or domain name")]
pub struct BadName;

impl Name {
    /// Read a name with or without dots at its end. `\.` and `\046` are octets of a label. The empty name is the root.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let mut wire = Vec::with_capacity(text.len() + 1);
        if matches!(text, "" | ".") {
            return Ok(Self { wire: wire.into() });
        }
        let mut octets = text.bytes();
        let (mut length_at, mut dots) = (0, 0);
        wire.push(0);
        while let Some(octet) = octets.next() {
            if octet == b'.' {
                dots += 1;
                continue;
            }
            if dots > 0 {
                // Dots at the end are the root's; an empty label elsewhere is an error.
                if dots > 1 || wire.len() == length_at + 1 {
                    return Err(BadName);
                }
                (length_at, dots) = (wire.len(), 0);
                wire.push(0);
            }
            let octet = if octet == b'\\' { escaped(&mut octets)? } else { octet };
            wire.push(octet.to_ascii_lowercase());
            if wire.len() - length_at - 1 > LABEL_MAX_OCTETS {
                return Err(BadName);
            }
            wire[length_at] += 1;
        }
        if wire.len() == length_at + 1 || wire.len() >= NAME_MAX_OCTETS {
            return Err(BadName);
        }
        Ok(Self { wire: wire.into() })
    }

    /// Return the labels, the first one first.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.wire[..];
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (label, after) = after.split_at(usize::from(*length));
            rest = after;
            Some(label)
        })
    }

    /// Return the name below a domain; an error if it is too long.
    pub fn below(&self, domain: &Self) -> Result<Self, BadName> {
        let wire = [&self.wire[..], &domain.wire].concat();
        if wire.len() >= NAME_MAX_OCTETS { Err(BadName) } else { Ok(Self { wire: wire.into() }) }
    }

    /// Return the number of octets.
    pub fn len(&self) -> usize {
        self.wire.len()
    }

    /// Whether it is the root.
    pub fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }
}

/// Read the octet of `\c` or `\ddd`, behind the backslash.
fn escaped(octets: &mut std::str::Bytes<'_>) -> Result<u8, BadName> {
    let first = octets.next().ok_or(BadName)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = octets.next().filter(u8::is_ascii_digit).ok_or(BadName)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| BadName)
}

/// Write labels as text, without a dot at the end; the root is the empty text.
pub fn text<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Box<str> {
    let mut text = String::new();
    for (at, label) in labels.enumerate() {
        if at > 0 {
            text.push('.');
        }
        for octet in label {
            match octet {
                b'"' | b'(' | b')' | b'.' | b';' | b'\\' | b'@' | b'$' => {
                    text.push('\\');
                    text.push(char::from(*octet));
                }
                b'!'..=b'~' => text.push(char::from(*octet)),
                _ => text.push_str(&format!("\\{octet:03}")),
            }
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_and_written() {
        let long = "x".repeat(63);
        let rows: &[(&str, Option<&str>)] = &[
            ("a.test", Some("a.test")),
            ("A.Test.", Some("a.test")),
            ("a.test..", Some("a.test")),
            ("", Some("")),
            (".", Some("")),
            (r"a\.b.c", Some(r"a\.b.c")),
            (r"a\032b", Some(r"a\032b")),
            (r"a\065", Some("aa")),
            (&long, Some(&long)),
            (r"a\", None),
            (r"a\25", None),
            (r"a\256", None),
            (".a", None),
            ("a..b", None),
            ("..", None),
            (&format!("x{long}"), None),
        ];
        for (given, expected) in rows {
            let read = Name::parse(given).ok().map(|name| text(name.labels()));
            assert_eq!(read.as_deref(), *expected, "{given}");
        }
    }

    #[test]
    fn name_has_at_most_255_octets() {
        let label = format!("{}.", "x".repeat(63));
        let base = label.repeat(3);
        assert!(Name::parse(&format!("{base}{}", "y".repeat(61))).is_ok());
        assert_eq!(Name::parse(&format!("{base}{}", "y".repeat(62))), Err(BadName));
        let (half, end) = (Name::parse(&label.repeat(2)).unwrap(), Name::parse(&label).unwrap());
        assert!(half.below(&end).is_ok());
        assert_eq!(half.below(&half), Err(BadName));
    }

    proptest! {
        #[test]
        fn written_name_is_read_as_the_same(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let written = text(labels.iter().map(Vec::as_slice));
            let read = Name::parse(&written).unwrap();
            let lower: Vec<Vec<u8>> = labels.iter().map(|label| label.to_ascii_lowercase()).collect();
            prop_assert_eq!(read.labels().map(<[u8]>::to_vec).collect::<Vec<_>>(), lower);
        }

        #[test]
        fn any_text_is_a_name_or_an_error(given in ".{0,300}") {
            if let Ok(name) = Name::parse(&given) {
                prop_assert!(name.len() < NAME_MAX_OCTETS);
                prop_assert!(name.labels().all(|label| (1..=LABEL_MAX_OCTETS).contains(&label.len())));
            }
        }
    }
}
