//! Segments that no start finds, because their name or their place is another program's.
//!
//! Postfix's `postsuper` gives each file in `incoming/` and `deferred/` a name and a directory of its own. A start reads
//! segments by name, so their mail would wait without a word in the log. `repair.rs` gives them back their names.

use crate::mail::locator::SegmentId;
use crate::queue::disk::{Disk, Open, names};
use crate::queue::error::QueueError;
use crate::queue::segment::{NEW_PREFIX, SEGMENT_HEADER_OCTETS, SegmentBytes, SegmentHeader};
use crate::queue::{DEFERRED, INCOMING};
use std::fs;
use std::path::Path;

/// Maximum number of misplaced segments with a line of their own; further ones are counted.
const LINES_MAX: usize = 100;
/// Maximum depth of Postfix's hashed directories (`hash_queue_depth`).
const DEPTH_MAX: usize = 16;

/// Return a line for the log for each segment whose name or directory differs from those in which a start looks for it.
pub(crate) fn misplaced(disk: &dyn Disk, queue_directory: &Path) -> Result<Vec<String>, QueueError> {
    let mut search = Search { disk, queue_directory, lines: Vec::new(), found: 0 };
    for directory in [INCOMING, DEFERRED] {
        search.directory(directory, 0)?;
    }
    if search.found > LINES_MAX {
        search.lines.push(format!("{} segments with another name than in their header in all", search.found));
    }
    Ok(search.lines)
}

struct Search<'a> {
    disk: &'a dyn Disk,
    queue_directory: &'a Path,
    lines: Vec<String>,
    found: usize,
}

impl Search<'_> {
    fn directory(&mut self, directory: &str, depth: usize) -> Result<(), QueueError> {
        for name in names(self.disk, &self.queue_directory.join(directory))? {
            let shown = format!("{directory}/{name}");
            // A file that is gone by now was a finished segment. Links and pipes are never opened.
            let Ok(metadata) = fs::symlink_metadata(self.queue_directory.join(&shown)) else { continue };
            if metadata.is_dir() && depth < DEPTH_MAX {
                self.directory(&shown, depth + 1)?;
            } else if metadata.is_file()
                && !name.starts_with(NEW_PREFIX)
                && let Some(id) = self.header_id(&self.queue_directory.join(&shown))
                && (depth > 0 || id.file_name() != name)
            {
                self.found += 1;
                if self.found <= LINES_MAX {
                    self.lines.push(line(&shown, &id.file_name()));
                }
            }
        }
        Ok(())
    }

    /// Return the ID in a file's header; `None` for a file that is no segment, or that a start cannot read either.
    fn header_id(&self, path: &Path) -> Option<SegmentId> {
        let file = self.disk.open(path, Open::Read).ok()?;
        let mut header = [0; SEGMENT_HEADER_OCTETS];
        let octets = self.disk.read_at(&file, &mut header, 0).ok()?;
        match SegmentHeader::decode(&header) {
            SegmentBytes::Valid(header) if octets == SEGMENT_HEADER_OCTETS => Some(header.id),
            _ => None,
        }
    }
}

fn line(shown: &str, right: &str) -> String {
    format!("{shown}: its header has the name {right}: its mail may wait until you stop and run postsuper -s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, commit};
    use crate::queue::repair::{Repair, repair};
    use crate::queue::store::spool::Spool;

    #[test]
    fn a_segment_that_another_program_renamed_is_named_at_each_start_until_its_repair() {
        let directory = Directory::new();
        for _ in 0..3 {
            let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
            commit(&journal, b"x");
            journal.close();
        }
        let at = |name: &str| directory.path().join(name);
        let segments = directory.files(INCOMING);
        fs::create_dir_all(at("deferred/4")).unwrap();
        let own = segments[0].file_name().unwrap().to_str().unwrap().to_owned();
        fs::rename(&segments[0], at("incoming/4B0C53A1F2")).unwrap();
        let hashed = segments[1].file_name().unwrap().to_str().unwrap().to_owned();
        fs::rename(&segments[1], at("deferred/4").join(&hashed)).unwrap();
        fs::write(at("incoming/notes"), b"a file of the administrator, with more octets than a header").unwrap();
        let expected = [line("incoming/4B0C53A1F2", &own), line(&format!("deferred/4/{hashed}"), &hashed)];
        for _ in 0..2 {
            let (mut spool, stored) = Spool::open(directory.path()).unwrap();
            assert_eq!((stored.len(), spool.take_notices()), (1, expected.to_vec()));
        }
        repair(directory.path(), &Repair { structure: true, ..Repair::default() }).unwrap();
        let (mut spool, stored) = Spool::open(directory.path()).unwrap();
        assert_eq!((stored.len(), spool.take_notices()), (3, vec![]));
    }

    #[test]
    fn many_misplaced_segments_give_a_bounded_number_of_lines() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        commit(&journal, b"x");
        journal.close();
        let segment = directory.files(INCOMING).remove(0);
        for number in 0..=LINES_MAX {
            fs::copy(&segment, directory.path().join(format!("incoming/copy{number}"))).unwrap();
        }
        let lines = misplaced(&crate::queue::disk::RealDisk, directory.path()).unwrap();
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert!(lines[LINES_MAX].starts_with(&format!("{} segments", LINES_MAX + 1)), "{}", lines[LINES_MAX]);
    }
}
