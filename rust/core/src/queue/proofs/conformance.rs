//! The promises of every store: one suite, played on the files and in memory.
//!
//! Random histories of a receiving process and a queue manager, with restarts and crashes, against a table of the
//! acknowledged messages. And the basic promises of each half, one test each.

use super::testing::{Directory, crash_image, envelope};
use crate::clock::wall_now_us;
use crate::ipc::frame::{Arrival, Frame, FrameReader};
use crate::mail::id::QueueId;
use crate::mail::locator::Locator;
use crate::mail::reply::Enhanced;
use crate::mail::sink::Sink;
use crate::mail::status::{Outcome, Status};
use crate::queue::journal::appender::Appender;
use crate::queue::journal::{Completion, Journal, JournalOptions};
use crate::queue::memory::{Memory, MemoryAppender, MemoryStore};
use crate::queue::state::{Fact, Kept};
use crate::queue::store::disk_store::DiskStore;
use crate::queue::store::disk_store::housekeeping::RETIRE_AFTER_US;
use crate::queue::store::{Store, Stored};
use crate::queue::{DEFERRED, INCOMING, Spool};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const FAR_US: u64 = 1_000_000_000_000;

/// A queue of one kind.
trait Kit: Sized {
    type Appender: Appender;
    type Store: Store;
    fn new() -> Self;
    fn appender(&self) -> Self::Appender;
    fn store(&self) -> Self::Store;
    /// Return the queue after the death of all processes.
    fn crashed(&self) -> Self;
    /// Whether the queue holds no files or records any more.
    fn is_bare(&self) -> bool;
}

impl Kit for Directory {
    type Appender = Arc<Journal>;
    type Store = DiskStore;

    fn new() -> Self {
        Self::new()
    }

    fn appender(&self) -> Arc<Journal> {
        let options = JournalOptions {
            segment_max_octets: 5000,
            large_message_octets: 1000,
            ahead_octets: 100,
            ..Default::default()
        };
        Arc::new(Journal::open(self.path(), options).unwrap())
    }

    fn store(&self) -> DiskStore {
        DiskStore::open(self.path()).unwrap()
    }

    fn crashed(&self) -> Self {
        crash_image(self)
    }

    fn is_bare(&self) -> bool {
        self.files(INCOMING).is_empty() && self.files(DEFERRED).is_empty()
    }
}

impl Kit for Memory {
    type Appender = MemoryAppender;
    type Store = MemoryStore;

    fn new() -> Self {
        Self::default()
    }

    fn appender(&self) -> MemoryAppender {
        self.appender().unwrap()
    }

    fn store(&self) -> MemoryStore {
        self.store().unwrap()
    }

    fn crashed(&self) -> Self {
        self.crash(0)
    }

    fn is_bare(&self) -> bool {
        self.records() == 0
    }
}

fn commit(appender: &dyn Appender, content: &[u8]) -> Completion {
    let mut incoming = appender.incoming().unwrap();
    // A draft that broke during a write fails again at commit.
    let (head, body) = content.split_at(content.len() / 5);
    let _ = incoming.write(body);
    let envelope = envelope(incoming.id(), 2);
    incoming.commit(head, &envelope, 77);
    let mut completions = appender.wait(Duration::from_secs(30));
    assert_eq!(completions.len(), 1);
    completions.remove(0)
}

#[derive(Debug, Clone)]
enum Step {
    Commit { octets: usize },
    Announce,
    LoseAnnouncements,
    SealAndReopen,
    Note { message: usize, what: u8 },
    Tick { seconds: u64 },
    Rescan,
    RestartManager,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![0usize..50, 900usize..1500].prop_map(|octets| Step::Commit { octets }),
        4 => Just(Step::Announce),
        1 => Just(Step::LoseAnnouncements),
        1 => Just(Step::SealAndReopen),
        8 => (0usize..1000, 0u8..8).prop_map(|(message, what)| Step::Note { message, what }),
        4 => (0u64..4000).prop_map(|seconds| Step::Tick { seconds }),
        1 => Just(Step::Rescan),
        1 => Just(Step::RestartManager),
        1 => Just(Step::Crash),
    ]
}

/// Both halves of a queue, and the messages that must be in it.
struct World<K: Kit> {
    kit: K,
    appender: K::Appender,
    /// `None` while the queue manager is stopped.
    spool: Option<Spool<K::Store>>,
    /// Committed and not gone.
    expected: BTreeMap<QueueId, (u8, usize, Kept)>,
    /// Known to the queue manager.
    known: BTreeMap<QueueId, Locator>,
    now_us: u64,
}

impl<K: Kit> World<K> {
    fn open(kit: K, expected: BTreeMap<QueueId, (u8, usize, Kept)>, now_us: u64) -> Self {
        let appender = kit.appender();
        let mut world = Self { kit, appender, spool: None, expected, known: BTreeMap::new(), now_us };
        world.manage();
        world
    }

    /// Start the queue manager.
    fn manage(&mut self) {
        let (spool, stored) = Spool::of(self.kit.store());
        self.spool = Some(spool);
        self.known.clear();
        for Stored { arrival, state } in stored {
            let id = arrival.envelope.id;
            assert_eq!(Some(&state), self.expected.get(&id).map(|(_, _, kept)| kept), "state of {id}");
            self.learned(vec![arrival]);
        }
    }

    fn spool(&mut self) -> &mut Spool<K::Store> {
        self.spool.as_mut().expect("a queue manager")
    }

    fn learned(&mut self, arrivals: Vec<Arrival>) {
        for Arrival { locator, envelope } in arrivals {
            assert!(self.expected.contains_key(&envelope.id), "{} came back", envelope.id);
            assert_eq!(self.known.insert(envelope.id, locator), None, "{} came twice", envelope.id);
        }
        assert_eq!(self.spool().take_recalled(), [], "nothing was noted of what comes now");
    }

    fn announce(&mut self) {
        let mut bytes = Vec::new();
        self.appender.take_announcements(&mut bytes);
        self.tell(&bytes);
    }

    fn tell(&mut self, bytes: &[u8]) {
        let mut reader = FrameReader::default();
        reader.receive(bytes);
        while let Some(frame) = reader.next_frame().unwrap() {
            let spool = self.spool();
            let arrivals = match frame {
                Frame::Arrived(arrivals) => spool.arrived(arrivals),
                Frame::Sealed { segment, end } => spool.sealed(segment, end),
                Frame::Producer { segment, end, .. } => spool.producer(segment, end),
                frame => panic!("{frame:?}"),
            };
            self.learned(arrivals);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Commit { octets } => {
                let fill = octets as u8;
                let completion = commit(&self.appender, &vec![fill; octets]);
                completion.result.unwrap();
                self.expected.insert(completion.id, (fill, octets, Kept::default()));
            }
            Step::Announce => self.announce(),
            Step::LoseAnnouncements => self.appender.take_announcements(&mut Vec::new()),
            Step::SealAndReopen => {
                self.appender.close();
                self.appender = self.kit.appender();
            }
            Step::Note { message, what } => self.note(message, what),
            Step::Tick { seconds } => {
                self.now_us += seconds * 1_000_000;
                let now_us = self.now_us;
                for (id, locator) in self.spool().tick(now_us) {
                    assert!(self.known.insert(id, locator).is_some());
                }
            }
            Step::Rescan => {
                let arrivals = self.spool().rescan();
                self.learned(arrivals);
            }
            Step::RestartManager => {
                self.spool = None;
                self.manage();
                let mut bytes = Vec::new();
                self.appender.hello(1, &mut bytes);
                self.tell(&bytes);
                self.announce();
            }
            Step::Crash => {
                let expected = std::mem::take(&mut self.expected);
                *self = Self::open(self.kit.crashed(), expected, self.now_us);
                assert!(self.known.keys().eq(self.expected.keys()), "all and only what was committed");
            }
        }
    }

    fn note(&mut self, message: usize, what: u8) {
        let Some(id) = self.known.keys().nth(message % self.known.len().max(1)).copied() else { return };
        let fact = match what {
            0 => Fact::Done { id, recipients: vec![0].into() },
            1 => Fact::Done { id, recipients: vec![1, 0].into() },
            2 => Fact::Held { id },
            3 => Fact::Released { id },
            4 => Fact::Warned { id },
            5 => Fact::ForcedExpire { id },
            6 => Fact::Removed { id },
            _ => {
                let next_attempt_us = self.now_us + FAR_US;
                let open = |index: &u32| !self.expected[&id].2.done.contains(index);
                let reasons = (0..2).filter(open).map(|index| (index, reason(message % 5))).collect();
                Fact::Deferred { id, attempts: message as u32, next_attempt_us, reasons }
            }
        };
        self.spool().note(fact.clone());
        let Some((_, _, kept)) = self.expected.get_mut(&id) else { return };
        kept.apply(fact);
        if kept.done.len() == 2 || what == 6 {
            self.expected.remove(&id);
            self.known.remove(&id);
        }
    }

    fn check(&mut self) {
        let spool = self.spool.as_ref().expect("a queue manager");
        for (id, locator) in &self.known {
            let (fill, octets, _) = &self.expected[id];
            assert_eq!(spool.locate(*id), Some(*locator));
            assert_eq!(Store::read_content(&**spool, locator), Ok(vec![*fill; *octets]));
            assert_eq!(Store::read_envelope(&**spool, locator), Ok(envelope(*id, 2)));
        }
        assert_eq!(spool.catalogue().len(), self.known.len());
    }
}

fn reason(number: usize) -> Arc<Status> {
    let dsn = Enhanced { class: 4, subject: 4, detail: 1 };
    Arc::new(Status { outcome: Outcome::Deferred, dsn, text: format!("reason {number}").into(), remote: None })
}

fn play<K: Kit>(steps: Vec<Step>) {
    let mut world = World::open(K::new(), BTreeMap::new(), wall_now_us());
    for step in steps {
        world.take(step);
        world.check();
    }
    world.take(Step::RestartManager);
    assert!(world.known.keys().eq(world.expected.keys()), "all and only what was committed");
    world.take(Step::Crash);
    world.check();
    for id in std::mem::take(&mut world.expected).into_keys() {
        world.spool().note(Fact::Removed { id });
    }
    world.appender.close();
    world.announce();
    let later_us = world.now_us + RETIRE_AFTER_US;
    world.spool().tick(later_us);
    assert!(world.kit.is_bare(), "what is done leaves nothing");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_history_of_two_processes_loses_a_message_or_brings_one_back(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        play::<Directory>(steps.clone());
        play::<Memory>(steps);
    }
}

/// Messages that are committed before a poll become durable together; an uncommitted one is gone.
fn batches<K: Kit>() {
    let kit = K::new();
    let appender = kit.appender();
    let mut ids = Vec::new();
    for ticket in 0..3 {
        let mut incoming = appender.incoming().unwrap();
        incoming.write(b"content").unwrap();
        assert_eq!(incoming.body_octets(), 7);
        ids.push(incoming.id());
        let envelope = envelope(incoming.id(), 1);
        incoming.commit(b"", &envelope, ticket);
    }
    let mut tickets = Vec::new();
    while tickets.len() < 3 {
        tickets
            .extend(appender.wait(Duration::from_secs(30)).into_iter().map(|done| (done.ticket, done.result.is_ok())));
    }
    assert_eq!(tickets, [(0, true), (1, true), (2, true)]);
    appender.incoming().unwrap().write(b"never committed").unwrap();
    let image = kit.crashed();
    let (_, stored) = Spool::of(image.store());
    assert_eq!(stored.iter().map(|stored| stored.arrival.envelope.id).collect::<Vec<_>>(), ids);
    appender.close();
    let late = appender.incoming();
    if let Ok(late) = late {
        let envelope = envelope(late.id(), 1);
        late.commit(b"", &envelope, 9);
        assert!(appender.wait(Duration::from_secs(30))[0].result.is_err(), "it is closed");
    }
}

/// The committed envelope must have the message's own ID.
fn names<K: Kit>() {
    let appender = K::new().appender();
    appender.incoming().unwrap().commit(b"", &envelope(QueueId(5), 1), 3);
    let completions = appender.wait(Duration::from_secs(30));
    assert!(completions[0].ticket == 3 && completions[0].result.is_err(), "{completions:?}");
}

#[test]
fn files_keep_the_basic_promises_of_a_store() {
    batches::<Directory>();
    names::<Directory>();
}

#[test]
fn memory_keeps_the_basic_promises_of_a_store() {
    batches::<Memory>();
    names::<Memory>();
}

#[test]
fn facts_after_the_last_sync_may_be_lost_and_earlier_ones_never() {
    let memory = Memory::default();
    let appender = memory.appender().unwrap();
    let id = [(); 3].map(|()| commit(&appender, b"x").id);
    appender.close();
    let (mut spool, _) = Spool::of(memory.store().unwrap());
    spool.note(Fact::Removed { id: id[0] });
    spool.tick(0);
    spool.note_all(&[Fact::Held { id: id[1] }, Fact::Removed { id: id[2] }]);
    for (losing, left) in [(0, 1), (1, 2), (2, 2), (9, 2)] {
        let (_, stored) = Spool::of(memory.crash(losing).store().unwrap());
        assert_eq!(stored.len(), left, "{losing} lost");
        assert_eq!(stored[0].state.held, losing < 2);
    }
}
