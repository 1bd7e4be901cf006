//! Parts of a message that wait, in the order of the message: for a remote table, or for the names in their log lines.
//!
//! A line whose list has a remote table is looked up when it comes, and judged when its answer is there. All that
//! follows waits behind it. The owner reads no more of the message while something waits, so little more than one read
//! is here.

use super::lists::{List, Lists, Search};
use crate::ask::{Answer, Lookup};
use crate::inquiry::Lookups;
use crate::mail::header::End;
use crate::mail::mime::{Fault, HeaderClass};
use std::collections::VecDeque;
use std::mem;
use std::task::Poll;

/// Maximum number of octets that wait, with `EVENT_OCTETS` for each part.
pub const HELD_MAX_OCTETS: usize = 4 * 1024 * 1024;
/// Memory of a part besides its text, about.
pub const EVENT_OCTETS: usize = 128;

/// A part of the message.
#[derive(Debug)]
pub enum Event {
    /// A logical header, as in `MimeEvents`.
    Header {
        /// The list that it is looked up in.
        class: HeaderClass,
        /// See `Judge::header`.
        in_head: bool,
        /// The header.
        text: Vec<u8>,
    },
    /// The end of the message's own headers.
    HeadEnd(End),
    /// A line of a body, or a piece of one.
    Line {
        /// The text.
        text: Vec<u8>,
        /// The line ends with it.
        ends: bool,
    },
    /// A broken rule, and the text that breaks it.
    Fault(Fault, Vec<u8>),
}

impl Event {
    fn octets(&self) -> usize {
        EVENT_OCTETS
            + match self {
                // The key has the text once more.
                Self::Header { text, .. } | Self::Line { text, .. } => 2 * text.len(),
                Self::Fault(_, text) => text.len(),
                Self::HeadEnd(_) => 0,
            }
    }

    /// Return the list that the part is looked up in.
    fn list<'a>(&self, lists: &'a Lists) -> Option<&'a List> {
        match self {
            Self::Header { class, .. } => Some(lists.of(*class)),
            Self::Line { .. } => Some(&lists.body),
            Self::HeadEnd(_) | Self::Fault(..) => None,
        }
    }
}

/// The parts that wait, and their lookups.
#[derive(Debug, Default)]
pub struct Held {
    parts: VecDeque<(Event, Search)>,
    octets: usize,
    lookups: Lookups,
}

impl Held {
    /// Whether no part waits.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Add a part at the end. False: there is no room for it.
    pub fn push(&mut self, event: Event, search: Search) -> bool {
        let octets = event.octets();
        if self.octets + octets > HELD_MAX_OCTETS {
            return false;
        }
        self.octets += octets;
        if let Search::Asks { lookup, .. } = &search {
            // This queues the lookup. Its answer is read later, when the part is the first one.
            let _ = self.lookups.find(lookup);
        }
        self.parts.push_back((event, search));
        true
    }

    /// Remove the first part, and return it with the answer of its list. `None`: the answer is not there, no part waits,
    /// or the part may cause a line in the log and `can_log` returns false. When no part is left, all answers
    /// are dropped. `lists`: `None` when lines are not looked up any more.
    pub fn pop(&mut self, lists: Option<&Lists>, can_log: impl FnOnce() -> bool) -> Option<(Event, Answer)> {
        let Some((event, search)) = self.parts.front_mut() else {
            self.lookups.forget();
            return None;
        };
        let answer = match lists.and_then(|lists| event.list(lists)) {
            Some(list) => advance(list, search, &mut self.lookups)?,
            None => &mut Answer::NotFound,
        };
        let is_silent = *answer == Answer::NotFound && !matches!(event, Event::Fault(..));
        if !is_silent && !can_log() {
            return None;
        }
        let answer = mem::replace(answer, Answer::NotFound);
        let (event, _) = self.parts.pop_front()?;
        self.octets -= event.octets();
        Some((event, answer))
    }

    /// Take the next lookups, at most `inquiry::BATCH_MAX`.
    pub fn asks(&mut self, lists: &Lists) -> Vec<Lookup> {
        if !self.lookups.has_asks() {
            // A line that one table lacks is asked for in the next one, also while the line before it waits.
            for (event, search) in &mut self.parts {
                if let Some(list) = event.list(lists) {
                    advance(list, search, &mut self.lookups);
                }
            }
        }
        self.lookups.asks()
    }

    /// Receive an answer; see `Lookups::answer`.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        self.lookups.answer(lookup, answer);
    }

    /// Drop everything.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.octets = 0;
        self.lookups.forget();
    }
}

/// Go on with a search as far as there are answers. Returns its result, `None` before it is there.
fn advance<'a>(list: &List, search: &'a mut Search, lookups: &mut Lookups) -> Option<&'a mut Answer> {
    while let Search::Asks { at, lookup } = search {
        let Poll::Ready(answer) = lookups.find(lookup) else { return None };
        *search = list.go_on(&lookup.key, *at, answer);
    }
    match search {
        Search::Done(answer) => Some(answer),
        Search::Asks { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inquiry::{ANSWER_MAX_OCTETS, ANSWERS_MAX_OCTETS, LOOKUPS_MAX};
    use crate::lookup::Entry;

    /// Lists with remote tables of these numbers for lines.
    fn lists(tables: &[usize]) -> Lists {
        let remote = |index: &usize| Entry::Remote { index: *index, takes_parts: true };
        let body = List { parameter: "body_checks".into(), tables: tables.iter().map(remote).collect() };
        Lists { body, ..Lists::default() }
    }

    fn push(held: &mut Held, lists: &Lists, line: &str) -> bool {
        let event = Event::Line { text: line.into(), ends: true };
        held.push(event, lists.body.search(line.as_bytes()))
    }

    /// Return the lines that have their answers, with the answers.
    fn popped(held: &mut Held, lists: &Lists) -> Vec<(String, Answer)> {
        let line = |event| match event {
            Event::Line { text, .. } => String::from_utf8(text).unwrap(),
            other => format!("{other:?}"),
        };
        std::iter::from_fn(|| held.pop(Some(lists), || true)).map(|(event, answer)| (line(event), answer)).collect()
    }

    fn value(text: &str) -> Answer {
        Answer::Found(text.as_bytes().into())
    }

    /// Answer lookups: table 1 has the line `a`, table 2 the lines `b` and `e`.
    fn answer(held: &mut Held, asked: Vec<Lookup>) {
        for lookup in asked {
            let answer = match (lookup.table, &*lookup.key) {
                (1, b"a") | (2, b"b" | b"e") => Answer::Found(b"WARN"[..].into()),
                (_, b"d") => Answer::Failed("down".into()),
                _ => Answer::NotFound,
            };
            held.answer(&lookup, answer);
        }
    }

    #[test]
    fn each_table_is_asked_in_one_batch_for_all_lines_that_need_it() {
        for backwards in [false, true] {
            let lists = lists(&[1, 2]);
            let mut held = Held::default();
            for line in ["c", "a", "", "b", "c", "d", "e"] {
                assert!(push(&mut held, &lists, line));
            }
            let mut rounds = vec![];
            loop {
                let mut asked = held.asks(&lists);
                if asked.is_empty() {
                    break;
                }
                let keys: Vec<_> = asked.iter().map(|lookup| (lookup.table, lookup.key.to_vec())).collect();
                rounds
                    .push(keys.iter().map(|(table, key)| format!("{table}{}", key.escape_ascii())).collect::<Vec<_>>());
                if backwards {
                    asked.reverse();
                }
                answer(&mut held, asked);
            }
            assert_eq!(rounds, [vec!["1c", "1a", "1b", "1d", "1e"], vec!["2c", "2b", "2e"]]);
            let expected = [
                ("c", Answer::NotFound),
                ("a", value("WARN")),
                ("", Answer::NotFound),
                ("b", value("WARN")),
                ("c", Answer::NotFound),
                ("d", Answer::Failed("down".into())),
                ("e", value("WARN")),
            ];
            assert_eq!(popped(&mut held, &lists), expected.map(|(line, answer)| (line.to_owned(), answer)));
            assert!(held.is_empty());
        }
    }

    #[test]
    fn a_part_waits_for_those_before_it_and_is_free_without_checks() {
        let lists = lists(&[1]);
        let mut held = Held::default();
        assert!(push(&mut held, &lists, "c") && push(&mut held, &lists, "a"));
        assert!(held.push(Event::HeadEnd(End::Separator), Search::Done(Answer::NotFound)));
        let asked = held.asks(&lists);
        answer(&mut held, asked[1..].to_vec());
        assert_eq!(popped(&mut held, &lists), []);
        answer(&mut held, asked[..1].to_vec());
        assert_eq!(held.pop(Some(&lists), || true).unwrap().1, Answer::NotFound);
        assert_eq!(held.pop(None, || true).unwrap().1, Answer::NotFound, "it is not looked up any more");
        assert!(matches!(held.pop(None, || true), Some((Event::HeadEnd(_), Answer::NotFound))));
        assert!(held.pop(Some(&lists), || true).is_none() && held.is_empty());
    }

    #[test]
    fn parts_and_answers_have_limits() {
        let lists = lists(&[1]);
        let mut held = Held::default();
        let line = "y".repeat(1024 - EVENT_OCTETS / 2);
        (0..HELD_MAX_OCTETS / 2048).for_each(|_| assert!(push(&mut held, &lists, &line)));
        assert!(!push(&mut held, &lists, ""));
        held.clear();
        assert!(held.is_empty() && held.asks(&lists).is_empty());

        let big = vec![b'x'; ANSWER_MAX_OCTETS];
        let count = ANSWERS_MAX_OCTETS / ANSWER_MAX_OCTETS;
        (0..=count).for_each(|line| assert!(push(&mut held, &lists, &line.to_string())));
        for lookup in held.asks(&lists) {
            held.answer(&lookup, Answer::Found(big.clone().into()));
        }
        let found = popped(&mut held, &lists);
        assert!(found[..count].iter().all(|(_, found)| matches!(found, Answer::Found(_))));
        assert!(matches!(&found[count].1, Answer::Failed(why) if why.ends_with("octets, which is too long")));
    }

    #[test]
    fn lookups_of_a_message_have_a_limit() {
        const TOGETHER: usize = 1000;
        let lists = lists(&[1]);
        let mut held = Held::default();
        let mut failed = vec![];
        for start in (0..=LOOKUPS_MAX).step_by(TOGETHER) {
            (start..start + TOGETHER).for_each(|line| assert!(push(&mut held, &lists, &line.to_string())));
            let asked = held.asks(&lists);
            answer(&mut held, asked);
            let missing = popped(&mut held, &lists).into_iter().filter(|(_, answer)| *answer != Answer::NotFound);
            failed.extend(missing.map(|(line, _)| line));
        }
        assert_eq!((failed.len(), &*failed[0]), (TOGETHER, &*LOOKUPS_MAX.to_string()));
    }
}
