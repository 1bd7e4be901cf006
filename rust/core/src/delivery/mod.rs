//! A delivery agent's side: its link to the queue manager, its jobs, and the SMTP session that delivers them.
//!
//! ```text
//! link         frames of the queue manager become jobs
//! work         a job shared between the agent and a session, with the agent's log and queue directory
//! job          the status of each recipient, its log line, the result for the queue manager
//! session      one connection to a server, the job in progress and the job that follows
//! service      all connections of an agent, and the requests to its owner
//! visit        one of these connections
//! server       a server that it connects to, and how
//! route        a next hop: its idle connections, and its demand
//! request      what the service asks of its owner
//! settings     the parameters of connections
//! assignment   a job on a session, and the addresses that the server sees
//! outgoing     checks, mapped addresses and quoted-printable on the way to the server
//! tls_request  the sender's request about TLS
//! smtputf8     whether a message needs a server with SMTPUTF8
//! delays       the times in a log line
//! ```

pub mod assignment;
pub mod delays;
pub mod job;
pub mod link;
pub mod outgoing;
pub mod request;
pub mod route;
pub mod server;
pub mod service;
pub mod session;
pub mod settings;
mod smtputf8;
#[cfg(test)]
mod tests;
pub mod tls_request;
pub mod visit;
pub mod work;
