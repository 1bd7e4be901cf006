//! Messages that a command moves to maildrop/ (`postsuper -r`).
//!
//! The command asks for them, writes each to a file that is durable, and says so; only then does the queue forget them.
//! Meanwhile they wait nowhere. When the command goes away first, they are put back as they were; when the queue manager
//! does, nothing was noted and they are found as they were. So each is in one place at least, at any moment.

use super::listing::queue_name;
use super::scheduler::Scheduler;
use crate::clock::Now;
use crate::mail::id::QueueId;
use crate::mail::locator::Locator;
use crate::queue::catalogue::Place;

/// Messages that one request may take out.
pub const LEAVE_MAX: usize = 10_000;

/// Who moves a message, and how it stood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    peer: u32,
    held: bool,
}

/// What a command may move.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leave {
    /// The messages that wait for it now, and where they stand.
    pub messages: Vec<(QueueId, Locator)>,
    /// Those that are being delivered at the moment, or moved already.
    pub busy: Vec<QueueId>,
    /// There may be more behind this one.
    pub next: Option<QueueId>,
}

impl Scheduler {
    /// Take messages out of their lines for `peer`: at most `LEAVE_MAX` of those named (in ascending order), or of all,
    /// that come after `after` and are in one of `queues` (none is any).
    pub fn leave(&mut self, peer: u32, ids: Option<Vec<QueueId>>, queues: &[String], after: QueueId) -> Leave {
        let ids = ids.unwrap_or_else(|| self.all());
        let mut leave = Leave::default();
        let mut last = after;
        for id in ids.into_iter().filter(|id| *id > after) {
            if leave.messages.len() + leave.busy.len() >= LEAVE_MAX {
                leave.next = Some(last);
                break;
            }
            last = id;
            let Some(slot) = self.catalogue.slot(id) else { continue };
            let entry = self.catalogue.entry(slot);
            let place = entry.place();
            if !queues.is_empty() && !queues.iter().any(|wanted| wanted == queue_name(place)) {
                continue;
            }
            if matches!(place, Place::Active(_)) || self.leaving.contains_key(&id) {
                leave.busy.push(id);
                continue;
            }
            leave.messages.push((id, entry.at()));
            if place == Place::Loading {
                self.leave_loading(slot);
            }
            self.catalogue.place(slot, Place::Held);
            self.leaving.insert(id, Leaving { peer, held: place == Place::Held });
        }
        leave
    }

    /// The messages are in maildrop/ for good: forget them. Gives back those that `peer` had asked for.
    pub fn left(&mut self, peer: u32, ids: &[QueueId]) -> Vec<QueueId> {
        let mut gone = Vec::with_capacity(ids.len());
        for id in ids {
            if self.leaving.get(id).is_some_and(|leaving| leaving.peer == peer) {
                self.leaving.remove(id);
                if let Some(slot) = self.catalogue.slot(*id) {
                    self.forget(slot);
                    gone.push(*id);
                }
            }
        }
        gone
    }

    /// What `peer` asked for and did not move is put back.
    pub fn stay(&mut self, peer: u32, now: Now) {
        if self.leaving.is_empty() {
            return;
        }
        let back: Vec<(QueueId, bool)> = self
            .leaving
            .extract_if(|_, leaving| leaving.peer == peer)
            .map(|(id, leaving)| (id, leaving.held))
            .collect();
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

    /// Is a command moving it?
    pub(super) fn is_leaving(&self, id: QueueId) -> bool {
        self.leaving.contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qmgr::control::Verb;
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
        world.settle();
        (world, ids)
    }

    #[test]
    fn what_leaves_waits_nowhere_until_it_is_gone() {
        let (mut world, [active, fresh, held]) = world();
        let leave = world.scheduler.leave(7, None, &[], NONE);
        assert_eq!((leave.messages.iter().map(|(id, _)| *id).collect(), leave.busy), (vec![fresh, held], vec![active]));
        for verb in [Verb::Release, Verb::Delete, Verb::Hold, Verb::Expire, Verb::Flush] {
            assert_eq!(world.scheduler.apply(verb, Some(vec![held, fresh]), &[], world.now), [], "{verb:?}");
        }
        assert_eq!(world.scheduler.leave(8, Some(vec![fresh]), &[], NONE).busy, [fresh], "another command has it");
        assert_eq!(world.scheduler.left(8, &[fresh]), []);
        assert_eq!(world.scheduler.left(7, &[fresh, held, active]), [fresh, held]);
        for id in [fresh, held] {
            world.known.get_mut(&id).unwrap().deleted = true;
        }
        world.settle();
        assert!(world.known[&fresh].removed && world.known[&held].removed && !world.known[&active].removed);
    }

    #[test]
    fn a_command_that_dies_leaves_everything_as_it_was() {
        let (mut world, [_, fresh, held]) = world();
        world.scheduler.leave(7, None, &[], NONE);
        world.scheduler.stay(8, world.now);
        assert!(world.scheduler.is_leaving(fresh));
        world.scheduler.stay(7, world.now);
        let place = |id| world.scheduler.catalogue().entry(world.scheduler.catalogue().slot(id).unwrap()).place();
        assert_eq!((place(fresh), place(held)), (Place::Fresh, Place::Held));
        assert_eq!(world.scheduler.left(7, &[fresh]), [], "it is not leaving any more");
    }

    #[test]
    fn queues_and_what_came_before_are_left_out() {
        let (mut world, [active, fresh, held]) = world();
        let ids = |leave: Leave| leave.messages.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(world.scheduler.leave(1, None, &["hold".into()], NONE)), [held]);
        assert_eq!(ids(world.scheduler.leave(1, None, &[], fresh)), [], "the last one is leaving");
        assert_eq!(ids(world.scheduler.leave(1, None, &[], active)), [fresh]);
    }
}
