//! The lookups of a message's headers and lines in header_checks(5) lists, for cleanup(8) and smtp(8).
//!
//! Headers and lines come in as events of the MIME structure. Each goes to a `Judge` with the answer of its list, in the
//! order of the message. A part waits while a remote table has no answer, or while the names in its log line are not
//! known; all later parts wait behind it (`held`).
//!
//! ```text
//! reader          events of the structure in, judged at once where nothing waits
//! asks, answer    the lookups of the parts that wait
//! go_on           judges what has its answer
//! ```

pub mod held;
pub mod lists;

use crate::ask::{Answer, Lookup};
use crate::mail::header::{End, with_lf, without_blanks_before_colon};
use crate::mail::mime::{Fault, HeaderClass, Line, MimeEvents, Part};
use held::{Event, Held};
use lists::{Lists, Search};
use std::sync::Arc;

/// The treatment of the parts that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// They are looked up.
    Checked,
    /// They are not looked up any more.
    Unchecked,
    /// The message has failed: what waits is dropped.
    Dropped,
}

/// The receiver of a message's parts.
pub trait Judge {
    /// Return the treatment of the parts that follow.
    fn course(&self) -> Course;
    /// Whether the names in log lines are known. False: a part that may cause a log line waits, and the owner asks for
    /// them.
    fn can_log(&mut self) -> bool {
        true
    }
    /// Receive a header, with CRLF inside where it was folded, without blanks before its colon. `in_head`: see
    /// `Inspection::reader`.
    fn header(&mut self, class: HeaderClass, in_head: bool, header: &[u8], answer: Answer);
    /// Receive the end that was given to `Reader::hold_head_end`.
    fn head_end(&mut self, end: End);
    /// Receive a line of a body, or a piece of one. `ends`: the line ends with it.
    fn line(&mut self, text: &[u8], ends: bool, answer: Answer);
    /// Receive a broken rule.
    fn fault(&mut self, fault: Fault, text: &[u8]);
    /// Note that too much would wait: parts are missing from now on, so the message must fail.
    fn too_much(&mut self);
}

/// The check lists of one message, and the parts that wait for answers.
#[derive(Debug)]
pub struct Inspection {
    lists: Arc<Lists>,
    body_limit: u64,
    held: Held,
}

impl Inspection {
    /// Return the inspection of a message. `body_limit`: octets of a body segment whose lines are looked up; 0: all.
    pub fn new(lists: Arc<Lists>, body_limit: u64) -> Self {
        Self { lists, body_limit, held: Held::default() }
    }

    /// Whether a part waits.
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// Take the next lookups.
    pub fn asks(&mut self) -> Vec<Lookup> {
        self.held.asks(&self.lists)
    }

    /// Receive an answer; `go_on` judges what it was for.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        self.held.answer(lookup, answer);
    }

    /// Count the lookups anew. Nothing may wait.
    pub fn restart(&mut self) {
        self.held = Held::default();
    }

    /// Judge the parts that wait, up to one without its answer.
    pub fn go_on(&mut self, judge: &mut impl Judge) {
        loop {
            let lists = match judge.course() {
                Course::Checked => Some(&*self.lists),
                Course::Unchecked => None,
                Course::Dropped => return self.held.clear(),
            };
            let Some((event, answer)) = self.held.pop(lists, || judge.can_log()) else { return };
            match event {
                Event::Header { class, in_head, text } => judge.header(class, in_head, &text, answer),
                Event::HeadEnd(end) => judge.head_end(end),
                Event::Line { text, ends } => judge.line(&text, ends, answer),
                Event::Fault(fault, text) => judge.fault(fault, &text),
            }
        }
    }

    /// Return the receiver of the structure's events. `in_head`: they are of the message's own headers, which the owner
    /// keeps apart from the rest; then a line is the end of the headers, and not looked up.
    pub fn reader<'a, J: Judge>(&'a mut self, judge: &'a mut J, in_head: bool) -> Reader<'a, J> {
        Reader { inspection: self, judge, in_head }
    }
}

/// Receives the structure's events.
#[derive(Debug)]
pub struct Reader<'a, J> {
    inspection: &'a mut Inspection,
    judge: &'a mut J,
    in_head: bool,
}

impl<J: Judge> Reader<'_, J> {
    /// Let the end of the message's headers wait behind a header that waits.
    pub fn hold_head_end(&mut self, end: End) {
        self.hold(Event::HeadEnd(end), Search::Done(Answer::NotFound));
    }

    /// Whether a part need not wait. `is_silent`: it causes no line in the log.
    fn is_next(&mut self, is_silent: bool) -> bool {
        !self.inspection.is_waiting() && (is_silent || self.judge.can_log())
    }

    /// Let a part wait behind the others.
    fn hold(&mut self, event: Event, search: Search) {
        let held = &mut self.inspection.held;
        if self.judge.course() != Course::Dropped && !held.push(event, search) {
            held.clear();
            self.judge.too_much();
        }
    }
}

impl<J: Judge> MimeEvents for Reader<'_, J> {
    fn header(&mut self, class: HeaderClass, _: Part, header: &[u8]) {
        let header = &*without_blanks_before_colon(header);
        let list = self.inspection.lists.of(class);
        let search = match list.tables.is_empty() || self.judge.course() != Course::Checked {
            true => Search::Done(Answer::NotFound),
            false => list.search(&with_lf(header)),
        };
        match search {
            Search::Done(answer) if self.is_next(answer == Answer::NotFound) => {
                self.judge.header(class, self.in_head, header, answer);
            }
            search => self.hold(Event::Header { class, in_head: self.in_head, text: header.into() }, search),
        }
    }

    fn head_end(&mut self, _: HeaderClass, _: Part, _: End) {}

    fn line(&mut self, _: Part, line: Line<'_>) {
        if self.in_head {
            return;
        }
        let limit = self.inspection.body_limit;
        let is_checked = (limit == 0 || line.offset < limit) && self.judge.course() == Course::Checked;
        let search = match is_checked {
            true => self.inspection.lists.body.search(line.text),
            false => Search::Done(Answer::NotFound),
        };
        match search {
            Search::Done(answer) if self.is_next(answer == Answer::NotFound) => {
                self.judge.line(line.text, line.ends, answer)
            }
            search => self.hold(Event::Line { text: line.text.into(), ends: line.ends }, search),
        }
    }

    fn fault(&mut self, fault: Fault, text: &[u8]) {
        if self.is_next(false) {
            self.judge.fault(fault, text);
        } else {
            self.hold(Event::Fault(fault, text.into()), Search::Done(Answer::NotFound));
        }
    }
}
