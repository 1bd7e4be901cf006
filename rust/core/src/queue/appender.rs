//! The journal as an `Appender`.

use crate::mail::envelope::Envelope;
use crate::mail::id::QueueId;
use crate::mail::sink::Sink;
use crate::queue::draft::Draft;
use crate::queue::error::QueueError;
use crate::queue::journal::{Completion, Journal};
use crate::queue::store::{Appender, Incoming};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

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
