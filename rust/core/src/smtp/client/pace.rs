//! The time that a server takes for its replies to commands and for its verdicts on messages.

/// A verdict is slow if it takes longer than the replies to commands by this factor.
pub const PACE_RATIO: f64 = 1.5;
/// Times below this do not count: the clock of an event loop is not more precise.
pub const PACE_SLACK_S: f64 = 0.002;
/// The weight of a new time in the smoothed one.
const PACE_WEIGHT: f64 = 0.25;

/// Both times, smoothed, in seconds; `None` before the first reply.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    commands_s: Option<f64>,
    verdict_s: Option<f64>,
}

impl Pace {
    pub(super) fn commands_took(&mut self, time_s: f64) {
        self.commands_s = Some(smoothed(self.commands_s, time_s));
    }

    pub(super) fn verdict_took(&mut self, time_s: f64) {
        self.verdict_s = Some(smoothed(self.verdict_s, time_s));
    }

    /// Return whether verdicts take no longer than replies to commands. The client has waited for `waited_s` now.
    pub(super) fn is_even(&self, waited_s: f64) -> bool {
        let (Some(commands_s), Some(verdict_s)) = (self.commands_s, self.verdict_s) else { return false };
        verdict_s.max(waited_s) <= PACE_RATIO * commands_s + PACE_SLACK_S
    }
}

fn smoothed(before: Option<f64>, time_s: f64) -> f64 {
    before.map_or(time_s, |before| before + (time_s - before) * PACE_WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_even_if_its_verdicts_are_no_slower_than_its_replies() {
        let mut pace = Pace::default();
        assert!(!pace.is_even(0.0));
        pace.commands_took(0.010);
        assert!(!pace.is_even(0.0), "no verdict yet");
        pace.verdict_took(0.016);
        assert!(pace.is_even(0.0), "within ratio and slack");
        assert!(!pace.is_even(0.018), "late with what is awaited");
        pace.verdict_took(0.040);
        assert!(!pace.is_even(0.0), "the last verdict was slow");
        (0..20).for_each(|_| pace.verdict_took(0.010));
        assert!(pace.is_even(0.0), "a slow verdict loses its weight");
    }
}
