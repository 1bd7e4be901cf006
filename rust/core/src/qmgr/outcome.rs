//! What becomes of recipients, of messages, and of destinations that fail.
//!
//! A recipient is done when it was sent, when its failure was reported (the bounce agent says that the report is
//! queued), or when nobody is to be told. An attempt that leaves others ends in a deferral; a message is removed when
//! nobody is left.
//!
//! A lost agent may or may not have delivered what it held; its results are lost with it. Its recipients are given to
//! another agent at once, so that a crash costs no time, and after `AGENTS_LOST_MAX` such losses in one attempt the
//! message is deferred (`unknown mail transport error`): a message that kills agents does not kill them in a row.

use super::catalogue::Place;
use super::destination::Bundle;
use super::job::InFlight;
use super::line::{Text, decided_here};
use super::message::{Active, Outcomes, Phase, Stage, Wish};
use super::scheduler::{Event, Scheduler, Timer, deferral};
use crate::clock::{Now, SECOND_US};
use crate::few::Few;
use crate::ipc::frame::{JobKind, JobRecipient, JobResult};
use crate::mail::status::{Outcome, Status};
use crate::queue::state::Fact;
use std::sync::Arc;

/// Agents that may be lost over one message in one attempt before it is deferred.
pub const AGENTS_LOST_MAX: u32 = 3;
/// No wait is shorter, whatever main.cf says: an attempt must not follow itself in the same instant.
const BACKOFF_LEAST_US: u64 = SECOND_US;

impl Scheduler {
    /// An agent answers. Of a job that is not known (a queue manager before this one gave it) what was sent is believed.
    pub fn result(&mut self, result: JobResult, now: Now) {
        let active = &self.active;
        let Some(job) = self.jobs.end_if(result.job, |job| active[job.message].envelope.id == result.id) else {
            return self.believe(&result, now);
        };
        self.agent_freed(&job);
        self.active[job.message].jobs -= 1;
        match job.kind {
            JobKind::Deliver => self.delivered(&job, result.recipients, result.site.as_ref(), now),
            JobKind::Bounce => self.reported(job.message, &result.recipients, now),
            JobKind::Warn => self.warned(job.message, &result.recipients, now),
            JobKind::Confirm => {
                self.active[job.message].left.delivered.clear();
                self.report(job.message, now);
            }
        }
        self.heard_from(&job, result.site, now);
        self.check_settled(job.message);
    }

    /// Of a job that is being answered: the sender asked to hear of these recipients' delivery, and we are to tell.
    pub fn to_confirm(&mut self, job: u64, recipients: &[u32]) {
        let Some(message) = self.jobs.get(job).map(|job| job.message) else { return };
        self.active[message].left.to_confirm = recipients.to_vec();
    }

    /// A recipient was sent. The sender is told if that is for us to do, or if it was told of a delay before.
    fn sent(&mut self, key: u32, position: u32, status: Status, told_by_us: bool) {
        let message = &mut self.active[key];
        let target = &message.targets[position as usize];
        let delayed = || self.settings.confirm_delay_cleared && self.catalogue.entry(message.slot).warned();
        let wanted = told_by_us || target.recipient.notify.on_delay() && delayed();
        if wanted && !message.envelope.sender.is_empty() {
            let (index, recipient) = (target.index, target.recipient.clone());
            message.left.delivered.push(JobRecipient { index, recipient, status: Some(status) });
        }
        self.free(key, position);
    }

    fn delivered(&mut self, job: &InFlight, outcomes: Vec<(u32, Status)>, site: Option<&Status>, now: Now) {
        let mut last: Option<Arc<Status>> = None;
        let mut done = Few::new();
        let left = &mut self.active[job.message].left;
        let to_confirm = if left.is_nothing() { Vec::new() } else { std::mem::take(&mut left.to_confirm) };
        for (nth, (index, status)) in outcomes.into_iter().enumerate() {
            let targets = &self.active[job.message].targets;
            let is = |position: &u32| {
                let target = &targets[*position as usize];
                target.index == index && target.stage == Stage::InFlight
            };
            // Agents mostly answer in the order in which they were asked.
            let same_order = job.positions.get(nth).copied().filter(is);
            let Some(position) = same_order.or_else(|| job.positions.iter().copied().find(is)) else {
                continue;
            };
            let status = self.softened(status);
            if status.outcome == Outcome::Sent {
                self.sent(job.message, position, status, to_confirm.contains(&index));
                done.push(index);
                continue;
            }
            // Recipients of one job mostly share one fate: keep it once.
            let status = match last.filter(|last| **last == status) {
                Some(last) => last,
                None => Arc::new(status),
            };
            self.settle(job.message, position, &status, now);
            last = Some(status);
        }
        self.done(self.active[job.message].slot, done);
        let is_silent = |at: &u32| self.active[job.message].targets[*at as usize].stage == Stage::InFlight;
        let silent: Few = job.positions.iter().copied().filter(is_silent).collect();
        if !silent.is_empty() {
            let unknown = || deferral([3, 0], "unknown mail transport error");
            let status =
                Arc::new(site.map_or_else(unknown, |site| Status { outcome: Outcome::Deferred, ..site.clone() }));
            for position in silent {
                self.decide_here(job.message, position, &status, now);
            }
        }
    }

    /// `soft_bounce`: what failed for good is tried again.
    fn softened(&self, mut status: Status) -> Status {
        if self.settings.soft_bounce && status.outcome == Outcome::Bounced {
            status.outcome = Outcome::Deferred;
            status.dsn.class = 4;
        }
        status
    }

    /// A result for a job of which nothing is known.
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
                // What is with an agent again is settled by its answer.
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
                self.check_settled(key);
            }
            None if self.catalogue.entry(slot).finished() => self.discard(slot),
            None => {}
        }
    }

    /// An agent that held this job is gone.
    pub(super) fn job_lost(&mut self, number: u64, now: Now) {
        let Some(job) = self.jobs.end(number) else {
            return;
        };
        self.destinations[job.destination].busy -= 1;
        let transport = self.destinations[job.destination].transport as usize;
        self.transports[transport].uncount_job(job.lane, job.large);
        let message = &mut self.active[job.message];
        message.jobs -= 1;
        message.agents_lost += 1;
        let unwanted = message.withdrawn || job.kind != JobKind::Deliver && message.wish != Wish::Deliver;
        let give_up = message.agents_lost > AGENTS_LOST_MAX || unwanted;
        let mut again = Few::new();
        for position in &job.positions {
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
            self.turn_away(job.message, job.kind, &again, &status, now);
        } else if job.kind != JobKind::Deliver || !again.is_empty() {
            again.reverse();
            self.wait_for(job.destination, job.message, job.kind, again, now);
        }
        self.stand(job.destination, now);
        self.check_settled(job.message);
    }

    // Recipients.

    /// A recipient was sent, or has its outcome kept elsewhere: its place in memory is free.
    fn free(&mut self, key: u32, position: u32) {
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

    /// A recipient was not sent: it is tried again, or its sender hears of it. Says whether it had no outcome before.
    pub(super) fn settle(&mut self, key: u32, position: u32, status: &Arc<Status>, now: Now) -> bool {
        let message = &mut self.active[key];
        let stage = message.targets.get(position as usize).map_or(Stage::Free, |target| target.stage);
        if stage == Stage::Free || message.withdrawn && stage != Stage::InFlight {
            return false;
        }
        let target = &mut message.targets[position as usize];
        let index = target.index;
        let entry = self.catalogue.entry(message.slot);
        let lifetimes = &self.settings.lifetimes;
        let arrival_us = message.envelope.arrival_us;
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

    /// A recipient's outcome is decided here, without an agent: the log says so in the name of error(8), as Postfix does.
    pub(super) fn decide_here(&mut self, key: u32, position: u32, status: &Arc<Status>, now: Now) {
        self.announce(key);
        let message = &self.active[key];
        let Some(target) = message.targets.get(position as usize).filter(|target| target.stage != Stage::Free) else {
            return;
        };
        let id = message.envelope.id.text(self.settings.long_queue_ids);
        let (arrival_us, active_us) = (message.envelope.arrival_us, message.active_us);
        let digits = self.settings.delay_resolution_digits;
        let text = decided_here(&id, &target.recipient, arrival_us, active_us, now, status, digits);
        if self.settle(key, position, status, now) {
            self.events.push_back(Event::Line { program: Some("error"), warning: false, text: text.into() });
        }
    }

    /// What waits or would wait for a destination is deferred instead, or its report put off.
    pub(super) fn turn_away(&mut self, key: u32, kind: JobKind, positions: &[u32], status: &Arc<Status>, now: Now) {
        if kind == JobKind::Deliver {
            for position in positions {
                self.decide_here(key, *position, status, now);
            }
            self.check_settled(key);
        } else {
            self.conclude(key, now);
        }
    }

    /// These need no further attempt.
    pub(super) fn done(&mut self, slot: u32, indices: impl IntoIterator<Item = u32>) {
        let recipients: Few = indices.into_iter().filter(|index| self.catalogue.done(slot, *index)).collect();
        if !recipients.is_empty() {
            let id = self.catalogue.entry(slot).id();
            self.events.push_back(Event::Note(Fact::Done { id, recipients }));
        }
    }

    /// If every recipient in memory has an outcome, more are read, or the attempt comes to its end soon.
    pub(super) fn check_settled(&mut self, key: u32) {
        let Some(message) = self.active.get(key) else {
            return;
        };
        if message.waiting == 0 && message.jobs == 0 && message.phase == Phase::Delivering && !message.reading {
            self.settled.push((key, self.active.serial(key)));
        }
    }

    // Messages.

    /// Every recipient in memory has an outcome, or is not to be delivered any more.
    pub(super) fn memory_settled(&mut self, key: u32, now: Now) {
        let message = &self.active[key];
        let settled = message.waiting == 0 && message.jobs == 0 && message.phase == Phase::Delivering;
        if settled && !message.reading && !self.refill(key, now) {
            self.end_attempt(key, now);
        }
    }

    /// Every recipient had its turn.
    pub(super) fn end_attempt(&mut self, key: u32, now: Now) {
        let message = &mut self.active[key];
        let entry = self.catalogue.entry(message.slot);
        if message.wish != Wish::Deliver {
            return self.conclude(key, now);
        }
        if message.expired {
            let id = entry.id().text(self.settings.long_queue_ids);
            let word = if entry.forced_expire() { "force-expired" } else { "expired" };
            let text = format!("{id}: from=<{}>, status={word}, returned to sender", message.envelope.sender);
            self.events.push_back(Event::Line { program: None, warning: false, text: text.into() });
        }
        // The sender may not want to hear of it. What came from nobody (RFC 5321 §4.5.5) is the bounce agent's affair:
        // the postmaster may want to.
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

    /// Tell the sender what is to be told, one thing after the other, and come to an end.
    fn report(&mut self, key: u32, now: Now) {
        let message = &mut self.active[key];
        if message.wish != Wish::Deliver {
            return self.conclude(key, now);
        }
        let (phase, kind) = if !message.left.bounced.is_empty() {
            (Phase::Bouncing, JobKind::Bounce)
        } else if !message.left.late.is_empty() {
            (Phase::Warning, JobKind::Warn)
        } else if !message.left.delivered.is_empty() {
            (Phase::Confirming, JobKind::Confirm)
        } else {
            return self.conclude(key, now);
        };
        message.phase = phase;
        let destination = self.bounce_destination();
        self.wait_for(destination, key, kind, Few::new(), now);
    }

    /// The bounce agent's answer about recipients that failed for good: whose report is queued is done.
    fn reported(&mut self, key: u32, outcomes: &[(u32, Status)], now: Now) {
        let sent = |index| outcomes.iter().any(|(i, status)| *i == index && status.outcome == Outcome::Sent);
        let message = &mut self.active[key];
        let slot = message.slot;
        let (told, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut message.left.bounced).into_iter().partition(|recipient| sent(recipient.index));
        message.left.bounced = left;
        let failed = !message.left.bounced.is_empty() || message.wish == Wish::Delete;
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

    /// The attempt is over: the message leaves the queue, waits for its next attempt, or is held.
    pub(super) fn conclude(&mut self, key: u32, now: Now) {
        self.uncount(key);
        for errand in std::mem::take(&mut self.active[key].errands) {
            self.retire(errand);
        }
        let Some(message) = self.active.remove(key) else {
            return;
        };
        self.in_core -= message.in_core();
        self.retries -= usize::from(message.retry);
        let Active { slot, wish, withdrawn, left, envelope, .. } = message;
        if wish == Wish::Delete || self.catalogue.entry(slot).finished() {
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
        if withdrawn && wish == Wish::Deliver {
            // It was to be held, and released before that came to pass.
            wait_us = BACKOFF_LEAST_US;
        }
        let id = entry.id();
        let attempts = self.catalogue.tried(slot, &reasons, now.mono_us + wait_us);
        let fact = Fact::Deferred { id, attempts, next_attempt_us: now.wall_us + wait_us, reasons };
        self.events.push_back(Event::Note(fact));
        if wish == Wish::Hold {
            self.events.push_back(Event::Note(Fact::Held { id }));
            self.catalogue.place(slot, Place::Held);
        } else {
            self.catalogue.wait_until(slot, now.mono_us + wait_us);
        }
    }

    /// A message leaves the queue, and the log says so.
    fn discard(&mut self, slot: u32) {
        let text = Text::Removed { id: self.catalogue.entry(slot).id(), long_ids: self.settings.long_queue_ids };
        self.events.push_back(Event::Line { program: None, warning: false, text });
        self.forget(slot);
    }

    /// The recipients of a message that are in memory count no more for their transports.
    pub(super) fn uncount(&mut self, key: u32) {
        for target in &self.active[key].targets {
            if matches!(target.stage, Stage::Waiting | Stage::InFlight) {
                let transport = self.destinations[target.destination].transport;
                self.transports[transport as usize].in_core -= 1;
            }
        }
    }

    /// A message leaves the queue.
    pub(super) fn forget(&mut self, slot: u32) {
        let id = self.catalogue.entry(slot).id();
        if self.catalogue.entry(slot).place() == Place::Loading {
            self.leave_loading(slot);
        }
        self.events.push_back(Event::Note(Fact::Removed { id }));
        self.catalogue.remove(slot);
    }

    // Destinations and transports.

    /// A job came back from a destination: its window opens or closes, and it may be dead or alive now.
    fn heard_from(&mut self, job: &InFlight, site: Option<Status>, now: Now) {
        let key = job.destination;
        let destination = &mut self.destinations[key];
        destination.pace.hear(job.sent_us, now.mono_us);
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
        self.stand(key, now);
        self.refill(job.message, now);
    }

    /// A destination is dead for `minimal_backoff_time`: what waits for it is deferred, with the reason.
    fn kill_destination(&mut self, key: u32, site: &Status, now: Now) {
        let mut status = deferral([0, 0], &format!("delivery temporarily suspended: {}", site.text));
        status.dsn = site.dsn;
        status.dsn.class = 4;
        let status = Arc::new(status);
        let until_us = now.mono_us + self.settings.lifetimes.minimal_backoff_us.max(BACKOFF_LEAST_US);
        self.destinations[key].dead = Some((Arc::clone(&status), until_us));
        self.set_timer(until_us, Timer::Destination(key));
        self.turn_queue_away(key, &status, now);
    }

    fn turn_queue_away(&mut self, key: u32, status: &Arc<Status>, now: Now) {
        // A destination of which nothing waits may be forgotten while others are gone through.
        let Some(destination) = self.destinations.get_mut(key) else {
            return;
        };
        let bundles: Vec<Bundle> = destination.lanes.iter_mut().flat_map(std::mem::take).collect();
        for bundle in bundles {
            let Some(errand) = self.errands.same(bundle.errand, bundle.serial) else {
                continue;
            };
            let message = errand.message;
            self.bundle_gone(bundle.errand, bundle.serial);
            self.turn_away(message, bundle.kind, &bundle.positions, status, now);
        }
        self.stand(key, now);
        self.call(key, now);
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
        self.stand(key, now);
    }

    /// No agent serves a transport: for `transport_retry_time`, what waits for it is deferred.
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
            self.turn_queue_away(key, &status, now);
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
