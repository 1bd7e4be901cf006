//! The envelope in cleanup: complete addresses, and one copy for each recipient.

use super::{CleanupSettings, Origin};
use crate::address::path::Path;
use crate::mail::envelope::{Envelope, Recipient};
use std::borrow::Cow;
use std::collections::HashSet;

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
    for recipient in &mut envelope.recipients {
        if let Some(address) = settings.local_rewrite.apply(&recipient.address) {
            let given = std::mem::replace(&mut recipient.address, address.into());
            recipient.original.get_or_insert(given);
        }
    }
    drop_duplicates(&mut envelope.recipients);
}

/// Write an address with quotes only where it needs them; a text that is no address stays unchanged.
fn unify(address: &mut Box<str>) {
    if address.bytes().any(|b| matches!(b, b'\\' | b'"'))
        && let Ok(path) = Path::of(address)
    {
        *address = path.address().into();
    }
}

/// Drop duplicate recipients unless their DSN options differ. Case makes no difference, as in Postfix.
fn drop_duplicates(recipients: &mut Vec<Recipient>) {
    if recipients.len() < 2 {
        return;
    }
    let mut seen = HashSet::with_capacity(recipients.len());
    let first = recipients
        .iter()
        .map(|recipient| seen.insert((folded(&recipient.address), &recipient.orcpt, recipient.notify.0)))
        .collect::<Vec<_>>();
    let mut first = first.into_iter();
    recipients.retain(|_| first.next().unwrap_or(true));
}

fn folded(address: &str) -> Cow<'_, str> {
    let is_lower = address.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase());
    if is_lower { Cow::Borrowed(address) } else { Cow::Owned(address.to_lowercase()) }
}
