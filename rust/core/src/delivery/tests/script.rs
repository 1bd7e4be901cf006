//! Whole dialogues as tables: the server's replies, the session's commands, and the status of each recipient.

use super::*;
use crate::delivery::session::NotAccepted;

const ANSWERS: &str = "250 ok\r\n250 ok\r\n354 go\r\n";
const COMMANDS: &str = "MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@example.org>\r\nDATA\r\n|";
const SENT: &str = "sent 2.0.0 250 ok";
const LOST_AT_DOT: &str = "deferred 4.4.2 lost connection with mx[192.0.2.1] while sending end of data -- message may be \
                           sent more than once";

/// One dialogue. The session delivers the first job; the script's words `DELIVER` and `FOLLOW` are for the next ones.
struct Case {
    name: &'static str,
    /// The number of recipients of each job.
    jobs: &'static [u32],
    /// Another server is left to try.
    others: bool,
    /// Pieces between `|`: octets of the server, or `DELIVER`, `FOLLOW`, `WITHDRAW`, `EOF`, `TIMEOUT`, `DAMAGE` (of the
    /// last job's content), `UNLINK` (the queue's segments).
    script: &'static str,
    said: &'static str,
    ends: &'static [Next],
    /// Of each job, each recipient.
    statuses: &'static [&'static [&'static str]],
}

fn pieces(script: &str) -> impl Iterator<Item = String> {
    script.split('|').map(|piece| {
        piece
            .replace("<greeting>", "220 mx\r\n")
            .replace("<ehlo>", "250-mx\r\n250 PIPELINING\r\n")
            .replace("<answers>", ANSWERS)
            .replace("<ok>", "250 ok\r\n")
    })
}

/// Play a case; the server's pieces in steps of this size.
fn play(case: &Case, step: usize) -> (Driver, Vec<Arc<Work>>, Queue) {
    let queue = Queue::new();
    let jobs: Vec<_> =
        case.jobs.iter().map(|recipients| queue.job(*recipients, b"A: 1\r\n\r\nx\r\n", |_| {})).collect();
    let mut driver = Driver::new();
    let mut others = jobs.iter();
    driver.deliver(others.next().unwrap(), !case.others, true);
    for piece in pieces(case.script) {
        match &*piece {
            "DELIVER" => driver.deliver(others.next().unwrap(), !case.others, true),
            "FOLLOW" => driver.follow(others.next().unwrap(), !case.others),
            "WITHDRAW" => driver.session.withdraw(),
            "EOF" => driver.lose(),
            "TIMEOUT" => {
                let deadline = driver.session.deadline().expect("the session waits");
                assert_eq!(driver.session.timeout(deadline - 0.1, HANDOFF_US), Next::More, "too early");
                let next = driver.session.timeout(deadline, HANDOFF_US);
                driver.act(next);
            }
            "DAMAGE" => queue.damage(jobs.last().unwrap()),
            "UNLINK" => queue.directory.files("incoming").iter().for_each(|path| std::fs::remove_file(path).unwrap()),
            piece => piece.as_bytes().chunks(step).for_each(|octets| driver.hear(octets)),
        }
    }
    (driver, jobs, queue)
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "one job; the connection is kept",
            jobs: &[1],
            others: false,
            script: "<greeting>|<ehlo>|<answers>|<ok>",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n|",
            ends: &[Next::Finished],
            statuses: &[&[SENT]],
        },
        Case {
            name: "recipients differ",
            jobs: &[3],
            others: false,
            script: "<greeting>|<ehlo>|<ok>450 4.2.1 later\r\n550 5.1.1 no\r\n<ok>354 go\r\n|<ok>",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@example.org>\r\nRCPT TO:<r1@example.org>\r\n\
                   RCPT TO:<r2@example.org>\r\nDATA\r\n|A: 1\r\n\r\nx\r\n.\r\n|",
            ends: &[Next::Finished],
            statuses: &[&[
                "deferred 4.2.1 host mx[192.0.2.1] said: 450 4.2.1 later (in reply to RCPT TO command)",
                "bounced 5.1.1 host mx[192.0.2.1] said: 550 5.1.1 no (in reply to RCPT TO command)",
                SENT,
            ]],
        },
        Case {
            name: "with another server left, a soft reply leaves the recipient open",
            jobs: &[2],
            others: true,
            script: "<greeting>|<ehlo>|<ok>450 4.2.1 later\r\n550 5.1.1 no\r\n554 nobody\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@example.org>\r\nRCPT TO:<r1@example.org>\r\n\
                   DATA\r\n|",
            ends: &[Next::Finished],
            statuses: &[&["-", "bounced 5.1.1 host mx[192.0.2.1] said: 550 5.1.1 no (in reply to RCPT TO command)"]],
        },
        Case {
            name: "a refused greeting from the last server",
            jobs: &[1],
            others: false,
            script: "554 go away\r\n",
            said: "",
            ends: &[Next::Closed],
            statuses: &[&["deferred 4.0.0 host mx[192.0.2.1] refused to talk to me: 554 go away"]],
        },
        Case {
            name: "a refused greeting, and another server left",
            jobs: &[1],
            others: true,
            script: "554 go away\r\n",
            said: "",
            ends: &[Next::Closed],
            statuses: &[&["-"]],
        },
        Case {
            name: "a timeout",
            jobs: &[1],
            others: false,
            script: "<greeting>|TIMEOUT",
            said: "EHLO me\r\n|",
            ends: &[Next::Closed],
            statuses: &[&[
                "deferred 4.4.2 conversation with mx[192.0.2.1] timed out while performing the EHLO handshake",
            ]],
        },
        Case {
            name: "a job on the idle connection",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|<answers>|<ok>|DELIVER|<answers>|<ok>",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n|",
            ends: &[Next::Finished, Next::Finished],
            statuses: &[&[SENT], &[SENT]],
        },
        Case {
            name: "an idle connection that the server had closed",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|<answers>|<ok>|DELIVER|EOF",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n|<commands>",
            ends: &[Next::Finished, Next::Stale],
            statuses: &[&[SENT], &["-"]],
        },
        Case {
            name: "an idle connection that times out with 421",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|<answers>|<ok>|DELIVER|421 idle too long\r\n",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n|<commands>",
            ends: &[Next::Finished, Next::Stale],
            statuses: &[&[SENT], &["-"]],
        },
        Case {
            name: "an idle connection is lost without a job",
            jobs: &[1],
            others: false,
            script: "<greeting>|<ehlo>|<answers>|<ok>|EOF",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n|",
            ends: &[Next::Finished, Next::Stale],
            statuses: &[&[SENT]],
        },
        Case {
            name: "a job that follows goes with the end of the message",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|FOLLOW|<answers>|<ok><answers>|<ok>",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n<commands>A: 1\r\n\r\nx\r\n.\r\n|",
            ends: &[Next::Followed, Next::Finished],
            statuses: &[&[SENT], &[SENT]],
        },
        Case {
            name: "a job that follows after the end of the message",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|<answers>|FOLLOW|<ok>|<answers>|<ok>",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n|",
            ends: &[Next::Followed, Next::Finished],
            statuses: &[&[SENT], &[SENT]],
        },
        Case {
            name: "a job that follows waits for its predecessor without PIPELINING",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|250 mx\r\n|FOLLOW|<ok>|<ok>|354 go\r\n|<ok>|<ok>|<ok>|354 go\r\n|<ok>",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@example.org>\r\n|DATA\r\n|\
                   A: 1\r\n\r\nx\r\n.\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@example.org>\r\n|DATA\r\n|\
                   A: 1\r\n\r\nx\r\n.\r\n|",
            ends: &[Next::Followed, Next::Finished],
            statuses: &[&[SENT], &[SENT]],
        },
        Case {
            name: "a job that follows, refused in the read that ends its predecessor",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|FOLLOW|<answers>|<ok><ok>550 5.1.1 no\r\n554 nobody\r\n",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n<commands>",
            ends: &[Next::Followed, Next::Finished],
            statuses: &[
                &[SENT],
                &["bounced 5.1.1 host mx[192.0.2.1] said: 550 5.1.1 no (in reply to RCPT TO command)"],
            ],
        },
        Case {
            name: "the connection ends before the predecessor's verdict",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|FOLLOW|<answers>|EOF",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n<commands>",
            ends: &[Next::Closed],
            statuses: &[&[LOST_AT_DOT], &["-"]],
        },
        Case {
            name: "the connection ends after the predecessor's verdict",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|FOLLOW|<answers>|<ok>|EOF",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n<commands>",
            ends: &[Next::Followed, Next::Stale],
            statuses: &[&[SENT], &["-"]],
        },
        Case {
            name: "the server closes with its verdict on the predecessor",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|FOLLOW|<answers>|421 4.3.2 bye\r\n",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n<commands>QUIT\r\n|",
            ends: &[Next::Closed],
            statuses: &[
                &["deferred 4.3.2 host mx[192.0.2.1] said: 421 4.3.2 bye (in reply to end of DATA command)"],
                &["-"],
            ],
        },
        Case {
            name: "a job is withdrawn before its commands are sent",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|FOLLOW|WITHDRAW|<answers>|<ok>",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n|",
            ends: &[Next::Finished],
            statuses: &[&[SENT], &["-"]],
        },
        Case {
            name: "a job is withdrawn after its commands are sent",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|FOLLOW|<answers>|WITHDRAW|<ok>",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n<commands>QUIT\r\n|",
            ends: &[Next::Closed],
            statuses: &[&[SENT], &["-"]],
        },
        Case {
            name: "a damaged message never gets its final dot",
            jobs: &[1],
            others: false,
            script: "<greeting>|<ehlo>|DAMAGE|<answers>",
            said: "EHLO me\r\n|<commands>",
            ends: &[Next::Closed],
            statuses: &[&["deferred 4.3.0 unreadable mail queue entry"]],
        },
        Case {
            name: "a message whose segment is gone",
            jobs: &[2],
            others: true,
            script: "<greeting>|250 mx\r\n|UNLINK|<ok>|<ok>|550 5.1.1 no\r\n|354 go\r\n",
            said: "EHLO me\r\n|MAIL FROM:<s@example.org>\r\n|RCPT TO:<r0@example.org>\r\n|\
                   RCPT TO:<r1@example.org>\r\n|DATA\r\n|",
            ends: &[Next::Closed],
            statuses: &[&[
                "deferred 4.3.0 unreadable mail queue entry",
                "bounced 5.1.1 host mx[192.0.2.1] said: 550 5.1.1 no (in reply to RCPT TO command)",
            ]],
        },
        Case {
            name: "a damaged message that follows leaves its predecessor alone",
            jobs: &[1, 1],
            others: false,
            script: "<greeting>|<ehlo>|FOLLOW|DAMAGE|<answers>|<ok><answers>",
            said: "EHLO me\r\n|<commands>A: 1\r\n\r\nx\r\n.\r\n<commands>",
            ends: &[Next::Followed, Next::Closed],
            statuses: &[&[SENT], &["deferred 4.3.0 unreadable mail queue entry"]],
        },
        Case {
            name: "a mail loop",
            jobs: &[1],
            others: false,
            script: "<greeting>|250 ME\r\n",
            said: "EHLO me\r\n|",
            ends: &[Next::Closed],
            statuses: &[&["bounced 5.4.6 mail for example.org loops back to myself"]],
        },
    ]
}

#[test]
fn dialogues_give_the_same_in_any_split() {
    for case in cases() {
        for step in [usize::MAX, 1, 2, 3, 5, 7, 11] {
            let (driver, jobs, _queue) = play(&case, step);
            let said = case.said.replace("<commands>", COMMANDS);
            assert_eq!(driver.said.replace('|', ""), said.replace('|', ""), "{}, {step}", case.name);
            if step == usize::MAX {
                assert_eq!(driver.said, said, "{}", case.name);
            }
            assert_eq!(driver.ends, case.ends, "{}, {step}", case.name);
            let got: Vec<_> = jobs.iter().map(|job| statuses(job)).collect();
            assert_eq!(got, case.statuses, "{}, {step}", case.name);
        }
    }
}

#[test]
fn a_connection_that_ends_at_any_octet_loses_and_duplicates_no_mail() {
    let replies = pieces("<greeting>|<ehlo>|<answers>|<ok>|<answers>|<ok>").collect::<String>();
    for end in 0..=replies.len() {
        let queue = Queue::new();
        let jobs = [(); 2].map(|()| queue.job(1, b"A: 1\r\n\r\nx\r\n", |_| {}));
        let mut driver = Driver::new();
        driver.deliver(&jobs[0], true, true);
        driver.follow(&jobs[1], true);
        replies.as_bytes()[..end].iter().for_each(|octet| driver.hear(&[*octet]));
        let finished = driver.ends.contains(&Next::Finished);
        driver.lose();
        let taken = replies[..end].matches("\r\n").count();
        let [first, second] = jobs.map(|job| statuses(&job).remove(0));
        // Replies: greeting, two lines of EHLO, MAIL, RCPT, DATA, the dot; then four for the second job.
        assert_eq!(first == SENT, taken >= 7, "{end}: {first}");
        assert!(first == SENT || first.starts_with("deferred 4.4.2 lost connection"), "{end}: {first}");
        assert_eq!(second == SENT, taken >= 11, "{end}: {second}");
        assert!(taken >= 8 || second == "-", "{end}: an untouched job needs another connection, not {second}");
        assert_eq!(finished, taken >= 11, "{end}");
        let stale = driver.ends.last() == Some(&Next::Stale);
        assert_eq!(stale, taken == 7 || taken >= 11, "{end}: {:?}", driver.ends);
    }
}

#[test]
fn log_lines_count_deliveries_and_time_them() {
    let queue = Queue::new();
    let jobs = [(); 2].map(|()| queue.job(1, b"A: 1\r\n\r\nx\r\n", |_| {}));
    let mut driver = Driver::new();
    driver.deliver(&jobs[0], true, true);
    driver.wall_now_us = HANDOFF_US + 20_000;
    driver.hear(b"220 mx\r\n");
    driver.hear(b"250-mx\r\n250 PIPELINING\r\n");
    driver.follow(&jobs[1], true);
    driver.wall_now_us += 100_000;
    driver.hear(ANSWERS.as_bytes());
    driver.hear(b"250 ok\r\n");
    driver.wall_now_us += 500_000;
    driver.hear(ANSWERS.as_bytes());
    driver.hear(b"250 ok\r\n");
    let ids = jobs.map(|job| job.lock().queue_id().to_owned());
    assert_eq!(
        queue.log.take_lines(),
        [
            format!(
                "{}: to=<r0@example.org>, relay=mx[192.0.2.1]:25, delay=0.37, delays=0.25/0.001/0.02/0.1, dsn=2.0.0, \
                 status=sent (250 ok)",
                ids[0]
            ),
            format!(
                "{}: to=<r0@example.org>, relay=mx[192.0.2.1]:25, conn_use=2, delay=0.87, \
                 delays=0.25/0.001/0.12/0.5, dsn=2.0.0, status=sent (250 ok)",
                ids[1]
            ),
        ]
    );
}

#[test]
fn a_message_that_needs_smtputf8_wants_a_server_that_offers_it() {
    let bounced = "bounced 5.6.7 SMTPUTF8 is required, but was not offered by host mx[192.0.2.1]";
    let part = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nA: ü\r\n\r\nx\r\n--b--";
    let attached = "Content-Type: message/rfc822\r\n\r\nSubject: ü";
    let late = format!("{}\r\n--b\r\nA: ü", part.replace("A: ü\r\n\r\nx\r\n--b--", &"\r\nü\r\n".repeat(100_000)));
    for (header, offered, last, expected) in [
        ("A: ü", "250 mx\r\n", true, bounced),
        (part, "250 mx\r\n", true, bounced),
        (attached, "250 mx\r\n", true, bounced),
        (&late, "250 mx\r\n", true, bounced),
        (&part.replace("A: ü\r\n\r\nx", "A: u\r\n\r\nü"), "250-mx\r\n250 8BITMIME\r\n", true, SENT),
        ("A: ü", "250 mx\r\n", false, "-"),
        ("A: u", "250 mx\r\n", true, SENT),
        ("A: ü", "250-mx\r\n250 SMTPUTF8\r\n", true, SENT),
    ] {
        let queue = Queue::new();
        let job = queue.job(1, format!("{header}\r\n\r\nx\r\n").as_bytes(), |envelope| envelope.smtputf8 = true);
        let mut driver = Driver::new();
        driver.deliver(&job, last, true);
        ["220 mx\r\n", offered].iter().for_each(|reply| driver.hear(reply.as_bytes()));
        if expected == SENT {
            ["250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 ok\r\n"].iter().for_each(|r| driver.hear(r.as_bytes()));
        }
        let ends = if expected == SENT { Next::Finished } else { Next::Closed };
        assert_eq!((statuses(&job), driver.ends), (vec![expected.to_owned()], vec![ends]), "{header} {offered}");
    }
}

#[test]
fn a_session_has_one_job_and_one_that_follows() {
    let queue = Queue::new();
    let assignment = || Assignment::new(queue.job(1, b"\r\n", |_| {}), true, true);
    let mut session = session(settings());
    assert_eq!(session.follow(assignment(), 0), Err(NotAccepted::CannotFollow));
    assert_eq!(session.deliver(assignment(), true, 0.0, 0), Ok(Next::More));
    assert_eq!(session.deliver(assignment(), true, 0.0, 0), Err(NotAccepted::Busy));
    assert_eq!(session.follow(assignment(), 0), Ok(()));
    assert_eq!(session.follow(assignment(), 0), Err(NotAccepted::CannotFollow));
    session.withdraw();
    assert_eq!(session.follow(assignment(), 0), Ok(()));
}

#[test]
fn quit_goes_with_the_final_dot_of_a_connection_that_is_not_kept() {
    let queue = Queue::new();
    let job = queue.job(1, b"A: 1\r\n\r\nx\r\n", |_| {});
    let mut driver = Driver::new();
    driver.deliver(&job, true, false);
    for piece in pieces("<greeting>|<ehlo>|<answers>|<ok>221 bye\r\n") {
        driver.hear(piece.as_bytes());
    }
    assert!(driver.said.ends_with("\r\nx\r\n.\r\nQUIT\r\n|"), "{}", driver.said);
    assert_eq!((statuses(&job), driver.ends), (vec![SENT.to_owned()], vec![Next::Closed]));
}
