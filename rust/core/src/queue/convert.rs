//! Write the queue in the form of older releases, while no program uses it (`postillion queue --convert v1`).
//!
//! Version 1 has the content of a message in one piece, so the head moves ahead of the body. Offsets, lengths, salts
//! and IDs stay, and so the state log holds as it is. Each segment is written to `new.ID`, synced, and renamed over the
//! old one: after a crash or an error every segment has one form or the other, this release reads both, and the next
//! conversion goes on. A probe (`sendmail -bv`) and a message with REQUIRETLS have no form in version 1: a conversion
//! waits until they are done, and an older release takes the record of one that has ended for damage. Damaged records
//! stay damaged. An uncommitted tail is cut, because an older release would refuse its segment.

use super::disk::{Disk, Open, RealDisk, names, read_exact, write_all};
use super::error::QueueError;
use super::segment::checksum::combine;
use super::segment::record::{HeaderBytes, RECORD_HEADER_OCTETS, RECORD_WITHOUT_HEAD, RecordHeader};
use super::segment::scan::{Found, SegmentReader};
use super::segment::{
    NEW_PREFIX, SEGMENT_HEADER_OCTETS, SEGMENT_WITHOUT_HEADS, SegmentBytes, SegmentHeader, create_locked, is_live,
    make_directory,
};
use super::store::disk_store::take_lock;
use super::store::recovery::{facts, segments};
use super::{ACTIVE, DEFERRED, INCOMING};
use crate::mail::id::QueueId;
use crate::mail::locator::SegmentId;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;
use std::sync::Arc;

/// Octets copied at a time.
const PIECE_OCTETS: usize = 256 * 1024;
/// Kinds of messages that version 1 does not have.
const PROBE: &str = "an address probe (sendmail -bv)";
const REQUIRETLS: &str = "a message with REQUIRETLS";

/// The result of a conversion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Converted {
    /// Number of segments that changed.
    pub segments: u64,
    /// Number of records that changed, with those of finished messages.
    pub records: u64,
}

/// Convert every segment of the queue to version 1. Errors: `Locked` while a queue manager runs, `Io` while another
/// process receives mail or for a probe, and `Version` for a segment of a newer release; then the other segments may
/// be converted.
pub fn convert_to_v1(queue_directory: &Path) -> Result<Converted, QueueError> {
    convert_on(&RealDisk::shared(), queue_directory)
}

pub(crate) fn convert_on(disk: &Arc<dyn Disk>, queue_directory: &Path) -> Result<Converted, QueueError> {
    make_directory(&**disk, queue_directory, ACTIVE)?;
    let _lock = take_lock(&**disk, queue_directory)?;
    for directory in [INCOMING, DEFERRED].map(|name| queue_directory.join(name)) {
        for name in names(&**disk, &directory)? {
            refuse_live(&**disk, &directory.join(name))?;
        }
    }
    let mut converted = Converted::default();
    for (directory, id, path) in segments(&**disk, queue_directory)? {
        let Some(reader) = SegmentReader::open(disk, path, id)? else { continue };
        let mut segment = Segment { disk: &**disk, directory: &queue_directory.join(directory), id, reader };
        refuse_new(&**disk, queue_directory, &mut segment)?;
        let records = segment.convert()?;
        converted.records += records.unwrap_or(0);
        converted.segments += u64::from(records.is_some());
    }
    // Once more: an earlier run may have ended between a rename and its sync.
    for directory in [INCOMING, DEFERRED].map(|name| queue_directory.join(name)) {
        if directory.exists() {
            disk.sync_directory(&directory).map_err(|error| QueueError::io("sync", &directory, &error))?;
        }
    }
    Ok(converted)
}

/// A process that receives mail holds its segment and its slot.
fn refuse_live(disk: &dyn Disk, path: &Path) -> Result<(), QueueError> {
    let file = match disk.open(path, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(QueueError::io("open", path, &error)),
    };
    if is_live(&file) {
        let text = format!("{}: a process still receives mail: stop the mail system first", path.display());
        return Err(QueueError::Io(io::ErrorKind::ResourceBusy, text.into()));
    }
    Ok(())
}

/// A probe or a message with REQUIRETLS that is not done must not meet an older release, even though that delivers
/// none.
fn refuse_new(disk: &dyn Disk, queue_directory: &Path, segment: &mut Segment<'_>) -> Result<(), QueueError> {
    let strange = segment.strange()?;
    if strange.is_empty() {
        return Ok(());
    }
    let known = facts(disk, queue_directory)?.messages;
    match strange.iter().find(|(id, recipients, _)| known.get(id).is_none_or(|known| !known.is_over(*recipients))) {
        None => Ok(()),
        Some((id, _, what)) => {
            let text = format!(
                "{id} is {what}, which version 1 does not have: run the mail system until it is done, or remove it with \
                 postsuper -d"
            );
            Err(QueueError::Io(io::ErrorKind::Unsupported, text.into()))
        }
    }
}

/// One segment that is converted.
struct Segment<'a> {
    disk: &'a dyn Disk,
    directory: &'a Path,
    id: SegmentId,
    reader: SegmentReader,
}

impl Segment<'_> {
    /// Write the segment anew; return the number of its records. `None` if it has version 1 already.
    fn convert(mut self) -> Result<Option<u64>, QueueError> {
        let (records, end) = self.records()?;
        let header = self.header()?;
        if records.is_empty() && header.is_none() {
            return Ok(None);
        }
        let leftover = self.directory.join(format!("{NEW_PREFIX}{}", self.id.file_name()));
        match self.disk.remove(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(QueueError::io("remove", &leftover, &error));
            }
            _ => {}
        }
        let (file, path) = create_locked(self.disk, self.directory, self.id)?;
        let written = self.write(&file, header, &records, end);
        let finished = written.and_then(|()| {
            // For root, who runs the command, the file would be root's.
            let metadata = self.reader.file.metadata();
            let owned = metadata.and_then(|was| fchown(&file, Some(was.uid()), Some(was.gid())));
            owned.map_err(|error| QueueError::io("change the owner of", &path, &error))?;
            self.disk.sync_data(&file).map_err(|error| QueueError::io("sync", &path, &error))?;
            self.disk.rename(&path, &self.reader.path).map_err(|error| QueueError::io("rename", &path, &error))
        });
        if let Err(error) = finished {
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        Ok(Some(records.len() as u64))
    }

    /// Return the probes and the messages with REQUIRETLS, with their numbers of recipients and a name of their kind.
    fn strange(&mut self) -> Result<Vec<(QueueId, usize, &'static str)>, QueueError> {
        let (octets, mut strange) = (self.reader.octets()?, Vec::new());
        self.reader.scan(SEGMENT_HEADER_OCTETS as u64, octets, &mut |found| match found {
            Found::Record { envelope, .. } if envelope.is_probe() => {
                strange.push((envelope.id, envelope.recipients.len(), PROBE));
            }
            Found::Record { envelope, .. } if envelope.requiretls => {
                strange.push((envelope.id, envelope.recipients.len(), REQUIRETLS));
            }
            _ => {}
        })?;
        Ok(strange)
    }

    /// Return the records with a header of version 2, damaged or not, and the end of what was committed.
    fn records(&mut self) -> Result<(Vec<(u64, RecordHeader)>, u64), QueueError> {
        let octets = self.reader.octets()?;
        let (mut places, mut end) = (Vec::new(), octets);
        self.reader.scan(SEGMENT_HEADER_OCTETS as u64, octets, &mut |found| match found {
            Found::Record { locator, .. } => places.push((locator.offset, locator.record_octets)),
            Found::Bad { offset, octets, .. } => places.push((offset, octets)),
            Found::Torn { offset, .. } => end = offset,
            Found::Zeros { .. } => {}
        })?;
        let mut records = Vec::new();
        for (at, octets) in places {
            if octets < RECORD_HEADER_OCTETS as u64 {
                continue;
            }
            let mut bytes = [0; RECORD_HEADER_OCTETS];
            self.read(&mut bytes, at)?;
            if let HeaderBytes::Valid(header) = RecordHeader::decode(&bytes)
                && header.record_octets() == octets
                && version(&bytes) > RECORD_WITHOUT_HEAD
            {
                records.push((at, header));
            }
        }
        Ok((records, end))
    }

    /// Return the segment's header; `None` if it has version 1 or is damaged.
    fn header(&self) -> Result<Option<SegmentHeader>, QueueError> {
        let mut bytes = [0; SEGMENT_HEADER_OCTETS];
        if self.reader.octets()? < bytes.len() as u64 {
            return Ok(None);
        }
        self.read(&mut bytes, 0)?;
        match SegmentHeader::decode(&bytes) {
            SegmentBytes::Valid(header) if version(&bytes) > SEGMENT_WITHOUT_HEADS => Ok(Some(header)),
            _ => Ok(None),
        }
    }

    fn write(
        &self,
        file: &File,
        header: Option<SegmentHeader>,
        records: &[(u64, RecordHeader)],
        end: u64,
    ) -> Result<(), QueueError> {
        let mut at = 0;
        if let Some(header) = header {
            self.put(file, &header.encode_as(SEGMENT_WITHOUT_HEADS), 0)?;
            at = SEGMENT_HEADER_OCTETS as u64;
        }
        for (offset, header) in records {
            // Octets between the records that no reader understands.
            self.copy(file, at, at, offset - at)?;
            self.record(file, *offset, header)?;
            at = offset + header.record_octets();
        }
        self.copy(file, at, at, end.saturating_sub(at))?;
        Ok(())
    }

    /// Write a record with its head ahead of its body.
    fn record(&self, file: &File, at: u64, header: &RecordHeader) -> Result<(), QueueError> {
        let RecordHeader { body_octets, head_octets, envelope_octets, .. } = *header;
        let to = at + RECORD_HEADER_OCTETS as u64;
        let head = u64::from(head_octets);
        let head_crc = self.copy(file, at + header.head_at(), to, head)?;
        let body_crc = self.copy(file, to, to + head, body_octets)?;
        let envelope = at + header.envelope_at();
        self.copy(file, envelope, envelope, envelope_octets.into())?;
        let is_whole = combine(body_crc, head_crc, head_octets as usize) == header.content_crc;
        let content_crc = combine(head_crc, body_crc, body_octets as usize);
        let converted = RecordHeader {
            body_octets: header.content_octets(),
            head_octets: 0,
            // A damaged content must not become a valid one.
            content_crc: if is_whole { content_crc } else { !content_crc },
            ..*header
        };
        self.put(file, &converted.encode_as(RECORD_WITHOUT_HEAD), at)
    }

    /// Copy octets of the old file; return their checksum.
    fn copy(&self, file: &File, from: u64, to: u64, octets: u64) -> Result<u32, QueueError> {
        let mut buffer = vec![0; octets.min(PIECE_OCTETS as u64) as usize];
        let (mut copied, mut crc) = (0, 0);
        while copied < octets {
            let piece = (octets - copied).min(PIECE_OCTETS as u64) as usize;
            self.read(&mut buffer[..piece], from + copied)?;
            self.put(file, &buffer[..piece], to + copied)?;
            crc = crc32c::crc32c_append(crc, &buffer[..piece]);
            copied += piece as u64;
        }
        Ok(crc)
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), QueueError> {
        read_exact(self.disk, &self.reader.file, buffer, at)
            .map_err(|error| QueueError::io("read", &self.reader.path, &error))
    }

    fn put(&self, file: &File, octets: &[u8], at: u64) -> Result<(), QueueError> {
        let written = write_all(self.disk, file, &[octets], at);
        written.map(drop).map_err(|error| QueueError::io("convert", &self.reader.path, &error))
    }
}

/// Return the version in a header of either kind: it has the same place in all versions.
fn version(header: &[u8]) -> u16 {
    u16::from_le_bytes([header[4], header[5]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::envelope::Envelope;
    use crate::mail::locator::Locator;
    use crate::mail::trace::Trace;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Call, Directory, Fault, Faulty, commit_with_head, crash_image, envelope};
    use crate::queue::{Fact, Spool, read_content};
    use rustix::io::Errno;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::FileExt;

    const LARGE_OCTETS: u64 = 2000;

    type Contents = BTreeMap<QueueId, Vec<u8>>;

    fn journal(directory: &Directory) -> Journal {
        let options =
            JournalOptions { large_message_octets: LARGE_OCTETS, segment_max_octets: 3000, ..Default::default() };
        Journal::open(directory.path(), options).unwrap()
    }

    /// A queue with small and large messages in several segments; one message is deferred, one removed.
    fn queue() -> (Directory, Contents) {
        let directory = Directory::new();
        let journal = journal(&directory);
        let mut contents = Contents::new();
        for (n, (head, body)) in
            [(0, 0), (30, 0), (0, 30), (40, 900), (700, 1500), (9, 5000), (600_000, 700_000)].into_iter().enumerate()
        {
            let octets = |count: usize, from: usize| (0..count).map(|at| ((at + from) % 251) as u8).collect::<Vec<_>>();
            let (head, body) = (octets(head, n), octets(body, 100 + n));
            let id = commit_with_head(&journal, &head, &body).id;
            contents.insert(id, [head, body].concat());
        }
        journal.close();
        let (mut spool, stored) = Spool::open(directory.path()).unwrap();
        let id = |n: usize| stored[n].arrival.envelope.id;
        spool.note_all(&[
            Fact::Removed { id: id(1) },
            Fact::Deferred { id: id(3), attempts: 2, next_attempt_us: u64::MAX / 2, reasons: vec![] },
        ]);
        contents.remove(&id(1));
        (directory, contents)
    }

    /// Return the contents that a queue manager finds after a crash.
    fn found(directory: &Directory) -> Contents {
        let image = crash_image(directory);
        let (spool, stored) = Spool::open(image.path()).unwrap();
        let content = |at: &Locator| read_content(image.path(), &spool.path(at.segment), at).unwrap();
        let arrivals = stored.iter().map(|stored| &stored.arrival);
        arrivals.map(|arrival| (arrival.envelope.id, content(&arrival.locator))).collect()
    }

    /// Read a segment as releases before version 2 did: one content in a record, whole and checked.
    fn read_as_version_1(path: &Path) -> Contents {
        let octets = fs::read(path).unwrap();
        let number = |at: usize| u64::from_le_bytes(octets[at..at + 8].try_into().unwrap());
        let short = |at: usize| u32::from_le_bytes(octets[at..at + 4].try_into().unwrap());
        assert_eq!((&octets[..4], short(4)), (&b"\x93PSG"[..], 1));
        assert_eq!(short(28), crc32c::crc32c(&octets[..28]));
        let (salt, mut at, mut contents) = (number(16), 32, Contents::new());
        while at < octets.len() {
            assert_eq!((&octets[at..at + 4], short(at + 4)), (&b"\x93PRC"[..], 1), "{} at {at}", path.display());
            assert_eq!((number(at + 8), short(at + 44)), (salt, crc32c::crc32c(&octets[at..at + 44])));
            let (content, envelope) = (number(at + 24) as usize, short(at + 32) as usize);
            let content = &octets[at + 48..at + 48 + content];
            let behind = at + 48 + content.len();
            assert_eq!(short(at + 36), crc32c::crc32c(content));
            assert_eq!(short(at + 40), crc32c::crc32c(&octets[behind..behind + envelope]));
            contents.insert(QueueId(number(at + 16)), content.to_vec());
            at = behind + envelope;
        }
        contents
    }

    fn converted(directory: &Directory) -> Contents {
        directory.files(INCOMING).iter().flat_map(|path| read_as_version_1(path)).collect()
    }

    #[test]
    fn a_converted_queue_is_that_of_an_older_release() {
        let (directory, contents) = queue();
        let lengths = |directory: &Directory| -> Vec<u64> {
            directory.files(INCOMING).iter().map(|path| fs::metadata(path).unwrap().len()).collect()
        };
        let before = lengths(&directory);
        let segments = before.len() as u64;
        assert!(segments >= 3);
        assert_eq!(convert_to_v1(directory.path()), Ok(Converted { segments, records: 7 }));
        assert_eq!(lengths(&directory), before, "every place stays");
        let mut all = converted(&directory);
        assert_eq!(all.len(), 7);
        all.retain(|id, _| contents.contains_key(id));
        assert!(all == contents);
        assert!(found(&directory) == contents, "this release reads it, too");
        assert_eq!(convert_to_v1(directory.path()), Ok(Converted::default()), "once");
        assert!(directory.files(INCOMING).iter().all(|path| !path.to_str().unwrap().contains(NEW_PREFIX)));
    }

    #[test]
    fn a_conversion_goes_on_after_any_call_failed() {
        let (original, contents) = queue();
        let mut failures = 0;
        for call in [Call::Open, Call::Read, Call::Write, Call::Sync, Call::Rename, Call::SyncDirectory] {
            for at in 1.. {
                let directory = crash_image(&original);
                let disk = Arc::new(Faulty::default());
                disk.fail(Fault { call, at, lasts: 1, errno: Some(Errno::IO) });
                let shared = Arc::clone(&disk) as Arc<dyn Disk>;
                let result = convert_on(&shared, directory.path());
                if disk.count(call) < at {
                    assert!(result.is_ok() && at > 1, "{call:?}");
                    break;
                }
                failures += u32::from(result.is_err());
                assert!(found(&directory) == contents, "{call:?} {at}");
                disk.heal();
                convert_on(&shared, directory.path()).unwrap();
                assert_eq!(converted(&directory).len(), 7, "{call:?} {at}");
                assert_eq!(disk.again(), 0);
            }
        }
        assert!(failures > 50, "{failures}");
    }

    #[test]
    fn damaged_records_stay_damaged_and_torn_tails_are_cut() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let places: Vec<_> = (0..5)
            .map(|n| commit_with_head(&journal, &[b'h'; 50], &[n; 50]))
            .map(|c| (c.id, c.result.unwrap()))
            .collect();
        drop(journal);
        let path = directory.files(INCOMING).remove(0);
        let file = File::options().write(true).open(&path).unwrap();
        let change = |record: usize, at: u64| {
            file.write_all_at(b"!", places[record].1.offset + at).unwrap();
        };
        change(0, RECORD_HEADER_OCTETS as u64 + 70);
        change(1, 9);
        change(3, places[3].1.record_octets - 1);
        file.set_len(places[4].1.offset + 90).unwrap();
        let survivor = Contents::from([(places[2].0, [[b'h'; 50], [2; 50]].concat())]);
        assert!(found(&directory) == survivor);
        assert_eq!(convert_to_v1(directory.path()).map(|converted| converted.records), Ok(3));
        assert!(found(&directory) == survivor);
        assert_eq!(fs::metadata(&path).unwrap().len(), places[4].1.offset);
        let octets = fs::read(&path).unwrap();
        for (record, expected) in [(0, 1), (2, 1), (3, 1)] {
            assert_eq!(version(&octets[places[record].1.offset as usize..]), expected);
        }
    }

    #[test]
    fn a_probe_waits_for_its_report_before_a_conversion() {
        let (directory, _) = queue();
        let journal = journal(&directory);
        let draft = journal.draft().unwrap();
        let id = draft.id();
        let probe = Envelope { trace: Trace::Probe, ..envelope(id, 2) };
        journal.commit(draft, b"Subject: probe\r\n\r\n", &probe, 0);
        assert!(journal.wait(std::time::Duration::from_secs(60))[0].result.is_ok());
        drop(journal);
        let error = convert_to_v1(directory.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{id} is an address probe (sendmail -bv)")), "{error}");
        let (mut spool, stored) = Spool::open(directory.path()).unwrap();
        assert!(stored.iter().any(|stored| stored.arrival.envelope == probe));
        spool.note(Fact::Done { id, recipients: vec![0].into() });
        drop(spool);
        assert!(convert_to_v1(directory.path()).is_err(), "one of two recipients");
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        spool.note(Fact::Done { id, recipients: vec![1].into() });
        drop(spool);
        assert!(convert_to_v1(directory.path()).is_ok());
    }

    #[test]
    fn a_message_with_requiretls_is_not_converted() {
        let (directory, _) = queue();
        let journal = journal(&directory);
        let draft = journal.draft().unwrap();
        let id = draft.id();
        let message = Envelope { requiretls: true, ..envelope(id, 1) };
        journal.commit(draft, b"Subject: x\r\n\r\n", &message, 0);
        assert!(journal.wait(std::time::Duration::from_secs(60))[0].result.is_ok());
        drop(journal);
        let error = convert_to_v1(directory.path()).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{id} is a message with REQUIRETLS, which version 1 does not have")),
            "{error}"
        );
        let (mut spool, stored) = Spool::open(directory.path()).unwrap();
        assert!(stored.iter().any(|stored| stored.arrival.envelope == message), "it is read back");
        spool.note(Fact::Done { id, recipients: vec![0].into() });
        drop(spool);
        assert!(convert_to_v1(directory.path()).is_ok());
    }

    #[test]
    fn a_queue_in_use_is_not_converted() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        commit_with_head(&journal, b"A: b\r\n\r\n", b"x\r\n");
        let octets = fs::read(&directory.files(INCOMING)[0]).unwrap();
        let error = convert_to_v1(directory.path()).unwrap_err();
        assert!(error.to_string().contains("stop the mail system first"), "{error}");
        drop(journal);
        let (spool, _) = Spool::open(directory.path()).unwrap();
        assert!(matches!(convert_to_v1(directory.path()), Err(QueueError::Locked(_))));
        assert_eq!(fs::read(&directory.files(INCOMING)[0]).unwrap(), octets);
        drop(spool);
        assert_eq!(convert_to_v1(directory.path()), Ok(Converted { segments: 1, records: 1 }));
        assert_eq!(convert_to_v1(Directory::new().path()), Ok(Converted::default()), "an empty queue");
    }
}
