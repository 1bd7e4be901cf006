//! The queue on disk: `docs/queue.md` is its table of states.
//!
//! Two sides share the directory and no lock. Every receiving process has a `Journal`: its own thread appends drafts to
//! a segment, many with one sync. The queue manager has the one `Spool`: it reads the segments, keeps the state log,
//! and removes finished messages.
//!
//! ```text
//! disk, error, state   system calls, errors, the state of a message
//! directories          incoming/, deferred/, active/, corrupt/
//! segment/             the files with the messages: records, reading, damaged octets
//! journal/             the side of a process that receives mail: drafts, group commit, writers
//! catalogue/           every message in the queue, in memory
//! store/               the queue manager's side: recovery, state log, housekeeping
//! listing/             the output of postqueue and postcat
//! memory, repair       the queue without a disk; postsuper -s
//! convert              the form of older releases, for a downgrade
//! proofs/              tests of all of it
//! ```

pub mod catalogue;
pub mod convert;
mod directories;
pub(crate) mod disk;
pub mod error;
pub mod journal;
pub mod listing;
pub mod memory;
#[cfg(test)]
pub(crate) mod proofs;
pub mod repair;
pub mod segment;
pub mod state;
pub mod store;

pub use directories::{ACTIVE, CORRUPT, DEFERRED, INCOMING};
pub use error::QueueError;
pub use journal::appender::{Appender, Incoming};
pub use journal::draft::Draft;
pub use journal::{Completion, Journal, JournalOptions};
pub use listing::list_queue;
pub use segment::content::{ContentReader, read_content};
pub use segment::files::SegmentFiles;
pub use state::{Fact, Kept};
pub use store::disk_store::DiskStore;
pub use store::spool::Spool;
pub use store::{News, Recovery, Store, Stored};
