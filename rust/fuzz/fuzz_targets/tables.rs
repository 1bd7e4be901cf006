//! Files of local tables: no text, index, cdb or lmdb file makes a reader panic or run on; a text answers as a plain reading of
//! its entries; a written index and cdb file answer as their text; flattened networks answer as their lines in turn.
//!
//! Input: a kind, then the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::ask::Answer;
use postillion_core::table::Table;
use postillion_core::table::cdb::Cdb;
use postillion_core::table::cidr::CidrTable;
use postillion_core::table::dictionary::Dictionary;
use postillion_core::table::file::Entries;
use postillion_core::table::index::{self, Index};
use postillion_core::table::lmdb::LmdbEntries;
use postillion_core::table::octets::Octets;
use postillion_core::table::options::{Form, Options};
use postillion_core::table::{cdb, source, template::Template, text};
use postillion_fuzz::{Choices, bit};
use std::collections::HashMap;
use std::fs::File;

const KEYS: [&[u8]; 5] = [b"", b"a", b"key", b"user@example", b"k\xff"];

/// Return the octets that `write` writes into a file.
fn written(write: impl FnOnce(&File) -> std::io::Result<()>) -> Vec<u8> {
    let path = std::env::temp_dir().join(format!("postillion-fuzz-tables-{}", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    write(&file).unwrap();
    let octets = std::fs::read(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    octets
}

/// Return an open file of these octets.
fn file_of(octets: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("postillion-fuzz-lmdb-{}", std::process::id()));
    std::fs::write(&path, octets).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

/// Ask a file of unknown octets; its answers are errors or values, never a panic.
fn ask(entries: &dyn Entries) {
    for key in KEYS {
        let _ = entries.get(key);
    }
    let mut left = 1000;
    let _ = entries.each(&mut |_, _| {
        left -= 1;
        left > 0
    });
}

/// A text, read twice: by the table and as a plain list of its entries.
fn read_text(input: &[u8], flags: u8) {
    let form = [Form::Map, Form::Alias, Form::Mixed, Form::Map][usize::from(flags >> 4 & 3)];
    let options = Options { form, fold: false, utf8: bit(flags, 2), ..Options::plain() };
    let mut dictionary = Dictionary::default();
    text::parse(input, &options, false, &mut dictionary, &mut |_| ()).unwrap();
    let mut plain: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut last = 0;
    for line in source::lines(input) {
        let number = line.as_ref().map_or_else(|problem| problem.number, |line| line.number);
        assert!(number > last, "lines are in order");
        last = number;
        if let Ok(entry) = line.as_ref().map_err(Clone::clone).and_then(|line| source::entry(line, &options)) {
            assert!(!entry.key.is_empty() && !entry.value.is_empty());
            plain.entry(entry.key.into_owned()).or_insert(entry.value.to_vec());
        }
    }
    assert_eq!(dictionary.len(), plain.len());
    let index = Index::of(Octets::Memory(written(|file| index::write(&dictionary, file)).into())).unwrap();
    let nulls = bit(flags, 3);
    let cdb = Cdb::of(Octets::Memory(written(|file| cdb::write(&dictionary, file, nulls)).into())).unwrap();
    for (key, value) in &plain {
        assert_eq!(dictionary.get(key), Some(&value[..]));
        assert_eq!(index.get(key).unwrap().as_deref(), Some(&value[..]));
        assert_eq!(cdb.get(key).unwrap().as_deref(), Some(&value[..]));
    }
}

/// Networks in a table's name. Every line that has no problem is found by its first address, or an earlier line is.
fn read_networks(input: &[u8]) {
    let rules: Vec<u8> = input.iter().filter(|octet| !matches!(octet, b'{' | b'}')).copied().collect();
    let mut name = b"{".to_vec();
    for line in rules.split(|&octet| octet == b'\n') {
        name.extend_from_slice(b"{");
        name.extend_from_slice(line);
        name.extend_from_slice(b"}");
    }
    name.extend_from_slice(b"}");
    let Ok(table) = CidrTable::new("cidr:fuzz", &name, &Options::plain()) else { return };
    for key in KEYS {
        assert!(!matches!(table.lookup(key), Answer::Found(_)), "a text that is no address matches nothing");
    }
    let values = table.values().unwrap_or_default();
    for line in rules.split(|&octet| octet == b'\n') {
        let word = line.split(|&octet| source::is_space(octet)).find(|word| !word.is_empty()).unwrap_or_default();
        let address = word.split(|&octet| octet == b'/').next().unwrap_or_default();
        match table.lookup(address) {
            Answer::Found(value) => assert!(values.contains(&value)),
            Answer::NotFound => {}
            Answer::Failed(problem) => assert!(problem.contains("nested IFs"), "{problem}"),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let flags = choices.byte();
    let rest = choices.rest();
    match flags & 3 {
        0 => read_text(rest, flags),
        1 => read_networks(rest),
        2 => {
            let octets = || Octets::Memory(rest.into());
            if let Ok(index) = Index::of(octets()) {
                ask(&index);
            }
            if let Ok(cdb) = Cdb::of(octets()) {
                ask(&cdb);
            }
            // Read whole, and page by page.
            for memory_max_octets in [u64::MAX, 0] {
                if let Ok(lmdb) = LmdbEntries::read(file_of(rest), memory_max_octets, 0) {
                    ask(&lmdb);
                }
            }
        }
        _ => {
            if let Ok(template) = Template::of(rest, Some(3)) {
                let spans = [Some((0, 2)), Some((1, 2)), None, Some((2, 9))];
                let expanded = template.expand(b"ab", &spans);
                assert!(expanded.len() <= rest.len() * 2);
            }
        }
    }
});
