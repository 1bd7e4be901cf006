//! The queue manager's side of the queue directory.
//!
//! Messages arrive by announcement (`producer`, `arrived`, `sealed`); unannounced ones are read from the segments.
//! Announcements only save time. A live writer's segment is read only up to the committed end that the writer
//! announced, a dead writer's to its end. The caller's catalogue has the state of each message, this module that of
//! each segment. `tick` (`housekeeping.rs`) removes what is no longer needed.

pub mod housekeeping;

use crate::clock::Now;
use crate::codec::Take;
use crate::ipc::frame::Arrival;
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::id::QueueId;
use crate::mail::locator::{Locator, SegmentId};
use crate::queue::catalogue::Catalogue;
use crate::queue::disk::{Disk, Open, RealDisk};
use crate::queue::error::QueueError;
use crate::queue::journal::slot::Slot;
use crate::queue::segment::content::{read_content, read_envelope_bytes};
use crate::queue::segment::corrupt::put_aside;
use crate::queue::segment::recipients::{Cursor, read_recipients};
use crate::queue::segment::scan::{Found, SegmentReader, segment_path};
use crate::queue::segment::{SEGMENT_HEADER_OCTETS, SegmentFile, make_directory};
use crate::queue::state::{Entry, Fact};
use crate::queue::store::loader::{Loader, Scanned, Wanted};
use crate::queue::store::misplaced::misplaced;
use crate::queue::store::recovery::{self, Known};
use crate::queue::store::statelog::{Damage, StateLog};
use crate::queue::store::unannounced::Unannounced;
use crate::queue::store::{News, Recovery, Stored};
use crate::queue::{ACTIVE, CORRUPT, DEFERRED, INCOMING};
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of lines for the log that wait to be taken.
const NOTICES_MAX: usize = 1000;
/// Maximum number of checks of the lock of a process that lost its connection: a dying process may hold it a little longer.
const LOST_CHECKS: u32 = 20;
/// Interval of these checks.
const LOST_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// The queue manager's side of a queue directory, for one thread.
pub struct DiskStore {
    pub(crate) queue_directory: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segments: HashMap<SegmentId, Segment>,
    pub(crate) log: StateLog,
    /// The facts in the state log at the start: needed until every segment was read.
    pub(crate) facts: HashMap<QueueId, Known>,
    ends: HashMap<SegmentId, u64>,
    /// The segments that are being read since the start.
    pub(crate) loader: Option<Loader>,
    pub(crate) slot: Slot,
    /// The current segment under `deferred/`, and when it is sealed (microseconds since 1970).
    pub(crate) deferred: Option<(SegmentFile, u64)>,
    pub(crate) limits: Limits,
    /// A name was removed since the last sync of the directories.
    pub(crate) unlinked: bool,
    /// Segments under `incoming/` that a live process held at the last check.
    held: Vec<SegmentId>,
    notices: Vec<String>,
    _lock: File,
}

/// Limits that a test makes smaller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Size at which a segment under `deferred/` is sealed.
    pub deferred_max_octets: u64,
    /// Maximum number of octets moved in one tick; a single message may be longer.
    pub move_max_octets: u64,
}

/// A segment on disk.
#[derive(Debug)]
pub(crate) struct Segment {
    pub directory: &'static str,
    /// End of the part whose messages are known.
    pub known_end: u64,
    /// Nothing is appended any more.
    pub sealed: bool,
    /// Set when messages were moved away: the file stays until then for its readers (microseconds since 1970).
    pub retire_at_us: Option<u64>,
    /// The last read failed: keep the file in any case.
    pub unread: bool,
    /// Copying its damaged octets to corrupt/ failed: keep the file for the next start.
    pub damaged: bool,
    /// The committed end, if the file is longer.
    pub end: Option<u64>,
}

impl Segment {
    pub(crate) fn new(directory: &'static str) -> Self {
        Self {
            directory,
            known_end: SEGMENT_HEADER_OCTETS as u64,
            sealed: false,
            retire_at_us: None,
            unread: false,
            damaged: false,
            end: None,
        }
    }
}

impl DiskStore {
    /// Open the queue directory. `recover` returns its messages, oldest directory first.
    ///
    /// `Locked` when another queue manager has it open, `Version` when a newer release wrote the state log. Messages in
    /// segments of live producers arrive when these call `producer`.
    pub fn open(queue_directory: &Path) -> Result<Self, QueueError> {
        Self::open_on(RealDisk::shared(), queue_directory)
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, queue_directory: &Path) -> Result<Self, QueueError> {
        for name in [ACTIVE, DEFERRED, CORRUPT] {
            make_directory(&*disk, queue_directory, name)?;
        }
        let incoming = make_directory(&*disk, queue_directory, INCOMING)?;
        let lock = take_lock(&*disk, queue_directory)?;
        let facts = recovery::facts(&*disk, queue_directory)?;
        let log = StateLog::new(Arc::clone(&disk), queue_directory, &facts.log)?;
        let mut store = Self {
            queue_directory: queue_directory.to_path_buf(),
            slot: Slot::take(&disk, &incoming)?,
            disk,
            segments: HashMap::new(),
            log,
            facts: facts.messages,
            ends: facts.ends,
            loader: None,
            deferred: None,
            limits: Limits::default(),
            // The previous queue manager may have removed a name and died before that was stable.
            unlinked: true,
            held: Vec::new(),
            notices: facts.log.notices,
            _lock: lock,
        };
        store.put_log_aside(&facts.log.damages);
        if let Err(error) = store.log.begin() {
            store.notice(format!("the state log cannot be written, facts wait in memory: {error}"));
        }
        let mut wanted = Vec::new();
        for (directory, id, path) in recovery::segments(&*store.disk, queue_directory)? {
            if directory == INCOMING
                && let Ok(Some(reader)) = SegmentReader::open(&store.disk, path.clone(), id)
                && reader.is_live()
            {
                store.held.push(id);
            }
            wanted.push(Wanted { directory, id, path, end: store.ends.get(&id).copied() });
        }
        match misplaced(&*store.disk, queue_directory) {
            Ok(lines) => lines.into_iter().for_each(|line| store.notice(line)),
            Err(error) => store.notice(error.to_string()),
        }
        store.remove_leftovers();
        store.loader = Some(Loader::start(&store.disk, wanted)?);
        Ok(store)
    }

    /// Like `open`, but read everything at once.
    pub fn open_whole(queue_directory: &Path) -> Result<(Self, News), QueueError> {
        let mut store = Self::open(queue_directory)?;
        let news = store.recover_all();
        Ok((store, news))
    }

    /// Return all messages in the queue at the start that were not returned yet.
    pub(crate) fn recover_all(&mut self) -> News {
        let mut news = News::default();
        while self.recover_some(true, &mut news) != Recovery::Done {}
        news
    }

    /// Take one segment of those that are read since the start.
    pub(crate) fn recover_some(&mut self, wait: bool, news: &mut News) -> Recovery {
        let Some(loader) = &mut self.loader else { return Recovery::Done };
        match loader.take(wait) {
            Some(scanned) => self.loaded(scanned, news),
            None if !loader.is_done() => return Recovery::Soon,
            None => {
                self.loader = None;
                self.forget_facts();
                return Recovery::Done;
            }
        }
        Recovery::More
    }

    /// Drop the facts of the state log: once every segment was read, the catalogue has them.
    pub(crate) fn forget_facts(&mut self) {
        if self.loader.is_none() && !self.segments.values().any(|segment| segment.unread) {
            self.facts = HashMap::new();
        }
    }

    /// Process a segment that was read since the start.
    fn loaded(&mut self, Scanned { wanted, segment: scanned }: Scanned, news: &mut News) {
        let Wanted { directory, id, end, .. } = wanted;
        let mut scanned = match scanned {
            Ok(Some(scanned)) => scanned,
            Ok(None) => return,
            Err(error) => {
                self.notice(error.to_string());
                let segment = self.segments.entry(id).or_insert_with(|| Segment::new(directory));
                (segment.unread, segment.end) = (true, end);
                return;
            }
        };
        if self.segments.get(&id).is_some_and(|segment| segment.directory != directory) {
            let path = scanned.reader.path.display();
            return self
                .notice(format!("{path}: a segment of this name is in {DEFERRED}/ as well: postsuper -s renames it"));
        }
        let segment = self.segments.entry(id).or_insert_with(|| Segment { end, ..Segment::new(directory) });
        let known_end = segment.known_end;
        match &scanned.to {
            Ok(to) if !scanned.live => {
                segment.sealed = true;
                segment.known_end = known_end.max(*to);
            }
            Ok(_) => {
                // Octets that a live writer has not announced may be uncommitted. But a message with a fact was
                // announced to an earlier queue manager, and with it all messages before it.
                let known = |what: &Found| matches!(what, Found::Record { envelope, .. } if self.facts.contains_key(&envelope.id));
                let count = scanned.found.iter().rposition(known).map_or(0, |last| last + 1);
                scanned.found.truncate(count);
            }
            Err(error) => {
                segment.unread = true;
                segment.sealed = !scanned.live;
                let text = error.to_string();
                self.notice(text);
            }
        }
        for what in scanned.found {
            self.take(id, known_end, &scanned.reader, what, news);
        }
        // A writer that died since then announces nothing any more.
        if scanned.live && !scanned.reader.is_live() {
            self.read_dead(id, news);
        }
    }

    /// Handle a producer's first frame: return the new messages in its segment, committed up to `end`.
    pub fn producer(&mut self, segment: SegmentId, end: u64) -> News {
        let mut news = News::default();
        if segment != SegmentId(0) {
            self.read_to(segment, Some(end), &mut news);
        }
        news
    }

    /// Return the announced messages that are new; read skipped ones from disk.
    pub fn arrived(&mut self, arrivals: Vec<Arrival>) -> News {
        let mut news = News { messages: Vec::with_capacity(arrivals.len()), gone: Vec::new() };
        for arrival in arrivals {
            let Locator { segment: id, offset, record_octets } = arrival.locator;
            let Some(end) = offset.checked_add(record_octets) else { continue };
            // An announcement about a removed segment came too late.
            if !self.segments.contains_key(&id) && !self.full_path(id).exists() {
                continue;
            }
            let known_end = self.segments.entry(id).or_insert_with(|| Segment::new(INCOMING)).known_end;
            if offset > known_end {
                self.read_to(id, Some(offset), &mut news);
            }
            // Not while skipped messages cannot be read: a later read returns both.
            let Some(segment) = self.segments.get_mut(&id).filter(|segment| segment.known_end == offset) else {
                continue;
            };
            segment.known_end = end;
            self.told(arrival, &mut news);
        }
        news
    }

    /// Handle the end of a segment: return its messages that are new.
    pub fn sealed(&mut self, segment: SegmentId, end: u64) -> News {
        let mut news = News::default();
        self.read_to(segment, Some(end), &mut news);
        let path = self.full_path(segment);
        if let Some(known) = self.segments.get_mut(&segment) {
            known.sealed = true;
            // The producer answered this tail with an error and could not cut it off: it must never be delivered.
            if path.metadata().is_ok_and(|metadata| metadata.len() > end) && known.end != Some(end) {
                known.end = Some(end);
                self.log.append_entry(&Entry::SegmentEnd { segment, end });
            }
        }
        news
    }

    /// Handle a producer's lost connection: return the unannounced messages in all its segments. Waits up to 20 ms for
    /// a dying process to close its files. A live producer will call `producer` again.
    pub fn producer_lost(&mut self, segment: SegmentId) -> News {
        for _ in 0..LOST_CHECKS {
            match SegmentReader::open(&self.disk, self.full_path(segment), segment) {
                Ok(Some(reader)) if reader.is_live() => std::thread::sleep(LOST_CHECK_INTERVAL),
                _ => break,
            }
        }
        self.rescan()
    }

    /// Check for segments without a live producer, and for unreadable ones; return their messages that are new.
    pub fn rescan(&mut self) -> News {
        let mut news = News::default();
        self.held.clear();
        self.remove_leftovers();
        let segments = match recovery::segments(&*self.disk, &self.queue_directory) {
            Ok(segments) => segments,
            Err(error) => {
                self.notice(error.to_string());
                return news;
            }
        };
        for (directory, id, path) in segments {
            let read = |segment: &Segment| {
                segment.directory != directory || !segment.unread && (segment.sealed || directory == DEFERRED)
            };
            let coming = self.loader.as_ref().is_some_and(|loader| loader.has(id));
            if coming || self.segments.get(&id).map_or(directory == DEFERRED, read) {
                continue;
            }
            match SegmentReader::open(&self.disk, path, id) {
                Ok(Some(reader)) if directory == DEFERRED || !reader.is_live() => self.read_dead(id, &mut news),
                Ok(Some(_)) => self.held.push(id),
                Ok(None) => {}
                Err(error) => self.notice(error.to_string()),
            }
        }
        self.forget_facts();
        news
    }

    /// Read the segment of a dead writer to its end.
    fn read_dead(&mut self, id: SegmentId, news: &mut News) {
        self.read_to(id, None, news);
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.sealed = true;
        }
    }

    /// Segments that a live process held at the start or at the last check. Their messages arrive when it calls
    /// `producer`, or after its death.
    pub fn held(&self) -> &[SegmentId] {
        &self.held
    }

    /// Return a message's envelope, checked.
    pub fn read_envelope(&self, at: &Locator) -> Result<Envelope, QueueError> {
        let path = self.full_path(at.segment);
        let file = self.disk.open(&path, Open::Read).map_err(|error| QueueError::io("open", &path, &error))?;
        let bytes = read_envelope_bytes(&file, &path, at)?;
        Envelope::decode(&mut Take::new(&bytes))
            .map_err(|error| QueueError::Corrupt(format!("{} at {}: {error}", path.display(), at.offset).into()))
    }

    /// Return at most `most` recipients of a record from number `index` on, and the octets from the start of the
    /// envelope to the next one. `octets`: the octets to recipient `index`, if an earlier call returned them, or 0.
    pub fn read_recipients(
        &self,
        at: &Locator,
        index: u32,
        octets: u64,
        most: u32,
    ) -> Result<(Vec<Recipient>, u64), QueueError> {
        let path = self.full_path(at.segment);
        let file = self.disk.open(&path, Open::Read).map_err(|error| QueueError::io("open", &path, &error))?;
        read_recipients(&file, &path, at, index, octets, most)
    }

    /// Return the path of the segment's file, relative to the queue directory.
    pub fn path(&self, segment: SegmentId) -> String {
        let directory = self.segments.get(&segment).map_or(INCOMING, |segment| segment.directory);
        format!("{directory}/{}", segment.file_name())
    }

    /// Write facts to the state log, with one system call. They are in the page cache on return, and stable within
    /// about 50 ms. The catalogue must have them already: while the log cannot be written, a later `tick` takes them
    /// from there.
    pub fn note_all(&mut self, facts: &[Fact]) {
        self.log.append(facts);
        if !self.facts.is_empty() {
            // An unread segment may hold a copy of a message that ends now.
            for id in facts.iter().filter(|fact| matches!(fact, Fact::Removed { .. })).map(Fact::id) {
                self.facts.entry(id).or_default().removed = true;
            }
        }
    }

    /// Return the events for the administrator, as lines for the log.
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

    /// Read further in a segment, up to `end` or its own end.
    fn read_to(&mut self, id: SegmentId, end: Option<u64>, news: &mut News) {
        let from = self.segments.get(&id).map_or(0, |segment| segment.known_end);
        if end.is_some_and(|end| end <= from) {
            return;
        }
        let mut reader = match SegmentReader::open(&self.disk, self.full_path(id), id) {
            Ok(Some(reader)) => reader,
            // The segment is removed already: its announcement was late.
            Ok(None) => {
                if from <= SEGMENT_HEADER_OCTETS as u64 {
                    self.segments.remove(&id);
                }
                return;
            }
            Err(error) => {
                self.notice(error.to_string());
                self.segments.entry(id).or_insert_with(|| Segment::new(INCOMING)).unread = true;
                return;
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
        for what in found {
            self.take(id, 0, &reader, what, news);
        }
    }

    /// Process one part of a segment; messages before `from` were returned earlier.
    fn take(&mut self, id: SegmentId, from: u64, reader: &SegmentReader, what: Found, news: &mut News) {
        let Found::Record { locator, envelope } = what else {
            return self.damage(id, reader, what);
        };
        if locator.offset < from {
            return;
        }
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.known_end = segment.known_end.max(locator.offset + locator.record_octets);
        }
        self.told(Arrival { locator, envelope }, news);
    }

    /// Return a message for the first time, with the facts that an earlier queue manager noted.
    fn told(&mut self, arrival: Arrival, news: &mut News) {
        let known = self.facts.get_mut(&arrival.envelope.id);
        match known {
            Some(known) if known.is_over(arrival.envelope.recipients.len()) => {
                news.gone.push((arrival.locator.segment, arrival.envelope.id));
            }
            known => {
                // Its entry stays: a copy of the message may follow after it is gone.
                let state = known.map(|known| std::mem::take(&mut known.kept)).unwrap_or_default();
                news.messages.push(Stored { arrival, state });
            }
        }
    }

    /// Copy unreadable parts of the state log to `corrupt/`.
    fn put_log_aside(&mut self, damages: &[Damage]) {
        for Damage { path, offset, octets } in damages {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let copied = self.disk.open(path, Open::Read).map_err(|error| QueueError::io("open", path, &error));
            let copied = copied.and_then(|file| {
                let reason = "facts about messages that cannot be read";
                put_aside(&*self.disk, &self.queue_directory, &file, &name, *offset, *octets, reason)
            });
            match copied {
                Ok(None) => {}
                Ok(Some(copy)) => self.notice(format!("{}: put aside as {copy}", path.display())),
                Err(error) => self.notice(error.to_string()),
            }
        }
    }

    /// Cut the zeros that a killed writer left ahead of its records, so that the log mentions them once. Keep them
    /// while the writer lives, or when more octets follow.
    fn cut_zeros(&mut self, id: SegmentId, reader: &SegmentReader, offset: u64, octets: u64) {
        let is_end = !reader.is_live() && reader.octets() == Ok(offset + octets);
        let cut = || self.disk.truncate(&self.disk.open(&reader.path, Open::Keep)?, offset);
        let is_cut = is_end && cut().is_ok();
        if let Some(segment) = self.segments.get_mut(&id).filter(|_| is_cut) {
            segment.known_end = segment.known_end.min(offset);
        }
        let (path, done) = (reader.path.display(), if is_cut { "cut" } else { "ignored" });
        self.notice(format!("{path}: {octets} octets of zeros at {offset} were never committed, {done}"));
    }

    /// Report a part of a segment that is no record.
    fn damage(&mut self, id: SegmentId, reader: &SegmentReader, what: Found) {
        match what {
            Found::Record { .. } => {}
            // An early death of the writer leaves an empty file: no reason for a log line.
            Found::Zeros { octets: 0, .. } => {}
            Found::Zeros { offset, octets } => self.cut_zeros(id, reader, offset, octets),
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

impl crate::queue::store::Store for DiskStore {
    fn recover(&mut self) -> (News, Recovery) {
        let mut news = News::default();
        let recovery = self.recover_some(false, &mut news);
        (news, recovery)
    }

    fn producer(&mut self, segment: SegmentId, end: u64) -> News {
        Self::producer(self, segment, end)
    }

    fn arrived(&mut self, arrivals: Vec<Arrival>) -> News {
        Self::arrived(self, arrivals)
    }

    fn sealed(&mut self, segment: SegmentId, end: u64) -> News {
        Self::sealed(self, segment, end)
    }

    fn producer_lost(&mut self, segment: SegmentId) -> News {
        Self::producer_lost(self, segment)
    }

    fn rescan(&mut self) -> News {
        Self::rescan(self)
    }

    fn held(&self) -> &[SegmentId] {
        Self::held(self)
    }

    fn read_envelope(&self, at: &Locator) -> Result<Envelope, String> {
        Self::read_envelope(self, at).map_err(|error| error.to_string())
    }

    fn read_recipients(&self, at: &Locator, from: Cursor, most: u32) -> Result<(Vec<Recipient>, Cursor), String> {
        let read = Self::read_recipients(self, at, from.index, from.octets, most);
        let (recipients, octets) = read.map_err(|error| error.to_string())?;
        let index = from.index + recipients.len() as u32;
        Ok((recipients, Cursor { index, octets }))
    }

    fn read_content(&self, at: &Locator) -> Result<Vec<u8>, String> {
        read_content(&self.queue_directory, &Self::path(self, at.segment), at).map_err(|error| error.to_string())
    }

    fn queue_directory(&self) -> Option<&Path> {
        Some(&self.queue_directory)
    }

    fn unannounced(&self) -> Unannounced {
        let mut unannounced = Unannounced::default();
        for (id, segment) in &self.segments {
            let whole = segment.directory == DEFERRED || segment.sealed && !segment.unread;
            let end = segment.end.unwrap_or(u64::MAX);
            unannounced.insert(*id, if whole { end } else { segment.known_end }..end);
        }
        unannounced
    }

    fn path(&self, segment: SegmentId) -> String {
        Self::path(self, segment)
    }

    fn note_all(&mut self, facts: &[Fact]) {
        Self::note_all(self, facts);
    }

    fn tick(&mut self, catalogue: &mut Catalogue, now: Now) {
        Self::tick(self, catalogue, now);
    }

    fn take_notices(&mut self) -> Vec<String> {
        Self::take_notices(self)
    }
}
