//! smtp_generic_maps: the server sees mapped addresses, and a job waits for the answers of a remote table.

use super::*;
use crate::address::generic::tests::generic;
use crate::lookup::Maps;
use crate::table::testing::{local, remote};

const ROWS: &[(&str, &str)] =
    &[("s@example.org", "mapped@x"), ("r1@example.org", "one@x"), ("a@example.org", "a@x"), ("down@example.org", "!")];
const CONTENT: &[u8] = b"From: a@example.org\r\n\r\na@example.org\r\n";
const SENT: &str = "sent 2.0.0 250 ok";
const FAILED: &str = "deferred 4.3.0 local data error while talking to mx[192.0.2.1]";

fn driver(maps: Maps) -> Driver {
    Driver::with(ClientSettings { generic: Some(Arc::new(generic(maps, false))), ..settings() })
}

/// Answer the lookups of the session until it has no more; return their keys.
fn answer(driver: &mut Driver) -> Vec<String> {
    driver.answer(&Fixed::new(ROWS))
}

#[test]
fn the_server_sees_mapped_addresses_and_the_job_keeps_its_own() {
    for maps in [local(ROWS), remote(0)] {
        let queue = Queue::new();
        let job = queue.job(2, CONTENT, |_| {});
        let mut driver = driver(maps);
        driver.deliver(&job, true, true);
        for reply in
            ["220 mx\r\n", "250-mx\r\n250-DSN\r\n250 PIPELINING\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"]
        {
            driver.hear(reply.as_bytes());
            answer(&mut driver);
        }
        driver.hear(b"250 ok\r\n");
        assert_eq!(
            driver.said,
            "EHLO me\r\n|MAIL FROM:<mapped@x>\r\nRCPT TO:<r0@example.org> ORCPT=rfc822;r0@example.org\r\n\
             RCPT TO:<one@x> ORCPT=rfc822;r1@example.org\r\nDATA\r\n|From: a@x\r\n\r\na@example.org\r\n.\r\n|"
        );
        assert_eq!((statuses(&job), driver.ends), (vec![SENT.into(), SENT.into()], vec![Next::Finished]));
        assert!(queue.log.take_lines().iter().any(|line| line.contains("to=<r1@example.org>, relay")));
    }
}

#[test]
fn nothing_is_sent_before_the_answers_are_there() {
    let queue = Queue::new();
    let job = queue.job(1, CONTENT, |_| {});
    let mut driver = driver(remote(0));
    driver.deliver(&job, true, true);
    driver.hear(b"220 mx\r\n");
    driver.hear(b"250 mx\r\n");
    assert_eq!(driver.said, "EHLO me\r\n|");
    let next = driver.session.next(0.0, HANDOFF_US);
    assert_eq!((next, driver.session.deadline()), (Next::Asking, None));
    let keys = answer(&mut driver);
    assert_eq!(keys[..2], ["s@example.org", "r0@example.org"]);
    assert!(driver.said.ends_with("|MAIL FROM:<mapped@x>\r\n|"), "{}", driver.said);
}

#[test]
fn a_failed_lookup_defers_the_job_and_the_connection_goes_on() {
    for maps in [local(ROWS), remote(0)] {
        let queue = Queue::new();
        let down = queue.job(2, CONTENT, |envelope| envelope.sender = "down@example.org".into());
        let next = queue.job(1, CONTENT, |_| {});
        let mut driver = driver(maps);
        driver.deliver(&down, false, true);
        driver.hear(b"220 mx\r\n");
        driver.hear(b"250-mx\r\n250 PIPELINING\r\n");
        answer(&mut driver);
        assert_eq!((statuses(&down), &driver.ends), (vec![FAILED.into(); 2], &vec![Next::Finished]));
        let lines = queue.log.take_lines();
        assert_eq!(lines[1], "warning: smtp_generic_maps map lookup problem for down@example.org");
        driver.deliver(&next, true, true);
        answer(&mut driver);
        driver.hear(b"250 ok\r\n250 ok\r\n354 go\r\n");
        answer(&mut driver);
        driver.hear(b"250 ok\r\n");
        assert_eq!((statuses(&next), driver.ends), (vec![SENT.into()], vec![Next::Finished, Next::Finished]));
        assert!(!driver.said.contains("down@"));
    }
}

#[test]
fn a_failed_lookup_for_a_header_ends_the_connection_before_the_message() {
    for maps in [local(ROWS), remote(0)] {
        let queue = Queue::new();
        let job = queue.job(1, b"To: a@example.org\r\nCc: down@example.org\r\n\r\nx\r\n", |_| {});
        let mut driver = driver(maps);
        driver.deliver(&job, false, true);
        for reply in ["220 mx\r\n", "250-mx\r\n250 PIPELINING\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"] {
            driver.hear(reply.as_bytes());
            answer(&mut driver);
        }
        assert_eq!((statuses(&job), &driver.ends), (vec![FAILED.into()], &vec![Next::Closed]));
        assert!(driver.said.ends_with("DATA\r\n|"), "{}", driver.said);
    }
}

#[test]
fn a_server_that_leaves_while_the_job_waits_gets_late_answers_ignored() {
    let queue = Queue::new();
    let job = queue.job(1, CONTENT, |_| {});
    let mut driver = driver(remote(0));
    driver.deliver(&job, true, true);
    driver.hear(b"220 mx\r\n");
    driver.hear(b"250 mx\r\n");
    let asked = driver.session.asks();
    driver.lose();
    assert_eq!((statuses(&job), &driver.ends), (vec!["-".into()], &vec![Next::Stale]));
    let answers = asked.into_iter().map(|lookup| (lookup, crate::ask::Answer::NotFound)).collect();
    assert_eq!(driver.session.answer(answers, 0.0, HANDOFF_US), Next::More);
    assert_eq!(driver.said, "EHLO me\r\n|");
}

#[test]
fn a_job_that_follows_begins_ahead_with_local_tables_and_later_with_remote_ones() {
    let commands = "MAIL FROM:<mapped@x>\r\nRCPT TO:<r0@example.org>\r\nDATA\r\n|";
    let message = "From: a@x\r\n\r\na@example.org\r\n.\r\n";
    for (maps, ahead) in [(local(ROWS), true), (remote(0), false)] {
        let queue = Queue::new();
        let (first, second) = (queue.job(1, CONTENT, |_| {}), queue.job(1, CONTENT, |_| {}));
        let mut driver = driver(maps);
        driver.deliver(&first, true, true);
        driver.hear(b"220 mx\r\n");
        driver.hear(b"250-mx\r\n250 PIPELINING\r\n");
        answer(&mut driver);
        driver.follow(&second, true);
        driver.hear(b"250 ok\r\n250 ok\r\n354 go\r\n");
        answer(&mut driver);
        let replies = ["250 ok\r\n", "250 ok\r\n250 ok\r\n354 go\r\n", "250 ok\r\n"];
        for reply in replies {
            driver.hear(reply.as_bytes());
            answer(&mut driver);
        }
        let written = driver.said.replace('|', "");
        let expected = format!("EHLO me\r\n{commands}{message}{commands}{message}").replace('|', "");
        assert_eq!(written, expected);
        assert_eq!(driver.said.contains(&format!("{message}{commands}")), ahead, "{}", driver.said);
        assert_eq!((statuses(&first), statuses(&second)), (vec![SENT.into()], vec![SENT.into()]));
        assert_eq!(driver.ends, [Next::Followed, Next::Finished]);
    }
}
