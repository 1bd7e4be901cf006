//! Tests of the whole queue, and their tools.
//!
//! ```text
//! conformance    the promises of every store, in random histories
//! error_matrix   each call on each file fails once
//! power_cut      the contents of a disk after a power failure
//! testing        directories, envelopes and a disk that fails on demand
//! ```

mod conformance;
mod error_matrix;
mod power_cut;
pub(crate) mod testing;
