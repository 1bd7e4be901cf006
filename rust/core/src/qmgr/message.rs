//! A message that is being delivered.
//!
//! It has its envelope in memory, and of its recipients as many as `memory_limit` allows (all, for nearly every message).
//! A recipient goes `Resolving` -> `Waiting` -> `InFlight`, and makes room for another one when it has its outcome. When
//! none is left, in memory or on disk, the attempt ends: report what bounced, warn of what is late, keep or remove the
//! message.

use super::route::Route;
use crate::few::Few;
use crate::ipc::frame::JobRecipient;
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::status::Status;
use crate::queue::segment::recipients::Cursor;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// What is being waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Outcomes of recipients.
    Delivering,
    /// The bounce agent, about recipients that failed for good.
    Bouncing,
    /// The bounce agent, about recipients that are late.
    Warning,
    /// The bounce agent, about recipients that were delivered.
    Confirming,
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

/// Where a recipient in memory stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It has its outcome: its place is free.
    Free,
    /// Where it goes is asked for.
    Resolving,
    /// In a bundle.
    Waiting,
    /// With an agent.
    InFlight,
}

/// A recipient that is being delivered.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its place in the envelope.
    pub index: u32,
    /// Who it is; `address` as the resolver left it.
    pub recipient: Recipient,
    /// Where it goes, from when that is known until it has a destination.
    pub route: Option<Route>,
    /// The resolver was asked.
    pub asked: bool,
    /// The key of its destination, once it is in a bundle.
    pub destination: u32,
    /// Where it stands.
    pub stage: Stage,
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

/// What an attempt leaves behind where not everything was sent and done with.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// What stays for the next attempt.
    pub deferred: Vec<(u32, Arc<Status>)>,
    /// What failed for good and is not reported yet.
    pub bounced: Vec<JobRecipient>,
    /// What is late and to be warned about.
    pub late: Vec<JobRecipient>,
    /// What was delivered, and the sender is to be told.
    pub delivered: Vec<JobRecipient>,
    /// Of the job that is answered next: whose delivery is for us to report.
    pub to_confirm: Vec<u32>,
}

/// `Outcomes`, which most messages have none of: then they take no room.
#[derive(Debug, Default)]
pub struct Left(Option<Box<Outcomes>>);

impl Left {
    /// Is there nothing at all?
    pub fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// All of it.
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
        };
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Left {
    fn deref_mut(&mut self) -> &mut Outcomes {
        self.0.get_or_insert_default()
    }
}

/// A message that is being delivered.
#[derive(Debug)]
pub struct Active {
    /// Its slot in the catalogue.
    pub slot: u32,
    /// The envelope; its recipients are taken out.
    pub envelope: Arc<Envelope>,
    /// The recipients in memory; a position here is kept until there is an outcome.
    pub targets: Vec<Target>,
    /// Positions that are free.
    pub free: Few,
    /// Recipients in memory that are waited for.
    pub waiting: u32,
    /// Recipients in memory at a time.
    pub memory_limit: usize,
    /// Jobs under way.
    pub jobs: u32,
    /// When the last of them began (monotonic).
    pub sent_us: u64,
    /// Recipients whose route is asked for.
    pub unresolved: u32,
    /// What is not read yet.
    pub unread: Cursor,
    /// More is being read.
    pub reading: bool,
    /// When something was read last (monotonic).
    pub read_us: u64,
    /// When it became active (wall clock).
    pub active_us: u64,
    /// What it waits for.
    pub phase: Phase,
    /// What is to become of it.
    pub wish: Wish,
    /// Agents get no more of it: what it has not in flight is not waited for.
    pub withdrawn: bool,
    /// The log knows that it is under delivery.
    pub announced: bool,
    /// Tried before: fresh mail goes first.
    pub retry: bool,
    /// The sender gets it back if it cannot be delivered now.
    pub expired: bool,
    /// The errands for it that are not through, one a transport.
    pub errands: Few,
    /// Agents that were lost while they held a part of it, in this attempt.
    pub agents_lost: u32,
    /// What is to be told, or tried again.
    pub left: Left,
}

impl Active {
    /// The position of a recipient in memory, by its index in the envelope. Cost: a look at each.
    pub fn position(&self, index: u32) -> Option<u32> {
        let wanted = |target: &Target| target.index == index && target.stage != Stage::Free;
        self.targets.iter().position(wanted).map(|at| at as u32)
    }

    /// Recipients that the message keeps in memory.
    pub fn in_core(&self) -> usize {
        self.targets.len() - self.free.len()
    }

    /// Recipients that are on disk alone, of `all` in the envelope.
    pub fn unread(&self, all: u32) -> u64 {
        u64::from(all.saturating_sub(self.unread.index))
    }

    /// Keep a recipient in memory; its position.
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
