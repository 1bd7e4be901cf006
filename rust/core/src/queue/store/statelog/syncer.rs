//! The thread that syncs the state log.

use crate::queue::disk::Disk;
use crate::queue::error::QueueError;
use crate::queue::journal::lock;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest time from noting a fact to the start of its sync.
pub(crate) const SYNC_DELAY: Duration = Duration::from_millis(50);
/// The thread that syncs the log.
pub(super) struct Syncer {
    shared: Arc<(Mutex<SyncState>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct SyncState {
    file: Option<Arc<File>>,
    /// The file's name is stable.
    named: bool,
    dirty: bool,
    failed: bool,
    ending: bool,
}

impl Syncer {
    pub(super) fn start(disk: Arc<dyn Disk>, directory: PathBuf) -> Result<Self, QueueError> {
        let shared = Arc::new((Mutex::new(SyncState::default()), Condvar::new()));
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("state log".into());
        let thread = thread.spawn(move || sync_when_dirty(&*disk, &directory, &of_thread.0, &of_thread.1))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn wake(&self) {
        let mut state = lock(&self.shared.0);
        if !std::mem::replace(&mut state.dirty, true) {
            self.shared.1.notify_one();
        }
    }

    /// Sync this file from now on.
    pub(super) fn follow(&self, file: Option<Arc<File>>) {
        let mut state = lock(&self.shared.0);
        *state = SyncState { file, ending: state.ending, ..SyncState::default() };
    }

    pub(super) fn has_failed(&self) -> bool {
        lock(&self.shared.0).failed
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        lock(&self.shared.0).ending = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sync_when_dirty(disk: &dyn Disk, directory: &Path, state: &Mutex<SyncState>, changed: &Condvar) {
    let mut held = lock(state);
    loop {
        while !held.dirty && !held.ending {
            held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        if !held.dirty {
            return;
        }
        let waited = changed.wait_timeout_while(held, SYNC_DELAY, |state| !state.ending);
        held = waited.unwrap_or_else(PoisonError::into_inner).0;
        held.dirty = false;
        let Some(file) = held.file.clone() else { continue };
        let named = held.named;
        drop(held);
        let synced = disk.sync_data(&file);
        let synced = if named { synced } else { synced.and_then(|()| disk.sync_directory(directory)) };
        held = lock(state);
        // Sync the newer file next, if the log began one during this sync.
        if held.file.as_ref().is_some_and(|now| Arc::ptr_eq(now, &file)) {
            held.named = synced.is_ok();
            if synced.is_err() {
                held.failed = true;
                held.file = None;
            }
        }
    }
}
