//! The end of a message: its addresses are mapped, when all of it is known (ADDRESS_REWRITING_README).
//!
//! The checks of its last lines may wait for remote tables before. A message without maps is finished at once. With local
//! tables alone, the first `poll` finishes it. Remote tables are asked through `asks` and `answer` (`inquiry`). A failed
//! lookup refuses the message for now.

use super::checks::Decisions;
use super::envelope::drop_duplicates;
use super::missing::sender_as_header;
use super::settings::CleanupSettings;
use super::{HEAD_MAX_OCTETS, Later, Options, Output, Part, Refusal};
use crate::address::alias::AliasError;
use crate::address::map::Mapping;
use crate::ask::{Answer, Lookup};
use crate::inquiry::{Asker, Inquiry, SIDE_BY_SIDE, all};
use crate::mail::envelope::Envelope;
use crate::mail::sink::Sink;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

/// The head in wire form, and the envelope.
type Mapped = Result<(Vec<u8>, Envelope), Refusal>;

/// The sink with the body, the head in wire form, and the envelope.
pub type Finished<S> = (S, Vec<u8>, Envelope);

/// A message at its end.
#[derive(Debug)]
pub struct Finishing<S> {
    /// `None` after the result.
    sink: Option<S>,
    state: State<S>,
    /// The decisions of checks that hold for mapped addresses, and the settings for them.
    decisions: Option<(Decisions, Arc<CleanupSettings>)>,
    warnings: Vec<String>,
    /// SMTPUTF8 follows from the headers and the addresses; see `Output`.
    utf8_header: Option<bool>,
}

#[derive(Debug)]
enum State<S> {
    /// Lines of the message wait for their checks.
    Checking(Box<Output<S>>),
    /// `None` after the result.
    Done(Option<Mapped>),
    Asking(Inquiry<(Mapped, Vec<String>)>),
}

impl<S: Sink> Finishing<S> {
    /// Return a message whose last lines wait for their checks.
    pub(super) fn checking(output: Output<S>) -> Self {
        let state = State::Checking(Box::new(output));
        Self { sink: None, state, decisions: None, warnings: Vec::new(), utf8_header: None }
    }

    /// Return the sink with the body, the head in wire form, and the envelope with `size_octets` and `message_id`; the
    /// message is the head, then the body. `Pending`: `asks` has lookups. Do not call it again after the result.
    pub fn poll(&mut self) -> Poll<Result<Finished<S>, Refusal>> {
        match std::mem::replace(&mut self.state, State::Done(None)) {
            State::Checking(output) if output.is_waiting() => {
                self.state = State::Checking(output);
                return Poll::Pending;
            }
            State::Checking(output) => *self = output.finish(),
            state => self.state = state,
        }
        let mapped = match &mut self.state {
            State::Checking(_) => None,
            State::Done(mapped) => mapped.take(),
            State::Asking(inquiry) => match inquiry.poll() {
                Poll::Pending => return Poll::Pending,
                Poll::Ready((mapped, warnings)) => {
                    self.warnings.extend(warnings);
                    self.state = State::Done(None);
                    Some(mapped)
                }
            },
        };
        Poll::Ready(match (mapped, self.sink.take()) {
            (Some(Ok((head, mut envelope))), Some(sink)) => {
                if let Some((decisions, settings)) = self.decisions.take() {
                    decisions.apply(&settings, &mut envelope);
                }
                if let Some(utf8_header) = self.utf8_header {
                    envelope.smtputf8 |= utf8_header || !has_ascii_addresses(&envelope);
                }
                Ok((sink, head, envelope))
            }
            (Some(Err(refusal)), _) => Err(refusal),
            _ => Err(Refusal::WriteError),
        })
    }

    /// Take the next lookups; see `Inquiry::asks`.
    pub fn asks(&mut self) -> Vec<Lookup> {
        match &mut self.state {
            State::Checking(output) => output.asks(),
            State::Done(_) => Vec::new(),
            State::Asking(inquiry) => inquiry.asks(),
        }
    }

    /// Receive an answer.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        match &mut self.state {
            State::Checking(output) => output.answer(lookup, answer),
            State::Done(_) => {}
            State::Asking(inquiry) => inquiry.answer(lookup, answer),
        }
    }

    /// Return the warnings for the log, once `poll` has returned the result.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl<S: Sink> Output<S> {
    /// Map the head from `start` to its last line end at the end of the message.
    pub(super) fn later(&mut self, start: usize, part: Part) {
        if self.refusal.is_none() {
            self.later.push(Later { span: start..self.head.len() - 2, part });
        }
    }

    /// Begin to map the message's addresses.
    pub(super) fn finish(mut self) -> Finishing<S> {
        if self.body_line_open {
            self.body_end();
        }
        self.envelope.size_octets = self.size_octets;
        let decisions = self.checks.take().map(|checks| (checks.decisions(), Arc::clone(&self.settings)));
        if let Some((decisions, settings)) = &decisions {
            decisions.add_copies(settings, &mut self.envelope);
        }
        let is_needed = self.options.maps && self.settings.rewriting.is_needed(self.options.copies);
        let state = match self.refusal {
            Some(refusal) => State::Done(Some(Err(refusal))),
            None if !is_needed => State::Done(Some(Ok((self.head, self.envelope)))),
            None => {
                let Self { settings, head, later, options, envelope, full_name, asker, .. } = self;
                let unmapped = Unmapped { settings, head, later, options, envelope, full_name };
                State::Asking(Inquiry::with(asker.unwrap_or_default(), |asker| unmapped.map(asker)))
            }
        };
        let utf8_header = self.utf8_header;
        let ignored = self.ignored.map(|header| format!("ignoring malformed header: '{header}'"));
        Finishing { sink: Some(self.sink), state, decisions, warnings: ignored.into_iter().collect(), utf8_header }
    }
}

fn has_ascii_addresses(envelope: &Envelope) -> bool {
    envelope.sender.is_ascii() && envelope.recipients.iter().all(|recipient| recipient.address.is_ascii())
}

/// A message whose addresses are not mapped yet.
struct Unmapped {
    settings: Arc<CleanupSettings>,
    head: Vec<u8>,
    later: Vec<Later>,
    options: Options,
    envelope: Envelope,
    full_name: Option<Box<str>>,
}

impl Unmapped {
    async fn map(mut self, asker: Asker) -> (Mapped, Vec<String>) {
        let settings = Arc::clone(&self.settings);
        let mapping = Mapping::new(&settings.rewriting.rules, &settings.local_rewrite, &asker);
        let mapped = match self.map_with(&mapping).await {
            Ok(()) if self.head.len() > HEAD_MAX_OCTETS => Err(Refusal::HeadTooBig),
            Ok(()) => Ok((self.head, self.envelope)),
            Err(AliasError::Failed(_)) => Err(Refusal::LookupFailed),
            Err(AliasError::Limit) => Err(Refusal::AliasLimit),
        };
        (mapped, mapping.into_warnings())
    }

    async fn map_with(&mut self, mapping: &Mapping<'_>) -> Result<(), AliasError> {
        let rewriting = &self.settings.rewriting;
        let sender_copy = rewriting.sender(mapping, self.options.copies, &mut self.envelope.sender).await?;
        let given = std::mem::take(&mut self.envelope.recipients);
        let mut recipients = rewriting.recipients(mapping, self.options.copies, sender_copy, given).await?;
        drop_duplicates(&mut recipients, rewriting.keeps_original);
        self.envelope.recipients = recipients;
        self.map_head(mapping).await
    }

    async fn map_head(&mut self, mapping: &Mapping<'_>) -> Result<(), AliasError> {
        let mut replaced = Vec::with_capacity(self.later.len());
        for some in self.later.chunks(SIDE_BY_SIDE) {
            replaced.extend(all(some.iter().map(|later| self.replacement(mapping, later)).collect()).await);
        }
        let mut head = Vec::with_capacity(self.head.len());
        let mut copied = 0;
        for (later, new) in self.later.iter().zip(replaced) {
            let Some(new) = new? else {
                continue;
            };
            let Range { start, end } = later.span;
            head.extend_from_slice(&self.head[copied..start]);
            head.extend_from_slice(&new);
            self.envelope.size_octets += local_octets(&new);
            self.envelope.size_octets -= local_octets(&self.head[start..end]);
            copied = end;
        }
        if copied > 0 {
            head.extend_from_slice(&self.head[copied..]);
            self.head = head;
        }
        Ok(())
    }

    /// Return the new text of a part of the head, `None` if it stays.
    async fn replacement(&self, mapping: &Mapping<'_>, later: &Later) -> Result<Option<Vec<u8>>, AliasError> {
        let settings = &self.settings;
        match later.part {
            Part::Value(class) => {
                let value = &self.head[later.span.clone()];
                Ok(settings.rewriting.header(mapping, class, value, settings.header_address_token_limit).await?)
            }
            Part::From => {
                let sender = sender_as_header(settings, &self.envelope.sender, self.full_name.as_deref());
                Ok(Some(sender.into()))
            }
        }
    }
}

/// Octets in the log's `size=`: a line end counts as one.
fn local_octets(wire: &[u8]) -> u64 {
    (wire.len() - memchr::memchr_iter(b'\n', wire).count()) as u64
}
