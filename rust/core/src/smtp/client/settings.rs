//! The settings of the SMTP client, and the server of a connection.

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321
    Smtp,
    /// RFC 2033: LHLO, and a reply for each recipient after the message.
    Lmtp,
}

/// The timeout of each stage in seconds; names as in postconf(5) without `smtp_` and `_timeout`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timeouts {
    /// Greeting and EHLO.
    pub helo: f64,
    /// MAIL.
    pub mail: f64,
    /// RCPT.
    pub rcpt: f64,
    /// DATA.
    pub data_init: f64,
    /// Each piece of the message.
    pub data_xfer: f64,
    /// The end of the message.
    pub data_done: f64,
    /// RSET.
    pub rset: f64,
}

/// The settings that all connections of a client share.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The protocol.
    pub protocol: Protocol,
    /// The name in EHLO (smtp_helo_name).
    pub helo_name: String,
    /// This system's name. A server that replies with it is this system.
    pub myhostname: String,
    /// Send EHLO even if the greeting lacks the word ESMTP.
    pub always_send_ehlo: bool,
    /// Send HELO only.
    pub never_send_ehlo: bool,
    /// Defer after a greeting with 5xx.
    pub skip_5xx_greeting: bool,
    /// EHLO keywords to ignore.
    pub discard_ehlo_keywords: Vec<String>,
    /// Maximum octets of a line; longer lines are broken. 0: no limit.
    pub line_length_limit: usize,
    /// Minimum octets of a message that the server accepts in a second; `None`: data_xfer_timeout applies to each
    /// piece. With a rate, the timeout applies to the whole message, and accepted octets extend it.
    pub min_data_rate: Option<f64>,
    /// The timeouts.
    pub timeouts: Timeouts,
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
    /// Return whether `name` can be the argument of EHLO: printable ASCII without blanks.
    pub fn is_helo_name(name: &str) -> bool {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())
    }
}

impl Peer {
    /// Describe a server. `port`: 0 for a socket in the file system, which `address` names.
    pub fn new(host: &str, address: &str, port: u16, nexthop: &str, loop_detect: bool, best: bool) -> Self {
        let name_address = format!("{host}[{address}]");
        let name_address_port = if port == 0 { name_address.clone() } else { format!("{name_address}:{port}") };
        Self { name_address, name_address_port, nexthop: nexthop.into(), loop_detect, best }
    }
}
