//! The envelope in cleanup: complete addresses, and one copy for each recipient.

use super::{CleanupSettings, Origin};
use crate::address::rewriting::canonical_form;
use crate::mail::envelope::{Envelope, Recipient};
use std::borrow::Cow;
use std::collections::HashSet;

/// The sender of messages with a null sender.
pub(super) const MAILER_DAEMON: &str = "MAILER-DAEMON";

/// Complete the addresses of the envelope, and rewrite those of local programs to their canonical form. A recipient's
/// earlier address stays as its original.
pub(super) fn complete_envelope(settings: &CleanupSettings, origin: Origin, envelope: &mut Envelope) {
    if origin == Origin::Local {
        unify(&mut envelope.sender);
        envelope.recipients.iter_mut().for_each(|recipient| unify(&mut recipient.address));
    }
    if let Some(sender) = settings.local_rewrite.apply(&envelope.sender) {
        envelope.sender = sender.into();
    }
    if is_own_mailer_daemon(settings, &envelope.sender) {
        envelope.sender = Box::default();
    }
    for recipient in &mut envelope.recipients {
        if let Some(address) = settings.local_rewrite.apply(&recipient.address) {
            let given = std::mem::replace(&mut recipient.address, address.into());
            recipient.original.get_or_insert(given);
        }
    }
}

/// Whether a sender is MAILER-DAEMON at the domain of bare addresses: it stands for the null sender, so that nothing
/// answers a report with a report.
fn is_own_mailer_daemon(settings: &CleanupSettings, sender: &str) -> bool {
    let is_named = |name: &str| name.eq_ignore_ascii_case(MAILER_DAEMON);
    sender.split_once('@').is_some_and(|(name, _)| is_named(name))
        && settings.local_rewrite.apply(MAILER_DAEMON).is_some_and(|own| own.eq_ignore_ascii_case(sender))
}

/// Write an address with quotes only where it needs them; a text that is no address stays unchanged.
fn unify(address: &mut Box<str>) {
    if let Cow::Owned(unified) = canonical_form(address) {
        *address = unified.into();
    }
}

/// Drop duplicate recipients unless their DSN options or original addresses differ. Case makes no difference, as in
/// Postfix. Without `keeps_original` only the address counts.
pub(super) fn drop_duplicates(recipients: &mut Vec<Recipient>, keeps_original: bool) {
    if recipients.len() < 2 {
        return;
    }
    let mut seen = HashSet::with_capacity(recipients.len());
    let first = recipients
        .iter()
        .map(|recipient| {
            let original = recipient.original.as_deref().unwrap_or(&recipient.address);
            let more = keeps_original.then(|| (folded(original), &recipient.orcpt, recipient.notify.0));
            seen.insert((folded(&recipient.address), more))
        })
        .collect::<Vec<_>>();
    let mut first = first.into_iter();
    recipients.retain(|_| first.next().unwrap_or(true));
}

fn folded(address: &str) -> Cow<'_, str> {
    let is_lower = address.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase());
    if is_lower { Cow::Borrowed(address) } else { Cow::Owned(address.to_lowercase()) }
}
