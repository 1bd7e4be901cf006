//! `regexp:`: POSIX regular expressions of the C library (regexp_table(5), regex(7)).

use postillion_core::table::prefix::Prefix;
use postillion_core::table::rules::Expression;
use postillion_core::table::template::Span;
use std::ffi::CString;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

/// Maximum octets of a subject: the library has no limit of time, and needs more than linear time for some patterns.
pub const SUBJECT_MAX_OCTETS: usize = 128 * 1024;
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
    // Boxed: the library may keep pointers into it.
    compiled: Box<libc::regex_t>,
    groups: usize,
}

// SAFETY: POSIX lets threads call regexec with one regex_t at the same time, and glibc and musl lock what they change.
unsafe impl Send for Regexp {}
// SAFETY: as above.
unsafe impl Sync for Regexp {}

impl fmt::Debug for Regexp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Regexp").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Drop for Regexp {
    fn drop(&mut self) {
        // SAFETY: `compiled` was filled by a successful regcomp, and is not used again.
        unsafe { libc::regfree(&mut *self.compiled) }
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

    fn compile(pattern: &[u8], options: u32, places: bool) -> Result<Self, String> {
        let options = options.cast_signed() | if places { 0 } else { libc::REG_NOSUB };
        let pattern =
            CString::new(pattern).map_err(|_| "a null octet in the pattern: skipping this rule".to_owned())?;
        let _locale = Octets::enter();
        let mut compiled = Box::new(MaybeUninit::<libc::regex_t>::zeroed());
        // SAFETY: regcomp gets memory for a regex_t, and a pattern with a null octet at its end.
        let error = unsafe { libc::regcomp(compiled.as_mut_ptr(), pattern.as_ptr(), options) };
        if error != 0 {
            return Err(message(error, compiled.as_ptr()));
        }
        // SAFETY: regcomp succeeded, so it has filled the memory.
        let compiled = unsafe { Box::from_raw(Box::into_raw(compiled).cast::<libc::regex_t>()) };
        let mut expression = Self { compiled, groups: 0 };
        expression.groups = expression.count_groups(&pattern, options);
        Ok(expression)
    }

    fn prefix(pattern: &[u8], options: u32) -> Option<Prefix> {
        let options = options.cast_signed();
        // Under REG_NEWLINE `^` stands for the start of any line.
        let is_plain = options & libc::REG_EXTENDED != 0 && options & libc::REG_NEWLINE == 0;
        is_plain.then(|| Prefix::of(pattern, options & libc::REG_ICASE != 0)).flatten()
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
        let wanted = if spans.is_some() { self.groups() + 1 } else { 0 };
        // SAFETY: `compiled` is a compiled expression, `text` ends with a null octet, and `found` has room for `wanted`.
        let error = unsafe { libc::regexec(&*self.compiled, text.as_ptr(), wanted, found.as_mut_ptr(), 0) };
        if error == libc::REG_NOMATCH {
            return Ok(false);
        }
        if error != 0 {
            return Err(message(error, &*self.compiled));
        }
        if let Some(spans) = spans {
            spans.clear();
            let span =
                |found: &libc::regmatch_t| (found.rm_so >= 0).then_some((found.rm_so as usize, found.rm_eo as usize));
            spans.extend(found[..wanted].iter().map(span));
        }
        Ok(true)
    }
}

impl Regexp {
    /// Return the number of groups. The library knows it, but the crate libc does not show the field.
    fn count_groups(&self, pattern: &CString, options: libc::c_int) -> usize {
        let extended = options & libc::REG_EXTENDED != 0;
        let octets = pattern.as_bytes();
        let (mut groups, mut at) = (0, 0);
        while let Some(&octet) = octets.get(at) {
            match octet {
                b'\\' => {
                    at += 1;
                    groups += usize::from(!extended && octets.get(at) == Some(&b'('));
                }
                b'(' => groups += usize::from(extended),
                b'[' => at = end_of_class(octets, at),
                _ => {}
            }
            at += 1;
        }
        groups
    }
}

/// Return the place of the bracket that ends the class of characters that begins at `start`.
fn end_of_class(pattern: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    at += usize::from(pattern.get(at) == Some(&b'^'));
    // A closing bracket at the start is a character.
    at += usize::from(pattern.get(at) == Some(&b']'));
    while let Some(&octet) = pattern.get(at) {
        match (octet, pattern.get(at + 1)) {
            (b']', _) => return at,
            (b'[', Some(&kind @ (b':' | b'.' | b'='))) => {
                let inside = &pattern[at + 2..];
                let end = inside.windows(2).position(|pair| pair == [kind, b']']);
                at += end.map_or(1, |end| end + 4);
            }
            _ => at += 1,
        }
    }
    at
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
    fn a_subject_ends_at_a_null_octet_and_may_not_be_endless() {
        let expression = compile("b", "").unwrap();
        assert_eq!(ask(&expression, b"a\0b", None), Ok(false));
        assert!(ask(&expression, &vec![b'a'; SUBJECT_MAX_OCTETS + 1], None).is_err());
    }
}
