//! SMTP (RFC 5321): the server and the client as state machines, and what they share.

pub mod reply;
