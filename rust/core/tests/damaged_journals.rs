//! Journals and state logs that are cut, or damaged at random places: every message with intact octets is found, with
//! its state from the intact facts; every other message is reported.
//!
//! A model that only knows where each record and each fact was written gives the expected result. The short form
//! damages 100 journals, `cargo test --test damaged_journals -- --ignored --nocapture` 1,000.

use postillion_core::clock::wall_now_us;
use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::id::QueueId;
use postillion_core::mail::locator::Locator;
use postillion_core::mail::sink::Sink;
use postillion_core::queue::{Fact, Journal, JournalOptions, Kept, Spool, read_content};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, panic};

const SEGMENT_HEADER: usize = 32;
const RECORD_HEADER: usize = 48;
const LOG_HEADER: usize = 24;
const HOUR_US: u64 = 3_600_000_000;

/// SplitMix64: the same damage for the same seed, on any machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A record: its file and its octets in that file.
#[derive(Clone)]
struct Place {
    file: String,
    octets: Range<usize>,
}

impl Place {
    fn new(path: String, at: &Locator) -> Self {
        Self { file: path, octets: at.offset as usize..(at.offset + at.record_octets) as usize }
    }
}

struct Message {
    content: Vec<u8>,
    places: Vec<Place>,
    /// The place of each of its facts in the state log.
    facts: Vec<(Fact, Range<usize>)>,
}

/// A queue on disk, and the place of everything written.
struct Queue {
    directory: Directory,
    messages: BTreeMap<QueueId, Message>,
    log: String,
    /// Each file before the damage.
    files: BTreeMap<String, Vec<u8>>,
}

fn fact(dice: &mut Dice, id: QueueId) -> Fact {
    match dice.below(8) {
        0 => Fact::Done { id, recipients: vec![dice.below(2) as u32].into() },
        1 => Fact::Done { id, recipients: vec![0, 1].into() },
        2 => Fact::Held { id },
        3 => Fact::Released { id },
        4 => Fact::Warned { id },
        5 => Fact::Removed { id },
        n => {
            Fact::Deferred { id, attempts: n as u32, next_attempt_us: wall_now_us() + 1000 * HOUR_US, reasons: vec![] }
        }
    }
}

impl Queue {
    fn write(dice: &mut Dice) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("postillion-damaged-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = Directory(std::env::temp_dir().join(name));
        fs::create_dir_all(&directory.0).unwrap();
        let mut queue = Self { directory, messages: BTreeMap::new(), log: String::new(), files: BTreeMap::new() };
        queue.commit(dice);
        queue.note(dice);
        for name in ["incoming", "deferred", "active"] {
            for entry in fs::read_dir(queue.directory.0.join(name)).unwrap() {
                let path = entry.unwrap().path();
                let file = format!("{name}/{}", path.file_name().unwrap().to_str().unwrap());
                queue.files.insert(file, fs::read(path).unwrap());
            }
        }
        queue
    }

    fn commit(&mut self, dice: &mut Dice) {
        let options = JournalOptions {
            segment_max_octets: 3000,
            segment_max_age: Duration::from_secs(3600),
            large_message_octets: 5000,
            ahead_octets: 100,
            minfree_octets: 0,
        };
        let journal = Journal::open(&self.directory.0, options).unwrap();
        for _ in 0..=dice.below(6) {
            let mut contents = BTreeMap::new();
            for _ in 0..=dice.below(5) {
                let octets = [0, 30, 300, 1500, 8000][dice.below(5)];
                let content: Vec<u8> = (0..octets).map(|_| dice.next() as u8).collect();
                let mut draft = journal.draft().unwrap();
                let (head, body) = content.split_at(dice.below(octets / 3 + 1));
                draft.write(body).unwrap();
                let recipients = ["a@example.org", "b@example.org"].map(Recipient::plain).to_vec();
                let envelope = Envelope::plain(draft.id(), "sender@example.org", recipients);
                let id = draft.id();
                journal.commit(draft, head, &envelope, 0);
                contents.insert(id, content);
            }
            while !contents.is_empty() {
                for completion in journal.wait(Duration::from_secs(60)) {
                    let at = completion.result.unwrap();
                    let place = Place::new(format!("incoming/{}", at.segment.file_name()), &at);
                    let content = contents.remove(&completion.id).unwrap();
                    self.messages.insert(completion.id, Message { content, places: vec![place], facts: vec![] });
                }
            }
        }
    }

    fn note(&mut self, dice: &mut Dice) {
        let (mut spool, _) = Spool::open(&self.directory.0).unwrap();
        let log = fs::read_dir(self.directory.0.join("active")).unwrap().map(|entry| entry.unwrap().path());
        let log = log.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("state.")).max().unwrap();
        self.log = format!("active/{}", log.file_name().unwrap().to_str().unwrap());
        let ids: Vec<QueueId> = self.messages.keys().copied().collect();
        let facts = dice.below(2 * ids.len() + 1);
        for n in 0..facts {
            let id = ids[dice.below(ids.len())];
            let fact = fact(dice, id);
            let start = fs::metadata(&log).unwrap().len() as usize;
            spool.note(fact.clone());
            let end = fs::metadata(&log).unwrap().len() as usize;
            if end > start {
                self.messages.get_mut(&id).unwrap().facts.push((fact, start..end));
            }
            if n == facts / 2 && dice.below(3) == 0 {
                for (id, at) in spool.tick(wall_now_us() + HOUR_US) {
                    self.messages.get_mut(&id).unwrap().places.push(Place::new(spool.path(at.segment), &at));
                }
            }
        }
    }

    /// Damage some places; return the files as they are now.
    fn damage(&self, dice: &mut Dice) -> BTreeMap<String, Vec<u8>> {
        let mut now = self.files.clone();
        let segment = |name: &&String| !name.contains("slot.") && !name.starts_with("active/");
        let segments: Vec<&String> = self.files.keys().filter(segment).collect();
        for _ in 0..=dice.below(4) {
            let name = if segments.is_empty() || dice.below(4) == 0 {
                &self.log
            } else {
                segments[dice.below(segments.len())]
            };
            let bytes = now.get_mut(name).unwrap();
            if bytes.is_empty() {
                continue;
            }
            let at = dice.below(bytes.len());
            let run = at..bytes.len().min(at + 1 + dice.below(200));
            match dice.below(4) {
                0 => bytes.truncate(at),
                1 => bytes[run].fill(0),
                2 => bytes[run].iter_mut().for_each(|byte| *byte = dice.next() as u8),
                _ => bytes[at] ^= 1 << dice.below(8),
            }
        }
        for (name, bytes) in &now {
            if *bytes != self.files[name] {
                fs::write(self.directory.0.join(name), bytes).unwrap();
            }
        }
        now
    }

    fn same(&self, now: &BTreeMap<String, Vec<u8>>, file: &str, octets: Range<usize>) -> bool {
        // A segment of finished messages is removed already.
        let (Some(now), Some(before)) = (now.get(file), self.files.get(file)) else { return false };
        octets.end <= now.len() && now[octets.clone()] == before[octets]
    }

    /// Whether the record is intact, and its segment readable.
    fn is_whole(&self, now: &BTreeMap<String, Vec<u8>>, place: &Place) -> bool {
        let header = self.same(now, &place.file, 0..SEGMENT_HEADER);
        let first = self.same(now, &place.file, SEGMENT_HEADER..SEGMENT_HEADER + RECORD_HEADER);
        (header || first) && self.same(now, &place.file, place.octets.clone())
    }

    /// Return the state of a message from the intact facts; `None` when it is finished.
    fn state(&self, now: &BTreeMap<String, Vec<u8>>, message: &Message) -> Option<Kept> {
        let header = (0..2).any(|n| self.same(now, &self.log, n * LOG_HEADER..(n + 1) * LOG_HEADER));
        let mut kept = Kept::default();
        for (fact, octets) in &message.facts {
            if !header || !self.same(now, &self.log, octets.clone()) {
                continue;
            }
            match fact {
                Fact::Done { recipients, .. } => kept.done.extend(recipients),
                Fact::Deferred { attempts, next_attempt_us, .. } => {
                    (kept.attempts, kept.next_attempt_us) = (*attempts, Some(*next_attempt_us));
                }
                Fact::Held { .. } => kept.held = true,
                Fact::Released { .. } => (kept.held, kept.released) = (false, true),
                Fact::Warned { .. } => kept.warned = true,
                Fact::ForcedExpire { .. } => kept.forced_expire = true,
                Fact::Removed { .. } => return None,
            }
        }
        kept.done.sort_unstable();
        kept.done.dedup();
        if kept.done.len() == 2 { None } else { Some(kept) }
    }

    /// Whether a file under corrupt/ or a line of the log reports the damage to a record.
    fn is_reported(&self, place: &Place, notices: &[String]) -> bool {
        let name = place.file.split_once('/').unwrap().1;
        let covers = |path: PathBuf| {
            let copy = path.file_name().unwrap().to_str().unwrap().to_owned();
            let Some((segment, offset)) = copy.split_once('-') else { return false };
            let Ok(offset) = offset.parse::<usize>() else { return false };
            let end = offset + fs::metadata(&path).unwrap().len() as usize;
            segment == name && offset < place.octets.end && end > place.octets.start && {
                assert!(path.with_file_name(format!("{copy}.reason")).exists());
                notices.iter().any(|notice| notice.contains(&format!("corrupt/{copy}")))
            }
        };
        let mut copies = fs::read_dir(self.directory.0.join("corrupt")).unwrap().map(|entry| entry.unwrap().path());
        copies.any(covers) || notices.iter().any(|notice| notice.contains(name) && notice.contains("never committed"))
    }
}

#[derive(Default)]
struct Tally {
    acked: usize,
    damaged: usize,
    lost: usize,
    duplicates: usize,
}

type Found = BTreeMap<QueueId, (Kept, Vec<u8>)>;

fn open(directory: &Path) -> (Found, Vec<String>) {
    let (mut spool, stored) = Spool::open(directory).unwrap();
    let mut found = BTreeMap::new();
    for stored in stored {
        let at = stored.arrival.locator;
        let content = read_content(directory, &spool.path(at.segment), &at).unwrap();
        let before = found.insert(stored.arrival.envelope.id, (stored.state, content));
        assert_eq!(before, None, "once");
    }
    (found, spool.take_notices())
}

fn damage_one(seed: u64, tally: &mut Tally) {
    let mut dice = Dice(seed);
    let queue = Queue::write(&mut dice);
    let now = queue.damage(&mut dice);
    let (found, notices) = open(&queue.directory.0);
    for (id, message) in &queue.messages {
        let whole = message.places.iter().any(|place| queue.is_whole(&now, place));
        let expected = queue.state(&now, message).filter(|_| whole);
        tally.lost += usize::from(expected.is_some() && !found.contains_key(id));
        tally.duplicates += usize::from(found.contains_key(id) && queue.state(&queue.files, message).is_none());
        assert_eq!(found.get(id), expected.map(|kept| (kept, message.content.clone())).as_ref(), "{id}: {notices:?}");
        for place in message.places.iter().filter(|place| !queue.is_whole(&now, place)) {
            // A record without any octet left cannot be reported.
            if now.get(&place.file).is_some_and(|bytes| place.octets.start < bytes.len()) {
                tally.damaged += 1;
                assert!(queue.is_reported(place, &notices), "{id} in {}: {notices:?}", place.file);
            }
        }
        for (_, octets) in &message.facts {
            if octets.start < now[&queue.log].len() && !queue.same(&now, &queue.log, octets.clone()) {
                assert!(notices.iter().any(|notice| notice.contains(&queue.log)), "a fact about {id}: {notices:?}");
            }
        }
    }
    assert!(found.keys().all(|id| queue.messages.contains_key(id)), "nothing else is found");
    let (again, _) = open(&queue.directory.0);
    assert_eq!(again, found, "the next start finds the same");
    tally.acked += queue.messages.len();
}

fn damage(count: u64) {
    let mut tally = Tally::default();
    for seed in 0..count {
        let one = panic::AssertUnwindSafe(|| damage_one(seed, &mut tally));
        panic::catch_unwind(one).unwrap_or_else(|_| panic!("with seed {seed}"));
    }
    let Tally { acked, damaged, lost, duplicates } = tally;
    println!(
        "{count} faults, {acked} acked, {lost} lost, {duplicates} duplicates; {damaged} records damaged, all reported"
    );
    assert_eq!(lost, 0);
    assert!(damaged as u64 > count / 2 && duplicates > 0, "the damage is worth the name");
}

#[test]
fn every_intact_message_is_found_and_all_damage_is_reported() {
    damage(100);
}

#[test]
#[ignore = "the full form: 1,000 journals"]
fn every_intact_message_is_found_in_a_thousand_damaged_journals() {
    damage(1000);
}
