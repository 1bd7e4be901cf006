//! Reading one message's content for delivery, checked.

use crate::queue::error::QueueError;
use crate::queue::id::QueueId;
use crate::queue::locator::{Locator, SegmentId};
use crate::queue::record::{RECORD_HEADER_OCTETS, RecordHeader};
use crate::queue::{DEFERRED, INCOMING};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The content of a record, piece by piece. The last piece is handed out only when the checksum holds: whoever passes
/// pieces on must not end the message before `read` returned 0.
#[derive(Debug)]
pub struct ContentReader {
    file: File,
    path: PathBuf,
    at: Locator,
    header: RecordHeader,
    read: u64,
    crc: u32,
}

impl ContentReader {
    /// `path`: the segment's, relative to the queue directory, as a job names it.
    pub fn open(queue_directory: &Path, path: &str, at: &Locator) -> Result<Self, QueueError> {
        // A path comes from another process: only a segment of the queue is ever opened.
        let named = path.split_once('/').filter(|(directory, _)| [INCOMING, DEFERRED].contains(directory));
        if named.and_then(|(_, name)| SegmentId::parse(name)) != Some(at.segment) {
            return Err(QueueError::Corrupt(format!("{path:?} is no segment of {:?}", at.segment).into()));
        }
        let path = queue_directory.join(path);
        let file = File::open(&path).map_err(|error| QueueError::io("open", &path, &error))?;
        let header = read_header(&file, &path, at)?;
        Ok(Self { file, path, at: *at, header, read: 0, crc: 0 })
    }

    /// The message.
    pub fn id(&self) -> QueueId {
        self.header.id
    }

    /// Octets of the content.
    pub fn content_octets(&self) -> u64 {
        self.header.content_octets
    }

    /// Fill `buffer` with the next octets; 0 at the end. `Corrupt` in place of the last piece when the content is not
    /// what was committed.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, QueueError> {
        let left = self.header.content_octets - self.read;
        let piece = left.min(buffer.len() as u64) as usize;
        let offset = self.at.offset + RECORD_HEADER_OCTETS as u64 + self.read;
        let buffer = &mut buffer[..piece];
        self.file.read_exact_at(buffer, offset).map_err(|error| QueueError::io("read", &self.path, &error))?;
        self.crc = crc32c::crc32c_append(self.crc, buffer);
        self.read += piece as u64;
        if self.read == self.header.content_octets && self.crc != self.header.content_crc {
            let place = place(&self.path, &self.at);
            return Err(QueueError::Corrupt(format!("{place}: the content's checksum does not hold").into()));
        }
        Ok(piece)
    }
}

/// The whole content of a record in its wire form, checked. For a message of any size use `ContentReader`.
pub fn read_content(queue_directory: &Path, path: &str, at: &Locator) -> Result<Vec<u8>, QueueError> {
    let mut reader = ContentReader::open(queue_directory, path, at)?;
    let mut content = vec![0; reader.content_octets() as usize];
    reader.read(&mut content)?;
    Ok(content)
}

/// The encoded envelope of a record, checked.
pub(crate) fn read_envelope_bytes(file: &File, path: &Path, at: &Locator) -> Result<Vec<u8>, QueueError> {
    let header = read_header(file, path, at)?;
    let mut bytes = vec![0; header.envelope_octets as usize];
    let offset = at.offset + RECORD_HEADER_OCTETS as u64 + header.content_octets;
    file.read_exact_at(&mut bytes, offset).map_err(|error| QueueError::io("read", path, &error))?;
    if crc32c::crc32c(&bytes) != header.envelope_crc {
        let place = place(path, at);
        return Err(QueueError::Corrupt(format!("{place}: the envelope's checksum does not hold").into()));
    }
    Ok(bytes)
}

/// The header of the record at `at`, whose length must be the one that the locator names and fit into the file.
pub(crate) fn read_header(file: &File, path: &Path, at: &Locator) -> Result<RecordHeader, QueueError> {
    let failed = |error| QueueError::io("read", path, &error);
    let mut bytes = [0; RECORD_HEADER_OCTETS];
    file.read_exact_at(&mut bytes, at.offset).map_err(failed)?;
    let header = RecordHeader::read(&bytes, &place(path, at))?;
    let end = at.offset.checked_add(at.record_octets);
    let fits = end.is_some_and(|end| file.metadata().is_ok_and(|metadata| end <= metadata.len()));
    if header.record_octets() != Some(at.record_octets) || !fits {
        return Err(QueueError::Corrupt(format!("{}: another record stands here", place(path, at)).into()));
    }
    Ok(header)
}

fn place(path: &Path, at: &Locator) -> String {
    format!("{} at {}", path.display(), at.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::testing::{Directory, commit};

    #[test]
    fn content_comes_back_whole_and_in_pieces_of_any_size() {
        let directory = Directory::new();
        let options = JournalOptions { large_message_octets: 1000, ..Default::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        for octets in [0, 1, 999, 1000, 1001, 700_000] {
            let content: Vec<u8> = (0..octets).map(|n| (n % 251) as u8).collect();
            let at = commit(&journal, &content).result.unwrap();
            let path = format!("incoming/{}", at.segment.file_name());
            assert_eq!(read_content(directory.path(), &path, &at).unwrap(), content);
            for piece in [1, 999, 65_536].into_iter().filter(|piece| octets / piece < 1100) {
                let mut reader = ContentReader::open(directory.path(), &path, &at).unwrap();
                let mut buffer = vec![0; piece];
                let mut all = Vec::new();
                loop {
                    match reader.read(&mut buffer).unwrap() {
                        0 => break,
                        some => all.extend_from_slice(&buffer[..some]),
                    }
                }
                assert_eq!(all, content, "{octets} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn damaged_content_is_never_handed_out_whole() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let at = commit(&journal, &[b'x'; 100]).result.unwrap();
        let path = format!("incoming/{}", at.segment.file_name());
        let file = File::options().write(true).open(directory.path().join(&path)).unwrap();
        file.write_all_at(b"y", at.offset + RECORD_HEADER_OCTETS as u64 + 50).unwrap();
        assert!(matches!(read_content(directory.path(), &path, &at), Err(QueueError::Corrupt(_))));
        let mut reader = ContentReader::open(directory.path(), &path, &at).unwrap();
        assert_eq!(reader.read(&mut [0; 60]), Ok(60));
        assert!(matches!(reader.read(&mut [0; 60]), Err(QueueError::Corrupt(_))));
    }

    #[test]
    fn only_segments_and_only_the_record_that_was_named_are_read() {
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
