//! The message on its way to the server: read from the queue, changed where needed, sent in pieces.

use super::{ASKING_PIECE_OCTETS, PIECE_OCTETS, Session};
use crate::delivery::assignment::Assignment;
use crate::delivery::outgoing::{Outgoing, Unsendable};
use crate::mail::envelope::BodyType;
use crate::mail::reply::Enhanced;
use crate::mail::status::{Status, local_status};
use crate::queue::QueueError;
use std::sync::Arc;
use std::task::Poll;

/// X.3.0: an error of the mail system itself (RFC 3463 §3.4).
const LOCAL_ERROR: Enhanced = Enhanced { class: 4, subject: 3, detail: 0 };
/// X.6.0: the content (RFC 3463 §3.7).
const BAD_CONTENT: Enhanced = Enhanced { class: 5, subject: 6, detail: 0 };

impl Session {
    pub(super) fn open_content(&mut self, now: f64, wall_now_us: u64) {
        let Some(assignment) = &self.current else { return };
        match assignment.work.open_content(now) {
            Ok(reader) => {
                self.outgoing = self.outgoing(assignment);
                self.content = Some(reader);
                self.asking_since = None;
                self.send_piece(now, wall_now_us);
            }
            Err(error) => self.unreadable(&error, wall_now_us),
        }
    }

    /// Return what changes the message on its way to this server.
    fn outgoing(&self, assignment: &Assignment) -> Option<Outgoing> {
        let settings = self.client.settings();
        let delivery = assignment.work.lock();
        let declared_7bit = delivery.job().envelope.body == BodyType::SevenBit;
        let converts = settings.converts && !self.client.offered().eight_bit_mime && !declared_7bit;
        let needed = converts || !settings.checks.is_empty() || settings.generic.is_some();
        let (rules, lists, generic) = (&settings.mime, &settings.checks, &settings.generic);
        needed.then(|| Outgoing::new(rules.clone(), Arc::clone(lists), generic.clone(), converts, delivery.queue_id()))
    }

    pub(super) fn send_piece(&mut self, now: f64, wall_now_us: u64) {
        let (Some(reader), Some(assignment)) = (&mut self.content, &self.current) else { return };
        let log = assignment.work.log();
        let (piece, last) = loop {
            let changed = match &mut self.outgoing {
                Some(outgoing) if outgoing.is_asking() => outgoing.poll(log),
                outgoing => {
                    let asks = outgoing.as_ref().is_some_and(Outgoing::asks_for_lines);
                    let piece = match reader.piece(if asks { ASKING_PIECE_OCTETS } else { PIECE_OCTETS }) {
                        Ok(piece) => piece,
                        Err(error) => return self.unreadable(&error, wall_now_us),
                    };
                    match outgoing {
                        Some(outgoing) => outgoing.feed(&piece, reader.left_octets() == 0, log),
                        None => Poll::Ready(Ok(piece)),
                    }
                }
            };
            let piece = match changed {
                Poll::Ready(Ok(piece)) => piece,
                Poll::Ready(Err(unsendable)) => return self.unsendable(unsendable, wall_now_us),
                Poll::Pending => {
                    self.asking_since.get_or_insert(now);
                    return;
                }
            };
            let last = reader.left_octets() == 0;
            // A piece of dropped lines leaves nothing to write, so no write would ask for the next one.
            if last || !piece.is_empty() {
                break (piece, last);
            }
        };
        if let Some(since) = self.asking_since.take() {
            self.client.extend_deadline(now - since);
        }
        self.client.body(piece, last, now);
        if last {
            self.content = None;
            self.begin_ahead(wall_now_us);
        }
    }

    /// The content is not what was committed: defer the recipients.
    fn unreadable(&mut self, error: &QueueError, wall_now_us: u64) {
        if let Some(assignment) = &self.current {
            let id = assignment.work.lock().queue_id().to_owned();
            assignment.work.log().warning(format_args!("{id}: {error}"));
        }
        self.stop_message(&local_status(LOCAL_ERROR, "unreadable mail queue entry"), wall_now_us);
    }

    fn unsendable(&mut self, unsendable: Unsendable, wall_now_us: u64) {
        let status = match unsendable {
            Unsendable::Mime(fault) => local_status(BAD_CONTENT, fault.text()),
            Unsendable::Lookup => self.local_error(),
        };
        self.stop_message(&status, wall_now_us);
    }

    /// A table cannot answer: the mail waits, as in Postfix.
    pub(super) fn local_error(&self) -> Status {
        local_status(LOCAL_ERROR, format!("local data error while talking to {}", self.client.peer().name_address))
    }

    /// Give the recipients this status and end the connection: the server must not see the end of the message.
    fn stop_message(&mut self, status: &Status, wall_now_us: u64) {
        self.content = None;
        self.finish_all(status, wall_now_us);
        self.client.lost();
    }

    /// End the job in progress with this status of its open recipients.
    pub(super) fn finish_all(&mut self, status: &Status, wall_now_us: u64) {
        if let Some(assignment) = self.current.take() {
            let log = assignment.work.log();
            let mut delivery = assignment.work.lock();
            let handover = self.handover(&assignment, &delivery, wall_now_us);
            for position in delivery.open().collect::<Vec<_>>() {
                delivery.finish(position, status.clone(), &handover, log);
            }
        }
    }
}
