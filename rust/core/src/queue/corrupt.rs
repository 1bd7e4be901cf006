//! Putting damaged octets aside: `corrupt/SEGMENT-OFFSET` holds them as they stood, `.reason` beside it says why.

use crate::queue::CORRUPT;
use crate::queue::error::QueueError;
use crate::queue::segment::make_directory;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Octets are copied in pieces of so many.
const PIECE_OCTETS: usize = 256 * 1024;

/// Copy `octets` octets of `from` at `offset` to `corrupt/`, stable before this returns. `name` is the damaged file's.
/// Returns the copy's path relative to the queue directory, or `None` when an earlier start copied it already.
pub(crate) fn put_aside(
    queue_directory: &Path,
    from: &File,
    name: &str,
    offset: u64,
    octets: u64,
    reason: &str,
) -> Result<Option<String>, QueueError> {
    let directory = make_directory(queue_directory, CORRUPT)?;
    let name = format!("{name}-{offset}");
    let path = directory.join(&name);
    if path.exists() {
        return Ok(None);
    }
    // The copy gets its name last: a name without a whole copy would hide the damage from the next start.
    let new_path = directory.join(format!("new.{name}"));
    let failed = |error: io::Error| QueueError::io("write", &new_path, &error);
    let mut copy = create(&new_path)?;
    let mut buffer = vec![0; PIECE_OCTETS];
    let mut copied = 0;
    while copied < octets {
        let piece = (octets - copied).min(PIECE_OCTETS as u64) as usize;
        from.read_exact_at(&mut buffer[..piece], offset + copied).map_err(failed)?;
        copy.write_all(&buffer[..piece]).map_err(failed)?;
        copied += piece as u64;
    }
    copy.sync_all().map_err(failed)?;
    let reason_path = directory.join(format!("{name}.reason"));
    let mut note = create(&reason_path)?;
    note.write_all(format!("{octets} octets at {offset}: {reason}\n").as_bytes()).map_err(failed)?;
    note.sync_all().map_err(failed)?;
    fs::rename(&new_path, &path).map_err(failed)?;
    File::open(&directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(Some(format!("{CORRUPT}/{name}")))
}

fn create(path: &PathBuf) -> Result<File, QueueError> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.map_err(|error| QueueError::io("create", path, &error))
}
