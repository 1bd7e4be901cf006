//! `regexp:`: POSIX regular expressions of the C library (regexp_table(5), regex(7)).
//!
//! The library has no limit of steps. `cost` refuses patterns that may need too many, and limits the subjects of others.

use crate::cost::{Cost, KEPT_STATES_MAX, SHORT_MAX_OCTETS, SUBJECT_MAX_OCTETS, Syntax};
use crate::pattern::end_of_class;
use postillion_core::table::prefix::Prefix;
use postillion_core::table::rules::Expression;
use postillion_core::table::template::Span;
use std::ffi::{CStr, CString};
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Maximum number of groups; `$99` is the last place in a result.
const GROUPS_MAX: usize = 99;
/// Maximum octets of an error message.
const MESSAGE_MAX_OCTETS: usize = 256;

/// The C locale in this thread, until it is dropped: each octet is a character, and the case of ASCII letters alone is
/// ignored, whatever locale the process has. Postfix's programs have no other.
struct Octets(libc::locale_t);

impl Octets {
    fn enter() -> Self {
        static C: OnceLock<usize> = OnceLock::new();
        // SAFETY: the name is a C string. The C locale always exists, and a null pointer would only ask uselocale for the
        // present one. The object is never freed.
        let c =
            *C.get_or_init(|| unsafe { libc::newlocale(libc::LC_ALL_MASK, c"C".as_ptr(), ptr::null_mut()) } as usize);
        // SAFETY: `c` is what newlocale returned.
        Self(unsafe { libc::uselocale(c as libc::locale_t) })
    }
}

impl Drop for Octets {
    fn drop(&mut self) {
        // SAFETY: uselocale returned this one for this thread.
        unsafe { libc::uselocale(self.0) };
    }
}

/// A subject as the library takes it: with a null octet at its end, in the C locale, with room for the groups.
pub struct Subject {
    text: CString,
    found: [libc::regmatch_t; GROUPS_MAX + 1],
    _locale: Octets,
}

/// A compiled expression.
pub struct Regexp {
    pattern: Renewed,
    /// The pattern behind any text, for a single pass over a long subject. `None`: the pattern does not need it.
    single_pass: Option<Renewed>,
    cost: Cost,
    groups: usize,
}

/// An expression that is compiled anew when the library may keep too many states for it.
struct Renewed {
    pattern: CString,
    options: libc::c_int,
    compiled: RwLock<Arc<Compiled>>,
    /// States that the library may have added to the compiled expression.
    states: AtomicUsize,
}

/// An expression of the library.
struct Compiled {
    // Boxed: the library may keep pointers into it.
    regex: Box<libc::regex_t>,
}

// SAFETY: POSIX lets threads call regexec with one regex_t at the same time, and glibc and musl lock what they change.
unsafe impl Send for Compiled {}
// SAFETY: as above.
unsafe impl Sync for Compiled {}

impl fmt::Debug for Regexp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Regexp").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: `regex` was filled by a successful regcomp, and is not used again.
        unsafe { libc::regfree(&mut *self.regex) }
    }
}

impl Renewed {
    fn new(pattern: CString, options: libc::c_int) -> Result<Self, String> {
        let compiled = RwLock::new(Arc::new(Compiled::new(&pattern, options)?));
        Ok(Self { pattern, options, compiled, states: AtomicUsize::new(0) })
    }

    /// Like `Compiled::matches`. `adds`: maximum number of states that the library adds for this text.
    fn matches(&self, text: &CStr, found: &mut [libc::regmatch_t], adds: usize) -> Result<bool, String> {
        let compiled = Arc::clone(&self.compiled.read().unwrap_or_else(PoisonError::into_inner));
        let answer = compiled.matches(text, found);
        if adds > 0 && self.states.fetch_add(adds, Ordering::Relaxed).saturating_add(adds) > KEPT_STATES_MAX {
            self.renew();
        }
        answer
    }

    /// Free the library's states with a new expression. A match that runs in another thread ends with the old one. When
    /// the library cannot compile it, for lack of memory, the old one stays.
    fn renew(&self) {
        self.states.store(0, Ordering::Relaxed);
        if let Ok(compiled) = Compiled::new(&self.pattern, self.options) {
            *self.compiled.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(compiled);
        }
    }
}

impl Compiled {
    fn new(pattern: &CString, options: libc::c_int) -> Result<Self, String> {
        let _locale = Octets::enter();
        let mut regex = Box::new(MaybeUninit::<libc::regex_t>::zeroed());
        // SAFETY: regcomp gets memory for a regex_t, and a pattern with a null octet at its end.
        let error = unsafe { libc::regcomp(regex.as_mut_ptr(), pattern.as_ptr(), options) };
        if error != 0 {
            return Err(message(error, regex.as_ptr()));
        }
        // SAFETY: regcomp succeeded, so it has filled the memory.
        let regex = unsafe { Box::from_raw(Box::into_raw(regex).cast::<libc::regex_t>()) };
        Ok(Self { regex })
    }

    /// Whether the text matches. `found`: gets the places of the whole match and of as many groups as it has room for.
    fn matches(&self, text: &CStr, found: &mut [libc::regmatch_t]) -> Result<bool, String> {
        // SAFETY: `regex` is a compiled expression, `text` ends with a null octet, and `found` has room for its length.
        let error = unsafe { libc::regexec(&*self.regex, text.as_ptr(), found.len(), found.as_mut_ptr(), 0) };
        match error {
            0 => Ok(true),
            libc::REG_NOMATCH => Ok(false),
            _ => Err(message(error, &*self.regex)),
        }
    }
}

impl Expression for Regexp {
    const KIND: &'static str = "regexp";
    type Subject<'a> = Subject;

    fn options(flags: &[u8], _: &mut dyn FnMut(&str)) -> Result<u32, String> {
        let mut options = libc::REG_EXTENDED | libc::REG_ICASE;
        for &flag in flags {
            options ^= match flag {
                b'i' => libc::REG_ICASE,
                b'm' => libc::REG_NEWLINE,
                b'x' => libc::REG_EXTENDED,
                _ => return Err(format!("unknown regexp option \"{}\": skipping this rule", char::from(flag))),
            };
        }
        Ok(options.cast_unsigned())
    }

    fn excess(pattern: &[u8], options: u32) -> Option<String> {
        cost(pattern, options.cast_signed()).err()
    }

    fn compile(pattern: &[u8], options: u32, places: bool) -> Result<Self, String> {
        let options = options.cast_signed();
        let text = CString::new(pattern).map_err(|_| "a null octet in the pattern: skipping this rule".to_owned())?;
        let cost = cost(pattern, options)?;
        let compiled = Renewed::new(text, options | if places { 0 } else { libc::REG_NOSUB })?;
        let groups = count_groups(pattern, options);
        let single_pass = match is_plain(options) && cost.wants_single_pass() {
            true => behind_any_text(pattern).and_then(|text| Renewed::new(text, options | libc::REG_NOSUB).ok()),
            false => None,
        };
        Ok(Self { pattern: compiled, single_pass, cost, groups })
    }

    fn prefix(pattern: &[u8], options: u32) -> Option<Prefix> {
        let options = options.cast_signed();
        is_plain(options).then(|| Prefix::of(pattern, options & libc::REG_ICASE != 0)).flatten()
    }

    fn subject(octets: &[u8]) -> Result<Subject, String> {
        if octets.len() > SUBJECT_MAX_OCTETS {
            return Err(format!("a key of more than {SUBJECT_MAX_OCTETS} octets"));
        }
        // As in Postfix, a subject ends at a null octet.
        let end = octets.iter().position(|&octet| octet == 0).unwrap_or(octets.len());
        let text = CString::new(&octets[..end]).map_err(|error| error.to_string())?;
        let found = [libc::regmatch_t { rm_so: -1, rm_eo: -1 }; GROUPS_MAX + 1];
        Ok(Subject { text, found, _locale: Octets::enter() })
    }

    fn groups(&self) -> usize {
        self.groups.min(GROUPS_MAX)
    }

    fn matches(&self, subject: &mut Subject, spans: Option<&mut Vec<Span>>) -> Result<bool, String> {
        let Subject { text, found, .. } = subject;
        let octets = text.as_bytes().len();
        if octets > SHORT_MAX_OCTETS
            && let Some(single_pass) = &self.single_pass
        {
            limit(octets, self.cost.single_pass_max_octets())?;
            if !single_pass.matches(text, &mut [], self.cost.single_pass_adds(octets))? {
                return Ok(false);
            }
            if spans.is_none() {
                return Ok(true);
            }
        }
        limit(octets, self.cost.max_octets())?;
        let wanted = if spans.is_some() { self.groups() + 1 } else { 0 };
        let found = &mut found[..wanted];
        if !self.pattern.matches(text, found, self.cost.adds(octets))? {
            return Ok(false);
        }
        if let Some(spans) = spans {
            spans.clear();
            let span =
                |found: &libc::regmatch_t| (found.rm_so >= 0).then_some((found.rm_so as usize, found.rm_eo as usize));
            spans.extend(found.iter().map(span));
        }
        Ok(true)
    }
}

/// Check the length of a subject. Errors: it is longer than the pattern allows.
fn limit(octets: usize, max_octets: usize) -> Result<(), String> {
    match octets <= max_octets {
        true => Ok(()),
        false => Err(format!(
            "a key of {octets} octets, and this pattern may need too many steps above {max_octets}: use a pcre table"
        )),
    }
}

fn cost(pattern: &[u8], options: libc::c_int) -> Result<Cost, String> {
    let syntax = Syntax {
        extended: options & libc::REG_EXTENDED != 0,
        lines: options & libc::REG_NEWLINE != 0,
        fold: options & libc::REG_ICASE != 0,
    };
    Cost::of(pattern, syntax)
}

/// Whether the pattern is an extended one, and `^` stands for the start of the subject alone, not for that of any line.
fn is_plain(options: libc::c_int) -> bool {
    options & libc::REG_EXTENDED != 0 && options & libc::REG_NEWLINE == 0
}

/// Return a pattern that matches the same subjects, and always from their start.
fn behind_any_text(pattern: &[u8]) -> Option<CString> {
    CString::new([b"^.*(", pattern, b")"].concat()).ok()
}

/// Return the number of groups. The library knows it, but the crate libc does not show the field.
fn count_groups(pattern: &[u8], options: libc::c_int) -> usize {
    let extended = options & libc::REG_EXTENDED != 0;
    let (mut groups, mut at) = (0, 0);
    while let Some(&octet) = pattern.get(at) {
        match octet {
            b'\\' => {
                at += 1;
                groups += usize::from(!extended && pattern.get(at) == Some(&b'('));
            }
            b'(' => groups += usize::from(extended),
            b'[' => at = end_of_class(pattern, at),
            _ => {}
        }
        at += 1;
    }
    groups
}

/// Return the library's text for an error.
fn message(error: libc::c_int, compiled: *const libc::regex_t) -> String {
    let mut text = [0_u8; MESSAGE_MAX_OCTETS];
    // SAFETY: the buffer has the length that is given; regerror only reads `compiled`, which regcomp has set.
    unsafe { libc::regerror(error, compiled, text.as_mut_ptr().cast(), text.len()) };
    let end = text.iter().position(|&octet| octet == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(pattern: &str, flags: &str) -> Result<Regexp, String> {
        Regexp::compile(pattern.as_bytes(), Regexp::options(flags.as_bytes(), &mut |_| ())?, true)
    }

    fn ask(expression: &Regexp, subject: &[u8], spans: Option<&mut Vec<Span>>) -> Result<bool, String> {
        expression.matches(&mut Regexp::subject(subject)?, spans)
    }

    fn groups(pattern: &str, flags: &str, subject: &str) -> Option<Vec<Option<String>>> {
        let expression = compile(pattern, flags).unwrap();
        let mut spans = Vec::new();
        ask(&expression, subject.as_bytes(), Some(&mut spans))
            .unwrap()
            .then(|| spans.iter().skip(1).map(|span| span.map(|(start, end)| subject[start..end].to_owned())).collect())
    }

    #[test]
    fn groups_are_those_of_the_c_library() {
        let found = groups("^(a|ab)(c|bcd)?(d*)$", "", "abcd").unwrap();
        assert_eq!(found, [Some("a".into()), Some("bcd".into()), Some(String::new())]);
        assert_eq!(groups("(b)|(c)", "", "c").unwrap(), [None, Some("c".into())]);
    }

    #[test]
    fn flags_toggle() {
        for (pattern, flags, subject, matches) in [
            ("^a$", "", "A", true),
            ("^a$", "i", "A", false),
            ("^a$", "ii", "A", true),
            ("^b$", "", "a\nb", false),
            ("^b$", "m", "a\nb", true),
            ("a+", "x", "a+", true),
            ("^a+$", "x", "aa", false),
        ] {
            assert_eq!(groups(pattern, flags, subject).is_some(), matches, "{pattern} {flags} {subject}");
        }
        assert_eq!(compile("a", "s").unwrap_err(), "unknown regexp option \"s\": skipping this rule");
    }

    #[test]
    fn the_locale_of_the_process_has_no_effect() {
        // SAFETY: the names are C strings; C.UTF-8 is part of glibc. The locale is this thread's alone.
        unsafe { libc::uselocale(libc::newlocale(libc::LC_ALL_MASK, c"C.UTF-8".as_ptr(), ptr::null_mut())) };
        for (pattern, matches) in [("Ä", false), ("ä", true), ("^.$", false), ("^..$", true)] {
            assert_eq!(groups(pattern, "", "ä").is_some(), matches, "{pattern}");
        }
    }

    #[test]
    fn groups_are_counted() {
        for (pattern, flags, count) in [
            ("(a)(b(c))", "", 3),
            ("[(](a)\\(", "", 1),
            ("[])(](a)", "", 1),
            ("[[:alpha:](](a)", "", 1),
            ("\\(a\\)(", "x", 1),
        ] {
            assert_eq!(compile(pattern, flags).unwrap().groups(), count, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_does_not_compile_is_an_error() {
        assert_eq!(compile("(", "").unwrap_err(), "Unmatched ( or \\(");
        assert_eq!(compile("[z-a]", "").unwrap_err(), "Invalid range end");
        assert!(compile("a\0b", "").is_err());
    }

    #[test]
    fn a_single_pass_finds_what_the_pattern_finds() {
        let patterns = [
            "a*b",
            "^a*b",
            "(^a|b).*c",
            "a.*b$",
            "(a|b)*c",
            "x|a*c",
            "[ab]*c{2}",
            "a*(b|^c)",
            "c*\\>",
            "\\<a*c",
            "(a*)*d?e",
        ];
        let fill = "ab".repeat(SHORT_MAX_OCTETS / 2 + 1);
        let mut compared = 0;
        for pattern in patterns {
            let expression = compile(pattern, "").unwrap();
            for (before, after) in
                [("", ""), ("c", ""), ("", "c"), ("", "cc"), (" ", "e"), ("b", "\nab"), ("x", " a c")]
            {
                let subject = format!("{before}{fill}{after}");
                let text = CString::new(subject.as_bytes()).unwrap();
                let expected = expression.pattern.matches(&text, &mut [], 0).unwrap();
                for spans in [None, Some(&mut Vec::new())] {
                    assert_eq!(ask(&expression, subject.as_bytes(), spans), Ok(expected), "{pattern} {before} {after}");
                }
                compared += usize::from(expression.single_pass.is_some());
            }
        }
        assert!(compared > 50, "{compared}");
    }

    #[test]
    fn the_worst_patterns_end_or_are_refused() {
        let mixed: Vec<u8> =
            (0..SUBJECT_MAX_OCTETS as u32).map(|at| b"ab"[(at.wrapping_mul(2_654_435_761) >> 31) as usize]).collect();
        let same = vec![b'a'; SUBJECT_MAX_OCTETS];
        for pattern in [
            "(a*)*b",
            "a.*b.*c.*d",
            "(a|b)*a(a|b){12}x",
            "(a|b)*a(a|b){200}x",
            "a.{1000}c",
            "[ab]*a..................................................c",
            "[ab]{0,50}a[ab]{30}c",
            "(.)\\1{8}c",
            "(.{1,20})\\1c",
        ] {
            let expression = compile(pattern, "").unwrap();
            for subject in [&mixed, &same] {
                for octets in [SHORT_MAX_OCTETS, expression.cost.max_octets(), SUBJECT_MAX_OCTETS] {
                    let answer = ask(&expression, &subject[..octets], None);
                    let is_limit = answer.as_ref().is_err_and(|problem| problem.ends_with("use a pcre table"));
                    assert!(answer.is_ok() || is_limit, "{pattern} {octets}: {answer:?}");
                    assert!(answer.is_ok() || octets > expression.cost.max_octets(), "{pattern} {octets}");
                }
            }
        }
        for pattern in ["(.*)(.*)(.*)(.*)\\1\\2\\3\\4z", "((a{1,100}){1,100}){1,100}b"] {
            assert!(Regexp::excess(pattern.as_bytes(), libc::REG_EXTENDED.cast_unsigned()).is_some());
        }
    }

    #[test]
    fn a_pattern_of_many_states_is_compiled_anew_and_finds_the_same() {
        let ends = [b"ab".repeat(KEPT_STATES_MAX / 2), b"a".repeat(40), b"c".to_vec()].concat();
        let written_out = format!("[ab]*a{}c", ".".repeat(30));
        for (pattern, is_renewed) in [("[ab]*a.{30}c", true), (written_out.as_str(), true), ("[ab]*a.{3}c", false)] {
            let expression = compile(pattern, "").unwrap();
            let single_pass = expression.single_pass.as_ref().unwrap();
            let mut before = Arc::clone(&single_pass.compiled.read().unwrap());
            for _ in 0..3 {
                assert_eq!(ask(&expression, &ends, None), Ok(true), "{pattern}");
                assert_eq!(ask(&expression, &ends[..ends.len() - 1], None), Ok(false), "{pattern}");
                let after = Arc::clone(&single_pass.compiled.read().unwrap());
                assert_eq!(!Arc::ptr_eq(&before, &after), is_renewed, "{pattern}");
                assert_eq!(single_pass.states.load(Ordering::Relaxed), 0, "{pattern}");
                before = after;
            }
        }
    }

    #[test]
    fn a_subject_ends_at_a_null_octet_and_may_not_be_endless() {
        let expression = compile("b", "").unwrap();
        assert_eq!(ask(&expression, b"a\0b", None), Ok(false));
        assert!(ask(&expression, &vec![b'a'; SUBJECT_MAX_OCTETS + 1], None).is_err());
    }
}
