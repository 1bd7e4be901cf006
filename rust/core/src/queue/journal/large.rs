//! Large messages go to disk beside the writer thread, so that no small message waits while megabytes are synced.
//!
//! Each large message is a file of its own, so their order does not matter. A thread is started when a message finds
//! none idle, at most `LARGE_WRITERS_MAX`; then it waits for work without polling.

use super::draft::Body;
use crate::mail::locator::Locator;
use crate::queue::error::QueueError;
use crate::queue::journal::{Completion, Pending, Shared, lock};
use crate::queue::segment::SEGMENT_HEADER_OCTETS;
use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

/// Maximum number of large messages that are synced at a time; further ones wait.
pub(crate) const LARGE_WRITERS_MAX: usize = 4;

/// Start one more thread; the caller counts it in `large_writers`.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let of_thread = Arc::clone(shared);
    std::thread::Builder::new().name("large mail".into()).spawn(move || run(&of_thread))
}

fn run(shared: &Shared) {
    let _ending = Ending(shared);
    while let Some(pending) = next(shared) {
        publish(shared, pending);
    }
}

/// Return the next message; `None` when the journal ends and the list is empty.
fn next(shared: &Shared) -> Option<Pending> {
    let mut queue = lock(&shared.queue);
    loop {
        if let Some(pending) = queue.large.pop_front() {
            return Some(pending);
        }
        if queue.ending {
            return None;
        }
        queue.large_idle += 1;
        queue = shared.large_work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        queue.large_idle -= 1;
    }
}

fn publish(shared: &Shared, pending: Pending) {
    let Pending { ticket, id, body: Body::Large { file, rest, head_octets } } = pending else { return };
    let segment = file.id();
    let (head, envelope) = rest.split_at(head_octets as usize);
    let (published, stays) = file.publish(id, head, envelope);
    let offset = SEGMENT_HEADER_OCTETS as u64;
    let result = published.map(|record_octets| Locator { segment, offset, record_octets });
    let mut queue = lock(&shared.queue);
    match &result {
        Ok(locator) => {
            queue.announcements.arrived(locator, envelope);
            queue.announcements.sealed(segment, offset + locator.record_octets);
        }
        Err(_) if stays => queue.announcements.sealed(segment, offset),
        Err(_) => {}
    }
    queue.completions.push(Completion { ticket, id, result });
    drop(queue);
    shared.signal();
}

/// Fails the waiting messages when the last thread ends for any reason.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.large_writers -= 1;
        if queue.large_writers == 0 {
            queue.refuse_large(&QueueError::from(io::Error::other(
                "the journal's threads for large messages have ended",
            )));
        }
        drop(queue);
        self.0.signal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::frame::Frame;
    use crate::mail::sink::Sink;
    use crate::queue::INCOMING;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Call, Directory, Fault, Faulty, envelope, frames};
    use crate::queue::store::spool::Spool;
    use rustix::io::Errno;
    use std::time::Duration;

    const LARGE_OCTETS: u64 = 100_000;

    fn journal(disk: &Arc<Faulty>, directory: &Directory) -> Journal {
        let options = JournalOptions { large_message_octets: LARGE_OCTETS, ..Default::default() };
        Journal::open_on(Arc::clone(disk) as _, directory.path(), options).unwrap()
    }

    fn begin(journal: &Journal, octets: u64, ticket: u64) {
        let mut draft = journal.draft().unwrap();
        draft.write(&vec![b'x'; octets as usize]).unwrap();
        let envelope = envelope(draft.id(), 1);
        journal.commit(draft, b"Subject: large\r\n\r\n", &envelope, ticket);
    }

    fn tickets(journal: &Journal, count: usize) -> Vec<u64> {
        let mut tickets = Vec::new();
        while tickets.len() < count {
            let completions = journal.wait(Duration::from_secs(30));
            assert!(!completions.is_empty(), "only {tickets:?}");
            tickets.extend(completions.iter().map(|completion| {
                assert!(completion.result.is_ok());
                completion.ticket
            }));
        }
        tickets.sort_unstable();
        tickets
    }

    #[test]
    fn a_large_sync_delays_no_small_message_and_few_run_at_a_time() {
        let large = LARGE_WRITERS_MAX as u64 + 3;
        let directory = Directory::new();
        let disk = Arc::new(Faulty::holding_syncs_above(LARGE_OCTETS));
        let journal = journal(&disk, &directory);
        for ticket in 0..large {
            begin(&journal, LARGE_OCTETS + 1, ticket);
        }
        for ticket in 100..110 {
            begin(&journal, 10, ticket);
            assert_eq!(tickets(&journal, 1), [ticket], "while the large ones are held");
        }
        assert_eq!(lock(&journal.shared().queue).large_writers, LARGE_WRITERS_MAX);
        assert_eq!(disk.count(Call::Rename), 1, "no large message has its name");
        disk.release();
        assert_eq!(tickets(&journal, large as usize), (0..large).collect::<Vec<_>>());
        assert_eq!(directory.files(INCOMING).len() as u64, large + 1);
        assert_eq!(lock(&journal.shared().queue).large_writers, LARGE_WRITERS_MAX);
    }

    #[test]
    fn a_closed_journal_finishes_its_large_messages_first() {
        let directory = Directory::new();
        let journal = journal(&Arc::new(Faulty::counting(Duration::from_millis(5))), &directory);
        for ticket in 0..9 {
            begin(&journal, LARGE_OCTETS + 1, ticket);
        }
        journal.close();
        assert_eq!(tickets(&journal, 9), (0..9).collect::<Vec<_>>());
        assert_eq!(lock(&journal.shared().queue).large_writers, 0);
    }

    #[test]
    fn a_refused_segment_that_cannot_be_removed_is_announced_as_void() {
        for octets in [10, LARGE_OCTETS + 1] {
            let directory = Directory::new();
            let (mut spool, _) = Spool::open(directory.path()).unwrap();
            let disk = Arc::new(Faulty::failing(Call::SyncDirectory, 1, Errno::IO));
            for call in [Call::Truncate, Call::Remove] {
                disk.fail(Fault { call, at: 1, lasts: 1, errno: Some(Errno::ROFS) });
            }
            let journal = journal(&disk, &directory);
            begin(&journal, octets, 1);
            assert_eq!(journal.wait(Duration::from_secs(30))[0].result.clone().unwrap_err().reply().0, 451);
            let [Frame::Sealed { segment, end }] = frames(&journal)[..] else { panic!("{octets}") };
            assert_eq!((directory.files(INCOMING).len(), end), (1, SEGMENT_HEADER_OCTETS as u64));
            assert_eq!(spool.sealed(segment, end), [], "{octets}");
            assert_eq!(spool.rescan(), [], "{octets}");
            drop((spool, journal));
            let (mut spool, stored) = Spool::open(directory.path()).unwrap();
            assert_eq!(stored, [], "{octets}");
            spool.tick(0);
            assert_eq!(directory.files(INCOMING).len(), 0, "{octets}");
        }
    }
}
