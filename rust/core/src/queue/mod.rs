//! The queue on disk: `docs/queue.md` is its table of states.

pub mod id;
pub mod locator;
