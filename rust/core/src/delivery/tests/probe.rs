//! A probe on a session: verdicts without a message, and the mail behind it.

use super::*;
use crate::mail::trace::Trace;
use crate::queue::QueueError;

const CONTENT: &[u8] = b"Subject: probe\r\n\r\nsecret\r\n";

#[test]
fn a_probe_is_answered_and_the_mail_behind_it_is_sent() {
    let queue = Queue::new();
    let probe = queue.job(2, CONTENT, |envelope| envelope.trace = Trace::Probe);
    let mail = queue.job(1, b"Subject: x\r\n\r\nbody\r\n", |_| {});
    let mut driver = Driver::new();
    driver.deliver(&probe, true, true);
    driver.follow(&mail, true);
    driver.hear(b"220 mx ESMTP\r\n");
    driver.hear(b"250-mx\r\n250 PIPELINING\r\n");
    driver.hear(b"250 ok\r\n250 2.1.5 fine\r\n450 4.2.0 later\r\n250 ok\r\n");
    assert_eq!(
        statuses(&probe),
        [
            "sent 2.1.5 250 2.1.5 fine",
            "deferred 4.2.0 host mx[192.0.2.1] said: 450 4.2.0 later (in reply to RCPT TO command)",
        ]
    );
    driver.hear(b"250 ok\r\n250 ok\r\n354 go\r\n");
    driver.hear(b"250 taken\r\n");
    assert_eq!(statuses(&mail), ["sent 2.0.0 250 taken"]);
    assert_eq!(driver.ends, [Next::Followed, Next::Finished]);
    assert!(!driver.said.contains("secret"));
    assert_eq!(driver.said.matches("DATA").count(), 1, "{}", driver.said);
    let lines = queue.log.take_lines();
    assert!(lines[0].ends_with("dsn=2.1.5, status=deliverable (250 2.1.5 fine)"), "{lines:?}");
    assert!(lines[1].contains("status=undeliverable (host mx[192.0.2.1] said: 450 4.2.0 later"), "{lines:?}");
}

#[test]
fn no_agent_reads_the_content_of_a_probe() {
    let queue = Queue::new();
    let probe = queue.job(1, CONTENT, |envelope| envelope.trace = Trace::Probe);
    assert!(matches!(probe.open_content(0.0), Err(QueueError::Probe)));
    assert_eq!(probe.content(), Err(QueueError::Probe));
}
