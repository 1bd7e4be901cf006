//! The cost of a lookup in a local table: `tables ENTRIES LOOKUPS`. Prints one JSON object.
//!
//! Half of the lookups find their key. `correct`: exactly those did. `load_s`: the time until the table is open.
//! `octets_a_line`: the memory of a table of networks with few different results, in whole octets. A table of patterns has
//! `RULES` of them, and gets fewer lookups.

use postillion_core::ask::Answer;
use postillion_core::table::Table;
use postillion_core::table::cidr::CidrTable;
use postillion_core::table::options::Options;
use postillion_maps::build::{Build, Duplicates};
use postillion_maps::open::open;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The results of networks.
const RESULTS: [&str; 3] = ["REJECT", "OK", "550 5.7.1 listed"];
/// Number of patterns of a table.
const RULES: u32 = 200;
/// A table of patterns gets one of this many lookups.
const PATTERN_SHARE: usize = 20;

/// The figures of all tables.
struct Report {
    fields: Vec<String>,
    correct: bool,
}

impl Report {
    /// Load a table, look the keys of `numbers` up, and add its figures. The table has the keys below `entries`.
    fn measure(&mut self, name: &str, table: &dyn Table, entries: u32, numbers: &[u32], key: &dyn Fn(u32) -> String) {
        let keys: Vec<String> = numbers.iter().map(|&number| key(number)).collect();
        let started = Instant::now();
        table.refresh().expect("a table");
        let load_s = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let found = keys.iter().filter(|key| matches!(table.lookup(key.as_bytes()), Answer::Found(_))).count();
        let ns = started.elapsed().as_secs_f64() * 1e9 / keys.len() as f64;
        self.correct &= found == numbers.iter().filter(|&&number| number < entries).count();
        self.fields.push(format!("\"{name}_ns\": {ns:.1}, \"{name}_load_s\": {load_s:.4}"));
    }
}

fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u32>().expect("a number"));
    let (entries, lookups) = (words.next().expect("ENTRIES"), words.next().expect("LOOKUPS"));
    let folder = std::env::temp_dir().join(format!("postillion-tables-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let mut report = Report { fields: Vec::new(), correct: true };
    let numbers: Vec<u32> = (0..lookups).map(|number| spread(number) % (entries * 2)).collect();

    let user = |number: u32| format!("user{number}@example.com");
    let path = written(&folder, "users", entries, &|number| format!("{}\tone@example.net", user(number)));
    for kind in ["texthash", "hash", "btree", "cdb", "lmdb"] {
        if kind != "texthash" {
            index(kind, &path);
        }
        report.measure(kind, &*table(kind, &path), entries, &numbers, &user);
    }

    let families: [(&str, &dyn Fn(u32) -> String); 2] =
        [("cidr", &|number| address(number).to_string()), ("cidr6", &|number| address6(number).to_string())];
    for (name, address) in families {
        let result = |number: u32| RESULTS[number as usize % RESULTS.len()];
        let path = written(&folder, name, entries, &|number| format!("{} {}", address(number), result(number)));
        let table = CidrTable::new(name, path.as_os_str().as_encoded_bytes(), &Options::plain()).expect("a name");
        report.measure(name, &table, entries, &numbers, address);
        let octets = table.octets().expect("a table") / entries as usize;
        report.fields.push(format!("\"{name}_octets_a_line\": {octets}"));
    }

    let path = written(&folder, "patterns", RULES, &|number| format!("/^user{number}@(.*)\\.example$/ found $1"));
    let few: Vec<u32> = numbers.iter().step_by(PATTERN_SHARE).map(|number| number % (RULES * 2)).collect();
    for kind in ["regexp", "pcre"] {
        report.measure(kind, &*table(kind, &path), RULES, &few, &|number| format!("user{number}@a.example"));
    }
    fs::remove_dir_all(folder).expect("removed");
    println!("{{{}, \"correct\": {}}}", report.fields.join(", "), report.correct);
}

/// Write a text of that number of lines; return its path.
fn written(folder: &Path, name: &str, lines: u32, line: &dyn Fn(u32) -> String) -> PathBuf {
    let path = folder.join(name);
    let text: String = (0..lines).map(|number| line(number) + "\n").collect();
    fs::write(&path, text).expect("a text");
    path
}

/// Write the index of a text, as postmap does.
fn index(kind: &str, path: &Path) {
    let text = fs::read(path).expect("a text");
    let build = Build {
        kind,
        path,
        options: Options::plain(),
        duplicates: Duplicates::Warn,
        nulls: None,
        mode: 0o644,
        map_octets: 1 << 24,
    };
    build.create(&text, "text").expect("an index");
}

/// Return the table of a text.
fn table(kind: &str, path: &Path) -> std::sync::Arc<dyn Table> {
    open(format!("{kind}:{}", path.display()).as_bytes(), &Options::plain()).expect("a name")
}

/// Return a number of its own for each number, in no order.
fn spread(number: u32) -> u32 {
    number.wrapping_mul(2_654_435_761) ^ number >> 7
}

/// Return an IPv4 address of its own for each number.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(number.wrapping_mul(2_654_435_761))
}

/// Return an IPv6 address of its own for each number.
fn address6(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(address(number).to_bits()) << 32)
}
