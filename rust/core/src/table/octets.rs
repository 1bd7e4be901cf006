//! The octets of a file, in memory when the file is small, else read piece by piece.
//!
//! No part is mapped into memory: a file that someone truncates gives an error, and no signal.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Maximum octets of a file that is kept in memory.
pub const IN_MEMORY_MAX_OCTETS: u64 = 32 * 1024 * 1024;
/// Maximum octets of one piece.
pub const PIECE_MAX_OCTETS: usize = 64 * 1024 * 1024;

/// The octets of an open file.
#[derive(Debug)]
pub enum Octets {
    /// A small file.
    Memory(Box<[u8]>),
    /// A large file, and its length.
    File(File, u64),
}

impl Octets {
    /// Take the octets of an open file of this length.
    pub fn of(mut file: File, length: u64) -> io::Result<Self> {
        if length > IN_MEMORY_MAX_OCTETS {
            return Ok(Self::File(file, length));
        }
        let mut octets = Vec::with_capacity(length as usize);
        file.by_ref().take(IN_MEMORY_MAX_OCTETS).read_to_end(&mut octets)?;
        Ok(Self::Memory(octets.into()))
    }

    /// Return the length.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(octets) => octets.len() as u64,
            Self::File(_, length) => *length,
        }
    }

    /// Whether there are no octets.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Return `length` octets at `at`. `buffer`: their place when they are read from the file.
    pub fn piece<'a>(&'a self, at: u64, length: usize, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        let short = || io::Error::new(io::ErrorKind::InvalidData, "the file is damaged");
        let end = at.checked_add(length as u64).filter(|&end| end <= self.len()).ok_or_else(short)?;
        if length > PIECE_MAX_OCTETS {
            return Err(short());
        }
        match self {
            Self::Memory(octets) => Ok(&octets[at as usize..end as usize]),
            Self::File(file, _) => {
                buffer.resize(length, 0);
                file.read_exact_at(buffer, at)?;
                Ok(buffer)
            }
        }
    }
}

/// Open a regular file for reading. A FIFO in its place does not block.
pub fn open(path: &Path) -> Result<(File, Metadata), String> {
    let cannot = |error: io::Error| format!("open {}: {}", path.display(), reason(&error));
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(cannot)?;
    let status = file.metadata().map_err(cannot)?;
    if status.is_dir() {
        return Err(format!("open {}: Is a directory", path.display()));
    }
    if !status.is_file() {
        return Err(format!("open {}: not a regular file", path.display()));
    }
    Ok((file, status))
}

/// Return the text of an error without its number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.find(" (os error").map_or(text.clone(), |at| text[..at].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_outside_of_the_file_are_errors() {
        let memory = Octets::Memory(b"abcdef".as_slice().into());
        let mut buffer = Vec::new();
        assert_eq!(memory.piece(2, 3, &mut buffer).unwrap(), b"cde");
        assert!(memory.piece(5, 2, &mut buffer).is_err());
        assert!(memory.piece(u64::MAX, 2, &mut buffer).is_err());
    }

    #[test]
    fn a_directory_and_a_missing_file_are_named() {
        let folder = std::env::temp_dir();
        assert!(open(&folder).unwrap_err().ends_with("Is a directory"));
        assert_eq!(open(Path::new("/none/x")).unwrap_err(), "open /none/x: No such file or directory");
    }
}
