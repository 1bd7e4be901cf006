//! The queue manager as a whole: the scheduler between the queue on disk and its clients.
//!
//! ```text
//! bytes of a client ─> frames ┐                 ┌─> facts to the store, lines to the log
//! store: arrivals, envelopes ─┼─> Scheduler ────┼─> Deliver frames, a batch per client (`outputs`)
//! resolver, triggers, timers ─┘                 └─> `Request`: what the shell must do or decide
//! ```
//!
//! In each poll the shell calls `receive` for new bytes, `tick`, `next_request` until it returns `None`, and
//! `outputs`. The next poll is due at `deadline`. `outputs` writes the facts down before anything goes out.

use super::flow::Flow;
use super::listing;
use super::orphans::Orphans;
use super::scheduler::{Event, Scheduler};
use super::threads::{Report, Threads};
use crate::clock::{Now, SECOND_US};
use crate::ipc::frame::{Frame, FrameError, FrameReader};
use crate::log::{Log, Severity};
use crate::mail::id::QueueId;
use crate::mail::locator::SegmentId;
use crate::queue::listing::rows::Form;
use crate::queue::state::Fact;
use crate::queue::store::{News, Recovery, Store};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of envelopes read in one poll, so that a flush of the whole queue does not stop everything else.
pub const LOADS_PER_POLL: u32 = 200;
/// Maximum number of facts in one write.
pub const FACTS_MAX: usize = 1000;
/// Maximum number of open segments of a producer: it appends to one, and writes a large message to another.
const OPEN_MAX: usize = 16;
/// Interval between two polls of the store while it reads the queue at the start.
const RECOVERY_POLL_US: u64 = 5_000;
/// Longest time after the start for which control requests wait for producers: longer than their pause between two
/// attempts to connect.
const PRODUCERS_MAX_US: u64 = 3 * SECOND_US;
/// Interval of the store's maintenance.
pub const HOUSEKEEPING_US: u64 = SECOND_US;

/// A task for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Find the route of this address. Answer with `scheduler().resolved` or `unresolved`.
    Resolve {
        /// The address.
        address: Box<str>,
        /// The sender; empty for the null sender, and while no route depends on the sender.
        sender: Box<str>,
    },
    /// Start an agent of this transport. Answer with `scheduler().trigger_failed` if that is impossible.
    Trigger {
        /// The transport's name.
        transport: Arc<str>,
    },
    /// A control request. Answer with `reply`, `list` or `flush_site`.
    Control {
        /// The client that asks.
        client: u32,
        /// The request.
        json: Vec<u8>,
    },
}

/// The reason to close a client's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// Its bytes are not a frame.
    Frame(FrameError),
    /// A frame that its kind of client may not send.
    OutOfPlace(&'static str),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::OutOfPlace(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Stranger,
    Producer,
    Agent,
    Control,
}

#[derive(Debug)]
struct Client {
    reader: FrameReader,
    role: Role,
    /// Segments of a producer that are announced and not sealed.
    open: Vec<SegmentId>,
    out: Vec<u8>,
    /// It does not read its output.
    blocked: bool,
    touched: bool,
}

impl Client {
    fn opened(&mut self, segment: SegmentId) {
        if segment.0 != 0 && !self.open.contains(&segment) {
            if self.open.len() >= OPEN_MAX {
                self.open.remove(0);
            }
            self.open.push(segment);
        }
    }
}

/// The queue manager.
#[derive(Debug)]
pub struct Hub<S: Store> {
    scheduler: Scheduler,
    store: S,
    log: Arc<Log>,
    clients: HashMap<u32, Client>,
    touched: Vec<u32>,
    controls: VecDeque<(u32, Vec<u8>)>,
    /// Until then (monotonic), control requests wait for producers that have not connected yet.
    producers_until_us: u64,
    threads: Threads,
    facts: Vec<Fact>,
    flow: Flow,
    loads_left: u32,
    housekeeping_us: u64,
    rescan_every_us: u64,
    rescan_us: u64,
    orphans: Orphans,
    /// Next poll of the store while it reads the queue at the start; `None` afterwards.
    recovery_us: Option<u64>,
}

impl<S: Store> Hub<S> {
    /// Return the queue manager. `rescan_every_us`: interval between two searches for messages without an
    /// announcement (`queue_run_delay`).
    pub fn new(scheduler: Scheduler, store: S, log: Arc<Log>, rescan_every_us: u64, now: Now) -> Self {
        let orphans = Orphans::at_start(store.held(), now);
        Self {
            scheduler,
            store,
            log,
            clients: HashMap::new(),
            touched: Vec::new(),
            controls: VecDeque::new(),
            producers_until_us: now.mono_us + PRODUCERS_MAX_US,
            threads: Threads::default(),
            facts: Vec::new(),
            flow: Flow::default(),
            loads_left: LOADS_PER_POLL,
            housekeeping_us: now.mono_us + HOUSEKEEPING_US,
            rescan_every_us,
            rescan_us: now.mono_us + rescan_every_us,
            orphans,
            recovery_us: Some(now.mono_us),
        }
    }

    /// Return the scheduler.
    pub fn scheduler(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    /// Return the queue on disk.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Add a client. `control`: it uses the public socket, which takes only control requests.
    pub fn connected(&mut self, client: u32, control: bool) {
        let role = if control { Role::Control } else { Role::Stranger };
        let reader = FrameReader::default();
        self.clients
            .insert(client, Client { reader, role, open: Vec::new(), out: Vec::new(), blocked: false, touched: false });
    }

    /// Note that a client does not read its output, or reads again. Only a reading client gets flow control frames.
    pub fn blocked(&mut self, client: u32, blocked: bool) {
        if let Some(known) = self.clients.get_mut(&client) {
            known.blocked = blocked;
            if !blocked && matches!(known.role, Role::Producer) {
                self.send(client, &Frame::Flow { behind: self.flow.behind() });
            }
        }
    }

    /// Take bytes of a client. After an error, close its connection and call `lost`.
    pub fn receive(&mut self, client: u32, bytes: &[u8], now: Now) -> Result<(), ClientError> {
        let Some(known) = self.clients.get_mut(&client) else {
            return Ok(());
        };
        known.reader.receive(bytes);
        while let Some(frame) = self.clients.get_mut(&client).map_or(Ok(None), |known| known.reader.next_frame())? {
            self.handle_frame(client, frame, now)?;
        }
        Ok(())
    }

    fn handle_frame(&mut self, client: u32, frame: Frame, now: Now) -> Result<(), ClientError> {
        let Some(known) = self.clients.get_mut(&client) else {
            return Ok(());
        };
        let role = known.role;
        match (frame, role) {
            (Frame::Control(json), Role::Control) => {
                if now.mono_us < self.producers_until_us && !self.is_recovering() {
                    self.search(now);
                }
                self.controls.push_back((client, json));
            }
            (_, Role::Control) => {
                return Err(ClientError::OutOfPlace("only control requests are allowed on this socket"));
            }
            (Frame::Producer { segment, end, .. }, Role::Stranger | Role::Producer) => {
                known.role = Role::Producer;
                known.opened(segment);
                if segment.0 != 0 {
                    let news = self.store.producer(segment, end);
                    self.take_news(news, now);
                }
                if role == Role::Stranger && self.flow.behind() {
                    self.send(client, &Frame::Flow { behind: true });
                }
            }
            (Frame::Arrived(arrivals), Role::Producer) => {
                for arrival in &arrivals {
                    known.opened(arrival.locator.segment);
                }
                self.threads.note_announcement();
                let news = self.store.arrived(arrivals);
                self.take_news(news, now);
            }
            (Frame::Sealed { segment, end }, Role::Producer) => {
                known.open.retain(|open| *open != segment);
                let news = self.store.sealed(segment, end);
                self.take_news(news, now);
            }
            (Frame::Agent { transport, capacity, .. }, Role::Stranger | Role::Agent) => {
                known.role = Role::Agent;
                self.scheduler.agent(client, &transport, capacity, now);
            }
            (Frame::Delivered { job, recipients }, Role::Agent) => self.scheduler.to_confirm(job, &recipients),
            (Frame::Traced { job, traced }, Role::Agent) => self.scheduler.to_trace(job, traced),
            (Frame::Told(result), Role::Agent) => self.scheduler.told(result, now),
            (Frame::Result(result), Role::Agent) => self.scheduler.result(result, now),
            _ => return Err(ClientError::OutOfPlace("a frame that this client may not send")),
        }
        Ok(())
    }

    /// Take new messages of the store.
    fn take_news(&mut self, news: News, now: Now) {
        for (segment, id) in news.gone {
            self.scheduler.catalogue_mut().gone(segment, id);
        }
        for stored in news.messages {
            self.scheduler.restore(stored, now);
        }
    }

    /// Remove a client whose connection is closed. It may have committed messages without an announcement: a producer
    /// in an unknown segment, an agent before its first frame as a producer.
    pub fn lost(&mut self, client: u32, now: Now) {
        let Some(known) = self.clients.remove(&client) else {
            return;
        };
        if known.role == Role::Agent {
            self.scheduler.lost(client, now);
        }
        match known.open.last() {
            _ if known.role == Role::Control => {}
            Some(segment) => {
                let news = self.store.producer_lost(*segment);
                self.take_news(news, now);
                self.search_orphans(now);
            }
            None => self.search(now),
        }
        self.scheduler.cancel_requeue(client, now);
    }

    /// Begin a poll: do what is due.
    pub fn tick(&mut self, now: Now) {
        self.loads_left = LOADS_PER_POLL;
        self.scheduler.tick(now);
        if self.recovery_us.is_some_and(|due_us| due_us <= now.mono_us) {
            self.recover(now);
        }
        if now.mono_us >= self.housekeeping_us {
            self.housekeeping_us = now.mono_us + HOUSEKEEPING_US;
            self.store.tick(self.scheduler.catalogue_mut(), now);
            for notice in self.store.take_notices() {
                self.log.warning(format_args!("{notice}"));
            }
        }
        if now.mono_us >= self.rescan_us {
            self.rescan(now);
        } else if self.orphans.poll_us().is_some_and(|poll_us| poll_us <= now.mono_us) {
            let news = self.store.rescan();
            self.take_news(news, now);
            self.find_orphans(now);
        }
        self.take_reports(now);
    }

    /// Take a part of the queue at the start, so that clients are served and mail goes out in between.
    fn recover(&mut self, now: Now) {
        let (news, recovery) = self.store.recover();
        self.take_news(news, now);
        self.recovery_us = match recovery {
            Recovery::More => Some(now.mono_us),
            Recovery::Soon => Some(now.mono_us + RECOVERY_POLL_US),
            Recovery::Done => None,
        };
    }

    /// Take the whole queue at the start, and wait for it.
    pub fn recover_all(&mut self, now: Now) {
        while self.is_recovering() {
            self.recover(now);
            if self.recovery_us.is_some_and(|due_us| due_us > now.mono_us) {
                std::thread::sleep(Duration::from_micros(RECOVERY_POLL_US / 10));
            }
        }
    }

    /// Return whether a part of the queue at the start is still unread.
    pub fn is_recovering(&self) -> bool {
        self.recovery_us.is_some()
    }

    /// Change the interval of `queue_run_delay`.
    pub fn rescan_every(&mut self, rescan_every_us: u64) {
        self.rescan_every_us = rescan_every_us;
    }

    /// Search the store for messages without an announcement.
    pub fn rescan(&mut self, now: Now) {
        self.rescan_us = now.mono_us + self.rescan_every_us;
        self.search(now);
    }

    /// Search the store, and search again soon if an unknown process holds a part of it.
    fn search(&mut self, now: Now) {
        let news = self.store.rescan();
        self.take_news(news, now);
        self.search_orphans(now);
    }

    fn search_orphans(&mut self, now: Now) {
        self.orphans.hurry();
        self.find_orphans(now);
    }

    fn find_orphans(&mut self, now: Now) {
        let owned = self.owned();
        self.orphans.found(self.store.held(), &owned, now);
    }

    /// Return the segments of connected producers.
    fn owned(&self) -> Vec<SegmentId> {
        self.clients.values().flat_map(|client| client.open.iter().copied()).collect()
    }

    /// Return the time at which the first control request is due (monotonic); `None` without a request.
    ///
    /// A command is about the whole queue: it waits until the whole queue is known. Soon after the start, that includes the
    /// messages for which a live process has answered `250` before it could connect.
    fn control_due_us(&self) -> Option<u64> {
        if self.controls.is_empty() || self.is_recovering() {
            return None;
        }
        let owned = self.owned();
        let is_known = self.store.held().iter().all(|segment| owned.contains(segment));
        Some(if is_known { 0 } else { self.producers_until_us })
    }

    /// Return the next task for the shell; `None` until the next poll.
    pub fn next_request(&mut self, now: Now) -> Option<Request> {
        if self.control_due_us().is_some_and(|due_us| due_us <= now.mono_us)
            && let Some((client, json)) = self.controls.pop_front()
        {
            return Some(Request::Control { client, json });
        }
        while self.loads_left > 0
            && let Some(event) = self.scheduler.next_event(now)
        {
            match event {
                Event::Note(fact) => {
                    self.facts.push(fact);
                    if self.facts.len() >= FACTS_MAX {
                        self.note_facts();
                    }
                }
                Event::Line { program, warning, text } => {
                    let severity = if warning { Severity::Warning } else { Severity::Info };
                    match program {
                        Some(program) => self.log.line_as(program, severity, format_args!("{text}")),
                        None => self.log.line(severity, format_args!("{text}")),
                    }
                }
                Event::Load { id, at } => {
                    self.loads_left -= 1;
                    let envelope = self.store.read_envelope(&at).and_then(|envelope| {
                        if envelope.id == id { Ok(envelope) } else { Err("another message stands in its place".into()) }
                    });
                    self.scheduler.loaded(id, envelope, now);
                }
                Event::Read { id, at, from, most } => {
                    let read = self.store.read_recipients(&at, from, most);
                    self.scheduler.read(id, read, now);
                }
                Event::Resolve { address, sender } => return Some(Request::Resolve { address, sender }),
                Event::NeedAgent { transport } => return Some(Request::Trigger { transport }),
                Event::Deliver { agent, mut request } => {
                    request.path = self.store.path(request.locator.segment).into();
                    self.send(agent, &Frame::Deliver(request));
                }
            }
        }
        None
    }

    /// Write the new facts down in one batch.
    fn note_facts(&mut self) {
        if !self.facts.is_empty() {
            self.store.note_all(&self.facts);
            self.facts.clear();
        }
    }

    fn send(&mut self, client: u32, frame: &Frame) {
        if let Some(known) = self.clients.get_mut(&client) {
            frame.encode(&mut known.out);
            if !known.touched {
                known.touched = true;
                self.touched.push(client);
            }
        }
    }

    /// Return the output of each client.
    pub fn outputs(&mut self) -> Vec<(u32, Vec<u8>)> {
        self.note_facts();
        if let Some(behind) = self.flow.judge(self.scheduler.catalogue().waiting_fresh()) {
            self.send_flow(behind);
        }
        let mut outputs = Vec::with_capacity(self.touched.len());
        for client in self.touched.drain(..) {
            if let Some(known) = self.clients.get_mut(&client) {
                known.touched = false;
                outputs.push((client, std::mem::take(&mut known.out)));
            }
        }
        outputs
    }

    fn send_flow(&mut self, behind: bool) {
        let reads = |client: &Client| matches!(client.role, Role::Producer) && !client.blocked;
        let producers: Vec<u32> =
            self.clients.iter().filter(|(_, client)| reads(client)).map(|(client, _)| *client).collect();
        for client in producers {
            self.send(client, &Frame::Flow { behind });
        }
    }

    /// Return the time of the next poll (monotonic microseconds; 0: at once).
    pub fn deadline(&mut self) -> u64 {
        let waits = self.housekeeping_us.min(self.rescan_us).min(self.recovery_us.unwrap_or(u64::MAX));
        let waits = self.control_due_us().map_or(waits, |due_us| due_us.min(waits));
        let waits = self.orphans.poll_us().map_or(waits, |poll_us| poll_us.min(waits));
        self.scheduler.deadline().map_or(waits, |due_us| due_us.min(waits))
    }

    // Control.

    /// Answer a control request.
    pub fn reply(&mut self, client: u32, json: &[u8], last: bool) {
        self.send(client, &Frame::ControlReply { last, json: json.to_vec() });
    }

    /// Start a listing, and return the read end of its pipe. At its end a reply tells the number of messages.
    /// `privileged`: the client's user owns the queue.
    pub fn list(&mut self, client: u32, privileged: bool, form: Form, now: Now) -> io::Result<OwnedFd> {
        listing::list(&mut self.threads, client, privileged, &self.scheduler, &self.store, form, now)
    }

    /// Try every deferred message with a recipient in `site`, as a thread finds them.
    pub fn flush_site(&mut self, site: &str, now: Now) -> io::Result<()> {
        self.scheduler.revive_all(now);
        let Some(directory) = self.store.queue_directory() else {
            return Err(io::Error::other("this queue has no directory"));
        };
        self.threads.find_site(&self.scheduler, directory, &site.to_ascii_lowercase())
    }

    /// Return a descriptor that is readable when a thread has a report: then a poll is due.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.threads.event_fd()
    }

    fn take_reports(&mut self, now: Now) {
        for report in self.threads.take() {
            match report {
                Report::Listed { client, messages } => {
                    self.reply(client, format!("{{\"listed\": {messages}}}\n").as_bytes(), true);
                }
                Report::Found(ids) => self.scheduler.flush_messages(&ids, now),
                Report::Over => {}
            }
        }
    }

    /// Return the segment file, offset and octets of a message's record.
    pub fn place(&self, id: QueueId) -> Option<(String, u64, u64)> {
        let catalogue = self.scheduler.catalogue();
        let at = catalogue.get(id)?.at();
        Some((self.store.path(at.segment), at.offset, at.record_octets))
    }
}
