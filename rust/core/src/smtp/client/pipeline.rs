//! Commands on their way to a server: planned, sent, awaited. Each reply answers the oldest one that has none.
//!
//! Where PIPELINING is offered (RFC 2920) as many go at once as the limits allow, so that neither side waits for the other
//! with full buffers; elsewhere one at a time.

use super::expect::Expect;
use super::transaction::BadAddress;
use std::collections::VecDeque;

/// How many octets of commands are sent before their replies are waited for.
pub const PIPELINE_MAX_OCTETS: usize = 64 * 1024;
/// How many commands may wait for their replies.
pub const PIPELINE_MAX_COMMANDS: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// The commands of a transaction, and how many octets of them are sent.
    commands: Vec<u8>,
    sent: usize,
    /// Those that are not sent, and where each ends.
    planned: VecDeque<(Expect, usize)>,
    awaited: VecDeque<Expect>,
}

impl Pipeline {
    /// The commands of another transaction are going to be planned. What is awaited is so still.
    pub(super) fn begin(&mut self) {
        self.commands.clear();
        self.sent = 0;
        self.planned.clear();
    }

    /// Plan a command that `write` appends; one that it refuses to write is not planned.
    pub(super) fn plan(
        &mut self,
        expect: Expect,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), BadAddress>,
    ) -> Result<(), BadAddress> {
        write(&mut self.commands)?;
        self.planned.push_back((expect, self.commands.len()));
        Ok(())
    }

    /// Plan this command.
    pub(super) fn plan_line(&mut self, expect: Expect, line: &[u8]) {
        self.commands.extend_from_slice(line);
        self.planned.push_back((expect, self.commands.len()));
    }

    /// What is planned will not be sent.
    pub(super) fn forget_planned(&mut self) {
        self.planned.clear();
    }

    /// Append to `output` what may be sent now: one command, or with `pipelining` all that the limits allow.
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

    /// This was sent, or is said unasked: its reply is awaited behind all others.
    pub(super) fn expect(&mut self, expect: Expect) {
        self.awaited.push_back(expect);
    }

    /// A reply came: what it answers; `None` when none is awaited.
    pub(super) fn answered(&mut self) -> Option<Expect> {
        self.awaited.pop_front()
    }

    /// What the next reply answers.
    pub(super) fn next(&self) -> Option<Expect> {
        self.awaited.front().copied()
    }

    /// What the last of the awaited replies answers.
    pub(super) fn last(&self) -> Option<Expect> {
        self.awaited.back().copied()
    }

    /// How many replies are awaited.
    pub(super) fn awaited(&self) -> usize {
        self.awaited.len()
    }

    /// May a recipient of the transaction be taken yet?
    pub(super) fn awaits_recipients(&self) -> bool {
        let is_rcpt = |expect: &Expect| matches!(expect, Expect::Rcpt(_) | Expect::Mail | Expect::Rset);
        self.awaited.iter().any(is_rcpt) || self.planned.iter().any(|(expect, _)| is_rcpt(expect))
    }

    /// Recipients that have no reply, sent or not: of the message's end alone, or of RCPT as well.
    pub(super) fn recipients(&self, at_end: bool) -> Vec<usize> {
        let position = |expect: &Expect| match expect {
            // What follows the end of a message belongs to the next one.
            Expect::Rcpt(position) if !at_end => Some(*position),
            Expect::DotFor(position) => Some(*position),
            _ => None,
        };
        let planned = self.planned.iter().map(|(expect, _)| expect);
        self.awaited.iter().chain(planned).filter_map(position).collect()
    }

    /// Nothing is sent or awaited any more.
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
    fn octets_and_commands_on_their_way_are_bounded() {
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
        assert_eq!(sent(&mut of(2, PIPELINE_MAX_OCTETS + 1), true), PIPELINE_MAX_OCTETS + 1, "one always goes");
    }

    #[test]
    fn a_command_that_cannot_be_written_is_not_planned() {
        let mut pipeline = of(1, 10);
        assert_eq!(pipeline.plan(Expect::Rcpt(1), |_| Err(BadAddress)), Err(BadAddress));
        assert_eq!(pipeline.recipients(false), [0]);
        assert_eq!(pipeline.recipients(true), []);
        assert!(pipeline.awaits_recipients());
        pipeline.forget_planned();
        assert!(!pipeline.awaits_recipients());
    }
}
