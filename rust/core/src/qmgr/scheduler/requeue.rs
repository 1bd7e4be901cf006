//! Messages that a command moves to maildrop/ (`postsuper -r`).
//!
//! The command asks for them, writes each to a durable file, and confirms it; only then does the queue forget them.
//! Meanwhile nothing is done to them. When the command dies first, they are put back as they were. When the queue
//! manager dies, they are found as they were, because no fact was noted. So each message is in at least one place at
//! any moment.

use super::Scheduler;
use crate::clock::Now;
use crate::mail::id::QueueId;
use crate::mail::locator::Locator;
use crate::queue::catalogue::Place;

/// Maximum number of messages in one request.
pub const REQUEUE_MAX: usize = 10_000;

/// The client that moves a message, and the message's previous state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requeued {
    client: u32,
    held: bool,
}

/// Messages that a command may move.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requeue {
    /// The messages, which now wait for it, and their records.
    pub messages: Vec<(QueueId, Locator)>,
    /// Messages under delivery, or moved by another request.
    pub busy: Vec<QueueId>,
    /// The ID after which there may be more.
    pub next: Option<QueueId>,
}

impl Scheduler {
    /// Take messages out of the queue for `client`: at most `REQUEUE_MAX` of those named (in ascending order), or of
    /// all, that come after `after` and are in one of `queues` (an empty list is any).
    pub fn requeue(&mut self, client: u32, ids: Option<Vec<QueueId>>, queues: &[String], after: QueueId) -> Requeue {
        let ids = ids.unwrap_or_else(|| self.all());
        let mut batch = Requeue::default();
        let mut last = after;
        for id in ids.into_iter().filter(|id| *id > after) {
            if batch.messages.len() + batch.busy.len() >= REQUEUE_MAX {
                batch.next = Some(last);
                break;
            }
            last = id;
            let Some(slot) = self.catalogue.slot(id) else { continue };
            let entry = self.catalogue.entry(slot);
            let place = entry.place();
            if !queues.is_empty() && !queues.iter().any(|wanted| wanted == place.queue_name()) {
                continue;
            }
            if matches!(place, Place::Active(_)) || self.requeued.contains_key(&id) {
                batch.busy.push(id);
                continue;
            }
            batch.messages.push((id, entry.at()));
            if place == Place::Loading {
                self.stop_loading(slot);
            }
            self.catalogue.place(slot, Place::Held);
            self.requeued.insert(id, Requeued { client, held: place == Place::Held });
        }
        batch
    }

    /// Forget messages that are in maildrop/ for good. Return those that `client` had asked for.
    pub fn requeued(&mut self, client: u32, ids: &[QueueId]) -> Vec<QueueId> {
        let mut gone = Vec::with_capacity(ids.len());
        for id in ids {
            if self.requeued.get(id).is_some_and(|moved| moved.client == client) {
                self.requeued.remove(id);
                if let Some(slot) = self.catalogue.slot(*id) {
                    self.forget(slot);
                    gone.push(*id);
                }
            }
        }
        gone
    }

    /// Put the messages back that `client` did not move.
    pub fn cancel_requeue(&mut self, client: u32, now: Now) {
        if self.requeued.is_empty() {
            return;
        }
        let back: Vec<(QueueId, bool)> =
            self.requeued.extract_if(|_, moved| moved.client == client).map(|(id, moved)| (id, moved.held)).collect();
        for (id, held) in back {
            let Some(slot) = self.catalogue.slot(id).filter(|_| !held) else { continue };
            let entry = self.catalogue.entry(slot);
            if entry.is_retry() {
                let due_us = entry.due_us().max(now.mono_us);
                self.catalogue.wait_until(slot, due_us);
            } else {
                self.catalogue.wait_fresh(slot);
            }
        }
    }

    /// Return whether a command moves this message.
    pub(super) fn is_requeued(&self, id: QueueId) -> bool {
        self.requeued.contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qmgr::scheduler::control::Verb;
    use crate::qmgr::settings::{Settings, TransportSettings};
    use crate::qmgr::world::World;

    const NONE: QueueId = QueueId(0);

    /// Three messages: the first is with an agent, the second waits, the third is on hold.
    fn world() -> (World, [QueueId; 3]) {
        let settings = Settings { message_active_limit: 1, ..Settings::default() };
        let mut world = World::new(settings, TransportSettings::default());
        world.join("smtp", 1);
        let ids = [(); 3].map(|()| world.arrive("s@example.org", &["a@example.net"]));
        world.scheduler.hold(ids[2], world.now);
        world.run_events();
        (world, ids)
    }

    #[test]
    fn a_requeued_message_is_left_alone_until_it_is_gone() {
        let (mut world, [active, fresh, held]) = world();
        let batch = world.scheduler.requeue(7, None, &[], NONE);
        assert_eq!((batch.messages.iter().map(|(id, _)| *id).collect(), batch.busy), (vec![fresh, held], vec![active]));
        for verb in [Verb::Release, Verb::Delete, Verb::Hold, Verb::Expire, Verb::Flush] {
            assert_eq!(world.scheduler.apply(verb, Some(vec![held, fresh]), &[], world.now), [], "{verb:?}");
        }
        assert_eq!(world.scheduler.requeue(8, Some(vec![fresh]), &[], NONE).busy, [fresh], "another command has it");
        assert_eq!(world.scheduler.requeued(8, &[fresh]), []);
        assert_eq!(world.scheduler.requeued(7, &[fresh, held, active]), [fresh, held]);
        for id in [fresh, held] {
            world.known.get_mut(&id).unwrap().deleted = true;
        }
        world.run_events();
        assert!(world.known[&fresh].removed && world.known[&held].removed && !world.known[&active].removed);
    }

    #[test]
    fn a_command_that_dies_changes_nothing() {
        let (mut world, [_, fresh, held]) = world();
        world.scheduler.requeue(7, None, &[], NONE);
        world.scheduler.cancel_requeue(8, world.now);
        assert!(world.scheduler.is_requeued(fresh));
        world.scheduler.cancel_requeue(7, world.now);
        let place = |id| world.scheduler.catalogue().entry(world.scheduler.catalogue().slot(id).unwrap()).place();
        assert_eq!((place(fresh), place(held)), (Place::Fresh, Place::Held));
        assert_eq!(world.scheduler.requeued(7, &[fresh]), [], "the message is back in the queue");
    }

    #[test]
    fn other_queues_and_earlier_messages_are_left_out() {
        let (mut world, [active, fresh, held]) = world();
        let ids = |requeue: Requeue| requeue.messages.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(world.scheduler.requeue(1, None, &["hold".into()], NONE)), [held]);
        assert_eq!(ids(world.scheduler.requeue(1, None, &[], fresh)), [], "the last one is busy");
        assert_eq!(ids(world.scheduler.requeue(1, None, &[], active)), [fresh]);
    }
}
