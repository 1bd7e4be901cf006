//! One dialogue of a sink: it accepts all mail except for its faults, and notices second copies of messages.

use super::fault::{Action, Dice, Fault, When};
use super::plan::read_header;
use super::tally::Tally;
use super::tls::{SinkTls, complaint};
use crate::clock::wall_now_us;
use crate::mail::reply::Reply;
use crate::net::Dialogue;
use crate::smtp::server::config::ServerConfig;
use crate::smtp::server::{Event, Next, Server};
use crate::tls::settings::Level;
use crate::tls::{Channel, Facts, Failure};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Maximum number of octets before the end of a source's header field.
const HEAD_OCTETS: usize = 8 * 1024;
/// Maximum number of runs in which second copies are noticed; messages of further runs are only counted.
const RUNS_MAX: usize = 64;
/// Maximum number of messages of a run in which second copies are noticed.
const NUMBERS_MAX: u64 = 1 << 30;

/// The part of a sink that all its dialogues share.
pub struct Shared {
    config: Arc<ServerConfig>,
    faults: Vec<Fault>,
    dice: Mutex<Dice>,
    /// Accepted messages by run, one bit each.
    seen: Mutex<HashMap<u64, Vec<u64>>>,
    tally: Arc<Tally>,
    tls: Option<SinkTls>,
}

impl Shared {
    /// Return a sink with this name. The first fault that fits a recipient counts. With TLS it offers STARTTLS.
    pub fn new(name: &str, faults: Vec<Fault>, seed: u64, tally: Arc<Tally>, tls: Option<SinkTls>) -> Self {
        let mut config = ServerConfig {
            myhostname: name.into(),
            banner: format!("{name} ESMTP sink"),
            recipient_limit: usize::MAX,
            soft_error_limit: u32::MAX,
            hard_error_limit: u32::MAX,
            junk_command_limit: u32::MAX,
            error_sleep_s: 0.0,
            forbid_unauth_pipelining: false,
            tls: if tls.is_some() { Level::May } else { Level::Off },
            ..ServerConfig::default()
        };
        config.dialect.smtputf8 = true;
        let config = Arc::new(config);
        Self { config, faults, dice: Mutex::new(Dice::new(seed)), seen: Mutex::default(), tally, tls }
    }

    fn fault(&self, recipient: &str, when: When) -> Option<Action> {
        if self.faults.is_empty() {
            return None;
        }
        let domain = recipient.rsplit_once('@').map_or("", |(_, domain)| domain);
        let fits = |fault: &&Fault| {
            fault.when == when && (*fault.domain == *"*" || domain.eq_ignore_ascii_case(&fault.domain))
        };
        let fault = self.faults.iter().find(fits)?;
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        dice.fall(fault.share).then_some(fault.action)
    }

    /// Return whether this is the first copy of a message.
    fn is_first(&self, run: u64, number: u64) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if number >= NUMBERS_MAX || !seen.contains_key(&run) && seen.len() >= RUNS_MAX {
            return true;
        }
        let bits = seen.entry(run).or_default();
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        let first = bits[word] & bit == 0;
        bits[word] |= bit;
        first
    }
}

/// A delayed reply.
#[derive(Debug, Clone, Copy)]
enum Waiting {
    Rcpt,
    Dot { octets: u64 },
}

/// A dialogue.
pub struct Sink {
    shared: Arc<Shared>,
    server: Server,
    head: Vec<u8>,
    waiting: Option<Waiting>,
    pause: Duration,
    /// For the owner of the socket.
    channel: Option<Channel>,
}

impl Sink {
    /// Return a dialogue with `peer`.
    pub fn new(shared: Arc<Shared>, peer: &str) -> Self {
        let server = Server::new(Arc::clone(&shared.config), peer, true, 0.0);
        shared.tally.counts().connections += 1;
        Self { shared, server, head: Vec::new(), waiting: None, pause: Duration::ZERO, channel: None }
    }

    /// Greet the client. In wrapper mode that is after the handshake.
    pub fn open(&mut self) -> Next {
        let Some(tls) = self.wrapper() else {
            self.server.greet(0.0);
            return Next::Idle;
        };
        match tls.begin() {
            Ok(channel) => {
                self.channel = Some(channel);
                self.server.wrap(0.0);
                Next::StartTls
            }
            Err(failure) => self.insecure(&failure, 0.0),
        }
    }

    fn wrapper(&self) -> Option<&SinkTls> {
        self.shared.tls.as_ref().filter(|tls| tls.wrapper)
    }

    /// STARTTLS: have a channel for the owner of the socket. Without one the client stays in the clear.
    fn start_tls(&mut self) {
        match self.shared.tls.as_ref().map(SinkTls::begin) {
            Some(Ok(channel)) => {
                self.channel = Some(channel);
                self.server.start_tls(0.0);
            }
            Some(Err(failure)) => {
                self.shared.tally.counts().complain(&complaint(&failure));
                self.server.refuse_tls(&failure.problems, 0.0);
            }
            None => self.server.refuse_tls(&[], 0.0),
        }
    }

    /// Return the delay of the reply.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// Go on after the delay.
    pub fn go_on(&mut self) -> Next {
        match self.waiting.take() {
            Some(Waiting::Rcpt) => self.server.reply(&Reply::new(250, [1, 5], "Ok"), 0.0),
            Some(Waiting::Dot { octets }) => self.take(octets),
            None => {}
        }
        self.work()
    }

    fn work(&mut self) -> Next {
        if self.waiting.is_some() {
            return Next::Idle;
        }
        loop {
            let head = &mut self.head;
            let event = self.server.next_event(|octets| {
                let room = HEAD_OCTETS - head.len();
                head.extend_from_slice(&octets[..octets.len().min(room)]);
            });
            let next = match event {
                Event::Idle if self.server.ended().is_some() => return Next::Close,
                Event::Idle => return Next::Idle,
                Event::Switch => return Next::StartTls,
                Event::Log(..) => Next::Idle,
                Event::StartTls => {
                    self.start_tls();
                    Next::Idle
                }
                Event::Ask(Next::Rcpt) => {
                    let fault = self.shared.fault(self.server.recipient().unwrap_or_default(), When::Rcpt);
                    self.act(fault, Waiting::Rcpt)
                }
                Event::Ask(Next::Data) => {
                    self.head.clear();
                    self.server.reply(&Reply::bare(354, "End data with <CR><LF>.<CR><LF>"), 0.0);
                    Next::Idle
                }
                Event::Ask(_) => {
                    self.server.reply(&Reply::bare(250, "Ok"), 0.0);
                    Next::Idle
                }
                Event::EndOfData(end) => {
                    let recipients = self.server.transaction().map(|transaction| &transaction.recipients[..]);
                    let mut recipients = recipients.unwrap_or_default().iter();
                    let fault = recipients.find_map(|recipient| self.shared.fault(&recipient.address, When::Dot));
                    let dot_line = if end.chunked { 0 } else { b".\r\n".len() as u64 };
                    self.act(fault, Waiting::Dot { octets: end.octets - dot_line })
                }
            };
            if next != Next::Idle {
                return next;
            }
        }
    }

    fn act(&mut self, fault: Option<Action>, question: Waiting) -> Next {
        match (fault, question) {
            (None, Waiting::Rcpt) => self.server.reply(&Reply::new(250, [1, 5], "Ok"), 0.0),
            (None, Waiting::Dot { octets }) => self.take(octets),
            (Some(Action::HangUp), _) => return Next::Close,
            (Some(Action::Refuse(code)), _) => {
                self.shared.tally.counts().refusals += 1;
                self.server.reply(&Reply::new(code, [0, 0], "as the sink was told"), 0.0);
            }
            (Some(Action::Wait(pause)), _) => {
                self.pause = pause;
                self.waiting = Some(question);
                return Next::Sleep;
            }
        }
        Next::Idle
    }

    /// Accept the message.
    fn take(&mut self, octets: u64) {
        let recipients = self.server.transaction().map_or(0, |transaction| transaction.recipients.len());
        let known = read_header(&self.head);
        let first = known.is_none_or(|(run, number, _)| self.shared.is_first(run, number));
        {
            let mut counts = self.shared.tally.counts();
            counts.messages += 1;
            counts.recipients += recipients as u64;
            counts.octets += octets;
            counts.duplicates += u64::from(!first);
            if let Some((_, _, sent_us)) = known {
                counts.delivery.record(wall_now_us().saturating_sub(sent_us));
            }
        }
        self.server.reply(&Reply::new(250, [0, 0], "Ok"), 0.0);
    }
}

impl Dialogue for Sink {
    type Next = Next;

    fn is_idle(next: Next) -> bool {
        next == Next::Idle
    }

    fn is_question(next: Next) -> bool {
        next.waits_for_owner()
    }

    fn receive(&mut self, octets: &[u8], _now: f64) -> Next {
        self.server.receive(octets, 0.0);
        self.work()
    }

    fn take_output(&mut self) -> Option<Vec<u8>> {
        self.server.take_output()
    }

    fn take_channel(&mut self) -> Option<Channel> {
        self.channel.take()
    }

    fn secured(&mut self, facts: Box<Facts>, _now: f64) -> Next {
        {
            let mut counts = self.shared.tally.counts();
            counts.handshakes += 1;
            counts.resumed += u64::from(facts.resumed);
        }
        self.server.secured(None, 0.0);
        if self.wrapper().is_some() {
            self.server.greet(0.0);
        }
        self.work()
    }

    fn insecure(&mut self, failure: &Failure, _now: f64) -> Next {
        self.shared.tally.counts().complain(&complaint(failure));
        self.server.insecure(&failure.problems, 0.0);
        self.work()
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Plan;
    use super::*;
    use crate::tls::testing::Plains;

    fn sink(faults: &[&str]) -> (Sink, Arc<Tally>) {
        let (mut sink, tally) = sink_with(faults, None);
        assert_eq!(sink.open(), Next::Idle);
        assert_eq!(sink.take_output().unwrap(), b"220 sink.example ESMTP sink\r\n");
        (sink, tally)
    }

    fn sink_with(faults: &[&str], tls: Option<SinkTls>) -> (Sink, Arc<Tally>) {
        let tally = Arc::new(Tally::default());
        let faults = faults.iter().map(|fault| fault.parse().unwrap()).collect();
        let shared = Arc::new(Shared::new("sink.example", faults, 1, Arc::clone(&tally), tls));
        (Sink::new(shared, "test[127.0.0.1]"), tally)
    }

    fn say(sink: &mut Sink, words: &[u8]) -> (Next, String) {
        let next = sink.receive(words, 0.0);
        (next, codes(sink))
    }

    /// Return the codes of the replies.
    fn codes(sink: &mut Sink) -> String {
        let output = String::from_utf8(sink.take_output().unwrap_or_default()).unwrap();
        output.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| &line[..3]).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_message_is_taken_and_its_copy_is_known() {
        let (mut sink, tally) = sink(&[]);
        let plan = Plan { octets: vec![100_000], ..Plan::default() };
        assert_eq!(say(&mut sink, b"EHLO x\r\n"), (Next::Idle, "250".into()));
        for number in [0, 70, 0] {
            let open = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n";
            assert_eq!(say(&mut sink, open), (Next::Idle, "250 250 354".into()));
            let mut message = Vec::new();
            plan.put_message(number, &mut message);
            for piece in message.chunks(1000) {
                sink.receive(piece, 0.0);
            }
            assert_eq!(codes(&mut sink), "250");
        }
        assert_eq!(say(&mut sink, b"QUIT\r\n"), (Next::Close, "221".into()));
        let counts = tally.counts();
        assert_eq!((counts.messages, counts.recipients, counts.duplicates), (3, 3, 1));
        assert_eq!((counts.delivery.count(), counts.octets / 3), (3, 100_000));
    }

    #[test]
    fn tls_begins_behind_starttls_or_with_the_connection() {
        for wrapper in [false, true] {
            let (mut sink, tally) = sink_with(&[], Some(SinkTls { engines: Arc::new(Plains), wrapper }));
            let first = sink.open();
            if !wrapper {
                assert_eq!((first, codes(&mut sink)), (Next::Idle, "220".into()));
                assert_eq!(say(&mut sink, b"EHLO x\r\n"), (Next::Idle, "250".into()));
            }
            let (next, replies) = if wrapper { (first, codes(&mut sink)) } else { say(&mut sink, b"STARTTLS\r\n") };
            assert_eq!((next, &replies[..]), (Next::StartTls, if wrapper { "" } else { "220" }));
            assert!(sink.take_channel().is_some());
            let facts = Facts { resumed: true, ..Facts::default() };
            assert_eq!(sink.secured(Box::new(facts), 0.0), Next::Idle);
            assert_eq!(codes(&mut sink), if wrapper { "220" } else { "" });
            assert_eq!(say(&mut sink, b"EHLO x\r\nQUIT\r\n"), (Next::Close, "250 221".into()));
            let counts = tally.counts();
            assert_eq!((counts.handshakes, counts.resumed), (1, 1));
        }
        let (mut sink, _) = sink(&[]);
        assert_eq!(say(&mut sink, b"EHLO x\r\nSTARTTLS\r\n"), (Next::Idle, "250 502".into()));
    }

    #[test]
    fn domains_have_their_faults() {
        let (mut sink, tally) =
            sink(&["slow.example=150ms", "no.example=550", "late.example=451@dot", "gone.example=disconnect"]);
        say(&mut sink, b"EHLO x\r\n");
        let open =
            b"MAIL FROM:<a@x>\r\nRCPT TO:<b@no.example>\r\nRCPT TO:<b@slow.example>\r\nRCPT TO:<b@y.example>\r\n";
        assert_eq!(say(&mut sink, open), (Next::Sleep, "250 550".into()));
        assert_eq!(sink.pause(), Duration::from_millis(150));
        assert_eq!(
            say(&mut sink, b"RCPT TO:<b@late.example>\r\n"),
            (Next::Idle, String::new()),
            "nothing overtakes the reply that waits"
        );
        assert_eq!((sink.go_on(), codes(&mut sink)), (Next::Idle, "250 250 250".into()));
        assert_eq!(say(&mut sink, b"DATA\r\n"), (Next::Idle, "354".into()));
        assert_eq!(say(&mut sink, b"x\r\n.\r\n"), (Next::Idle, "451".into()));
        let (next, _) = say(&mut sink, b"MAIL FROM:<a@x>\r\nRCPT TO:<b@gone.example>\r\n");
        let counts = tally.counts();
        assert_eq!((next, counts.messages, counts.refusals), (Next::Close, 0, 2));
    }
}
