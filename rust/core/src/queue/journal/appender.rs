//! The interface for receiving mail, and the journal behind it.

use super::draft::Draft;
use crate::mail::envelope::Envelope;
use crate::mail::id::QueueId;
use crate::mail::sink::Sink;
use crate::queue::error::QueueError;
use crate::queue::journal::{Completion, Journal};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// A message that is being received. Dropping it leaves no trace.
pub trait Incoming: Sink + Send + Sync {
    /// Return the queue ID.
    fn id(&self) -> QueueId;
    /// Return the number of octets of the body so far.
    fn body_octets(&self) -> u64;
    /// Make the message durable. Return at once; `Appender::completed` names the `ticket` when it is done. `head`: the
    /// header fields in wire form, and the empty line before the body. `envelope.id` must be this message's ID.
    fn commit(self: Box<Self>, head: &[u8], envelope: &Envelope, ticket: u64);
}

/// The half of the queue for a process that receives mail. Messages committed during a sync share the next one.
pub trait Appender: Send + Sync {
    /// Return a new message with a queue ID. `NoSpace` while free space is too low.
    fn incoming(&self) -> Result<Box<dyn Incoming>, QueueError>;
    /// Return the commits that finished since the last call, without waiting. Resets `event_fd`.
    fn completed(&self) -> Vec<Completion>;
    /// Like `completed`, but wait until a commit finishes, at most `timeout`.
    fn wait(&self, timeout: Duration) -> Vec<Completion>;
    /// Append the announcements of durable messages that were not taken yet.
    fn take_announcements(&self, out: &mut Vec<u8>);
    /// Append a producer's first frame.
    fn hello(&self, pid: u32, out: &mut Vec<u8>);
    /// Readable while `completed` has results.
    fn event_fd(&self) -> BorrowedFd<'_>;
    /// Write all pending messages and end. Later commits fail. Idempotent.
    fn close(&self);
}

/// A draft, and the journal that commits it.
struct OfJournal {
    draft: Draft,
    journal: Arc<Journal>,
}

impl Sink for OfJournal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.draft.write(bytes)
    }
}

impl Incoming for OfJournal {
    fn id(&self) -> QueueId {
        self.draft.id()
    }

    fn body_octets(&self) -> u64 {
        self.draft.body_octets()
    }

    fn commit(self: Box<Self>, head: &[u8], envelope: &Envelope, ticket: u64) {
        let Self { draft, journal } = *self;
        journal.commit(draft, head, envelope, ticket);
    }
}

impl Appender for Arc<Journal> {
    fn incoming(&self) -> Result<Box<dyn Incoming>, QueueError> {
        Ok(Box::new(OfJournal { draft: self.draft()?, journal: Arc::clone(self) }))
    }

    fn completed(&self) -> Vec<Completion> {
        Journal::completed(self)
    }

    fn wait(&self, timeout: Duration) -> Vec<Completion> {
        Journal::wait(self, timeout)
    }

    fn take_announcements(&self, out: &mut Vec<u8>) {
        Journal::take_announcements(self, out);
    }

    fn hello(&self, pid: u32, out: &mut Vec<u8>) {
        Journal::hello(self, pid, out);
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        Journal::event_fd(self)
    }

    fn close(&self) {
        Journal::close(self);
    }
}
