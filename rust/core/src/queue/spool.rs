//! The spool: the queue manager's side of the queue directory.
//!
//! It knows every message that is not gone, where it stands and what became of it. Messages come in by announcement
//! (`producer`, `arrived`, `sealed`), and whatever was not announced is read from the segments themselves: nothing
//! depends on an announcement but speed. A segment whose writer lives is read only up to where its writer said that it
//! is committed; one whose writer is gone is read to its end. `tick` (`housekeeping.rs`) clears away what is done.

use crate::ipc::codec::Take;
use crate::ipc::frame::Arrival;
use crate::message::envelope::{Envelope, Recipient};
use crate::queue::content::read_envelope_bytes;
use crate::queue::corrupt::put_aside;
use crate::queue::disk::{Disk, Open, RealDisk};
use crate::queue::error::QueueError;
use crate::queue::id::QueueId;
use crate::queue::locator::{Locator, SegmentId};
use crate::queue::recipients::read_recipients;
use crate::queue::recovery::{self, Facts, Known};
use crate::queue::scan::{Found, SegmentReader, segment_path};
use crate::queue::segment::{SEGMENT_HEADER_OCTETS, SegmentFile, make_directory};
use crate::queue::slot::Slot;
use crate::queue::state::{Entry, Fact, Kept};
use crate::queue::statelog::StateLog;
use crate::queue::{ACTIVE, CORRUPT, DEFERRED, INCOMING};
use rustix::fs::{FlockOperation, flock};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Lines for the log are kept until taken, at most so many.
const NOTICES_MAX: usize = 1000;
/// A process that lost its connection because it dies may hold its lock a little longer: so many looks, so far apart.
const LOST_LOOKS: u32 = 20;
const LOST_LOOK_EVERY: Duration = Duration::from_millis(1);

/// A message that a start found in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where it stands, and what it is.
    pub arrival: Arrival,
    /// What became of it so far.
    pub state: Kept,
}

/// The queue manager's side of a queue directory, for one thread.
pub struct Spool {
    pub(crate) queue_directory: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segments: HashMap<SegmentId, Segment>,
    pub(crate) messages: HashMap<QueueId, Message>,
    pub(crate) log: StateLog,
    pub(crate) slot: Slot,
    /// The segment under `deferred/` that is appended to, and when it is sealed (microseconds since 1970).
    pub(crate) deferred: Option<(SegmentFile, u64)>,
    /// A name was removed since the directories were synced last.
    pub(crate) unlinked: bool,
    /// Segments under `incoming/` that the last look found held by a live process.
    held: Vec<SegmentId>,
    /// Facts about messages that were not found while a segment could not be read: kept for when it can be.
    pub(crate) orphans: HashMap<QueueId, Known>,
    recalled: Vec<Stored>,
    notices: Vec<String>,
    _lock: File,
}

/// A segment that is on disk.
#[derive(Debug)]
pub(crate) struct Segment {
    pub directory: &'static str,
    /// Everything before is known.
    pub known_end: u64,
    /// Nothing is appended any more.
    pub sealed: bool,
    /// Every message that ever stood in it: what is gone must stay gone for as long as the file is there.
    pub ids: Vec<QueueId>,
    /// Messages that stand in it and are not gone.
    pub live: usize,
    /// Octets of their records.
    pub live_octets: u64,
    /// Messages were moved away: the file stays until then for those who read it yet (microseconds since 1970).
    pub retire_at_us: Option<u64>,
    /// It could not be read whole for now: keep it, whatever is known of it.
    pub unread: bool,
    /// Damage in it could not be put aside: keep it for the next start.
    pub damaged: bool,
    /// Set when the file is longer than what was committed.
    pub end: Option<u64>,
}

/// A message that is not gone.
#[derive(Debug)]
pub(crate) struct Message {
    pub locator: Locator,
    pub recipients: usize,
    pub kept: Option<Box<Kept>>,
}

impl Segment {
    pub(crate) fn new(directory: &'static str) -> Self {
        Self {
            directory,
            known_end: SEGMENT_HEADER_OCTETS as u64,
            sealed: false,
            ids: Vec::new(),
            live: 0,
            live_octets: 0,
            retire_at_us: None,
            unread: false,
            damaged: false,
            end: None,
        }
    }
}

impl Spool {
    /// Take the queue directory over: everything that stands in it, oldest directory first.
    ///
    /// `Locked` when another queue manager works in it, `Version` when a later release wrote a part of it. Messages
    /// in segments whose producers live come when those say `producer`.
    pub fn open(queue_directory: &Path) -> Result<(Self, Vec<Stored>), QueueError> {
        Self::open_on(RealDisk::shared(), queue_directory)
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, queue_directory: &Path) -> Result<(Self, Vec<Stored>), QueueError> {
        for name in [ACTIVE, DEFERRED, CORRUPT] {
            make_directory(&*disk, queue_directory, name)?;
        }
        let incoming = make_directory(&*disk, queue_directory, INCOMING)?;
        let lock = take_lock(&*disk, queue_directory)?;
        let facts = recovery::facts(&*disk, queue_directory)?;
        let log = StateLog::new(Arc::clone(&disk), queue_directory, facts.log_number)?;
        let mut spool = Self {
            queue_directory: queue_directory.to_path_buf(),
            slot: Slot::take(&disk, &incoming)?,
            disk,
            segments: HashMap::new(),
            messages: HashMap::new(),
            log,
            deferred: None,
            // The queue manager before may have removed a name and died before that was stable.
            unlinked: true,
            held: Vec::new(),
            orphans: HashMap::new(),
            recalled: Vec::new(),
            notices: facts.notices.clone(),
            _lock: lock,
        };
        let mut stored = Vec::new();
        for (directory, id, path) in recovery::segments(&*spool.disk, queue_directory)? {
            match SegmentReader::open(&spool.disk, path, id) {
                Ok(Some(reader)) => spool.recover(directory, id, reader, &facts, &mut stored)?,
                Ok(None) => {}
                Err(error) => {
                    spool.notice(error.to_string());
                    let end = facts.ends.get(&id).copied();
                    spool.segments.insert(id, Segment { unread: true, end, ..Segment::new(directory) });
                }
            }
        }
        spool.remove_leftovers();
        if spool.has_unread() {
            let found: HashSet<QueueId> =
                spool.segments.values().flat_map(|segment| segment.ids.iter().copied()).collect();
            spool.orphans = facts.messages.into_iter().filter(|(id, _)| !found.contains(id)).collect();
        }
        // The facts go to a new file: nothing is ever appended behind an end that a crash may have torn.
        spool.compact_log();
        Ok((spool, stored))
    }

    /// Read a segment at start.
    fn recover(
        &mut self,
        directory: &'static str,
        id: SegmentId,
        mut reader: SegmentReader,
        facts: &Facts,
        stored: &mut Vec<Stored>,
    ) -> Result<(), QueueError> {
        let live = directory == INCOMING && reader.is_live();
        let end = facts.ends.get(&id).copied();
        let mut segment = Segment { sealed: !live, end, ..Segment::new(directory) };
        let to = reader.octets()?.min(end.unwrap_or(u64::MAX));
        let mut found = Vec::new();
        match reader.scan(0, to, &mut |what| found.push(what)) {
            Ok(()) => {}
            Err(error @ QueueError::Version(..)) => return Err(error),
            Err(error) => {
                self.notice(error.to_string());
                segment.unread = true;
            }
        }
        if live {
            self.held.push(id);
            // What its writer has not announced may not be committed yet. But a message that something happened to
            // was announced to an earlier queue manager, and with it everything before.
            let known = |what: &Found| matches!(what, Found::Record { envelope, .. } if facts.messages.contains_key(&envelope.id));
            found.truncate(found.iter().rposition(known).map_or(0, |last| last + 1));
        } else if !segment.unread {
            segment.known_end = to.max(segment.known_end);
        }
        self.segments.insert(id, segment);
        for what in found {
            let Found::Record { locator, envelope } = what else {
                self.damage(id, &reader, what);
                continue;
            };
            let known = facts.messages.get(&envelope.id).cloned().unwrap_or_default();
            let segment = self.segments.entry(id).or_insert_with(|| Segment::new(directory));
            segment.ids.push(envelope.id);
            segment.known_end = segment.known_end.max(locator.offset + locator.record_octets);
            // A copy that was made in time to stay is found first; this one then counts for nothing.
            if known.is_over(envelope.recipients.len()) || self.messages.contains_key(&envelope.id) {
                continue;
            }
            segment.live += 1;
            segment.live_octets += locator.record_octets;
            let kept = if known.kept == Kept::default() { None } else { Some(Box::new(known.kept.clone())) };
            self.messages.insert(envelope.id, Message { locator, recipients: envelope.recipients.len(), kept });
            stored.push(Stored { arrival: Arrival { locator, envelope }, state: known.kept });
        }
        Ok(())
    }

    /// A producer says hello: the messages in its segment, committed up to `end`, that are not known yet.
    pub fn producer(&mut self, segment: SegmentId, end: u64) -> Vec<Arrival> {
        if segment == SegmentId(0) { Vec::new() } else { self.read_to(segment, Some(end)) }
    }

    /// Announced messages without those that are known; those that were passed over are read from disk.
    pub fn arrived(&mut self, arrivals: Vec<Arrival>) -> Vec<Arrival> {
        let mut new = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            let Locator { segment: id, offset, record_octets } = arrival.locator;
            let Some(end) = offset.checked_add(record_octets) else { continue };
            // An announcement of a segment that was done with and removed comes too late.
            if !self.segments.contains_key(&id) && !self.full_path(id).exists() {
                continue;
            }
            let known_end = self.segments.entry(id).or_insert_with(|| Segment::new(INCOMING)).known_end;
            if offset > known_end {
                new.extend(self.read_to(id, Some(offset)));
            }
            // Not before what was passed over could be read: until then it comes with a later reading.
            let Some(segment) = self.segments.get_mut(&id).filter(|segment| segment.known_end == offset) else {
                continue;
            };
            segment.known_end = end;
            if self.add(&arrival) {
                new.push(arrival);
            }
        }
        new
    }

    /// A producer is done with a segment: the messages in it that are not known yet.
    pub fn sealed(&mut self, segment: SegmentId, end: u64) -> Vec<Arrival> {
        let arrivals = self.read_to(segment, Some(end));
        let path = self.full_path(segment);
        if let Some(known) = self.segments.get_mut(&segment) {
            known.sealed = true;
            // A tail that the producer could not cut off was answered with an error: it must never be delivered.
            if path.metadata().is_ok_and(|metadata| metadata.len() > end) && known.end != Some(end) {
                known.end = Some(end);
                self.log.append_entry(&Entry::SegmentEnd { segment, end });
            }
        }
        arrivals
    }

    /// A producer's connection is gone: the messages that it did not announce any more, in any segment. Waits up to
    /// 20 ms for a dying process to let go of its files. One that lives will say `producer` again.
    pub fn producer_lost(&mut self, segment: SegmentId) -> Vec<Arrival> {
        for _ in 0..LOST_LOOKS {
            match SegmentReader::open(&self.disk, self.full_path(segment), segment) {
                Ok(Some(reader)) if reader.is_live() => std::thread::sleep(LOST_LOOK_EVERY),
                _ => break,
            }
        }
        self.rescan()
    }

    /// Look through `incoming/` for segments that no live producer holds: the messages in them that are not known yet.
    pub fn rescan(&mut self) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        self.held.clear();
        self.remove_leftovers();
        let segments = match recovery::segments(&*self.disk, &self.queue_directory) {
            Ok(segments) => segments,
            Err(error) => {
                self.notice(error.to_string());
                return arrivals;
            }
        };
        for (directory, id, path) in segments {
            let read = |segment: &Segment| !segment.unread && (segment.sealed || directory == DEFERRED);
            if self.segments.get(&id).map_or(directory == DEFERRED, read) {
                continue;
            }
            match SegmentReader::open(&self.disk, path, id) {
                Ok(Some(reader)) if !reader.is_live() => {
                    arrivals.extend(self.read_to(id, None));
                    if let Some(segment) = self.segments.get_mut(&id) {
                        segment.sealed = true;
                    }
                }
                Ok(Some(_)) => self.held.push(id),
                Ok(None) => {}
                Err(error) => self.notice(error.to_string()),
            }
        }
        arrivals
    }

    /// Segments that the last `rescan`, or the start, found held by a live process: their messages come when it says
    /// `producer`, or once it is dead.
    pub fn held(&self) -> &[SegmentId] {
        &self.held
    }

    /// Messages that were read later than at the start, with what was known of them: each is given once.
    pub fn take_recalled(&mut self) -> Vec<Stored> {
        std::mem::take(&mut self.recalled)
    }

    /// Is there a segment that could not be read whole?
    pub(crate) fn has_unread(&self) -> bool {
        self.segments.values().any(|segment| segment.unread)
    }

    /// The envelope of a message, checked.
    pub fn read_envelope(&self, at: &Locator) -> Result<Envelope, QueueError> {
        let path = self.full_path(at.segment);
        let file = self.disk.open(&path, Open::Read).map_err(|error| QueueError::io("open", &path, &error))?;
        let bytes = read_envelope_bytes(&file, &path, at)?;
        Envelope::decode(&mut Take::new(&bytes))
            .map_err(|error| QueueError::Corrupt(format!("{} at {}: {error}", path.display(), at.offset).into()))
    }

    /// `most` recipients of a record from number `index` on, and the octets from the start of the envelope to the next
    /// one. `octets`: to the first of them, if an earlier reading said so, or 0.
    pub fn read_recipients(
        &self,
        at: &Locator,
        index: u32,
        octets: u64,
        most: u32,
    ) -> Result<(Vec<Recipient>, u64), QueueError> {
        let path = self.full_path(at.segment);
        let file = File::open(&path).map_err(|error| QueueError::io("open", &path, &error))?;
        read_recipients(&file, &path, at, index, octets, most)
    }

    /// The segment's file, relative to the queue directory.
    pub fn path(&self, segment: SegmentId) -> String {
        let directory = self.segments.get(&segment).map_or(INCOMING, |segment| segment.directory);
        format!("{directory}/{}", segment.file_name())
    }

    /// Where a message stands; `None` when it is not in the queue.
    pub fn locate(&self, id: QueueId) -> Option<Locator> {
        self.messages.get(&id).map(|message| message.locator)
    }

    /// Remember a fact. It is in the page cache when this returns, and stable within about 50 ms.
    pub fn note(&mut self, fact: Fact) {
        self.note_all(&[fact]);
    }

    /// Remember facts, with one system call. What is said of messages that are gone is dropped.
    pub fn note_all(&mut self, facts: &[Fact]) {
        let known = |fact: &Fact| self.messages.contains_key(&fact.id());
        // When the log cannot be written, the facts wait in memory for `tick`, which begins a new one.
        if facts.iter().all(known) {
            self.log.append(facts);
        } else {
            self.log.append(&facts.iter().filter(|fact| known(fact)).cloned().collect::<Vec<_>>());
        }
        for fact in facts {
            let Some(message) = self.messages.get_mut(&fact.id()) else { continue };
            let kept = message.kept.get_or_insert_default();
            kept.apply(fact);
            let over = message.recipients > 0 && kept.done.len() >= message.recipients;
            if over || matches!(fact, Fact::Removed { .. }) {
                self.forget(fact.id());
            }
        }
    }

    /// What happened that a person should know, as lines for the log.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    pub(crate) fn notice(&mut self, text: String) {
        if self.notices.len() < NOTICES_MAX && self.notices.last() != Some(&text) {
            self.notices.push(text);
        }
    }

    pub(crate) fn full_path(&self, segment: SegmentId) -> PathBuf {
        let directory = self.segments.get(&segment).map_or(INCOMING, |segment| segment.directory);
        segment_path(&self.queue_directory, directory, segment)
    }

    /// Read on in a segment, up to `end` or its own end. New messages are added and returned.
    fn read_to(&mut self, id: SegmentId, end: Option<u64>) -> Vec<Arrival> {
        let from = self.segments.get(&id).map_or(0, |segment| segment.known_end);
        if end.is_some_and(|end| end <= from) {
            return Vec::new();
        }
        let mut reader = match SegmentReader::open(&self.disk, self.full_path(id), id) {
            Ok(Some(reader)) => reader,
            // Done and removed already: its announcement was late.
            Ok(None) => {
                if self.segments.get(&id).is_some_and(|segment| segment.live == 0) {
                    self.segments.remove(&id);
                }
                return Vec::new();
            }
            Err(error) => {
                self.notice(error.to_string());
                self.segments.entry(id).or_insert_with(|| Segment::new(INCOMING)).unread = true;
                return Vec::new();
            }
        };
        let limit = self.segments.get(&id).and_then(|segment| segment.end).unwrap_or(u64::MAX);
        let mut found = Vec::new();
        let read = reader.octets().and_then(|octets| {
            let to = octets.min(end.unwrap_or(u64::MAX)).min(limit);
            reader.scan(from, to, &mut |what| found.push(what)).map(|()| to)
        });
        let segment = self.segments.entry(id).or_insert_with(|| Segment::new(INCOMING));
        segment.unread = read.is_err();
        match read {
            Ok(to) => segment.known_end = segment.known_end.max(to),
            Err(error) => self.notice(error.to_string()),
        }
        let mut arrivals = Vec::new();
        for what in found {
            let Found::Record { locator, envelope } = what else {
                self.damage(id, &reader, what);
                continue;
            };
            let arrival = Arrival { locator, envelope };
            if let Some(segment) = self.segments.get_mut(&id) {
                segment.known_end = segment.known_end.max(locator.offset + locator.record_octets);
            }
            if self.add(&arrival) {
                arrivals.push(arrival);
            }
        }
        arrivals
    }

    /// Take a message in; false when it is known already, is over, or comes with a past (`take_recalled`).
    fn add(&mut self, arrival: &Arrival) -> bool {
        let Arrival { locator, envelope } = arrival;
        let Some(segment) = self.segments.get_mut(&locator.segment) else { return false };
        segment.ids.push(envelope.id);
        if self.messages.contains_key(&envelope.id) {
            return false;
        }
        let known = self.orphans.remove(&envelope.id).unwrap_or_default();
        if known.is_over(envelope.recipients.len()) {
            return false;
        }
        segment.live += 1;
        segment.live_octets += locator.record_octets;
        let fresh = known.kept == Kept::default();
        let kept = if fresh { None } else { Some(Box::new(known.kept.clone())) };
        self.messages.insert(envelope.id, Message { locator: *locator, recipients: envelope.recipients.len(), kept });
        if !fresh {
            self.recalled.push(Stored { arrival: arrival.clone(), state: known.kept });
        }
        fresh
    }

    fn forget(&mut self, id: QueueId) {
        let Some(message) = self.messages.remove(&id) else { return };
        if let Some(segment) = self.segments.get_mut(&message.locator.segment) {
            segment.live -= 1;
            segment.live_octets -= message.locator.record_octets;
        }
    }

    /// What a scan found that is no record.
    fn damage(&mut self, id: SegmentId, reader: &SegmentReader, what: Found) {
        match what {
            Found::Record { .. } => {}
            // An empty file is what is left of a writer that died early: nothing to speak of.
            Found::Torn { octets: 0, .. } => {}
            Found::Torn { offset, octets } => {
                let path = reader.path.display();
                self.notice(format!("{path}: {octets} octets at {offset} were never committed, ignored"));
            }
            Found::Bad { offset, octets, reason } => {
                let (directory, name) = (self.queue_directory.clone(), id.file_name());
                match put_aside(&*self.disk, &directory, &reader.file, &name, offset, octets, &reason) {
                    Ok(None) => {}
                    Ok(Some(copy)) => {
                        let path = reader.path.display();
                        self.notice(format!("{path}: {octets} octets at {offset} put aside as {copy}: {reason}"));
                    }
                    Err(error) => {
                        self.notice(error.to_string());
                        if let Some(segment) = self.segments.get_mut(&id) {
                            segment.damaged = true;
                        }
                    }
                }
            }
        }
    }

    fn remove_leftovers(&mut self) {
        match recovery::remove_leftovers(&*self.disk, &self.queue_directory.join(INCOMING)) {
            Ok(0) => {}
            Ok(count) => self.notice(format!("{INCOMING}: removed {count} unfinished files of processes that died")),
            Err(error) => self.notice(error.to_string()),
        }
    }
}

pub(crate) fn take_lock(disk: &dyn Disk, queue_directory: &Path) -> Result<File, QueueError> {
    let path = queue_directory.join(ACTIVE).join("qmgr.lock");
    let file = disk.open(&path, Open::Keep).map_err(|error| QueueError::io("open", &path, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(QueueError::Locked(path.display().to_string().into())),
        Err(error) => Err(QueueError::io("lock", &path, &error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::frame::Frame;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::testing::{Directory, commit, frames};
    use std::fs;

    fn arrivals(journal: &Journal) -> Vec<Arrival> {
        let arrived = |frame| if let Frame::Arrived(arrivals) = frame { arrivals } else { vec![] };
        frames(journal).into_iter().flat_map(arrived).collect()
    }

    fn ids(arrivals: &[Arrival]) -> Vec<QueueId> {
        arrivals.iter().map(|arrival| arrival.envelope.id).collect()
    }

    #[test]
    fn announcements_bring_each_message_once_and_gaps_are_filled_from_disk() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        let id: Vec<_> = (0..5).map(|_| commit(&journal, b"x").id).collect();
        let all = arrivals(&journal);
        assert_eq!(ids(&spool.arrived(all[1..2].to_vec())), id[..2], "the first was passed over");
        assert_eq!(ids(&spool.arrived(all[..3].to_vec())), id[2..3], "two were known");
        assert_eq!(spool.arrived(all[..3].to_vec()), []);
        journal.close();
        let Some(Frame::Sealed { segment, end }) = frames(&journal).pop() else { panic!("it is sealed") };
        let late = spool.sealed(segment, end);
        assert_eq!(ids(&late), id[3..]);
        assert_eq!((spool.sealed(segment, end), spool.rescan()), (vec![], vec![]));
        assert_eq!(spool.read_envelope(&late[0].locator).unwrap(), late[0].envelope);
        assert_eq!(spool.locate(id[3]), Some(late[0].locator));
    }

    #[test]
    fn a_producer_that_died_loses_nothing_and_one_that_lives_is_left_alone() {
        let directory = Directory::new();
        let options = JournalOptions { large_message_octets: 1000, ..Default::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        let small = commit(&journal, b"small");
        let large = commit(&journal, &[b'x'; 2000]);
        let segment = small.result.unwrap().segment;
        assert_eq!(ids(&spool.producer_lost(segment)), [large.id], "only what no live process holds");
        drop(journal);
        assert_eq!(ids(&spool.producer_lost(segment)), [small.id]);
        assert_eq!(spool.producer_lost(segment), []);
    }

    #[test]
    fn an_announcement_that_comes_after_its_message_is_gone_brings_nothing_back() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        let id = commit(&journal, b"x").id;
        let late = arrivals(&journal);
        journal.close();
        let sealed = frames(&journal);
        assert_eq!(ids(&spool.rescan()), [id]);
        spool.note(Fact::Done { id, recipients: vec![0, 1] });
        assert_eq!(spool.locate(id), None);
        spool.tick(0);
        assert_eq!(directory.files(INCOMING).len(), 0);
        assert_eq!(spool.arrived(late), []);
        let [Frame::Sealed { segment, end }] = sealed[..] else { panic!("{sealed:?}") };
        assert_eq!((spool.sealed(segment, end), spool.producer(segment, end)), (vec![], vec![]));
        assert!(spool.segments.is_empty() && spool.messages.is_empty());
        assert_eq!(spool.take_notices(), Vec::<String>::new());
    }

    #[test]
    fn hostile_places_are_no_arrivals() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        commit(&journal, b"x");
        let arrival = arrivals(&journal).remove(0);
        for (offset, record_octets) in [(u64::MAX, 1), (u64::MAX, u64::MAX), (1, u64::MAX)] {
            let locator = Locator { offset, record_octets, ..arrival.locator };
            assert_eq!(spool.arrived(vec![Arrival { locator, envelope: arrival.envelope.clone() }]), []);
        }
        assert_eq!(spool.arrived(vec![arrival]).len(), 1);
    }

    #[test]
    fn an_unreadable_segment_is_kept_and_said() {
        let directory = Directory::new();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        // A directory under a segment's name opens, and every read of it fails.
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let id = commit(&journal, b"x").id;
        journal.close();
        let path = directory.files(INCOMING).remove(0);
        let away = directory.path().join("away");
        fs::rename(&path, &away).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(spool.rescan(), []);
        assert!(spool.take_notices()[0].contains("read"));
        drop(spool);
        let (mut spool, stored) = Spool::open(directory.path()).unwrap();
        assert_eq!(stored, []);
        spool.tick(0);
        assert!(path.exists());
        // The disk recovers.
        fs::remove_dir(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        assert_eq!(ids(&spool.rescan()), [id]);
    }

    #[test]
    fn damage_that_cannot_be_put_aside_keeps_its_segment() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let (good, bad) = (commit(&journal, b"good").id, commit(&journal, b"bad").result.unwrap());
        journal.close();
        let path = directory.files(INCOMING).remove(0);
        let file = File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"B", bad.offset + 48).unwrap();
        fs::write(directory.path().join(CORRUPT), b"no directory").unwrap();
        let (mut spool, stored) = Spool::open(directory.path()).unwrap();
        assert_eq!(stored.len(), 1);
        spool.note(Fact::Removed { id: good });
        spool.rescan();
        spool.tick(0);
        assert!(path.exists());
        drop(spool);
        fs::remove_file(directory.path().join(CORRUPT)).unwrap();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        spool.tick(0);
        assert!(!path.exists() && directory.files(CORRUPT).len() == 2);
    }
}
