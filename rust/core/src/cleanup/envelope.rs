//! What cleanup does to an envelope: complete addresses, one copy for each recipient.

use super::{CleanupSettings, Origin};
use crate::mail::envelope::{Envelope, Recipient};
use std::collections::HashSet;

/// Give addresses of the envelope that lack a domain the site's own. What such a recipient was called before stays
/// known as its original.
pub(super) fn complete_envelope(settings: &CleanupSettings, origin: Origin, envelope: &mut Envelope) {
    let complete = |address: &str| match origin {
        Origin::Local => settings.local_rewrite.apply(address),
        Origin::Network { .. } => settings.local_rewrite.complete(address),
    };
    if let Some(sender) = complete(&envelope.sender) {
        envelope.sender = sender.into();
    }
    for recipient in &mut envelope.recipients {
        if let Some(address) = complete(&recipient.address) {
            let given = std::mem::replace(&mut recipient.address, address.into());
            recipient.original.get_or_insert(given);
        }
    }
    drop_duplicates(&mut envelope.recipients);
}

/// Who is named twice receives one copy, unless the wishes about reports differ.
fn drop_duplicates(recipients: &mut Vec<Recipient>) {
    if recipients.len() < 2 {
        return;
    }
    let mut seen = HashSet::with_capacity(recipients.len());
    let first = recipients
        .iter()
        .map(|recipient| seen.insert((&recipient.address, &recipient.orcpt, recipient.notify.0)))
        .collect::<Vec<_>>();
    let mut first = first.into_iter();
    recipients.retain(|_| first.next().unwrap_or(true));
}
