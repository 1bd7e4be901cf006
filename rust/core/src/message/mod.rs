//! The message: envelope, headers, body, and what cleanup does to them.

pub mod address;
pub mod cleanup;
pub mod date;
pub mod envelope;
pub mod header;
pub mod line_limit;
pub mod maildrop;
pub mod recipients;
pub mod settings;
pub mod sink;
pub mod stuff;
