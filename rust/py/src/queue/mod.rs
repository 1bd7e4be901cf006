//! `postillion._core.queue`: the journal, stored messages, and the queue for commands.

mod journal;
mod stored;

pub use journal::{Journal, QueueError, convert_queue, list_queue, queue_error, repair_queue};
pub use stored::{StoredMessage, read_message};
