//! A pending question: the names that are tried for it, the servers and attempts that are left, its times.

use super::answer::{Answer, Question};
use super::cache::Cache;
use super::name::Name;
use super::resolv_conf::{ResolvConf, Search};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// A question, and how the search list applies to it.
pub type Key = (Question, Search);

/// An attempt that waits for a reply.
pub struct Attempt {
    /// The server that was asked.
    pub server: SocketAddr,
    /// The ID of the message.
    pub id: u16,
    /// Over TCP.
    pub tcp: bool,
    /// Number of messages that did not belong to the question.
    pub strays: u32,
}

/// A pending question.
pub struct Pending {
    /// As asked.
    pub key: Key,
    /// The name that is asked now.
    pub current: Question,
    /// The names behind it.
    rest: VecDeque<Name>,
    /// The best answer of the names before it.
    negative: Option<Answer>,
    /// Servers and options at the time of the question.
    pub conf: Arc<ResolvConf>,
    /// The servers in the order of this question, and the next place in their rounds.
    servers: Vec<SocketAddr>,
    next: usize,
    /// Servers that gave an error.
    pub unusable: Vec<SocketAddr>,
    /// Messages have EDNS0.
    pub edns: bool,
    /// None while the question waits for a place.
    pub attempt: Option<Attempt>,
    /// The end of its time.
    pub deadline: f64,
    /// When something is due.
    pub timer: f64,
    /// The last failure.
    pub why: Box<str>,
}

impl Pending {
    /// Return a pending question. `why`: the failure if it never gets a place on the wire.
    pub fn new(key: Key, conf: Arc<ResolvConf>, deadline: f64, why: &str) -> Self {
        let (question, search) = &key;
        let rest = candidates(&question.name, *search, &conf);
        Self {
            current: question.clone(),
            rest,
            negative: None,
            conf,
            servers: Vec::new(),
            next: 0,
            unusable: Vec::new(),
            edns: true,
            attempt: None,
            deadline,
            timer: 0.0,
            why: why.into(),
            key,
        }
    }

    /// Go on with the next name that the cache does not have. Return the answer if there is none.
    pub fn next_name(&mut self, cache: &mut Cache, now: f64) -> Option<Answer> {
        while let Some(name) = self.rest.pop_front() {
            self.current = Question { name, kind: self.key.0.kind };
            match cache.find(&self.current, now) {
                None => return None,
                Some(found @ Answer::Records { .. }) => return Some(found),
                Some(negative) => self.note(negative),
            }
        }
        self.negative.take()
    }

    /// Note a negative answer: a name that exists says more than one that does not.
    pub fn note(&mut self, answer: Answer) {
        if !matches!(self.negative, Some(Answer::NoData { .. })) {
            self.negative = Some(answer);
        }
    }

    /// Begin the rounds of the servers. `first`: the place of the first one; those that are `down` are last.
    pub fn begin(&mut self, first: usize, down: impl Fn(&SocketAddr) -> bool) {
        self.servers.clone_from(&self.conf.servers);
        let count = self.servers.len();
        self.servers.rotate_left(first % count);
        self.servers.sort_by_key(down);
        (self.next, self.edns) = (0, true);
        self.unusable.clear();
    }

    /// Return the next server that has not given an error.
    pub fn next_server(&mut self) -> Option<SocketAddr> {
        while self.next < self.attempts() {
            let server = self.server(self.next);
            self.next += 1;
            if !self.unusable.contains(&server) {
                return Some(server);
            }
        }
        None
    }

    /// Return the number of attempts behind this one.
    pub fn attempts_left(&self) -> usize {
        (self.next..self.attempts()).filter(|at| !self.unusable.contains(&self.server(*at))).count()
    }

    fn attempts(&self) -> usize {
        self.servers.len() * self.conf.attempts as usize
    }

    fn server(&self, at: usize) -> SocketAddr {
        self.servers[at % self.servers.len()]
    }
}

/// Return the names to try, in the order of resolv.conf(5).
fn candidates(name: &Name, search: Search, conf: &ResolvConf) -> VecDeque<Name> {
    let dots = name.labels().count().saturating_sub(1);
    let mut names: VecDeque<Name> =
        search.domains(name, conf).iter().filter_map(|domain| name.below(domain).ok()).collect();
    if dots >= conf.ndots as usize {
        names.push_front(name.clone());
    } else {
        names.push_back(name.clone());
    }
    names
}
