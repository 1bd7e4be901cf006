//! BDAT (RFC 3030): content in chunks, each after a line with its length.
//!
//! A chunk follows its line at once, wanted or not. So every chunk is read to its end, and its reply comes after it. A
//! line without a valid length ends the session, because the content cannot be told from commands. After a refusal, the
//! chunks of that message are dropped until LAST, RSET, or EHLO.

use super::chunk::ChunkReader;
use super::command::{SIZE_MAX_OCTETS, Verb, first_word};
use super::config::BareNewline;
use super::{ContentFault, EndOfData, Event, Mode, Pending, Position, Server, Step};
use crate::log::Severity;
use crate::mail::reply::Reply;
use crate::smtp::server::Ending;

/// Maximum number of characters of a malformed line in the log.
const MALFORMED_LOG_CHARS: usize = 100;

/// The chunk that a BDAT line has announced.
#[derive(Debug)]
pub(super) struct Chunk {
    octets: u64,
    left: u64,
    last: bool,
    /// The reply at its end, when the chunk is dropped.
    refusal: Option<Reply>,
}

/// The chunks of one message.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    reader: ChunkReader,
    /// A chunk was refused, so the message cannot be complete.
    pub(super) failed: bool,
}

impl Server {
    pub(super) fn bdat_command(&mut self, line: &str, arguments: &str) {
        if self.config.discards("CHUNKING") {
            self.answer(Verb::Bdat, Reply::new(521, [5, 1], "Error: command not implemented"));
            return self.close(Ending::Orderly);
        }
        let Some((octets, last)) = parse(arguments) else {
            let start: String = line.chars().take(MALFORMED_LOG_CHARS).collect();
            let line = format!("malformed BDAT command syntax from {}: {start}", self.peer);
            self.log.push_back((Severity::Warning, line));
            self.answer(Verb::Bdat, Reply::new(521, [5, 4], "Syntax: BDAT count [LAST]"));
            return self.close(Ending::Orderly);
        };
        let chunk = Chunk { octets, left: octets, last, refusal: None };
        if octets == 0 && !last {
            self.log.push_back((Severity::Warning, format!("null BDAT request from {}", self.peer)));
            return self.refuse_chunk(chunk, Reply::new(551, [7, 1], "Null BDAT request"));
        }
        match (&self.chunks, &self.transaction) {
            (Some(Chunks { failed: true, .. }), _) => {
                let text = format!("Discarded {octets} bytes after earlier error");
                self.refuse_chunk(chunk, Reply::new(551, [0, 0], text));
            }
            (Some(_), _) => self.begin_chunk(chunk),
            (None, None) => self.refuse_chunk(chunk, Reply::new(503, [5, 1], "Error: need RCPT command")),
            (None, Some(transaction)) if transaction.recipients.is_empty() => {
                self.refuse_chunk(chunk, Reply::new(554, [5, 1], "Error: no valid recipients"));
            }
            (None, Some(_)) => self.mode = Mode::Waiting(Pending::Data(Some(chunk))),
        }
    }

    /// Start a chunk after the owner's answer.
    pub(super) fn begin_chunks(&mut self, chunk: Chunk, reply: &Reply) {
        if reply.code == 354 {
            self.chunks = Some(Chunks::default());
            self.content_octets = 0;
            self.bare_newline_seen = false;
            return self.begin_chunk(chunk);
        }
        let sender = self.sender().map(str::to_owned);
        self.log_reject("BDAT", reply, sender.as_deref(), None);
        if matches!(reply.code, 421 | 521) {
            // The session ends with this reply.
            return self.answer(Verb::Bdat, reply.clone());
        }
        self.refuse_chunk(chunk, reply.clone());
    }

    fn begin_chunk(&mut self, chunk: Chunk) {
        let limit = self.config.dialect.message_size_limit;
        if limit > 0 && chunk.octets > limit.saturating_sub(self.content_octets) {
            let line = format!("BDAT request from {} exceeds message size limit", self.peer);
            self.log.push_back((Severity::Warning, line));
            return self.refuse_chunk(chunk, Reply::new(552, [3, 4], "Chunk exceeds message size limit"));
        }
        self.place = Position::Chunk;
        self.restart_deadline();
        self.mode = Mode::Chunk(chunk);
    }

    /// Drop the chunk, and send the reply at its end.
    fn refuse_chunk(&mut self, chunk: Chunk, reply: Reply) {
        self.chunks.get_or_insert_default().failed = true;
        self.restart_deadline();
        self.mode = Mode::Chunk(Chunk { refusal: Some(reply), ..chunk });
    }

    pub(super) fn read_chunk(&mut self, content: &mut impl FnMut(&[u8])) -> Step {
        let rejects = self.bare_newline == BareNewline::Reject;
        let Mode::Chunk(chunk) = &mut self.mode else { return Step::Again };
        let arrived = self.input.len() - self.start;
        let octets = usize::try_from(chunk.left).unwrap_or(usize::MAX).min(arrived);
        let bytes = &self.input[self.start..self.start + octets];
        self.start += octets;
        self.scanned = self.start;
        chunk.left -= octets as u64;
        if let (None, Some(chunks)) = (&chunk.refusal, &mut self.chunks) {
            self.content_octets += octets as u64;
            if rejects && chunks.reader.bare_newlines() > 0 {
                // The reply comes at the end of the chunk; until then its octets are dropped.
                chunks.reader.feed(bytes, &mut |_| ());
            } else {
                chunks.reader.feed(bytes, content);
            }
        }
        if chunk.left > 0 {
            return Step::NeedInput;
        }
        let Mode::Chunk(chunk) = std::mem::replace(&mut self.mode, Mode::Command) else { return Step::Again };
        self.end_chunk(chunk, content)
    }

    fn end_chunk(&mut self, chunk: Chunk, content: &mut impl FnMut(&[u8])) -> Step {
        let Some(chunks) = &mut self.chunks else { return Step::Again };
        if let Some(reply) = chunk.refusal {
            if chunk.last {
                self.reset();
            }
            self.answer(Verb::Bdat, reply);
            return Step::Again;
        }
        if chunk.last {
            chunks.reader.finish(content);
        }
        let (octets, bare_newlines) = (chunks.reader.octets(), chunks.reader.bare_newlines());
        if bare_newlines > 0 && self.bare_newline == BareNewline::Note {
            self.note_bare_newline();
        }
        let is_refused = bare_newlines > 0 && self.bare_newline == BareNewline::Reject;
        if chunk.last {
            self.place = Position::EndOfMessage;
            self.mode = Mode::Waiting(Pending::EndOfData);
            let fault = is_refused.then_some(ContentFault::BareNewline);
            return Step::Event(Event::EndOfData(EndOfData { octets, chunked: true, fault }));
        }
        let reply = if is_refused {
            self.chunks.get_or_insert_default().failed = true;
            let reply = self.bare_newline_reply();
            let sender = self.sender().map(str::to_owned);
            self.log_reject("BDAT content", &reply, sender.as_deref(), None);
            reply
        } else {
            Reply::new(250, [0, 0], format!("Ok: {} bytes", chunk.octets))
        };
        self.answer(Verb::Bdat, reply);
        Step::Again
    }
}

/// Return the size in octets, and whether LAST follows it.
fn parse(arguments: &str) -> Option<(u64, bool)> {
    let (size, rest) = first_word(arguments);
    if size.is_empty() || !size.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let octets = size.parse().ok().filter(|octets| *octets <= SIZE_MAX_OCTETS)?;
    match rest {
        "" => Some((octets, false)),
        word if word.eq_ignore_ascii_case("LAST") => Some((octets, true)),
        _ => None,
    }
}
