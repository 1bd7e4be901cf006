//! Messages that are larger than one piece.

use super::*;
use crate::delivery::session::PIECE_OCTETS;

/// A message of two full pieces and a short one.
fn content() -> Vec<u8> {
    let line = b"a line of forty octets, its end included\r\n";
    line.iter().copied().cycle().take(line.len() * (2 * PIECE_OCTETS as usize / line.len() + 100)).collect()
}

/// Start to deliver a large message: its first piece is written, and the driver writes no more by itself.
fn sending(job: &Arc<Work>) -> Driver {
    let mut driver = Driver::new();
    driver.writable = false;
    driver.deliver(job, true, true);
    for reply in ["220 mx\r\n", "250-mx\r\n250-8BITMIME\r\n250 PIPELINING\r\n", "250 ok\r\n250 ok\r\n"] {
        driver.hear(reply.as_bytes());
    }
    driver.said.clear();
    let next = driver.session.receive(b"354 go\r\n", 0.0, HANDOFF_US);
    assert_eq!(next, Next::Sending);
    driver.act(next);
    assert!(driver.session.is_sending() && !driver.session.may_follow(0.0));
    assert_eq!(driver.said.len() as u64, PIECE_OCTETS + 1, "one piece in memory");
    driver
}

#[test]
fn a_large_message_is_sent_in_pieces() {
    let queue = Queue::new();
    let content = content();
    let (job, follower) = (queue.job(1, &content, |_| {}), queue.job(1, b"\r\n", |_| {}));
    let mut driver = sending(&job);
    driver.follow(&follower, true);
    for expected in [Next::Sending, Next::More] {
        let next = driver.session.send_body(0.0, HANDOFF_US);
        assert_eq!(next, expected);
        driver.act(next);
    }
    let sent = driver.said.replace('|', "");
    let (message, commands) = sent.split_at(content.len());
    assert!(message.as_bytes() == content, "the message arrives as it was committed");
    assert!(commands.starts_with(".\r\nMAIL FROM:"), "the follower's commands go with the end: {commands}");
    driver.hear(b"250 ok\r\n");
    assert_eq!((statuses(&job), driver.ends), (vec!["sent 2.0.0 250 ok".into()], vec![Next::Followed]));
}

#[test]
fn a_refusal_before_the_end_of_a_large_message_ends_it() {
    let queue = Queue::new();
    let job = queue.job(1, &content(), |_| {});
    let mut driver = sending(&job);
    driver.hear(b"552 5.3.4 too much\r\n");
    let refused = "bounced 5.3.4 host mx[192.0.2.1] said: 552 5.3.4 too much (in reply to end of DATA command)";
    assert_eq!((statuses(&job), &*driver.ends), (vec![refused.to_owned()], &[Next::Closed][..]));
    let said = driver.said.len();
    assert_eq!(driver.session.send_body(0.0, HANDOFF_US), Next::More);
    driver.write();
    assert_eq!((driver.said.len(), driver.session.is_sending()), (said, false), "nothing more is sent");
}

#[test]
fn a_connection_that_ends_within_a_large_message_defers_it() {
    let queue = Queue::new();
    let job = queue.job(1, &content(), |_| {});
    let mut driver = sending(&job);
    driver.lose();
    let lost = "deferred 4.4.2 lost connection with mx[192.0.2.1] while sending message body";
    assert_eq!((statuses(&job), driver.ends), (vec![lost.to_owned()], vec![Next::Closed]));
}

#[test]
fn damage_in_a_later_piece_keeps_the_end_of_the_message_from_the_server() {
    let queue = Queue::new();
    let job = queue.job(1, &content(), |_| {});
    queue.damage(&job);
    let mut driver = sending(&job);
    driver.writable = true;
    let next = driver.session.send_body(0.0, HANDOFF_US);
    driver.act(next);
    assert!(!driver.said.contains("\r\n.\r\n") && !driver.said.contains("QUIT"));
    let unreadable = "deferred 4.3.0 unreadable mail queue entry";
    assert_eq!((statuses(&job), driver.ends), (vec![unreadable.to_owned()], vec![Next::Closed]));
}

#[test]
fn accepted_octets_extend_the_deadline_of_a_large_message() {
    let queue = Queue::new();
    let job = queue.job(1, &content(), |_| {});
    let mut driver = sending(&job);
    assert_eq!(driver.session.deadline(), Some(10.0));
    driver.session.progressed(1000, 8.0);
    assert_eq!(driver.session.deadline(), Some(18.0));
    let next = driver.session.timeout(18.0, HANDOFF_US);
    driver.act(next);
    let late = "deferred 4.4.2 conversation with mx[192.0.2.1] timed out while sending message body";
    assert_eq!((statuses(&job), driver.ends), (vec![late.to_owned()], vec![Next::Closed]));
}
