//! A message's envelope field by field, with the offset of each in the segment (postcat(1)).
//!
//! The kinds are Postfix's record types: `C` size, `T` arrival, `S` sender, `A` name=value, `O` original recipient, `R`
//! recipient, `D` recipient that is done, `L` content filter.

use super::record::RECORD_HEADER_OCTETS;
use crate::mail::envelope::{BodyType, Envelope, FILTER, Ret, TLS_REQUIRED};
use crate::mail::locator::Locator;
use crate::mail::sendopts;
use crate::mail::trace::TRACE_FLAGS;
use crate::mail::xtext::{from_typed_xtext, from_xtext};

/// One field of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its offset: octets from the start of the segment.
    pub offset: u64,
    /// Its type.
    pub kind: u8,
    /// Its text.
    pub text: String,
}

/// Return the fields in their order on disk. `done`: recipients that are done, ascending.
pub fn fields(at: &Locator, envelope: &Envelope, done: &[u32], long_queue_ids: bool) -> Vec<Field> {
    let mut encoded = Vec::new();
    envelope.encode(&mut encoded);
    let mut layout = Layout { at: at.offset + at.record_octets - encoded.len() as u64, fields: Vec::new() };
    layout.add(b'A', format!("create_time={}", envelope.id.usec() / 1_000_000));
    layout.add(b'A', format!("log_ident={}", envelope.id.text(long_queue_ids)));
    layout.pass(8);
    layout.add(b'T', format!("{} {}", envelope.arrival_us / 1_000_000, envelope.arrival_us % 1_000_000));
    layout.pass(8);
    layout.add(b'S', envelope.sender.to_string());
    layout.pass_text(&envelope.sender);
    match envelope.body {
        BodyType::Unsaid => {}
        BodyType::SevenBit => layout.add(b'A', "encoding=7bit".into()),
        BodyType::EightBitMime => layout.add(b'A', "encoding=8bit".into()),
    }
    layout.pass(2);
    match envelope.ret {
        Ret::Unsaid => {}
        Ret::Full => layout.add(b'A', "ret_flags=1".into()),
        Ret::Hdrs => layout.add(b'A', "ret_flags=2".into()),
    }
    layout.pass(1);
    if let Some(envid) = &envelope.envid {
        layout.add(b'A', format!("envelope_id={}", from_xtext(envid)));
    }
    layout.pass_option(envelope.envid.as_deref());
    let (size, recipients) = (envelope.size_octets, envelope.recipients.len());
    let data = at.offset + RECORD_HEADER_OCTETS as u64;
    let options = options(envelope);
    layout.add(b'C', format!("{size:>15} {data:>15} {recipients:>15} {:>15} {size:>15} {options:>15}", 0));
    layout.pass(8 + 4);
    for (index, recipient) in (0u32..).zip(&envelope.recipients) {
        if let Some(orcpt) = &recipient.orcpt {
            layout.add(b'A', format!("dsn_orig_rcpt={}", from_typed_xtext(orcpt)));
        }
        if recipient.notify.0 != 0 {
            layout.add(b'A', format!("notify_flags={}", recipient.notify.0));
        }
        if let Some(original) = &recipient.original {
            layout.add(b'O', original.to_string());
        }
        let kind = if done.binary_search(&index).is_ok() { b'D' } else { b'R' };
        layout.add(kind, recipient.address.to_string());
        layout.pass_text(&recipient.address);
        layout.pass_option(recipient.original.as_deref());
        layout.pass_option(recipient.orcpt.as_deref());
        layout.pass(1);
    }
    layout.pass(4);
    for (name, value) in &envelope.attributes {
        match &**name {
            // A bit of the options of the sender above.
            TLS_REQUIRED => {}
            FILTER => layout.add(b'L', value.to_string()),
            _ => layout.add(b'A', format!("{name}={value}")),
        }
        layout.pass_text(name);
        layout.pass_text(value);
    }
    if let Some(flags) = envelope.trace.flags() {
        layout.add(b'A', format!("{TRACE_FLAGS}={flags}"));
    }
    layout.fields
}

/// Return Postfix's number for what a sender asks for besides DSN.
fn options(envelope: &Envelope) -> u32 {
    let bits = [
        (envelope.smtputf8, sendopts::SMTPUTF8),
        (envelope.waives_tls(), sendopts::TLS_REQUIRED_NO),
        (envelope.requiretls, sendopts::REQUIRETLS),
    ];
    bits.iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum()
}

struct Layout {
    at: u64,
    fields: Vec<Field>,
}

impl Layout {
    fn add(&mut self, kind: u8, text: String) {
        self.fields.push(Field { offset: self.at, kind, text });
    }

    fn pass(&mut self, octets: u64) {
        self.at += octets;
    }

    fn pass_text(&mut self, text: &str) {
        self.pass(4 + text.len() as u64);
    }

    fn pass_option(&mut self, text: Option<&str>) {
        self.pass(1);
        if let Some(text) = text {
            self.pass_text(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::envelope::{Notify, Recipient};
    use crate::mail::id::QueueId;
    use crate::mail::locator::SegmentId;

    #[test]
    fn every_field_is_at_its_offset() {
        let mut envelope = Envelope::plain(QueueId(7 << 12), "s@example.org", vec![Recipient::plain("a@example.net")]);
        envelope.recipients.push(Recipient {
            address: "b@example.net".into(),
            original: Some("c@example.net".into()),
            orcpt: Some("rfc822;c@example.net".into()),
            notify: Notify(Notify::DELAY),
        });
        envelope.envid = Some("env".into());
        envelope.ret = Ret::Hdrs;
        envelope.attributes = vec![("client_name".into(), "h".into()), ("helo_name".into(), "me".into())];
        envelope.attributes.push((FILTER.into(), "scan:[::1]".into()));
        let mut encoded = Vec::new();
        envelope.encode(&mut encoded);
        let at = Locator { segment: SegmentId(1), offset: 32, record_octets: 100 + encoded.len() as u64 };
        let found = fields(&at, &envelope, &[1], false);
        let position = |needle: &str| {
            let at = encoded.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap();
            132 + at as u64
        };
        let offset = |kind: u8, text: &str| {
            let field = found.iter().find(|field| field.kind == kind && field.text == text);
            field.unwrap_or_else(|| panic!("{text} in {found:?}")).offset
        };
        // The four octets of its length precede a text.
        assert_eq!(offset(b'S', "s@example.org"), position("s@example.org") - 4);
        assert_eq!(offset(b'A', "envelope_id=env"), position("env") - 5);
        assert_eq!(offset(b'R', "a@example.net"), position("a@example.net") - 4);
        assert_eq!(offset(b'D', "b@example.net"), position("b@example.net") - 4);
        assert_eq!(offset(b'O', "c@example.net"), position("b@example.net") - 4);
        assert_eq!(offset(b'A', "notify_flags=8"), position("b@example.net") - 4);
        assert_eq!(offset(b'A', "client_name=h"), position("client_name") - 4);
        assert_eq!(offset(b'A', "helo_name=me"), position("helo_name") - 4);
        assert_eq!(offset(b'L', "scan:[::1]"), position("content_filter") - 4);
        assert!(found.is_sorted_by_key(|field| field.offset));
    }

    #[test]
    fn the_senders_requests_are_postfixs_bits_in_the_size_record() {
        for (smtputf8, waives, requiretls, expected) in [
            (false, false, false, "0"),
            (true, false, false, "1"),
            (false, true, false, "16"),
            (true, true, true, "49"),
        ] {
            let mut envelope = Envelope { smtputf8, requiretls, ..Envelope::plain(QueueId(7 << 12), "s", vec![]) };
            if waives {
                envelope.waive_tls();
            }
            envelope.attributes.push(("helo_name".into(), "me".into()));
            let mut encoded = Vec::new();
            envelope.encode(&mut encoded);
            let at = Locator { segment: SegmentId(1), offset: 32, record_octets: 100 + encoded.len() as u64 };
            let found = fields(&at, &envelope, &[], false);
            let size = found.iter().find(|field| field.kind == b'C').unwrap();
            assert_eq!(size.text.split_ascii_whitespace().last(), Some(expected));
            assert!(!found.iter().any(|field| field.text.contains("tls_required")));
            let position = encoded.windows(9).position(|window| window == b"helo_name").unwrap() as u64;
            assert_eq!(found.last().unwrap().offset, 132 + position - 4);
        }
    }
}
