//! Messages that are on disk before the queue manager has heard of them, for a listing (postqueue(1)).
//!
//! A producer commits a message, then announces it. Between the two the message is in no catalogue, and pickup has
//! removed its file from `maildrop/` already. A listing that reads `maildrop/` first, and then the unannounced ends of
//! the segments, misses no message: what left `maildrop/` before is on disk in a segment.

use crate::queue::INCOMING;
use crate::queue::disk::{Disk, RealDisk};
use crate::queue::error::QueueError;
use crate::queue::listing::print;
use crate::queue::locator::SegmentId;
use crate::queue::recovery::names;
use crate::queue::rows::Rows;
use crate::queue::scan::{Found, SegmentReader, segment_path};
use crate::queue::segment::SEGMENT_HEADER_OCTETS;
use crate::queue::state::Kept;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

const WAITS: &str = "for the queue manager to hear of it";

/// How much of each segment the queue manager knows, at the moment when a listing begins.
#[derive(Debug, Clone, Default)]
pub struct Unannounced {
    /// The octets of a segment that it has not heard of. A segment that is not here is unknown as a whole.
    rest: HashMap<SegmentId, Range<u64>>,
}

impl Unannounced {
    /// A segment: `rest` are the octets that the queue manager has not heard of.
    pub(crate) fn insert(&mut self, segment: SegmentId, rest: Range<u64>) {
        self.rest.insert(segment, rest);
    }

    /// Print the unannounced messages of `incoming/`; `each` is called after every one, and ends it with false.
    ///
    /// What cannot be read is left out, as in the other parts of a listing.
    pub fn list(
        &self,
        queue_directory: &Path,
        rows: &mut Rows,
        long_queue_ids: bool,
        each: &mut dyn FnMut(&mut Rows) -> bool,
    ) -> bool {
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
            let mut take = |what: Found| {
                if let Found::Record { envelope, .. } = what {
                    print(rows, &envelope, &Kept::default(), long_queue_ids, WAITS);
                    wanted = each(rows);
                }
                wanted
            };
            let _ = read(&disk, queue_directory, id, rest, &mut take);
            if !wanted {
                return false;
            }
        }
        true
    }
}

/// Give `take` the records in `rest` of a segment. A segment that is gone was delivered meanwhile.
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
    use crate::queue::diskstore::DiskStore;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::rows::Form;
    use crate::queue::store::Store;
    use crate::queue::testing::{Directory, commit, frames};
    use std::fs::OpenOptions;
    use std::io::Write;

    fn listed(unannounced: &Unannounced, directory: &Directory) -> Vec<String> {
        let mut rows = Rows::new(Form::Json, true);
        assert!(unannounced.list(directory.path(), &mut rows, true, &mut |_| true));
        rows.finish();
        let id = |line: &str| line.split('"').nth(7).unwrap_or_default().to_owned();
        rows.out.lines().map(id).collect()
    }

    fn store(directory: &Directory) -> DiskStore {
        let (store, news) = DiskStore::open_whole(directory.path()).unwrap();
        assert_eq!(news.messages, []);
        store
    }

    #[test]
    fn what_is_committed_and_not_announced_is_listed_once() {
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
        assert_eq!(listed(&store.unannounced(), &directory), [""; 0], "all of it was announced");
        let later = commit(&journal, b"later").id.long();
        assert_eq!(listed(&store.unannounced(), &directory), [&*later]);
    }

    #[test]
    fn a_message_that_comes_after_the_listing_began_is_in_it() {
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
    fn a_reader_that_has_seen_enough_ends_it() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        commit(&journal, b"one");
        commit(&journal, b"two");
        let (mut rows, mut calls) = (Rows::new(Form::Json, true), 0);
        let mut enough = |_: &mut Rows| {
            calls += 1;
            false
        };
        assert!(!Unannounced::default().list(directory.path(), &mut rows, true, &mut enough));
        assert_eq!(calls, 1);
    }
}
