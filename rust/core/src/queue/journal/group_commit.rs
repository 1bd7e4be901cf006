//! Decides whether the next sync waits a moment for more messages (group commit).
//!
//! A sync costs the same for one message as for a hundred. Messages that arrive during a sync share the next one, which
//! is enough while several arrive each time. On a machine that is short of CPU they arrive one by one, a little later
//! than the sync takes: a wait of `GATHER_MAX` then collects several and saves most syncs. With a few clients that each
//! wait for their reply, the wait only costs time. So the journal tries it now and then, and goes on while it pays
//! (`commit_delay` of PostgreSQL is the same wait, set by hand).

use std::time::Duration;

/// Longest time a message waits to share a sync.
pub(crate) const GATHER_MAX: Duration = Duration::from_millis(1);
/// Number of messages that ends the wait.
pub(crate) const ENOUGH: usize = 16;
/// Number of messages in a sync at which a wait pays, and at which no wait is needed.
const PAYS: u32 = 4;
/// Number of syncs without a wait after a wait that did not pay, or while enough messages share a sync anyway.
const ALONE_SYNCS: u32 = 64;
/// Number of syncs with a wait, if it pays, before the next measurement without one.
const TOGETHER_SYNCS: u32 = 64;
/// Number of syncs in a measurement.
const MEASURED_SYNCS: u32 = 4;

/// The result of waiting so far.
#[derive(Debug)]
pub(crate) enum GroupCommit {
    /// Do not wait for the next `left` syncs, and count their messages.
    Alone { left: u32, syncs: u32, messages: u32 },
    /// Wait for the next `left` syncs.
    Together { left: u32 },
}

impl Default for GroupCommit {
    fn default() -> Self {
        Self::alone(MEASURED_SYNCS)
    }
}

impl GroupCommit {
    fn alone(left: u32) -> Self {
        Self::Alone { left, syncs: 0, messages: 0 }
    }

    /// Whether the next sync should wait.
    pub(crate) fn is_worth_waiting(&self) -> bool {
        matches!(self, Self::Together { .. })
    }

    /// Note that `sharing` messages shared a sync, which waited if that was worth it.
    pub(crate) fn came(&mut self, sharing: usize) {
        let sharing = sharing.min(ENOUGH) as u32;
        *self = match *self {
            Self::Alone { left, syncs, messages } if left > 1 => {
                Self::Alone { left: left - 1, syncs: syncs + 1, messages: messages + sharing }
            }
            Self::Alone { syncs, messages, .. } if messages + sharing >= PAYS * (syncs + 1) => Self::alone(ALONE_SYNCS),
            Self::Alone { .. } => Self::Together { left: TOGETHER_SYNCS },
            Self::Together { .. } if sharing < PAYS => Self::alone(ALONE_SYNCS),
            Self::Together { left } if left > 1 => Self::Together { left: left - 1 },
            Self::Together { .. } => Self::alone(MEASURED_SYNCS),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Return how many of 1,000 syncs wait, if a sync shares `alone` messages without a wait and `waited` with one.
    fn waits(alone: usize, waited: usize) -> usize {
        let mut group_commit = GroupCommit::default();
        let mut waits = 0;
        for _ in 0..1000 {
            let waiting = group_commit.is_worth_waiting();
            group_commit.came(if waiting { waited } else { alone });
            waits += usize::from(waiting);
        }
        waits
    }

    #[test]
    fn a_sync_waits_only_while_waiting_collects_messages() {
        assert!(waits(1, 6) > 900, "short of CPU");
        assert!(waits(1, 1) < 20, "one client");
        assert!(waits(1, 3) < 20, "three clients, each of which waits for its answer");
        assert!(waits(8, 8) < 20, "they come together by themselves");
    }

    #[test]
    fn a_change_of_load_is_noticed() {
        let mut group_commit = GroupCommit::default();
        (0..MEASURED_SYNCS).for_each(|_| group_commit.came(1));
        assert!(group_commit.is_worth_waiting(), "they come one by one");
        group_commit.came(3);
        assert!(!group_commit.is_worth_waiting(), "too few came this time");
        (0..ALONE_SYNCS).for_each(|_| group_commit.came(1));
        assert!(group_commit.is_worth_waiting(), "it is tried again");
        (0..TOGETHER_SYNCS).for_each(|_| group_commit.came(6));
        assert!(!group_commit.is_worth_waiting(), "what comes without?");
        (0..MEASURED_SYNCS).for_each(|_| group_commit.came(6));
        assert!(!group_commit.is_worth_waiting(), "enough");
    }
}
