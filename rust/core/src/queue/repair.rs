//! Repair a queue directory while no program uses it (`postsuper -s`, `-p`).
//!
//! For a directory that was copied from another machine or restored from a backup: files with a wrong name, place,
//! owner or mode, and leftovers of dead processes. Unknown files are reported and left alone. No octet of a segment
//! changes, and no file that may hold a message is removed.

use super::store::disk_store::take_lock;
use super::store::recovery::remove_leftovers;
use crate::mail::locator::SegmentId;
use crate::queue::disk::RealDisk;
use crate::queue::error::QueueError;
use crate::queue::segment::{NEW_PREFIX, SEGMENT_HEADER_OCTETS, SegmentBytes, SegmentHeader, is_live, make_directory};
use crate::queue::{ACTIVE, CORRUPT, DEFERRED, INCOMING};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The queue manager's directories.
const DIRECTORIES: [&str; 4] = [INCOMING, ACTIVE, DEFERRED, CORRUPT];
/// Places where a misplaced segment may be: Postfix's other queues, and the queue directory itself.
const ELSEWHERE: [&str; 3] = [".", "hold", "maildrop"];
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Maximum number of lines of one kind for one directory; further ones are counted.
const LINES_MAX: usize = 1000;
/// Maximum number of files read in a directory; far above the number of segments of any queue.
const FILES_MAX: usize = 1_000_000;
/// Age of an incomplete file in maildrop/ that its writer has given up.
const SUBMISSION_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Octets in a slot file: one number (`slot.rs`).
const SLOT_OCTETS: u64 = 8;

/// The repairs to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Repair {
    /// Remove the leftovers of dead processes.
    pub purge: bool,
    /// Fix names, places, owners and modes.
    pub structure: bool,
    /// User and group of the files; `None` leaves them unchanged.
    pub owner: Option<(u32, u32)>,
}

/// Repair the directory; return a line for each change and each failure. `Locked` while a queue manager runs.
pub fn repair(queue_directory: &Path, repair: &Repair) -> Result<Vec<String>, QueueError> {
    for name in DIRECTORIES {
        make_directory(&RealDisk, queue_directory, name)?;
    }
    let _lock = take_lock(&RealDisk, queue_directory)?;
    let mut work = Work { queue_directory, lines: Vec::new(), owner: repair.owner };
    if repair.purge {
        work.purge()?;
    }
    if repair.structure {
        for name in ELSEWHERE.into_iter().chain(DIRECTORIES) {
            work.segments_of(Path::new(name))?;
        }
        for name in DIRECTORIES {
            work.slots_of(name)?;
            work.rights_of(name)?;
        }
    }
    Ok(work.lines)
}

struct Work<'a> {
    queue_directory: &'a Path,
    lines: Vec<String>,
    owner: Option<(u32, u32)>,
}

impl Work<'_> {
    fn purge(&mut self) -> Result<(), QueueError> {
        for name in [INCOMING, DEFERRED] {
            let removed = remove_leftovers(&RealDisk, &self.queue_directory.join(name))?;
            self.removed(name, removed);
        }
        let unfinished = |name: &str, _: &Metadata| name.starts_with(NEW_PREFIX) || name == "state.new";
        for name in [ACTIVE, CORRUPT] {
            let removed = self.remove_where(name, &unfinished)?;
            self.removed(name, removed);
        }
        let given_up = |_: &str, metadata: &Metadata| {
            let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
            metadata.permissions().mode() & 0o700 != 0o700 && age.is_some_and(|age| age >= SUBMISSION_AGE)
        };
        let removed = self.remove_where("maildrop", &given_up)?;
        self.removed("maildrop", removed);
        Ok(())
    }

    fn removed(&mut self, name: &str, count: usize) {
        if count > 0 {
            self.lines.push(format!("{name}: removed {count} unfinished file{}", plural(count)));
        }
    }

    /// Remove the regular files that `which` selects.
    fn remove_where(&self, name: &str, which: &dyn Fn(&str, &Metadata) -> bool) -> Result<usize, QueueError> {
        let mut removed = 0;
        for (path, metadata) in self.entries(Path::new(name))? {
            if metadata.is_file() && which(&file_name(&path), &metadata) {
                removed += usize::from(fs::remove_file(self.queue_directory.join(&path)).is_ok());
            }
        }
        Ok(removed)
    }

    /// Return the files in a directory of the queue, by path relative to it; symbolic links are not followed.
    fn entries(&self, directory: &Path) -> Result<Vec<(PathBuf, Metadata)>, QueueError> {
        let full = self.queue_directory.join(directory);
        let entries = match fs::read_dir(&full) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(vec![]);
            }
            Err(error) => return Err(QueueError::io("read", &full, &error)),
        };
        let mut found = Vec::new();
        for entry in entries.take(FILES_MAX) {
            let entry = entry.map_err(|error| QueueError::io("read", &full, &error))?;
            // A file that is gone by now needs no repair.
            let Ok(metadata) = entry.metadata() else { continue };
            let path =
                if directory == Path::new(".") { entry.file_name().into() } else { directory.join(entry.file_name()) };
            found.push((path, metadata));
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }

    /// Move segments to their proper name and place, also those in hashed directories like Postfix's.
    fn segments_of(&mut self, directory: &Path) -> Result<(), QueueError> {
        let own = DIRECTORIES.iter().find(|own| directory.starts_with(own)).copied();
        let mut unknown = 0;
        for (path, metadata) in self.entries(directory)? {
            let name = file_name(&path);
            if metadata.is_dir() && (own.is_some() || directory == Path::new("hold")) {
                self.segments_of(&path)?;
                if fs::remove_dir(self.queue_directory.join(&path)).is_ok() {
                    self.lines.push(format!("{}: removed an empty directory", path.display()));
                }
                continue;
            }
            let kept = name.starts_with(NEW_PREFIX) || own == Some(CORRUPT);
            if !metadata.is_file() || kept {
                if own.is_some() && !kept && !metadata.is_dir() {
                    self.lines.push(format!("{}: not a regular file: left alone", path.display()));
                }
                continue;
            }
            match self.segment(&path) {
                Some(id) => self.put(&path, own, id)?,
                None if own.is_none() || is_known(&name, own) => {}
                None if unknown < LINES_MAX => {
                    unknown += 1;
                    self.lines.push(format!("{}: {}: left alone", path.display(), self.description(&path)));
                }
                None => unknown += 1,
            }
        }
        if unknown > LINES_MAX {
            self.lines.push(format!("{}: {unknown} files that do not belong to the queue", directory.display()));
        }
        Ok(())
    }

    /// Return the ID in a file's header, if the file is a segment.
    fn segment(&self, path: &Path) -> Option<SegmentId> {
        let mut header = [0; SEGMENT_HEADER_OCTETS];
        let file = File::open(self.queue_directory.join(path)).ok()?;
        file.read_exact_at(&mut header, 0).ok()?;
        match SegmentHeader::decode(&header) {
            SegmentBytes::Valid(header) => Some(header.id),
            SegmentBytes::Newer(_) | SegmentBytes::Invalid => None,
        }
    }

    /// Move a segment to its place: deferred/ if its path names deferred/, otherwise incoming/.
    fn put(&mut self, path: &Path, own: Option<&str>, id: SegmentId) -> Result<(), QueueError> {
        let directory = if own == Some(DEFERRED) { DEFERRED } else { INCOMING };
        let right = Path::new(directory).join(id.file_name());
        if path == right {
            return Ok(());
        }
        let (from, to) = (self.queue_directory.join(path), self.queue_directory.join(&right));
        let shown = (path.display(), right.display());
        if File::open(&from).is_ok_and(|file| is_live(&file)) {
            self.lines.push(format!("{}: a process writes to it: left alone", shown.0));
        } else if to.exists() {
            self.lines.push(format!("{}: {} exists: left alone", shown.0, shown.1));
        } else {
            fs::rename(&from, &to).map_err(|error| QueueError::io("rename", &from, &error))?;
            for changed in [from.parent(), to.parent()].into_iter().flatten() {
                let synced = File::open(changed).and_then(|directory| directory.sync_all());
                synced.map_err(|error| QueueError::io("sync", changed, &error))?;
            }
            self.lines.push(format!("{}: renamed to {}", shown.0, shown.1));
        }
        Ok(())
    }

    fn description(&self, path: &Path) -> &'static str {
        /// The first octets of Postfix's queue files: a size record whose text has 95 octets.
        const POSTFIX: [u8; 2] = [b'C', 95];
        let mut head = [0; SEGMENT_HEADER_OCTETS];
        let file = File::open(self.queue_directory.join(path));
        let read = file.and_then(|file| file.read_at(&mut head, 0)).unwrap_or(0);
        if let SegmentBytes::Newer(_) = SegmentHeader::decode(&head) {
            "a file of a newer release"
        } else if read >= 2 && head[..2] == POSTFIX {
            "a message of Postfix's queue; pickup would queue it again from maildrop/"
        } else {
            "not a file of this queue"
        }
    }

    /// Remove slot files that hold no number; the next holder creates a new one.
    fn slots_of(&mut self, name: &str) -> Result<(), QueueError> {
        for (path, metadata) in self.entries(Path::new(name))? {
            let is_slot = name == INCOMING && file_name(&path).starts_with("slot.");
            if is_slot && metadata.is_file() && ![0, SLOT_OCTETS].contains(&metadata.len()) {
                let full = self.queue_directory.join(&path);
                if File::open(&full).is_ok_and(|file| !is_live(&file)) && fs::remove_file(&full).is_ok() {
                    self.lines.push(format!("{}: removed: not a valid slot file", path.display()));
                }
            }
        }
        Ok(())
    }

    /// Set owner and mode of a directory and of its files.
    fn rights_of(&mut self, name: &str) -> Result<(), QueueError> {
        let directory = self.queue_directory.join(name);
        let metadata = fs::symlink_metadata(&directory).map_err(|error| QueueError::io("stat", &directory, &error))?;
        if self.set_rights(&directory, &metadata, DIRECTORY_MODE)? {
            self.lines.push(format!("{name}: owner and mode set"));
        }
        let mut changed = 0;
        for (path, metadata) in self.entries(Path::new(name))? {
            if metadata.is_file() && self.set_rights(&self.queue_directory.join(path), &metadata, FILE_MODE)? {
                changed += 1;
            }
        }
        if changed > 0 {
            self.lines.push(format!("{name}: owner and mode of {changed} file{} set", plural(changed)));
        }
        Ok(())
    }

    fn set_rights(&self, path: &Path, metadata: &Metadata, mode: u32) -> Result<bool, QueueError> {
        let failed = |what| move |error: io::Error| QueueError::io(what, path, &error);
        let foreign = self.owner.filter(|(user, group)| (*user, *group) != (metadata.uid(), metadata.gid()));
        if let Some((user, group)) = foreign {
            chown(path, Some(user), Some(group)).map_err(failed("change the owner of"))?;
        }
        let wrong = metadata.permissions().mode() & 0o7777 != mode;
        if wrong {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("change the mode of"))?;
        }
        Ok(wrong || foreign.is_some())
    }
}

/// Whether the queue's own files have names like this. A segment with a damaged header has one, too.
fn is_known(name: &str, directory: Option<&str>) -> bool {
    match directory {
        Some(ACTIVE) => name == "qmgr.lock" || name.starts_with("state."),
        Some(INCOMING) if name.starts_with("slot.") => true,
        _ => SegmentId::parse(name).is_some(),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::journal::{Journal, JournalOptions};
    use crate::queue::proofs::testing::{Directory, commit};
    use crate::queue::store::spool::Spool;
    use std::os::unix::fs::symlink;
    use std::time::SystemTime;

    const ALL: Repair = Repair { purge: true, structure: true, owner: None };

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn repair_makes_a_copied_directory_whole_again() {
        let directory = Directory::new();
        let mut ids = Vec::new();
        for _ in 0..4 {
            let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
            ids.push(commit(&journal, b"x").id);
            journal.close();
        }
        let segments = directory.files(INCOMING);
        let at = |name: &str| directory.path().join(name);
        for name in ["hold", "deferred/A", "incoming/0"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::rename(&segments[0], at("incoming/backup of a segment")).unwrap();
        fs::rename(&segments[1], at("deferred/A/first")).unwrap();
        fs::rename(&segments[2], at("hold/second")).unwrap();
        fs::set_permissions(&segments[3], fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(at("incoming"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(at("incoming/slot.0007"), b"not a number").unwrap();
        fs::write(at("incoming/notes.txt"), b"hello").unwrap();
        symlink("/etc/passwd", at("incoming/link")).unwrap();
        let lines = repair(directory.path(), &ALL).unwrap();
        let name = |nth: usize| segments[nth].file_name().unwrap().to_str().unwrap().to_owned();
        let expected = [
            format!("hold/second: renamed to incoming/{}", name(2)),
            "incoming/0: removed an empty directory".into(),
            format!("incoming/backup of a segment: renamed to incoming/{}", name(0)),
            "incoming/link: not a regular file: left alone".into(),
            "incoming/notes.txt: not a file of this queue: left alone".into(),
            format!("deferred/A/first: renamed to deferred/{}", name(1)),
            "deferred/A: removed an empty directory".into(),
            "incoming/slot.0007: removed: not a valid slot file".into(),
            "incoming: owner and mode set".into(),
        ];
        assert_eq!(lines[..expected.len()], expected);
        assert!(lines[expected.len()].starts_with("incoming: owner and mode of "), "{lines:?}");
        assert_eq!((mode(&segments[3]), mode(&at("incoming"))), (FILE_MODE, DIRECTORY_MODE));
        assert!(at("incoming/notes.txt").exists() && at("incoming/link").is_symlink());
        let (spool, stored) = Spool::open(directory.path()).unwrap();
        let mut found: Vec<_> = stored.iter().map(|stored| stored.arrival.envelope.id).collect();
        found.sort();
        assert_eq!(found, ids);
        assert!(matches!(repair(directory.path(), &ALL), Err(QueueError::Locked(_))), "a queue manager has it");
        drop(spool);
        let left_alone = |line: &String| line.ends_with("left alone");
        assert!(repair(directory.path(), &ALL).unwrap().iter().all(left_alone), "there is nothing more to do");
    }

    #[test]
    fn a_taken_name_costs_no_message() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let id = commit(&journal, b"x").id;
        journal.close();
        let segment = directory.files(INCOMING).remove(0);
        let copy = directory.path().join("incoming/copy");
        fs::copy(&segment, &copy).unwrap();
        let lines = repair(directory.path(), &ALL).unwrap();
        assert!(lines[0].starts_with("incoming/copy: incoming/") && lines[0].ends_with(" exists: left alone"));
        assert!(copy.exists() && segment.exists());
        let (_, stored) = Spool::open(directory.path()).unwrap();
        assert_eq!(stored.iter().map(|stored| stored.arrival.envelope.id).collect::<Vec<_>>(), [id]);
    }

    #[test]
    fn leftovers_of_dead_processes_are_removed_and_files_of_live_ones_stay() {
        let directory = Directory::new();
        let journal = Journal::open(directory.path(), JournalOptions::default()).unwrap();
        let id = commit(&journal, b"x").id;
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("maildrop")).unwrap();
        for name in [ACTIVE, CORRUPT] {
            make_directory(&RealDisk, directory.path(), name).unwrap();
        }
        let old = SystemTime::now() - 2 * SUBMISSION_AGE;
        let leftover = format!("incoming/{NEW_PREFIX}{}", SegmentId(9).file_name());
        let made = [&leftover, "active/state.new", "corrupt/new.1-2", "maildrop/given.up", "maildrop/complete"];
        for name in made {
            fs::write(at(name), b"half").unwrap();
            File::options().write(true).open(at(name)).unwrap().set_modified(old).unwrap();
        }
        fs::write(at("maildrop/young"), b"half").unwrap();
        fs::set_permissions(at("maildrop/complete"), fs::Permissions::from_mode(0o744)).unwrap();
        let lines = repair(directory.path(), &Repair { structure: false, ..ALL }).unwrap();
        let line = |name: &str| format!("{name}: removed 1 unfinished file");
        assert_eq!(lines, ["incoming", "active", "corrupt", "maildrop"].map(line));
        assert!(at("maildrop/young").exists() && at("maildrop/complete").exists());
        // The writer lives: its segment is under its right name and stays as it is.
        let lines = repair(directory.path(), &Repair { purge: false, ..ALL }).unwrap();
        assert_eq!(lines, Vec::<String>::new());
        drop(journal);
        let (_, stored) = Spool::open(directory.path()).unwrap();
        assert_eq!(stored.iter().map(|stored| stored.arrival.envelope.id).collect::<Vec<_>>(), [id]);
    }
}
