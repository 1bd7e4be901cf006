//! The queue behind one interface in two halves, so that another store can take the place of the files.
//!
//! ```text
//! Appender  (`journal/appender.rs`) a process that receives mail: append in batches, be told what is durable, announce it
//! Store     (here) the queue manager: recover, hear of what came, read, note state, keep house
//! ```
//!
//! `Journal` and `DiskStore` implement the halves on files, `memory` both in memory. What every store must do is the
//! test-suite in `proofs/conformance.rs`, which plays random histories, crashes included, on each of them.

pub mod disk_store;
pub mod housekeeping;
mod loader;
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

/// A message in the queue, with what happened to it so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where it stands, and what it is.
    pub arrival: Arrival,
    /// What became of it so far.
    pub state: Kept,
}

/// What was found in the queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Messages that were not told of before. A second record of a message that is known is a copy and may be among
    /// them: `Catalogue::insert` says so.
    pub messages: Vec<Stored>,
    /// Messages that are gone, while a record of theirs is in a segment: for `Catalogue::gone`.
    pub gone: Vec<(SegmentId, QueueId)>,
}

/// How far a recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// There is more: come again at once.
    More,
    /// There will be more: come again in a few milliseconds.
    Soon,
    /// Everything was told.
    Done,
}

/// The queue manager's side. What it must remember of each message it finds in the caller's catalogue.
pub trait Store {
    /// Go on with what stood in the queue at the start, one piece a call.
    fn recover(&mut self) -> (News, Recovery);
    /// A producer says hello: its segment's messages, up to `end`, that are not told yet.
    fn producer(&mut self, segment: SegmentId, end: u64) -> News;
    /// Of these, and of what must have come before them, the messages that are not told yet.
    fn arrived(&mut self, arrivals: Vec<Arrival>) -> News;
    /// Nothing is appended to a segment any more: its messages that are not told yet.
    fn sealed(&mut self, segment: SegmentId, end: u64) -> News;
    /// A producer is gone: its segment's messages that are not told yet.
    fn producer_lost(&mut self, segment: SegmentId) -> News;
    /// Look at everything: messages that are not told yet, whoever was to announce them.
    fn rescan(&mut self) -> News;
    /// Segments that the start or the last look found held by a live process.
    fn held(&self) -> &[SegmentId];
    /// The envelope of a record; the text of an error says what is wrong with it.
    fn read_envelope(&self, at: &Locator) -> Result<Envelope, String>;
    /// At most `most` recipients of a record, from the one that `from` names, and where to read on.
    fn read_recipients(&self, at: &Locator, from: Cursor, most: u32) -> Result<(Vec<Recipient>, Cursor), String>;
    /// The content of a record, whole and checked, in wire form; the text of an error says what is wrong with it.
    fn read_content(&self, at: &Locator) -> Result<Vec<u8>, String>;
    /// A segment's file, relative to the queue directory.
    fn path(&self, segment: SegmentId) -> String;
    /// The directory that holds the segments, for threads that read by themselves; `None` when there is none.
    fn queue_directory(&self) -> Option<&Path> {
        None
    }
    /// What the queue manager has not heard of yet, for a listing.
    fn unannounced(&self) -> Unannounced {
        Unannounced::default()
    }
    /// Remember facts. What they say is in the catalogue already.
    fn note_all(&mut self, facts: &[Fact]);
    /// Housekeeping, every second or so: what stands elsewhere now is changed in the catalogue.
    fn tick(&mut self, catalogue: &mut Catalogue, now: Now);
    /// What a person should know, as lines for the log; each is given once.
    fn take_notices(&mut self) -> Vec<String>;
}
