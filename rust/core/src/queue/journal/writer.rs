//! The journal's writer thread: take all pending messages, write once, sync once, complete them all. (Large messages go
//! through `large.rs`.)
//!
//! Further messages gather during a sync. A message waits for others only where that has paid (`group_commit.rs`), and
//! an idle journal without a segment never wakes up.

use super::draft::Body;
use super::group_commit::{ENOUGH, GATHER_MAX, GroupCommit};
use crate::mail::locator::Locator;
use crate::queue::error::QueueError;
use crate::queue::journal::{Completion, JournalOptions, Pending, Queue, Shared, lock};
use crate::queue::segment::SegmentFile;
use crate::queue::segment::record::{RECORD_HEADER_OCTETS, RecordHeader};
use std::io;
use std::sync::PoisonError;
use std::time::Instant;

/// Maximum number of octets in one write; a single message may be longer. The first of many messages must not wait for
/// all.
const BATCH_MAX_OCTETS: usize = 16 * 1024 * 1024;
/// Maximum number of messages in one write.
const BATCH_MAX_MESSAGES: usize = 1024;

/// Run the writer thread until the journal ends.
pub(crate) fn run(shared: &Shared) {
    let _ending = Ending(shared);
    let mut writer = Writer { shared, segment: None, group_commit: GroupCommit::default() };
    loop {
        let batch = match writer.next_work() {
            Work::Write(batch) => batch,
            Work::Seal => {
                writer.seal();
                continue;
            }
            Work::End => {
                writer.seal();
                return;
            }
        };
        writer.write(batch);
    }
}

/// Fails the waiting messages when the thread ends for any reason.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.ended = true;
        queue.current = None;
        let Queue { small, completions, .. } = &mut *queue;
        let error = QueueError::from(io::Error::other("the journal's writer has ended"));
        completions.extend(small.drain(..).map(|pending| Completion::refused(&pending, &error)));
        drop(queue);
        self.0.signal();
    }
}

enum Work {
    Write(Vec<Pending>),
    Seal,
    End,
}

struct Writer<'a> {
    shared: &'a Shared,
    /// The current segment, and the time when it is sealed.
    segment: Option<(SegmentFile, Instant)>,
    group_commit: GroupCommit,
}

/// A written record: its ticket and its length, and where its envelope begins for the announcement.
struct Written {
    pending: Pending,
    envelope_at: u64,
    record_octets: u64,
}

impl Writer<'_> {
    fn next_work(&mut self) -> Work {
        let mut queue = lock(&self.shared.queue);
        loop {
            if !queue.small.is_empty() {
                if self.group_commit.is_worth_waiting() {
                    queue.awaited = ENOUGH;
                    let alone = |queue: &mut Queue| queue.small.len() < ENOUGH && !queue.ending;
                    let gathered = self.shared.work.wait_timeout_while(queue, GATHER_MAX, alone);
                    queue = gathered.unwrap_or_else(PoisonError::into_inner).0;
                }
                queue.awaited = usize::MAX;
                self.group_commit.came(queue.small.len());
                return Work::Write(take_batch(&mut queue));
            }
            if queue.ending {
                return Work::End;
            }
            queue.awaited = 1;
            queue = match &self.segment {
                None => self.shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some((_, seal_at)) => {
                    let left = seal_at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Work::Seal;
                    }
                    self.shared.work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn write(&mut self, batch: Vec<Pending>) {
        if self.segment.as_ref().is_some_and(|(_, seal_at)| *seal_at <= Instant::now()) {
            self.seal();
        }
        let (mut segment, seal_at) = match self.segment.take() {
            Some(segment) => segment,
            None => match self
                .shared
                .segment_id()
                .and_then(|id| SegmentFile::create(&*self.shared.disk, &self.shared.directory, id))
            {
                Ok(segment) => (segment, Instant::now() + self.shared.options.segment_max_age),
                Err(error) => return self.refuse(batch, &error),
            },
        };
        let written: Vec<Written> = batch.into_iter().map(|pending| frame(pending, segment.salt())).collect();
        let records: Vec<&[u8]> = written.iter().map(|written| bytes(&written.pending)).collect();
        let mut offset = segment.end();
        if let Err(error) = segment.append(&*self.shared.disk, &records, records.len() as u64) {
            return self.give_up(segment, written.into_iter().map(|written| written.pending).collect(), &error);
        }
        let mut queue = lock(&self.shared.queue);
        for Written { pending, envelope_at, record_octets } in written {
            let locator = Locator { segment: segment.id(), offset, record_octets };
            offset += record_octets;
            queue.announcements.arrived(&locator, &bytes(&pending)[envelope_at as usize..]);
            queue.completions.push(Completion { ticket: pending.ticket, id: pending.id, result: Ok(locator) });
        }
        queue.current = Some((segment.id(), segment.end()));
        drop(queue);
        self.shared.signal();
        let JournalOptions { segment_max_octets: limit, ahead_octets, .. } = self.shared.options;
        let is_last = segment.end() >= limit || segment.write_ahead(&*self.shared.disk, ahead_octets, limit).is_err();
        self.segment = Some((segment, seal_at));
        if is_last {
            self.seal();
        }
    }

    /// Release the segment: nothing is appended any more.
    fn seal(&mut self) {
        if let Some((mut segment, _)) = self.segment.take() {
            segment.cut(&*self.shared.disk);
            self.sealed(&segment, segment.end());
        }
    }

    fn sealed(&self, segment: &SegmentFile, end: u64) {
        let mut queue = lock(&self.shared.queue);
        queue.announcements.sealed(segment.id(), end);
        queue.current = None;
    }

    /// A write or a sync failed: truncate the uncommitted tail, then never touch this segment again.
    fn give_up(&mut self, segment: SegmentFile, batch: Vec<Pending>, error: &QueueError) {
        let id = segment.id();
        let end = segment.abandon(&*self.shared.disk);
        let mut queue = lock(&self.shared.queue);
        if let Some(end) = end {
            queue.announcements.sealed(id, end);
        }
        queue.current = None;
        drop(queue);
        self.refuse(batch, error);
    }

    fn refuse(&self, batch: Vec<Pending>, error: &QueueError) {
        let refused = batch.iter().map(|pending| Completion::refused(pending, error));
        lock(&self.shared.queue).completions.extend(refused);
        self.shared.signal();
    }
}

fn take_batch(queue: &mut Queue) -> Vec<Pending> {
    let mut octets = 0;
    let mut count = 0;
    for pending in queue.small.iter().take(BATCH_MAX_MESSAGES) {
        octets += bytes(pending).len();
        if count > 0 && octets > BATCH_MAX_OCTETS {
            break;
        }
        count += 1;
    }
    queue.small.drain(..count).collect()
}

fn bytes(pending: &Pending) -> &[u8] {
    match &pending.body {
        Body::Small { bytes, .. } => bytes,
        Body::Large { .. } => &[],
    }
}

/// Fill in the record's header.
fn frame(mut pending: Pending, salt: u64) -> Written {
    let (mut envelope_at, mut record_octets) = (0, 0);
    if let Body::Small { bytes, body_octets, head_octets } = &mut pending.body {
        let (header, rest) = bytes.split_at_mut(RECORD_HEADER_OCTETS);
        let (content, envelope) = rest.split_at(*body_octets as usize + *head_octets as usize);
        let record = RecordHeader {
            salt,
            id: pending.id,
            body_octets: *body_octets,
            head_octets: *head_octets,
            envelope_octets: envelope.len() as u32,
            content_crc: crc32c::crc32c(content),
            envelope_crc: crc32c::crc32c(envelope),
        };
        header.copy_from_slice(&record.encode());
        (envelope_at, record_octets) = (record.envelope_at(), record.record_octets());
    }
    Written { pending, envelope_at, record_octets }
}
