//! Probes: no DATA, a verdict for each RCPT, and a connection that the next message may use.

use super::*;
use crate::mail::trace::Trace;

/// Return the output and the events of these transactions: whether it is a probe, and its number of recipients.
fn play(transactions: &[(bool, usize)], protocol: Protocol, server: &str, bytewise: bool) -> (String, Vec<String>) {
    let recipients: Vec<Recipient> = (0..3).map(|n| Recipient::plain(&format!("r{n}@x"))).collect();
    let mut client = Client::new(Arc::new(ClientSettings { protocol, ..settings() }), peer(), 0.0);
    let (mut said, mut events, mut left) = (String::new(), Vec::new(), transactions.iter());
    let mut act = |client: &mut Client| {
        while let Some(event) = client.next_event() {
            let mut next = false;
            events.push(match event {
                Event::Ready => {
                    next = true;
                    "ready".into()
                }
                Event::Body => {
                    client.body(b"body\r\n".to_vec(), true, 1.0);
                    "body".into()
                }
                Event::Recipient { position, status } => {
                    format!("{position} {:?} {} {}", status.outcome, status.dsn, status.text)
                }
                Event::Finished { reusable } => {
                    next = reusable;
                    if reusable { "finished".into() } else { "finished, closed".into() }
                }
                Event::Failed { stale, .. } => if stale { "stale" } else { "failed" }.into(),
                Event::Warning(text) | Event::Note(text) => format!("warning {text}"),
                Event::StartTls => "TLS".into(),
            });
            if next && let Some((is_probe, count)) = left.next() {
                let trace = if *is_probe { Trace::Probe } else { Trace::Off };
                let envelope = Envelope { trace, ..envelope() };
                client.begin(&envelope, recipients[..*count].iter().enumerate(), false, 1.0);
            }
        }
        if let Some(output) = client.take_output() {
            said.push_str(std::str::from_utf8(&output).unwrap());
            said.push('|');
        }
    };
    for piece in server.split('|') {
        match piece {
            "EOF" => client.lost(),
            "TIMEOUT" => client.timeout(client.deadline().expect("something is awaited")),
            _ => {
                for octets in piece.as_bytes().chunks(if bytewise { 1 } else { piece.len().max(1) }) {
                    client.receive(octets, 1.0);
                    act(&mut client);
                }
            }
        }
        act(&mut client);
    }
    assert!(!said.contains("DATA") || transactions.iter().any(|(is_probe, _)| !is_probe));
    (said, events)
}

struct Case {
    name: &'static str,
    transactions: &'static [(bool, usize)],
    server: &'static str,
    said: &'static str,
    events: &'static [&'static str],
}

const REFUSED: &str = "1 Bounced 5.1.1 host mx[192.0.2.1] said: 550 5.1.1 no (in reply to RCPT TO command)";

#[test]
fn a_probe_never_sends_data_and_leaves_a_clean_connection() {
    let cases = [
        Case {
            name: "pipelined",
            transactions: &[(true, 2)],
            server: "220 mx ESMTP\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 2.1.5 fine\r\n550 5.1.1 no\r\n250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRCPT TO:<r1@x>\r\nRSET\r\n|",
            events: &["ready", "0 Sent 2.1.5 250 2.1.5 fine", REFUSED, "finished"],
        },
        Case {
            name: "step by step",
            transactions: &[(true, 2)],
            server: "220 mx ESMTP\r\n|250 mx\r\n|250 ok\r\n|250 2.1.5 fine\r\n|550 5.1.1 no\r\n|250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@x>\r\n|RCPT TO:<r1@x>\r\n|RSET\r\n|",
            events: &["ready", "0 Sent 2.1.5 250 2.1.5 fine", REFUSED, "finished"],
        },
        Case {
            name: "mail after a probe",
            transactions: &[(true, 1), (false, 1)],
            server: "220 mx ESMTP\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n250 ok\r\n|\
                     250 ok\r\n250 ok\r\n354 go\r\n|250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRSET\r\n|\
                   MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nDATA\r\n|body\r\n.\r\n|",
            events: &["ready", "0 Sent 2.0.0 250 ok", "finished", "body", "0 Sent 2.0.0 250 ok", "finished"],
        },
        Case {
            name: "a probe after a refused message",
            transactions: &[(false, 1), (true, 1)],
            server: "220 mx ESMTP\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n354 go\r\n|554 no\r\n|\
                     250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nDATA\r\n|body\r\n.\r\n|\
                   RSET\r\nMAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRSET\r\n|",
            events: &[
                "ready",
                "body",
                "0 Bounced 5.0.0 host mx[192.0.2.1] said: 554 no (in reply to end of DATA command)",
                "finished",
                "0 Sent 2.0.0 250 ok",
                "finished",
            ],
        },
        Case {
            name: "the sender is refused",
            transactions: &[(true, 1), (true, 1)],
            server: "220 mx ESMTP\r\n|250 mx\r\n|450 4.7.1 later\r\n|250 ok\r\n|250 ok\r\n|250 ok\r\n|250 ok\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RSET\r\n|MAIL FROM:<s@example.org>\r\n|\
                   RCPT TO:<r0@x>\r\n|RSET\r\n|",
            events: &[
                "ready",
                "0 Deferred 4.7.1 host mx[192.0.2.1] said: 450 4.7.1 later (in reply to MAIL FROM command)",
                "finished",
                "0 Sent 2.0.0 250 ok",
                "finished",
            ],
        },
        Case {
            name: "RSET is refused: the connection ends, the verdict stays",
            transactions: &[(true, 1), (false, 1)],
            server: "220 mx ESMTP\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n500 what\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRSET\r\n|QUIT\r\n|",
            events: &["ready", "0 Sent 2.0.0 250 ok", "finished, closed"],
        },
        Case {
            name: "421 instead of a verdict",
            transactions: &[(true, 2)],
            server: "220 mx ESMTP\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n421 4.3.2 bye\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRCPT TO:<r1@x>\r\nRSET\r\n|QUIT\r\n|",
            events: &[
                "ready",
                "0 Sent 2.0.0 250 ok",
                "1 Deferred 4.3.2 host mx[192.0.2.1] said: 421 4.3.2 bye (in reply to RCPT TO command)",
                "finished, closed",
            ],
        },
        Case {
            name: "the connection breaks before RSET is answered",
            transactions: &[(true, 1)],
            server: "220 mx ESMTP\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n|EOF",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRSET\r\n|",
            events: &["ready", "0 Sent 2.0.0 250 ok", "failed"],
        },
        Case {
            name: "RSET is never answered",
            transactions: &[(true, 1)],
            server: "220 mx ESMTP\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n|TIMEOUT",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRSET\r\n|",
            events: &["ready", "0 Sent 2.0.0 250 ok", "failed"],
        },
    ];
    for case in cases {
        for bytewise in [false, true] {
            let (said, events) = play(case.transactions, Protocol::Smtp, case.server, bytewise);
            assert_eq!((&*said, &*events), (case.said, &strings(case.events)[..]), "{}", case.name);
        }
    }
}

#[test]
fn an_lmtp_server_is_probed_the_same_way() {
    let server = "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n";
    let (said, events) = play(&[(true, 2)], Protocol::Lmtp, server, false);
    assert_eq!(said, "LHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRCPT TO:<r1@x>\r\nRSET\r\n|");
    assert_eq!(events, ["ready", "0 Sent 2.0.0 250 ok", REFUSED, "finished"]);
}

#[test]
fn a_probe_is_not_begun_behind_a_message() {
    let recipients = [Recipient::plain("r@x")];
    let mut client = Client::new(Arc::new(settings()), peer(), 0.0);
    client.receive(b"220 mx ESMTP\r\n", 0.0);
    client.receive(b"250-mx\r\n250 PIPELINING\r\n", 0.0);
    client.begin(&envelope(), recipients.iter().enumerate(), false, 0.0);
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n", 0.0);
    client.body(b"body\r\n".to_vec(), true, 0.0);
    assert!(client.may_begin_ahead());
    let probe = Envelope { trace: Trace::Probe, ..envelope() };
    assert!(!client.begin_ahead(&probe, recipients.iter().enumerate()));
    assert!(client.begin_ahead(&envelope(), recipients.iter().enumerate()));
}

fn strings(events: &[&str]) -> Vec<String> {
    events.iter().map(|text| (*text).to_owned()).collect()
}
