//! The xtext form of ENVID=, ORCPT= and AUTH= (RFC 3461 §4), and of addresses in UTF-8 (RFC 6533 §3).

use std::borrow::Cow;

/// Encode a text: `+` and two upper-case hexadecimal digits for unprintable characters, `+` and `=` (RFC 3461 §4).
pub(crate) fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b'!'..=b'~').contains(&byte) && byte != b'+' && byte != b'=' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("+{byte:02X}"));
        }
    }
    out
}

/// Encode an address of the type utf-8: `\x{FC}` for a character outside printable ASCII, `+`, `=` and `\` (RFC 6533 §3).
pub(crate) fn uxtext(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '+' | '=' | '\\' => escape(c, &mut out),
            '!'..='~' => out.push(c),
            _ => escape(c, &mut out),
        }
        out
    })
}

/// Encode the characters of encoded text that are not ASCII.
pub(crate) fn ascii_only(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| if c.is_ascii() { out.push(c) } else { escape(c, &mut out) });
    Cow::Owned(out)
}

fn escape(c: char, out: &mut String) {
    out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
}

/// Decode a text; invalid xtext stays unchanged.
pub(crate) fn from_xtext(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'+') {
            Some(octet) => {
                out.push(octet);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Decode the address after its type, which stays unchanged.
pub(crate) fn from_typed_xtext(text: &str) -> String {
    text.split_once(';').map_or_else(|| from_xtext(text), |(kind, address)| format!("{kind};{}", from_xtext(address)))
}

/// Whether a text is xtext (RFC 3461 §4) for printable characters. A later reader could take `+00` or `+0A` for an end.
/// Raw UTF-8 stands for itself (RFC 6533 §3).
pub(crate) fn is_xtext(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'+' => {
                let hex = |b: Option<u8>| b.filter(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b));
                let (Some(high), Some(low)) = (hex(bytes.next()), hex(bytes.next())) else { return false };
                let digit = |b: u8| if b.is_ascii_digit() { b - b'0' } else { b - b'A' + 10 };
                if !(b' '..=b'~').contains(&(digit(high) << 4 | digit(low))) {
                    return false;
                }
            }
            b'=' => return false,
            b'!'..=b'~' | 0x80.. => {}
            _ => return false,
        }
    }
    true
}
