//! The queue manager: the schedule of all deliveries, and the outcome of each message.
//!
//! [`scheduler::Scheduler`] is one state machine, driven by [`crate::clock::Now`]. Arrivals, results and timers go
//! in; deliveries, facts and log lines come out. It owns no socket, no file and no clock. [`hub::Hub`] connects it to
//! the queue on disk and to the frames of its clients. [`crate::queue::catalogue`] has every message in the queue.
//!
//! The words are Postfix's (SCHEDULER_README):
//!
//! ```text
//! job       the work of one transport for one message
//! peer      the recipients of a job for one destination that wait (Postfix's list of entries)
//! delivery  an entry with an agent: one delivery request and its result. The frame is called `frame::Job`
//! preempt   go before a larger job, for delivery slots
//! client    a process on the queue manager's sockets: a producer, an agent or a command
//! ```
//!
//! ```text
//! hub           the scheduler between the queue on disk and its clients
//! scheduler     the state, what happened, the next event
//! message       a message under delivery: envelope, recipients, outcomes
//! route         address -> transport and next hop, cached by domain
//! transport     a service of master.cf: its agents, its destinations by rank
//! destination   a next hop: concurrency window, waiting peers, dead or alive
//! job           the work of a transport for a message, and its rank
//! slots         when a small job may preempt a large one
//! order         a priority queue for appends
//! deliveries    the deliveries under way, by number
//! backoff       next attempt, delay warning, expiry
//! flow          whether mail arrives faster than it becomes active
//! orphans       segments without a connected producer, and their poll
//! feedback      how a concurrency window opens and closes
//! threads       threads that read the whole queue: listings, and the search for the mail of a site
//! listing       one listing, from a snapshot into a pipe
//! listing_text  the words of a listing
//! line          log lines
//! settings      the parameters
//! ```

pub mod backoff;
pub mod deliveries;
pub mod destination;
pub mod feedback;
pub mod flow;
pub mod hub;
pub mod job;
pub mod line;
pub mod listing;
pub mod listing_text;
pub mod message;
mod order;
pub mod orphans;
pub mod route;
pub mod scheduler;
pub mod settings;
pub mod slots;
pub mod threads;
pub mod transport;

pub use scheduler::control;

#[cfg(test)]
mod lists_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace_tests;
#[cfg(test)]
mod world;
