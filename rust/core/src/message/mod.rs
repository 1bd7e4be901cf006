//! The message: envelope, headers, body, and what cleanup does to them.

pub mod envelope;
pub mod sink;
