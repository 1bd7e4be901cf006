//! The place of a message on disk.

use crate::codec::{CodecError, Put, Take};

/// A segment file's number: unique in a queue directory, and its file's name as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl SegmentId {
    /// Return the file's name inside its directory.
    pub fn file_name(self) -> String {
        format!("{:016X}", self.0)
    }

    /// Return the number in a file's name; `None` for a name that no segment has.
    pub fn parse(name: &str) -> Option<Self> {
        let well_formed = name.len() == 16 && name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        if well_formed { u64::from_str_radix(name, 16).ok().map(Self) } else { None }
    }
}

/// A record's place: segment, offset of its header in octets, and the octets of the whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Locator {
    /// The segment that holds it.
    pub segment: SegmentId,
    /// Octets from the start of the segment file to the record header.
    pub offset: u64,
    /// Octets of header, content and envelope together.
    pub record_octets: u64,
}

impl Locator {
    /// Octets of an encoded locator.
    pub const ENCODED_OCTETS: usize = 24;

    /// Append the encoded form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.segment.0);
        out.put_u64(self.offset);
        out.put_u64(self.record_octets);
    }

    /// Read the encoded form.
    pub fn decode(take: &mut Take<'_>) -> Result<Self, CodecError> {
        Ok(Self { segment: SegmentId(take.u64()?), offset: take.u64()?, record_octets: take.u64()? })
    }
}
