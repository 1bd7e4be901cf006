//! The directories of the queue, relative to the queue directory.

/// Segments that producers write.
pub const INCOMING: &str = "incoming";
/// Segments that the queue manager writes.
pub const DEFERRED: &str = "deferred";
/// The state log and the queue manager's lock.
pub const ACTIVE: &str = "active";
/// Records that cannot be read, for the administrator to inspect.
pub const CORRUPT: &str = "corrupt";
