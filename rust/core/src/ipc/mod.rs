//! What the programs say to each other: length-prefixed frames with a version.

pub mod frame;
