//! A message under delivery.
//!
//! It has its envelope in memory, and at most `memory_limit` of its recipients (nearly always all). A recipient goes
//! from `Resolving` to `Waiting` and `InFlight`; its outcome makes room for another one. The attempt ends when no
//! recipient is left in memory or on disk: failures are reported, delays warned about, and the message is kept or
//! removed.

use super::route::Route;
use crate::few::Few;
use crate::ipc::frame::JobRecipient;
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::status::Status;
use crate::mail::trace::Traced;
use crate::queue::segment::recipients::Cursor;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// The phase of an attempt, by the event that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Outcomes of recipients.
    Delivering,
    /// The bounce agent's report of permanent failures.
    Bouncing,
    /// The bounce agent's warning of a delay.
    Warning,
    /// The bounce agent's confirmation of deliveries.
    Confirming,
    /// The bounce agent's report of the attempt (`sendmail -v`, `sendmail -bv`).
    Reporting,
}

/// A command's request for a message, done once no agent holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested {
    /// Nothing.
    Deliver,
    /// Hold.
    Hold,
    /// Deletion.
    Delete,
}

/// The stage of a recipient in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Finished: its position is free.
    Free,
    /// Its route is asked for.
    Resolving,
    /// It is in a peer.
    Waiting,
    /// With an agent.
    InFlight,
}

/// A recipient under delivery.
#[derive(Debug, Clone)]
pub struct Target {
    /// Index in the envelope.
    pub index: u32,
    /// The recipient; `address` as the resolver left it.
    pub recipient: Recipient,
    /// Its route, from the resolver's answer until it has a destination.
    pub route: Option<Route>,
    /// The resolver was asked.
    pub asked: bool,
    /// The key of its destination, once it is in a peer.
    pub destination: u32,
    /// Its stage.
    pub stage: Stage,
}

impl Target {
    /// Note its route. A recipient that another one replaces stays as its original.
    pub fn take(&mut self, route: &Route) {
        if let Some(recipient) = &route.recipient {
            let given = std::mem::replace(&mut self.recipient.address, (**recipient).into());
            self.recipient.original.get_or_insert(given);
        }
        self.route = Some(route.clone());
    }
}

/// Outcomes of an attempt that are not a plain delivery.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Recipients for the next attempt.
    pub deferred: Vec<(u32, Arc<Status>)>,
    /// Permanent failures without a report.
    pub bounced: Vec<JobRecipient>,
    /// Recipients to warn about.
    pub late: Vec<JobRecipient>,
    /// Deliveries to confirm to the sender.
    pub delivered: Vec<JobRecipient>,
    /// Recipients of the next result whose delivery this system confirms.
    pub to_confirm: Vec<u32>,
    /// The lines of the report of the attempt.
    pub traced: Vec<Traced>,
    /// The recipients that it is about. Those of a probe are done once it is queued.
    pub reported: Vec<JobRecipient>,
    /// The lines that the next result adds to it.
    pub to_trace: Vec<Traced>,
}

/// `Outcomes`, without memory for the most messages, which have none.
#[derive(Debug, Default)]
pub struct Left(Option<Box<Outcomes>>);

impl Left {
    /// Return whether there is no outcome.
    pub fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Return the outcomes.
    pub fn into_outcomes(self) -> Outcomes {
        self.0.map(|outcomes| *outcomes).unwrap_or_default()
    }
}

impl Deref for Left {
    type Target = Outcomes;

    fn deref(&self) -> &Outcomes {
        static NOTHING: Outcomes = Outcomes {
            deferred: Vec::new(),
            bounced: Vec::new(),
            late: Vec::new(),
            delivered: Vec::new(),
            to_confirm: Vec::new(),
            traced: Vec::new(),
            reported: Vec::new(),
            to_trace: Vec::new(),
        };
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Left {
    fn deref_mut(&mut self) -> &mut Outcomes {
        self.0.get_or_insert_default()
    }
}

/// A message under delivery.
#[derive(Debug)]
pub struct Active {
    /// Its slot in the catalogue.
    pub slot: u32,
    /// The envelope without its recipients.
    pub envelope: Arc<Envelope>,
    /// The recipients in memory. A position is kept until the outcome.
    pub targets: Vec<Target>,
    /// Free positions.
    pub free: Few,
    /// Recipients in memory without an outcome.
    pub waiting: u32,
    /// Maximum number of recipients in memory.
    pub memory_limit: usize,
    /// Deliveries under way.
    pub deliveries: u32,
    /// Start of the last delivery (monotonic).
    pub sent_us: u64,
    /// Recipients whose route is asked for.
    pub unresolved: u32,
    /// The first recipient that is not read yet.
    pub unread: Cursor,
    /// A part of the recipients is being read.
    pub reading: bool,
    /// Time of the last read (monotonic).
    pub read_us: u64,
    /// Start of the attempt (wall clock).
    pub active_us: u64,
    /// The phase of the attempt.
    pub phase: Phase,
    /// The request of a command.
    pub requested: Requested,
    /// Agents get no more of it, and recipients without an agent are not waited for.
    pub withdrawn: bool,
    /// The log has its `queue active` line.
    pub announced: bool,
    /// It was tried before. Fresh mail goes first.
    pub retry: bool,
    /// It is returned to the sender if it is not delivered now.
    pub expired: bool,
    /// Its open jobs, one per transport.
    pub jobs: Few,
    /// Agents lost with a part of it in this attempt.
    pub agents_lost: u32,
    /// Its outcomes.
    pub left: Left,
}

impl Active {
    /// Return the position of a recipient by its index in the envelope. Cost: a scan.
    pub fn position(&self, index: u32) -> Option<u32> {
        let wanted = |target: &Target| target.index == index && target.stage != Stage::Free;
        self.targets.iter().position(wanted).map(|at| at as u32)
    }

    /// Return the number of recipients in memory.
    pub fn in_core(&self) -> usize {
        self.targets.len() - self.free.len()
    }

    /// Return the number of recipients that are on disk only, of `all` in the envelope.
    pub fn unread(&self, all: u32) -> u64 {
        u64::from(all.saturating_sub(self.unread.index))
    }

    /// Add a recipient to memory and return its position.
    pub fn keep(&mut self, target: Target) -> u32 {
        self.waiting += 1;
        match self.free.pop() {
            Some(position) => {
                self.targets[position as usize] = target;
                position
            }
            None => {
                self.targets.push(target);
                (self.targets.len() - 1) as u32
            }
        }
    }
}
