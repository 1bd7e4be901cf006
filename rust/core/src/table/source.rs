//! The text of tables: logical lines, and entries in postmap's or in aliases(5)'s form.
//!
//! A line that begins with white space continues the line before. Empty lines and lines whose first visible octet is
//! `#` are ignored, inside a logical line as well. White space is ASCII's, as in Postfix.

use super::options::{Form, Options};
use memchr::{memchr, memchr_iter};
use std::borrow::Cow;
use std::fmt;

/// Maximum octets of a logical line. A longer one gives no entry.
pub const LINE_MAX_OCTETS: usize = 4 * 1024 * 1024;
/// Maximum octets of a text in a warning.
const SHOWN_MAX_OCTETS: usize = 30;

/// A logical line without line ends. `number`: its first physical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// See above.
    pub number: usize,
    /// The text.
    pub text: Cow<'a, [u8]>,
}

/// An error in a line. `lost`: the line gave no entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line.
    pub number: usize,
    /// The error.
    pub text: String,
    /// See above.
    pub lost: bool,
}

impl Problem {
    fn lost(number: usize, text: impl Into<String>) -> Self {
        Self { number, text: text.into(), lost: true }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.text)
    }
}

/// The logical lines of a text, and a problem for each line that is none.
#[derive(Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
    /// The number of the last physical line taken from `rest`.
    number: usize,
}

/// Return the logical lines of a text.
pub fn lines(text: &[u8]) -> Lines<'_> {
    lines_after(0, text)
}

/// Return the logical lines of a text behind that number of physical lines.
pub fn lines_after(number: usize, text: &[u8]) -> Lines<'_> {
    Lines { rest: text, number }
}

/// Return the places behind a newline where a logical line begins.
pub fn starts(text: &[u8]) -> impl DoubleEndedIterator<Item = usize> {
    let behind = memchr_iter(b'\n', text).map(|newline| newline + 1);
    behind.filter(|&start| start < text.len() && !continues(&text[start..]))
}

/// Return the octets of the first physical line of a text, with its end.
pub fn line_octets(text: &[u8]) -> usize {
    memchr(b'\n', text).map_or(text.len(), |at| at + 1)
}

/// Whether a text goes on with the logical line before it, or with lines that are ignored.
pub fn continues(text: &[u8]) -> bool {
    text.first().is_some_and(|&octet| is_space(octet) || octet == b'#')
}

impl<'a> Lines<'a> {
    /// Return the text behind the lines that were taken.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Return the number of the last physical line that was taken.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Take the next physical line, of that many octets, which is a logical line.
    pub fn skip_line(&mut self, octets: usize) {
        self.rest = &self.rest[octets..];
        self.number += 1;
    }

    /// Take the next physical line, without its end.
    fn physical(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (line, rest) = match memchr(b'\n', self.rest) {
            Some(at) => (&self.rest[..at], &self.rest[at + 1..]),
            None => (self.rest, &self.rest[self.rest.len()..]),
        };
        self.rest = rest;
        self.number += 1;
        Some(line)
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Line<'a>, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        let (number, first) = loop {
            let line = self.physical()?;
            if !is_ignored(line) {
                break (self.number, line);
            }
        };
        let mut text = Cow::Borrowed(first);
        let mut octets = first.len();
        while continues(self.rest) {
            let line = self.physical().unwrap_or_default();
            if !is_ignored(line) {
                octets += line.len();
                if octets <= LINE_MAX_OCTETS {
                    text.to_mut().extend_from_slice(line);
                }
            }
        }
        if octets > LINE_MAX_OCTETS {
            let text = format!("the line is longer than {LINE_MAX_OCTETS} octets -- ignoring this line");
            return Some(Err(Problem::lost(number, text)));
        }
        // Only the first line of a text: elsewhere, white space continues the line above.
        if is_space(text[0]) {
            let text = format!("logical line must not start with whitespace: \"{}\"", shown(&text));
            return Some(Err(Problem::lost(number, text)));
        }
        Some(Ok(Line { number, text }))
    }
}

/// A key, its value, and a remark about a line that is read all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key, not folded. An alias's name has no quotes.
    pub key: Cow<'a, [u8]>,
    /// The value.
    pub value: &'a [u8],
    /// See above.
    pub remark: Option<String>,
}

/// Return the entry of a line.
pub fn entry<'a>(line: &'a Line<'_>, options: &Options) -> Result<Entry<'a>, Problem> {
    let text = trim(&line.text);
    let lost = |what: String| Problem::lost(line.number, what);
    if options.utf8 && !text.is_ascii() && std::str::from_utf8(text).is_err() {
        return Err(lost(format!("non-UTF-8 input \"{}\" -- ignoring this line", shown(text))));
    }
    if memchr(0, text).is_some() {
        return Err(lost("the line has a null octet -- ignoring this line".to_owned()));
    }
    let form = match options.form {
        Form::Mixed => match split_key(text) {
            Some((key, value)) if key.ends_with(b":") || value.starts_with(b":") => Form::Alias,
            _ => Form::Map,
        },
        form => form,
    };
    if form == Form::Alias {
        return alias_entry(text).map_err(|what| lost(what.to_owned()));
    }
    let Some((key, value)) = split_key(text) else {
        return Err(lost(format!("unbalanced '\"' in '{}' -- ignoring this line", shown(text))));
    };
    if value.is_empty() {
        return Err(lost("expected format: key whitespace value -- ignoring this line".to_owned()));
    }
    let remark = || "record is in \"key: value\" format; is this an alias file?".to_owned();
    Ok(Entry { key: Cow::Borrowed(key), value, remark: key.ends_with(b":").then(remark) })
}

/// Split at the first white space outside of quotes; the key keeps its quotes. `None`: a quote is not closed.
fn split_key(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, &octet) in text.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if octet == b'\\' {
            escaped = true;
        } else if octet == b'"' {
            quoted = !quoted;
        } else if is_space(octet) && !quoted {
            return Some((&text[..at], trim(&text[at..])));
        }
    }
    (!quoted).then_some((text, &text[text.len()..]))
}

/// Parse `"quoted \" name": value` or `name : value`.
///
/// The first colon outside of quotes, comments and square brackets ends the name. A comma before it, also outside of
/// them, makes the line no entry: the name of an alias is one address.
fn alias_entry(text: &[u8]) -> Result<Entry<'_>, &'static str> {
    let need = "need name:value pair";
    let (mut quoted, mut escaped, mut comments, mut bracketed) = (false, false, 0_usize, false);
    let mut key = Vec::new();
    let mut colon = None;
    // A quoted "user@example.org" is a name without a domain.
    let mut local = true;
    for (at, &octet) in text.iter().enumerate() {
        let plain = !quoted && !escaped && comments == 0 && !bracketed;
        match octet {
            _ if escaped => escaped = false,
            b'\\' => {
                escaped = true;
                continue;
            }
            b'"' if plain || quoted => {
                quoted = !quoted;
                continue;
            }
            b':' if plain => {
                colon = Some(at);
                break;
            }
            b',' if plain => return Err(need),
            b'@' if plain => local = false,
            b'(' if !quoted && !bracketed => comments += 1,
            b')' if !quoted && !bracketed => comments = comments.saturating_sub(1),
            b'[' if plain => bracketed = true,
            b']' => bracketed = false,
            _ => {}
        }
        key.push(octet);
    }
    let value = trim(&text[colon.ok_or(need)? + 1..]);
    let key = trim(&key).to_vec();
    if key.is_empty() || value.is_empty() {
        return Err(need);
    }
    if !local {
        return Err("name must be local");
    }
    Ok(Entry { key: Cow::Owned(key), value, remark: None })
}

/// Whether an octet is white space in C's locale.
pub fn is_space(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Return a text without white space around it.
pub fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&octet| !is_space(octet)).unwrap_or(text.len());
    let end = text.iter().rposition(|&octet| !is_space(octet)).map_or(start, |at| at + 1);
    &text[start..end]
}

/// Return the start of a text for a message, with `?` for all that is not printable ASCII.
pub fn shown(text: &[u8]) -> String {
    let mut shown: String = text.iter().take(SHOWN_MAX_OCTETS).map(|&octet| printable(octet)).collect();
    if text.len() > SHOWN_MAX_OCTETS {
        shown.push_str("...");
    }
    shown
}

fn printable(octet: u8) -> char {
    if (0x20..0x7f).contains(&octet) { char::from(octet) } else { '?' }
}

fn is_ignored(line: &[u8]) -> bool {
    line.iter().find(|&&octet| !is_space(octet)).is_none_or(|&octet| octet == b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, form: Form) -> Vec<String> {
        let options = Options { form, ..Options::plain() };
        let mut found = Vec::new();
        for line in lines(text.as_bytes()) {
            let parsed = line.and_then(|line| {
                let entry = entry(&line, &options)?;
                let (key, value) = (String::from_utf8_lossy(&entry.key), String::from_utf8_lossy(entry.value));
                Ok(format!("{}={key}|{value}", line.number))
            });
            found.push(parsed.unwrap_or_else(|problem| problem.to_string()));
        }
        found
    }

    #[test]
    fn maps_are_read_as_by_postmap() {
        let rows: [(&str, &[&str]); 14] = [
            ("a b\n", &["1=a|b"]),
            ("# x\n\n  # y\na b\n", &["4=a|b"]),
            ("a b\n c\n\td\nn v\n", &["1=a|b c\td", "4=n|v"]),
            ("a b\n# no\n c\n", &["1=a|b c"]),
            ("a b", &["1=a|b"]),
            ("a b\r\nc d\r\n", &["1=a|b", "2=c|d"]),
            ("\"a b\"@x  v w \n", &["1=\"a b\"@x|v w"]),
            ("a\nb c\n", &["line 1: expected format: key whitespace value -- ignoring this line", "2=b|c"]),
            ("a:\tb\n", &["1=a:|b"]),
            (" x y\na b\n", &["line 1: logical line must not start with whitespace: \" x y\"", "2=a|b"]),
            (" x\n y\na b\n", &["line 1: logical line must not start with whitespace: \" x y\"", "3=a|b"]),
            ("\"un v\na b\n", &["line 1: unbalanced '\"' in '\"un v' -- ignoring this line", "2=a|b"]),
            ("a\0 v\n", &["line 1: the line has a null octet -- ignoring this line"]),
            ("k\n v\n", &["1=k|v"]),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text, Form::Map), expected, "{text:?}");
        }
    }

    #[test]
    fn aliases_are_read_as_by_postalias() {
        let need = "line 1: need name:value pair";
        let rows: [(&str, &[&str]); 19] = [
            ("root: admin\n", &["1=root|admin"]),
            ("root : admin, b\n", &["1=root|admin, b"]),
            ("\"the list\": a\n", &["1=the list|a"]),
            ("\"a\\\"b\": c\n", &["1=a\"b|c"]),
            ("\"a:b\": \"|x:y\"\n", &["1=a:b|\"|x:y\""]),
            ("l: :include:/etc/l\n", &["1=l|:include:/etc/l"]),
            ("l: a,\n b\n", &["1=l|a, b"]),
            ("a b\n", &[need]),
            (":x\n", &[need]),
            ("a:\n", &[need]),
            ("\"a: b\n", &[need]),
            ("a@b: c\n\"a@b\": d\n", &["line 1: name must be local", "2=a@b|d"]),
            ("a, b: c\nd: e, f\n", &[need, "2=d|e, f"]),
            (",a: c\n", &[need]),
            ("a,: c\n", &[need]),
            ("\"a, b\": c\n", &["1=a, b|c"]),
            ("a\\,b: c\n", &["1=a,b|c"]),
            ("a (b, c: d): e\n", &["1=a (b, c: d)|e"]),
            ("[a,b]: c\n", &["1=[a,b]|c"]),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text, Form::Alias), expected, "{text:?}");
        }
    }

    #[test]
    fn either_form_is_read_where_both_are_allowed() {
        assert_eq!(
            read("root: admin\nother : x\nthird y, z:\n", Form::Mixed),
            ["1=root|admin", "2=other|x", "3=third|y, z:"]
        );
    }

    #[test]
    fn an_endless_line_gives_no_entry_and_the_next_one_is_read() {
        let mut text = b"a ".to_vec();
        text.resize(LINE_MAX_OCTETS + 10, b'x');
        text.extend_from_slice(b"\nb c\n");
        let found: Vec<_> = lines(&text).collect();
        assert!(found[0].as_ref().is_err_and(|problem| problem.lost && problem.number == 1));
        assert_eq!(found[1], Ok(Line { number: 2, text: Cow::Borrowed(&b"b c"[..]) }));
    }

    #[test]
    fn text_that_is_not_utf8_is_left_out_where_utf8_is_required() {
        let line = Line { number: 3, text: Cow::Borrowed(&b"k\xff v"[..]) };
        let problem = entry(&line, &Options::plain()).unwrap_err();
        assert_eq!(problem.to_string(), "line 3: non-UTF-8 input \"k? v\" -- ignoring this line");
        let raw = Options { utf8: false, ..Options::plain() };
        assert_eq!(&*entry(&line, &raw).unwrap().key, b"k\xff");
    }
}
