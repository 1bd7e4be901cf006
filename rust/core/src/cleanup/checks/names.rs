//! The client, sender and recipient in the log lines of checks.
//!
//! As in Postfix, sender and recipient are named as canonical tables and masquerading leave them, before aliases. They are
//! mapped for the first line of a message that is logged; while a remote table has no answer, that part waits.

use super::CleanupSettings;
use crate::address::map::Mapping;
use crate::address::rewriting::RewriteClass;
use crate::ask::{Answer, Lookup};
use crate::inquiry::Inquiry;
use crate::mail::envelope::Envelope;
use std::fmt;
use std::sync::Arc;
use std::task::Poll;

/// Shown as ` from HOST[ADDRESS]; from=<> to=<>`.
#[derive(Debug)]
pub(super) struct Names {
    client: Box<str>,
    sender: Box<str>,
    recipient: Box<str>,
    state: State,
}

#[derive(Debug)]
enum State {
    Given,
    Asking(Inquiry<[Option<Box<str>>; 2]>),
    Known,
}

impl Names {
    /// Return the names of a message with its last recipient. `maps`: its addresses are mapped.
    pub fn of(envelope: &Envelope, maps: bool) -> Self {
        let client = envelope.attribute("client_name").zip(envelope.attribute("client_address"));
        let client = client.map_or("local".into(), |(name, address)| format!("{name}[{address}]").into());
        let recipient = envelope.recipients.last().map_or("unknown".into(), |recipient| recipient.address.clone());
        let state = if maps { State::Given } else { State::Known };
        Self { client, sender: envelope.sender.clone(), recipient, state }
    }

    /// Map sender and recipient as far as there are answers, and return whether they are known. False: `asks` has lookups.
    pub fn are_known(&mut self, settings: &Arc<CleanupSettings>) -> bool {
        if matches!(self.state, State::Given) {
            let (settings, sender, recipient) = (Arc::clone(settings), self.sender.clone(), self.recipient.clone());
            self.state = State::Asking(Inquiry::new(async move |asker| {
                let mapping = Mapping::new(&settings.rewriting.rules, &settings.local_rewrite, &asker);
                let mut mapped = [None, None];
                let given = [(RewriteClass::EnvelopeSender, sender), (RewriteClass::EnvelopeRecipient, recipient)];
                for ((class, address), mapped) in given.iter().zip(&mut mapped) {
                    // The null sender has no keys. After a failed lookup the message is refused at its end, or before.
                    if !address.is_empty() {
                        *mapped = settings.rewriting.canonical(&mapping, *class, address).await.unwrap_or_default();
                    }
                }
                mapped
            }));
        }
        if let State::Asking(inquiry) = &mut self.state {
            let Poll::Ready([sender, recipient]) = inquiry.poll() else { return false };
            if let Some(sender) = sender {
                self.sender = sender;
            }
            if let Some(recipient) = recipient {
                self.recipient = recipient;
            }
            self.state = State::Known;
        }
        true
    }

    /// Take the next lookups; see `Inquiry::asks`.
    pub fn asks(&mut self) -> Vec<Lookup> {
        match &mut self.state {
            State::Asking(inquiry) => inquiry.asks(),
            State::Given | State::Known => Vec::new(),
        }
    }

    /// Receive an answer. An answer to no lookup of these has no effect.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        if let State::Asking(inquiry) = &mut self.state {
            inquiry.answer(lookup, answer);
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, sender, recipient, .. } = self;
        write!(f, " from {client}; from=<{sender}> to=<{recipient}>")
    }
}
