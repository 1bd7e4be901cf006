//! Local parts: quotes, and the address extension (RFC 5321 §4.1.2; postconf(5), recipient_delimiter).
//!
//! `Extensions::split` is the one rule of where an extension starts: smtpd's recipient checks, the queue manager's
//! table look-ups and local(8) all use it.

use crate::settings;
use std::borrow::Cow;

/// Split `local@domain` at the last `@` outside quotes. Returns the quoted local part, and the domain as written;
/// `None` for a bare local part.
pub fn split(address: &str) -> (&str, Option<&str>) {
    match crate::mail::address::at_sign(address) {
        Some(at) => (&address[..at], Some(&address[at + 1..])),
        None => (address, None),
    }
}

/// Return the value of a local part without quotes and backslashes.
pub fn unquote(local: &str) -> String {
    let mut value = String::with_capacity(local.len());
    let mut chars = local.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {}
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    value
}

/// Return a local part in its one written form: quoted only if its value needs quotes.
pub fn quote(value: &str) -> Cow<'_, str> {
    if is_dot_string(value) {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    Cow::Owned(text)
}

/// RFC 5321 §4.1.2 Dot-string, with the octets of RFC 6531.
fn is_dot_string(value: &str) -> bool {
    let mut previous = b'.';
    for b in value.bytes() {
        if b.is_ascii_whitespace() || is_special(b) || (b == b'.' && previous == b'.') {
            return false;
        }
        previous = b;
    }
    previous != b'.'
}

/// RFC 5322 §3.2.3 specials without the dot.
pub fn is_special(b: u8) -> bool {
    matches!(b, b'(' | b')' | b'<' | b'>' | b'[' | b']' | b':' | b';' | b'@' | b'\\' | b',' | b'"')
}

/// Local parts that every site must have are never split.
const NEVER_SPLIT: [&str; 2] = ["mailer-daemon", "postmaster"];

settings! {
    /// The site's rule for address extensions.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Extensions {
        /// Each character separates; empty means no extensions.
        delimiters: Box<str> = "recipient_delimiter",
        /// `owner-list` and `list-request` are not split while `-` is a delimiter.
        owner_request_special: bool = "owner_request_special",
        /// Never split.
        double_bounce_sender: Box<str> = "double_bounce_sender",
    }
}

/// A local part with an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended<'a> {
    /// The part in front of the delimiter, not empty.
    pub user: &'a str,
    /// The delimiter that stands there.
    pub delimiter: char,
    /// The part behind the delimiter; empty for `user+`.
    pub extension: &'a str,
}

impl Extensions {
    /// Split the value of a local part (without quotes) at its first delimiter; `None` if it has no extension.
    ///
    /// A local part that starts with a delimiter has none: its user would be empty.
    pub fn split<'a>(&self, local: &'a str) -> Option<Extended<'a>> {
        let at = local.find(|c| self.delimiters.contains(c)).filter(|at| *at > 0)?;
        let is = |name: &str| local.eq_ignore_ascii_case(name);
        if NEVER_SPLIT.iter().any(|name| is(name)) || is(&self.double_bounce_sender) {
            return None;
        }
        if self.owner_request_special && self.delimiters.contains('-') && is_list_name(local) {
            return None;
        }
        let delimiter = local[at..].chars().next()?;
        Some(Extended { user: &local[..at], delimiter, extension: &local[at + delimiter.len_utf8()..] })
    }

    /// Return the user of a local part: without its extension.
    pub fn user<'a>(&self, local: &'a str) -> &'a str {
        self.split(local).map_or(local, |extended| extended.user)
    }
}

/// `owner-name` or `name-request`, in any case.
fn is_list_name(local: &str) -> bool {
    let local = local.to_ascii_lowercase();
    local.starts_with("owner-") || local.strip_suffix("-request").is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(delimiters: &str, owner_request_special: bool) -> Extensions {
        let double_bounce_sender = "double-bounce".into();
        Extensions { delimiters: delimiters.into(), owner_request_special, double_bounce_sender }
    }

    #[test]
    fn extension_starts_at_the_first_delimiter() {
        for (delimiters, local, parts) in [
            ("+", "user", None),
            ("", "user+x", None),
            ("+", "user+x", Some(("user", '+', "x"))),
            ("+", "user+", Some(("user", '+', ""))),
            ("+", "user++x", Some(("user", '+', "+x"))),
            ("+", "+user", None),
            ("+", "+user+x", None),
            ("+", "+", None),
            ("+-", "a-b+c", Some(("a", '-', "b+c"))),
            ("-+", "a+b-c", Some(("a", '+', "b-c"))),
            ("+", "grüße+ä", Some(("grüße", '+', "ä"))),
            ("-", "mailer-daemon", None),
            ("-", "Mailer-Daemon", None),
            ("-", "double-bounce", None),
            ("-", "postmaster-x", Some(("postmaster", '-', "x"))),
            ("-", "owner-list", None),
            ("-", "Owner-list", None),
            ("-", "list-REQUEST", None),
            ("-", "-request", None),
            ("-", "owner-list-x", None),
            ("+", "owner-list+x", Some(("owner-list", '+', "x"))),
        ] {
            let found = extensions(delimiters, true).split(local).map(|e| (e.user, e.delimiter, e.extension));
            assert_eq!(found, parts, "{delimiters:?} {local:?}");
        }
        let plain = extensions("-", false);
        assert_eq!(plain.user("owner-list"), "owner");
        assert_eq!(plain.user("list-request"), "list");
        assert_eq!(plain.user("mailer-daemon"), "mailer-daemon");
    }

    #[test]
    fn quotes_stand_only_where_they_are_needed() {
        for (written, value, quoted) in [
            ("a", "a", "a"),
            ("\"a\"", "a", "a"),
            ("\"a b\"", "a b", "\"a b\""),
            ("a\\.b", "a.b", "a.b"),
            ("a\\@b", "a@b", "\"a@b\""),
            ("\"a\\\"b\"", "a\"b", "\"a\\\"b\""),
            ("\"a\\\\b\"", "a\\b", "\"a\\\\b\""),
            ("\"\"", "", "\"\""),
            ("a..b", "a..b", "\"a..b\""),
        ] {
            assert_eq!(unquote(written), value, "{written:?}");
            assert_eq!(quote(value), quoted, "{value:?}");
        }
    }

    #[test]
    fn address_splits_at_its_last_unquoted_sign() {
        for (address, parts) in [
            ("a@b.org", ("a", Some("b.org"))),
            ("a", ("a", None)),
            ("a@", ("a", Some(""))),
            ("\"a@v\"@b.org", ("\"a@v\"", Some("b.org"))),
            ("a\\@v", ("a\\@v", None)),
        ] {
            assert_eq!(split(address), parts, "{address:?}");
        }
    }
}
