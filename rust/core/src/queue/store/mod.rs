//! The queue behind an interface in two halves, so that another store can replace the files.
//!
//! ```text
//! Appender  (`journal/appender.rs`) a process that receives mail: append in batches, learn what is durable, announce it
//! Store     (here) the queue manager: recover, accept announcements, read, note state, housekeeping
//! ```
//!
//! `Journal` and `DiskStore` implement the halves on files, `memory` both in memory. The test suite in
//! `proofs/conformance.rs` says what every store must do: it plays random histories with crashes on each of them.

pub mod disk_store;
mod loader;
mod misplaced;
pub(crate) mod recovery;
pub mod spool;
pub(crate) mod statelog;
pub mod unannounced;

use super::segment::recipients::Cursor;
use crate::clock::Now;
use crate::ipc::frame::Arrival;
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::id::QueueId;
use crate::mail::locator::{Locator, SegmentId};
use crate::queue::catalogue::Catalogue;
use crate::queue::state::{Fact, Kept};
use crate::queue::store::unannounced::Unannounced;
use std::path::Path;

/// A message in the queue, with its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The message, and its place on disk.
    pub arrival: Arrival,
    /// Its state so far.
    pub state: Kept,
}

/// The messages that a store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Messages that were not returned before. A second record of a known message is a copy and may be among them;
    /// `Catalogue::insert` detects it.
    pub messages: Vec<Stored>,
    /// Messages that are gone while a segment still has their record: for `Catalogue::gone`.
    pub gone: Vec<(SegmentId, QueueId)>,
}

/// The progress of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// There is more: call again at once.
    More,
    /// There will be more: call again in a few milliseconds.
    Soon,
    /// Every message was returned.
    Done,
}

/// The queue manager's half. The state of each message is in the caller's catalogue.
pub trait Store {
    /// Continue with the messages that were in the queue at the start, one piece a call.
    fn recover(&mut self) -> (News, Recovery);
    /// Handle a producer's first frame: return the messages of its segment, up to `end`, that are new.
    fn producer(&mut self, segment: SegmentId, end: u64) -> News;
    /// Return those of these messages, and of skipped ones before them, that are new.
    fn arrived(&mut self, arrivals: Vec<Arrival>) -> News;
    /// Handle the end of a segment: return its messages that are new.
    fn sealed(&mut self, segment: SegmentId, end: u64) -> News;
    /// Handle the loss of a producer: return its segment's messages that are new.
    fn producer_lost(&mut self, segment: SegmentId) -> News;
    /// Check all segments: return their messages that are new, announced or not.
    fn rescan(&mut self) -> News;
    /// Segments that a live process held at the start or at the last check.
    fn held(&self) -> &[SegmentId];
    /// Return the envelope of a record; an error's text names the defect.
    fn read_envelope(&self, at: &Locator) -> Result<Envelope, String>;
    /// Return at most `most` recipients of a record, from `from` on, and the position of the next one.
    fn read_recipients(&self, at: &Locator, from: Cursor, most: u32) -> Result<(Vec<Recipient>, Cursor), String>;
    /// Return the content of a record, whole and checked, in wire form; an error's text names the defect.
    fn read_content(&self, at: &Locator) -> Result<Vec<u8>, String>;
    /// Return the path of a segment's file, relative to the queue directory.
    fn path(&self, segment: SegmentId) -> String;
    /// The directory of the segments, for threads that read on their own; `None` without files.
    fn queue_directory(&self) -> Option<&Path> {
        None
    }
    /// Return the parts that the queue manager does not know yet, for a listing.
    fn unannounced(&self) -> Unannounced {
        Unannounced::default()
    }
    /// Note facts. The catalogue has them already.
    fn note_all(&mut self, facts: &[Fact]);
    /// Do the housekeeping, about once a second. Updates the places of moved messages in the catalogue.
    fn tick(&mut self, catalogue: &mut Catalogue, now: Now);
    /// Return the events for the administrator, as lines for the log; each is returned once.
    fn take_notices(&mut self) -> Vec<String>;
}
