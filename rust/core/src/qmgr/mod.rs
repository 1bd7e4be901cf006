//! The queue manager: which message goes where, when, and what becomes of it.
//!
//! One state machine, [`scheduler::Scheduler`], driven by [`crate::clock::Now`]: arrivals, results and timers go in, jobs, facts
//! and log lines come out. It owns no socket, no file and no clock. [`hub::Hub`] puts it between the queue on disk and
//! the peers' frames.
//!
//! ```text
//! scheduler   the state, what happened, what is to be done next
//! admission   from the queue on disk into memory: room, turns, recipients part by part
//! dispatch    from a route to a job: waiting for a destination, being sent
//! outcome     from a result to what becomes of recipient, message and destination
//! catalogue   every message in the queue, in some 100 octets each (`crate::queue::catalogue`)
//! message     one that is being delivered: envelope, recipients, outcomes
//! route       address -> transport and next hop, remembered by domain
//! transport   a service of master.cf: its agents, its destinations in the order of their turns
//! destination a next hop: concurrency window, bundles that wait, dead or alive
//! crowd       messages that wait outside, because their destination is slow
//! errand      what a transport has to do for a message, and its turn
//! slots       when a small message may overtake a large one
//! overtake    which one does
//! order       who is first of those that stand in a lane
//! job         a bundle on its way: what an agent was asked
//! control     what a person may do to it
//! leaving     messages that a command moves to maildrop/
//! backoff     when a message is tried again, warned about, given up
//! orphans     segments whose producers nobody hears: when to look at them again
//! feedback    how a window opens and closes
//! waits       why a message waits, and when it goes next
//! walk        threads that go over the whole queue for a listing
//! ```

mod admission;
pub mod backoff;
pub use crate::queue::catalogue;
pub mod control;
mod crowd;
pub mod destination;
pub mod dispatch;
pub mod errand;
pub mod feedback;
pub mod flow;
pub mod hub;
pub mod job;
pub mod leaving;
pub mod line;
pub mod listing;
pub mod message;
mod order;
pub mod orphans;
mod outcome;
mod overtake;
pub mod route;
pub mod scheduler;
pub mod settings;
pub mod slots;
pub mod transport;
pub mod waits;
pub mod walk;

#[cfg(test)]
mod lists_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
