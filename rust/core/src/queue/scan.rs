//! Reading a segment record by record, damage included.
//!
//! Every record that is found was checked whole. A record whose header holds but whose bytes do not is bad, and the
//! next one begins where the header says. Where no header stands, the next one is searched for; the segment's salt sees
//! to it that content is never taken for a record. What is missing at the end of the file was never committed.

use crate::ipc::codec::Take;
use crate::message::envelope::Envelope;
use crate::queue::error::QueueError;
use crate::queue::locator::{Locator, SegmentId};
use crate::queue::record::{HeaderBytes, RECORD_HEADER_OCTETS, RECORD_MAGIC, RECORD_VERSION, RecordHeader};
use crate::queue::segment::{SEGMENT_HEADER_OCTETS, SEGMENT_VERSION, SegmentBytes, SegmentHeader, is_live};
use memchr::memmem;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A segment is read in pieces of so many octets.
const WINDOW_OCTETS: usize = 1024 * 1024;

/// What stands in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A whole record.
    Record { locator: Locator, envelope: Envelope },
    /// Octets that were a record once, or should be one.
    Bad { offset: u64, octets: u64, reason: String },
    /// A tail that was never committed.
    Torn { offset: u64, octets: u64 },
}

/// A segment under its name, open for reading.
pub(crate) struct SegmentReader {
    pub path: PathBuf,
    pub file: File,
    id: SegmentId,
    window: Vec<u8>,
    window_at: u64,
}

impl SegmentReader {
    /// `None` when there is no such file.
    pub(crate) fn open(path: PathBuf, id: SegmentId) -> Result<Option<Self>, QueueError> {
        match File::open(&path) {
            Ok(file) => Ok(Some(Self { path, file, id, window: Vec::new(), window_at: 0 })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(QueueError::io("open", &path, &error)),
        }
    }

    /// Does its writer live?
    pub(crate) fn is_live(&self) -> bool {
        is_live(&self.file)
    }

    /// Octets of the file.
    pub(crate) fn octets(&self) -> Result<u64, QueueError> {
        Ok(self.file.metadata().map_err(|error| QueueError::io("stat", &self.path, &error))?.len())
    }

    /// Tell `each` what stands in the octets from `from` (the end of a record, or anything up to the first record) to
    /// `to`, in order. `Version` for what a later release wrote.
    pub(crate) fn scan(&mut self, from: u64, to: u64, each: &mut dyn FnMut(Found)) -> Result<(), QueueError> {
        let Some(salt) = self.salt(to)? else {
            if to < (SEGMENT_HEADER_OCTETS + RECORD_HEADER_OCTETS) as u64 || self.is_zero(0, to)? {
                each(Found::Torn { offset: 0, octets: to });
            } else {
                each(Found::Bad { offset: 0, octets: to, reason: "no segment header and no first record".into() });
            }
            return Ok(());
        };
        let mut at = from.max(SEGMENT_HEADER_OCTETS as u64);
        while at < to {
            let Some(header) = self.header(at, to, salt)? else {
                let next = self.next_header(at + 1, to, salt)?;
                let octets = next.unwrap_or(to) - at;
                if next.is_none() && (octets < RECORD_HEADER_OCTETS as u64 || self.is_zero(at, to)?) {
                    each(Found::Torn { offset: at, octets });
                } else {
                    each(Found::Bad { offset: at, octets, reason: "no record header".into() });
                }
                at += octets;
                continue;
            };
            let octets = header.record_octets().unwrap_or(u64::MAX);
            if octets > to - at {
                each(Found::Torn { offset: at, octets: to - at });
                return Ok(());
            }
            each(self.record(at, octets, &header)?);
            at += octets;
        }
        Ok(())
    }

    fn record(&mut self, at: u64, octets: u64, header: &RecordHeader) -> Result<Found, QueueError> {
        let content = at + RECORD_HEADER_OCTETS as u64;
        let envelope = content + header.content_octets;
        let bad = |reason: &str| Ok(Found::Bad { offset: at, octets, reason: format!("{}: {reason}", header.id) });
        let mut crc = 0;
        let mut next = content;
        while next < envelope {
            let piece = (envelope - next).min(WINDOW_OCTETS as u64);
            crc = crc32c::crc32c_append(crc, self.bytes(next, piece as usize)?);
            next += piece;
        }
        if crc != header.content_crc {
            return bad("the content's checksum does not hold");
        }
        let bytes = self.bytes(envelope, header.envelope_octets as usize)?;
        if crc32c::crc32c(bytes) != header.envelope_crc {
            return bad("the envelope's checksum does not hold");
        }
        let mut take = Take::new(bytes);
        match Envelope::decode(&mut take).and_then(|envelope| take.end().map(|()| envelope)) {
            Ok(envelope) if envelope.id == header.id => {
                Ok(Found::Record { locator: Locator { segment: self.id, offset: at, record_octets: octets }, envelope })
            }
            Ok(envelope) => bad(&format!("the envelope is that of {}", envelope.id)),
            Err(error) => bad(&format!("the envelope cannot be read: {error}")),
        }
    }

    /// The segment's salt: from its header or, where that is damaged, from the first record's.
    fn salt(&mut self, to: u64) -> Result<Option<u64>, QueueError> {
        if to < SEGMENT_HEADER_OCTETS as u64 {
            return Ok(None);
        }
        let bytes = self.bytes(0, SEGMENT_HEADER_OCTETS)?.try_into().expect("as many octets as asked for");
        match SegmentHeader::decode(bytes) {
            SegmentBytes::Valid(header) => Ok(Some(header.salt)),
            SegmentBytes::Newer(version) => Err(self.newer(version, SEGMENT_VERSION)),
            SegmentBytes::Invalid if to < (SEGMENT_HEADER_OCTETS + RECORD_HEADER_OCTETS) as u64 => Ok(None),
            SegmentBytes::Invalid => match self.decode_header(SEGMENT_HEADER_OCTETS as u64)? {
                HeaderBytes::Valid(header) => Ok(Some(header.salt)),
                HeaderBytes::Newer(version) => Err(self.newer(version, RECORD_VERSION)),
                HeaderBytes::Invalid => Ok(None),
            },
        }
    }

    fn header(&mut self, at: u64, to: u64, salt: u64) -> Result<Option<RecordHeader>, QueueError> {
        if to - at < RECORD_HEADER_OCTETS as u64 {
            return Ok(None);
        }
        match self.decode_header(at)? {
            HeaderBytes::Valid(header) if header.salt == salt => Ok(Some(header)),
            HeaderBytes::Newer(version) => Err(self.newer(version, RECORD_VERSION)),
            _ => Ok(None),
        }
    }

    fn decode_header(&mut self, at: u64) -> Result<HeaderBytes, QueueError> {
        let bytes = self.bytes(at, RECORD_HEADER_OCTETS)?.try_into().expect("as many octets as asked for");
        Ok(RecordHeader::decode(bytes))
    }

    /// Where the next header stands that is this segment's, from `from` on.
    fn next_header(&mut self, from: u64, to: u64, salt: u64) -> Result<Option<u64>, QueueError> {
        let finder = memmem::Finder::new(&RECORD_MAGIC);
        let mut at = from;
        while to.saturating_sub(at) >= RECORD_HEADER_OCTETS as u64 {
            let piece = (to - at).min(WINDOW_OCTETS as u64) as usize;
            match finder.find(self.bytes(at, piece)?) {
                None => at += (piece - (RECORD_MAGIC.len() - 1)) as u64,
                Some(skip) => {
                    at += skip as u64;
                    let whole = to - at >= RECORD_HEADER_OCTETS as u64;
                    // A later release's header in the middle of garbage is garbage: content may hold one.
                    if whole && matches!(self.decode_header(at)?, HeaderBytes::Valid(header) if header.salt == salt) {
                        return Ok(Some(at));
                    }
                    at += 1;
                }
            }
        }
        Ok(None)
    }

    fn is_zero(&mut self, from: u64, to: u64) -> Result<bool, QueueError> {
        let mut at = from;
        while at < to {
            let piece = (to - at).min(WINDOW_OCTETS as u64) as usize;
            if self.bytes(at, piece)?.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += piece as u64;
        }
        Ok(true)
    }

    /// `octets` octets at `at`: a window's worth at most but for an envelope, whose length is bounded by itself.
    fn bytes(&mut self, at: u64, octets: usize) -> Result<&[u8], QueueError> {
        let end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + octets as u64 > end {
            self.window.resize(octets.max(WINDOW_OCTETS), 0);
            self.window_at = at;
            let failed = |error: io::Error| QueueError::io("read", &self.path, &error);
            let mut filled = 0;
            while filled < self.window.len() {
                match self.file.read_at(&mut self.window[filled..], at + filled as u64) {
                    Ok(0) => break,
                    Ok(some) => filled += some,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            self.window.truncate(filled);
            if filled < octets {
                self.window.clear();
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        let start = (at - self.window_at) as usize;
        Ok(&self.window[start..start + octets])
    }

    fn newer(&self, found: u16, newest: u16) -> QueueError {
        QueueError::Version(self.path.display().to_string().into(), found, newest)
    }
}

/// The path of a segment in one of the queue's directories.
pub(crate) fn segment_path(queue_directory: &Path, directory: &str, id: SegmentId) -> PathBuf {
    let mut path = queue_directory.join(directory);
    path.push(id.file_name());
    path
}
