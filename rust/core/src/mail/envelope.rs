//! The envelope: what the queue knows of a message besides its content.
//!
//! It is encoded once, when cleanup is done with the message, and the same bytes stand in the queue record and in the
//! frame that announces the message to the queue manager.

use super::id::QueueId;
use crate::codec::{CodecError, Put, Take};

/// NOTIFY= of RFC 3461 §4.1, as bits; no bit means that the sender said nothing.
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

    /// Is a report of success asked for?
    pub fn on_success(self) -> bool {
        self.0 & Self::SUCCESS != 0
    }

    /// May a non-delivery report be sent? Yes, unless the sender said otherwise.
    pub fn on_failure(self) -> bool {
        self.0 == 0 || self.0 & Self::FAILURE != 0
    }

    /// May a delay warning be sent?
    pub fn on_delay(self) -> bool {
        self.0 == 0 || self.0 & Self::DELAY != 0
    }
}

/// RET= of RFC 3461 §4.3: what a non-delivery report returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ret {
    /// The sender did not say.
    #[default]
    Unsaid,
    /// The whole message.
    Full,
    /// The headers alone.
    Hdrs,
}

/// BODY= of RFC 6152: what the sender says of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyType {
    /// Nothing was said.
    #[default]
    Unsaid,
    /// `BODY=7BIT`
    SevenBit,
    /// `BODY=8BITMIME`
    EightBitMime,
}

/// One recipient. `address` is where the message goes, without angle brackets: `local@domain`, or a bare local part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Where the message goes.
    pub address: Box<str>,
    /// What the client asked for, where address mapping made it something else (`orig_to` in the log).
    pub original: Option<Box<str>>,
    /// ORCPT= as received, in its xtext form: `rfc822;user@example.org`.
    pub orcpt: Option<Box<str>>,
    /// NOTIFY=
    pub notify: Notify,
}

impl Recipient {
    /// A recipient that nobody rewrote, with no DSN wishes.
    pub fn plain(address: &str) -> Self {
        Self { address: address.into(), original: None, orcpt: None, notify: Notify::default() }
    }
}

/// What the queue knows of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Its name in the queue.
    pub id: QueueId,
    /// When it arrived: microseconds since 1970. Equal to the ID's time but for messages that were requeued.
    pub arrival_us: u64,
    /// The reverse path without angle brackets; empty for the null sender.
    pub sender: Box<str>,
    /// Everyone it goes to.
    pub recipients: Vec<Recipient>,
    /// BODY=
    pub body: BodyType,
    /// SMTPUTF8 was asked for (RFC 6531).
    pub smtputf8: bool,
    /// RET=
    pub ret: Ret,
    /// ENVID= as received, in its xtext form.
    pub envid: Option<Box<str>>,
    /// Octets of the content as the log's `size=` counts them: unstuffed, with a line end as one octet.
    pub size_octets: u64,
    /// Named facts in Postfix's words: `client_name`, `client_address`, `helo_name`, `protocol_name`, `message_id`...
    pub attributes: Vec<(Box<str>, Box<str>)>,
}

impl Envelope {
    /// A message of which nothing more is known, that arrived when its ID says.
    pub fn plain(id: QueueId, sender: &str, recipients: Vec<Recipient>) -> Self {
        Self {
            id,
            arrival_us: id.usec(),
            sender: sender.into(),
            recipients,
            body: BodyType::Unsaid,
            smtputf8: false,
            ret: Ret::Unsaid,
            envid: None,
            size_octets: 0,
            attributes: Vec::new(),
        }
    }
}

/// An encoded recipient has at least this many octets.
const RECIPIENT_LEAST_OCTETS: usize = 7;
/// An encoded attribute has at least this many octets.
const ATTRIBUTE_LEAST_OCTETS: usize = 8;

impl Envelope {
    /// The value of a named fact.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| &**n == name).map(|(_, value)| &**value)
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
        out.put_u8(u8::from(self.smtputf8));
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
        out.put_u32(self.attributes.len() as u32);
        for (name, value) in &self.attributes {
            out.put_str(name);
            out.put_str(value);
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
        Ok(envelope)
    }

    /// Read over all that stands before the recipients; how many they are.
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
        let smtputf8 = match take.u8()? {
            0 => false,
            1 => true,
            _ => return Err(CodecError::BadValue("SMTPUTF8")),
        };
        let ret = match take.u8()? {
            0 => Ret::Unsaid,
            1 => Ret::Full,
            2 => Ret::Hdrs,
            _ => return Err(CodecError::BadValue("RET")),
        };
        let envid = take.option_str()?.map(Into::into);
        let size_octets = take.u64()?;
        let (recipients, attributes) = (Vec::new(), Vec::new());
        Ok(Self { id, arrival_us, sender, recipients, body, smtputf8, ret, envid, size_octets, attributes })
    }
}

/// Append a recipient's encoded form.
pub fn encode_recipient(recipient: &Recipient, out: &mut Vec<u8>) {
    out.put_str(&recipient.address);
    out.put_option_str(recipient.original.as_deref());
    out.put_option_str(recipient.orcpt.as_deref());
    out.put_u8(recipient.notify.0);
}

/// Read a recipient's encoded form.
pub fn decode_recipient(take: &mut Take<'_>) -> Result<Recipient, CodecError> {
    Ok(Recipient {
        address: take.str()?.into(),
        original: take.option_str()?.map(Into::into),
        orcpt: take.option_str()?.map(Into::into),
        notify: Notify(take.u8()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_comes_back_as_it_was() {
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
            ret: Ret::Hdrs,
            envid: Some("x1".into()),
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
}
