//! What programs on this machine submit: the files in maildrop/ and the recipients that headers name.

pub mod listing;
pub mod maildrop;
pub mod recipients;
