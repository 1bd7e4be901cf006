//! What the SMTP client goes by: its parameters from main.cf, and whom it talks to.

/// Which protocol a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321
    Smtp,
    /// RFC 2033: LHLO, and a reply for each recipient after the message.
    Lmtp,
}

/// Seconds that each stage may take, by the names of postconf(5) without `smtp_` and `_timeout`.
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

/// What a client does the same way on every connection.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The protocol.
    pub protocol: Protocol,
    /// The name given with EHLO (smtp_helo_name).
    pub helo_name: String,
    /// Who answers with this name is ourselves.
    pub myhostname: String,
    /// EHLO even when the greeting does not say ESMTP.
    pub always_send_ehlo: bool,
    /// HELO only.
    pub never_send_ehlo: bool,
    /// A greeting with 5xx defers.
    pub skip_5xx_greeting: bool,
    /// EHLO keywords that count as not offered.
    pub discard_ehlo_keywords: Vec<String>,
    /// Octets of a line that is sent; longer ones are broken. 0: none is.
    pub line_length_limit: usize,
    /// Octets a second that the server must take of a message; `None`: data_xfer_timeout holds for each piece that it
    /// takes. With a rate, it holds for the message as a whole, and what is taken in time extends it.
    pub min_data_rate: Option<f64>,
    /// How long each stage may take.
    pub timeouts: Timeouts,
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// `name[address]`
    pub name_address: String,
    /// `name[address]:port`
    pub name_address_port: String,
    /// The destination that led here, for the text about a loop.
    pub nexthop: String,
    /// An answer with our own name is a loop: true on the standard port.
    pub loop_detect: bool,
    /// No other host of the destination is preferred to this one.
    pub best: bool,
}
