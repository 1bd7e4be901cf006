//! The SMTP server as a program: the dialogue of `smtp::server` with a queue behind it and a log beside it.
//!
//! ```text
//! session       one client: the dialogue, its messages on their way into the queue, its log lines
//! conversation  a session and the question that is open in it
//! accepted      recipients that were accepted a moment ago, and are accepted again without a question
//! service       all sessions of a process on their sockets, and what only their owner can decide
//! flow          whether messages that begin wait for the queue manager
//! ```

pub mod accepted;
pub mod conversation;
pub mod flow;
pub mod service;
#[cfg(test)]
mod service_tests;
pub mod session;
