//! Keys: case folding, UTF-8, and the quotes of alias names.

use super::options::{Form, Options};
use std::borrow::Cow;

/// Return a key as the table has it; `None` for one that no table has.
///
/// Under `utf8` a key that is not UTF-8 is in no table, as in Postfix.
pub fn prepare<'a>(key: &'a [u8], options: &Options) -> Option<Cow<'a, [u8]>> {
    if options.utf8 && !key.is_ascii() && std::str::from_utf8(key).is_err() {
        return None;
    }
    let bare = if options.form != Form::Map && key.first() == Some(&b'"') { unquote(key) } else { Cow::Borrowed(key) };
    Some(if options.fold { fold(bare, options.utf8) } else { bare })
}

/// Return a key in lower case. `utf8`: letters outside ASCII too, by full case folding.
pub fn fold(key: Cow<'_, [u8]>, utf8: bool) -> Cow<'_, [u8]> {
    if key.is_ascii() || !utf8 {
        // Without an early end: several octets are examined at a time.
        if !key.iter().fold(false, |found, octet| found | octet.is_ascii_uppercase()) {
            return key;
        }
        return Cow::Owned(key.to_ascii_lowercase());
    }
    let Ok(text) = std::str::from_utf8(&key) else { return key };
    let mut folded = String::with_capacity(text.len());
    for char in text.chars() {
        // Full case folding is lower case of upper case, but for the dotless i, which keeps its form.
        if char == 'ı' {
            folded.push(char);
        } else {
            folded.extend(char.to_uppercase().flat_map(char::to_lowercase));
        }
    }
    Cow::Owned(folded.into_bytes())
}

/// Return a quoted name without its quotes and backslashes.
fn unquote(key: &[u8]) -> Cow<'_, [u8]> {
    let Some(inside) = key[1..].strip_suffix(b"\"") else { return Cow::Borrowed(key) };
    let mut name = Vec::with_capacity(inside.len());
    let mut escaped = false;
    for &octet in inside {
        if octet == b'\\' && !escaped {
            escaped = true;
        } else {
            name.push(octet);
            escaped = false;
        }
    }
    Cow::Owned(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_folded_as_by_postmap() {
        let rows: [(&str, &str); 6] =
            [("Abc", "abc"), ("abc", "abc"), ("Äb", "äb"), ("Straße", "strasse"), ("ΟΔΟΣ", "οδοσ"), ("ı", "ı")];
        for (key, folded) in rows {
            assert_eq!(&*fold(Cow::Borrowed(key.as_bytes()), true), folded.as_bytes());
        }
        assert_eq!(&*fold(Cow::Borrowed("ÄB".as_bytes()), false), "Äb".as_bytes());
    }

    #[test]
    fn keys_that_are_not_utf8_are_in_no_table() {
        let options = Options::plain();
        assert_eq!(prepare(b"k\xff", &options), None);
        let raw = Options { utf8: false, ..options };
        assert_eq!(prepare(b"K\xff", &raw).as_deref(), Some(&b"k\xff"[..]));
    }

    #[test]
    fn alias_names_lose_their_quotes() {
        let options = Options { form: Form::Alias, ..Options::plain() };
        for (key, name) in [("\"A b\"", "a b"), ("\"a\\\"b\"", "a\"b"), ("\"a", "\"a"), ("\"", "\""), ("a", "a")] {
            assert_eq!(prepare(key.as_bytes(), &options).as_deref(), Some(name.as_bytes()));
        }
    }
}
