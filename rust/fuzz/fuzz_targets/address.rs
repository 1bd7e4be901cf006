//! Addresses in headers: spans are in order, inside the value, and outside of comments; texts end no line; completing
//! an address twice is completing it once.
//!
//! Input: flags, a header's value.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::address::rewrite::Rewrite;
use postillion_core::mail::address::{addresses, at_sign};
use postillion_core::mail::phrase::phrase;
use postillion_fuzz::{Choices, bit};

const TOKENS_MAX: usize = 1000;

/// Return which octets of a header's value are outside of comments (RFC 5322 §3.2.2), octet by octet.
fn outside_comments(value: &[u8]) -> Vec<bool> {
    let (mut depth, mut quote, mut escaped) = (0u32, None, false);
    let outside = |octet: &u8| {
        if std::mem::take(&mut escaped) {
            return depth == 0;
        }
        match (*octet, quote) {
            (b'\\', _) => escaped = true,
            (end, Some(quote_end)) if end == quote_end => quote = None,
            (_, Some(_)) => {}
            (b'(', None) => depth += 1,
            (b')', None) if depth > 0 => {
                depth -= 1;
                return false;
            }
            (b'"', None) if depth == 0 => quote = Some(b'"'),
            (b'[', None) if depth == 0 => quote = Some(b']'),
            _ => {}
        }
        depth == 0
    };
    value.iter().map(outside).collect()
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let flags = choices.byte();
    let value = choices.rest();
    let rewrite = Rewrite {
        origin: (!bit(flags, 0)).then(|| "mx.example.org".into()),
        domain: (!bit(flags, 1)).then(|| "example.org".into()),
        swap_bangpath: bit(flags, 2),
        percent_hack: bit(flags, 3),
    };
    let found = addresses(value, TOKENS_MAX);
    let (mut end, outside) = (0, outside_comments(value));
    for address in &found {
        assert!(address.span.start >= end && address.span.start < address.span.end, "spans overlap");
        assert!(value.get(address.span.clone()).is_some(), "a span reaches past the end");
        end = address.span.end;
        assert!(outside[address.span.start] && outside[end - 1], "{address:?} is in a comment");
        assert!(!address.text.is_empty() && !address.text.chars().any(char::is_control));
        if let Some(at) = at_sign(&address.text) {
            assert_eq!(address.text.as_bytes()[at], b'@');
        }
        if let Some(complete) = rewrite.apply(&address.text) {
            assert!(!complete.chars().any(char::is_control));
            // One of several `@` was removed, and a quote without an end hides the added one. An empty host before `!`
            // or behind `%` was removed, and the next of these signs now has a host. A dot at the end of a domain says that
            // it is complete, and is removed: without it, the domain may get one.
            let has_empty_host = address.text.starts_with('!')
                || address.text.ends_with('%')
                || ["!!", "%%", "%!"].iter().any(|signs| address.text.contains(signs));
            let has_end_dot =
                address.text.ends_with('.') || [".!", ".%", ".@"].iter().any(|signs| address.text.contains(signs));
            let has_signs = address.text.matches('@').count() > 1 || address.text.contains(['"', '\\']);
            if !has_signs && !has_empty_host && !has_end_dot {
                assert_eq!(rewrite.apply(&complete), None, "{:?} becomes {complete:?}", address.text);
            }
        }
    }
    if let Some(list) = rewrite.apply_to_list(value, TOKENS_MAX) {
        assert_ne!(list, value);
        let lines = |text: &[u8]| text.iter().filter(|octet| **octet == b'\n').count();
        assert!(lines(&list) <= lines(value), "a line end was added");
    }
    if let Ok(name) = std::str::from_utf8(value) {
        let phrase = phrase(name);
        assert!(phrase.is_ascii() && !phrase.bytes().any(|octet| octet.is_ascii_control()), "{phrase:?}");
    }
});
