//! Read envelopes one after the other, outside of the queue manager's thread, with few system calls.
//!
//! Consecutive records cost one read each: the header of the next record follows an envelope, and one read returns
//! both. Content is never read.

use super::record::{RECORD_HEADER_OCTETS, RecordHeader};
use super::scan::segment_path;
use crate::codec::{CodecError, Take};
use crate::mail::locator::{Locator, SegmentId};
use crate::queue::error::QueueError;
use crate::queue::{DEFERRED, INCOMING};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Reads envelopes of a queue directory. Cheapest in the order of segments and offsets.
#[derive(Debug)]
pub struct EnvelopeReader {
    queue_directory: PathBuf,
    open: Option<(SegmentId, PathBuf, File)>,
    /// The header that follows the last envelope, and its offset.
    ahead: Option<(u64, RecordHeader)>,
    buffer: Vec<u8>,
}

impl EnvelopeReader {
    /// Return a reader of the queue directory.
    pub fn new(queue_directory: &Path) -> Self {
        Self { queue_directory: queue_directory.to_path_buf(), open: None, ahead: None, buffer: Vec::new() }
    }

    /// Return the queue directory.
    pub fn queue_directory(&self) -> &Path {
        &self.queue_directory
    }

    /// Return the encoded envelope of a record, checked.
    pub fn read(&mut self, at: &Locator) -> Result<&[u8], QueueError> {
        if self.open.as_ref().is_none_or(|(segment, ..)| *segment != at.segment) {
            self.ahead = None;
            self.open = Some(self.open(at.segment)?);
        }
        let (_, path, file) = self.open.as_ref().expect("opened above");
        let place = || format!("{} at {}", path.display(), at.offset);
        let header = match self.ahead.take() {
            Some((offset, header)) if offset == at.offset => header,
            _ => {
                let mut bytes = [0; RECORD_HEADER_OCTETS];
                let read = file.read_exact_at(&mut bytes, at.offset);
                read.map_err(|error| QueueError::io("read", path, &error))?;
                RecordHeader::read(&bytes, &place())?
            }
        };
        if header.record_octets() != at.record_octets {
            return Err(QueueError::Corrupt(format!("{}: another record is here", place()).into()));
        }
        let octets = header.envelope_octets as usize;
        let wanted = octets + RECORD_HEADER_OCTETS;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let start = at.offset + header.envelope_at();
        let mut filled = 0;
        // No header follows at the end of the segment.
        while filled < octets {
            match file.read_at(&mut self.buffer[filled..wanted], start + filled as u64) {
                Ok(0) => return Err(QueueError::Corrupt(format!("{}: the segment ends early", place()).into())),
                Ok(some) => filled += some,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(QueueError::io("read", path, &error)),
            }
        }
        if crc32c::crc32c(&self.buffer[..octets]) != header.envelope_crc {
            return Err(QueueError::Corrupt(format!("{}: the envelope's checksum does not match", place()).into()));
        }
        if filled == wanted
            && let Ok(bytes) = self.buffer[octets..wanted].try_into()
            && let Ok(next) = RecordHeader::read(bytes, "")
        {
            self.ahead = Some((at.offset + at.record_octets, next));
        }
        Ok(&self.buffer[..octets])
    }

    fn open(&self, segment: SegmentId) -> Result<(SegmentId, PathBuf, File), QueueError> {
        let path = segment_path(&self.queue_directory, INCOMING, segment);
        match File::open(&path) {
            Ok(file) => Ok((segment, path, file)),
            Err(_) => {
                let path = segment_path(&self.queue_directory, DEFERRED, segment);
                let file = File::open(&path).map_err(|error| QueueError::io("open", &path, &error))?;
                Ok((segment, path, file))
            }
        }
    }
}

/// The fields that a listing needs of an encoded envelope, without a copy (`mail/envelope.rs` has the whole).
#[derive(Debug, Clone, Copy)]
pub struct EnvelopeView<'a> {
    /// Microseconds since 1970.
    pub arrival_us: u64,
    /// The reverse path.
    pub sender: &'a str,
    /// Octets of the content.
    pub size_octets: u64,
    recipients: u32,
    rest: Take<'a>,
}

impl<'a> EnvelopeView<'a> {
    /// Return a view of an encoded envelope.
    pub fn new(encoded: &'a [u8]) -> Result<Self, CodecError> {
        let mut take = Take::new(encoded);
        take.u64()?;
        let arrival_us = take.u64()?;
        let sender = take.str()?;
        take.take(3)?;
        take.option_str()?;
        let size_octets = take.u64()?;
        let recipients = take.u32()?;
        Ok(Self { arrival_us, sender, size_octets, recipients, rest: take })
    }

    /// Return address and original of each recipient; stops early where the bytes end.
    pub fn recipients(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let mut take = self.rest;
        (0..self.recipients).map_while(move |_| {
            let address = take.str().ok()?;
            let original = take.option_str().ok()?;
            take.option_str().ok()?;
            take.u8().ok()?;
            Some((address, original))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::envelope::{Envelope, Recipient};
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, commit, envelope};
    use std::os::unix::fs::FileExt;

    #[test]
    fn envelopes_are_read_in_any_order_and_damage_is_reported() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let places: Vec<_> =
            (0..5).map(|n| commit(&journal, &vec![b'x'; n * 1000])).map(|c| (c.id, c.result.unwrap())).collect();
        journal.close();
        let mut reader = EnvelopeReader::new(directory.path());
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 2, 3, 1, 1]] {
            for nth in order {
                let (id, at) = places[nth];
                let mut encoded = Vec::new();
                envelope(id, 2).encode(&mut encoded);
                let read = reader.read(&at).unwrap();
                assert_eq!(Envelope::decode(&mut Take::new(read)).unwrap().id, id, "{order:?}");
            }
        }
        let (_, at) = places[2];
        let file = File::options().write(true).open(directory.files(INCOMING).remove(0)).unwrap();
        file.write_all_at(b"\xff", at.offset + at.record_octets - 1).unwrap();
        assert!(reader.read(&at).is_err());
        assert!(reader.read(&places[3].1).is_ok(), "the next one is whole");
        assert!(reader.read(&Locator { offset: at.offset + 1, ..at }).is_err());
        assert!(reader.read(&Locator { segment: SegmentId(77), ..at }).is_err());
    }

    #[test]
    fn a_view_shows_the_envelope_and_no_prefix_is_too_short() {
        let mut whole = envelope(crate::mail::id::QueueId(9 << 12), 2);
        whole
            .recipients
            .push(Recipient { original: Some("o@example.net".into()), ..Recipient::plain("z@example.net") });
        let mut encoded = Vec::new();
        whole.encode(&mut encoded);
        let view = EnvelopeView::new(&encoded).unwrap();
        assert_eq!((view.sender, view.arrival_us), (&*whole.sender, whole.arrival_us));
        let expected: Vec<_> = whole.recipients.iter().map(|to| (&*to.address, to.original.as_deref())).collect();
        assert_eq!(view.recipients().collect::<Vec<_>>(), expected);
        for end in 0..encoded.len() {
            if let Ok(view) = EnvelopeView::new(&encoded[..end]) {
                assert!(view.recipients().count() <= 3);
            }
        }
    }
}
