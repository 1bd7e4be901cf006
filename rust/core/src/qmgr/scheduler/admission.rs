//! How a message becomes active: room, the order of fresh mail and retries, and recipients in parts.
//!
//! Room is counted in messages (`qmgr_message_active_limit`) and in recipients (`qmgr_message_recipient_limit`). New
//! recipients are resolved together and grouped into peers by destination for `dispatch.rs`. Messages for slow
//! destinations go to `overflow.rs`.

use super::{Event, Scheduler, deferral};
use crate::clock::Now;
use crate::few::Few;
use crate::ipc::frame::{JobKind, JobRecipient};
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::reply::Enhanced;
use crate::mail::status::{Outcome, Status};
use crate::qmgr::line::Text;
use crate::qmgr::message::{Active, Left, Phase, Requested, Stage, Target};
use crate::qmgr::route::{Asker, Question};
use crate::queue::catalogue::Place;
use crate::queue::segment::recipients::Cursor;
use smallvec::SmallVec;
use std::sync::Arc;

impl Scheduler {
    /// Deliver a message now if there is room and no other fresh message waits; else it waits without its envelope.
    pub(super) fn enter(&mut self, slot: u32, envelope: Envelope, now: Now) {
        if self.catalogue.first_fresh().is_none() && self.has_room() {
            self.retries += usize::from(self.catalogue.entry(slot).is_retry());
            self.activate(slot, envelope, now);
        } else {
            self.catalogue.wait_fresh(slot);
        }
    }

    /// Return whether another message may become active. The first one always may, however many recipients it has,
    /// except with a limit of 0.
    pub(super) fn has_room(&self) -> bool {
        let messages = self.active.len() + self.loading;
        messages < self.settings.message_active_limit
            && (messages == 0 || self.in_core < self.settings.message_recipient_limit)
    }

    /// Return whether another retry may become active.
    pub(super) fn has_retry_room(&self) -> bool {
        self.retries < self.settings.retry_active_limit()
    }

    /// Return the number of recipients that a message brings into memory at first.
    fn first_part(&self, slot: u32) -> usize {
        (self.catalogue.entry(slot).open() as usize).min(self.settings.part_recipients())
    }

    /// Fill the free room. Fresh mail, retries and readmitted overflow take turns, and retries never use all of it.
    pub(super) fn admit(&mut self, now: Now) {
        while self.has_room() {
            let fresh = self.catalogue.first_fresh();
            let due = self.catalogue.first_due().filter(|(due_us, _)| *due_us <= now.mono_us).map(|(_, slot)| slot);
            let due = due.filter(|_| self.has_retry_room());
            let called = if self.readmitting.is_empty() { None } else { self.first_readmitted() };
            let choices = [fresh, due, called];
            if choices == [None; 3] {
                break;
            }
            let mut following = (1..=choices.len()).map(|step| (self.admitted + step) % choices.len());
            let Some(source) = following.find(|source| choices[*source].is_some()) else {
                break;
            };
            self.admitted = source;
            if let Some(slot) = choices[source] {
                self.load(slot);
            }
            if source == 2 {
                self.readmitted();
            }
        }
        self.relieve(now);
    }

    fn load(&mut self, slot: u32) {
        self.catalogue.place(slot, Place::Loading);
        self.loading += 1;
        self.in_core += self.first_part(slot);
        let entry = self.catalogue.entry(slot);
        self.retries += usize::from(entry.is_retry());
        self.events.push_back(Event::Load { id: entry.id(), at: entry.at() });
    }

    pub(super) fn stop_loading(&mut self, slot: u32) {
        self.loading -= 1;
        self.in_core = self.in_core.saturating_sub(self.first_part(slot));
        self.retries -= usize::from(self.catalogue.entry(slot).is_retry());
    }

    pub(super) fn activate(&mut self, slot: u32, mut envelope: Envelope, now: Now) {
        let retry = self.catalogue.entry(slot).is_retry();
        let recipients = std::mem::take(&mut envelope.recipients);
        let (key, _) = self.active.insert(Active {
            slot,
            envelope: Arc::new(envelope),
            targets: Vec::with_capacity(recipients.len().min(self.settings.part_recipients())),
            free: Few::new(),
            waiting: 0,
            memory_limit: self.settings.part_recipients(),
            deliveries: 0,
            sent_us: 0,
            unresolved: 0,
            unread: Cursor::default(),
            reading: false,
            read_us: now.mono_us,
            active_us: now.wall_us,
            phase: Phase::Delivering,
            requested: Requested::Deliver,
            withdrawn: false,
            announced: false,
            retry,
            expired: false,
            jobs: Few::new(),
            agents_lost: 0,
            left: Left::default(),
        });
        self.catalogue.place(slot, Place::Active(key));
        self.keep_recipients(key, recipients, now);
    }

    /// Log once that a message is under delivery.
    pub(super) fn announce(&mut self, key: u32) {
        let message = &mut self.active[key];
        if !std::mem::replace(&mut message.announced, true) {
            let entry = self.catalogue.entry(message.slot);
            let recipients = entry.open();
            let long_ids = self.settings.long_queue_ids;
            let text = Text::Active { envelope: Arc::clone(&message.envelope), recipients, long_ids };
            self.events.push_back(Event::Line { program: None, warning: false, text });
        }
    }

    /// Take more recipients of an active message; `next`: the first one of the next part.
    pub(super) fn recipients_read(&mut self, key: u32, recipients: Vec<Recipient>, next: Cursor, now: Now) {
        let message = &mut self.active[key];
        message.reading = false;
        message.read_us = now.mono_us;
        if message.withdrawn || message.phase != Phase::Delivering {
            return self.check_finished(key);
        }
        // An envelope with fewer recipients than it says must not be read again and again.
        let read = recipients.len() as u32;
        self.keep_recipients(key, recipients, now);
        let Some(message) = self.active.get_mut(key) else {
            return;
        };
        let all = self.catalogue.entry(message.slot).recipients();
        if read == 0 {
            message.unread = Cursor { index: all, octets: 0 };
        } else if message.unread.index == next.index {
            message.unread = next;
        }
        self.check_finished(key);
    }

    /// Take recipients into memory while there is room, from the first unread one, and resolve them.
    fn keep_recipients(&mut self, key: u32, recipients: Vec<Recipient>, now: Now) {
        let message = &mut self.active[key];
        let entry = self.catalogue.entry(message.slot);
        let before = message.in_core();
        let from = message.unread.index;
        let mut next = from;
        for (index, recipient) in (from..entry.recipients()).zip(recipients) {
            if message.in_core() >= message.memory_limit {
                break;
            }
            next = index + 1;
            if entry.is_done(index) {
                continue;
            }
            match entry.reason(index).filter(|status| status.outcome == Outcome::Bounced) {
                // A permanent failure without a report.
                Some(status) => {
                    message.left.bounced.push(JobRecipient { index, recipient, status: Some(Status::clone(status)) });
                }
                None => {
                    let stage = Stage::Resolving;
                    message.keep(Target { index, recipient, route: None, asked: false, destination: u32::MAX, stage });
                }
            }
        }
        message.unread = Cursor { index: next, octets: 0 };
        self.in_core += message.in_core() - before;
        // Without its filter, the message would go on unfiltered. A probe goes nowhere, and has no filter in Postfix.
        let filter = message.envelope.filter().filter(|_| !message.envelope.is_probe());
        let filter = filter.map(|filter| format!("content filter {filter} is not supported yet"));
        let reason = if entry.forced_expire() {
            Some(deferral([7, 0], "message is administratively expired"))
        } else {
            filter.map(|why| deferral([3, 5], &why))
        };
        if let Some(status) = reason.map(Arc::new) {
            for position in 0..self.active[key].targets.len() as u32 {
                if self.active[key].targets[position as usize].stage == Stage::Resolving {
                    self.decide_here(key, position, &status, now);
                }
            }
        }
        self.resolve(key, now);
    }

    fn resolve(&mut self, key: u32, now: Now) {
        let keyed = self.settings.routes;
        let serial = self.active.serial(key);
        let message = &mut self.active[key];
        let mut malformed = Vec::new();
        for (position, target) in (0u32..).zip(&mut message.targets) {
            if target.stage != Stage::Resolving || target.route.is_some() || target.asked {
                continue;
            }
            let address = &target.recipient.address;
            if !self.settings.syntax.allows(address) {
                malformed.push(position);
                continue;
            }
            let sender = if keyed.by_sender { &*message.envelope.sender } else { "" };
            let question = Question { address, sender };
            if let Some(route) = self.routes.known(question, keyed, now.mono_us) {
                target.take(route);
                continue;
            }
            target.asked = true;
            message.unresolved += 1;
            if self.routes.ask(question, keyed, Asker { message: key, serial, position }) {
                self.events.push_back(Event::Resolve { address: address.clone(), sender: sender.into() });
            }
        }
        let unresolved = message.unresolved;
        if !malformed.is_empty() {
            let dsn = Enhanced { class: 5, subject: 1, detail: 3 };
            let text = "bad address syntax".into();
            let status = Arc::new(Status { outcome: Outcome::Bounced, dsn, text, remote: None });
            for position in malformed {
                self.decide_here(key, position, &status, now);
            }
        }
        if unresolved == 0 {
            self.place_recipients(key, now);
        }
    }

    /// Group the new recipients into peers by destination, once all have routes.
    pub(super) fn place_recipients(&mut self, key: u32, now: Now) {
        let mut placed: SmallVec<[(u32, u32); 4]> = SmallVec::new();
        for position in 0..self.active[key].targets.len() {
            let target = &mut self.active[key].targets[position];
            if target.stage == Stage::Resolving
                && let Some(route) = target.route.take()
            {
                let destination = self.destination(&route, position, key);
                self.active[key].targets[position].destination = destination;
                placed.push((destination, position as u32));
            }
        }
        placed.sort_unstable();
        if self.overflow_if_congested(key, &placed, now) {
            return;
        }
        self.announce(key);
        for run in placed.chunk_by(|a, b| a.0 == b.0) {
            let transport = self.destinations[run[0].0].transport;
            self.transports[transport as usize].in_core += run.len();
            let positions: Few = run.iter().rev().map(|(_, position)| *position).collect();
            for position in &positions {
                self.active[key].targets[*position as usize].stage = Stage::Waiting;
            }
            self.wait_for(run[0].0, key, JobKind::Deliver, positions, now);
        }
        // The job may have become a large one, after the first destinations.
        if self.active.get(key).is_some_and(|message| message.jobs.iter().any(|job| self.is_large(*job))) {
            placed.chunk_by(|a, b| a.0 == b.0).for_each(|run| self.update_lanes(run[0].0, now));
        }
        self.check_finished(key);
    }

    /// Read more recipients of a message if there is room for enough of them. Return whether some are being read.
    pub(super) fn refill(&mut self, key: u32, now: Now) -> bool {
        let Some(message) = self.active.get(key) else {
            return false;
        };
        let entry = self.catalogue.entry(message.slot);
        if message.reading {
            return true;
        }
        let may = message.phase == Phase::Delivering && message.requested == Requested::Deliver && !message.withdrawn;
        if message.unread(entry.recipients()) == 0 || !may {
            return false;
        }
        let of_message = message.memory_limit.saturating_sub(message.in_core());
        let mut room = of_message.min(self.settings.message_recipient_limit.saturating_sub(self.in_core));
        let mut rules = self.default_transport.refill;
        let mut of_transports = None;
        for job in &message.jobs {
            let transport = &self.transports[self.jobs[*job].transport as usize];
            rules = transport.settings.refill;
            let limit = rules.recipient_limit as usize + self.jobs[*job].extra_recipients as usize;
            of_transports = of_transports.max(Some(limit.saturating_sub(transport.in_core)));
        }
        room = room.min(of_transports.unwrap_or(usize::MAX));
        // A message always gets its minimum, even when memory is full.
        if message.in_core() < self.settings.message_recipient_minimum.max(1) {
            let minimum = self.settings.message_recipient_minimum.max(1) - message.in_core();
            room = room.max(minimum.min(of_message));
        }
        // A message whose memory limit is below the refill limit is read by halves.
        let least = (rules.least as usize).min(message.memory_limit / 2).max(1);
        let is_time = room > 0 && now.mono_us.saturating_sub(message.read_us) >= rules.delay_us;
        if room < least && !is_time && message.waiting > 0 {
            return false;
        }
        let (id, at, from) = (entry.id(), entry.at(), message.unread);
        let most = room.max(1) as u32;
        let message = &mut self.active[key];
        message.reading = true;
        self.events.push_back(Event::Read { id, at, from, most });
        true
    }
}
