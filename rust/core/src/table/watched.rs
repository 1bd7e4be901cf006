//! The content of files, read again when they change.
//!
//! The files are looked at once a second at most. A changed file is read whole, in a thread of its own, before its content
//! replaces the old one: no lookup waits for it. When it cannot be read, or has become empty, the old content stays, with
//! one warning.

use super::options::Warn;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Shortest time between two checks of the files.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which a text must be unchanged before it is read again: an editor may still write it.
pub const UNCHANGED: Duration = Duration::from_secs(1);
/// Maximum number of warnings about the lines of one file.
pub const WARNINGS_MAX: usize = 20;

/// The origin of a content.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// The content.
    type Content: Send + Sync;

    /// Return the files whose change changes the content.
    fn files(&self) -> Vec<PathBuf>;

    /// Read the content, and collect warnings. Errors: why it cannot be read.
    fn read(&self, warnings: &mut Vec<String>) -> Result<Self::Content, String>;

    /// Whether the content is that of an empty file.
    fn is_empty(content: &Self::Content) -> bool;

    /// Whether files with the size and the times of those that were read still have that content. A program that changes
    /// a file in its place may do so twice within one step of the file system's clock.
    fn is_current(content: &Self::Content) -> bool {
        let _ = content;
        true
    }

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
    shared: Arc<Shared<S>>,
    warn: Warn,
    started: Instant,
    /// Milliseconds after `started` at which the files are due to be looked at.
    check_ms: AtomicU64,
}

/// The part that a reader's thread shares. This thread calls nothing of the program's: its warnings wait here.
struct Shared<S: Source> {
    source: S,
    /// The table's name, for warnings.
    name: Box<str>,
    content: RwLock<Option<Arc<S::Content>>>,
    state: Mutex<State>,
    /// Notified when a reader ends.
    ended: Condvar,
    /// Whether `State::warnings` has some.
    has_warnings: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The files of the last attempt to read them.
    stamp: Option<Stamp>,
    /// Why the last attempt failed.
    problem: Option<Box<str>>,
    /// It failed because this process may not read a file that has a content.
    closed: bool,
    /// Somebody reads the files.
    is_read: bool,
    /// The warnings of readers, until a lookup passes them on.
    warnings: Vec<String>,
}

/// The right to read the files: there is one reader at a time.
struct Reader<S: Source>(Arc<Shared<S>>);

impl<S: Source> Drop for Reader<S> {
    fn drop(&mut self) {
        self.0.state().is_read = false;
        self.0.ended.notify_all();
    }
}

impl<S: Source> Watched<S> {
    /// Return a content that is read at its first use.
    pub fn new(source: S, name: &str, warn: Warn) -> Self {
        let shared = Shared {
            source,
            name: name.into(),
            content: RwLock::new(None),
            state: Mutex::default(),
            ended: Condvar::new(),
            has_warnings: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), warn, started: Instant::now(), check_ms: AtomicU64::new(0) }
    }

    /// Return the source.
    pub fn source(&self) -> &S {
        &self.shared.source
    }

    /// Return the content, behind the files by at most `CHECK_INTERVAL` and the time in which they are read: a thread
    /// reads changed files, and the old content stays until it is done. The first reading is waited for. Errors: why
    /// there is no content.
    pub fn get(&self) -> Result<Arc<S::Content>, Box<str>> {
        let now_ms = self.started.elapsed().as_millis() as u64;
        let due = self.check_ms.load(Ordering::Relaxed);
        // One thread looks, the others go on with the old content.
        let next = now_ms + CHECK_INTERVAL.as_millis() as u64;
        let mine =
            now_ms >= due && self.check_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        self.tell();
        match self.peek() {
            Some(_) if mine => self.check_aside(),
            None if mine => self.check(false),
            _ => {}
        }
        self.present()
    }

    /// Look at the files now, also at those that could not be read before, and return the content. A changed file is
    /// waited for. Errors: why there is no content.
    pub fn refresh(&self) -> Result<Arc<S::Content>, Box<str>> {
        self.check(true);
        self.present()
    }

    /// Return the content if it has been read.
    pub fn peek(&self) -> Option<Arc<S::Content>> {
        self.shared.peek()
    }

    /// Whether the content is old because the changed files cannot be read.
    pub fn is_outdated(&self) -> bool {
        self.shared.state().problem.is_some()
    }

    /// Whether this process may not read the changed files, which have a content.
    pub fn is_closed(&self) -> bool {
        self.shared.state().closed
    }

    fn present(&self) -> Result<Arc<S::Content>, Box<str>> {
        if let Some(content) = self.peek() {
            return Ok(content);
        }
        // Another thread may be reading it: this waits for the end.
        if self.shared.idle().problem.is_none() {
            self.check(false);
        }
        let problem = self.shared.state().problem.clone();
        self.peek().ok_or_else(|| problem.unwrap_or_else(|| "not read yet".into()))
    }

    /// Read changed files, once no other reader is at work. `again`: also after an error with the same files.
    fn check(&self, again: bool) {
        let mut state = self.shared.idle();
        state.is_read = true;
        drop(state);
        let reader = Reader(Arc::clone(&self.shared));
        if let Some(stamp) = self.shared.changed(again) {
            reader.0.read(stamp);
        }
        drop(reader);
        self.tell();
    }

    /// Read changed files in a thread of their own, if none is at work.
    fn check_aside(&self) {
        let mut state = self.shared.state();
        if std::mem::replace(&mut state.is_read, true) {
            return;
        }
        drop(state);
        let reader = Reader(Arc::clone(&self.shared));
        if let Some(stamp) = self.shared.changed(false) {
            // Without a thread, the next check tries again.
            let _ = thread::Builder::new().name("table".into()).spawn(move || reader.0.read(stamp));
        }
    }

    /// Pass on the warnings of readers.
    fn tell(&self) {
        if !self.shared.has_warnings.load(Ordering::Acquire) {
            return;
        }
        // No lock is held during the calls: they may wait for another thread that wants the table.
        let warnings = self.shared.take_warnings();
        for warning in warnings {
            (self.warn)(&warning);
        }
    }
}

impl<S: Source> Shared<S> {
    fn peek(&self) -> Option<Arc<S::Content>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Return the state once nobody reads the files.
    fn idle(&self) -> MutexGuard<'_, State> {
        self.ended.wait_while(self.state(), |state| state.is_read).unwrap_or_else(PoisonError::into_inner)
    }

    fn take_warnings(&self) -> Vec<String> {
        let mut state = self.state();
        self.has_warnings.store(false, Ordering::Release);
        std::mem::take(&mut state.warnings)
    }

    /// Return the stamp of the files if they are to be read. `again`: also after an error with the same files.
    fn changed(&self, again: bool) -> Option<Stamp> {
        let (stamp, newest) = stamps_of(&self.source.files());
        let old = self.peek();
        let (is_known, has_failed) = {
            let state = self.state();
            (state.stamp.as_ref() == Some(&stamp), state.problem.is_some())
        };
        let is_done = match has_failed {
            true => !again,
            false => old.as_deref().is_none_or(S::is_current),
        };
        if is_known && is_done {
            return None;
        }
        let is_text = self.source.is_text();
        // A modification time in the future would delay the reading too long.
        let is_new = || newest.and_then(|time| time.elapsed().ok()).is_some_and(|age| age < UNCHANGED);
        (old.is_none() || !is_text || !is_new()).then_some(stamp)
    }

    /// Read the files. `stamp`: theirs before.
    fn read(&self, stamp: Stamp) {
        let files = self.source.files();
        let old = self.peek();
        let mut warnings = Vec::new();
        let found = self.source.read(&mut warnings);
        if old.is_some() && stamps_of(&files).0 != stamp {
            // It changed while it was read: the next check decides.
            return;
        }
        let emptied = || format!("table {}: the file became empty", self.name);
        let result = match found {
            Ok(content) if S::is_empty(&content) && old.as_deref().is_some_and(|old| !S::is_empty(old)) => {
                Err(emptied())
            }
            Ok(content) => Ok(Arc::new(content)),
            Err(problem) => Err(format!("table {}: {problem}", self.name)),
        };
        let closed = result.is_err() && files.iter().any(is_closed);
        let mut state = self.state();
        state.closed = closed;
        match result {
            Ok(content) => {
                *self.content.write().unwrap_or_else(PoisonError::into_inner) = Some(content);
                (state.stamp, state.problem) = (Some(stamp), None);
            }
            Err(problem) => {
                if old.is_some() {
                    warnings.clear();
                    if state.problem.is_none() {
                        warnings.push(format!("{problem}; the old content stays in use"));
                    }
                    state.stamp = Some(stamp);
                } else {
                    // Without a content each check tries again: the reason may not show in the file, such as a lack of
                    // memory.
                    state.stamp = None;
                }
                state.problem = Some(problem.into());
            }
        }
        let more = warnings.len().saturating_sub(WARNINGS_MAX);
        warnings.truncate(WARNINGS_MAX);
        if more > 0 {
            warnings.push(format!("{}: {more} more lines like these", self.name));
        }
        if state.warnings.len() > WARNINGS_MAX {
            // Nobody has taken them: they are about an older content.
            state.warnings.clear();
        }
        state.warnings.append(&mut warnings);
        self.has_warnings.store(!state.warnings.is_empty(), Ordering::Release);
    }
}

impl<S: Source> fmt::Debug for Watched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, source) = (&self.shared.name, &self.shared.source);
        f.debug_struct("Watched").field("name", name).field("source", source).finish_non_exhaustive()
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
    use std::sync::mpsc;

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

    /// Let the next lookup look at the files.
    fn elapse<S: Source>(watched: &Watched<S>) {
        watched.check_ms.store(0, Ordering::Relaxed);
    }

    #[test]
    fn the_file_is_looked_at_once_a_second() {
        let (path, watched, _) = watched("often");
        write(&path, "a", 100);
        assert_eq!(*watched.get().unwrap(), "a");
        write(&path, "b", 90);
        assert_eq!(*watched.get().unwrap(), "a");
        drop(watched.shared.idle());
        assert_eq!(*watched.get().unwrap(), "a");
        elapse(&watched);
        watched.get().unwrap();
        drop(watched.shared.idle());
        assert_eq!(*watched.get().unwrap(), "b");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_warning_of_a_reader_comes_with_the_next_lookup() {
        let (path, watched, warnings) = watched("later");
        write(&path, "a", 100);
        watched.get().unwrap();
        fs::remove_file(&path).unwrap();
        for _ in 0..3 {
            elapse(&watched);
            assert_eq!(*watched.get().unwrap(), "a");
            drop(watched.shared.idle());
        }
        watched.get().unwrap();
        assert!(watched.is_outdated());
        assert_eq!(warnings.lock().unwrap().len(), 1);
        assert!(warnings.lock().unwrap()[0].ends_with("the old content stays in use"));
    }

    /// A text whose readers wait: each says that it has begun, and goes on when it is told what to do.
    #[derive(Debug)]
    struct Gate {
        text: Text,
        begun: mpsc::Sender<()>,
        next: Mutex<mpsc::Receiver<Next>>,
    }

    #[derive(Debug)]
    enum Next {
        Read,
        Panic,
    }

    impl Source for Gate {
        type Content = String;

        fn files(&self) -> Vec<PathBuf> {
            self.text.files()
        }

        fn read(&self, warnings: &mut Vec<String>) -> Result<String, String> {
            self.begun.send(()).unwrap();
            match self.next.lock().unwrap_or_else(PoisonError::into_inner).recv().unwrap() {
                Next::Read => self.text.read(warnings),
                Next::Panic => panic!("as the test wants"),
            }
        }

        fn is_empty(content: &String) -> bool {
            content.is_empty()
        }

        fn is_text(&self) -> bool {
            true
        }
    }

    #[test]
    fn lookups_go_on_while_one_thread_reads_a_changed_file() {
        let (path, _, _) = watched("aside");
        let (begun, begins) = mpsc::channel();
        let (go, next) = mpsc::channel();
        let source = Gate { text: Text(path.clone()), begun, next: Mutex::new(next) };
        let watched = Watched::new(source, "t:f", Arc::new(|_| ()));
        write(&path, "a", 100);
        go.send(Next::Read).unwrap();
        assert_eq!(*watched.get().unwrap(), "a", "the first reading is waited for");
        begins.recv().unwrap();

        write(&path, "b", 90);
        for _ in 0..3 {
            elapse(&watched);
            assert_eq!(*watched.get().unwrap(), "a");
            assert!(!watched.is_outdated() && !watched.is_closed());
        }
        begins.recv().unwrap();
        assert!(begins.try_recv().is_err(), "one reader at a time");
        go.send(Next::Panic).unwrap();
        drop(watched.shared.idle());
        assert_eq!(*watched.get().unwrap(), "a", "a reader that ends early changes nothing");

        elapse(&watched);
        assert_eq!(*watched.get().unwrap(), "a");
        begins.recv().unwrap();
        go.send(Next::Read).unwrap();
        assert_eq!(*watched.refresh().unwrap(), "b", "the reader at work is waited for");
        assert!(begins.try_recv().is_err(), "the file is not read twice");
        fs::remove_file(path).unwrap();
    }
}
