//! Envelopes, encoded and read back.

use super::*;

#[test]
fn an_envelope_is_read_back_unchanged() {
    let envelope = Envelope {
        id: QueueId(42),
        arrival_us: 1_795_000_000_123_456,
        sender: "".into(),
        recipients: vec![
            Recipient::plain("a@example.org"),
            Recipient {
                address: "b@example.org".into(),
                original: Some("list@example.org".into()),
                orcpt: Some("rfc822;list@example.org".into()),
                notify: Notify(Notify::FAILURE | Notify::DELAY),
            },
        ],
        body: BodyType::EightBitMime,
        smtputf8: true,
        requiretls: true,
        ret: Ret::Hdrs,
        envid: Some("x1".into()),
        trace: Trace::Record,
        size_octets: 4096,
        attributes: vec![("client_name".into(), "localhost".into())],
    };
    let mut bytes = Vec::new();
    envelope.encode(&mut bytes);
    assert_eq!(Envelope::decode(&mut Take::new(&bytes)), Ok(envelope));
    for end in 0..bytes.len() {
        assert!(Envelope::decode(&mut Take::new(&bytes[..end])).is_err(), "cut at {end}");
    }
}

/// Octets from the start of an encoded envelope with an empty sender to the flags.
const FLAGS_AT: usize = 8 + 8 + 4 + 1;

#[test]
fn a_probe_is_refused_by_releases_that_know_none_and_stays_one() {
    for smtputf8 in [false, true] {
        let plain = Envelope { smtputf8, ..Envelope::plain(QueueId(42), "", vec![Recipient::plain("a")]) };
        let mut bytes = Vec::new();
        plain.encode(&mut bytes);
        assert_eq!(bytes[FLAGS_AT], u8::from(smtputf8), "mail is what it was");
        let probe = Envelope { trace: Trace::Probe, ..plain.clone() };
        bytes.clear();
        probe.encode(&mut bytes);
        // They accept 0 and 1 here.
        assert_eq!(bytes[FLAGS_AT], 2 + u8::from(smtputf8));
        assert_eq!(Envelope::decode(&mut Take::new(&bytes)), Ok(probe.clone()));
        bytes[FLAGS_AT] &= 1;
        assert_eq!(Envelope::decode(&mut Take::new(&bytes)), Err(CodecError::BadValue(TRACE_FLAGS)), "not as mail");
        bytes[FLAGS_AT] = 8;
        assert_eq!(Envelope::decode(&mut Take::new(&bytes)), Err(CodecError::BadValue("SMTPUTF8")));
        let recorded = Envelope { trace: Trace::Record, ..plain };
        bytes.clear();
        recorded.encode(&mut bytes);
        assert_eq!(bytes[FLAGS_AT], u8::from(smtputf8), "they deliver it, without a report");
        assert_eq!(Envelope::decode(&mut Take::new(&bytes)), Ok(recorded));
        // The octet alone, and with another attribute.
        bytes[FLAGS_AT] |= 2;
        assert_eq!(Envelope::decode(&mut Take::new(&bytes)), Err(CodecError::BadValue(TRACE_FLAGS)));
    }
}

#[test]
fn releases_that_know_no_requiretls_refuse_the_message() {
    let plain = Envelope::plain(QueueId(42), "", vec![Recipient::plain("a")]);
    for (smtputf8, trace) in [(false, Trace::Off), (true, Trace::Off), (false, Trace::Probe)] {
        let envelope = Envelope { requiretls: true, smtputf8, trace, ..plain.clone() };
        let mut bytes = Vec::new();
        envelope.encode(&mut bytes);
        // They accept 0 to 3 here.
        assert!(bytes[FLAGS_AT] >= 4);
        assert_eq!(Envelope::decode(&mut Take::new(&bytes)), Ok(envelope));
    }
}

#[test]
fn a_message_that_waives_tls_is_as_other_mail_for_earlier_releases() {
    let mut envelope = Envelope::plain(QueueId(42), "", vec![Recipient::plain("a")]);
    assert!(!envelope.waives_tls());
    envelope.waive_tls();
    envelope.waive_tls();
    assert!(envelope.waives_tls());
    assert_eq!(envelope.attributes, [("tls_required".into(), "no".into())]);
    let mut bytes = Vec::new();
    envelope.encode(&mut bytes);
    assert_eq!(bytes[FLAGS_AT], 0);
    assert_eq!(Envelope::decode(&mut Take::new(&bytes)), Ok(envelope));
}

#[test]
fn an_attribute_that_an_earlier_release_kept_is_read_back() {
    let with = |value: &str, behind: &[&str]| {
        let mut envelope = Envelope::plain(QueueId(42), "s", vec![Recipient::plain("a")]);
        envelope.attributes.push((TRACE_FLAGS.into(), value.into()));
        envelope.attributes.extend(behind.iter().map(|name| (Box::from(*name), Box::from("v"))));
        let mut bytes = Vec::new();
        envelope.encode(&mut bytes);
        let decoded = Envelope::decode(&mut Take::new(&bytes));
        if let Ok(decoded) = &decoded {
            let mut again = Vec::new();
            decoded.encode(&mut again);
            assert_eq!(again, bytes);
        }
        decoded.map(|envelope| envelope.trace)
    };
    for (value, behind, expected) in [
        ("1024", &[][..], Ok(Trace::Record)),
        ("1024", &["x"], Ok(Trace::Off)),
        ("01024", &[], Ok(Trace::Off)),
        ("0", &[], Ok(Trace::Off)),
        ("512", &[], Err(CodecError::BadValue(TRACE_FLAGS))),
        ("512", &["x"], Err(CodecError::BadValue(TRACE_FLAGS))),
        ("256", &["x"], Err(CodecError::BadValue(TRACE_FLAGS))),
    ] {
        assert_eq!(with(value, behind), expected, "{value} {behind:?}");
    }
}
