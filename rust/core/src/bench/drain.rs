//! All connections of a sink.

use super::fault::Fault;
use super::sink::{DONE, Shared, Sink, WAITS};
use super::tally::Tally;
use crate::net::reactor::{Happening, Key, Reactor};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After a client could not be accepted, none is for so long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

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
    happened: Vec<Happening>,
}

impl Drain {
    /// A sink that calls itself `name` and listens on these sockets. `seed`: how its dice fall.
    pub fn new(
        name: &str,
        faults: Vec<Fault>,
        seed: u64,
        tally: Arc<Tally>,
        listeners: &[TcpListener],
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(name, faults, seed, Arc::clone(&tally)));
        let mut reactor = Reactor::new()?;
        for listener in listeners {
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
            self.reactor.turn(0.0, &mut happened)?;
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
                    if let Some(code) = self.reactor.dialogue(key).map(Sink::go_on) {
                        self.turned(key, code);
                    }
                }
            }
        }
        Ok(())
    }

    fn turned(&mut self, key: Key, code: i8) {
        self.reactor.flush(key);
        if code == WAITS
            && let Some(sink) = self.reactor.dialogue(key)
        {
            let at = Instant::now() + sink.pause();
            self.due.push(Reverse((at, Due::GoOn(key))));
        } else if code == DONE {
            self.reactor.close(key);
        }
    }

    fn happened(&mut self, what: Happening) {
        match what {
            Happening::Accepted(key, peer) => {
                let peer = peer.map_or_else(|| "local".into(), |peer| peer.to_string());
                self.reactor.attach(key, Sink::new(Arc::clone(&self.shared), &peer));
                self.reactor.flush(key);
            }
            Happening::AcceptFailed(error) => {
                self.tally.counts().complain(&format!("accept: {error}"));
                self.due.push(Reverse((Instant::now() + ACCEPT_AGAIN, Due::Accept)));
            }
            Happening::Turn(key, code) => self.turned(key, code),
            Happening::Ended(key) => self.reactor.close(key),
            Happening::Connected(..) | Happening::Drained(_) | Happening::Lost(_) => {}
        }
    }
}
