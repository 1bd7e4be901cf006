//! Reads the segments at a start, ahead of the queue manager, in two threads.
//!
//! The threads verify checksums and decode; the queue manager takes the segments in order, and delivers messages
//! meanwhile. Each thread is at most `AHEAD` segments ahead.

use crate::mail::locator::SegmentId;
use crate::queue::INCOMING;
use crate::queue::disk::Disk;
use crate::queue::error::QueueError;
use crate::queue::segment::scan::{Found, SegmentReader};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Number of reading threads.
const THREADS: usize = 2;
/// Maximum number of segments that a thread has read ahead, besides the current one.
const AHEAD: usize = 1;

/// A segment to read.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub directory: &'static str,
    pub id: SegmentId,
    pub path: PathBuf,
    /// Octets behind this end never count as mail.
    pub end: Option<u64>,
}

/// A segment that was read.
pub(crate) struct Scanned {
    pub wanted: Wanted,
    /// `Ok(None)`: the file is gone.
    pub segment: Result<Option<Segment>, QueueError>,
}

/// The content of a segment.
pub(crate) struct Segment {
    pub reader: SegmentReader,
    /// Its writer was alive when this was checked.
    pub live: bool,
    /// The end of the part that was read, or the error.
    pub to: Result<u64, QueueError>,
    pub found: Vec<Found>,
}

/// The segments that are being read.
pub(crate) struct Loader {
    /// The locks satisfy the compiler: only the queue manager takes results.
    results: Vec<Mutex<Receiver<Scanned>>>,
    wanted: VecDeque<SegmentId>,
    next: usize,
}

impl Loader {
    /// Start to read.
    pub(crate) fn start(disk: &Arc<dyn Disk>, wanted: Vec<Wanted>) -> Result<Self, QueueError> {
        let ids = wanted.iter().map(|wanted| wanted.id).collect();
        let mut results = Vec::with_capacity(THREADS);
        for thread in 0..THREADS {
            let (sender, receiver) = sync_channel(AHEAD);
            let (disk, wanted) = (Arc::clone(disk), wanted.iter().skip(thread).step_by(THREADS).cloned().collect());
            std::thread::Builder::new().name("recovery".into()).spawn(move || read(&disk, wanted, &sender))?;
            results.push(Mutex::new(receiver));
        }
        Ok(Self { results, wanted: ids, next: 0 })
    }

    /// Whether this segment was not taken yet.
    pub(crate) fn has(&self, id: SegmentId) -> bool {
        self.wanted.contains(&id)
    }

    /// Whether all segments were taken.
    pub(crate) fn is_done(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Return the next segment, in order; `None` while it is being read, or when none is left.
    pub(crate) fn take(&mut self, wait: bool) -> Option<Scanned> {
        if self.wanted.is_empty() {
            return None;
        }
        let results = self.results[self.next % THREADS].get_mut().unwrap_or_else(PoisonError::into_inner);
        let scanned = match results.try_recv() {
            Err(TryRecvError::Empty) if wait => results.recv().ok(),
            Err(TryRecvError::Empty) => return None,
            result => result.ok(),
        };
        if scanned.is_none() {
            // After a thread's panic, its unread segments stay on disk for a later check.
            self.wanted.clear();
        }
        self.next += 1;
        self.wanted.pop_front();
        scanned
    }
}

fn read(disk: &Arc<dyn Disk>, wanted: Vec<Wanted>, results: &SyncSender<Scanned>) {
    for wanted in wanted {
        let segment = scan(disk, &wanted);
        // Nobody takes it any more: the queue manager has ended.
        if results.send(Scanned { wanted, segment }).is_err() {
            return;
        }
    }
}

fn scan(disk: &Arc<dyn Disk>, wanted: &Wanted) -> Result<Option<Segment>, QueueError> {
    let Some(mut reader) = SegmentReader::open(disk, wanted.path.clone(), wanted.id)? else { return Ok(None) };
    let live = wanted.directory == INCOMING && reader.is_live();
    let mut found = Vec::new();
    let to = reader.octets().and_then(|octets| {
        let to = octets.min(wanted.end.unwrap_or(u64::MAX));
        reader.scan(0, to, &mut |what| found.push(what)).map(|()| to)
    });
    Ok(Some(Segment { reader, live, to, found }))
}
