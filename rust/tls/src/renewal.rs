//! The files of a context, and when they are read again.

use crate::files::{Files, Stamp};
use crate::identity::Problem;
use std::time::{Duration, Instant};

/// Pause between two attempts to read files that only root may read. Further changes of them may be invisible.
const CLOSED_AGAIN: Duration = Duration::from_secs(60);

/// Why changed files are not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// They cannot be used.
    Problem(Problem),
    /// This process has not the right to read them: a new one may.
    Closed,
}

/// The files of a context, as they were when they were read.
#[derive(Debug)]
pub struct Followed {
    files: Files,
    /// At the last reading, also at one that failed.
    read: Stamp,
    /// At the last check.
    seen: Stamp,
    /// The time of another attempt, although nothing has changed.
    again: Option<Instant>,
}

impl Followed {
    /// Return the files that were read. `stamp`: theirs before.
    pub fn new(files: Files, stamp: Stamp) -> Self {
        Self { files, seen: stamp.clone(), read: stamp, again: None }
    }

    /// Check the files. Return whether they are to be read: they have changed, and not since the last check. A file that
    /// changes still may be half-written.
    pub fn has_changed(&mut self) -> bool {
        let stamp = self.files.stamp();
        let is_quiet = stamp.is_same(&self.seen);
        let has_changed = !stamp.is_same(&self.read) || self.again.is_some_and(|time| time <= Instant::now());
        self.seen = stamp;
        is_quiet && has_changed
    }

    /// Note that the files cannot be used. They are not read again until they change.
    pub fn refused(&mut self, problem: Problem) -> Refusal {
        self.read = self.seen.clone();
        let is_closed = self.files.are_closed();
        self.again = is_closed.then(|| Instant::now() + CLOSED_AGAIN);
        if is_closed { Refusal::Closed } else { Refusal::Problem(problem) }
    }
}
