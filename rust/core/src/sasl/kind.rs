//! The known mechanisms, the options that forbid some of them, and the choice among them.
//!
//! The order of preference and the properties are those of the Cyrus library in Debian's Postfix, measured with a server
//! that offers each mechanism and each pair of them.

/// A mechanism, in the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// RFC 5802 with SHA-512.
    ScramSha512,
    /// RFC 7677.
    ScramSha256,
    /// RFC 5802.
    ScramSha1,
    /// RFC 2195.
    CramMd5,
    /// RFC 4616.
    Plain,
    /// The draft of Murchison and Crispin: name and password in two responses.
    Login,
    /// RFC 7628.
    OauthBearer,
    /// Google's form of OAUTHBEARER.
    Xoauth2,
    /// RFC 4422 appendix A: the TLS channel has the client's identity.
    External,
}

/// A set of mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u16);

/// Demands on a mechanism (smtp_sasl_security_options).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options(u8);

/// Each option's name in main.cf.
const OPTIONS: [(&str, Options); 6] = [
    ("noplaintext", Options::NO_PLAINTEXT),
    ("noactive", Options::NO_ACTIVE),
    ("nodictionary", Options::NO_DICTIONARY),
    ("forward_secrecy", Options::FORWARD_SECRECY),
    ("noanonymous", Options::NO_ANONYMOUS),
    ("mutual_auth", Options::MUTUAL_AUTH),
];

/// Return the best mechanism that a server offers, this client allows, and the options do not forbid.
pub fn choose(offered: Kinds, allowed: Kinds, options: Options) -> Option<Kind> {
    let fits = |kind: &Kind| offered.has(*kind) && allowed.has(*kind) && kind.meets(options);
    Kind::ALL.into_iter().find(fits)
}

impl Kind {
    /// All mechanisms, the preferred ones first.
    pub const ALL: [Self; 9] = [
        Self::ScramSha512,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::CramMd5,
        Self::Plain,
        Self::Login,
        Self::OauthBearer,
        Self::Xoauth2,
        Self::External,
    ];

    /// Return the name of the mechanism (RFC 4422 §3.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::CramMd5 => "CRAM-MD5",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::OauthBearer => "OAUTHBEARER",
            Self::Xoauth2 => "XOAUTH2",
            Self::External => "EXTERNAL",
        }
    }

    /// Return the mechanism with this name, in any case of letters.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// Return whether the mechanism is as good as all options together want it.
    fn meets(self, options: Options) -> bool {
        let met = match self {
            Self::ScramSha512 | Self::ScramSha256 | Self::ScramSha1 => {
                Options::of(&[Options::NO_PLAINTEXT, Options::NO_ACTIVE, Options::NO_ANONYMOUS, Options::MUTUAL_AUTH])
            }
            Self::CramMd5 => Options::of(&[Options::NO_PLAINTEXT, Options::NO_ANONYMOUS]),
            Self::Plain | Self::Login => Options::NO_ANONYMOUS,
            // A listener can use the token, but nobody can guess it.
            Self::OauthBearer | Self::Xoauth2 => Options::of(&[Options::NO_DICTIONARY, Options::NO_ANONYMOUS]),
            Self::External => Options::of(&[Options::NO_PLAINTEXT, Options::NO_DICTIONARY, Options::NO_ANONYMOUS]),
        };
        options.0 & !met.0 == 0
    }
}

impl Kinds {
    /// The mechanisms for a name and a password. The others need a token or a certificate, and a site that has one names
    /// them in `smtp_sasl_mechanism_filter`.
    pub const BY_PASSWORD: Self = Self((1 << (Kind::Login as u16 + 1)) - 1);

    /// Add a mechanism.
    pub fn add(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u16;
    }

    /// Return whether the set has a mechanism.
    pub fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    /// Return the mechanisms that both sets have.
    pub fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Return whether the set has no mechanism.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Return the names, the preferred ones first, a blank between them.
    pub fn names(self) -> String {
        let names: Vec<_> = Kind::ALL.into_iter().filter(|kind| self.has(*kind)).map(Kind::name).collect();
        names.join(" ")
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<T: IntoIterator<Item = Kind>>(kinds: T) -> Self {
        let mut set = Self::default();
        kinds.into_iter().for_each(|kind| set.add(kind));
        set
    }
}

impl Options {
    /// No mechanism is good enough.
    pub const NEVER: Self = Self::FORWARD_SECRECY;
    const NO_PLAINTEXT: Self = Self(1);
    const NO_ACTIVE: Self = Self(2);
    const NO_DICTIONARY: Self = Self(4);
    /// No mechanism here has it.
    const FORWARD_SECRECY: Self = Self(8);
    const NO_ANONYMOUS: Self = Self(16);
    const MUTUAL_AUTH: Self = Self(32);

    /// Return the options with these names, in any case of letters. Errors: the name that is none.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        names.into_iter().try_fold(Self::default(), |options, name| {
            let (_, found) = OPTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).ok_or(name)?;
            Ok(Self::of(&[options, *found]))
        })
    }

    /// Return the names of all options.
    pub fn names() -> String {
        OPTIONS.map(|(name, _)| name).join(", ")
    }

    const fn of(options: &[Self]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < options.len() {
            bits |= options[at].0;
            at += 1;
        }
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(names: &str) -> Kinds {
        names.split(' ').filter_map(Kind::named).collect()
    }

    fn options(names: &str) -> Options {
        Options::parse(names.split_whitespace()).unwrap()
    }

    #[test]
    fn the_strongest_mechanism_in_common_is_chosen() {
        let all = "EXTERNAL XOAUTH2 OAUTHBEARER LOGIN PLAIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-512 NTLM";
        let by_password = "SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN";
        assert_eq!(Kinds::BY_PASSWORD, kinds(by_password));
        for (offered, allowed, forbidden, chosen) in [
            (all, by_password, "noplaintext noanonymous", Some(Kind::ScramSha512)),
            ("login plain cram-md5", by_password, "", Some(Kind::CramMd5)),
            ("LOGIN PLAIN", by_password, "noanonymous", Some(Kind::Plain)),
            ("LOGIN", by_password, "NOANONYMOUS", Some(Kind::Login)),
            ("LOGIN PLAIN", by_password, "noplaintext", None),
            ("LOGIN CRAM-MD5", by_password, "noactive", None),
            ("CRAM-MD5 SCRAM-SHA-1", by_password, "mutual_auth", Some(Kind::ScramSha1)),
            (all, by_password, "nodictionary", None),
            (all, all, "nodictionary", Some(Kind::OauthBearer)),
            (all, all, "nodictionary noplaintext", Some(Kind::External)),
            (all, all, "forward_secrecy", None),
            (all, "XOAUTH2", "noanonymous", Some(Kind::Xoauth2)),
            (all, "XOAUTH2", "noplaintext", None),
            ("XOAUTH2 NTLM", by_password, "", None),
            ("", all, "", None),
        ] {
            let found = choose(kinds(offered), kinds(allowed), options(forbidden));
            assert_eq!(found, chosen, "{offered} {allowed} {forbidden}");
        }
    }

    #[test]
    fn names_are_read_and_written() {
        assert_eq!(kinds("plain SCRAM-sha-1").names(), "SCRAM-SHA-1 PLAIN");
        assert_eq!(Options::parse(["noplaintext", "no", "x"]), Err("no"));
        assert!(Options::names().starts_with("noplaintext, "));
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!((kind as usize, Kind::named(kind.name())), (at, Some(kind)));
        }
    }
}
