//! The times in `delay=` and `delays=` of a delivery's log line (postconf(5), delay_logging_resolution_limit).
//!
//! A time has two significant digits: `0.0034`, `0.21`, `3.4`, `17`, `3600`. Digits below the resolution and trailing
//! zeros are left out.

use std::fmt;

/// Digits that count in a time below 100 seconds.
const SIGNIFICANT_DIGITS: u32 = 2;
/// The highest value of delay_logging_resolution_limit: microseconds.
pub const RESOLUTION_DIGITS_MAX: u32 = 6;
const SECOND_US: u64 = 1_000_000;

/// A length of time, to be shown with two significant digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// Microseconds.
    pub us: u64,
    /// Digits behind the decimal point at most, 0..=6.
    pub resolution_digits: u32,
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.resolution_digits.min(RESOLUTION_DIGITS_MAX);
        let seconds = self.us / SECOND_US;
        let fraction = self.us % SECOND_US;
        let ten = |power: u32| 10u64.pow(power);
        let mut step = SECOND_US / ten(digits);
        if digits > 0 && seconds > 0 {
            // One digit of the whole seconds takes the place of one behind the point.
            let whole_digits = seconds.ilog10() + 1;
            step = SECOND_US / ten(SIGNIFICANT_DIGITS.saturating_sub(whole_digits));
        } else if digits > 0 {
            while fraction >= step * ten(SIGNIFICANT_DIGITS) {
                step *= 10;
            }
        }
        // Microseconds are exact. Anything coarser is rounded to the nearest step.
        let rounded = if step > 1 { self.us + step / 2 } else { self.us };
        let (seconds, fraction) = (rounded / SECOND_US, rounded % SECOND_US);
        write!(f, "{seconds}")?;
        let kept = fraction / step * step;
        if kept == 0 {
            return Ok(());
        }
        let (mut value, mut width) = (kept, RESOLUTION_DIGITS_MAX as usize);
        while value % 10 == 0 {
            value /= 10;
            width -= 1;
        }
        write!(f, ".{value:0width$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_significant_digits() {
        for (us, text) in [
            (0, "0"),
            (1, "0.000001"),
            (99, "0.000099"),
            (100, "0.0001"),
            (104, "0.0001"),
            (105, "0.00011"),
            (3_449, "0.0034"),
            (99_400, "0.099"),
            (99_900, "0.1"),
            (123_000, "0.12"),
            (999_000, "1"),
            (1_000_000, "1"),
            (1_040_000, "1"),
            (1_060_000, "1.1"),
            (9_960_000, "10"),
            (10_400_000, "10"),
            (10_500_000, "11"),
            (123_456_789, "123"),
            (86_400_600_000, "86401"),
        ] {
            assert_eq!(Delay { us, resolution_digits: 6 }.to_string(), text, "{us} us");
        }
    }

    #[test]
    fn the_resolution_limits_the_digits() {
        for (us, resolution_digits, text) in [
            (3_449, 2, "0"),
            (5_100, 2, "0.01"),
            (123_456, 1, "0.1"),
            (499_999, 0, "0"),
            (500_000, 0, "1"),
            (1_499_999, 0, "1"),
        ] {
            assert_eq!(Delay { us, resolution_digits }.to_string(), text, "{us} us, {resolution_digits} digits");
        }
    }
}
