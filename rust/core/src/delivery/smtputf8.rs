//! Whether a message needs a server with SMTPUTF8 (RFC 6531 §3.1): an address or a header is not ASCII.
//!
//! As in Postfix, headers of parts and of attached messages count, and bodies do not.

use super::work::Work;
use crate::mail::envelope::Recipient;
use crate::mail::header::End;
use crate::mail::mime::{Fault, HeaderClass, Line, MimeEvents, MimeRules, Part, WireMime};
use crate::queue::{ContentReader, QueueError};

/// Maximum octets of a message in memory.
const PIECE_OCTETS: u64 = 64 * 1024;

struct Headers {
    has_utf8: bool,
}

impl MimeEvents for Headers {
    fn header(&mut self, _: HeaderClass, _: Part, header: &[u8]) {
        self.has_utf8 |= !header.is_ascii();
    }

    fn head_end(&mut self, _: HeaderClass, _: Part, _: End) {}

    fn line(&mut self, _: Part, _: Line<'_>) {}

    fn fault(&mut self, _: Fault, _: &[u8]) {}
}

/// Return whether the server must offer SMTPUTF8: the sender asked for it, and an address or a header is not ASCII. Reads
/// the message up to the first such header. An unreadable message is reported when its body is due.
pub fn needs_smtputf8(work: &Work, rules: &MimeRules, now: f64) -> bool {
    let delivery = work.lock();
    let envelope = &delivery.job().envelope;
    if !envelope.smtputf8 {
        return false;
    }
    let is_ascii = |(_, recipient): (usize, &Recipient)| recipient.address.is_ascii();
    if !envelope.sender.is_ascii() || !delivery.open_recipients().all(is_ascii) {
        return true;
    }
    drop(delivery);
    work.open_content(now).and_then(|content| has_utf8_header(content, rules)).unwrap_or_default()
}

fn has_utf8_header(mut content: ContentReader, rules: &MimeRules) -> Result<bool, QueueError> {
    let mut headers = Headers { has_utf8: false };
    let mut mime = WireMime::new(rules.clone());
    while content.left_octets() > 0 && !headers.has_utf8 {
        mime.feed(&content.piece(PIECE_OCTETS)?, &mut headers);
    }
    mime.finish(&mut headers);
    Ok(headers.has_utf8)
}
