//! The SMTP server as a program: the dialogue of `smtp::server` with a queue behind it and a log beside it.

pub mod flow;
pub mod session;
