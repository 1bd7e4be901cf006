//! The message: envelope, headers, body, and what cleanup does to them.

pub mod cleanup;
pub mod maildrop;
pub mod recipients;
pub mod settings;
