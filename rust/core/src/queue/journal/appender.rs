//! What receives mail: the interface, and the journal behind it.

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

/// A message that is being received. Dropping it leaves nothing.
pub trait Incoming: Sink + Send + Sync {
    /// Its name in the queue.
    fn id(&self) -> QueueId;
    /// Octets of content so far.
    fn content_octets(&self) -> u64;
    /// Make it durable. Returns at once; `Appender::completed` names the `ticket` when it is done. `envelope.id` must
    /// be this message's.
    fn commit(self: Box<Self>, envelope: &Envelope, ticket: u64);
}

/// The side of a process that receives mail. What is committed while a sync runs shares the next one.
pub trait Appender: Send + Sync {
    /// A new message, with its name. `NoSpace` while there is too little room.
    fn incoming(&self) -> Result<Box<dyn Incoming>, QueueError>;
    /// What was decided since the last call, without waiting. `event_fd` is quiet afterwards.
    fn completed(&self) -> Vec<Completion>;
    /// As `completed`, but waits until there is something, at most `timeout`.
    fn wait(&self, timeout: Duration) -> Vec<Completion>;
    /// Append frames about everything durable that was not announced yet.
    fn take_announcements(&self, out: &mut Vec<u8>);
    /// Append the frame that a producer says first.
    fn hello(&self, pid: u32, out: &mut Vec<u8>);
    /// Readable while `completed` has something to say.
    fn event_fd(&self) -> BorrowedFd<'_>;
    /// Write what is pending and end. What is committed later fails. Idempotent.
    fn close(&self);
}

/// A draft, and where it is committed.
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

    fn content_octets(&self) -> u64 {
        self.draft.content_octets()
    }

    fn commit(self: Box<Self>, envelope: &Envelope, ticket: u64) {
        let Self { draft, journal } = *self;
        journal.commit(draft, envelope, ticket);
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
