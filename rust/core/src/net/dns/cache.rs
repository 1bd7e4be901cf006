//! Answers for their time to live, bounded in number and in octets. The answer without use for the longest time leaves
//! first.
//!
//! Slots form a list in the order of use; a hash table finds them by their question, which is stored once.

use super::answer::{Answer, Question, Record};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// Maximum number of answers.
pub const ANSWERS_MAX: usize = 10_000;
/// Maximum size of all answers, in octets.
pub const OCTETS_MAX: usize = 16 << 20;
/// Shortest time to live of records, in seconds.
pub const TTL_MIN_S: f64 = 1.0;
/// Longest time to live of records, in seconds.
pub const TTL_MAX_S: f64 = 3600.0;
/// Longest time to live of a negative answer, in seconds.
pub const NEGATIVE_TTL_MAX_S: f64 = 900.0;
/// Size of an answer beside its name and its records: the slot, its place in the table, three allocations.
const ANSWER_OCTETS: usize = 192;
const NONE: u32 = u32::MAX;

/// The limits of a cache.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of answers.
    pub answers_max: usize,
    /// Maximum size of all answers, in octets.
    pub octets_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answers_max: ANSWERS_MAX, octets_max: OCTETS_MAX }
    }
}

struct Slot {
    question: Question,
    answer: Answer,
    expires: f64,
    octets: usize,
    /// The slot that was used next after this one.
    newer: u32,
    older: u32,
}

/// The cached answers.
pub struct Cache {
    limits: Limits,
    hasher: RandomState,
    table: HashTable<u32>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    octets: usize,
}

impl Cache {
    /// Return an empty cache.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            hasher: RandomState::new(),
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            octets: 0,
        }
    }

    /// Return the answer to a question with its remaining time to live.
    pub fn find(&mut self, question: &Question, now: f64) -> Option<Answer> {
        let at = self.position(question)?;
        let ttl = self.slot(at).expires - now;
        if ttl <= 0.0 {
            self.remove(at);
            return None;
        }
        self.unlink(at);
        self.link(at);
        Some(self.slot(at).answer.clone().with_ttl(ttl))
    }

    /// Keep an answer for its time to live, within the limits; return it with this time. A failure is not kept.
    pub fn keep(&mut self, question: &Question, answer: Answer, now: f64) -> Answer {
        let ttl = match &answer {
            Answer::Records { ttl, .. } => ttl.clamp(TTL_MIN_S, TTL_MAX_S),
            Answer::NoData { ttl } | Answer::NoName { ttl } => ttl.min(NEGATIVE_TTL_MAX_S),
            Answer::Failed(_) => return answer,
        };
        let answer = answer.with_ttl(ttl);
        if let Some(at) = self.position(question) {
            self.remove(at);
        }
        let octets = octets_of(question, &answer);
        if ttl <= 0.0 || octets > self.limits.octets_max {
            return answer;
        }
        while self.oldest != NONE
            && (self.table.len() >= self.limits.answers_max || self.octets + octets > self.limits.octets_max)
        {
            self.remove(self.oldest);
        }
        self.insert(Slot {
            question: question.clone(),
            answer: answer.clone(),
            expires: now + ttl,
            octets,
            newer: NONE,
            older: NONE,
        });
        answer
    }

    /// Return the number of answers.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Return the size of all answers, in octets.
    pub fn octets(&self) -> usize {
        self.octets
    }

    fn slot(&self, at: u32) -> &Slot {
        self.slots[at as usize].as_ref().expect("a slot in use")
    }

    fn slot_mut(&mut self, at: u32) -> &mut Slot {
        self.slots[at as usize].as_mut().expect("a slot in use")
    }

    fn position(&self, question: &Question) -> Option<u32> {
        let hash = self.hasher.hash_one(question);
        self.table.find(hash, |at| self.slot(*at).question == *question).copied()
    }

    fn insert(&mut self, slot: Slot) {
        let hash = self.hasher.hash_one(&slot.question);
        self.octets += slot.octets;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(slot);
                at
            }
            None => {
                self.slots.push(Some(slot));
                (self.slots.len() - 1) as u32
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.table.insert_unique(hash, at, |at| {
            hasher.hash_one(&slots[*at as usize].as_ref().expect("a slot in use").question)
        });
        self.link(at);
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        let slot = self.slots[at as usize].take().expect("a slot in use");
        let hash = self.hasher.hash_one(&slot.question);
        if let Ok(entry) = self.table.find_entry(hash, |kept| *kept == at) {
            entry.remove();
        }
        self.octets -= slot.octets;
        self.free.push(at);
    }

    /// Make a slot the newest one.
    fn link(&mut self, at: u32) {
        let newest = self.newest;
        let slot = self.slot_mut(at);
        (slot.newer, slot.older) = (NONE, newest);
        match newest {
            NONE => self.oldest = at,
            newest => self.slot_mut(newest).newer = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let (newer, older) = (self.slot(at).newer, self.slot(at).older);
        match newer {
            NONE => self.newest = older,
            newer => self.slot_mut(newer).older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slot_mut(older).newer = newer,
        }
    }
}

fn octets_of(question: &Question, answer: &Answer) -> usize {
    let records: usize = match answer {
        Answer::Records { list, .. } => list.iter().map(|record| size_of::<Record>() + record.heap_octets()).sum(),
        _ => 0,
    };
    ANSWER_OCTETS + question.name.len() + records
}

#[cfg(test)]
mod tests {
    use super::super::answer::Kind;
    use super::super::name::Name;
    use super::*;
    use proptest::prelude::*;

    fn question(number: u8) -> Question {
        Question { name: Name::parse(&format!("{number}.test")).unwrap(), kind: Kind::Txt }
    }

    fn answer(ttl: f64, octets: usize) -> Answer {
        Answer::Records { list: [Record::Text(vec![b'x'; octets].into())].into(), ttl, secure: true }
    }

    fn small(answers_max: usize, octets_max: usize) -> Cache {
        Cache::new(Limits { answers_max, octets_max })
    }

    #[test]
    fn time_to_live_is_within_its_limits() {
        let rows = [
            (answer(0.0, 1), answer(1.0, 1)),
            (answer(604_800.0, 1), answer(3600.0, 1)),
            (answer(300.0, 1), answer(300.0, 1)),
            (Answer::NoName { ttl: 86_400.0 }, Answer::NoName { ttl: 900.0 }),
            (Answer::NoData { ttl: 60.0 }, Answer::NoData { ttl: 60.0 }),
        ];
        for (given, expected) in rows {
            let mut cache = small(10, 10_000);
            assert_eq!(cache.keep(&question(1), given, 100.0), expected);
            assert_eq!(cache.find(&question(1), 100.0), Some(expected));
            assert_eq!(cache.find(&question(1), 100.0 + 3600.0), None);
            assert_eq!((cache.len(), cache.octets()), (0, 0));
        }
    }

    #[test]
    fn failures_and_answers_without_time_are_not_kept() {
        let mut cache = small(10, 10_000);
        for given in [Answer::Failed("SERVFAIL".into()), Answer::NoName { ttl: 0.0 }] {
            assert_eq!(cache.keep(&question(1), given.clone(), 0.0), given);
            assert_eq!(cache.len(), 0);
        }
    }

    #[test]
    fn oldest_unused_answer_leaves_first() {
        let mut cache = small(3, 10_000);
        for number in 0..3 {
            cache.keep(&question(number), answer(60.0, 1), 0.0);
        }
        cache.find(&question(0), 1.0);
        cache.keep(&question(3), answer(60.0, 1), 1.0);
        let there = |cache: &mut Cache| (0..4).map(|n| cache.find(&question(n), 1.0).is_some()).collect::<Vec<_>>();
        assert_eq!(there(&mut cache), [true, false, true, true]);
    }

    #[test]
    fn size_is_bounded() {
        let mut cache = small(100, 3000);
        for number in 0..100 {
            cache.keep(&question(number), answer(60.0, 500), 0.0);
            assert!(cache.octets() <= 3000);
        }
        assert!(cache.len() >= 3);
        cache.keep(&question(200), answer(60.0, 5000), 0.0);
        assert_eq!(cache.find(&question(200), 0.0), None);
        assert!(cache.len() >= 3, "an answer that is too large displaces no other");
    }

    proptest! {
        /// A plain list, the newest last, decides the same.
        #[test]
        fn cache_decides_as_a_list(steps in prop::collection::vec((0u8..12, any::<bool>(), 1u8..40, 0u8..20), 1..200)) {
            let mut cache = small(6, 2500);
            let mut list: Vec<(u8, f64, Answer, usize)> = Vec::new();
            let mut now = 0.0;
            for (number, keeps, ttl, passes) in steps {
                now += f64::from(passes) / 4.0;
                let place = list.iter().position(|kept| kept.0 == number);
                if keeps {
                    let given = answer(f64::from(ttl), usize::from(ttl) * 20);
                    cache.keep(&question(number), given.clone(), now);
                    let octets = octets_of(&question(number), &given);
                    if let Some(place) = place { list.remove(place); }
                    while list.len() >= 6 || list.iter().map(|kept| kept.3).sum::<usize>() + octets > 2500 { list.remove(0); }
                    list.push((number, now + f64::from(ttl), given, octets));
                } else {
                    let found = cache.find(&question(number), now);
                    let expected = place.map(|place| list.remove(place)).filter(|kept| kept.1 > now);
                    prop_assert_eq!(&found, &expected.clone().map(|kept| kept.2.with_ttl(kept.1 - now)));
                    list.extend(expected);
                }
                prop_assert_eq!(cache.len(), list.len());
                prop_assert_eq!(cache.octets(), list.iter().map(|kept| kept.3).sum::<usize>());
            }
        }
    }
}
