//! The commands for a server: planned, sent, awaited. Each reply answers the oldest command without one.
//!
//! With PIPELINING (RFC 2920), commands are sent up to the limits, so that neither side waits for the other with full
//! buffers. Without it, one command is sent at a time.

use super::expect::Expect;
use super::transaction::BadAddress;
use std::collections::VecDeque;

/// Maximum octets of commands in one write.
pub const PIPELINE_MAX_OCTETS: usize = 64 * 1024;
/// Maximum number of commands that await a reply.
pub const PIPELINE_MAX_COMMANDS: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// The commands of a transaction, and the number of octets that are sent.
    commands: Vec<u8>,
    sent: usize,
    /// The commands that are not sent, with the end of each in `commands`.
    planned: VecDeque<(Expect, usize)>,
    awaited: VecDeque<Expect>,
}

impl Pipeline {
    /// Start to plan another transaction. Awaited replies stay awaited.
    pub(super) fn begin(&mut self) {
        self.commands.clear();
        self.sent = 0;
        self.planned.clear();
    }

    /// Plan a command that `write` appends. After an error of `write`, the command is not planned.
    pub(super) fn plan(
        &mut self,
        expect: Expect,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), BadAddress>,
    ) -> Result<(), BadAddress> {
        write(&mut self.commands)?;
        self.planned.push_back((expect, self.commands.len()));
        Ok(())
    }

    /// Plan a command.
    pub(super) fn plan_line(&mut self, expect: Expect, line: &[u8]) {
        self.commands.extend_from_slice(line);
        self.planned.push_back((expect, self.commands.len()));
    }

    /// Drop the planned commands.
    pub(super) fn forget_planned(&mut self) {
        self.planned.clear();
    }

    /// Append the next commands to `output`: one, or with `pipelining` all within the limits.
    pub(super) fn send(&mut self, pipelining: bool, output: &mut Vec<u8>) {
        let mut end = self.sent;
        while let Some((expect, at)) = self.planned.front().copied() {
            let room = if pipelining {
                self.awaited.len() < PIPELINE_MAX_COMMANDS
                    && (at - self.sent <= PIPELINE_MAX_OCTETS || self.awaited.is_empty())
            } else {
                self.awaited.is_empty()
            };
            if !room {
                break;
            }
            self.planned.pop_front();
            self.awaited.push_back(expect);
            end = at;
        }
        output.extend_from_slice(&self.commands[self.sent..end]);
        self.sent = end;
    }

    /// Await one more reply after all others: to a command that was sent, or the greeting.
    pub(super) fn expect(&mut self, expect: Expect) {
        self.awaited.push_back(expect);
    }

    /// Return the command that a reply answers; `None` if no reply is awaited.
    pub(super) fn answered(&mut self) -> Option<Expect> {
        self.awaited.pop_front()
    }

    /// Return the command that the next reply answers.
    pub(super) fn next(&self) -> Option<Expect> {
        self.awaited.front().copied()
    }

    /// Return the command that the last awaited reply answers.
    pub(super) fn last(&self) -> Option<Expect> {
        self.awaited.back().copied()
    }

    /// Return the number of awaited replies.
    pub(super) fn awaited(&self) -> usize {
        self.awaited.len()
    }

    /// Return whether the server may still accept a recipient of the transaction.
    pub(super) fn awaits_recipients(&self) -> bool {
        let is_rcpt = |expect: &Expect| matches!(expect, Expect::Rcpt(_) | Expect::Mail | Expect::Rset);
        self.awaited.iter().any(is_rcpt) || self.planned.iter().any(|(expect, _)| is_rcpt(expect))
    }

    /// Return the recipients without a reply, sent or not; `at_end`: to the end of the message only.
    pub(super) fn recipients(&self, at_end: bool) -> Vec<usize> {
        let position = |expect: &Expect| match expect {
            // Commands after the end of a message belong to the next one.
            Expect::Rcpt(position) if !at_end => Some(*position),
            Expect::DotFor(position) => Some(*position),
            _ => None,
        };
        let planned = self.planned.iter().map(|(expect, _)| expect);
        self.awaited.iter().chain(planned).filter_map(position).collect()
    }

    /// Drop all commands.
    pub(super) fn clear(&mut self) {
        self.planned.clear();
        self.awaited.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(commands: usize, octets: usize) -> Pipeline {
        let mut pipeline = Pipeline::default();
        pipeline.begin();
        (0..commands).for_each(|n| pipeline.plan_line(Expect::Rcpt(n), &vec![b'x'; octets]));
        pipeline
    }

    fn sent(pipeline: &mut Pipeline, pipelining: bool) -> usize {
        let mut output = Vec::new();
        pipeline.send(pipelining, &mut output);
        output.len()
    }

    #[test]
    fn one_at_a_time_without_pipelining() {
        let mut pipeline = of(3, 10);
        for n in 0..3 {
            assert_eq!((sent(&mut pipeline, false), sent(&mut pipeline, false)), (10, 0));
            assert_eq!(pipeline.answered(), Some(Expect::Rcpt(n)));
        }
        assert_eq!((sent(&mut pipeline, false), pipeline.answered()), (0, None));
    }

    #[test]
    fn sent_octets_and_commands_are_bounded() {
        for (commands, octets, most) in [(3000, 10, PIPELINE_MAX_COMMANDS), (300, 1000, PIPELINE_MAX_OCTETS / 1000)] {
            let mut pipeline = of(commands, octets);
            let mut answered = 0;
            while answered < commands {
                assert_eq!(sent(&mut pipeline, true) % octets, 0, "whole commands");
                assert!(pipeline.awaited() <= most.max(PIPELINE_MAX_COMMANDS));
                assert_eq!(pipeline.answered(), Some(Expect::Rcpt(answered)));
                answered += 1;
            }
            assert_eq!((sent(&mut of(commands, octets), true), pipeline.awaited()), (most * octets, 0));
        }
        assert_eq!(sent(&mut of(2, PIPELINE_MAX_OCTETS + 1), true), PIPELINE_MAX_OCTETS + 1, "one is always sent");
    }

    #[test]
    fn a_command_with_an_error_is_not_planned() {
        let mut pipeline = of(1, 10);
        assert_eq!(pipeline.plan(Expect::Rcpt(1), |_| Err(BadAddress)), Err(BadAddress));
        assert_eq!(pipeline.recipients(false), [0]);
        assert_eq!(pipeline.recipients(true), []);
        assert!(pipeline.awaits_recipients());
        pipeline.forget_planned();
        assert!(!pipeline.awaits_recipients());
    }
}
