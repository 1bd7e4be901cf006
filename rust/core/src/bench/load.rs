//! All clients of a source: their connections, their ramp, their pauses, and the clock of a rate.

use super::plan::Plan;
use super::source::Source;
use super::tally::Tally;
use super::tls::SourceTls;
use crate::net::outbound::{self, Outbound, Problem};
use crate::net::reactor::{Happening, Key, Reactor};
use crate::smtp::server::Next;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause of a client after a failed connection.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Maximum number of failed connections in a row: there is no server.
const REFUSALS_MAX: u32 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The first client, which sends no mail, opens a connection.
    OpenFirst,
    /// A client opens a connection.
    Open,
    /// The pause of a client ends.
    GoOn(Key),
}

/// A source at work, in one thread.
pub struct Load {
    plan: Arc<Plan>,
    tally: Arc<Tally>,
    peer: SocketAddr,
    reactor: Reactor<Source>,
    due: BinaryHeap<Reverse<(Instant, Due)>>,
    /// Clients without a connection that are free for the next message of a rate.
    unconnected: usize,
    idle: VecDeque<Key>,
    /// Connections under way: the first message of each, if it has one, and their start.
    opening: HashMap<Key, (Option<u64>, Instant)>,
    /// The first client obtains the TLS session that the others resume. They wait for it.
    is_preparing: bool,
    refusals: u32,
    happened: Vec<Happening<Next>>,
}

impl Load {
    /// Return a source that sends to `peer` by this plan. Its clients begin with the first `run`.
    pub fn new(plan: Arc<Plan>, tally: Arc<Tally>, peer: SocketAddr) -> io::Result<Self> {
        let is_preparing = plan.tls.as_ref().is_some_and(SourceTls::resumes);
        let mut load = Self {
            plan,
            tally,
            peer,
            reactor: Reactor::new()?,
            due: BinaryHeap::new(),
            unconnected: 0,
            idle: VecDeque::new(),
            opening: HashMap::new(),
            is_preparing,
            refusals: 0,
            happened: Vec::new(),
        };
        if is_preparing {
            load.due.push(Reverse((Instant::now(), Due::OpenFirst)));
        } else {
            load.begin_clients();
        }
        Ok(load)
    }

    fn begin_clients(&mut self) {
        let (now, clients) = (Instant::now(), self.plan.sessions.max(1) as u32);
        if self.plan.rate.is_none() {
            let ramp = self.plan.ramp;
            self.due.extend((0..clients).map(|client| Reverse((now + ramp * client / clients, Due::Open))));
        } else {
            self.unconnected = clients as usize;
        }
    }

    /// Work for at most `time`. Return true when all is sent and answered. An error: the server cannot be reached.
    pub fn run(&mut self, time: Duration) -> io::Result<bool> {
        let end = Instant::now() + time;
        loop {
            self.start_what_is_due()?;
            let clock = self.next_due();
            if self.reactor.is_empty() && self.due.is_empty() && clock.is_none() && !self.reactor.has_pending() {
                return Ok(true);
            }
            let now = Instant::now();
            if now >= end {
                return Ok(false);
            }
            let timer = self.due.peek().map(|Reverse((at, _))| *at);
            let next = timer.into_iter().chain(clock.filter(|_| self.has_free_client())).fold(end, Instant::min);
            self.reactor.wait(next.saturating_duration_since(now))?;
            let mut happened = std::mem::take(&mut self.happened);
            self.reactor.poll(0.0, &mut happened)?;
            for what in happened.drain(..) {
                self.happened(what)?;
            }
            self.happened = happened;
        }
    }

    fn start_what_is_due(&mut self) -> io::Result<()> {
        while let Some(Reverse((at, due))) = self.due.peek().copied() {
            // Without messages to send no client needs to wait.
            if at > Instant::now() && !self.plan.stopped() {
                return Ok(());
            }
            self.due.pop();
            match due {
                Due::OpenFirst => self.connect(None)?,
                Due::Open => self.open()?,
                Due::GoOn(key) => self.go_on(key),
            }
        }
        self.start_by_the_clock()
    }

    /// Return when the next message begins by the clock, which starts with the clients.
    fn next_due(&self) -> Option<Instant> {
        if self.is_preparing { None } else { self.plan.next_due() }
    }

    fn has_free_client(&self) -> bool {
        self.unconnected > 0 || !self.idle.is_empty()
    }

    /// Begin the messages that are due, as far as clients are free; the others wait.
    fn start_by_the_clock(&mut self) -> io::Result<()> {
        while let Some(at) = self.next_due() {
            if at > Instant::now() {
                return Ok(());
            }
            if let Some(key) = self.idle.pop_front() {
                self.go_on(key);
            } else if self.unconnected > 0 {
                self.unconnected -= 1;
                self.open()?;
            } else {
                return Ok(());
            }
        }
        // No message is left: the clients say QUIT.
        while let Some(key) = self.idle.pop_front() {
            self.go_on(key);
        }
        Ok(())
    }

    fn go_on(&mut self, key: Key) {
        if let Some(client) = self.reactor.dialogue(key) {
            client.go_on();
            self.reactor.flush(key);
        }
    }

    /// Let a client without a connection open one after `pause`.
    fn disconnected(&mut self, pause: Duration) {
        if self.plan.rate.is_some() {
            self.unconnected += 1;
        } else {
            self.due.push(Reverse((Instant::now() + pause, Due::Open)));
        }
    }

    fn open(&mut self) -> io::Result<()> {
        match self.plan.take() {
            Some(number) => self.connect(Some(number)),
            None => Ok(()),
        }
    }

    /// Open a connection for a message; without one, for a TLS session.
    fn connect(&mut self, number: Option<u64>) -> io::Result<()> {
        let since = Instant::now();
        match outbound::tcp(self.peer, None) {
            Ok(Outbound { socket, connecting }) => {
                let key = self.reactor.open(socket, connecting);
                if connecting {
                    self.opening.insert(key, (number, since));
                } else {
                    self.begin(key, number, since);
                }
            }
            Err(Problem::Source(error) | Problem::Server(error)) => self.not_opened(number, error)?,
        }
        Ok(())
    }

    fn begin(&mut self, key: Key, number: Option<u64>, since: Instant) {
        self.refusals = 0;
        self.tally.counts().connections += u64::from(number.is_some());
        let mut client = Source::new(Arc::clone(&self.plan), Arc::clone(&self.tally), number, since);
        let next = client.open();
        self.reactor.attach(key, client);
        if next != Next::Idle {
            self.handle(key, next);
        }
    }

    fn not_opened(&mut self, number: Option<u64>, error: io::Error) -> io::Result<()> {
        self.refusals += 1;
        {
            let mut counts = self.tally.counts();
            counts.broken += 1;
            counts.unanswered += u64::from(number.is_some());
            counts.complain(&format!("connect: {error}"));
        }
        if self.refusals >= REFUSALS_MAX {
            return Err(error);
        }
        if self.is_preparing {
            self.due.push(Reverse((Instant::now() + RETRY_AFTER, Due::OpenFirst)));
        } else {
            self.disconnected(RETRY_AFTER);
        }
        Ok(())
    }

    fn handle(&mut self, key: Key, next: Next) {
        self.reactor.flush(key);
        if next == Next::StartTls {
            self.reactor.secure(key);
        } else if next == Next::Sleep && self.plan.rate.is_some() {
            self.idle.push_back(key);
        } else if next == Next::Sleep {
            self.due.push(Reverse((Instant::now() + self.plan.think, Due::GoOn(key))));
        } else if next == Next::Close {
            self.reactor.abort(key);
        }
    }

    /// Return an error if the server can speak no TLS.
    fn check_handshakes(&self) -> io::Result<()> {
        let counts = self.tally.counts();
        if self.plan.tls.is_none() || counts.handshakes > 0 || counts.broken < u64::from(REFUSALS_MAX) {
            return Ok(());
        }
        Err(io::Error::other(counts.complaints.first().map_or("TLS: no handshake", String::as_str).to_owned()))
    }

    fn happened(&mut self, what: Happening<Next>) -> io::Result<()> {
        match what {
            Happening::Connected(key, made) => {
                if let Some((number, since)) = self.opening.remove(&key) {
                    match made {
                        Ok(()) => self.begin(key, number, since),
                        Err(error) => self.not_opened(number, error)?,
                    }
                }
            }
            Happening::Next(key, next) => self.handle(key, next),
            Happening::Ended(key) => self.reactor.abort(key),
            Happening::Lost(_) if self.is_preparing => {
                self.is_preparing = false;
                self.begin_clients();
            }
            // A client has left its connection: it opens the next one.
            Happening::Lost(key) => {
                self.check_handshakes()?;
                self.idle.retain(|idle| *idle != key);
                self.disconnected(self.plan.think);
            }
            Happening::Accepted(..) | Happening::AcceptFailed(_) | Happening::Drained(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::drain::Drain;
    use super::super::fault::Fault;
    use super::super::tally::Stage;
    use super::*;
    use crate::tls::Policy;
    use crate::tls::testing::Plains;
    use std::net::TcpListener;

    /// Both ends of a run in one thread.
    fn run(plan: Plan, faults: &[&str]) -> (Arc<Tally>, Arc<Tally>) {
        let faults: Vec<Fault> = faults.iter().map(|fault| fault.parse().unwrap()).collect();
        let taken = Arc::new(Tally::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let mut drain = Drain::new("sink.example", faults, 1, Arc::clone(&taken), None, &[listener]).unwrap();
        let sent = Arc::new(Tally::default());
        let mut load = Load::new(Arc::new(plan), Arc::clone(&sent), peer).unwrap();
        let mut polls = 0;
        while !load.run(Duration::from_millis(1)).unwrap() {
            drain.run(Duration::from_millis(1)).unwrap();
            polls += 1;
            assert!(polls < 20_000, "no end");
        }
        drain.run(Duration::from_millis(1)).unwrap();
        (sent, taken)
    }

    #[test]
    fn each_message_arrives_once() {
        for (reuse, pipelining, recipients) in [(1, false, 1), (0, false, 3), (7, true, 2), (0, true, 1)] {
            let plan = Plan { messages: Some(100), sessions: 5, reuse, pipelining, recipients, ..Plan::default() };
            let (sent, taken) = run(plan, &[]);
            let (sent, taken) = (sent.counts(), taken.counts());
            assert_eq!((sent.messages, taken.messages), (100, 100), "{:?}", sent.complaints);
            assert_eq!((sent.recipients, taken.recipients), (100 * recipients as u64, 100 * recipients as u64));
            assert_eq!((sent.broken, sent.unanswered, sent.refused, taken.duplicates), (0, 0, 0, 0));
            assert_eq!(taken.delivery.count(), 100);
            assert_eq!(sent.octets, taken.octets);
            if reuse == 0 {
                assert_eq!(sent.connections, 5);
            }
        }
    }

    #[test]
    fn pauses_and_faults_end_as_well() {
        let domains = ["a.example", "slow.example", "no.example", "gone.example"].map(Into::into).into();
        let think = Duration::from_millis(1);
        let plan =
            Plan { messages: Some(80), sessions: 4, reuse: 0, think, ramp: 20 * think, domains, ..Plan::default() };
        let (sent, taken) = run(plan, &["slow.example=5ms@dot", "no.example=550", "gone.example=disconnect"]);
        let (sent, taken) = (sent.counts(), taken.counts());
        assert_eq!((sent.messages, sent.refused, sent.unanswered), (40, 20, 20), "{:?}", sent.complaints);
        assert_eq!(taken.messages, 40);
    }

    #[test]
    fn a_rate_follows_the_clock_and_waits_are_counted() {
        for reuse in [1, 0] {
            let plan = Plan { messages: Some(100), sessions: 5, reuse, rate: Some(1000.0), ..Plan::default() };
            let begun = Instant::now();
            let (sent, taken) = run(plan, &[]);
            let took = begun.elapsed();
            let (sent, taken) = (sent.counts(), taken.counts());
            assert_eq!((sent.messages, taken.messages, sent.message.count()), (100, 100, 100), "{:?}", sent.complaints);
            assert!(took >= Duration::from_millis(99), "{took:?}");
            assert!(reuse == 1 && sent.connections == 100 || sent.connections <= 5, "{}", sent.connections);
            assert_eq!((sent.broken, sent.unanswered), (0, 0));
        }
        // One client and a server that needs 10 ms a message: the twentieth waits for nineteen others.
        let plan = Plan { messages: Some(20), sessions: 1, reuse: 0, rate: Some(1e6), ..Plan::default() };
        let (sent, _) = run(plan, &["*=10ms@dot"]);
        let sent = sent.counts();
        assert!(sent.message.longest_us() >= 190_000, "{}", sent.message.longest_us());
        assert!(sent.replies[Stage::Dot as usize].quantile_us(0.5) < 100_000);
    }

    #[test]
    fn a_server_without_tls_is_an_error_after_some_attempts() {
        for session_key in ["", "bench"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = listener.local_addr().unwrap();
            let taken = Arc::new(Tally::default());
            let mut drain = Drain::new("sink.example", Vec::new(), 1, taken, None, &[listener]).unwrap();
            let policy = Arc::new(Policy { session_key: session_key.into(), ..Policy::default() });
            let tls = Some(SourceTls { engines: Arc::new(Plains), policy, wrapper: false });
            let mut load = Load::new(Arc::new(Plan { tls, ..Plan::default() }), Arc::default(), peer).unwrap();
            let error = loop {
                match load.run(Duration::from_millis(1)) {
                    Ok(over) => assert!(!over),
                    Err(error) => break error,
                }
                drain.run(Duration::from_millis(1)).unwrap();
            };
            assert_eq!(error.to_string(), "TLS: STARTTLS is not offered");
        }
    }

    #[test]
    fn a_missing_server_is_an_error_after_some_attempts() {
        let peer = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let tally = Arc::new(Tally::default());
        for rate in [None, Some(1e6)] {
            let plan = Plan { sessions: 100, rate, ..Plan::default() };
            let mut load = Load::new(Arc::new(plan), Arc::clone(&tally), peer).unwrap();
            let error = load.run(Duration::from_secs(60)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(tally.counts().complaints, ["connect: Connection refused (os error 111)"]);
        }
    }
}
