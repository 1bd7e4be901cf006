//! Faults: how a sink treats the mail of a domain.

use std::str::FromStr;
use std::time::Duration;

/// The command that a fault affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// RCPT.
    Rcpt,
    /// The end of the content.
    Dot,
}

/// The action of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Reply with this code.
    Refuse(u16),
    /// Reply after this time.
    Wait(Duration),
    /// Close the connection.
    HangUp,
}

/// One rule: `domain=action[@rcpt|@dot][*share]`, where the action is a code (`450`, `550`), a time (`2s`, `150ms`) or
/// `disconnect`, and `share` is the part (0 to 1) of the domain's mail that meets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The domain in lower case; `*` is any.
    pub domain: Box<str>,
    /// The action.
    pub action: Action,
    /// The command.
    pub when: When,
    /// Share of the domain's mail, from 0 to 1.
    pub share: f64,
}

/// The error for a text that is not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {why}; write domain=CODE, domain=2s or domain=disconnect, then @rcpt or @dot, then *SHARE")]
pub struct NotFault {
    text: Box<str>,
    why: &'static str,
}

impl FromStr for Fault {
    type Err = NotFault;

    fn from_str(text: &str) -> Result<Self, NotFault> {
        let wrong = |why| NotFault { text: text.into(), why };
        let (domain, rule) = text.split_once('=').ok_or_else(|| wrong("no = behind the domain"))?;
        let (rule, share) = match rule.split_once('*') {
            None => (rule, 1.0),
            Some((rule, share)) => (rule, share.parse().map_err(|_| wrong("the share is no number"))?),
        };
        if domain.is_empty() {
            return Err(wrong("no domain"));
        }
        if !(0.0..=1.0).contains(&share) {
            return Err(wrong("the share is not between 0 and 1"));
        }
        let (action, when) = match rule.split_once('@') {
            None => (rule, When::Rcpt),
            Some((action, "rcpt")) => (action, When::Rcpt),
            Some((action, "dot")) => (action, When::Dot),
            Some(_) => return Err(wrong("neither @rcpt nor @dot")),
        };
        let action = if action == "disconnect" {
            Action::HangUp
        } else if let Some(number) = action.strip_suffix("ms") {
            Action::Wait(Duration::from_millis(number.parse().map_err(|_| wrong("the time is no number"))?))
        } else if let Some(number) = action.strip_suffix('s') {
            let seconds = number.parse().map_err(|_| wrong("the time is no number"))?;
            Action::Wait(Duration::try_from_secs_f64(seconds).map_err(|_| wrong("the time is out of range"))?)
        } else {
            let code = action.parse().ok().filter(|code| (400..600).contains(code));
            Action::Refuse(code.ok_or_else(|| wrong("neither a code of 400 to 599, a time nor disconnect"))?)
        };
        Ok(Self { domain: domain.to_ascii_lowercase().into(), action, when, share })
    }
}

/// A generator of random numbers that are the same in each run.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Return the generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Return true in `share` of all calls (xorshift64*).
    pub fn fall(&mut self, share: f64) -> bool {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let throw = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        (throw as f64) < share * (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let rule = |domain: &str, action, when, share| Fault { domain: domain.into(), action, when, share };
        for (text, expected) in [
            ("A.example=550", rule("a.example", Action::Refuse(550), When::Rcpt, 1.0)),
            ("*=450@dot*0.5", rule("*", Action::Refuse(450), When::Dot, 0.5)),
            ("slow=2s", rule("slow", Action::Wait(Duration::from_secs(2)), When::Rcpt, 1.0)),
            ("slow=150ms@dot", rule("slow", Action::Wait(Duration::from_millis(150)), When::Dot, 1.0)),
            ("b=disconnect@rcpt*.1", rule("b", Action::HangUp, When::Rcpt, 0.1)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in
            ["", "a", "=450", "a=", "a=250", "a=600", "a=450@x", "a=450*2", "a=450*x", "a=xs", "a=-1s", "a=450@"]
        {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }

    #[test]
    fn random_numbers_have_the_given_share() {
        let mut dice = Dice::new(1);
        let often = (0..10_000).filter(|_| dice.fall(0.3)).count();
        assert!((2800..3200).contains(&often), "{often}");
        assert!((0..100).all(|_| dice.fall(1.0)) && !(0..100).any(|_| dice.fall(0.0)));
    }
}
