//! What programs on this machine submit.
//!
//! ```text
//! maildrop     files in maildrop/, read and written
//! recipients   the recipients that headers name
//! listing      the messages in maildrop/ as postqueue shows them
//! ```

pub mod listing;
pub mod maildrop;
pub mod recipients;
