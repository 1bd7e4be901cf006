//! The queue on disk: `docs/queue.md` is its table of states.
//!
//! Two sides share the directory and no lock. Every receiving process has a `Journal`: drafts go in, and a thread of
//! its own appends them to a segment, many to one sync. The queue manager has the one `Spool`: it reads what stands
//! in the segments, keeps the state log, and clears away what is done.

mod appender;
pub mod catalogue;
mod company;
pub mod content;
mod corrupt;
mod disk;
pub mod diskstore;
pub mod draft;
pub mod envelopes;
pub mod error;
pub mod fields;
pub mod find;
pub mod housekeeping;
pub mod id;
pub mod journal;
mod large;
pub mod listing;
mod loader;
pub mod locator;
pub mod memory;
pub mod recipients;
mod record;
mod recovery;
pub mod repair;
pub mod rows;
mod scan;
mod segment;
pub mod segment_files;
mod slot;
pub mod spool;
pub mod state;
mod statelog;
pub mod store;
pub mod submissions;
pub mod unannounced;
mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod error_matrix;
#[cfg(test)]
mod power_cut;
#[cfg(test)]
pub(crate) mod testing;

pub use content::{ContentReader, read_content};
pub use diskstore::DiskStore;
pub use draft::Draft;
pub use error::QueueError;
pub use journal::{Completion, Journal, JournalOptions};
pub use listing::list_queue;
pub use segment_files::SegmentFiles;
pub use spool::Spool;
pub use state::{Fact, Kept};
pub use store::{Appender, Incoming, News, Recovery, Store, Stored};

/// Segments that producers write.
pub const INCOMING: &str = "incoming";
/// Segments that the queue manager writes.
pub const DEFERRED: &str = "deferred";
/// The state log and the queue manager's lock.
pub const ACTIVE: &str = "active";
/// Records that cannot be read, for a person to look at.
pub const CORRUPT: &str = "corrupt";
