//! The parameters of TLS in a client (smtp(8), TLS_README), and the policy that they give one connection.

use super::ciphers::{Exclusions, Grade, Lists};
use super::client::Policy;
use super::dane::{DaneDigests, Tlsa};
use super::level::ClientLevel;
use super::protocols::Protocols;
use super::settings::LogLevel;
use super::{listed_curves, words};
use crate::settings;
use crate::settings::seconds;

/// Maximum octets of a name in the extension that names the server (RFC 6066 §3).
const SERVERNAME_MAX_OCTETS: usize = 255;
/// Maximum octets of a fingerprint: those of SHA-512.
const FINGERPRINT_MAX_OCTETS: usize = 64;
/// Minimum lifetime of a cached session, as in Postfix.
const SESSION_MIN_S: f64 = 120.0;
/// No client sends mail under them: SNI is newer (RFC 7672 §2.3).
const OLDER_THAN_DANE: &str = "!SSLv2, !SSLv3";

settings! {
    /// The parameters of TLS that all connections of a client share. An LMTP client reads them by LMTP's names.
    #[derive(Debug, Clone)]
    pub struct ClientTls {
        chain_files: Vec<String> = "smtp_tls_chain_files",
        cert_file: String = "smtp_tls_cert_file",
        key_file: String = "smtp_tls_key_file",
        eccert_file: String = "smtp_tls_eccert_file",
        eckey_file: String = "smtp_tls_eckey_file",
        dcert_file: String = "smtp_tls_dcert_file",
        dkey_file: String = "smtp_tls_dkey_file",
        ca_file: String = "smtp_tls_CAfile",
        ca_path: String = "smtp_tls_CApath",
        append_default_ca: bool = "tls_append_default_CA",
        /// Trust anchors in place of the authorities.
        trust_anchor_files: Vec<String> = "smtp_tls_trust_anchor_file",
        scert_verifydepth: u32 = "smtp_tls_scert_verifydepth",
        protocols: Protocols = "smtp_tls_protocols",
        mandatory_protocols: Protocols = "smtp_tls_mandatory_protocols",
        ciphers: Grade = "smtp_tls_ciphers",
        mandatory_ciphers: Grade = "smtp_tls_mandatory_ciphers",
        exclude_ciphers: Exclusions = "smtp_tls_exclude_ciphers",
        mandatory_exclude_ciphers: Exclusions = "smtp_tls_mandatory_exclude_ciphers",
        /// The ciphers of each grade.
        lists: Lists => settings,
        eecdh_auto_curves: String = "tls_eecdh_auto_curves",
        /// The digest of fingerprints.
        fingerprint_digest: String = "smtp_tls_fingerprint_digest",
        dane_digests: DaneDigests = "tls_dane_digests",
        loglevel: LogLevel = "smtp_tls_loglevel",
        /// TLS sessions are cached if it names any table. They are kept in memory.
        session_cache_database: Vec<String> = "smtp_tls_session_cache_database",
        session_cache_timeout: f64 = seconds "smtp_tls_session_cache_timeout",
    }
}

/// The settings of a site for one destination. Texts are those of a policy table; `None` leaves the choice to main.cf.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    /// The use of TLS.
    pub level: ClientLevel,
    /// Names that the certificate may have: `example.com`, or `.example.com` for those below.
    pub names: Vec<String>,
    /// Digests in hexadecimal digits, with or without colons.
    pub fingerprints: Vec<String>,
    /// With DANE, the server's TLSA records.
    pub tlsa: Vec<Tlsa>,
    /// Files of trust anchors in place of those of main.cf. The library reads them, and adds the anchors to `tlsa`.
    pub trust_anchor_files: Vec<String>,
    /// A list of versions.
    pub protocols: Option<&'a str>,
    /// A grade.
    pub ciphers: Option<&'a str>,
    /// Ciphers to leave out.
    pub exclude: Option<&'a str>,
    /// The name that the client asks for. With DANE it is the base domain of the TLSA records.
    pub servername: Option<&'a str>,
    /// The server's part of the key of the session.
    pub session_key: String,
    /// The amount of log lines.
    pub log_level: Option<LogLevel>,
}

impl ClientTls {
    /// Return the policy of a connection. Errors: the text for the log, which the caller attributes to a table.
    pub fn policy(&self, wanted: Wanted<'_>) -> Result<Policy, String> {
        let level = wanted.level;
        let names = wanted.names.iter().map(|name| match_name(name)).collect::<Result<Vec<_>, _>>()?;
        let fingerprints = wanted.fingerprints.iter().map(|text| fingerprint(text)).collect::<Result<Vec<_>, _>>()?;
        if level.matches_names() && names.is_empty() {
            return Err(format!("no name to match at level {}", level.name()));
        }
        if level == ClientLevel::Fingerprint && fingerprints.is_empty() {
            return Err("no fingerprint to match at level fingerprint".into());
        }
        if level.is_dane() && wanted.tlsa.is_empty() {
            return Err(format!("no usable TLSA record at level {}", level.name()));
        }
        Ok(Policy {
            level,
            protocols: self.protocols_of(level, wanted.protocols)?,
            cipher_list: self.cipher_list(level, wanted.ciphers, wanted.exclude)?,
            names,
            fingerprints,
            digest: self.fingerprint_digest.trim().to_owned(),
            tlsa: wanted.tlsa,
            servername: wanted.servername.map(servername).transpose()?,
            log_level: wanted.log_level.unwrap_or(self.loglevel),
            session_key: wanted.session_key,
        })
    }

    /// Return the curves of the key exchange, best first: see `settings::ServerTls::curves`.
    pub fn curves(&self) -> Vec<&str> {
        listed_curves(&self.eecdh_auto_curves)
    }

    /// Return the lifetime of a cached session; `None` without a cache.
    pub fn session_lifetime_s(&self) -> Option<f64> {
        let is_on = !self.session_cache_database.is_empty() && self.session_cache_timeout > 0.0;
        is_on.then(|| self.session_cache_timeout.max(SESSION_MIN_S))
    }

    fn protocols_of(&self, level: ClientLevel, text: Option<&str>) -> Result<Protocols, String> {
        let mut protocols = match text {
            // An empty list allows all versions, as in Postfix.
            Some(text) => {
                let bad = |word: String| format!("bad TLS version \"{word}\": give versions such as >=TLSv1.2");
                Protocols::parse(text).map_err(bad)?
            }
            None if level.requires_tls() => self.mandatory_protocols.clone(),
            None => self.protocols.clone(),
        };
        if level.is_dane() {
            let older = Protocols::parse(OLDER_THAN_DANE).unwrap_or_default();
            older.excluded.into_iter().for_each(|version| protocols.exclude(version));
        }
        if !protocols.allows_any() {
            return Err("no TLS version is left: allow at least one".into());
        }
        Ok(protocols)
    }

    fn cipher_list(&self, level: ClientLevel, grade: Option<&str>, exclude: Option<&str>) -> Result<String, String> {
        let grade = match grade {
            Some(word) => Grade::parse(word)
                .ok_or_else(|| format!("bad cipher grade \"{word}\": give one of high, medium, null, low, export"))?,
            None if level.requires_tls() => self.mandatory_ciphers,
            None => self.ciphers,
        };
        let mut excluded: Vec<&str> = Vec::new();
        if let Some(text) = exclude {
            excluded.extend(words(text));
            if let Some(word) = excluded.iter().find(|word| word.starts_with(['!', '+', '-', '@'])) {
                return Err(format!("bad cipher \"{word}\": give names without !, +, - and @"));
            }
        } else {
            excluded.extend(self.exclude_ciphers.words.iter().map(String::as_str));
            if level.requires_tls() {
                excluded.extend(self.mandatory_exclude_ciphers.words.iter().map(String::as_str));
            }
        }
        // At least encrypt, or at least authenticate.
        match level {
            ClientLevel::Off | ClientLevel::May => {}
            ClientLevel::Encrypt => excluded.push("eNULL"),
            _ => excluded.push("aNULL"),
        }
        Ok(self.lists.without(grade, excluded.into_iter()))
    }
}

/// Return a name to compare with those of a certificate.
fn match_name(name: &str) -> Result<String, String> {
    let domain = name.strip_prefix('.').unwrap_or(name);
    if domain.is_empty() || domain.starts_with('.') || !domain.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(format!("bad name to match \"{}\": give a domain in ASCII", name.escape_debug()));
    }
    Ok(name.to_ascii_lowercase())
}

/// Return the name that the client asks for.
fn servername(name: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let octets = label.as_bytes();
        (1..=63).contains(&octets.len())
            && octets.iter().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
            && !octets.starts_with(b"-")
            && !octets.ends_with(b"-")
    };
    if name.len() > SERVERNAME_MAX_OCTETS || !name.split('.').all(is_label) {
        return Err(format!("bad server name \"{}\": give a domain in ASCII", name.escape_debug()));
    }
    Ok(name.to_ascii_lowercase())
}

/// Return the octets of a fingerprint: hexadecimal digits, with or without colons between the octets.
fn fingerprint(text: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("bad fingerprint \"{}\": give hexadecimal digits", text.escape_debug());
    let digits = text.trim();
    let pairs: Vec<&str> = if digits.contains(':') {
        digits.split(':').collect()
    } else {
        digits.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok()).collect()
    };
    let is_pair = |pair: &&str| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
    if pairs.is_empty() || pairs.len() > FINGERPRINT_MAX_OCTETS || !digits.is_ascii() || !pairs.iter().all(is_pair) {
        return Err(bad());
    }
    pairs.iter().map(|pair| u8::from_str_radix(pair, 16).map_err(|_| bad())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ClientTls {
        let mut settings = ClientTls::default();
        settings.lists.medium = "MEDIUM".into();
        settings.lists.high = "HIGH".into();
        settings.exclude_ciphers.words = vec!["RC4".into()];
        settings.mandatory_exclude_ciphers.words = vec!["MD5".into()];
        settings.protocols = Protocols::parse(">=TLSv1").unwrap();
        settings.mandatory_protocols = Protocols::parse(">=TLSv1.2").unwrap();
        settings
    }

    fn wanted(level: ClientLevel) -> Wanted<'static> {
        let tlsa = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] };
        Wanted {
            level,
            names: if level.matches_names() { vec!["MX.example".into(), ".Example".into()] } else { Vec::new() },
            fingerprints: if level == ClientLevel::Fingerprint { vec!["00:Ff".into()] } else { Vec::new() },
            tlsa: if level.is_dane() { vec![tlsa] } else { Vec::new() },
            ..Wanted::default()
        }
    }

    #[test]
    fn stronger_levels_have_stronger_ciphers_and_versions() {
        use ClientLevel::{Dane, DaneOnly, Encrypt, Fingerprint, HalfDane, May, Secure, Verify};
        let mandatory = Protocols::parse(">=TLSv1.2").unwrap();
        for (level, ciphers) in [
            (May, "MEDIUM:!RC4"),
            (Encrypt, "MEDIUM:!RC4:!MD5:!eNULL"),
            (Fingerprint, "MEDIUM:!RC4:!MD5:!aNULL"),
            (HalfDane, "MEDIUM:!RC4:!MD5:!aNULL"),
            (Dane, "MEDIUM:!RC4:!MD5:!aNULL"),
            (DaneOnly, "MEDIUM:!RC4:!MD5:!aNULL"),
            (Verify, "MEDIUM:!RC4:!MD5:!aNULL"),
            (Secure, "MEDIUM:!RC4:!MD5:!aNULL"),
        ] {
            let policy = settings().policy(wanted(level)).unwrap();
            assert_eq!(policy.cipher_list, ciphers);
            assert_eq!((policy.protocols.min == mandatory.min, level), (level != May, level));
            assert_eq!(!policy.protocols.excluded.is_empty(), level.is_dane());
            let names: &[&str] = if level.matches_names() { &["mx.example", ".example"] } else { &[] };
            assert_eq!(policy.names, names);
        }
    }

    #[test]
    fn a_destination_overrides_main_cf() {
        let over = Wanted {
            protocols: Some("TLSv1.3:!TLSv1"),
            ciphers: Some("High"),
            exclude: Some("aRSA:AES128"),
            servername: Some("MX.example"),
            ..wanted(ClientLevel::Secure)
        };
        let policy = settings().policy(over).unwrap();
        assert_eq!(policy.cipher_list, "HIGH:!aRSA:!AES128:!aNULL");
        assert_eq!(policy.servername.as_deref(), Some("mx.example"));
        assert!(policy.protocols.allows(0x0304) && !policy.protocols.allows(0x0303));
    }

    #[test]
    fn empty_lists_of_a_destination_allow_everything_but_what_the_level_forbids() {
        let over = Wanted { protocols: Some(""), exclude: Some(" "), ..wanted(ClientLevel::Encrypt) };
        let policy = settings().policy(over).unwrap();
        assert_eq!(policy.cipher_list, "MEDIUM:!eNULL");
        assert!(policy.protocols.allows(0x0301));
    }

    #[test]
    fn values_that_cannot_be_used_have_a_clear_text() {
        let at = |level: ClientLevel, change: fn(&mut Wanted<'_>)| {
            let mut wanted = wanted(level);
            change(&mut wanted);
            settings().policy(wanted).unwrap_err()
        };
        let rows = [
            (at(ClientLevel::May, |w| w.protocols = Some("TLSv1.4")), "bad TLS version \"TLSv1.4\""),
            (at(ClientLevel::May, |w| w.protocols = Some(">=TLSv1.3 <=TLSv1.2")), "no TLS version is left"),
            (at(ClientLevel::Dane, |w| w.protocols = Some("SSLv3")), "no TLS version is left"),
            (at(ClientLevel::May, |w| w.ciphers = Some("best")), "bad cipher grade \"best\""),
            (at(ClientLevel::May, |w| w.ciphers = Some("")), "bad cipher grade \"\""),
            (at(ClientLevel::May, |w| w.exclude = Some("!RC4")), "bad cipher \"!RC4\""),
            (at(ClientLevel::May, |w| w.servername = Some("a b")), "bad server name \"a b\""),
            (at(ClientLevel::May, |w| w.servername = Some("a..b")), "bad server name \"a..b\""),
            (at(ClientLevel::Verify, |w| w.names.clear()), "no name to match at level verify"),
            (at(ClientLevel::DaneOnly, |w| w.names.clear()), "no name to match at level dane-only"),
            (at(ClientLevel::Secure, |w| w.names.push(".".into())), "bad name to match \".\""),
            (at(ClientLevel::Secure, |w| w.names.push("b\u{fc}cher".into())), "bad name to match \"b\u{fc}cher\""),
            (at(ClientLevel::Dane, |w| w.tlsa.clear()), "no usable TLSA record at level dane"),
            (at(ClientLevel::Fingerprint, |w| w.fingerprints.clear()), "no fingerprint to match"),
            (at(ClientLevel::Fingerprint, |w| w.fingerprints.push("abc".into())), "bad fingerprint \"abc\""),
        ];
        for (text, expected) in rows {
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn fingerprints_are_hexadecimal_digits_with_or_without_colons() {
        assert_eq!(fingerprint("00:fF:10"), Ok(vec![0, 255, 16]));
        assert_eq!(fingerprint(" 00ff10 "), Ok(vec![0, 255, 16]));
        for bad in ["", ":", "0", "00:f", "00:ff:", "00-ff", "+1:+2", "0g", "\u{e9}\u{e9}", &"00".repeat(65)] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sessions_are_cached_where_a_database_is_named() {
        let lifetime = |database: &str, session_cache_timeout| {
            let session_cache_database = if database.is_empty() { Vec::new() } else { vec![database.to_owned()] };
            ClientTls { session_cache_database, session_cache_timeout, ..settings() }.session_lifetime_s()
        };
        assert_eq!(lifetime("", 3600.0), None);
        assert_eq!(lifetime("btree:scache", 3600.0), Some(3600.0));
        assert_eq!(lifetime("btree:scache", 1.0), Some(120.0));
        assert_eq!(lifetime("btree:scache", 0.0), None);
    }
}
