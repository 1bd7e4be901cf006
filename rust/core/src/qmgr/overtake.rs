//! Which message overtakes the one whose turn it is (Postfix's preemption).
//!
//! When a message with many deliveries is first in its lane and has slots (`slots.rs`), the best of those behind it goes
//! first: the one that waits longest for each of its deliveries, if it can be through with what the large one earns.
//! It then stands before the large one at each of its destinations, until it is through.

use super::clock::{Now, SECOND_US};
use super::errand::{Errand, Turn};
use super::message::Stage;
use super::scheduler::Scheduler;

/// Messages behind the one that is first among which one that may overtake it is looked for.
pub const CANDIDATES_MAX: usize = 100;
/// Destinations of the first message itself at which others wait, that are looked at.
pub const FOLLOWED_MAX: usize = 16;
/// A look that found nobody holds for this time, unless something new came.
const LOOK_AGAIN_US: u64 = SECOND_US;

/// A look that found nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Look {
    errand: u64,
    draws: u64,
    at_us: u64,
}

impl Scheduler {
    /// If another message is to overtake the one that is first at `destination`, put it there. Says whether there is one.
    pub(super) fn overtake(&mut self, lane: usize, destination: u32, turn: Turn, now: Now) -> bool {
        let number = self.destinations[destination].transport as usize;
        let rules = self.transports[number].settings.slots;
        let Some(bundle) = self.destinations[destination].lanes[lane].front() else {
            return false;
        };
        let (first, serial) = (bundle.errand, bundle.serial);
        let Some(errand) = self.errands.same(first, serial) else {
            return false;
        };
        if !errand.slots.can_pay(&rules, self.unread_by(errand)) {
            return false;
        }
        let look = Look { errand: serial, draws: self.draws, at_us: now.mono_us };
        let last = self.look;
        if (last.errand, last.draws) == (look.errand, look.draws) && now.mono_us - last.at_us < LOOK_AGAIN_US {
            return false;
        }
        let most = errand.slots.most(&rules);
        let Some(place) = errand.next_place(turn) else {
            return false;
        };
        let Some((second, needed)) = self.candidate(lane, first, turn, most, now) else {
            self.look = look;
            return false;
        };
        if !self.errands[first].slots.affords(&rules, needed) {
            return false;
        }
        self.unstack_errand(second);
        let mut slots = self.errands[second].slots;
        let errand = &mut self.errands[first];
        errand.slots.pay(&mut slots, &rules, needed);
        errand.overtaken += 1;
        errand.children += 1;
        let errand = &mut self.errands[second];
        errand.slots = slots;
        errand.overtaking = Some(place);
        errand.parent = Some((first, serial));
        self.grant(second);
        self.move_bundles(second, now);
        true
    }

    fn unread_by(&self, errand: &Errand) -> u64 {
        let message = &self.active[errand.message];
        message.unread(self.catalogue.entry(message.slot).recipients())
    }

    /// The errand that is to overtake `first`, and the deliveries that it has left: at most `most`.
    fn candidate(&mut self, lane: usize, first: u32, turn: Turn, most: i64, now: Now) -> Option<(u32, u64)> {
        if most <= 0 {
            return None;
        }
        let serial = self.errands.serial(first);
        let mut best: Option<(f64, u32, u64)> = None;
        let mut followed = std::mem::take(&mut self.errands[first].followed);
        for _ in 0..followed.len().min(FOLLOWED_MAX) {
            let Some(key) = followed.pop_front() else {
                break;
            };
            let Some(destination) = self.destinations.get_mut(key) else {
                continue;
            };
            let queue = &destination.lanes[lane];
            if queue.len() < 2 || queue[0].errand != first || queue[0].serial != serial {
                if destination.follows[lane] == serial {
                    destination.follows[lane] = 0;
                }
                continue;
            }
            let behind = (queue[1].errand, queue[1].serial);
            let has_room = destination.has_room(now.mono_us);
            followed.push_back(key);
            if has_room {
                self.consider(&mut best, first, behind, most, now);
            }
        }
        self.errands[first].followed = followed;
        let line = &self.transports[self.errands[first].transport as usize].lanes[lane].line;
        let mut after = turn;
        for _ in 0..CANDIDATES_MAX {
            // One look at each errand, however many destinations it has.
            let Some((turn, key)) = line.range((Turn { served: u32::MAX, ..after }, u32::MAX)..).next() else {
                break;
            };
            after = *turn;
            let Some(bundle) = self.destinations[*key].lanes[lane].front() else {
                continue;
            };
            let waited = self.errands.same(bundle.errand, bundle.serial).map_or(0.0, |errand| waited_s(errand, now));
            // Those behind it came later: with a single delivery each they would not be better.
            if best.is_some_and(|(score, _, _)| waited <= score) {
                break;
            }
            self.consider(&mut best, first, (bundle.errand, bundle.serial), most, now);
        }
        best.map(|(_, errand, needed)| (errand, needed))
    }

    fn consider(&self, best: &mut Option<(f64, u32, u64)>, first: u32, other: (u32, u64), most: i64, now: Now) {
        let Some(errand) = self.errands.same(other.0, other.1).filter(|errand| errand.children == 0) else {
            return;
        };
        let needed = errand.slots.left(self.unread_by(errand));
        if other.0 == first || needed == 0 || needed as i64 > most {
            return;
        }
        let score = waited_s(errand, now) / needed as f64;
        if best.is_none_or(|(of_best, _, _)| score > of_best) {
            *best = Some((score, other.0, needed));
        }
    }

    /// An errand that overtook another is through, or overtakes a third: the second has its slots back.
    pub(super) fn unstack(&mut self, errand: &mut Errand) {
        let transport = &mut self.transports[errand.transport as usize];
        if let Some((parent, serial)) = errand.parent.take()
            && let Some(parent) = self.errands.same_mut(parent, serial)
        {
            parent.children -= 1;
            parent.slots.settle(&errand.slots, &transport.settings.slots);
        }
        let granted = std::mem::take(&mut errand.granted);
        transport.granted -= granted;
        if let Some(message) = self.active.get_mut(errand.message) {
            message.memory_limit -= granted as usize;
        }
    }

    fn unstack_errand(&mut self, key: u32) {
        let errand = &mut self.errands[key];
        let mut taken = Errand { followed: std::mem::take(&mut errand.followed), ..*errand };
        errand.granted = 0;
        self.unstack(&mut taken);
        self.errands[key] = taken;
    }

    /// A message that overtakes and has recipients on disk may have half of what is left of the extra pool in memory.
    fn grant(&mut self, key: u32) {
        if self.unread_by(&self.errands[key]) == 0 {
            return;
        }
        let errand = &mut self.errands[key];
        let transport = &mut self.transports[errand.transport as usize];
        let granted = transport.settings.refill.extra_limit.saturating_sub(transport.granted).div_ceil(2);
        transport.granted += granted;
        errand.granted = granted;
        self.active[errand.message].memory_limit += granted as usize;
    }

    /// The bundles of an errand stand at its new place.
    fn move_bundles(&mut self, key: u32, now: Now) {
        let (errand, serial) = (&self.errands[key], self.errands.serial(key));
        let (lane, transport) = (errand.lane, errand.transport);
        let waiting = self.active[errand.message].targets.iter().filter(|target| target.stage == Stage::Waiting);
        let mut destinations: Vec<u32> = waiting.map(|target| target.destination).collect();
        destinations.sort_unstable();
        destinations.dedup();
        destinations.retain(|at| self.destinations[*at].transport == transport);
        for at in destinations {
            for mut bundle in self.destinations[at].take_errand(lane, key, serial) {
                bundle.turn = self.errands[key].turn(bundle.turn.round, bundle.turn.served);
                self.destinations[at].insert(lane, bundle);
            }
            self.stand(at, now);
        }
    }
}

/// How long an errand waits, as Postfix counts it.
fn waited_s(errand: &Errand, now: Now) -> f64 {
    now.mono_us.saturating_sub(errand.since_us) as f64 / SECOND_US as f64 + 1.0
}
