//! Addresses in header fields (RFC 5322 §3.4), and what the site makes of incomplete ones.
//!
//! The reader is linear and never recurses: comments nest by a counter. It gives spans, so that a header in which one
//! address is completed keeps every other octet as it was written.

use std::ops::Range;

/// An address in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Where it stands: without display name, angle brackets and the comments around it.
    pub span: Range<usize>,
    /// False when it is a word beside another one: a comma is missing, or a name has no address.
    pub certain: bool,
    /// The address without comments, blanks and source route: `local@domain`, quoted as it was, or a bare local part.
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

/// The addresses of a list, in order, from at most `tokens_max` tokens. Octets that are no UTF-8 make an address none.
pub fn addresses(value: &[u8], tokens_max: usize) -> Vec<Address> {
    let tokens = tokens(value, tokens_max);
    let mut found = Vec::new();
    let mut item = Vec::new();
    let mut angle = false;
    for token in tokens {
        match token.kind {
            Kind::Special(b',' | b';') if !angle => {
                list_item(value, &item, &mut found);
                item.clear();
            }
            // A group's name ends here; inside angle brackets a source route does.
            Kind::Special(b':') if !angle => item.clear(),
            kind => {
                angle = match kind {
                    Kind::Special(b'<') => true,
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

fn list_item(value: &[u8], item: &[Token], found: &mut Vec<Address>) {
    if let Some(open) = item.iter().position(|token| token.kind == Kind::Special(b'<')) {
        let inside = &item[open + 1..];
        let close = inside.iter().position(|token| token.kind == Kind::Special(b'>')).unwrap_or(inside.len());
        found.extend(address(value, &inside[..close], true));
        return;
    }
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
        // A quoted pair outside quotes is obsolete, but its octet is no special one.
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

/// Where the local part ends: the last `@` that is not quoted.
pub fn at_sign(address: &str) -> Option<usize> {
    let octets = address.as_bytes();
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

/// What a site makes of incomplete addresses (trivial-rewrite(8)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// `user` becomes `user@origin`; `None`: it stays (`append_at_myorigin = no`).
    pub origin: Option<Box<str>>,
    /// `user@host` becomes `user@host.domain`; `None`: it stays (`append_dot_mydomain = no`).
    pub domain: Option<Box<str>>,
    /// `site!user` becomes `user@site` (`swap_bangpath`).
    pub swap_bangpath: bool,
    /// `user%domain` becomes `user@domain` (`allow_percent_hack`).
    pub percent_hack: bool,
}

impl Rewrite {
    /// What Postfix does by default with mail of this site.
    pub fn local(myorigin: &str) -> Self {
        Self { origin: Some(myorigin.into()), domain: None, swap_bangpath: true, percent_hack: true }
    }

    /// The complete form of `address`; `None` when it is complete, or empty.
    pub fn apply(&self, address: &str) -> Option<String> {
        self.changed(address, true)
    }

    /// The same, but never to another site than the last domain in `address` says. Envelopes from the network are
    /// completed with this: access was decided about the address as it was given.
    pub fn complete(&self, address: &str) -> Option<String> {
        self.changed(address, false)
    }

    fn changed(&self, address: &str, swap: bool) -> Option<String> {
        let complete = |at| address[at + 1..].contains('.') && !address.ends_with('.');
        if address.is_empty() || at_sign(address).is_some_and(complete) {
            return None;
        }
        let rewritten = self.rewrite(address, swap);
        (rewritten != address).then_some(rewritten)
    }

    fn rewrite(&self, address: &str, swap: bool) -> String {
        let (mut local, mut domain) = match at_sign(address) {
            Some(at) => (address[..at].to_owned(), address[at + 1..].to_owned()),
            None => (address.to_owned(), String::new()),
        };
        let quoted = local.starts_with('"');
        if domain.is_empty() && !quoted {
            if let Some((site, user)) = local.split_once('!').filter(|_| swap && self.swap_bangpath) {
                (local, domain) = (user.to_owned(), site.to_owned());
            } else if let Some((user, site)) = local.rsplit_once('%').filter(|_| swap && self.percent_hack) {
                (local, domain) = (user.to_owned(), site.to_owned());
            }
            if local.is_empty() {
                return address.to_owned();
            }
        }
        if domain.is_empty() {
            let Some(origin) = &self.origin else {
                return local;
            };
            return format!("{local}@{origin}");
        }
        // One dot at the end goes, not one of two: what is no domain stays as it was written.
        let bare = domain.strip_suffix('.').filter(|bare| !bare.ends_with('.')).unwrap_or(&domain);
        if bare.is_empty() {
            return address.to_owned();
        }
        match &self.domain {
            Some(ours) if !bare.contains('.') && !bare.starts_with('[') => format!("{local}@{bare}.{ours}"),
            _ => format!("{local}@{bare}"),
        }
    }

    /// Replace the incomplete addresses in a header's value; `None` when all are complete.
    pub fn apply_to_list(&self, value: &[u8], tokens_max: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut copied = 0;
        for address in addresses(value, tokens_max) {
            let Some(rewritten) = self.apply(&address.text).filter(|_| address.certain) else {
                continue;
            };
            out.extend_from_slice(&value[copied..address.span.start]);
            out.extend_from_slice(rewritten.as_bytes());
            copied = address.span.end;
        }
        if copied == 0 {
            return None;
        }
        out.extend_from_slice(&value[copied..]);
        Some(out)
    }
}

/// A display name as a header may carry it (RFC 5322 §3.2.5): quoted where needed, as an encoded word (RFC 2047) where
/// it is not US-ASCII. Control characters are left out, so that a name is never more than a name.
pub fn phrase(name: &str) -> String {
    const ENCODED_MAX_OCTETS: usize = 45;
    let name = name.chars().filter(|c| !c.is_control()).collect::<String>();
    if name.is_ascii() {
        let plain = |c: char| c.is_ascii_alphanumeric() || " !#$%&'*+-/=?^_`{|}~".contains(c);
        return if !name.is_empty() && name.chars().all(plain) && !name.contains("=?") {
            name
        } else {
            format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
        };
    }
    let mut words = Vec::new();
    let mut word = String::new();
    for c in name.chars() {
        if word.len() + c.len_utf8() > ENCODED_MAX_OCTETS {
            words.push(encoded_word(&std::mem::take(&mut word)));
        }
        word.push(c);
    }
    words.push(encoded_word(&word));
    words.join(" ")
}

/// RFC 2047 §4.1: base 64.
fn encoded_word(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("=?utf-8?B?");
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, octet| bits << 8 | u32::from(*octet)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            out.push(if digit <= chunk.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    out + "?="
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(value: &str) -> Vec<String> {
        addresses(value.as_bytes(), 10_240).into_iter().map(|address| address.text.into()).collect()
    }

    #[test]
    fn lists_are_read() {
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
            ("<a@x", vec!["a@x"]),
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
    fn a_bomb_takes_linear_time() {
        let bomb = "(".repeat(1_000_000);
        assert_eq!(texts(&bomb).len(), 0);
        assert_eq!(texts(&"a,".repeat(100_000)).len(), 5_120);
    }

    #[test]
    fn incomplete_addresses_are_completed() {
        let mut rewrite = Rewrite::local("mx.example.org");
        rewrite.domain = Some("example.org".into());
        for (address, expected) in [
            ("root", Some("root@mx.example.org")),
            ("root@", Some("root@mx.example.org")),
            ("u@host", Some("u@host.example.org")),
            ("u@host.", Some("u@host.example.org")),
            ("u@x.org.", Some("u@x.org")),
            ("u@x.org", None),
            ("u@[127.0.0.1]", None),
            ("", None),
            ("site!u", Some("u@site.example.org")),
            ("u%x.org", Some("u@x.org")),
            ("a%b@x.org", None),
            ("\"u%x\"", Some("\"u%x\"@mx.example.org")),
            ("\"a@b\"", Some("\"a@b\"@mx.example.org")),
            ("\"a@b\"@x.org", None),
            ("a@b@c.org", None),
            ("@", None),
            ("u@.", None),
            ("u@x..", None),
            ("u@..", None),
        ] {
            assert_eq!(rewrite.apply(address).as_deref(), expected, "{address:?}");
        }
        assert_eq!(rewrite.complete("u%x.org").as_deref(), Some("u%x.org@mx.example.org"));
        assert_eq!(rewrite.complete("x.org!u").as_deref(), Some("x.org!u@mx.example.org"));
        assert_eq!(rewrite.complete("u@host").as_deref(), Some("u@host.example.org"));
    }

    #[test]
    fn the_rest_of_a_header_stays_as_it_was_written() {
        let rewrite = Rewrite::local("mx.example.org");
        let value = b" Root  <root> (r),\r\n\tx@y.org (X), admin (A)";
        let expected = " Root  <root@mx.example.org> (r),\r\n\tx@y.org (X), admin@mx.example.org (A)";
        assert_eq!(rewrite.apply_to_list(value, 100).unwrap(), expected.as_bytes());
        assert_eq!(rewrite.apply_to_list(b" x@y.org", 100), None);
        assert_eq!(rewrite.apply_to_list(b" Charlie Root", 100), None);
        assert_eq!(rewrite.apply_to_list(b" a, b, c", 3).unwrap(), b" a@mx.example.org, b@mx.example.org, c");
    }

    #[test]
    fn names_are_phrases() {
        for (name, expected) in [
            ("Charlie Root", "Charlie Root"),
            ("O. \"N\" Name", "\"O. \\\"N\\\" Name\""),
            ("x\nBcc: v", "\"xBcc: v\""),
            ("Jörg", "=?utf-8?B?SsO2cmc=?="),
            ("", "\"\""),
        ] {
            assert_eq!(phrase(name), expected, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn any_list_is_read_and_each_address_stands_where_it_says(value in "[a-c@.,;:<>()\"\\\\\\[\\] \r\n]{0,40}") {
            for address in addresses(value.as_bytes(), 1000) {
                prop_assert!(value.get(address.span).is_some());
                prop_assert!(!address.text.is_empty());
            }
        }
    }
}
