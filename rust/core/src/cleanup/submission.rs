//! A message that a program on this machine submits, until its intake begins.
//!
//! pickup submits what sendmail(1) left in maildrop/, agents submit reports and forwarded mail. Its content comes in local
//! form. It gets its queue ID and its trace header at the start.

use super::settings::CleanupSettings;
use super::{Intake, Options, Origin};
use crate::log::Log;
use crate::mail::envelope::{BodyType, Envelope, Recipient, Ret};
use crate::mail::reply::Reply;
use crate::mail::source::MailSource;
use crate::mail::trace::Trace;
use crate::queue::Appender;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A message besides its content.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The reverse path; cleanup appends a missing domain.
    pub sender: Box<str>,
    /// The recipients; cleanup appends missing domains, and drops duplicates.
    pub recipients: Vec<Recipient>,
    /// BODY of MAIL.
    pub body: BodyType,
    /// SMTPUTF8 of MAIL.
    pub smtputf8: bool,
    /// REQUIRETLS of MAIL.
    pub requiretls: bool,
    /// RET of MAIL.
    pub ret: Ret,
    /// ENVID of MAIL, in its xtext form.
    pub envid: Option<Box<str>>,
    /// The report that the sender wants of the first attempt.
    pub trace: Trace,
    /// Named attributes of the envelope.
    pub attributes: BTreeMap<Box<str>, Box<str>>,
    /// Time of arrival in microseconds since 1970.
    pub arrival_us: u64,
    /// The sender's name, for a missing `From:` (`sendmail -F`); empty: none.
    pub full_name: Box<str>,
    /// The trace header, with LF inside. `{id}` stands for the queue ID and `{date}` for the date.
    pub received: Option<Box<str>>,
    /// The origin decides which headers cleanup completes and adds.
    pub origin: Origin,
    /// The options of cleanup.
    pub options: Options,
    /// See `Intake::autodetect`.
    pub source: MailSource,
}

impl Submission {
    /// Start the message's intake, with its queue ID and its trace header. `wall_now_us`: microseconds since 1970.
    /// Errors: the reply when the queue accepts no message, for example 452 for a full disk.
    pub fn begin(
        self,
        settings: &Arc<CleanupSettings>,
        appender: &dyn Appender,
        log: &Arc<Log>,
        wall_now_us: u64,
    ) -> Result<Intake, Reply> {
        let draft = appender.incoming().map_err(|error| {
            let (code, dsn, text) = error.reply();
            Reply::new(code, dsn, text)
        })?;
        let Self { sender, recipients, body, smtputf8, requiretls, ret, envid, trace, attributes, arrival_us, .. } =
            self;
        let envelope = Envelope {
            id: draft.id(),
            arrival_us,
            sender,
            recipients,
            body,
            smtputf8,
            requiretls,
            ret,
            envid,
            trace,
            size_octets: 0,
            attributes: attributes.into_iter().collect(),
        };
        let (own, log) = (Arc::clone(settings), Arc::clone(log));
        let mut intake = Intake::new(own, log, draft, envelope, self.origin, self.options, wall_now_us);
        intake.full_name(&self.full_name);
        intake.autodetect(self.source);
        if let Some(received) = self.received {
            let date = settings.date(wall_now_us);
            intake.received(&received.replace("{id}", &intake.queue_id()).replace("{date}", &date));
        }
        Ok(intake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::rewrite::Rewrite;
    use crate::cleanup::Refusal;
    use crate::ipc::frame::{Frame, FrameReader};
    use crate::log::LogTarget;
    use crate::mail::source::Autodetected;
    use crate::queue::Store;
    use crate::queue::memory::Memory;
    use std::task::Poll;

    const WALL_US: u64 = 1_795_366_923_000_000;

    fn settings() -> CleanupSettings {
        let mut settings = CleanupSettings::new("mx.example.org");
        settings.local_rewrite = Rewrite { origin: Some("example.org".into()), ..settings.local_rewrite };
        settings.message_size_limit = 1000;
        settings
    }

    fn message(recipients: &[&str]) -> Submission {
        Submission {
            sender: "root".into(),
            recipients: recipients.iter().map(|address| Recipient::plain(address)).collect(),
            body: BodyType::Unsaid,
            smtputf8: false,
            requiretls: false,
            ret: Ret::Unsaid,
            envid: None,
            trace: Trace::Off,
            attributes: BTreeMap::from([("log_ident".into(), "OLD".into())]),
            arrival_us: 5_000_000,
            full_name: "Charlie Root".into(),
            received: Some("Received: by mx.example.org (Postfix)\n\tid {id}; {date}".into()),
            origin: Origin::Local,
            options: Options::EXTERNAL,
            source: MailSource::Sendmail,
        }
    }

    /// Submit `content` in steps of this size; return the reply or the queued content, the envelope, and the log.
    fn submit(message: Submission, content: &[u8], step: usize) -> (Result<(String, Envelope), Refusal>, Vec<String>) {
        submit_to(settings(), message, content, step)
    }

    fn submit_to(
        settings: CleanupSettings,
        message: Submission,
        content: &[u8],
        step: usize,
    ) -> (Result<(String, Envelope), Refusal>, Vec<String>) {
        let memory = Memory::default();
        let appender = memory.appender().unwrap();
        let log = Arc::new(Log::new("mx", "postfix", "pickup", 1, 0, LogTarget::Memory));
        let mut intake = message.begin(&Arc::new(settings), &appender, &log, WALL_US).unwrap();
        assert_eq!(&*intake.envelope().unwrap().sender, "root@example.org");
        content.chunks(step).for_each(|piece| intake.feed_local(piece));
        let queue_id = intake.queue_id();
        let Poll::Ready(result) = intake.commit(9) else { panic!("it asks") };
        let result = result.map(|()| {
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
            let message = Submission { source, ..message(&[recipient]) };
            let settings = CleanupSettings { autodetected: Autodetected::only(MailSource::Sendmail), ..settings() };
            let (result, _) = submit_to(settings, message, format!("{header}\n\nü\n").as_bytes(), 100);
            assert_eq!(result.unwrap().1.smtputf8, expected, "{source:?} {recipient} {header}");
        }
    }

    #[test]
    fn a_refused_submission_leaves_no_trace() {
        for (name, recipients, content, refusal) in [
            ("no recipient", &[][..], &b"\nx\n"[..], Refusal::NoRecipients),
            ("too big", &["r@x"], &[b'x'; 1001], Refusal::TooBig),
        ] {
            let (result, lines) = submit(message(recipients), content, 100);
            assert_eq!((result.expect_err(name), lines), (refusal, vec![]), "{name}");
        }
    }
}
