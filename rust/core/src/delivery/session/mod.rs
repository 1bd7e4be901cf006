//! One connection to a server: the SMTP client, the job in progress, and the job that follows it.
//!
//! Octets and the time go in; octets, statuses of recipients and `Next` come out. A session owns no socket and no
//! clock: `now` is seconds on the monotonic clock, `wall_now_us` microseconds since 1970. It reads the message from the
//! queue.
//!
//! ```text
//! deliver, receive, lost, timeout, send_body, answer, next  ->  Next
//! take_output                                               ->  octets for the server
//! asks                                                      ->  lookups in remote tables, for answer
//! deadline                                                  ->  when to call timeout
//! ```
//!
//! Recipients without a status after `Finished`, `Closed` or `Stale` need another server. A job that follows is
//! unchanged when the job before it ends with one of these.

mod message;
mod secure;

use crate::ask::{Answer, Lookup};
use crate::delivery::assignment::Assignment;
use crate::delivery::job::{Delivery, Handover};
use crate::delivery::outgoing::Outgoing;
use crate::delivery::request::TlsFault;
use crate::delivery::smtputf8::needs_smtputf8;
use crate::mail::reply::Enhanced;
use crate::mail::status::{Status, outcome_of};
use crate::queue::ContentReader;
use crate::smtp::client::requiretls::{NEEDS_SUPPORT, RequireTls};
use crate::smtp::client::{Client, ClientSettings, Event, Peer, Protocol};
use crate::tls::Channel;
use std::fmt;
use std::sync::Arc;
use std::task::Poll;

/// Maximum octets of a message in memory. A smaller message is one piece.
pub const PIECE_OCTETS: u64 = 256 * 1024;
/// The same where lines are looked up in remote tables. One piece makes at most a lookup for three octets in each table,
/// and its parts fit into `inspection::held::HELD_MAX_OCTETS`.
pub const ASKING_PIECE_OCTETS: u64 = 16 * 1024;

/// X.7.4: a server without the TLS that mail needs (RFC 3463 §3.8).
const NO_TLS: Enhanced = Enhanced { class: 4, subject: 7, detail: 4 };

/// The driver's next step, after it wrote `take_output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for the server, at most until `deadline`.
    More,
    /// Call `send_body` when the output is written: a large message has another piece.
    Sending,
    /// TLS begins: all further octets go through `take_channel`. Then call `secured` or `insecure`.
    StartTls,
    /// As `More`; when `asks` has lookups, call `answer` with their answers.
    Asking,
    /// Report the job, then call `next`: the job is done with this server, and the job that followed is in progress.
    Followed,
    /// Report the job: it is done with this server. The connection accepts another one.
    Finished,
    /// Close the connection and report the job: it is done with this server.
    Closed,
    /// Close the connection and deliver the job on another one: the server had closed this one while it was idle.
    Stale,
    /// Close the connection and deliver the job on another one without TLS: TLS has failed, and the site only prefers it.
    Clear,
    /// Close the connection: a bug has ended the session, and its job has no statuses. `visit::step` returns it.
    Broken,
}

/// The session accepts no job at this point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAccepted {
    /// The session has a job.
    Busy,
    /// The session has no job to follow, or another one follows it.
    CannotFollow,
}

/// One connection, and the jobs on it.
#[derive(Debug)]
pub struct Session {
    client: Client,
    current: Option<Assignment>,
    /// The next job. With `begun_us`, its commands are sent.
    follower: Option<Assignment>,
    /// The part of the message that is not sent.
    content: Option<ContentReader>,
    /// Changes the message on its way, if anything does.
    outgoing: Option<Outgoing>,
    /// Time at which a piece began to wait for answers.
    asking_since: Option<f64>,
    /// For the owner of the socket.
    channel: Option<Channel>,
    /// The result of TLS, for reports; with `Some(None)` it is as the policy wants it.
    tls_result: Option<Option<TlsFault>>,
    /// Why the connection is broken, in the system's words.
    broken: Option<String>,
    /// The connection takes further jobs; inside TLS only with smtp_tls_connection_reuse.
    reuses: bool,
    reuses_tls: bool,
}

impl Session {
    /// Create the session of a new connection. The server speaks first.
    pub fn new(settings: Arc<ClientSettings>, peer: Peer, now: f64) -> Self {
        Self {
            client: Client::new(settings, peer, now),
            current: None,
            follower: None,
            content: None,
            outgoing: None,
            asking_since: None,
            channel: None,
            tls_result: None,
            broken: None,
            reuses: true,
            reuses_tls: false,
        }
    }

    /// Set whether the connection takes further jobs at all, and inside TLS (smtp_tls_connection_reuse).
    pub fn set_reuse(&mut self, reuses: bool, reuses_tls: bool) {
        (self.reuses, self.reuses_tls) = (reuses, reuses_tls);
    }

    /// Deliver a job, now or after the handshake. Without `keep`, QUIT may follow the final dot at once.
    pub fn deliver(
        &mut self,
        assignment: Assignment,
        keep: bool,
        now: f64,
        wall_now_us: u64,
    ) -> Result<Next, NotAccepted> {
        if self.current.is_some() {
            return Err(NotAccepted::Busy);
        }
        self.client.set_last_transaction(!keep);
        self.current = Some(assignment);
        if self.client.is_idle() {
            self.begin(now, wall_now_us);
        }
        Ok(self.next(now, wall_now_us))
    }

    /// Return whether `follow` is possible and useful: no other job follows, the client expects to save time, and no
    /// large message is being sent.
    pub fn may_follow(&self, now: f64) -> bool {
        let free = self.current.is_some() && self.follower.is_none() && self.content.is_none();
        free && self.client.gains_by_going_ahead(now)
    }

    /// Deliver a job after the one in progress. Its commands are sent with the end of the message before it, or now.
    pub fn follow(&mut self, assignment: Assignment, wall_now_us: u64) -> Result<(), NotAccepted> {
        if self.current.is_none() || self.follower.is_some() {
            return Err(NotAccepted::CannotFollow);
        }
        self.follower = Some(assignment);
        self.begin_ahead(wall_now_us);
        Ok(())
    }

    /// Drop the job that follows. If its commands are sent, the connection ends with the job in progress.
    pub fn withdraw(&mut self) {
        if self.follower.take().is_some_and(|follower| follower.begun_us.is_some()) {
            self.client.abandon_ahead();
        }
    }

    /// Receive octets from the server, in any split.
    pub fn receive(&mut self, octets: &[u8], now: f64, wall_now_us: u64) -> Next {
        self.client.receive(octets, now);
        self.next(now, wall_now_us)
    }

    /// Note why the connection is broken, before `lost`.
    pub fn broke(&mut self, why: String) {
        self.broken = Some(why);
    }

    /// Note that the server closed the connection, or that it broke.
    pub fn lost(&mut self, now: f64, wall_now_us: u64) -> Next {
        if self.client.is_shaking() {
            let reason = self.broken.take();
            self.tell_no_handshake(reason.as_deref().unwrap_or("lost connection"));
        }
        self.client.lost();
        self.next(now, wall_now_us)
    }

    /// End the dialogue when `deadline` has passed.
    pub fn timeout(&mut self, now: f64, wall_now_us: u64) -> Next {
        if !self.is_asking_for_content() {
            if self.client.is_shaking() && self.deadline().is_some_and(|deadline| deadline <= now) {
                self.tell_no_handshake("Connection timed out");
            }
            self.client.timeout(now);
        }
        self.next(now, wall_now_us)
    }

    /// Put the next piece of a large message into the output.
    pub fn send_body(&mut self, now: f64, wall_now_us: u64) -> Next {
        self.send_piece(now, wall_now_us);
        self.next(now, wall_now_us)
    }

    /// Note that the server accepted octets of earlier output: a message may take longer.
    pub fn progressed(&mut self, octets: usize, now: f64) {
        self.client.progressed(octets, now);
    }

    /// Send QUIT. Write `take_output` and close.
    pub fn quit(&mut self) {
        self.client.quit();
    }

    /// Take the lookups that the job in progress needs now.
    pub fn asks(&mut self) -> Vec<Lookup> {
        if self.is_asking_for_content() {
            return self.outgoing.as_mut().map(Outgoing::asks).unwrap_or_default();
        }
        self.current.as_mut().map(Assignment::asks).unwrap_or_default()
    }

    /// Receive answers. Those to no lookup of the job in progress have no effect.
    pub fn answer(&mut self, answers: Vec<(Lookup, Answer)>, now: f64, wall_now_us: u64) -> Next {
        let is_for_content = self.is_asking_for_content();
        for (lookup, answer) in answers {
            match &mut self.outgoing {
                Some(outgoing) if is_for_content => outgoing.answer(&lookup, answer),
                _ => self.current.iter_mut().for_each(|assignment| assignment.answer(&lookup, answer.clone())),
            }
        }
        if is_for_content {
            self.send_piece(now, wall_now_us);
        } else if self.is_asking() && self.client.is_idle() {
            self.begin(now, wall_now_us);
        }
        self.next(now, wall_now_us)
    }

    fn is_asking(&self) -> bool {
        self.is_asking_for_content() || self.current.as_ref().is_some_and(Assignment::is_asking)
    }

    fn is_asking_for_content(&self) -> bool {
        self.content.is_some() && self.outgoing.as_ref().is_some_and(Outgoing::is_asking)
    }

    /// Handle the client's events up to the end of a job, and return the driver's next step.
    pub fn next(&mut self, now: f64, wall_now_us: u64) -> Next {
        while let Some(event) = self.client.next_event() {
            match event {
                Event::StartTls => {
                    if self.start_tls() {
                        return Next::StartTls;
                    }
                }
                Event::Ready => {
                    self.note_clear();
                    self.begin(now, wall_now_us);
                }
                Event::Body => self.open_content(now, wall_now_us),
                Event::Recipient { position, status } => self.apply(position, status, wall_now_us),
                Event::Finished { reusable } => return self.finished(reusable, now, wall_now_us),
                Event::Failed { status, clear: true, .. } if self.clears(&status) => return Next::Clear,
                Event::Failed { status, stale, elsewhere, .. } => {
                    if status.dsn == NO_TLS || status.dsn == NEEDS_SUPPORT {
                        self.note_clear();
                    }
                    return self.failed(&status, stale, elsewhere, wall_now_us);
                }
                Event::Note(text) => self.tell(format_args!("{text}")),
                Event::Warning(text) => {
                    if let Some(assignment) = &self.current {
                        assignment.work.log().warning(format_args!("{text}"));
                    }
                }
            }
        }
        if self.current.as_ref().is_some_and(Assignment::is_failed) {
            return self.refuse(now, wall_now_us);
        }
        if self.is_asking() {
            return Next::Asking;
        }
        if self.is_sending() { Next::Sending } else { Next::More }
    }

    /// Return the octets for the server since the last call: one write.
    pub fn take_output(&mut self) -> Option<Vec<u8>> {
        self.client.take_output()
    }

    /// Return when to call `timeout`; `None` while the session waits for nothing, or for answers: the server's time does
    /// not run then.
    pub fn deadline(&self) -> Option<f64> {
        if self.is_asking_for_content() { None } else { self.client.deadline() }
    }

    /// Return whether a large message has another piece: call `send_body` when the output is written.
    pub fn is_sending(&self) -> bool {
        self.content.is_some()
    }

    /// Return the number of transactions, with the one in progress.
    pub fn transactions(&self) -> u32 {
        self.client.transactions()
    }

    // The start of a job.

    fn begin(&mut self, now: f64, wall_now_us: u64) {
        let Some(assignment) = &mut self.current else { return };
        if let Some(generic) = &self.client.settings().generic
            && assignment.map(generic) != Poll::Ready(true)
        {
            return;
        }
        assignment.begun_us = Some(wall_now_us);
        assignment.conn_use = self.client.transactions() + 1;
        let needs_smtputf8 =
            !self.client.offered().smtputf8 && needs_smtputf8(&assignment.work, &self.client.settings().mime, now);
        let delivery = assignment.work.lock();
        let (envelope, recipients) = (assignment.envelope(&delivery), assignment.recipients(&delivery));
        self.client.begin(envelope, recipients, needs_smtputf8, now);
    }

    /// Send the commands of the job that follows, if the message before it is sent.
    fn begin_ahead(&mut self, wall_now_us: u64) {
        let Some(follower) = self.follower.as_mut().filter(|follower| follower.begun_us.is_none()) else { return };
        if !self.client.may_begin_ahead() {
            return;
        }
        // A job that must ask begins after the job before it.
        if let Some(generic) = &self.client.settings().generic
            && follower.map(generic) != Poll::Ready(true)
        {
            return;
        }
        let delivery = follower.work.lock();
        if self.client.begin_ahead(follower.envelope(&delivery), follower.recipients(&delivery)) {
            drop(delivery);
            follower.begun_us = Some(wall_now_us);
            follower.conn_use = self.client.transactions() + 1;
        }
    }

    // The end of a job.

    /// Defer a job whose addresses cannot be mapped. The server has seen nothing of it.
    fn refuse(&mut self, now: f64, wall_now_us: u64) -> Next {
        self.finish_all(&self.local_error(), wall_now_us);
        self.begin_follower(true, now, wall_now_us)
    }

    fn apply(&self, position: usize, status: Status, wall_now_us: u64) {
        let Some(assignment) = &self.current else { return };
        let mut delivery = assignment.work.lock();
        let dsn = self.client.offered().dsn;
        delivery.next_hop_reports(dsn);
        delivery.next_hop_delivers(self.client.settings().protocol == Protocol::Lmtp && !dsn);
        let handover = self.handover(assignment, &delivery, wall_now_us);
        delivery.apply(position, status, assignment.last_session, &handover, assignment.work.log());
    }

    fn finished(&mut self, reusable: bool, now: f64, wall_now_us: u64) -> Next {
        self.content = None;
        if let Some(assignment) = self.current.take() {
            assignment.work.lock().session_completed();
        }
        self.begin_follower(reusable, now, wall_now_us)
    }

    /// Begin the job that follows, if there is one and the connection is reusable.
    fn begin_follower(&mut self, reusable: bool, now: f64, wall_now_us: u64) -> Next {
        self.current = self.follower.take().filter(|_| reusable);
        let Some(follower) = &self.current else {
            return if reusable { Next::Finished } else { Next::Closed };
        };
        // The client's next events concern the follower. With its commands sent, all of its replies may be among them.
        if follower.begun_us.is_none() {
            self.begin(now, wall_now_us);
        }
        Next::Followed
    }

    /// Leave the job in progress for a connection without TLS, if it may go out in the clear.
    fn clears(&mut self, status: &Status) -> bool {
        let Some(assignment) = self.current.as_ref().filter(|assignment| self.may_clear(assignment)) else {
            return false;
        };
        assignment.work.lock().heard(status.clone(), assignment.work.log());
        self.current = None;
        self.content = None;
        self.follower = None;
        true
    }

    fn failed(&mut self, status: &Status, stale: bool, elsewhere: bool, wall_now_us: u64) -> Next {
        self.content = None;
        self.follower = None;
        let Some(assignment) = self.current.take().filter(|_| !stale) else {
            return if stale { Next::Stale } else { Next::Closed };
        };
        let last = if assignment.begun_us.is_some() { assignment.last_session } else { assignment.last_address };
        let mut delivery = assignment.work.lock();
        if elsewhere && !last {
            delivery.heard(status.clone(), assignment.work.log());
        } else {
            let mut status = status.clone();
            if elsewhere && assignment.has_passed_a_server && self.client.peer().requiretls != RequireTls::Disable {
                // A server without REQUIRETLS, such as a backup, returns no mail that the one before may take later.
                status.dsn.class = 4;
                status.outcome = outcome_of(status.dsn);
            }
            let handover = self.handover(&assignment, &delivery, wall_now_us);
            delivery.failed(&status, last, &handover, assignment.work.log());
        }
        Next::Closed
    }

    /// Return the fields of a log line. Setup ends when MAIL is sent; before that, it ends now.
    fn handover(&self, assignment: &Assignment, delivery: &Delivery, wall_now_us: u64) -> Handover<'_> {
        let begun_us = assignment.begun_us.unwrap_or(wall_now_us);
        Handover {
            relay: &self.client.peer().name_address_port,
            conn_use: assignment.conn_use,
            setup_us: begun_us.saturating_sub(delivery.handoff_us()),
            transmission_us: Some(wall_now_us.saturating_sub(begun_us)),
            wall_now_us,
        }
    }
}

impl fmt::Display for NotAccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the session has a job",
            Self::CannotFollow => "the session has no job to follow, or another one follows it",
        })
    }
}
