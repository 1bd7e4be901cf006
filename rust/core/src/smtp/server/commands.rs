//! The commands of the dialogue. The checks of a command are in Postfix's order.

use super::command::{MailArguments, RcptArguments, Refused, Verb, first_word};
use super::{Mode, Next, Pending, Position, Server, Transaction};
use crate::address::path::Path;
use crate::log::Severity;
use crate::mail::envelope::Recipient;
use crate::mail::reply::Reply;
use crate::smtp::server::Ending;
use crate::tls::settings::Level;

/// Maximum number of octets of early input in the log.
const EARLY_TALK_LOG_OCTETS: usize = 100;
/// Maximum number of characters of a non-SMTP command in the log.
const NON_SMTP_LOG_CHARS: usize = 100;

impl Server {
    pub(super) fn command(&mut self, line: &str) {
        let (word, _) = first_word(line);
        if word.is_empty() {
            return self.refuse_line("Error: bad syntax");
        }
        if self.config.noop_commands.iter().any(|listed| word.eq_ignore_ascii_case(listed)) {
            self.put(&Reply::new(250, [0, 0], "Ok"));
            return self.count_junk();
        }
        let (verb, arguments) = Verb::split(line);
        self.counts[verb as usize].1 += 1;
        self.place = Position::Command(verb);
        if verb == Verb::Unknown {
            // A client of another protocol, for example a web browser: close before its payload is read as commands.
            let is_header = word.find(':').is_some_and(|at| at > 0);
            if is_header || self.config.forbidden_commands.has(word) {
                let start: String = line.chars().take(NON_SMTP_LOG_CHARS).collect();
                self.log.push_back((Severity::Warning, format!("non-SMTP command from {}: {start}", self.peer)));
                self.put(&Reply::new(221, [7, 0], "Error: I can break rules, too. Goodbye."));
                return self.close(Ending::Orderly);
            }
        }
        if self.denied && verb != Verb::Quit {
            self.put(&Reply::new(503, [7, 0], format!("Error: access denied for {}", self.peer)));
            self.errors += 1;
            return;
        }
        if self.config.tls == Level::Encrypt && !self.secured && !verb.may_precede_tls() {
            self.put(&Reply::new(530, [7, 0], "Must issue a STARTTLS command first"));
            self.errors += 1;
            return;
        }
        // A client that has not said EHLO must not pipeline (RFC 2920 §3.1).
        let may_go_on = verb == Verb::Unknown || (self.esmtp && !verb.ends_a_group());
        if !may_go_on && self.unread() > 0 && !self.talked_early && !self.may_talk_early() {
            return;
        }
        match verb {
            Verb::Helo | Verb::Ehlo => self.helo_command(verb, arguments),
            Verb::Starttls => self.starttls_command(arguments),
            Verb::Auth => self.auth_command(arguments),
            Verb::Mail => self.mail_command(arguments),
            Verb::Rcpt => self.rcpt_command(arguments),
            Verb::Data => self.data_command(arguments),
            Verb::Vrfy => self.vrfy_command(arguments),
            Verb::Rset if !arguments.is_empty() => self.answer(verb, Reply::new(501, [5, 4], "Syntax: RSET")),
            Verb::Rset => {
                self.reset();
                self.plain_command(verb, arguments);
            }
            Verb::Noop | Verb::Quit => self.plain_command(verb, arguments),
            Verb::Help => self.help_command(),
            Verb::Bdat => self.bdat_command(line, arguments),
            Verb::Unknown => self.answer(verb, Reply::new(500, [5, 2], "Error: command not recognized")),
            _ => self.answer(verb, Reply::new(502, [5, 1], "Error: command not implemented")),
        }
    }

    /// Note that the client did not wait for a reply; `false` if that ended the session.
    pub(super) fn may_talk_early(&mut self) -> bool {
        let end = self.input.len().min(self.start + EARLY_TALK_LOG_OCTETS);
        let said = escape(&self.input[self.start..end]);
        let line = format!("improper command pipelining after {} from {}: {said}", self.place(), self.peer);
        self.log.push_back((Severity::Info, line));
        self.talked_early = true;
        if self.config.forbid_unauth_pipelining {
            self.put(&Reply::new(554, [5, 0], "Error: SMTP protocol synchronization"));
            self.close(Ending::Orderly);
            return false;
        }
        true
    }

    fn plain_command(&mut self, verb: Verb, arguments: &str) {
        self.mode = Mode::Waiting(Pending::Plain { verb, argument: arguments.to_owned() });
        if !self.config.asks_verbs.contains(&verb) {
            let reply = question_about(verb).acceptance();
            self.reply(&reply, self.now);
        }
    }

    fn helo_command(&mut self, verb: Verb, arguments: &str) {
        if arguments.is_empty() {
            return self.answer(verb, Reply::bare(501, format!("Syntax: {} hostname", verb.name())));
        }
        let name = safe_helo(arguments);
        if self.config.asks_helo {
            self.mode = Mode::Waiting(Pending::Helo { name, verb });
        } else {
            self.accept_helo(name, verb, &Reply::bare(250, ""));
            self.done(verb, true);
        }
    }

    /// Accept HELO or EHLO. A `reply` without text gets the configured text.
    pub(super) fn accept_helo(&mut self, name: String, verb: Verb, reply: &Reply) {
        self.reset();
        self.helo = Some(name.into());
        self.esmtp = verb == Verb::Ehlo;
        if !reply.text.is_empty() {
            self.put(reply);
        } else if self.esmtp {
            self.put(&Reply::bare(250, self.config.ehlo_text(self.secured)));
        } else {
            self.put(&Reply::bare(250, self.config.myhostname.clone()));
        }
    }

    fn mail_command(&mut self, arguments: &str) {
        if self.config.helo_required && self.helo.is_none() {
            return self.answer(Verb::Mail, Reply::new(503, [5, 1], "Error: send HELO/EHLO first"));
        }
        if self.transaction.is_some() {
            return self.answer(Verb::Mail, Reply::new(503, [5, 1], "Error: nested MAIL command"));
        }
        if self.chunks.is_some() {
            return self.answer(Verb::Mail, Reply::new(503, [5, 1], "Error: MAIL after BDAT"));
        }
        let requiretls = self.config.offers_requiretls(self.secured);
        let parsed = MailArguments::parse(arguments, &self.config.dialect, requiretls).map(|mail| self.believed(mail));
        match parsed {
            Ok(mail) if self.config.asks_mail => self.mode = Mode::Waiting(Pending::Mail(Box::new(mail))),
            Ok(mail) => {
                self.begin_transaction(mail);
                self.answer(Verb::Mail, Reply::new(250, [1, 0], "Ok"));
            }
            Err(refused) => self.answer_refused(Verb::Mail, refused),
        }
    }

    pub(super) fn begin_transaction(&mut self, mail: MailArguments) {
        self.transaction = Some(Box::new(Transaction { mail, recipients: Vec::new() }));
        self.transactions += 1;
    }

    fn rcpt_command(&mut self, arguments: &str) {
        let Some(transaction) = &self.transaction else {
            return self.answer(Verb::Rcpt, Reply::new(503, [5, 1], "Error: need MAIL command"));
        };
        if self.chunks.is_some() {
            return self.answer(Verb::Rcpt, Reply::new(503, [5, 1], "Error: RCPT after BDAT"));
        }
        let rcpt = match RcptArguments::parse(arguments, &self.config.dialect, transaction.mail.smtputf8) {
            Ok(rcpt) => rcpt,
            Err(refused) => return self.answer_refused(Verb::Rcpt, refused),
        };
        if transaction.recipients.len() >= self.config.recipient_limit {
            self.put(&Reply::new(452, [5, 3], "Error: too many recipients"));
            // A client that reads replies slowly is no reason to end the session.
            self.overshoot += 1;
            return self.done(Verb::Rcpt, self.overshoot <= self.config.recipient_overshoot_limit);
        }
        let RcptArguments { forward_path, notify, orcpt } = rcpt;
        let recipient = Recipient { address: forward_path.address().into(), original: None, orcpt, notify };
        self.mode = Mode::Waiting(Pending::Rcpt(recipient));
    }

    fn data_command(&mut self, arguments: &str) {
        let reply = match &self.transaction {
            _ if self.chunks.is_some() => Reply::new(503, [5, 1], "Error: DATA after BDAT"),
            None => Reply::new(503, [5, 1], "Error: need RCPT command"),
            Some(transaction) if transaction.recipients.is_empty() => {
                Reply::new(554, [5, 1], "Error: no valid recipients")
            }
            Some(_) if !arguments.is_empty() => Reply::new(501, [5, 4], "Syntax: DATA"),
            Some(_) => {
                self.mode = Mode::Waiting(Pending::Data(None));
                return;
            }
        };
        self.answer(Verb::Data, reply);
    }

    fn vrfy_command(&mut self, arguments: &str) {
        if self.config.disable_vrfy {
            return self.answer(Verb::Vrfy, Reply::new(502, [5, 1], "VRFY command is disabled"));
        }
        if self.config.helo_required && self.helo.is_none() {
            return self.answer(Verb::Vrfy, Reply::new(503, [5, 1], "Error: send HELO/EHLO first"));
        }
        if arguments.is_empty() {
            return self.answer(Verb::Vrfy, Reply::new(501, [5, 4], "Syntax: VRFY address [SMTPUTF8]"));
        }
        match Path::parse(arguments, false) {
            Ok((path, rest)) if !path.is_null() && self.may_verify(&path, rest.trim()) => {
                let argument = first_word(arguments).0.to_owned();
                self.mode = Mode::Waiting(Pending::Vrfy { argument, recipient: Recipient::plain(path.address()) });
            }
            _ => {
                let reply = Reply::new(501, [1, 3], "Bad recipient address syntax");
                self.answer_refused(Verb::Vrfy, Refused::Address(reply, arguments.into()));
            }
        }
    }

    /// Return whether VRFY may have this address: one that is not ASCII needs the parameter (RFC 6531 §3.7.4.2).
    fn may_verify(&self, path: &Path, parameter: &str) -> bool {
        let has_smtputf8 = parameter.eq_ignore_ascii_case("SMTPUTF8");
        if has_smtputf8 { self.config.dialect.smtputf8 } else { path.is_ascii() }
    }

    fn help_command(&mut self) {
        let is_known = |verb: &Verb| match verb {
            Verb::Auth => !self.config.auth_mechanisms.is_empty(),
            Verb::Starttls => self.config.tls != Level::Off,
            verb => !verb.is_unimplemented(),
        };
        let known = Verb::all().filter(|verb| *verb != Verb::Unknown && is_known(verb));
        let mut names: Vec<_> = known.map(Verb::name).collect();
        names.sort_unstable();
        self.answer(Verb::Help, Reply::new(214, [0, 0], format!("Commands: {}", names.join(" "))));
    }

    fn answer_refused(&mut self, verb: Verb, refused: Refused) {
        let reply = match refused {
            Refused::Address(reply, address) => {
                let line = format!("Illegal address syntax from {} in {} command: {address}", self.peer, verb.name());
                self.log.push_back((Severity::Warning, line));
                reply
            }
            Refused::TooLarge(reply, sender) => {
                self.log_reject(verb.name(), &reply, Some(sender.address()), None);
                reply
            }
            Refused::Other(reply) => reply,
        };
        self.answer(verb, reply);
    }
}

/// Return the question for RSET, NOOP or QUIT.
pub(super) fn question_about(verb: Verb) -> Next {
    match verb {
        Verb::Rset => Next::Rset,
        Verb::Quit => Next::Quit,
        _ => Next::Noop,
    }
}

/// Return the name in HELO, without characters that have a meaning in a header or a log line.
fn safe_helo(name: &str) -> String {
    name.chars().map(|c| if c.is_control() || " <>()\\\";@".contains(c) { '?' } else { c }).collect()
}

/// Return octets in the form of Postfix's log: `\r\n` as escapes, the unprintable in octal.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for b in bytes {
        match b {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(*b)),
            _ => text.push_str(&format!("\\{b:03o}")),
        }
    }
    text
}
