//! Outcomes: what follows from results, for recipients, messages and destinations.
//!
//! A recipient is done when it was sent, when its failure was reported (the bounce agent says that the report is
//! queued), or when there is no one to tell. An attempt that leaves others ends in a deferral. A message without open
//! recipients is removed.
//!
//! The recipients of a probe (`trace.rs`) are done when the report about them is queued, whatever it says.
//!
//! A lost agent may have delivered what it had; the results are lost with it. Another agent gets these recipients at
//! once, so that a crash costs no time. After `AGENTS_LOST_MAX` such losses in one attempt the message is deferred
//! (`unknown mail transport error`), so that it does not crash one agent after the other.

use super::{Event, Scheduler, Timer, deferral};
use crate::clock::{Now, SECOND_US};
use crate::few::Few;
use crate::ipc::frame::{JobKind, JobRecipient, JobResult};
use crate::mail::status::{Outcome, Status};
use crate::qmgr::deliveries::Delivery;
use crate::qmgr::destination::Peer;
use crate::qmgr::line::{Text, decided_here};
use crate::qmgr::message::{Active, Outcomes, Phase, Requested, Stage};
use crate::queue::catalogue::Place;
use crate::queue::state::Fact;
use std::sync::Arc;

/// Maximum number of agents lost over one message in one attempt before it is deferred.
pub const AGENTS_LOST_MAX: u32 = 3;
/// Shortest back-off, whatever main.cf says: two attempts never begin in the same instant.
const BACKOFF_LEAST_US: u64 = SECOND_US;

impl Scheduler {
    /// Take an agent's result. For a delivery of an earlier queue manager, only sent recipients count.
    pub fn result(&mut self, result: JobResult, now: Now) {
        let active = &self.active;
        let Some(delivery) =
            self.deliveries.end_if(result.job, |delivery| active[delivery.message].envelope.id == result.id)
        else {
            return self.believe(&result, now);
        };
        self.agent_freed(&delivery);
        self.active[delivery.message].deliveries -= 1;
        match delivery.kind {
            JobKind::Deliver | JobKind::Probe => {
                self.delivered(&delivery, result.recipients, result.site.as_ref(), now);
            }
            JobKind::Bounce => self.reported(delivery.message, &result.recipients, now),
            JobKind::Warn => self.warned(delivery.message, &result.recipients, now),
            JobKind::Confirm => {
                self.active[delivery.message].left.delivered.clear();
                self.report(delivery.message, now);
            }
            JobKind::Report => self.attempt_reported(delivery.message, &result.recipients, now),
        }
        self.heard_from(&delivery, result.site, now);
        self.check_finished(delivery.message);
    }

    /// Take the result of a job that told the sender something. For a job of an earlier queue manager it says nothing about
    /// the recipients: those of a warning still wait.
    pub fn told(&mut self, result: JobResult, now: Now) {
        if self.deliveries.get(result.job).is_some() {
            self.result(result, now);
        }
    }

    /// Note before a result which of its deliveries this system confirms to the sender.
    pub fn to_confirm(&mut self, delivery: u64, recipients: &[u32]) {
        let Some(message) = self.deliveries.get(delivery).map(|delivery| delivery.message) else { return };
        self.active[message].left.to_confirm = recipients.to_vec();
    }

    /// Finish a sent recipient. Confirm it if this system is to do so, or if the sender was warned of a delay.
    fn sent(&mut self, key: u32, position: u32, status: Status, told_by_us: bool) {
        let records = self.records(&self.active[key]);
        let message = &mut self.active[key];
        let target = &message.targets[position as usize];
        let delayed = || self.settings.confirm_delay_cleared && self.catalogue.entry(message.slot).warned();
        let wanted = told_by_us || target.recipient.notify.on_delay() && delayed();
        // One report is enough.
        let wanted = wanted && !records;
        if wanted && !message.envelope.sender.is_empty() {
            let (index, recipient) = (target.index, target.recipient.clone());
            message.left.delivered.push(JobRecipient { index, recipient, status: Some(status) });
        }
        self.free(key, position);
    }

    fn delivered(&mut self, delivery: &Delivery, outcomes: Vec<(u32, Status)>, site: Option<&Status>, now: Now) {
        let mut last: Option<Arc<Status>> = None;
        let mut done = Few::new();
        let left = &mut self.active[delivery.message].left;
        let to_confirm = if left.is_nothing() { Vec::new() } else { std::mem::take(&mut left.to_confirm) };
        self.trace_result(delivery, &outcomes);
        for (nth, (index, status)) in outcomes.into_iter().enumerate() {
            let Some(position) = self.in_flight(delivery, nth, index) else { continue };
            if self.active[delivery.message].envelope.is_probe() {
                self.probed(delivery.message, position);
                continue;
            }
            let status = self.softened(status);
            if status.outcome == Outcome::Sent {
                self.sent(delivery.message, position, status, to_confirm.contains(&index));
                done.push(index);
                continue;
            }
            // Recipients of one delivery usually share one status: keep it once.
            let status = match last.filter(|last| **last == status) {
                Some(last) => last,
                None => Arc::new(status),
            };
            self.finish_recipient(delivery.message, position, &status, now);
            last = Some(status);
        }
        self.done(self.active[delivery.message].slot, done);
        let is_silent = |at: &u32| self.active[delivery.message].targets[*at as usize].stage == Stage::InFlight;
        let silent: Few = delivery.positions.iter().copied().filter(is_silent).collect();
        if !silent.is_empty() {
            let unknown = || deferral([3, 0], "unknown mail transport error");
            let status =
                Arc::new(site.map_or_else(unknown, |site| Status { outcome: Outcome::Deferred, ..site.clone() }));
            for position in silent {
                self.decide_here(delivery.message, position, &status, now);
            }
        }
    }

    /// Return the position of a recipient that the `nth` outcome of a delivery is about.
    fn in_flight(&self, delivery: &Delivery, nth: usize, index: u32) -> Option<u32> {
        let targets = &self.active[delivery.message].targets;
        let is = |position: &u32| {
            let target = &targets[*position as usize];
            target.index == index && target.stage == Stage::InFlight
        };
        // Agents usually answer in the order of the request.
        let same_order = delivery.positions.get(nth).copied().filter(is);
        same_order.or_else(|| delivery.positions.iter().copied().find(is))
    }

    /// Return the status under `soft_bounce`, which makes permanent failures temporary.
    fn softened(&self, mut status: Status) -> Status {
        if self.settings.soft_bounce && status.outcome == Outcome::Bounced {
            status.outcome = Outcome::Deferred;
            status.dsn.class = 4;
        }
        status
    }

    /// Take the result of an unknown delivery.
    fn believe(&mut self, result: &JobResult, now: Now) {
        let Some(slot) = self.catalogue.slot(result.id) else {
            return;
        };
        let sent = result.recipients.iter().filter(|(_, status)| status.outcome == Outcome::Sent);
        let done: Vec<u32> = sent.map(|(index, _)| *index).collect();
        let key = match self.catalogue.entry(slot).place() {
            Place::Active(key) => Some(key),
            _ => None,
        };
        if let Some(key) = key {
            for index in &done {
                // A recipient that an agent has again is finished by that agent's result.
                let message = &self.active[key];
                if let Some(position) = message.position(*index).filter(|_| !message.withdrawn)
                    && matches!(message.targets[position as usize].stage, Stage::Waiting)
                {
                    self.free(key, position);
                }
            }
        }
        self.done(slot, done);
        match key {
            Some(key) => {
                self.refill(key, now);
                self.check_finished(key);
            }
            None if self.catalogue.entry(slot).finished() => self.discard(slot),
            None => {}
        }
    }

    /// Give the recipients of a lost agent's delivery to another agent.
    pub(super) fn delivery_lost(&mut self, number: u64, now: Now) {
        let Some(delivery) = self.deliveries.end(number) else {
            return;
        };
        self.destinations[delivery.destination].busy -= 1;
        let transport = self.destinations[delivery.destination].transport as usize;
        self.transports[transport].uncount_delivery(delivery.lane, delivery.large);
        let message = &mut self.active[delivery.message];
        message.deliveries -= 1;
        message.agents_lost += 1;
        let unwanted =
            message.withdrawn || delivery.kind != JobKind::Deliver && message.requested != Requested::Deliver;
        let give_up = message.agents_lost > AGENTS_LOST_MAX || unwanted;
        let mut again = Few::new();
        for position in &delivery.positions {
            let target = &mut message.targets[*position as usize];
            if target.stage == Stage::InFlight {
                if !give_up {
                    target.stage = Stage::Waiting;
                }
                again.push(*position);
            }
        }
        if give_up {
            let status = Arc::new(deferral([3, 0], "unknown mail transport error"));
            self.defer_instead(delivery.message, delivery.kind, &again, &status, now);
        } else if delivery.kind != JobKind::Deliver || !again.is_empty() {
            again.reverse();
            self.wait_for(delivery.destination, delivery.message, delivery.kind, again, now);
        }
        self.update_lanes(delivery.destination, now);
        self.check_finished(delivery.message);
    }

    // Recipients.

    /// Free the position of a recipient that was sent, or whose outcome is kept elsewhere.
    pub(super) fn free(&mut self, key: u32, position: u32) {
        let message = &mut self.active[key];
        let target = &mut message.targets[position as usize];
        if matches!(target.stage, Stage::Waiting | Stage::InFlight) {
            let transport = self.destinations[target.destination].transport;
            self.transports[transport as usize].in_core -= 1;
        }
        target.stage = Stage::Free;
        target.route = None;
        message.free.push(position);
        message.waiting -= 1;
        self.in_core -= 1;
    }

    /// Note the outcome of a recipient that was not sent: a deferral or a report. Return whether it had none before.
    pub(super) fn finish_recipient(&mut self, key: u32, position: u32, status: &Arc<Status>, now: Now) -> bool {
        let message = &mut self.active[key];
        let stage = message.targets.get(position as usize).map_or(Stage::Free, |target| target.stage);
        if stage == Stage::Free || message.withdrawn && stage != Stage::InFlight {
            return false;
        }
        if message.envelope.is_probe() {
            self.probed(key, position);
            return true;
        }
        let target = &mut message.targets[position as usize];
        let index = target.index;
        let entry = self.catalogue.entry(message.slot);
        let lifetimes = &self.settings.lifetimes;
        let arrival_us = message.envelope.arrival_us;
        // The sender may not want a report. Failures of mail with the null sender (RFC 5321 §4.5.5) go to the bounce
        // agent all the same, for the postmaster.
        let null_sender = message.envelope.sender.is_empty();
        let expired = entry.forced_expire() || lifetimes.expired(now, arrival_us, null_sender);
        if !entry.is_done(index) {
            let recipient = target.recipient.clone();
            if status.outcome == Outcome::Deferred && !expired {
                let late = !entry.warned() && !null_sender && lifetimes.warning_due(now, arrival_us);
                if late && recipient.notify.on_delay() {
                    let status = Some(Status::clone(status));
                    message.left.late.push(JobRecipient { index, recipient, status });
                }
                message.left.deferred.push((index, Arc::clone(status)));
            } else {
                message.expired |= status.outcome == Outcome::Deferred;
                let status = Some(Status { outcome: Outcome::Bounced, ..Status::clone(status) });
                message.left.bounced.push(JobRecipient { index, recipient, status });
            }
        }
        self.free(key, position);
        true
    }

    /// Finish a recipient without an agent. The log line has the name of error(8), as in Postfix.
    pub(super) fn decide_here(&mut self, key: u32, position: u32, status: &Arc<Status>, now: Now) {
        self.announce(key);
        let message = &self.active[key];
        let Some(target) = message.targets.get(position as usize).filter(|target| target.stage != Stage::Free) else {
            return;
        };
        let (long_ids, digits) = (self.settings.long_queue_ids, self.settings.delay_resolution_digits);
        let (envelope, active_us) = (&message.envelope, message.active_us);
        let text = decided_here(envelope, long_ids, &target.recipient, active_us, now, status, digits);
        if self.finish_recipient(key, position, status, now) {
            self.trace_decision(key, position, status);
            self.events.push_back(Event::Line { program: Some("error"), warning: false, text: text.into() });
        }
    }

    /// Defer recipients that wait or would wait for a destination, or put their report off.
    pub(super) fn defer_instead(&mut self, key: u32, kind: JobKind, positions: &[u32], status: &Arc<Status>, now: Now) {
        if kind == JobKind::Deliver {
            for position in positions {
                self.decide_here(key, *position, status, now);
            }
            self.check_finished(key);
        } else {
            self.conclude(key, now);
        }
    }

    /// Note that these recipients need no further attempt.
    pub(super) fn done(&mut self, slot: u32, indices: impl IntoIterator<Item = u32>) {
        let recipients: Few = indices.into_iter().filter(|index| self.catalogue.done(slot, *index)).collect();
        if !recipients.is_empty() {
            let id = self.catalogue.entry(slot).id();
            self.events.push_back(Event::Note(Fact::Done { id, recipients }));
        }
    }

    /// Read more recipients or end the attempt soon, if every recipient in memory has an outcome.
    pub(super) fn check_finished(&mut self, key: u32) {
        let Some(message) = self.active.get(key) else {
            return;
        };
        if message.waiting == 0 && message.deliveries == 0 && message.phase == Phase::Delivering && !message.reading {
            self.finished.push((key, self.active.serial(key)));
        }
    }

    // Messages.

    /// Read more recipients, or end the attempt, when every recipient in memory is finished.
    pub(super) fn recipients_finished(&mut self, key: u32, now: Now) {
        let message = &self.active[key];
        let finished = message.waiting == 0 && message.deliveries == 0 && message.phase == Phase::Delivering;
        if finished && !message.reading && !self.refill(key, now) {
            self.end_attempt(key, now);
        }
    }

    /// End an attempt in which every recipient was tried.
    pub(super) fn end_attempt(&mut self, key: u32, now: Now) {
        let message = &mut self.active[key];
        let entry = self.catalogue.entry(message.slot);
        if message.requested != Requested::Deliver {
            return self.conclude(key, now);
        }
        if message.expired {
            let id = entry.id().text(self.settings.long_queue_ids);
            let word = if entry.forced_expire() { "force-expired" } else { "expired" };
            let text = format!("{id}: from=<{}>, status={word}, returned to sender", message.envelope.sender);
            self.events.push_back(Event::Line { program: None, warning: false, text: text.into() });
        }
        // The sender may not want a report. Failures of mail with the null sender (RFC 5321 §4.5.5) go to the bounce
        // agent all the same, for the postmaster.
        let null_sender = message.envelope.sender.is_empty();
        let silent = |recipient: &JobRecipient| !null_sender && !recipient.recipient.notify.on_failure();
        if !message.left.bounced.is_empty() {
            let (silent, told): (Vec<_>, Vec<_>) =
                std::mem::take(&mut message.left.bounced).into_iter().partition(silent);
            message.left.bounced = told;
            let slot = message.slot;
            self.done(slot, silent.into_iter().map(|recipient| recipient.index));
        }
        self.report(key, now);
    }

    /// Send the next report to the sender, or conclude the attempt.
    pub(super) fn report(&mut self, key: u32, now: Now) {
        let message = &mut self.active[key];
        if message.requested != Requested::Deliver {
            return self.conclude(key, now);
        }
        let (phase, kind) = if !message.left.bounced.is_empty() {
            (Phase::Bouncing, JobKind::Bounce)
        } else if !message.left.late.is_empty() {
            (Phase::Warning, JobKind::Warn)
        } else if !message.left.delivered.is_empty() {
            (Phase::Confirming, JobKind::Confirm)
        } else if !message.left.traced.is_empty() {
            (Phase::Reporting, JobKind::Report)
        } else {
            return self.conclude(key, now);
        };
        message.phase = phase;
        let destination = self.bounce_destination();
        self.wait_for(destination, key, kind, Few::new(), now);
    }

    /// Take the bounce agent's result about permanent failures: recipients with a queued report are done.
    fn reported(&mut self, key: u32, outcomes: &[(u32, Status)], now: Now) {
        let sent = |index| outcomes.iter().any(|(i, status)| *i == index && status.outcome == Outcome::Sent);
        let message = &mut self.active[key];
        let slot = message.slot;
        let (told, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut message.left.bounced).into_iter().partition(|recipient| sent(recipient.index));
        message.left.bounced = left;
        let failed = !message.left.bounced.is_empty() || message.requested == Requested::Delete;
        self.done(slot, told.into_iter().map(|recipient| recipient.index));
        if failed { self.conclude(key, now) } else { self.report(key, now) }
    }

    fn warned(&mut self, key: u32, outcomes: &[(u32, Status)], now: Now) {
        if outcomes.iter().any(|(_, status)| status.outcome == Outcome::Sent) {
            let slot = self.active[key].slot;
            self.catalogue.warned(slot);
            let id = self.catalogue.entry(slot).id();
            self.events.push_back(Event::Note(Fact::Warned { id }));
        }
        self.active[key].left.late.clear();
        self.report(key, now);
    }

    /// End the attempt: the message is removed, deferred or held.
    pub(super) fn conclude(&mut self, key: u32, now: Now) {
        self.uncount(key);
        for job in std::mem::take(&mut self.active[key].jobs) {
            self.retire(job);
        }
        let Some(message) = self.active.remove(key) else {
            return;
        };
        self.in_core -= message.in_core();
        self.retries -= usize::from(message.retry);
        let Active { slot, requested, withdrawn, left, envelope, .. } = message;
        if requested == Requested::Delete || self.catalogue.entry(slot).finished() {
            let place = self.catalogue.entry(slot).place();
            debug_assert_eq!(place, Place::Active(key));
            return self.discard(slot);
        }
        let entry = self.catalogue.entry(slot);
        let Outcomes { deferred, bounced, .. } = left.into_outcomes();
        let unreported = bounced.into_iter().filter_map(|left| Some((left.index, Arc::new(left.status?))));
        let mut reasons: Vec<(u32, Arc<Status>)> = deferred.into_iter().chain(unreported).collect();
        reasons.retain(|(index, _)| !entry.is_done(*index));
        reasons.sort_unstable_by_key(|(index, _)| *index);
        reasons.dedup_by_key(|(index, _)| *index);
        let mut wait_us = self.settings.lifetimes.backoff_us(now.age_us(envelope.arrival_us)).max(BACKOFF_LEAST_US);
        if withdrawn && requested == Requested::Deliver {
            // It was released before the requested hold happened.
            wait_us = BACKOFF_LEAST_US;
        }
        let id = entry.id();
        let attempts = self.catalogue.tried(slot, &reasons, now.mono_us + wait_us);
        let fact = Fact::Deferred { id, attempts, next_attempt_us: now.wall_us + wait_us, reasons };
        self.events.push_back(Event::Note(fact));
        if requested == Requested::Hold {
            self.events.push_back(Event::Note(Fact::Held { id }));
            self.catalogue.place(slot, Place::Held);
        } else {
            self.catalogue.wait_until(slot, now.mono_us + wait_us);
        }
    }

    /// Remove a message, and log that.
    fn discard(&mut self, slot: u32) {
        let text = Text::Removed { id: self.catalogue.entry(slot).id(), long_ids: self.settings.long_queue_ids };
        self.events.push_back(Event::Line { program: None, warning: false, text });
        self.forget(slot);
    }

    /// Remove a message's recipients in memory from the counts of their transports.
    pub(super) fn uncount(&mut self, key: u32) {
        for target in &self.active[key].targets {
            if matches!(target.stage, Stage::Waiting | Stage::InFlight) {
                let transport = self.destinations[target.destination].transport;
                self.transports[transport as usize].in_core -= 1;
            }
        }
    }

    /// Remove a message from the queue.
    pub(super) fn forget(&mut self, slot: u32) {
        let id = self.catalogue.entry(slot).id();
        if self.catalogue.entry(slot).place() == Place::Loading {
            self.stop_loading(slot);
        }
        self.events.push_back(Event::Note(Fact::Removed { id }));
        self.catalogue.remove(slot);
    }

    // Destinations and transports.

    /// Adjust a destination after a result: its window, and whether it is dead.
    fn heard_from(&mut self, delivery: &Delivery, site: Option<Status>, now: Now) {
        let key = delivery.destination;
        let destination = &mut self.destinations[key];
        destination.pace.hear(delivery.sent_us, now.mono_us);
        let settings = &self.transports[destination.transport as usize].settings;
        let rules = settings.window_rules();
        let busy = destination.busy;
        match site {
            None if destination.dead.is_some() => {
                destination.dead = None;
                destination.window.revived(busy, &rules);
            }
            None => destination.window.succeeded(busy, &rules),
            Some(_) if destination.dead.is_some() => {}
            Some(site) => {
                if destination.window.failed(&rules) {
                    self.kill_destination(key, &site, now);
                }
            }
        }
        let destination = &mut self.destinations[key];
        destination.busy -= 1;
        let pause_us = self.transports[destination.transport as usize].settings.destination_rate_delay_us;
        if pause_us > 0 {
            destination.pause_until_us = now.mono_us + pause_us;
            self.set_timer(now.mono_us + pause_us, Timer::Destination(key));
        }
        self.update_lanes(key, now);
        self.refill(delivery.message, now);
    }

    /// Make a destination dead for `minimal_backoff_time`, and defer its waiting mail with the reason.
    fn kill_destination(&mut self, key: u32, site: &Status, now: Now) {
        let mut status = deferral([0, 0], &format!("delivery temporarily suspended: {}", site.text));
        status.dsn = site.dsn;
        status.dsn.class = 4;
        let status = Arc::new(status);
        let until_us = now.mono_us + self.settings.lifetimes.minimal_backoff_us.max(BACKOFF_LEAST_US);
        self.destinations[key].dead = Some((Arc::clone(&status), until_us));
        self.set_timer(until_us, Timer::Destination(key));
        self.defer_queue(key, &status, now);
    }

    fn defer_queue(&mut self, key: u32, status: &Arc<Status>, now: Now) {
        // An idle destination may be forgotten while others are processed.
        let Some(destination) = self.destinations.get_mut(key) else {
            return;
        };
        let peers: Vec<Peer> = destination.lanes.iter_mut().flat_map(std::mem::take).collect();
        for peer in peers {
            let Some(job) = self.jobs.same(peer.job, peer.serial) else {
                continue;
            };
            let message = job.message;
            self.peer_finished(peer.job, peer.serial);
            self.defer_instead(message, peer.kind, &peer.positions, status, now);
        }
        self.update_lanes(key, now);
        self.readmit(key, now);
    }

    pub(super) fn destination_due(&mut self, key: u32, now: Now) {
        let Some(destination) = self.destinations.get_mut(key) else {
            return;
        };
        if destination.dead.as_ref().is_some_and(|(_, until_us)| *until_us <= now.mono_us) {
            let rules = self.transports[destination.transport as usize].settings.window_rules();
            destination.dead = None;
            destination.window.revived(destination.busy, &rules);
        }
        self.update_lanes(key, now);
    }

    /// Defer the mail of a transport without agents for `transport_retry_time`.
    pub(super) fn kill_transport(&mut self, number: u32, now: Now) {
        let status = Arc::new(deferral([3, 0], "mail transport unavailable"));
        let until_us = now.mono_us + self.settings.transport_retry_us.max(BACKOFF_LEAST_US);
        let transport = &mut self.transports[number as usize];
        transport.dead = Some((Arc::clone(&status), until_us));
        transport.wanting_since_us = None;
        transport.asked_us = None;
        let mut destinations: Vec<u32> = transport.destinations.iter().copied().collect();
        destinations.sort_unstable();
        self.set_timer(until_us, Timer::Transport(number));
        for key in destinations {
            self.defer_queue(key, &status, now);
        }
    }

    pub(super) fn revive_transport(&mut self, number: u32, now: Now) {
        let transport = &mut self.transports[number as usize];
        transport.dead = None;
        transport.wanting_since_us = None;
        transport.asked_us = None;
        transport.pause_until_us =
            transport.pause_until_us.min(now.mono_us + transport.settings.transport_rate_delay_us);
        self.touch(number);
    }

    pub(super) fn transport_due(&mut self, number: u32, now: Now) {
        let transport = &mut self.transports[number as usize];
        if transport.dead.as_ref().is_some_and(|(_, until_us)| *until_us <= now.mono_us) {
            self.revive_transport(number, now);
        } else if transport.is_quiet() {
            transport.wanting_since_us = None;
        } else if transport.wanting_since_us.is_some_and(|us| us + self.settings.ipc_timeout_us <= now.mono_us) {
            let name = Arc::clone(&transport.name);
            self.warn(format!(
                "no delivery agent for transport {name} within {} s",
                self.settings.ipc_timeout_us / SECOND_US
            ));
            self.kill_transport(number, now);
        }
        self.touch(number);
    }
}
