//! A message on its way to a server: smtp_header_checks and related parameters, smtp_generic_maps, and quoted-printable
//! for a server without 8BITMIME.
//!
//! Pieces in wire form go in and come out. Most messages need none of these, and never come here. The checks see the
//! converted message, and the maps see the checked one, as in Postfix. A piece whose lines or addresses are in remote
//! tables waits for their answers. One piece, one header and one line are in memory.

mod checked;

use crate::address::generic::{Generic, Outcome};
use crate::ask::{Answer, Lookup};
use crate::inquiry::Inquiry;
use crate::inspection::lists::Lists;
use crate::log::Log;
use crate::mail::mime::{Fault, MimeRules, WireMime};
use crate::mail::quoted_printable::Downgrade;
use checked::Checked;
use std::sync::Arc;
use std::task::Poll;

/// Why a message cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsendable {
    /// Its structure breaks a limit.
    Mime(Fault),
    /// A table cannot answer.
    Lookup,
}

/// Converts one message.
#[derive(Debug)]
pub struct Outgoing {
    mime: WireMime,
    output: Output,
    generic: Option<Arc<Generic>>,
    /// Maps the addresses of the last piece.
    inquiry: Option<Inquiry<Outcome<Vec<u8>>>>,
    /// The piece in progress, which waits for answers: whether it is the last one.
    waiting: Option<bool>,
    asks_for_lines: bool,
}

#[derive(Debug)]
enum Output {
    Plain(Checked),
    Converted(Downgrade<Checked>),
}

impl Output {
    fn checked(&mut self) -> &mut Checked {
        match self {
            Self::Plain(checked) => checked,
            Self::Converted(downgrade) => &mut downgrade.next,
        }
    }
}

impl Outgoing {
    /// Return a converter at the start of a message. `converts`: to quoted-printable.
    pub fn new(
        rules: MimeRules,
        lists: Arc<Lists>,
        generic: Option<Arc<Generic>>,
        converts: bool,
        queue_id: &str,
    ) -> Self {
        let asks_for_lines = lists.ask();
        let checked = Checked::new(lists, queue_id, generic.is_some(), converts);
        let output = if converts { Output::Converted(Downgrade::new(checked)) } else { Output::Plain(checked) };
        Self { mime: WireMime::new(rules.outgoing()), output, generic, inquiry: None, waiting: None, asks_for_lines }
    }

    /// Whether lines are looked up in remote tables: then give small pieces.
    pub fn asks_for_lines(&self) -> bool {
        self.asks_for_lines
    }

    /// Convert the next piece; `last`: the message ends with it. Lines of the checks go to `log`. `Pending`: `asks` has
    /// lookups, and `poll` returns the piece. Errors: the message must not be sent.
    pub fn feed(&mut self, piece: &[u8], last: bool, log: &Log) -> Poll<Result<Vec<u8>, Unsendable>> {
        self.output.checked().begin_piece();
        match &mut self.output {
            Output::Plain(checked) => self.mime.feed(piece, checked),
            Output::Converted(downgrade) => self.mime.feed(piece, downgrade),
        }
        if last {
            match &mut self.output {
                Output::Plain(checked) => self.mime.finish(checked),
                Output::Converted(downgrade) => {
                    self.mime.finish(downgrade);
                    downgrade.finish();
                }
            }
        }
        self.waiting = Some(last);
        self.poll(log)
    }

    /// Return whether a piece waits for answers.
    pub fn is_asking(&self) -> bool {
        self.waiting.is_some()
    }

    /// Return the piece that waits for answers, once they are there; see `feed`.
    pub fn poll(&mut self, log: &Log) -> Poll<Result<Vec<u8>, Unsendable>> {
        let polled = match self.waiting {
            Some(last) => self.advance(last, log),
            None => Poll::Ready(Ok(Vec::new())),
        };
        if polled.is_ready() {
            (self.waiting, self.inquiry) = (None, None);
        }
        polled
    }

    fn advance(&mut self, last: bool, log: &Log) -> Poll<Result<Vec<u8>, Unsendable>> {
        if self.inquiry.is_none() {
            let Poll::Ready(checked) = self.output.checked().poll(last, log) else { return Poll::Pending };
            let (wire, lists) = match checked {
                Ok(checked) => checked,
                Err(unsendable) => return Poll::Ready(Err(unsendable)),
            };
            let generic = match &self.generic {
                Some(generic) if !lists.is_empty() => Arc::clone(generic),
                _ => return Poll::Ready(Ok(wire)),
            };
            self.inquiry = Some(Inquiry::new(|asker| generic.map_lists(asker, wire, lists)));
        }
        let Some(inquiry) = &mut self.inquiry else { return Poll::Pending };
        inquiry.poll().map(|(mapped, warnings)| {
            warnings.iter().for_each(|warning| log.warning(format_args!("{warning}")));
            mapped.map_err(|_| Unsendable::Lookup)
        })
    }

    /// Take the next lookups; see `Inquiry::asks`.
    pub fn asks(&mut self) -> Vec<Lookup> {
        match &mut self.inquiry {
            Some(inquiry) => inquiry.asks(),
            None => self.output.checked().asks(),
        }
    }

    /// Receive an answer.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        match &mut self.inquiry {
            Some(inquiry) => inquiry.answer(lookup, answer),
            None => self.output.checked().answer(lookup, answer),
        }
    }
}

#[cfg(test)]
mod tests;
