//! The report of the first attempt, which its sender asked for: of a delivery (`sendmail -v`) or of a probe
//! (`sendmail -bv`).
//!
//! An agent sends what it logged before its result. The report holds these texts, and the decisions of the scheduler,
//! which makes the report once every recipient was tried. The queue manager tries a probe without its report again as a
//! whole: nothing of it is delivered. The report about a delivered message is lost with the process, as a confirmation is.

use super::Scheduler;
use crate::clock::Now;
use crate::ipc::frame::{FRAME_MAX_OCTETS, JobKind, JobRecipient};
use crate::mail::status::{Outcome, Status};
use crate::mail::trace::{Action, Trace, Traced};
use crate::qmgr::deliveries::Delivery;
use crate::qmgr::message::{Active, Stage};
use std::collections::HashSet;
use std::sync::Arc;

/// Maximum number of octets in the lines of a report, a quarter of the longest frame; the report leaves out the others.
const REPORT_MAX_OCTETS: usize = FRAME_MAX_OCTETS / 4;
/// Octets of a line besides its texts, at most.
const LINE_OCTETS: usize = 64;

impl Scheduler {
    /// Note before a result what the agent logged about its recipients.
    pub fn to_trace(&mut self, delivery: u64, traced: Vec<Traced>) {
        let Some(delivery) = self.deliveries.get(delivery) else { return };
        let message = &mut self.active[delivery.message];
        if delivery.kind == JobKind::Deliver && message.envelope.trace != Trace::Off {
            message.left.to_trace = traced;
        }
    }

    /// Whether the sender gets a report of this delivery attempt: it asked for one (`sendmail -v`), and this is the first
    /// attempt.
    pub(super) fn records(&self, message: &Active) -> bool {
        message.envelope.trace == Trace::Record && self.catalogue.entry(message.slot).attempts() == 0
    }

    fn is_traced(&self, message: &Active) -> bool {
        message.envelope.is_probe() || self.records(message)
    }

    /// Add the agent's lines about the recipients of its result to the report. A recipient without such a line gets one
    /// from the result.
    pub(super) fn trace_result(&mut self, delivery: &Delivery, outcomes: &[(u32, Status)]) {
        let message = &self.active[delivery.message];
        if message.envelope.trace == Trace::Off {
            return;
        }
        let is_traced = self.is_traced(message);
        let message = &mut self.active[delivery.message];
        let mut traced = std::mem::take(&mut message.left.to_trace);
        if !is_traced {
            return;
        }
        let finished: HashSet<u32> = outcomes.iter().map(|(index, _)| *index).collect();
        traced.retain(|one| finished.contains(&one.index));
        let told: HashSet<u32> = traced.iter().map(|one| one.index).collect();
        message.left.traced.append(&mut traced);
        for position in &delivery.positions {
            let target = &message.targets[*position as usize];
            let (index, recipient) = (target.index, target.recipient.clone());
            if target.stage != Stage::InFlight || !finished.contains(&index) {
                continue;
            }
            if !told.contains(&index)
                && let Some((_, status)) = outcomes.iter().find(|(of, _)| *of == index)
            {
                // Without a line of the agent, nothing is known about the recipient of a probe.
                let outcome = if message.envelope.is_probe() { Outcome::Deferred } else { status.outcome };
                let status = Status { outcome, ..status.clone() };
                let action = Action::of(message.envelope.trace, &status);
                let (address, relay) = (recipient.address.clone(), "none".into());
                message.left.traced.push(Traced { index, address, action, relay, status });
            }
            if message.envelope.trace == Trace::Record {
                message.left.reported.push(JobRecipient { index, recipient, status: None });
            }
        }
    }

    /// Add to the report what was decided without an agent.
    pub(super) fn trace_decision(&mut self, key: u32, position: u32, status: &Arc<Status>) {
        if !self.is_traced(&self.active[key]) {
            return;
        }
        let message = &mut self.active[key];
        let target = &message.targets[position as usize];
        let (index, recipient, status) = (target.index, target.recipient.clone(), Status::clone(status));
        let action = Action::of(message.envelope.trace, &status);
        let (address, relay) = (recipient.address.clone(), "none".into());
        message.left.traced.push(Traced { index, address, action, relay, status });
        if message.envelope.trace == Trace::Record {
            message.left.reported.push(JobRecipient { index, recipient, status: None });
        }
    }

    /// Finish a recipient of a probe for this attempt. It is done with the report.
    pub(super) fn probed(&mut self, key: u32, position: u32) {
        let message = &mut self.active[key];
        let target = &message.targets[position as usize];
        let (index, recipient) = (target.index, target.recipient.clone());
        message.left.reported.push(JobRecipient { index, recipient, status: None });
        self.free(key, position);
    }

    /// Return the lines of the report, up to its limit.
    pub(super) fn lines(message: &Active) -> Vec<Traced> {
        let octets = |one: &Traced| one.address.len() + one.relay.len() + one.status.text.len() + LINE_OCTETS;
        let mut left = REPORT_MAX_OCTETS;
        let fits = |one: &&Traced| {
            left = left.saturating_sub(octets(one));
            left > 0
        };
        message.left.traced.iter().take_while(fits).cloned().collect()
    }

    /// Take the bounce agent's result about the report of the attempt: the recipients of a probe are done when it is
    /// queued.
    pub(super) fn attempt_reported(&mut self, key: u32, outcomes: &[(u32, Status)], now: Now) {
        let message = &mut self.active[key];
        message.left.traced.clear();
        let reported = std::mem::take(&mut message.left.reported);
        if message.envelope.is_probe() {
            let slot = message.slot;
            let sent: HashSet<u32> = outcomes
                .iter()
                .filter(|(_, status)| status.outcome == Outcome::Sent)
                .map(|(index, _)| *index)
                .collect();
            let told = reported.into_iter().map(|recipient| recipient.index).filter(|index| sent.contains(index));
            self.done(slot, told.collect::<Vec<_>>());
        }
        self.report(key, now);
    }
}
