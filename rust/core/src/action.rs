//! The actions of header_checks(5): a table's value for a line of a message.
//!
//! The first word is the action, in any case; the rest is its text. A bad action is a warning, and the line stays
//! unchanged. The warnings are Postfix's.

/// The part of a message that a line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// A logical header.
    Header,
    /// A line of a body, or a piece of a long one.
    Body,
}

impl Section {
    /// Return the word of log lines.
    pub fn word(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Body => "body",
        }
    }
}

/// The kind of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Add the recipient of the text.
    Bcc,
    /// Accept the message and drop it.
    Discard,
    /// Leave the line as it is: `DUNNO`, or `OK`.
    Dunno,
    /// Send the message through the transport and destination of the text.
    Filter,
    /// Put the message on hold.
    Hold,
    /// Delete the line.
    Ignore,
    /// Log the line.
    Info,
    /// Check no further line.
    Pass,
    /// Write the text before the line.
    Prepend,
    /// Send the message to the address of the text instead of its recipients.
    Redirect,
    /// Refuse the message.
    Reject,
    /// Write the text in place of the line.
    Replace,
    /// Delete the line, and log it.
    Strip,
    /// Log the line as a warning.
    Warn,
}

const VERBS: [(&str, Verb); 15] = [
    ("BCC", Verb::Bcc),
    ("DISCARD", Verb::Discard),
    ("DUNNO", Verb::Dunno),
    ("FILTER", Verb::Filter),
    ("HOLD", Verb::Hold),
    ("IGNORE", Verb::Ignore),
    ("INFO", Verb::Info),
    ("OK", Verb::Dunno),
    ("PASS", Verb::Pass),
    ("PREPEND", Verb::Prepend),
    ("REDIRECT", Verb::Redirect),
    ("REJECT", Verb::Reject),
    ("REPLACE", Verb::Replace),
    ("STRIP", Verb::Strip),
    ("WARN", Verb::Warn),
];

impl Verb {
    /// Return the action with this name, in any case.
    pub fn of(name: &[u8]) -> Option<Self> {
        VERBS.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, verb)| *verb)
    }

    /// Return the word of the action's log line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bcc => "bcc",
            Self::Discard => "discard",
            Self::Dunno => "dunno",
            Self::Filter => "filter",
            Self::Hold => "hold",
            Self::Ignore => "ignore",
            Self::Info => "info",
            Self::Pass => "pass",
            Self::Prepend => "prepend",
            Self::Redirect => "redirect",
            Self::Reject => "reject",
            Self::Replace => "replace",
            Self::Strip => "strip",
            Self::Warn => "warning",
        }
    }

    /// Whether it acts on one line only: smtp(8) knows no other action.
    pub fn is_of_line(self) -> bool {
        use Verb::{Dunno, Ignore, Info, Prepend, Replace, Strip, Warn};
        matches!(self, Dunno | Ignore | Info | Prepend | Replace | Strip | Warn)
    }
}

/// An action, and its text without blanks before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action<'a> {
    /// Its kind.
    pub verb: Verb,
    /// The rest of the value, perhaps empty.
    pub text: &'a [u8],
}

impl<'a> Action<'a> {
    /// Parse a table's value. `parameter`: the name of the list, such as `header_checks`. `is_header`: whether a text
    /// starts as a header does. Errors: the warning for the log; the line stays unchanged.
    pub fn parse(
        value: &'a [u8],
        place: Section,
        parameter: &str,
        is_header: impl Fn(&[u8]) -> bool,
    ) -> Result<Self, String> {
        let end = value.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(value.len());
        let text = value[end..].trim_ascii_start();
        let Some(verb) = Verb::of(&value[..end]) else {
            return Err(format!("unknown command in {parameter} map: {}", String::from_utf8_lossy(value)));
        };
        let shown = || String::from_utf8_lossy(text);
        let bad = |what: &str| {
            let shown = shown();
            Err(format!("bad {what} header text \"{shown}\" in {parameter} map -- need \"headername: headervalue\""))
        };
        let no_header = place == Section::Header && !is_header(text);
        match verb {
            Verb::Prepend if text.is_empty() => Err(format!("PREPEND action without text in {parameter} map")),
            Verb::Replace if text.is_empty() => Err(format!("REPLACE action without text in {parameter} map")),
            Verb::Prepend if no_header => bad("PREPEND"),
            Verb::Replace if no_header => bad("REPLACE"),
            Verb::Filter if text.is_empty() => Err(format!("missing FILTER command argument in {parameter} map")),
            Verb::Filter if !text.contains(&b':') => {
                Err(format!("bad FILTER command {} in {parameter} -- need transport:destination", shown()))
            }
            Verb::Redirect if !text.contains(&b'@') => {
                Err(format!("bad REDIRECT target \"{}\" in {parameter} map -- need user@domain", shown()))
            }
            Verb::Bcc if !text.contains(&b'@') => {
                Err(format!("bad BCC address \"{}\" in {parameter} map -- need user@domain", shown()))
            }
            verb => Ok(Self { verb, text }),
        }
    }

    /// As `parse`, for a message on its way out: an action that concerns the whole message is no action there.
    pub fn parse_for_line(
        value: &'a [u8],
        place: Section,
        parameter: &str,
        is_header: impl Fn(&[u8]) -> bool,
    ) -> Result<Self, String> {
        let end = value.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(value.len());
        if Verb::of(&value[..end]).is_some_and(Verb::is_of_line) {
            return Self::parse(value, place, parameter, is_header);
        }
        Err(format!("unsupported command in {parameter} map: {}", String::from_utf8_lossy(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str, place: Section) -> Result<Action<'_>, String> {
        Action::parse(value.as_bytes(), place, "header_checks", |text| text.contains(&b':'))
    }

    #[test]
    fn values_are_actions_with_texts() {
        for (value, verb, text) in [
            ("REJECT", Verb::Reject, ""),
            ("reject \t 4.7.0 later ", Verb::Reject, "4.7.0 later "),
            ("Ok", Verb::Dunno, ""),
            ("DUNNO because", Verb::Dunno, "because"),
            ("FILTER smtp:", Verb::Filter, "smtp:"),
            ("prepend X-A: b", Verb::Prepend, "X-A: b"),
            ("REPLACE X-A: b", Verb::Replace, "X-A: b"),
            ("REDIRECT a@b", Verb::Redirect, "a@b"),
            ("BCC a@b", Verb::Bcc, "a@b"),
            ("HOLD", Verb::Hold, ""),
            ("IGNORE", Verb::Ignore, ""),
            ("STRIP", Verb::Strip, ""),
            ("INFO x", Verb::Info, "x"),
            ("WARN x", Verb::Warn, "x"),
            ("PASS x", Verb::Pass, "x"),
            ("DISCARD x", Verb::Discard, "x"),
        ] {
            assert_eq!(parse(value, Section::Header), Ok(Action { verb, text: text.as_bytes() }), "{value}");
        }
        let action = Action { verb: Verb::Prepend, text: b"no header" };
        assert_eq!(parse("PREPEND no header", Section::Body), Ok(action), "a body has any line");
    }

    #[test]
    fn bad_actions_are_warnings() {
        for (value, warning) in [
            ("bogus a b", "unknown command in header_checks map: bogus a b"),
            ("", "unknown command in header_checks map: "),
            ("REJECTED", "unknown command in header_checks map: REJECTED"),
            ("PREPEND", "PREPEND action without text in header_checks map"),
            ("REPLACE", "REPLACE action without text in header_checks map"),
            (
                "PREPEND text",
                "bad PREPEND header text \"text\" in header_checks map -- need \"headername: headervalue\"",
            ),
            (
                "REPLACE text",
                "bad REPLACE header text \"text\" in header_checks map -- need \"headername: headervalue\"",
            ),
            ("FILTER", "missing FILTER command argument in header_checks map"),
            ("FILTER x", "bad FILTER command x in header_checks -- need transport:destination"),
            ("REDIRECT x", "bad REDIRECT target \"x\" in header_checks map -- need user@domain"),
            ("BCC x", "bad BCC address \"x\" in header_checks map -- need user@domain"),
        ] {
            assert_eq!(parse(value, Section::Header), Err(warning.into()));
        }
    }

    #[test]
    fn outgoing_lines_have_fewer_actions() {
        for (value, good) in
            [("WARN x", true), ("ok", true), ("STRIP", true), ("REJECT x", false), ("HOLD", false), ("x y", false)]
        {
            let parsed = Action::parse_for_line(value.as_bytes(), Section::Body, "smtp_body_checks", |_| true);
            let warning = format!("unsupported command in smtp_body_checks map: {value}");
            assert_eq!(parsed.err(), (!good).then_some(warning), "{value}");
        }
    }
}
