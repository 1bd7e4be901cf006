//! The actions of header_checks(5) about a line.

use super::{CleanupSettings, Decisions, Names, Refusal};
use crate::action::{Section, Verb};
use crate::ask::Answer;
use crate::inspection::lists::List;
use crate::log::{Log, Severity};
use crate::mail::reply::{Enhanced, Reply};
use std::sync::Arc;

/// Octets of a line in a log line.
const SHOWN_OCTETS: usize = 200;
/// Maximum number of recipients that BCC adds to a message. Postfix has no limit; more than that is an error of the table.
pub const BCC_MAX: usize = 1000;

/// Applies actions.
#[derive(Debug)]
pub(super) struct Actions {
    pub settings: Arc<CleanupSettings>,
    pub log: Arc<Log>,
    pub id: String,
    pub names: Names,
    /// ` proto=... helo=<>`
    pub protocol: String,
    /// Lines are still checked.
    pub on: bool,
    pub decisions: Decisions,
}

/// The text to write for a line.
pub(super) enum Written {
    Same,
    Other(Vec<u8>),
    Nothing,
}

/// The judgement about a line.
pub(super) struct Judgement {
    /// A line to write before it.
    pub before: Option<Vec<u8>>,
    pub written: Written,
    pub refusal: Option<Refusal>,
}

impl Actions {
    pub fn warn(&self, text: &str) {
        self.log.line_as("cleanup", Severity::Warning, format_args!("{text}"));
    }

    fn note(&self, word: &str, place: Section, line: &[u8], text: &[u8]) {
        let (Self { id, names, protocol, .. }, place) = (self, place.word());
        let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN_OCTETS)]);
        let colon = if text.is_empty() { "" } else { ": " };
        let text = String::from_utf8_lossy(text);
        self.log.line_as(
            "cleanup",
            Severity::Info,
            format_args!("{id}: {word}: {place} {shown}{names}{protocol}{colon}{text}"),
        );
    }

    /// Judge a line: apply the action in the answer of its list.
    pub fn judge(&mut self, list: &List, place: Section, line: &[u8], answer: Answer) -> Judgement {
        let mut judgement = Judgement { before: None, written: Written::Same, refusal: None };
        let value = match answer {
            Answer::NotFound => return judgement,
            Answer::Found(value) => value,
            Answer::Failed(why) => {
                let (id, parameter) = (&self.id, &list.parameter);
                self.warn(&why);
                self.warn(&format!("{id}: {parameter} map lookup problem -- message not accepted, try again later"));
                judgement.refusal = Some(Refusal::LookupFailed);
                return judgement;
            }
        };
        let action = match list.action(&value, place) {
            Ok(action) => action,
            Err(warning) => {
                self.warn(&warning);
                return judgement;
            }
        };
        let silent = match action.verb {
            Verb::Dunno | Verb::Ignore | Verb::Reject => true,
            Verb::Hold => self.decisions.hold,
            _ => false,
        };
        if !silent {
            self.note(action.verb.word(), place, line, action.text);
        }
        let text = || String::from_utf8_lossy(action.text).into_owned().into_boxed_str();
        match action.verb {
            Verb::Dunno | Verb::Info | Verb::Warn => {}
            Verb::Ignore | Verb::Strip => judgement.written = Written::Nothing,
            Verb::Replace => judgement.written = Written::Other(action.text.into()),
            Verb::Prepend => judgement.before = Some(action.text.into()),
            Verb::Pass => self.on = false,
            Verb::Hold => self.decisions.hold = true,
            Verb::Discard => (self.decisions.discard, self.on) = (true, false),
            Verb::Redirect => (self.decisions.redirect, self.on) = (Some(text()), false),
            Verb::Bcc => {
                let copies = &mut self.decisions.copies;
                if !copies.contains(&text()) {
                    if copies.len() < BCC_MAX {
                        copies.push(text());
                    } else {
                        self.warn(&format!("{}: more than {BCC_MAX} BCC addresses in {}", self.id, list.parameter));
                        judgement.refusal = Some(Refusal::CheckLimit);
                    }
                }
            }
            Verb::Filter => {
                // Without the filter, the message would go on unfiltered.
                let why = "FILTER is not supported yet -- message not accepted, try again later";
                self.warn(&format!("{}: {}: {why}", self.id, list.parameter));
                let reply = Reply::new(451, [3, 5], "Server configuration error");
                judgement.refusal = Some(Refusal::Rejected(Box::new(reply)));
            }
            Verb::Reject => {
                let reply = self.rejection(action.text);
                let enhanced = reply.enhanced.map(|enhanced| format!("{enhanced} ")).unwrap_or_default();
                self.note("reject", place, line, format!("{enhanced}{}", reply.text).as_bytes());
                judgement.refusal = Some(Refusal::Rejected(Box::new(reply)));
            }
        }
        judgement
    }

    /// Return the reply for the text of REJECT.
    fn rejection(&self, text: &[u8]) -> Reply {
        let text = String::from_utf8_lossy(text).replace(['\r', '\n'], " ");
        match Enhanced::split(&text) {
            _ if text.is_empty() => Reply::new(550, [7, 1], "message content rejected"),
            None => Reply::new(550, [7, 1], text),
            Some((Enhanced { class, subject, detail }, rest)) => {
                if !matches!(class, 4 | 5) {
                    self.warn(&format!("bad DSN action in {text} -- need 4.x.x or 5.x.x"));
                }
                Reply::new(if class == 5 { 550 } else { 451 }, [subject, detail], rest.trim_start())
            }
        }
    }
}
