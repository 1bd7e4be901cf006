//! Tests of the queue as a whole, and what they need.
//!
//! ```text
//! conformance    what every store must do, in random histories
//! error_matrix   each call on each file fails once
//! power_cut      what a disk may have lost when the power fails
//! testing        directories, envelopes and a disk that fails on demand
//! ```

mod conformance;
mod error_matrix;
mod power_cut;
pub(crate) mod testing;
