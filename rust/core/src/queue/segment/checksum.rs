//! The checksum of two pieces from those of each piece.

/// Zeros for one step. The head of a message seldom has more octets.
const ZEROS: [u8; 4096] = [0; 4096];
/// A longer second piece is joined by the library, whose cost hardly grows with it.
const STEPS_MAX: usize = 8;

/// Return the CRC-32C of two pieces in a row. `second_octets`: the length of the second one.
///
/// The CRC is linear: crc(a, b) = crc(a, zeros) ^ crc(zeros) ^ crc(b), with as many zeros as b has octets. For a short
/// second piece this takes much less time than the library's matrices.
pub(crate) fn combine(first: u32, second: u32, second_octets: usize) -> u32 {
    if second_octets > ZEROS.len() * STEPS_MAX {
        return crc32c::crc32c_combine(first, second, second_octets);
    }
    let (mut behind_first, mut behind_nothing, mut left) = (first, 0, second_octets);
    while left > 0 {
        let zeros = &ZEROS[..left.min(ZEROS.len())];
        behind_first = crc32c::crc32c_append(behind_first, zeros);
        behind_nothing = crc32c::crc32c_append(behind_nothing, zeros);
        left -= zeros.len();
    }
    behind_first ^ behind_nothing ^ second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combined_is_the_checksum_of_both_pieces_in_a_row() {
        let octets: Vec<u8> = (0..70_000_u32).map(|n| (n * 7 + n / 256) as u8).collect();
        for first in [0, 1, 500, 20_000] {
            for second in [0, 1, 3, 8, 4095, 4096, 4097, 8192, 32_768, 32_769, 50_000] {
                let (a, b) = octets[..first + second].split_at(first);
                let whole = crc32c::crc32c(&octets[..first + second]);
                assert_eq!(combine(crc32c::crc32c(a), crc32c::crc32c(b), second), whole, "{first} and {second}");
            }
        }
    }
}
