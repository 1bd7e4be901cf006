//! Commands: the verb of a line, and the arguments of MAIL and RCPT (RFC 5321 §4.1.1, RFC 1870, 3461, 6152, 6531).
//!
//! A line is split once into a verb and the rest. Arguments are parsed only after the state of the dialogue allows the
//! command, which gives Postfix's order of error replies. A refusal is the reply to send, in Postfix's words.

use crate::address::path::Path;
use crate::address::syntax::Syntax;
use crate::mail::envelope::{BodyType, Notify, Recipient, Ret};
use crate::mail::reply::Reply;
use crate::mail::xtext::is_xtext;
use crate::settings;

/// Maximum number in SIZE= and BDAT: the maximum file size.
pub const SIZE_MAX_OCTETS: u64 = i64::MAX as u64;
/// Maximum number of octets in ENVID (RFC 3461 §4.4).
pub const ENVID_MAX_OCTETS: usize = 100;
/// Maximum number of octets in ORCPT (RFC 3461 §4.2).
pub const ORCPT_MAX_OCTETS: usize = 500;

/// The first word of a command. Discriminants index the counts of the `disconnect from` line, in Postfix's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Verb {
    /// HELO
    Helo,
    /// EHLO
    Ehlo,
    /// XCLIENT, not implemented
    Xclient,
    /// XFORWARD, not implemented
    Xforward,
    /// STARTTLS, if the site has TLS
    Starttls,
    /// AUTH, if the site has it
    Auth,
    /// MAIL
    Mail,
    /// RCPT
    Rcpt,
    /// DATA
    Data,
    /// BDAT (RFC 3030)
    Bdat,
    /// RSET
    Rset,
    /// NOOP
    Noop,
    /// VRFY
    Vrfy,
    /// ETRN, not implemented
    Etrn,
    /// QUIT
    Quit,
    /// HELP
    Help,
    /// Anything else.
    Unknown,
}

/// Number of verbs, `Unknown` included.
pub const VERBS: usize = Verb::Unknown as usize + 1;

/// Every verb but `Unknown`, with its name; each at the index of its discriminant.
const NAMES: [(Verb, &str); VERBS - 1] = [
    (Verb::Helo, "HELO"),
    (Verb::Ehlo, "EHLO"),
    (Verb::Xclient, "XCLIENT"),
    (Verb::Xforward, "XFORWARD"),
    (Verb::Starttls, "STARTTLS"),
    (Verb::Auth, "AUTH"),
    (Verb::Mail, "MAIL"),
    (Verb::Rcpt, "RCPT"),
    (Verb::Data, "DATA"),
    (Verb::Bdat, "BDAT"),
    (Verb::Rset, "RSET"),
    (Verb::Noop, "NOOP"),
    (Verb::Vrfy, "VRFY"),
    (Verb::Etrn, "ETRN"),
    (Verb::Quit, "QUIT"),
    (Verb::Help, "HELP"),
];

impl Verb {
    /// Return the verb of a line without its line end, and the text after the verb, without leading blanks.
    pub fn split(line: &str) -> (Self, &str) {
        let (word, rest) = first_word(line);
        let found = NAMES.iter().find(|(_, name)| word.eq_ignore_ascii_case(name));
        (found.map_or(Self::Unknown, |(verb, _)| *verb), rest)
    }

    /// Return the verb in upper case, `UNKNOWN` for the rest: the log's `after MAIL`.
    pub fn name(self) -> &'static str {
        NAMES.get(self as usize).map_or("UNKNOWN", |(_, name)| name)
    }

    /// Return all verbs in the order of the `disconnect from` line.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(verb, _)| *verb).chain([Self::Unknown])
    }

    /// Whether the client must wait for the reply before its next command (RFC 2920 §3.1).
    pub fn ends_a_group(self) -> bool {
        matches!(self, Self::Helo | Self::Ehlo | Self::Data | Self::Noop | Self::Vrfy | Self::Auth)
    }

    /// Whether it counts for `smtpd_junk_command_limit`.
    pub fn is_junk(self) -> bool {
        matches!(self, Self::Helo | Self::Ehlo | Self::Rset | Self::Noop | Self::Vrfy | Self::Etrn | Self::Help)
    }

    /// Whether the client may send it before TLS where mail needs TLS.
    pub fn may_precede_tls(self) -> bool {
        matches!(
            self,
            Self::Helo
                | Self::Ehlo
                | Self::Xclient
                | Self::Xforward
                | Self::Starttls
                | Self::Noop
                | Self::Quit
                | Self::Help
                | Self::Unknown
        )
    }

    /// Whether the server answers it with `502` only, on every site or on one without that feature.
    pub fn is_unimplemented(self) -> bool {
        matches!(self, Self::Xclient | Self::Xforward | Self::Starttls | Self::Auth | Self::Etrn)
    }
}

/// Return the first word of a text and the rest, both without the blanks around them.
pub fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_matches(is_blank);
    let end = text.find(is_blank).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start_matches(is_blank))
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

settings! {
    /// The parameters of a site that the parser of arguments needs.
    #[derive(Debug, Clone)]
    pub struct Dialect {
        strict_envelopes: bool = "strict_rfc821_envelopes",
        smtputf8: bool = "smtputf8_enable",
        /// An address that is not ASCII needs the SMTPUTF8 parameter.
        strict_smtputf8: bool = "strict_smtputf8",
        /// Octets; 0: no limit.
        message_size_limit: u64 = "message_size_limit",
        /// Address syntax allowed beyond RFC 5321.
        syntax: Syntax => settings,
    }
}

impl Dialect {
    /// Return the path at the start of `text`, not null unless `null`, and what follows it; `None` for a bad address.
    fn path<'a>(&self, text: &'a str, null: bool) -> Option<(Path, &'a str)> {
        let (path, rest) = Path::parse(text, self.strict_envelopes).ok()?;
        let allowed = if path.is_null() { null } else { self.syntax.allows_path(&path) };
        allowed.then_some((path, rest))
    }
}

/// The arguments of MAIL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailArguments {
    /// The address for non-delivery reports.
    pub reverse_path: Path,
    /// SIZE=, octets; 0 without the parameter.
    pub size_octets: u64,
    /// BODY=
    pub body: BodyType,
    /// The SMTPUTF8 parameter is present.
    pub smtputf8: bool,
    /// The REQUIRETLS parameter is present.
    pub requiretls: bool,
    /// RET=
    pub ret: Ret,
    /// ENVID=, in its xtext form.
    pub envid: Option<Box<str>>,
    /// AUTH=, in its xtext form; `<>` without an identity.
    pub auth: Option<Box<str>>,
}

/// The reason to refuse arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The address is invalid: the reply, and the address for the log.
    Address(Reply, Box<str>),
    /// Anything else.
    Other(Reply),
    /// The client announced more than `message_size_limit`.
    TooLarge(Reply, Path),
}

impl MailArguments {
    /// Parse `FROM:<...> ...`; `requiretls`: the client may ask for it. RFC 5321 §4.1.1.2, RFC 8689 §2.
    pub fn parse(arguments: &str, dialect: &Dialect, requiretls: bool) -> Result<Self, Refused> {
        let syntax = || Refused::Other(Reply::new(501, [5, 4], "Syntax: MAIL FROM:<address>"));
        let text = strip_keyword(arguments, "FROM:").ok_or_else(syntax)?;
        let bad = || Refused::Address(Reply::new(501, [1, 7], "Bad sender address syntax"), text.into());
        let (reverse_path, parameters) = dialect.path(text, true).ok_or_else(bad)?;
        let mut mail = Self { reverse_path, ..Self::default() };
        for parameter in parameters.split(is_blank).filter(|parameter| !parameter.is_empty()) {
            mail.parameter(parameter, dialect, requiretls)?;
        }
        if !mail.smtputf8 && !has_ascii_domain(&mail.reverse_path) {
            return Err(bad());
        }
        if dialect.strict_smtputf8 && !mail.smtputf8 && !mail.reverse_path.is_ascii() {
            return Err(must_declare_smtputf8());
        }
        if dialect.message_size_limit > 0 && mail.size_octets > dialect.message_size_limit {
            let reply = Reply::new(552, [3, 4], "Message size exceeds fixed limit");
            return Err(Refused::TooLarge(reply, mail.reverse_path));
        }
        Ok(mail)
    }

    fn parameter(&mut self, parameter: &str, dialect: &Dialect, requiretls: bool) -> Result<(), Refused> {
        let bad = |text: &str| Err(Refused::Other(Reply::new(501, [5, 4], text)));
        let (keyword, value) = parameter.split_once('=').map_or((parameter, None), |(k, v)| (k, Some(v)));
        match (keyword.to_ascii_uppercase().as_str(), value) {
            ("SIZE", Some(value)) => {
                if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
                    return bad("Bad message size syntax");
                }
                // A size above the maximum file size is refused at any limit.
                self.size_octets = match value.parse() {
                    Ok(octets) if octets <= SIZE_MAX_OCTETS => octets,
                    _ => {
                        let text = "Message size exceeds file system imposed limit";
                        return Err(Refused::Other(Reply::new(552, [3, 4], text)));
                    }
                };
            }
            ("BODY", Some(value)) => self.body = BodyType::of(value).ok_or_else(|| unsupported(parameter))?,
            ("SMTPUTF8", None) if dialect.smtputf8 => self.smtputf8 = true,
            ("REQUIRETLS", None) if requiretls => self.requiretls = true,
            ("RET", Some(value)) => {
                self.ret = match Ret::of(value) {
                    Some(ret) if self.ret == Ret::Unsaid => ret,
                    _ => return bad("Bad RET parameter syntax"),
                };
            }
            ("ENVID", Some(value)) => {
                if self.envid.is_some() || value.len() > ENVID_MAX_OCTETS || !is_xtext(value) {
                    return bad("Bad ENVID parameter syntax");
                }
                self.envid = Some(value.into());
            }
            // An AUTH= value in an invalid form counts as `<>`. It refuses no mail, like Postfix (RFC 4954 §5).
            ("AUTH", Some(value)) => {
                let valid = value == "<>" || (!value.is_empty() && is_xtext(value));
                self.auth = Some(if valid { value.into() } else { "<>".into() });
            }
            _ => return Err(unsupported(parameter)),
        }
        Ok(())
    }
}

impl MailArguments {
    /// Return the parameters in written form: `SIZE=5`, `BODY=8BITMIME`.
    pub fn parameters(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.size_octets > 0 {
            words.push(format!("SIZE={}", self.size_octets));
        }
        if self.body != BodyType::Unsaid {
            words.push(format!("BODY={}", self.body.keyword()));
        }
        if self.smtputf8 {
            words.push("SMTPUTF8".into());
        }
        if self.requiretls {
            words.push("REQUIRETLS".into());
        }
        if self.ret != Ret::Unsaid {
            words.push(format!("RET={}", self.ret.keyword()));
        }
        words.extend(self.envid.iter().map(|envid| format!("ENVID={envid}")));
        words.extend(self.auth.iter().map(|auth| format!("AUTH={auth}")));
        words
    }
}

/// Return the parameters of RCPT in written form: `NOTIFY=NEVER`, `ORCPT=rfc822;a@b`.
pub fn rcpt_parameters(recipient: &Recipient) -> Vec<String> {
    let names = [
        (Notify::NEVER, "NEVER"),
        (Notify::SUCCESS, "SUCCESS"),
        (Notify::FAILURE, "FAILURE"),
        (Notify::DELAY, "DELAY"),
    ];
    let said = names.iter().filter(|(bit, _)| recipient.notify.0 & bit != 0).map(|(_, name)| *name);
    let said = said.collect::<Vec<_>>().join(",");
    let mut words = Vec::new();
    if !said.is_empty() {
        words.push(format!("NOTIFY={said}"));
    }
    words.extend(recipient.orcpt.iter().map(|orcpt| format!("ORCPT={orcpt}")));
    words
}

/// The arguments of RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RcptArguments {
    /// The recipient's address.
    pub forward_path: Path,
    /// NOTIFY=
    pub notify: Notify,
    /// ORCPT=, in its xtext form.
    pub orcpt: Option<Box<str>>,
}

impl RcptArguments {
    /// Parse `TO:<...> ...`; `smtputf8`: MAIL has the parameter. RFC 5321 §4.1.1.3.
    pub fn parse(arguments: &str, dialect: &Dialect, smtputf8: bool) -> Result<Self, Refused> {
        let syntax = || Refused::Other(Reply::new(501, [5, 4], "Syntax: RCPT TO:<address>"));
        let text = strip_keyword(arguments, "TO:").ok_or_else(syntax)?;
        let bad = || Refused::Address(Reply::new(501, [1, 3], "Bad recipient address syntax"), text.into());
        let (forward_path, parameters) = dialect.path(text, false).ok_or_else(bad)?;
        if !smtputf8 && !has_ascii_domain(&forward_path) {
            return Err(bad());
        }
        if dialect.strict_smtputf8 && !smtputf8 && !forward_path.is_ascii() {
            return Err(must_declare_smtputf8());
        }
        let mut rcpt = Self { forward_path, ..Self::default() };
        for parameter in parameters.split(is_blank).filter(|parameter| !parameter.is_empty()) {
            rcpt.parameter(parameter)?;
        }
        Ok(rcpt)
    }

    fn parameter(&mut self, parameter: &str) -> Result<(), Refused> {
        let bad = |text: &str| Err(Refused::Other(Reply::new(501, [5, 4], text)));
        let (keyword, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if keyword.eq_ignore_ascii_case("NOTIFY") {
            match notify(value) {
                Some(notify) if self.notify == Notify::default() => self.notify = notify,
                _ => return bad("Error: Bad NOTIFY parameter syntax"),
            }
        } else if keyword.eq_ignore_ascii_case("ORCPT") {
            let well_formed = value.split_once(';').is_some_and(|(kind, address)| {
                let is_atom = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
                !kind.is_empty() && kind.bytes().all(is_atom) && !address.is_empty() && is_xtext(address)
            });
            if self.orcpt.is_some() || value.len() > ORCPT_MAX_OCTETS || !well_formed {
                return bad("Error: Bad ORCPT parameter syntax");
            }
            self.orcpt = Some(value.into());
        } else {
            return Err(unsupported(parameter));
        }
        Ok(())
    }
}

fn unsupported(parameter: &str) -> Refused {
    Refused::Other(Reply::new(555, [5, 4], format!("Unsupported option: {parameter}")))
}

/// Return whether the domain is one for a client that does not say SMTPUTF8; Postfix never minds its local parts.
fn has_ascii_domain(path: &Path) -> bool {
    path.domain().is_none_or(str::is_ascii)
}

fn must_declare_smtputf8() -> Refused {
    Refused::Other(Reply::new(553, [6, 7], "Must declare SMTPUTF8 to send unicode address"))
}

/// Return the text after `FROM:` or `TO:`, without leading blanks.
fn strip_keyword<'a>(arguments: &'a str, keyword: &str) -> Option<&'a str> {
    let head = arguments.get(..keyword.len())?;
    let rest = head.eq_ignore_ascii_case(keyword).then(|| arguments[keyword.len()..].trim_start_matches(is_blank))?;
    (!rest.is_empty()).then_some(rest)
}

/// RFC 3461 §4.1: `NEVER` alone, or a list of the others.
fn notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify(Notify::NEVER));
    }
    value.split(',').try_fold(Notify(0), |Notify(bits), word| {
        let bit = match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => Notify::SUCCESS,
            "FAILURE" => Notify::FAILURE,
            "DELAY" => Notify::DELAY,
            _ => return None,
        };
        Some(Notify(bits | bit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dialect() -> Dialect {
        Dialect { smtputf8: true, message_size_limit: 1000, ..Dialect::default() }
    }

    #[test]
    fn every_name_is_at_its_discriminant() {
        for (at, verb) in Verb::all().enumerate() {
            assert_eq!(verb as usize, at);
            assert_eq!(Verb::split(&verb.name().to_lowercase()).0, verb);
        }
    }

    #[test]
    fn a_line_is_split_into_verb_and_arguments() {
        for (line, verb, rest) in [
            ("MAIL FROM:<a>", Verb::Mail, "FROM:<a>"),
            ("  helo \t x  ", Verb::Helo, "x"),
            ("QUIT", Verb::Quit, ""),
            ("", Verb::Unknown, ""),
            ("DATA.", Verb::Unknown, ""),
            ("EXPN list", Verb::Unknown, "list"),
        ] {
            assert_eq!(Verb::split(line), (verb, rest), "{line:?}");
        }
    }

    #[test]
    fn mail_arguments_are_accepted_or_refused() {
        let reply = |arguments: &str| match MailArguments::parse(arguments, &dialect(), false) {
            Ok(mail) => format!("ok {} {} {:?}", mail.reverse_path.address(), mail.size_octets, mail.ret),
            Err(Refused::Address(reply, _) | Refused::Other(reply) | Refused::TooLarge(reply, _)) => {
                format!("{} {}", reply.code, reply.text)
            }
        };
        for (arguments, outcome) in [
            ("FROM:<a@b.org>", "ok a@b.org 0 Unsaid"),
            ("from: a@b.org size=7 ret=hdrs", "ok a@b.org 7 Hdrs"),
            ("FROM:<> BODY=8BITMIME SMTPUTF8 ENVID=a+41", "ok  0 Unsaid"),
            ("", "501 Syntax: MAIL FROM:<address>"),
            ("FROM:", "501 Syntax: MAIL FROM:<address>"),
            ("FROM <a@b.org>", "501 Syntax: MAIL FROM:<address>"),
            ("TO:<a@b.org>", "501 Syntax: MAIL FROM:<address>"),
            ("FROM:<a@b.org", "501 Bad sender address syntax"),
            ("FROM:<a@b.org> SIZE=x", "501 Bad message size syntax"),
            ("FROM:<a@b.org> SIZE=", "501 Bad message size syntax"),
            ("FROM:<a@b.org> SIZE=-1", "501 Bad message size syntax"),
            ("FROM:<a@b.org> SIZE=1001", "552 Message size exceeds fixed limit"),
            ("FROM:<a@b.org> SIZE=9223372036854775807", "552 Message size exceeds fixed limit"),
            ("FROM:<a@b.org> SIZE=9223372036854775808", "552 Message size exceeds file system imposed limit"),
            ("FROM:<a@b.org> SIZE=99999999999999999999999999", "552 Message size exceeds file system imposed limit"),
            ("FROM:<a@b.org> BODY=FOO", "555 Unsupported option: BODY=FOO"),
            ("FROM:<a@b.org> FOO", "555 Unsupported option: FOO"),
            ("FROM:<a@b.org> RET=x", "501 Bad RET parameter syntax"),
            ("FROM:<a@b.org> RET=FULL RET=FULL", "501 Bad RET parameter syntax"),
            ("FROM:<a@b.org> ENVID=+00", "501 Bad ENVID parameter syntax"),
            ("FROM:<a@b.org> ENVID=+0A", "501 Bad ENVID parameter syntax"),
            ("FROM:<a@b.org> ENVID=a=b", "501 Bad ENVID parameter syntax"),
            ("FROM:<a@b.org> ENVID=+4", "501 Bad ENVID parameter syntax"),
            ("FROM:<a@b.org> AUTH=", "ok a@b.org 0 Unsaid"),
            ("FROM:<a@b.org> AUTH=a+", "ok a@b.org 0 Unsaid"),
            ("FROM:<a@b.org> AUTH=<> AUTH=<>", "ok a@b.org 0 Unsaid"),
            ("FROM:<-a@b.org>", "501 Bad sender address syntax"),
            ("FROM:<a@127.0.0.1>", "501 Bad sender address syntax"),
        ] {
            assert_eq!(reply(arguments), outcome, "{arguments:?}");
        }
    }

    #[test]
    fn rcpt_arguments_are_accepted_or_refused() {
        let reply = |arguments: &str| match RcptArguments::parse(arguments, &dialect(), false) {
            Ok(rcpt) => format!("ok {} {} {:?}", rcpt.forward_path.address(), rcpt.notify.0, rcpt.orcpt.as_deref()),
            Err(Refused::Address(reply, _) | Refused::Other(reply) | Refused::TooLarge(reply, _)) => {
                format!("{} {}", reply.code, reply.text)
            }
        };
        for (arguments, outcome) in [
            ("TO:<a@b.org>", "ok a@b.org 0 None"),
            (
                "TO:<a@b.org> NOTIFY=SUCCESS,failure ORCPT=rfc822;a+2Bb@b.org",
                "ok a@b.org 6 Some(\"rfc822;a+2Bb@b.org\")",
            ),
            ("TO:<a@b.org> NOTIFY=NEVER", "ok a@b.org 1 None"),
            ("TO:<>", "501 Bad recipient address syntax"),
            ("TO:", "501 Syntax: RCPT TO:<address>"),
            ("TO:<a@b.org>x", "501 Bad recipient address syntax"),
            ("TO:<a@b.org> NOTIFY=NEVER,SUCCESS", "501 Error: Bad NOTIFY parameter syntax"),
            ("TO:<a@b.org> NOTIFY=", "501 Error: Bad NOTIFY parameter syntax"),
            ("TO:<a@b.org> NOTIFY=DELAY NOTIFY=DELAY", "501 Error: Bad NOTIFY parameter syntax"),
            ("TO:<a@b.org> ORCPT=foo", "501 Error: Bad ORCPT parameter syntax"),
            ("TO:<a@b.org> ORCPT=rfc822;a+0Ab", "501 Error: Bad ORCPT parameter syntax"),
            ("TO:<a@b.org> ORCPT=rfc822;", "501 Error: Bad ORCPT parameter syntax"),
            ("TO:<a@b.org> FOO=foo", "555 Unsupported option: FOO=foo"),
        ] {
            assert_eq!(reply(arguments), outcome, "{arguments:?}");
        }
    }

    #[test]
    fn parameters_are_written_as_they_were_read() {
        for written in ["", " SIZE=5 BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=HDRS ENVID=a+2Bb", " BODY=7BIT RET=FULL"] {
            let mail = MailArguments::parse(&format!("FROM:<a@b.org>{written}"), &dialect(), true).unwrap();
            assert_eq!(mail.parameters().join(" "), written.trim_start());
        }
        for written in ["", " NOTIFY=NEVER ORCPT=rfc822;a@b.org", " NOTIFY=SUCCESS,FAILURE,DELAY"] {
            let RcptArguments { forward_path, notify, orcpt } =
                RcptArguments::parse(&format!("TO:<a@b.org>{written}"), &dialect(), false).unwrap();
            let recipient = Recipient { address: forward_path.address().into(), original: None, orcpt, notify };
            assert_eq!(rcpt_parameters(&recipient).join(" "), written.trim_start());
        }
    }

    #[test]
    fn a_domain_outside_ascii_needs_smtputf8() {
        assert!(MailArguments::parse("FROM:<a@é.org>", &dialect(), false).is_err());
        assert!(MailArguments::parse("FROM:<é@b.org>", &dialect(), false).is_ok());
        assert!(MailArguments::parse("FROM:<a@é.org> SMTPUTF8", &dialect(), false).is_ok());
        assert!(RcptArguments::parse("TO:<a@é.org>", &dialect(), false).is_err());
        assert!(RcptArguments::parse("TO:<é@b.org>", &dialect(), false).is_ok());
        assert!(RcptArguments::parse("TO:<a@é.org>", &dialect(), true).is_ok());
    }

    #[test]
    fn strict_smtputf8_requires_the_parameter() {
        let strict = Dialect { strict_smtputf8: true, ..dialect() };
        assert!(MailArguments::parse("FROM:<é@b.org>", &strict, false).is_err());
        assert!(MailArguments::parse("FROM:<é@b.org> SMTPUTF8", &strict, false).is_ok());
        assert!(RcptArguments::parse("TO:<é@b.org>", &strict, false).is_err());
        assert!(RcptArguments::parse("TO:<é@b.org>", &strict, true).is_ok());
    }

    proptest! {
        #[test]
        fn no_arguments_cause_a_panic(text in "(FROM:|TO:)?[<>@\\\\\" a-cé;=+0-9\\.A-Z]{0,60}") {
            let _ = Verb::split(&text);
            let _ = MailArguments::parse(&text, &dialect(), false);
            let _ = RcptArguments::parse(&text, &dialect(), true);
        }
    }
}
