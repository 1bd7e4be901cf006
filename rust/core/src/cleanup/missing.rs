//! The header fields that every message should have (RFC 5322 §3.6).

use super::envelope::MAILER_DAEMON;
use super::settings::CleanupSettings;
use super::{MESSAGE_ID, Output, Part, RESENT_MESSAGE_ID};
use crate::address::rewriting::RewriteClass;
use crate::mail::date::compact_utc;
use crate::mail::header::{Known, name_octets};
use crate::mail::phrase::phrase;
use crate::mail::sink::Sink;
use std::sync::Arc;

/// Maximum octets of a Message-Id in the envelope; in the message it stays whole.
const MESSAGE_ID_MAX_OCTETS: usize = 998;

impl<S: Sink> Output<S> {
    /// The headers that every message should have (RFC 5322 §3.6), in Postfix's order.
    pub(super) fn add_missing(&mut self) {
        if self.rewrite().is_none() && !self.settings.always_add_missing_headers {
            return;
        }
        let settings = Arc::clone(&self.settings);
        let (prefix, message_id, date, from) = if self.resent {
            ("Resent-", Known::ResentMessageId, Known::ResentDate, Known::ResentFrom)
        } else {
            ("", Known::MessageId, Known::Date, Known::From)
        };
        if !self.seen.has(message_id) {
            let id = self.envelope.id.text(settings.long_queue_ids);
            let value = if settings.long_queue_ids {
                format!("<{id}@{}>", settings.myhostname)
            } else {
                format!("<{}.{id}@{}>", compact_utc(self.wall_now_us), settings.myhostname)
            };
            self.write_header(&[format!("{prefix}Message-Id: {value}").as_bytes()]);
            self.note_message_id(message_id, value);
        }
        if !self.seen.has(date) {
            self.write_header(&[format!("{prefix}Date: {}", settings.date(self.wall_now_us)).as_bytes()]);
        }
        if !self.seen.has(from) {
            let sender = sender_as_header(&settings, &self.envelope.sender, self.full_name.as_deref());
            let start = self.head.len();
            self.write_header(&[format!("{prefix}From: {sender}").as_bytes()]);
            if self.options.maps && settings.rewriting.touches(RewriteClass::EnvelopeSender) {
                self.later(start + prefix.len() + "From: ".len(), Part::From);
            }
        }
        let visible = [Known::To, Known::Cc, Known::ResentTo, Known::ResentCc].iter().any(|to| self.seen.has(*to));
        let undisclosed = &settings.undisclosed_recipients_header;
        if !visible && name_octets(undisclosed.as_bytes()).is_some() {
            self.write_header(&[undisclosed.as_bytes()]);
        }
    }

    /// Add `Require-TLS-ESMTP: yes` to a message that came with REQUIRETLS: a content filter returns it with the
    /// header, but without the parameter.
    pub(super) fn add_requiretls(&mut self) {
        if self.settings.requiretls_header && self.envelope.requiretls && !self.carries_requiretls {
            self.write_header(&[b"Require-TLS-ESMTP: yes"]);
        }
    }

    pub(super) fn note_message_id(&mut self, known: Known, mut value: String) {
        let mut end = value.len().min(MESSAGE_ID_MAX_OCTETS);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
        let name = if known == Known::MessageId { MESSAGE_ID } else { RESENT_MESSAGE_ID };
        self.envelope.attributes.retain(|(existing, _)| &**existing != name);
        self.envelope.attributes.push((name.into(), value.into()));
    }
}

/// Return the sender as a `From:` header names it. As in Postfix, the null sender gets no domain.
pub(super) fn sender_as_header(settings: &CleanupSettings, sender: &str, full_name: Option<&str>) -> String {
    let address = if sender.is_empty() { MAILER_DAEMON } else { sender };
    match full_name.filter(|_| !sender.is_empty()) {
        None => address.to_owned(),
        Some(name) if settings.obsolete_from_format => {
            let name = name.chars().filter(|c| !c.is_control() && !"()\\".contains(*c)).collect::<String>();
            format!("{address} ({name})")
        }
        Some(name) => format!("{} <{address}>", phrase(name)),
    }
}
