//! The queue manager: the schedule of all deliveries, and the outcome of each message.
//!
//! [`scheduler::Scheduler`] is one state machine, driven by [`crate::clock::Now`]. Arrivals, results and timers go
//! in; deliveries, facts and log lines come out. It owns no socket, no file and no clock. [`hub::Hub`] connects it to
//! the queue on disk and to the frames of its clients.
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
//! scheduler     the state, what happened, the next event
//! admission     from the queue on disk into memory: room, order of fresh mail and retries, parts of a list
//! dispatch      from a route to a delivery: peers of a destination, agents
//! outcome       from a result to the state of recipient, message and destination
//! catalogue     every message in the queue, in some 100 octets each (`crate::queue::catalogue`)
//! message       a message under delivery: envelope, recipients, outcomes
//! route         address -> transport and next hop, cached by domain
//! transport     a service of master.cf: its agents, its destinations by rank
//! destination   a next hop: concurrency window, waiting peers, dead or alive
//! overflow      messages for a slow destination that wait outside the active queue
//! job           the work of a transport for a message, and its rank
//! slots         when a small job may preempt a large one
//! preemption    which job preempts
//! order         a priority queue for appends
//! deliveries    the deliveries under way, by number
//! control       commands of the administrator
//! requeue       messages that a command moves to maildrop/
//! backoff       next attempt, delay warning, expiry
//! orphans       segments without a connected producer, and their poll
//! feedback      how a concurrency window opens and closes
//! waits         why a message waits, and when it goes next
//! threads       threads that read the whole queue: listings, and the search for the mail of a site
//! listing       one listing, from a snapshot into a pipe
//! listing_text  the words of a listing
//! line          log lines
//! ```

mod admission;
pub mod backoff;
pub use crate::queue::catalogue;
pub mod control;
pub mod deliveries;
pub mod destination;
pub mod dispatch;
pub mod feedback;
pub mod flow;
pub mod hub;
pub mod job;
pub mod line;
mod listing;
pub mod listing_text;
pub mod message;
mod order;
pub mod orphans;
mod outcome;
mod overflow;
mod preemption;
pub mod requeue;
pub mod route;
pub mod scheduler;
pub mod settings;
pub mod slots;
pub mod threads;
pub mod transport;
pub mod waits;

#[cfg(test)]
mod lists_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
