//! The power fails at any moment: acknowledged messages are there, and synced facts stay.
//!
//! `Volatile` is a disk that knows what is stable. A write is stable once its file was synced, a name once its
//! directory was; nothing else is stable or ordered. Before and after many of its calls it keeps the state after a power
//! cut. From each state the test makes several images with a part of the unstable changes, writes torn at page bounds. A
//! queue manager starts on each image.
//!
//! The short form has a fixed seed. The full form (`POSTILLION_FAULTS`) draws one and prints it; `POSTILLION_SEED`
//! repeats such a run. Threads interleave differently each time.

use super::testing::{Directory, Faulty, envelope};
use crate::clock::wall_now_us;
use crate::ipc::frame::{Arrival, Frame, FrameReader};
use crate::mail::id::QueueId;
use crate::mail::sink::Sink;
use crate::queue::convert::convert_on;
use crate::queue::disk::{Disk, Open, RealDisk};
use crate::queue::journal::{Journal, JournalOptions, lock};
use crate::queue::segment::content::read_content;
use crate::queue::state::Fact;
use crate::queue::store::Stored;
use crate::queue::store::disk_store::housekeeping::{MOVE_AGE_US, RETIRE_AFTER_US};
use crate::queue::store::spool::Spool;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

const PAGE_OCTETS: usize = 4096;
/// Each page has a bit; pages beyond the last bit share bits.
const ALL_PAGES: u64 = u32::MAX as u64;
const LARGE_OCTETS: u64 = 6000;
/// Octets of a head are fewer.
const HEAD_MAX_OCTETS: usize = 700;
/// Two thirds of a segment are written over zeros.
const AHEAD_OCTETS: u64 = 500;
const FAR_US: u64 = 1_000_000_000_000;
const STEPS: usize = 60;
/// One of this many moments is kept. Each call has two: before it and after it.
const MOMENT_ONE_IN: u64 = 8;
const IMAGES_A_MOMENT: usize = 3;
/// Seed of the short form.
const SEED: u64 = 1_795_990_573_134_624;
/// Rounds of the short form; `POSTILLION_FAULTS` sets more.
const ROUNDS: u64 = 2;
const FULL_ROUNDS: u64 = 8;

fn is_full() -> bool {
    std::env::var_os("POSTILLION_FAULTS").is_some()
}

/// Return the seed of a run, and print it.
fn seed() -> u64 {
    let given = std::env::var("POSTILLION_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("POSTILLION_SEED is a number"));
    let seed = given.unwrap_or_else(|| if is_full() { wall_now_us() } else { SEED });
    println!("POSTILLION_SEED={seed}");
    seed
}

/// Random numbers from a seed (xorshift64*).
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }
}

/// An unstable change of a file.
#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// An unstable change of a directory.
#[derive(Debug, Clone)]
enum Entry {
    Made(String, usize),
    Renamed(String, String),
    Removed(String),
}

#[derive(Debug, Clone, Default)]
struct Content {
    stable: Arc<Vec<u8>>,
    changes: Vec<Arc<Change>>,
}

#[derive(Debug, Clone, Default)]
struct Names {
    stable: BTreeMap<String, usize>,
    changes: Vec<Entry>,
}

/// The stable and the unstable state of a disk.
#[derive(Debug, Clone, Default)]
struct Platter {
    files: Vec<Content>,
    /// The file that has an inode now.
    inodes: BTreeMap<u64, usize>,
    directories: BTreeMap<PathBuf, Names>,
    promises: Promises,
}

/// The promises so far.
#[derive(Debug, Clone, Default)]
struct Promises {
    /// Octets of acknowledged messages.
    acked: BTreeMap<QueueId, usize>,
    /// A message that ends with the next write of this thread.
    ending: Option<(ThreadId, QueueId)>,
    /// Done or removed, and the fact was written, but perhaps not synced.
    gone: BTreeSet<QueueId>,
    /// Noted in a state log that was synced.
    durable: BTreeSet<QueueId>,
}

impl Promises {
    /// Record a write of the current thread. It may be the last fact of a message, which then is no longer promised.
    fn wrote(&mut self) {
        if let Some((_, id)) = self.ending.take_if(|(thread, _)| *thread == thread::current().id()) {
            self.gone.insert(id);
        }
    }
}

impl Content {
    /// Apply a change. `pages`: the pages of a write that reached the disk, one bit each. A length change is applied if
    /// bit 0 of `pages` is set.
    fn apply(bytes: &mut Vec<u8>, change: &Change, pages: u64) {
        match change {
            Change::Length(octets) if pages & 1 == 1 => bytes.resize(*octets, 0),
            Change::Length(_) => {}
            Change::Write(offset, new) => {
                let mut at = *offset;
                for piece in pieces(*offset, new) {
                    if pages >> (at / PAGE_OCTETS % 32) & 1 == 1 {
                        bytes.resize(bytes.len().max(at + piece.len()), 0);
                        bytes[at..at + piece.len()].copy_from_slice(piece);
                    }
                    at += piece.len();
                }
            }
        }
    }

    /// Return a file after a power cut: all unstable changes, none, the first ones, or single pages.
    fn after_cut(&self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = Vec::clone(&self.stable);
        let whole = match dice.next(4) {
            0 => self.changes.len(),
            1 => 0,
            2 => dice.next(self.changes.len() as u64 + 1) as usize,
            _ => {
                self.changes.iter().for_each(|change| Self::apply(&mut bytes, change, dice.next(ALL_PAGES)));
                0
            }
        };
        self.changes[..whole].iter().for_each(|change| Self::apply(&mut bytes, change, ALL_PAGES));
        bytes
    }

    fn sync(&mut self) {
        let mut bytes = Vec::clone(&self.stable);
        self.changes.drain(..).for_each(|change| Self::apply(&mut bytes, &change, ALL_PAGES));
        self.stable = Arc::new(bytes);
    }
}

/// Return the parts of a write that pages hold.
fn pieces(offset: usize, bytes: &[u8]) -> Vec<&[u8]> {
    let first = (PAGE_OCTETS - offset % PAGE_OCTETS).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    std::iter::once(head).chain(rest.chunks(PAGE_OCTETS)).collect()
}

impl Names {
    fn apply(names: &mut BTreeMap<String, usize>, change: &Entry) {
        match change {
            Entry::Made(name, file) => names.extend([(name.clone(), *file)]),
            Entry::Removed(name) => names.retain(|known, _| known != name),
            Entry::Renamed(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }

    /// Return the names after a power cut: the first of the unstable changes.
    fn after_cut(&self, dice: &mut Dice) -> BTreeMap<String, usize> {
        let mut names = self.stable.clone();
        let kept = dice.next(self.changes.len() as u64 + 1) as usize;
        self.changes[..kept].iter().for_each(|change| Self::apply(&mut names, change));
        names
    }

    fn sync(&mut self) {
        let Self { stable, changes } = self;
        changes.drain(..).for_each(|change| Self::apply(stable, &change));
    }
}

impl Platter {
    fn file(&mut self, file: &File) -> &mut Content {
        let number = self.inodes[&file.metadata().unwrap().ino()];
        &mut self.files[number]
    }

    fn directory(&mut self, path: &Path) -> &mut Names {
        self.directories.entry(path.parent().unwrap().to_path_buf()).or_default()
    }

    /// Return a directory after a power cut.
    fn after_cut(&self, root: &Path, dice: &mut Dice) -> Directory {
        let image = Directory::new();
        for (path, names) in &self.directories {
            let directory = image.path().join(path.strip_prefix(root).unwrap());
            fs::create_dir_all(&directory).unwrap();
            for (name, file) in names.after_cut(dice) {
                fs::write(directory.join(name), self.files[file].after_cut(dice)).unwrap();
            }
        }
        image
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// A disk that knows what is stable, and keeps moments.
struct Volatile {
    platter: Mutex<Platter>,
    moments: Mutex<Moments>,
}

/// States after a power cut.
struct Moments {
    dice: Dice,
    /// One of this many moments is kept.
    one_in: u64,
    kept: Vec<Platter>,
}

impl Volatile {
    fn new(dice: Dice) -> Arc<Self> {
        let moments = Moments { dice, one_in: MOMENT_ONE_IN, kept: Vec::new() };
        Arc::new(Self { platter: Mutex::default(), moments: Mutex::new(moments) })
    }

    /// Make a call and record it in one step: no other thread's call comes between. The power may fail before and after.
    fn call<T>(&self, call: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        let mut platter = lock(&self.platter);
        self.moment(&platter);
        let result = call(&mut platter);
        self.moment(&platter);
        result
    }

    fn moment(&self, platter: &Platter) {
        let mut moments = lock(&self.moments);
        let one_in = moments.one_in;
        if moments.dice.next(one_in) == 0 {
            moments.kept.push(platter.clone());
        }
    }

    /// Return the moments so far, and forget them.
    fn take_moments(&self) -> Vec<Platter> {
        std::mem::take(&mut lock(&self.moments).kept)
    }

    fn promise(&self, change: impl FnOnce(&mut Promises)) {
        change(&mut lock(&self.platter).promises);
    }
}

impl Disk for Volatile {
    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        self.call(|platter| {
            let is_new = !path.exists();
            let file = RealDisk.open(path, how)?;
            if is_new {
                let number = platter.files.len();
                platter.files.push(Content::default());
                platter.inodes.insert(file.metadata()?.ino(), number);
                platter.directory(path).changes.push(Entry::Made(name(path), number));
            } else if how == Open::Fresh {
                platter.file(&file).changes.push(Arc::new(Change::Length(0)));
            }
            Ok(file)
        })
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        RealDisk.read_at(file, buffer, offset)
    }

    fn write_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.call(|platter| {
            let written = RealDisk.write_at(file, slices, offset)?;
            let mut bytes = vec![0; written];
            file.read_exact_at(&mut bytes, offset)?;
            platter.file(file).changes.push(Arc::new(Change::Write(offset as usize, bytes)));
            platter.promises.wrote();
            Ok(written)
        })
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.call(|platter| {
            platter.file(file).sync();
            Ok(())
        })
    }

    fn truncate(&self, file: &File, octets: u64) -> io::Result<()> {
        self.call(|platter| {
            RealDisk.truncate(file, octets)?;
            platter.file(file).changes.push(Arc::new(Change::Length(octets as usize)));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "a rename between directories is two changes");
        self.call(|platter| {
            RealDisk.rename(from, to)?;
            platter.directory(from).changes.push(Entry::Renamed(name(from), name(to)));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|platter| {
            RealDisk.remove(path)?;
            platter.directory(path).changes.push(Entry::Removed(name(path)));
            Ok(())
        })
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.make_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.call(|platter| {
            platter.directories.entry(path.to_path_buf()).or_default().sync();
            Ok(())
        })
    }

    fn read_directory(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.read_directory(path)
    }
}

/// Both halves of a queue on such a disk.
struct World {
    directory: Directory,
    disk: Arc<Volatile>,
    journal: Journal,
    spool: Option<Spool>,
    waiting: BTreeSet<QueueId>,
    now_us: u64,
}

impl World {
    fn new(dice: Dice) -> Self {
        let (directory, disk) = (Directory::new(), Volatile::new(dice));
        let (spool, _) = Spool::open_on(Arc::clone(&disk) as _, directory.path()).unwrap();
        let journal = open_journal(&disk, &directory);
        Self { directory, disk, journal, spool: Some(spool), waiting: BTreeSet::new(), now_us: wall_now_us() }
    }

    fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().expect("the queue manager runs")
    }

    fn commit(&mut self, octets: usize) {
        let mut draft = self.journal.draft().unwrap();
        let id = draft.id();
        let content = content(id, octets);
        let (head, body) = content.split_at(octets % HEAD_MAX_OCTETS.min(octets + 1));
        draft.write(body).unwrap();
        self.journal.commit(draft, head, &envelope(id, 2), 0);
        let completions = self.journal.wait(Duration::from_secs(30));
        assert!(completions.len() == 1 && completions[0].result.is_ok(), "{completions:?}");
        self.disk.promise(|promises| promises.acked.extend([(id, octets)]));
    }

    fn announce(&mut self) {
        let mut bytes = Vec::new();
        self.journal.take_announcements(&mut bytes);
        self.tell(&bytes);
    }

    fn tell(&mut self, bytes: &[u8]) {
        let mut reader = FrameReader::default();
        reader.receive(bytes);
        while let Some(frame) = reader.next_frame().unwrap() {
            let arrivals = match frame {
                Frame::Arrived(arrivals) => self.spool().arrived(arrivals),
                Frame::Sealed { segment, end } => self.spool().sealed(segment, end),
                Frame::Producer { segment, end, .. } => self.spool().producer(segment, end),
                frame => panic!("{frame:?}"),
            };
            self.waiting.extend(arrivals.iter().map(|arrival| arrival.envelope.id));
        }
    }

    fn note(&mut self, id: QueueId, what: u64) {
        let next_attempt_us = self.now_us + FAR_US;
        let fact = match what {
            0 => Fact::Done { id, recipients: vec![0, 1].into() },
            1 => Fact::Removed { id },
            2 => Fact::Held { id },
            _ => Fact::Deferred { id, attempts: 1, next_attempt_us, reasons: vec![] },
        };
        if what < 2 {
            // The promise ends with the write, not with the return of `note`: other threads may call the disk, and the
            // power may fail, between the two.
            self.disk.promise(|promises| promises.ending = Some((thread::current().id(), id)));
            self.waiting.remove(&id);
        }
        self.spool().note(fact);
        self.disk.promise(|promises| assert_eq!(promises.ending, None, "the fact was not written"));
    }

    fn restart_manager(&mut self) {
        self.spool = None;
        let (spool, stored) = Spool::open_on(Arc::clone(&self.disk) as _, self.directory.path()).unwrap();
        self.spool = Some(spool);
        self.waiting = stored.iter().map(|stored| stored.arrival.envelope.id).collect();
        let mut bytes = Vec::new();
        self.journal.hello(1, &mut bytes);
        self.tell(&bytes);
        self.announce();
        self.durable();
    }

    /// A new state log was written and synced: its facts must hold.
    fn durable(&self) {
        self.disk.promise(|promises| promises.durable.clone_from(&promises.gone));
    }

    fn step(&mut self, dice: &mut Dice) {
        match dice.next(16) {
            0..6 => (0..=dice.next(4)).for_each(|_| self.commit(dice.next(3000) as usize)),
            6 => self.commit((LARGE_OCTETS + dice.next(20_000)) as usize),
            7..12 => {
                self.announce();
                for id in self.waiting.clone() {
                    if dice.next(3) == 0 {
                        self.note(id, dice.next(4));
                    }
                }
            }
            12 => {
                self.journal.close();
                self.announce();
                self.journal = open_journal(&self.disk, &self.directory);
            }
            13 => {
                self.now_us += [1_000_000, MOVE_AGE_US, RETIRE_AFTER_US][dice.next(3) as usize];
                let now_us = self.now_us;
                self.spool().tick(now_us);
            }
            14 => {
                self.spool().compact_log();
                self.durable();
            }
            _ => self.restart_manager(),
        }
    }
}

fn open_journal(disk: &Arc<Volatile>, directory: &Directory) -> Journal {
    let options = JournalOptions {
        segment_max_octets: 20_000,
        large_message_octets: LARGE_OCTETS,
        ahead_octets: AHEAD_OCTETS,
        ..Default::default()
    };
    Journal::open_on(Arc::clone(disk) as _, directory.path(), options).unwrap()
}

fn content(id: QueueId, octets: usize) -> Vec<u8> {
    let mut dice = Dice(id.0 | 1);
    (0..octets).map(|_| dice.next(256) as u8).collect()
}

#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    acked: usize,
    lost: usize,
    duplicates: usize,
    not_durable: usize,
}

/// Start a queue manager on an image after a power cut.
fn check(platter: &Platter, image: &Directory, tally: &mut Tally) {
    let Promises { acked, gone, durable, .. } = &platter.promises;
    let disk = Arc::new(Faulty::unsynced());
    let (spool, stored) = Spool::open_on(disk, image.path()).unwrap();
    let mut found = BTreeSet::new();
    for Stored { arrival: Arrival { locator, envelope }, .. } in stored {
        let id = envelope.id;
        let whole = read_content(image.path(), &spool.path(locator.segment), &locator).unwrap();
        assert!(whole == content(id, whole.len()), "{id} is not what was sent");
        assert!(acked.get(&id).is_none_or(|octets| *octets == whole.len()), "{id}");
        assert!(!durable.contains(&id), "{id} came back after its end was noted for good");
        assert!(found.insert(id), "{id} came twice");
    }
    tally.cuts += 1;
    tally.acked += acked.len();
    tally.lost += acked.keys().filter(|id| !gone.contains(id) && !found.contains(id)).count();
    tally.duplicates += found.intersection(gone).count();
    tally.not_durable += gone.difference(durable).count();
}

#[test]
fn no_promise_is_broken_by_a_power_cut_at_any_moment() {
    let rounds = if is_full() { FULL_ROUNDS } else { ROUNDS };
    let seed = seed();
    let mut tally = Tally::default();
    for round in 0..rounds {
        let mut dice = Dice((seed + round) * 2 + 1);
        dice.next(2);
        let mut world = World::new(dice.clone());
        for _ in 0..STEPS {
            world.step(&mut dice);
        }
        for platter in world.disk.take_moments() {
            for _ in 0..IMAGES_A_MOMENT {
                let image = platter.after_cut(world.directory.path(), &mut dice);
                check(&platter, &image, &mut tally);
            }
        }
    }
    let Tally { cuts, acked, lost, duplicates, not_durable } = tally;
    println!(
        "power cut: {cuts} faults, {acked} acked, {lost} lost, {duplicates} duplicates (of {not_durable} not noted for good)"
    );
    assert!(cuts > 100 && acked > cuts);
    assert_eq!(lost, 0);
    assert!(duplicates <= not_durable);
}

#[test]
fn a_conversion_loses_nothing_by_a_power_cut_at_any_moment() {
    let mut dice = Dice(seed() | 1);
    let mut world = World::new(dice.clone());
    for octets in [0, 10, 2000, 9000, 700, 20_000] {
        world.commit(octets);
    }
    let World { directory, disk, journal, spool, .. } = world;
    drop((journal, spool));
    disk.take_moments();
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    assert_eq!(convert_on(&shared, directory.path()).unwrap().records, 6);
    let mut moments = disk.take_moments();
    moments.push(lock(&disk.platter).clone());
    let mut tally = Tally::default();
    for platter in moments {
        for _ in 0..4 * IMAGES_A_MOMENT {
            check(&platter, &platter.after_cut(directory.path(), &mut dice), &mut tally);
        }
    }
    assert!(tally.cuts > 4 * IMAGES_A_MOMENT);
    assert_eq!((tally.lost, tally.acked), (0, 6 * tally.cuts));
}

#[test]
fn a_restart_keeps_the_facts_about_a_segment_that_a_power_cut_may_restore() {
    let mut dice = Dice(1);
    let mut world = World::new(dice.clone());
    world.commit(100);
    world.journal.close();
    world.announce();
    let id = *world.waiting.first().unwrap();
    world.note(id, 1);
    let now_us = world.now_us;
    world.spool().tick(now_us);
    assert!(world.directory.files("incoming").is_empty());
    world.restart_manager();
    let platter = lock(&world.disk.platter).clone();
    for _ in 0..40 {
        check(&platter, &platter.after_cut(world.directory.path(), &mut dice), &mut Tally::default());
    }
}

#[test]
fn a_message_may_be_gone_from_the_moment_its_last_fact_is_written_and_not_before() {
    for what in 0..2 {
        let mut dice = Dice(1);
        let mut world = World::new(dice.clone());
        world.commit(100);
        world.announce();
        let id = *world.waiting.first().unwrap();
        lock(&world.disk.moments).one_in = 1;
        world.disk.take_moments();
        world.note(id, what);
        let moments = world.disk.take_moments();
        let may_be_gone = |platter: &&Platter| platter.promises.gone.contains(&id);
        // Before the write, and after it.
        assert_eq!(moments[..2].iter().filter(may_be_gone).count(), 1);
        let mut tally = Tally::default();
        for platter in &moments {
            for _ in 0..40 {
                check(platter, &platter.after_cut(world.directory.path(), &mut dice), &mut tally);
            }
        }
        assert!(tally.duplicates > 0, "a cut may cost the fact");
        assert_eq!(tally.lost, 0);
    }
}
