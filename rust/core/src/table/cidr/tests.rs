//! Tests of cidr tables.

use super::pattern::Network;
use super::plain::Plain;
use super::*;
use crate::table::pieces::Pieces;
use crate::table::ranges::{Bits, RADIX_SORT_MIN, SHARDS};
use crate::table::source;
use proptest::prelude::*;

fn read(text: &str) -> (Networks, Vec<String>) {
    let mut told = Vec::new();
    let mut tell = |number: usize, problem: &str| told.push(format!("{number}: {problem}"));
    (Networks::read(&Pieces::of(text.as_bytes()).parts().unwrap(), &mut tell).unwrap(), told)
}

fn find(text: &str, key: &str) -> Option<String> {
    read(text).0.find(key.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
}

#[test]
fn the_first_line_that_matches_counts() {
    let text = "192.0.2.1 REJECT\n192.0.2.0/24\tOK\n192.0.2.0/25 never\n2001:db8::/32 SIX\n\
        if 10.0.0.0/8\n!10.9.0.0/16 NOT-NINE\n10.0.0.0/8 NINE\n::/0 never\nendif\n[172.16.0.0]/12 B\n[172.32.0.0/16] C\n";
    let rows = [
        ("192.0.2.1", Some("REJECT")),
        ("192.0.2.2", Some("OK")),
        ("192.0.2.255", Some("OK")),
        ("192.0.3.0", None),
        ("2001:db8::1", Some("SIX")),
        ("2001:DB8:ffff:ffff:ffff:ffff:ffff:ffff", Some("SIX")),
        ("2001:db9::", None),
        ("10.9.1.1", Some("NINE")),
        ("10.8.1.1", Some("NOT-NINE")),
        ("11.0.0.0", None),
        ("172.31.1.1", Some("B")),
        ("172.32.1.1", Some("C")),
        ("::ffff:192.0.2.1", None),
        ("010.9.1.1", None),
        ("x", None),
        ("", None),
    ];
    for (key, value) in rows {
        assert_eq!(find(text, key).as_deref(), value, "{key}");
    }
    assert_eq!(read(text).1, Vec::<String>::new());
}

#[test]
fn bad_lines_are_named_and_skipped() {
    let (networks, told) = read(
        "1.2.3/99 bad\n1.2.3.4/33 x\n192.168.0.1/24 hb\n010.0.0.1 o\nnoval\n10.3.0.0/16\nendif\nif\n\
         if 10.0.0.0/8 y\n2001:db8::1/64 z\n1.1.1.1/x m\nif 10.0.0.0/8\n10.1.1.1 fine\n\u{ff}1 x\n\
         if [::1] x\n[::1 x\n[::1]/64 x\n",
    );
    let skipping = "skipping this rule";
    assert_eq!(
        told,
        [
            format!("1: bad mask length in \"1.2.3/99\": {skipping}"),
            format!("2: bad mask length in \"1.2.3.4/33\": {skipping}"),
            format!(
                "3: non-null host address bits in \"192.168.0.1/24\", perhaps you should use \
                 \"192.168.0.0/24\" instead: {skipping}"
            ),
            format!("4: bad address pattern: \"010.0.0.1\": {skipping}"),
            format!("5: bad address pattern: \"noval\": {skipping}"),
            format!("6: no lookup result: {skipping}"),
            format!("7: ENDIF without IF: {skipping}"),
            format!("8: no address pattern: {skipping}"),
            format!("9: bad mask value in \"10.0.0.0/8 y\": {skipping}"),
            format!(
                "10: non-null host address bits in \"2001:db8::1/64\", perhaps you should use \
                 \"2001:db8::/64\" instead: {skipping}"
            ),
            format!("11: bad mask value in \"1.1.1.1/x\": {skipping}"),
            format!("14: bad address pattern: \"\u{ff}1\": {skipping}"),
            format!("15: garbage after \"[::1]\": {skipping}"),
            format!("16: missing ']' character after \"[::1\": {skipping}"),
            format!(
                "17: non-null host address bits in \"::1/64\", perhaps you should use \"::/64\" instead: {skipping}"
            ),
            "12: IF has no matching ENDIF".to_owned(),
        ]
    );
    assert_eq!(networks.find(b"10.1.1.1"), Some(&b"fine"[..]));
}

#[test]
fn a_line_that_is_too_long_has_no_result() {
    let (networks, told) = read(&format!("10.0.0.1 {}\n10.0.0.2 OK\n", "x".repeat(source::LINE_MAX_OCTETS)));
    assert_eq!(told, [format!("1: the line is longer than {} octets -- ignoring this line", source::LINE_MAX_OCTETS)]);
    assert_eq!((networks.find(b"10.0.0.1"), networks.find(b"10.0.0.2")), (None, Some(&b"OK"[..])));
}

#[test]
fn the_ends_of_the_address_space_are_found() {
    let text = "0.0.0.0 first\n255.255.255.255 last\n0.0.0.0/0 rest\n::/0 six\n";
    for (key, value) in [("0.0.0.0", "first"), ("255.255.255.255", "last"), ("1.1.1.1", "rest"), ("::", "six")] {
        assert_eq!(find(text, key).as_deref(), Some(value));
    }
    assert_eq!(find("!0.0.0.0/0 x\n", "1.1.1.1"), None);
}

#[test]
fn a_line_takes_few_octets() {
    const LINES: usize = 10_000;
    let text = |value: &dyn Fn(usize) -> String, has_network: bool| {
        let (mut v4, mut v6, mut octets) = (String::new(), String::new(), 0);
        for number in 0..LINES {
            let spread = (number as u32).wrapping_mul(2_654_435_761);
            let value = value(number);
            v4 += &format!("{} {value}\n", Ipv4Addr::from_bits(spread));
            v6 += &format!("2001:db8:{:x}:{:x}::/64 {value}\n", spread >> 16, spread & 0xffff);
            octets += value.len();
        }
        if has_network {
            v4 += "0.0.0.0/0 GAP\n";
            v6 += "::/0 GAP\n";
        }
        (read(&v4).0.octets(), read(&v6).0.octets(), octets)
    };
    // The structure, and the values.
    let few = size_of::<Networks>() + "REJECT".len() + "OK".len() + 2 * size_of::<u32>();
    let (v4, v6, _) = text(&|number| ["REJECT", "OK"][number % 2].to_owned(), false);
    assert!(v4 <= 8 * LINES + few && v6 <= 20 * LINES + few, "{v4} {v6}");
    let (v4, v6, values) = text(&|number| format!("550 {number}"), false);
    assert!(v4 <= (8 + 4) * LINES + values + few && v6 <= (20 + 4) * LINES + values + few, "{v4} {v6}");
    // A network around all lines: one more range in each shard, and the end of the network.
    let few = few + 2 * SHARDS * 20 + "GAP".len() + size_of::<u32>();
    let (v4, v6, _) = text(&|number| ["REJECT", "OK"][number % 2].to_owned(), true);
    assert!(v4 <= 16 * LINES + few && v6 <= 40 * LINES + few, "{v4} {v6}");
    assert!(v4 > 15 * LINES && v6 > 39 * LINES, "{v4} {v6}");
}

#[test]
fn lines_behind_one_that_always_matches_take_no_memory() {
    let lines = |count: usize| "0.0.0.0/0 OK\n!192.0.2.1 OK\n::/0 OK\n".repeat(count);
    assert_eq!(read(&lines(1)).0.octets(), read(&lines(1000)).0.octets());
}

#[test]
fn many_lines_in_any_order_are_found() {
    let count = 2 * RADIX_SORT_MIN as u32;
    let spread = |number: u32| number.wrapping_mul(2_654_435_761);
    let v4 = |bits: u32| Ipv4Addr::from_bits(bits).to_string();
    let v6 = |bits: u32| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(bits) << 48 | 1).to_string();
    let families: [(&str, &dyn Fn(u32) -> String); 2] =
        [("128.0.0.0/1 upper\n", &v4), ("2001:db8:0:8000::/49 upper\n", &v6)];
    for (upper, address) in families {
        let mut text: String = (0..count).map(|number| format!("{} {number}\n", address(spread(number)))).collect();
        for networks in ["", upper] {
            text += networks;
            let read = read(&text).0;
            for number in 0..count {
                let key = address(spread(number));
                assert_eq!(read.find(key.as_bytes()), Some(number.to_string().as_bytes()));
            }
            for (key, value) in [(3, None), (1 << 31 | 3, (!networks.is_empty()).then_some(&b"upper"[..]))] {
                assert!((0..count).all(|number| spread(number) != key));
                assert_eq!(read.find(address(key).as_bytes()), value);
            }
        }
    }
}

#[test]
fn plain_networks_are_those_of_the_general_form() {
    let rows = [
        ("192.0.2.0/24", true),
        ("192.0.2.1", true),
        ("0.0.0.0/0", true),
        ("1.2.3.0/32", true),
        ("255.255.255.255/32", true),
        ("255.255.255.255", true),
        ("192.0.2.1/24", false),
        ("192.0.2.0/33", false),
        ("192.0.2.0/", false),
        ("192.0.2.0/024", false),
        ("192.0.2.0/00", false),
        ("192.0.2.0/99999999999", false),
        ("192.0.2.256", false),
        ("192.0.2.1000", false),
        ("192.0.2.01", false),
        ("00.0.2.1", false),
        ("192.0.2.", false),
        ("192.0..2", false),
        (".1.2.3", false),
        ("192.0.2", false),
        ("192.0.2:1", false),
        ("192.0.2\u{ff}1", false),
        ("1920.2.1.1", false),
        ("12345678901234567890", false),
        ("::ffff:192.0.2.1", false),
        ("", false),
    ];
    for (pattern, is_plain) in rows {
        let text = format!("{pattern} REJECT, and some more text\n");
        let found = plain::network(text.as_bytes());
        assert_eq!(found.is_some(), is_plain, "{pattern}");
        if let Some(Plain { start, length, octets }) = found {
            assert_eq!(octets, pattern.len());
            let range = (start, start | u32::free(length));
            assert!(matches!(pattern::network(pattern.as_bytes()), Ok(Network::V4(general)) if general == range));
        }
    }
    // Not all octets that follow an address end its line.
    for text in ["1.2.3.4.5 x\n", "1.2.3.4x y\n", "1.2.3.4\n", "1.2.3.4 \n", "1.2.3.4/8/8 x\n"] {
        let text = format!("10.0.0.1 OK\n{text}10.0.0.2 OK\n10.0.0.3 some more text\n");
        let (networks, told) = read(&text);
        assert_eq!((networks.find(b"1.2.3.4"), told.len()), (None, 1), "{text}");
        assert_eq!(networks.find(b"10.0.0.2"), Some(&b"OK"[..]), "{text}");
    }
}

proptest! {
    #[test]
    fn plain_networks_are_all_that_the_general_form_has(
        numbers in prop::collection::vec(prop_oneof!["[0-9]{1,4}", "(0|1|10|25[0-9]|[0-9.:a])"], 4),
        length in prop_oneof![Just(String::new()), "/[0-9]{0,3}", Just("/32".to_owned()), "[/.x][0-9a.]"],
    ) {
        let pattern = numbers.join(".") + &length;
        let found = plain::network(format!("{pattern} REJECT, and more").as_bytes());
        let general = pattern::network(pattern.as_bytes());
        match general {
            // The general form allows zeros in front of a length.
            Ok(Network::V4(_)) if length.len() > 2 && length.starts_with("/0") => prop_assert_eq!(found, None),
            Ok(Network::V4(range)) => {
                let Plain { start, length, octets } = found.unwrap();
                prop_assert_eq!(((start, start | u32::free(length)), octets), (range, pattern.len()));
            }
            // The general form refuses what follows the network.
            _ => prop_assert!(found.is_none_or(|found| found.octets < pattern.len())),
        }
    }
}

/// One generated line: verb, negation, address, length.
fn line() -> impl Strategy<Value = (u8, bool, u32, u32)> {
    (0..8_u8, any::<bool>(), 0..256_u32, 24..=32_u32)
}

proptest! {
    #[test]
    fn flattened_lines_answer_as_lines_in_order(lines in prop::collection::vec(line(), 0..30)) {
        let mut text = String::new();
        for (number, &(verb, negated, address, length)) in lines.iter().enumerate() {
            let address = Ipv4Addr::from_bits(address & !u32::free(length));
            let not = if negated { "!" } else { "" };
            text += &match verb {
                0 => format!("if {not}{address}/{length}\n"),
                1 => "endif\n".to_owned(),
                _ => format!("{not}{address}/{length} {number}\n"),
            };
        }
        let networks = read(&text).0;
        for key in 0..300_u32 {
            let expected = first_match(&lines, key).map(|number| number.to_string().into_bytes());
            let key = Ipv4Addr::from_bits(key).to_string();
            prop_assert_eq!(networks.find(key.as_bytes()), expected.as_deref());
        }
    }
}

/// The lines that are not networks of IPv4.
const OTHER_LINES: [&str; 22] = [
    "# a comment",
    "",
    " ",
    "\t# no",
    " continued",
    "\tcontinued\r",
    "if 10.0.0.0/8",
    "IF !10.0.0.0/25",
    "if 0.0.0.0/0",
    "if ::/0",
    "if x",
    "endif",
    "ENDIF x",
    "!10.0.0.64/26 NOT",
    "!255.255.255.255 NOT",
    "2001:db8::/32 SIX",
    "[2001:db8::1] SEVEN",
    "10.0.0.1/24 BAD",
    "10.0.0.999 BAD",
    "10.0.0.7",
    "10.0.0.7/32x BAD",
    "\u{ff} BAD",
];

/// Addresses at the ends of shards, and some that are close to each other.
const NETWORKS: [u32; 8] = [0, 0x0a00_0000, 0x0a00_0040, 0x0a00_0041, 0x0fff_ffff, 0x1000_0000, 0x8000_0000, u32::MAX];

/// One line of a text as plain as it can be, and with the same meaning in a form that no quick reader knows.
fn written(&(kind, network, length, value): &(usize, usize, u32, usize)) -> (String, String) {
    if let Some(other) = OTHER_LINES.get(kind) {
        return ((*other).to_owned(), (*other).to_owned());
    }
    let network = Ipv4Addr::from_bits(NETWORKS[network] & !u32::free(length));
    let value = ["REJECT", "OK", "OK ", "\t550 5.7.1  listed", "OK\r", "OK x"][value];
    (format!("{network}/{length} {value}"), format!("[{network}]/{length} {value}"))
}

proptest! {
    // Each text is read once for each place where it can be cut.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_and_plain_lines_are_read_as_the_whole_and_the_general_form(
        lines in prop::collection::vec((0..60_usize, 0..8_usize, 0..=32_u32, 0..6_usize), 0..30),
        ends_with_newline in any::<bool>(),
        piece_octets in 2..200_usize,
    ) {
        let (mut plain, mut general): (Vec<_>, Vec<_>) = lines.iter().map(written).unzip();
        for lines in [&mut plain, &mut general] {
            lines.extend(ends_with_newline.then(String::new));
        }
        let (plain, general) = (plain.join("\n"), general.join("\n"));
        let (expected, expected_told) = read(&general);
        let mut text = Pieces::of(plain.as_bytes());
        text.piece_octets = piece_octets;
        // Each place where the text can be cut, and three of them together.
        let mut starts: Vec<_> = source::starts(plain.as_bytes()).map(|start| start as u64 - 1).collect();
        let few = starts.iter().copied().step_by(starts.len() / 3 + 1).collect();
        for places in starts.drain(..).map(|start| vec![start]).chain([Vec::new(), few]) {
            let parts = text.cut(places.iter().copied()).unwrap();
            let mut told = Vec::new();
            let mut tell = |number: usize, problem: &str| told.push(format!("{number}: {problem}"));
            let networks = Networks::read(&parts, &mut tell).unwrap();
            prop_assert_eq!(&told, &expected_told);
            let near = NETWORKS.iter().flat_map(|&key| [key, key.wrapping_add(1), key.wrapping_sub(1)]);
            for key in near.chain((0..64).map(|key| 0x0a00_0000 | key << 2)) {
                let key = Ipv4Addr::from_bits(key).to_string();
                prop_assert_eq!(networks.find(key.as_bytes()), expected.find(key.as_bytes()), "{} {:?}", key, places);
            }
            for key in ["2001:db8::1", "2001:db8::2", "::1"] {
                prop_assert_eq!(networks.find(key.as_bytes()), expected.find(key.as_bytes()));
            }
        }
    }
}

/// Return the first line that matches, as one reads the manual page.
fn first_match(lines: &[(u8, bool, u32, u32)], key: u32) -> Option<usize> {
    let mut open: Vec<bool> = Vec::new();
    for (number, &(verb, negated, address, length)) in lines.iter().enumerate() {
        let free = u32::free(length);
        let matches = (key & !free == address & !free) != negated;
        let counts = open.iter().all(|&open| open);
        match verb {
            0 => open.push(matches),
            1 => drop(open.pop()),
            _ if counts && matches => return Some(number),
            _ => {}
        }
    }
    None
}
