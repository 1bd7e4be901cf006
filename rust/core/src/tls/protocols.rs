//! Lists of TLS versions: `>=TLSv1.2`, `<=TLSv1.3`, `!SSLv3`, `TLSv1.2` (postconf(5), smtpd_tls_protocols).

use super::words;
use crate::settings::{Source, Value};

/// A version as on the wire: 0x0303 for TLS 1.2.
pub type Version = u16;

/// The versions that have names, the oldest first.
pub const VERSIONS: [(&str, Version); 6] = [
    ("SSLv2", 0x0002),
    ("SSLv3", 0x0300),
    ("TLSv1", 0x0301),
    ("TLSv1.1", 0x0302),
    ("TLSv1.2", 0x0303),
    ("TLSv1.3", 0x0304),
];

/// The versions that a list allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Protocols {
    /// The lowest version.
    pub min: Option<Version>,
    /// The highest version.
    pub max: Option<Version>,
    /// Versions that are not allowed, each once.
    pub excluded: Vec<Version>,
}

impl Protocols {
    /// Parse a list. Errors: the word that is no version.
    ///
    /// `!NAME` excludes a version. Names without `!` exclude all others. `>=` and `<=` take a name or hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut found, mut included) = (Self::default(), Vec::new());
        for word in words(text) {
            let bad = || word.to_owned();
            if let Some(version) = word.strip_prefix(">=") {
                found.min = Some(bound(version).ok_or_else(bad)?);
            } else if let Some(version) = word.strip_prefix("<=") {
                found.max = Some(bound(version).ok_or_else(bad)?);
            } else if let Some(version) = word.strip_prefix('!') {
                found.exclude(named(version).ok_or_else(bad)?);
            } else {
                included.push(named(word).ok_or_else(bad)?);
            }
        }
        if !included.is_empty() {
            let others = VERSIONS.iter().map(|(_, version)| *version).filter(|version| !included.contains(version));
            others.for_each(|version| found.exclude(version));
        }
        Ok(found)
    }

    /// Return whether a version is allowed.
    pub fn allows(&self, version: Version) -> bool {
        self.min.is_none_or(|min| min <= version)
            && self.max.is_none_or(|max| version <= max)
            && !self.excluded.contains(&version)
    }

    /// Return whether any version is allowed.
    pub fn allows_any(&self) -> bool {
        VERSIONS.iter().any(|(_, version)| self.allows(*version))
    }

    /// Forbid a version.
    pub fn exclude(&mut self, version: Version) {
        if !self.excluded.contains(&version) {
            self.excluded.push(version);
        }
    }
}

fn named(name: &str) -> Option<Version> {
    VERSIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, version)| *version)
}

/// Return the version of a name, or of hexadecimal digits such as `0304`.
fn bound(text: &str) -> Option<Version> {
    named(text).or_else(|| Version::from_str_radix(text, 16).ok())
}

impl Value for Protocols {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let text = source.text(name)?;
        let protocols = Self::parse(&text);
        let protocols =
            protocols.map_err(|word| source.bad(name, &word, "give versions such as >=TLSv1.2 or !SSLv3"))?;
        if protocols.allows_any() {
            return Ok(protocols);
        }
        Err(source.bad(name, &text, "allow at least one version"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_both_forms_allow_the_same_as_in_postfix() {
        let allowed = |text: &str| {
            let protocols = Protocols::parse(text).unwrap();
            let names = VERSIONS.iter().filter(|(_, version)| protocols.allows(*version)).map(|(name, _)| *name);
            names.collect::<Vec<_>>().join(" ")
        };
        let rows = [
            ("", "SSLv2 SSLv3 TLSv1 TLSv1.1 TLSv1.2 TLSv1.3"),
            (">=TLSv1", "TLSv1 TLSv1.1 TLSv1.2 TLSv1.3"),
            (">=tlsv1.2, <=TLSv1.2", "TLSv1.2"),
            (">=0303", "TLSv1.2 TLSv1.3"),
            ("!SSLv2, !SSLv3", "TLSv1 TLSv1.1 TLSv1.2 TLSv1.3"),
            ("!SSLv2:!SSLv3 !TLSv1\t!TLSv1.1", "TLSv1.2 TLSv1.3"),
            ("TLSv1.2 TLSv1.3", "TLSv1.2 TLSv1.3"),
            ("TLSv1.2, !TLSv1.2", ""),
        ];
        for (text, expected) in rows {
            assert_eq!(allowed(text), expected, "{text}");
        }
        for (text, word) in [("TLSv1.4", "TLSv1.4"), (">=TLS", ">=TLS"), ("!TLSv1.2 !x", "!x")] {
            assert_eq!(Protocols::parse(text), Err(word.into()));
        }
    }
}
