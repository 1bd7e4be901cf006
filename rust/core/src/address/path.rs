//! Paths: the addresses of MAIL and RCPT (RFC 5321 §4.1.2, RFC 6531 §3.3).
//!
//! A path is parsed once, here. What comes out has one form however it was quoted: a local part that needs no quotes
//! has none, one that needs them has them, a source route is gone (RFC 5321 §3.3 lets a server ignore it), and no
//! octet in it can end a line. Like Postfix, and unless `strict_rfc821_envelopes` is set, the angle brackets may be
//! missing.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest domain in octets (RFC 5321 §4.5.3.1.2).
const DOMAIN_MAX_OCTETS: usize = 255;
/// The longest label of a domain in octets (RFC 1035 §2.3.4).
const LABEL_MAX_OCTETS: usize = 63;

/// A reverse path or a forward path, without angle brackets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path {
    text: Box<str>,
    local_octets: usize,
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
        let inner = if strict { inner } else { inner.trim_matches(' ') };
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
        let (local, domain) = if let Some(behind) = mailbox.strip_prefix('"') {
            quoted_local(behind)?
        } else {
            let end = mailbox.find('@').unwrap_or(mailbox.len());
            let local = &mailbox[..end];
            if local.bytes().any(|b| b == b' ' || is_special(b)) {
                return Err(PathError);
            }
            (local.to_owned(), &mailbox[end..])
        };
        if local.is_empty() {
            return Err(PathError);
        }
        let mut text = if is_dot_string(&local) { local } else { quote(&local) };
        let local_octets = text.len();
        if let Some(domain) = domain.strip_prefix('@') {
            check_domain(domain)?;
            text.push('@');
            text.push_str(domain);
        } else if !domain.is_empty() {
            return Err(PathError);
        }
        Ok(Self { text: text.into(), local_octets })
    }

    /// Is it `<>`, the sender of reports that nobody must answer?
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

    /// Is every octet ASCII? If not, the message needs SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }
}

/// Where the first octet that `stops` stands, outside of quoted strings.
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
        check_domain(hop.trim_matches(' ').strip_prefix('@').ok_or(PathError)?)?;
    }
    Ok(mailbox)
}

/// The value of a quoted string whose opening quote is gone, and what follows its closing quote.
fn quoted_local(behind: &str) -> Result<(String, &str), PathError> {
    let mut value = String::new();
    let mut chars = behind.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &behind[at + 1..])),
            '\\' => value.push(chars.next().ok_or(PathError)?.1),
            c => value.push(c),
        }
    }
    Err(PathError)
}

fn quote(local: &str) -> String {
    let mut text = String::with_capacity(local.len() + 2);
    text.push('"');
    for c in local.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

/// RFC 5321 §4.1.2 Dot-string, with the octets of RFC 6531.
fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(|b| !b.is_ascii_whitespace() && !is_special(b)))
}

/// RFC 5322 §3.2.3 specials, but for the dot.
fn is_special(b: u8) -> bool {
    b"()<>[]:;@\\,\"".contains(&b)
}

fn check_domain(domain: &str) -> Result<(), PathError> {
    if domain.len() > DOMAIN_MAX_OCTETS {
        return Err(PathError);
    }
    if let Some(literal) = domain.strip_prefix('[') {
        let literal = literal.strip_suffix(']').ok_or(PathError)?;
        let tagged = literal.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let valid = if tagged { literal[5..].parse::<Ipv6Addr>().is_ok() } else { literal.parse::<Ipv4Addr>().is_ok() };
        return if valid { Ok(()) } else { Err(PathError) };
    }
    // A dot at the end is the root's; Postfix takes it and so do we.
    let labels = domain.strip_suffix('.').unwrap_or(domain);
    let well_formed = |label: &str| {
        (1..=LABEL_MAX_OCTETS).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b >= 0x80)
    };
    if labels.split('.').all(well_formed) { Ok(()) } else { Err(PathError) }
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
        fn what_parsed_once_parses_to_itself(text in "[ -~é]{0,40}") {
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
