//! A message that a program on this machine submits: local form in, a committed message out.
//!
//! pickup submits what sendmail(1) left in maildrop/, agents submit reports and forwarded mail. The message comes in
//! local form, with LF or CRLF and without stuffed dots. It gets its queue ID and its trace header at the start.

use super::settings::CleanupSettings;
use super::{Cleanup, Finishing, Origin, Refusal, log_message_id};
use crate::ask::{Answer, Lookup};
use crate::log::{Log, Severity};
use crate::mail::envelope::{BodyType, Envelope, Recipient, Ret};
use crate::mail::reply::Reply;
use crate::mail::source::MailSource;
use crate::mail::stuff::Stuffer;
use crate::queue::{Appender, Incoming};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;

/// The parts of a submission besides its content.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The reverse path; cleanup appends a missing domain.
    pub sender: Box<str>,
    /// The recipients; cleanup appends missing domains, and drops duplicates.
    pub recipients: Vec<Recipient>,
    /// BODY of MAIL.
    pub body: BodyType,
    /// SMTPUTF8 of MAIL.
    pub smtputf8: bool,
    /// RET of MAIL.
    pub ret: Ret,
    /// ENVID of MAIL, in its xtext form.
    pub envid: Option<Box<str>>,
    /// Named attributes of the envelope.
    pub attributes: BTreeMap<Box<str>, Box<str>>,
    /// Time of arrival in microseconds since 1970.
    pub arrival_us: u64,
    /// The sender's name, for a missing `From:` (`sendmail -F`); empty: none.
    pub full_name: Box<str>,
    /// The trace header, with LF inside. `{id}` stands for the queue ID and `{date}` for the date.
    pub received: Option<Box<str>>,
    /// `header_checks` and the like apply: it comes from a user, not from the mail system itself.
    pub checked: bool,
    /// The origin decides which headers cleanup completes and adds.
    pub origin: Origin,
    /// The mail system itself wrote the message: nobody gets a copy.
    pub internal: bool,
    /// See `Cleanup::autodetect`.
    pub source: MailSource,
}

/// A message in progress. Dropping it leaves no trace.
pub struct Submission {
    state: State,
    sender: Box<str>,
    /// It came with recipients; checks may drop them later.
    has_recipients: bool,
    stuffer: Stuffer,
    /// The last piece in wire form.
    wire: Vec<u8>,
    settings: Arc<CleanupSettings>,
    log: Arc<Log>,
    queue_id: String,
}

/// The stage of a submission.
enum State {
    Writing(Box<Cleanup<Box<dyn Incoming>>>),
    Finishing(Box<Finishing<Box<dyn Incoming>>>),
    Finished(Box<Finished>),
}

/// The journal's draft of the body, the head, and the envelope; or the refusal.
type Finished = Result<(Box<dyn Incoming>, Vec<u8>, Envelope), Refusal>;

impl Submission {
    /// Start a message, with its queue ID and its trace header. `wall_now_us`: microseconds since 1970.
    /// Errors: the reply when the queue accepts no message, for example 452 for a full disk.
    pub fn new(
        settings: Arc<CleanupSettings>,
        appender: &dyn Appender,
        log: Arc<Log>,
        message: NewMessage,
        wall_now_us: u64,
    ) -> Result<Self, Reply> {
        let draft = appender.incoming().map_err(|error| {
            let (code, dsn, text) = error.reply();
            Reply::new(code, dsn, text)
        })?;
        let NewMessage { sender, recipients, body, smtputf8, ret, envid, attributes, arrival_us, .. } = message;
        let id = draft.id();
        let envelope = Envelope {
            id,
            arrival_us,
            sender,
            recipients,
            body,
            smtputf8,
            ret,
            envid,
            size_octets: 0,
            attributes: attributes.into_iter().collect(),
        };
        let queue_id = id.text(settings.long_queue_ids);
        let mut cleanup = Cleanup::new(Arc::clone(&settings), draft, envelope, message.origin, wall_now_us);
        cleanup.full_name(&message.full_name);
        cleanup.autodetect(message.source);
        if message.internal {
            cleanup.internal();
        }
        if message.checked {
            cleanup.check(Arc::clone(&log));
        }
        if let Some(received) = message.received {
            let date = settings.date(wall_now_us);
            cleanup.received(&received.replace("{id}", &queue_id).replace("{date}", &date));
        }
        let sender = cleanup.envelope().sender.clone();
        let has_recipients = !cleanup.envelope().recipients.is_empty();
        let state = State::Writing(Box::new(cleanup));
        Ok(Self {
            state,
            sender,
            has_recipients,
            stuffer: Stuffer::default(),
            wire: Vec::new(),
            settings,
            log,
            queue_id,
        })
    }

    /// Return the queue ID, in the form of enable_long_queue_ids.
    pub fn queue_id(&self) -> &str {
        &self.queue_id
    }

    /// Return the sender as cleanup completed it.
    pub fn sender(&self) -> &str {
        &self.sender
    }

    /// Receive the next octets of the content, in any split. `commit` reports a problem. After `lookups` or `commit` the
    /// content is complete: further octets are dropped.
    pub fn write(&mut self, octets: &[u8]) {
        if let State::Writing(cleanup) = &mut self.state {
            self.wire.clear();
            self.stuffer.feed(octets, &mut self.wire);
            cleanup.feed(&self.wire);
        }
    }

    /// Return the next lookups of the content so far, for its checks: answer them by `answer`, and call it again. Empty:
    /// the next `write` may follow.
    pub fn asks(&mut self) -> Vec<Lookup> {
        match &mut self.state {
            State::Writing(cleanup) => cleanup.asks(),
            State::Finishing(_) | State::Finished(_) => Vec::new(),
        }
    }

    /// End the content, and return the next lookups in remote tables: answer them by `answer`, and call it again. Empty:
    /// `commit` may follow.
    pub fn lookups(&mut self) -> Vec<Lookup> {
        self.finish();
        match &mut self.state {
            State::Finishing(finishing) => finishing.asks(),
            State::Writing(_) | State::Finished(_) => Vec::new(),
        }
    }

    /// Receive the answer of a lookup.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        match &mut self.state {
            State::Writing(cleanup) => cleanup.answer(lookup, answer),
            State::Finishing(finishing) => finishing.answer(lookup, answer),
            State::Finished(_) => {}
        }
    }

    /// Log the Message-Id and commit the message; the appender reports `ticket` when it is durable. Returns the queue
    /// ID. Errors: cleanup's reply, or 550 5.1.0 without a recipient; 451 while lookups have no answer. Then nothing is
    /// queued.
    pub fn commit(mut self, ticket: u64) -> Result<String, Reply> {
        self.finish();
        let finished = match self.state {
            State::Finished(finished) => *finished,
            State::Writing(_) | State::Finishing(_) => Err(Refusal::LookupFailed),
        };
        let (draft, head, envelope) = finished.map_err(|refusal| refusal.reply())?;
        if !self.has_recipients {
            return Err(Reply::new(550, [1, 0], "Error: no recipients specified"));
        }
        log_message_id(&self.log, &self.settings, &envelope);
        draft.commit(&head, &envelope, ticket);
        Ok(self.queue_id)
    }

    /// Go on as far as there are answers.
    fn finish(&mut self) {
        if let State::Writing(cleanup) = &mut self.state {
            self.wire.clear();
            std::mem::take(&mut self.stuffer).finish(&mut self.wire);
            cleanup.feed(&self.wire);
        }
        let none = State::Finished(Box::new(Err(Refusal::WriteError)));
        let mut finishing = match std::mem::replace(&mut self.state, none) {
            State::Writing(cleanup) => Box::new(cleanup.begin_finish()),
            State::Finishing(finishing) => finishing,
            finished @ State::Finished(_) => {
                self.state = finished;
                return;
            }
        };
        let Poll::Ready(finished) = finishing.poll() else {
            self.state = State::Finishing(finishing);
            return;
        };
        for warning in finishing.warnings() {
            self.log.line_as("cleanup", Severity::Warning, format_args!("{}: {warning}", self.queue_id));
        }
        self.state = State::Finished(Box::new(finished));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::rewrite::Rewrite;
    use crate::ipc::frame::{Frame, FrameReader};
    use crate::log::LogTarget;
    use crate::mail::source::Autodetected;
    use crate::queue::Store;
    use crate::queue::memory::Memory;

    const WALL_US: u64 = 1_795_366_923_000_000;

    fn settings() -> CleanupSettings {
        let mut settings = CleanupSettings::new("mx.example.org");
        settings.local_rewrite = Rewrite { origin: Some("example.org".into()), ..settings.local_rewrite };
        settings.message_size_limit = 1000;
        settings
    }

    fn message(recipients: &[&str]) -> NewMessage {
        NewMessage {
            sender: "root".into(),
            recipients: recipients.iter().map(|address| Recipient::plain(address)).collect(),
            body: BodyType::Unsaid,
            smtputf8: false,
            ret: Ret::Unsaid,
            envid: None,
            attributes: BTreeMap::from([("log_ident".into(), "OLD".into())]),
            arrival_us: 5_000_000,
            full_name: "Charlie Root".into(),
            received: Some("Received: by mx.example.org (Postfix)\n\tid {id}; {date}".into()),
            checked: true,
            origin: Origin::Local,
            internal: false,
            source: MailSource::Sendmail,
        }
    }

    /// Submit `content` in steps of this size; return the reply or the queued content, the envelope, and the log.
    fn submit(message: NewMessage, content: &[u8], step: usize) -> (Result<(String, Envelope), Reply>, Vec<String>) {
        submit_to(settings(), message, content, step)
    }

    fn submit_to(
        settings: CleanupSettings,
        message: NewMessage,
        content: &[u8],
        step: usize,
    ) -> (Result<(String, Envelope), Reply>, Vec<String>) {
        let memory = Memory::default();
        let appender = memory.appender().unwrap();
        let log = Arc::new(Log::new("mx", "postfix", "pickup", 1, 0, LogTarget::Memory));
        let mut submission =
            Submission::new(Arc::new(settings), &appender, Arc::clone(&log), message, WALL_US).unwrap();
        assert_eq!(submission.sender(), "root@example.org");
        content.chunks(step).for_each(|piece| submission.write(piece));
        let queue_id = submission.queue_id().to_owned();
        let result = submission.commit(9).map(|id| {
            assert_eq!(id, queue_id);
            let completion = appender.completed().remove(0);
            assert_eq!(completion.ticket, 9);
            let mut reader = FrameReader::default();
            let mut frames = Vec::new();
            appender.take_announcements(&mut frames);
            reader.receive(&frames);
            let Some(Frame::Arrived(mut arrivals)) = reader.next_frame().unwrap() else { panic!("no arrival") };
            let content = memory.store().unwrap().read_content(&completion.result.unwrap()).unwrap();
            (String::from_utf8(content).unwrap().replace(&queue_id, "ID"), arrivals.remove(0).envelope)
        });
        if result.is_err() {
            assert!(appender.completed().is_empty(), "nothing is queued");
        }
        let lines = log.take_lines().into_iter().map(|line| line.replace(&queue_id, "ID")).collect();
        (result, lines)
    }

    #[test]
    fn a_submission_is_completed_and_committed_in_any_split() {
        let content = b"Message-Id: <1@x>\nDate: now\nTo: r@example.net\n\n.\nlast";
        for step in 1..=content.len() {
            let (result, lines) = submit(message(&["r@example.net", "nobody", "R@example.net"]), content, step);
            let (wire, envelope) = result.unwrap();
            let date = settings().date(WALL_US);
            assert_eq!(
                wire,
                format!(
                    "Received: by mx.example.org (Postfix)\r\n\tid ID; {date}\r\n\
                     Message-Id: <1@x>\r\nDate: now\r\nTo: r@example.net\r\n\
                     From: Charlie Root <root@example.org>\r\n\r\n..\r\nlast\r\n"
                )
            );
            assert_eq!(envelope.sender.as_ref(), "root@example.org");
            assert_eq!(envelope.recipients[1].address.as_ref(), "nobody@example.org");
            assert_eq!((envelope.arrival_us, envelope.attribute("log_ident")), (5_000_000, Some("OLD")));
            assert_eq!(lines, ["ID: message-id=<1@x>"]);
        }
    }

    #[test]
    fn mail_of_the_sites_sources_gets_smtputf8_if_an_address_or_a_header_needs_it() {
        for (source, recipient, header, expected) in [
            (MailSource::Sendmail, "r@example.net", "A: u", false),
            (MailSource::Sendmail, "r@example.net", "A: ü", true),
            (MailSource::Sendmail, "ü@example.net", "A: u", true),
            (MailSource::Forward, "ü@example.net", "A: ü", false),
        ] {
            let message = NewMessage { source, ..message(&[recipient]) };
            let settings = CleanupSettings { autodetected: Autodetected::only(MailSource::Sendmail), ..settings() };
            let (result, _) = submit_to(settings, message, format!("{header}\n\nü\n").as_bytes(), 100);
            assert_eq!(result.unwrap().1.smtputf8, expected, "{source:?} {recipient} {header}");
        }
    }

    #[test]
    fn a_refused_submission_leaves_no_trace() {
        for (name, recipients, content, reply) in [
            ("no recipient", &[][..], &b"\nx\n"[..], Reply::new(550, [1, 0], "Error: no recipients specified")),
            ("too big", &["r@x"], &[b'x'; 1001], Refusal::TooBig.reply()),
        ] {
            let (result, lines) = submit(message(recipients), content, 100);
            assert_eq!((result.expect_err(name), lines), (reply, vec![]), "{name}");
        }
    }
}
