//! Messages that are on disk before the queue manager has heard of them, for a listing (postqueue(1)).
//!
//! A producer commits a message, then announces it. Between the two the message is in no catalogue, and pickup has
//! removed its file from `maildrop/` already. A listing that reads `maildrop/` first, and then the unannounced ends of
//! the segments, misses no message: a message that left `maildrop/` before is in a segment on disk.

use crate::mail::envelope::Envelope;
use crate::mail::locator::SegmentId;
use crate::queue::INCOMING;
use crate::queue::disk::{Disk, RealDisk, names};
use crate::queue::error::QueueError;
use crate::queue::segment::SEGMENT_HEADER_OCTETS;
use crate::queue::segment::scan::{Found, SegmentReader, segment_path};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The part of each segment that the queue manager knows when a listing begins.
#[derive(Debug, Clone, Default)]
pub struct Unannounced {
    /// The octets of a segment that it does not know. A segment that is missing here is wholly unknown.
    rest: HashMap<SegmentId, Range<u64>>,
}

impl Unannounced {
    /// Add a segment: `rest` are the octets that the queue manager does not know.
    pub(crate) fn insert(&mut self, segment: SegmentId, rest: Range<u64>) {
        self.rest.insert(segment, rest);
    }

    /// Give `take` the envelope of each unannounced message in `incoming/`; false ends the read, and is then returned.
    ///
    /// Unreadable records are left out, as in the other parts of a listing.
    pub fn read(&self, queue_directory: &Path, take: &mut dyn FnMut(&Envelope) -> bool) -> bool {
        let disk = RealDisk::shared();
        let Ok(names) = names(&*disk, &queue_directory.join(INCOMING)) else { return true };
        let mut segments: Vec<SegmentId> = names.iter().filter_map(|name| SegmentId::parse(name)).collect();
        segments.sort();
        let mut wanted = true;
        for id in segments {
            let rest = self.rest.get(&id).cloned().unwrap_or(SEGMENT_HEADER_OCTETS as u64..u64::MAX);
            if rest.is_empty() {
                continue;
            }
            let _ = read(&disk, queue_directory, id, rest, &mut |what| {
                if let Found::Record { envelope, .. } = what {
                    wanted = take(&envelope);
                }
                wanted
            });
            if !wanted {
                return false;
            }
        }
        true
    }
}

/// Give `take` the records in `rest` of a segment. A removed segment was delivered meanwhile.
fn read(
    disk: &Arc<dyn Disk>,
    queue_directory: &Path,
    id: SegmentId,
    rest: Range<u64>,
    take: &mut dyn FnMut(Found) -> bool,
) -> Result<(), QueueError> {
    match SegmentReader::open(disk, segment_path(queue_directory, INCOMING, id), id)? {
        None => Ok(()),
        Some(mut reader) => {
            let to = reader.octets()?.min(rest.end);
            reader.scan_written(rest.start, to, take)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::frame::Frame;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, commit, frames};
    use crate::queue::store::Store;
    use crate::queue::store::disk_store::DiskStore;
    use std::fs::OpenOptions;
    use std::io::Write;

    fn listed(unannounced: &Unannounced, directory: &Directory) -> Vec<String> {
        let mut ids = Vec::new();
        let mut take = |envelope: &Envelope| {
            ids.push(envelope.id.long());
            true
        };
        assert!(unannounced.read(directory.path(), &mut take));
        ids
    }

    fn store(directory: &Directory) -> DiskStore {
        let (store, news) = DiskStore::open_whole(directory.path()).unwrap();
        assert_eq!(news.messages, []);
        store
    }

    #[test]
    fn a_committed_message_is_listed_once_until_its_announcement() {
        let directory = Directory::new();
        let options = JournalOptions { large_message_octets: 1000, ..Default::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        let mut store = store(&directory);
        let mut expected = vec![commit(&journal, b"small").id.long()];
        assert_eq!(listed(&store.unannounced(), &directory), expected, "nobody has said hello");
        expected.push(commit(&journal, &[b'x'; 2000]).id.long());
        assert_eq!(listed(&store.unannounced(), &directory), expected, "a large one has a segment of its own");
        for frame in frames(&journal) {
            if let Frame::Arrived(arrivals) = frame {
                store.arrived(arrivals);
            }
        }
        assert_eq!(listed(&store.unannounced(), &directory), Vec::<String>::new(), "all of it was announced");
        let later = commit(&journal, b"later").id.long();
        assert_eq!(listed(&store.unannounced(), &directory), [&*later]);
    }

    #[test]
    fn a_message_that_arrives_during_the_listing_is_in_it() {
        let directory = Directory::new();
        let store = store(&directory);
        let unannounced = store.unannounced();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let id = commit(&journal, b"x").id.long();
        assert_eq!(listed(&unannounced, &directory), [id]);
    }

    #[test]
    fn octets_that_are_no_record_end_a_segment() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let id = commit(&journal, b"x").id.long();
        journal.close();
        let path = directory.files(INCOMING).pop().unwrap();
        OpenOptions::new().append(true).open(path).unwrap().write_all(&[7; 5000]).unwrap();
        assert_eq!(listed(&Unannounced::default(), &directory), [id]);
    }

    #[test]
    fn a_reader_can_end_the_listing() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        commit(&journal, b"one");
        commit(&journal, b"two");
        let mut calls = 0;
        let mut enough = |_: &Envelope| {
            calls += 1;
            false
        };
        assert!(!Unannounced::default().read(directory.path(), &mut enough));
        assert_eq!(calls, 1);
    }
}
