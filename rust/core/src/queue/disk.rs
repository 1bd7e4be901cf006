//! System calls on the queue's files, behind a trait, so that a test can count them or make any of them fail.

use super::error::QueueError;
use rustix::io::{Errno, pwritev};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Maximum number of buffers in one `pwritev`: IOV_MAX of Linux.
const SLICES_MAX: usize = 1024;
/// Mode of the queue's files and directories: for the owner alone.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The mode in which a file is opened: for reading and writing, except `Read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    /// The file must exist, and is only read.
    Read,
    /// Create the file if it does not exist; keep its content.
    Keep,
    /// The file must not exist.
    New,
    /// Create the file, or empty it.
    Fresh,
}

/// The system calls on the queue's files.
pub(crate) trait Disk: Send + Sync {
    /// Open a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<File>;
    /// Fill a part of `buffer`; return the number of octets, 0 at the end of the file.
    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Write some of the bytes; return their number.
    fn write_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// `fdatasync`: return once content and length are stable.
    fn sync_data(&self, file: &File) -> io::Result<()>;
    /// Truncate a file to `octets`.
    fn truncate(&self, file: &File, octets: u64) -> io::Result<()>;
    /// Rename a file; replace an existing `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Remove a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Create a directory.
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    /// `fsync` of a directory: return once its names are stable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Return the names in a directory, in no order.
    fn read_directory(&self, path: &Path) -> io::Result<Vec<String>>;
}

/// The file system of the operating system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RealDisk;

impl RealDisk {
    pub(crate) fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match how {
            Open::Read => &mut options,
            Open::Keep => options.write(true).create(true).truncate(false),
            Open::New => options.write(true).create_new(true),
            Open::Fresh => options.write(true).create(true).truncate(true),
        };
        options.open(path)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    fn write_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(pwritev(file, slices, offset)?)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn truncate(&self, file: &File, octets: u64) -> io::Result<()> {
        file.set_len(octets)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn read_directory(&self, path: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
}

/// Write all of `buffers` from `offset` on; return the number of octets.
pub(crate) fn write_all(disk: &dyn Disk, file: &File, buffers: &[&[u8]], offset: u64) -> io::Result<u64> {
    let mut slices: Vec<IoSlice<'_>> = buffers.iter().map(|buffer| IoSlice::new(buffer)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    let mut written = 0u64;
    while !rest.is_empty() {
        let some = &rest[..rest.len().min(SLICES_MAX)];
        match disk.write_at(file, some, offset + written) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(octets) => {
                written += octets as u64;
                IoSlice::advance_slices(&mut rest, octets);
            }
            Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Fill all of `buffer` from `offset` on; `UnexpectedEof` when the file is shorter.
pub(crate) fn read_exact(disk: &dyn Disk, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match disk.read_at(file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(octets) => filled += octets,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Return the names in a directory of the queue; none when the directory does not exist.
pub(crate) fn names(disk: &dyn Disk, directory: &Path) -> Result<Vec<String>, QueueError> {
    match disk.read_directory(directory) {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(QueueError::io("read", directory, &error)),
    }
}
