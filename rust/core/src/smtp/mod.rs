//! SMTP (RFC 5321): the server and the client as state machines, and what they share.

pub mod capability;
pub mod chunk;
pub mod client;
#[cfg(test)]
mod client_tests;
pub mod command;
pub mod data;
pub mod intake;
pub mod response;
pub mod server;
pub mod server_config;
#[cfg(test)]
mod server_tests;
pub mod transaction;
pub mod whole;
