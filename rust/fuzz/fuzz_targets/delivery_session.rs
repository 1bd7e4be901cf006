//! A delivery session with a hostile server: jobs in sequence, messages in pieces, and damaged messages.
//!
//! A recipient is sent exactly when the replies to MAIL, its RCPT, DATA and the dot say so. A job that is passed to
//! another connection has no status from this one. A damaged message is never sent. Any split of the server's octets
//! gives the same output, ends and statuses.
//!
//! Input: flags, the seed of the split, then steps, each ended by `|`. A step that starts with an octet below `STEPS`
//! is an act of the agent (see `Talk::step`), any other one is the server's octets.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::delivery::assignment::Assignment;
use postillion_core::delivery::job::JobSettings;
use postillion_core::delivery::session::{Next, Session};
use postillion_core::delivery::work::{Agent, Work};
use postillion_core::ipc::frame::{Job, JobKind, JobRecipient};
use postillion_core::log::{Log, LogTarget};
use postillion_core::mail::envelope::{BodyType, Envelope, Recipient};
use postillion_core::mail::id::QueueId;
use postillion_core::mail::locator::Locator;
use postillion_core::mail::status::{Outcome, Status};
use postillion_core::smtp::client::{ClientSettings, Peer, Protocol, Timeouts};
use postillion_fuzz::queue::Queue;
use postillion_fuzz::{Choices, Replies, bit, splits};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

const STEP_ENDS: u8 = b'|';
/// The number of acts of the agent.
const STEPS: u8 = 6;
/// The messages by number: small, damaged, of several pieces, of several pieces and damaged at its end.
const SMALL: &[u8] = b"Subject: x\r\n\r\n..a line without an end";
const LARGE_OCTETS: usize = 600_000;
const IS_DAMAGED: [bool; 4] = [false, true, false, true];
const MYHOSTNAME: &str = "mx.example.org";

/// A queue on disk that all inputs read.
struct Messages {
    directory: PathBuf,
    segment: Box<str>,
    locators: Vec<Locator>,
}

fn messages() -> &'static Messages {
    static MESSAGES: OnceLock<Messages> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let large: Vec<u8> = b"a line of thirty octets in all\r\n".iter().copied().cycle().take(LARGE_OCTETS).collect();
        let contents: [&[u8]; 4] = [SMALL, SMALL, &large, &large];
        let queue = Queue::write("delivery-session", &contents);
        let mut octets = queue.octets.clone();
        for (((_, record), content), is_damaged) in queue.records.iter().zip(contents).zip(IS_DAMAGED) {
            // The body, with the end of the content, comes before the head.
            let body = &content[content.len() / 3..];
            let mut windows = octets[record.clone()].windows(body.len());
            let at = record.start + windows.position(|window| window == body).expect("the body");
            octets[at + body.len() - 1] ^= u8::from(is_damaged);
        }
        std::fs::write(&queue.segment, octets).expect("the segment");
        let name = queue.segment.file_name().and_then(|name| name.to_str()).expect("a name");
        let segment = postillion_core::mail::locator::SegmentId::parse(name).expect("a segment");
        let locator = |(_, record): &(QueueId, std::ops::Range<usize>)| Locator {
            segment,
            offset: record.start as u64,
            record_octets: record.len() as u64,
        };
        let locators = queue.records.iter().map(locator).collect();
        Messages { directory: queue.directory, segment: format!("incoming/{name}").into(), locators }
    })
}

/// A command of the session; the server owes one reply to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Said {
    /// The connection itself: the greeting is its reply.
    Connect,
    Mail,
    /// The job and the recipient.
    Rcpt(usize, usize),
    Data,
    Dot,
    Other,
}

/// A job of the agent.
struct Given {
    work: Arc<Work>,
    is_damaged: bool,
    /// The session may have sent its commands.
    was_current: bool,
}

struct Talk {
    session: Session,
    agent: Arc<Agent>,
    jobs: Vec<Given>,
    current: Option<usize>,
    follower: Option<usize>,
    /// No other server is left to try.
    last: bool,
    keep: bool,
    writable: bool,
    over: bool,
    said: Vec<Said>,
    /// The last octets of the output, which do not end a line.
    line: Vec<u8>,
    output: Vec<u8>,
    replies: Replies,
    ends: Vec<Next>,
    smtputf8: bool,
}

impl Talk {
    fn new(flags: u8) -> Self {
        let settings = ClientSettings {
            protocol: Protocol::Smtp,
            helo_name: MYHOSTNAME.into(),
            myhostname: MYHOSTNAME.into(),
            always_send_ehlo: true,
            never_send_ehlo: bit(flags, 0),
            skip_5xx_greeting: bit(flags, 1),
            discard_ehlo_keywords: if bit(flags, 2) { vec!["PIPELINING".into()] } else { vec![] },
            line_length_limit: 998,
            min_data_rate: None,
            timeouts: Timeouts {
                helo: 10.0,
                mail: 10.0,
                rcpt: 10.0,
                data_init: 10.0,
                data_xfer: 10.0,
                data_done: 10.0,
                rset: 10.0,
            },
            ..ClientSettings::default()
        };
        let peer = Peer::new("mx", "192.0.2.1", 25, "example.net", true, bit(flags, 3));
        let log = Arc::new(Log::new("mx", "postfix", "smtp", 7, 0, LogTarget::Memory));
        let job_settings = JobSettings { resolution_digits: 6, long_queue_ids: false, soft_bounce: false };
        Self {
            session: Session::new(Arc::new(settings), peer, 0.0),
            agent: Arc::new(Agent::new(log, messages().directory.clone(), job_settings)),
            jobs: vec![],
            current: None,
            follower: None,
            last: bit(flags, 4),
            keep: bit(flags, 5),
            writable: bit(flags, 6),
            over: false,
            said: vec![Said::Connect],
            line: vec![],
            output: vec![],
            replies: Replies::default(),
            ends: vec![],
            smtputf8: bit(flags, 7),
        }
    }

    /// A new job; `choice`: its message and its number of recipients.
    fn give(&mut self, choice: u8) -> (usize, Assignment) {
        let (number, message) = (self.jobs.len(), usize::from(choice & 3));
        let address = |position: u32| format!("r{position}@j{number}.example.net");
        let recipient = |index| JobRecipient { index, recipient: Recipient::plain(&address(index)), status: None };
        let mut envelope = Envelope::plain(QueueId(1 << 12), "s@example.org", vec![]);
        (envelope.body, envelope.smtputf8) = (BodyType::EightBitMime, self.smtputf8);
        envelope.size_octets = 1000;
        let job = Job {
            job: number as u64,
            kind: JobKind::Deliver,
            path: messages().segment.clone(),
            locator: messages().locators[message],
            transport: "smtp".into(),
            nexthop: "example.net".into(),
            active_us: 0,
            envelope: Arc::new(envelope),
            recipients: (0..u32::from(choice >> 2 & 3) + 1).map(recipient).collect(),
            traced: Vec::new(),
        };
        let work = Arc::new(Work::new(job, Arc::clone(&self.agent), 0));
        self.jobs.push(Given { work: Arc::clone(&work), is_damaged: IS_DAMAGED[message], was_current: false });
        (number, Assignment::new(work, self.last, self.last))
    }

    /// An act of the agent; one that the session's state does not allow is left out.
    fn step(&mut self, act: u8, choice: u8) {
        match act {
            0 if self.current.is_none() => {
                let (number, assignment) = self.give(choice);
                self.current = Some(number);
                self.jobs[number].was_current = true;
                let next = self.session.deliver(assignment, self.keep, 0.0, 0).expect("the session has no job");
                self.act(next);
            }
            1 if self.current.is_some() && self.follower.is_none() => {
                let (number, assignment) = self.give(choice);
                self.follower = Some(number);
                self.session.follow(assignment, 0).expect("the session has no follower");
                self.listen();
            }
            2 => {
                self.session.withdraw();
                self.follower = None;
            }
            3 => {
                let next = self.session.lost(0.0, 0);
                self.act(next);
            }
            4 => {
                let next = self.session.timeout(self.session.deadline().unwrap_or_default(), 0);
                self.act(next);
            }
            5 if self.session.is_sending() => {
                let next = self.session.send_body(0.0, 0);
                self.act(next);
            }
            _ => {}
        }
    }

    fn act(&mut self, mut next: Next) {
        loop {
            self.listen();
            match next {
                Next::More => break assert!(!self.session.is_sending()),
                Next::Asking => unreachable!("no address is mapped"),
                Next::StartTls | Next::Clear => unreachable!("no policy asks for TLS"),
                Next::Broken => unreachable!("the service alone catches panics"),
                Next::Sending if !self.writable => break,
                Next::Sending => next = self.session.send_body(0.0, 0),
                Next::Followed => {
                    self.ended(next);
                    self.current = self.follower.take();
                    self.jobs[self.current.expect("a job follows")].was_current = true;
                    next = self.session.next(0.0, 0);
                }
                Next::Finished | Next::Closed | Next::Stale => {
                    self.ended(next);
                    self.current = None;
                    // It goes to another connection.
                    self.follower = None;
                    self.over = next != Next::Finished;
                    break;
                }
            }
        }
        let waits = self.current.is_none() || self.session.deadline().is_some();
        assert!(waits, "a job, and nothing is awaited");
    }

    fn ended(&mut self, next: Next) {
        self.ends.push(next);
        let Some(number) = self.current else { return };
        let statuses = self.statuses(number);
        let done = matches!(next, Next::Followed | Next::Finished);
        for (position, status) in statuses.iter().enumerate() {
            let sent = status.as_ref().is_some_and(|status| status.outcome == Outcome::Sent);
            let taken = self.is_taken(number, position);
            assert!(taken || !sent, "{number}.{position} was not taken: {:?} {:?}", self.said, self.replies.codes());
            assert!(sent || !(taken && done), "{number}.{position} was taken");
            assert!(!(sent && self.jobs[number].is_damaged), "a damaged message was sent");
            assert!(!done || !self.last || status.is_some(), "{number}.{position} has no status");
            assert!(next != Next::Stale || status.is_none(), "{number}.{position} has a status");
        }
    }

    fn statuses(&self, number: usize) -> Vec<Option<Status>> {
        let delivery = self.jobs[number].work.lock();
        (0..delivery.job().recipients.len()).map(|position| delivery.finished(position).cloned()).collect()
    }

    /// Whether the server accepted the recipient, command by command. Reply n belongs to command n.
    fn is_taken(&self, number: usize, position: usize) -> bool {
        let Some(rcpt) = self.said.iter().position(|said| *said == Said::Rcpt(number, position)) else { return false };
        let class = |at| self.replies.class(at);
        let mail = self.said[..rcpt].iter().rposition(|said| *said == Said::Mail).expect("MAIL comes before RCPT");
        let Some(data) = self.said[rcpt..].iter().position(|said| *said == Said::Data) else { return false };
        let data = rcpt + data;
        let dot = self.said.get(data + 1) == Some(&Said::Dot);
        class(mail) == 2 && class(rcpt) == 2 && class(data) == 3 && dot && class(data + 1) == 2
    }

    /// Note the output: a line that is in no message is a command.
    fn listen(&mut self) {
        let output = self.session.take_output().unwrap_or_default();
        self.output.extend_from_slice(&output);
        for piece in output.split_inclusive(|octet| *octet == b'\n') {
            self.line.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).expect("all output is ASCII");
            let line = line.strip_suffix("\r\n").expect("a line ends with CRLF");
            self.said.push(match line.split([' ', ':']).next().unwrap_or_default() {
                "MAIL" => Said::Mail,
                "RCPT" => {
                    let digit = |letter: char| {
                        line.split(letter)
                            .nth(1)
                            .and_then(|text| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
                    };
                    Said::Rcpt(digit('j').expect("a job"), digit('r').expect("a recipient"))
                }
                "DATA" => Said::Data,
                "." => Said::Dot,
                "EHLO" | "HELO" | "RSET" | "QUIT" => Said::Other,
                _ => continue,
            });
        }
    }

    fn hear(&mut self, octets: &[u8]) {
        if self.over {
            return;
        }
        self.replies.read(octets);
        let next = self.session.receive(octets, 0.0, 0);
        self.act(next);
    }
}

/// The results that must not depend on the split.
type Result = (Vec<u8>, Vec<Next>, Vec<Vec<Option<Status>>>);

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (flags, seed) = (choices.byte(), choices.byte());
    let steps: Vec<&[u8]> = choices.rest().split(|octet| *octet == STEP_ENDS).collect();
    let (mut first, mut ordered): (Option<Result>, bool) = (None, true);
    for which in 0..splits(b"", 0).len() {
        let mut talk = Talk::new(flags);
        for step in &steps {
            if talk.over {
                break;
            }
            match step {
                [act, choice @ ..] if *act < STEPS => talk.step(*act, choice.first().copied().unwrap_or_default()),
                octets => {
                    ordered &= talk.replies.answer_commands(octets, talk.said.len());
                    let Some(pieces) = splits(octets, seed).into_iter().nth(which) else { break };
                    pieces.iter().for_each(|piece| talk.hear(piece));
                }
            }
        }
        let statuses: Vec<_> = (0..talk.jobs.len()).map(|number| talk.statuses(number)).collect();
        for (job, statuses) in talk.jobs.iter().zip(&statuses) {
            assert!(job.was_current || statuses.iter().all(Option::is_none), "a job that never began has a status");
        }
        let mut asked = HashSet::new();
        let twice = talk.said.iter().find(|said| matches!(said, Said::Rcpt(..)) && !asked.insert(**said));
        assert_eq!(twice, None, "a recipient is asked for once");
        if ordered {
            let result = (talk.output, talk.ends, statuses);
            assert_eq!(first.get_or_insert_with(|| result.clone()), &result, "in another split");
        }
    }
});
