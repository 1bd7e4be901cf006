//! The counts of a run.

use super::histogram::Histogram;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The reply that a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The connection and the server's 220.
    Greeting,
    /// The reply to EHLO.
    Ehlo,
    /// The reply to STARTTLS.
    Starttls,
    /// The end of a TLS handshake.
    Handshake,
    /// The reply to MAIL.
    Mail,
    /// The reply to RCPT.
    Rcpt,
    /// The reply to DATA.
    Data,
    /// The reply to the final dot.
    Dot,
    /// The reply to RSET.
    Rset,
    /// The reply to QUIT.
    Quit,
}

impl Stage {
    /// All stages, in the order of a dialogue.
    pub const ALL: [Self; STAGES] = [
        Self::Greeting,
        Self::Ehlo,
        Self::Starttls,
        Self::Handshake,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Dot,
        Self::Rset,
        Self::Quit,
    ];

    /// Return the name of a stage.
    pub fn name(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::Starttls => "STARTTLS",
            Self::Handshake => "TLS handshake",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Dot => "end of data",
            Self::Rset => "RSET",
            Self::Quit => "QUIT",
        }
    }
}

/// Number of stages.
const STAGES: usize = 10;
/// Maximum number of different complaints.
const COMPLAINTS_MAX: usize = 10;

/// Counts of a run.
#[derive(Debug, Clone, Default)]
pub struct RunCounts {
    /// Established connections.
    pub connections: u64,
    /// Failed and broken connections.
    pub broken: u64,
    /// Messages that the server accepted (a source), or that the sink accepted.
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
    /// Second copies of messages.
    pub duplicates: u64,
    /// TLS handshakes that were completed.
    pub handshakes: u64,
    /// Those that resumed a TLS session.
    pub resumed: u64,
    /// Handshakes of the wrong kind: full ones where the run wants resumed ones, or the reverse.
    pub mismatched: u64,
    /// Some of the complaints, each once.
    pub complaints: Vec<String>,
    /// Times of replies, by `Stage`.
    pub replies: [Histogram; STAGES],
    /// Times of accepted messages until the reply to the final dot. A message begins by the clock of a rate, else
    /// with the connection or with MAIL; a wait for a free client counts.
    pub message: Histogram,
    /// Times of messages from the first octet sent until the sink accepts them.
    pub delivery: Histogram,
}

impl RunCounts {
    /// Note an error.
    pub fn complain(&mut self, text: &str) {
        if self.complaints.len() < COMPLAINTS_MAX && !self.complaints.iter().any(|known| known == text) {
            self.complaints.push(text.into());
        }
    }
}

/// Counts that a run changes while others read them.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<RunCounts>,
}

impl Tally {
    /// Lock and return the counts; hold the lock briefly.
    pub fn counts(&self) -> MutexGuard<'_, RunCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
