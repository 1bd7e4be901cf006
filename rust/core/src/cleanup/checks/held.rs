//! The part of a message that waits for the answers of remote tables, in its order.
//!
//! A line whose list has a remote table is looked up when it arrives, and judged when its answer is there. All that
//! follows waits behind it. The owner stops reading the message while something waits (`Intake::is_waiting`), so little
//! more than one read of its socket is here.

use crate::ask::{Answer, Lookup};
use crate::inquiry::{ANSWER_MAX_OCTETS, BATCH_MAX, LOOKUPS_MAX};
use crate::mail::header::End;
use crate::mail::mime::{Class, Fault};
use crate::table::checks::Search;
use std::collections::{HashMap, VecDeque};

/// Maximum number of octets that wait, with `EVENT_OCTETS` for each part.
pub const HELD_MAX_OCTETS: usize = 4 * 1024 * 1024;
/// Memory of a part besides its text, about.
const EVENT_OCTETS: usize = 128;

/// A part of the message.
#[derive(Debug)]
pub(super) enum Event {
    Header { class: Class, in_head: bool, text: Vec<u8> },
    HeadEnd(End),
    Line { text: Vec<u8>, ends: bool },
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
}

/// The parts that wait, and their lookups.
#[derive(Debug, Default)]
pub(super) struct Held {
    events: VecDeque<(Event, Search)>,
    octets: usize,
    /// The lookups of the parts that wait; `None`: not answered yet.
    known: HashMap<Lookup, Option<Answer>>,
    unasked: VecDeque<Lookup>,
    /// Lookups of the whole message.
    asked: usize,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Add a part at the end. False: there is no room for it.
    pub fn push(&mut self, event: Event, search: Search) -> bool {
        let octets = event.octets();
        if self.octets + octets > HELD_MAX_OCTETS {
            return false;
        }
        self.octets += octets;
        if let Search::Asks { lookup, .. } = &search {
            self.ask(lookup);
        }
        self.events.push_back((event, search));
        true
    }

    /// Remove the first part.
    pub fn pop(&mut self) -> Option<(Event, Search)> {
        let first = self.events.pop_front();
        match &first {
            Some((event, _)) => self.octets -= event.octets(),
            None => self.forget(),
        }
        first
    }

    /// Put the first part back.
    pub fn put_back(&mut self, event: Event, search: Search) {
        self.octets += event.octets();
        self.events.push_front((event, search));
    }

    /// Ask for a lookup, once.
    pub fn ask(&mut self, lookup: &Lookup) {
        if self.known.contains_key(lookup) {
            return;
        }
        let mut answer = None;
        if self.asked < LOOKUPS_MAX {
            self.asked += 1;
            self.unasked.push_back(lookup.clone());
        } else {
            answer = Some(Answer::Failed(format!("a message may cause {LOOKUPS_MAX} lookups").into()));
        }
        self.known.insert(lookup.clone(), answer);
    }

    /// Return the answer to a lookup, `None` before it is there.
    pub fn answer_to(&self, lookup: &Lookup) -> Option<Answer> {
        self.known.get(lookup).cloned().flatten()
    }

    /// Take the next lookups, at most `BATCH_MAX`.
    pub fn asks(&mut self) -> Vec<Lookup> {
        let taken = self.unasked.len().min(BATCH_MAX);
        self.unasked.drain(..taken).collect()
    }

    /// Receive an answer. An answer to no lookup, and a second answer, have no effect.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        if let Some(open @ None) = self.known.get_mut(lookup) {
            *open = Some(match answer {
                Answer::Found(value) if value.len() > ANSWER_MAX_OCTETS => {
                    Answer::Failed(format!("a value has {} octets, which is too long", value.len()).into())
                }
                answer => answer,
            });
        }
    }

    /// Drop everything: the message is refused.
    pub fn clear(&mut self) {
        self.events.clear();
        self.octets = 0;
        self.forget();
    }

    fn forget(&mut self) {
        self.known.clear();
        self.unasked.clear();
    }
}
