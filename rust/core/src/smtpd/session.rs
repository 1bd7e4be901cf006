//! One client's session: the dialogue, the messages that it brings into the queue, and its log lines (smtpd(8)).
//!
//! `Session` composes the dialogue with cleanup and the journal. Its owner moves bytes, answers questions, and passes
//! the journal's completions on; `250` goes out only after `committed`. Log lines are Postfix's word for word,
//! because pflogsumm and fail2ban read them.

use crate::cleanup::settings::CleanupSettings;
use crate::cleanup::{Cleanup, Origin, Refusal, log_message_id};
use crate::log::{Log, Severity};
use crate::mail::envelope::Envelope;
use crate::mail::id::QueueId;
use crate::mail::reply::{Enhanced, Reply};
use crate::queue::{Appender, Incoming};
use crate::smtp::server::config::ServerConfig;
use crate::smtp::server::{ContentFault, EndOfData, Event, Question, Server, Transaction};
use crate::smtpd::flow::Flow;
use std::sync::Arc;

/// What all sessions of a process share.
pub struct Site {
    /// The dialogue's parameters.
    pub server: Arc<ServerConfig>,
    /// `$mail_name`, for the Received header.
    pub mail_name: Box<str>,
    /// `smtpd_client_port_logging`
    pub log_client_port: bool,
    /// `smtpd_sasl_authenticated_header`
    pub names_users: bool,
    /// `local_header_rewrite_clients` has `permit_sasl_authenticated`.
    pub rewrites_for_users: bool,
    /// DATA is a question to the owner (`smtpd_data_restrictions`).
    pub asks_data: bool,
    /// A whole message is a question to the owner before it is stored.
    pub asks_content: bool,
    /// Where lines go.
    pub log: Arc<Log>,
    /// Cleanup's parameters.
    pub cleanup: Arc<CleanupSettings>,
    /// Where messages go; `None` for a stand-alone session, whose owner takes the content itself.
    pub journal: Option<Arc<dyn Appender>>,
    /// Whether messages that begin wait for the queue manager.
    pub flow: Flow,
}

/// Who is at the other end.
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
}

impl Client {
    /// `name[address]`, as log lines call it; with `:port` if the site wants it.
    fn log_name(&self, with_port: bool) -> String {
        if with_port {
            format!("{}[{}]:{}", self.name, self.address, self.port)
        } else {
            format!("{}[{}]", self.name, self.address)
        }
    }

    /// The address as in a domain literal (RFC 5321 §4.1.3).
    fn literal(&self) -> String {
        if self.address.contains(':') { format!("IPv6:{}", self.address) } else { self.address.to_string() }
    }
}

/// What the session's owner must do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Write the output, and wait.
    Idle,
    /// Decide, then `reply`.
    Ask(Question),
    /// Decide about the whole message (`content`), then `judge`. Asked with `asks_content`.
    Judge,
    /// A stand-alone session has a whole message: take it (`take_message`), then `reply`.
    Message,
}

enum Content {
    None,
    /// On its way into the queue.
    Arriving(Box<Cleanup<Box<dyn Incoming>>>),
    /// With the journal.
    Committing(QueueId),
    /// Kept for the owner, in wire form.
    Kept(Vec<u8>),
}

/// A session.
pub struct Session {
    site: Arc<Site>,
    client: Client,
    log_name: Box<str>,
    server: Server,
    content: Content,
    ticket: u64,
    /// The content for the owner, as it came in wire form.
    copy: Vec<u8>,
    /// Of the message that came by BDAT: the reply says it.
    chunked_octets: Option<u64>,
    has_logged_end: bool,
}

impl Session {
    /// A session with `client`, whose commits carry `ticket`. Logs `connect from`. Nothing is said before `greet`.
    pub fn new(site: Arc<Site>, client: Client, ticket: u64, now: f64) -> Self {
        let log_name = client.log_name(site.log_client_port);
        let server = Server::new(Arc::clone(&site.server), &log_name, client.bare_newline_spared, now);
        site.log.info(format_args!("connect from {log_name}"));
        let content = Content::None;
        Self {
            site,
            client,
            log_name: log_name.into(),
            server,
            content,
            ticket,
            copy: Vec::new(),
            chunked_octets: None,
            has_logged_end: false,
        }
    }

    /// Say `220`.
    pub fn greet(&mut self, now: f64) {
        self.server.greet(now);
    }

    /// Say `reply` in place of the greeting; see `Server::refuse`.
    pub fn refuse(&mut self, reply: &Reply, now: f64) {
        self.server.refuse(reply, now);
    }

    /// Say 421 in place of the greeting, and end.
    pub fn turn_away(&mut self, text: &str, now: f64) {
        self.server.turn_away(text, now);
    }

    /// Take bytes as they came.
    pub fn receive(&mut self, bytes: &[u8], now: f64) {
        self.server.receive(bytes, now);
    }

    /// No more bytes will come; what came before is still answered.
    pub fn eof(&mut self) {
        self.server.eof();
    }

    /// What is to be done next; ask until it says `Idle`. `wall_now_us`: microseconds since 1970.
    pub fn next(&mut self, now: f64, wall_now_us: u64) -> Turn {
        loop {
            let (content, copy) = (&mut self.content, &mut self.copy);
            let copies = self.site.asks_content;
            let event = self.server.next_event(|bytes| match content {
                Content::Arriving(cleanup) => {
                    if copies {
                        copy.extend_from_slice(bytes);
                    }
                    cleanup.feed(bytes);
                }
                Content::Kept(kept) => kept.extend_from_slice(bytes),
                Content::None | Content::Committing(_) => {}
            });
            match event {
                Event::Idle => {
                    if !self.server.is_receiving() && matches!(self.content, Content::Arriving(_) | Content::Kept(_)) {
                        // RSET between two chunks, or a chunk that was refused.
                        self.content = Content::None;
                        self.copy = Vec::new();
                    }
                    if self.server.ended().is_some() {
                        self.log_end();
                    }
                    return Turn::Idle;
                }
                Event::Log(severity, line) => self.site.log.line(severity, format_args!("{line}")),
                Event::Ask(Question::Data) if !self.site.asks_data => self.begin_data(now, wall_now_us),
                Event::Ask(question) => return Turn::Ask(question),
                Event::EndOfData(end) => {
                    if let Some(turn) = self.end_of_data(end, now) {
                        return turn;
                    }
                }
            }
        }
    }

    /// Answer the open question. To `Data` any reply below 400 means yes.
    pub fn reply(&mut self, question: Question, reply: &Reply, now: f64, wall_now_us: u64) {
        if question == Question::Data && reply.code < 400 {
            self.begin_data(now, wall_now_us);
        } else {
            self.server.reply(reply, now);
        }
    }

    /// The whole content in wire form, while it is being judged.
    pub fn content(&self) -> &[u8] {
        &self.copy
    }

    /// The owner has looked at the content: `refusal` says why it is not taken.
    pub fn judge(&mut self, refusal: Option<&Reply>, now: f64) {
        self.copy = Vec::new();
        match (std::mem::replace(&mut self.content, Content::None), refusal) {
            (Content::Arriving(cleanup), None) => self.commit(*cleanup, now),
            (Content::Arriving(cleanup), Some(reply)) => {
                let id = cleanup.envelope().id.text(self.site.cleanup.long_queue_ids);
                self.refuse_content(&id, reply, now);
            }
            (other, _) => self.content = other,
        }
    }

    /// The journal has settled this session's commit: `error` is the text of the reply that a failure asks for.
    pub fn committed(&mut self, error: Option<&str>, now: f64) {
        let Content::Committing(id) = std::mem::replace(&mut self.content, Content::None) else { return };
        let id = id.text(self.site.cleanup.long_queue_ids);
        if self.server.ended().is_some() {
            // The client is gone. A message that is on disk is delivered all the same (RFC 5321 §4.1.1.4).
            return;
        }
        let reply = match error {
            None => self.queued_reply(&id),
            Some(error) => {
                self.site.log.warning(format_args!("{id}: message from {} not queued: {error}", self.log_name));
                error_reply(error)
            }
        };
        self.server.reply(&reply, now);
    }

    /// The message of a stand-alone session, in wire form.
    pub fn take_message(&mut self) -> Vec<u8> {
        match std::mem::replace(&mut self.content, Content::None) {
            Content::Kept(content) => content,
            other => {
                self.content = other;
                Vec::new()
            }
        }
    }

    /// A stand-alone session's message is stored as `id`, or is not (`error`: the text of the reply).
    pub fn stored(&mut self, id: &str, error: Option<&str>, now: f64) {
        let reply = error.map_or_else(|| self.queued_reply(id), error_reply);
        self.server.reply(&reply, now);
    }

    /// The connection is gone. A commit that runs goes on.
    pub fn lost(&mut self) {
        if let Content::Arriving(_) = self.content {
            self.content = Content::None;
            self.copy = Vec::new();
        }
        self.server.lost();
        self.log_end();
    }

    /// What a reply of 235 to the open question will mean; see `Server::authenticate`.
    pub fn authenticate(&mut self, method: &str, user: &str) {
        self.server.authenticate(method, user);
    }

    /// The dialogue, for what it knows and for time.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Everything to be written since the last call.
    pub fn take_output(&mut self) -> Option<Vec<u8>> {
        self.server.take_output()
    }

    /// Time has passed; see `Server::timeout`.
    pub fn timeout(&mut self, now: f64) {
        self.server.timeout(now);
        if self.server.ended().is_some() {
            self.content = Content::None;
        }
    }

    /// The service stops; see `Server::shut_down`.
    pub fn shut_down(&mut self, now: f64) -> bool {
        self.server.shut_down(now)
    }

    /// Does the journal hold a message of this session?
    pub fn is_committing(&self) -> bool {
        matches!(self.content, Content::Committing(_))
    }

    /// Who is at the other end.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn queued_reply(&self, id: &str) -> Reply {
        let octets = self.chunked_octets.map(|octets| format!("{octets} bytes ")).unwrap_or_default();
        Reply::new(250, [0, 0], format!("Ok: {octets}queued as {id}"))
    }

    /// Make room for a message and say 354, or why not.
    fn begin_data(&mut self, now: f64, wall_now_us: u64) {
        self.copy.clear();
        let Some(transaction) = self.server.transaction() else { return };
        let reply = match &self.site.journal {
            None => {
                self.content = Content::Kept(Vec::new());
                go_ahead()
            }
            Some(journal) => match journal.incoming() {
                Ok(draft) => {
                    let cleanup = self.cleanup(draft, transaction, wall_now_us);
                    self.content = Content::Arriving(Box::new(cleanup));
                    if let Some(pause_s) = self.site.flow.pause_s() {
                        self.server.pause(pause_s, now);
                    }
                    go_ahead()
                }
                Err(error) => {
                    self.site.log.warning(format_args!("no message from {}: {error}", self.log_name));
                    let (code, enhanced, text) = error.reply();
                    Reply::new(code, enhanced, text)
                }
            },
        };
        self.server.reply(&reply, now);
    }

    /// Cleanup for a message that begins, with its trace header written.
    fn cleanup(
        &self,
        draft: Box<dyn Incoming>,
        transaction: &Transaction,
        wall_now_us: u64,
    ) -> Cleanup<Box<dyn Incoming>> {
        let id = draft.id();
        let id_text = id.text(self.site.cleanup.long_queue_ids);
        let mail = &transaction.mail;
        let mut user = String::new();
        if let Some(identity) = self.server.identity() {
            user = format!(", sasl_method={}, sasl_username={}", identity.method, identity.user);
        }
        if let Some(auth) = &mail.auth {
            user.push_str(&format!(", sasl_sender={auth}"));
        }
        self.site.log.info(format_args!("{id_text}: client={}{user}", self.log_name));
        let received = self.received(&id_text, transaction, wall_now_us);
        let helo = self.server.helo().unwrap_or(&self.client.name);
        let port = self.client.port.to_string();
        let attribute = |name: &str, value: &str| (name.into(), value.into());
        let mut attributes = vec![
            attribute("client_name", &self.client.name),
            attribute("client_address", &self.client.address),
            attribute("client_port", &port),
            attribute("helo_name", helo),
            attribute("protocol_name", self.server.protocol()),
        ];
        if let Some(identity) = self.server.identity() {
            attributes.push(attribute("sasl_method", &identity.method));
            attributes.push(attribute("sasl_username", &identity.user));
        }
        attributes.extend(mail.auth.iter().map(|auth| attribute("sasl_sender", auth)));
        let envelope = Envelope {
            id,
            arrival_us: wall_now_us,
            sender: mail.reverse_path.address().into(),
            recipients: transaction.recipients.clone(),
            body: mail.body,
            smtputf8: mail.smtputf8,
            ret: mail.ret,
            envid: mail.envid.clone(),
            size_octets: 0,
            attributes,
        };
        let is_user = self.server.identity().is_some();
        let trusted = self.client.rewrites_headers || is_user && self.site.rewrites_for_users;
        let origin = Origin::Network { trusted };
        let mut cleanup = Cleanup::new(Arc::clone(&self.site.cleanup), draft, envelope, origin, wall_now_us);
        cleanup.received(&received);
        cleanup
    }

    /// The Received header in Postfix's form (RFC 5321 §4.4). One recipient is named, several are not: those of a
    /// blind copy must not see each other.
    fn received(&self, id: &str, transaction: &Transaction, wall_now_us: u64) -> String {
        let client = &self.client;
        let helo = self.server.helo().unwrap_or(&client.name);
        let identity = self.server.identity();
        let protocol = match (transaction.mail.smtputf8, identity) {
            (true, Some(_)) => "UTF8SMTPA",
            (true, None) => "UTF8SMTP",
            (false, _) => self.server.protocol(),
        };
        let user = identity.filter(|_| self.site.names_users);
        let user = user.map(|identity| format!("\n\t(Authenticated sender: {})", identity.user)).unwrap_or_default();
        let date = self.site.cleanup.date(wall_now_us);
        let (host, mail_name) = (&self.site.server.myhostname, &self.site.mail_name);
        let head = format!(
            "Received: from {helo} ({} [{}]){user}\n\tby {host} ({mail_name}) with {protocol} id {id}",
            client.name,
            client.literal()
        );
        match &transaction.recipients[..] {
            [only] => format!("{head}\n\tfor <{}>; {date}", only.address),
            _ => format!("{head};\n\t{date}"),
        }
    }

    /// The content is whole: what the owner must do about it, if anything.
    fn end_of_data(&mut self, end: EndOfData, now: f64) -> Option<Turn> {
        self.chunked_octets = end.chunked.then_some(end.octets);
        let fault = end.fault.map(|fault| match fault {
            ContentFault::TooLarge => Refusal::TooBig.reply(),
            ContentFault::BareNewline => self.server.bare_newline_reply(),
        });
        if let Some(reply) = fault {
            let id = match std::mem::replace(&mut self.content, Content::None) {
                Content::Arriving(cleanup) => cleanup.envelope().id.text(self.site.cleanup.long_queue_ids),
                _ => "NOQUEUE".into(),
            };
            self.copy = Vec::new();
            self.refuse_content(&id, &reply, now);
            return None;
        }
        match std::mem::replace(&mut self.content, Content::None) {
            arriving @ Content::Arriving(_) if self.site.asks_content => {
                self.content = arriving;
                return Some(Turn::Judge);
            }
            Content::Arriving(cleanup) => self.commit(*cleanup, now),
            kept @ Content::Kept(_) => {
                self.content = kept;
                return Some(Turn::Message);
            }
            Content::None | Content::Committing(_) => self.server.reply(&Refusal::WriteError.reply(), now),
        }
        None
    }

    fn commit(&mut self, cleanup: Cleanup<Box<dyn Incoming>>, now: f64) {
        let id = cleanup.envelope().id;
        match (cleanup.finish(), &self.site.journal) {
            (Ok((draft, envelope)), Some(_)) => {
                log_message_id(&self.site.log, &self.site.cleanup, &envelope);
                draft.commit(&envelope, self.ticket);
                self.content = Content::Committing(id);
            }
            (Ok(_), None) => self.server.reply(&Refusal::WriteError.reply(), now),
            (Err(refusal), _) => {
                let id = id.text(self.site.cleanup.long_queue_ids);
                self.refuse_content(&id, &refusal.reply(), now);
            }
        }
    }

    /// Say why a content is not taken, to the client and in the log.
    fn refuse_content(&mut self, id: &str, reply: &Reply, now: f64) {
        let sender = self.server.sender().unwrap_or_default();
        let recipient = match self.server.transaction().map(|transaction| &transaction.recipients[..]) {
            Some([first, ..]) => &first.address,
            _ => "",
        };
        let enhanced = reply.enhanced.map(|enhanced| format!("{enhanced} ")).unwrap_or_default();
        let helo = self.server.helo().map(|helo| format!(" helo=<{helo}>")).unwrap_or_default();
        self.site.log.line_as(
            "cleanup",
            Severity::Info,
            format_args!(
                "{id}: reject: END-OF-MESSAGE from {}: {} {enhanced}{}; from=<{sender}> to=<{recipient}> proto={}{helo}",
                self.log_name,
                reply.code,
                reply.text,
                self.server.protocol()
            ),
        );
        self.server.reply(reply, now);
    }

    /// Log how the session ended: at most one `lost connection after` and one `disconnect from`.
    fn log_end(&mut self) {
        if std::mem::replace(&mut self.has_logged_end, true) {
            return;
        }
        if let Content::Arriving(_) = self.content {
            self.content = Content::None;
        }
        let log = &self.site.log;
        if let Some(reason) = self.server.ended().and_then(|ending| ending.reason()) {
            log.info(format_args!("{reason} after {} from {}", self.server.place(), self.log_name));
        }
        log.info(format_args!("disconnect from {}{}", self.log_name, self.server.counts()));
    }
}

impl Drop for Session {
    /// Whatever happens to a session, its `connect` line has a `disconnect` line.
    fn drop(&mut self) {
        if !self.has_logged_end {
            self.lost();
        }
    }
}

fn go_ahead() -> Reply {
    Reply::bare(354, "End data with <CR><LF>.<CR><LF>")
}

/// The reply that a text such as `452 4.3.1 Insufficient system storage` is; 451 when it is none.
pub fn error_reply(text: &str) -> Reply {
    let code = text.get(..3).and_then(|code| code.parse().ok()).filter(|code| (400..600).contains(code));
    let Some((code, rest)) = code.zip(text.get(3..).map(str::trim_start)) else {
        return Reply::new(451, [3, 0], text);
    };
    match Enhanced::split(rest) {
        Some((enhanced, rest)) => Reply::new(code, [enhanced.subject, enhanced.detail], rest),
        None => Reply::bare(code, rest),
    }
}
