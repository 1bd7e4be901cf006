//! Domains of addresses: host names and address literals (RFC 5321 §4.1.2, §4.1.3; valid_hostname of Postfix).
//!
//! `DomainKind::of` is the one test of a domain's syntax. A name has labels of letters, digits, `-` and `_`, and no
//! label starts or ends with `-`. A text of digits and dots alone is `Numeric`: an IP address without brackets, or
//! nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Maximum length of a domain in octets (RFC 5321 §4.5.3.1.2).
const DOMAIN_MAX_OCTETS: usize = 255;
/// Maximum length of a label in octets (RFC 1035 §2.3.4).
const LABEL_MAX_OCTETS: usize = 63;

/// The syntax of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainKind {
    /// A host name; one dot at its end is the root's.
    Name,
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`
    Literal,
    /// An IPv4 address without brackets.
    Ipv4,
    /// Digits and dots that are not an IPv4 address.
    Numeric,
}

impl DomainKind {
    /// Return the kind of `domain`, `None` for a text that is not a domain.
    pub fn of(domain: &str) -> Option<Self> {
        if domain.len() > DOMAIN_MAX_OCTETS {
            return None;
        }
        if let Some((address, is_tagged)) = literal(domain) {
            let is_valid =
                if is_tagged { address.parse::<Ipv6Addr>().is_ok() } else { address.parse::<Ipv4Addr>().is_ok() };
            return is_valid.then_some(Self::Literal);
        }
        let labels = domain.strip_suffix('.').unwrap_or(domain);
        let (mut previous, mut label_octets, mut numeric) = (b'.', 0, true);
        for b in labels.bytes() {
            match b {
                // No label is empty, and none starts or ends with a hyphen.
                b'.' if matches!(previous, b'.' | b'-') => return None,
                b'-' if previous == b'.' => return None,
                b'.' => label_octets = 0,
                b'0'..=b'9' => label_octets += 1,
                b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | 0x80.. => {
                    numeric = false;
                    label_octets += 1;
                }
                _ => return None,
            }
            if label_octets > LABEL_MAX_OCTETS {
                return None;
            }
            previous = b;
        }
        if matches!(previous, b'.' | b'-') {
            return None;
        }
        if !numeric {
            return Some(Self::Name);
        }
        Some(if labels.parse::<Ipv4Addr>().is_ok() { Self::Ipv4 } else { Self::Numeric })
    }
}

/// Return the address in an address literal, and whether it has the tag `IPv6:`; `None` for a domain without brackets.
pub(super) fn literal(domain: &str) -> Option<(&str, bool)> {
    const TAG: &str = "IPv6:";
    let inside = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inside.split_at_checked(TAG.len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case(TAG) => Some((address, true)),
        _ => Some((inside, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_has_the_kind_that_postfix_gives_it() {
        let label = "a".repeat(63);
        for (domain, kind) in [
            ("next.example", Some(DomainKind::Name)),
            ("next.example.", Some(DomainKind::Name)),
            ("a_b.example", Some(DomainKind::Name)),
            ("_a.example", Some(DomainKind::Name)),
            ("example.123", Some(DomainKind::Name)),
            ("1.2.3.4.example", Some(DomainKind::Name)),
            ("büro.example", Some(DomainKind::Name)),
            (&label, Some(DomainKind::Name)),
            ("[127.0.0.1]", Some(DomainKind::Literal)),
            ("[ipv6:::1]", Some(DomainKind::Literal)),
            ("127.0.0.1", Some(DomainKind::Ipv4)),
            ("1.2.3", Some(DomainKind::Numeric)),
            ("1", Some(DomainKind::Numeric)),
            ("", None),
            (".", None),
            ("-a.example", None),
            ("a-.example", None),
            ("a..b", None),
            (".next.example", None),
            ("next.example..", None),
            ("*.example", None),
            ("a/b.example", None),
            ("a b.example", None),
            ("[127.0.0.1", None),
            ("[999.0.0.1]", None),
            ("[::1]", None),
            (&(label.clone() + "a"), None),
            (&[label.as_str(); 4].join("."), Some(DomainKind::Name)),
            (&[label.as_str(); 5].join("."), None),
        ] {
            assert_eq!(DomainKind::of(domain), kind, "{domain:?}");
        }
    }
}
