//! Numbers of which there are mostly few.

use smallvec::SmallVec;

/// Positions, keys or indices, of which most messages have one or two: so many need no memory of their own.
pub type Few = SmallVec<[u32; 4]>;
