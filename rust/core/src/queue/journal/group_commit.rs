//! Whether the next sync should wait a moment for company.
//!
//! A sync costs the same for one message as for a hundred. Messages that come while one runs share the next, and when
//! there are several of them each time that is enough. On a machine that is short of CPU they come one by one, a little
//! later than the sync takes: then a wait of `GATHER_MAX` brings several, and spares most syncs. Where it does not, as
//! with a few clients that each wait for their answer, it only costs time. So it is tried, now and then, and kept up
//! for as long as it pays (`commit_delay` of PostgreSQL is the same wait, by hand).

use std::time::Duration;

/// A message waits at most so long for others.
pub(crate) const GATHER_MAX: Duration = Duration::from_millis(1);
/// So many together are enough: nobody waits for more.
pub(crate) const ENOUGH: usize = 16;
/// A wait pays if so many messages share the sync; one that so many share by themselves needs none.
const PAYS: u32 = 4;
/// Syncs that wait for nobody after a wait that did not pay, or while there is enough company without.
const ALONE_SYNCS: u32 = 64;
/// Syncs that wait, if it pays, before it is looked at what comes without.
const TOGETHER_SYNCS: u32 = 64;
/// Syncs of that look.
const LOOK_SYNCS: u32 = 4;

/// What waiting has brought.
#[derive(Debug)]
pub(crate) enum GroupCommit {
    /// Wait for nobody for so many syncs, and count what comes.
    Alone { left: u32, syncs: u32, messages: u32 },
    /// Wait, for so many syncs.
    Together { left: u32 },
}

impl Default for GroupCommit {
    fn default() -> Self {
        Self::alone(LOOK_SYNCS)
    }
}

impl GroupCommit {
    fn alone(left: u32) -> Self {
        Self::Alone { left, syncs: 0, messages: 0 }
    }

    /// Should the sync that is due wait?
    pub(crate) fn is_worth_waiting(&self) -> bool {
        matches!(self, Self::Together { .. })
    }

    /// So many messages shared a sync, which has waited if it was worth it.
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
            Self::Together { .. } => Self::alone(LOOK_SYNCS),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many of 1,000 syncs wait, if a sync brings `alone` messages, and one that has waited `waited`.
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
    fn it_is_waited_for_those_who_come_and_for_nobody_else() {
        assert!(waits(1, 6) > 900, "short of CPU");
        assert!(waits(1, 1) < 20, "one client");
        assert!(waits(1, 3) < 20, "three clients, each of which waits for its answer");
        assert!(waits(8, 8) < 20, "they come together by themselves");
    }

    #[test]
    fn what_changes_is_noticed() {
        let mut group_commit = GroupCommit::default();
        (0..LOOK_SYNCS).for_each(|_| group_commit.came(1));
        assert!(group_commit.is_worth_waiting(), "they come one by one");
        group_commit.came(3);
        assert!(!group_commit.is_worth_waiting(), "too few came this time");
        (0..ALONE_SYNCS).for_each(|_| group_commit.came(1));
        assert!(group_commit.is_worth_waiting(), "it is tried again");
        (0..TOGETHER_SYNCS).for_each(|_| group_commit.came(6));
        assert!(!group_commit.is_worth_waiting(), "what comes without?");
        (0..LOOK_SYNCS).for_each(|_| group_commit.came(6));
        assert!(!group_commit.is_worth_waiting(), "enough");
    }
}
