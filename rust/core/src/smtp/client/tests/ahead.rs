//! Transactions that are begun ahead: each keeps its own verdict, or has none.

use super::*;

/// The server's replies up to the body of the first message.
const UP_TO_BODY: &str = "220 mx\r\n|250-mx\r\n250 PIPELINING\r\n|250 ok\r\n250 ok\r\n354 go\r\n|";

/// Play two messages, with one and with two recipients; the second one is begun ahead. `answers`: the replies to the
/// end of the first message and to the commands of the second one.
fn play_ahead(protocol: Protocol, answers: &[&[u8]], end: &str) -> Dialogue {
    let mut dialogue = Dialogue::new(ClientSettings { protocol, ..settings() }, &[1, 2]);
    dialogue.ahead = true;
    for piece in UP_TO_BODY.split('|') {
        dialogue.hear(piece.as_bytes());
    }
    assert!(
        dialogue
            .said
            .ends_with("body\r\n.\r\nMAIL FROM:<s@example.org>\r\nRCPT TO:<r0@x>\r\nRCPT TO:<r1@x>\r\nDATA\r\n|")
    );
    for piece in answers {
        dialogue.hear(piece);
    }
    match end {
        "EOF" => dialogue.client.lost(),
        "TIMEOUT" => dialogue.client.timeout(1e9),
        _ => {}
    }
    dialogue.act();
    dialogue
}

#[test]
fn each_message_keeps_its_own_verdict_when_the_next_one_is_begun_ahead() {
    let envelope = "250 mail\r\n250 r0\r\n250 r1\r\n354 go\r\n";
    let sent = "0 Sent 2.0.0 250 a";
    let deferred = "0 Deferred 4.0.0 host mx[192.0.2.1] said: 450 a (in reply to end of DATA command)";
    let bounced = "0 Bounced 5.0.0 host mx[192.0.2.1] said: 550 a (in reply to end of DATA command)";
    let shut = "0 Deferred 4.0.0 host mx[192.0.2.1] said: 421 a (in reply to end of DATA command)";
    let lost = "failed 4.4.2 lost connection with mx[192.0.2.1] while";
    let at_dot = "sending end of data -- message may be sent more than once";
    let hung = "failed 4.4.2 conversation with mx[192.0.2.1] timed out while";
    let stale = |text: &str| format!("stale 4.0.0 host mx[192.0.2.1] said: {text}");
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_string()).collect::<Vec<_>>();
    for (dot, answers, end, events) in [
        // The second message is accepted like any other.
        ("250 a\r\n", envelope, "", owned(&[sent, "finished", "body"])),
        (
            "250 a\r\n",
            "250 mail\r\n550 r0\r\n250 r1\r\n354 go\r\n",
            "",
            owned(&[
                sent,
                "finished",
                "0 Bounced 5.0.0 host mx[192.0.2.1] said: 550 r0 (in reply to RCPT TO command)",
                "body",
            ]),
        ),
        // A refusal of the first message does not apply to the second one.
        ("450 a\r\n", envelope, "", owned(&[deferred, "finished", "body"])),
        ("550 a\r\n", envelope, "", owned(&[bounced, "finished", "body"])),
        // The server needs RSET after a refusal: the second message needs another connection.
        (
            "550 a\r\n",
            "503 nested MAIL\r\n503 a\r\n503 b\r\n503 c\r\n",
            "",
            vec![
                bounced.into(),
                "finished".into(),
                stale("503 nested MAIL (in reply to MAIL FROM command)").replace("4.0.0", "5.0.0"),
            ],
        ),
        // All recipients of the second message are refused.
        (
            "250 a\r\n",
            "250 mail\r\n450 r0\r\n550 r1\r\n554 nobody\r\n",
            "",
            owned(&[
                sent,
                "finished",
                "0 Deferred 4.0.0 host mx[192.0.2.1] said: 450 r0 (in reply to RCPT TO command)",
                "1 Bounced 5.0.0 host mx[192.0.2.1] said: 550 r1 (in reply to RCPT TO command)",
                "finished",
            ]),
        ),
        // The server closes after the first message, before the second one, within it.
        ("421 a\r\n", "", "EOF", owned(&[shut, "finished, closed"])),
        ("500 a\r\n", envelope, "", owned(&[&bounced.replace("550", "500"), "finished, closed"])),
        (
            "250 a\r\n",
            "421 b\r\n",
            "EOF",
            vec![sent.into(), "finished".into(), stale("421 b (in reply to MAIL FROM command)")],
        ),
        (
            "250 a\r\n",
            "250 mail\r\n421 b\r\n",
            "EOF",
            owned(&[
                sent,
                "finished",
                "0 Deferred 4.0.0 host mx[192.0.2.1] said: 421 b (in reply to RCPT TO command)",
                "1 Deferred 4.0.0 host mx[192.0.2.1] said: 421 b (in reply to RCPT TO command)",
                "finished, closed",
            ]),
        ),
        // The connection ends or hangs at every point.
        ("", "", "EOF", owned(&[&format!("{lost} {at_dot}")])),
        ("", "", "TIMEOUT", owned(&[&format!("{hung} {at_dot}")])),
        ("250 a", "", "EOF", owned(&[&format!("{lost} {at_dot}")])),
        (
            "250 a\r\n",
            "",
            "EOF",
            owned(&[sent, "finished", &format!("{lost} sending MAIL FROM").replace("failed", "stale")]),
        ),
        (
            "250 a\r\n",
            "",
            "TIMEOUT",
            owned(&[sent, "finished", &format!("{hung} sending MAIL FROM").replace("failed", "stale")]),
        ),
        ("250 a\r\n", "250 mail\r\n", "EOF", owned(&[sent, "finished", &format!("{lost} sending RCPT TO")])),
        ("250 a\r\n", "250 mail\r\n550 r0\r\n", "EOF", owned(&[sent, "finished", &format!("{lost} sending RCPT TO")])),
        (
            "250 a\r\n",
            "250 mail\r\n250 r0\r\n250 r1\r\n",
            "TIMEOUT",
            owned(&[sent, "finished", &format!("{hung} sending DATA command")]),
        ),
        // One extra reply to the first message puts all others out of step: they are no verdicts.
        (
            "250 a\r\n250 more\r\n",
            "250 mail\r\n250 r0\r\n550 r1\r\n354 go\r\n",
            "",
            vec![sent.into(), "finished".into(), stale("550 r1 (in reply to DATA command)").replace("4.0.0", "5.0.0")],
        ),
        (
            "250 a\r\n250 more\r\n",
            "250 mail\r\n550 r0\r\n250 r1\r\n354 go\r\n",
            "",
            vec![
                sent.into(),
                "finished".into(),
                stale("250 r1 (in reply to DATA command)").replace("stale 4.0.0", "stale 5.5.0 Protocol error:"),
            ],
        ),
        (
            "550 a\r\n550 more\r\n",
            envelope,
            "",
            vec![
                bounced.into(),
                "finished".into(),
                stale("550 more (in reply to MAIL FROM command)").replace("4.0.0", "5.0.0"),
            ],
        ),
        // A line that is no reply while several replies are awaited.
        (
            "oops\r\n",
            "",
            "",
            owned(&[
                "failed 4.5.0 Protocol error: host mx[192.0.2.1] sent a line that is no reply while several replies were awaited",
            ]),
        ),
    ] {
        let stream = [dot, answers].concat().into_bytes();
        let mut splits: Vec<Vec<&[u8]>> = (0..=stream.len()).map(|at| vec![&stream[..at], &stream[at..]]).collect();
        splits.push(stream.chunks(1).collect());
        for pieces in splits {
            let dialogue = play_ahead(Protocol::Smtp, &pieces, end);
            assert_eq!(dialogue.events[2..], events, "{dot:?} {answers:?} {end} {pieces:?}");
        }
    }
}

#[test]
fn lmtp_has_all_replies_to_a_message_before_the_next_one() {
    let answers = b"250 a\r\n250 mail\r\n250 r0\r\n450 r1\r\n354 go\r\n";
    for at in 0..=answers.len() {
        let mut dialogue = play_ahead(Protocol::Lmtp, &[&answers[..at], &answers[at..]], "");
        dialogue.hear(b"550 b\r\n");
        assert_eq!(dialogue.verdicts, [(0, Outcome::Sent), (1, Outcome::Deferred), (0, Outcome::Bounced)], "{at}");
    }
}

#[test]
fn a_transaction_that_needs_a_reply_first_is_not_begun_ahead() {
    let mut wide = envelope();
    wide.smtputf8 = true;
    let mut large = envelope();
    large.size_octets = 1001;
    let mut bad = envelope();
    bad.sender = "a\nb".into();
    let good = envelope();
    let (one, nobody) = ([Recipient::plain("a@x")], [] as [Recipient; 0]);
    let spoilt = [Recipient::plain("a@x"), Recipient::plain("b\r\n@x")];
    for (envelope, recipients, keywords, last, begun) in [
        (&good, &one[..], "PIPELINING", false, true),
        (&good, &one[..], "PIPELINING", true, false),
        (&good, &one[..], "8BITMIME", false, false),
        (&wide, &one[..], "PIPELINING", false, false),
        (&large, &one[..], "PIPELINING", false, false),
        (&bad, &one[..], "PIPELINING", false, false),
        (&good, &nobody[..], "PIPELINING", false, false),
        (&good, &spoilt[..], "PIPELINING", false, false),
    ] {
        let mut dialogue = Dialogue::new(settings(), &[1]);
        dialogue.client.set_last_transaction(last);
        for piece in ["220 mx\r\n", &format!("250-mx\r\n250-SIZE 1000\r\n250 {keywords}\r\n")] {
            dialogue.hear(piece.as_bytes());
        }
        assert!(!dialogue.client.begin_ahead(envelope, recipients.iter().enumerate()), "the message is not sent");
        for piece in ["250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
            dialogue.hear(piece.as_bytes());
        }
        let begins = dialogue.client.begin_ahead(envelope, recipients.iter().enumerate());
        assert_eq!(begins, begun, "{keywords} {last} {envelope:?}");
        assert!(!dialogue.client.begin_ahead(envelope, recipients.iter().enumerate()), "once is enough");
        dialogue.hear(b"250 a\r\n");
        assert_eq!(dialogue.client.is_idle(), !begun && !last);
    }
}

#[test]
fn an_abandoned_transaction_gets_no_message() {
    let mut dialogue = play_ahead(Protocol::Smtp, &[], "");
    dialogue.client.abandon_ahead();
    dialogue.hear(b"250 a\r\n250 mail\r\n250 r0\r\n250 r1\r\n354 go\r\n");
    assert_eq!(dialogue.events[2..], ["0 Sent 2.0.0 250 a", "finished, closed"]);
    assert!(dialogue.said.ends_with("DATA\r\n|QUIT\r\n|"));
}

#[test]
fn a_transaction_begun_ahead_gains_time_if_verdicts_are_fast() {
    for (commands_s, verdict_s, gains) in
        [(0.0, 0.0, true), (0.0, 0.002, true), (0.0, 0.01, false), (0.1, 0.12, true), (0.1, 0.2, false)]
    {
        let mut client = Client::new(Arc::new(settings()), peer(), 0.0);
        let recipient = Recipient::plain("a@x");
        client.receive(b"220 mx\r\n", 0.0);
        client.receive(b"250-mx\r\n250 PIPELINING\r\n", 0.0);
        client.begin(&envelope(), [(0, &recipient)].into_iter(), false, 1.0);
        client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n", 1.0 + commands_s);
        assert!(!client.gains_by_going_ahead(2.0), "nothing is known yet");
        client.body(b"x\r\n".to_vec(), true, 2.0);
        client.receive(b"250 ok\r\n", 2.0 + verdict_s);
        client.begin(&envelope(), [(0, &recipient)].into_iter(), false, 3.0);
        assert_eq!(client.gains_by_going_ahead(3.0), gains, "{commands_s} {verdict_s}");
        assert!(!client.gains_by_going_ahead(3.2), "it is late");
    }
}
