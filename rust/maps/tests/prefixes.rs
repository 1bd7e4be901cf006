//! A subject that does not begin with a pattern's prefix does not match: all short patterns of some parts, in both
//! libraries.

use postillion_core::table::rules::Expression;
use postillion_maps::pcre::Pcre;
use postillion_maps::regexp::Regexp;

const PARTS: [&str; 14] = ["a", "B", ".", "*", "?", "|", "(", ")", "\\(", "[(]", "[|a]", "\\|", "\\b", "{0}"];
const SUBJECTS: [&str; 14] = ["", "a", "A", "b", "ab", "aB", "ba", "(", "|", "(a", "a|b", "a(b", "|b", "\na"];
const LENGTH_MAX: usize = 4;

/// Return all patterns of up to `LENGTH_MAX` parts behind an anchor.
fn patterns() -> Vec<String> {
    let mut all = vec!["^".to_owned()];
    let mut from = 0;
    for _ in 0..LENGTH_MAX {
        let longer: Vec<String> =
            all[from..].iter().flat_map(|start| PARTS.map(|part| format!("{start}{part}"))).collect();
        from = all.len();
        all.extend(longer);
    }
    all
}

/// Return the number of patterns with a prefix.
fn check<E: Expression>(flags: &str) -> usize {
    let options = E::options(flags.as_bytes(), &mut |_| ()).unwrap();
    let mut known = 0;
    for pattern in patterns() {
        let Some(prefix) = E::prefix(pattern.as_bytes(), options) else { continue };
        known += 1;
        let Ok(expression) = E::compile(pattern.as_bytes(), options, false) else { continue };
        for subject in SUBJECTS {
            let matches = expression.matches(&mut E::subject(subject.as_bytes()).unwrap(), None).unwrap();
            assert!(!matches || prefix.begins(subject.as_bytes()), "{pattern:?} matches {subject:?}");
        }
    }
    known
}

#[test]
fn no_match_of_a_regexp_begins_otherwise() {
    assert!(check::<Regexp>("") > 1000);
    assert!(check::<Regexp>("i") > 1000);
    assert_eq!((check::<Regexp>("m"), check::<Regexp>("x")), (0, 0));
}

#[test]
fn no_match_of_a_pcre_begins_otherwise() {
    assert!(check::<Pcre>("") > 1000);
    assert!(check::<Pcre>("i") > 1000);
    assert_eq!((check::<Pcre>("m"), check::<Pcre>("x")), (0, 0));
}
