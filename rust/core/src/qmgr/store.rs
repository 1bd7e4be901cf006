//! The queue on disk as the queue manager needs it, so that another store can take its place.

use super::message::Cursor;
use crate::ipc::frame::Arrival;
use crate::message::envelope::{Envelope, Recipient};
use crate::queue::id::QueueId;
use crate::queue::locator::{Locator, SegmentId};
use crate::queue::spool::{Spool, Stored};
use crate::queue::state::Fact;
use std::path::Path;

/// What the queue manager asks of the queue on disk.
pub trait Store {
    /// A producer says hello: its segment's messages, up to `end`, that are not known yet.
    fn producer(&mut self, segment: SegmentId, end: u64) -> Vec<Arrival>;
    /// Of these, and of what must have come before them, the messages that are not known yet.
    fn arrived(&mut self, arrivals: Vec<Arrival>) -> Vec<Arrival>;
    /// Nothing is appended to a segment any more: its messages that are not known yet.
    fn sealed(&mut self, segment: SegmentId, end: u64) -> Vec<Arrival>;
    /// A producer is gone: its segment's messages that are not known yet.
    fn producer_lost(&mut self, segment: SegmentId) -> Vec<Arrival>;
    /// Look at everything: messages that are not known yet, whoever was to announce them.
    fn rescan(&mut self) -> Vec<Arrival>;
    /// Segments that the last look at everything, or the start, found held by a live process.
    fn held(&self) -> &[SegmentId];
    /// Messages that could be read only now, with what was known of them; each is given once.
    fn take_recalled(&mut self) -> Vec<Stored> {
        Vec::new()
    }
    /// The envelope of a record; the text of an error says what is wrong with it.
    fn read_envelope(&self, at: &Locator) -> Result<Envelope, String>;
    /// At most `most` recipients of a record, from the one that `from` names, and where to read on.
    fn read_recipients(&self, at: &Locator, from: Cursor, most: u32) -> Result<(Vec<Recipient>, Cursor), String>;
    /// A segment's file, relative to the queue directory.
    fn path(&self, segment: SegmentId) -> String;
    /// The directory that holds the segments, for threads that read by themselves; `None` when there is none.
    fn queue_directory(&self) -> Option<&Path> {
        None
    }
    /// Remember facts.
    fn note_all(&mut self, facts: &[Fact]);
    /// Housekeeping: messages that stand elsewhere now.
    fn tick(&mut self, wall_now_us: u64) -> Vec<(QueueId, Locator)>;
    /// What a person should know, as lines for the log; each is given once.
    fn take_notices(&mut self) -> Vec<String>;
}

impl Store for Spool {
    fn producer(&mut self, segment: SegmentId, end: u64) -> Vec<Arrival> {
        Spool::producer(self, segment, end)
    }

    fn arrived(&mut self, arrivals: Vec<Arrival>) -> Vec<Arrival> {
        Spool::arrived(self, arrivals)
    }

    fn sealed(&mut self, segment: SegmentId, end: u64) -> Vec<Arrival> {
        Spool::sealed(self, segment, end)
    }

    fn producer_lost(&mut self, segment: SegmentId) -> Vec<Arrival> {
        Spool::producer_lost(self, segment)
    }

    fn rescan(&mut self) -> Vec<Arrival> {
        Spool::rescan(self)
    }

    fn held(&self) -> &[SegmentId] {
        Spool::held(self)
    }

    fn take_recalled(&mut self) -> Vec<Stored> {
        Spool::take_recalled(self)
    }

    fn read_envelope(&self, at: &Locator) -> Result<Envelope, String> {
        Spool::read_envelope(self, at).map_err(|error| error.to_string())
    }

    fn read_recipients(&self, at: &Locator, from: Cursor, most: u32) -> Result<(Vec<Recipient>, Cursor), String> {
        let (recipients, octets) =
            Spool::read_recipients(self, at, from.index, from.octets, most).map_err(|error| error.to_string())?;
        let index = from.index + recipients.len() as u32;
        Ok((recipients, Cursor { index, octets }))
    }

    fn path(&self, segment: SegmentId) -> String {
        Spool::path(self, segment)
    }

    fn queue_directory(&self) -> Option<&Path> {
        Some(&self.queue_directory)
    }

    fn note_all(&mut self, facts: &[Fact]) {
        Spool::note_all(self, facts);
    }

    fn tick(&mut self, wall_now_us: u64) -> Vec<(QueueId, Locator)> {
        Spool::tick(self, wall_now_us)
    }
    fn take_notices(&mut self) -> Vec<String> {
        Spool::take_notices(self)
    }
}
