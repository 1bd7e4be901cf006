//! The content of files, read again when they change.
//!
//! The files are looked at once a second at most. A changed file is read whole before its content replaces the old one.
//! When it cannot be read, or has become empty, the old content stays, with one warning.

use super::options::Warn;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

/// Shortest time between two checks of the files.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which a text must be unchanged before it is read again: an editor may still write it.
pub const UNCHANGED: Duration = Duration::from_secs(1);
/// Maximum number of warnings about the lines of one file.
pub const WARNINGS_MAX: usize = 20;

/// The origin of a content.
pub trait Source: fmt::Debug + Send + Sync {
    /// The content.
    type Content: Send + Sync;

    /// Return the files whose change changes the content.
    fn files(&self) -> Vec<PathBuf>;

    /// Read the content, and collect warnings. Errors: why it cannot be read.
    fn read(&self, warnings: &mut Vec<String>) -> Result<Self::Content, String>;

    /// Whether the content is that of an empty file.
    fn is_empty(content: &Self::Content) -> bool;

    /// Whether people write the files in place, so that a file that has just changed may be half-written.
    fn is_text(&self) -> bool;
}

/// The identity and age of each file; `None`: there is no file.
type Stamp = Vec<Option<Identity>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    modified: (i64, i64),
    /// A change of the rights changes this time alone.
    changed: (i64, i64),
    size: u64,
    inode: u64,
    device: u64,
}

/// A content that follows its files.
pub struct Watched<S: Source> {
    source: S,
    /// The table's name, for warnings.
    name: Box<str>,
    warn: Warn,
    started: Instant,
    /// Milliseconds after `started` at which the files are due to be looked at.
    check_ms: AtomicU64,
    content: RwLock<Option<Arc<S::Content>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The files of the last attempt to read them.
    stamp: Option<Stamp>,
    /// Why the last attempt failed.
    problem: Option<Box<str>>,
    /// It failed because this process may not read a file that has a content.
    closed: bool,
}

impl<S: Source> Watched<S> {
    /// Return a content that is read at its first use.
    pub fn new(source: S, name: &str, warn: Warn) -> Self {
        Self {
            source,
            name: name.into(),
            warn,
            started: Instant::now(),
            check_ms: AtomicU64::new(0),
            content: RwLock::new(None),
            state: Mutex::default(),
        }
    }

    /// Return the source.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Return the content, at most `CHECK_INTERVAL` behind the files. Errors: why there is none.
    pub fn get(&self) -> Result<Arc<S::Content>, Box<str>> {
        let now_ms = self.started.elapsed().as_millis() as u64;
        let due = self.check_ms.load(Ordering::Relaxed);
        // One thread looks, the others go on with the old content.
        let next = now_ms + CHECK_INTERVAL.as_millis() as u64;
        let mine =
            now_ms >= due && self.check_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine {
            self.check(false);
        }
        self.present()
    }

    /// Look at the files now, also at those that could not be read before, and return the content. Errors: why there is
    /// none.
    pub fn refresh(&self) -> Result<Arc<S::Content>, Box<str>> {
        self.check(true);
        self.present()
    }

    /// Return the content if it has been read.
    pub fn peek(&self) -> Option<Arc<S::Content>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the content is old because the changed files cannot be read.
    pub fn is_outdated(&self) -> bool {
        self.state().problem.is_some()
    }

    /// Whether this process may not read the changed files, which have a content.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    fn present(&self) -> Result<Arc<S::Content>, Box<str>> {
        if let Some(content) = self.peek() {
            return Ok(content);
        }
        // Another thread may be reading it: this waits for the end.
        let state = self.state();
        self.peek().ok_or_else(|| state.problem.clone().unwrap_or_else(|| "not read yet".into()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Read changed files. `again`: also after an error with the same files.
    fn check(&self, again: bool) {
        let mut warnings = Vec::new();
        self.update(&mut self.state(), again, &mut warnings);
        // No lock is held here: the callback may wait for another thread that wants the table.
        let more = warnings.len().saturating_sub(WARNINGS_MAX);
        for warning in warnings.iter().take(WARNINGS_MAX) {
            (self.warn)(warning);
        }
        if more > 0 {
            (self.warn)(&format!("{}: {more} more lines like these", self.name));
        }
    }

    fn update(&self, state: &mut State, again: bool, warnings: &mut Vec<String>) {
        let files = self.source.files();
        let (stamp, newest) = stamps_of(&files);
        if state.stamp.as_ref() == Some(&stamp) && !(again && state.problem.is_some()) {
            return;
        }
        let old = self.peek();
        let is_text = self.source.is_text();
        // A modification time in the future would delay the reading too long.
        if old.is_some() && is_text && newest.and_then(|time| time.elapsed().ok()).is_some_and(|age| age < UNCHANGED) {
            return;
        }
        let found = self.source.read(warnings);
        if old.is_some() && stamps_of(&files).0 != stamp {
            // It changed while it was read: the next check decides.
            warnings.clear();
            return;
        }
        let emptied = || format!("table {}: the file became empty", self.name);
        let problem = match found {
            Ok(content) if S::is_empty(&content) && old.as_deref().is_some_and(|old| !S::is_empty(old)) => emptied(),
            Ok(content) => {
                *self.content.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(content));
                (state.stamp, state.problem, state.closed) = (Some(stamp), None, false);
                return;
            }
            Err(problem) => format!("table {}: {problem}", self.name),
        };
        state.closed = files.iter().any(is_closed);
        if old.is_some() {
            warnings.clear();
            if state.problem.is_none() {
                warnings.push(format!("{problem}; the old content stays in use"));
            }
            state.stamp = Some(stamp);
        } else {
            // Without a content each check tries again: the reason may not show in the file, such as a lack of memory.
            state.stamp = None;
        }
        state.problem = Some(problem.into());
    }
}

impl<S: Source> fmt::Debug for Watched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("name", &self.name).field("source", &self.source).finish_non_exhaustive()
    }
}

/// Whether a file has a content that this process may not read.
fn is_closed(path: &PathBuf) -> bool {
    path.metadata().is_ok_and(|file| file.len() > 0)
        && File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Return the stamp of files, and the newest of their modification times.
fn stamps_of(files: &[PathBuf]) -> (Stamp, Option<SystemTime>) {
    let found: Vec<Option<Metadata>> = files.iter().map(|path| path.metadata().ok()).collect();
    let stamp = |file: &Metadata| Identity {
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
        size: file.size(),
        inode: file.ino(),
        device: file.dev(),
    };
    let newest = found.iter().flatten().filter_map(|file| file.modified().ok()).max();
    (found.iter().map(|file| file.as_ref().map(stamp)).collect(), newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[derive(Debug)]
    struct Text(PathBuf);

    impl Source for Text {
        type Content = String;

        fn files(&self) -> Vec<PathBuf> {
            vec![self.0.clone()]
        }

        fn read(&self, _: &mut Vec<String>) -> Result<String, String> {
            fs::read_to_string(&self.0).map_err(|error| error.to_string())
        }

        fn is_empty(content: &String) -> bool {
            content.is_empty()
        }

        fn is_text(&self) -> bool {
            true
        }
    }

    /// A file, its content, and the warnings so far.
    fn watched(name: &str) -> (PathBuf, Watched<Text>, Arc<Mutex<Vec<String>>>) {
        let path = std::env::temp_dir().join(format!("postillion-watched-{}-{name}", std::process::id()));
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&warnings);
        let warn: Warn = Arc::new(move |text| told.lock().unwrap().push(text.to_owned()));
        (path.clone(), Watched::new(Text(path), "t:f", warn), warnings)
    }

    /// Write a file as if long ago, so that it counts as complete.
    fn write(path: &PathBuf, text: &str, age_s: u64) {
        fs::write(path, text).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).unwrap();
    }

    #[test]
    fn a_missing_file_is_an_error_until_it_exists() {
        let (path, watched, warnings) = watched("missing");
        assert!(watched.get().unwrap_err().starts_with("table t:f: No such file"));
        write(&path, "a", 100);
        assert_eq!(*watched.refresh().unwrap(), "a");
        assert!(!watched.is_outdated() && warnings.lock().unwrap().is_empty());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_text_that_has_just_changed_is_not_read_yet() {
        let (path, watched, _) = watched("half");
        write(&path, "whole", 100);
        assert_eq!(*watched.refresh().unwrap(), "whole");
        fs::write(&path, "ha").unwrap();
        assert_eq!(*watched.refresh().unwrap(), "whole");
        write(&path, "whole again", 50);
        assert_eq!(*watched.refresh().unwrap(), "whole again");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_lost_or_emptied_file_keeps_its_content_with_one_warning() {
        let (path, watched, warnings) = watched("lost");
        write(&path, "a", 100);
        watched.refresh().unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(*watched.refresh().unwrap(), "a");
        assert_eq!(*watched.refresh().unwrap(), "a");
        assert!(watched.is_outdated());
        assert_eq!(warnings.lock().unwrap().len(), 1);
        write(&path, "b", 90);
        assert_eq!(*watched.refresh().unwrap(), "b");
        assert!(!watched.is_outdated());
        write(&path, "", 80);
        assert_eq!(*watched.refresh().unwrap(), "b");
        assert_eq!(*watched.refresh().unwrap(), "b");
        assert_eq!(warnings.lock().unwrap().len(), 2);
        assert_eq!(warnings.lock().unwrap()[1], "table t:f: the file became empty; the old content stays in use");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_file_is_looked_at_once_a_second() {
        let (path, watched, _) = watched("often");
        write(&path, "a", 100);
        assert_eq!(*watched.get().unwrap(), "a");
        write(&path, "b", 90);
        assert_eq!(*watched.get().unwrap(), "a");
        watched.check_ms.store(0, Ordering::Relaxed);
        assert_eq!(*watched.get().unwrap(), "b");
        fs::remove_file(path).unwrap();
    }
}
