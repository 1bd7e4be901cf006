//! Sockets and the dialogues on them.
//!
//! ```text
//! reactor     all sockets of a process: readiness, and events for their owner
//! connection  one socket: input for its dialogue, output of the dialogue
//! ```

mod connection;
pub mod reactor;

pub use connection::Dialogue;
