//! A message that is being delivered.
//!
//! It has its envelope in memory, and of its recipients one part (`Settings::part_recipients`; all, for nearly every
//! message). A part goes `Resolving` -> `Delivering`; when each of its recipients has an outcome the next part is read,
//! and after the last one the attempt ends: report what bounced, warn of what is late, keep or remove the message.

use super::route::Route;
use crate::ipc::frame::{JobRecipient, Status};
use crate::message::envelope::{Envelope, Recipient};
use std::sync::Arc;

/// What is being waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Where some recipients go.
    Resolving,
    /// Outcomes.
    Delivering,
    /// The next part of the recipients.
    Reading,
    /// The bounce agent, about recipients that failed for good.
    Bouncing,
    /// The bounce agent, about recipients that are late.
    Warning,
}

/// What is to happen to the message as soon as no agent holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing out of the ordinary.
    Deliver,
    /// A person put it on hold.
    Hold,
    /// A person deleted it.
    Delete,
}

/// A recipient that is being delivered.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its place in the envelope.
    pub index: u32,
    /// Who it is; `address` as the resolver left it.
    pub recipient: Recipient,
    /// Where it goes, once that is known.
    pub route: Option<Route>,
    /// With an agent at the moment.
    pub in_flight: bool,
    /// What became of it in this attempt.
    pub outcome: Option<Arc<Status>>,
}

impl Target {
    /// This is its way.
    pub fn take(&mut self, route: &Route) {
        if let Some(recipient) = &route.recipient {
            self.recipient.address = (**recipient).into();
        }
        self.route = Some(route.clone());
    }
}

/// A message that is being delivered.
#[derive(Debug)]
pub struct Active {
    /// Its slot in the catalogue.
    pub slot: u32,
    /// The envelope; its recipients are taken out.
    pub envelope: Envelope,
    /// The recipients of this part, in the order of their index.
    pub targets: Vec<Target>,
    /// Recipients of this part that have no outcome.
    pub waiting: u32,
    /// Jobs under way.
    pub jobs: u32,
    /// When the last of them began (monotonic).
    pub sent_us: u64,
    /// Recipients of this part whose route is asked for.
    pub unresolved: u32,
    /// The first recipient that is not read yet.
    pub unread_from: u32,
    /// When it became active (wall clock).
    pub active_us: u64,
    /// What it waits for.
    pub phase: Phase,
    /// What is to become of it.
    pub wish: Wish,
    /// Agents get no more of it: what it has not in flight is not waited for.
    pub withdrawn: bool,
    /// Tried before: fresh mail goes first.
    pub retry: bool,
    /// The sender gets it back if it cannot be delivered now.
    pub expired: bool,
    /// The ticket of its latest bundle.
    pub ticket: u64,
    /// Agents that were lost while they held a part of it, in this attempt.
    pub agents_lost: u32,
    /// What stays for the next attempt, of all parts.
    pub deferred: Vec<(u32, Arc<Status>)>,
    /// What failed for good and is not reported yet, of all parts.
    pub bounced: Vec<JobRecipient>,
    /// What is late and to be warned about, of all parts.
    pub late: Vec<JobRecipient>,
}

impl Active {
    /// The recipients of the part by their index in the envelope.
    pub fn position(&self, index: u32) -> Option<u32> {
        self.targets.binary_search_by_key(&index, |target| target.index).ok().map(|at| at as u32)
    }

    /// Recipients that the message keeps in memory.
    pub fn in_core(&self) -> usize {
        self.targets.len()
    }
}
