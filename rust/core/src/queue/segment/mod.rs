//! A segment file: a header of 32 octets, then records to the end.
//!
//! A file is created as `new.ID`, locked, and then renamed to `ID`. So the writer of a segment that has its name and
//! can be locked is dead or done. The segment of one large message keeps the name `new.ID` until it is committed. After
//! a failed write or sync a file is never written or synced again: Linux marks the lost pages clean, and a second sync
//! would report success.
//!
//! A sync of a file that has grown also commits the file system's journal, which takes as long again. So a busy segment
//! has zeros ahead of its records, which are synced with one of them. Sealing cuts them; zeros that stay are read as
//! nothing.
//!
//! ```text
//! record      one message in a segment
//! content     its content for delivery, checked
//! checksum    the checksum of two pieces from those of each piece
//! fields      its envelope field by field
//! recipients  some of the recipients of a large envelope
//! envelopes   envelopes one after the other
//! files       segments kept open for reading
//! scan        a segment record by record, also when it is damaged
//! corrupt     copies of damaged octets
//! ```

pub(crate) mod checksum;
pub mod content;
pub(crate) mod corrupt;
pub mod envelopes;
pub mod fields;
pub mod files;
pub mod recipients;
pub(crate) mod record;
pub(crate) mod scan;

use crate::codec::Put;
use crate::mail::locator::SegmentId;
use crate::queue::disk::{Disk, Open, write_all};
use crate::queue::error::QueueError;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

/// First bytes of every segment.
pub(crate) const SEGMENT_MAGIC: [u8; 4] = *b"\x93PSG";
/// The segment version of this release.
pub(crate) const SEGMENT_VERSION: u16 = 2;
/// The version whose records have no head, for older releases.
pub(crate) const SEGMENT_WITHOUT_HEADS: u16 = 1;
/// Octets of a segment header; the first record follows it.
pub(crate) const SEGMENT_HEADER_OCTETS: usize = 32;
/// Prefix of the name of a file that is not valid yet.
pub(crate) const NEW_PREFIX: &str = "new.";

/// Maximum number of octets of zeros in one write.
pub(crate) const AHEAD_PIECE_MAX_OCTETS: u64 = 64 * 1024;
/// Maximum number of such writes ahead of the records, and minimum octets of records for each octet of zeros.
const AHEAD_PIECES_MAX: u64 = 8;
static ZEROS: [u8; AHEAD_PIECE_MAX_OCTETS as usize] = [0; AHEAD_PIECE_MAX_OCTETS as usize];

const CHECKED_OCTETS: usize = SEGMENT_HEADER_OCTETS - 4;

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub id: SegmentId,
    pub salt: u64,
}

/// The meaning of the first 32 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentBytes {
    Valid(SegmentHeader),
    Newer(u16),
    Invalid,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_OCTETS] {
        self.encode_as(SEGMENT_VERSION)
    }

    /// Encode for a release of this version: only the versions of the records differ.
    pub(crate) fn encode_as(&self, version: u16) -> [u8; SEGMENT_HEADER_OCTETS] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_OCTETS);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.put_u16(version);
        out.put_u16(0);
        out.put_u64(self.id.0);
        out.put_u64(self.salt);
        out.put_u32(0);
        out.put_u32(crc32c::crc32c(&out));
        out.try_into().expect("the fields add up to a header")
    }

    /// Read a header. Magic, version and the place of the checksum are the same in every later version.
    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_OCTETS]) -> SegmentBytes {
        let (checked, crc) = bytes.split_at(CHECKED_OCTETS);
        if bytes[..4] != SEGMENT_MAGIC || crc != crc32c::crc32c(checked).to_le_bytes() {
            return SegmentBytes::Invalid;
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version > SEGMENT_VERSION {
            return SegmentBytes::Newer(version);
        }
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight octets"));
        SegmentBytes::Valid(Self { id: SegmentId(number(8)), salt: number(16) })
    }
}

/// The writer's side of a segment. The lock lasts until this is dropped.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    header: SegmentHeader,
    directory: PathBuf,
    file: File,
    end: u64,
    /// The octets of the file: records, and zeros ahead of them.
    length: u64,
    /// The committed octets of records; nothing is committed before the header is.
    records: u64,
}

impl SegmentFile {
    /// Create an empty segment under its final name, locked.
    pub(crate) fn create(disk: &dyn Disk, directory: &Path, id: SegmentId) -> Result<Self, QueueError> {
        let (file, new_path) = create_locked(disk, directory, id)?;
        let path = directory.join(id.file_name());
        if let Err(error) = disk.rename(&new_path, &path) {
            let _ = disk.remove(&new_path);
            return Err(QueueError::io("rename to", &path, &error));
        }
        let header = SegmentHeader { id, salt: random_salt() };
        let end = SEGMENT_HEADER_OCTETS as u64;
        Ok(Self { header, directory: directory.to_path_buf(), file, end, length: 0, records: 0 })
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.header.id
    }

    pub(crate) fn salt(&self) -> u64 {
        self.header.salt
    }

    /// Return the committed octets, which is the offset of the next record.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    fn path(&self) -> PathBuf {
        self.directory.join(self.header.id.file_name())
    }

    /// Append `count` whole records and make them stable, all or none.
    ///
    /// The first append also writes the header and makes the file's name stable. After an error only `abandon` is
    /// allowed.
    pub(crate) fn append(&mut self, disk: &dyn Disk, records: &[&[u8]], count: u64) -> Result<(), QueueError> {
        let first = self.is_empty();
        let written = if first {
            let header = self.header.encode();
            let mut buffers = Vec::with_capacity(records.len() + 1);
            buffers.push(&header[..]);
            buffers.extend_from_slice(records);
            write_all(disk, &self.file, &buffers, 0)
        } else {
            write_all(disk, &self.file, records, self.end)
        };
        let written = written.map_err(|error| QueueError::io("write", &self.path(), &error))?;
        disk.sync_data(&self.file).map_err(|error| QueueError::io("sync", &self.path(), &error))?;
        if first {
            disk.sync_directory(&self.directory).map_err(|error| QueueError::io("sync", &self.directory, &error))?;
            self.end = written;
        } else {
            self.end += written;
        }
        self.records += count;
        self.length = self.length.max(self.end);
        Ok(())
    }

    /// Write zeros where the next records go, in pieces of `piece` octets (0: none), if the segment is busy, but none
    /// beyond `limit`. After an error nothing may be appended any more; committed records are not affected.
    pub(crate) fn write_ahead(&mut self, disk: &dyn Disk, piece: u64, limit: u64) -> Result<(), QueueError> {
        let piece = piece.min(AHEAD_PIECE_MAX_OCTETS);
        let wanted = (self.end + (self.end / AHEAD_PIECES_MAX).min(AHEAD_PIECES_MAX * piece)).min(limit);
        let is_much = self.end >= AHEAD_PIECES_MAX * piece && self.length < self.end + piece;
        if piece == 0 || !is_much || wanted < self.length + piece {
            return Ok(());
        }
        let pieces = ((wanted - self.length) / piece) as usize;
        let from = self.length;
        // Also after a partial write: then `cut` knows that there is something to cut.
        self.length += pieces as u64 * piece;
        let written = write_all(disk, &self.file, &vec![&ZEROS[..piece as usize]; pieces], from);
        written.map(drop).map_err(|error| QueueError::io("write", &self.path(), &error))
    }

    /// Cut the zeros: nothing will be appended any more. If that fails they stay, and mean nothing.
    pub(crate) fn cut(&mut self, disk: &dyn Disk) {
        if self.length > self.end && disk.truncate(&self.file, self.end).is_ok() {
            self.length = self.end;
        }
    }

    /// Abandon the segment after an error: cut the uncommitted tail, or remove a file without committed records.
    /// Returns the end of the committed records, or `None` when the file is removed. A failed cut leaves a tail that
    /// was answered with an error: the queue manager learns the committed end and remembers it.
    pub(crate) fn abandon(self, disk: &dyn Disk) -> Option<u64> {
        if self.is_empty() {
            let gone = take_back(disk, &self.file, &self.path());
            return if gone { None } else { Some(SEGMENT_HEADER_OCTETS as u64) };
        }
        let _ = disk.truncate(&self.file, self.end);
        Some(self.end)
    }
}

/// Void a segment that was answered with an error as a whole. Returns false when it could neither be removed nor
/// emptied.
pub(crate) fn take_back(disk: &dyn Disk, file: &File, path: &Path) -> bool {
    let emptied = disk.truncate(file, 0).is_ok();
    disk.remove(path).is_ok() || emptied
}

/// Create a file `new.ID` and lock it.
pub(crate) fn create_locked(disk: &dyn Disk, directory: &Path, id: SegmentId) -> Result<(File, PathBuf), QueueError> {
    let path = directory.join(format!("{NEW_PREFIX}{}", id.file_name()));
    let file = disk.open(&path, Open::New).map_err(|error| QueueError::io("create", &path, &error))?;
    // No other process keeps the lock of such a file: a reader that tries it releases it at once.
    if let Err(error) = flock(&file, FlockOperation::LockExclusive) {
        let _ = disk.remove(&path);
        return Err(QueueError::io("lock", &path, &error.into()));
    }
    Ok((file, path))
}

/// Whether a writer still holds the file.
pub(crate) fn is_live(file: &File) -> bool {
    if flock(file, FlockOperation::NonBlockingLockShared).is_err() {
        return true;
    }
    let _ = flock(file, FlockOperation::Unlock);
    false
}

/// Return a number that no outsider can know: the standard library's hash keys come from the system's random source.
pub(crate) fn random_salt() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Create the queue's directory `name` if it does not exist, like Postfix: for its owner alone.
pub(crate) fn make_directory(disk: &dyn Disk, queue_directory: &Path, name: &str) -> Result<PathBuf, QueueError> {
    let path = queue_directory.join(name);
    match disk.make_directory(&path) {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(path),
        Err(error) => Err(QueueError::io("create", &path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::disk::RealDisk;
    use crate::queue::proofs::testing::{Directory, Faulty};
    use std::fs;
    use std::io::ErrorKind;

    #[test]
    fn a_header_is_read_back_and_no_flipped_bit_passes() {
        let header = SegmentHeader { id: SegmentId(0xab), salt: random_salt() };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), SegmentBytes::Valid(header));
        for bit in 0..SEGMENT_HEADER_OCTETS * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), SegmentBytes::Invalid, "bit {bit}");
        }
        assert_ne!(random_salt(), random_salt());
    }

    #[test]
    fn a_segment_is_live_while_its_writer_holds_it() {
        let directory = Directory::new();
        let segment = SegmentFile::create(&RealDisk, directory.path(), SegmentId(1)).unwrap();
        let found = File::open(directory.path().join(SegmentId(1).file_name())).unwrap();
        assert!(is_live(&found));
        drop(segment);
        assert!(!is_live(&found));
    }

    #[test]
    fn a_failed_append_leaves_only_the_committed_records() {
        let directory = Directory::new();
        let path = directory.path().join(SegmentId(1).file_name());
        for (name, disk) in [
            ("write", Faulty::failing_write(1, ErrorKind::StorageFull)),
            ("sync", Faulty::failing_sync(1, ErrorKind::Other)),
        ] {
            let mut segment = SegmentFile::create(&RealDisk, directory.path(), SegmentId(1)).unwrap();
            segment.append(&RealDisk, &[b"one"], 1).unwrap();
            assert!(segment.append(&disk, &[b"two"], 1).is_err(), "{name}");
            assert_eq!(segment.abandon(&RealDisk), Some(35), "{name}");
            assert_eq!(fs::read(&path).unwrap()[32..], *b"one", "{name}");
            fs::remove_file(&path).unwrap();
            let mut segment = SegmentFile::create(&RealDisk, directory.path(), SegmentId(1)).unwrap();
            let disk = Faulty::failing_sync(1, ErrorKind::Other);
            assert!(segment.append(&disk, &[b"one"], 1).is_err());
            assert_eq!(segment.abandon(&RealDisk), None, "{name}");
            assert!(!path.exists(), "{name}");
        }
    }

    #[test]
    fn a_busy_segment_has_zeros_ahead_until_it_is_sealed() {
        let directory = Directory::new();
        let path = directory.path().join(SegmentId(1).file_name());
        let length = || fs::metadata(&path).unwrap().len();
        let mut segment = SegmentFile::create(&RealDisk, directory.path(), SegmentId(1)).unwrap();
        let record = vec![1; 100_000];
        let mut grown = 0;
        for n in 0..100 {
            let before = length();
            segment.append(&RealDisk, &[&record], 1).unwrap();
            grown += u64::from(length() > before);
            segment.write_ahead(&RealDisk, AHEAD_PIECE_MAX_OCTETS, 8_000_000).unwrap();
            let most = AHEAD_PIECES_MAX * AHEAD_PIECE_MAX_OCTETS;
            assert!(length() <= segment.end() + most && length() <= 8_000_000.max(segment.end()), "{n}");
        }
        assert!(
            grown < 60,
            "most of the first eighty records found their place in a file that had it already: {grown}"
        );
        segment.append(&RealDisk, &[b"last"], 1).unwrap();
        segment.cut(&RealDisk);
        let written = fs::read(&path).unwrap();
        assert_eq!(written.len() as u64, segment.end());
        assert!(written[SEGMENT_HEADER_OCTETS..written.len() - 4].iter().all(|octet| *octet == 1));
    }

    #[test]
    fn a_failed_write_of_zeros_ends_the_segment_and_costs_no_record() {
        let directory = Directory::new();
        let mut segment = SegmentFile::create(&RealDisk, directory.path(), SegmentId(1)).unwrap();
        segment.append(&RealDisk, &[&vec![1; 600_000]], 1).unwrap();
        let disk = Faulty::failing_write(1, ErrorKind::StorageFull);
        assert_eq!(segment.write_ahead(&disk, AHEAD_PIECE_MAX_OCTETS, u64::MAX), Err(QueueError::NoSpace));
        segment.cut(&RealDisk);
        let path = directory.path().join(SegmentId(1).file_name());
        assert_eq!(fs::metadata(&path).unwrap().len(), segment.end());
    }
}
