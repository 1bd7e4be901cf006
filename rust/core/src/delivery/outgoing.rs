//! A message on its way to a server: smtp_header_checks and related parameters, smtp_generic_maps, and quoted-printable
//! for a server without 8BITMIME.
//!
//! Pieces in wire form go in and come out. Most messages need none of these, and never come here. The checks see the
//! converted message, and the maps see the checked one, as in Postfix. One piece, one header and one line are in memory.

use crate::action::{Section, Verb};
use crate::address::generic::{Generic, Outcome};
use crate::ask::{Answer, Lookup};
use crate::inquiry::Inquiry;
use crate::log::Log;
use crate::mail::header::{End, Field, Known, from_lf, with_lf};
use crate::mail::mime::{Class, Fault, Line, MimeEvents, MimeRules, Part, WireMime};
use crate::mail::quoted_printable::Downgrade;
use crate::mail::stuff::WireWriter;
use crate::table::checks::{Found, List, Lists};
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

/// Octets of a line in a log line.
const SHOWN_OCTETS: usize = 60;

/// Why a message cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsendable {
    /// Its structure breaks a limit.
    Mime(Fault),
    /// A table cannot answer.
    Lookup,
}

/// Converts one message.
#[derive(Debug)]
pub struct Outgoing {
    mime: WireMime,
    output: Output,
    generic: Option<Arc<Generic>>,
    /// Maps the addresses of the last piece.
    inquiry: Option<Inquiry<Outcome<Vec<u8>>>>,
}

#[derive(Debug)]
enum Output {
    Plain(Checked),
    Converted(Downgrade<Checked>),
}

impl Outgoing {
    /// Return a converter at the start of a message. `converts`: to quoted-printable.
    pub fn new(
        rules: MimeRules,
        lists: Arc<Lists>,
        generic: Option<Arc<Generic>>,
        converts: bool,
        queue_id: &str,
    ) -> Self {
        let checked = Checked {
            lists,
            queue_id: queue_id.into(),
            writer: WireWriter::default(),
            maps: generic.is_some(),
            addresses: Vec::new(),
            lines: Vec::new(),
            unsendable: None,
            converts,
        };
        let output = if converts { Output::Converted(Downgrade::new(checked)) } else { Output::Plain(checked) };
        Self { mime: WireMime::new(rules.outgoing()), output, generic, inquiry: None }
    }

    /// Convert the next piece; `last`: the message ends with it. Lines of the checks go to `log`. `Pending`: `asks` has
    /// lookups, and `poll` returns the piece. Errors: the message must not be sent.
    pub fn feed(&mut self, piece: &[u8], last: bool, log: &Log) -> Poll<Result<Vec<u8>, Unsendable>> {
        match &mut self.output {
            Output::Plain(checked) => self.mime.feed(piece, checked),
            Output::Converted(downgrade) => self.mime.feed(piece, downgrade),
        }
        if last {
            match &mut self.output {
                Output::Plain(checked) => self.mime.finish(checked),
                Output::Converted(downgrade) => {
                    self.mime.finish(downgrade);
                    downgrade.finish();
                }
            }
        }
        let checked = match &mut self.output {
            Output::Plain(checked) => checked,
            Output::Converted(downgrade) => &mut downgrade.next,
        };
        for line in checked.lines.drain(..) {
            match line {
                (true, line) => log.warning(format_args!("{line}")),
                (false, line) => log.info(format_args!("{line}")),
            }
        }
        if last {
            checked.writer.end_line();
        }
        if let Some(unsendable) = checked.unsendable {
            return Poll::Ready(Err(unsendable));
        }
        let wire = std::mem::take(&mut checked.writer.wire);
        let lists = std::mem::take(&mut checked.addresses);
        match &self.generic {
            Some(generic) if !lists.is_empty() => {
                let generic = Arc::clone(generic);
                self.inquiry = Some(Inquiry::new(|asker| generic.map_lists(asker, wire, lists)));
                self.poll(log)
            }
            _ => Poll::Ready(Ok(wire)),
        }
    }

    /// Return whether a piece waits for answers.
    pub fn is_asking(&self) -> bool {
        self.inquiry.is_some()
    }

    /// Return the piece that waited for answers; see `feed`.
    pub fn poll(&mut self, log: &Log) -> Poll<Result<Vec<u8>, Unsendable>> {
        let Some(inquiry) = &mut self.inquiry else { return Poll::Ready(Ok(Vec::new())) };
        let Poll::Ready((mapped, warnings)) = inquiry.poll() else { return Poll::Pending };
        self.inquiry = None;
        warnings.iter().for_each(|warning| log.warning(format_args!("{warning}")));
        Poll::Ready(mapped.map_err(|_| Unsendable::Lookup))
    }

    /// Take the next lookups; see `Inquiry::asks`.
    pub fn asks(&mut self) -> Vec<Lookup> {
        self.inquiry.as_mut().map(Inquiry::asks).unwrap_or_default()
    }

    /// Receive an answer.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.answer(lookup, answer);
        }
    }
}

/// Checks headers and lines, and writes them.
#[derive(Debug)]
struct Checked {
    lists: Arc<Lists>,
    queue_id: Box<str>,
    writer: WireWriter,
    /// Addresses in headers are mapped.
    maps: bool,
    /// Lists of addresses in the writer's output.
    addresses: Vec<Range<usize>>,
    /// Lines for the log since the last piece, and whether each is a warning: at most two for a line of input.
    lines: Vec<(bool, String)>,
    unsendable: Option<Unsendable>,
    /// The limits of the structure count only for a conversion.
    converts: bool,
}

impl Checked {
    /// Look a line up, and return the text to write in its place.
    fn check<'a>(&mut self, list: &List, place: Section, text: &'a [u8]) -> Option<Written<'a>> {
        let value = match list.find(text) {
            Found::Nothing => return Some(Written::Same(text)),
            Found::Value(value) => value,
            Found::Failed(why) => {
                let id = &self.queue_id;
                self.lines.push((true, format!("{id}: smtp {} checks lookup error: {why}", place.word())));
                self.unsendable.get_or_insert(Unsendable::Lookup);
                return None;
            }
        };
        let action = match list.action_for_line(&value, place) {
            Ok(action) => action,
            Err(warning) => {
                self.lines.push((true, warning));
                return Some(Written::Same(text));
            }
        };
        if !matches!(action.verb, Verb::Dunno | Verb::Ignore) {
            let shown = String::from_utf8_lossy(&text[..text.len().min(SHOWN_OCTETS)]);
            let mut line = format!("{}: {}: {} {shown}", self.queue_id, action.verb.word(), place.word());
            if !action.text.is_empty() {
                line.extend([": ", &String::from_utf8_lossy(action.text)]);
            }
            self.lines.push((false, line));
        }
        match action.verb {
            Verb::Ignore | Verb::Strip => None,
            Verb::Replace => Some(Written::Other(action.text.into())),
            Verb::Prepend => {
                self.writer.end_line();
                match place {
                    Section::Header => self.writer.line(&from_lf(action.text), true),
                    Section::Body => self.writer.line(action.text, true),
                }
                Some(Written::Same(text))
            }
            _ => Some(Written::Same(text)),
        }
    }
}

/// The text of a line after its check.
enum Written<'a> {
    Same(&'a [u8]),
    Other(Vec<u8>),
}

/// Return the value of a message's header if it is a list of addresses.
fn addresses_of(header: &[u8]) -> Option<&[u8]> {
    let field = Field::parse(header)?;
    let known = Known::of(field.name)?;
    (known.names_senders() || known.names_recipients()).then_some(field.value)
}

impl MimeEvents for Checked {
    fn header(&mut self, class: Class, _: Part, header: &[u8]) {
        self.writer.end_line();
        let lists = Arc::clone(&self.lists);
        let list = lists.of(class);
        let other;
        let mut written = header;
        if !list.tables.is_empty() {
            match self.check(list, Section::Header, &with_lf(header)) {
                None => return,
                Some(Written::Same(_)) => {}
                Some(Written::Other(text)) => {
                    other = from_lf(&text);
                    written = &other;
                }
            }
        }
        self.writer.line(written, true);
        // As in Postfix, a header that a check made one of addresses stays.
        if self.maps
            && class == Class::Primary
            && addresses_of(header).is_some()
            && let Some(value) = addresses_of(written)
        {
            let end = self.writer.wire.len() - 2;
            self.addresses.push(end - value.len()..end);
        }
    }

    fn head_end(&mut self, _: Class, _: Part, _: End) {}

    fn line(&mut self, _: Part, line: Line<'_>) {
        let lists = Arc::clone(&self.lists);
        if lists.body.tables.is_empty() {
            return self.writer.line(line.text, line.ends);
        }
        match self.check(&lists.body, Section::Body, line.text) {
            // The rest of a long line stays a line of its own.
            None if line.ends => self.writer.end_line(),
            None => {}
            Some(Written::Same(text)) => self.writer.line(text, line.ends),
            Some(Written::Other(text)) => self.writer.line(&text, line.ends),
        }
    }

    fn fault(&mut self, fault: Fault, _: &[u8]) {
        if self.converts {
            self.unsendable.get_or_insert(Unsendable::Mime(fault));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::generic::tests::generic;
    use crate::log::LogTarget;
    use crate::table::testing::{Fixed, remote};
    use crate::table::{Entry, Table};

    /// A line `x-VALUE` has the value, with `_` for blanks.
    #[derive(Debug)]
    struct Inside;

    impl Table for Inside {
        fn name(&self) -> &str {
            "inside:"
        }
        fn lookup(&self, key: &[u8]) -> Answer {
            let text = String::from_utf8_lossy(key);
            match text.strip_prefix("x-").map(|value| value.trim_end_matches(":")) {
                Some("fail") => Answer::Failed("inside: is down".into()),
                Some(value) => Answer::Found(value.replace('_', " ").into_bytes().into()),
                None => Answer::NotFound,
            }
        }
    }

    fn lists() -> Arc<Lists> {
        let list = |name: &str| List { parameter: name.into(), tables: [Entry::Local(Arc::new(Inside))].into() };
        Arc::new(Lists {
            header: list("smtp_header_checks"),
            mime_header: list("smtp_mime_header_checks"),
            nested_header: list("smtp_nested_header_checks"),
            body: list("smtp_body_checks"),
        })
    }

    fn run(wire: &str, step: usize, converts: bool) -> (Result<String, Unsendable>, Vec<String>) {
        let log = Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory);
        let mut outgoing = Outgoing::new(MimeRules::default(), lists(), None, converts, "ID");
        let mut out = Vec::new();
        let mut pieces = wire.as_bytes().chunks(step).peekable();
        while let Some(piece) = pieces.next() {
            match outgoing.feed(piece, pieces.peek().is_none(), &log) {
                Poll::Ready(Ok(piece)) => out.extend(piece),
                Poll::Ready(Err(unsendable)) => return (Err(unsendable), log.take_lines()),
                Poll::Pending => unreachable!("no address is mapped"),
            }
        }
        (Ok(String::from_utf8(out).unwrap()), log.take_lines())
    }

    #[test]
    fn lines_are_checked_on_their_way_out() {
        let wire = "x-WARN_a: \r\nx-WARN_a:\r\nx-IGNORE:\r\nx-STRIP_b:\r\nx-REPLACE_A:_1:\r\nx-PREPEND_B:_2:\r\nx-REJECT:\r\n\
            x-PREPEND_y:\r\nFold: 1\r\n 2\r\n\r\nx-WARN\r\nx-IGNORE\r\nx-REPLACE_.z\r\nx-PREPEND_.y\r\n..dot\r\nx-HOLD\r\n";
        let expected = "x-WARN_a: \r\nx-WARN_a:\r\nA: 1\r\nB: 2\r\nx-PREPEND_B:_2:\r\nx-REJECT:\r\n\
            x-PREPEND_y:\r\nFold: 1\r\n 2\r\n\r\nx-WARN\r\n..z\r\n..y\r\nx-PREPEND_.y\r\n..dot\r\nx-HOLD\r\n";
        let lines = [
            "ID: warning: header x-WARN_a: : a: ",
            "ID: warning: header x-WARN_a:: a",
            "ID: strip: header x-STRIP_b:: b",
            "ID: replace: header x-REPLACE_A:_1:: A: 1",
            "ID: prepend: header x-PREPEND_B:_2:: B: 2",
            "warning: unsupported command in smtp_header_checks map: REJECT",
            "warning: bad PREPEND header text \"y\" in smtp_header_checks map -- need \"headername: headervalue\"",
            "ID: warning: body x-WARN",
            "ID: replace: body x-REPLACE_.z: .z",
            "ID: prepend: body x-PREPEND_.y: .y",
            "warning: unsupported command in smtp_body_checks map: HOLD",
        ];
        for step in 1..=wire.len() {
            let (out, logged) = run(wire, step, step % 2 == 0);
            assert_eq!(out.unwrap(), expected, "{step} octets at a time");
            assert_eq!(logged, lines, "{step} octets at a time");
        }
    }

    #[test]
    fn a_failed_lookup_and_a_broken_limit_stop_the_message() {
        let (out, lines) = run("A: 1\r\nx-fail:\r\n\r\nx\r\n", 5, false);
        assert_eq!(out, Err(Unsendable::Lookup));
        assert_eq!(lines, ["warning: ID: smtp header checks lookup error: inside: is down"]);
        let deep = (0..103).map(|n| format!("Content-Type: multipart/x; boundary=b{n}x\r\n\r\n--b{n}x\r\n"));
        let deep = deep.collect::<String>();
        assert_eq!(run(&deep, 99, true).0, Err(Unsendable::Mime(Fault::Nesting)));
        assert_eq!(run(&deep, 99, false).0, Ok(deep));
    }

    /// Map the addresses of a message with a remote table.
    fn mapped(wire: &str, step: usize) -> Result<String, Unsendable> {
        let log = Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory);
        let generic = Some(Arc::new(generic(remote(0), false)));
        let table = Fixed::new(&[("a@x", "mapped@y"), ("down@x", "!")]);
        let mut outgoing = Outgoing::new(MimeRules::default(), lists(), generic, false, "ID");
        let mut out = Vec::new();
        let mut pieces = wire.as_bytes().chunks(step).peekable();
        while let Some(piece) = pieces.next() {
            let mut polled = outgoing.feed(piece, pieces.peek().is_none(), &log);
            while polled.is_pending() {
                assert!(outgoing.is_asking());
                outgoing.asks().iter().for_each(|lookup| outgoing.answer(lookup, table.lookup(&lookup.key)));
                polled = outgoing.poll(&log);
            }
            let Poll::Ready(piece) = polled else { unreachable!() };
            out.extend(piece?);
            assert!(!outgoing.is_asking());
        }
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn addresses_in_the_headers_of_the_message_are_mapped() {
        let wire = "To: a@x,\r\n b@x\r\nX-To: a@x\r\nReply-To:a@x\r\nContent-Type: message/rfc822\r\n\r\nTo: a@x\r\n\r\na@x\r\n";
        let expected = wire.replacen("a@x", "mapped@y", 1).replace("Reply-To:a@x", "Reply-To:mapped@y");
        for step in 1..=wire.len() {
            assert_eq!(mapped(wire, step).unwrap(), expected, "{step} octets at a time");
        }
        assert_eq!(mapped("To: a@x, down@x\r\n\r\nx\r\n", 99), Err(Unsendable::Lookup));
    }

    #[test]
    fn checks_see_the_converted_message() {
        let wire = "Content-Transfer-Encoding: 8bit\r\n\r\nx-REPLACE_é\r\n";
        let (out, lines) = run(wire, 9, true);
        assert_eq!(out.unwrap(), "Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A9\r\n");
        assert_eq!(lines, ["ID: replace: body x-REPLACE_=C3=A9: =C3=A9"]);
    }
}
