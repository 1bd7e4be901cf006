//! The settings of the SMTP client, and the server of a connection.

use crate::address::generic::Generic;
use crate::inspection::lists::Lists;
use crate::lookup::Maps;
use crate::mail::mime::MimeRules;
use crate::sasl::{Kinds, Login, Mechanisms, Options};
use crate::settings;
use crate::settings::{Source, seconds};
use crate::smtp::client::requiretls::RequireTls;
use crate::tls::client_settings::ClientTls;
use crate::tls::{ClientEngines, Policy};
use std::sync::Arc;

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RFC 5321
    #[default]
    Smtp,
    /// RFC 2033: LHLO, and a reply for each recipient after the message.
    Lmtp,
}

settings! {
    /// The timeout of each stage in seconds.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub struct Timeouts {
        /// Greeting and EHLO.
        helo: f64 = seconds "smtp_helo_timeout",
        mail: f64 = seconds "smtp_mail_timeout",
        rcpt: f64 = seconds "smtp_rcpt_timeout",
        /// DATA.
        data_init: f64 = seconds "smtp_data_init_timeout",
        /// Each piece of the message.
        data_xfer: f64 = seconds "smtp_data_xfer_timeout",
        /// The end of the message.
        data_done: f64 = seconds "smtp_data_done_timeout",
        rset: f64 = seconds "smtp_rset_timeout",
    }
}

settings! {
    /// The settings of logins.
    #[derive(Debug, Clone)]
    pub struct AuthSettings {
        /// Mechanisms that are not used, by property.
        options: Options = options "smtp_sasl_security_options",
        /// The same inside TLS.
        tls_options: Options = options "smtp_sasl_tls_security_options",
        /// The same inside TLS with a verified server.
        verified_options: Options = options "smtp_sasl_tls_verified_security_options",
        /// Defer mail if the server refuses the login.
        soft_bounce: bool = "smtp_sasl_auth_soft_bounce",
        /// Add AUTH=<> to MAIL after a login.
        dummy_mail_auth: bool = "smtp_send_dummy_mail_auth",
        /// Name the user as the identity to act as, too.
        names_identity: bool = "send_cyrus_sasl_authzid",
        /// The program sets the mechanisms of `smtp_sasl_mechanism_filter`; `None` without a filter.
        filter: Option<Kinds>,
        /// The program sets the library of mechanisms.
        library: Option<Arc<dyn Mechanisms>>,
    }
}

settings! {
    /// The settings of STARTTLS, besides the policy of each connection.
    #[derive(Debug, Clone)]
    pub struct TlsSettings {
        /// TLS begins with the connection.
        wrapper: bool = "smtp_tls_wrappermode",
        /// Seconds for the handshake.
        timeout: f64 = seconds "smtp_starttls_timeout",
        /// Log servers that offer STARTTLS where no TLS is wanted.
        note_offer: bool = "smtp_tls_note_starttls_offer",
        /// Seconds that a message is in the queue before it goes out in the clear where TLS has failed.
        clear_after: f64 = seconds "minimal_backoff_time",
        /// The program sets the library; `None` if it does not work.
        engines: Option<Arc<dyn ClientEngines>>,
    }
}

settings! {
    /// The settings that all connections of a client share. `read_for` reads those of an LMTP client by LMTP's names.
    #[derive(Debug, Clone)]
    pub struct ClientSettings {
        /// The protocol.
        protocol: Protocol,
        /// The name in EHLO.
        helo_name: String = helo_name "smtp_helo_name",
        /// This system's name. A server that replies with it is this system.
        myhostname: String = "myhostname",
        /// Send EHLO even if the greeting lacks the word ESMTP.
        always_send_ehlo: bool = "smtp_always_send_ehlo",
        /// Send HELO only.
        never_send_ehlo: bool = "smtp_never_send_ehlo",
        /// Defer after a greeting with 5xx.
        skip_5xx_greeting: bool = "smtp_skip_5xx_greeting",
        /// EHLO keywords to ignore.
        discard_ehlo_keywords: Vec<String> = "smtp_discard_ehlo_keywords",
        /// Maximum octets of a line; longer lines are broken. 0: no limit.
        line_length_limit: usize = "smtp_line_length_limit",
        /// Minimum octets of a message that the server accepts in a second. data_xfer_timeout applies to the whole
        /// message, and accepted octets extend it. `None` without `smtp_per_request_deadline`: the timeout applies to
        /// each piece.
        min_data_rate: Option<f64> = data_rate "smtp_min_data_rate",
        /// The timeout of each stage.
        timeouts: Timeouts => settings,
        /// STARTTLS.
        starttls: TlsSettings => settings,
        /// Logins.
        auth: AuthSettings => settings,
        /// Convert 8-bit content for a server without 8BITMIME.
        converts: bool = is_off "disable_mime_output_conversion",
        /// The limits of that conversion.
        mime: MimeRules => settings,
        /// The program sets the tables of `smtp_header_checks` and related parameters.
        checks: Arc<Lists>,
        /// Maps addresses; `None` without tables.
        generic: Option<Arc<Generic>> = Generic::read_some "smtp_generic_maps",
    }
}

/// Read options. As in Postfix, they have no effect and no errors while nobody logs in.
fn options<S: Source>(source: &S, name: &str) -> Result<Options, S::Error> {
    if !source.flag("smtp_sasl_auth_enable")? {
        return Ok(Options::NEVER);
    }
    let words = source.items(name)?;
    Options::parse(words.iter().map(String::as_str))
        .map_err(|word| source.bad(name, word, &format!("give some of {}", Options::names())))
}

fn helo_name<S: Source>(source: &S, name: &str) -> Result<String, S::Error> {
    let helo = source.text(name)?;
    if helo.is_empty() || !helo.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(source.bad(name, &helo, "give a name in ASCII without blanks"));
    }
    Ok(helo)
}

fn is_off<S: Source>(source: &S, name: &str) -> Result<bool, S::Error> {
    Ok(!source.flag(name)?)
}

fn data_rate<S: Source>(source: &S, name: &str) -> Result<Option<f64>, S::Error> {
    Ok(if source.flag("smtp_per_request_deadline")? { Some(source.number(name)? as f64) } else { None })
}

/// The parameters of an LMTP client under the names of SMTP's: `lmtp_mail_timeout` for `smtp_mail_timeout`.
pub struct Lmtp<'a, S>(pub &'a S);

impl<S> Lmtp<'_, S> {
    /// Return LMTP's name of a parameter, with LHLO in place of HELO and EHLO (RFC 2033).
    fn name(name: &str) -> String {
        match name.strip_prefix("smtp_") {
            Some(rest) => format!("lmtp_{}", rest.replace("helo", "lhlo").replace("ehlo", "lhlo")),
            None => name.into(),
        }
    }
}

impl<S: Source> Source for Lmtp<'_, S> {
    type Error = S::Error;

    fn text(&self, name: &str) -> Result<String, S::Error> {
        self.0.text(&Self::name(name))
    }

    fn number(&self, name: &str) -> Result<i64, S::Error> {
        self.0.number(&Self::name(name))
    }

    fn seconds(&self, name: &str) -> Result<f64, S::Error> {
        self.0.seconds(&Self::name(name))
    }

    /// LMTP has no parameters for the first command: it is LHLO after any greeting.
    fn flag(&self, name: &str) -> Result<bool, S::Error> {
        match name {
            "smtp_always_send_ehlo" => Ok(true),
            "smtp_never_send_ehlo" => Ok(false),
            _ => self.0.flag(&Self::name(name)),
        }
    }

    fn items(&self, name: &str) -> Result<Vec<String>, S::Error> {
        self.0.items(&Self::name(name))
    }

    fn maps(&self, name: &str) -> Result<Maps, S::Error> {
        self.0.maps(&Self::name(name))
    }

    fn table(&self, name: &str, word: &str) -> Result<Maps, S::Error> {
        self.0.table(&Self::name(name), word)
    }

    fn bad(&self, name: &str, value: &str, fix: &str) -> S::Error {
        self.0.bad(&Self::name(name), value, fix)
    }
}

/// Read the parameters of TLS of a client of this protocol.
pub fn read_tls<S: Source>(protocol: Protocol, source: &S) -> Result<ClientTls, S::Error> {
    match protocol {
        Protocol::Smtp => ClientTls::read(source),
        Protocol::Lmtp => ClientTls::read(&Lmtp(source)),
    }
}

/// The server of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// `name[address]`
    pub name_address: String,
    /// `name[address]:port`
    pub name_address_port: String,
    /// The next hop, for the text about a mail loop.
    pub nexthop: String,
    /// A server with this system's name is a mail loop: true on the standard port.
    pub loop_detect: bool,
    /// No other host of the next hop has a better preference.
    pub best: bool,
    /// This client's account there.
    pub login: Login,
    /// The use of TLS; `None` for none.
    pub tls: Option<Arc<Policy>>,
    /// The policy for messages that ask for REQUIRETLS; other messages have another connection.
    pub requiretls: RequireTls,
}

impl Protocol {
    /// Return the protocol with this name: `smtp` or `lmtp`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "smtp" => Some(Self::Smtp),
            "lmtp" => Some(Self::Lmtp),
            _ => None,
        }
    }
}

impl ClientSettings {
    /// Read the parameters of a client of this protocol.
    pub fn read_for<S: Source>(protocol: Protocol, source: &S) -> Result<Self, S::Error> {
        let mut settings = match protocol {
            Protocol::Smtp => Self::read(source)?,
            Protocol::Lmtp => Self::read(&Lmtp(source))?,
        };
        if let (Protocol::Lmtp, Some(generic)) = (protocol, &mut settings.generic) {
            Arc::make_mut(generic).parameter = "lmtp_generic_maps";
        }
        Ok(Self { protocol, ..settings })
    }
}

impl Peer {
    /// Return the host's name.
    pub fn host(&self) -> &str {
        self.name_address.split('[').next().unwrap_or_default()
    }

    /// Describe a server, without a login and without TLS. `port`: 0 for a socket in the file system, which `address` names.
    pub fn new(host: &str, address: &str, port: u16, nexthop: &str, loop_detect: bool, best: bool) -> Self {
        let name_address = format!("{host}[{address}]");
        let name_address_port = if port == 0 { name_address.clone() } else { format!("{name_address}:{port}") };
        Self {
            name_address,
            name_address_port,
            nexthop: nexthop.into(),
            loop_detect,
            best,
            login: Login::Never,
            tls: None,
            requiretls: RequireTls::Disable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::defaults;

    #[test]
    fn lmtp_has_names_of_its_own() {
        let lmtp = defaults::read(|source| ClientSettings::read_for(Protocol::Lmtp, source));
        assert_eq!(lmtp.protocol, Protocol::Lmtp);
        assert_eq!((lmtp.always_send_ehlo, lmtp.never_send_ehlo, lmtp.skip_5xx_greeting), (true, false, true));
        for (smtp, name) in [
            ("smtp_helo_name", "lmtp_lhlo_name"),
            ("smtp_discard_ehlo_keywords", "lmtp_discard_lhlo_keywords"),
            ("smtp_data_init_timeout", "lmtp_data_init_timeout"),
            ("myhostname", "myhostname"),
        ] {
            assert_eq!(Lmtp::<defaults::Defaults>::name(smtp), name);
        }
    }
}
