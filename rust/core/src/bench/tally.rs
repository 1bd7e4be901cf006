//! What a run has counted so far.

use super::histogram::Histogram;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The connection and the server's 220.
    Greeting,
    /// The reply to EHLO.
    Ehlo,
    /// The reply to MAIL.
    Mail,
    /// The reply to RCPT.
    Rcpt,
    /// The reply to DATA.
    Data,
    /// The reply to the final dot: the server's promise.
    Dot,
    /// The reply to RSET.
    Rset,
    /// The reply to QUIT.
    Quit,
}

impl Stage {
    /// All of them, in the order of a dialogue.
    pub const ALL: [Self; 8] =
        [Self::Greeting, Self::Ehlo, Self::Mail, Self::Rcpt, Self::Data, Self::Dot, Self::Rset, Self::Quit];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Dot => "end of data",
            Self::Rset => "RSET",
            Self::Quit => "QUIT",
        }
    }
}

/// Different complaints that are kept.
const COMPLAINTS_MAX: usize = 10;

/// Counts of a run.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Connections that stood.
    pub connections: u64,
    /// Connections that could not be made, or broke.
    pub broken: u64,
    /// Messages that the server has promised to deliver (a source), or that the sink took.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Their octets.
    pub octets: u64,
    /// Messages that were refused, wholly.
    pub refused: u64,
    /// Replies of 400 and above.
    pub refusals: u64,
    /// Messages whose connection broke before the reply to the final dot.
    pub unanswered: u64,
    /// Messages that came a second time.
    pub duplicates: u64,
    /// Some of the complaints, each once.
    pub complaints: Vec<String>,
    /// How long replies took, by `Stage`.
    pub replies: [Histogram; 8],
    /// How long accepted messages took to the reply to the final dot, from when they were to begin: by the clock, where
    /// there is a rate; else a client began to connect, or with MAIL. What waits for a client that is free has begun.
    pub message: Histogram,
    /// How long messages took from their first octet sent to the sink's taking them.
    pub delivery: Histogram,
}

impl Counts {
    /// Something went wrong.
    pub fn complain(&mut self, text: &str) {
        if self.complaints.len() < COMPLAINTS_MAX && !self.complaints.iter().any(|known| known == text) {
            self.complaints.push(text.into());
        }
    }
}

/// Counts that a run adds to while others look on.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<Counts>,
}

impl Tally {
    /// The counts; hold them briefly.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
