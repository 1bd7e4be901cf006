//! The queue manager at work: the scheduler between the queue on disk and the peers.
//!
//! ```text
//! bytes of a peer ─> frames ─┐                 ┌─> facts to the store, lines to the log
//! store: arrivals, envelopes ┼─> Scheduler ────┼─> Deliver frames, a batch a peer (`outputs`)
//! resolver, triggers, timers ┘                 └─> `Request`: what the shell must do or decide
//! ```
//!
//! The shell calls, in each turn of its loop: `receive` for what came, `tick`, `next_request` until there is none,
//! `outputs`, and comes back at `deadline`. Facts are written down in `outputs`, before anything leaves.

use super::flow::Flow;
use super::orphans::Orphans;
use super::scheduler::{Event, Scheduler};
use super::walk::{Told, Walks};
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

/// Envelopes read from disk in one turn, so that a flush of the whole queue does not stop everything else.
pub const LOADS_A_TURN: u32 = 200;
/// Facts written in one go.
pub const FACTS_MAX: usize = 1000;
/// Segments that a producer may have open: it appends to one, and writes a large message to another.
const OPEN_MAX: usize = 16;
/// How often the store is asked for more while it reads what stood in the queue at the start.
const RECOVERY_LOOK_US: u64 = 5_000;
/// How often the store keeps house.
pub const HOUSEKEEPING_US: u64 = SECOND_US;

/// Something that the shell must do or decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Where does this address go? Answer with `scheduler().resolved` or `unresolved`.
    Resolve {
        /// The address.
        address: Box<str>,
    },
    /// Start an agent of this transport; `scheduler().trigger_failed` if that is impossible.
    Trigger {
        /// The transport's name.
        transport: Arc<str>,
    },
    /// A control request. Answer with `reply`, `list` or `flush_site`.
    Control {
        /// Who asks.
        peer: u32,
        /// What.
        json: Vec<u8>,
    },
}

/// Why a peer's connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerError {
    /// Its bytes are no frames.
    Frame(FrameError),
    /// It said something that its kind of peer may not say.
    OutOfPlace(&'static str),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::OutOfPlace(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for PeerError {}

impl From<FrameError> for PeerError {
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
struct Peer {
    reader: FrameReader,
    role: Role,
    /// Segments that a producer spoke of and did not seal yet.
    open: Vec<SegmentId>,
    out: Vec<u8>,
    /// It does not read what was written to it.
    blocked: bool,
    touched: bool,
}

impl Peer {
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
    peers: HashMap<u32, Peer>,
    touched: Vec<u32>,
    controls: VecDeque<(u32, Vec<u8>)>,
    walks: Walks,
    facts: Vec<Fact>,
    flow: Flow,
    loads_left: u32,
    housekeeping_us: u64,
    rescan_every_us: u64,
    rescan_us: u64,
    orphans: Orphans,
    /// When to ask for more of what stood in the queue at the start; `None` when all was told.
    recovery_us: Option<u64>,
}

impl<S: Store> Hub<S> {
    /// `rescan_every_us`: how often the store is looked through for what nobody announced (`queue_run_delay`).
    pub fn new(scheduler: Scheduler, store: S, log: Arc<Log>, rescan_every_us: u64, now: Now) -> Self {
        let orphans = Orphans::at_start(store.held(), now);
        Self {
            scheduler,
            store,
            log,
            peers: HashMap::new(),
            touched: Vec::new(),
            controls: VecDeque::new(),
            walks: Walks::default(),
            facts: Vec::new(),
            flow: Flow::default(),
            loads_left: LOADS_A_TURN,
            housekeeping_us: now.mono_us + HOUSEKEEPING_US,
            rescan_every_us,
            rescan_us: now.mono_us + rescan_every_us,
            orphans,
            recovery_us: Some(now.mono_us),
        }
    }

    /// The state machine, to be asked and told.
    pub fn scheduler(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    /// The queue on disk.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// A peer connected. `control`: by the public socket, where nothing but control requests is heard.
    pub fn connected(&mut self, peer: u32, control: bool) {
        let role = if control { Role::Control } else { Role::Stranger };
        let reader = FrameReader::default();
        self.peers
            .insert(peer, Peer { reader, role, open: Vec::new(), out: Vec::new(), blocked: false, touched: false });
    }

    /// A peer does not read what was written to it, or reads again: it is told when the queue manager falls behind only then.
    pub fn blocked(&mut self, peer: u32, blocked: bool) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.blocked = blocked;
            if !blocked && matches!(known.role, Role::Producer) {
                self.say(peer, &Frame::Flow { behind: self.flow.behind() });
            }
        }
    }

    /// Bytes came from a peer. After an error its connection is to be closed, and `lost` called.
    pub fn receive(&mut self, peer: u32, bytes: &[u8], now: Now) -> Result<(), PeerError> {
        let Some(known) = self.peers.get_mut(&peer) else {
            return Ok(());
        };
        known.reader.receive(bytes);
        while let Some(frame) = self.peers.get_mut(&peer).map_or(Ok(None), |known| known.reader.next_frame())? {
            self.hear(peer, frame, now)?;
        }
        Ok(())
    }

    fn hear(&mut self, peer: u32, frame: Frame, now: Now) -> Result<(), PeerError> {
        let Some(known) = self.peers.get_mut(&peer) else {
            return Ok(());
        };
        let role = known.role;
        match (frame, role) {
            (Frame::Control(json), Role::Control) => self.controls.push_back((peer, json)),
            (_, Role::Control) => return Err(PeerError::OutOfPlace("only control requests are heard here")),
            (Frame::Producer { segment, end, .. }, Role::Stranger | Role::Producer) => {
                known.role = Role::Producer;
                known.opened(segment);
                if segment.0 != 0 {
                    let news = self.store.producer(segment, end);
                    self.learn(news, now);
                }
                if role == Role::Stranger && self.flow.behind() {
                    self.say(peer, &Frame::Flow { behind: true });
                }
            }
            (Frame::Arrived(arrivals), Role::Producer) => {
                for arrival in &arrivals {
                    known.opened(arrival.locator.segment);
                }
                let news = self.store.arrived(arrivals);
                self.learn(news, now);
            }
            (Frame::Sealed { segment, end }, Role::Producer) => {
                known.open.retain(|open| *open != segment);
                let news = self.store.sealed(segment, end);
                self.learn(news, now);
            }
            (Frame::Agent { transport, capacity, .. }, Role::Stranger | Role::Agent) => {
                known.role = Role::Agent;
                self.scheduler.agent(peer, &transport, capacity, now);
            }
            (Frame::Delivered { job, recipients }, Role::Agent) => self.scheduler.to_confirm(job, &recipients),
            (Frame::Result(result), Role::Agent) => self.scheduler.result(result, now),
            _ => return Err(PeerError::OutOfPlace("a frame that this peer may not send")),
        }
        Ok(())
    }

    /// Take in what the store found.
    fn learn(&mut self, news: News, now: Now) {
        for (segment, id) in news.gone {
            self.scheduler.catalogue_mut().gone(segment, id);
        }
        for stored in news.messages {
            self.scheduler.restore(stored, now);
        }
    }

    /// A peer's connection is closed. Whoever it was may have committed what it did not announce any more: a producer
    /// in a segment that nobody has heard of, an agent before its own first word as a producer.
    pub fn lost(&mut self, peer: u32, now: Now) {
        let Some(known) = self.peers.remove(&peer) else {
            return;
        };
        if known.role == Role::Agent {
            self.scheduler.lost(peer, now);
        }
        match known.open.last() {
            _ if known.role == Role::Control => {}
            Some(segment) => {
                let news = self.store.producer_lost(*segment);
                self.learn(news, now);
                self.look_for_orphans(now);
            }
            None => self.look(now),
        }
        self.scheduler.stay(peer, now);
    }

    /// A turn begins: let what is due happen.
    pub fn tick(&mut self, now: Now) {
        self.loads_left = LOADS_A_TURN;
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
        } else if self.orphans.look_us().is_some_and(|look_us| look_us <= now.mono_us) {
            let news = self.store.rescan();
            self.learn(news, now);
            self.find_orphans(now);
        }
        self.hear_walks(now);
    }

    /// Take in a part of what stood in the queue at the start, so that peers are heard and mail goes out in between.
    fn recover(&mut self, now: Now) {
        let (news, recovery) = self.store.recover();
        self.learn(news, now);
        self.recovery_us = match recovery {
            Recovery::More => Some(now.mono_us),
            Recovery::Soon => Some(now.mono_us + RECOVERY_LOOK_US),
            Recovery::Done => None,
        };
    }

    /// Take in all of what stood in the queue at the start, and wait for it.
    pub fn recover_all(&mut self, now: Now) {
        while self.is_recovering() {
            self.recover(now);
            if self.recovery_us.is_some_and(|due_us| due_us > now.mono_us) {
                std::thread::sleep(Duration::from_micros(RECOVERY_LOOK_US / 10));
            }
        }
    }

    /// Is a part of what stood in the queue at the start still to be taken in?
    pub fn is_recovering(&self) -> bool {
        self.recovery_us.is_some()
    }

    /// `queue_run_delay` changed.
    pub fn rescan_every(&mut self, rescan_every_us: u64) {
        self.rescan_every_us = rescan_every_us;
    }

    /// Look through the store for messages that nobody announced.
    pub fn rescan(&mut self, now: Now) {
        self.rescan_us = now.mono_us + self.rescan_every_us;
        self.look(now);
    }

    /// Look through the store, and again soon if somebody unknown holds a part of it.
    fn look(&mut self, now: Now) {
        let news = self.store.rescan();
        self.learn(news, now);
        self.look_for_orphans(now);
    }

    fn look_for_orphans(&mut self, now: Now) {
        self.orphans.hurry();
        self.find_orphans(now);
    }

    fn find_orphans(&mut self, now: Now) {
        let owned: Vec<SegmentId> = self.peers.values().flat_map(|peer| peer.open.iter().copied()).collect();
        self.orphans.found(self.store.held(), &owned, now);
    }

    /// The next thing that the shell must do, or `None` until the next turn.
    pub fn next_request(&mut self, now: Now) -> Option<Request> {
        // A command is about the whole queue: it waits until all of it is known.
        if !self.is_recovering()
            && let Some((peer, json)) = self.controls.pop_front()
        {
            return Some(Request::Control { peer, json });
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
                Event::Resolve { address } => return Some(Request::Resolve { address }),
                Event::NeedAgent { transport } => return Some(Request::Trigger { transport }),
                Event::Deliver { peer, mut job } => {
                    job.path = self.store.path(job.locator.segment).into();
                    self.say(peer, &Frame::Deliver(job));
                }
            }
        }
        None
    }

    /// Write down what happened, in one go.
    fn note_facts(&mut self) {
        if !self.facts.is_empty() {
            self.store.note_all(&self.facts);
            self.facts.clear();
        }
    }

    fn say(&mut self, peer: u32, frame: &Frame) {
        if let Some(known) = self.peers.get_mut(&peer) {
            frame.encode(&mut known.out);
            if !known.touched {
                known.touched = true;
                self.touched.push(peer);
            }
        }
    }

    /// What is to be written, a batch a peer.
    pub fn outputs(&mut self) -> Vec<(u32, Vec<u8>)> {
        self.note_facts();
        if let Some(behind) = self.flow.judge(self.scheduler.catalogue().waiting_fresh()) {
            self.tell_producers(behind);
        }
        let mut outputs = Vec::with_capacity(self.touched.len());
        for peer in self.touched.drain(..) {
            if let Some(known) = self.peers.get_mut(&peer) {
                known.touched = false;
                outputs.push((peer, std::mem::take(&mut known.out)));
            }
        }
        outputs
    }

    fn tell_producers(&mut self, behind: bool) {
        let hears = |peer: &Peer| matches!(peer.role, Role::Producer) && !peer.blocked;
        let producers: Vec<u32> = self.peers.iter().filter(|(_, peer)| hears(peer)).map(|(peer, _)| *peer).collect();
        for peer in producers {
            self.say(peer, &Frame::Flow { behind });
        }
    }

    /// When the next turn is due (monotonic microseconds; 0: at once).
    pub fn deadline(&mut self) -> u64 {
        if !self.controls.is_empty() && !self.is_recovering() {
            return 0;
        }
        let waits = self.housekeeping_us.min(self.rescan_us).min(self.recovery_us.unwrap_or(u64::MAX));
        let waits = self.orphans.look_us().map_or(waits, |look_us| look_us.min(waits));
        self.scheduler.deadline().map_or(waits, |due_us| due_us.min(waits))
    }

    // Control.

    /// Answer a control request.
    pub fn reply(&mut self, peer: u32, json: &[u8], last: bool) {
        self.say(peer, &Frame::ControlReply { last, json: json.to_vec() });
    }

    /// Answer a control request with every message in the queue: they come through the pipe that is given back, and
    /// a reply says how many they were. `privileged`: the peer's user owns the queue.
    pub fn list(&mut self, peer: u32, privileged: bool, form: Form, now: Now) -> io::Result<OwnedFd> {
        self.walks.list(peer, privileged, &self.scheduler, &self.store, form, now)
    }

    /// Try every deferred message that has a recipient in `site`, as they are found.
    pub fn flush_site(&mut self, site: &str, now: Now) -> io::Result<()> {
        self.scheduler.revive_all(now);
        let Some(directory) = self.store.queue_directory() else {
            return Err(io::Error::other("this queue has no directory"));
        };
        self.walks.find_site(&self.scheduler, directory, &site.to_ascii_lowercase())
    }

    /// Readable when a walk over the queue has something to tell: then a turn is due.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.walks.event_fd()
    }

    fn hear_walks(&mut self, now: Now) {
        for told in self.walks.told() {
            match told {
                Told::Listed { peer, messages } => {
                    self.reply(peer, format!("{{\"listed\": {messages}}}\n").as_bytes(), true);
                }
                Told::Found(ids) => self.scheduler.flush_messages(&ids, now),
                Told::Over => {}
            }
        }
    }

    /// Where a message stands: its segment's file, offset and octets of its record, or `None`.
    pub fn place(&self, id: QueueId) -> Option<(String, u64, u64)> {
        let catalogue = self.scheduler.catalogue();
        let at = catalogue.get(id)?.at();
        Some((self.store.path(at.segment), at.offset, at.record_octets))
    }
}
