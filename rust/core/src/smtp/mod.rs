//! SMTP (RFC 5321): the server and the client as state machines.

pub mod client;
pub mod server;
