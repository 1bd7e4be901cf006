//! The recipient in question: whether it is accepted without the owner.
//!
//! It is, if itself or its domain was accepted some seconds ago, and the tables of that domain list it. The answers of
//! remote tables are kept for the rest of the transaction: its message asks the same tables about the same addresses.

use super::Session;
use crate::ask::{Answer, Lookup};
use crate::inquiry::{Asker, Failure, Inquiry};
use crate::smtpd::listing::Listing;
use std::sync::Arc;
use std::task::Poll;

/// The lookups for the recipients of one transaction.
#[derive(Debug, Default)]
pub(super) struct Recipients {
    /// The number of the transaction, and its answers; `None` without a lookup.
    answers: Option<(u32, Asker)>,
    /// Whether the tables of a listing have the recipient in question.
    inquiry: Option<(Listing, Inquiry<Result<bool, Failure>>)>,
    unlisted: Option<Listing>,
}

impl Recipients {
    /// Whether the recipient in question waits for lookups.
    pub fn are_waiting(&self) -> bool {
        self.inquiry.is_some()
    }

    /// Take the lookups; see `Inquiry::asks`.
    pub fn asks(&mut self) -> Vec<Lookup> {
        self.inquiry.as_mut().map(|(_, inquiry)| inquiry.asks()).unwrap_or_default()
    }

    /// Receive answers.
    pub fn answer(&mut self, answers: Vec<(Lookup, Answer)>) {
        if let Some((_, inquiry)) = &mut self.inquiry {
            answers.into_iter().for_each(|(lookup, answer)| inquiry.answer(&lookup, answer));
        }
    }

    /// Forget the recipient in question.
    pub fn forget(&mut self) {
        self.inquiry = None;
    }

    /// The listing whose tables do not have the recipient in question; `None`: none was asked, or a table has failed.
    pub fn unlisted(&self) -> Option<Listing> {
        self.unlisted
    }

    /// Forget the answers of a transaction that is over.
    pub fn end_transaction(&mut self) {
        self.answers = None;
    }

    /// Take the answers of a transaction.
    pub fn take_answers(&mut self, transaction: u32) -> Option<Asker> {
        self.answers.take().filter(|(number, _)| *number == transaction).map(|(_, asker)| asker)
    }
}

impl Session {
    /// Whether the recipient in question needs no question to the owner. `Pending`: it waits for lookups.
    pub(super) fn is_accepted(&mut self, now: f64) -> Poll<bool> {
        self.recipients.unlisted = None;
        let Some(memory) = &self.memory else { return Poll::Ready(false) };
        // The rights of a user are not those of the group of its address.
        let is_user = self.server.identity().is_some();
        let Some(recipient) = self.server.recipient().filter(|_| !is_user) else { return Poll::Ready(false) };
        match memory.accepted.listing(memory.group, recipient, now) {
            None => return Poll::Ready(false),
            Some(Listing::All) => return Poll::Ready(true),
            Some(listing) => {
                let (site, recipient): (_, Box<str>) = (Arc::clone(&self.site), recipient.into());
                let transaction = self.server.transactions();
                let asker = self.recipients.take_answers(transaction).unwrap_or_default();
                self.recipients.answers = Some((transaction, asker.clone()));
                let inquiry =
                    Inquiry::with(asker, async move |asker| site.recipients.have(listing, &recipient, &asker).await);
                self.recipients.inquiry = Some((listing, inquiry));
            }
        }
        self.go_on_with_recipient()
    }

    /// The same, after answers. The owner decides about a recipient that is not listed, or not for sure. If it accepts the
    /// recipient, the message asks anew: the tables may have changed.
    pub(super) fn go_on_with_recipient(&mut self) -> Poll<bool> {
        let recipients = &mut self.recipients;
        let Some((listing, inquiry)) = &mut recipients.inquiry else { return Poll::Ready(false) };
        let Poll::Ready(found) = inquiry.poll() else { return Poll::Pending };
        recipients.unlisted = (found == Ok(false)).then_some(*listing);
        recipients.inquiry = None;
        let is_listed = found == Ok(true);
        if !is_listed {
            recipients.answers = None;
        }
        Poll::Ready(is_listed)
    }
}
