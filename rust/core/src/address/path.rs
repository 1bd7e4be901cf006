//! Paths: the addresses of MAIL and RCPT (RFC 5321 §4.1.2, RFC 6531 §3.3).
//!
//! A path is parsed once, here. `Path` has one form however the client quoted it: quotes stand only around a local part
//! that needs them, a source route is gone (RFC 5321 §3.3 lets a server ignore it), and no octet in it can end a line.
//! Like Postfix, and unless `strict_rfc821_envelopes` is set, the angle brackets may be missing, and a backslash quotes
//! the next octet outside quotes as well.

use super::domain::DomainKind;
use super::local_part::{is_special, quote};
use std::borrow::Cow;
use std::fmt;

/// A reverse path or a forward path, without angle brackets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path {
    text: Box<str>,
    local_octets: usize,
    /// The kind of the domain; `None` for a bare local part.
    domain_kind: Option<DomainKind>,
}

/// A text is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathError;

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an address")
    }
}

impl std::error::Error for PathError {}

impl Path {
    /// The path at the start of `input`, and what stands behind it (parameters, with their leading blank).
    ///
    /// `strict`: angle brackets are required and nothing inside them is trimmed (`strict_rfc821_envelopes`).
    pub fn parse(input: &str, strict: bool) -> Result<(Self, &str), PathError> {
        let (inner, rest) = if let Some(behind) = input.strip_prefix('<') {
            let end = end_of(behind, |b| b == b'>').ok_or(PathError)?;
            (&behind[..end], &behind[end + 1..])
        } else if strict {
            return Err(PathError);
        } else {
            let end = end_of(input, |b| b == b' ' || b == b'\t').unwrap_or(input.len());
            if end == 0 {
                return Err(PathError);
            }
            input.split_at(end)
        };
        if !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
            return Err(PathError);
        }
        let inner = if strict { inner } else { trimmed(inner) };
        Ok((Self::of(inner)?, rest))
    }

    /// The path that a text without angle brackets is; the empty text is the null path.
    pub fn of(inner: &str) -> Result<Self, PathError> {
        if inner.is_empty() {
            return Ok(Self::default());
        }
        if inner.bytes().any(|b| b.is_ascii_control()) {
            return Err(PathError);
        }
        let mailbox = without_route(inner)?;
        let (local, domain) =
            if let Some(behind) = mailbox.strip_prefix('"') { quoted_local(behind)? } else { bare_local(mailbox)? };
        if local.is_empty() {
            return Err(PathError);
        }
        let domain_kind = match domain.strip_prefix('@') {
            Some(domain) => Some(DomainKind::of(domain).ok_or(PathError)?),
            None if domain.is_empty() => None,
            None => return Err(PathError),
        };
        let quoted = quote(&local);
        let local_octets = quoted.len();
        let text = match (&local, &quoted) {
            // The mailbox has its one form already.
            (Cow::Borrowed(_), Cow::Borrowed(_)) => mailbox.into(),
            _ => [&*quoted, domain].concat().into(),
        };
        Ok(Self { text, local_octets, domain_kind })
    }

    /// Return whether it is `<>`, the sender of reports that no program must answer.
    pub fn is_null(&self) -> bool {
        self.text.is_empty()
    }

    /// `local@domain`, a bare local part, or nothing for the null path.
    pub fn address(&self) -> &str {
        &self.text
    }

    /// The local part, quoted where it needs quotes.
    pub fn local(&self) -> &str {
        &self.text[..self.local_octets]
    }

    /// The domain or address literal, as written; `None` for a bare local part.
    pub fn domain(&self) -> Option<&str> {
        self.text.get(self.local_octets + 1..)
    }

    /// The kind of the domain; `None` for a bare local part.
    pub fn domain_kind(&self) -> Option<DomainKind> {
        self.domain_kind
    }

    /// Return whether every octet is ASCII. If not, the message needs SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }
}

/// Return a path without the blanks around it. An escaped blank at its end belongs to it.
fn trimmed(inner: &str) -> &str {
    let start = inner.trim_start_matches(' ');
    let end = start.trim_end_matches(' ');
    let backslashes = end.bytes().rev().take_while(|b| *b == b'\\').count();
    let escapes = backslashes % 2 == 1 && end.len() < start.len();
    &start[..end.len() + usize::from(escapes)]
}

/// Return the position of the first octet outside quoted strings for which `stops` is true.
fn end_of(text: &str, stops: impl Fn(u8) -> bool) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|b| {
        if escaped {
            escaped = false;
            return false;
        }
        match b {
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        !quoted && !escaped && stops(b)
    })
}

/// `@a,@b:user@c` -> `user@c` (RFC 5321 appendix C: ignore it).
fn without_route(inner: &str) -> Result<&str, PathError> {
    if !inner.starts_with('@') {
        return Ok(inner);
    }
    let (route, mailbox) = inner.split_once(':').ok_or(PathError)?;
    for hop in route.split(',') {
        DomainKind::of(hop.trim_matches(' ').strip_prefix('@').ok_or(PathError)?).ok_or(PathError)?;
    }
    Ok(mailbox)
}

/// The value of a quoted string whose opening quote is gone, and what follows its closing quote.
fn quoted_local(behind: &str) -> Result<(Cow<'_, str>, &str), PathError> {
    let mut value = String::new();
    let mut chars = behind.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value.into(), &behind[at + 1..])),
            '\\' => value.push(chars.next().ok_or(PathError)?.1),
            c => value.push(c),
        }
    }
    Err(PathError)
}

/// The value of a local part without quotes, and what follows it: nothing, or `@` and the domain.
fn bare_local(mailbox: &str) -> Result<(Cow<'_, str>, &str), PathError> {
    let end = mailbox.bytes().position(|b| b == b' ' || is_special(b)).unwrap_or(mailbox.len());
    if end == mailbox.len() || mailbox.as_bytes()[end] == b'@' {
        return Ok((Cow::Borrowed(&mailbox[..end]), &mailbox[end..]));
    }
    let mut value = String::with_capacity(mailbox.len());
    let mut chars = mailbox.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '@' => return Ok((value.into(), &mailbox[at..])),
            '\\' => value.push(chars.next().ok_or(PathError)?.1),
            ' ' => return Err(PathError),
            c if c.is_ascii() && is_special(c as u8) => return Err(PathError),
            c => value.push(c),
        }
    }
    Ok((value.into(), ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_parse_to_one_form() {
        for (input, address, rest) in [
            ("<a@b.org>", "a@b.org", ""),
            ("<>", "", ""),
            ("< >", "", ""),
            ("a@b.org", "a@b.org", ""),
            ("a@b.org SIZE=1", "a@b.org", " SIZE=1"),
            ("<a@b.org> SIZE=1", "a@b.org", " SIZE=1"),
            ("<@x.org,@y.org:a@b.org>", "a@b.org", ""),
            ("<\"a\"@b.org>", "a@b.org", ""),
            ("<\"a b\"@b.org>", "\"a b\"@b.org", ""),
            ("<\"a\\\"b\"@b.org>", "\"a\\\"b\"@b.org", ""),
            ("<\"x@v.org\"@b.org>", "\"x@v.org\"@b.org", ""),
            ("<\"a>b\"@b.org>", "\"a>b\"@b.org", ""),
            ("<a..b@b.org>", "\"a..b\"@b.org", ""),
            ("<a%v.org@b.org>", "a%v.org@b.org", ""),
            ("<v.org!a@b.org>", "v.org!a@b.org", ""),
            ("<postmaster>", "postmaster", ""),
            ("<a@[127.0.0.1]>", "a@[127.0.0.1]", ""),
            ("<a@[IPv6:::1]>", "a@[IPv6:::1]", ""),
            ("<a@b.org.>", "a@b.org.", ""),
            ("<jürgen@büro.example>", "jürgen@büro.example", ""),
            ("<a+tag@b_c.org>", "a+tag@b_c.org", ""),
            ("<a\\.b@c.org>", "a.b@c.org", ""),
            ("<no\\body@c.org>", "nobody@c.org", ""),
            ("<a\\@v.org@c.org>", "\"a@v.org\"@c.org", ""),
            ("<a\\>b@c.org>", "\"a>b\"@c.org", ""),
            ("<a\\@v.org>", "\"a@v.org\"", ""),
            ("< a\\  >", "\"a \"", ""),
        ] {
            let (path, behind) = Path::parse(input, false).unwrap_or_else(|_| panic!("{input}"));
            assert_eq!((path.address(), behind), (address, rest), "{input}");
        }
    }

    #[test]
    fn texts_that_are_no_path_are_refused() {
        for input in [
            "",
            " ",
            "<",
            "<a@b",
            "<a b>",
            "<a@>",
            "<@b>",
            "<x@y..z>",
            "<a@b.org>SIZE=1",
            "<a@v.org@b.org>",
            "<\"x\"@v.org@b.org>",
            "<\"x\"y@b.org>",
            "<\"x@b.org>",
            "<\"x\\>",
            "<a@[999.0.0.1]>",
            "<a@[127.0.0.1>",
            "<a@[1.2.3.4]@v.org>",
            "<@b.org a@c.org>",
            "<a\0b@c.org>",
            "<a@c\0.org>",
            "<a@b c>",
            "<a@b;c>",
            "<<a@b>>",
            "<a,b@c.org>",
            "<(c)a@b.org>",
            "<\"\"@b.org>",
            "<a@-b.org>",
            "<a@b-.org>",
            "<a\\>",
        ] {
            assert_eq!(Path::parse(input, false), Err(PathError), "{input:?}");
        }
        assert_eq!(Path::parse("a@b.org", true), Err(PathError));
        assert_eq!(Path::parse("< a@b.org >", true), Err(PathError));
    }

    #[test]
    fn the_parts_of_a_path() {
        let path = Path::of("\"x@v.org\"@b.org").unwrap();
        assert_eq!((path.local(), path.domain()), ("\"x@v.org\"", Some("b.org")));
        let path = Path::of("postmaster").unwrap();
        assert_eq!((path.local(), path.domain()), ("postmaster", None));
    }

    proptest! {
        #[test]
        fn parsed_path_parses_to_itself(text in "[ -~é]{0,40}") {
            if let Ok((path, _)) = Path::parse(&text, false) {
                let again = Path::of(path.address()).unwrap();
                prop_assert_eq!(&path, &again);
                prop_assert!(!path.address().bytes().any(|b| b.is_ascii_control()));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = Path::parse(&text, false);
            let _ = Path::parse(&text, true);
        }
    }
}
