//! The SMTP server as a program: the dialogue of `smtp::server` with a queue behind it and a log beside it.
//!
//! ```text
//! service    all sessions of a process on their sockets
//! mode       the settings of sessions in normal times or under stress, and their caches
//! request    the requests of a service to its owner, and the answers about clients
//! session    one client: the dialogue, its open question, its log lines, and its message
//! site       the settings of all sessions, and the client of one
//! accepted   recipients and domains that were accepted some seconds ago, and are accepted again without a question
//! listing    the recipients that exist at such a domain
//! flow       whether new messages wait for the queue manager
//! ```

pub mod accepted;
pub mod flow;
pub mod listing;
pub mod mode;
pub mod request;
pub mod service;
#[cfg(test)]
mod service_tests;
pub mod session;
pub mod site;
