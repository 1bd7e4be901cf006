//! The protocol between the programs: length-prefixed frames with a version.

pub mod frame;
