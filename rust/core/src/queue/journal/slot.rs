//! A writer's slot: the part of every queue ID that no other live writer shares.
//!
//! A writer holds the lock of `incoming/slot.NNNN` while it lives; the lock ends with the process in any case. The file
//! holds one number: a microsecond that no ID of this slot has passed. The next holder of the slot begins behind it, so
//! an ID is given once even when the clock was set back in between.

use crate::mail::id::{IdSource, QueueId, SLOTS};
use crate::queue::disk::{Disk, Open, write_all};
use crate::queue::error::QueueError;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Time span of the IDs that one write reserves on disk: one small write to the page cache in a second of work.
const RESERVE_US: u64 = 1_000_000;

/// The right to assign IDs; ends when dropped.
pub(crate) struct Slot {
    disk: Arc<dyn Disk>,
    file: File,
    source: IdSource,
    reserved_us: u64,
}

impl Slot {
    /// Take the lowest free slot. `directory` is `incoming/`.
    pub(crate) fn take(disk: &Arc<dyn Disk>, directory: &Path) -> Result<Self, QueueError> {
        for number in 0..SLOTS {
            let path = directory.join(format!("slot.{number:04}"));
            let file = disk.open(&path, Open::Keep).map_err(|error| QueueError::io("open", &path, &error))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Self::hold(Arc::clone(disk), file, number, &path),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(QueueError::io("lock", &path, &error.into())),
            }
        }
        let text = format!("{}: all {SLOTS} writers' slots are in use", directory.display());
        Err(QueueError::Io(std::io::ErrorKind::ResourceBusy, text.into()))
    }

    fn hold(disk: Arc<dyn Disk>, file: File, number: u16, path: &Path) -> Result<Self, QueueError> {
        let mut bytes = [0; 8];
        let read = disk.read_at(&file, &mut bytes, 0).map_err(|error| QueueError::io("read", path, &error))?;
        // A truncated file says nothing: the clock alone then gives the first ID.
        let reserved_us = if read == bytes.len() { u64::from_le_bytes(bytes) } else { 0 };
        let mut source = IdSource::new(number);
        if reserved_us > 0 && reserved_us < QueueId(u64::MAX).usec() - RESERVE_US {
            source.next(reserved_us);
        }
        Ok(Self { disk, file, source, reserved_us })
    }

    /// Return an ID that was never given before. `wall_now_us`: microseconds since 1970.
    pub(crate) fn next_id(&mut self, wall_now_us: u64) -> Result<QueueId, QueueError> {
        let id = self.source.next(wall_now_us);
        if id.usec() >= self.reserved_us {
            let reserved_us = id.usec() + RESERVE_US;
            write_all(&*self.disk, &self.file, &[&reserved_us.to_le_bytes()], 0)?;
            self.reserved_us = reserved_us;
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::disk::RealDisk;
    use crate::queue::proofs::testing::Directory;

    fn take(directory: &Directory) -> Slot {
        Slot::take(&RealDisk::shared(), directory.path()).unwrap()
    }

    #[test]
    fn two_writers_have_two_slots_and_a_dropped_slot_is_free_again() {
        let directory = Directory::new();
        let (mut one, mut two) = (take(&directory), take(&directory));
        assert_eq!((one.next_id(5).unwrap().slot(), two.next_id(5).unwrap().slot()), (0, 1));
        drop(one);
        assert_eq!(take(&directory).next_id(6).unwrap().slot(), 0);
    }

    #[test]
    fn an_id_is_given_once_even_when_the_clock_was_set_back() {
        let directory = Directory::new();
        let mut last = 0;
        for wall_now_us in [5_000_000, 4_000_000, 1, 5_000_001] {
            let mut slot = take(&directory);
            for _ in 0..3 {
                let id = slot.next_id(wall_now_us).unwrap();
                assert!(id.usec() > last, "{} after {last}", id.usec());
                last = id.usec();
            }
        }
    }
}
