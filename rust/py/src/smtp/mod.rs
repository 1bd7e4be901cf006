//! `postillion._core.smtp`: the client, and what a server in Python reads with.

mod client;
mod intake;

pub use client::{SmtpClient, SmtpClientSettings};
pub use intake::SmtpIntake;
