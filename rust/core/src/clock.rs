//! The time. State machines get it handed in; `wall_now_us` is for those that own what they do, and for their drivers.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds in a second.
pub const SECOND_US: u64 = 1_000_000;

/// One moment on both clocks.
///
/// Waiting goes by the monotonic clock, so that a step of the wall clock neither floods nor stalls the queue; ages and
/// what is written to disk go by the wall clock, for they outlive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Microseconds of the monotonic clock.
    pub mono_us: u64,
    /// Microseconds since 1970.
    pub wall_us: u64,
}

impl Now {
    /// From seconds as Python has them; negative ones and such as are no number count as 0.
    pub fn from_seconds(mono_s: f64, wall_s: f64) -> Self {
        // `as` saturates and turns NaN into 0.
        Self { mono_us: (mono_s * 1e6) as u64, wall_us: (wall_s * 1e6) as u64 }
    }

    /// How long ago `wall_us` was; 0 for a moment that is still to come.
    pub fn age_us(self, wall_us: u64) -> u64 {
        self.wall_us.saturating_sub(wall_us)
    }

    /// What the wall clock, if nobody turns it, shows at that monotonic moment, which may be past.
    pub fn wall_of_mono(self, mono_us: u64) -> u64 {
        (self.wall_us + mono_us.saturating_sub(self.mono_us)).saturating_sub(self.mono_us.saturating_sub(mono_us))
    }

    /// The monotonic moment at which the wall clock, if nobody turns it, shows `wall_us`; at once if it is past.
    pub fn mono_of_wall(self, wall_us: u64) -> u64 {
        self.mono_us + wall_us.saturating_sub(self.wall_us)
    }
}

/// Microseconds since 1970; 0 on a clock that was never set.
pub fn wall_now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}
