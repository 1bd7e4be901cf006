//! Addresses in header fields (RFC 5322 §3.4).
//!
//! The reader is linear and never recurses: a counter tracks nested comments. It returns spans, so that completing one
//! address in a header changes no other octet.

use memchr::{memchr2, memrchr};
use std::ops::Range;

/// An address in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its octets in the header: without display name, angle brackets and surrounding comments.
    pub span: Range<usize>,
    /// False for a word without `@` beside another one: it may be a name.
    pub certain: bool,
    /// The address without comments, blanks and source route: `local@domain`, quoted as received, or a bare local part.
    pub text: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An atom, a quoted string or a domain literal.
    Word,
    /// One of `<>,;:@.`
    Special(u8),
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    span: Range<usize>,
}

/// Return the addresses of a list, in order, from at most `tokens_max` tokens. Addresses that are not UTF-8 are left
/// out.
pub fn addresses(value: &[u8], tokens_max: usize) -> Vec<Address> {
    let tokens = tokens(value, tokens_max);
    let mut found = Vec::new();
    let mut item = Vec::new();
    let mut angle = false;
    let mut closed = closed(&tokens).into_iter();
    for token in tokens {
        match token.kind {
            Kind::Special(b',' | b';') if !angle => {
                list_item(value, &item, &mut found);
                item.clear();
            }
            // A group's name ends here; inside angle brackets, a source route ends here.
            Kind::Special(b':') if !angle => item.clear(),
            kind => {
                angle = match kind {
                    // A `<` without its `>` must not swallow the addresses behind it.
                    Kind::Special(b'<') => closed.next().unwrap_or(false),
                    Kind::Special(b'>') => false,
                    _ => angle,
                };
                item.push(token);
            }
        }
    }
    list_item(value, &item, &mut found);
    found
}

/// Return for each `<`, in order, whether a `>` follows before the next one.
fn closed(tokens: &[Token]) -> Vec<bool> {
    let mut closed = Vec::new();
    for token in tokens {
        match token.kind {
            Kind::Special(b'<') => closed.push(false),
            Kind::Special(b'>') => {
                if let Some(last) = closed.last_mut() {
                    *last = true;
                }
            }
            _ => {}
        }
    }
    closed
}

fn list_item(value: &[u8], item: &[Token], found: &mut Vec<Address>) {
    if let Some(open) = item.iter().position(|token| token.kind == Kind::Special(b'<')) {
        let inside = &item[open + 1..];
        let close = inside.iter().position(|token| token.kind == Kind::Special(b'>')).unwrap_or(inside.len());
        found.extend(address(value, &inside[..close], true));
        return;
    }
    // A `>` without its `<` belongs to no address.
    let words = item.iter().rposition(|token| token.kind != Kind::Special(b'>')).map_or(0, |last| last + 1);
    let item = &item[..words];
    let mut start = 0;
    for at in 1..item.len() {
        if item[at - 1].kind == Kind::Word && item[at].kind == Kind::Word {
            found.extend(address(value, &item[start..at], false));
            start = at;
        }
    }
    found.extend(address(value, &item[start..], start == 0));
}

fn address(value: &[u8], tokens: &[Token], certain: bool) -> Option<Address> {
    let span = tokens.first()?.span.start..tokens.last()?.span.end;
    // A source route is `@a,@b:`; only its end matters (RFC 5321 Appendix C).
    let routed = tokens[0].kind == Kind::Special(b'@');
    let colon = tokens.iter().position(|token| token.kind == Kind::Special(b':')).filter(|_| routed);
    let tokens = colon.map_or(tokens, |at| &tokens[at + 1..]);
    let octets = tokens.iter().flat_map(|token| value[token.span.clone()].iter().copied());
    let text = String::from_utf8(octets.collect()).ok()?;
    // Where a comma is missing, maps must see the address all the same: it may be an internal one.
    let certain = certain || text.contains('@');
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| Address { span, certain, text: text.into() })
}

fn tokens(value: &[u8], tokens_max: usize) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < value.len() && tokens.len() < tokens_max {
        let start = at;
        let kind = match value[at] {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'(' => {
                at = comment_end(value, at);
                continue;
            }
            b'"' => {
                at = quoted_end(value, at, b'"');
                Kind::Word
            }
            b'[' => {
                at = quoted_end(value, at, b']');
                Kind::Word
            }
            special @ (b'<' | b'>' | b',' | b';' | b':' | b'@' | b'.') => {
                at += 1;
                Kind::Special(special)
            }
            _ => {
                at = atom_end(value, at);
                Kind::Word
            }
        };
        tokens.push(Token { kind, span: start..at });
    }
    tokens
}

fn atom_end(value: &[u8], start: usize) -> usize {
    let mut at = start;
    while at < value.len() && !b" \t\r\n(\"[<>,;:@.".contains(&value[at]) {
        // A quoted pair outside quotes is obsolete, but its octet has no special meaning.
        at += if value[at] == b'\\' { 2 } else { 1 };
    }
    at.min(value.len())
}

fn quoted_end(value: &[u8], start: usize, end: u8) -> usize {
    let mut at = start + 1;
    while at < value.len() {
        match value[at] {
            b'\\' => at += 2,
            octet if octet == end => return at + 1,
            _ => at += 1,
        }
    }
    value.len()
}

fn comment_end(value: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0usize);
    while at < value.len() {
        match value[at] {
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
    value.len()
}

/// Return the list `value` with other texts for its addresses, `None` if all stay. `new`: the text of each address in
/// `found`, `None` for one that stays.
pub fn replaced(value: &[u8], found: &[Address], new: Vec<Option<Box<str>>>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut copied = 0;
    for (address, new) in found.iter().zip(new) {
        if let Some(new) = new.filter(|new| **new != *address.text) {
            out.extend_from_slice(&value[copied..address.span.start]);
            out.extend_from_slice(new.as_bytes());
            copied = address.span.end;
        }
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(&value[copied..]);
    Some(out)
}

/// Return the end of the local part: the last `@` outside quotes.
pub fn at_sign(address: &str) -> Option<usize> {
    let octets = address.as_bytes();
    if memchr2(b'"', b'\\', octets).is_none() {
        return memrchr(b'@', octets);
    }
    let (mut at, mut found) = (0, None);
    while at < octets.len() {
        match octets[at] {
            b'"' => at = quoted_end(octets, at, b'"'),
            b'\\' => at += 2,
            b'@' => {
                found = Some(at);
                at += 1;
            }
            _ => at += 1,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(value: &str) -> Vec<String> {
        addresses(value.as_bytes(), 10_240).into_iter().map(|address| address.text.into()).collect()
    }

    #[test]
    fn address_lists_are_read() {
        for (value, expected) in [
            ("", vec![]),
            (" a@example.org", vec!["a@example.org"]),
            ("a@x, b@y ,c", vec!["a@x", "b@y", "c"]),
            ("Ann <a@x>, \"B, b\" <b@y>", vec!["a@x", "b@y"]),
            ("root (Charlie, Root <x@y>)", vec!["root"]),
            ("(c (nested \\) ) c) a@x (d)", vec!["a@x"]),
            ("a @ x . org", vec!["a@x.org"]),
            ("\"a b\"@x", vec!["\"a b\"@x"]),
            ("\"<i@x>\" <a@y>", vec!["a@y"]),
            ("friends: a@x, B <b@y>;, c@z", vec!["a@x", "b@y", "c@z"]),
            ("undisclosed-recipients:;", vec![]),
            ("<@a,@b:u@c>", vec!["u@c"]),
            ("<>", vec![]),
            ("a@[127.0.0.1], b@[IPv6:::1]", vec!["a@[127.0.0.1]", "b@[IPv6:::1]"]),
            ("one two", vec!["one", "two"]),
            ("a@x\r\n b@y", vec!["a@x", "b@y"]),
            ("a@x>, b@y >>", vec!["a@x", "b@y"]),
            ("<a@x", vec!["a@x"]),
            ("<a@x, b@y, c", vec!["a@x", "b@y", "c"]),
            ("A <a@x, B <b@y>, c@z", vec!["a@x", "b@y", "c@z"]),
            ("<a@x, g: b@y, c@z;", vec!["a@x", "b@y", "c@z"]),
            ("<a@x,b@y>, c@z", vec!["a@x,b@y", "c@z"]),
            ("\"never closed", vec!["\"never closed"]),
            ("((((((", vec![]),
            ("grüße@x", vec!["grüße@x"]),
            (",,;;", vec![]),
            ("a\\,b@x", vec!["a\\,b@x"]),
        ] {
            assert_eq!(texts(value), expected, "{value:?}");
        }
    }

    #[test]
    fn words_that_may_be_names_are_not_certain() {
        for (value, expected) in [
            ("a@x b@y", vec!["a@x", "b@y"]),
            ("Ann Bee a@x", vec!["a@x"]),
            ("\"a@x\" b", vec!["\"a@x\""]),
            ("one", vec!["one"]),
        ] {
            let certain = addresses(value.as_bytes(), 10).into_iter().filter(|address| address.certain);
            assert_eq!(certain.map(|address| String::from(address.text)).collect::<Vec<_>>(), expected, "{value:?}");
        }
    }

    #[test]
    fn a_hostile_list_takes_linear_time() {
        let bomb = "(".repeat(1_000_000);
        assert_eq!(texts(&bomb).len(), 0);
        assert_eq!(texts(&"a,".repeat(100_000)).len(), 5_120);
    }

    proptest! {
        #[test]
        fn every_address_of_any_list_is_at_its_span(value in "[a-c@.,;:<>()\"\\\\\\[\\] \r\n]{0,40}") {
            for address in addresses(value.as_bytes(), 1000) {
                prop_assert!(value.get(address.span).is_some());
                prop_assert!(!address.text.is_empty());
            }
        }
    }
}
