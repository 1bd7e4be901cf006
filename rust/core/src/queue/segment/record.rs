//! A record: one message in a segment.
//!
//! ```text
//! header (48 octets) | content (wire form, without the final dot line) | envelope
//! ```
//!
//! The envelope comes last, so that content can be written as it arrives. Content and envelope have a checksum each:
//! the queue manager reads an envelope without megabytes of content. The salt is the segment's, drawn at random: bytes
//! that a client sends as content never pass for a record when a damaged segment is read.

use crate::codec::{Put, Take};
use crate::mail::id::QueueId;
use crate::queue::error::QueueError;

/// First bytes of every record. The first is no ASCII, and no UTF-8 sequence starts with it.
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"\x93PRC";
/// The record version of this release.
pub(crate) const RECORD_VERSION: u16 = 1;
/// Octets of a record header.
pub(crate) const RECORD_HEADER_OCTETS: usize = 48;
/// Maximum number of octets in an envelope: well below the longest frame, since a frame announces it.
pub(crate) const ENVELOPE_MAX_OCTETS: usize = 32 * 1024 * 1024;

const CHECKED_OCTETS: usize = RECORD_HEADER_OCTETS - 4;

/// The header of a record, before content and envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub salt: u64,
    pub id: QueueId,
    pub content_octets: u64,
    pub envelope_octets: u32,
    pub content_crc: u32,
    pub envelope_crc: u32,
}

/// The meaning of 48 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderBytes {
    Valid(RecordHeader),
    /// A whole header of a newer release.
    Newer(u16),
    Invalid,
}

impl RecordHeader {
    /// Return the octets of the whole record; `None` for an impossible length.
    pub(crate) fn record_octets(&self) -> Option<u64> {
        self.content_octets.checked_add(RECORD_HEADER_OCTETS as u64)?.checked_add(u64::from(self.envelope_octets))
    }

    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER_OCTETS] {
        let mut out = Vec::with_capacity(RECORD_HEADER_OCTETS);
        out.extend_from_slice(&RECORD_MAGIC);
        out.put_u16(RECORD_VERSION);
        out.put_u16(0);
        out.put_u64(self.salt);
        out.put_u64(self.id.0);
        out.put_u64(self.content_octets);
        out.put_u32(self.envelope_octets);
        out.put_u32(self.content_crc);
        out.put_u32(self.envelope_crc);
        out.put_u32(crc32c::crc32c(&out));
        out.try_into().expect("the fields add up to a header")
    }

    /// Read a header. Magic, version and the place of the checksum are the same in every later version.
    pub(crate) fn decode(bytes: &[u8; RECORD_HEADER_OCTETS]) -> HeaderBytes {
        let (checked, crc) = bytes.split_at(CHECKED_OCTETS);
        if bytes[..4] != RECORD_MAGIC || crc != crc32c::crc32c(checked).to_le_bytes() {
            return HeaderBytes::Invalid;
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version > RECORD_VERSION {
            return HeaderBytes::Newer(version);
        }
        let mut take = Take::new(&checked[8..]);
        let mut fields = || {
            Ok::<_, crate::codec::CodecError>(Self {
                salt: take.u64()?,
                id: QueueId(take.u64()?),
                content_octets: take.u64()?,
                envelope_octets: take.u32()?,
                content_crc: take.u32()?,
                envelope_crc: take.u32()?,
            })
        };
        match fields() {
            Ok(header)
                if header.envelope_octets as usize <= ENVELOPE_MAX_OCTETS && header.record_octets().is_some() =>
            {
                HeaderBytes::Valid(header)
            }
            _ => HeaderBytes::Invalid,
        }
    }

    /// Return the header at the front of `bytes`, or the error; `place` names it in the error.
    pub(crate) fn read(bytes: &[u8; RECORD_HEADER_OCTETS], place: &str) -> Result<Self, QueueError> {
        match Self::decode(bytes) {
            HeaderBytes::Valid(header) => Ok(header),
            HeaderBytes::Newer(version) => Err(QueueError::Version(place.into(), version, RECORD_VERSION)),
            HeaderBytes::Invalid => Err(QueueError::Corrupt(format!("{place}: no record header").into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: RecordHeader = RecordHeader {
        salt: 0x0123_4567_89ab_cdef,
        id: QueueId(42),
        content_octets: 4096,
        envelope_octets: 130,
        content_crc: 7,
        envelope_crc: 8,
    };

    #[test]
    fn a_header_is_read_back_and_no_flipped_bit_passes() {
        let bytes = HEADER.encode();
        assert_eq!(RecordHeader::decode(&bytes), HeaderBytes::Valid(HEADER));
        assert_eq!(HEADER.record_octets(), Some(48 + 4096 + 130));
        for bit in 0..RECORD_HEADER_OCTETS * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&flipped), HeaderBytes::Invalid, "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_is_named_and_an_impossible_length_is_refused() {
        let mut bytes = HEADER.encode();
        bytes[4] = 9;
        let crc = crc32c::crc32c(&bytes[..CHECKED_OCTETS]).to_le_bytes();
        bytes[CHECKED_OCTETS..].copy_from_slice(&crc);
        assert_eq!(RecordHeader::decode(&bytes), HeaderBytes::Newer(9));
        let endless = RecordHeader { content_octets: u64::MAX, ..HEADER };
        assert_eq!(RecordHeader::decode(&endless.encode()), HeaderBytes::Invalid);
    }
}
