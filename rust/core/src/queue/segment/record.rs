//! A record: one message in a segment.
//!
//! ```text
//! header (48 octets) | body | head | envelope
//! ```
//!
//! The content of the message is the head, then the body: wire form, without the final dot line. The body is written as
//! it arrives. The head is the header fields and the empty line; they are complete only at the end. The envelope is
//! last. Content and envelope have a checksum each: the queue manager reads an envelope without megabytes of content.
//! In version 1 all of the content was in one piece: a record without a head. The salt is the segment's, drawn at random: bytes
//! that a client sends as content never pass for a record when a damaged segment is read.

use crate::codec::{Put, Take};
use crate::mail::id::QueueId;
use crate::queue::error::QueueError;

/// First bytes of every record. The first is no ASCII, and no UTF-8 sequence starts with it.
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"\x93PRC";
/// The record version of this release.
pub(crate) const RECORD_VERSION: u16 = 2;
/// The version without a head, for older releases.
pub(crate) const RECORD_WITHOUT_HEAD: u16 = 1;
/// Octets of a record header.
pub(crate) const RECORD_HEADER_OCTETS: usize = 48;
/// Maximum number of octets in an envelope: well below the longest frame, since a frame announces it.
pub(crate) const ENVELOPE_MAX_OCTETS: usize = 32 * 1024 * 1024;
/// Number of bits for the octets of a body in the header; the others hold those of the head.
const BODY_BITS: u32 = 40;
/// Maximum number of octets in a body: 1 TiB.
pub(crate) const BODY_MAX_OCTETS: u64 = (1 << BODY_BITS) - 1;
/// Maximum number of octets in a head: 16 MiB.
pub(crate) const HEAD_MAX_OCTETS: usize = (1 << (u64::BITS - BODY_BITS)) - 1;

const CHECKED_OCTETS: usize = RECORD_HEADER_OCTETS - 4;

/// The header of a record, before body, head and envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub salt: u64,
    pub id: QueueId,
    pub body_octets: u64,
    pub head_octets: u32,
    pub envelope_octets: u32,
    /// Checksum of the body followed by the head, as in the file.
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
    /// Return the octets of head and body.
    pub(crate) fn content_octets(&self) -> u64 {
        self.body_octets + u64::from(self.head_octets)
    }

    /// Return the octets of the whole record.
    pub(crate) fn record_octets(&self) -> u64 {
        self.envelope_at() + u64::from(self.envelope_octets)
    }

    /// Return the octets from the start of the record to the head.
    pub(crate) fn head_at(&self) -> u64 {
        RECORD_HEADER_OCTETS as u64 + self.body_octets
    }

    /// Return the octets from the start of the record to the envelope.
    pub(crate) fn envelope_at(&self) -> u64 {
        self.head_at() + u64::from(self.head_octets)
    }

    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER_OCTETS] {
        self.encode_as(RECORD_VERSION)
    }

    /// Encode for a release of this version. Version 1 has no head: `head_octets` must be 0.
    pub(crate) fn encode_as(&self, version: u16) -> [u8; RECORD_HEADER_OCTETS] {
        debug_assert!(self.body_octets <= BODY_MAX_OCTETS && self.head_octets as usize <= HEAD_MAX_OCTETS);
        let mut out = Vec::with_capacity(RECORD_HEADER_OCTETS);
        out.extend_from_slice(&RECORD_MAGIC);
        out.put_u16(version);
        out.put_u16(0);
        out.put_u64(self.salt);
        out.put_u64(self.id.0);
        out.put_u64(self.body_octets | u64::from(self.head_octets) << BODY_BITS);
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
            let (salt, id, content) = (take.u64()?, QueueId(take.u64()?), take.u64()?);
            Ok::<_, crate::codec::CodecError>(Self {
                salt,
                id,
                body_octets: content & BODY_MAX_OCTETS,
                head_octets: (content >> BODY_BITS) as u32,
                envelope_octets: take.u32()?,
                content_crc: take.u32()?,
                envelope_crc: take.u32()?,
            })
        };
        match fields() {
            // No older release wrote a body of this length.
            Ok(header) if version < 2 && header.head_octets > 0 => HeaderBytes::Invalid,
            Ok(header) if header.envelope_octets as usize <= ENVELOPE_MAX_OCTETS => HeaderBytes::Valid(header),
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
        body_octets: 4096,
        head_octets: 700,
        envelope_octets: 130,
        content_crc: 7,
        envelope_crc: 8,
    };

    #[test]
    fn a_header_is_read_back_and_no_flipped_bit_passes() {
        let bytes = HEADER.encode();
        assert_eq!(RecordHeader::decode(&bytes), HeaderBytes::Valid(HEADER));
        assert_eq!((HEADER.head_at(), HEADER.envelope_at()), (48 + 4096, 48 + 4096 + 700));
        assert_eq!((HEADER.content_octets(), HEADER.record_octets()), (4096 + 700, 48 + 4096 + 700 + 130));
        for bit in 0..RECORD_HEADER_OCTETS * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&flipped), HeaderBytes::Invalid, "bit {bit}");
        }
    }

    #[test]
    fn the_longest_parts_fit_and_version_1_has_no_head() {
        let longest = RecordHeader { body_octets: BODY_MAX_OCTETS, head_octets: HEAD_MAX_OCTETS as u32, ..HEADER };
        assert_eq!(RecordHeader::decode(&longest.encode()), HeaderBytes::Valid(longest));
        let whole = RecordHeader { head_octets: 0, ..HEADER };
        let old = whole.encode_as(RECORD_WITHOUT_HEAD);
        assert_eq!((old[4], RecordHeader::decode(&old)), (1, HeaderBytes::Valid(whole)));
        assert_eq!(RecordHeader::decode(&HEADER.encode_as(RECORD_WITHOUT_HEAD)), HeaderBytes::Invalid);
    }

    #[test]
    fn a_later_version_is_named_and_an_impossible_length_is_refused() {
        let mut bytes = HEADER.encode();
        bytes[4] = 9;
        let crc = crc32c::crc32c(&bytes[..CHECKED_OCTETS]).to_le_bytes();
        bytes[CHECKED_OCTETS..].copy_from_slice(&crc);
        assert_eq!(RecordHeader::decode(&bytes), HeaderBytes::Newer(9));
        let endless = RecordHeader { envelope_octets: ENVELOPE_MAX_OCTETS as u32 + 1, ..HEADER };
        assert_eq!(RecordHeader::decode(&endless.encode()), HeaderBytes::Invalid);
    }
}
