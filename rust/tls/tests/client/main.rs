//! The client's engine against servers of the same library, in memory.
//!
//! ```text
//! certificates  authorities and certificates of a test
//! wire          a client and a server, and the octets between them
//! ```

mod broken;
mod certificates;
mod dane;
mod files;
mod fingerprints;
mod names;
mod resume;
mod versions;
mod wire;
mod words;
