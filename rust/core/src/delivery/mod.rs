//! A delivery agent's side: its link to the queue manager, its jobs, and the SMTP session that delivers them.
//!
//! ```text
//! link       frames of the queue manager become jobs
//! work       a job shared between the agent and a session, with the agent's log and queue directory
//! job        the status of each recipient, its log line, the result for the queue manager
//! session    one connection to a server, the job in progress and the job that follows
//! assignment a job on a session, and the addresses that the server sees
//! outgoing   checks, mapped addresses and quoted-printable on the way to the server
//! smtputf8   whether a message needs a server with SMTPUTF8
//! delays     the times in a log line
//! ```

pub mod assignment;
pub mod delays;
pub mod job;
pub mod link;
pub mod outgoing;
pub mod session;
mod smtputf8;
#[cfg(test)]
mod tests;
pub mod work;
