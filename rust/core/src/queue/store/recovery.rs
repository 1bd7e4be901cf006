//! Reads the queue directory at a start: the facts of the state log, and the segments.

use super::statelog::{self, Loaded};
use crate::mail::id::QueueId;
use crate::mail::locator::SegmentId;
use crate::queue::disk::{Disk, Open, names};
use crate::queue::error::QueueError;
use crate::queue::segment::NEW_PREFIX;
use crate::queue::segment::scan::segment_path;
use crate::queue::state::{Entry, Fact, Kept};
use crate::queue::{DEFERRED, INCOMING};
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Age at which a file `new.ID` without a lock is a leftover of a dead process.
const LEFTOVER_AGE: Duration = Duration::from_secs(60);

/// The facts of the state log about one message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub kept: Kept,
    pub removed: bool,
}

impl Known {
    /// Apply a fact.
    pub(crate) fn apply(&mut self, fact: Fact) {
        self.removed |= matches!(fact, Fact::Removed { .. });
        self.kept.apply(fact);
    }

    /// Return the smallest list of facts that add up to this.
    pub(crate) fn facts(&self, id: QueueId) -> Vec<Fact> {
        if self.removed { vec![Fact::Removed { id }] } else { self.kept.facts(id) }
    }

    /// Whether a message with `recipients` recipients is finished.
    pub(crate) fn is_over(&self, recipients: usize) -> bool {
        self.removed || (recipients > 0 && self.kept.done.len() >= recipients)
    }
}

/// The content of the state log.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub messages: HashMap<QueueId, Known>,
    pub ends: HashMap<SegmentId, u64>,
    pub log: Loaded,
}

/// Read the state log.
pub(crate) fn facts(disk: &dyn Disk, queue_directory: &Path) -> Result<Facts, QueueError> {
    let mut facts = Facts::default();
    let Facts { messages, ends, .. } = &mut facts;
    let loaded = statelog::load(disk, queue_directory, &mut |entry| match entry {
        Entry::Fact(fact) => messages.entry(fact.id()).or_default().apply(fact),
        Entry::SegmentEnd { segment, end } => {
            ends.insert(segment, end);
        }
    })?;
    Ok(Facts { log: loaded, ..facts })
}

/// Return every segment with its directory: those of `deferred/` first, so that of two copies of a message the one in
/// `deferred/` is found first; then by number.
pub(crate) fn segments(
    disk: &dyn Disk,
    queue_directory: &Path,
) -> Result<Vec<(&'static str, SegmentId, PathBuf)>, QueueError> {
    let mut found = Vec::new();
    for directory in [DEFERRED, INCOMING] {
        let mut ids: Vec<SegmentId> =
            names(disk, &queue_directory.join(directory))?.iter().filter_map(|name| SegmentId::parse(name)).collect();
        ids.sort();
        found.extend(ids.into_iter().map(|id| (directory, id, segment_path(queue_directory, directory, id))));
    }
    Ok(found)
}

/// Remove files of dead writers that never became segments. Returns their number.
pub(crate) fn remove_leftovers(disk: &dyn Disk, directory: &Path) -> Result<usize, QueueError> {
    let mut removed = 0;
    for name in names(disk, directory)? {
        let path = directory.join(&name);
        if name.strip_prefix(NEW_PREFIX).and_then(SegmentId::parse).is_some() && is_leftover(disk, &path) {
            removed += usize::from(disk.remove(&path).is_ok());
        }
    }
    Ok(removed)
}

fn is_leftover(disk: &dyn Disk, path: &Path) -> bool {
    let Ok(file) = disk.open(path, Open::Read) else { return false };
    let age = file.metadata().and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
    // The lock ends with the file; a writer that tries it meanwhile waits that long.
    matches!(age, Ok(Ok(age)) if age >= LEFTOVER_AGE) && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::reply::Enhanced;
    use crate::mail::sink::Sink;
    use crate::mail::status::{Outcome, Status};
    use crate::queue::journal::{Completion, Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, commit, crash_image};
    use crate::queue::store::Stored;
    use crate::queue::store::spool::Spool;
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;
    use std::time::Instant;

    fn journal(directory: &Directory) -> Journal {
        Journal::open(directory.path(), JournalOptions::default()).unwrap()
    }

    fn ids(stored: &[Stored]) -> Vec<QueueId> {
        let mut ids: Vec<_> = stored.iter().map(|stored| stored.arrival.envelope.id).collect();
        ids.sort();
        ids
    }

    fn deferred(id: QueueId, attempts: u32) -> Fact {
        let dsn = Enhanced { class: 4, subject: 4, detail: 1 };
        let status = Status { outcome: Outcome::Deferred, dsn, text: "no route".into(), remote: None };
        Fact::Deferred { id, attempts, next_attempt_us: 5, reasons: vec![(1, Arc::new(status))] }
    }

    #[test]
    fn committed_messages_survive_a_crash_and_uncommitted_ones_do_not() {
        let directory = Directory::new();
        let options = JournalOptions { large_message_octets: 1000, ..Default::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        let committed: Vec<_> = [10, 2000, 20].map(|octets| commit(&journal, &vec![b'x'; octets]).id).into();
        let mut unfinished = journal.draft().unwrap();
        unfinished.write(&[b'x'; 700_000]).unwrap();
        let image = crash_image(&directory);
        let (spool, stored) = Spool::open(image.path()).unwrap();
        assert_eq!(ids(&stored), committed);
        let wire = |s: &Stored| {
            crate::queue::read_content(image.path(), &spool.path(s.arrival.locator.segment), &s.arrival.locator)
        };
        assert!(stored.iter().all(|stored| wire(stored).is_ok()));
        assert!(image.files("incoming").iter().any(|path| path.to_str().unwrap().contains("/new.")), "it is young yet");
        let old = std::time::SystemTime::now() - LEFTOVER_AGE * 2;
        for path in image.files("incoming") {
            File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        }
        drop(spool);
        let (mut spool, stored) = Spool::open(image.path()).unwrap();
        assert_eq!(ids(&stored), committed);
        assert!(!image.files("incoming").iter().any(|path| path.to_str().unwrap().contains("/new.")));
        assert!(spool.take_notices()[0].contains("unfinished"));
    }

    #[test]
    fn a_live_draft_is_no_leftover_at_any_age() {
        let directory = Directory::new();
        let options = JournalOptions { large_message_octets: 1000, ..Default::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        let mut draft = journal.draft().unwrap();
        draft.write(&[b'x'; 2000]).unwrap();
        let path = directory.files("incoming").pop().unwrap();
        let old = std::time::SystemTime::now() - LEFTOVER_AGE * 2;
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        Spool::open(directory.path()).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn a_fact_survives_a_kill_right_after_it_was_noted() {
        let directory = Directory::new();
        let journal = journal(&directory);
        let id = [(); 4].map(|()| commit(&journal, b"x").id);
        journal.close();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        let mut expected: Vec<(QueueId, Kept)> = id.map(|id| (id, Kept::default())).into();
        for fact in [
            deferred(id[0], 1),
            Fact::Done { id: id[1], recipients: vec![1].into() },
            Fact::Held { id: id[2] },
            deferred(id[0], 2),
            Fact::Warned { id: id[0] },
            Fact::Done { id: id[1], recipients: vec![0].into() },
            Fact::Released { id: id[2] },
            Fact::Removed { id: id[3] },
        ] {
            spool.note(fact.clone());
            for (of, kept) in expected.iter_mut().filter(|(of, _)| *of == fact.id()) {
                kept.apply(fact.clone());
                assert_eq!(*of, fact.id());
            }
            let gone = |kept: &Kept| kept.done.len() == 2;
            expected.retain(|(of, kept)| !gone(kept) && !matches!(&fact, Fact::Removed { id } if id == of));
            // Twice: the first start writes a new log, which must have the same facts.
            let image = crash_image(&directory);
            for _ in 0..2 {
                let (_, mut stored) = Spool::open(image.path()).unwrap();
                stored.sort_by_key(|stored| stored.arrival.envelope.id);
                let found: Vec<_> = stored.into_iter().map(|s| (s.arrival.envelope.id, s.state)).collect();
                assert_eq!(found, expected, "after {fact:?}");
            }
        }
    }

    #[test]
    fn a_bad_record_is_put_aside_once_and_the_rest_is_delivered() {
        let directory = Directory::new();
        let journal = journal(&directory);
        let completions: Vec<Completion> = (0..3).map(|_| commit(&journal, b"content")).collect();
        journal.close();
        let at = completions[1].result.clone().unwrap();
        let path = segment_path(directory.path(), INCOMING, at.segment);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.write_all_at(b"C", at.offset + 48).unwrap();
        let (mut spool, stored) = Spool::open(directory.path()).unwrap();
        assert_eq!(ids(&stored), [completions[0].id, completions[2].id]);
        let notice = spool.take_notices().pop().unwrap();
        let name = format!("corrupt/{}-{}", at.segment.file_name(), at.offset);
        assert!(notice.contains(&name) && notice.contains("the content's checksum does not match"), "{notice}");
        let mut bytes = vec![0; at.record_octets as usize];
        file.read_exact_at(&mut bytes, at.offset).unwrap();
        assert_eq!(fs::read(directory.path().join(&name)).unwrap(), bytes);
        let reason = fs::read_to_string(directory.path().join(format!("{name}.reason"))).unwrap();
        assert!(reason.contains(&completions[1].id.short()), "{reason}");
        drop(spool);
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        assert_eq!(spool.take_notices(), Vec::<String>::new());
        for completion in [&completions[0], &completions[2]] {
            spool.note(Fact::Removed { id: completion.id });
        }
        spool.tick(0);
        assert!(!path.exists(), "the segment goes when its good messages are gone");
    }

    #[test]
    fn zeros_of_a_killed_writer_are_cut_once_and_those_of_a_live_one_stay() {
        let directory = Directory::new();
        let options = JournalOptions { ahead_octets: 500, ..JournalOptions::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        let places: Vec<_> = (0..2).map(|_| commit(&journal, &[b'x'; 9000]).result.unwrap()).collect();
        let end = places[1].offset + places[1].record_octets;
        let octets = |directory: &Directory| directory.files(INCOMING)[0].metadata().unwrap().len();
        // An eighth of the records in whole pieces, written after the commit is completed.
        let ahead = end + end / 8 / 500 * 500;
        let until = Instant::now() + Duration::from_secs(30);
        while octets(&directory) != ahead {
            assert!(Instant::now() < until, "{} octets, {ahead} are awaited", octets(&directory));
            std::thread::yield_now();
        }
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        assert_eq!(spool.producer(places[0].segment, end).len(), 2);
        assert_eq!((octets(&directory), spool.take_notices()), (ahead, vec![]), "its writer lives");
        let image = crash_image(&directory);
        for round in 0..2 {
            let (mut spool, stored) = Spool::open(image.path()).unwrap();
            assert_eq!((stored.len(), octets(&image)), (2, end));
            let notices = spool.take_notices();
            assert_eq!(notices.len(), usize::from(round == 0), "{notices:?}");
            let text = format!("{} octets of zeros at {end} were never committed, cut", ahead - end);
            assert!(notices.iter().all(|notice| notice.ends_with(&text)), "{notices:?}");
        }
    }

    #[test]
    fn a_second_queue_manager_is_refused() {
        let directory = Directory::new();
        let (spool, _) = Spool::open(directory.path()).unwrap();
        let error = Spool::open(directory.path()).err().unwrap();
        assert!(matches!(error, QueueError::Locked(_)) && error.to_string().contains("another queue manager"));
        drop(spool);
        assert!(Spool::open(directory.path()).is_ok());
    }

    #[test]
    fn messages_of_a_live_producer_arrive_once_after_any_earlier_queue_manager() {
        let directory = Directory::new();
        let journal = journal(&directory);
        let places: Vec<_> = (0..5).map(|_| commit(&journal, b"x")).map(|c| (c.id, c.result.unwrap())).collect();
        let segment = places[0].1.segment;
        let end = |n: usize| places[n].1.offset + places[n].1.record_octets;
        let (mut spool, stored) = Spool::open(directory.path()).unwrap();
        assert_eq!(stored, [], "nothing is known to be committed yet");
        assert_eq!(spool.producer(segment, end(3)).len(), 4);
        spool.note(Fact::Removed { id: places[0].0 });
        spool.note(deferred(places[2].0, 1));
        drop(spool);
        let (mut spool, stored) = Spool::open(directory.path()).unwrap();
        assert_eq!(ids(&stored), [places[1].0, places[2].0]);
        assert_eq!(stored[1].state.attempts, 1);
        let new: Vec<_> = spool.producer(segment, end(4)).into_iter().map(|arrival| arrival.envelope.id).collect();
        assert_eq!(new, [places[3].0, places[4].0]);
    }

    #[test]
    fn octets_behind_the_announced_end_are_never_delivered() {
        let directory = Directory::new();
        let journal = journal(&directory);
        let (one, two) = (commit(&journal, b"one"), commit(&journal, b"two"));
        let at = one.result.unwrap();
        journal.close();
        // As if the second had been answered 451 and could not be cut off.
        let image = crash_image(&directory);
        let live = File::open(image.files("incoming").pop().unwrap()).unwrap();
        flock(&live, FlockOperation::LockExclusive).unwrap();
        let (mut spool, _) = Spool::open(image.path()).unwrap();
        assert_eq!(spool.sealed(at.segment, at.offset + at.record_octets).len(), 1);
        drop((spool, live));
        for _ in 0..3 {
            let (mut spool, stored) = Spool::open(image.path()).unwrap();
            assert_eq!(ids(&stored), [one.id], "and not {}", two.id);
            assert_eq!(spool.rescan(), []);
        }
    }
}
