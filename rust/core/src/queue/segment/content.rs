//! Read one message's content for delivery, checked.

use super::checksum;
use super::files::OpenSegment;
use super::record::{RECORD_HEADER_OCTETS, RecordHeader};
use crate::mail::id::QueueId;
use crate::mail::locator::Locator;
use crate::queue::error::QueueError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Maximum number of octets in the first read of a record: header, content and envelope of nearly every message.
const FIRST_READ_OCTETS: u64 = 64 * 1024;
/// Spare room behind the last piece, so that the final dot and the next commands need no second buffer.
const SPARE_OCTETS: usize = 256;

/// The content of a record, piece by piece: the head, then the body. The last piece is returned only when the checksum
/// holds: a caller that passes pieces on must not end the message before `piece` has returned the last one.
#[derive(Debug)]
pub struct ContentReader {
    segment: OpenSegment,
    at: Locator,
    header: RecordHeader,
    /// The start of the record with its header, from one read.
    first: Vec<u8>,
    /// Octets of the content that `piece` has returned.
    read: u64,
    head_crc: u32,
    body_crc: u32,
}

impl ContentReader {
    /// Open a segment and its record. `path`: relative to the queue directory, as in a job.
    pub fn open(queue_directory: &Path, path: &str, at: &Locator) -> Result<Self, QueueError> {
        Self::of(OpenSegment::open(queue_directory, path, at.segment)?, at)
    }

    /// Open the record at `at` of an open segment. One read; for a record of up to `FIRST_READ_OCTETS` the only one.
    pub fn of(segment: OpenSegment, at: &Locator) -> Result<Self, QueueError> {
        let failed = |error| QueueError::io("read", &segment.path, &error);
        let mut first = Vec::new();
        let octets = at.record_octets.clamp(RECORD_HEADER_OCTETS as u64, FIRST_READ_OCTETS) as usize;
        first.reserve_exact(octets + SPARE_OCTETS);
        first.resize(octets, 0);
        segment.file.read_exact_at(&mut first, at.offset).map_err(failed)?;
        let too_short = || failed(io::ErrorKind::UnexpectedEof.into());
        let header = first.first_chunk().ok_or_else(too_short)?;
        let header = RecordHeader::read(header, &place(&segment.path, at))?;
        // A whole record was read, so the file is long enough.
        let whole = first.len() as u64 == at.record_octets;
        check(&header, (!whole).then_some(&*segment.file), &segment.path, at)?;
        Ok(Self { segment, at: *at, header, first, read: 0, head_crc: 0, body_crc: 0 })
    }

    /// Return the message's ID.
    pub fn id(&self) -> QueueId {
        self.header.id
    }

    /// Return the octets of the content.
    pub fn content_octets(&self) -> u64 {
        self.header.content_octets()
    }

    /// Return the octets of the head.
    pub fn head_octets(&self) -> u64 {
        u64::from(self.header.head_octets)
    }

    /// Return the octets that `piece` has not returned.
    pub fn left_octets(&self) -> u64 {
        self.header.content_octets() - self.read
    }

    /// Return the next octets, `max_octets` at most; none at the end. `Corrupt` in place of the last piece when the
    /// content differs from the committed one.
    pub fn piece(&mut self, max_octets: u64) -> Result<Vec<u8>, QueueError> {
        let octets = self.left_octets().min(max_octets) as usize;
        let mut piece = Vec::with_capacity(octets + SPARE_OCTETS);
        // The part of the piece that is in the head, then the part in the body.
        let head = (self.head_octets().saturating_sub(self.read) as usize).min(octets);
        if head > 0 {
            self.append(self.header.head_at() + self.read, head, &mut piece)?;
            self.head_crc = crc32c::crc32c_append(self.head_crc, &piece);
        }
        if octets > head {
            let in_body = (self.read + head as u64).saturating_sub(self.head_octets());
            self.append(RECORD_HEADER_OCTETS as u64 + in_body, octets - head, &mut piece)?;
            self.body_crc = crc32c::crc32c_append(self.body_crc, &piece[head..]);
        }
        self.read += octets as u64;
        if self.left_octets() == 0 && !self.matches() {
            let place = place(&self.segment.path, &self.at);
            return Err(QueueError::Corrupt(format!("{place}: the content's checksum does not match").into()));
        }
        Ok(piece)
    }

    /// Append `octets` octets of the record, from the first read or from the file.
    fn append(&self, at: u64, octets: usize, piece: &mut Vec<u8>) -> Result<(), QueueError> {
        let start = (at as usize).min(self.first.len());
        let known = &self.first[start..(start + octets).min(self.first.len())];
        piece.extend_from_slice(known);
        let missing = octets - known.len();
        if missing > 0 {
            let filled = piece.len();
            piece.resize(filled + missing, 0);
            let failed = |error| QueueError::io("read", &self.segment.path, &error);
            let offset = self.at.offset + at + known.len() as u64;
            self.segment.file.read_exact_at(&mut piece[filled..], offset).map_err(failed)?;
        }
        Ok(())
    }

    /// Whether the checksum of body and head is that of the header.
    fn matches(&self) -> bool {
        let head_octets = self.header.head_octets as usize;
        let crc = match head_octets {
            0 => self.body_crc,
            _ => checksum::combine(self.body_crc, self.head_crc, head_octets),
        };
        crc == self.header.content_crc
    }
}

/// Return the whole content of a record in wire form, checked. For large messages use `ContentReader`.
pub fn read_content(queue_directory: &Path, path: &str, at: &Locator) -> Result<Vec<u8>, QueueError> {
    ContentReader::open(queue_directory, path, at)?.piece(u64::MAX)
}

/// Return the encoded envelope of a record, checked.
pub(crate) fn read_envelope_bytes(file: &File, path: &Path, at: &Locator) -> Result<Vec<u8>, QueueError> {
    let header = read_header(file, path, at)?;
    let mut bytes = vec![0; header.envelope_octets as usize];
    file.read_exact_at(&mut bytes, at.offset + header.envelope_at())
        .map_err(|error| QueueError::io("read", path, &error))?;
    if crc32c::crc32c(&bytes) != header.envelope_crc {
        let place = place(path, at);
        return Err(QueueError::Corrupt(format!("{place}: the envelope's checksum does not match").into()));
    }
    Ok(bytes)
}

/// Return the header of the record at `at`; its length must match the locator and fit into the file.
pub(crate) fn read_header(file: &File, path: &Path, at: &Locator) -> Result<RecordHeader, QueueError> {
    let failed = |error| QueueError::io("read", path, &error);
    let mut bytes = [0; RECORD_HEADER_OCTETS];
    file.read_exact_at(&mut bytes, at.offset).map_err(failed)?;
    let header = RecordHeader::read(&bytes, &place(path, at))?;
    check(&header, Some(file), path, at)?;
    Ok(header)
}

/// Check that this is the locator's record. `file`: `None` if the file is known to reach to the record's end.
fn check(header: &RecordHeader, file: Option<&File>, path: &Path, at: &Locator) -> Result<(), QueueError> {
    let end = at.offset.checked_add(at.record_octets);
    let reaches = |file: &File| end.is_some_and(|end| file.metadata().is_ok_and(|metadata| end <= metadata.len()));
    if header.record_octets() != at.record_octets || !file.is_none_or(reaches) {
        return Err(QueueError::Corrupt(format!("{}: another record is here", place(path, at)).into()));
    }
    Ok(())
}

fn place(path: &Path, at: &Locator) -> String {
    format!("{} at {}", path.display(), at.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, commit, commit_with_head};

    #[test]
    fn content_is_read_whole_and_in_pieces_of_any_size() {
        let directory = Directory::new();
        let options = JournalOptions { large_message_octets: 1000, ..Default::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        for octets in [0, 1, 999, 1000, 1001, 65_400, 65_536, 700_000] {
            let content: Vec<u8> = (0..octets).map(|n| (n % 251) as u8).collect();
            for head_octets in [0, 1, 700, 70_000, octets].into_iter().filter(|head| *head <= octets) {
                let (head, body) = content.split_at(head_octets);
                let at = commit_with_head(&journal, head, body).result.unwrap();
                let path = format!("incoming/{}", at.segment.file_name());
                assert_eq!(read_content(directory.path(), &path, &at).unwrap(), content);
                for piece in [1, 999, 65_536].into_iter().filter(|piece| octets / piece < 1100) {
                    let mut reader = ContentReader::open(directory.path(), &path, &at).unwrap();
                    assert_eq!(reader.head_octets(), head_octets as u64);
                    let mut all = Vec::new();
                    while reader.left_octets() > 0 {
                        let left = reader.left_octets();
                        let next = reader.piece(piece as u64).unwrap();
                        assert_eq!(next.len() as u64, left.min(piece as u64));
                        all.extend_from_slice(&next);
                    }
                    assert_eq!(reader.piece(9).unwrap(), b"");
                    assert!(all == content, "{octets} with a head of {head_octets} in pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn damaged_content_is_never_returned_whole() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        // In the body, and in the head behind it.
        for damaged in [50, 95] {
            let at = commit_with_head(&journal, &[b'h'; 10], &[b'x'; 90]).result.unwrap();
            let path = format!("incoming/{}", at.segment.file_name());
            let file = File::options().write(true).open(directory.path().join(&path)).unwrap();
            file.write_all_at(b"y", at.offset + RECORD_HEADER_OCTETS as u64 + damaged).unwrap();
            assert!(matches!(read_content(directory.path(), &path, &at), Err(QueueError::Corrupt(_))));
            let mut reader = ContentReader::open(directory.path(), &path, &at).unwrap();
            assert_eq!(reader.piece(60).unwrap().len(), 60);
            assert!(matches!(reader.piece(60), Err(QueueError::Corrupt(_))));
        }
    }

    #[test]
    fn only_the_named_record_of_a_segment_is_read() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let at = commit(&journal, b"x").result.unwrap();
        let name = at.segment.file_name();
        for path in [format!("../incoming/{name}"), format!("corrupt/{name}"), "incoming/x".into(), name.clone()] {
            assert!(ContentReader::open(directory.path(), &path, &at).is_err(), "{path}");
        }
        let path = format!("incoming/{name}");
        for at in [
            Locator { offset: at.offset + 1, ..at },
            Locator { offset: u64::MAX - 10, ..at },
            Locator { record_octets: at.record_octets - 1, ..at },
            Locator { record_octets: u64::MAX, ..at },
        ] {
            assert!(ContentReader::open(directory.path(), &path, &at).is_err(), "{at:?}");
        }
    }
}
