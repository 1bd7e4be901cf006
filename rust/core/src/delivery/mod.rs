//! What every delivery agent shares: a job, how its recipients fared, and the log line that says so.

pub mod delays;
pub mod job;
