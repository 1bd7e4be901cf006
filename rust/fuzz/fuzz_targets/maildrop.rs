//! Files in maildrop/: any split gives the same, the result is not longer than the file, and a file is read back after
//! it was written.
//!
//! Input: the seed of the split, a file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::pickup::maildrop::{ContentWriter, LineEndings, Maildrop, MaildropError, MaildropReader};
use postillion_fuzz::{Choices, splits};

/// Maximum octets of a compared text: a longer one may be cut when its attribute's name is written before it.
const TEXT_MAX_OCTETS: usize = 4096;

fn read(pieces: &[&[u8]]) -> Result<(Maildrop, Vec<u8>), MaildropError> {
    let (mut reader, mut content) = (MaildropReader::default(), Vec::new());
    for piece in pieces {
        reader.feed(piece, &mut content)?;
    }
    reader.finish().map(|maildrop| (maildrop, content))
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let seed = choices.byte();
    let file = choices.rest();
    let result = read(&[file]);
    for pieces in splits(file, seed) {
        assert_eq!(read(&pieces), result, "in another split");
    }
    let Ok((maildrop, content)) = result else { return };
    assert!(content.len() <= file.len(), "more content than file");
    if file.len() > TEXT_MAX_OCTETS {
        return;
    }
    let mut again = Vec::new();
    maildrop.encode_envelope(&mut again);
    // Writing drops a line of the content in the form of an mbox line at its start: a line before it prevents that.
    let mut writer = ContentWriter::new(false, LineEndings::Never);
    assert!(writer.feed(b"X: y\n", &mut again) && writer.feed(&content, &mut again));
    writer.finish(&[], &mut again);
    let expected = [b"X: y\n", &content[..]].concat();
    assert_eq!(read(&[&again]), Ok((maildrop, expected)), "written and read again");
});
