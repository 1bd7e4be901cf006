//! The client against scripts: the server's replies, the client's commands and the recipients' verdicts, fed whole and
//! byte by byte.

mod ahead;
mod auth;
mod model;
mod probe;
mod requiretls;
mod starttls;

use super::*;
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::id::QueueId;
use crate::mail::status::Outcome;
use crate::sasl::Login;
use crate::smtp::client::requiretls::RequireTls;
use std::sync::Arc;

/// Return the envelope of a message of five octets.
pub(super) fn envelope() -> Envelope {
    Envelope { size_octets: 5, ..Envelope::plain(QueueId(1 << 12), "s@example.org", vec![]) }
}

fn settings() -> ClientSettings {
    ClientSettings {
        helo_name: "me".into(),
        myhostname: "me".into(),
        timeouts: Timeouts {
            helo: 10.0,
            mail: 20.0,
            rcpt: 30.0,
            data_init: 40.0,
            data_xfer: 50.0,
            data_done: 60.0,
            rset: 5.0,
        },
        ..ClientSettings::default()
    }
}

fn peer() -> Peer {
    Peer {
        name_address: "mx[192.0.2.1]".into(),
        name_address_port: "mx[192.0.2.1]:25".into(),
        nexthop: "example.org".into(),
        loop_detect: true,
        best: true,
        login: Login::Never,
        tls: None,
        requiretls: RequireTls::Disable,
    }
}

/// One dialogue. The driver begins a transaction for each of `mails` (numbers of recipients) when the client is ready,
/// and sends a short body. With `ahead`, it begins the next transaction after that body.
struct Dialogue {
    client: Client,
    envelope: Arc<Envelope>,
    recipients: Vec<Recipient>,
    mails: Vec<usize>,
    said: String,
    events: Vec<String>,
    verdicts: Vec<(usize, Outcome)>,
    /// The number of verdicts at the end of each transaction.
    ends: Vec<usize>,
    over: bool,
    ahead: bool,
    /// The next transaction is begun.
    begun: bool,
}

impl Dialogue {
    fn new(settings: ClientSettings, mails: &[usize]) -> Self {
        Self::of(Client::new(Arc::new(settings), peer(), 0.0), mails)
    }

    fn of(client: Client, mails: &[usize]) -> Self {
        let recipients = (0..40).map(|n| Recipient::plain(&format!("r{n}@x"))).collect();
        let mut mails = mails.to_vec();
        mails.reverse();
        let envelope = Arc::new(envelope());
        let mut this = Self {
            client,
            envelope,
            recipients,
            mails,
            said: String::new(),
            events: vec![],
            verdicts: vec![],
            ends: vec![],
            over: false,
            ahead: false,
            begun: false,
        };
        this.act();
        this
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.client.receive(bytes, 1.0);
        self.act();
    }

    fn act(&mut self) {
        while let Some(event) = self.client.next_event() {
            let mut next = false;
            self.events.push(match event {
                Event::Ready => {
                    next = true;
                    "ready".into()
                }
                Event::Body => {
                    self.client.body(b"body\r\n".to_vec(), true, 1.0);
                    if self.ahead
                        && let Some(count) = self.mails.last()
                    {
                        let recipients = self.recipients[..*count].iter().enumerate();
                        let may = self.client.may_begin_ahead();
                        self.begun = self.client.begin_ahead(&self.envelope, recipients);
                        assert_eq!(self.begun, may, "nothing in these messages is for `begin` to refuse");
                        self.mails.truncate(self.mails.len() - usize::from(self.begun));
                    }
                    "body".into()
                }
                Event::Recipient { position, status } => {
                    self.verdicts.push((position, status.outcome));
                    format!("{position} {:?} {} {}", status.outcome, status.dsn, status.text)
                }
                Event::Finished { reusable } => {
                    self.ends.push(self.verdicts.len());
                    // A transaction that was begun ahead is in progress.
                    next = reusable && !std::mem::take(&mut self.begun);
                    self.over = !reusable;
                    if reusable { "finished".into() } else { "finished, closed".into() }
                }
                Event::Failed { status, stale, elsewhere, .. } => {
                    self.over = true;
                    let word = if stale { "stale" } else { "failed" };
                    let elsewhere = if elsewhere { " elsewhere" } else { "" };
                    format!("{word}{elsewhere} {} {}", status.dsn, status.text)
                }
                Event::Warning(text) => format!("warning {text}"),
                Event::Note(text) => format!("note {text}"),
                Event::StartTls => "TLS".into(),
            });
            if next && let Some(count) = self.mails.pop() {
                let recipients = self.recipients[..count].iter().enumerate();
                self.client.begin(&self.envelope, recipients, false, 1.0);
            }
        }
        if let Some(output) = self.client.take_output() {
            self.said.push_str(std::str::from_utf8(&output).unwrap());
            self.said.push('|');
        }
    }
}

/// Play a script. `server`: its replies, in pieces between `|`; the last piece may be `EOF` or `TIMEOUT`.
fn play(settings: ClientSettings, mails: &[usize], server: &str, bytewise: bool) -> Dialogue {
    play_on(Dialogue::new(settings, mails), server, bytewise)
}

fn play_on(mut dialogue: Dialogue, server: &str, bytewise: bool) -> Dialogue {
    for piece in server.split('|') {
        match piece {
            "EOF" => dialogue.client.lost(),
            "TIMEOUT" => {
                let deadline = dialogue.client.deadline().expect("something is awaited");
                dialogue.client.timeout(deadline - 0.1);
                assert_eq!(dialogue.client.next_event(), None, "too early");
                dialogue.client.timeout(deadline);
            }
            piece if bytewise => piece.as_bytes().chunks(1).for_each(|byte| dialogue.hear(byte)),
            piece => dialogue.hear(piece.as_bytes()),
        }
        dialogue.act();
    }
    dialogue
}

struct Case {
    name: &'static str,
    mails: &'static [usize],
    server: &'static str,
    said: &'static str,
    events: &'static [&'static str],
}

#[test]
fn dialogues() {
    let cases = [
        Case {
            name: "one message, pipelined",
            mails: &[1],
            server: "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n354 go\r\n|250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nDATA\r\n|body\r\n.\r\n|",
            events: &["ready", "body", "0 Sent 2.0.0 250 ok", "finished"],
        },
        Case {
            name: "one message, step by step",
            mails: &[1],
            server: "220 mx\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n|354 go\r\n|250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@x>\r\n|DATA\r\n|body\r\n.\r\n|",
            events: &["ready", "body", "0 Sent 2.0.0 250 ok", "finished"],
        },
        Case {
            name: "two messages on one connection",
            mails: &[1, 1],
            server: "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n354 go\r\n|250 ok\r\n|\
                     250 ok\r\n250 ok\r\n354 go\r\n|250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nDATA\r\n|body\r\n.\r\n|\
                   MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nDATA\r\n|body\r\n.\r\n|",
            events: &["ready", "body", "0 Sent 2.0.0 250 ok", "finished", "body", "0 Sent 2.0.0 250 ok", "finished"],
        },
        Case {
            name: "recipients have different verdicts",
            mails: &[3],
            server: "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|\
                     250 ok\r\n450 4.2.1 later\r\n550-5.1.1 no\r\n550 5.1.1 one\r\n250 ok\r\n354 go\r\n|250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRCPT TO:<r1@x>\r\nRCPT TO:<r2@x>\r\n\
                   DATA\r\n|body\r\n.\r\n|",
            events: &[
                "ready",
                "0 Deferred 4.2.1 host mx[192.0.2.1] said: 450 4.2.1 later (in reply to RCPT TO command)",
                "1 Bounced 5.1.1 host mx[192.0.2.1] said: 550-5.1.1 no 550 5.1.1 one (in reply to RCPT TO command)",
                "body",
                "2 Sent 2.0.0 250 ok",
                "finished",
            ],
        },
        Case {
            name: "nobody is taken, DATA is refused, RSET before the next",
            mails: &[1, 1],
            server: "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n550 no\r\n554 no\r\n|\
                     250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n|250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nDATA\r\n|\
                   RSET\r\nMAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nDATA\r\n|body\r\n.\r\n|",
            events: &[
                "ready",
                "0 Bounced 5.0.0 host mx[192.0.2.1] said: 550 no (in reply to RCPT TO command)",
                "finished",
                "body",
                "0 Sent 2.0.0 250 ok",
                "finished",
            ],
        },
        Case {
            name: "nobody is taken, but DATA is: an empty message",
            mails: &[1],
            server: "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n550 no\r\n354 go\r\n|554 no recipients\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nDATA\r\n|.\r\n|",
            events: &[
                "ready",
                "0 Bounced 5.0.0 host mx[192.0.2.1] said: 550 no (in reply to RCPT TO command)",
                "finished",
            ],
        },
        Case {
            name: "the sender is refused, step by step",
            mails: &[2],
            server: "220 mx\r\n|250 mx\r\n|552 5.7.1 not you\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|",
            events: &[
                "ready",
                "0 Bounced 5.7.1 host mx[192.0.2.1] said: 552 5.7.1 not you (in reply to MAIL FROM command)",
                "1 Bounced 5.7.1 host mx[192.0.2.1] said: 552 5.7.1 not you (in reply to MAIL FROM command)",
                "finished",
            ],
        },
        Case {
            name: "DATA is refused",
            mails: &[1],
            server: "220 mx\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n|451 full\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@x>\r\n|DATA\r\n|",
            events: &[
                "ready",
                "0 Deferred 4.0.0 host mx[192.0.2.1] said: 451 full (in reply to DATA command)",
                "finished",
            ],
        },
        Case {
            name: "the message is refused",
            mails: &[2],
            server: "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n|554 5.7.1 spam\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRCPT TO:<r1@x>\r\nDATA\r\n|body\r\n.\r\n|",
            events: &[
                "ready",
                "body",
                "0 Bounced 5.7.1 host mx[192.0.2.1] said: 554 5.7.1 spam (in reply to end of DATA command)",
                "1 Bounced 5.7.1 host mx[192.0.2.1] said: 554 5.7.1 spam (in reply to end of DATA command)",
                "finished",
            ],
        },
        Case {
            name: "EHLO is not known: HELO",
            mails: &[1],
            server: "220 mx\r\n|502 what\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n|354 go\r\n|250 ok\r\n",
            said: "EHLO me\r\n|HELO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@x>\r\n|DATA\r\n|body\r\n.\r\n|",
            events: &["ready", "body", "0 Sent 2.0.0 250 ok", "finished"],
        },
        Case {
            name: "the greeting refuses",
            mails: &[1],
            server: "554 5.7.1 go away\r\n",
            said: "",
            events: &["failed 4.7.1 host mx[192.0.2.1] refused to talk to me: 554 5.7.1 go away"],
        },
        Case {
            name: "the greeting is no greeting",
            mails: &[1],
            server: "354 go\r\n",
            said: "",
            events: &["failed 4.5.0 host mx[192.0.2.1] refused to talk to me: 354 go"],
        },
        Case {
            name: "421 to EHLO",
            mails: &[1],
            server: "220 mx\r\n|421 4.3.2 busy\r\n",
            said: "EHLO me\r\n|",
            events: &["failed 4.3.2 host mx[192.0.2.1] refused to talk to me: 421 4.3.2 busy"],
        },
        Case {
            name: "we talk to ourselves",
            mails: &[1],
            server: "220 mx\r\n|250 ME\r\n",
            said: "EHLO me\r\n|",
            events: &[
                "warning host mx[192.0.2.1]:25 replied to HELO/EHLO with my own hostname me",
                "failed 5.4.6 mail for example.org loops back to myself",
            ],
        },
        Case {
            name: "421 in the middle ends it for who is left",
            mails: &[3],
            server: "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n550 no\r\n421 4.3.2 bye\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRCPT TO:<r1@x>\r\nRCPT TO:<r2@x>\r\n\
                   DATA\r\n|QUIT\r\n|",
            events: &[
                "ready",
                "0 Bounced 5.0.0 host mx[192.0.2.1] said: 550 no (in reply to RCPT TO command)",
                "1 Deferred 4.3.2 host mx[192.0.2.1] said: 421 4.3.2 bye (in reply to RCPT TO command)",
                "2 Deferred 4.3.2 host mx[192.0.2.1] said: 421 4.3.2 bye (in reply to RCPT TO command)",
                "finished, closed",
            ],
        },
        Case {
            name: "421 to the first command of the second message",
            mails: &[1, 1],
            server: "220 mx\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n|354 go\r\n|250 ok\r\n|421 idle too long\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@x>\r\n|DATA\r\n|body\r\n.\r\n|\
                   MAIL FROM:<s@example.org>\r\n|",
            events: &[
                "ready",
                "body",
                "0 Sent 2.0.0 250 ok",
                "finished",
                "stale 4.0.0 host mx[192.0.2.1] said: 421 idle too long (in reply to MAIL FROM command)",
            ],
        },
        Case {
            name: "a reply of the wrong class is a protocol error",
            mails: &[1],
            server: "220 mx\r\n|250 mx\r\n|250 ok\r\n|354 go\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@x>\r\n|QUIT\r\n|",
            events: &[
                "ready",
                "0 Bounced 5.5.0 Protocol error: host mx[192.0.2.1] said: 354 go (in reply to RCPT TO command)",
                "finished, closed",
            ],
        },
        Case {
            name: "a syntax error closes the connection after the message",
            mails: &[2],
            server: "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n501 what\r\n354 go\r\n|250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRCPT TO:<r1@x>\r\nDATA\r\n|\
                   body\r\n.\r\n|QUIT\r\n|",
            events: &[
                "ready",
                "1 Bounced 5.0.0 host mx[192.0.2.1] said: 501 what (in reply to RCPT TO command)",
                "body",
                "0 Sent 2.0.0 250 ok",
                "finished, closed",
            ],
        },
        Case {
            name: "lines that are no reply, with one reply awaited",
            mails: &[1],
            server: "220 mx\r\n|250 mx\r\n|warning: low on fuel\r\n250 ok\r\n|250 ok\r\n|354 go\r\n|250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@x>\r\n|DATA\r\n|body\r\n.\r\n|QUIT\r\n|",
            events: &["ready", "body", "0 Sent 2.0.0 250 ok", "finished, closed"],
        },
        Case {
            name: "lines that are no reply, with several replies awaited",
            mails: &[1],
            server: "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\noops\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nDATA\r\n|",
            events: &[
                "ready",
                "failed 4.5.0 Protocol error: host mx[192.0.2.1] sent a line that is no reply while several replies \
                 were awaited",
            ],
        },
        Case {
            name: "refused before the end of the message is reached",
            mails: &[1],
            server: "220 mx\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n|354 go\r\n|EOF",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@x>\r\n|DATA\r\n|body\r\n.\r\n|",
            events: &[
                "ready",
                "body",
                "failed 4.4.2 lost connection with mx[192.0.2.1] while sending end of data -- message may be sent \
                 more than once",
            ],
        },
        Case {
            name: "no answer to the final dot",
            mails: &[1],
            server: "220 mx\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n|354 go\r\n|TIMEOUT",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@x>\r\n|DATA\r\n|body\r\n.\r\n|",
            events: &[
                "ready",
                "body",
                "failed 4.4.2 conversation with mx[192.0.2.1] timed out while sending end of data -- message may be \
                 sent more than once",
            ],
        },
        Case {
            name: "closed while idle, noticed with the next message",
            mails: &[1, 1],
            server: "220 mx\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n|354 go\r\n|250 ok\r\n|EOF",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@x>\r\n|DATA\r\n|body\r\n.\r\n|\
                   MAIL FROM:<s@example.org>\r\n|",
            events: &[
                "ready",
                "body",
                "0 Sent 2.0.0 250 ok",
                "finished",
                "stale 4.4.2 lost connection with mx[192.0.2.1] while sending MAIL FROM",
            ],
        },
        Case {
            name: "nobody to send to",
            mails: &[0],
            server: "220 mx\r\n|250 mx\r\n",
            said: "EHLO me\r\n|",
            events: &["ready", "finished"],
        },
    ];
    for case in cases {
        for bytewise in [false, true] {
            let dialogue = play(settings(), case.mails, case.server, bytewise);
            // Byte by byte, one write may become two: only the sequence of the octets counts.
            assert_eq!(dialogue.said.replace('|', ""), case.said.replace('|', ""), "{}", case.name);
            assert_eq!(dialogue.events, case.events, "{}", case.name);
            if !bytewise {
                assert_eq!(dialogue.said, case.said, "{}", case.name);
            }
        }
    }
}

#[test]
fn a_lost_connection_and_a_timeout_name_the_stage() {
    for (server, stage) in [
        ("", "receiving the initial server greeting"),
        ("220 mx\r\n", "performing the EHLO handshake"),
        ("220 mx\r\n|502 what\r\n", "performing the HELO handshake"),
        ("220 mx\r\n|250 mx\r\n", "sending MAIL FROM"),
        ("220 mx\r\n|250 mx\r\n|250 ok\r\n", "sending RCPT TO"),
        ("220 mx\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n", "sending DATA command"),
        (
            "220 mx\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n|354 go\r\n",
            "sending end of data -- message may be sent more than once",
        ),
    ] {
        let lost = play(settings(), &[1], &format!("{server}|EOF"), false);
        let text = format!("failed 4.4.2 lost connection with mx[192.0.2.1] while {stage}");
        assert_eq!(lost.events.last(), Some(&text));
        let hangs = play(settings(), &[1], &format!("{server}|TIMEOUT"), false);
        let text = format!("failed 4.4.2 conversation with mx[192.0.2.1] timed out while {stage}");
        assert_eq!(hangs.events.last(), Some(&text));
    }
}

#[test]
fn bytes_that_answer_no_command_end_the_connection() {
    for (server, events) in [
        ("220 mx\r\n250 mx\r\n", vec!["failed 4.5.0 host mx[192.0.2.1] spoke out of turn"]),
        ("220 mx\r\n|250 mx\r\n250 ok\r\n", vec!["failed 4.5.0 host mx[192.0.2.1] spoke out of turn"]),
        (
            "220 mx\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n|354 go\r\n250 ok\r\n",
            vec!["ready", "failed 4.5.0 host mx[192.0.2.1] spoke out of turn"],
        ),
        (
            "220 mx\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n|354 go\r\n|250 ok\r\n421 bye\r\n",
            vec!["ready", "body", "0 Sent 2.0.0 250 ok", "finished, closed"],
        ),
        (
            "220 mx\r\n|250 mx\r\n|250 ok\r\n|250 ok\r\n|354 go\r\n|250 ok\r\n|421 bye\r\n",
            vec![
                "ready",
                "body",
                "0 Sent 2.0.0 250 ok",
                "finished",
                "failed 4.5.0 host mx[192.0.2.1] spoke out of turn",
            ],
        ),
    ] {
        assert_eq!(play(settings(), &[1], server, false).events, events, "{server:?}");
    }
    // All replies at once, before any command.
    let flood = "220 mx\r\n".to_string() + &"250 ok\r\n".repeat(1000);
    let dialogue = play(settings(), &[1], &flood, false);
    assert_eq!((dialogue.said.as_str(), dialogue.verdicts.len()), ("", 0));
}

#[test]
fn a_message_above_the_size_limit_is_not_sent() {
    let mut dialogue = Dialogue::new(settings(), &[]);
    dialogue.hear(b"220 mx\r\n");
    dialogue.hear(b"250-mx\r\n250 SIZE 1000\r\n");
    Arc::make_mut(&mut dialogue.envelope).size_octets = 1001;
    let recipients = dialogue.recipients[..1].iter().enumerate();
    dialogue.client.begin(&dialogue.envelope, recipients, false, 1.0);
    dialogue.act();
    let text = "0 Bounced 5.3.4 message size 1001 exceeds size limit 1000 of server mx[192.0.2.1]";
    assert_eq!(dialogue.events, ["ready", text, "finished"]);
    let recipients = dialogue.recipients[..1].iter().enumerate();
    dialogue.client.begin(&dialogue.envelope, recipients, true, 1.0);
    dialogue.act();
    assert_eq!(
        dialogue.events.last().unwrap(),
        "failed elsewhere 5.6.7 SMTPUTF8 is required, but was not offered by host mx[192.0.2.1]"
    );
}

#[test]
fn a_bad_address_bounces_its_recipient_only() {
    let mut dialogue = Dialogue::new(settings(), &[]);
    dialogue.recipients[0].address = "a\r\nDATA@x".into();
    dialogue.mails = vec![2];
    dialogue.hear(b"220 mx\r\n");
    dialogue.hear(b"250-mx\r\n250 PIPELINING\r\n");
    assert_eq!(dialogue.events, ["ready", "0 Bounced 5.1.3 bad recipient address syntax"]);
    assert!(dialogue.said.ends_with("RCPT TO:<r1@x>\r\nDATA\r\n|"), "{}", dialogue.said);
}

#[test]
fn lmtp_has_a_reply_for_each_recipient() {
    let lmtp = ClientSettings { protocol: Protocol::Lmtp, ..settings() };
    let server = "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n|\
                  250 one\r\n|452 two\r\n";
    for bytewise in [false, true] {
        let dialogue = play(lmtp.clone(), &[3], server, bytewise);
        assert!(dialogue.said.starts_with("LHLO me\r\n|MAIL"));
        let text = "host mx[192.0.2.1] said:";
        assert_eq!(
            dialogue.events[1..],
            [
                format!("1 Bounced 5.0.0 {text} 550 no (in reply to RCPT TO command)"),
                "body".into(),
                "0 Sent 2.0.0 250 one".into(),
                format!("2 Deferred 4.0.0 {text} 452 two (in reply to end of DATA command)"),
                "finished".into(),
            ]
        );
    }
}

#[test]
fn a_large_message_is_sent_in_pieces_and_an_early_refusal_ends_it() {
    let mut client = Client::new(Arc::new(settings()), peer(), 0.0);
    let recipients = [Recipient::plain("r@x")];
    client.receive(b"220 mx\r\n", 0.0);
    client.receive(b"250 mx\r\n", 0.0);
    client.begin(&envelope(), recipients.iter().enumerate(), false, 0.0);
    for reply in ["250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
        client.receive(reply.as_bytes(), 0.0);
    }
    client.take_output();
    client.body(b"no line end".to_vec(), false, 10.0);
    assert_eq!(client.take_output().unwrap(), b"no line end");
    assert_eq!(client.deadline(), Some(60.0));
    client.receive(b"552 5.3.4 too much\r\n", 11.0);
    client.body(b"more".to_vec(), true, 12.0);
    assert_eq!(client.take_output(), None, "nothing more, and no QUIT into the message");
    let events: Vec<_> = std::iter::from_fn(|| client.next_event()).collect();
    assert!(matches!(&events[2], Event::Recipient { status, .. } if status.dsn.to_string() == "5.3.4"), "{events:?}");
    assert_eq!(events[3], Event::Finished { reusable: false });
}

#[test]
fn accepted_octets_extend_the_deadline() {
    for (min_data_rate, steps) in [
        // data_xfer is 50 s from each piece, or from the last accepted octets.
        (None, [(101.0, 151.0), (140.0, 190.0), (180.0, 230.0)]),
        // 1,000 octets at 100 a second are 10 s more, never more than 50 s from now.
        (Some(100.0), [(101.0, 151.0), (140.0, 161.0), (155.0, 171.0)]),
    ] {
        let mut client = Client::new(Arc::new(ClientSettings { min_data_rate, ..settings() }), peer(), 0.0);
        let recipient = Recipient::plain("a@x");
        for piece in [&b"220 mx\r\n"[..], b"250 mx\r\n"] {
            client.receive(piece, 0.0);
        }
        client.begin(&envelope(), [(0, &recipient)].into_iter(), false, 90.0);
        for piece in [&b"250 ok\r\n"[..], b"250 ok\r\n", b"354 go\r\n"] {
            client.receive(piece, 100.0);
        }
        assert_eq!(client.deadline(), Some(150.0));
        client.body(vec![b'x'; 5000], false, 100.0);
        for (now, deadline) in steps {
            client.progressed(1000, now);
            assert_eq!(client.deadline(), Some(deadline), "{min_data_rate:?} at {now}");
        }
        client.body(b"x\r\n".to_vec(), false, 170.0);
        assert_eq!(client.deadline(), Some(if min_data_rate.is_none() { 220.0 } else { 171.0 }));
        client.body(b"x\r\n".to_vec(), true, 170.0);
        // data_done is 60 s.
        assert_eq!(client.deadline(), Some(230.0));
        client.progressed(1000, 200.0);
        assert_eq!(client.deadline(), Some(260.0));
    }
}

#[test]
fn long_lines_are_broken_in_each_message_by_itself() {
    let mut dialogue = Dialogue::new(ClientSettings { line_length_limit: 12, ..settings() }, &[]);
    dialogue.hear(b"220 mx\r\n");
    dialogue.hear(b"250 mx\r\n");
    let mut body = |content: &[u8]| {
        let recipients = dialogue.recipients[..1].iter().enumerate();
        dialogue.client.begin(&dialogue.envelope, recipients, false, 1.0);
        for piece in ["250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
            dialogue.client.receive(piece.as_bytes(), 1.0);
        }
        dialogue.client.take_output();
        dialogue.client.body(content.to_vec(), true, 1.0);
        dialogue.client.receive(b"250 ok\r\n", 1.0);
        String::from_utf8(dialogue.client.take_output().unwrap()).unwrap()
    };
    assert_eq!(body(b"1234567890123"), "123456789012\r\n 3\r\n.\r\n");
    assert_eq!(body(b"..34567890123\r\n"), "..34567890123\r\n.\r\n");
}

#[test]
fn the_final_dot_has_its_own_line() {
    for (pieces, expected) in [
        (vec!["a\r\n"], "a\r\n.\r\n"),
        (vec!["a"], "a\r\n.\r\n"),
        (vec![""], ".\r\n"),
        (vec!["a\r\n", ""], "a\r\n.\r\n"),
        (vec!["a", ""], "a\r\n.\r\n"),
    ] {
        let mut dialogue = Dialogue::new(settings(), &[]);
        dialogue.hear(b"220 mx\r\n");
        dialogue.hear(b"250 mx\r\n");
        let client = &mut dialogue.client;
        client.begin(&dialogue.envelope, dialogue.recipients[..1].iter().enumerate(), false, 0.0);
        for reply in ["250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
            client.receive(reply.as_bytes(), 0.0);
        }
        client.take_output();
        let mut sent = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            client.body(piece.as_bytes().to_vec(), at + 1 == pieces.len(), 0.0);
            sent.extend(client.take_output().unwrap_or_default());
        }
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
    }
}

#[test]
fn quit_follows_the_final_dot_and_its_reply_is_no_verdict() {
    let sent = "0 Sent 2.0.0 250 ok";
    let text = "a line that is no reply while several replies were awaited";
    let unsure = format!("failed 4.5.0 Protocol error: host mx[192.0.2.1] sent {text}");
    for (answer, last) in [
        ("250 ok\r\n221 bye\r\n", vec![sent, "finished, closed"]),
        ("250 ok\r\n", vec![sent, "finished, closed"]),
        // The reply to the dot is missing: the next reply does not answer the dot.
        ("oops\r\n221 bye\r\n", vec![unsure.as_str()]),
    ] {
        for bytewise in [false, true] {
            let mut dialogue = play(settings(), &[], "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n", bytewise);
            dialogue.client.set_last_transaction(true);
            let recipients = dialogue.recipients[..1].iter().enumerate();
            dialogue.client.begin(&dialogue.envelope, recipients, false, 1.0);
            dialogue.act();
            dialogue.hear(b"250 ok\r\n250 ok\r\n354 go\r\n");
            if bytewise {
                answer.as_bytes().chunks(1).for_each(|byte| dialogue.hear(byte));
            } else {
                dialogue.hear(answer.as_bytes());
            }
            assert!(dialogue.said.ends_with("body\r\n.\r\nQUIT\r\n|"), "{}", dialogue.said);
            assert_eq!(dialogue.events[2..], last);
        }
    }
}

#[test]
fn rset_comes_before_quit_if_the_server_wants_no_message() {
    const HELLO: &str = "220 mx ESMTP\r\n|250-mx\r\n250 PIPELINING\r\n|";
    const PLAIN: &str = "220 mx ESMTP\r\n|250 mx\r\n|";
    let play = |last: bool, server: &str| {
        let mut dialogue = Dialogue::new(settings(), &[1]);
        dialogue.client.set_last_transaction(last);
        play_on(dialogue, server, false)
    };
    for (last, server, said) in [
        (true, format!("{PLAIN}250 ok\r\n|550 no\r\n"), "RCPT TO:<r0@x>\r\n|RSET\r\n|"),
        (true, format!("{PLAIN}550 no\r\n"), "MAIL FROM:<s@example.org>\r\n|RSET\r\n|"),
        (true, format!("{PLAIN}250 ok\r\n|250 ok\r\n|554 no\r\n"), "DATA\r\n|RSET\r\n|"),
        (true, format!("{HELLO}250 ok\r\n550 no\r\n554 no\r\n"), "DATA\r\n|RSET\r\n|"),
        (true, format!("{HELLO}250 ok\r\n550 no\r\n354 go\r\n|554 no\r\n"), "|.\r\n|"),
        (false, format!("{PLAIN}250 ok\r\n|550 no\r\n"), "RCPT TO:<r0@x>\r\n|"),
    ] {
        let dialogue = play(last, &server);
        assert!(dialogue.said.ends_with(said), "{server}: {}", dialogue.said);
        assert_eq!(dialogue.verdicts.len(), 1, "the verdict waits for nothing");
        let resets = said.contains("RSET");
        assert_eq!(dialogue.events.iter().any(|event| event == "finished"), !resets, "{:?}", dialogue.events);
        let ends = [("250 ok\r\n", "finished"), ("421 bye\r\n", "finished, closed"), ("EOF", "failed 4.4.2")];
        for (end, event) in ends.into_iter().filter(|_| resets) {
            let dialogue = play(last, &format!("{server}|{end}"));
            let found = dialogue.events.last().cloned().unwrap_or_default();
            assert!(found.starts_with(event), "{end}: {found}");
            assert_eq!(dialogue.verdicts.len(), 1);
        }
    }
}
