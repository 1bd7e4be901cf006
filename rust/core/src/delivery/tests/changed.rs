//! Messages that change on their way to the server.

use super::*;
use crate::mail::envelope::BodyType;

const EIGHT_BITS: &str = "A: 1\r\nContent-Transfer-Encoding: 8bit\r\n\r\n..\u{e9}\r\n";

/// Deliver a message to a server with this reply to EHLO; return the session's part from MAIL on, and the status.
fn deliver(content: &str, ehlo: &str, body: BodyType) -> (String, Vec<String>, Vec<Next>) {
    let queue = Queue::new();
    let job = queue.job(1, content.as_bytes(), |envelope| envelope.body = body);
    let mut driver = Driver::new();
    driver.deliver(&job, true, true);
    for reply in ["220 mx\r\n", ehlo, "250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
        driver.hear(reply.as_bytes());
    }
    if driver.ends.is_empty() {
        driver.hear(b"250 ok\r\n");
    }
    let said = driver.said.split_once("MAIL FROM").unwrap().1.to_owned();
    (said, statuses(&job), driver.ends)
}

#[test]
fn eight_bit_content_is_converted_for_a_server_that_lacks_8bitmime() {
    let converted = "A: 1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n..=C3=A9\r\n";
    for (ehlo, body, parameter, content) in [
        ("250 mx\r\n", BodyType::EightBitMime, "", converted),
        ("250 mx\r\n", BodyType::Unsaid, "", converted),
        ("250 mx\r\n", BodyType::SevenBit, "", EIGHT_BITS),
        ("250-mx\r\n250 8BITMIME\r\n", BodyType::EightBitMime, " BODY=8BITMIME", EIGHT_BITS),
    ] {
        let (said, statuses, ends) = deliver(EIGHT_BITS, ehlo, body);
        let expected = format!(":<s@example.org>{parameter}\r\n|RCPT TO:<r0@example.org>\r\n|DATA\r\n|{content}.\r\n|");
        assert_eq!(said, expected, "{ehlo} {body:?}");
        assert_eq!((statuses, ends), (vec!["sent 2.0.0 250 ok".into()], vec![Next::Finished]));
    }
}

#[test]
fn a_message_that_cannot_be_converted_bounces_before_its_end() {
    let part = |n| format!("Content-Type: multipart/mixed; boundary=b{n}x\r\n\r\n--b{n}x\r\n");
    let content = (0..103).map(part).collect::<String>();
    let (said, statuses, ends) = deliver(&content, "250 mx\r\n", BodyType::Unsaid);
    assert!(!said.contains("\r\n.\r\n"), "{said}");
    assert_eq!(statuses, ["bounced 5.6.0 MIME nesting exceeds safety limit"]);
    assert_eq!(ends, [Next::Closed]);
}
