//! How a message becomes active: room, turns of fresh mail and retries, and its recipients part by part.
//!
//! Room is counted in messages (`qmgr_message_active_limit`) and in recipients (`qmgr_message_recipient_limit`). A
//! part of the recipients is resolved whole, then put into bundles by destination; `dispatch.rs` takes those.

use super::catalogue::Place;
use super::clock::Now;
use super::message::{Active, Phase, Target, Wish};
use super::route::Asker;
use super::scheduler::{Event, Scheduler, deferral};
use crate::ipc::frame::{JobKind, JobRecipient, Outcome, Status};
use crate::message::envelope::{Envelope, Recipient};
use crate::smtp::reply::Enhanced;
use std::sync::Arc;

impl Scheduler {
    /// Deliver it now if there is room and nobody waits; else it waits without its envelope.
    pub(super) fn enter(&mut self, slot: u32, envelope: Envelope, now: Now) {
        if self.catalogue.first_fresh().is_none() && self.has_room() {
            self.retries += usize::from(self.catalogue.entry(slot).is_retry());
            self.activate(slot, envelope, now);
        } else {
            self.catalogue.wait_fresh(slot);
        }
    }

    /// Another message may become active: always the first one, however many recipients it has; none with a limit of 0.
    pub(super) fn has_room(&self) -> bool {
        let messages = self.active.len() + self.loading;
        messages < self.settings.message_active_limit
            && (messages == 0 || self.in_core < self.settings.message_recipient_limit)
    }

    /// Recipients that a message will bring into memory at first.
    fn first_part(&self, slot: u32) -> usize {
        (self.catalogue.entry(slot).open() as usize).min(self.settings.part_recipients())
    }

    /// Fill the room there is: fresh mail and retries take turns, and retries never take all of it.
    pub(super) fn admit(&mut self, now: Now) {
        while self.has_room() {
            let fresh = self.catalogue.first_fresh();
            let due = self.catalogue.first_due().filter(|(due_us, _)| *due_us <= now.mono_us).map(|(_, slot)| slot);
            let due = due.filter(|_| self.retries < self.settings.retry_active_limit());
            let slot = match (fresh, due) {
                (None, None) => return,
                (Some(slot), None) | (None, Some(slot)) => slot,
                (Some(fresh), Some(due)) => {
                    self.retry_turn = !self.retry_turn;
                    if self.retry_turn { due } else { fresh }
                }
            };
            self.catalogue.place(slot, Place::Loading);
            self.loading += 1;
            self.in_core += self.first_part(slot);
            let entry = self.catalogue.entry(slot);
            self.retries += usize::from(entry.is_retry());
            self.events.push_back(Event::Load { id: entry.id(), at: entry.at() });
        }
    }

    pub(super) fn leave_loading(&mut self, slot: u32) {
        self.loading -= 1;
        self.in_core = self.in_core.saturating_sub(self.first_part(slot));
        self.retries -= usize::from(self.catalogue.entry(slot).is_retry());
    }

    pub(super) fn activate(&mut self, slot: u32, mut envelope: Envelope, now: Now) {
        let entry = self.catalogue.entry(slot);
        let text = format!(
            "{}: from=<{}>, size={}, nrcpt={} (queue active)",
            entry.id().text(self.settings.long_queue_ids),
            envelope.sender,
            envelope.size_octets,
            entry.open(),
        );
        let retry = entry.is_retry();
        self.events.push_back(Event::Line { program: None, warning: false, text });
        let recipients = std::mem::take(&mut envelope.recipients);
        let (key, _) = self.active.insert(Active {
            slot,
            envelope,
            targets: Vec::new(),
            waiting: 0,
            jobs: 0,
            sent_us: 0,
            unresolved: 0,
            unread_from: 0,
            active_us: now.wall_us,
            phase: Phase::Resolving,
            wish: Wish::Deliver,
            withdrawn: false,
            retry,
            expired: false,
            ticket: 0,
            agents_lost: 0,
            deferred: Vec::new(),
            bounced: Vec::new(),
            late: Vec::new(),
        });
        self.catalogue.place(slot, Place::Active(key));
        self.begin_part(key, recipients, now);
    }

    /// Take the next part of the recipients into memory and find out where they go.
    pub(super) fn begin_part(&mut self, key: u32, recipients: Vec<Recipient>, now: Now) {
        let part = self.settings.part_recipients();
        let message = &mut self.active[key];
        let entry = self.catalogue.entry(message.slot);
        let forced_expire = entry.forced_expire();
        let from = message.unread_from;
        message.unread_from = entry.recipients();
        for (index, recipient) in (0..entry.recipients()).zip(recipients).skip(from as usize) {
            if message.targets.len() >= part {
                message.unread_from = index;
                break;
            }
            if entry.is_done(index) {
                continue;
            }
            match entry.reason(index).filter(|status| status.outcome == Outcome::Bounced) {
                // It failed for good, and only the report is missing.
                Some(status) => {
                    message.bounced.push(JobRecipient { index, recipient, status: Some(Status::clone(status)) });
                }
                None => {
                    message.targets.push(Target { index, recipient, route: None, in_flight: false, outcome: None });
                }
            }
        }
        message.waiting = message.targets.len() as u32;
        message.phase = Phase::Resolving;
        self.in_core += message.targets.len();
        if forced_expire {
            let status = Arc::new(deferral([7, 0], "message is administratively expired"));
            for position in 0..self.active[key].targets.len() as u32 {
                self.decide_here(key, position, &status, now);
            }
        }
        self.resolve_part(key, now);
    }

    fn resolve_part(&mut self, key: u32, now: Now) {
        let by_domain = self.settings.route_by_domain;
        let serial = self.active.serial(key);
        let message = &mut self.active[key];
        let mut malformed = Vec::new();
        for (position, target) in (0u32..).zip(&mut message.targets) {
            if target.outcome.is_some() {
                continue;
            }
            let address = &target.recipient.address;
            if address.is_empty() {
                malformed.push(position);
                continue;
            }
            if let Some(route) = self.routes.known(address, by_domain, now.mono_us) {
                target.take(route);
                continue;
            }
            message.unresolved += 1;
            if self.routes.ask(address, by_domain, Asker { message: key, serial, position }) {
                self.events.push_back(Event::Resolve { address: address.clone() });
            }
        }
        let unresolved = message.unresolved;
        if !malformed.is_empty() {
            let dsn = Enhanced { class: 5, subject: 1, detail: 3 };
            let text = "null recipient address".into();
            let status = Arc::new(Status { outcome: Outcome::Bounced, dsn, text, remote: None });
            for position in malformed {
                self.decide_here(key, position, &status, now);
            }
        }
        if unresolved == 0 {
            self.place_part(key, now);
        }
    }

    /// Every recipient of the part has its route: put them into bundles by destination.
    pub(super) fn place_part(&mut self, key: u32, now: Now) {
        self.active[key].phase = Phase::Delivering;
        let mut placed = Vec::with_capacity(self.active[key].targets.len());
        for position in 0..self.active[key].targets.len() {
            let target = &self.active[key].targets[position];
            if target.outcome.is_none()
                && let Some(route) = target.route.clone()
            {
                let destination = self.destination(&route, position, key);
                placed.push((destination, position as u32));
            }
        }
        placed.sort_unstable();
        for run in placed.chunk_by(|a, b| a.0 == b.0) {
            let positions = run.iter().rev().map(|(_, position)| *position).collect();
            self.wait_for(run[0].0, key, JobKind::Deliver, positions, now);
        }
        self.check_settled(key);
    }
}
