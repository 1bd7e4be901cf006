//! A queue in memory: the second implementation of the store's interface, for tests.
//!
//! It keeps the promises of the files without using any: a message in `completed` survives a crash, and so does a noted
//! fact, unless `crash` loses the facts after the last sync.

use super::journal::appender::{Appender, Incoming};
use super::segment::recipients::Cursor;
use super::store::recovery::Known;
use super::store::{News, Recovery, Store, Stored};
use crate::clock::{Now, wall_now_us};
use crate::ipc::frame::{Arrival, Frame};
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::id::{IdSource, QueueId, SLOTS};
use crate::mail::locator::{Locator, SegmentId};
use crate::mail::sink::Sink;
use crate::queue::catalogue::Catalogue;
use crate::queue::error::QueueError;
use crate::queue::journal::{Completion, lock};
use crate::queue::state::Fact;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Octets of a record, content excluded.
const RECORD_OCTETS: u64 = 48;
/// Maximum number of records in a segment.
const SEGMENT_RECORDS: usize = 5;

/// Stands for the disk.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    disk: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<SegmentId, Segment>,
    facts: Vec<Fact>,
    /// Facts that the last sync made stable.
    synced: usize,
    appenders: u16,
    managed: bool,
}

#[derive(Debug, Default)]
struct Segment {
    records: Vec<Record>,
    /// A process appends to it.
    live: bool,
}

#[derive(Debug, Clone)]
struct Record {
    at: Locator,
    envelope: Envelope,
    content: Arc<[u8]>,
}

impl Segment {
    fn end(&self) -> u64 {
        self.records.last().map_or(RECORD_OCTETS, |record| record.at.offset + record.at.record_octets)
    }
}

impl Memory {
    /// Return the half for a process that receives mail.
    pub fn appender(&self) -> Result<MemoryAppender, QueueError> {
        let mut disk = lock(&self.disk);
        disk.appenders = (disk.appenders + 1) % SLOTS;
        let ids = IdSource::new(disk.appenders);
        drop(disk);
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let open = Open {
            ids,
            current: None,
            pending: Vec::new(),
            completions: Vec::new(),
            frames: Vec::new(),
            closed: false,
        };
        Ok(MemoryAppender { disk: self.disk.clone(), shared: Arc::new(Shared { open: Mutex::new(open), event }) })
    }

    /// Return the queue manager's half; `Locked` while another one exists.
    pub fn store(&self) -> Result<MemoryStore, QueueError> {
        let mut disk = lock(&self.disk);
        if std::mem::replace(&mut disk.managed, true) {
            return Err(QueueError::Locked("memory".into()));
        }
        let mut facts: HashMap<QueueId, Known> = HashMap::new();
        disk.facts.iter().for_each(|fact| facts.entry(fact.id()).or_default().apply(fact.clone()));
        let unread = disk.segments.keys().rev().copied().collect();
        Ok(MemoryStore { disk: self.disk.clone(), facts, unread, told: HashMap::new(), held: Vec::new() })
    }

    /// Return the queue after the death of all processes. `losing`: maximum number of unsynced facts that are lost, the
    /// latest first.
    pub fn crash(&self, losing: usize) -> Self {
        let disk = lock(&self.disk);
        let kept = disk.facts.len().saturating_sub(losing).max(disk.synced);
        let segments =
            disk.segments.iter().map(|(id, segment)| (*id, Segment { records: segment.records.clone(), live: false }));
        let facts = disk.facts[..kept].to_vec();
        let state = State {
            segments: segments.collect(),
            synced: facts.len(),
            facts,
            appenders: disk.appenders,
            managed: false,
        };
        Self { disk: Arc::new(Mutex::new(state)) }
    }

    /// Return the number of records, in any state.
    pub fn records(&self) -> usize {
        lock(&self.disk).segments.values().map(|segment| segment.records.len()).sum()
    }
}

/// Appends to a queue in memory.
#[derive(Debug)]
pub struct MemoryAppender {
    disk: Arc<Mutex<State>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    open: Mutex<Open>,
    event: OwnedFd,
}

#[derive(Debug)]
struct Open {
    ids: IdSource,
    current: Option<SegmentId>,
    /// Committed, but not durable yet.
    pending: Vec<Pending>,
    completions: Vec<Completion>,
    frames: Vec<Frame>,
    closed: bool,
}

#[derive(Debug)]
struct Pending {
    ticket: u64,
    envelope: Envelope,
    content: Arc<[u8]>,
}

/// A message that is being received.
struct Draft {
    shared: Arc<Shared>,
    id: QueueId,
    body: Vec<u8>,
}

impl Sink for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.body.write(bytes)
    }
}

impl Incoming for Draft {
    fn id(&self) -> QueueId {
        self.id
    }

    fn body_octets(&self) -> u64 {
        self.body.len() as u64
    }

    fn commit(self: Box<Self>, head: &[u8], envelope: &Envelope, ticket: u64) {
        let mut open = lock(&self.shared.open);
        let refusal = if envelope.id != self.id {
            Some(QueueError::Io(io::ErrorKind::InvalidInput, "the envelope has the ID of another message".into()))
        } else {
            open.closed.then(|| io::Error::other("the journal is closed").into())
        };
        match refusal {
            Some(error) => open.completions.push(Completion { ticket, id: self.id, result: Err(error) }),
            None => {
                let content = [head, &self.body].concat().into();
                open.pending.push(Pending { ticket, envelope: envelope.clone(), content });
            }
        }
        drop(open);
        // The counter is full only when nobody reads it; then it is readable already.
        let _ = rustix::io::write(&self.shared.event, &1u64.to_ne_bytes());
    }
}

impl MemoryAppender {
    /// Make all pending messages durable together.
    fn flush(&self, open: &mut Open) {
        let mut disk = lock(&self.disk);
        let mut arrived = Vec::new();
        for Pending { ticket, envelope, content } in std::mem::take(&mut open.pending) {
            let id = *open.current.get_or_insert_with(|| SegmentId(open.ids.next(wall_now_us()).0));
            let segment = disk.segments.entry(id).or_insert_with(|| Segment { records: Vec::new(), live: true });
            let at =
                Locator { segment: id, offset: segment.end(), record_octets: RECORD_OCTETS + content.len() as u64 };
            open.completions.push(Completion { ticket, id: envelope.id, result: Ok(at) });
            arrived.push(Arrival { locator: at, envelope: envelope.clone() });
            segment.records.push(Record { at, envelope, content });
            if segment.records.len() >= SEGMENT_RECORDS {
                open.frames.push(Frame::Arrived(std::mem::take(&mut arrived)));
                Self::seal(&mut disk, open);
            }
        }
        if !arrived.is_empty() {
            open.frames.push(Frame::Arrived(arrived));
        }
    }

    fn seal(disk: &mut State, open: &mut Open) {
        if let Some(id) = open.current.take()
            && let Some(segment) = disk.segments.get_mut(&id)
        {
            segment.live = false;
            open.frames.push(Frame::Sealed { segment: id, end: segment.end() });
        }
    }
}

impl Appender for MemoryAppender {
    fn incoming(&self) -> Result<Box<dyn Incoming>, QueueError> {
        let id = lock(&self.shared.open).ids.next(wall_now_us());
        Ok(Box::new(Draft { shared: Arc::clone(&self.shared), id, body: Vec::new() }))
    }

    fn completed(&self) -> Vec<Completion> {
        let _ = rustix::io::read(&self.shared.event, &mut [0u8; 8]);
        let mut open = lock(&self.shared.open);
        self.flush(&mut open);
        std::mem::take(&mut open.completions)
    }

    fn wait(&self, _timeout: Duration) -> Vec<Completion> {
        self.completed()
    }

    fn take_announcements(&self, out: &mut Vec<u8>) {
        for frame in std::mem::take(&mut lock(&self.shared.open).frames) {
            frame.encode(out);
        }
    }

    fn hello(&self, pid: u32, out: &mut Vec<u8>) {
        let mut open = lock(&self.shared.open);
        open.frames.retain(|frame| matches!(frame, Frame::Sealed { .. }));
        let disk = lock(&self.disk);
        let current = open.current.and_then(|id| Some((id, disk.segments.get(&id)?.end())));
        let (segment, end) = current.unwrap_or((SegmentId(0), 0));
        Frame::Producer { pid, segment, end }.encode(out);
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    fn close(&self) {
        let mut open = lock(&self.shared.open);
        self.flush(&mut open);
        Self::seal(&mut lock(&self.disk), &mut open);
        open.closed = true;
    }
}

impl Drop for MemoryAppender {
    fn drop(&mut self) {
        self.close();
    }
}

/// Manages a queue in memory.
#[derive(Debug)]
pub struct MemoryStore {
    disk: Arc<Mutex<State>>,
    /// The facts that were noted before the start.
    facts: HashMap<QueueId, Known>,
    /// Segments that `recover` has not read.
    unread: Vec<SegmentId>,
    /// The end of the announced part of each segment.
    told: HashMap<SegmentId, u64>,
    held: Vec<SegmentId>,
}

impl MemoryStore {
    /// Return the unannounced messages in a segment up to `end`.
    fn read_to(&mut self, id: SegmentId, end: u64) -> News {
        let disk = lock(&self.disk);
        let mut news = News::default();
        let Some(segment) = disk.segments.get(&id) else { return news };
        let told = self.told.entry(id).or_insert(0);
        for Record { at, envelope, .. } in &segment.records {
            if at.offset < *told || at.offset + at.record_octets > end {
                continue;
            }
            *told = at.offset + at.record_octets;
            let known = self.facts.get(&envelope.id).cloned().unwrap_or_default();
            if known.is_over(envelope.recipients.len()) {
                news.gone.push((id, envelope.id));
            } else {
                let arrival = Arrival { locator: *at, envelope: envelope.clone() };
                news.messages.push(Stored { arrival, state: known.kept });
            }
        }
        news
    }

    /// Return the end of the part that can be read without an announcement of the writer.
    fn readable(&self, id: SegmentId) -> u64 {
        let disk = lock(&self.disk);
        let Some(segment) = disk.segments.get(&id) else { return 0 };
        let noted = |record: &&Record| !segment.live || self.facts.contains_key(&record.envelope.id);
        segment.records.iter().rfind(noted).map_or(0, |record| record.at.offset + record.at.record_octets)
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        lock(&self.disk).managed = false;
    }
}

impl Store for MemoryStore {
    fn recover(&mut self) -> (News, Recovery) {
        let Some(id) = self.unread.pop() else { return (News::default(), Recovery::Done) };
        (self.read_to(id, self.readable(id)), Recovery::More)
    }

    fn producer(&mut self, segment: SegmentId, end: u64) -> News {
        self.read_to(segment, end)
    }

    fn arrived(&mut self, arrivals: Vec<Arrival>) -> News {
        let mut news = News::default();
        for arrival in arrivals {
            let Locator { segment, offset, record_octets } = arrival.locator;
            let more = self.read_to(segment, offset.saturating_add(record_octets));
            news.messages.extend(more.messages);
            news.gone.extend(more.gone);
        }
        news
    }

    fn sealed(&mut self, segment: SegmentId, end: u64) -> News {
        self.read_to(segment, end)
    }

    fn producer_lost(&mut self, _segment: SegmentId) -> News {
        self.rescan()
    }

    fn rescan(&mut self) -> News {
        let segments: Vec<_> = lock(&self.disk).segments.iter().map(|(id, segment)| (*id, segment.live)).collect();
        self.held = segments.iter().filter(|(_, live)| *live).map(|(id, _)| *id).collect();
        let mut news = News::default();
        for (id, live) in segments {
            if live || self.unread.contains(&id) {
                continue;
            }
            let more = self.read_to(id, u64::MAX);
            news.messages.extend(more.messages);
            news.gone.extend(more.gone);
        }
        news
    }

    fn held(&self) -> &[SegmentId] {
        &self.held
    }

    fn read_envelope(&self, at: &Locator) -> Result<Envelope, String> {
        find(&lock(&self.disk), at).map(|record| record.envelope.clone())
    }

    fn read_recipients(&self, at: &Locator, from: Cursor, most: u32) -> Result<(Vec<Recipient>, Cursor), String> {
        let envelope = self.read_envelope(at)?;
        let some = envelope.recipients.into_iter().skip(from.index as usize).take(most as usize);
        let recipients: Vec<Recipient> = some.collect();
        let index = from.index + recipients.len() as u32;
        Ok((recipients, Cursor { index, octets: 0 }))
    }

    fn read_content(&self, at: &Locator) -> Result<Vec<u8>, String> {
        find(&lock(&self.disk), at).map(|record| record.content.to_vec())
    }

    fn path(&self, segment: SegmentId) -> String {
        format!("memory/{}", segment.file_name())
    }

    fn note_all(&mut self, facts: &[Fact]) {
        lock(&self.disk).facts.extend_from_slice(facts);
        for fact in facts {
            self.facts.entry(fact.id()).or_default().apply(fact.clone());
        }
    }

    fn tick(&mut self, catalogue: &mut Catalogue, _now: Now) {
        let mut disk = lock(&self.disk);
        let (told, unread) = (&self.told, &self.unread);
        disk.segments.retain(|id, segment| {
            let live = catalogue.resident(*id).is_some_and(|resident| resident.live > 0);
            let whole = told.get(id).is_some_and(|told| *told >= segment.end()) && !unread.contains(id);
            let keep = live || segment.live || !whole;
            if !keep {
                catalogue.forget_segment(*id);
            }
            keep
        });
        let State { segments, facts, .. } = &mut *disk;
        let stands = |id: QueueId| segments.values().any(|s| s.records.iter().any(|record| record.envelope.id == id));
        facts.retain(|fact| stands(fact.id()));
        disk.synced = disk.facts.len();
    }

    fn take_notices(&mut self) -> Vec<String> {
        Vec::new()
    }
}

fn find<'a>(disk: &'a State, at: &Locator) -> Result<&'a Record, String> {
    let segment = disk.segments.get(&at.segment);
    let found = segment.and_then(|segment| segment.records.iter().find(|record| record.at == *at));
    found.ok_or_else(|| format!("{} at {}: no record", at.segment.file_name(), at.offset))
}
