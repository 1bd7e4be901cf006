//! TLSA records (RFC 6698 §2.1, RFC 7671, RFC 7672 §3.1).

use crate::settings::{Source, Value};

/// Usage 2, DANE-TA: an authority above the server's certificate.
pub const TRUST_ANCHOR: u8 = 2;
/// Usage 3, DANE-EE: the server's certificate.
pub const END_ENTITY: u8 = 3;
/// Selector 0: the whole certificate.
pub const CERTIFICATE: u8 = 0;
/// Selector 1: its public key.
pub const PUBLIC_KEY: u8 = 1;
/// Matching type 0: no digest.
pub const FULL: u8 = 0;
/// The digests of a matching type: name, type and octets.
const DIGESTS: [(&str, u8, usize); 2] = [("sha256", 1, 32), ("sha512", 2, 64)];

/// A TLSA record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tlsa {
    /// The kind of certificate that the record names: 0 to 3.
    pub usage: u8,
    /// The part of the certificate: 0 or 1.
    pub selector: u8,
    /// The form of `data`: 0 to 2.
    pub matching: u8,
    /// The certificate, the key, or a digest.
    pub data: Vec<u8>,
}

/// `tls_dane_digests`: the matching types that count, the strongest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DaneDigests {
    /// Name and matching type.
    pub known: Vec<(&'static str, u8)>,
}

impl Tlsa {
    /// Return whether a client can use the record: usages 0 and 1 mean nothing between mail servers (RFC 7672 §3.1.3), and a
    /// digest has its length. Whether a whole certificate or key is well-formed, only the library knows.
    pub fn is_usable(&self, digests: &DaneDigests) -> bool {
        let has_length = match self.matching {
            FULL => !self.data.is_empty(),
            matching => {
                let digest = DIGESTS.iter().find(|(_, known, _)| *known == matching);
                digests.known.iter().any(|(_, known)| *known == matching)
                    && digest.is_some_and(|(_, _, octets)| *octets == self.data.len())
            }
        };
        matches!(self.usage, TRUST_ANCHOR | END_ENTITY)
            && matches!(self.selector, CERTIFICATE | PUBLIC_KEY)
            && has_length
    }
}

impl Value for DaneDigests {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let mut found = Self::default();
        for word in source.items(name)? {
            let (digest, number) =
                word.split_once('=').map_or((&*word, None), |(digest, number)| (digest, Some(number)));
            let row = DIGESTS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(digest));
            let row = row.filter(|(_, matching, _)| number.is_none_or(|number| number.parse() == Ok(*matching)));
            let Some((digest, matching, _)) = row else {
                return Err(source.bad(name, &word, "give sha512 and sha256, the stronger one first"));
            };
            if !found.known.iter().any(|(_, known)| known == matching) {
                found.known.push((digest, *matching));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::defaults;

    #[test]
    fn records_that_mail_servers_use_are_usable() {
        let both = defaults::read(|source| DaneDigests::read(source, "tls_dane_digests"));
        assert_eq!(both.known, [("sha512", 2), ("sha256", 1)]);
        let sha256 = DaneDigests { known: vec![("sha256", 1)] };
        let rows = [
            // usage, selector, matching, octets, usable with both digests, with SHA-256 alone
            (3, 1, 1, 32, true, true),
            (3, 0, 1, 32, true, true),
            (2, 0, 1, 32, true, true),
            (2, 1, 2, 64, true, false),
            (3, 1, 0, 91, true, true),
            (3, 1, 0, 0, false, false),
            (3, 1, 1, 31, false, false),
            (3, 1, 2, 32, false, false),
            (3, 1, 3, 32, false, false),
            (3, 2, 1, 32, false, false),
            (0, 0, 1, 32, false, false),
            (1, 1, 1, 32, false, false),
            (4, 1, 1, 32, false, false),
            (255, 255, 255, 32, false, false),
        ];
        for (usage, selector, matching, octets, with_both, with_sha256) in rows {
            let tlsa = Tlsa { usage, selector, matching, data: vec![7; octets] };
            assert_eq!((tlsa.is_usable(&both), tlsa.is_usable(&sha256)), (with_both, with_sha256), "{tlsa:?}");
        }
    }
}
