//! The four system calls that a promise hangs on, behind a trait, so that a test can count them or let them fail.

use rustix::io::{Errno, pwritev};
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// Buffers to one `pwritev`: IOV_MAX of Linux.
const SLICES_MAX: usize = 1024;

/// Writing and syncing.
pub(crate) trait Disk: Send + Sync {
    /// Write some of the bytes; returns how many.
    fn write_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// `fdatasync`: returns once content and length are stable.
    fn sync_data(&self, file: &File) -> io::Result<()>;
    /// Cut a file.
    fn truncate(&self, file: &File, octets: u64) -> io::Result<()>;
    /// `fsync` of a directory: returns once its names are stable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// The real one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RealDisk;

impl RealDisk {
    pub(crate) fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for RealDisk {
    fn write_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(pwritev(file, slices, offset)?)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn truncate(&self, file: &File, octets: u64) -> io::Result<()> {
        file.set_len(octets)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// Write every byte of `buffers` from `offset` on; returns how many octets that were.
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
