//! The parts of cleanup that apply to a message, by the way that it comes: Postfix's cleanup flags.
//!
//! | message | checks | maps | copies | parameter that changes it |
//! |---|---|---|---|---|
//! | from a client or a user | yes | yes | yes | `receive_override_options` switches parts off |
//! | a report of the mail system | no | yes | no | `internal_mail_filter_classes` switches checks on |
//! | mail that a user forwards | no | yes | no | |

use crate::settings::Source;

/// The options of a message. The way that it came decides them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// `header_checks` and related parameters, and the rules about MIME, apply.
    pub checks: bool,
    /// Addresses are mapped: `canonical_maps`, `masquerade_domains`, `virtual_alias_maps`. Missing domains are added in
    /// any case.
    pub maps: bool,
    /// Recipients of copies are added (`always_bcc` and others); never without `maps`.
    pub copies: bool,
}

impl Options {
    /// A message from a client or a user.
    pub const EXTERNAL: Self = Self { checks: true, maps: true, copies: true };
    /// A message that the mail system itself writes: a report, or mail that a user forwards.
    pub const INTERNAL: Self = Self { checks: false, maps: true, copies: false };

    /// Read the options of messages from clients or users (`receive_override_options`). smtpd reads
    /// `no_unknown_recipient_checks`; no message passes a milter yet (`no_milters`).
    pub fn received<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let words = source.items(name)?;
        let lacks = |word: &str| words.iter().all(|item| item != word);
        let maps = lacks("no_address_mappings");
        Ok(Self { checks: lacks("no_header_body_checks"), maps, copies: maps })
    }

    /// Read the options of reports. `notify` are reports of errors in sessions, which nobody writes yet.
    pub fn report<S: Source>(source: &S) -> Result<Self, S::Error> {
        let checks = source.items("internal_mail_filter_classes")?.iter().any(|item| item == "bounce");
        Ok(Self { checks, ..Self::INTERNAL })
    }
}
