//! The octets of a file, in memory when the file is small, else read piece by piece.
//!
//! A program with many lookups, such as `postmap -q -`, allows larger files in memory: once the pieces read and expected
//! take about as long as reading the whole file, it is read whole.
//!
//! No part of a file is mapped into memory: a file that someone truncates gives an error, and no signal. The memory of a
//! large file is anonymous, in large pages where the system has them: lookups in random order then wait less for the
//! processor's page tables.

use crate::errno::reason;
use memmap2::{Advice, MmapMut};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Maximum octets of a file that is kept in memory.
pub const IN_MEMORY_MAX_OCTETS: u64 = 32 * 1024 * 1024;
/// Octets of a file that are read whole in the time in which one piece is read, with its call of the kernel.
const OCTETS_A_PIECE: u64 = 1024;
/// Maximum octets of one piece.
pub const PIECE_MAX_OCTETS: usize = 64 * 1024 * 1024;

/// Major number 1, minor number 3: Linux's /dev/null (devices.txt).
const NULL_DEVICE: u64 = 0x103;

/// The octets of an open file.
#[derive(Debug)]
pub enum Octets {
    /// A small file.
    Memory(Box<[u8]>),
    /// A large file.
    File(Large),
}

/// A large file.
#[derive(Debug)]
pub struct Large {
    file: File,
    octets: u64,
    /// The number of pieces that were read or are expected.
    pieces: AtomicU64,
    loaded_max_octets: u64,
    loaded: OnceLock<MmapMut>,
}

impl Large {
    /// `octets`: the file's length. `loaded_max_octets`: maximum length of a file that is read whole.
    pub fn new(file: File, octets: u64, loaded_max_octets: u64) -> Self {
        Self { file, octets, pieces: AtomicU64::new(0), loaded_max_octets, loaded: OnceLock::new() }
    }

    /// Return the whole file, once that pays.
    fn loaded(&self) -> Option<&[u8]> {
        if self.loaded.get().is_none()
            && self.octets <= self.loaded_max_octets
            && self.pieces.fetch_add(1, Ordering::Relaxed).saturating_mul(OCTETS_A_PIECE) >= self.octets
        {
            // A file that cannot be read fails piece by piece, too.
            if let Ok(octets) = self.read() {
                return Some(self.loaded.get_or_init(|| octets));
            }
        }
        self.loaded.get().map(|octets| &**octets)
    }

    /// Read the whole file.
    fn read(&self) -> io::Result<MmapMut> {
        let mut octets = MmapMut::map_anon(self.octets as usize)?;
        // A system without large pages works as well.
        let _ = octets.advise(Advice::HugePage);
        self.file.read_exact_at(&mut octets, 0)?;
        Ok(octets)
    }
}

impl Octets {
    /// Take the octets of an open file of this length. `loaded_max_octets`: see `Options`.
    pub fn of(mut file: File, length: u64, loaded_max_octets: u64) -> io::Result<Self> {
        if length > IN_MEMORY_MAX_OCTETS {
            return Ok(Self::File(Large::new(file, length, loaded_max_octets)));
        }
        let mut octets = Vec::with_capacity(length as usize);
        file.by_ref().take(IN_MEMORY_MAX_OCTETS).read_to_end(&mut octets)?;
        Ok(Self::Memory(octets.into()))
    }

    /// Return the length.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(octets) => octets.len() as u64,
            Self::File(large) => large.octets,
        }
    }

    /// Whether there are no octets.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Return all octets if they are in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match self {
            Self::Memory(octets) => Some(octets),
            Self::File(large) => large.loaded.get().map(|octets| &**octets),
        }
    }

    /// Prepare for that many pieces.
    pub fn expect(&self, pieces: u64) {
        if let Self::File(large) = self {
            large.pieces.fetch_add(pieces, Ordering::Relaxed);
        }
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
            Self::File(large) => {
                if let Some(octets) = large.loaded() {
                    return Ok(&octets[at as usize..end as usize]);
                }
                buffer.resize(length, 0);
                large.file.read_exact_at(buffer, at)?;
                Ok(buffer)
            }
        }
    }
}

/// Open a regular file for reading, or /dev/null, which some sites use as an empty table. A FIFO does not block.
pub fn open(path: &Path) -> Result<(File, Metadata), String> {
    let cannot = |error: io::Error| format!("open {}: {}", path.display(), reason(&error));
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(cannot)?;
    let status = file.metadata().map_err(cannot)?;
    if status.is_dir() {
        return Err(format!("open {}: Is a directory", path.display()));
    }
    let is_null = status.file_type().is_char_device() && status.rdev() == NULL_DEVICE;
    if !status.is_file() && !is_null {
        return Err(format!("open {}: not a regular file", path.display()));
    }
    Ok((file, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_null_device_is_an_empty_file_and_other_devices_are_none() {
        let (file, status) = open(Path::new("/dev/null")).unwrap();
        assert!(Octets::of(file, status.len(), 0).unwrap().is_empty());
        assert_eq!(open(Path::new("/dev/zero")).unwrap_err(), "open /dev/zero: not a regular file");
    }

    #[test]
    fn pieces_outside_of_the_file_are_errors() {
        let memory = Octets::Memory(b"abcdef".as_slice().into());
        let mut buffer = Vec::new();
        assert_eq!(memory.piece(2, 3, &mut buffer).unwrap(), b"cde");
        assert!(memory.piece(5, 2, &mut buffer).is_err());
        assert!(memory.piece(u64::MAX, 2, &mut buffer).is_err());
    }

    #[test]
    fn a_large_file_is_read_whole_after_many_pieces_if_it_may() {
        let path = std::env::temp_dir().join(format!("postillion-octets-{}", std::process::id()));
        std::fs::write(&path, [7; 10_000]).unwrap();
        for (maximum, loaded) in [(10_000, true), (9999, false)] {
            let octets = Octets::File(Large::new(File::open(&path).unwrap(), 10_000, maximum));
            let mut buffer = Vec::new();
            for _ in 0..10 {
                assert!(octets.in_memory().is_none());
                assert_eq!(octets.piece(9990, 10, &mut buffer).unwrap(), [7; 10]);
            }
            assert_eq!(octets.piece(0, 10, &mut buffer).unwrap(), [7; 10]);
            assert_eq!(octets.in_memory().is_some(), loaded);
            assert!(octets.piece(9990, 11, &mut buffer).is_err());
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_directory_and_a_missing_file_are_named() {
        let folder = std::env::temp_dir();
        assert!(open(&folder).unwrap_err().ends_with("Is a directory"));
        assert_eq!(open(Path::new("/none/x")).unwrap_err(), "open /none/x: No such file or directory");
    }
}
