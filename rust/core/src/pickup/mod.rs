//! Mail that programs on this machine submit.
//!
//! ```text
//! maildrop     files in maildrop/, read and written
//! recipients   the recipients in headers
//! listing      the messages in maildrop/, for postqueue
//! ```

pub mod listing;
pub mod maildrop;
pub mod recipients;
