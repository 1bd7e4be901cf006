//! Copy damaged octets: `corrupt/SEGMENT-OFFSET` has them unchanged, `.reason` beside it has the reason.

use crate::queue::CORRUPT;
use crate::queue::disk::{Disk, Open, read_exact, write_all};
use crate::queue::error::QueueError;
use crate::queue::segment::make_directory;
use std::fs::File;
use std::io;
use std::path::Path;

/// Octets copied at a time.
const PIECE_OCTETS: usize = 256 * 1024;

/// Copy `octets` octets of `from` at `offset` to `corrupt/`, stable before this returns. `name` is the damaged file's.
/// Return the copy's path relative to the queue directory, or `None` when an earlier start copied it already.
pub(crate) fn put_aside(
    disk: &dyn Disk,
    queue_directory: &Path,
    from: &File,
    name: &str,
    offset: u64,
    octets: u64,
    reason: &str,
) -> Result<Option<String>, QueueError> {
    let directory = make_directory(disk, queue_directory, CORRUPT)?;
    let name = format!("{name}-{offset}");
    let path = directory.join(&name);
    if path.exists() {
        return Ok(None);
    }
    // Rename the copy last: a name without a whole copy would hide the damage from the next start.
    let new_path = directory.join(format!("new.{name}"));
    let failed = |error: io::Error| QueueError::io("write", &new_path, &error);
    let copy = disk.open(&new_path, Open::Fresh).map_err(failed)?;
    let mut buffer = vec![0; PIECE_OCTETS];
    let mut copied = 0;
    while copied < octets {
        let piece = (octets - copied).min(PIECE_OCTETS as u64) as usize;
        read_exact(disk, from, &mut buffer[..piece], offset + copied).map_err(failed)?;
        copied += write_all(disk, &copy, &[&buffer[..piece]], copied).map_err(failed)?;
    }
    disk.sync_data(&copy).map_err(failed)?;
    let reason_path = directory.join(format!("{name}.reason"));
    let note = disk.open(&reason_path, Open::Fresh).map_err(failed)?;
    let text = format!("{octets} octets at {offset}: {reason}\n");
    write_all(disk, &note, &[text.as_bytes()], 0).map_err(failed)?;
    disk.sync_data(&note).map_err(failed)?;
    disk.rename(&new_path, &path).map_err(failed)?;
    disk.sync_directory(&directory).map_err(failed)?;
    Ok(Some(format!("{CORRUPT}/{name}")))
}
