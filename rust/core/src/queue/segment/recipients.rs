//! Read some of the recipients of a large envelope.
//!
//! The envelope's checksum was verified when it was first read whole. Here only a window of the file is in memory, and
//! a reader continues where its last call ended: reading a list in parts costs no more than reading it once.

use super::content::read_header;
use crate::codec::{CodecError, Take};
use crate::mail::envelope::{Envelope, Recipient, decode_recipient};
use crate::mail::locator::Locator;
use crate::queue::error::QueueError;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A position in the recipients of an envelope on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next recipient.
    pub index: u32,
    /// Octets from the start of the envelope to it; 0 while unknown.
    pub octets: u64,
}

/// Octets of an envelope in memory at a time; more when a single recipient needs more.
const WINDOW_OCTETS: usize = 64 * 1024;

/// Return at most `most` recipients from number `index` on, and the octets from the start of the envelope to the next
/// one. `octets`: the octets to recipient `index`, if an earlier call returned them, or 0.
pub(crate) fn read_recipients(
    file: &File,
    path: &Path,
    at: &Locator,
    index: u32,
    octets: u64,
    most: u32,
) -> Result<(Vec<Recipient>, u64), QueueError> {
    let header = read_header(file, path, at)?;
    let start = at.offset + header.envelope_at();
    let mut window =
        Window { file, path, start, octets: u64::from(header.envelope_octets), at: 0, bytes: Vec::new(), used: 0 };
    let count = window.take(Envelope::decode_to_recipients)?;
    let mut skip = index;
    if octets > 0 {
        window.move_to(octets);
        skip = 0;
    }
    for _ in 0..skip.min(count) {
        window.take(skip_recipient)?;
    }
    let mut recipients = Vec::new();
    for _ in 0..most.min(count.saturating_sub(index)) {
        recipients.push(window.take(decode_recipient)?);
    }
    Ok((recipients, window.at))
}

fn skip_recipient(take: &mut Take<'_>) -> Result<(), CodecError> {
    take.str()?;
    take.option_str()?;
    take.option_str()?;
    take.u8()?;
    Ok(())
}

struct Window<'a> {
    file: &'a File,
    path: &'a Path,
    /// Offset of the envelope in the file.
    start: u64,
    /// Octets of the envelope.
    octets: u64,
    /// Position of the next octet in the envelope.
    at: u64,
    /// The octets from `at` on, behind `used` octets that were taken.
    bytes: Vec<u8>,
    used: usize,
}

impl Window<'_> {
    fn move_to(&mut self, at: u64) {
        self.at = at.min(self.octets);
        self.bytes.clear();
        self.used = 0;
    }

    /// Return the next value; moves or widens the window until it holds one.
    fn take<T>(&mut self, decode: fn(&mut Take<'_>) -> Result<T, CodecError>) -> Result<T, QueueError> {
        let mut wanted = WINDOW_OCTETS;
        loop {
            let left = self.bytes.len() - self.used;
            let mut take = Take::new(&self.bytes[self.used..]);
            match decode(&mut take) {
                Ok(value) => {
                    let taken = left - take.rest().len();
                    self.at += taken as u64;
                    self.used += taken;
                    return Ok(value);
                }
                Err(CodecError::Short) if (left as u64) < self.octets - self.at => {
                    wanted = wanted.max(left * 2).min((self.octets - self.at) as usize);
                    self.used = 0;
                    self.bytes.resize(wanted, 0);
                    self.file
                        .read_exact_at(&mut self.bytes, self.start + self.at)
                        .map_err(|error| QueueError::io("read", self.path, &error))?;
                }
                Err(error) => {
                    let place = format!("{} at {}: {error}", self.path.display(), self.start + self.at);
                    return Err(QueueError::Corrupt(place.into()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::envelope::Envelope;
    use crate::mail::sink::Sink;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::Directory;
    use std::time::Duration;

    #[test]
    fn parts_add_up_to_the_whole_list() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let long = "l".repeat(100_000);
        let to = |n: u32| {
            let name = if n == 2_000 { long.clone() } else { format!("recipient{n}@example.org") };
            Recipient { original: n.is_multiple_of(3).then(|| "list@example.org".into()), ..Recipient::plain(&name) }
        };
        let all: Vec<Recipient> = (0..5_000).map(to).collect();
        let mut draft = journal.draft().unwrap();
        draft.write(b"content\r\n").unwrap();
        let envelope = Envelope::plain(draft.id(), "sender@example.org", all.clone());
        journal.commit(draft, b"", &envelope, 0);
        let at = *journal.wait(Duration::from_secs(30))[0].result.as_ref().unwrap();
        let path = directory.path().join("incoming").join(at.segment.file_name());
        let file = File::open(&path).unwrap();
        for part in [1, 7, 999, 5_000, 6_000] {
            let (mut index, mut octets) = (0, 0);
            for _ in 0..50 {
                let (read, next) = read_recipients(&file, &path, &at, index, octets, part).unwrap();
                let end = all.len().min((index + part) as usize);
                assert_eq!(read, all[index as usize..end], "{part} from {index}");
                assert_eq!(read_recipients(&file, &path, &at, index, 0, part).unwrap(), (read, next));
                (index, octets) = (end as u32, next);
            }
        }
        assert_eq!(read_recipients(&file, &path, &at, 5_000, 0, 10).unwrap().0, []);
        assert!(read_recipients(&file, &path, &at, 0, 13, 5_000).is_err(), "an offset inside of a recipient");
    }
}
