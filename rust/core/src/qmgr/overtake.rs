//! Which message overtakes the one whose turn it is (Postfix's preemption).
//!
//! When a message with many deliveries is first in its lane and has slots (`slots.rs`), the best of those behind it goes
//! first: the one that waits longest for each of its deliveries, if it can be through with what the large one earns.
//! It then stands before the large one at each of its destinations, until it is through.
//!
//! Slots ration deliveries, so with them alone a list keeps small mail to one delivery in `cost + 1`, and a busy site's
//! waits for the end of the list; where the list goes to slow or dead hosts, that one comes no faster than they do.
//! So large messages and retries together have half of the places only while small fresh mail waits: what they have more
//! than that goes to the small one that waits longest, for no slots. With `cost` below 2 there is neither.

use super::destination::Bundle;
use super::errand::{Errand, Turn};
use super::message::Stage;
use super::scheduler::Scheduler;
use crate::clock::{Now, SECOND_US};

/// Messages behind the one that is first among which one that may overtake it is looked for.
pub const CANDIDATES_MAX: usize = 100;
/// Bundles that wait at one destination among which one of a small message is looked for.
pub const BEHIND_MAX: usize = 16;
/// A look that found nobody holds for this time, unless something new came.
const LOOK_AGAIN_US: u64 = SECOND_US;

/// A look that found nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Look {
    errand: u64,
    draws: u64,
    pays: bool,
    at_us: u64,
}

/// Which messages may overtake.
#[derive(Debug, Clone, Copy)]
enum Most {
    /// Those that have so many deliveries left, or fewer.
    Deliveries(i64),
    /// Those that nobody may overtake.
    Small,
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
        let unread = self.unread_by(errand);
        let pays = !(errand.slots.is_large(&rules, unread) && self.transports[number].is_filled());
        if pays && !errand.slots.can_pay(&rules, unread) {
            return false;
        }
        let look = Look { errand: serial, draws: self.draws, pays, at_us: now.mono_us };
        let last = self.look;
        if (Look { at_us: look.at_us, ..last }) == look && now.mono_us - last.at_us < LOOK_AGAIN_US {
            return false;
        }
        let most = if pays { Most::Deliveries(errand.slots.most(&rules)) } else { Most::Small };
        let Some((second, needed)) = self.candidate(lane, first, turn, most, now) else {
            self.look = look;
            return false;
        };
        let errand = &self.errands[first];
        let single = needed == 1;
        let Some(place) = errand.next_place(turn, single) else {
            return false;
        };
        if pays && !errand.slots.affords(&rules, needed) {
            return false;
        }
        self.unstack_errand(second);
        let mut slots = self.errands[second].slots;
        let errand = &mut self.errands[first];
        if pays {
            errand.slots.pay(&mut slots, &rules, needed);
        }
        errand.overtaken += u64::from(!single);
        errand.children += 1;
        let errand = &mut self.errands[second];
        errand.slots = slots;
        errand.overtaking = Some(place);
        errand.parent = Some((first, serial));
        errand.pays = pays;
        self.grant(second);
        self.move_bundles(second, now);
        true
    }

    /// What waits at a destination and may overtake rather than others there: the first bundle of a small message, or
    /// the first behind the front that is of another message, or the front. And whether its message is large.
    pub(super) fn may_overtake(&self, destination: u32, lane: usize) -> Option<(&Bundle, bool)> {
        let queue = &self.destinations[destination].lanes[lane];
        let front = queue.front()?;
        let is_small =
            |bundle: &&Bundle| self.errands.is(bundle.errand, bundle.serial) && !self.is_large(bundle.errand);
        let other = |bundle: &&Bundle| (bundle.errand, bundle.serial) != (front.errand, front.serial);
        if let Some(small) = queue.iter().take(BEHIND_MAX).find(is_small) {
            return Some((small, false));
        }
        Some((queue.iter().take(BEHIND_MAX).find(other).unwrap_or(front), true))
    }

    fn unread_by(&self, errand: &Errand) -> u64 {
        let message = &self.active[errand.message];
        message.unread(self.catalogue.entry(message.slot).recipients())
    }

    /// Has an errand so many deliveries that others may overtake it?
    pub(super) fn is_large(&self, key: u32) -> bool {
        let errand = &self.errands[key];
        let rules = &self.transports[errand.transport as usize].settings.slots;
        errand.slots.is_large(rules, self.unread_by(errand))
    }

    /// The errand that is to overtake `first`, and the deliveries that it has left.
    fn candidate(&self, lane: usize, first: u32, turn: Turn, most: Most, now: Now) -> Option<(u32, u64)> {
        if matches!(most, Most::Deliveries(..=0)) {
            return None;
        }
        let mut best: Option<(f64, u32, u64)> = None;
        // In the order of arrival, not of rounds: rounds hardly go on during a long list, and a destination that is new
        // in each would have its mail wait for the end of it.
        let lane_of = &self.transports[self.errands[first].transport as usize].lanes[lane];
        let kinds = if matches!(most, Most::Small) { 1 } else { 2 };
        for line in &lane_of.by_draw[..kinds] {
            let mut next = 0;
            for _ in 0..CANDIDATES_MAX {
                // One look at each errand, however many destinations it has.
                let Some((draw, key)) = line.first_from((next, 0)) else {
                    break;
                };
                next = draw + 1;
                if draw == turn.draw {
                    continue;
                }
                let Some((bundle, _)) = self.may_overtake(key, lane) else {
                    continue;
                };
                let waited =
                    self.errands.same(bundle.errand, bundle.serial).map_or(0.0, |errand| waited_s(errand, now));
                // Those behind it came later: with a single delivery each they would not be better.
                if best.is_some_and(|(score, _, _)| waited <= score) {
                    break;
                }
                self.consider(&mut best, first, (bundle.errand, bundle.serial), most, now);
            }
        }
        best.map(|(_, errand, needed)| (errand, needed))
    }

    fn consider(&self, best: &mut Option<(f64, u32, u64)>, first: u32, other: (u32, u64), most: Most, now: Now) {
        let Some(errand) = self.errands.same(other.0, other.1).filter(|errand| errand.children == 0) else {
            return;
        };
        let needed = errand.slots.left(self.unread_by(errand));
        let fits = match most {
            Most::Deliveries(most) => needed as i64 <= most,
            Most::Small => !self.is_large(other.0),
        };
        if other.0 == first || needed == 0 || !fits {
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
            if parent.children == 0 {
                parent.overtaken = 0;
            }
            if errand.pays {
                parent.slots.settle(&errand.slots, &transport.settings.slots);
            }
        }
        let granted = std::mem::take(&mut errand.granted);
        transport.granted -= granted;
        if let Some(message) = self.active.get_mut(errand.message) {
            message.memory_limit -= granted as usize;
        }
    }

    fn unstack_errand(&mut self, key: u32) {
        let mut taken = Errand { ..self.errands[key] };
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
