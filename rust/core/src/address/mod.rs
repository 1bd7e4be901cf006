//! Addresses: how they are written in commands, and what a site makes of them.

pub mod path;
pub mod rewrite;
