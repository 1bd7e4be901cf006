//! The cost of a lookup in a local table: `tables ENTRIES LOOKUPS`. Prints one JSON object.
//!
//! Half of the lookups find their key. `correct`: exactly those did. `octets_a_line`: the memory of a table of networks with
//! few different results, in whole octets.

use postillion_core::ask::Answer;
use postillion_core::table::cidr::CidrTable;
use postillion_core::table::dictionary::Dictionary;
use postillion_core::table::file::FileTable;
use postillion_core::table::index;
use postillion_core::table::indexed::Indexed;
use postillion_core::table::options::Options;
use postillion_core::table::text::Text;
use postillion_core::table::{Table, cdb};
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

/// The results of networks.
const RESULTS: [&str; 3] = ["REJECT", "OK", "550 5.7.1 listed"];

fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u32>().expect("a number"));
    let (entries, lookups) = (words.next().expect("ENTRIES"), words.next().expect("LOOKUPS"));
    let folder = std::env::temp_dir().join(format!("postillion-tables-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("m");
    let key = |number: u32| format!("user{number}@example.com");
    let mut dictionary = Dictionary::default();
    let mut text = String::new();
    let (mut networks, mut networks6) = (String::new(), String::new());
    for number in 0..entries {
        dictionary.insert(key(number).as_bytes(), b"one@example.net").expect("room");
        text += &format!("{}\tone@example.net\n", key(number));
        let result = RESULTS[number as usize % RESULTS.len()];
        networks += &format!("{} {result}\n", address(number));
        networks6 += &format!("{} {result}\n", address6(number));
    }
    fs::write(&path, text).expect("a text");
    fs::write(folder.join("c"), networks).expect("a text");
    fs::write(folder.join("c6"), networks6).expect("a text");
    index::write(&dictionary, &File::create(folder.join("m.db")).expect("a file")).expect("an index");
    cdb::write(&dictionary, &File::create(folder.join("m.cdb")).expect("a file"), false).expect("a cdb file");
    let options = Options::plain;
    let file = |format| FileTable::new("table", format, options());
    let texthash = file(Box::new(Text { path: path.clone(), options: options() }));
    let hash = file(Box::new(Indexed::new("hash", &path, options())));
    let cdb = file(Box::new(cdb::CdbFile::new(&path, &options())));
    let networks = |name: &str| {
        CidrTable::new("cidr", folder.join(name).as_os_str().as_encoded_bytes(), &options()).expect("a name")
    };
    let (cidr, cidr6) = (networks("c"), networks("c6"));
    let names: Vec<String> = (0..lookups).map(|number| key(spread(number) % (entries * 2))).collect();
    let keys = |address: &dyn Fn(u32) -> String| -> Vec<String> {
        (0..lookups).map(|number| address(spread(number) % (entries * 2))).collect()
    };
    let addresses = keys(&|number| address(number).to_string());
    let addresses6 = keys(&|number| address6(number).to_string());
    let wanted = (0..lookups).filter(|&number| spread(number) % (entries * 2) < entries).count();
    let rows: [(&str, &dyn Table, &[String]); 5] = [
        ("texthash", &texthash, &names),
        ("hash", &hash, &names),
        ("cdb", &cdb, &names),
        ("cidr", &cidr, &addresses),
        ("cidr6", &cidr6, &addresses6),
    ];
    let mut correct = true;
    let mut fields = Vec::new();
    for (name, table, keys) in rows {
        let started = Instant::now();
        table.refresh().expect("a table");
        let load_s = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let found = keys.iter().filter(|key| matches!(table.lookup(key.as_bytes()), Answer::Found(_))).count();
        let ns = started.elapsed().as_secs_f64() * 1e9 / f64::from(lookups);
        correct &= found == wanted;
        fields.push(format!("\"{name}_ns\": {ns:.1}, \"{name}_load_s\": {load_s:.4}"));
    }
    for (name, table) in [("cidr", &cidr), ("cidr6", &cidr6)] {
        let octets = table.octets().expect("a table") / entries as usize;
        fields.push(format!("\"{name}_octets_a_line\": {octets}"));
    }
    fs::remove_dir_all(folder).expect("removed");
    println!("{{{}, \"correct\": {correct}}}", fields.join(", "));
}

/// Return a number that differs from its neighbours'.
fn spread(number: u32) -> u32 {
    number.wrapping_mul(2_654_435_761) ^ number >> 7
}

/// Return an address of its own for each number.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(number.wrapping_mul(2_654_435_761))
}

/// Do the same with IPv6.
fn address6(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(address(number).to_bits()) << 32)
}
