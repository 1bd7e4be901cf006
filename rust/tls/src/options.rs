//! Options and workarounds of the library by their names (postconf(5), tls_ssl_options, tls_disable_workarounds).

use openssl::ssl::SslOptions;
use postillion_core::tls::settings::ServerTls;

/// Names of options. Those without a bit have no effect any more.
const OPTIONS: [(&str, u64); 7] = [
    ("ENABLE_MIDDLEBOX_COMPAT", 1 << 20),
    ("LEGACY_SERVER_CONNECT", 1 << 2),
    ("NO_TICKET", 1 << 14),
    ("NO_COMPRESSION", 1 << 17),
    ("NO_RENEGOTIATION", 1 << 30),
    ("NO_SESSION_RESUMPTION_ON_RENEGOTIATION", 1 << 16),
    ("PRIORITIZE_CHACHA", 1 << 21),
];
const WORKAROUNDS: [(&str, u64); 16] = [
    ("CRYPTOPRO_TLSEXT_BUG", 1 << 31),
    ("DONT_INSERT_EMPTY_FRAGMENTS", 1 << 11),
    ("LEGACY_SERVER_CONNECT", 1 << 2),
    ("TLSEXT_PADDING", 1 << 4),
    ("MICROSOFT_BIG_SSLV3_BUFFER", 0),
    ("MICROSOFT_SESS_ID_BUG", 0),
    ("MSIE_SSLV2_RSA_PADDING", 0),
    ("CVE-2005-2969", 0),
    ("NETSCAPE_CHALLENGE_BUG", 0),
    ("NETSCAPE_REUSE_CIPHER_CHANGE_BUG", 0),
    ("CVE-2010-4180", 0),
    ("SSLEAY_080_CLIENT_DH_BUG", 0),
    ("SSLREF2_REUSE_CERT_TYPE_BUG", 0),
    ("TLS_BLOCK_PADDING_BUG", 0),
    ("TLS_D5_BUG", 0),
    ("TLS_ROLLBACK_BUG", 1 << 23),
];

/// Return the options of a context, and a warning for each unknown name.
pub fn of(settings: &ServerTls) -> (SslOptions, Vec<String>) {
    let mut warnings = Vec::new();
    let disabled = bits("tls_disable_workarounds", &settings.disabled_workarounds, &WORKAROUNDS, &mut warnings);
    let enabled = bits("tls_ssl_options", &settings.ssl_options, &OPTIONS, &mut warnings);
    let always = SslOptions::NO_COMPRESSION | SslOptions::NO_RENEGOTIATION;
    ((SslOptions::ALL & !disabled) | enabled | always, warnings)
}

/// Return the bits of a list of names, or of a number such as `0x4000`.
fn bits(parameter: &str, text: &str, names: &[(&str, u64)], warnings: &mut Vec<String>) -> SslOptions {
    let text = text.trim();
    let number = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    if let Some(number) = number {
        return SslOptions::from_bits_retain(number);
    }
    let mut found = 0;
    for word in text.split([' ', '\t', '\r', '\n', ',']).filter(|word| !word.is_empty()) {
        match names.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
            Some((_, bit)) => found |= bit,
            None => warnings.push(format!("{parameter}: unknown name \"{word}\": it is left out")),
        }
    }
    SslOptions::from_bits_retain(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_turn_on_and_off() {
        let of = |ssl_options: &str, disabled_workarounds: &str| {
            let (ssl_options, disabled_workarounds) = (ssl_options.into(), disabled_workarounds.into());
            of(&ServerTls { ssl_options, disabled_workarounds, ..ServerTls::default() })
        };
        let (usual, warnings) = of("", "");
        assert!(usual.contains(SslOptions::ALL) && !usual.contains(SslOptions::NO_TICKET) && warnings.is_empty());
        assert_eq!(
            of("no_ticket, PRIORITIZE_CHACHA", "").0,
            usual | SslOptions::NO_TICKET | SslOptions::PRIORITIZE_CHACHA
        );
        assert_eq!(of("0x4000", "").0, usual | SslOptions::NO_TICKET);
        let less = usual & !SslOptions::DONT_INSERT_EMPTY_FRAGMENTS;
        assert_eq!(of("", "dont_insert_empty_fragments tls_d5_bug").0, less);
        assert!(!of("", "0xFFFFFFFFFFFFFFFF").0.intersects(SslOptions::ALL));
        let (found, warnings) = of("NO_TICKETS", "0xx");
        assert_eq!((found, warnings.len()), (usual, 2));
    }

    #[test]
    fn bits_are_those_of_the_library() {
        for (name, option) in [
            ("NO_TICKET", SslOptions::NO_TICKET),
            ("NO_COMPRESSION", SslOptions::NO_COMPRESSION),
            ("NO_RENEGOTIATION", SslOptions::NO_RENEGOTIATION),
            ("ENABLE_MIDDLEBOX_COMPAT", SslOptions::ENABLE_MIDDLEBOX_COMPAT),
            ("PRIORITIZE_CHACHA", SslOptions::PRIORITIZE_CHACHA),
        ] {
            assert_eq!(bits("", name, &OPTIONS, &mut Vec::new()), option, "{name}");
        }
        for (name, option) in [
            ("TLS_ROLLBACK_BUG", SslOptions::TLS_ROLLBACK_BUG),
            ("DONT_INSERT_EMPTY_FRAGMENTS", SslOptions::DONT_INSERT_EMPTY_FRAGMENTS),
        ] {
            assert_eq!(bits("", name, &WORKAROUNDS, &mut Vec::new()), option, "{name}");
        }
    }
}
