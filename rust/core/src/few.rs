//! Short lists of numbers.

use smallvec::SmallVec;

/// Positions, keys or indices. Most messages have one or two, and up to four need no allocation.
pub type Few = SmallVec<[u32; 4]>;
