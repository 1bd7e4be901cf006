//! Sockets and the dialogues on them.
//!
//! ```text
//! reactor     one for a process: which sockets are ready, and what their owners must know
//! connection  one socket: what came goes to its dialogue, what the dialogue says goes out
//! ```

mod connection;
pub mod reactor;

pub use connection::Dialogue;
