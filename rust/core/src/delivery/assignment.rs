//! A job on a session, and the addresses that the server sees for it.
//!
//! With smtp_generic_maps these differ from the job's own, which stay in the log, in reports and in ORCPT.

use super::job::Delivery;
use super::work::Work;
use crate::address::generic::{Generic, Outcome};
use crate::ask::{Answer, Lookup};
use crate::inquiry::Inquiry;
use crate::mail::envelope::{Envelope, Recipient};
use std::sync::Arc;
use std::task::Poll;

/// A job on a session.
#[derive(Debug)]
pub struct Assignment {
    pub(super) work: Arc<Work>,
    pub(super) last_address: bool,
    pub(super) last_session: bool,
    /// A server before this one has failed, but may take the mail later.
    pub(super) has_passed_a_server: bool,
    /// Time at which its commands were sent; `None` before.
    pub(super) begun_us: Option<u64>,
    /// The number of its transaction on the connection, counted from 1.
    pub(super) conn_use: u32,
    addresses: Addresses,
}

/// The addresses for the server.
#[derive(Debug)]
enum Addresses {
    /// The job's own.
    Own,
    /// Lookups are in progress for these recipients, by their positions in the job.
    Asked(Vec<usize>, Inquiry<Outcome<Vec<Option<Box<str>>>>>),
    Mapped(Box<Mapped>),
    /// A table cannot answer.
    Failed,
}

#[derive(Debug)]
struct Mapped {
    envelope: Envelope,
    /// In the order of their positions.
    recipients: Vec<(usize, Recipient)>,
}

impl Assignment {
    /// `last_address`, `last_session`: no other server is left when this one fails before or after the handshake, so a
    /// soft status is final.
    pub fn new(work: Arc<Work>, last_address: bool, last_session: bool) -> Self {
        Self {
            work,
            last_address,
            last_session,
            has_passed_a_server: false,
            begun_us: None,
            conn_use: 0,
            addresses: Addresses::Own,
        }
    }

    /// Map the sender and the open recipients. `Pending`: `asks` has lookups. Returns false when a table cannot answer.
    pub(super) fn map(&mut self, generic: &Arc<Generic>) -> Poll<bool> {
        if matches!(self.addresses, Addresses::Own) {
            let delivery = self.work.lock();
            let sender = std::iter::once(delivery.job().envelope.sender.clone());
            let given = sender.chain(delivery.open_recipients().map(|(_, recipient)| recipient.address.clone()));
            let given = given.collect();
            let inquiry = Inquiry::new(|asker| Arc::clone(generic).map(asker, given));
            self.addresses = Addresses::Asked(delivery.open().collect(), inquiry);
        }
        if let Addresses::Asked(positions, inquiry) = &mut self.addresses {
            let Poll::Ready((found, warnings)) = inquiry.poll() else { return Poll::Pending };
            let log = self.work.log();
            warnings.iter().for_each(|warning| log.warning(format_args!("{warning}")));
            self.addresses = match found {
                Ok(found) => Addresses::Mapped(Box::new(Mapped::new(&self.work.lock(), positions, found))),
                Err(_) => Addresses::Failed,
            };
        }
        Poll::Ready(!self.is_failed())
    }

    /// Return whether lookups are in progress.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self.addresses, Addresses::Asked(..))
    }

    /// Return whether a table could not answer.
    pub(super) fn is_failed(&self) -> bool {
        matches!(self.addresses, Addresses::Failed)
    }

    /// Take the next lookups; see `Inquiry::asks`.
    pub(super) fn asks(&mut self) -> Vec<Lookup> {
        match &mut self.addresses {
            Addresses::Asked(_, inquiry) => inquiry.asks(),
            _ => Vec::new(),
        }
    }

    /// Receive an answer.
    pub(super) fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        if let Addresses::Asked(_, inquiry) = &mut self.addresses {
            inquiry.answer(lookup, answer);
        }
    }

    /// Return the envelope for the server, without recipients.
    pub(super) fn envelope<'a>(&'a self, delivery: &'a Delivery) -> &'a Envelope {
        match &self.addresses {
            Addresses::Mapped(mapped) => &mapped.envelope,
            _ => &delivery.job().envelope,
        }
    }

    /// Return the open recipients for the server, with their positions in the job.
    pub(super) fn recipients<'a>(&'a self, delivery: &'a Delivery) -> impl Iterator<Item = (usize, &'a Recipient)> {
        let mapped = match &self.addresses {
            Addresses::Mapped(mapped) => Some(&mapped.recipients),
            _ => None,
        };
        delivery.open_recipients().map(move |(position, own)| {
            let at = mapped.and_then(|mapped| mapped.binary_search_by_key(&position, |(position, _)| *position).ok());
            (position, mapped.zip(at).map_or(own, |(mapped, at)| &mapped[at].1))
        })
    }
}

impl Mapped {
    /// `found`: what replaces the sender, and the recipients at `positions`.
    fn new(delivery: &Delivery, positions: &[usize], found: Vec<Option<Box<str>>>) -> Self {
        let job = delivery.job();
        let mut found = found.into_iter();
        let mut envelope = Envelope::clone(&job.envelope);
        if let Some(sender) = found.next().flatten() {
            envelope.sender = sender;
        }
        let mapped = |(position, address): (&usize, Option<Box<str>>)| {
            let mut recipient = job.recipients[*position].recipient.clone();
            if let Some(address) = address {
                let own = std::mem::replace(&mut recipient.address, address);
                recipient.original.get_or_insert(own);
            }
            (*position, recipient)
        };
        Self { recipients: positions.iter().zip(found).map(mapped).collect(), envelope }
    }
}
