//! Numbers and texts as bytes, the same on a socket and on disk.
//!
//! Integers are little-endian and of fixed width; a text is a `u32` length and UTF-8. A reader never trusts a length:
//! one beyond the end is an error, so hostile bytes cost no memory.

use std::fmt;

/// The reason why bytes cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end before the value does.
    Short,
    /// A text is not UTF-8.
    NotUtf8,
    /// A number is outside of its allowed values; the name says which one.
    BadValue(&'static str),
    /// Bytes are left over after the last field.
    Trailing,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the bytes end before the value does"),
            Self::NotUtf8 => f.write_str("a text is not UTF-8"),
            Self::BadValue(name) => write!(f, "bad value for {name}"),
            Self::Trailing => f.write_str("bytes are left over"),
        }
    }
}

impl std::error::Error for CodecError {}

/// The writing side: plain functions on a growing buffer.
pub trait Put {
    /// Append one byte.
    fn put_u8(&mut self, value: u8);
    /// Append two bytes, little-endian.
    fn put_u16(&mut self, value: u16);
    /// Append four bytes, little-endian.
    fn put_u32(&mut self, value: u32);
    /// Append eight bytes, little-endian.
    fn put_u64(&mut self, value: u64);
    /// Append a `u32` length and the bytes. Panics above 4 GiB, which no field reaches: every input has a limit
    /// earlier.
    fn put_bytes(&mut self, value: &[u8]);
    /// Append a text as its UTF-8 bytes.
    fn put_str(&mut self, value: &str) {
        self.put_bytes(value.as_bytes());
    }
    /// Append one byte for whether a text follows, and the text.
    fn put_option_str(&mut self, value: Option<&str>) {
        match value {
            None => self.put_u8(0),
            Some(text) => {
                self.put_u8(1);
                self.put_str(text);
            }
        }
    }
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_bytes(&mut self, value: &[u8]) {
        self.put_u32(u32::try_from(value.len()).expect("a field is far below 4 GiB"));
        self.extend_from_slice(value);
    }
}

/// The reading side: takes values off the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a> {
    rest: &'a [u8],
}

impl<'a> Take<'a> {
    /// Read from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Return the bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Read exactly `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(CodecError::Short)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(CodecError::Short)?;
        self.rest = tail;
        Ok(*head)
    }

    /// Read one byte.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    /// Read two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, CodecError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Read four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Read eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Read a length and that many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let count = self.u32()? as usize;
        self.take(count)
    }

    /// Read a text.
    pub fn str(&mut self) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CodecError::NotUtf8)
    }

    /// Read a text that may be absent.
    pub fn option_str(&mut self) -> Result<Option<&'a str>, CodecError> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.str().map(Some),
            _ => Err(CodecError::BadValue("presence byte")),
        }
    }

    /// Read a count of items; refuse it when items of `least_octets` each cannot fit in the rest.
    pub fn count(&mut self, least_octets: usize) -> Result<usize, CodecError> {
        let count = self.u32()? as usize;
        if count.saturating_mul(least_octets) > self.rest.len() {
            return Err(CodecError::Short);
        }
        Ok(count)
    }

    /// Check that no bytes are left.
    pub fn end(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_read_back() {
        let mut bytes = Vec::new();
        bytes.put_u8(7);
        bytes.put_u16(700);
        bytes.put_u32(70_000);
        bytes.put_u64(7_000_000_000);
        bytes.put_str("grüße");
        bytes.put_option_str(None);
        bytes.put_option_str(Some(""));
        let mut take = Take::new(&bytes);
        assert_eq!(take.u8(), Ok(7));
        assert_eq!(take.u16(), Ok(700));
        assert_eq!(take.u32(), Ok(70_000));
        assert_eq!(take.u64(), Ok(7_000_000_000));
        assert_eq!(take.str(), Ok("grüße"));
        assert_eq!(take.option_str(), Ok(None));
        assert_eq!(take.option_str(), Ok(Some("")));
        assert_eq!(take.end(), Ok(()));
    }

    #[test]
    fn a_length_past_the_end_is_short() {
        let mut bytes = Vec::new();
        bytes.put_u32(u32::MAX);
        assert_eq!(Take::new(&bytes).bytes(), Err(CodecError::Short));
        assert_eq!(Take::new(&bytes).count(1), Err(CodecError::Short));
    }
}
