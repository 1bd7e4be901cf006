//! Read a segment record by record, also when it is damaged.
//!
//! Every record found was checked whole. A record with a valid header and damaged bytes is bad, and the next one begins
//! where its header says. Without a valid header, the next one is searched for; the segment's salt ensures that content
//! is never taken for a record. A missing tail of the file was never committed.

use super::record::{HeaderBytes, RECORD_HEADER_OCTETS, RECORD_MAGIC, RECORD_VERSION, RecordHeader};
use crate::codec::Take;
use crate::mail::envelope::Envelope;
use crate::mail::locator::{Locator, SegmentId};
use crate::queue::disk::{Disk, Open};
use crate::queue::error::QueueError;
use crate::queue::segment::{SEGMENT_HEADER_OCTETS, SEGMENT_VERSION, SegmentBytes, SegmentHeader, is_live};
use memchr::memmem;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Octets of a segment in memory at a time.
const WINDOW_OCTETS: usize = 1024 * 1024;

/// A part of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A whole record.
    Record { locator: Locator, envelope: Envelope },
    /// Damaged octets of a record, or unknown octets.
    Bad { offset: u64, octets: u64, reason: String },
    /// An uncommitted tail.
    Torn { offset: u64, octets: u64 },
    /// An uncommitted tail of zeros: a killed writer had them ahead of its records.
    Zeros { offset: u64, octets: u64 },
}

/// A segment under its name, open for reading.
pub(crate) struct SegmentReader {
    disk: Arc<dyn Disk>,
    pub path: PathBuf,
    pub file: File,
    id: SegmentId,
    window: Vec<u8>,
    window_at: u64,
    /// The end of the part to read.
    to: u64,
}

impl SegmentReader {
    /// Open a segment; `None` when the file does not exist.
    pub(crate) fn open(disk: &Arc<dyn Disk>, path: PathBuf, id: SegmentId) -> Result<Option<Self>, QueueError> {
        match disk.open(&path, Open::Read) {
            Ok(file) => {
                let disk = Arc::clone(disk);
                Ok(Some(Self { disk, path, file, id, window: Vec::new(), window_at: 0, to: 0 }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(QueueError::io("open", &path, &error)),
        }
    }

    /// Whether its writer is alive.
    pub(crate) fn is_live(&self) -> bool {
        is_live(&self.file)
    }

    /// Return the octets of the file.
    pub(crate) fn octets(&self) -> Result<u64, QueueError> {
        Ok(self.file.metadata().map_err(|error| QueueError::io("stat", &self.path, &error))?.len())
    }

    /// Give `each` the parts of the octets from `from` (the end of a record, or anything up to the first record) to
    /// `to`, in order. `Version` for a record of a newer release.
    pub(crate) fn scan(&mut self, from: u64, to: u64, each: &mut dyn FnMut(Found)) -> Result<(), QueueError> {
        (self.to, self.window_at) = (to, 0);
        self.window.clear();
        let Some(salt) = self.salt(to)? else {
            if self.is_zero(0, to)? {
                each(Found::Zeros { offset: 0, octets: to });
            } else if to < (SEGMENT_HEADER_OCTETS + RECORD_HEADER_OCTETS) as u64 {
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
                if next.is_none() && self.is_zero(at, to)? {
                    each(Found::Zeros { offset: at, octets });
                } else if next.is_none() && octets < RECORD_HEADER_OCTETS as u64 {
                    each(Found::Torn { offset: at, octets });
                } else {
                    each(Found::Bad { offset: at, octets, reason: "no record header".into() });
                }
                at += octets;
                continue;
            };
            let octets = header.record_octets();
            if octets > to - at {
                each(Found::Torn { offset: at, octets: to - at });
                return Ok(());
            }
            each(self.record(at, octets, &header)?);
            at += octets;
        }
        Ok(())
    }

    /// Give `each` the whole records from `from` to `to` in a segment that is being written, up to the first octets
    /// that are no record, or until `each` returns false.
    pub(crate) fn scan_written(
        &mut self,
        from: u64,
        to: u64,
        each: &mut dyn FnMut(Found) -> bool,
    ) -> Result<(), QueueError> {
        (self.to, self.window_at) = (to, 0);
        self.window.clear();
        if from >= to {
            return Ok(());
        }
        let Some(salt) = self.salt(to)? else { return Ok(()) };
        let mut at = from;
        while at < to
            && let Some(header) = self.header(at, to, salt)?
        {
            let octets = header.record_octets();
            if octets > to - at || !each(self.record(at, octets, &header)?) {
                break;
            }
            at += octets;
        }
        Ok(())
    }

    fn record(&mut self, at: u64, octets: u64, header: &RecordHeader) -> Result<Found, QueueError> {
        let (content, envelope) = (at + RECORD_HEADER_OCTETS as u64, at + header.envelope_at());
        let bad = |reason: &str| Ok(Found::Bad { offset: at, octets, reason: format!("{}: {reason}", header.id) });
        let mut crc = 0;
        let mut next = content;
        while next < envelope {
            let piece = (envelope - next).min(WINDOW_OCTETS as u64);
            crc = crc32c::crc32c_append(crc, self.bytes(next, piece as usize)?);
            next += piece;
        }
        if crc != header.content_crc {
            return bad("the content's checksum does not match");
        }
        let bytes = self.bytes(envelope, header.envelope_octets as usize)?;
        if crc32c::crc32c(bytes) != header.envelope_crc {
            return bad("the envelope's checksum does not match");
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

    /// Return the segment's salt: from its header or, if that is damaged, from the first record's.
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

    /// Return the offset of this segment's next header, from `from` on.
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
                    // A newer release's header in the middle of garbage is garbage: content may hold one.
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

    /// Return `octets` octets at `at`: at most a window, except for an envelope, which has a limit of its own.
    fn bytes(&mut self, at: u64, octets: usize) -> Result<&[u8], QueueError> {
        let end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + octets as u64 > end {
            let ahead = self.to.saturating_sub(at).min(WINDOW_OCTETS as u64) as usize;
            self.window.resize(octets.max(ahead), 0);
            self.window_at = at;
            let failed = |error: io::Error| QueueError::io("read", &self.path, &error);
            let mut filled = 0;
            while filled < self.window.len() {
                match self.disk.read_at(&self.file, &mut self.window[filled..], at + filled as u64) {
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

/// Return the path of a segment in one of the queue's directories.
pub(crate) fn segment_path(queue_directory: &Path, directory: &str, id: SegmentId) -> PathBuf {
    let mut path = queue_directory.join(directory);
    path.push(id.file_name());
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::id::QueueId;
    use crate::queue::disk::RealDisk;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, commit, commit_with_head};
    use proptest::prelude::*;
    use std::fs;

    /// A segment with these contents: its bytes, and the offset of each record.
    struct Sample {
        directory: Directory,
        path: PathBuf,
        bytes: Vec<u8>,
        records: Vec<(Locator, QueueId)>,
    }

    fn sample(contents: &[&[u8]]) -> Sample {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let completions: Vec<_> = contents
            .iter()
            .map(|content| {
                let (head, body) = content.split_at(content.len() / 3);
                commit_with_head(&journal, head, body)
            })
            .collect();
        let records: Vec<_> = completions.into_iter().map(|c| (c.result.unwrap(), c.id)).collect();
        let path = segment_path(directory.path(), "incoming", records[0].0.segment);
        Sample { bytes: fs::read(&path).unwrap(), directory, path, records }
    }

    impl Sample {
        fn scan(&self, bytes: &[u8]) -> Result<Vec<Found>, QueueError> {
            let path = self.directory.path().join("damaged");
            fs::write(&path, bytes).unwrap();
            let mut found = Vec::new();
            let mut reader = SegmentReader::open(&RealDisk::shared(), path, self.records[0].0.segment)?.unwrap();
            reader.scan(0, bytes.len() as u64, &mut |what| found.push(what))?;
            Ok(found)
        }

        fn ids(found: &[Found]) -> Vec<(Locator, QueueId)> {
            let record = |what: &Found| match what {
                Found::Record { locator, envelope } => Some((*locator, envelope.id)),
                _ => None,
            };
            found.iter().filter_map(record).collect()
        }
    }

    #[test]
    fn a_tail_torn_at_any_byte_costs_no_committed_record() {
        let sample = sample(&[b"one\r\n", b"", b"three\r\n"]);
        for end in 0..=sample.bytes.len() {
            let found = sample.scan(&sample.bytes[..end]).unwrap();
            let whole = |(at, _): &&(Locator, QueueId)| at.offset + at.record_octets <= end as u64;
            let expected: Vec<_> = sample.records.iter().filter(whole).copied().collect();
            assert_eq!(Sample::ids(&found), expected, "cut at {end}");
            assert!(!found.iter().any(|what| matches!(what, Found::Bad { .. })), "cut at {end}");
            // A crash may leave blocks behind a cut that were never written.
            let mut zeros = sample.bytes[..end].to_vec();
            zeros.resize(end + 5000, 0);
            let found = Sample::ids(&sample.scan(&zeros).unwrap());
            assert_eq!(found[..expected.len()], expected, "zeros from {end}");
        }
    }

    #[test]
    fn content_in_the_form_of_a_record_is_never_taken_for_one() {
        let forged = sample(&[b"forged"]);
        let mut content = vec![b'x'; 100];
        content.extend_from_slice(&forged.bytes);
        content.extend_from_slice(&RECORD_MAGIC.repeat(20));
        let sample = sample(&[b"one", &content, b"three"]);
        let mut damaged = sample.bytes.clone();
        damaged[sample.records[1].0.offset as usize + 20] ^= 1;
        let found = sample.scan(&damaged).unwrap();
        assert_eq!(Sample::ids(&found), [sample.records[0], sample.records[2]]);
        let bad: Vec<_> = found.iter().filter(|what| matches!(what, Found::Bad { .. })).collect();
        let (offset, octets) = (sample.records[1].0.offset, sample.records[1].0.record_octets);
        assert_eq!(bad, [&Found::Bad { offset, octets, reason: "no record header".into() }]);
    }

    #[test]
    fn a_record_longer_than_the_window_is_read_and_its_damage_is_found() {
        let content = vec![b'x'; WINDOW_OCTETS - 100];
        let options = JournalOptions { large_message_octets: u64::MAX, ..Default::default() };
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), options).unwrap();
        let one = commit(&journal, &[&content[..], &content, &content].concat()).result.unwrap();
        let two = commit(&journal, b"two").result.unwrap();
        let path = segment_path(directory.path(), "incoming", one.segment);
        let bytes = fs::read(&path).unwrap();
        let sample = Sample { directory, path, bytes, records: vec![(one, QueueId(0)), (two, QueueId(0))] };
        let places = |bytes: &[u8]| -> Vec<_> {
            Sample::ids(&sample.scan(bytes).unwrap()).into_iter().map(|(at, _)| at).collect()
        };
        assert_eq!(places(&sample.bytes), [one, two]);
        for at in [one.offset as usize + 30, one.offset as usize + 2 * WINDOW_OCTETS] {
            let mut damaged = sample.bytes.clone();
            damaged[at] ^= 4;
            assert_eq!(places(&damaged), [two], "damage at {at}");
        }
    }

    #[test]
    fn a_record_of_a_newer_release_is_named() {
        let sample = sample(&[b"one", b"two"]);
        for (start, checked, newest) in [
            (0, SEGMENT_HEADER_OCTETS - 4, SEGMENT_VERSION),
            (sample.records[1].0.offset as usize, RECORD_HEADER_OCTETS - 4, RECORD_VERSION),
        ] {
            let mut newer = sample.bytes.clone();
            newer[start + 4] = 7;
            let crc = crc32c::crc32c(&newer[start..start + checked]).to_le_bytes();
            newer[start + checked..start + checked + 4].copy_from_slice(&crc);
            let error = sample.scan(&newer).unwrap_err();
            assert!(matches!(error, QueueError::Version(_, 7, version) if version == newest), "{error}");
            assert!(error.to_string().contains("start the newer release"), "{error}");
        }
        assert!(sample.path.exists());
    }

    #[test]
    fn a_file_without_a_header_is_bad_and_a_file_of_zeros_is_empty() {
        let sample = sample(&[b"one"]);
        let garbage = vec![b'g'; 500];
        assert!(matches!(sample.scan(&garbage).unwrap()[..], [Found::Bad { offset: 0, octets: 500, .. }]));
        assert_eq!(sample.scan(&[0; 500]).unwrap(), [Found::Zeros { offset: 0, octets: 500 }]);
        assert_eq!(sample.scan(b"").unwrap(), [Found::Zeros { offset: 0, octets: 0 }]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn damage_costs_the_records_that_it_hits_and_no_other(
            hits in proptest::collection::vec((0usize..10_000, 1u8..), 1..6),
        ) {
            let sample = sample(&[b"one\r\n", &[b'2'; 300], b"", b"four\r\n"]);
            let mut damaged = sample.bytes.clone();
            for (at, flip) in &hits {
                let at = at % damaged.len();
                damaged[at] ^= flip;
            }
            let same = |at: &Locator| {
                let range = at.offset as usize..(at.offset + at.record_octets) as usize;
                damaged[range.clone()] == sample.bytes[range]
            };
            let expected: Vec<_> = sample.records.iter().filter(|(at, _)| same(at)).copied().collect();
            let found = sample.scan(&damaged).unwrap();
            let (head, first) = (SEGMENT_HEADER_OCTETS, SEGMENT_HEADER_OCTETS + RECORD_HEADER_OCTETS);
            // Only damage in both copies of the salt puts the whole segment aside.
            if damaged[..head] != sample.bytes[..head] && damaged[head..first] != sample.bytes[head..first] {
                prop_assert_eq!(found.len(), 1);
            } else {
                prop_assert_eq!(Sample::ids(&found), expected);
                let octets: u64 = found.iter().map(|what| match what {
                    Found::Record { locator, .. } => locator.record_octets,
                    Found::Bad { octets, .. } | Found::Torn { octets, .. } | Found::Zeros { octets, .. } => *octets,
                }).sum();
                prop_assert_eq!(octets as usize, sample.bytes.len() - SEGMENT_HEADER_OCTETS);
            }
        }
    }
}
