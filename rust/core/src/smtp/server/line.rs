//! Command lines in the input, and lines that are too long.

use super::{Ending, Event, Mode, Server, Step};
use crate::log::Severity;
use crate::mail::reply::Reply;
use memchr::memchr;

/// Maximum number of octets of an overlong line in the log.
const LONG_LINE_LOG_OCTETS: usize = 30;
/// Maximum number of octets of a line end.
const LINE_END_MAX_OCTETS: usize = 2;

impl Server {
    pub(super) fn next_command(&mut self) -> Step {
        if self.errors >= self.config.hard_error_limit {
            let text = format!("{} Error: too many errors", self.config.myhostname);
            self.put(&Reply::new(421, [7, 0], text));
            self.close(Ending::TooManyErrors);
            return Step::Again;
        }
        let from = self.scanned.max(self.start);
        let limit = self.config.line_length_limit;
        let Some(found) = memchr(b'\n', &self.input[from..]) else {
            self.scanned = self.input.len();
            if self.unread() > limit + LINE_END_MAX_OCTETS {
                self.log_long_line();
                self.forget_input();
                self.mode = Mode::SkippingLine;
                return Step::Again;
            }
            return Step::NeedInput;
        };
        let newline = from + found;
        let bare = newline == self.start || self.input[newline - 1] != b'\r';
        let mut end = newline;
        // Any number of CRs belongs to the line end, as in Postfix.
        while end > self.start && self.input[end - 1] == b'\r' {
            end -= 1;
        }
        let range = self.start..end;
        // The CRs count too. Otherwise the result for many CRs would depend on how the input was split.
        if range.len() > limit || newline - self.start > limit + LINE_END_MAX_OCTETS {
            self.log_long_line();
            self.start = newline + 1;
            self.refuse_line("Error: line too long");
            return Step::Again;
        }
        self.start = newline + 1;
        if let Some(reply) = self.last_reply.take() {
            self.put(&reply);
            self.close(Ending::Orderly);
            return Step::Again;
        }
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        match std::str::from_utf8(&self.input[range]) {
            Ok(text) if text.contains('\0') => self.refuse_line("Error: bad syntax"),
            Ok(text) => {
                line.push_str(text);
                if !(bare && self.is_bare_newline_refused()) {
                    self.command(&line);
                }
            }
            Err(_) => self.refuse_line("Error: bad UTF-8 syntax"),
        }
        self.line = line;
        match self.mode {
            Mode::Waiting(ref pending) => Step::Event(Event::Ask(pending.question())),
            _ => Step::Again,
        }
    }

    pub(super) fn skip_line(&mut self) -> Step {
        if let Some(newline) = memchr(b'\n', &self.input[self.start..]) {
            self.start += newline + 1;
            self.mode = Mode::Command;
            self.refuse_line("Error: line too long");
            return Step::Again;
        }
        self.forget_input();
        Step::NeedInput
    }

    pub(super) fn forget_input(&mut self) {
        self.input.clear();
        self.start = 0;
        self.scanned = 0;
    }

    pub(super) fn refuse_line(&mut self, text: &str) {
        self.put(&Reply::new(500, [5, 2], text));
        self.errors += 1;
    }

    fn log_long_line(&mut self) {
        let end = self.input.len().min(self.start + LONG_LINE_LOG_OCTETS);
        let start = String::from_utf8_lossy(&self.input[self.start..end]).into_owned();
        let limit = self.config.line_length_limit;
        let line = format!("{}: request longer than {limit}: {start}...", self.peer);
        self.log.push_back((Severity::Warning, line));
    }
}
