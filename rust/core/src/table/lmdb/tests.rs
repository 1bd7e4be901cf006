use super::pages::{META_OCTETS, PAGE_HEAD_OCTETS};
use super::*;
use proptest::prelude::*;

const PAGE: usize = 512;
const WORD: usize = size_of::<usize>();

/// Return a page with these nodes. A node has a head, a key, and the octets after the key.
fn page(number: usize, kind: u16, nodes: &[([u8; 6], &[u8], Vec<u8>)]) -> Vec<u8> {
    let mut octets = vec![0; PAGE];
    octets[..WORD].copy_from_slice(&number.to_ne_bytes());
    octets[WORD + 2..WORD + 4].copy_from_slice(&kind.to_ne_bytes());
    let (mut lower, mut upper) = (PAGE_HEAD_OCTETS, PAGE);
    for (head, key, rest) in nodes {
        let node = [&head[..], &(key.len() as u16).to_ne_bytes(), key, rest].concat();
        upper -= node.len();
        octets[upper..upper + node.len()].copy_from_slice(&node);
        octets[lower..lower + 2].copy_from_slice(&(upper as u16).to_ne_bytes());
        lower += 2;
    }
    octets[WORD + 4..WORD + 6].copy_from_slice(&(lower as u16).to_ne_bytes());
    octets[WORD + 6..WORD + 8].copy_from_slice(&(upper as u16).to_ne_bytes());
    octets
}

fn tree(pad: u32, flags: u16, depth: u16, entries: usize, root: usize) -> Vec<u8> {
    let mut octets = [&pad.to_ne_bytes()[..], &flags.to_ne_bytes(), &depth.to_ne_bytes()].concat();
    for word in [0, 0, 0, entries, root] {
        octets.extend_from_slice(&word.to_ne_bytes());
    }
    octets
}

fn meta(number: usize, transaction: usize, main: &[u8]) -> Vec<u8> {
    let mut octets = page(number, 8, &[]);
    octets.truncate(PAGE_HEAD_OCTETS);
    octets.extend_from_slice(&0xbeef_c0de_u32.to_ne_bytes());
    octets.extend_from_slice(&1_u32.to_ne_bytes());
    octets.extend_from_slice(&[0; 2 * WORD]);
    octets.extend_from_slice(&tree(PAGE as u32, 8, 0, 0, usize::MAX));
    octets.extend_from_slice(main);
    octets.extend_from_slice(&7_usize.to_ne_bytes());
    octets.extend_from_slice(&transaction.to_ne_bytes());
    assert_eq!(octets.len(), META_OCTETS);
    octets.resize(PAGE, 0);
    octets
}

/// Return the head of a leaf's node.
fn leaf(octets: usize, flags: u16) -> [u8; 6] {
    [&(octets as u32).to_ne_bytes()[..], &flags.to_ne_bytes()].concat().try_into().unwrap()
}

const LONG: &[u8] = &[b'v'; 900];

/// A file of eight pages: `a`, `b`, `m` and `n`, whose value has two pages; the older transaction's tree is empty.
fn file() -> Vec<u8> {
    let value = |text: &str| text.as_bytes().to_vec();
    let mut long = page(5, 4, &[]);
    long[WORD + 4..WORD + 8].copy_from_slice(&2_u32.to_ne_bytes());
    long.truncate(PAGE_HEAD_OCTETS);
    long.extend_from_slice(LONG);
    long.resize(2 * PAGE, 0);
    [
        meta(0, 2, &tree(0, 0, 2, 4, 4)),
        meta(1, 1, &tree(0, 0, 0, 0, usize::MAX)),
        page(2, 2, &[(leaf(1, 0), b"a", value("1")), (leaf(2, 0), b"b\0", value("2\0"))]),
        page(3, 2, &[(leaf(0, 0), b"m", value("")), (leaf(900, 1), b"n", 5_usize.to_ne_bytes().to_vec())]),
        page(4, 1, &[(leaf(2, 0), b"", vec![]), (leaf(3, 0), b"m", vec![])]),
        long,
        page(7, 0, &[]),
    ]
    .concat()
}

/// Read octets as a file's.
fn snapshot(octets: &[u8]) -> Result<Snapshot, String> {
    let read_at = |place: &mut [u8], at: u64| {
        let from = octets.get(at as usize..at as usize + place.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        place.copy_from_slice(from);
        Ok(())
    };
    Snapshot::of(Octets::Memory(octets.into()), Metas::read(&read_at)?)
}

fn find(snapshot: &Snapshot, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = None;
    snapshot.find(key, &mut |found| value = Some(found.to_vec()))?;
    Ok(value)
}

fn list(snapshot: &Snapshot) -> (usize, bool) {
    let mut entries = 0;
    let result = snapshot.each(&mut |_, _| {
        entries += 1;
        true
    });
    (entries, result.is_ok())
}

#[test]
fn keys_are_found_in_the_tree_of_the_newer_transaction() {
    let whole = snapshot(&file()).unwrap();
    let rows: [(&[u8], Option<&[u8]>); 9] = [
        (b"a", Some(b"1")),
        (b"b\0", Some(b"2\0")),
        (b"m", Some(b"")),
        (b"n", Some(LONG)),
        (b"b", None),
        (b"", None),
        (b"A", None),
        (b"lost", None),
        (b"z", None),
    ];
    for (key, value) in rows {
        assert_eq!(find(&whole, key).unwrap().as_deref(), value, "{key:?}");
    }
    assert_eq!(list(&whole), (4, true));
    let mut older = file();
    older[PAGE + META_OCTETS - WORD..PAGE + META_OCTETS].copy_from_slice(&3_usize.to_ne_bytes());
    let empty = snapshot(&older).unwrap();
    assert_eq!((find(&empty, b"a").unwrap(), list(&empty)), (None, (0, true)));
}

#[test]
fn a_file_without_its_last_pages_is_read_if_these_are_free() {
    let whole = file();
    assert_eq!(list(&snapshot(&whole[..7 * PAGE]).unwrap()), (4, true));
    for end in (0..5 * PAGE + PAGE_HEAD_OCTETS + LONG.len()).step_by(11) {
        assert!(snapshot(&whole[..end]).is_err(), "{end} octets");
    }
}

#[test]
fn trees_that_name_pages_again_and_again_are_damaged() {
    let mut octets = file();
    // Every page below the top is the top itself.
    let top = page(4, 1, &[(leaf(4, 0), b"", vec![]), (leaf(4, 0), b"m", vec![])]);
    octets[4 * PAGE..5 * PAGE].copy_from_slice(&top);
    for depth in [1, 2, 32] {
        octets[..PAGE].copy_from_slice(&meta(0, 2, &tree(0, 0, depth, 4, 4)));
        let damaged = snapshot(&octets).unwrap();
        assert!(find(&damaged, b"a").is_err() && list(&damaged) == (0, false));
    }
    octets[..PAGE].copy_from_slice(&meta(0, 2, &tree(0, 0, 33, 4, 4)));
    assert!(snapshot(&octets).is_err());
}

#[test]
fn databases_of_other_programs_are_refused() {
    let mut octets = file();
    // Several values for a key.
    octets[..PAGE].copy_from_slice(&meta(0, 2, &tree(0, 4, 2, 4, 4)));
    assert_eq!(snapshot(&octets).unwrap_err(), "an LMDB file of another program");
    // A database within the database.
    let mut nested = file();
    nested[2 * PAGE..3 * PAGE].copy_from_slice(&page(2, 2, &[(leaf(1, 2), b"a", vec![b'1'])]));
    assert!(find(&snapshot(&nested).unwrap(), b"a").is_err());
}

proptest! {
    #[test]
    fn a_damaged_file_is_an_error_and_never_a_crash(
        changes in prop::collection::vec((0..8 * PAGE, any::<u8>()), 1..8),
        words in prop::collection::vec((0..8 * PAGE / 2, 0..0x300_u16), 0..4),
        end in 0..=8 * PAGE,
        cuts in any::<bool>(),
    ) {
        let mut octets = file();
        for (at, octet) in changes {
            octets[at] = octet;
        }
        for (at, word) in words {
            octets[2 * at..2 * at + 2].copy_from_slice(&word.to_ne_bytes());
        }
        if cuts {
            octets.truncate(end);
        }
        if let Ok(damaged) = snapshot(&octets) {
            for key in [&b"a"[..], b"", b"m", b"n", b"z"] {
                if let Ok(Some(value)) = find(&damaged, key) {
                    prop_assert!(value.len() <= octets.len());
                }
            }
            prop_assert!(list(&damaged).0 <= octets.len());
            let _ = damaged.check();
        }
    }
}
