//! All sessions of a process: their sockets, their messages' commits, and the requests to the owner.
//!
//! The owner waits until `descriptor` or the journal is readable, calls `poll`, or `collect` and `finish`, and handles the
//! requests that come back. A known client (`know`) is greeted, read from, answered and closed without a request; its message is
//! with the journal when the poll is over. Nothing here blocks.

use crate::net::reactor::{Happening, Key, Reactor};
use crate::queue::{Appender, Completion};
use crate::smtp::server::Next;
use crate::smtpd::listing::Listing;
use crate::smtpd::mode::Mode;
use crate::smtpd::request::{KnownClient, Opening, Request};
use crate::smtpd::session::{Session, Shared, lock};
use crate::smtpd::site::{Client, Site};
use rustix::fd::{BorrowedFd, OwnedFd};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

/// Maximum number of times that the sockets are polled in one call, while there are no requests.
const POLLS_MAX: usize = 4;
/// Time for which stress lasts after the limit of sessions was reached, as for Postfix's master.
const STRESS_S: f64 = 1000.0;
/// Timeout for a client that does not read its last reply.
const CLOSING_MAX_S: f64 = 30.0;
/// A client's connection.
struct Visit {
    address: IpAddr,
    port: u16,
    /// The service was under stress when it came.
    stressed: bool,
    /// The owner has had a request about it.
    requested: bool,
    /// Time at which the last reply was written and the connection began to close.
    closing_since: Option<f64>,
}

/// The sessions of a process.
pub struct Service {
    name: Box<str>,
    calm: Mode,
    /// The mode of sessions that begin under stress.
    stressed: Option<Mode>,
    stress_until: f64,
    /// Sessions at a time; 0 for no limit.
    limit: usize,
    journal: Arc<dyn Appender>,
    /// Collected commits whose sessions have not been told.
    done: Vec<Completion>,
    reactor: Reactor<Shared>,
    visits: HashMap<Key, Visit>,
    happened: Vec<Happening<Next>>,
    requests: Vec<Request>,
    accepting: bool,
    sweeping: bool,
    draining: bool,
}

impl Service {
    /// `name`: the service's, for the log. `stressed`: the settings of sessions that begin while all places are taken.
    /// `limit`: maximum number of sessions, 0 for no limit; clients above it wait in the sockets' queues. Messages go to
    /// `journal`, which both sites share.
    pub fn new(
        name: &str,
        calm: Arc<Site>,
        stressed: Option<Arc<Site>>,
        limit: usize,
        journal: Arc<dyn Appender>,
    ) -> io::Result<Self> {
        Ok(Self {
            name: name.into(),
            calm: Mode::new(calm),
            stressed: stressed.map(Mode::new),
            stress_until: f64::NEG_INFINITY,
            limit,
            journal,
            done: Vec::new(),
            reactor: Reactor::new()?,
            visits: HashMap::new(),
            happened: Vec::new(),
            requests: Vec::new(),
            accepting: false,
            sweeping: false,
            draining: false,
        })
    }

    /// Return a descriptor that is readable while `poll` has something to do.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.reactor.descriptor()
    }

    /// Listen on a copy of this socket.
    pub fn listen(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        self.reactor.listen(listener)
    }

    /// Accept clients from now on, or leave them in the sockets' queues. After `drain` no client is accepted.
    pub fn accept(&mut self, accepting: bool) -> io::Result<()> {
        self.accepting = accepting && !self.draining;
        self.reactor.accept(self.accepting && !self.is_full())
    }

    /// Accept no more clients; `Request::Empty` comes when the last session has ended.
    pub fn drain(&mut self) -> io::Result<()> {
        self.draining = true;
        self.accept(false)?;
        self.tell_if_empty();
        Ok(())
    }

    /// Take over a connection that was accepted elsewhere, of a client at this address.
    pub fn adopt(&mut self, socket: OwnedFd, peer: SocketAddr, now: f64) -> io::Result<Key> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let key = self.reactor.open(socket, false);
        self.arrived(key, Some(peer), now);
        self.see_to_pending(now);
        Ok(key)
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.visits.len()
    }

    /// Whether there is no session.
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

    /// Whether a client came under stress: its session keeps the settings for that.
    pub fn is_stressed(&self, key: Key) -> bool {
        self.visits.get(&key).is_some_and(|visit| visit.stressed)
    }

    /// The session of a connection, once it has begun.
    pub fn session(&mut self, key: Key) -> Option<Shared> {
        self.reactor.dialogue(key).map(|shared| Arc::clone(shared))
    }

    /// The requests since the last call.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// Greet clients at this address without a request, until then. `stressed`: those that come under stress.
    pub fn know(&mut self, known: KnownClient, until: f64, stressed: bool) {
        let mode = match &mut self.stressed {
            Some(mode) if stressed => mode,
            _ => &mut self.calm,
        };
        mode.know(known, until);
    }

    /// Clients of `group` may send to `scope` until then; see `Accepted::remember`. `stressed`: as for `know`.
    pub fn remember(&self, group: u8, scope: &str, listing: Listing, until: f64, stressed: bool) {
        self.mode(stressed).remember(group, scope, listing, until);
    }

    /// Serve all sockets that are ready.
    pub fn poll(&mut self, now: f64) -> io::Result<()> {
        for _ in 0..POLLS_MAX {
            let mut happened = std::mem::take(&mut self.happened);
            let polled = self.reactor.poll(now, &mut happened);
            let quiet = happened.is_empty();
            for what in happened.drain(..) {
                self.happened(what, now);
            }
            self.happened = happened;
            self.see_to_pending(now);
            polled?;
            if quiet || !self.requests.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Take the commits that are done from the journal. The owner then announces them, and calls `finish`.
    pub fn collect(&mut self) {
        self.done.extend(self.journal.completed());
    }

    /// Tell the sessions of the collected commits. A session that is gone needs no answer: its message is delivered.
    pub fn finish(&mut self, now: f64) {
        for completion in std::mem::take(&mut self.done) {
            let Some(key) = self.reactor.key_of(completion.ticket) else { continue };
            let error = completion.result.err().map(|error| error.reply_text());
            self.with_session(key, now, |session| session.committed(error.as_deref(), now));
        }
        self.see_to_pending(now);
    }

    /// Begin the session of a client after `Request::Welcome`.
    pub fn begin(&mut self, key: Key, known: KnownClient, opening: &Opening, now: f64) {
        self.open(key, known, opening, now);
        self.see_to_pending(now);
    }

    /// Go on after the owner has answered a question by the session itself, which then returned `next`.
    pub fn proceed(&mut self, key: Key, next: Next, now: f64) {
        self.handle(key, next, now);
        self.see_to_pending(now);
    }

    /// A session's sleep may be over.
    pub fn wake(&mut self, key: Key, now: f64) {
        self.with_session(key, now, |session| session.timeout(now));
        self.see_to_pending(now);
    }

    /// Close a connection at once.
    pub fn abort(&mut self, key: Key, now: f64) {
        self.reactor.abort(key);
        self.see_to_pending(now);
    }

    /// Send octets to a client outside the dialogue.
    pub fn write(&mut self, key: Key, octets: Vec<u8>, now: f64) {
        self.reactor.write(key, octets);
        self.see_to_pending(now);
    }

    /// Close the sessions whose timeout has passed. False when no session is left; then `Request::Sweep` comes with the
    /// next client.
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
                    let server = session.server();
                    // A sleeping session already has a wake-up timer.
                    !server.is_sleeping() && now >= server.deadline()
                };
                if server_due {
                    self.with_session(key, now, |session| session.timeout(now));
                }
            }
        }
        self.see_to_pending(now);
        self.sweeping = !self.visits.is_empty();
        self.sweeping
    }

    /// End every session between two messages; call it again for the others.
    pub fn stop(&mut self, now: f64) {
        for key in self.keys() {
            match self.session(key) {
                None => self.reactor.abort(key),
                Some(shared) => {
                    let may_close = lock(&shared).shut_down(now);
                    if may_close {
                        self.handle(key, Next::Close, now);
                    }
                }
            }
        }
        self.see_to_pending(now);
    }

    fn mode(&self, stressed: bool) -> &Mode {
        self.stressed.as_ref().filter(|_| stressed).unwrap_or(&self.calm)
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

    fn happened(&mut self, what: Happening<Next>, now: f64) {
        match what {
            Happening::Accepted(key, peer) => self.arrived(key, peer, now),
            Happening::Next(key, next) => self.handle(key, next, now),
            Happening::Ended(key) => self.with_session(key, now, |session| session.eof(now)),
            Happening::Lost(key) => self.left(key),
            Happening::AcceptFailed(error) => self.requests.push(Request::AcceptFailed(error.to_string())),
            Happening::Connected(..) | Happening::Drained(_) => {}
        }
    }

    fn arrived(&mut self, key: Key, peer: Option<SocketAddr>, now: f64) {
        let address = peer.map_or(IpAddr::from([127, 0, 0, 1]), |peer| peer.ip().to_canonical());
        let port = peer.map_or(0, |peer| peer.port());
        // The client that takes the last place is not under stress yet.
        let stressed = self.stressed.is_some() && now < self.stress_until;
        let visit = Visit { address, port, stressed, requested: false, closing_since: None };
        self.visits.insert(key, visit);
        if self.is_full() {
            self.fill(now);
        }
        if !std::mem::replace(&mut self.sweeping, true) {
            self.requests.push(Request::Sweep);
        }
        match self.mode(stressed).known(address, now).cloned() {
            Some(known) => self.open(key, known, &Opening::Greet, now),
            None => self.request(key, Request::Welcome(key)),
        }
    }

    /// All places are taken.
    fn fill(&mut self, now: f64) {
        // An error here means only that clients beyond the limit are accepted.
        let _ = self.reactor.accept(false);
        if now >= self.stress_until {
            let (name, places) = (&self.name, self.visits.len());
            let text = format_args!("service \"{name}\" has reached its process limit \"{places}\": stress mode is on");
            self.calm.site.log.warning(text);
        }
        self.stress_until = now + STRESS_S;
    }

    fn left(&mut self, key: Key) {
        let Some(visit) = self.visits.remove(&key) else { return };
        if visit.requested {
            self.requests.push(Request::Gone(key));
        }
        if self.accepting
            && !self.is_full()
            && let Err(error) = self.reactor.accept(true)
        {
            self.requests.push(Request::AcceptFailed(error.to_string()));
        }
        self.tell_if_empty();
    }

    fn tell_if_empty(&mut self) {
        if self.draining && self.visits.is_empty() {
            self.requests.push(Request::Empty);
        }
    }

    fn open(&mut self, key: Key, known: KnownClient, opening: &Opening, now: f64) {
        let Some(visit) = self.visits.get(&key) else { return };
        let client = Client { port: visit.port, ..known.client };
        let mode = self.mode(visit.stressed);
        let memory = known.group.map(|group| mode.memory(group));
        let wraps = mode.site.tls.as_ref().is_some_and(|tls| tls.wrapper);
        let session = Session::new(Arc::clone(&mode.site), client, memory, key.token(), now);
        self.reactor.attach(key, Arc::new(Mutex::new(session)));
        if !wraps {
            // Input before the greeting must be seen before the greeting is said (smtpd_forbid_unauth_pipelining).
            self.reactor.hear(key, now);
        }
        self.with_session(key, now, |session| session.open(opening.clone(), now));
    }

    fn with_session(&mut self, key: Key, now: f64, act: impl FnOnce(&mut Session) -> Next) {
        if let Some(shared) = self.reactor.dialogue(key) {
            let next = act(&mut lock(shared));
            self.handle(key, next, now);
        }
    }

    /// Do what a session needs next.
    fn handle(&mut self, key: Key, next: Next, now: f64) {
        if next.is_question() {
            return self.request(key, Request::Decide(key, next));
        }
        if next == Next::Close {
            if let Some(visit) = self.visits.get_mut(&key) {
                visit.closing_since.get_or_insert(now);
            }
            return self.reactor.finish(key);
        }
        if next == Next::StartTls {
            return self.reactor.secure(key);
        }
        self.reactor.flush(key);
        if next == Next::Sleep
            && let Some(shared) = self.session(key)
        {
            let until = lock(&shared).server().deadline();
            self.request(key, Request::WakeUp(key, until));
        }
    }

    fn request(&mut self, key: Key, request: Request) {
        if let Some(visit) = self.visits.get_mut(&key) {
            visit.requested = true;
            self.requests.push(request);
        }
    }
}
