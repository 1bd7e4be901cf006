//! Reads the segments that a start finds, ahead of the queue manager, in two threads.
//!
//! Checksums and decoding are done here; the queue manager takes one segment after the other, in order, and delivers
//! what it has meanwhile. The threads are never more than `AHEAD` segments ahead each.

use crate::mail::locator::SegmentId;
use crate::queue::INCOMING;
use crate::queue::disk::Disk;
use crate::queue::error::QueueError;
use crate::queue::segment::scan::{Found, SegmentReader};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Threads that read.
const THREADS: usize = 2;
/// Segments that a thread has read and nobody took yet, besides the one that it reads.
const AHEAD: usize = 1;

/// A segment to be read.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub directory: &'static str,
    pub id: SegmentId,
    pub path: PathBuf,
    /// What stands behind counts for nothing.
    pub end: Option<u64>,
}

/// A segment that was read.
pub(crate) struct Scanned {
    pub wanted: Wanted,
    /// `Ok(None)`: the file is gone.
    pub segment: Result<Option<Segment>, QueueError>,
}

/// What stands in it.
pub(crate) struct Segment {
    pub reader: SegmentReader,
    /// Its writer lived when it was looked at.
    pub live: bool,
    /// It was read up to here, or could not be.
    pub to: Result<u64, QueueError>,
    pub found: Vec<Found>,
}

/// Segments on their way from the disk.
pub(crate) struct Loader {
    /// The locks are for the compiler: nobody else takes results.
    results: Vec<Mutex<Receiver<Scanned>>>,
    wanted: VecDeque<SegmentId>,
    next: usize,
}

impl Loader {
    /// Begin to read.
    pub(crate) fn start(disk: &Arc<dyn Disk>, wanted: Vec<Wanted>) -> Result<Self, QueueError> {
        let ids = wanted.iter().map(|wanted| wanted.id).collect();
        let mut results = Vec::with_capacity(THREADS);
        for turn in 0..THREADS {
            let (sender, receiver) = sync_channel(AHEAD);
            let (disk, wanted) = (Arc::clone(disk), wanted.iter().skip(turn).step_by(THREADS).cloned().collect());
            std::thread::Builder::new().name("recovery".into()).spawn(move || read(&disk, wanted, &sender))?;
            results.push(Mutex::new(receiver));
        }
        Ok(Self { results, wanted: ids, next: 0 })
    }

    /// Is this segment still to come?
    pub(crate) fn has(&self, id: SegmentId) -> bool {
        self.wanted.contains(&id)
    }

    /// Was everything taken?
    pub(crate) fn is_done(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The next segment, in order; `None` while it is being read, or when none is left.
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
            // A thread that panicked: what it did not read stays on disk for a later look.
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
        // Nobody takes it any more: the queue manager ends.
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
