//! What a start finds in the queue directory: the facts of the state log, and the segments with what stands in them.

use crate::queue::error::QueueError;
use crate::queue::id::QueueId;
use crate::queue::locator::SegmentId;
use crate::queue::scan::segment_path;
use crate::queue::segment::NEW_PREFIX;
use crate::queue::state::{Entry, Fact, Kept};
use crate::queue::{DEFERRED, INCOMING, statelog};
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file `new.ID` that nobody holds and that is so old was left by a process that died.
const LEFTOVER_AGE: Duration = Duration::from_secs(60);

/// What the state log says of one message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub kept: Kept,
    pub removed: bool,
}

impl Known {
    /// Is nothing left to do for a message of so many recipients?
    pub(crate) fn is_over(&self, recipients: usize) -> bool {
        self.removed || (recipients > 0 && self.kept.done.len() >= recipients)
    }
}

/// What the state log says.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub messages: HashMap<QueueId, Known>,
    pub ends: HashMap<SegmentId, u64>,
    pub log_number: u64,
    pub notices: Vec<String>,
}

/// Read the state log.
pub(crate) fn facts(queue_directory: &Path) -> Result<Facts, QueueError> {
    let loaded = statelog::load(queue_directory)?;
    let mut facts = Facts { log_number: loaded.number, notices: loaded.notices, ..Facts::default() };
    for entry in loaded.entries {
        match entry {
            Entry::Fact(fact) => {
                let known = facts.messages.entry(fact.id()).or_default();
                known.removed |= matches!(fact, Fact::Removed { .. });
                known.kept.apply(&fact);
            }
            Entry::SegmentEnd { segment, end } => {
                facts.ends.insert(segment, end);
            }
        }
    }
    Ok(facts)
}

/// Every segment, with the directory that it is in: those of `deferred/` first, so that of two copies of a message the
/// one that was made to stay is found first; then by number.
pub(crate) fn segments(queue_directory: &Path) -> Result<Vec<(&'static str, SegmentId, PathBuf)>, QueueError> {
    let mut found = Vec::new();
    for directory in [DEFERRED, INCOMING] {
        let mut ids: Vec<SegmentId> =
            names(&queue_directory.join(directory))?.iter().filter_map(|name| SegmentId::parse(name)).collect();
        ids.sort();
        found.extend(ids.into_iter().map(|id| (directory, id, segment_path(queue_directory, directory, id))));
    }
    Ok(found)
}

/// Remove files that never became segments and whose writers are gone. Returns how many.
pub(crate) fn remove_leftovers(directory: &Path) -> Result<usize, QueueError> {
    let mut removed = 0;
    for name in names(directory)? {
        let path = directory.join(&name);
        if name.strip_prefix(NEW_PREFIX).and_then(SegmentId::parse).is_some() && is_leftover(&path) {
            removed += usize::from(fs::remove_file(&path).is_ok());
        }
    }
    Ok(removed)
}

fn is_leftover(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let age = file.metadata().and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
    // The lock goes with the file; a writer that tries to take it meanwhile waits for that long.
    matches!(age, Ok(Ok(age)) if age >= LEFTOVER_AGE) && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn names(directory: &Path) -> Result<Vec<String>, QueueError> {
    let failed = |error: io::Error| QueueError::io("read", directory, &error);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(failed(error)),
    };
    entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
}
