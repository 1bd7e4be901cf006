//! The queue on disk: `docs/queue.md` is its table of states.
//!
//! Two sides share the directory and no lock. Every receiving process has a `Journal`: drafts go in, and a thread of
//! its own appends them to a segment, many to one sync. The queue manager has the one `Spool`: it reads what stands
//! in the segments, keeps the state log, and clears away what is done.
//!
//! ```text
//! disk, error, state   system calls, what can go wrong, what is remembered of a message
//! segment/             the files with the messages: records, reading, what is damaged
//! journal/             the side of a process that receives mail: drafts, group commit, writers
//! catalogue/           every message in the queue, in memory
//! store/               the queue manager's side: recovery, state log, housekeeping
//! listing/             what postqueue and postcat show
//! memory, repair       the queue without a disk; postsuper -s
//! proofs/              tests of all of it
//! ```

pub mod catalogue;
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

/// Segments that producers write.
pub const INCOMING: &str = "incoming";
/// Segments that the queue manager writes.
pub const DEFERRED: &str = "deferred";
/// The state log and the queue manager's lock.
pub const ACTIVE: &str = "active";
/// Records that cannot be read, for a person to look at.
pub const CORRUPT: &str = "corrupt";
