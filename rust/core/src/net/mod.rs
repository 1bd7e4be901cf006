//! Sockets and the dialogues on them.
//!
//! ```text
//! reactor     all sockets of a process: readiness, and events for their owner
//! connection  one socket: input for its dialogue, output of the dialogue
//! outbound    sockets of connections to a server
//! dns         a stub resolver with sockets of its own
//! ready       the sockets of a poller that are ready now
//! ```

mod connection;
pub mod dns;
pub mod outbound;
pub mod reactor;
mod ready;

pub use connection::Dialogue;
