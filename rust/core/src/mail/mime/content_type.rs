//! Content-Type as the structure needs it (RFC 2045 §5.1): the kind, and every boundary.
//!
//! A sender may hide a part behind a second boundary that only some readers use. So all boundaries count.

use super::Kind;

/// The characters that are tokens of their own (RFC 2045 §5.1).
const SPECIALS: &[u8] = b"()<>@,;:\\\"/[]?=";
/// Those of other headers (RFC 822 §3.3).
const SPECIALS_822: &[u8] = b"()<>@,;:\\\".[]";
/// Maximum number of tokens of a type or parameter; further ones are skipped.
const TOKENS_MAX: usize = 3;

/// A parsed value.
#[derive(Debug, PartialEq, Eq)]
pub struct ContentType {
    /// The type.
    pub kind: Kind,
    /// multipart/digest: its parts are messages.
    pub is_digest: bool,
    /// The boundaries of a multipart, in their order.
    pub boundaries: Vec<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Atom(Vec<u8>),
    Quoted(Vec<u8>),
    Special(u8),
}

impl Token {
    /// Whether it is this atom, in any case.
    fn is(&self, name: &str) -> bool {
        matches!(self, Self::Atom(text) if text.eq_ignore_ascii_case(name.as_bytes()))
    }
}

impl ContentType {
    /// Parse the value of a Content-Type header.
    pub fn parse(value: &[u8]) -> Self {
        let mut rest = value;
        let media = clause(&mut rest, SPECIALS).unwrap_or_default();
        let subtype = |name| matches!(&media[..], [_, Token::Special(b'/'), subtype] if subtype.is(name));
        let mut parsed = Self { kind: Kind::Leaf, is_digest: false, boundaries: Vec::new() };
        if media.first().is_some_and(|token| token.is("message")) {
            parsed.kind = if subtype("rfc822") {
                Kind::Message
            } else if subtype("global") {
                Kind::Global
            } else if subtype("partial") || subtype("external-body") {
                Kind::Fragment
            } else {
                Kind::Report
            };
        } else if media.first().is_some_and(|token| token.is("multipart")) {
            parsed.kind = Kind::Multipart;
            parsed.is_digest = subtype("digest");
            while let Some(parameter) = clause(&mut rest, SPECIALS) {
                let mut tokens = parameter.into_iter();
                if let (Some(name), Some(Token::Special(b'=')), Some(Token::Atom(value) | Token::Quoted(value))) =
                    (tokens.next(), tokens.next(), tokens.next())
                    && name.is("boundary")
                {
                    parsed.boundaries.push(value);
                }
            }
        }
        parsed
    }
}

/// Return the first atom of another header's value, if it is the first token.
pub fn first_atom(value: &[u8]) -> Option<Vec<u8>> {
    match clause(&mut { value }, SPECIALS_822)?.into_iter().next()? {
        Token::Atom(text) => Some(text),
        Token::Quoted(_) | Token::Special(_) => None,
    }
}

/// Remove the tokens up to the next semicolon from `rest`; return the first ones. `None` at the end of the value.
fn clause(rest: &mut &[u8], specials: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut ended = true;
    while let Some((first, after)) = rest.split_first() {
        let token = match first {
            b';' => {
                *rest = after;
                ended = false;
                break;
            }
            b'(' => {
                *rest = behind_comment(after);
                continue;
            }
            b'"' => Token::Quoted(quoted(after, rest)),
            blank if blank.is_ascii_whitespace() => {
                *rest = after;
                continue;
            }
            special if specials.contains(special) => {
                *rest = after;
                Token::Special(*special)
            }
            _ => {
                let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'"' | b'(' | b';') || specials.contains(b);
                let (atom, after) = rest.split_at(rest.iter().position(ends).unwrap_or(rest.len()));
                *rest = after;
                Token::Atom(atom.to_vec())
            }
        };
        if tokens.len() < TOKENS_MAX {
            tokens.push(token);
        }
    }
    (!ended || !tokens.is_empty()).then_some(tokens)
}

/// Return the text behind a comment, which may have others inside; `text` follows its parenthesis.
fn behind_comment(text: &[u8]) -> &[u8] {
    let (mut depth, mut escaped) = (1, false);
    for (at, octet) in text.iter().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[at + 1..];
        }
    }
    &[]
}

/// Return the content of a quoted string; `text` follows its quote, and `rest` becomes the text behind it.
fn quoted<'a>(text: &'a [u8], rest: &mut &'a [u8]) -> Vec<u8> {
    let (mut content, mut escaped) = (Vec::new(), false);
    for (at, octet) in text.iter().enumerate() {
        match octet {
            b'\\' if !escaped => escaped = true,
            b'"' if !escaped => {
                *rest = &text[at + 1..];
                return content;
            }
            _ => {
                content.push(*octet);
                escaped = false;
            }
        }
    }
    *rest = &[];
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_boundaries_are_found() {
        for (value, kind, is_digest, boundaries) in [
            (" text/plain; boundary=x", Kind::Leaf, false, &[][..]),
            ("", Kind::Leaf, false, &[]),
            (" ;;", Kind::Leaf, false, &[]),
            (" Message/RFC822", Kind::Message, false, &[]),
            ("message/global", Kind::Global, false, &[]),
            ("message / partial ; x", Kind::Fragment, false, &[]),
            ("message/external-body", Kind::Fragment, false, &[]),
            ("message/delivery-status", Kind::Report, false, &[]),
            ("message", Kind::Report, false, &[]),
            ("multipart/mixed", Kind::Multipart, false, &[]),
            ("multipart/digest; boundary=a", Kind::Multipart, true, &["a"]),
            ("MULTIPART/x;\r\n BOUNDARY=\"a \\\"b\\\\;\"; y", Kind::Multipart, false, &["a \"b\\;"]),
            ("multipart/x; boundary=a; charset=z; boundary=\"b\"", Kind::Multipart, false, &["a", "b"]),
            ("(a;(b\\))) multipart (c) / (d) x (e); boundary (f) = (g) h (i)", Kind::Multipart, false, &["h"]),
            ("multipart/x; boundary=\"\"", Kind::Multipart, false, &[""]),
            ("multipart/x; boundary=\"open", Kind::Multipart, false, &["open"]),
            ("multipart/x; boundary=a/b", Kind::Multipart, false, &["a"]),
            ("multipart/x; boundary==", Kind::Multipart, false, &[]),
            ("multipart/x; \"boundary\"=a", Kind::Multipart, false, &[]),
            ("multipart/x; a b boundary=c; boundary=d", Kind::Multipart, false, &["d"]),
            ("multipart/x;;;boundary=d", Kind::Multipart, false, &["d"]),
            ("multipart/x; (open; boundary=d", Kind::Multipart, false, &[]),
            ("\"multipart\"/x; boundary=d", Kind::Leaf, false, &[]),
        ] {
            let boundaries = boundaries.iter().map(|text| text.as_bytes().to_vec()).collect();
            assert_eq!(ContentType::parse(value.as_bytes()), ContentType { kind, is_digest, boundaries }, "{value}");
        }
    }

    #[test]
    fn the_first_atom_is_found() {
        for (value, atom) in [
            (" quoted-printable", Some("quoted-printable")),
            ("\r\n (x) 8bit;y", Some("8bit")),
            ("\"8bit\"", None),
            (".8bit", None),
            ("", None),
            ("(8bit)", None),
        ] {
            assert_eq!(first_atom(value.as_bytes()).as_deref(), atom.map(str::as_bytes), "{value}");
        }
    }
}
