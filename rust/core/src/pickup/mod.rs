//! What programs on this machine submit: the files in maildrop/ and the recipients that headers name.

pub mod maildrop;
pub mod recipients;
