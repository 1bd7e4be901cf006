//! The rewriting of a message's addresses: canonical, masquerade, virtual aliases, copies (ADDRESS_REWRITING_README).
//!
//! ```text
//! sender      sender_canonical_maps, canonical_maps, masquerade_domains; then sender_bcc_maps
//! recipient   recipient_canonical_maps, canonical_maps, masquerade_domains; then virtual_alias_maps;
//!             then recipient_bcc_maps
//! header      as sender or recipient, without aliases and copies
//! ```
//!
//! A class (`canonical_classes` and others) says which of these addresses a list of tables applies to. `always_bcc` is
//! the last recipient.

use super::alias::{AliasError, AliasLimits, expanded};
use super::map::{MapRules, Mapping, Named};
use super::masquerade::Masquerade;
use super::path::Path;
use crate::inquiry::{Failure, SIDE_BY_SIDE, all};
use crate::lookup::Maps;
use crate::mail::address::{addresses, replaced};
use crate::mail::envelope::{Notify, Recipient};
use crate::settings;
use crate::settings::{Source, Value};
use std::borrow::Cow;

/// The class of an address in `canonical_classes` and related parameters: where in a message it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewriteClass {
    /// The reverse path.
    EnvelopeSender,
    /// A forward path.
    EnvelopeRecipient,
    /// From, Sender and so on.
    HeaderSender,
    /// To, Cc and so on.
    HeaderRecipient,
}

/// A set of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RewriteClasses(u8);

impl RewriteClasses {
    const NAMES: [(&str, RewriteClass); 4] = [
        ("envelope_sender", RewriteClass::EnvelopeSender),
        ("envelope_recipient", RewriteClass::EnvelopeRecipient),
        ("header_sender", RewriteClass::HeaderSender),
        ("header_recipient", RewriteClass::HeaderRecipient),
    ];

    /// Return whether the set has a class.
    pub fn has(self, class: RewriteClass) -> bool {
        self.0 & 1 << class as u8 != 0
    }
}

impl Value for RewriteClasses {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let mut classes = 0;
        for word in source.items(name)? {
            let Some((_, class)) = Self::NAMES.iter().find(|(known, _)| *known == word) else {
                let fix = "use envelope_sender, envelope_recipient, header_sender and header_recipient";
                return Err(source.bad(name, &word, fix));
            };
            classes |= 1 << *class as u8;
        }
        Ok(Self(classes))
    }
}

/// The tables whose results get an unmatched extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Propagation {
    canonical: bool,
    aliases: bool,
    /// smtp_generic_maps, lmtp_generic_maps
    pub generic: bool,
}

impl Value for Propagation {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let words = source.items(name)?;
        let has = |word: &str| words.iter().any(|item| item == word);
        Ok(Self { canonical: has("canonical"), aliases: has("virtual"), generic: has("generic") })
    }
}

settings! {
    /// The site's rewriting.
    #[derive(Debug, Clone)]
    pub struct Rewriting {
        /// Keys and results.
        rules: MapRules => settings,
        sender_canonical: Maps = "sender_canonical_maps",
        sender_canonical_classes: RewriteClasses = "sender_canonical_classes",
        recipient_canonical: Maps = "recipient_canonical_maps",
        recipient_canonical_classes: RewriteClasses = "recipient_canonical_classes",
        canonical: Maps = "canonical_maps",
        canonical_classes: RewriteClasses = "canonical_classes",
        /// Host names that are left out.
        masquerade: Masquerade => settings,
        masquerade_classes: RewriteClasses = "masquerade_classes",
        aliases: Maps = "virtual_alias_maps",
        /// Limits of `aliases`.
        alias_limits: AliasLimits => settings,
        propagation: Propagation = "propagate_unmatched_extensions",
        sender_copies: Maps = "sender_bcc_maps",
        recipient_copies: Maps = "recipient_bcc_maps",
        /// Empty: none.
        always_bcc: Box<str> = "always_bcc",
        /// Recipients keep the address from before their rewriting.
        keeps_original: bool = "enable_original_recipient",
    }
}

impl Rewriting {
    /// Return whether an address of this class can change.
    pub fn touches(&self, class: RewriteClass) -> bool {
        let is_sender = matches!(class, RewriteClass::EnvelopeSender | RewriteClass::HeaderSender);
        let own = if is_sender {
            !self.sender_canonical.is_empty() && self.sender_canonical_classes.has(class)
        } else {
            !self.recipient_canonical.is_empty() && self.recipient_canonical_classes.has(class)
        };
        own || !self.canonical.is_empty() && self.canonical_classes.has(class)
            || !self.masquerade.is_empty() && self.masquerade_classes.has(class)
            || class == RewriteClass::EnvelopeRecipient && !self.aliases.is_empty()
    }

    /// Return whether any address can change, or a recipient be added. `copies`: see `recipients`.
    pub fn is_needed(&self, copies: bool) -> bool {
        let adds = !(self.always_bcc.is_empty() && self.sender_copies.is_empty() && self.recipient_copies.is_empty());
        copies && adds || RewriteClasses::NAMES.iter().any(|(_, class)| self.touches(*class))
    }

    /// Return the address that canonical tables and masquerading give an address; `None` if it stays. It is empty where
    /// a table makes the sender, or an address of a header, the null sender.
    pub async fn canonical(
        &self,
        mapping: &Mapping<'_>,
        class: RewriteClass,
        address: &str,
    ) -> Result<Option<Box<str>>, Failure> {
        let is_sender = matches!(class, RewriteClass::EnvelopeSender | RewriteClass::HeaderSender);
        let (parameter, maps, classes) = if is_sender {
            ("sender_canonical_maps", &self.sender_canonical, self.sender_canonical_classes)
        } else {
            ("recipient_canonical_maps", &self.recipient_canonical, self.recipient_canonical_classes)
        };
        let all = ("canonical_maps", &self.canonical, self.canonical_classes);
        let may_be_null = class != RewriteClass::EnvelopeRecipient;
        let mut now: Option<Box<str>> = None;
        for (parameter, maps, classes) in [(parameter, maps, classes), all] {
            let is_null = now.as_deref() == Some("");
            if !is_null && !maps.is_empty() && classes.has(class) {
                let named = Named { parameter, maps, propagates: self.propagation.canonical };
                let replaced = mapping.replaced(named, now.as_deref().unwrap_or(address), may_be_null).await?;
                now = replaced.or(now);
            }
        }
        let is_null = now.as_deref() == Some("");
        if !is_null && !self.masquerade.is_empty() && self.masquerade_classes.has(class) {
            let given = now.as_deref().unwrap_or(address);
            let masqueraded = self.masquerade.apply(given, mapping.asker).await;
            let masqueraded = masqueraded.map_err(|error| mapping.failed("masquerade_exceptions", given, error))?;
            now = masqueraded.or(now);
        }
        Ok(now)
    }

    /// Return the value of a header with its addresses rewritten, `None` if it stays.
    pub async fn header(
        &self,
        mapping: &Mapping<'_>,
        class: RewriteClass,
        value: &[u8],
        tokens_max: usize,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let found = addresses(value, tokens_max);
        let found = found.into_iter().filter(|address| address.certain).collect::<Vec<_>>();
        let mut rewritten = Vec::with_capacity(found.len());
        for some in found.chunks(SIDE_BY_SIDE) {
            let written = some.iter().map(|address| canonical_form(&address.text)).collect::<Vec<_>>();
            let running = written.iter().map(|address| self.canonical(mapping, class, address)).collect();
            rewritten.extend(all(running).await);
        }
        let mut rewritten = rewritten.into_iter().collect::<Result<Vec<_>, _>>()?;
        for address in rewritten.iter_mut().flatten().filter(|address| address.is_empty()) {
            // A field must keep its address.
            *address = "\"\"".into();
        }
        Ok(replaced(value, &found, rewritten))
    }

    /// Rewrite the sender, and return the recipient of its copy.
    pub async fn sender(
        &self,
        mapping: &Mapping<'_>,
        copies: bool,
        sender: &mut Box<str>,
    ) -> Result<Option<Recipient>, AliasError> {
        if sender.is_empty() {
            return Ok(None);
        }
        if let Some(rewritten) = self.canonical(mapping, RewriteClass::EnvelopeSender, sender).await? {
            *sender = rewritten;
        }
        if !copies || sender.is_empty() {
            return Ok(None);
        }
        self.copy(mapping, "sender_bcc_maps", &self.sender_copies, sender).await
    }

    /// Return the recipients of the envelope: rewritten, with aliases expanded, and with copies.
    pub async fn recipients(
        &self,
        mapping: &Mapping<'_>,
        copies: bool,
        sender_copy: Option<Recipient>,
        given: Vec<Recipient>,
    ) -> Result<Vec<Recipient>, AliasError> {
        let is_empty = given.is_empty();
        let mut found = Vec::with_capacity(given.len());
        if let Some(copy) = sender_copy {
            found.extend(self.expanded(mapping, copy).await?);
        }
        for some in given.chunks(SIDE_BY_SIDE) {
            let running = some.iter().map(|recipient| self.recipient(mapping, copies, recipient.clone())).collect();
            for expanded in all(running).await {
                found.extend(expanded?);
            }
        }
        if copies && !self.always_bcc.is_empty() && !is_empty {
            found.extend(self.expanded(mapping, copy_to(mapping, &self.always_bcc)).await?);
        }
        Ok(found)
    }

    async fn recipient(
        &self,
        mapping: &Mapping<'_>,
        copies: bool,
        mut recipient: Recipient,
    ) -> Result<Vec<Recipient>, AliasError> {
        if let Some(address) = self.canonical(mapping, RewriteClass::EnvelopeRecipient, &recipient.address).await? {
            replace(&mut recipient, address);
        }
        let address = recipient.address.clone();
        let mut found = self.aliases(mapping, recipient).await?;
        if copies && let Some(copy) = self.copy(mapping, "recipient_bcc_maps", &self.recipient_copies, &address).await?
        {
            found.extend(self.expanded(mapping, copy).await?);
        }
        Ok(found)
    }

    /// Return the recipients that the recipient of a copy stands for.
    async fn expanded(&self, mapping: &Mapping<'_>, mut copy: Recipient) -> Result<Vec<Recipient>, AliasError> {
        if let Some(address) = self.canonical(mapping, RewriteClass::EnvelopeRecipient, &copy.address).await? {
            copy.address = address;
        }
        self.aliases(mapping, copy).await
    }

    async fn aliases(&self, mapping: &Mapping<'_>, recipient: Recipient) -> Result<Vec<Recipient>, AliasError> {
        if self.aliases.is_empty() {
            return Ok(vec![recipient]);
        }
        let named =
            Named { parameter: "virtual_alias_maps", maps: &self.aliases, propagates: self.propagation.aliases };
        let addresses = expanded(mapping, named, &recipient.address, &self.alias_limits).await?;
        let is_alias = addresses.len() > 1 || addresses[0] != recipient.address;
        // RFC 3461 §5.2.7.3: the aliases of a list do not report success.
        let mask = if is_alias { !Notify::SUCCESS } else { !0 };
        let alias = |address: Box<str>| {
            let mut alias = Recipient { notify: Notify(recipient.notify.0 & mask), ..recipient.clone() };
            if alias.address != address {
                replace(&mut alias, address);
            }
            alias
        };
        Ok(addresses.into_iter().map(alias).collect())
    }

    async fn copy(
        &self,
        mapping: &Mapping<'_>,
        parameter: &'static str,
        maps: &Maps,
        address: &str,
    ) -> Result<Option<Recipient>, AliasError> {
        if maps.is_empty() || address.is_empty() {
            return Ok(None);
        }
        let named = Named { parameter, maps, propagates: false };
        Ok(mapping.copy(named, address).await?.map(|address| copy_to(mapping, &address)))
    }
}

/// Return the recipient of a copy. Its failure is not reported to the sender.
fn copy_to(mapping: &Mapping<'_>, address: &str) -> Recipient {
    let complete = mapping.complete.apply(address);
    let address = canonical_form(complete.as_deref().unwrap_or(address)).into_owned();
    Recipient { notify: Notify(Notify::NEVER), ..Recipient::plain(&address) }
}

fn replace(recipient: &mut Recipient, address: Box<str>) {
    let given = std::mem::replace(&mut recipient.address, address);
    recipient.original.get_or_insert(given);
}

/// Return an address in its one form; a text that is no address stays unchanged.
pub fn canonical_form(address: &str) -> Cow<'_, str> {
    if address.bytes().any(|b| matches!(b, b'\\' | b'"'))
        && let Ok(path) = Path::of(address)
    {
        return Cow::Owned(path.address().into());
    }
    Cow::Borrowed(address)
}
