//! Display names in header fields (RFC 5322 §3.2.5, RFC 2047).

/// Return a display name for a header (RFC 5322 §3.2.5): quoted where needed, as an encoded word (RFC 2047) unless it
/// is US-ASCII. Control characters are left out, so that a name cannot add a header.
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

/// Return an encoded word in base 64 (RFC 2047 §4.1).
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

    #[test]
    fn names_become_phrases() {
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
}
