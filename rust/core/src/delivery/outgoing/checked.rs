//! The checks of a message on its way out: headers and lines are looked up, changed and written.

use super::Unsendable;
use crate::action::{Section, Verb};
use crate::ask::{Answer, Lookup};
use crate::inspection::lists::{List, Lists};
use crate::inspection::{Course, Inspection, Judge};
use crate::log::Log;
use crate::mail::header::{End, Field, Known, from_lf, with_lf};
use crate::mail::mime::{Fault, HeaderClass, Line, MimeEvents, Part};
use crate::mail::stuff::WireWriter;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

/// Octets of a line in a log line.
const SHOWN_OCTETS: usize = 60;

/// A piece in wire form, and its lists of addresses.
type Piece = (Vec<u8>, Vec<Range<usize>>);

/// Checks headers and lines, and writes them.
#[derive(Debug)]
pub(super) struct Checked {
    inspection: Inspection,
    writer: Writer,
}

impl Checked {
    /// `maps`: addresses in headers are mapped. `converts`: the limits of the structure count.
    pub fn new(lists: Arc<Lists>, queue_id: &str, maps: bool, converts: bool) -> Self {
        let writer = Writer {
            lists: Arc::clone(&lists),
            queue_id: queue_id.into(),
            wire: WireWriter::default(),
            maps,
            addresses: Vec::new(),
            lines: Vec::new(),
            unsendable: None,
            converts,
        };
        // As in Postfix, body_checks_size_limit is cleanup's.
        Self { inspection: Inspection::new(lists, 0), writer }
    }

    /// Begin a piece, whose lookups have a limit of their own: the length of a message has none here.
    pub fn begin_piece(&mut self) {
        self.inspection.restart();
    }

    /// Return the piece once all its lines have their answers. `last`: the message ends with it.
    pub fn poll(&mut self, last: bool, log: &Log) -> Poll<Result<Piece, Unsendable>> {
        self.inspection.go_on(&mut self.writer);
        let Self { inspection, writer } = self;
        for line in writer.lines.drain(..) {
            match line {
                (true, line) => log.warning(format_args!("{line}")),
                (false, line) => log.info(format_args!("{line}")),
            }
        }
        if let Some(unsendable) = writer.unsendable {
            return Poll::Ready(Err(unsendable));
        }
        if inspection.is_waiting() {
            return Poll::Pending;
        }
        if last {
            writer.wire.end_line();
        }
        Poll::Ready(Ok((mem::take(&mut writer.wire.wire), mem::take(&mut writer.addresses))))
    }

    /// Take the next lookups.
    pub fn asks(&mut self) -> Vec<Lookup> {
        self.inspection.asks()
    }

    /// Receive an answer.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        self.inspection.answer(lookup, answer);
    }
}

impl MimeEvents for Checked {
    fn header(&mut self, class: HeaderClass, part: Part, header: &[u8]) {
        self.inspection.reader(&mut self.writer, false).header(class, part, header);
    }

    fn head_end(&mut self, _: HeaderClass, _: Part, _: End) {}

    fn line(&mut self, part: Part, line: Line<'_>) {
        self.inspection.reader(&mut self.writer, false).line(part, line);
    }

    fn fault(&mut self, fault: Fault, text: &[u8]) {
        self.inspection.reader(&mut self.writer, false).fault(fault, text);
    }
}

/// Writes headers and lines as the actions for them say.
#[derive(Debug)]
struct Writer {
    lists: Arc<Lists>,
    queue_id: Box<str>,
    wire: WireWriter,
    /// Addresses in headers are mapped.
    maps: bool,
    /// Lists of addresses in the output.
    addresses: Vec<Range<usize>>,
    /// Lines for the log since the last `poll`, and whether each is a warning: at most one for a line of a piece.
    lines: Vec<(bool, String)>,
    /// Nothing is written any more.
    unsendable: Option<Unsendable>,
    /// The limits of the structure count only for a conversion.
    converts: bool,
}

/// The text of a line after its check.
enum Written<'a> {
    Same(&'a [u8]),
    Other(Vec<u8>),
}

impl Writer {
    /// Apply the answer of the list to a line, and return the text to write in its place.
    fn apply<'a>(&mut self, list: &List, place: Section, text: &'a [u8], answer: Answer) -> Option<Written<'a>> {
        let value = match answer {
            Answer::NotFound => return Some(Written::Same(text)),
            Answer::Found(value) => value,
            Answer::Failed(why) => {
                let id = &self.queue_id;
                self.lines.push((true, format!("{id}: smtp {} checks lookup error: {why}", place.word())));
                self.unsendable = Some(Unsendable::Lookup);
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
                self.wire.end_line();
                match place {
                    Section::Header => self.wire.line(&from_lf(action.text), true),
                    Section::Body => self.wire.line(action.text, true),
                }
                Some(Written::Same(text))
            }
            _ => Some(Written::Same(text)),
        }
    }

    fn write_header(&mut self, class: HeaderClass, header: &[u8], written: &[u8]) {
        self.wire.line(written, true);
        // As in Postfix, a header that a check made one of addresses stays.
        if self.maps
            && class == HeaderClass::Primary
            && addresses_of(header).is_some()
            && let Some(value) = addresses_of(written)
        {
            let end = self.wire.wire.len() - 2;
            self.addresses.push(end - value.len()..end);
        }
    }
}

/// Return the value of a message's header if it is a list of addresses.
fn addresses_of(header: &[u8]) -> Option<&[u8]> {
    let field = Field::parse(header)?;
    let known = Known::of(field.name)?;
    (known.names_senders() || known.names_recipients()).then_some(field.value)
}

impl Judge for Writer {
    fn course(&self) -> Course {
        if self.unsendable.is_some() { Course::Dropped } else { Course::Checked }
    }

    fn header(&mut self, class: HeaderClass, _: bool, header: &[u8], answer: Answer) {
        if self.unsendable.is_some() {
            return;
        }
        self.wire.end_line();
        if answer == Answer::NotFound {
            return self.write_header(class, header, header);
        }
        let lists = Arc::clone(&self.lists);
        match self.apply(lists.of(class), Section::Header, &with_lf(header), answer) {
            None => {}
            Some(Written::Same(_)) => self.write_header(class, header, header),
            Some(Written::Other(text)) => self.write_header(class, header, &from_lf(&text)),
        }
    }

    fn head_end(&mut self, _: End) {}

    fn line(&mut self, text: &[u8], ends: bool, answer: Answer) {
        if self.unsendable.is_some() {
            return;
        }
        if answer == Answer::NotFound {
            return self.wire.line(text, ends);
        }
        let lists = Arc::clone(&self.lists);
        match self.apply(&lists.body, Section::Body, text, answer) {
            // The rest of a long line stays a line of its own.
            None if ends => self.wire.end_line(),
            None => {}
            Some(Written::Same(text)) => self.wire.line(text, ends),
            Some(Written::Other(text)) => self.wire.line(&text, ends),
        }
    }

    fn fault(&mut self, fault: Fault, _: &[u8]) {
        if self.converts {
            self.unsendable.get_or_insert(Unsendable::Mime(fault));
        }
    }

    fn too_much(&mut self) {
        self.lines.push((true, format!("{}: too much content waits for the tables of checks", self.queue_id)));
        self.unsendable = Some(Unsendable::Lookup);
    }
}
