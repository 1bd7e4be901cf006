//! `pcre:`: Perl's regular expressions, by PCRE2 with its compiler to machine code (pcre_table(5)).

use pcre2_sys::{
    PCRE2_ANCHORED, PCRE2_CASELESS, PCRE2_DOLLAR_ENDONLY, PCRE2_DOTALL, PCRE2_ERROR_NOMATCH, PCRE2_EXTENDED,
    PCRE2_INFO_CAPTURECOUNT, PCRE2_JIT_COMPLETE, PCRE2_MULTILINE, PCRE2_UNGREEDY, PCRE2_UNSET, pcre2_code_8,
    pcre2_code_free_8, pcre2_compile_8, pcre2_get_error_message_8, pcre2_get_ovector_pointer_8, pcre2_jit_compile_8,
    pcre2_jit_stack_8, pcre2_jit_stack_assign_8, pcre2_jit_stack_create_8, pcre2_jit_stack_free_8, pcre2_match_8,
    pcre2_match_context_8, pcre2_match_context_create_8, pcre2_match_context_free_8, pcre2_match_data_8,
    pcre2_match_data_create_8, pcre2_match_data_free_8, pcre2_pattern_info_8, pcre2_set_heap_limit_8,
    pcre2_set_match_limit_8,
};
use postillion_core::table::prefix::Prefix;
use postillion_core::table::rules::Expression;
use postillion_core::table::template::Span;
use std::cell::RefCell;
use std::fmt;
use std::ptr::{self, NonNull};

/// Maximum number of steps of one match: some milliseconds.
pub const MATCH_LIMIT: u32 = 1_000_000;
/// Maximum memory of one match in KiB.
pub const HEAP_LIMIT_KIB: u32 = 20_000;
/// Octets of a thread's stack for compiled expressions, at first and at most.
const STACK_OCTETS: (usize, usize) = (32 * 1024, 1024 * 1024);
/// Maximum number of groups; `$99` is the last place in a result.
const GROUPS_MAX: usize = 99;
const MESSAGE_MAX_OCTETS: usize = 256;

/// A compiled expression.
pub struct Pcre {
    code: NonNull<pcre2_code_8>,
    groups: usize,
}

// SAFETY: PCRE2's compiled code is not changed after pcre2_jit_compile, and threads may share it (pcre2api(3)).
unsafe impl Send for Pcre {}
// SAFETY: as above.
unsafe impl Sync for Pcre {}

impl fmt::Debug for Pcre {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pcre").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Drop for Pcre {
    fn drop(&mut self) {
        // SAFETY: pcre2_compile returned the pointer, and it is not used again.
        unsafe { pcre2_code_free_8(self.code.as_ptr()) }
    }
}

/// The memory of a thread for a match.
struct Scratch {
    data: NonNull<pcre2_match_data_8>,
    context: NonNull<pcre2_match_context_8>,
    stack: NonNull<pcre2_jit_stack_8>,
}

impl Scratch {
    fn new() -> Option<Self> {
        // SAFETY: null stands for the default allocator; a null result is checked. Memory from before a failure
        // stays allocated: this happens once, when memory is exhausted.
        unsafe {
            let data = NonNull::new(pcre2_match_data_create_8(GROUPS_MAX as u32 + 1, ptr::null_mut()))?;
            let context = NonNull::new(pcre2_match_context_create_8(ptr::null_mut()))?;
            let stack = NonNull::new(pcre2_jit_stack_create_8(STACK_OCTETS.0, STACK_OCTETS.1, ptr::null_mut()))?;
            pcre2_set_match_limit_8(context.as_ptr(), MATCH_LIMIT);
            pcre2_set_heap_limit_8(context.as_ptr(), HEAP_LIMIT_KIB);
            pcre2_jit_stack_assign_8(context.as_ptr(), None, stack.as_ptr().cast());
            Some(Self { data, context, stack })
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: the pointers come from `new`, and nothing uses them again.
        unsafe {
            pcre2_match_data_free_8(self.data.as_ptr());
            pcre2_match_context_free_8(self.context.as_ptr());
            pcre2_jit_stack_free_8(self.stack.as_ptr());
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

impl Expression for Pcre {
    const KIND: &'static str = "pcre";
    type Subject<'a> = &'a [u8];

    fn options(flags: &[u8], remark: &mut dyn FnMut(&str)) -> Result<u32, String> {
        let mut options = PCRE2_CASELESS | PCRE2_DOTALL;
        for &flag in flags {
            options ^= match flag {
                b'i' => PCRE2_CASELESS,
                b'm' => PCRE2_MULTILINE,
                b's' => PCRE2_DOTALL,
                b'x' => PCRE2_EXTENDED,
                b'A' => PCRE2_ANCHORED,
                b'E' => PCRE2_DOLLAR_ENDONLY,
                b'U' => PCRE2_UNGREEDY,
                b'X' => {
                    remark("ignoring obsolete regexp option \"X\"");
                    0
                }
                _ => return Err(format!("unknown regexp option \"{}\": skipping this rule", char::from(flag))),
            };
        }
        Ok(options)
    }

    fn compile(pattern: &[u8], options: u32, _: bool) -> Result<Self, String> {
        let (mut error, mut offset) = (0, 0);
        // SAFETY: pattern and length belong together, the other pointers are those of local variables.
        let code = unsafe {
            pcre2_compile_8(pattern.as_ptr(), pattern.len(), options, &mut error, &mut offset, ptr::null_mut())
        };
        let Some(code) = NonNull::new(code) else {
            return Err(format!("error in regex at offset {offset}: {}", message(error)));
        };
        let mut groups = 0_u32;
        let mut expression = Self { code, groups: 0 };
        // SAFETY: `code` is compiled; the number of groups is a u32. An error of the compiler to machine code leaves
        // the interpreter, which is slower.
        unsafe {
            pcre2_jit_compile_8(code.as_ptr(), PCRE2_JIT_COMPLETE);
            pcre2_pattern_info_8(code.as_ptr(), PCRE2_INFO_CAPTURECOUNT, ptr::from_mut(&mut groups).cast());
        }
        expression.groups = groups as usize;
        Ok(expression)
    }

    fn prefix(pattern: &[u8], options: u32) -> Option<Prefix> {
        // Under these options `^` stands for the start of any line, and white space for nothing.
        let is_plain = options & (PCRE2_MULTILINE | PCRE2_EXTENDED) == 0;
        is_plain.then(|| Prefix::of(pattern, options & PCRE2_CASELESS != 0)).flatten()
    }

    fn subject(octets: &[u8]) -> Result<&[u8], String> {
        Ok(octets)
    }

    fn groups(&self) -> usize {
        self.groups.min(GROUPS_MAX)
    }

    fn matches(&self, subject: &mut &[u8], spans: Option<&mut Vec<Span>>) -> Result<bool, String> {
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.is_none() {
                *scratch = Scratch::new();
            }
            let scratch = scratch.as_ref().ok_or("no memory")?;
            let (data, context) = (scratch.data.as_ptr(), scratch.context.as_ptr());
            // SAFETY: subject and length belong together; `data` and `context` are this thread's own.
            let result =
                unsafe { pcre2_match_8(self.code.as_ptr(), subject.as_ptr(), subject.len(), 0, 0, data, context) };
            if result == PCRE2_ERROR_NOMATCH {
                return Ok(false);
            }
            if result < 0 {
                return Err(message(result));
            }
            if let Some(spans) = spans {
                // A result of 0 means more groups than `data` holds: then all of its places are set.
                let set = if result == 0 { GROUPS_MAX + 1 } else { result as usize };
                // SAFETY: `data` has GROUPS_MAX + 1 pairs, of which the match has set `set`, at most that many.
                let pairs = unsafe { std::slice::from_raw_parts(pcre2_get_ovector_pointer_8(data), set * 2) };
                let span =
                    |pair: &[usize]| (pair[0] != PCRE2_UNSET && pair[0] <= pair[1]).then_some((pair[0], pair[1]));
                spans.clear();
                spans.extend(pairs.chunks_exact(2).map(span));
            }
            Ok(true)
        })
    }
}

/// Return the library's text for an error.
fn message(error: i32) -> String {
    let mut text = [0_u8; MESSAGE_MAX_OCTETS];
    // SAFETY: the buffer has the length that is given.
    let length = unsafe { pcre2_get_error_message_8(error, text.as_mut_ptr(), text.len()) };
    String::from_utf8_lossy(&text[..usize::try_from(length).unwrap_or(0).min(text.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(pattern: &str, flags: &str) -> Result<Pcre, String> {
        Pcre::compile(pattern.as_bytes(), Pcre::options(flags.as_bytes(), &mut |_| ())?, true)
    }

    fn ask(expression: &Pcre, subject: &[u8], spans: Option<&mut Vec<Span>>) -> Result<bool, String> {
        expression.matches(&mut Pcre::subject(subject)?, spans)
    }

    fn matches(pattern: &str, flags: &str, subject: &str) -> bool {
        ask(&compile(pattern, flags).unwrap(), subject.as_bytes(), None).unwrap()
    }

    #[test]
    fn flags_toggle() {
        for (pattern, flags, subject, wanted) in [
            ("^a$", "", "A", true),
            ("^a$", "i", "A", false),
            ("^b$", "", "a\nb", false),
            ("^b$", "m", "a\nb", true),
            ("a.b", "", "a\nb", true),
            ("a.b", "s", "a\nb", false),
            ("a b", "x", "ab", true),
            ("b", "A", "ab", false),
            ("a$", "", "a\n", true),
            ("a$", "E", "a\n", false),
            // As in Postfix, a character is an octet.
            ("Ä", "", "ä", false),
            ("^..$", "", "ä", true),
        ] {
            assert_eq!(matches(pattern, flags, subject), wanted, "{pattern} {flags} {subject}");
        }
        assert_eq!(compile("a", "q").unwrap_err(), "unknown regexp option \"q\": skipping this rule");
        let mut told = Vec::new();
        Pcre::options(b"X", &mut |text| told.push(text.to_owned())).unwrap();
        assert_eq!(told, ["ignoring obsolete regexp option \"X\""]);
    }

    #[test]
    fn groups_are_found() {
        let expression = compile("^(a|ab)(c|bcd)?(d*)$|(never)", "").unwrap();
        let mut spans = Vec::new();
        assert_eq!(ask(&expression, b"abcd", Some(&mut spans)), Ok(true));
        assert_eq!(spans[1..], [Some((0, 1)), Some((1, 4)), Some((4, 4))]);
        assert_eq!(expression.groups(), 4);
        let second = compile("(b)|(c)", "").unwrap();
        assert_eq!(ask(&second, b"c", Some(&mut spans)), Ok(true));
        assert_eq!(spans[1..], [None, Some((0, 1))]);
    }

    #[test]
    fn a_bad_pattern_and_an_endless_match_are_errors() {
        assert_eq!(compile("(", "").unwrap_err(), "error in regex at offset 1: missing closing parenthesis");
        let evil = compile("^(a+)+$", "").unwrap();
        assert_eq!(ask(&evil, &[&[b'a'; 60][..], b"b"].concat(), None), Err("match limit exceeded".to_owned()));
    }

    #[test]
    fn many_groups_and_text_that_is_not_utf8_do_no_harm() {
        let expression = compile(&"(a)".repeat(200), "").unwrap();
        let mut spans = Vec::new();
        assert_eq!(ask(&expression, &[b'a'; 200], Some(&mut spans)), Ok(true));
        assert_eq!((spans.len(), expression.groups()), (100, 99));
        assert_eq!(ask(&compile("b", "").unwrap(), b"\xff\xfeb", None), Ok(true));
    }

    #[test]
    fn threads_share_an_expression() {
        let expression = compile("^(.*)[-.](\\d{1,3})[-.]", "").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..1000 {
                        let subject = format!("host-{number}.example");
                        assert_eq!(ask(&expression, subject.as_bytes(), None), Ok(true));
                    }
                });
            }
        });
    }
}
