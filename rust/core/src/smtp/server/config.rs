//! The parameters of the server (smtpd(8)).

use super::command::{Dialect, Verb};
use crate::settings;
use crate::settings::{Source, Value, keywords, seconds};
use crate::tls::settings::Level;

/// The keyword of REQUIRETLS (RFC 8689 §2).
const REQUIRETLS: &str = "REQUIRETLS";

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

impl Value for BareNewline {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let word = source.text(name)?;
        match &*word.trim().to_ascii_lowercase() {
            "no" => Ok(Self::No),
            "yes" | "normalize" => Ok(Self::Normalize),
            "note" => Ok(Self::Note),
            "reject" => Ok(Self::Reject),
            _ => Err(source.bad(name, &word, "give one of yes, normalize, note, reject, no")),
        }
    }
}

/// `smtpd_forbidden_commands`: commands of other protocols.
#[derive(Debug, Clone, Default)]
pub struct ForbiddenCommands {
    /// Words, in upper case.
    words: Vec<String>,
    /// Also words that do not start with a letter: the list has `regexp:{{/^[^A-Z]/ Bogus}}`.
    non_letters: bool,
}

impl ForbiddenCommands {
    /// The only table that the parameter may name, its default.
    const NON_LETTERS: &str = "regexp:{{/^[^A-Z]/ Bogus}}";

    /// Return whether a command starts with a forbidden word.
    pub fn has(&self, word: &str) -> bool {
        self.non_letters && !word.starts_with(|c: char| c.is_ascii_alphabetic())
            || self.words.iter().any(|listed| word.eq_ignore_ascii_case(listed))
    }
}

impl Value for ForbiddenCommands {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let compact = |text: &str| text.split_ascii_whitespace().collect::<String>();
        let mut forbidden = Self::default();
        for word in source.items(name)? {
            if !word.contains(':') {
                forbidden.words.push(word.to_ascii_uppercase());
            } else if compact(&word) == compact(Self::NON_LETTERS) {
                forbidden.non_letters = true;
            } else {
                return Err(source.bad(name, &word, &format!("give words, and {} if wanted", Self::NON_LETTERS)));
            }
        }
        Ok(forbidden)
    }
}

settings! {
    /// The parameters of the server, shared by all sessions.
    #[derive(Debug, Clone)]
    pub struct ServerConfig {
        myhostname: String = "myhostname",
        banner: String = "smtpd_banner",
        /// The parameters for parsing arguments.
        dialect: Dialect => settings,
        /// Upper case.
        discard_ehlo_keywords: Vec<String> = keywords "smtpd_discard_ehlo_keywords",
        disable_vrfy: bool = "disable_vrfy_command",
        helo_required: bool = "smtpd_helo_required",
        /// Octets.
        line_length_limit: usize = "line_length_limit",
        recipient_limit: usize = "smtpd_recipient_limit",
        recipient_overshoot_limit: u32 = "smtpd_recipient_overshoot_limit",
        /// 4xx instead of 5xx.
        soft_bounce: bool = "soft_bounce",
        soft_error_limit: u32 = "smtpd_soft_error_limit",
        hard_error_limit: u32 = "smtpd_hard_error_limit",
        junk_command_limit: u32 = "smtpd_junk_command_limit",
        error_sleep_s: f64 = seconds "smtpd_error_sleep_time",
        timeout_s: f64 = seconds "smtpd_timeout",
        per_request_deadline: bool = "smtpd_per_request_deadline",
        /// Octets a second.
        min_data_rate: u32 = "smtpd_min_data_rate",
        forbid_unauth_pipelining: bool = "smtpd_forbid_unauth_pipelining",
        bare_newline: BareNewline = "smtpd_forbid_bare_newline",
        bare_newline_reject_code: u16 = "smtpd_forbid_bare_newline_reject_code",
        forbidden_commands: ForbiddenCommands = "smtpd_forbidden_commands",
        /// Upper case.
        noop_commands: Vec<String> = keywords "smtpd_noop_commands",
        /// Maximum octets of a client's answer to a challenge.
        auth_line_limit: usize = "smtpd_sasl_response_limit",
        /// AUTH needs TLS.
        auth_needs_tls: bool = "smtpd_tls_auth_only",
        /// REQUIRETLS inside TLS.
        requiretls: bool = "requiretls_enable",
        /// Seconds.
        starttls_timeout_s: f64 = seconds "smtpd_starttls_timeout",
        /// The use of TLS, if the owner has what it needs.
        tls: Level,
        /// The SASL mechanisms of the owner; AUTH is off without any.
        auth_mechanisms: Vec<String>,
        /// HELO is a question to the owner.
        asks_helo: bool,
        /// MAIL is a question to the owner.
        asks_mail: bool,
        /// Further commands that are questions to the owner: of RSET, NOOP and QUIT.
        asks_verbs: Vec<Verb>,
    }
}

impl ServerConfig {
    /// Return the parameters of a dialogue on standard input (`sendmail -bs`). A local program may send all commands at
    /// once.
    pub fn stand_alone(self) -> Self {
        Self { forbid_unauth_pipelining: false, ..self }
    }

    /// Return the same parameters with the stages at which the owner is asked. `asked` chooses among helo, mail, rset,
    /// noop and quit. The owner is asked at each other stage.
    pub fn asking(self, asked: impl Fn(&str) -> bool) -> Self {
        let verbs = [("rset", Verb::Rset), ("noop", Verb::Noop), ("quit", Verb::Quit)];
        let asks_verbs = verbs.into_iter().filter(|(stage, _)| asked(stage)).map(|(_, verb)| verb).collect();
        Self { asks_helo: asked("helo"), asks_mail: asked("mail"), asks_verbs, ..self }
    }

    /// Return the reply to EHLO: the keywords that work, in Postfix's order. `secured`: TLS has begun.
    pub fn ehlo_text(&self, secured: bool) -> String {
        let size = match self.dialect.message_size_limit {
            0 => "SIZE".to_owned(),
            limit => format!("SIZE {limit}"),
        };
        let mut keywords = vec!["PIPELINING", &size];
        if !self.disable_vrfy {
            keywords.push("VRFY");
        }
        if self.tls != Level::Off && !secured {
            keywords.push("STARTTLS");
        }
        let auth = format!("AUTH {}", self.auth_mechanisms.join(" "));
        if self.allows_auth(secured) {
            keywords.push(&auth);
        }
        keywords.extend(["ENHANCEDSTATUSCODES", "8BITMIME", "DSN"]);
        if self.dialect.smtputf8 {
            keywords.push("SMTPUTF8");
        }
        keywords.push("CHUNKING");
        if self.offers_requiretls(secured) {
            keywords.push(REQUIRETLS);
        }
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

    /// Return whether the client may authenticate. `secured`: TLS has begun.
    pub fn allows_auth(&self, secured: bool) -> bool {
        !self.auth_mechanisms.is_empty() && (secured || !self.auth_needs_tls)
    }

    /// Return whether MAIL takes REQUIRETLS. `secured`: TLS has begun.
    pub fn offers_requiretls(&self, secured: bool) -> bool {
        self.requiretls && secured && !self.discards(REQUIRETLS)
    }

    /// Return whether `smtpd_discard_ehlo_keywords` has this keyword.
    pub fn discards(&self, keyword: &str) -> bool {
        self.discard_ehlo_keywords.iter().any(|discarded| discarded == keyword)
    }
}
