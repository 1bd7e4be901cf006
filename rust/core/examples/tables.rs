//! The cost of a lookup in a local table: `tables ENTRIES LOOKUPS`. Prints one JSON object.
//!
//! Half of the lookups find their key. `correct`: exactly those did.

use postillion_core::ask::Answer;
use postillion_core::table::cidr::CidrTable;
use postillion_core::table::dictionary::Dictionary;
use postillion_core::table::file::FileTable;
use postillion_core::table::index::{self, Indexed};
use postillion_core::table::options::Options;
use postillion_core::table::text::Text;
use postillion_core::table::{Table, cdb};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u32>().expect("a number"));
    let (entries, lookups) = (words.next().expect("ENTRIES"), words.next().expect("LOOKUPS"));
    let folder = std::env::temp_dir().join(format!("postillion-tables-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("m");
    let key = |number: u32| format!("user{number}@example.com");
    let mut dictionary = Dictionary::default();
    let mut text = String::new();
    let mut networks = String::new();
    for number in 0..entries {
        dictionary.insert(key(number).as_bytes(), b"one@example.net").expect("room");
        text += &format!("{}\tone@example.net\n", key(number));
        networks += &format!("{} REJECT\n", address(number));
    }
    fs::write(&path, text).expect("a text");
    fs::write(folder.join("c"), networks).expect("a text");
    index::write(&dictionary, &File::create(folder.join("m.db")).expect("a file")).expect("an index");
    cdb::write(&dictionary, &File::create(folder.join("m.cdb")).expect("a file"), false).expect("a cdb file");
    let options = Options::plain;
    let file = |format| FileTable::new("table", format, options());
    let texthash = file(Box::new(Text { path: path.clone(), options: options() }));
    let hash = file(Box::new(Indexed::new("hash", &path, options())));
    let cdb = file(Box::new(cdb::CdbFile::new(&path, &options())));
    let cidr = CidrTable::new("cidr", Path::new(&folder.join("c")).as_os_str().as_encoded_bytes(), &options())
        .expect("a name");
    let names: Vec<String> = (0..lookups).map(|number| key(spread(number) % (entries * 2))).collect();
    let addresses: Vec<String> =
        (0..lookups).map(|number| address(spread(number) % (entries * 2)).to_string()).collect();
    let wanted = (0..lookups).filter(|&number| spread(number) % (entries * 2) < entries).count();
    let rows: [(&str, &dyn Table, &[String]); 4] =
        [("texthash", &texthash, &names), ("hash", &hash, &names), ("cdb", &cdb, &names), ("cidr", &cidr, &addresses)];
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
