//! One client of a source: messages one after the other, and the time of every reply.

mod secure;

use super::plan::Plan;
use super::tally::{Stage, Tally};
use crate::net::Dialogue;
use crate::smtp::client::response::{Response, ResponseReader};
use crate::smtp::server::Next;
use crate::tls::{Channel, Facts, Failure};
use secure::Secure;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// A client.
pub struct Source {
    plan: Arc<Plan>,
    tally: Arc<Tally>,
    reader: ResponseReader,
    output: Vec<u8>,
    /// Expected replies, and the start of each wait.
    awaited: VecDeque<(Stage, Instant)>,
    /// The current message, and its start by the plan.
    number: Option<u64>,
    begun: Instant,
    /// Its recipients so far, and the accepted ones.
    asked: usize,
    accepted: usize,
    /// Number of messages on this connection.
    sent: u32,
    pipelines: bool,
    quits: bool,
    secure: Secure,
}

impl Source {
    /// Return a client whose first message is `number`; `since`: the start of its connection. Without a number it sends
    /// no mail: it leaves its TLS session to the others, and only its errors count.
    pub fn new(plan: Arc<Plan>, tally: Arc<Tally>, number: Option<u64>, since: Instant) -> Self {
        Self {
            tally,
            reader: ResponseReader::default(),
            output: Vec::new(),
            awaited: VecDeque::from([(Stage::Greeting, since)]),
            number,
            begun: number.and_then(|number| plan.due(number)).unwrap_or(since),
            asked: 0,
            accepted: 0,
            sent: 0,
            pipelines: false,
            quits: false,
            secure: Secure::default(),
            plan,
        }
    }

    /// Go on after the pause.
    pub fn go_on(&mut self) {
        match self.plan.take() {
            Some(number) => {
                self.begun = self.plan.due(number).unwrap_or_else(Instant::now);
                self.begin(number);
            }
            None => self.quit(),
        }
    }

    /// Return whether this is a client without mail.
    fn is_first(&self) -> bool {
        self.number.is_none() && self.sent == 0
    }

    fn say(&mut self, stage: Stage, words: &str) {
        self.output.extend_from_slice(words.as_bytes());
        self.output.extend_from_slice(b"\r\n");
        self.awaited.push_back((stage, Instant::now()));
    }

    fn greet(&mut self) {
        let helo = format!("EHLO {}", self.plan.helo);
        self.say(Stage::Ehlo, &helo);
    }

    fn begin(&mut self, number: u64) {
        self.number = Some(number);
        (self.asked, self.accepted) = (0, 0);
        let sender = format!("MAIL FROM:<{}>", self.plan.sender);
        self.say(Stage::Mail, &sender);
        if self.pipelines {
            for _ in 0..self.plan.recipients {
                self.ask_recipient(number);
            }
            self.say(Stage::Data, "DATA");
        }
    }

    fn ask_recipient(&mut self, number: u64) {
        let recipient = format!("RCPT TO:<{}>", self.plan.recipient(number, self.asked));
        self.asked += 1;
        self.say(Stage::Rcpt, &recipient);
    }

    fn quit(&mut self) {
        self.quits = true;
        self.say(Stage::Quit, "QUIT");
    }

    /// End the current message: begin the next one, pause, or end the connection.
    fn over(&mut self) -> Next {
        self.number = None;
        self.sent += 1;
        if self.plan.reuse > 0 && self.sent >= self.plan.reuse {
            self.quit();
            Next::Idle
        } else if self.plan.think.is_zero() && self.plan.rate.is_none() {
            self.go_on();
            Next::Idle
        } else {
            Next::Sleep
        }
    }

    fn heard(&mut self, reply: &Response) -> Next {
        let Some((stage, since)) = self.awaited.pop_front() else {
            // 421, or a server that sends too many replies: the connection is useless.
            return Next::Close;
        };
        {
            let mut counts = self.tally.counts();
            if !self.is_first() {
                counts.replies[stage as usize].record(since.elapsed().as_micros() as u64);
            }
            if reply.code >= 400 {
                counts.refusals += 1;
                counts.complain(&format!("{}: {}", stage.name(), reply.one_line()));
            }
        }
        let accepted = reply.code < 400;
        if reply.code == 421 {
            return Next::Close;
        }
        match (stage, self.number) {
            (Stage::Quit, _) => return Next::Close,
            (Stage::Greeting | Stage::Ehlo | Stage::Starttls, _) if !accepted => return Next::Close,
            (Stage::Greeting, _) => self.greet(),
            (Stage::Ehlo, _) if self.wants_tls() => return self.ask_for_tls(reply),
            (Stage::Starttls, _) => return self.shake(),
            (Stage::Ehlo, None) => self.quit(),
            (Stage::Ehlo, Some(number)) => {
                self.pipelines = self.plan.pipelining && reply.text.contains("PIPELINING");
                self.begin(number);
            }
            (Stage::Mail, Some(number)) if !self.pipelines => {
                if accepted {
                    self.ask_recipient(number);
                } else {
                    return self.refused();
                }
            }
            (Stage::Rcpt, Some(number)) => {
                self.accepted += usize::from(accepted);
                if self.pipelines {
                } else if self.asked < self.plan.recipients {
                    self.ask_recipient(number);
                } else if self.accepted > 0 {
                    self.say(Stage::Data, "DATA");
                } else {
                    return self.refused();
                }
            }
            (Stage::Data, Some(number)) => {
                if !accepted {
                    return self.refused();
                }
                if self.accepted > 0 {
                    let plan = Arc::clone(&self.plan);
                    plan.put_message(number, &mut self.output);
                } else {
                    self.output.extend_from_slice(b".\r\n");
                }
                self.awaited.push_back((Stage::Dot, Instant::now()));
            }
            (Stage::Dot, Some(number)) => {
                {
                    let mut counts = self.tally.counts();
                    if accepted {
                        counts.messages += 1;
                        counts.recipients += self.accepted as u64;
                        counts.octets += self.plan.octets_of(number) as u64;
                        counts.message.record(self.begun.elapsed().as_micros() as u64);
                    } else {
                        counts.refused += 1;
                    }
                }
                return self.over();
            }
            (Stage::Rset, _) => return self.over(),
            (_, _) => {}
        }
        Next::Idle
    }

    /// Send RSET after a refusal, so that the server drops the message as well.
    fn refused(&mut self) -> Next {
        self.tally.counts().refused += 1;
        self.say(Stage::Rset, "RSET");
        Next::Idle
    }
}

impl Dialogue for Source {
    type Next = Next;

    fn is_idle(next: Next) -> bool {
        next == Next::Idle
    }

    fn is_question(next: Next) -> bool {
        next.is_question()
    }

    fn receive(&mut self, mut octets: &[u8], _now: f64) -> Next {
        let mut next = Next::Idle;
        while !octets.is_empty() {
            let Ok((taken, reply)) = self.reader.feed(octets) else {
                self.tally.counts().complain("a reply without an end");
                return Next::Close;
            };
            octets = &octets[taken..];
            if let Some(reply) = reply {
                next = self.heard(&reply);
                // Input behind the reply to STARTTLS came in the clear: it is dropped.
                if matches!(next, Next::Close | Next::StartTls) {
                    break;
                }
            }
        }
        next
    }

    fn take_output(&mut self) -> Option<Vec<u8>> {
        (!self.output.is_empty()).then(|| std::mem::take(&mut self.output))
    }

    fn take_channel(&mut self) -> Option<Channel> {
        self.secure.channel.take()
    }

    fn secured(&mut self, facts: Box<Facts>, _now: f64) -> Next {
        self.shaken(&facts)
    }

    fn insecure(&mut self, failure: &Failure, _now: f64) -> Next {
        self.unshaken(failure)
    }

    /// Count the messages without a reply as unanswered.
    fn lost(&mut self) {
        let mut counts = self.tally.counts();
        if self.number.take().is_some() {
            counts.unanswered += 1;
        }
        if !self.quits {
            counts.broken += 1;
            let stage = self.awaited.front().map_or("idle", |(stage, _)| stage.name());
            counts.complain(&format!("connection lost: {stage}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn client(plan: Plan) -> (Source, Arc<Tally>) {
        let tally = Arc::new(Tally::default());
        let plan = Arc::new(plan);
        let number = plan.take().unwrap();
        (Source::new(plan, Arc::clone(&tally), Some(number), Instant::now()), tally)
    }

    /// Return the client's answer to `reply`; a message is shortened to one word.
    fn answer(source: &mut Source, reply: &str) -> (Next, String) {
        let next = source.receive(reply.as_bytes(), 0.0);
        let said = String::from_utf8(source.take_output().unwrap_or_default()).unwrap();
        let said = if said.starts_with("From:") { "message\r\n".into() } else { said };
        (next, said.replace("\r\n", "|"))
    }

    #[test]
    fn a_connection_for_each_message() {
        let (mut source, tally) = client(Plan::default());
        let steps = [
            ("220 mx\r\n", Next::Idle, "EHLO source.example|"),
            ("250-mx\r\n250 PIPELINING\r\n", Next::Idle, "MAIL FROM:<bench@source.example>|"),
            ("250 ok\r\n", Next::Idle, "RCPT TO:<sink@sink.example>|"),
            ("250 ok\r\n", Next::Idle, "DATA|"),
            ("354 go\r\n", Next::Idle, "message|"),
            ("250 queued\r\n", Next::Idle, "QUIT|"),
            ("221 bye\r\n", Next::Close, ""),
        ];
        for (reply, next, words) in steps {
            assert_eq!(answer(&mut source, reply), (next, words.into()), "{reply}");
        }
        source.lost();
        let counts = tally.counts();
        assert_eq!((counts.messages, counts.recipients, counts.broken, counts.unanswered), (1, 1, 0, 0));
        assert_eq!(counts.replies[Stage::Dot as usize].count(), 1);
    }

    #[test]
    fn pipelined_with_some_recipients_refused_and_the_connection_used_again() {
        let plan = Plan { pipelining: true, recipients: 2, reuse: 0, messages: Some(2), ..Plan::default() };
        let (mut source, tally) = client(plan);
        answer(&mut source, "220 mx\r\n");
        let whole = "MAIL FROM:<bench@source.example>|RCPT TO:<sink0@sink.example>|RCPT TO:<sink1@sink.example>|DATA|";
        assert_eq!(answer(&mut source, "250-mx\r\n250 PIPELINING\r\n"), (Next::Idle, whole.into()));
        let (next, said) = answer(&mut source, "250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n");
        assert_eq!((next, &said[..]), (Next::Idle, "message|"));
        assert_eq!(answer(&mut source, "250 queued\r\n"), (Next::Idle, whole.into()));
        // All recipients are refused, and the server sends 354 all the same: the content is empty.
        assert_eq!(answer(&mut source, "250 ok\r\n550 no\r\n550 no\r\n354 go\r\n"), (Next::Idle, ".|".into()));
        assert_eq!(answer(&mut source, "554 no valid recipients\r\n"), (Next::Idle, "QUIT|".into()));
        let counts = tally.counts();
        assert_eq!((counts.messages, counts.recipients, counts.refused, counts.refusals), (1, 1, 1, 4));
        assert_eq!(counts.complaints, ["RCPT: 550 no", "end of data: 554 no valid recipients"]);
    }

    #[test]
    fn refused_before_the_content_the_transaction_is_reset() {
        for at in 0..3 {
            let (mut source, tally) = client(Plan { reuse: 0, messages: Some(1), ..Plan::default() });
            answer(&mut source, "220 mx\r\n");
            answer(&mut source, "250 mx\r\n");
            for _ in 0..at {
                answer(&mut source, "250 ok\r\n");
            }
            assert_eq!(answer(&mut source, "450 later\r\n"), (Next::Idle, "RSET|".into()));
            assert_eq!(answer(&mut source, "250 ok\r\n"), (Next::Idle, "QUIT|".into()));
            let counts = tally.counts();
            assert_eq!((counts.refused, counts.messages), (1, 0));
        }
    }

    #[test]
    fn a_pause_a_farewell_and_a_break_are_told() {
        let plan = Plan { reuse: 0, think: Duration::from_secs(1), ..Plan::default() };
        let (mut source, tally) = client(plan);
        for reply in ["220 mx\r\n", "250 mx\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
            answer(&mut source, reply);
        }
        assert_eq!(answer(&mut source, "250 queued\r\n"), (Next::Sleep, String::new()));
        source.go_on();
        assert_eq!(answer(&mut source, "421 busy\r\n"), (Next::Close, "MAIL FROM:<bench@source.example>|".into()));
        source.lost();
        let counts = tally.counts();
        assert_eq!((counts.messages, counts.unanswered, counts.broken), (1, 1, 1));
    }

    #[test]
    fn a_wait_for_a_free_client_counts_from_when_the_message_was_due() {
        let plan = Plan { reuse: 0, rate: Some(1000.0), ..Plan::default() };
        let (mut source, tally) = client(plan);
        let talk =
            |source: &mut Source, replies: &[&str]| replies.iter().map(|reply| answer(source, reply).0).last().unwrap();
        let last = talk(
            &mut source,
            &["220 mx\r\n", "250 mx\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 queued\r\n"],
        );
        assert_eq!(last, Next::Sleep, "the next one begins by the clock");
        // The only client is late by 50 messages.
        let due = source.plan.due(1).unwrap();
        while due.elapsed() < Duration::from_millis(50) {
            std::thread::yield_now();
        }
        source.go_on();
        talk(&mut source, &["250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 queued\r\n"]);
        let counts = tally.counts();
        assert_eq!((counts.messages, counts.message.count()), (2, 2));
        assert!(counts.message.longest_us() >= 50_000, "{}", counts.message.longest_us());
    }
}
