//! smtp_header_checks and related parameters: the server sees checked content, and a piece waits for the answers of a
//! remote table.

use super::*;
use crate::ask::{Answer, Lookup};
use crate::delivery::session::ASKING_PIECE_OCTETS;
use crate::inspection::lists::{List, Lists};
use crate::table::testing::{local, remote};

const ROWS: &[(&str, &str)] = &[
    ("subject: secret", "REPLACE Subject: public"),
    ("inside", "IGNORE"),
    ("mark", "PREPEND .before"),
    ("down: 1", "!"),
    ("down", "!"),
];
const CONTENT: &[u8] = b"Subject: secret\r\n\r\nfirst\r\ninside\r\nmark\r\n";
const CHECKED: &str = "Subject: public\r\n\r\nfirst\r\n..before\r\nmark\r\n.\r\n";
const SENT: &str = "sent 2.0.0 250 ok";
const FAILED: &str = "deferred 4.3.0 local data error while talking to mx[192.0.2.1]";

fn checks(is_remote: bool) -> ClientSettings {
    let list = |parameter: &str| {
        let maps = if is_remote { remote(5) } else { local(ROWS) };
        List { parameter: parameter.into(), tables: maps.tables }
    };
    let (header, body) = (list("smtp_header_checks"), list("smtp_body_checks"));
    ClientSettings { checks: Arc::new(Lists { header, body, ..Lists::default() }), ..settings() }
}

fn answer(driver: &mut Driver) -> Vec<String> {
    driver.answer(&Fixed::new(ROWS))
}

/// Start to deliver a job, up to the reply to DATA; the lookups have no answers yet.
fn begun(job: &Arc<Work>, settings: ClientSettings) -> Driver {
    let mut driver = Driver::with(settings);
    driver.deliver(job, true, true);
    for reply in ["220 mx\r\n", "250-mx\r\n250-8BITMIME\r\n250 PIPELINING\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"] {
        driver.hear(reply.as_bytes());
    }
    driver
}

#[test]
fn the_server_sees_checked_content() {
    for is_remote in [false, true] {
        let queue = Queue::new();
        let job = queue.job(1, CONTENT, |_| {});
        let mut driver = begun(&job, checks(is_remote));
        let keys = answer(&mut driver);
        let expected: &[&str] = if is_remote { &["Subject: secret", "first", "inside", "mark"] } else { &[] };
        assert_eq!(keys, expected);
        assert!(driver.said.ends_with(&format!("DATA\r\n|{CHECKED}|")), "{}", driver.said);
        driver.hear(b"250 ok\r\n");
        assert_eq!((statuses(&job), driver.ends), (vec![SENT.into()], vec![Next::Finished]));
        let lines = queue.log.take_lines();
        assert!(lines[0].ends_with(": replace: header Subject: secret: Subject: public"), "{}", lines[0]);
        assert!(lines[1].ends_with(": prepend: body mark: .before"), "{}", lines[1]);
    }
}

#[test]
fn nothing_is_sent_and_no_time_runs_while_a_piece_waits() {
    let queue = Queue::new();
    let job = queue.job(1, CONTENT, |_| {});
    let mut driver = begun(&job, checks(true));
    assert!(driver.said.ends_with("DATA\r\n|"), "{}", driver.said);
    let asked = driver.session.asks();
    assert_eq!((asked.len(), driver.session.deadline()), (4, None));
    assert!(driver.session.is_sending() && !driver.session.may_follow(0.0));
    // Nor does a driver that calls without a need change anything.
    assert_eq!(driver.session.timeout(1e6, HANDOFF_US), Next::Asking);
    assert_eq!(driver.session.send_body(1e6, HANDOFF_US), Next::Asking);
    assert_eq!((driver.session.asks().len(), driver.session.take_output()), (0, None));
    let table = Fixed::new(ROWS);
    let (last, others) = asked.split_last().unwrap();
    let answers = |some: &[Lookup]| some.iter().map(|lookup| (lookup.clone(), table.lookup(&lookup.key))).collect();
    assert_eq!(driver.session.answer(answers(others), 1e6, HANDOFF_US), Next::Asking);
    assert_eq!(driver.session.take_output(), None);
    assert_eq!(driver.session.answer(answers(std::slice::from_ref(last)), 1e6, HANDOFF_US), Next::More);
    assert_eq!(driver.session.take_output().unwrap(), CHECKED.as_bytes());
    assert_eq!(driver.session.deadline(), Some(1e6 + 10.0));
}

/// A message of a full piece and a short one, without a line twice.
fn large() -> Vec<u8> {
    let mut content = b"Subject: secret\r\n\r\n".to_vec();
    for line in 0.. {
        content.extend(format!("a line of forty octets, number {line:07}\r\n").bytes());
        if content.len() as u64 > ASKING_PIECE_OCTETS {
            break;
        }
    }
    content
}

#[test]
fn each_piece_of_a_large_message_is_asked_for_by_itself() {
    let queue = Queue::new();
    let content = large();
    let job = queue.job(1, &content, |_| {});
    let mut driver = begun(&job, checks(true));
    let mut sent = vec![];
    driver.writable = false;
    for expected in [Next::Sending, Next::More] {
        let asked = driver.session.asks();
        assert!(!asked.is_empty() && asked.len() as u64 <= ASKING_PIECE_OCTETS / 20);
        let answers = asked.into_iter().rev().map(|lookup| (lookup.clone(), Fixed::new(ROWS).lookup(&lookup.key)));
        let next = driver.session.answer(answers.collect(), 0.0, HANDOFF_US);
        assert_eq!(next, expected);
        sent.extend(driver.session.take_output().unwrap());
        if next == Next::Sending {
            assert_eq!(driver.session.send_body(0.0, HANDOFF_US), Next::Asking);
        }
    }
    let expected = [&content[..], b".\r\n"].concat();
    assert!(String::from_utf8(sent).unwrap() == String::from_utf8(expected).unwrap().replace("secret", "public"));
    driver.hear(b"250 ok\r\n");
    assert_eq!(statuses(&job), [SENT]);
}

#[test]
fn the_time_of_lookups_is_not_the_servers_with_a_minimum_rate_either() {
    let queue = Queue::new();
    let job = queue.job(1, &large(), |_| {});
    let settings = ClientSettings { min_data_rate: Some(100.0), ..checks(true) };
    let mut driver = begun(&job, settings);
    driver.writable = false;
    let answers = driver.session.asks().into_iter().map(|lookup| (lookup, Answer::NotFound)).collect();
    assert_eq!(driver.session.answer(answers, 300.0, HANDOFF_US), Next::Sending);
    assert_eq!(driver.session.deadline(), Some(310.0));
    let next = driver.session.timeout(310.0, HANDOFF_US);
    driver.act(next);
    let late = "deferred 4.4.2 conversation with mx[192.0.2.1] timed out while sending message body";
    assert_eq!((statuses(&job), driver.ends), (vec![late.to_owned()], vec![Next::Closed]));
}

#[test]
fn a_failed_lookup_defers_the_message_and_its_end_is_not_sent() {
    for is_remote in [false, true] {
        for content in [&b"Down: 1\r\n\r\nfirst\r\n"[..], b"A: 1\r\n\r\nfirst\r\ndown\r\nlast\r\n"] {
            let queue = Queue::new();
            let (job, follower) = (queue.job(2, content, |_| {}), queue.job(1, CONTENT, |_| {}));
            let mut driver = Driver::with(checks(is_remote));
            driver.deliver(&job, false, true);
            driver.follow(&follower, false);
            for reply in ["220 mx\r\n", "250-mx\r\n250 PIPELINING\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"] {
                driver.hear(reply.as_bytes());
                answer(&mut driver);
            }
            assert_eq!((statuses(&job), &driver.ends), (vec![FAILED.into(); 2], &vec![Next::Closed]));
            assert!(driver.said.ends_with("DATA\r\n|"), "{}", driver.said);
            assert_eq!(statuses(&follower), ["-"], "it goes to another connection");
            assert!(queue.log.take_lines()[0].contains("checks lookup error: table fixed:test: fails"));
        }
    }
}

#[test]
fn a_failed_lookup_in_a_later_piece_keeps_the_end_of_the_message_from_the_server() {
    let queue = Queue::new();
    let job = queue.job(1, &[&large()[..], b"down\r\n"].concat(), |_| {});
    let mut driver = begun(&job, checks(true));
    answer(&mut driver);
    assert!(driver.said.contains("Subject: public") && !driver.said.contains("\r\n.\r\n"));
    assert_eq!((statuses(&job), driver.ends), (vec![FAILED.to_owned()], vec![Next::Closed]));
}

#[test]
fn a_reply_while_a_piece_waits_ends_the_message_and_late_answers_are_ignored() {
    let refused = "bounced 5.3.4 host mx[192.0.2.1] said: 552 5.3.4 no (in reply to end of DATA command)";
    let lost = "deferred 4.4.2 lost connection with mx[192.0.2.1] while sending message body";
    for (reply, expected) in [("552 5.3.4 no\r\n", refused), ("", lost)] {
        let queue = Queue::new();
        let job = queue.job(1, CONTENT, |_| {});
        let mut driver = begun(&job, checks(true));
        let asked = driver.session.asks();
        if reply.is_empty() {
            driver.lose()
        } else {
            driver.hear(reply.as_bytes())
        }
        assert_eq!((statuses(&job), &driver.ends), (vec![expected.to_owned()], &vec![Next::Closed]));
        let answers = asked.into_iter().map(|lookup| (lookup, Answer::NotFound)).collect();
        assert_eq!(driver.session.answer(answers, 0.0, HANDOFF_US), Next::More);
        assert!(!driver.said.contains("Subject"), "{}", driver.said);
    }
}

#[test]
fn a_job_that_follows_goes_ahead_of_its_lookups() {
    let queue = Queue::new();
    let (first, second) = (queue.job(1, CONTENT, |_| {}), queue.job(1, CONTENT, |_| {}));
    let mut driver = begun(&first, checks(true));
    driver.follow(&second, true);
    answer(&mut driver);
    let commands = "MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@example.org>\r\nDATA\r\n";
    assert!(driver.said.ends_with(&format!("{CHECKED}{commands}|")), "{}", driver.said);
    // The verdict and the replies to the next commands come together, and the next content waits for its answers.
    driver.hear(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!((driver.ends.len(), driver.session.deadline()), (1, None));
    assert_eq!(answer(&mut driver).len(), 4);
    assert!(driver.said.ends_with(&format!("{commands}|{CHECKED}|")), "{}", driver.said);
    driver.hear(b"250 ok\r\n");
    assert_eq!((statuses(&first), statuses(&second)), (vec![SENT.into()], vec![SENT.into()]));
    assert_eq!(driver.ends, [Next::Followed, Next::Finished]);
}
