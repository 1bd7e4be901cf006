//! The time. State machines receive it as an argument; their drivers call `wall_now_us`.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds in a second.
pub const SECOND_US: u64 = 1_000_000;

/// One moment on both clocks.
///
/// Timers use the monotonic clock, so that a step of the wall clock neither floods nor stalls the queue; ages and times
/// on disk use the wall clock, because they outlive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Microseconds of the monotonic clock.
    pub mono_us: u64,
    /// Microseconds since 1970.
    pub wall_us: u64,
}

impl Now {
    /// Convert seconds from Python; negative numbers and NaN count as 0.
    pub fn from_seconds(mono_s: f64, wall_s: f64) -> Self {
        // `as` saturates and turns NaN into 0.
        Self { mono_us: (mono_s * 1e6) as u64, wall_us: (wall_s * 1e6) as u64 }
    }

    /// Return how long ago `wall_us` was; 0 for a future time.
    pub fn age_us(self, wall_us: u64) -> u64 {
        self.wall_us.saturating_sub(wall_us)
    }

    /// Return the wall clock's time at a monotonic time, which may be past, if the wall clock is not stepped.
    pub fn wall_of_mono(self, mono_us: u64) -> u64 {
        (self.wall_us + mono_us.saturating_sub(self.mono_us)).saturating_sub(self.mono_us.saturating_sub(mono_us))
    }

    /// Return the monotonic time at which the wall clock shows `wall_us`, if it is not stepped; now for a past time.
    pub fn mono_of_wall(self, wall_us: u64) -> u64 {
        self.mono_us + wall_us.saturating_sub(self.wall_us)
    }
}

/// Return microseconds since 1970; 0 on a clock that was never set.
pub fn wall_now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}
