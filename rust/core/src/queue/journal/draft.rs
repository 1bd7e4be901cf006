//! A message that is being received.
//!
//! A draft stays in memory until its body is longer than `large_message_octets`; then the body goes to a file of its own
//! as it arrives, so that a process holds at most that much of it. Head and envelope follow at the end. Dropping a draft
//! leaves no trace.

use crate::mail::id::QueueId;
use crate::mail::locator::SegmentId;
use crate::mail::sink::Sink;
use crate::queue::disk::{Disk, write_all};
use crate::queue::error::QueueError;
use crate::queue::journal::Shared;
use crate::queue::segment::record::{BODY_MAX_OCTETS, RECORD_HEADER_OCTETS, RecordHeader};
use crate::queue::segment::{SEGMENT_HEADER_OCTETS, SegmentHeader, create_locked, random_salt, take_back};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Minimum number of octets in one write of a large message.
const STREAM_CHUNK_OCTETS: usize = 256 * 1024;
/// Initial capacity of a draft: enough for a common message.
const FIRST_CAPACITY_OCTETS: usize = 8 * 1024;

/// A message that is being received: a `Sink` for its body in wire form.
pub struct Draft {
    shared: Arc<Shared>,
    id: QueueId,
    body_octets: u64,
    /// Room for the record header, then the part of the body that is not in `large`.
    buffer: Vec<u8>,
    large: Option<LargeFile>,
    failed: Option<QueueError>,
}

/// A committed draft, for the writer thread.
pub(crate) enum Body {
    /// Room for the header, then body, head and envelope.
    Small { bytes: Vec<u8>, body_octets: u64, head_octets: u32 },
    /// A file that holds the body; head and envelope.
    Large { file: LargeFile, rest: Vec<u8>, head_octets: u32 },
}

impl Draft {
    pub(crate) fn new(shared: Arc<Shared>, id: QueueId) -> Self {
        let mut buffer = Vec::with_capacity(FIRST_CAPACITY_OCTETS);
        buffer.resize(RECORD_HEADER_OCTETS, 0);
        Self { shared, id, body_octets: 0, buffer, large: None, failed: None }
    }

    /// Return the message's queue ID.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Return the number of octets of the body so far.
    pub fn body_octets(&self) -> u64 {
        self.body_octets
    }

    fn stream(&mut self) -> Result<(), QueueError> {
        let large = match &mut self.large {
            Some(large) => large,
            None => self.large.insert(LargeFile::create(
                &self.shared.disk,
                &self.shared.directory,
                self.shared.segment_id()?,
            )?),
        };
        large.write(&self.buffer[RECORD_HEADER_OCTETS..])?;
        self.buffer.truncate(RECORD_HEADER_OCTETS);
        self.buffer.shrink_to(2 * STREAM_CHUNK_OCTETS);
        Ok(())
    }

    /// Return the whole message, ready to be written.
    pub(crate) fn finish(mut self, head: &[u8], envelope: &[u8]) -> Result<Body, QueueError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.large.is_some() {
            self.stream()?;
        }
        let head_octets = head.len() as u32;
        match self.large {
            Some(file) => Ok(Body::Large { file, rest: [head, envelope].concat(), head_octets }),
            None => {
                self.buffer.reserve(head.len() + envelope.len());
                self.buffer.extend_from_slice(head);
                self.buffer.extend_from_slice(envelope);
                Ok(Body::Small { bytes: self.buffer, body_octets: self.body_octets, head_octets })
            }
        }
    }
}

impl Sink for Draft {
    /// Append to the body. An error breaks the draft for good: its commit fails with the same error.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into_io());
        }
        self.buffer.extend_from_slice(bytes);
        self.body_octets += bytes.len() as u64;
        let limit = match self.large {
            Some(_) => STREAM_CHUNK_OCTETS as u64,
            None => self.shared.options.large_message_octets,
        };
        if (self.buffer.len() - RECORD_HEADER_OCTETS) as u64 > limit
            && let Err(error) = self.stream()
        {
            self.buffer = Vec::new();
            self.failed = Some(error.clone());
            return Err(error.into_io());
        }
        Ok(())
    }
}

/// A segment with one large message, published or not. Dropping it before `publish` removes the file.
pub(crate) struct LargeFile {
    disk: Arc<dyn Disk>,
    header: SegmentHeader,
    directory: PathBuf,
    new_path: PathBuf,
    file: File,
    body_octets: u64,
    body_crc: u32,
    published: bool,
}

impl LargeFile {
    fn create(disk: &Arc<dyn Disk>, directory: &Path, id: SegmentId) -> Result<Self, QueueError> {
        let (file, new_path) = create_locked(&**disk, directory, id)?;
        let header = SegmentHeader { id, salt: random_salt() };
        let (disk, directory) = (Arc::clone(disk), directory.to_path_buf());
        Ok(Self { disk, header, directory, new_path, file, body_octets: 0, body_crc: 0, published: false })
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.header.id
    }

    fn write(&mut self, body: &[u8]) -> Result<(), QueueError> {
        let failed = |error: io::Error| QueueError::io("write", &self.new_path, &error);
        if self.body_octets + body.len() as u64 > BODY_MAX_OCTETS {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        write_all(&*self.disk, &self.file, &[body], self.end()).map_err(failed)?;
        self.body_octets += body.len() as u64;
        self.body_crc = crc32c::crc32c_append(self.body_crc, body);
        Ok(())
    }

    /// Return the offset behind the body.
    fn end(&self) -> u64 {
        (SEGMENT_HEADER_OCTETS + RECORD_HEADER_OCTETS) as u64 + self.body_octets
    }

    /// Write head and envelope and, last, the headers; sync the file, rename it, and sync the name. Return the octets of the
    /// record; with an error, also whether the file could not be removed.
    pub(crate) fn publish(mut self, id: QueueId, head: &[u8], envelope: &[u8]) -> (Result<u64, QueueError>, bool) {
        let path = self.directory.join(self.header.id.file_name());
        let written = self.write_last(id, head, envelope).and_then(|record_octets| {
            self.disk.rename(&self.new_path, &path).map_err(|error| QueueError::io("rename to", &path, &error))?;
            Ok(record_octets)
        });
        let Ok(record_octets) = written else { return (written, false) };
        self.published = true;
        match self.disk.sync_directory(&self.directory) {
            Ok(()) => (Ok(record_octets), false),
            Err(error) => {
                let stays = !take_back(&*self.disk, &self.file, &path);
                (Err(QueueError::io("sync", &self.directory, &error)), stays)
            }
        }
    }

    fn write_last(&self, id: QueueId, head: &[u8], envelope: &[u8]) -> Result<u64, QueueError> {
        let record = RecordHeader {
            salt: self.header.salt,
            id,
            body_octets: self.body_octets,
            head_octets: head.len() as u32,
            envelope_octets: envelope.len() as u32,
            content_crc: crc32c::crc32c_append(self.body_crc, head),
            envelope_crc: crc32c::crc32c(envelope),
        };
        let failed = |doing: &'static str| move |error: io::Error| QueueError::io(doing, &self.new_path, &error);
        write_all(&*self.disk, &self.file, &[head, envelope], self.end()).map_err(failed("write"))?;
        let headers = [&self.header.encode()[..], &record.encode()];
        write_all(&*self.disk, &self.file, &headers, 0).map_err(failed("write"))?;
        self.disk.sync_data(&self.file).map_err(failed("sync"))?;
        Ok(record.record_octets())
    }
}

impl Drop for LargeFile {
    fn drop(&mut self) {
        if !self.published {
            let _ = self.disk.remove(&self.new_path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::Directory;

    #[test]
    fn a_draft_holds_a_limited_part_of_its_message_in_memory() {
        let directory = Directory::new();
        let options = JournalOptions { large_message_octets: 1024 * 1024, ..Default::default() };
        let bound = 3 * options.large_message_octets as usize;
        let journal = Journal::open(directory.path(), options).unwrap();
        let mut draft = journal.draft().unwrap();
        let mut most = 0;
        for _ in 0..512 {
            draft.write(&[b'x'; 64 * 1024]).unwrap();
            most = most.max(draft.buffer.capacity());
        }
        assert!(most <= bound, "{most} octets while it was small");
        assert!(draft.buffer.capacity() <= 4 * STREAM_CHUNK_OCTETS, "{} afterwards", draft.buffer.capacity());
        assert_eq!(draft.body_octets(), 32 * 1024 * 1024);
    }
}
