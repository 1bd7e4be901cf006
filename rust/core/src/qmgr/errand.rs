//! An errand: what one transport has to do for one message (Postfix's "job").
//!
//! It has a bundle of recipients at each destination, and all of them stand at its place in the transport's order. A
//! delivery is what one agent is asked at a time: up to `*_destination_recipient_limit` recipients of a bundle.

use super::slots::Slots;

/// Errands that may overtake one another in a row: each is a fifth of the one before, or less.
pub const OVERTAKING_DEPTH_MAX: u32 = 4;
/// A place among those that overtake one errand takes so many bits.
const PATH_BITS: u32 = 64 / OVERTAKING_DEPTH_MAX;

/// A place in the order of a transport: what has the least is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// A destination has one new bundle in each round, so that those with many messages leave room to the others.
    pub round: u64,
    /// In one round, messages go in the order in which they came.
    pub draw: u64,
    /// Those that overtake a message stand at its draw, before it.
    pub path: u64,
    /// The bundles of one errand take turns.
    pub served: u32,
}

/// What one transport has to do for one message.
#[derive(Debug)]
pub struct Errand {
    /// The message's key among the active ones; it outlives its errands.
    pub message: u32,
    /// The transport.
    pub transport: u32,
    /// 0 of fresh mail, 1 of retries.
    pub lane: usize,
    /// When it began (monotonic).
    pub since_us: u64,
    /// Its number in the order of arrival.
    pub draw: u64,
    /// Its place if it overtakes: that of the errand behind it.
    pub overtaking: Option<Place>,
    /// The errand that it overtook (key and serial).
    pub parent: Option<(u32, u64)>,
    /// It overtook for slots, not for the places that large messages leave to the others.
    pub pays: bool,
    /// Errands that overtook it, and took a place for some time, since it was not overtaken by any.
    pub overtaken: u64,
    /// Those of them that still go on.
    pub children: u32,
    /// Its bundles that wait.
    pub bundles: u32,
    /// What it has earned and spent.
    pub slots: Slots,
    /// Recipients that its message may have in memory while it overtakes.
    pub granted: u32,
}

/// Round, draw and path of an errand that overtakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// See `Turn`.
    pub round: u64,
    /// See `Turn`.
    pub draw: u64,
    /// See `Turn`.
    pub path: u64,
    /// How many it overtakes, one before the other.
    pub depth: u32,
}

impl Errand {
    /// A message begins to wait for deliveries by a transport, in this lane; `draw`: what came before has a lower one.
    pub fn new(message: u32, transport: u32, lane: usize, since_us: u64, draw: u64) -> Self {
        Self {
            message,
            transport,
            lane,
            since_us,
            draw,
            overtaking: None,
            parent: None,
            pays: false,
            overtaken: 0,
            children: 0,
            bundles: 0,
            slots: Slots::default(),
            granted: 0,
        }
    }

    /// The place of the next one that overtakes its bundle at `turn`; `None` when there are no more places.
    ///
    /// Those with a single delivery are through at once: they all have one place, the last.
    pub fn next_place(&self, turn: Turn, single: bool) -> Option<Place> {
        let depth = self.overtaking.map_or(0, |place| place.depth);
        let places = 1 << PATH_BITS;
        if depth >= OVERTAKING_DEPTH_MAX || !single && self.overtaken + 3 >= places {
            return None;
        }
        // The path's low bits are all ones below its own depth: those before it have less there.
        let shift = 64 - PATH_BITS * (depth + 1);
        let nth = if single { places - 3 } else { self.overtaken };
        let below = (places - 1 - nth - 1) << shift;
        let path = turn.path - below;
        Some(Place { round: turn.round, draw: turn.draw, path, depth: depth + 1 })
    }

    /// The turn of a bundle of its own round.
    pub fn turn(&self, round: u64, served: u32) -> Turn {
        match self.overtaking {
            Some(Place { round, draw, path, .. }) => Turn { round, draw, path, served },
            None => Turn { round, draw: self.draw, path: u64::MAX, served },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand(overtaking: Option<Place>) -> Errand {
        Errand { overtaking, ..Errand::new(0, 0, 0, 0, 7) }
    }

    #[test]
    fn those_that_overtake_stand_before_it_one_after_the_other_and_so_on() {
        let mut list = errand(None);
        let turn = list.turn(3, 40);
        let mut before = Turn { round: 3, draw: 6, path: u64::MAX, served: 0 };
        for nth in 0..60_000 {
            let mut second = errand(list.next_place(turn, false));
            list.overtaken += 1;
            let place = second.turn(9, 0);
            assert!(before < place && place < turn, "the {nth}th");
            if nth % 10_000 == 0 {
                let mut deepest = place;
                while let Some(place) = second.next_place(deepest, false) {
                    let third = errand(Some(place)).turn(9, 0);
                    assert!(before < third && third < deepest);
                    deepest = third;
                    second = errand(Some(place));
                }
            }
            before = place;
        }
        list.overtaken = 65_532;
        before = errand(list.next_place(turn, false)).turn(9, 0);
        list.overtaken = 65_533;
        assert_eq!(list.next_place(turn, false), None);
        let single = errand(list.next_place(turn, true)).turn(9, 0);
        assert!(before < single && single < turn);
    }
}
