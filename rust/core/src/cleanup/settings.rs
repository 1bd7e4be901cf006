//! Cleanup's parameters, by Postfix's names (cleanup(8)).

use crate::address::rewrite::Rewrite;
use crate::address::rewriting::Rewriting;
use crate::inspection::lists::Lists;
use crate::mail::date::Zone;
use crate::mail::mime::MimeRules;
use crate::mail::source::Autodetected;
use crate::settings;
use crate::settings::Source;
use std::sync::{Arc, PoisonError, RwLock};

/// A set of octets, written as in main.cf: `\0\r` (`message_strip_characters`, `message_reject_characters`).
#[derive(Clone, PartialEq, Eq)]
pub struct Octets([bool; 256]);

impl std::fmt::Debug for Octets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries((0..=255u8).filter(|octet| self.has(*octet))).finish()
    }
}

impl Octets {
    /// Return the octets in `text`, with C's escapes (`\a \b \f \n \r \t \v \\ \ddd`); `None` when there are none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = [false; 256];
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let (octet, after) = if *first == b'\\' { escape(after) } else { (*first, after) };
            set[usize::from(octet)] = true;
            rest = after;
        }
        (!text.is_empty()).then_some(Self(set))
    }

    /// Return whether the set has the octet.
    pub fn has(&self, octet: u8) -> bool {
        self.0[usize::from(octet)]
    }

    /// Return whether `text` has an octet of the set.
    pub fn any_in(&self, text: &[u8]) -> bool {
        text.iter().any(|octet| self.has(*octet))
    }
}

/// Return the octet of an escape, and the rest of the text. A character that is no escape stands for itself.
fn escape(text: &[u8]) -> (u8, &[u8]) {
    const OCTAL_MAX_DIGITS: usize = 3;
    let digits = text.iter().take(OCTAL_MAX_DIGITS).take_while(|b| (b'0'..=b'7').contains(b)).count();
    if digits > 0 {
        let value = text[..digits].iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
        return (value as u8, &text[digits..]);
    }
    let Some((first, after)) = text.split_first() else {
        return (b'\\', text);
    };
    let octet = match first {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        other => *other,
    };
    (octet, after)
}

settings! {
    /// The parameters of cleanup. Tests build them with `..CleanupSettings::new("mx.example.org")`.
    #[derive(Debug)]
    pub struct CleanupSettings {
        myhostname: Box<str> = "myhostname",
        /// Rules for bare addresses.
        local_rewrite: Rewrite => settings,
        /// The same for headers of remote mail; `None`: these headers stay unchanged.
        remote_rewrite: Option<Rewrite> = Rewrite::read_remote "remote_header_rewrite_domain",
        /// Canonical addresses, aliases and copies.
        rewriting: Rewriting => settings,
        /// Octets.
        header_size_limit: usize = "header_size_limit",
        /// Maximum number of tokens of a header whose addresses are rewritten.
        header_address_token_limit: usize = "header_address_token_limit",
        /// A message with this many `Received:` headers is in a loop.
        hopcount_limit: u32 = "hopcount_limit",
        /// Octets; 0: no limit.
        message_size_limit: u64 = "message_size_limit",
        always_add_missing_headers: bool = "always_add_missing_headers",
        drop_headers: Vec<Box<str>> = "message_drop_headers",
        /// Added when no header has a recipient; empty: nothing is added.
        undisclosed_recipients_header: Box<str> = "undisclosed_recipients_header",
        replace_stray_cr_lf: bool = "cleanup_replace_stray_cr_lf",
        strip_characters: Option<Octets> = octets "message_strip_characters",
        reject_characters: Option<Octets> = octets "message_reject_characters",
        /// A header that says `8bit` counts as BODY=8BITMIME.
        detects_8bit: bool = "detect_8bit_encoding_header",
        /// Limits and rules of the MIME structure.
        mime: MimeRules => settings,
        /// The program sets the tables of `header_checks` and related parameters.
        checks: Arc<Lists>,
        /// Octets of a body segment that `body_checks` sees; 0: all.
        body_checks_size_limit: u64 = "body_checks_size_limit",
        long_queue_ids: bool = "enable_long_queue_ids",
        autodetected: Autodetected = "smtputf8_autodetect_classes",
        /// The header `TLS-Required: no` has an effect.
        obeys_tls_required: bool = "tls_required_enable",
        /// The header `Require-TLS-ESMTP: yes` carries REQUIRETLS through content filters.
        requiretls_header: bool = requiretls_header "requiretls_esmtp_header",
        /// `address (Name)` instead of `Name <address>`.
        obsolete_from_format: bool = is_obsolete "header_from_format",
        /// Local time; set it again when daylight saving begins or ends.
        zone: RwLock<Zone>,
    }
}

fn octets<S: Source>(source: &S, name: &str) -> Result<Option<Octets>, S::Error> {
    Ok(Octets::parse(&source.text(name)?))
}

fn requiretls_header<S: Source>(source: &S, name: &str) -> Result<bool, S::Error> {
    Ok(source.flag("requiretls_enable")? && source.flag(name)?)
}

fn is_obsolete<S: Source>(source: &S, name: &str) -> Result<bool, S::Error> {
    Ok(source.text(name)? == "obsolete")
}

impl CleanupSettings {
    /// Return Postfix's defaults for a host; bare addresses become addresses of `myhostname`.
    pub fn new(myhostname: &str) -> Self {
        Self { myhostname: myhostname.into(), local_rewrite: Rewrite::local(myhostname), ..Self::default() }
    }

    /// Return `Sun, 22 Nov 2026 17:02:03 +0000 (UTC)` in local time. `wall_us`: microseconds since 1970.
    pub fn date(&self, wall_us: u64) -> String {
        self.zone.read().unwrap_or_else(PoisonError::into_inner).date(wall_us)
    }

    /// Set the local time zone.
    pub fn set_zone(&self, zone: Zone) {
        *self.zone.write().unwrap_or_else(PoisonError::into_inner) = zone;
    }

    /// Return whether a header of this name is dropped.
    pub fn drops(&self, name: &[u8]) -> bool {
        self.drop_headers.iter().any(|dropped| dropped.as_bytes().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octet_sets_are_parsed_with_escapes() {
        for (text, octets) in [
            (r"\0", vec![0]),
            (r"\000x", vec![0, b'x']),
            (r"\r\n\t\\", vec![b'\t', b'\n', b'\r', b'\\']),
            (r"\a\b\f\v", vec![7, 8, 11, 12]),
            (r"\177\377", vec![0o177, 0o377]),
            (r"\", vec![b'\\']),
        ] {
            let set = Octets::parse(text).unwrap();
            assert_eq!((0..=255).filter(|octet| set.has(*octet)).collect::<Vec<u8>>(), octets, "{text}");
        }
        assert_eq!(Octets::parse(""), None);
    }

    #[test]
    fn headers_are_dropped_by_name() {
        let mut settings = CleanupSettings::new("mx.example.org");
        for (name, drops) in [("Bcc", true), ("RETURN-PATH", true), ("To", false), ("X-Bcc", false)] {
            assert_eq!(settings.drops(name.as_bytes()), drops, "{name}");
        }
        settings.drop_headers = vec!["X-Originating-IP".into()];
        for (name, drops) in [("x-originating-ip", true), ("Bcc", false)] {
            assert_eq!(settings.drops(name.as_bytes()), drops, "{name}");
        }
    }
}
