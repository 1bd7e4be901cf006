//! Segments that a live process holds without a connected producer.
//!
//! Their process is about to connect, or it dies without notice. So the queue manager polls them, first soon and then
//! at longer intervals, until a producer connects for them or they can be read to their end.

use crate::clock::{Now, SECOND_US};
use crate::mail::locator::SegmentId;

/// Time before the first poll.
pub const POLL_FIRST_US: u64 = SECOND_US;
/// Longest interval between two polls.
pub const POLL_MAX_US: u64 = 60 * SECOND_US;

/// The time of the next poll.
#[derive(Debug)]
pub(super) struct Orphans {
    poll_us: Option<u64>,
    pause_us: u64,
}

impl Orphans {
    /// Return the state at a start, when no producer is connected yet.
    pub(super) fn at_start(held: &[SegmentId], now: Now) -> Self {
        let mut orphans = Self { poll_us: None, pause_us: POLL_FIRST_US };
        orphans.found(held, &[], now);
        orphans
    }

    /// Poll soon again: a process that may have been a producer is gone.
    pub(super) fn hurry(&mut self) {
        self.pause_us = POLL_FIRST_US;
    }

    /// Note the held segments after a search; `owned`: those of connected producers.
    pub(super) fn found(&mut self, held: &[SegmentId], owned: &[SegmentId], now: Now) {
        if held.iter().all(|segment| owned.contains(segment)) {
            self.poll_us = None;
            self.pause_us = POLL_FIRST_US;
        } else {
            self.poll_us = Some(now.mono_us + self.pause_us);
            self.pause_us = (self.pause_us * 2).min(POLL_MAX_US);
        }
    }

    /// Return the time of the next poll (monotonic); `None` without held segments.
    pub(super) fn poll_us(&self) -> Option<u64> {
        self.poll_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::frame::Frame;
    use crate::log::{Log, LogTarget};
    use crate::mail::id::QueueId;
    use crate::qmgr::hub::{Hub, Request};
    use crate::qmgr::scheduler::Scheduler;
    use crate::qmgr::settings::Settings;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, commit};
    use crate::queue::store::disk_store::DiskStore;
    use std::sync::Arc;

    /// Longer than any test, so that a missed announcement shows.
    const RESCAN_US: u64 = 1_000 * SECOND_US;

    fn at(seconds: u64) -> Now {
        Now { mono_us: (100 + seconds) * SECOND_US, wall_us: (1_700_000_000 + seconds) * SECOND_US }
    }

    fn hub(directory: &Directory) -> Hub<DiskStore> {
        let (spool, news) = DiskStore::open_whole(directory.path()).unwrap();
        assert_eq!(news.messages, []);
        let log = Log::new("mx", "postfix", "qmgr", 1, 0, LogTarget::Memory);
        let mut hub = Hub::new(Scheduler::new(Settings::default(), at(0)), spool, Arc::new(log), RESCAN_US, at(0));
        hub.tick(at(0));
        assert!(!hub.is_recovering());
        hub
    }

    fn journal(directory: &Directory) -> Journal {
        Journal::open(directory.path(), JournalOptions::default()).unwrap()
    }

    fn knows(hub: &mut Hub<DiskStore>, id: QueueId) -> bool {
        hub.scheduler().catalogue().slot(id).is_some()
    }

    fn hello(hub: &mut Hub<DiskStore>, client: u32, journal: &Journal) {
        hub.connected(client, false);
        let mut bytes = Vec::new();
        journal.hello(7, &mut bytes);
        hub.receive(client, &bytes, at(0)).unwrap();
    }

    #[test]
    fn a_producer_that_dies_before_its_first_announcement_loses_nothing() {
        let directory = Directory::new();
        let mut hub = hub(&directory);
        let journal = journal(&directory);
        hello(&mut hub, 1, &journal);
        let id = commit(&journal, b"x").id;
        drop(journal);
        assert!(!knows(&mut hub, id), "it was not announced");
        hub.lost(1, at(0));
        assert!(knows(&mut hub, id));
    }

    #[test]
    fn a_large_message_does_not_hide_the_segment_in_use() {
        let directory = Directory::new();
        let mut hub = hub(&directory);
        let options = JournalOptions { large_message_octets: 1000, ..Default::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        hello(&mut hub, 1, &journal);
        commit(&journal, b"small");
        commit(&journal, &[b'x'; 2000]);
        let mut bytes = Vec::new();
        journal.take_announcements(&mut bytes);
        hub.receive(1, &bytes, at(0)).unwrap();
        let id = commit(&journal, b"small").id;
        drop(journal);
        hub.lost(1, at(0));
        assert!(knows(&mut hub, id));
    }

    #[test]
    fn a_producer_that_dies_before_it_connects_is_noticed_within_seconds() {
        let directory = Directory::new();
        let journal = journal(&directory);
        let id = commit(&journal, b"x").id;
        let mut hub = hub(&directory);
        assert_eq!(hub.deadline(), at(1).mono_us);
        hub.tick(at(1));
        assert!(!knows(&mut hub, id), "it lives yet, and what it wrote may yet be answered with an error");
        drop(journal);
        hub.tick(at(2));
        assert!(!knows(&mut hub, id), "the next poll comes later");
        hub.tick(at(3));
        assert!(knows(&mut hub, id));
    }

    /// Return whether a command is due at that time.
    fn is_commanded(hub: &mut Hub<DiskStore>, seconds: u64) -> bool {
        let requests: Vec<_> = std::iter::from_fn(|| hub.next_request(at(seconds))).collect();
        requests.iter().any(|request| matches!(request, Request::Control { .. }))
    }

    #[test]
    fn a_command_waits_for_the_producers_of_the_start() {
        let directory = Directory::new();
        let early = journal(&directory);
        let early_id = commit(&early, b"x").id;
        let mut hub = hub(&directory);
        let late = journal(&directory);
        let late_id = commit(&late, b"x").id;
        hub.connected(9, true);
        let ask = |hub: &mut Hub<DiskStore>, seconds| {
            let mut frame = Vec::new();
            Frame::Control(b"{}".to_vec()).encode(&mut frame);
            hub.receive(9, &frame, at(seconds)).unwrap();
        };
        ask(&mut hub, 1);
        assert!(!is_commanded(&mut hub, 1), "two producers are missing");
        hello(&mut hub, 1, &early);
        assert!(!is_commanded(&mut hub, 1), "one producer is missing");
        hello(&mut hub, 2, &late);
        assert!(is_commanded(&mut hub, 1));
        assert!(knows(&mut hub, early_id) && knows(&mut hub, late_id));
        hub.lost(2, at(1));
        ask(&mut hub, 1);
        assert!(!is_commanded(&mut hub, 2) && hub.deadline() <= at(3).mono_us);
        assert!(is_commanded(&mut hub, 3), "the process may be stopped");
        ask(&mut hub, 3);
        assert!(is_commanded(&mut hub, 3));
    }

    #[test]
    fn a_process_that_outlives_its_connection_is_polled_again() {
        let directory = Directory::new();
        let mut hub = hub(&directory);
        let journal = journal(&directory);
        hello(&mut hub, 1, &journal);
        let id = commit(&journal, b"x").id;
        hub.lost(1, at(0));
        drop(journal);
        assert!(!knows(&mut hub, id));
        hub.tick(at(1));
        assert!(knows(&mut hub, id));
    }

    #[test]
    fn segments_of_connected_producers_are_not_polled() {
        let directory = Directory::new();
        let mut hub = hub(&directory);
        let (one, two) = (journal(&directory), journal(&directory));
        commit(&one, b"x");
        hello(&mut hub, 1, &one);
        hello(&mut hub, 2, &two);
        drop(two);
        hub.lost(2, at(0));
        let mut orphans = Orphans::at_start(hub.store().held(), at(0));
        assert!(orphans.poll_us().is_some(), "one segment is held");
        orphans.found(hub.store().held(), hub.store().held(), at(0));
        assert_eq!(orphans.poll_us(), None);
        hub.tick(at(5));
        while hub.next_request(at(5)).is_some() {}
        assert_eq!(hub.deadline(), at(6).mono_us, "housekeeping is all there is");
        let mut last = 0;
        for _ in 0..10 {
            orphans.found(&[SegmentId(1)], &[], at(0));
            last = orphans.poll_us().unwrap();
        }
        assert_eq!(last, at(0).mono_us + POLL_MAX_US);
        orphans.hurry();
        orphans.found(&[SegmentId(1)], &[], at(0));
        assert_eq!(orphans.poll_us(), Some(at(1).mono_us));
    }
}
