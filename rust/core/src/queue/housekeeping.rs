//! Clearing away: segments without messages, facts that count no more, and messages that outlive their segment.

use crate::queue::content::{read_content, read_envelope_bytes};
use crate::queue::error::QueueError;
use crate::queue::id::QueueId;
use crate::queue::locator::{Locator, SegmentId};
use crate::queue::record::{RECORD_HEADER_OCTETS, RecordHeader};
use crate::queue::segment::SegmentFile;
use crate::queue::spool::{Message, Segment, Spool};
use crate::queue::state::{Entry, Fact, Kept};
use crate::queue::{DEFERRED, INCOMING};
use std::fs::{self, File};
use std::io;

/// A segment this old may give its last messages away.
const MOVE_AGE_US: u64 = 300_000_000;
/// A segment gives its messages away when they are less than one in so many of its octets.
const MOVE_SHARE: u64 = 4;
/// Only a message that rests for so long yet is moved: nobody reads it meanwhile.
const MOVE_REST_US: u64 = 30_000_000;
/// One tick moves at most so many octets, or one segment's.
const MOVE_MAX_OCTETS: u64 = 4 * 1024 * 1024;
/// A segment whose messages were moved away stays so long for agents that opened a job just before.
const RETIRE_AFTER_US: u64 = 300_000_000;
/// A segment under `deferred/` is sealed at this size or age.
const DEFERRED_MAX_OCTETS: u64 = 32 * 1024 * 1024;
const DEFERRED_MAX_AGE_US: u64 = 3_600_000_000;

impl Spool {
    /// Clear away. Call it every second or so; `wall_now_us`: microseconds since 1970.
    ///
    /// Returns messages that were moved, with their new places. A system call that fails is tried again at the next
    /// tick, and `take_notices` tells of it.
    pub fn tick(&mut self, wall_now_us: u64) -> Vec<(QueueId, Locator)> {
        self.unlink_empty(wall_now_us);
        if self.log.wants_compaction() {
            self.compact_log();
        }
        if self
            .deferred
            .as_ref()
            .is_some_and(|(file, seal_at)| file.end() >= DEFERRED_MAX_OCTETS || *seal_at <= wall_now_us)
        {
            self.seal_deferred();
        }
        self.move_lingering(wall_now_us).unwrap_or_else(|error| {
            self.notice(format!("{DEFERRED}: messages cannot be moved: {error}"));
            Vec::new()
        })
    }

    fn unlink_empty(&mut self, wall_now_us: u64) {
        let empty = |segment: &Segment| {
            let read = segment.retire_at_us.is_none_or(|at| at <= wall_now_us);
            segment.sealed && segment.live == 0 && read && !segment.unread
        };
        let ids: Vec<SegmentId> = self.segments.iter().filter(|(_, s)| empty(s)).map(|(id, _)| *id).collect();
        for id in ids {
            let path = self.full_path(id);
            match fs::remove_file(&path) {
                Ok(()) => self.unlinked = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.notice(QueueError::io("remove", &path, &error).to_string());
                    continue;
                }
            }
            self.segments.remove(&id);
        }
    }

    /// Begin a new state log with the facts that count yet.
    pub(crate) fn compact_log(&mut self) {
        // A segment that comes back after a power cut must find the facts about its messages: forget them only once
        // its removal is stable.
        if self.unlinked {
            for name in [INCOMING, DEFERRED] {
                let path = self.queue_directory.join(name);
                if let Err(error) = self.disk.sync_directory(&path) {
                    return self.notice(QueueError::io("sync", &path, &error).to_string());
                }
            }
            self.unlinked = false;
        }
        let (segments, messages) = (&self.segments, &self.messages);
        let gone = segments.values().flat_map(|segment| &segment.ids).filter(|id| !messages.contains_key(id));
        let gone = gone.map(|id| Entry::Fact(Fact::Removed { id: *id }));
        let waiting = messages.iter().filter_map(|(id, message)| Some((id, message.kept.as_ref()?)));
        let waiting = waiting.flat_map(|(id, kept)| kept.facts(*id)).map(Entry::Fact);
        let ends =
            segments.iter().filter_map(|(id, segment)| Some(Entry::SegmentEnd { segment: *id, end: segment.end? }));
        if let Err(error) = self.log.compact(&mut gone.chain(waiting).chain(ends)) {
            self.notice(format!("the state log cannot be written, facts wait in memory: {error}"));
        }
    }

    fn seal_deferred(&mut self) {
        if let Some((file, _)) = self.deferred.take()
            && let Some(segment) = self.segments.get_mut(&file.id())
        {
            segment.sealed = true;
        }
    }

    /// Copy messages that rest in old, nearly empty segments to one under `deferred/`.
    fn move_lingering(&mut self, wall_now_us: u64) -> Result<Vec<(QueueId, Locator)>, QueueError> {
        let chosen = self.lingering(wall_now_us);
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let (mut file, seal_at) = match self.deferred.take() {
            Some(deferred) => deferred,
            None => {
                let id = SegmentId(self.slot.next_id(wall_now_us)?.0);
                let file = SegmentFile::create(&self.queue_directory.join(DEFERRED), id)?;
                self.segments.insert(id, Segment::new(DEFERRED));
                (file, wall_now_us + DEFERRED_MAX_AGE_US)
            }
        };
        let mut copies = Vec::with_capacity(chosen.len());
        for (id, from) in chosen {
            match self.copy(id, &from, file.salt()) {
                Ok(record) => copies.push((id, from, record)),
                // It stays where it is; the next start or its delivery will say what is wrong with it.
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
        let mut moved = Vec::with_capacity(copies.len());
        for (id, from, record) in copies {
            let record_octets = record.len() as u64;
            let locator = Locator { segment: to, offset, record_octets };
            offset += record_octets;
            if let Some(message) = self.messages.get_mut(&id) {
                message.locator = locator;
            }
            if let Some(old) = self.segments.get_mut(&from.segment) {
                old.live -= 1;
                old.live_octets -= from.record_octets;
                old.retire_at_us = Some(wall_now_us + RETIRE_AFTER_US);
            }
            if let Some(new) = self.segments.get_mut(&to) {
                new.ids.push(id);
                new.live += 1;
                new.live_octets += record_octets;
                new.known_end = offset;
            }
            moved.push((id, locator));
        }
        self.deferred = Some((file, seal_at));
        Ok(moved)
    }

    /// Messages to move now: whole segments' worth, oldest first.
    fn lingering(&self, wall_now_us: u64) -> Vec<(QueueId, Locator)> {
        let old = |id: &SegmentId| QueueId(id.0).usec() + MOVE_AGE_US <= wall_now_us;
        let sparse = |s: &Segment| s.sealed && s.live > 0 && s.live_octets * MOVE_SHARE < s.known_end;
        let mut segments: Vec<_> = self.segments.iter().filter(|(id, s)| old(id) && sparse(s)).collect();
        segments.sort_by_key(|(id, _)| **id);
        let mut chosen = Vec::new();
        let mut octets = 0;
        for (id, segment) in segments {
            if octets > 0 && octets + segment.live_octets > MOVE_MAX_OCTETS {
                break;
            }
            let here = |m: &&Message| m.locator.segment == *id;
            let live = || segment.ids.iter().filter_map(|id| Some((*id, self.messages.get(id).filter(here)?)));
            if live().all(|(_, message)| rests(message, wall_now_us)) {
                chosen.extend(live().map(|(id, message)| (id, message.locator)));
                octets += segment.live_octets;
            }
        }
        chosen
    }

    /// A record as it is to stand in the segment with `salt`.
    fn copy(&self, id: QueueId, from: &Locator, salt: u64) -> Result<Vec<u8>, QueueError> {
        let path = self.full_path(from.segment);
        let file = File::open(&path).map_err(|error| QueueError::io("open", &path, &error))?;
        let envelope = read_envelope_bytes(&file, &path, from)?;
        let content = read_content(&self.queue_directory, &self.path(from.segment), from)?;
        let header = RecordHeader {
            salt,
            id,
            content_octets: content.len() as u64,
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

fn rests(message: &Message, wall_now_us: u64) -> bool {
    let rests = |kept: &Kept| kept.held || kept.next_attempt_us.is_some_and(|at| at > wall_now_us + MOVE_REST_US);
    message.kept.as_ref().is_some_and(|kept| rests(kept))
}
