//! The settings that all sessions of a process share, and the client of one session.

use crate::cleanup::Options;
use crate::cleanup::settings::CleanupSettings;
use crate::log::Log;
use crate::queue::Appender;
use crate::settings;
use crate::settings::{Source, seconds};
use crate::smtp::server::config::ServerConfig;
use crate::smtpd::flow::Flow;
use crate::smtpd::listing::RecipientTables;
use crate::tls::Engines;
use crate::tls::settings::{LogLevel, ServerTls};
use std::sync::Arc;

settings! {
    /// Parameters of the sessions beside their dialogue.
    #[derive(Debug)]
    pub struct SiteSettings {
        /// In the Received header.
        mail_name: Box<str> = "mail_name",
        log_client_port: bool = "smtpd_client_port_logging",
        /// The Received header names authenticated users.
        names_users: bool = "smtpd_sasl_authenticated_header",
        /// Headers of authenticated users are completed as for local mail.
        rewrites_for_users: bool = has_users "local_header_rewrite_clients",
        in_flow_delay_s: f64 = seconds "in_flow_delay",
        /// The options of cleanup.
        options: Options = Options::received "receive_override_options",
    }
}

fn has_users<S: Source>(source: &S, name: &str) -> Result<bool, S::Error> {
    Ok(source.items(name)?.iter().any(|word| word == "permit_sasl_authenticated"))
}

/// TLS of all sessions.
#[derive(Debug)]
pub struct SiteTls {
    /// The library.
    pub engines: Arc<dyn Engines>,
    /// TLS begins with the connection.
    pub wrapper: bool,
    /// From 1 up handshakes are logged, from 2 up the certificates of clients and what is wrong with them.
    pub log_level: LogLevel,
    /// The Received header describes TLS.
    pub in_received: bool,
    /// Clients are asked for a certificate.
    pub asks_for_certificate: bool,
    /// A client without the certificate of a trusted authority is sent away.
    pub requires_certificate: bool,
}

impl SiteTls {
    /// Return the TLS of a site with these parameters.
    pub fn new(settings: &ServerTls, engines: Arc<dyn Engines>) -> Self {
        Self {
            engines,
            wrapper: settings.wrapper,
            log_level: settings.loglevel,
            in_received: settings.received_header,
            asks_for_certificate: settings.asks_for_certificate(),
            requires_certificate: settings.requires_certificate(),
        }
    }
}

/// The settings of all sessions.
pub struct Site {
    /// The parameters of the dialogue.
    pub server: Arc<ServerConfig>,
    /// The parameters beside the dialogue.
    pub settings: SiteSettings,
    /// TLS, if the site has it.
    pub tls: Option<SiteTls>,
    /// DATA is a question to the owner (`smtpd_data_restrictions`).
    pub asks_data: bool,
    /// A whole message is a question to the owner before it is stored.
    pub asks_content: bool,
    /// The log of the program.
    pub log: Arc<Log>,
    /// The parameters of cleanup.
    pub cleanup: Arc<CleanupSettings>,
    /// The tables that list the recipients of remembered domains.
    pub recipients: RecipientTables,
    /// The journal takes the messages; `None` for a stand-alone session, whose owner takes them.
    pub journal: Option<Arc<dyn Appender>>,
    /// Whether new messages wait for the queue manager.
    pub flow: Flow,
    /// The date of messages, in microseconds since 1970.
    pub wall_clock: fn() -> u64,
}

/// The client of a session.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// Its name, or `unknown`.
    pub name: Box<str>,
    /// Its name by reverse lookup alone, unverified, or `unknown`.
    pub reverse_name: Box<str>,
    /// Its address, without brackets.
    pub address: Box<str>,
    /// Its port.
    pub port: u16,
    /// `local_header_rewrite_clients` names it: its headers are completed as for local mail.
    pub rewrites_headers: bool,
    /// `smtpd_forbid_bare_newline_exclusions` names it.
    pub bare_newline_spared: bool,
    /// `smtpd_tls_loglevel_maps` has it, in place of `smtpd_tls_loglevel`.
    pub tls_log_level: Option<LogLevel>,
}

impl Client {
    /// `name[address]`, as log lines call it; with `:port` if the site wants it.
    pub fn log_name(&self, with_port: bool) -> String {
        if with_port {
            format!("{}[{}]:{}", self.name, self.address, self.port)
        } else {
            format!("{}[{}]", self.name, self.address)
        }
    }

    /// The address as in a domain literal (RFC 5321 §4.1.3).
    pub fn literal(&self) -> String {
        if self.address.contains(':') { format!("IPv6:{}", self.address) } else { self.address.to_string() }
    }
}
