//! All sessions of a process: their sockets, their messages' commits, and what only the owner can decide.
//!
//! The owner waits until `descriptor` or the journal is readable, calls `turn` or `settle`, and grants the wishes that
//! come back. A client that is known (`know`) is greeted, heard, answered and bidden goodbye without a wish; its
//! message is on its way into the journal when the turn is over. Nothing here waits.

use crate::mail::reply::Reply;
use crate::net::reactor::{Happening, Key, Reactor};
use crate::queue::Appender;
use crate::smtpd::accepted::Accepted;
use crate::smtpd::conversation::{Conversation, ENDED, IDLE, Memory, SLEEPING, Shared, lock};
use crate::smtpd::session::{Client, Session, Site};
use rustix::fd::{BorrowedFd, OwnedFd};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

/// Looks at the sockets in one turn while nothing is wished for: what becomes ready meanwhile is taken along.
const LOOKS_MAX: usize = 4;
/// Clients that are known without asking; then their memory begins anew.
const KNOWN_MAX: usize = 4096;
/// Stress lasts so long after all places were taken last, as for Postfix's master.
const STRESS_S: f64 = 1000.0;
/// A client that does not take its last reply is cut off after so long.
const CLOSING_MAX_S: f64 = 30.0;
/// `Wish::Gone` as a number, for owners that keep numbers; so are the following.
pub const GONE: i8 = -10;
/// `Wish::Welcome`
pub const WELCOME: i8 = -11;
/// `Wish::Sweep`
pub const SWEEP: i8 = -12;
/// `Wish::Empty`
pub const EMPTY: i8 = -13;
/// `Wish::AcceptFailed`
pub const ACCEPT_FAILED: i8 = -14;

/// What the owner is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// A client came that nobody knows: find out about it, and `begin`.
    Welcome(Key),
    /// A question is open: answer it, and `proceed`.
    Decide(Key, i8),
    /// Call `wake` at that time.
    Wake(Key, f64),
    /// A connection that the owner had a wish of is gone.
    Gone(Key),
    /// Call `sweep` from now on, until it says that nobody is left.
    Sweep,
    /// Nobody is left, after `drain`.
    Empty,
    /// No client can be accepted, for this lack: `accept` after a while.
    AcceptFailed(String),
}

/// Who a client is, and what may be done without asking about it again.
#[derive(Debug, Clone, Default)]
pub struct Acquaintance {
    /// Who it is; the port is another one each time.
    pub client: Client,
    /// What it may send to is remembered for this group of clients; `None`: each recipient is a question.
    pub group: Option<u8>,
}

/// How a session begins.
#[derive(Debug, Clone)]
pub enum Opening {
    /// With 220.
    Greet,
    /// With a refusal of the site's restrictions.
    Refuse(Reply),
    /// With 421: the client has too many connections.
    TurnAway(String),
}

/// A client's connection.
struct Visit {
    address: IpAddr,
    port: u16,
    /// The parameters from when it came.
    site: Arc<Site>,
    /// The owner was told of it.
    attended: bool,
    /// When everything was said, and the connection began to close.
    closing_since: Option<f64>,
}

/// The sessions of a process.
pub struct Service {
    name: Box<str>,
    calm: Arc<Site>,
    stressed: Option<Arc<Site>>,
    stress_until: f64,
    /// Sessions at a time; 0 for no limit.
    limit: usize,
    journal: Arc<dyn Appender>,
    reactor: Reactor<Shared>,
    visits: HashMap<Key, Visit>,
    known: HashMap<IpAddr, (Acquaintance, f64)>,
    accepted: Arc<Accepted>,
    happened: Vec<Happening>,
    wishes: Vec<Wish>,
    accepting: bool,
    sweeping: bool,
    draining: bool,
}

impl Service {
    /// `name`: the service's, for the log. `stressed`: the parameters of sessions that begin while all places are
    /// taken. `limit`: sessions at a time, 0 for no limit; clients above it wait in the sockets' queues. Messages go
    /// to `journal`, which is that of both sites.
    pub fn new(
        name: &str,
        calm: Arc<Site>,
        stressed: Option<Arc<Site>>,
        limit: usize,
        journal: Arc<dyn Appender>,
    ) -> io::Result<Self> {
        Ok(Self {
            name: name.into(),
            calm,
            stressed,
            stress_until: f64::NEG_INFINITY,
            limit,
            journal,
            reactor: Reactor::new()?,
            visits: HashMap::new(),
            known: HashMap::new(),
            accepted: Arc::default(),
            happened: Vec::new(),
            wishes: Vec::new(),
            accepting: false,
            sweeping: false,
            draining: false,
        })
    }

    /// Readable while `turn` has something to do.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.reactor.descriptor()
    }

    /// Listen on a copy of this socket.
    pub fn listen(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        self.reactor.listen(listener)
    }

    /// Accept clients from now on, or leave them in the sockets' queues. After `drain` nobody is accepted any more.
    pub fn accept(&mut self, accepting: bool) -> io::Result<()> {
        self.accepting = accepting && !self.draining;
        self.reactor.accept(self.accepting && !self.is_full())
    }

    /// Accept nobody any more; `Wish::Empty` comes when the last session has ended.
    pub fn drain(&mut self) -> io::Result<()> {
        self.draining = true;
        self.accept(false)?;
        self.tell_if_empty();
        Ok(())
    }

    /// Take over a connection that somebody else has accepted, of a client at this address.
    pub fn adopt(&mut self, socket: OwnedFd, peer: SocketAddr, now: f64) -> io::Result<Key> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let key = self.reactor.open(socket, false);
        self.arrived(key, Some(peer), now);
        self.see_to_pending(now);
        Ok(key)
    }

    /// Sessions that there are now.
    pub fn len(&self) -> usize {
        self.visits.len()
    }

    /// Is there no session?
    pub fn is_empty(&self) -> bool {
        self.visits.is_empty()
    }

    /// The connection with this number, while it is open.
    pub fn key_of(&self, token: u64) -> Option<Key> {
        self.reactor.key_of(token)
    }

    /// The address and port of a client; of one on a local socket 127.0.0.1 and 0.
    pub fn peer(&self, key: Key) -> Option<(IpAddr, u16)> {
        self.visits.get(&key).map(|visit| (visit.address, visit.port))
    }

    /// The session of a connection, once it has begun.
    pub fn session(&mut self, key: Key) -> Option<Shared> {
        self.reactor.dialogue(key).map(|shared| Arc::clone(shared))
    }

    /// Everything wished for since the last call.
    pub fn take_wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes)
    }

    /// What is known of clients at this address, until then: they are greeted without a wish.
    pub fn know(&mut self, acquaintance: Acquaintance, until: f64) {
        let Ok(address) = acquaintance.client.address.parse() else { return };
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(address, (acquaintance, until));
    }

    /// Clients of `group` may send to `scope` until then; see `Accepted::remember`.
    pub fn remember(&self, group: u8, scope: &str, until: f64) {
        self.accepted.remember(group, scope, until);
    }

    /// Deal with all sockets that are ready.
    pub fn turn(&mut self, now: f64) -> io::Result<()> {
        for _ in 0..LOOKS_MAX {
            let mut happened = std::mem::take(&mut self.happened);
            let looked = self.reactor.turn(now, &mut happened);
            let quiet = happened.is_empty();
            for what in happened.drain(..) {
                self.happened(what, now);
            }
            self.happened = happened;
            self.see_to_pending(now);
            looked?;
            if quiet || !self.wishes.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Tell every session whose commit is settled. One that is gone needs no answer: its mail goes its way.
    pub fn settle(&mut self, now: f64) {
        for completion in self.journal.completed() {
            let Some(key) = self.reactor.key_of(completion.ticket) else { continue };
            let error = completion.result.err().map(|error| error.reply_text());
            self.tell(key, now, |session| session.committed(error.as_deref(), now));
        }
        self.see_to_pending(now);
    }

    /// Begin the session of a client that was wished to be welcomed.
    pub fn begin(&mut self, key: Key, who: Acquaintance, opening: &Opening, now: f64) {
        self.open(key, who, opening, now);
        self.see_to_pending(now);
    }

    /// The owner has answered a question, by the session itself: `turn` is what the session wants now.
    pub fn proceed(&mut self, key: Key, turn: i8, now: f64) {
        self.after(key, turn, now);
        self.see_to_pending(now);
    }

    /// A session's sleep may be over.
    pub fn wake(&mut self, key: Key, now: f64) {
        self.tell(key, now, |session| session.timeout(now));
        self.see_to_pending(now);
    }

    /// Close a connection at once.
    pub fn abort(&mut self, key: Key, now: f64) {
        self.reactor.abort(key);
        self.see_to_pending(now);
    }

    /// Say a line to a client out of turn.
    pub fn write(&mut self, key: Key, octets: Vec<u8>, now: f64) {
        self.reactor.write(key, octets);
        self.see_to_pending(now);
    }

    /// Look at the time of every session. False when nobody is left: then `Wish::Sweep` comes with the next client.
    pub fn sweep(&mut self, now: f64) -> bool {
        for key in self.keys() {
            let Some(visit) = self.visits.get(&key) else { continue };
            if let Some(since) = visit.closing_since {
                if now - since > CLOSING_MAX_S {
                    self.reactor.abort(key);
                }
            } else if let Some(shared) = self.session(key) {
                let server_due = {
                    let session = lock(&shared);
                    let server = session.session().server();
                    // Who sleeps has a wish of its own.
                    !server.is_sleeping() && now >= server.deadline()
                };
                if server_due {
                    self.tell(key, now, |session| session.timeout(now));
                }
            }
        }
        self.see_to_pending(now);
        self.sweeping = !self.visits.is_empty();
        self.sweeping
    }

    /// End every session that has no message on its way; come again for the others.
    pub fn stop(&mut self, now: f64) {
        for key in self.keys() {
            match self.session(key) {
                None => self.reactor.abort(key),
                Some(shared) => {
                    let may_close = lock(&shared).shut_down(now);
                    if may_close {
                        self.after(key, ENDED, now);
                    }
                }
            }
        }
        self.see_to_pending(now);
    }

    fn keys(&self) -> Vec<Key> {
        self.visits.keys().copied().collect()
    }

    fn is_full(&self) -> bool {
        self.limit > 0 && self.visits.len() >= self.limit
    }

    fn see_to_pending(&mut self, now: f64) {
        let mut happened = std::mem::take(&mut self.happened);
        // A connection that is lost makes nothing else happen, so this ends.
        while self.reactor.has_pending() {
            self.reactor.take_pending(&mut happened);
            for what in happened.drain(..) {
                self.happened(what, now);
            }
        }
        self.happened = happened;
    }

    fn happened(&mut self, what: Happening, now: f64) {
        match what {
            Happening::Accepted(key, peer) => self.arrived(key, peer, now),
            Happening::Turn(key, turn) => self.after(key, turn, now),
            Happening::Ended(key) => self.tell(key, now, |session| session.eof(now)),
            Happening::Lost(key) => self.left(key),
            Happening::AcceptFailed(error) => self.wishes.push(Wish::AcceptFailed(error.to_string())),
            Happening::Connected(..) | Happening::Drained(_) => {}
        }
    }

    fn arrived(&mut self, key: Key, peer: Option<SocketAddr>, now: f64) {
        let address = peer.map_or(IpAddr::from([127, 0, 0, 1]), |peer| peer.ip().to_canonical());
        let port = peer.map_or(0, |peer| peer.port());
        // Before it takes the last place: who does is not under stress yet.
        let site = match &self.stressed {
            Some(stressed) if now < self.stress_until => stressed,
            _ => &self.calm,
        };
        let visit = Visit { address, port, site: Arc::clone(site), attended: false, closing_since: None };
        self.visits.insert(key, visit);
        if self.is_full() {
            self.fill(now);
        }
        if !std::mem::replace(&mut self.sweeping, true) {
            self.wishes.push(Wish::Sweep);
        }
        match self.known.get(&address) {
            Some((who, until)) if now < *until => {
                let who = who.clone();
                self.open(key, who, &Opening::Greet, now);
            }
            _ => self.wish(key, Wish::Welcome(key)),
        }
    }

    /// All places are taken.
    fn fill(&mut self, now: f64) {
        // A listener that can't be taken from the poller is only accepted from beyond the limit.
        let _ = self.reactor.accept(false);
        if now >= self.stress_until {
            let (name, places) = (&self.name, self.visits.len());
            let text = format_args!("service \"{name}\" has reached its process limit \"{places}\": stress mode is on");
            self.calm.log.warning(text);
        }
        self.stress_until = now + STRESS_S;
    }

    fn left(&mut self, key: Key) {
        let Some(visit) = self.visits.remove(&key) else { return };
        if visit.attended {
            self.wishes.push(Wish::Gone(key));
        }
        if self.accepting
            && !self.is_full()
            && let Err(error) = self.reactor.accept(true)
        {
            self.wishes.push(Wish::AcceptFailed(error.to_string()));
        }
        self.tell_if_empty();
    }

    fn tell_if_empty(&mut self) {
        if self.draining && self.visits.is_empty() {
            self.wishes.push(Wish::Empty);
        }
    }

    fn open(&mut self, key: Key, who: Acquaintance, opening: &Opening, now: f64) {
        let Some(visit) = self.visits.get(&key) else { return };
        let client = Client { port: visit.port, ..who.client };
        let memory = who.group.map(|group| Memory { accepted: Arc::clone(&self.accepted), group });
        let session = Session::new(Arc::clone(&visit.site), client, key.token(), now);
        self.reactor.attach(key, Arc::new(Mutex::new(Conversation::new(session, memory))));
        // What was said before the greeting must be seen before it is given (smtpd_forbid_unauth_pipelining).
        self.reactor.hear(key, now);
        self.tell(key, now, |session| match opening {
            Opening::Greet => session.greet(now),
            Opening::Refuse(reply) => session.refuse(reply, now),
            Opening::TurnAway(text) => session.turn_away(text, now),
        });
    }

    fn tell(&mut self, key: Key, now: f64, what: impl FnOnce(&mut Conversation) -> i8) {
        if let Some(shared) = self.reactor.dialogue(key) {
            let turn = what(&mut lock(shared));
            self.after(key, turn, now);
        }
    }

    /// Do what a session wants.
    fn after(&mut self, key: Key, turn: i8, now: f64) {
        if turn > IDLE {
            return self.wish(key, Wish::Decide(key, turn));
        }
        if turn == ENDED {
            if let Some(visit) = self.visits.get_mut(&key) {
                visit.closing_since.get_or_insert(now);
            }
            return self.reactor.finish(key);
        }
        self.reactor.flush(key);
        if turn == SLEEPING
            && let Some(shared) = self.session(key)
        {
            let until = lock(&shared).session().server().deadline();
            self.wish(key, Wish::Wake(key, until));
        }
    }

    fn wish(&mut self, key: Key, wish: Wish) {
        if let Some(visit) = self.visits.get_mut(&key) {
            visit.attended = true;
            self.wishes.push(wish);
        }
    }
}
