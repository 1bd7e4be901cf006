//! Flow control: whether mail arrives faster than it becomes active.
//!
//! Postfix hands out tokens. Here producers get a frame when fresh mail waits beyond the active queue, and another
//! one when none waits. In between, each of their messages waits for `in_flow_delay` (postconf(5)).

/// Number of waiting fresh messages above which new ones are delayed: Postfix's default number of tokens.
pub const BEHIND_MESSAGES: usize = 100;

/// Whether the queue manager is behind.
#[derive(Debug, Default)]
pub struct Flow {
    behind: bool,
}

impl Flow {
    /// Return whether the queue manager is behind.
    pub fn behind(&self) -> bool {
        self.behind
    }

    /// Note the number of waiting fresh messages. Return the new state if it changed: behind above `BEHIND_MESSAGES`,
    /// caught up at none, so that producers do not hear of every message.
    pub fn judge(&mut self, waiting: usize) -> Option<bool> {
        let behind = if self.behind { waiting > 0 } else { waiting > BEHIND_MESSAGES };
        (behind != std::mem::replace(&mut self.behind, behind)).then_some(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_control_begins_above_the_bound_and_ends_at_none() {
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
