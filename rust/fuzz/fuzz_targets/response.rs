//! A server's replies: any split gives the same, the text is limited and printable, and a plain reading of whole lines
//! gives the same.
//!
//! Input: the seed of the split, the server's octets.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::smtp::client::capability::Capabilities;
use postillion_core::smtp::client::response::{LINE_MAX_OCTETS, Response, ResponseReader, TEXT_MAX_OCTETS, TooLong};
use postillion_fuzz::{Choices, splits};

fn read(pieces: &[&[u8]]) -> Result<Vec<Response>, TooLong> {
    let (mut reader, mut responses) = (ResponseReader::default(), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let (used, response) = reader.feed(rest)?;
            assert!(used > 0, "the reader stands still");
            responses.extend(response);
            rest = &rest[used..];
        }
    }
    Ok(responses)
}

/// Return the codes of the replies, and whether each had garbage, by lines (RFC 5321 §4.2.1).
fn codes(stream: &[u8]) -> Vec<(u16, bool)> {
    let (mut codes, mut garbage) = (Vec::new(), false);
    let whole = stream.iter().rposition(|octet| *octet == b'\n').map_or(&[][..], |end| &stream[..end]);
    if !stream.contains(&b'\n') {
        return codes;
    }
    for line in whole.split(|octet| *octet == b'\n') {
        let line = &line[..line.len().min(LINE_MAX_OCTETS)];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let digits = line.len() >= 3 && line[..3].iter().all(u8::is_ascii_digit);
        match (digits, line.get(3)) {
            (true, None | Some(b' ')) => {
                let code = std::str::from_utf8(&line[..3]).expect("digits").parse().expect("a number");
                codes.push((code, std::mem::take(&mut garbage)));
            }
            (true, Some(b'-')) => {}
            _ => garbage = true,
        }
    }
    codes
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let seed = choices.byte();
    let stream = choices.rest();
    let mut first = None;
    for pieces in splits(stream, seed) {
        let responses = read(&pieces);
        assert_eq!(first.get_or_insert_with(|| responses.clone()), &responses, "in another split");
    }
    let responses = first.expect("there is a split").expect("no input is that long");
    assert_eq!(responses.iter().map(|r| (r.code, r.garbage)).collect::<Vec<_>>(), codes(stream));
    for response in &responses {
        assert!(response.text.len() <= TEXT_MAX_OCTETS + LINE_MAX_OCTETS + 1);
        assert!(!response.text.chars().any(|c| c.is_control() && c != '\n'), "{:?}", response.text);
        assert!(!response.one_line().contains('\n'));
        assert!(response.code < 1000 && matches!(response.dsn().class, 2 | 4 | 5));
        let offered = Capabilities::parse(response, &["dsn".into()]);
        assert!(!offered.dsn && offered.size_limit != Some(0));
    }
});
