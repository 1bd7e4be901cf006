//! A message on its way from the dialogue through cleanup into the journal, and the replies that it gets.

use super::{Session, Waits};
use crate::cleanup::{Intake, Origin, Refusal};
use crate::log::Severity;
use crate::mail::envelope::Envelope;
use crate::mail::id::QueueId;
use crate::mail::reply::{Enhanced, Reply};
use crate::mail::source::MailSource;
use crate::mail::trace::Trace;
use crate::queue::Incoming;
use crate::smtp::server::{ContentFault, EndOfData, Next, Transaction};
use std::sync::Arc;
use std::task::Poll;

/// The content of a session's message.
pub(super) enum Content {
    None,
    /// On its way into the queue.
    Arriving(Intake),
    /// Complete, but remote tables have not answered yet.
    Asking(Intake),
    /// With the journal.
    Committing(QueueId),
    /// Kept for the owner of a stand-alone session, in wire form.
    Kept(Vec<u8>),
}

impl Session {
    /// The owner has decided about the content: `refusal` is its reply, unless it accepts.
    pub(super) fn end_content(&mut self, refusal: Option<&Reply>, now: f64) {
        self.copy = Vec::new();
        match (std::mem::replace(&mut self.content, Content::None), refusal) {
            (Content::Arriving(intake), None) => self.commit(intake, now),
            (Content::Arriving(intake), Some(reply)) => self.refuse_content(&intake.queue_id(), reply, now),
            (other, _) => self.content = other,
        }
    }

    /// The journal is done with the commit: `error` is the text of the reply that a failure asks for.
    pub(super) fn finish_commit(&mut self, error: Option<&str>, now: f64) {
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

    pub(super) fn queued_reply(&self, id: &str) -> Reply {
        let octets = self.chunked_octets.map(|octets| format!("{octets} bytes ")).unwrap_or_default();
        Reply::new(250, [0, 0], format!("Ok: {octets}queued as {id}"))
    }

    /// Make room for a message and say 354, or why not.
    pub(super) fn begin_data(&mut self, now: f64) {
        self.copy.clear();
        self.waits = Waits::default();
        let answers = self.recipients.take_answers(self.server.transactions());
        let Some(transaction) = self.server.transaction() else { return };
        let reply = match &self.site.journal {
            None => {
                self.content = Content::Kept(Vec::new());
                Next::Data.acceptance()
            }
            Some(journal) => match journal.incoming() {
                Ok(draft) => {
                    let mut intake = self.intake(draft, transaction, (self.site.wall_clock)());
                    if let Some(answers) = answers {
                        intake.answered(answers);
                    }
                    self.content = Content::Arriving(intake);
                    if let Some(pause_s) = self.site.flow.pause_s() {
                        self.server.pause(pause_s, now);
                    }
                    Next::Data.acceptance()
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

    /// Return the intake of a message that begins, with its trace header written.
    fn intake(&self, draft: Box<dyn Incoming>, transaction: &Transaction, wall_now_us: u64) -> Intake {
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
            requiretls: mail.requiretls,
            ret: mail.ret,
            envid: mail.envid.clone(),
            trace: Trace::Off,
            size_octets: 0,
            attributes,
        };
        let is_user = self.server.identity().is_some();
        let trusted = self.client.rewrites_headers || is_user && self.site.settings.rewrites_for_users;
        let origin = Origin::Network { trusted };
        let (settings, log) = (Arc::clone(&self.site.cleanup), Arc::clone(&self.site.log));
        let mut intake = Intake::new(settings, log, draft, envelope, origin, self.site.settings.options, wall_now_us);
        intake.autodetect(MailSource::Smtpd);
        intake.received(&received);
        intake
    }

    /// The Received header in Postfix's form (RFC 5321 §4.4). One recipient is named, several are not: those of a
    /// blind copy must not see each other.
    fn received(&self, id: &str, transaction: &Transaction, wall_now_us: u64) -> String {
        let client = &self.client;
        let helo = self.server.helo().unwrap_or(&client.name);
        let identity = self.server.identity();
        let protocol = self.server.received_protocol(transaction.mail.smtputf8);
        let user = identity.filter(|_| self.site.settings.names_users);
        let user = user.map(|identity| format!("\n\t(Authenticated sender: {})", identity.user)).unwrap_or_default();
        let date = self.site.cleanup.date(wall_now_us);
        let (host, mail_name) = (&self.site.server.myhostname, &self.site.settings.mail_name);
        let head = format!(
            "Received: from {helo} ({} [{}]){}{user}\n\tby {host} ({mail_name}) with {protocol} id {id}",
            client.name,
            client.literal(),
            self.received_tls()
        );
        match &transaction.recipients[..] {
            [only] => format!("{head}\n\tfor <{}>; {date}", only.address),
            _ => format!("{head};\n\t{date}"),
        }
    }

    /// The content is whole: return what the owner must do about it, if anything.
    pub(super) fn end_of_data(&mut self, end: EndOfData, now: f64) -> Option<Next> {
        self.chunked_octets = end.chunked.then_some(end.octets);
        let fault = end.fault.map(|fault| match fault {
            ContentFault::TooLarge => Refusal::TooBig.reply(),
            ContentFault::BareNewline => self.server.bare_newline_reply(),
        });
        if let Some(reply) = fault {
            let id = match std::mem::replace(&mut self.content, Content::None) {
                Content::Arriving(intake) => intake.queue_id(),
                _ => "NOQUEUE".into(),
            };
            self.copy = Vec::new();
            self.refuse_content(&id, &reply, now);
            return None;
        }
        match std::mem::replace(&mut self.content, Content::None) {
            arriving @ Content::Arriving(_) if self.site.asks_content => {
                self.content = arriving;
                return Some(Next::EndOfData);
            }
            Content::Arriving(intake) => self.commit(intake, now),
            kept @ Content::Kept(_) => {
                self.content = kept;
                return Some(Next::Message);
            }
            Content::None | Content::Asking(_) | Content::Committing(_) => {
                self.server.reply(&Refusal::WriteError.reply(), now)
            }
        }
        None
    }

    /// Commit a message, or wait until remote tables have answered.
    pub(super) fn commit(&mut self, mut intake: Intake, now: f64) {
        let id = intake.id();
        match intake.commit(self.ticket) {
            Poll::Pending => self.content = Content::Asking(intake),
            Poll::Ready(Ok(())) => self.content = Content::Committing(id),
            Poll::Ready(Err(Refusal::Rejected(reply))) => self.server.reply(&reply, now),
            Poll::Ready(Err(refusal)) => self.refuse_content(&intake.queue_id(), &refusal.reply(), now),
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
}

/// The reply that a text such as `452 4.3.1 Insufficient system storage` is; 451 when it is none.
pub(super) fn error_reply(text: &str) -> Reply {
    let code = text.get(..3).and_then(|code| code.parse().ok()).filter(|code| (400..600).contains(code));
    let Some((code, rest)) = code.zip(text.get(3..).map(str::trim_start)) else {
        return Reply::new(451, [3, 0], text);
    };
    match Enhanced::split(rest) {
        Some((enhanced, rest)) => Reply::new(code, [enhanced.subject, enhanced.detail], rest),
        None => Reply::bare(code, rest),
    }
}
