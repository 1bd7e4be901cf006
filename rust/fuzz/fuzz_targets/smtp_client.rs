//! The client against a hostile server: no recipient counts as delivered that the server did not take, command by
//! command; each has at most one verdict; and any split of the replies gives the same.
//!
//! Input: flags, transactions and recipients, the seed of the split, then the server's octets in parts, each ended by
//! `|`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::mail::envelope::{BodyType, Envelope, Notify, Recipient};
use postillion_core::mail::id::QueueId;
use postillion_core::mail::status::Outcome;
use postillion_core::sasl::Login;
use postillion_core::smtp::client::requiretls::RequireTls;
use postillion_core::smtp::client::{Client, ClientSettings, Event, Peer, Protocol, Timeouts};
use postillion_fuzz::{Choices, Replies, bit, splits};
use std::collections::HashMap;
use std::sync::Arc;

const MYHOSTNAME: &str = "mx.example.org";
const PART_ENDS: u8 = b'|';
const BODY: [&[u8]; 2] = [b"Subject: x\r\n\r\n", b"..a line without an end"];
/// Maximum octets of a status text: a reply's text and the words around it.
const STATUS_MAX_OCTETS: usize = 8192;

/// A command of the client, one for each reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// The connection itself: the greeting is its reply.
    Connect,
    Hello,
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    Dot,
    Quit,
}

struct Talk {
    client: Client,
    lmtp: bool,
    envelope: Envelope,
    recipients: Vec<Recipient>,
    /// Numbers of recipients of the next transactions.
    transactions: Vec<usize>,
    said: Vec<Said>,
    /// The start of the current transaction in `said`.
    begun: usize,
    /// The recipients of the transaction, in the order of their commands.
    asked: Vec<usize>,
    verdicts: HashMap<usize, Outcome>,
    replies: Replies,
    trace: Vec<Event>,
    over: bool,
}

impl Talk {
    fn new(flags: u8, mails: u8) -> Self {
        let lmtp = bit(flags, 0);
        let settings = ClientSettings {
            protocol: if lmtp { Protocol::Lmtp } else { Protocol::Smtp },
            helo_name: MYHOSTNAME.into(),
            myhostname: MYHOSTNAME.into(),
            always_send_ehlo: !bit(flags, 1),
            never_send_ehlo: bit(flags, 2),
            skip_5xx_greeting: bit(flags, 3),
            discard_ehlo_keywords: if bit(flags, 4) { vec!["PIPELINING".into()] } else { vec![] },
            line_length_limit: 998,
            min_data_rate: bit(flags, 6).then_some(500.0),
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
        let peer = Peer {
            name_address: "mx[192.0.2.1]".into(),
            name_address_port: "mx[192.0.2.1]:25".into(),
            nexthop: "example.net".into(),
            loop_detect: true,
            best: bit(flags, 5),
            login: Login::Never,
            tls: None,
            requiretls: RequireTls::parse(if bit(flags, 7) { "enforce" } else { "disable" }).expect("a policy"),
        };
        let recipients: Vec<_> = (0..8).map(|n| Recipient::plain(&format!("r{n}@example.net"))).collect();
        let mut envelope = Envelope::plain(QueueId(1), "s@example.org", vec![]);
        (envelope.body, envelope.smtputf8) = (BodyType::EightBitMime, bit(flags, 6));
        (envelope.size_octets, envelope.envid) = (1000, Some("x".into()));
        let mut talk = Self {
            client: Client::new(Arc::new(settings), peer, 0.0),
            lmtp,
            envelope,
            recipients,
            transactions: vec![
                usize::from(mails & 7) + 1,
                usize::from(mails >> 3 & 7) + 1,
                usize::from(mails >> 6) + 1,
            ],
            said: vec![Said::Connect],
            begun: 0,
            asked: vec![],
            verdicts: HashMap::new(),
            replies: Replies::default(),
            trace: vec![],
            over: false,
        };
        talk.recipients[1].notify = Notify(Notify::SUCCESS | Notify::FAILURE);
        talk.client.set_last_transaction(bit(flags, 7));
        talk.act();
        talk
    }

    /// Note the output: commands, each on its own line.
    fn listen(&mut self) {
        let output = self.client.take_output().unwrap_or_default();
        let text = std::str::from_utf8(&output).expect("commands are UTF-8");
        for line in text.split_inclusive("\r\n") {
            let line = line.strip_suffix("\r\n").expect("a command has its line end");
            assert!(!line.chars().any(char::is_control), "{line:?}");
            let said = match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" | "HELO" | "LHLO" => Said::Hello,
                "RSET" => Said::Reset,
                "MAIL" => {
                    self.begun = self.said.len();
                    Said::Mail
                }
                "RCPT" => {
                    let position = self.asked.len();
                    assert!(line.starts_with(&format!("RCPT TO:<{}>", self.recipients[position].address)), "{line}");
                    self.asked.push(position);
                    Said::Rcpt(position)
                }
                "DATA" => Said::Data,
                "." => Said::Dot,
                "QUIT" => Said::Quit,
                _ => panic!("the client says {line:?}"),
            };
            self.said.push(said);
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.replies.read(bytes);
        self.client.receive(bytes, 0.0);
    }

    fn class_of(&self, at: Option<usize>) -> u16 {
        at.map_or(0, |at| self.replies.class(at))
    }

    fn place_of(&self, said: Said) -> Option<usize> {
        self.said[self.begun..].iter().position(|one| *one == said).map(|at| self.begun + at)
    }

    /// Whether the server accepted the recipient, command by command. Reply n belongs to command n; LMTP has one reply
    /// after the dot for each accepted recipient (RFC 2033 §4.2).
    fn is_taken(&self, position: usize) -> bool {
        let was_accepted = |position: &usize| self.class_of(self.place_of(Said::Rcpt(*position))) == 2;
        let rank = self.asked.iter().filter(|other| **other < position && was_accepted(other)).count();
        let dot = self.place_of(Said::Dot).map(|at| at + if self.lmtp { rank } else { 0 });
        self.class_of(self.place_of(Said::Mail)) == 2
            && was_accepted(&position)
            && self.class_of(self.place_of(Said::Data)) == 3
            && self.class_of(dot) == 2
    }

    fn act(&mut self) {
        self.listen();
        while let Some(event) = self.client.next_event() {
            self.trace.push(event.clone());
            assert!(!self.over || matches!(event, Event::Warning(_) | Event::Note(_)), "{event:?} after the end");
            match event {
                Event::Ready => self.begin(),
                Event::Body => {
                    for (piece, last) in BODY.into_iter().zip([false, true]) {
                        self.client.body(piece.to_vec(), last, 0.0);
                    }
                    // No reply, when the server ended the transaction before the message.
                    if let Some(output) = self.client.take_output() {
                        let message = [BODY[0], BODY[1], b"\r\n.\r\n"].concat();
                        let behind = output.strip_prefix(&message[..]).expect("the message, whole");
                        self.said.push(Said::Dot);
                        assert!(behind.is_empty() || behind == b"QUIT\r\n");
                    }
                }
                Event::Recipient { position, status } => {
                    assert!(status.text.len() <= STATUS_MAX_OCTETS && !status.text.chars().any(char::is_control));
                    assert!(self.verdicts.insert(position, status.outcome).is_none(), "{position} has two verdicts");
                    if status.outcome == Outcome::Sent {
                        assert!(
                            self.is_taken(position),
                            "{position} was not taken: {:?} {:?}",
                            self.said,
                            self.replies.codes()
                        );
                    }
                }
                Event::Finished { reusable } => {
                    for position in self.asked.iter().filter(|position| self.is_taken(**position)) {
                        assert_eq!(self.verdicts.get(position), Some(&Outcome::Sent), "{position} was taken");
                    }
                    if reusable {
                        assert!(self.asked.iter().all(|position| self.verdicts.contains_key(position)));
                        self.begin();
                    } else {
                        self.over = true;
                    }
                }
                Event::Failed { status, .. } => {
                    assert!(status.outcome != Outcome::Sent && status.text.len() <= STATUS_MAX_OCTETS);
                    self.over = true;
                }
                Event::Warning(_) | Event::Note(_) => {}
                Event::StartTls => unreachable!("no policy asks for it"),
            }
            self.listen();
        }
    }

    fn begin(&mut self) {
        self.listen();
        self.verdicts.clear();
        self.asked.clear();
        self.begun = self.said.len();
        if let Some(count) = self.transactions.pop() {
            let envelope = self.envelope.clone();
            let recipients = self.recipients.clone();
            let needs_smtputf8 = envelope.smtputf8;
            self.client.begin(&envelope, recipients.iter().take(count).enumerate(), needs_smtputf8, 0.0);
        } else {
            self.client.quit();
            self.over = true;
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (flags, mails, seed) = (choices.byte(), choices.byte(), choices.byte());
    let parts: Vec<&[u8]> = choices.rest().split(|octet| *octet == PART_ENDS).collect();
    let (mut first, mut ordered): (Option<Vec<Event>>, bool) = (None, true);
    for which in 0..splits(b"", 0).len() {
        let mut talk = Talk::new(flags, mails);
        for part in &parts {
            ordered &= talk.replies.answer_commands(part, talk.said.len());
            let Some(pieces) = splits(part, seed).into_iter().nth(which) else { break };
            pieces.iter().for_each(|piece| talk.hear(piece));
            talk.act();
        }
        let open = talk.client.deadline();
        assert!(talk.over || open.is_some() || talk.client.is_idle(), "nothing is awaited, and nothing is over");
        if bit(seed, 0) {
            talk.client.lost();
        } else if let Some(deadline) = open {
            talk.client.timeout(deadline);
        }
        talk.act();
        if ordered {
            assert_eq!(first.get_or_insert_with(|| talk.trace.clone()), &talk.trace, "in another split");
        }
    }
});
