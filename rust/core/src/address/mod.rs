//! What a site makes of addresses.

pub mod rewrite;
