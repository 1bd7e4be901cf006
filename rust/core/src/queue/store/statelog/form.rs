//! The state log's headers and entries as octets.

use crate::codec::Put;
use crate::queue::error::QueueError;
use crate::queue::state::Entry;
use std::path::Path;

/// Maximum number of octets in an entry: room for a list of two million recipients.
pub(super) const ENTRY_MAX_OCTETS: usize = 256 * 1024 * 1024;
pub(super) const FILE_MAGIC: [u8; 4] = *b"\x93PST";
/// Version 1 had only bases and no forced expiry.
pub(super) const FILE_VERSION: u16 = 2;
pub(super) const FILE_HEADER_OCTETS: usize = 24;
/// The header is written twice: no entry can be verified without its salt.
pub(super) const ENTRIES_AT: usize = 2 * FILE_HEADER_OCTETS;
pub(super) const ENTRY_MAGIC: [u8; 2] = *b"\x93F";
pub(super) const ENTRY_HEADER_OCTETS: usize = 10;

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Complete by itself.
    Base,
    /// Continues the file before it.
    Continuation,
}

pub(super) fn file_header(kind: Kind, number: u64, salt: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(FILE_HEADER_OCTETS);
    out.extend_from_slice(&FILE_MAGIC);
    out.put_u16(FILE_VERSION);
    out.put_u16(match kind {
        Kind::Base => 0,
        Kind::Continuation => 1,
    });
    out.put_u64(number);
    out.put_u32(salt);
    out.put_u32(crc32c::crc32c(&out));
    out
}

/// Return kind and salt from a file header; `None` when it is no header.
pub(super) fn read_file_header(bytes: &[u8], path: &Path) -> Result<Option<(Kind, u32)>, QueueError> {
    let Some((checked, crc)) = bytes.split_at_checked(FILE_HEADER_OCTETS - 4) else { return Ok(None) };
    if checked[..4] != FILE_MAGIC || crc != crc32c::crc32c(checked).to_le_bytes() {
        return Ok(None);
    }
    let version = u16::from_le_bytes([checked[4], checked[5]]);
    if version > FILE_VERSION {
        return Err(QueueError::Version(path.display().to_string().into(), version, FILE_VERSION));
    }
    let kind = if checked[6] == 0 { Kind::Base } else { Kind::Continuation };
    Ok(Some((kind, u32::from_le_bytes(checked[16..20].try_into().expect("four octets")))))
}

/// The checksum starts with the file's salt, so that a text from a remote host never passes for an entry.
pub(super) fn put_entry(out: &mut Vec<u8>, salt: u32, encode: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&ENTRY_MAGIC);
    let lengths_at = out.len();
    out.put_u64(0);
    let start = out.len();
    encode(out);
    let octets = (out.len() - start) as u32;
    let crc = entry_crc(salt, octets, &out[start..]);
    out[lengths_at..lengths_at + 4].copy_from_slice(&octets.to_le_bytes());
    out[lengths_at + 4..start].copy_from_slice(&crc.to_le_bytes());
}

/// The result of parsing the first octets.
pub(super) enum Parsed {
    /// An entry of this many octets.
    Whole(Entry, usize),
    /// The beginning of an entry, or nothing: parsing needs this many octets.
    Short(usize),
    Bad,
}

pub(super) fn read_entry(bytes: &[u8], salt: u32) -> Parsed {
    let Some((header, rest)) = bytes.split_at_checked(ENTRY_HEADER_OCTETS) else {
        return Parsed::Short(ENTRY_HEADER_OCTETS);
    };
    let octets = u32::from_le_bytes(header[2..6].try_into().expect("four octets"));
    if header[..2] != ENTRY_MAGIC || octets as usize > ENTRY_MAX_OCTETS {
        return Parsed::Bad;
    }
    let Some(payload) = rest.get(..octets as usize) else {
        return Parsed::Short(ENTRY_HEADER_OCTETS + octets as usize);
    };
    if header[6..] != entry_crc(salt, octets, payload).to_le_bytes() {
        return Parsed::Bad;
    }
    Entry::decode(payload).map_or(Parsed::Bad, |entry| Parsed::Whole(entry, ENTRY_HEADER_OCTETS + payload.len()))
}

pub(super) fn entry_crc(salt: u32, octets: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &octets.to_le_bytes()), payload)
}
