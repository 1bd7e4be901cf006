//! The lists of header_checks(5) tables, and the action for a line.
//!
//! The first table with a value decides. Empty lines match nothing. All tables are local: a core that sees each line
//! of each message cannot wait for a server.

use super::Table;
use crate::action::{Action, Section};
use crate::ask::Answer;
use crate::mail::header::name_octets;
use crate::mail::mime::Class;
use std::sync::Arc;

/// The tables of one parameter.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// The parameter's name, for warnings: `header_checks`.
    pub parameter: Box<str>,
    /// The tables, in their order.
    pub tables: Box<[Arc<dyn Table>]>,
}

/// The answer of a list for a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No table has the line.
    Nothing,
    /// The value of the first table that has it.
    Value(Box<[u8]>),
    /// A table cannot answer: the mail waits. The text says which table, and why.
    Failed(Box<str>),
}

impl List {
    /// Look a line up.
    pub fn find(&self, line: &[u8]) -> Found {
        if line.is_empty() {
            return Found::Nothing;
        }
        for table in &self.tables {
            match table.lookup(line) {
                Answer::Found(value) => return Found::Value(value),
                Answer::NotFound => {}
                Answer::Failed(why) => return Found::Failed(why),
            }
        }
        Found::Nothing
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

    /// Return the list for a header.
    pub fn of(&self, class: Class) -> &List {
        match class {
            Class::Primary => &self.header,
            Class::Mime => &self.mime_header,
            Class::Nested => &self.nested_header,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let tables: [Arc<dyn Table>; 3] = [
            Arc::new(Fixed(b"a", value("WARN 1"))),
            Arc::new(Fixed(b"b", Answer::Failed("down".into()))),
            Arc::new(Fixed(b"*", value("WARN 2"))),
        ];
        let list = List { parameter: "body_checks".into(), tables: tables.into() };
        for (line, found) in [
            (&b"a"[..], Found::Value(b"WARN 1"[..].into())),
            (b"b", Found::Failed("down".into())),
            (b"c", Found::Value(b"WARN 2"[..].into())),
            (b"", Found::Nothing),
        ] {
            assert_eq!(list.find(line), found);
        }
        assert_eq!(List::default().find(b"a"), Found::Nothing);
    }
}
