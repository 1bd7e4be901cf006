//! Flow control where mail is taken in: whether it comes faster than there is room for it under delivery.
//!
//! Postfix hands out tokens; here those who accept mail are told when fresh mail waits beyond the room in the active
//! queue, and when none does any more. In between, each of their messages waits for `in_flow_delay` (postconf(5)).

/// So many fresh messages may wait for room before new ones are delayed: as many as Postfix has tokens by default.
pub const BEHIND_MESSAGES: usize = 100;

/// Whether the queue manager is behind.
#[derive(Debug, Default)]
pub struct Flow {
    behind: bool,
}

impl Flow {
    /// Is it behind?
    pub fn behind(&self) -> bool {
        self.behind
    }

    /// So many fresh messages wait for room. Says what has changed, if anything has: it falls behind above
    /// `BEHIND_MESSAGES`, and has caught up when none waits, so that nobody is told with every message.
    pub fn judge(&mut self, waiting: usize) -> Option<bool> {
        let behind = if self.behind { waiting > 0 } else { waiting > BEHIND_MESSAGES };
        (behind != std::mem::replace(&mut self.behind, behind)).then_some(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_behind_above_the_bound_and_catches_up_at_none() {
        let mut flow = Flow::default();
        let steps = [
            (0, None),
            (BEHIND_MESSAGES, None),
            (BEHIND_MESSAGES + 1, Some(true)),
            (BEHIND_MESSAGES + 500, None),
            (BEHIND_MESSAGES, None),
            (1, None),
            (0, Some(false)),
            (1, None),
        ];
        for (waiting, said) in steps {
            assert_eq!(flow.judge(waiting), said, "{waiting} wait");
        }
        assert!(!flow.behind());
    }
}
