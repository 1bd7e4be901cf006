//! Each call on the queue's files fails once, or from then on, or without any chance of a rollback. Acknowledged
//! messages are there, refused ones are not, and everything works again once the cause is gone.
//!
//! One script plays both halves of the queue: small, many and large messages, facts, holds, lost announcements, a
//! restart, moves to `deferred/`, compactions, removal. It is played once for each call of each kind that it makes.
//! `POSTILLION_FAULTS=all` plays every error number, which takes minutes; without it they alternate. The last tests
//! play random histories with errors that come and go.

use super::testing::{Call, Directory, Fault, Faulty, crash_image, envelope};
use crate::clock::wall_now_us;
use crate::ipc::frame::{Arrival, Frame, FrameReader};
use crate::mail::id::QueueId;
use crate::mail::sink::Sink;
use crate::queue::error::QueueError;
use crate::queue::journal::{Journal, JournalOptions};
use crate::queue::segment::NEW_PREFIX;
use crate::queue::segment::content::read_content;
use crate::queue::state::{Fact, Kept};
use crate::queue::store::Stored;
use crate::queue::store::disk_store::housekeeping::{MOVE_AGE_US, RETIRE_AFTER_US};
use crate::queue::store::spool::Spool;
use crate::queue::{CORRUPT, DEFERRED, INCOMING};
use proptest::prelude::*;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const LARGE_OCTETS: usize = 1000;
/// Octets of a message that are its head.
const HEAD_OCTETS: usize = 20;
const FAR_US: u64 = 1_000_000_000_000;
const EVER: u64 = u64::MAX / 2;
/// Maximum number of calls of one kind; more than the script makes.
const CALLS_MAX: u64 = 1000;

const CALLS: [Call; 10] = [
    Call::Open,
    Call::Read,
    Call::Write,
    Call::Reserve,
    Call::Sync,
    Call::Truncate,
    Call::Rename,
    Call::Remove,
    Call::SyncDirectory,
    Call::ReadDirectory,
];
const ERRNOS: [Errno; 6] = [Errno::IO, Errno::NOSPC, Errno::ROFS, Errno::DQUOT, Errno::MFILE, Errno::FBIG];

/// Return the errors to try for a call. The standard library repeats an interrupted call, except for two kinds.
fn errors(call: Call, stays: Stays) -> Vec<Option<Errno>> {
    let mut errors = ERRNOS.map(Some).to_vec();
    match call {
        // No call is interrupted for ever.
        _ if stays == Stays::UntilHealed => {}
        Call::Write | Call::Reserve => errors.extend([None, Some(Errno::INTR)]),
        Call::Read => errors.push(Some(Errno::INTR)),
        _ => {}
    }
    errors
}

/// Both halves of a queue on one disk, and the promises so far.
struct World {
    directory: Directory,
    disk: Arc<Faulty>,
    journal: Option<Journal>,
    spool: Option<Spool>,
    acked: BTreeMap<QueueId, (u8, usize)>,
    refused: Vec<(QueueId, u16)>,
    /// The messages that the queue manager's half returned, and the facts noted since.
    known: BTreeMap<QueueId, Kept>,
    gone: BTreeSet<QueueId>,
    /// A queue manager ended with facts that it could not write: like a crash.
    crashed: bool,
    fill: u8,
    now_us: u64,
}

impl World {
    fn new(disk: Faulty) -> Self {
        Self {
            directory: Directory::new(),
            disk: Arc::new(disk),
            journal: None,
            spool: None,
            acked: BTreeMap::new(),
            refused: Vec::new(),
            known: BTreeMap::new(),
            gone: BTreeSet::new(),
            crashed: false,
            fill: 0,
            now_us: wall_now_us(),
        }
    }

    /// Open both halves if needed; master restarts a program that cannot start.
    fn open(&mut self) {
        if self.spool.is_none()
            && let Ok((spool, stored)) = Spool::open_on(Arc::clone(&self.disk) as _, self.directory.path())
        {
            self.spool = Some(spool);
            self.restored(stored);
            self.hello();
        }
        if self.journal.is_none() {
            let options = JournalOptions {
                segment_max_octets: 3000,
                ahead_octets: 100,
                large_message_octets: LARGE_OCTETS as u64,
                segment_max_age: Duration::from_secs(3600),
                ..Default::default()
            };
            self.journal = Journal::open_on(Arc::clone(&self.disk) as _, self.directory.path(), options).ok();
        }
    }

    /// End the journal like a program that stops: its announcements are delivered.
    fn close_journal(&mut self) {
        if let Some(journal) = &self.journal {
            journal.close();
        }
        self.announce();
        self.journal = None;
    }

    /// Commit messages of these lengths together.
    fn commit(&mut self, lengths: &[usize]) {
        let Some(journal) = &self.journal else { return };
        let mut begun = BTreeMap::new();
        for octets in lengths {
            let Ok(mut draft) = journal.draft() else { continue };
            self.fill = self.fill.wrapping_add(1);
            begun.insert(draft.id(), (self.fill, *octets));
            // A draft that broke during a write fails again at commit.
            let content = vec![self.fill; *octets];
            let (head, body) = content.split_at(HEAD_OCTETS.min(*octets));
            let _ = draft.write(body);
            let envelope = envelope(draft.id(), 2);
            journal.commit(draft, head, &envelope, 0);
        }
        while !begun.is_empty() {
            let completions = journal.wait(Duration::from_secs(30));
            assert!(!completions.is_empty(), "nobody answers");
            for completion in completions {
                let message = begun.remove(&completion.id).expect("one answer each");
                match completion.result {
                    Ok(_) => drop(self.acked.insert(completion.id, message)),
                    Err(error) => self.refused.push((completion.id, error.reply().0)),
                }
            }
        }
    }

    fn is_refused(&self, id: QueueId) -> bool {
        self.refused.iter().any(|(refused, _)| *refused == id)
    }

    fn restored(&mut self, stored: Vec<Stored>) {
        let before = std::mem::take(&mut self.known);
        for Stored { arrival, state } in stored {
            let id = arrival.envelope.id;
            if !self.crashed
                && let Some(kept) = before.get(&id)
            {
                assert_eq!(state, *kept, "{id}");
            }
            self.learned(vec![arrival]);
            self.known.insert(id, state);
        }
    }

    fn learned(&mut self, arrivals: Vec<Arrival>) {
        for Arrival { envelope, .. } in arrivals {
            let id = envelope.id;
            assert!(self.acked.contains_key(&id) && !self.is_refused(id), "{id} was refused");
            assert!(self.crashed || !self.gone.contains(&id), "{id} came back");
            assert_eq!(self.known.insert(id, Kept::default()), None, "{id} came twice");
        }
        let recalled = self.spool.as_mut().map(Spool::take_recalled).unwrap_or_default();
        if !recalled.is_empty() {
            let before = self.known.clone();
            self.restored(recalled);
            self.known.extend(before);
        }
    }

    fn tell(&mut self, bytes: &[u8]) {
        let Some(spool) = &mut self.spool else { return };
        let mut reader = FrameReader::default();
        reader.receive(bytes);
        let mut arrivals = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            arrivals.extend(match frame {
                Frame::Arrived(arrivals) => spool.arrived(arrivals),
                Frame::Sealed { segment, end } => spool.sealed(segment, end),
                Frame::Producer { segment, end, .. } => spool.producer(segment, end),
                frame => panic!("{frame:?}"),
            });
        }
        self.learned(arrivals);
    }

    fn announce(&mut self) {
        let mut bytes = Vec::new();
        if let Some(journal) = self.journal.as_ref().filter(|_| self.spool.is_some()) {
            journal.take_announcements(&mut bytes);
        }
        self.tell(&bytes);
    }

    fn hello(&mut self) {
        let mut bytes = Vec::new();
        if let Some(journal) = &self.journal {
            journal.hello(1, &mut bytes);
        }
        self.tell(&bytes);
        self.announce();
    }

    fn note(&mut self, nth: usize, fact: impl FnOnce(QueueId) -> Fact) {
        let Some(id) = self.known.keys().nth(nth).copied() else { return };
        let Some(spool) = &mut self.spool else { return };
        let fact = fact(id);
        spool.note(fact.clone());
        let kept = self.known.entry(id).or_default();
        let removed = matches!(fact, Fact::Removed { .. });
        kept.apply(fact);
        if kept.done.len() == 2 || removed {
            self.known.remove(&id);
            self.gone.insert(id);
        }
    }

    fn rests(&mut self, nth: usize) {
        let next_attempt_us = self.now_us + FAR_US;
        self.note(nth, |id| Fact::Deferred { id, attempts: 1, next_attempt_us, reasons: vec![] });
    }

    fn tick(&mut self, after_us: u64) {
        self.now_us += after_us;
        // A fact that a thread failed to sync is known a little later.
        for _ in 0..2 {
            let Some(spool) = &mut self.spool else { return };
            for (id, _) in spool.tick(self.now_us) {
                assert!(self.known.contains_key(&id), "{id} moved");
            }
        }
    }

    fn rescan(&mut self) {
        let arrivals = self.spool.as_mut().map(Spool::rescan).unwrap_or_default();
        self.learned(arrivals);
    }

    fn restart_manager(&mut self) {
        let Some(spool) = self.spool.take() else { return };
        self.crashed |= spool.log.wants_compaction();
        drop(spool);
        self.open();
    }

    fn play(&mut self) {
        self.open();
        self.open();
        self.commit(&[10]);
        self.commit(&[0, 50, 100, 200, 300]);
        self.commit(&[5000]);
        self.announce();
        self.rests(0);
        self.note(1, |id| Fact::Held { id });
        self.note(2, |id| Fact::Done { id, recipients: vec![0].into() });
        self.note(2, |id| Fact::Warned { id });
        self.note(3, |id| Fact::Removed { id });
        self.commit(&[20, 30]);
        // These are never announced: the next announcement leaves a gap.
        if let Some(journal) = &self.journal {
            journal.hello(1, &mut Vec::new());
        }
        self.commit(&[40]);
        self.announce();
        self.commit(&[700, 800, 900, 999, 60]);
        self.commit(&[2000, 70, 3000]);
        self.close_journal();
        self.open();
        self.announce();
        self.rescan();
        self.tick(1_000_000);
        self.restart_manager();
        self.open();
        for nth in 0..self.known.len() {
            self.rests(nth);
        }
        // Most of them end, and the rest are moved.
        for _ in 0..self.known.len() * 3 / 4 {
            self.note(2, |id| Fact::Done { id, recipients: vec![1, 0].into() });
        }
        self.tick(MOVE_AGE_US);
        self.commit(&[80, 4000]);
        self.announce();
        self.tick(RETIRE_AFTER_US);
        if let Some(spool) = &mut self.spool {
            spool.compact_log();
        }
        self.commit(&[90]);
        self.announce();
    }

    /// Return the numbers of messages that a crash would lose now, and that would be delivered again.
    fn crash(&self) -> (usize, usize) {
        let image = crash_image(&self.directory);
        let (spool, stored) = Spool::open(image.path()).unwrap();
        let mut found = BTreeSet::new();
        for Stored { arrival: Arrival { locator, envelope }, .. } in stored {
            let id = envelope.id;
            assert!(!self.is_refused(id), "{id} was refused");
            let (fill, octets) = self.acked[&id];
            let content = read_content(image.path(), &spool.path(locator.segment), &locator);
            assert_eq!(content, Ok(vec![fill; octets]), "{id}");
            assert!(found.insert(id), "{id} came twice");
        }
        assert_eq!(image.files(CORRUPT).len(), 0);
        let lost = self.acked.keys().filter(|id| !self.gone.contains(id) && !found.contains(id)).count();
        (lost, found.intersection(&self.gone).count())
    }

    /// The cause is gone: everything works, and every message is there.
    fn recover(&mut self, single: bool) {
        self.disk.heal();
        self.open();
        let refused = self.refused.len();
        self.commit(&[11]);
        self.commit(&[5001]);
        assert_eq!(self.refused.len(), refused, "the journal works again");
        self.hello();
        self.rescan();
        self.tick(1_000_000);
        self.close_journal();
        self.rescan();
        self.restart_manager();
        assert!(!single || !self.crashed, "one failure costs no fact");
        for id in self.acked.keys() {
            let (known, gone) = (self.known.contains_key(id), self.gone.contains(id));
            assert!(known || gone, "{id} is lost");
            assert!(!known || !gone || self.crashed, "{id} came back");
        }
        let spool = self.spool.as_mut().unwrap();
        for id in self.known.keys() {
            spool.note(Fact::Removed { id: *id });
        }
        for _ in 0..3 {
            self.now_us += RETIRE_AFTER_US + MOVE_AGE_US;
            spool.tick(self.now_us);
        }
        // A file that could not be removed before its rename is removed at the age of a minute (`remove_leftovers`).
        let counts = |path: &PathBuf| !path.file_name().unwrap().to_str().unwrap().starts_with(NEW_PREFIX);
        let left = |name| self.directory.files(name).into_iter().filter(counts).count();
        assert_eq!((left(INCOMING), left(DEFERRED), left(CORRUPT)), (0, 0, 0), "{:?}", spool.take_notices());
        assert_eq!(self.disk.again(), 0, "a file is not trusted again after it failed");
    }
}

#[derive(Debug, Default)]
struct Tally {
    faults: u64,
    acked: usize,
    lost: usize,
    duplicates: usize,
}

/// The duration of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stays {
    Once,
    UntilHealed,
    /// Once; but no file can be cut or removed until healed.
    NothingIsTakenBack,
}

/// Play the script while the `at`-th call fails; return false when there is no such call.
fn play(call: Call, at: u64, errno: Option<Errno>, stays: Stays, tally: &mut Tally) -> bool {
    let disk = Faulty::unsynced();
    disk.fail(Fault { call, at, lasts: if stays == Stays::UntilHealed { EVER } else { 1 }, errno });
    if stays == Stays::NothingIsTakenBack {
        for call in [Call::Truncate, Call::Remove] {
            disk.fail(Fault { call, at: 1, lasts: EVER, errno: Some(Errno::ROFS) });
        }
    }
    let mut world = World::new(disk);
    world.play();
    if world.disk.count(call) < at {
        return false;
    }
    let (lost, duplicates) = world.crash();
    assert_eq!(lost, 0);
    let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG].map(Some).contains(&errno);
    for (_, code) in &world.refused {
        assert_eq!(*code, if full { 452 } else { 451 });
    }
    world.recover(stays == Stays::Once);
    tally.faults += 1;
    tally.acked += world.acked.len();
    tally.lost += lost;
    tally.duplicates += duplicates;
    true
}

fn every_call(calls: &[Call], stays: Stays) {
    let all = std::env::var("POSTILLION_FAULTS").is_ok_and(|which| which == "all");
    let mut tally = Tally::default();
    for call in calls {
        let errors = errors(*call, stays);
        let starts = if all { errors.len() } else { 1 };
        for start in 0..starts {
            let mut at = 1;
            while {
                let errno = errors[(at as usize + start) % errors.len()];
                let run = std::panic::AssertUnwindSafe(|| play(*call, at, errno, stays, &mut tally));
                std::panic::catch_unwind(run)
                    .unwrap_or_else(|_| panic!("{call:?} {at} fails with {errno:?}, {stays:?}"))
            } {
                at += 1;
                assert!(at < CALLS_MAX, "{call:?}");
            }
        }
    }
    let Tally { faults, acked, lost, duplicates } = tally;
    println!("{stays:?}: {faults} faults, {acked} acked, {lost} lost, {duplicates} duplicates");
    assert!(faults > 0 && acked as u64 > faults);
}

#[test]
fn any_call_may_fail_once() {
    every_call(&CALLS, Stays::Once);
}

#[test]
fn any_call_may_fail_from_some_time_on() {
    every_call(&CALLS, Stays::UntilHealed);
}

#[test]
fn a_failure_without_rollback_brings_no_refused_message() {
    every_call(&[Call::Write, Call::Sync, Call::SyncDirectory, Call::Rename], Stays::NothingIsTakenBack);
}

#[test]
fn a_full_disk_gets_another_reply_than_a_broken_one() {
    for errno in ERRNOS {
        let error = QueueError::from(std::io::Error::from(errno));
        let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG].contains(&errno);
        assert_eq!(error.reply().0, if full { 452 } else { 451 }, "{errno:?}");
        assert_eq!(error.reply().1, if full { [3, 1] } else { [3, 0] }, "{errno:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<usize>),
    Announce,
    LoseArrivals,
    Note(usize, u8),
    Tick(u64),
    Rescan,
    RestartManager,
    RestartProducer,
    Fail(Fault),
    Heal,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = (0..CALLS.len(), 1u64..6, 1u64..4, 0..ERRNOS.len()).prop_filter_map("a cut must work", |one| {
        let (call, at, lasts, errno) = (CALLS[one.0], one.1, one.2, Some(ERRNOS[one.3]));
        // A refused message may return without a rollback and an announcement, if its producer dies first.
        let cuts = [Call::Truncate, Call::Remove].contains(&call);
        (!cuts).then_some(Step::Fail(Fault { call, at, lasts, errno }))
    });
    prop_oneof![
        6 => proptest::collection::vec(prop_oneof![0usize..300, 1100usize..4000], 1..6).prop_map(Step::Commit),
        4 => Just(Step::Announce),
        1 => Just(Step::LoseArrivals),
        6 => (0usize..100, 0u8..7).prop_map(|(nth, what)| Step::Note(nth, what)),
        3 => (0u64..1200).prop_map(Step::Tick),
        1 => Just(Step::Rescan),
        1 => Just(Step::RestartManager),
        1 => Just(Step::RestartProducer),
        4 => fault,
        2 => Just(Step::Heal),
    ]
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Commit(lengths) => {
                self.open();
                self.commit(&lengths);
            }
            Step::Announce => self.announce(),
            Step::LoseArrivals => {
                if let Some(journal) = &self.journal {
                    journal.hello(1, &mut Vec::new());
                }
            }
            Step::Note(nth, what) => {
                let nth = nth % self.known.len().max(1);
                match what {
                    0 => self.note(nth, |id| Fact::Done { id, recipients: vec![0].into() }),
                    1 => self.note(nth, |id| Fact::Done { id, recipients: vec![1, 0].into() }),
                    2 => self.note(nth, |id| Fact::Held { id }),
                    3 => self.note(nth, |id| Fact::Released { id }),
                    4 => self.note(nth, |id| Fact::Removed { id }),
                    _ => self.rests(nth),
                }
            }
            Step::Tick(seconds) => self.tick(seconds * 1_000_000),
            Step::Rescan => self.rescan(),
            Step::RestartManager => self.restart_manager(),
            Step::RestartProducer => self.close_journal(),
            Step::Fail(Fault { call, at, lasts, errno }) => {
                self.disk.fail(Fault { call, at: self.disk.count(call) + at, lasts, errno });
            }
            Step::Heal => self.disk.heal(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_history_with_errors_loses_a_message_or_brings_a_refused_one(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(Faulty::unsynced());
        for step in steps {
            world.take(step);
        }
        world.open();
        assert_eq!(world.crash().0, 0, "nothing is lost");
        world.recover(false);
    }
}
