//! The lists of header_checks(5) tables, and the action for a line.
//!
//! The first table with a value decides. Empty lines match nothing. A remote table makes the line wait for its answer
//! (`Search::Asks`).

use crate::action::{Action, Section};
use crate::ask::{Answer, Lookup};
use crate::lookup::Entry;
use crate::mail::header::name_octets;
use crate::mail::mime::HeaderClass;

/// The tables of one parameter.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// The parameter's name, for warnings: `header_checks`.
    pub parameter: Box<str>,
    /// The tables, in their order.
    pub tables: Box<[Entry]>,
}

/// The state of a search for a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search {
    /// Its answer: the value of the first table that has the line.
    Done(Answer),
    /// The remote table at this position must answer; `go_on` takes its answer.
    Asks {
        /// The position of the table in the list.
        at: usize,
        /// The lookup that the program makes.
        lookup: Lookup,
    },
}

impl List {
    /// Look a line up in the tables, up to the first remote one.
    pub fn search(&self, line: &[u8]) -> Search {
        if line.is_empty() { Search::Done(Answer::NotFound) } else { self.search_from(0, line) }
    }

    /// Go on with the answer of the table at `at`.
    pub fn go_on(&self, line: &[u8], at: usize, answer: Answer) -> Search {
        match answer {
            Answer::NotFound => self.search_from(at + 1, line),
            answer => Search::Done(usable(answer)),
        }
    }

    fn search_from(&self, start: usize, line: &[u8]) -> Search {
        for (at, entry) in self.tables.iter().enumerate().skip(start) {
            let answer = match entry {
                Entry::Local(table) => table.lookup(line),
                Entry::Remote { index, .. } => {
                    return Search::Asks { at, lookup: Lookup { table: *index, key: line.into() } };
                }
            };
            if answer != Answer::NotFound {
                return Search::Done(usable(answer));
            }
        }
        Search::Done(Answer::NotFound)
    }

    /// Whether a table is remote.
    fn asks(&self) -> bool {
        self.tables.iter().any(|entry| matches!(entry, Entry::Remote { .. }))
    }

    /// Parse a value of the list. Errors: the warning for the log.
    pub fn action<'a>(&self, value: &'a [u8], place: Section) -> Result<Action<'a>, String> {
        Action::parse(value, place, &self.parameter, |text| name_octets(text).is_some())
    }

    /// As `action`, for a message on its way out.
    pub fn action_for_line<'a>(&self, value: &'a [u8], place: Section) -> Result<Action<'a>, String> {
        Action::parse_for_line(value, place, &self.parameter, |text| name_octets(text).is_some())
    }
}

/// Return the answer of a table for a check. As in Postfix, an empty value is an error of the table: the check must not be
/// skipped.
fn usable(answer: Answer) -> Answer {
    match answer {
        Answer::Found(value) if value.is_empty() => {
            Answer::Failed("the value is empty: remove the key, or give it an action".into())
        }
        answer => answer,
    }
}

/// The four lists of cleanup(8), or of smtp(8).
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// For the headers of the message.
    pub header: List,
    /// For MIME headers anywhere, and for the headers of parts.
    pub mime_header: List,
    /// For the headers of attached messages.
    pub nested_header: List,
    /// For the lines of all bodies.
    pub body: List,
}

impl Lists {
    /// Whether no list has a table: then nothing is checked.
    pub fn is_empty(&self) -> bool {
        self.no_headers() && self.body.tables.is_empty()
    }

    /// Whether no header is checked.
    pub fn no_headers(&self) -> bool {
        [&self.header, &self.mime_header, &self.nested_header].iter().all(|list| list.tables.is_empty())
    }

    /// Whether a list has a remote table.
    pub fn ask(&self) -> bool {
        [&self.header, &self.mime_header, &self.nested_header, &self.body].iter().any(|list| list.asks())
    }

    /// Return the list for a header.
    pub fn of(&self, class: HeaderClass) -> &List {
        match class {
            HeaderClass::Primary => &self.header,
            HeaderClass::Mime => &self.mime_header,
            HeaderClass::Nested => &self.nested_header,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::Table;
    use std::sync::Arc;

    #[derive(Debug)]
    struct Fixed(&'static [u8], Answer);

    impl Table for Fixed {
        fn name(&self) -> &str {
            "fixed:"
        }
        fn lookup(&self, key: &[u8]) -> Answer {
            if key == self.0 || self.0 == b"*" { self.1.clone() } else { Answer::NotFound }
        }
    }

    #[test]
    fn the_first_table_with_a_value_decides() {
        let value = |text: &'static str| Answer::Found(text.as_bytes().into());
        let fixed = |key, answer| Entry::Local(Arc::new(Fixed(key, answer)));
        let tables =
            [fixed(b"a", value("WARN 1")), fixed(b"b", Answer::Failed("down".into())), fixed(b"*", value("WARN 2"))];
        let list = List { parameter: "body_checks".into(), tables: tables.into() };
        for (line, answer) in [
            (&b"a"[..], Answer::Found(b"WARN 1"[..].into())),
            (b"b", Answer::Failed("down".into())),
            (b"c", Answer::Found(b"WARN 2"[..].into())),
            (b"", Answer::NotFound),
        ] {
            assert_eq!(list.search(line), Search::Done(answer));
        }
        assert_eq!(List::default().search(b"a"), Search::Done(Answer::NotFound));
        assert!(!Lists { body: list, ..Lists::default() }.ask());
    }

    #[test]
    fn an_empty_value_is_an_error() {
        let empty: Arc<dyn Table> = Arc::new(Fixed(b"a", Answer::Found([].into())));
        let list = List { parameter: "header_checks".into(), tables: [Entry::Local(empty)].into() };
        for search in [list.search(b"a"), list.go_on(b"a", 0, Answer::Found([].into()))] {
            assert!(matches!(search, Search::Done(Answer::Failed(why)) if why.starts_with("the value is empty")));
        }
    }

    #[test]
    fn a_remote_table_is_asked_after_the_tables_before_it() {
        let fixed = |key, value: &str| Entry::Local(Arc::new(Fixed(key, Answer::Found(value.as_bytes().into()))));
        let remote = |index| Entry::Remote { index, takes_parts: true };
        let list = List {
            parameter: "header_checks".into(),
            tables: [fixed(b"a", "1"), remote(7), remote(8), fixed(b"b", "2")].into(),
        };
        let asks = |at, table, key: &[u8]| Search::Asks { at, lookup: Lookup { table, key: key.into() } };
        assert_eq!(list.search(b"a"), Search::Done(Answer::Found(b"1"[..].into())));
        assert_eq!(list.search(b""), Search::Done(Answer::NotFound));
        assert_eq!(list.search(b"b"), asks(1, 7, b"b"));
        assert_eq!(list.go_on(b"b", 1, Answer::Found(b"x"[..].into())), Search::Done(Answer::Found(b"x"[..].into())));
        assert_eq!(list.go_on(b"b", 1, Answer::Failed("down".into())), Search::Done(Answer::Failed("down".into())));
        assert_eq!(list.go_on(b"b", 1, Answer::NotFound), asks(2, 8, b"b"));
        assert_eq!(list.go_on(b"b", 2, Answer::NotFound), Search::Done(Answer::Found(b"2"[..].into())));
        assert!(Lists { nested_header: list, ..Lists::default() }.ask());
    }
}
