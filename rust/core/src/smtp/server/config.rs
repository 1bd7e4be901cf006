//! The parameters of the server, with Postfix's names and defaults.

use super::command::{Dialect, Verb};

/// `smtpd_forbid_bare_newline`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BareNewline {
    /// A lone dot ends a message after any kind of line end.
    No,
    /// CRLF.CRLF ends a message; LF alone ends a line and becomes CRLF.
    #[default]
    Normalize,
    /// The same, with a log line.
    Note,
    /// A command or message with LF alone is refused.
    Reject,
}

/// The parameters of the server, shared by all sessions.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// `myhostname`
    pub myhostname: String,
    /// `smtpd_banner`
    pub banner: String,
    /// The parameters for parsing arguments.
    pub dialect: Dialect,
    /// `smtpd_discard_ehlo_keywords`, in upper case.
    pub discard_ehlo_keywords: Vec<String>,
    /// `disable_vrfy_command`
    pub disable_vrfy: bool,
    /// `smtpd_helo_required`
    pub helo_required: bool,
    /// `line_length_limit`, octets
    pub line_length_limit: usize,
    /// `smtpd_recipient_limit`
    pub recipient_limit: usize,
    /// `smtpd_recipient_overshoot_limit`
    pub recipient_overshoot_limit: u32,
    /// `soft_bounce`: 4xx instead of 5xx.
    pub soft_bounce: bool,
    /// `smtpd_soft_error_limit`
    pub soft_error_limit: u32,
    /// `smtpd_hard_error_limit`
    pub hard_error_limit: u32,
    /// `smtpd_junk_command_limit`
    pub junk_command_limit: u32,
    /// `smtpd_error_sleep_time`, seconds
    pub error_sleep_s: f64,
    /// `smtpd_timeout`, seconds
    pub timeout_s: f64,
    /// `smtpd_per_request_deadline`
    pub per_request_deadline: bool,
    /// `smtpd_min_data_rate`, octets a second
    pub min_data_rate: u32,
    /// `smtpd_forbid_unauth_pipelining`
    pub forbid_unauth_pipelining: bool,
    /// `smtpd_forbid_bare_newline`
    pub bare_newline: BareNewline,
    /// `smtpd_forbid_bare_newline_reject_code`
    pub bare_newline_reject_code: u16,
    /// `smtpd_forbidden_commands`: words, in upper case.
    pub forbidden_commands: Vec<String>,
    /// `smtpd_forbidden_commands` has `regexp:{{/^[^A-Z]/ Bogus}}`.
    pub forbid_non_letters: bool,
    /// `smtpd_noop_commands`, in upper case.
    pub noop_commands: Vec<String>,
    /// The SASL mechanisms of the owner; AUTH is off without any.
    pub auth_mechanisms: Vec<String>,
    /// `smtpd_sasl_response_limit`: maximum octets of a client's answer to a challenge.
    pub auth_line_limit: usize,
    /// HELO is a question to the owner.
    pub asks_helo: bool,
    /// MAIL is a question to the owner.
    pub asks_mail: bool,
    /// Further commands that are questions to the owner: of RSET, NOOP and QUIT.
    pub asks_verbs: Vec<Verb>,
}

impl Default for ServerConfig {
    /// Return Postfix's defaults for a host called `localhost`.
    fn default() -> Self {
        Self {
            myhostname: "localhost".into(),
            banner: "localhost ESMTP Postfix".into(),
            dialect: Dialect { smtputf8: true, message_size_limit: 10_240_000, ..Dialect::default() },
            discard_ehlo_keywords: Vec::new(),
            disable_vrfy: false,
            helo_required: false,
            line_length_limit: 2048,
            recipient_limit: 1000,
            recipient_overshoot_limit: 1000,
            soft_bounce: false,
            soft_error_limit: 10,
            hard_error_limit: 20,
            junk_command_limit: 100,
            error_sleep_s: 1.0,
            timeout_s: 300.0,
            per_request_deadline: false,
            min_data_rate: 500,
            forbid_unauth_pipelining: true,
            bare_newline: BareNewline::Normalize,
            bare_newline_reject_code: 550,
            forbidden_commands: ["CONNECT", "GET", "POST"].map(String::from).into(),
            forbid_non_letters: true,
            noop_commands: Vec::new(),
            auth_mechanisms: Vec::new(),
            auth_line_limit: 12_288,
            asks_helo: false,
            asks_mail: false,
            asks_verbs: Vec::new(),
        }
    }
}

impl ServerConfig {
    /// Return EHLO's reply: only keywords that work, in Postfix's order.
    pub fn ehlo_text(&self) -> String {
        let size = match self.dialect.message_size_limit {
            0 => "SIZE".to_owned(),
            limit => format!("SIZE {limit}"),
        };
        let mut keywords = vec!["PIPELINING", &size];
        if !self.disable_vrfy {
            keywords.push("VRFY");
        }
        let auth = format!("AUTH {}", self.auth_mechanisms.join(" "));
        if !self.auth_mechanisms.is_empty() {
            keywords.push(&auth);
        }
        keywords.extend(["ENHANCEDSTATUSCODES", "8BITMIME", "DSN"]);
        if self.dialect.smtputf8 {
            keywords.push("SMTPUTF8");
        }
        keywords.push("CHUNKING");
        let mut text = self.myhostname.clone();
        for keyword in keywords {
            let name = keyword.split(' ').next().unwrap_or_default();
            if !self.discards(name) {
                text.push('\n');
                text.push_str(keyword);
            }
        }
        text
    }
    /// Whether `smtpd_discard_ehlo_keywords` has this keyword.
    pub fn discards(&self, keyword: &str) -> bool {
        self.discard_ehlo_keywords.iter().any(|discarded| discarded == keyword)
    }
}
