//! The parameters of TLS in a server (smtpd(8), TLS_README).

use super::ciphers::{Exclusions, Grade, Lists};
use super::listed_curves;
use super::protocols::Protocols;
use crate::settings;
use crate::settings::{Source, Value, seconds};

/// The use of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// STARTTLS is not offered.
    #[default]
    Off,
    /// STARTTLS is offered.
    May,
    /// Mail needs TLS.
    Encrypt,
}

/// `smtpd_tls_loglevel`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogLevel(pub u8);

impl Value for LogLevel {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let text = source.text(name)?;
        match text.trim().parse() {
            Ok(level @ 0..=4) => Ok(Self(level)),
            _ => Err(source.bad(name, &text, "give a number from 0 to 4")),
        }
    }
}

settings! {
    /// The parameters of TLS in the SMTP server.
    #[derive(Debug, Clone)]
    pub struct ServerTls {
        security_level: String = "smtpd_tls_security_level",
        /// The older form of `may`.
        use_tls: bool = "smtpd_use_tls",
        /// The older form of `encrypt`.
        enforce_tls: bool = "smtpd_enforce_tls",
        /// TLS begins with the connection.
        wrapper: bool = "smtpd_tls_wrappermode",
        chain_files: Vec<String> = "smtpd_tls_chain_files",
        cert_file: String = "smtpd_tls_cert_file",
        key_file: String = "smtpd_tls_key_file",
        eccert_file: String = "smtpd_tls_eccert_file",
        eckey_file: String = "smtpd_tls_eckey_file",
        dcert_file: String = "smtpd_tls_dcert_file",
        dkey_file: String = "smtpd_tls_dkey_file",
        ca_file: String = "smtpd_tls_CAfile",
        ca_path: String = "smtpd_tls_CApath",
        append_default_ca: bool = "tls_append_default_CA",
        ask_ccert: bool = "smtpd_tls_ask_ccert",
        req_ccert: bool = "smtpd_tls_req_ccert",
        fingerprint_digest: String = "smtpd_tls_fingerprint_digest",
        ccert_verifydepth: u32 = "smtpd_tls_ccert_verifydepth",
        protocols: Protocols = "smtpd_tls_protocols",
        mandatory_protocols: Protocols = "smtpd_tls_mandatory_protocols",
        ciphers: Grade = "smtpd_tls_ciphers",
        mandatory_ciphers: Grade = "smtpd_tls_mandatory_ciphers",
        exclude_ciphers: Exclusions = "smtpd_tls_exclude_ciphers",
        mandatory_exclude_ciphers: Exclusions = "smtpd_tls_mandatory_exclude_ciphers",
        /// The ciphers of each grade.
        lists: Lists => settings,
        preempt_cipherlist: bool = "tls_preempt_cipherlist",
        eecdh_auto_curves: String = "tls_eecdh_auto_curves",
        ssl_options: String = "tls_ssl_options",
        disabled_workarounds: String = "tls_disable_workarounds",
        session_cache_timeout_s: f64 = seconds "smtpd_tls_session_cache_timeout",
        always_issue_session_ids: bool = "smtpd_tls_always_issue_session_ids",
        ticket_cipher: String = "tls_session_ticket_cipher",
        loglevel: LogLevel = "smtpd_tls_loglevel",
        received_header: bool = "smtpd_tls_received_header",
    }
}

impl ServerTls {
    /// Return the use of TLS. With `wrapper`, mail needs it.
    pub fn level(&self) -> Level {
        let level = match self.security_level.trim() {
            "none" => Level::Off,
            "may" => Level::May,
            "encrypt" => Level::Encrypt,
            _ if self.enforce_tls => Level::Encrypt,
            _ if self.use_tls => Level::May,
            _ => Level::Off,
        };
        if self.wrapper { Level::Encrypt } else { level }
    }

    /// Whether a client is asked for a certificate. Only where mail needs TLS may it be required.
    pub fn asks_for_certificate(&self) -> bool {
        self.ask_ccert || self.requires_certificate()
    }

    /// Whether a client must show a certificate of a trusted authority.
    pub fn requires_certificate(&self) -> bool {
        self.req_ccert && self.level() == Level::Encrypt
    }

    /// Return the versions that clients may use.
    pub fn allowed_protocols(&self) -> &Protocols {
        if self.level() == Level::Encrypt { &self.mandatory_protocols } else { &self.protocols }
    }

    /// Return the cipher list in OpenSSL's syntax.
    pub fn cipher_list(&self) -> String {
        let must = self.level() == Level::Encrypt;
        let grade = if must { self.mandatory_ciphers } else { self.ciphers };
        let mut excluded: Vec<&str> = self.exclude_ciphers.words.iter().map(String::as_str).collect();
        if must {
            excluded.extend(self.mandatory_exclude_ciphers.words.iter().map(String::as_str));
        }
        if self.asks_for_certificate() {
            // Without a certificate of the server, a client shows none.
            excluded.push("aNULL");
        }
        self.lists.without(grade, excluded.into_iter())
    }

    /// Return the curves of the key exchange, best first; none for those of the library. A `?` in front: it may be unknown
    /// to the library.
    pub fn curves(&self) -> Vec<&str> {
        listed_curves(&self.eecdh_auto_curves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_parameters_count_without_a_level() {
        let level = |security_level: &str, use_tls, enforce_tls, wrapper| {
            let security_level = security_level.to_owned();
            ServerTls { security_level, use_tls, enforce_tls, wrapper, ..ServerTls::default() }.level()
        };
        assert_eq!(level("", false, false, false), Level::Off);
        assert_eq!(level("", true, false, false), Level::May);
        assert_eq!(level("", true, true, false), Level::Encrypt);
        assert_eq!(level("none", true, true, false), Level::Off);
        assert_eq!(level("may", false, true, false), Level::May);
        assert_eq!(level("none", false, false, true), Level::Encrypt);
    }

    #[test]
    fn ciphers_for_clients_with_certificates_have_a_server_certificate() {
        let mut tls = ServerTls { security_level: "may".into(), ..ServerTls::default() };
        tls.exclude_ciphers.words = vec!["RC4".into()];
        tls.mandatory_exclude_ciphers.words = vec!["AES128".into()];
        assert!(tls.cipher_list().ends_with(":!RC4"));
        tls.req_ccert = true;
        assert!(tls.cipher_list().ends_with(":!RC4"), "only where mail needs TLS");
        tls.security_level = "encrypt".into();
        assert!(tls.cipher_list().ends_with(":!RC4:!AES128:!aNULL"));
    }
}
