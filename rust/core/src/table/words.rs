//! Lists in a table's name: parts at commas and white space, braces around a part that has some.

use super::source::{is_space, trim};

/// Return the parts of a list; a part in braces is not split and keeps its braces.
pub fn parts(text: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (None, 0_usize);
    for (at, &octet) in text.iter().enumerate() {
        if depth == 0 && (octet == b',' || is_space(octet)) {
            parts.extend(start.take().map(|start| &text[start..at]));
            continue;
        }
        start.get_or_insert(at);
        match octet {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    parts.extend(start.map(|start| &text[start..]));
    parts
}

/// Return the text inside the braces of a part, without white space around it; `None` unless the brace at its start is
/// closed at its end.
pub fn inside(text: &[u8]) -> Option<&[u8]> {
    let text = trim(text);
    let mut depth = 0_usize;
    let end = text.iter().position(|octet| {
        match octet {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    })?;
    (end > 0 && end + 1 == text.len()).then(|| trim(&text[1..end]))
}

/// Return the lines of `{ { rule }, { rule } }`: the content of a pattern table in its name. Errors: what is missing.
pub fn rules(kind: &str, text: &[u8]) -> Result<Vec<u8>, String> {
    let list =
        inside(text).ok_or_else(|| format!("{kind} map: missing '}}' in \"{}\"", String::from_utf8_lossy(text)))?;
    let mut lines = Vec::new();
    for part in parts(list) {
        let Some(rule) = inside(part) else {
            return Err(format!("{kind} map: no '{{' at start of text in \"{}\"", String::from_utf8_lossy(part)));
        };
        lines.extend_from_slice(rule);
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_outside_of_braces() {
        let split = |text: &str| -> Vec<String> {
            parts(text.as_bytes()).iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect()
        };
        assert_eq!(split(" a=b, { c = d e }{f} ,g"), ["a=b", "{ c = d e }{f}", "g"]);
        assert_eq!(split("{a, {b c}} }x"), ["{a, {b c}}", "}x"]);
        assert!(split(" , ").is_empty());
        assert_eq!(inside(b" { a b } "), Some(&b"a b"[..]));
        for text in ["{a", "{a}}", "{a}b", "{a}{b}", "a}", "}", ""] {
            assert_eq!(inside(text.as_bytes()), None, "{text}");
        }
        assert_eq!(rules("cidr", b"{{1.1.1.1 a}, { 2.2.2.2 b}}").unwrap(), b"1.1.1.1 a\n2.2.2.2 b\n");
        assert!(rules("cidr", b"{1.1.1.1 a}").is_err());
    }
}
