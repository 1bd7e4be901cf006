//! The envelope: the queue's data about a message besides its content.
//!
//! Cleanup encodes it once; the queue record and the frame that announces the message hold the same bytes.

use super::id::QueueId;
use super::trace::{TRACE_FLAGS, Trace};
use crate::codec::{CodecError, Put, Take};

/// NOTIFY= of RFC 3461 §4.1, as bits; no bit means that the parameter is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notify(pub u8);

impl Notify {
    /// `NOTIFY=NEVER`
    pub const NEVER: u8 = 1;
    /// `NOTIFY=SUCCESS`
    pub const SUCCESS: u8 = 2;
    /// `NOTIFY=FAILURE`
    pub const FAILURE: u8 = 4;
    /// `NOTIFY=DELAY`
    pub const DELAY: u8 = 8;

    /// Whether the sender wants a report of success.
    pub fn on_success(self) -> bool {
        self.0 & Self::SUCCESS != 0
    }

    /// Whether a non-delivery report may be sent: yes, unless the sender has said otherwise.
    pub fn on_failure(self) -> bool {
        self.0 == 0 || self.0 & Self::FAILURE != 0
    }

    /// Whether a delay warning may be sent.
    pub fn on_delay(self) -> bool {
        self.0 == 0 || self.0 & Self::DELAY != 0
    }
}

/// RET= of RFC 3461 §4.3: the content of a non-delivery report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ret {
    /// The parameter is missing.
    #[default]
    Unsaid,
    /// The whole message.
    Full,
    /// Only the headers.
    Hdrs,
}

impl Ret {
    /// Return the value with this keyword; upper and lower case are the same.
    pub fn of(keyword: &str) -> Option<Self> {
        [Self::Full, Self::Hdrs].into_iter().find(|ret| ret.keyword().eq_ignore_ascii_case(keyword))
    }

    /// Return the keyword; empty when the parameter is missing.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Unsaid => "",
            Self::Full => "FULL",
            Self::Hdrs => "HDRS",
        }
    }
}

/// BODY= of RFC 6152: the content type that the sender declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyType {
    /// The parameter is missing.
    #[default]
    Unsaid,
    /// `BODY=7BIT`
    SevenBit,
    /// `BODY=8BITMIME`
    EightBitMime,
}

impl BodyType {
    /// Return the value with this keyword; upper and lower case are the same.
    pub fn of(keyword: &str) -> Option<Self> {
        [Self::SevenBit, Self::EightBitMime].into_iter().find(|body| body.keyword().eq_ignore_ascii_case(keyword))
    }

    /// Return the keyword; empty when the parameter is missing.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Unsaid => "",
            Self::SevenBit => "7BIT",
            Self::EightBitMime => "8BITMIME",
        }
    }
}

/// One recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The next address on the way, without angle brackets: `local@domain`, or a bare local part.
    pub address: Box<str>,
    /// The address that the client gave, if address mapping changed it (`orig_to` in the log).
    pub original: Option<Box<str>>,
    /// ORCPT= as received, in its xtext form: `rfc822;user@example.org`.
    pub orcpt: Option<Box<str>>,
    /// NOTIFY=
    pub notify: Notify,
}

impl Recipient {
    /// Return a recipient without rewriting and DSN options.
    pub fn plain(address: &str) -> Self {
        Self { address: address.into(), original: None, orcpt: None, notify: Notify::default() }
    }
}

/// The attribute of a message that arrives on hold.
const HOLD: &str = "hold";
/// The attribute of a message with the header `TLS-Required: no` (RFC 8689 §3). Earlier releases keep it, and deliver as
/// for other mail.
pub const TLS_REQUIRED: &str = "tls_required";
/// The attribute with the transport and next hop of a content filter (`smtp-amavis:[127.0.0.1]:10024`).
pub const FILTER: &str = "content_filter";

/// The queue's data about a message besides its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The queue ID.
    pub id: QueueId,
    /// Time of arrival: microseconds since 1970. Equal to the ID's time except for requeued messages.
    pub arrival_us: u64,
    /// The reverse path without angle brackets; empty for the null sender.
    pub sender: Box<str>,
    /// All recipients.
    pub recipients: Vec<Recipient>,
    /// BODY=
    pub body: BodyType,
    /// MAIL had the SMTPUTF8 parameter (RFC 6531).
    pub smtputf8: bool,
    /// The sender asks for REQUIRETLS (RFC 8689): by MAIL, `sendmail -O`, or `Require-TLS-ESMTP: yes`.
    pub requiretls: bool,
    /// RET=
    pub ret: Ret,
    /// ENVID= as received, in its xtext form.
    pub envid: Option<Box<str>>,
    /// The report that the sender wants of the first attempt. Of a probe, nothing is ever delivered.
    pub trace: Trace,
    /// Octets of the content in the log's `size=`: unstuffed, with a line end as one octet.
    pub size_octets: u64,
    /// Named attributes in Postfix's words: `client_name`, `client_address`, `helo_name`, `protocol_name`,
    /// `message_id`...
    pub attributes: Vec<(Box<str>, Box<str>)>,
}

impl Envelope {
    /// Return an envelope without options, that arrived at the time of its ID.
    pub fn plain(id: QueueId, sender: &str, recipients: Vec<Recipient>) -> Self {
        Self {
            id,
            arrival_us: id.usec(),
            sender: sender.into(),
            recipients,
            body: BodyType::Unsaid,
            smtputf8: false,
            requiretls: false,
            ret: Ret::Unsaid,
            envid: None,
            trace: Trace::Off,
            size_octets: 0,
            attributes: Vec::new(),
        }
    }
}

/// Flags in the octet of SMTPUTF8. Releases before `PROBE` take any value but 0 and 1 for damage, and deliver nothing.
const SMTPUTF8: u8 = 1;
/// `Trace::Probe`
const PROBE: u8 = 2;
/// REQUIRETLS: releases that know none would send the message in the clear.
const REQUIRETLS: u8 = 4;
/// Minimum number of octets in an encoded recipient.
const RECIPIENT_LEAST_OCTETS: usize = 7;
/// Minimum number of octets in an encoded attribute.
const ATTRIBUTE_LEAST_OCTETS: usize = 8;

impl Envelope {
    /// Return the value of a named attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| &**n == name).map(|(_, value)| &**value)
    }

    /// Let the queue manager put the message on hold when it arrives.
    pub fn hold_on_arrival(&mut self) {
        self.attributes.push((HOLD.into(), "yes".into()));
    }

    /// Whether the queue manager puts the message on hold when it arrives.
    pub fn holds_on_arrival(&self) -> bool {
        self.attribute(HOLD).is_some()
    }

    /// Note that the message goes out without a check of the server, and in the clear if need be (RFC 8689 §3).
    pub fn waive_tls(&mut self) {
        if !self.waives_tls() {
            self.attributes.push((TLS_REQUIRED.into(), "no".into()));
        }
    }

    /// Whether the message has the header `TLS-Required: no`, and the site obeys it.
    pub fn waives_tls(&self) -> bool {
        self.attribute(TLS_REQUIRED).is_some()
    }

    /// Return the transport and next hop of the content filter that takes the message first.
    pub fn filter(&self) -> Option<&str> {
        self.attribute(FILTER)
    }

    /// Return whether it is a probe: nothing of it may ever be delivered.
    pub fn is_probe(&self) -> bool {
        self.trace == Trace::Probe
    }

    /// Append the encoded form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.id.0);
        out.put_u64(self.arrival_us);
        out.put_str(&self.sender);
        out.put_u8(match self.body {
            BodyType::Unsaid => 0,
            BodyType::SevenBit => 1,
            BodyType::EightBitMime => 2,
        });
        let flags = [(self.smtputf8, SMTPUTF8), (self.is_probe(), PROBE), (self.requiretls, REQUIRETLS)];
        out.put_u8(flags.iter().filter(|(is_set, _)| *is_set).fold(0, |octet, (_, flag)| octet | flag));
        out.put_u8(match self.ret {
            Ret::Unsaid => 0,
            Ret::Full => 1,
            Ret::Hdrs => 2,
        });
        out.put_option_str(self.envid.as_deref());
        out.put_u64(self.size_octets);
        out.put_u32(self.recipients.len() as u32);
        for recipient in &self.recipients {
            encode_recipient(recipient, out);
        }
        let trace_flags = self.trace.flags().map(|flags| flags.to_string());
        out.put_u32((self.attributes.len() + usize::from(trace_flags.is_some())) as u32);
        for (name, value) in &self.attributes {
            out.put_str(name);
            out.put_str(value);
        }
        if let Some(flags) = trace_flags {
            out.put_str(TRACE_FLAGS);
            out.put_str(&flags);
        }
    }

    /// Read the encoded form.
    pub fn decode(take: &mut Take<'_>) -> Result<Self, CodecError> {
        let mut envelope = Self::decode_head(take)?;
        envelope.recipients =
            (0..take.count(RECIPIENT_LEAST_OCTETS)?).map(|_| decode_recipient(take)).collect::<Result<Vec<_>, _>>()?;
        envelope.attributes = (0..take.count(ATTRIBUTE_LEAST_OCTETS)?)
            .map(|_| Ok((take.str()?.into(), take.str()?.into())))
            .collect::<Result<Vec<_>, CodecError>>()?;
        envelope.take_trace()?;
        Ok(envelope)
    }

    /// Take the last attribute as the trace. The octet of flags and the attribute must agree: damage must not turn a probe
    /// into mail.
    fn take_trace(&mut self) -> Result<(), CodecError> {
        let is_probe = std::mem::take(&mut self.trace) == Trace::Probe;
        let last = self.attributes.pop_if(|(name, _)| &**name == TRACE_FLAGS);
        if let Some((name, flags)) = last {
            let trace = Trace::parse(&flags)?;
            if trace.flags().is_some_and(|written| *written.to_string() == *flags) {
                self.trace = trace;
            } else {
                self.attributes.push((name, flags));
            }
        }
        // Earlier releases took the attribute for one of many, in any place.
        let strange = |(name, value): &(Box<str>, Box<str>)| {
            &**name == TRACE_FLAGS && Trace::parse(value).is_ok_and(|trace| trace < Trace::Probe)
        };
        let known = |attribute: &(Box<str>, Box<str>)| &*attribute.0 != TRACE_FLAGS || strange(attribute);
        if is_probe == (self.trace == Trace::Probe) && self.attributes.iter().all(known) {
            Ok(())
        } else {
            Err(CodecError::BadValue(TRACE_FLAGS))
        }
    }

    /// Skip the fields before the recipients; return the number of recipients.
    pub(crate) fn decode_to_recipients(take: &mut Take<'_>) -> Result<u32, CodecError> {
        Self::decode_head(take)?;
        take.u32()
    }

    fn decode_head(take: &mut Take<'_>) -> Result<Self, CodecError> {
        let id = QueueId(take.u64()?);
        let arrival_us = take.u64()?;
        let sender = take.str()?.into();
        let body = match take.u8()? {
            0 => BodyType::Unsaid,
            1 => BodyType::SevenBit,
            2 => BodyType::EightBitMime,
            _ => return Err(CodecError::BadValue("BODY")),
        };
        let flags = take.u8()?;
        if flags & !(SMTPUTF8 | PROBE | REQUIRETLS) != 0 {
            return Err(CodecError::BadValue("SMTPUTF8"));
        }
        let (smtputf8, requiretls) = (flags & SMTPUTF8 != 0, flags & REQUIRETLS != 0);
        let trace = if flags & PROBE != 0 { Trace::Probe } else { Trace::Off };
        let ret = match take.u8()? {
            0 => Ret::Unsaid,
            1 => Ret::Full,
            2 => Ret::Hdrs,
            _ => return Err(CodecError::BadValue("RET")),
        };
        let envid = take.option_str()?.map(Into::into);
        let size_octets = take.u64()?;
        let (recipients, attributes) = (Vec::new(), Vec::new());
        Ok(Self {
            id,
            arrival_us,
            sender,
            recipients,
            body,
            smtputf8,
            requiretls,
            ret,
            envid,
            trace,
            size_octets,
            attributes,
        })
    }
}

/// Append the encoded form of a recipient.
pub fn encode_recipient(recipient: &Recipient, out: &mut Vec<u8>) {
    out.put_str(&recipient.address);
    out.put_option_str(recipient.original.as_deref());
    out.put_option_str(recipient.orcpt.as_deref());
    out.put_u8(recipient.notify.0);
}

/// Read the encoded form of a recipient.
pub fn decode_recipient(take: &mut Take<'_>) -> Result<Recipient, CodecError> {
    Ok(Recipient {
        address: take.str()?.into(),
        original: take.option_str()?.map(Into::into),
        orcpt: take.option_str()?.map(Into::into),
        notify: Notify(take.u8()?),
    })
}

#[cfg(test)]
mod tests;
