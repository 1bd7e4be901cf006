//! LMDB's own files, read by `postillion_core::table::lmdb`: whole, changed by other transactions, and damaged.

use super::*;
use postillion_core::table::database;
use postillion_core::table::file::{Entries, Format};
use postillion_core::table::lmdb::{LmdbEntries, LmdbFile};
use postillion_core::table::octets::IN_MEMORY_MAX_OCTETS;
use postillion_core::table::options::Options;
use std::fs::{self, File};
use std::path::PathBuf;

/// More than a page.
const LONG_OCTETS: usize = 10_000;

fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("postillion-lmdb-{}-{name}", std::process::id()));
    let _ = fs::remove_file(database::path_of(&path, ".lmdb"));
    path
}

fn dictionary(count: usize, value: &str) -> Dictionary {
    let mut dictionary = Dictionary::default();
    for number in 0..count {
        dictionary.insert(format!("key{number}").as_bytes(), format!("{value} {number}").as_bytes()).unwrap();
    }
    dictionary
}

/// Open a file; one of more than `memory_max_octets` is read page by page.
fn entries(path: &Path, memory_max_octets: u64) -> Result<LmdbEntries, String> {
    LmdbEntries::read(File::open(path).unwrap(), memory_max_octets, 0)
}

/// Ask for everything; the answers are values or errors.
fn ask(entries: &dyn Entries) -> (usize, bool) {
    let (mut listed, mut failed) = (0, false);
    failed |= entries
        .each(&mut |_, _| {
            listed += 1;
            true
        })
        .is_err();
    failed |= entries.get(b"key1").is_err() || entries.get(b"long").is_err();
    entries.get_each(&[b"key0", b"key77", b"none"], &mut |_, value| {
        failed |= value.is_err();
        true
    });
    (listed, failed)
}

#[test]
fn entries_with_and_without_null_octets_are_found() {
    for (nulls, memory) in [(false, true), (true, true), (false, false), (true, false)] {
        let text = path(&format!("nulls-{nulls}-{memory}"));
        let file = database::path_of(&text, ".lmdb");
        let mut written = dictionary(3000, "value");
        written.insert(b"long", &[b'v'; LONG_OCTETS]).unwrap();
        write(&written, &file, nulls, 0).unwrap();
        let entries = entries(&file, if memory { IN_MEMORY_MAX_OCTETS } else { 0 }).unwrap();
        for number in [0, 1, 2999] {
            let value = entries.get(format!("key{number}").as_bytes()).unwrap();
            assert_eq!(value.as_deref(), Some(format!("value {number}").as_bytes()));
        }
        assert_eq!(entries.get(b"long").unwrap().as_deref(), Some(&[b'v'; LONG_OCTETS][..]));
        for missing in [&b"key3000"[..], b"", b"a", b"z", &[b'k'; 600]] {
            assert_eq!(entries.get(missing), Ok(None));
        }
        let names: Vec<String> = (0..3001).map(|number| format!("key{number}")).collect();
        let keys: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        let mut found = Vec::new();
        entries.get_each(&keys, &mut |at, value| {
            assert_eq!(at, found.len());
            found.push(value.unwrap().map(Vec::from));
            true
        });
        assert!(found[..3000].iter().enumerate().all(|(at, value)| *value == Some(format!("value {at}").into_bytes())));
        assert_eq!(found[3000], None);
        let mut listed = 0;
        entries
            .each(&mut |key, value| {
                assert!(key == b"long" || key.starts_with(b"key") && value.starts_with(b"value "));
                assert!(!key.ends_with(b"\0") && !value.ends_with(b"\0"));
                listed += 1;
                true
            })
            .unwrap();
        assert_eq!(listed, 3001);
        assert!(!database::path_of(&text, ".lmdb-lock").exists());
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_large_file_answers_from_its_last_transaction() {
    let text = path("growth");
    let file = database::path_of(&text, ".lmdb");
    write(&dictionary(10, "value"), &file, true, 0).unwrap();
    let entries = entries(&file, 0).unwrap();
    assert_eq!(entries.get(b"key10"), Ok(None));
    write(&dictionary(100_000, "value"), &file, true, 0).unwrap();
    assert_eq!(entries.get(b"key99999").unwrap().as_deref(), Some(&b"value 99999"[..]));
    write(&Dictionary::default(), &file, true, 0).unwrap();
    assert_eq!(entries.get(b"key1"), Ok(None));
    assert!(entries.is_empty());
    fs::remove_file(file).unwrap();
}

#[test]
fn a_small_file_in_memory_outlives_any_number_of_changes_and_says_that_it_is_old() {
    let text = path("memory");
    let file = database::path_of(&text, ".lmdb");
    write(&dictionary(3000, "old"), &file, true, 0).unwrap();
    let entries = entries(&file, IN_MEMORY_MAX_OCTETS).unwrap();
    assert!(entries.is_current());
    for round in 0..5 {
        write(&dictionary(3000, &format!("new {round}")), &file, true, 0).unwrap();
        assert!(!entries.is_current());
        assert_eq!(entries.get(b"key2999").unwrap().as_deref(), Some(&b"old 2999"[..]));
        assert_eq!(ask(&entries), (3000, false));
    }
    fs::write(&file, "").unwrap();
    assert_eq!(ask(&entries), (3000, false));
    assert!(!entries.is_current());
    fs::remove_file(file).unwrap();
}

#[test]
fn lookups_beside_a_writer_have_answers_of_one_transaction() {
    const ROUNDS: usize = 60;
    let text = path("beside");
    let file = database::path_of(&text, ".lmdb");
    let versioned = |version: usize| {
        let mut dictionary = Dictionary::default();
        for number in 0..500 {
            dictionary.insert(format!("key{number}").as_bytes(), version.to_string().as_bytes()).unwrap();
        }
        dictionary
    };
    write(&versioned(0), &file, true, 0).unwrap();
    let entries = entries(&file, 0).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (1..=ROUNDS).for_each(|round| write(&versioned(round), &file, true, 0).unwrap()));
        let mut last = 0;
        loop {
            let is_done = writer.is_finished();
            let mut found = Vec::new();
            entries.get_each(&[b"key0", b"key250", b"key499"], &mut |_, value| {
                // A writer that locks nothing and never pauses may spoil each attempt.
                found.push(value.map(|value| std::str::from_utf8(value.unwrap()).unwrap().parse::<usize>().unwrap()));
                true
            });
            if !is_done && found[0].is_err() {
                assert_eq!(found, [Err("the file changes too often".to_owned())]);
                continue;
            }
            let versions: Vec<usize> = found.into_iter().map(Result::unwrap).collect();
            assert!(versions.iter().all(|&version| version == versions[0]) && versions[0] >= last, "{versions:?}");
            last = versions[0];
            if is_done {
                break;
            }
        }
        writer.join().unwrap();
        assert_eq!(last, ROUNDS);
    });
    fs::remove_file(file).unwrap();
}

#[test]
fn files_of_another_kind_are_errors() {
    let text = path("bad");
    let file = database::path_of(&text, ".lmdb");
    let read = || LmdbFile::new(&text, &Options::plain()).read(&mut Vec::new()).map(|_| ());
    assert!(read().unwrap_err().ends_with("No such file or directory"));
    for content in [&b""[..], b"short", &[7; 5000]] {
        fs::write(&file, content).unwrap();
        assert!(read().unwrap_err().starts_with("open database"), "{content:?}");
    }
    fs::write(&text, "a b\n").unwrap();
    fs::remove_file(&file).unwrap();
    assert!(read().unwrap_err().contains("run \"postmap lmdb:"));
    fs::remove_file(&text).unwrap();
}

#[test]
fn a_file_that_is_cut_in_its_place_gives_errors_until_it_is_whole_again() {
    let text = path("cut");
    let file = database::path_of(&text, ".lmdb");
    let mut written = dictionary(3000, "value");
    written.insert(b"long", &[b'v'; LONG_OCTETS]).unwrap();
    write(&written, &file, true, 0).unwrap();
    let whole = fs::read(&file).unwrap();
    for page in 0..whole.len() / 4096 {
        let open = entries(&file, 0).unwrap();
        for cut in [page * 4096, page * 4096 + 100] {
            File::options().write(true).open(&file).unwrap().set_len(cut as u64).unwrap();
            assert!(ask(&open).1, "{cut} octets");
            assert!(entries(&file, 0).is_err() && entries(&file, IN_MEMORY_MAX_OCTETS).is_err(), "{cut} octets");
            assert!(write(&written, &file, true, 0).is_err() || cut == 0);
        }
        fs::write(&file, &whole).unwrap();
        assert_eq!(ask(&open), (3001, false));
    }
    fs::remove_file(file).unwrap();
}

#[test]
fn a_damaged_file_is_an_error_and_never_a_crash() {
    let text = path("damage");
    let file = database::path_of(&text, ".lmdb");
    let mut written = dictionary(300, "value");
    written.insert(b"long", &[b'v'; LONG_OCTETS]).unwrap();
    write(&written, &file, true, 0).unwrap();
    let whole = fs::read(&file).unwrap();
    for at in (0..whole.len()).filter(|at| at % 4096 < 48 || at % 257 == 0) {
        for value in [0, 0xff, whole[at] ^ 0x01, whole[at] ^ 0x80] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            fs::write(&file, &damaged).unwrap();
            for memory_max_octets in [0, IN_MEMORY_MAX_OCTETS] {
                if let Ok(entries) = entries(&file, memory_max_octets) {
                    assert!(ask(&entries).0 <= damaged.len());
                }
            }
        }
    }
    fs::remove_file(file).unwrap();
}

#[test]
fn a_key_that_is_too_long_is_an_error_and_changes_nothing() {
    let text = path("long");
    let file = database::path_of(&text, ".lmdb");
    write(&dictionary(5, "value"), &file, true, 0).unwrap();
    let mut long = dictionary(1, "value");
    long.insert(&[b'k'; 600], b"v").unwrap();
    assert!(write(&long, &file, true, 0).is_err());
    let loaded = LmdbFile::new(&text, &Options::plain()).read(&mut Vec::new()).unwrap();
    assert_eq!(loaded.entries.get(b"key4").unwrap().as_deref(), Some(&b"value 4"[..]));
    fs::remove_file(file).unwrap();
}
