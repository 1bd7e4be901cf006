//! How a concurrency window opens and closes (Postfix, SCHEDULER_README: concurrency scheduler).
//!
//! A success adds `g(window)` to the positive credit, a failure subtracts `f(window)` from the negative credit. A
//! whole unit moves the window by one, rounded to the nearest so that sums of `1/N` do not fall short. One window of
//! failures in a row (a pseudo-cohort) makes a destination dead.

use crate::settings;
use crate::settings::{Source, Value};
use std::str::FromStr;

/// Feedback as a function of the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Feedback {
    /// Independent of the window: `1`, `1/8`, `0.5`.
    Constant(f64),
    /// `x/concurrency`
    Inverse(f64),
    /// `x/sqrt_concurrency`
    InverseRoot(f64),
}

/// The error for a text that is not a feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFeedback;

impl std::fmt::Display for NotFeedback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("give a number from 0 to 1, a fraction, number/concurrency or number/sqrt_concurrency")
    }
}

impl std::error::Error for NotFeedback {}

impl Feedback {
    /// Return the feedback at this window; a window below 1 counts as 1.
    pub fn at(self, window: u32) -> f64 {
        let window = f64::from(window.max(1));
        match self {
            Self::Constant(x) => x,
            Self::Inverse(x) => x / window,
            Self::InverseRoot(x) => x / window.sqrt(),
        }
    }
}

impl FromStr for Feedback {
    type Err = NotFeedback;

    fn from_str(text: &str) -> Result<Self, NotFeedback> {
        let number = |text: &str| {
            let value: f64 = text.trim().parse().map_err(|_| NotFeedback)?;
            if value.is_finite() && value >= 0.0 { Ok(value) } else { Err(NotFeedback) }
        };
        let feedback = match text.split_once('/') {
            None => Self::Constant(number(text)?),
            Some((x, below)) => match below.trim() {
                "concurrency" => Self::Inverse(number(x)?),
                "sqrt_concurrency" => Self::InverseRoot(number(x)?),
                below => match number(below)? {
                    0.0 => return Err(NotFeedback),
                    below => Self::Constant(number(x)? / below),
                },
            },
        };
        if (0.0..=1.0).contains(&feedback.at(1)) { Ok(feedback) } else { Err(NotFeedback) }
    }
}

impl Value for Feedback {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let text = source.text(name)?;
        text.parse().map_err(|problem: NotFeedback| source.bad(name, &text, &problem.to_string()))
    }
}

settings! {
    /// The maximum number of deliveries under way to a destination.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub struct WindowRules {
        /// Window of a new destination.
        initial: u32 = "_initial_destination_concurrency",
        /// Maximum window; 0: no limit.
        limit: u32 = "_destination_concurrency_limit",
        positive: Feedback = "_destination_concurrency_positive_feedback",
        negative: Feedback = "_destination_concurrency_negative_feedback",
        /// Failed pseudo-cohorts that make a destination dead; 0: never.
        failed_cohort_limit: f64 = count "_destination_concurrency_failed_cohort_limit",
    }
}

fn count<S: Source>(source: &S, name: &str) -> Result<f64, S::Error> {
    Ok(source.number(name)? as f64)
}

impl WindowRules {
    fn cap(&self, window: u32) -> u32 {
        if self.limit == 0 { window } else { window.min(self.limit) }
    }
}

/// Maximum number of concurrent deliveries to a destination. Feedback changes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    size: u32,
    success: f64,
    failure: f64,
    failed_cohorts: f64,
}

impl Window {
    /// Return the window of a new destination.
    pub fn new(rules: &WindowRules) -> Self {
        Self { size: rules.cap(rules.initial.max(1)), success: 0.0, failure: 0.0, failed_cohorts: 0.0 }
    }

    /// Return the maximum number of deliveries under way.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Count a delivery without a failure of the destination. `busy`: deliveries under way, this one included.
    ///
    /// The window opens only as far as it is used: a destination with three deliveries an hour keeps its initial
    /// window.
    pub fn succeeded(&mut self, busy: u32, rules: &WindowRules) {
        self.failed_cohorts = 0.0;
        if self.size >= busy.saturating_add(rules.initial) || (rules.limit > 0 && self.size >= rules.limit) {
            return;
        }
        let feedback = rules.positive.at(self.size);
        self.success += feedback;
        while self.success + feedback / 2.0 >= 1.0 {
            self.size = rules.cap(self.size + 1);
            self.success -= 1.0;
            self.failure = 0.0;
        }
    }

    /// Count a failure of the destination. Return whether it is dead now.
    pub fn failed(&mut self, rules: &WindowRules) -> bool {
        self.failed_cohorts += 1.0 / f64::from(self.size.max(1));
        if rules.failed_cohort_limit > 0.0 && self.failed_cohorts >= rules.failed_cohort_limit - 1e-9 {
            return true;
        }
        let feedback = rules.negative.at(self.size);
        self.failure -= feedback;
        while self.size > 1 && self.failure - feedback / 2.0 < 0.0 {
            self.size -= 1;
            self.failure += 1.0;
            self.success = 0.0;
        }
        false
    }

    /// Reset the window: to the deliveries under way, or to the initial window.
    pub fn revived(&mut self, busy: u32, rules: &WindowRules) {
        *self = Self { size: if busy > 0 { rules.cap(busy) } else { Self::new(rules).size }, ..Self::new(rules) };
    }

    /// Apply changed rules.
    pub fn limited(&mut self, rules: &WindowRules) {
        self.size = rules.cap(self.size).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_has_the_syntax_of_postfix() {
        for (text, at_4) in [
            ("1", 1.0),
            ("0", 0.0),
            ("1/8", 0.125),
            ("0.5", 0.5),
            ("1/concurrency", 0.25),
            ("1 / sqrt_concurrency", 0.5),
            (".5/concurrency", 0.125),
        ] {
            assert_eq!(text.parse::<Feedback>().unwrap().at(4), at_4, "{text}");
        }
        for text in ["", "x", "2", "-1", "1/0", "1/", "/8", "nan", "inf", "1/concurrent", "3/2"] {
            assert_eq!(text.parse::<Feedback>(), Err(NotFeedback), "{text}");
        }
    }

    #[test]
    fn a_window_opens_by_one_per_success_up_to_its_limit() {
        let rules = WindowRules::default();
        let mut window = Window::new(&rules);
        for expected in [6, 7, 8, 9, 10] {
            window.succeeded(window.size(), &rules);
            assert_eq!(window.size(), expected);
        }
        for _ in 0..100 {
            window.succeeded(window.size(), &rules);
        }
        assert_eq!(window.size(), 20);
    }

    #[test]
    fn a_window_does_not_open_further_than_it_is_used() {
        let rules = WindowRules::default();
        let mut window = Window::new(&rules);
        for _ in 0..100 {
            window.succeeded(1, &rules);
        }
        assert_eq!(window.size(), 6);
    }

    #[test]
    fn one_cohort_of_failures_is_fatal_and_a_success_resets_it() {
        let rules = WindowRules { negative: Feedback::Constant(0.0), ..WindowRules::default() };
        let mut window = Window::new(&rules);
        let verdicts: Vec<bool> = (0..5).map(|_| window.failed(&rules)).collect();
        assert_eq!(verdicts, [false, false, false, false, true]);
        let mut window = Window::new(&rules);
        for _ in 0..20 {
            assert!(!window.failed(&rules));
            window.succeeded(5, &rules);
        }
        let never = WindowRules { failed_cohort_limit: 0.0, ..WindowRules::default() };
        let mut window = Window::new(&never);
        assert!((0..1000).all(|_| !window.failed(&never)));
        assert_eq!(window.size(), 1);
    }
}
