//! The pattern of a line: a network or an address, in any form.

use crate::table::ranges::{Bits, Range};
use crate::table::script;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The pattern of a line.
#[derive(Debug, Clone, Copy)]
pub enum Network {
    V4(Range<u32>),
    V6(Range<u128>),
}

/// Parse a pattern and its result. Errors: what is wrong.
pub fn rule(text: &[u8]) -> Result<(Network, &[u8]), String> {
    let (pattern, value) = script::split(text);
    let network = network(pattern)?;
    if value.is_empty() { Err("no lookup result".to_owned()) } else { Ok((network, value)) }
}

/// Parse `network/length` or an address, perhaps in brackets. Errors: what is wrong.
pub fn network(pattern: &[u8]) -> Result<Network, String> {
    if pattern.is_empty() {
        return Err("no address pattern".to_owned());
    }
    let pattern = String::from_utf8_lossy(pattern);
    let text = match pattern.strip_prefix('[') {
        None => pattern,
        // `[network]/length` or `[network/length]`.
        Some(opened) => match opened.split_once(']') {
            None => return Err(format!("missing ']' character after \"{pattern}\"")),
            Some((inside, behind)) if behind.is_empty() || behind.starts_with('/') => [inside, behind].concat().into(),
            Some((inside, _)) => return Err(format!("garbage after \"[{inside}]\"")),
        },
    };
    let bad = || format!("bad address pattern: \"{text}\"");
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (&*text, None),
    };
    let family_bits = if address.contains(':') { u128::LENGTH } else { u32::LENGTH };
    let length = match length {
        None => family_bits,
        Some(digits) if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_digit()) => {
            return Err(format!("bad mask value in \"{text}\""));
        }
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|&length| length <= family_bits)
            .ok_or_else(|| format!("bad mask length in \"{text}\""))?,
    };
    let host_bits = |network: String| {
        format!("non-null host address bits in \"{text}\", perhaps you should use \"{network}/{length}\" instead")
    };
    fn range<A: Bits>(address: A, length: u32) -> Option<Range<A>> {
        let free = A::free(length);
        (address.and(free) == A::default()).then(|| (address, address.or(free)))
    }
    if family_bits == u128::LENGTH {
        let address = address.parse::<Ipv6Addr>().map_err(|_| bad())?.to_bits();
        let masked = || Ipv6Addr::from_bits(address & !u128::free(length)).to_string();
        range(address, length).map(Network::V6).ok_or_else(|| host_bits(masked()))
    } else {
        let address = address.parse::<Ipv4Addr>().map_err(|_| bad())?.to_bits();
        let masked = || Ipv4Addr::from_bits(address & !u32::free(length)).to_string();
        range(address, length).map(Network::V4).ok_or_else(|| host_bits(masked()))
    }
}
