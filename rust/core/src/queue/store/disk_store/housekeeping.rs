//! Housekeeping: remove empty segments, compact the state log, and move messages out of nearly empty segments.

use super::{DiskStore, Limits, Segment};
use crate::clock::Now;
use crate::mail::id::QueueId;
use crate::mail::locator::{Locator, SegmentId};
use crate::queue::catalogue::{Catalogue, Place};
use crate::queue::disk::Open;
use crate::queue::error::QueueError;
use crate::queue::segment::SegmentFile;
use crate::queue::segment::content::{ContentReader, read_envelope_bytes};
use crate::queue::segment::record::{RECORD_HEADER_OCTETS, RecordHeader};
use crate::queue::state::{Entry, Fact};
use crate::queue::{DEFERRED, INCOMING};
use std::io;

/// Age at which a segment's last messages may be moved.
pub(crate) const MOVE_AGE_US: u64 = 300_000_000;
/// Messages are moved when they fill less than one in `SPACE_RATIO` octets of their segment. So the files of the queue
/// are at most this many times as long as its messages, once all are sealed and old enough.
pub const SPACE_RATIO: u64 = 4;
/// Time for which a segment stays after its messages were moved, for agents that opened a job just before.
pub(crate) const RETIRE_AFTER_US: u64 = 300_000_000;
/// Age at which a segment under `deferred/` is sealed.
pub(crate) const DEFERRED_MAX_AGE_US: u64 = 3_600_000_000;

impl Default for Limits {
    fn default() -> Self {
        Self { deferred_max_octets: 32 * 1024 * 1024, move_max_octets: 4 * 1024 * 1024 }
    }
}

impl DiskStore {
    /// Do the housekeeping. Call it about once a second. Updates the places of moved messages in the catalogue.
    ///
    /// A failed system call is tried again at the next tick and reported by `take_notices`.
    pub fn tick(&mut self, catalogue: &mut Catalogue, now: Now) {
        self.unlink_empty(catalogue, now.wall_us);
        self.finish_log(false);
        if self.log.wants_compaction() {
            self.compact_log(catalogue, now);
        }
        let full = |(file, seal_at): &(SegmentFile, u64)| {
            file.end() >= self.limits.deferred_max_octets || *seal_at <= now.wall_us
        };
        if self.deferred.as_ref().is_some_and(full) {
            self.seal_deferred();
        }
        if let Err(error) = self.move_lingering(catalogue, now.wall_us) {
            self.notice(format!("{DEFERRED}: messages cannot be moved: {error}"));
        }
    }

    fn unlink_empty(&mut self, catalogue: &mut Catalogue, wall_now_us: u64) {
        let empty = |id: &SegmentId, segment: &Segment| {
            let read = segment.retire_at_us.is_none_or(|at| at <= wall_now_us);
            let live = catalogue.resident(*id).is_some_and(|resident| resident.live > 0);
            segment.sealed && !live && read && !segment.unread && !segment.damaged
        };
        let ids: Vec<SegmentId> = self.segments.iter().filter(|(id, s)| empty(id, s)).map(|(id, _)| *id).collect();
        for id in ids {
            let path = self.full_path(id);
            match self.disk.remove(&path) {
                Ok(()) => self.unlinked = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.notice(QueueError::io("remove", &path, &error).to_string());
                    continue;
                }
            }
            self.segments.remove(&id);
            catalogue.forget_segment(id);
        }
    }

    /// Start to compact the state log, in a thread: the caller only pays for a snapshot and the IDs of the messages
    /// that are gone.
    pub(crate) fn compact_log(&mut self, catalogue: &Catalogue, now: Now) {
        // Messages that were not read yet are missing from the catalogue.
        if self.loader.is_some() {
            return;
        }
        self.forget_facts();
        let gone = catalogue.all_gone();
        let ends: Vec<_> = self.segments.iter().filter_map(|(id, segment)| Some((*id, segment.end?))).collect();
        let unread: Vec<_> = self.facts.iter().filter(|(id, _)| catalogue.slot(**id).is_none()).collect();
        let unread: Vec<Fact> = unread.into_iter().flat_map(|(id, known)| known.facts(*id)).collect();
        let snapshot = catalogue.snapshot();
        // A segment that returns after a power cut must find the facts about its messages: forget them only once its
        // removal is stable.
        let unlinked = if self.unlinked { vec![INCOMING, DEFERRED] } else { vec![] };
        let unlinked: Vec<_> = unlinked.into_iter().map(|name| self.queue_directory.join(name)).collect();
        let first = move |disk: &dyn crate::queue::disk::Disk| {
            unlinked
                .iter()
                .try_for_each(|path| disk.sync_directory(path).map_err(|error| QueueError::io("sync", path, &error)))
        };
        let entries = move |each: &mut dyn FnMut(&Entry)| {
            gone.into_iter().for_each(|id| each(&Entry::Fact(Fact::Removed { id })));
            unread.into_iter().for_each(|fact| each(&Entry::Fact(fact)));
            for entry in snapshot.iter() {
                entry.facts(|us| now.wall_of_mono(us)).into_iter().for_each(|fact| each(&Entry::Fact(fact)));
            }
            ends.into_iter().for_each(|(segment, end)| each(&Entry::SegmentEnd { segment, end }));
        };
        self.unlinked = false;
        if let Err(error) = self.log.compact(first, entries) {
            self.compaction_failed(&error);
        }
    }

    /// Process the result of a compaction, if one has ended; `wait` waits for a running one.
    pub(crate) fn finish_log(&mut self, wait: bool) {
        if let Err(error) = self.log.finish(wait) {
            self.compaction_failed(&error);
        }
    }

    fn compaction_failed(&mut self, error: &QueueError) {
        // It is unknown whether the removals are stable.
        self.unlinked = true;
        self.notice(format!("the state log cannot be written, facts wait in memory: {error}"));
    }

    fn seal_deferred(&mut self) {
        if let Some((file, _)) = self.deferred.take()
            && let Some(segment) = self.segments.get_mut(&file.id())
        {
            segment.sealed = true;
        }
    }

    /// Copy messages from old, nearly empty segments to one under `deferred/`.
    fn move_lingering(&mut self, catalogue: &mut Catalogue, wall_now_us: u64) -> Result<(), QueueError> {
        let chosen = self.lingering(catalogue, wall_now_us);
        if chosen.is_empty() {
            return Ok(());
        }
        let (mut file, seal_at) = match self.deferred.take() {
            Some(deferred) => deferred,
            None => {
                let id = SegmentId(self.slot.next_id(wall_now_us)?.0);
                let file = SegmentFile::create(&*self.disk, &self.queue_directory.join(DEFERRED), id)?;
                self.segments.insert(id, Segment::new(DEFERRED));
                (file, wall_now_us + DEFERRED_MAX_AGE_US)
            }
        };
        let mut copies = Vec::with_capacity(chosen.len());
        for (id, from) in chosen {
            match self.copy(id, &from, file.salt()) {
                Ok(record) => copies.push((id, from, record)),
                // The message stays where it is; the next start or its delivery reports the damage.
                Err(error) => self.notice(error.to_string()),
            }
        }
        let records: Vec<&[u8]> = copies.iter().map(|(_, _, record)| &record[..]).collect();
        let mut offset = file.end();
        let to = file.id();
        if !records.is_empty()
            && let Err(error) = file.append(&*self.disk, &records, records.len() as u64)
        {
            match (file.abandon(&*self.disk), self.segments.get_mut(&to)) {
                (Some(end), Some(segment)) => (segment.sealed, segment.end) = (true, Some(end)),
                _ => {
                    self.segments.remove(&to);
                }
            }
            return Err(error);
        }
        for (id, from, record) in copies {
            let record_octets = record.len() as u64;
            let locator = Locator { segment: to, offset, record_octets };
            offset += record_octets;
            if let Some(slot) = catalogue.slot(id) {
                catalogue.moved(slot, locator);
            }
            if let Some(old) = self.segments.get_mut(&from.segment) {
                old.retire_at_us = Some(wall_now_us + RETIRE_AFTER_US);
            }
            if let Some(new) = self.segments.get_mut(&to) {
                new.known_end = offset;
            }
        }
        self.deferred = Some((file, seal_at));
        Ok(())
    }

    /// Return the messages to move now, those of the oldest segments first. A message that is active, or about to be,
    /// stays where its agent reads it, and keeps its segment, until it waits again.
    fn lingering(&self, catalogue: &Catalogue, wall_now_us: u64) -> Vec<(QueueId, Locator)> {
        if self.loader.is_some() {
            return Vec::new();
        }
        let old = |id: &SegmentId| QueueId(id.0).usec() + MOVE_AGE_US <= wall_now_us;
        let sparse = |id: &SegmentId, segment: &Segment| {
            let resident = catalogue.resident(*id).filter(|resident| resident.live > 0);
            segment.sealed && resident.is_some_and(|resident| resident.live_octets * SPACE_RATIO < segment.known_end)
        };
        let mut segments: Vec<SegmentId> =
            self.segments.iter().filter(|(id, s)| old(id) && sparse(id, s)).map(|(id, _)| *id).collect();
        if segments.is_empty() {
            return Vec::new();
        }
        segments.sort();
        let rests = |place: Place| matches!(place, Place::Fresh | Place::Deferred | Place::Held | Place::Overflow(_));
        let mut resting: Vec<(QueueId, Locator)> = catalogue
            .residents_of(&segments)
            .into_iter()
            .filter(|entry| rests(entry.place()))
            .map(|entry| (entry.id(), entry.at()))
            .collect();
        resting.sort_unstable_by_key(|(_, at)| (at.segment, at.offset));
        let mut octets = 0;
        let fits = |(_, at): &(QueueId, Locator)| {
            octets += at.record_octets;
            octets == at.record_octets || octets <= self.limits.move_max_octets
        };
        resting.into_iter().take_while(fits).collect()
    }

    /// Return a copy of a record for the segment with `salt`.
    fn copy(&self, id: QueueId, from: &Locator, salt: u64) -> Result<Vec<u8>, QueueError> {
        let path = self.full_path(from.segment);
        let file = self.disk.open(&path, Open::Read).map_err(|error| QueueError::io("open", &path, &error))?;
        let envelope = read_envelope_bytes(&file, &path, from)?;
        let mut reader = ContentReader::open(&self.queue_directory, &self.path(from.segment), from)?;
        let head_octets = reader.head_octets() as u32;
        let mut content = reader.piece(u64::MAX)?;
        // The head is first in the content and last in the record.
        content.rotate_left(head_octets as usize);
        let header = RecordHeader {
            salt,
            id,
            body_octets: content.len() as u64 - u64::from(head_octets),
            head_octets,
            envelope_octets: envelope.len() as u32,
            content_crc: crc32c::crc32c(&content),
            envelope_crc: crc32c::crc32c(&envelope),
        };
        let mut record = Vec::with_capacity(RECORD_HEADER_OCTETS + content.len() + envelope.len());
        record.extend_from_slice(&header.encode());
        record.extend_from_slice(&content);
        record.extend_from_slice(&envelope);
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::wall_now_us;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, Faulty, commit, crash_image, envelope};
    use crate::queue::{Spool, read_content};
    use proptest::prelude::*;
    use std::fs;
    use std::sync::Arc;

    const FAR_US: u64 = 1_000_000_000_000;

    fn rests(id: QueueId) -> Fact {
        Fact::Deferred { id, attempts: 1, next_attempt_us: wall_now_us() + 10 * FAR_US, reasons: vec![] }
    }

    /// Ten messages in one sealed segment, all but the last two gone.
    fn lingering(directory: &Directory) -> [QueueId; 2] {
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let id: Vec<_> = (0..10).map(|n| commit(&journal, &[n; 300]).id).collect();
        drop(journal);
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        spool.note_all(&id[..8].iter().map(|id| Fact::Removed { id: *id }).collect::<Vec<_>>());
        spool.note_all(&[rests(id[8]), rests(id[9])]);
        [id[8], id[9]]
    }

    fn content(directory: &Directory, spool: &Spool, at: &Locator) -> Vec<u8> {
        read_content(directory.path(), &spool.path(at.segment), at).unwrap()
    }

    #[test]
    fn messages_left_in_an_old_segment_move_and_the_file_goes_later() {
        let directory = Directory::new();
        let id = lingering(&directory);
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        assert_eq!(spool.tick(wall_now_us()), [], "the segment is young");
        let now = wall_now_us() + MOVE_AGE_US;
        let moved = spool.tick(now);
        assert_eq!(moved.iter().map(|(id, _)| *id).collect::<Vec<_>>(), id);
        for (n, (id, at)) in (8..).zip(&moved) {
            assert!(spool.path(at.segment).starts_with("deferred/"));
            assert_eq!(content(&directory, &spool, at), [n; 300]);
            assert_eq!(spool.read_envelope(at).unwrap(), envelope(*id, 2));
            assert_eq!(spool.locate(*id), Some(*at));
        }
        assert_eq!((spool.tick(now), directory.files(INCOMING).len()), (vec![], 1), "it may be read yet");
        let image = crash_image(&directory);
        spool.tick(now + RETIRE_AFTER_US);
        assert_eq!(directory.files(INCOMING).len(), 0);
        drop(spool);
        for directory in [&image, &directory] {
            let (spool, stored) = Spool::open(directory.path()).unwrap();
            let found: Vec<_> = stored.iter().map(|s| (s.arrival.envelope.id, s.arrival.locator)).collect();
            assert_eq!(found, moved, "once, at the new place");
            assert!(stored.iter().all(|stored| stored.state.attempts == 1));
            assert_eq!(content(directory, &spool, &found[0].1), [8; 300]);
        }
    }

    #[test]
    fn a_message_in_delivery_stays_and_keeps_its_segment() {
        let directory = Directory::new();
        let id = lingering(&directory);
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        let now = wall_now_us() + MOVE_AGE_US;
        spool.place(id[0], Place::Active(1));
        assert_eq!(spool.tick(now).iter().map(|(id, _)| *id).collect::<Vec<_>>(), id[1..]);
        assert_eq!(spool.tick(now + RETIRE_AFTER_US), []);
        assert_eq!(directory.files(INCOMING).len(), 1);
        spool.place(id[0], Place::Held);
        assert_eq!(spool.tick(now + RETIRE_AFTER_US).iter().map(|(id, _)| *id).collect::<Vec<_>>(), id[..1]);
    }

    #[test]
    fn a_full_disk_moves_nothing_and_costs_nothing() {
        let directory = Directory::new();
        let id = lingering(&directory);
        let now = wall_now_us() + MOVE_AGE_US;
        // The first write is the state log's.
        let disk = Arc::new(Faulty::failing_write(2, io::ErrorKind::StorageFull));
        let (mut spool, stored) = Spool::open_on(disk, directory.path()).unwrap();
        assert_eq!((stored.len(), spool.tick(now)), (2, vec![]));
        assert!(spool.take_notices()[0].contains("cannot be moved: no space left"));
        assert_eq!(directory.files(DEFERRED).len(), 0);
        assert_eq!(spool.tick(now).len(), 2);
        drop(spool);
        assert_eq!(Spool::open(directory.path()).unwrap().1.len(), id.len());
    }

    #[test]
    fn nearly_empty_deferred_segments_are_moved_as_well() {
        let directory = Directory::new();
        lingering(&directory);
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        let mut now = wall_now_us() + MOVE_AGE_US;
        let first = spool.tick(now);
        spool.note(Fact::Removed { id: first[0].0 });
        for _ in 0..6 {
            now += DEFERRED_MAX_AGE_US;
            spool.tick(now);
        }
        // Half of the octets are in use: the segment stays.
        assert_eq!(spool.locate(first[1].0), Some(first[1].1));
        spool.note(Fact::Removed { id: first[1].0 });
        spool.tick(now);
        assert_eq!((directory.files(DEFERRED).len(), directory.files(INCOMING).len()), (0, 0));
    }

    #[test]
    fn facts_are_forgotten_only_once_the_removal_of_their_segment_is_stable() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let id = commit(&journal, b"x").id;
        drop(journal);
        let disk = Arc::new(Faulty::failing_sync_of(INCOMING));
        let (mut spool, _) = Spool::open_on(disk, directory.path()).unwrap();
        let before = crash_image(&directory);
        spool.note(Fact::Removed { id });
        spool.tick(0);
        spool.compact_log();
        // A power cut brings the segment back: the log must still have the facts.
        let image = crash_image(&directory);
        let name = before.files(INCOMING).pop().unwrap();
        fs::copy(&name, image.path().join(INCOMING).join(name.file_name().unwrap())).unwrap();
        assert_eq!(Spool::open(image.path()).unwrap().1, []);
        spool.compact_log();
        assert!(fs::metadata(directory.files("active").pop().unwrap()).unwrap().len() < 60, "forgotten");
    }

    /// Return the octets of all segments.
    fn disk_octets(directory: &Directory) -> u64 {
        let files = [INCOMING, DEFERRED].map(|name| directory.files(name)).concat();
        files.iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn disk_space_stays_in_proportion_to_the_queued_messages(
            // For each message: its length, and the round in which it ends, if any.
            messages in proptest::collection::vec((0usize..400, 0u8..12), 1..250),
        ) {
            const ROUNDS: u8 = 9;
            const DEFERRED_MAX: u64 = 2000;
            let directory = Directory::new();
            let options = JournalOptions { segment_max_octets: 3000, ..Default::default() };
            let journal = Journal::open(directory.path(), options).unwrap();
            let ids: Vec<_> = messages.iter().map(|(octets, _)| commit(&journal, &vec![b'x'; *octets]).id).collect();
            drop(journal);
            let (mut spool, _) = Spool::open(directory.path()).unwrap();
            spool.limits = Limits { deferred_max_octets: DEFERRED_MAX, move_max_octets: 1000 };
            let mut now_us = wall_now_us() + MOVE_AGE_US;
            for round in 0..ROUNDS {
                for (id, _) in ids.iter().zip(&messages).filter(|(_, (_, goes))| *goes == round) {
                    spool.note(Fact::Removed { id: *id });
                }
                // Time for the moves, until nothing moves any more and no reader is left.
                for _ in 0..300 {
                    now_us += DEFERRED_MAX_AGE_US / 10;
                    spool.tick(now_us);
                }
                let live = spool.catalogue().live_octets();
                let headers = 32 * (directory.files(INCOMING).len() + directory.files(DEFERRED).len()) as u64;
                let disk = disk_octets(&directory);
                prop_assert!(
                    disk <= SPACE_RATIO * (live + headers) + DEFERRED_MAX + 1000,
                    "{disk} octets on disk for {live} in round {round}",
                );
            }
        }
    }
}
