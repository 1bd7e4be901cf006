//! A store with a catalogue of its own: a queue manager without a scheduler, for tools and tests.

use super::disk_store::DiskStore;
use crate::clock::Now;
use crate::ipc::frame::Arrival;
use crate::mail::id::QueueId;
use crate::mail::locator::{Locator, SegmentId};
use crate::queue::catalogue::{Catalogue, Place};
use crate::queue::error::QueueError;
use crate::queue::state::{Fact, Kept};
use crate::queue::store::{News, Recovery, Store, Stored};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

/// Interval at which a store that is reading is polled.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// A store, and the catalogue of its messages.
pub struct Spool<S: Store = DiskStore> {
    store: S,
    catalogue: Catalogue,
    recalled: Vec<Stored>,
}

impl Spool {
    /// Open the queue directory and read all of it: see `DiskStore::open`.
    pub fn open(queue_directory: &Path) -> Result<(Self, Vec<Stored>), QueueError> {
        DiskStore::open(queue_directory).map(Self::of)
    }

    #[cfg(test)]
    pub(crate) fn open_on(
        disk: std::sync::Arc<dyn crate::queue::disk::Disk>,
        queue_directory: &Path,
    ) -> Result<(Self, Vec<Stored>), QueueError> {
        DiskStore::open_on(disk, queue_directory).map(Self::of)
    }

    /// Set a message's place in its life.
    #[cfg(test)]
    pub(crate) fn place(&mut self, id: QueueId, place: Place) {
        let slot = self.catalogue.slot(id).expect("a message of the queue");
        self.catalogue.place(slot, place);
    }

    /// Compact the state log, and wait for the end.
    #[cfg(test)]
    pub(crate) fn compact_log(&mut self) {
        self.store.compact_log(&self.catalogue, Now::default());
        self.store.finish_log(true);
    }
}

impl<S: Store> Spool<S> {
    /// Read all messages of a store.
    pub fn of(store: S) -> (Self, Vec<Stored>) {
        let mut spool = Self { store, catalogue: Catalogue::default(), recalled: Vec::new() };
        let mut stored = Vec::new();
        loop {
            let (news, recovery) = spool.store.recover();
            stored.extend(spool.learn(news));
            match recovery {
                Recovery::More => {}
                Recovery::Soon => std::thread::sleep(POLL_INTERVAL),
                Recovery::Done => return (spool, stored),
            }
        }
    }

    /// Return the catalogue of the messages.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn learn(&mut self, news: News) -> Vec<Stored> {
        let News { messages, gone } = news;
        gone.into_iter().for_each(|(segment, id)| self.catalogue.gone(segment, id));
        let mut new = Vec::with_capacity(messages.len());
        for stored in messages {
            let Stored { arrival: Arrival { locator, envelope }, state } = &stored;
            if let Some(slot) = self.catalogue.insert(envelope.id, *locator, envelope.recipients.len() as u32) {
                self.catalogue.keep(slot, state.clone(), state.next_attempt_us.unwrap_or(0));
                if state.held {
                    self.catalogue.place(slot, Place::Held);
                }
                new.push(stored);
            }
        }
        new
    }

    /// Return new messages; `take_recalled` returns those with facts of an earlier queue manager.
    fn arrivals(&mut self, news: News) -> Vec<Arrival> {
        let (fresh, recalled): (Vec<_>, Vec<_>) =
            self.learn(news).into_iter().partition(|stored| stored.state == Kept::default());
        self.recalled.extend(recalled);
        fresh.into_iter().map(|stored| stored.arrival).collect()
    }

    /// Return messages that were read after the start, with their facts: each is returned once.
    pub fn take_recalled(&mut self) -> Vec<Stored> {
        std::mem::take(&mut self.recalled)
    }

    /// See `Store::producer`.
    pub fn producer(&mut self, segment: SegmentId, end: u64) -> Vec<Arrival> {
        let news = self.store.producer(segment, end);
        self.arrivals(news)
    }

    /// See `Store::arrived`.
    pub fn arrived(&mut self, arrivals: Vec<Arrival>) -> Vec<Arrival> {
        let news = self.store.arrived(arrivals);
        self.arrivals(news)
    }

    /// See `Store::sealed`.
    pub fn sealed(&mut self, segment: SegmentId, end: u64) -> Vec<Arrival> {
        let news = self.store.sealed(segment, end);
        self.arrivals(news)
    }

    /// See `Store::producer_lost`.
    pub fn producer_lost(&mut self, segment: SegmentId) -> Vec<Arrival> {
        let news = self.store.producer_lost(segment);
        self.arrivals(news)
    }

    /// See `Store::rescan`.
    pub fn rescan(&mut self) -> Vec<Arrival> {
        let news = self.store.rescan();
        self.arrivals(news)
    }

    /// Return a message's place on disk; `None` when it is not in the queue.
    pub fn locate(&self, id: QueueId) -> Option<Locator> {
        self.catalogue.get(id).map(|entry| entry.at())
    }

    /// Note a fact.
    pub fn note(&mut self, fact: Fact) {
        self.note_all(&[fact]);
    }

    /// Note facts. Facts about messages that are gone are dropped.
    pub fn note_all(&mut self, facts: &[Fact]) {
        let mut known = Vec::with_capacity(facts.len());
        for fact in facts {
            if let Some(slot) = self.catalogue.slot(fact.id()) {
                self.apply(slot, fact);
                known.push(fact.clone());
            }
        }
        self.store.note_all(&known);
    }

    fn apply(&mut self, slot: u32, fact: &Fact) {
        let catalogue = &mut self.catalogue;
        match fact {
            Fact::Done { recipients, .. } => {
                recipients.iter().for_each(|index| {
                    catalogue.done(slot, *index);
                });
            }
            Fact::Deferred { attempts, next_attempt_us, reasons, .. } => {
                catalogue.put_off(slot, *attempts, *next_attempt_us);
                catalogue.set_reasons(slot, reasons);
            }
            Fact::Held { .. } => catalogue.place(slot, Place::Held),
            Fact::Released { .. } => {
                catalogue.place(slot, Place::Fresh);
                catalogue.released(slot);
            }
            Fact::Warned { .. } => catalogue.warned(slot),
            Fact::ForcedExpire { .. } => catalogue.force_expire(slot),
            Fact::Removed { .. } => return catalogue.remove(slot),
        }
        if catalogue.entry(slot).finished() {
            catalogue.remove(slot);
        }
    }

    /// See `Store::tick`. Returns the messages that were moved. `wall_now_us`: microseconds since 1970.
    pub fn tick(&mut self, wall_now_us: u64) -> Vec<(QueueId, Locator)> {
        let before = self.catalogue.snapshot();
        // Times of facts stay unchanged: both clocks show the same.
        self.store.tick(&mut self.catalogue, Now { mono_us: wall_now_us, wall_us: wall_now_us });
        let moved = |id, at| self.locate(id).filter(|now| *now != at).map(|now| (id, now));
        let mut moved: Vec<_> = before.iter().filter_map(|entry| moved(entry.id(), entry.at())).collect();
        moved.sort_unstable_by_key(|(id, _)| *id);
        moved
    }
}

impl<S: Store> Deref for Spool<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.store
    }
}

impl<S: Store> DerefMut for Spool<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.store
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::frame::Frame;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, commit, frames};
    use crate::queue::{CORRUPT, INCOMING};
    use std::fs::{self, File};

    fn arrivals(journal: &Journal) -> Vec<Arrival> {
        let arrived = |frame| if let Frame::Arrived(arrivals) = frame { arrivals } else { vec![] };
        frames(journal).into_iter().flat_map(arrived).collect()
    }

    fn ids(arrivals: &[Arrival]) -> Vec<QueueId> {
        arrivals.iter().map(|arrival| arrival.envelope.id).collect()
    }

    #[test]
    fn announcements_return_each_message_once_and_gaps_are_read_from_disk() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        let id: Vec<_> = (0..5).map(|_| commit(&journal, b"x").id).collect();
        let all = arrivals(&journal);
        assert_eq!(ids(&spool.arrived(all[1..2].to_vec())), id[..2], "the first was passed over");
        assert_eq!(ids(&spool.arrived(all[..3].to_vec())), id[2..3], "two were known");
        assert_eq!(spool.arrived(all[..3].to_vec()), []);
        journal.close();
        let Some(Frame::Sealed { segment, end }) = frames(&journal).pop() else { panic!("it is sealed") };
        let late = spool.sealed(segment, end);
        assert_eq!(ids(&late), id[3..]);
        assert_eq!((spool.sealed(segment, end), spool.rescan()), (vec![], vec![]));
        assert_eq!(spool.read_envelope(&late[0].locator).unwrap(), late[0].envelope);
        assert_eq!(spool.locate(id[3]), Some(late[0].locator));
    }

    #[test]
    fn a_dead_producer_loses_nothing_and_a_live_one_is_left_alone() {
        let directory = Directory::new();
        let options = JournalOptions { large_message_octets: 1000, ..Default::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        let small = commit(&journal, b"small");
        let large = commit(&journal, &[b'x'; 2000]);
        let segment = small.result.unwrap().segment;
        assert_eq!(ids(&spool.producer_lost(segment)), [large.id], "only what no live process holds");
        drop(journal);
        assert_eq!(ids(&spool.producer_lost(segment)), [small.id]);
        assert_eq!(spool.producer_lost(segment), []);
    }

    #[test]
    fn a_late_announcement_does_not_bring_a_finished_message_back() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        let id = commit(&journal, b"x").id;
        let late = arrivals(&journal);
        journal.close();
        let sealed = frames(&journal);
        assert_eq!(ids(&spool.rescan()), [id]);
        spool.note(Fact::Done { id, recipients: vec![0, 1].into() });
        assert_eq!(spool.locate(id), None);
        spool.tick(0);
        assert_eq!(directory.files(INCOMING).len(), 0);
        assert_eq!(spool.arrived(late), []);
        let [Frame::Sealed { segment, end }] = sealed[..] else { panic!("{sealed:?}") };
        assert_eq!((spool.sealed(segment, end), spool.producer(segment, end)), (vec![], vec![]));
        assert!(spool.segments.is_empty() && spool.catalogue().is_empty());
        assert_eq!(spool.take_notices(), Vec::<String>::new());
    }

    #[test]
    fn hostile_places_are_no_arrivals() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        commit(&journal, b"x");
        let arrival = arrivals(&journal).remove(0);
        for (offset, record_octets) in [(u64::MAX, 1), (u64::MAX, u64::MAX), (1, u64::MAX)] {
            let locator = Locator { offset, record_octets, ..arrival.locator };
            assert_eq!(spool.arrived(vec![Arrival { locator, envelope: arrival.envelope.clone() }]), []);
        }
        assert_eq!(spool.arrived(vec![arrival]).len(), 1);
    }

    #[test]
    fn an_unreadable_segment_is_kept_and_reported() {
        let directory = Directory::new();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        // A directory under a segment's name opens, but every read of it fails.
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let id = commit(&journal, b"x").id;
        journal.close();
        let path = directory.files(INCOMING).remove(0);
        let away = directory.path().join("away");
        fs::rename(&path, &away).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(spool.rescan(), []);
        assert!(spool.take_notices()[0].contains("read"));
        drop(spool);
        let (mut spool, stored) = Spool::open(directory.path()).unwrap();
        assert_eq!(stored, []);
        spool.tick(0);
        assert!(path.exists());
        // The disk recovers.
        fs::remove_dir(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        assert_eq!(ids(&spool.rescan()), [id]);
    }

    #[test]
    fn a_segment_stays_while_its_damage_cannot_be_put_aside() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let (good, bad) = (commit(&journal, b"good").id, commit(&journal, b"bad").result.unwrap());
        journal.close();
        let path = directory.files(INCOMING).remove(0);
        let file = File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"B", bad.offset + 48).unwrap();
        fs::write(directory.path().join(CORRUPT), b"no directory").unwrap();
        let (mut spool, stored) = Spool::open(directory.path()).unwrap();
        assert_eq!(stored.len(), 1);
        spool.note(Fact::Removed { id: good });
        spool.rescan();
        spool.tick(0);
        assert!(path.exists());
        drop(spool);
        fs::remove_file(directory.path().join(CORRUPT)).unwrap();
        let (mut spool, _) = Spool::open(directory.path()).unwrap();
        spool.tick(0);
        assert!(!path.exists() && directory.files(CORRUPT).len() == 2);
    }
}
