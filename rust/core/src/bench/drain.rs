//! All connections of a sink.

use super::fault::Fault;
use super::sink::{Shared, Sink};
use super::tally::Tally;
use super::tls::SinkTls;
use crate::net::reactor::{Happening, Key, Reactor};
use crate::smtp::server::Next;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause after a client could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Maximum number of clients that wait to be accepted; the kernel's net.core.somaxconn limits it as well.
const BACKLOG: i32 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Accept,
    GoOn(Key),
}

/// A sink at work, in one thread.
pub struct Drain {
    shared: Arc<Shared>,
    tally: Arc<Tally>,
    reactor: Reactor<Sink>,
    due: BinaryHeap<Reverse<(Instant, Due)>>,
    happened: Vec<Happening<Next>>,
}

impl Drain {
    /// Return a sink with this name that listens on these sockets. `seed`: the seed of its random numbers.
    pub fn new(
        name: &str,
        faults: Vec<Fault>,
        seed: u64,
        tally: Arc<Tally>,
        tls: Option<SinkTls>,
        listeners: &[TcpListener],
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(name, faults, seed, Arc::clone(&tally), tls));
        let mut reactor = Reactor::new()?;
        for listener in listeners {
            // std's backlog is 128: of more clients at once the rest would be dropped, and return a second later.
            rustix::net::listen(listener, BACKLOG)?;
            reactor.listen(listener.as_fd())?;
        }
        reactor.accept(true)?;
        Ok(Self { shared, tally, reactor, due: BinaryHeap::new(), happened: Vec::new() })
    }

    /// Work for `time`.
    pub fn run(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        loop {
            let now = Instant::now();
            self.do_what_is_due(now)?;
            let next = self.due.peek().map_or(end, |Reverse((at, _))| end.min(*at));
            self.reactor.wait(next.saturating_duration_since(now))?;
            let mut happened = std::mem::take(&mut self.happened);
            self.reactor.poll(0.0, &mut happened)?;
            for what in happened.drain(..) {
                self.happened(what);
            }
            self.happened = happened;
            if now >= end {
                return Ok(());
            }
        }
    }

    fn do_what_is_due(&mut self, now: Instant) -> io::Result<()> {
        while let Some(Reverse((at, due))) = self.due.peek().copied() {
            if at > now {
                return Ok(());
            }
            self.due.pop();
            match due {
                Due::Accept => self.reactor.accept(true)?,
                Due::GoOn(key) => {
                    if let Some(next) = self.reactor.dialogue(key).map(Sink::go_on) {
                        self.handle(key, next);
                    }
                }
            }
        }
        Ok(())
    }

    fn handle(&mut self, key: Key, next: Next) {
        if next == Next::Close {
            return self.reactor.finish(key);
        }
        self.reactor.flush(key);
        if next == Next::StartTls {
            self.reactor.secure(key);
        } else if next == Next::Sleep
            && let Some(sink) = self.reactor.dialogue(key)
        {
            let at = Instant::now() + sink.pause();
            self.due.push(Reverse((at, Due::GoOn(key))));
        }
    }

    fn happened(&mut self, what: Happening<Next>) {
        match what {
            Happening::Accepted(key, peer) => {
                let peer = peer.map_or_else(|| "local".into(), |peer| peer.to_string());
                let mut sink = Sink::new(Arc::clone(&self.shared), &peer);
                let next = sink.open();
                self.reactor.attach(key, sink);
                self.handle(key, next);
            }
            Happening::AcceptFailed(error) => {
                self.tally.counts().complain(&format!("accept: {error}"));
                self.due.push(Reverse((Instant::now() + ACCEPT_AGAIN, Due::Accept)));
            }
            Happening::Next(key, next) => self.handle(key, next),
            Happening::Ended(key) => self.reactor.close(key),
            Happening::Connected(..) | Happening::Drained(_) | Happening::Lost(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn many_clients_at_once_wait_in_the_backlog() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let tally = Arc::new(Tally::default());
        let mut drain = Drain::new("sink.example", Vec::new(), 1, Arc::clone(&tally), None, &[listener]).unwrap();
        // No client is accepted yet: without room in the backlog a connection would take at least a second.
        let began = Instant::now();
        let clients: Vec<_> =
            (0..300).map(|_| TcpStream::connect_timeout(&peer, Duration::from_millis(900)).unwrap()).collect();
        drain.run(Duration::from_millis(1)).unwrap();
        while tally.counts().connections < clients.len() as u64 && began.elapsed() < Duration::from_secs(30) {
            drain.run(Duration::from_millis(1)).unwrap();
        }
        assert_eq!(tally.counts().connections, 300);
    }
}
