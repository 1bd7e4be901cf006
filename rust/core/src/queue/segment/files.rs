//! Segments kept open for reading: an agent that delivers many messages of a segment opens it once.
//!
//! An unlinked segment takes disk space while it is open, so segments idle for `IDLE_S` are closed. A segment's number
//! is never reused (`SegmentId`), so a path always means the same bytes.

use crate::mail::locator::SegmentId;
use crate::queue::error::QueueError;
use crate::queue::{DEFERRED, INCOMING};
use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Maximum number of segments kept open.
pub const OPEN_MAX: usize = 8;
/// Longest time a segment stays open without a read.
pub const IDLE_S: f64 = 2.0;

/// A segment that is open for reading.
#[derive(Debug, Clone)]
pub struct OpenSegment {
    pub(crate) file: Arc<File>,
    /// For error texts.
    pub(crate) path: Arc<Path>,
}

impl OpenSegment {
    /// Open a segment. `path`: relative to the queue directory. It comes from another process: only segments of the
    /// queue are opened.
    pub fn open(queue_directory: &Path, path: &str, segment: SegmentId) -> Result<Self, QueueError> {
        let named = path.split_once('/').filter(|(directory, _)| [INCOMING, DEFERRED].contains(directory));
        if named.and_then(|(_, name)| SegmentId::parse(name)) != Some(segment) {
            return Err(QueueError::Corrupt(format!("{path:?} is not the path of {segment:?}").into()));
        }
        let path = queue_directory.join(path);
        let file = File::open(&path).map_err(|error| QueueError::io("open", &path, &error))?;
        Ok(Self { file: Arc::new(file), path: path.into() })
    }
}

#[derive(Debug)]
struct Kept {
    path: Box<str>,
    segment: SegmentId,
    open: OpenSegment,
    used: f64,
}

/// The most recently read segments.
#[derive(Debug, Default)]
pub struct SegmentFiles {
    /// The most recently used one comes first.
    kept: VecDeque<Kept>,
}

impl SegmentFiles {
    /// Return the segment at `path`; open it if needed. `now`: seconds, monotonic, here and below.
    pub fn open(
        &mut self,
        queue_directory: &Path,
        path: &str,
        segment: SegmentId,
        now: f64,
    ) -> Result<OpenSegment, QueueError> {
        let known = self.kept.iter().position(|kept| kept.segment == segment && *kept.path == *path);
        let kept = match known.and_then(|at| self.kept.remove(at)) {
            Some(kept) => Kept { used: now, ..kept },
            None => {
                let open = OpenSegment::open(queue_directory, path, segment)?;
                self.kept.truncate(OPEN_MAX - 1);
                Kept { path: path.into(), segment, open, used: now }
            }
        };
        let open = kept.open.clone();
        self.kept.push_front(kept);
        Ok(open)
    }

    /// Close segments that were not read for `IDLE_S`. Return the number of open ones.
    pub fn close_idle(&mut self, now: f64) -> usize {
        self.kept.retain(|kept| now - kept.used < IDLE_S);
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, commit};
    use crate::queue::segment::content::ContentReader;
    use std::fs;

    #[test]
    fn a_segment_is_opened_once_and_closed_when_idle() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let places: Vec<_> = (0..3u8).map(|n| commit(&journal, &[b'a' + n; 9]).result.unwrap()).collect();
        let path = format!("incoming/{}", places[0].segment.file_name());
        let mut files = SegmentFiles::default();
        for (n, at) in places.iter().enumerate() {
            let open = files.open(directory.path(), &path, at.segment, n as f64).unwrap();
            assert_eq!(ContentReader::of(open, at).unwrap().piece(99).unwrap(), [b'a' + n as u8; 9]);
            // Only the first of them finds a file at that path.
            fs::remove_file(directory.path().join(&path)).ok();
        }
        assert_eq!(files.close_idle(2.0 + IDLE_S - 0.1), 1);
        assert_eq!(files.close_idle(2.0 + IDLE_S), 0);
        assert!(files.open(directory.path(), &path, places[0].segment, 9.0).is_err());
    }

    #[test]
    fn open_segments_are_limited_and_the_most_recently_used_stay() {
        let directory = Directory::new();
        fs::create_dir(directory.path().join(INCOMING)).ok();
        let path = |n: usize| format!("incoming/{}", SegmentId(n as u64).file_name());
        let mut files = SegmentFiles::default();
        for n in 0..=OPEN_MAX {
            fs::write(directory.path().join(path(n)), b"").unwrap();
            files.open(directory.path(), &path(n), SegmentId(n as u64), 1.0).unwrap();
            // The first one is used all the time.
            files.open(directory.path(), &path(0), SegmentId(0), 1.0).unwrap();
        }
        assert_eq!(files.close_idle(1.0), OPEN_MAX);
        for n in 0..=OPEN_MAX {
            fs::remove_file(directory.path().join(path(n))).unwrap();
            let open = files.open(directory.path(), &path(n), SegmentId(n as u64), 1.0);
            assert_eq!(open.is_ok(), n != 1, "{n}");
        }
        // A path that names no segment finds nothing.
        assert!(files.open(directory.path(), &path(0), SegmentId(7), 1.0).is_err());
        assert!(files.open(directory.path(), "../x", SegmentId(0), 1.0).is_err());
    }
}
