//! A message's content on its way to the owner, and lines that end in LF alone.

use super::config::BareNewline;
use super::data::Run;
use super::{ContentFault, EndOfData, Ending, Event, Mode, Pending, Position, Server, Step};
use crate::log::Severity;
use crate::mail::reply::Reply;

impl Server {
    pub(super) fn read_data(&mut self, content: &mut impl FnMut(&[u8])) -> Step {
        let limit = self.config.dialect.message_size_limit;
        let Mode::Data(reader) = &mut self.mode else { return Step::Again };
        loop {
            let (used, run) = reader.feed(&self.input[self.start..]);
            self.start += used;
            self.content_octets += used as u64;
            let is_refused = (limit > 0 && self.content_octets > limit)
                || (self.bare_newline == BareNewline::Reject && reader.bare_newlines() > 0);
            match run {
                // Keep reading after a fault: stopping early would let the rest be read as commands.
                Run::Content(_) if is_refused => {}
                Run::Content(bytes) => content(bytes),
                Run::More => {
                    self.scanned = self.start;
                    return Step::NeedInput;
                }
                Run::End => break,
            }
        }
        let bare_newlines = reader.bare_newlines();
        let fault = if bare_newlines > 0 && self.bare_newline == BareNewline::Reject {
            Some(ContentFault::BareNewline)
        } else if limit > 0 && self.content_octets > limit {
            Some(ContentFault::TooLarge)
        } else {
            None
        };
        if bare_newlines > 0 && self.bare_newline == BareNewline::Note {
            self.note_bare_newline();
        }
        self.scanned = self.start;
        self.place = Position::EndOfMessage;
        self.mode = Mode::Waiting(Pending::EndOfData);
        Step::Event(Event::EndOfData(EndOfData { octets: self.content_octets, chunked: false, fault }))
    }

    /// Handle a line that ends in LF alone: note it, or refuse it if the site says so, which ends the session.
    pub(super) fn is_bare_newline_refused(&mut self) -> bool {
        match self.bare_newline {
            BareNewline::No | BareNewline::Normalize => false,
            BareNewline::Note => {
                self.note_bare_newline();
                false
            }
            BareNewline::Reject => {
                let reply = self.bare_newline_reply();
                let (place, sender) = (self.place(), self.sender().map(str::to_owned));
                self.log_reject(&place, &reply, sender.as_deref(), None);
                self.put(&reply);
                // The rest may be meant for a server that splits lines differently.
                self.close(Ending::Orderly);
                true
            }
        }
    }

    pub(super) fn note_bare_newline(&mut self) {
        if !std::mem::replace(&mut self.bare_newline_seen, true) {
            let line = format!("bare <LF> received after {} from {}", self.place(), self.peer);
            self.log.push_back((Severity::Info, line));
        }
    }

    /// Return the reply to LF without CR.
    pub fn bare_newline_reply(&self) -> Reply {
        let text = format!("{} Error: bare <LF> received", self.config.myhostname);
        Reply::new(self.config.bare_newline_reject_code, [5, 2], text)
    }
}
