//! The security levels of a client.

/// The use of TLS, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ClientLevel {
    /// `none`
    #[default]
    Off,
    /// `may`: TLS if the server offers it.
    May,
    /// `encrypt`: TLS with any server.
    Encrypt,
    /// `fingerprint`: the server has a known certificate or key.
    Fingerprint,
    /// DANE, but the host's name comes from an MX record without a signature: not in main.cf.
    HalfDane,
    /// `dane`: the server has a certificate that its TLSA records name.
    Dane,
    /// `dane-only`
    DaneOnly,
    /// `verify`: an authority says that this is the server that DNS names.
    Verify,
    /// `secure`: an authority says that this is the server of the next hop.
    Secure,
}

const LEVELS: [(&str, ClientLevel); 9] = [
    ("none", ClientLevel::Off),
    ("may", ClientLevel::May),
    ("encrypt", ClientLevel::Encrypt),
    ("fingerprint", ClientLevel::Fingerprint),
    ("half-dane", ClientLevel::HalfDane),
    ("dane", ClientLevel::Dane),
    ("dane-only", ClientLevel::DaneOnly),
    ("verify", ClientLevel::Verify),
    ("secure", ClientLevel::Secure),
];

impl ClientLevel {
    /// Return the level with this name, in any case. A site cannot ask for `half-dane`.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        LEVELS
            .iter()
            .find(|(known, level)| known.eq_ignore_ascii_case(name) && *level != Self::HalfDane)
            .map(|(_, level)| *level)
    }

    /// Return the level of a site. `security_level`: `smtp_tls_security_level`; if it is empty, three older parameters count:
    /// `smtp_use_tls`, `smtp_enforce_tls` and `smtp_tls_enforce_peername`. `None`: there is no such level.
    pub fn of_site(security_level: &str, use_tls: bool, enforce_tls: bool, enforce_peername: bool) -> Option<Self> {
        if !security_level.trim().is_empty() {
            return Self::parse(security_level);
        }
        Some(match (use_tls, enforce_tls, enforce_peername) {
            (_, true, true) => Self::Verify,
            (_, true, false) => Self::Encrypt,
            (true, false, _) => Self::May,
            (false, false, _) => Self::Off,
        })
    }

    /// Return Postfix's name.
    pub fn name(self) -> &'static str {
        LEVELS.iter().find(|(_, level)| *level == self).map_or("none", |(name, _)| *name)
    }

    /// Whether mail is never sent in the clear.
    pub fn requires_tls(self) -> bool {
        self > Self::May
    }

    /// Whether the server must show that it is the right one.
    pub fn must_match(self) -> bool {
        self > Self::Encrypt
    }

    /// Whether TLSA records say which server is the right one.
    pub fn is_dane(self) -> bool {
        matches!(self, Self::HalfDane | Self::Dane | Self::DaneOnly)
    }

    /// Whether the certificate needs one of some names. DANE compares names below a trust anchor.
    pub fn matches_names(self) -> bool {
        self.is_dane() || matches!(self, Self::Verify | Self::Secure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_postfixs_names_and_order() {
        let rows = [
            // name, requires TLS, must match, DANE, names
            ("none", [false, false, false, false]),
            ("may", [false, false, false, false]),
            ("encrypt", [true, false, false, false]),
            ("fingerprint", [true, true, false, false]),
            ("dane", [true, true, true, true]),
            ("dane-only", [true, true, true, true]),
            ("verify", [true, true, false, true]),
            ("secure", [true, true, false, true]),
        ];
        let mut last = None;
        for (name, expected) in rows {
            let level = ClientLevel::parse(name).unwrap();
            let found = [level.requires_tls(), level.must_match(), level.is_dane(), level.matches_names()];
            assert_eq!((level.name(), found), (name, expected));
            assert!(last < Some(level), "{name}");
            last = Some(level);
        }
        assert_eq!(ClientLevel::parse(" Encrypt "), Some(ClientLevel::Encrypt));
        for name in ["", "half-dane", "tls", "secure1"] {
            assert_eq!(ClientLevel::parse(name), None, "{name}");
        }
        for (use_tls, enforce_tls, enforce_peername, level) in [
            (false, false, true, ClientLevel::Off),
            (true, false, true, ClientLevel::May),
            (true, true, false, ClientLevel::Encrypt),
            (false, true, true, ClientLevel::Verify),
        ] {
            assert_eq!(ClientLevel::of_site("", use_tls, enforce_tls, enforce_peername), Some(level));
            assert_eq!(ClientLevel::of_site("may", use_tls, enforce_tls, enforce_peername), Some(ClientLevel::May));
            assert_eq!(ClientLevel::of_site("tls", use_tls, enforce_tls, enforce_peername), None);
        }
        assert!(ClientLevel::HalfDane.is_dane() && ClientLevel::HalfDane.must_match());
    }
}
