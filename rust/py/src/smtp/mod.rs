//! `postillion._core.smtp`: the client's settings, and the input of an SMTP server in Python.

mod client;
mod intake;

pub use client::{SmtpClientSettings, SmtpLogin, sasl_mechanisms};
pub use intake::SmtpIntake;
