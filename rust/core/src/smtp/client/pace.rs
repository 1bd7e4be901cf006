//! How long a server takes: for its replies to commands, and for its verdicts on messages.

/// A verdict that takes so much longer than the replies to the commands is slow.
pub const PACE_RATIO: f64 = 1.5;
/// What is taken for no time at all: the clock of an event loop stands still for about as long.
pub const PACE_SLACK_S: f64 = 0.002;
/// What a new time counts beside those before it.
const PACE_WEIGHT: f64 = 0.25;

/// Both, smoothed; `None` until it has answered once. Seconds.
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

    /// Do verdicts take no longer than replies to commands, what is awaited for `waited_s` included?
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
    fn a_server_is_even_once_both_are_known_and_its_verdicts_are_no_slower() {
        let mut pace = Pace::default();
        assert!(!pace.is_even(0.0));
        pace.commands_took(0.010);
        assert!(!pace.is_even(0.0), "no verdict yet");
        pace.verdict_took(0.016);
        assert!(pace.is_even(0.0), "within ratio and slack");
        assert!(!pace.is_even(0.018), "late with what is awaited");
        pace.verdict_took(0.040);
        assert!(!pace.is_even(0.0), "slower of late");
        (0..20).for_each(|_| pace.verdict_took(0.010));
        assert!(pace.is_even(0.0), "it is forgotten in time");
    }
}
