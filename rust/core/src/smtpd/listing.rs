//! The recipients that exist at a domain, by the tables that list them (LOCAL_RECIPIENT_README).

use crate::address::keys;
use crate::address::local_part::Extensions;
use crate::inquiry::{Asker, Failure};
use crate::lookup::{Key, Maps};

/// The recipients of a domain that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Every one.
    All,
    /// Those that a table of aliases gives another address.
    Aliases,
    /// Those, and the ones in local_recipient_maps.
    Local,
    /// The same for relay_recipient_maps.
    Relay,
    /// The same for virtual_mailbox_maps.
    Virtual,
}

impl Listing {
    const NAMES: [(&str, Self); 5] = [
        ("all", Self::All),
        ("aliases", Self::Aliases),
        ("local", Self::Local),
        ("relay", Self::Relay),
        ("virtual", Self::Virtual),
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }

    /// Return the listing with this name, `None` for another text.
    pub fn of(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find_map(|(known, listing)| (known == name).then_some(listing))
    }
}

/// The tables of a site that list recipients.
#[derive(Debug, Default)]
pub struct RecipientTables {
    /// Where an extension starts.
    pub extensions: Extensions,
    /// recipient_canonical_maps, canonical_maps, virtual_alias_maps
    pub aliases: Maps,
    /// local_recipient_maps
    pub local: Maps,
    /// relay_recipient_maps
    pub relay: Maps,
    /// virtual_mailbox_maps
    pub virtual_mailbox: Maps,
}

impl RecipientTables {
    /// Whether `recipient`, an address without quotes, exists. Errors: a table cannot answer.
    pub async fn have(&self, listing: Listing, recipient: &str, asker: &Asker) -> Result<bool, Failure> {
        let none = Maps::default();
        let own = match listing {
            Listing::All => return Ok(true),
            Listing::Aliases => &none,
            Listing::Local => &self.local,
            Listing::Relay => &self.relay,
            Listing::Virtual => &self.virtual_mailbox,
        };
        let Some((local, domain)) = recipient.rsplit_once('@') else { return Ok(false) };
        let keys = keys::recipient(local, domain, &self.extensions, listing == Listing::Local);
        for maps in [&self.aliases, own] {
            let mut kind = Key::Whole;
            for key in &keys {
                if maps.find(key.as_bytes(), kind, asker).await?.is_some() {
                    return Ok(true);
                }
                kind = Key::Part;
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::{Fixed, local, remote, run};

    /// The rows of the four lists of tables, in their order.
    const ROWS: [&[(&str, &str)]; 4] = [
        &[("alias@x", "a@y"), ("@all", "a@y")],
        &[("user", "x"), ("broken", "!")],
        &[("relayed@x", "x")],
        &[("@box", "x"), ("gone@x", "")],
    ];

    fn tables(of: impl Fn(usize) -> Maps) -> RecipientTables {
        RecipientTables {
            extensions: Extensions { delimiters: "+".into(), ..Extensions::default() },
            aliases: of(0),
            local: of(1),
            relay: of(2),
            virtual_mailbox: of(3),
        }
    }

    #[test]
    fn a_recipient_exists_if_an_alias_or_the_table_of_its_class_has_a_key_of_it() {
        use Listing::{Aliases, All, Local, Relay, Virtual};
        for (listing, recipient, expected) in [
            (All, "anybody@x", Some(true)),
            (Aliases, "alias@x", Some(true)),
            (Aliases, "ALIAS+ext@X", Some(true)),
            (Aliases, "user@all", Some(true)),
            (Aliases, "user@x", Some(false)),
            (Aliases, "relayed@x", Some(false)),
            (Local, "user+ext@x", Some(true)),
            (Local, "alias@x", Some(true)),
            (Local, "nobody@x", Some(false)),
            (Local, "broken@x", None),
            (Relay, "relayed@x", Some(true)),
            (Relay, "user@x", Some(false)),
            (Virtual, "user@box", Some(true)),
            (Virtual, "gone@x", None),
            (Virtual, "user@x", Some(false)),
        ] {
            let found = run(&[], false, async move |asker: Asker| {
                tables(|at| local(ROWS[at])).have(listing, recipient, &asker).await
            });
            assert_eq!(found.ok(), expected, "{listing:?} {recipient}");
            let found = run(&ROWS.map(Fixed::new), false, async move |asker: Asker| {
                tables(remote).have(listing, recipient, &asker).await
            });
            assert_eq!(found.ok(), expected, "remote: {listing:?} {recipient}");
        }
    }

    #[test]
    fn a_listing_has_one_name() {
        for (name, listing) in Listing::NAMES {
            assert_eq!(Listing::of(name), Some(listing));
            assert_eq!(listing.name(), name);
        }
        assert_eq!(Listing::of("mailbox"), None);
    }
}
