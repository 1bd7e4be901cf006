//! Lines such as `192.0.2.0/24 REJECT`, as most are: the network, several octets at once.

use crate::table::ranges::Bits;

/// Octets of the longest address and of the one behind it.
const ADDRESS_OCTETS: usize = 16;
/// Octets that are read at once for a number of an address.
const NUMBER_OCTETS: usize = 4;

/// A network as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain {
    /// The first address.
    pub start: u32,
    /// The length of the prefix.
    pub length: u32,
    /// The octets of the pattern.
    pub octets: usize,
}

/// Return the IPv4 network at the start of a text. `None`: it has another form, an error, or the text ends nearby.
#[inline]
pub fn network(text: &[u8]) -> Option<Plain> {
    let text_start = text.first_chunk::<{ ADDRESS_OCTETS + NUMBER_OCTETS }>()?;
    let mut ends = others(text_start);
    let (mut start, mut at, mut is_plain) = (0, 0, true);
    for part in 0..4 {
        let end = ends.trailing_zeros() as usize;
        ends &= ends.wrapping_sub(1);
        let (value, is_number) = number(text_start, at, end.wrapping_sub(at));
        is_plain &= is_number & (part == 3 || text_start[end % ADDRESS_OCTETS] == b'.');
        start = start << 8 | value & 255;
        at = end % ADDRESS_OCTETS + 1;
    }
    let (mut length, mut octets) = (u32::BITS, at - 1);
    if is_plain && text_start[octets] == b'/' {
        let digits = text[at..].iter().take_while(|octet| octet.is_ascii_digit()).count();
        octets = at + digits;
        length = std::str::from_utf8(&text[at..octets]).ok()?.parse().ok()?;
        is_plain = length <= u32::BITS && (digits == 1 || text[at] != b'0');
    }
    (is_plain && start & u32::free(length) == 0).then_some(Plain { start, length, octets })
}

/// Return a bit for each of the first octets of a text, set for those that are no digits.
fn others(text: &[u8; ADDRESS_OCTETS + NUMBER_OCTETS]) -> u32 {
    const fn eight(octet: u8) -> u64 {
        u64::from_le_bytes([octet; 8])
    }
    text[..ADDRESS_OCTETS].as_chunks().0.iter().rev().fold(0, |bits, octets| {
        let values = u64::from_le_bytes(*octets) ^ eight(b'0');
        // The sum of a value above 9 has the upper bit of its octet, as has a value of at least 128 itself.
        let marks = ((values & eight(0x7f)) + eight(0x80 - 10)) | values;
        // The product gathers the upper bits of all octets in the uppermost octet.
        bits << 8 | ((marks >> 7 & eight(1)).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
    })
}

/// Return the number that `digits` octets at `at` write, and whether it is a part of an address.
fn number(text: &[u8; ADDRESS_OCTETS + NUMBER_OCTETS], at: usize, digits: usize) -> (u32, bool) {
    /// The least number of that many digits: none has a zero in front.
    const LEAST: [u32; 32] = {
        let mut least = [u32::MAX; 32];
        (least[1], least[2], least[3]) = (0, 10, 100);
        least
    };
    let at = at % (ADDRESS_OCTETS + 1);
    let octets = u32::from_le_bytes(text[at..at + NUMBER_OCTETS].try_into().unwrap_or_default());
    // The last digit comes into the uppermost octet; zeros stand before the first one.
    let shift = (digits as u32).wrapping_neg().wrapping_mul(u8::BITS);
    let [_, hundreds, tens, ones] = (octets ^ 0x3030_3030).wrapping_shl(shift).to_le_bytes();
    let value = u32::from(hundreds) * 100 + u32::from(tens) * 10 + u32::from(ones);
    (value, (LEAST[digits % LEAST.len()] <= value) & (value <= 255))
}
