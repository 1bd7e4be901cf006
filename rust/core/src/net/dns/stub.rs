//! The machine of the stub resolver: the choice of servers, and the meaning of their replies.
//!
//! `ask` answers from the cache, or returns the number of an open question; the same question has the same number. The
//! owner takes the output, opens a fresh socket for each `Send`, gives what it receives, and calls `timeout` in time.
//! An open question has one socket at most. Servers are asked in order, each `attempts` times; one that gave an error is
//! not asked again for the question, and one that did not answer is the last choice for `DOWN_S`.

use super::answer::{Answer, Question};
use super::cache::{self, Cache};
use super::codec::{self, Reply};
use super::pending::{Attempt, Key, Pending};
use super::resolv_conf::{ResolvConf, Search};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// Maximum number of questions on the wire; each has a socket.
pub const QUESTIONS_MAX: usize = 1000;
/// Maximum number of questions that wait for a place on the wire; further ones fail.
pub const WAITING_MAX: usize = 10_000;
/// Longest time of a question in seconds, with the wait for a place, all servers and attempts.
pub const TIMEOUT_S: f64 = 30.0;
/// Maximum number of datagrams to the socket of a question that do not belong to it; then the next server is asked.
pub const STRAYS_MAX: u32 = 16;
/// Time in seconds for which a server that did not answer is the last choice.
pub const DOWN_S: f64 = 10.0;

/// Random numbers for the IDs of messages.
pub trait Ids: Send + Sync {
    /// Return the next number, which nobody can guess.
    fn next(&mut self) -> u16;
}

/// The limits of a stub.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest time of a question in seconds.
    pub timeout_s: f64,
    /// Maximum number of questions on the wire.
    pub questions_max: usize,
    /// Maximum number of questions that wait.
    pub waiting_max: usize,
    /// Those of the cache.
    pub cache: cache::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout_s: TIMEOUT_S,
            questions_max: QUESTIONS_MAX,
            waiting_max: WAITING_MAX,
            cache: cache::Limits::default(),
        }
    }
}

/// The result of asking.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// The answer is known.
    Answer(Answer),
    /// The question is open under this number. `take_finished` returns its answer once.
    Open(u64),
}

/// An order to the owner of the sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Close the question's socket, open a new one to this server, and send.
    Send {
        /// The number of the question.
        number: u64,
        /// The server.
        server: SocketAddr,
        /// The message, without the length that precedes it over TCP.
        octets: Vec<u8>,
        /// Over TCP.
        tcp: bool,
    },
    /// Close the question's socket.
    Close {
        /// The number of the question.
        number: u64,
    },
}

/// A stub resolver without sockets.
pub struct Stub {
    conf: Arc<ResolvConf>,
    limits: Limits,
    ids: Box<dyn Ids>,
    cache: Cache,
    questions: HashMap<u64, Pending>,
    numbers: HashMap<Key, u64>,
    waiting: BTreeSet<u64>,
    /// The times of all open questions, as bits: those of positive numbers have the same order.
    timers: BTreeSet<(u64, u64)>,
    /// Servers that did not answer, and until when they are the last choice.
    down: Vec<(SocketAddr, f64)>,
    output: VecDeque<Output>,
    finished: VecDeque<(u64, Answer)>,
    last: u64,
    rotation: usize,
}

impl Stub {
    /// Return a stub that asks the servers of `conf`.
    pub fn new(conf: ResolvConf, limits: Limits, ids: Box<dyn Ids>) -> Self {
        Self {
            conf: Arc::new(conf),
            limits,
            ids,
            cache: Cache::new(limits.cache),
            questions: HashMap::new(),
            numbers: HashMap::new(),
            waiting: BTreeSet::new(),
            timers: BTreeSet::new(),
            down: Vec::new(),
            output: VecDeque::new(),
            finished: VecDeque::new(),
            last: 0,
            rotation: 0,
        }
    }

    /// Set the servers and options for new questions.
    pub fn configure(&mut self, conf: ResolvConf) {
        self.conf = Arc::new(conf);
        self.down.clear();
    }

    /// Ask. `search`: also try the name below domains of the search list, in the order of resolv.conf(5).
    pub fn ask(&mut self, question: &Question, search: Search, now: f64) -> Asked {
        let search = if search.domains(&question.name, &self.conf).is_empty() { Search::default() } else { search };
        if search == Search::default()
            && let Some(answer) = self.cache.find(question, now)
        {
            return Asked::Answer(answer);
        }
        let key = (question.clone(), search);
        if let Some(number) = self.numbers.get(&key) {
            return Asked::Open(*number);
        }
        let deadline = now + self.limits.timeout_s;
        let mut open = Pending::new(key, Arc::clone(&self.conf), deadline, "too many questions wait for name servers");
        if let Some(answer) = open.next_name(&mut self.cache, now) {
            return Asked::Answer(answer);
        }
        let free = self.on_wire() < self.limits.questions_max;
        if !free && self.waiting.len() >= self.limits.waiting_max {
            return Asked::Answer(Answer::Failed(open.why));
        }
        self.last += 1;
        let number = self.last;
        self.numbers.insert(open.key.clone(), number);
        self.questions.insert(number, open);
        self.set_timer(number, deadline);
        if free {
            self.begin(number, now);
        } else {
            self.waiting.insert(number);
        }
        Asked::Open(number)
    }

    /// Take what came from the socket of a question: a datagram, or a message over TCP.
    pub fn receive(&mut self, number: u64, octets: &[u8], now: f64) {
        let Some(open) = self.questions.get_mut(&number) else { return };
        let Some(attempt) = &mut open.attempt else { return };
        let (server, tcp) = (attempt.server, attempt.tcp);
        let reply = codec::decode(octets, &open.current, attempt.id, open.edns, tcp);
        if reply.is_ok() {
            self.down.retain(|(down, _)| *down != server);
        }
        match reply {
            Ok(Reply::Answer(answer)) => self.answered(number, answer, now),
            Ok(Reply::Truncated) => self.send(number, server, true, now),
            Ok(Reply::NoEdns) => {
                open.edns = false;
                self.send(number, server, tcp, now);
            }
            Ok(Reply::Unusable(why)) => {
                open.why = format!("{why} from {}", server.ip()).into();
                open.unusable.push(server);
                self.next_attempt(number, now);
            }
            Err(unrelated) => {
                attempt.strays += 1;
                if tcp || attempt.strays > STRAYS_MAX {
                    open.why = format!("{unrelated} from {}", server.ip()).into();
                    self.next_attempt(number, now);
                }
            }
        }
        self.fill(now);
    }

    /// Say that the socket of a question failed.
    pub fn failed(&mut self, number: u64, why: &str, now: f64) {
        let Some(open) = self.questions.get_mut(&number) else { return };
        if let Some(attempt) = &open.attempt {
            open.why = format!("{}: {why}", attempt.server.ip()).into();
            let server = attempt.server;
            self.set_down(server, now);
            self.next_attempt(number, now);
        }
        self.fill(now);
    }

    /// Return when `timeout` has something to do.
    pub fn next_timeout(&self) -> Option<f64> {
        self.timers.first().map(|(bits, _)| f64::from_bits(*bits))
    }

    /// Do what is due.
    pub fn timeout(&mut self, now: f64) {
        while let Some((bits, number)) = self.timers.first().copied()
            && f64::from_bits(bits) <= now
        {
            let open = self.questions.get_mut(&number).expect("an open question has a timer");
            if let Some(attempt) = &open.attempt {
                open.why = format!("no answer from {}", attempt.server.ip()).into();
                let server = attempt.server;
                self.set_down(server, now);
                self.next_attempt(number, now);
            } else {
                self.fail(number);
            }
        }
        self.fill(now);
    }

    /// Return what the owner does next with sockets.
    pub fn take_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Return an open question that has its answer now.
    pub fn take_finished(&mut self) -> Option<(u64, Answer)> {
        self.finished.pop_front()
    }

    /// Return the answer of this question, if it was the last one to finish.
    pub fn take_answer(&mut self, number: u64) -> Option<Answer> {
        let at = self.finished.iter().rposition(|(finished, _)| *finished == number)?;
        self.finished.remove(at).map(|(_, answer)| answer)
    }

    /// Whether `take_finished` has something.
    pub fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Return the number of open questions.
    pub fn open(&self) -> usize {
        self.questions.len()
    }

    /// Return the number and the size in octets of the cached answers.
    pub fn cached(&self) -> (usize, usize) {
        (self.cache.len(), self.cache.octets())
    }

    fn on_wire(&self) -> usize {
        self.questions.len() - self.waiting.len()
    }

    /// Begin with the first server.
    fn begin(&mut self, number: u64, now: f64) {
        self.down.retain(|(_, until)| *until > now);
        let open = self.questions.get_mut(&number).expect("an open question");
        let first = if open.conf.rotate { self.rotation } else { 0 };
        self.rotation = self.rotation.wrapping_add(1);
        open.begin(first, |server| self.down.iter().any(|(down, _)| down == server));
        self.next_attempt(number, now);
    }

    fn next_attempt(&mut self, number: u64, now: f64) {
        let open = self.questions.get_mut(&number).expect("an open question");
        let server = if now < open.deadline { open.next_server() } else { None };
        let tcp = open.conf.tcp;
        match server {
            Some(server) => self.send(number, server, tcp, now),
            None => self.fail(number),
        }
    }

    fn send(&mut self, number: u64, server: SocketAddr, tcp: bool, now: f64) {
        let id = self.ids.next();
        let open = self.questions.get_mut(&number).expect("an open question");
        open.attempt = Some(Attempt { server, id, tcp, strays: 0 });
        let octets = codec::encode(&open.current, id, open.edns);
        // A server that does not answer leaves time for the others.
        let share = (open.deadline - now) / (1 + open.attempts_left()) as f64;
        let timer = now + share.min(open.conf.timeout_s).max(0.0);
        self.set_timer(number, timer);
        self.output.push_back(Output::Send { number, server, octets, tcp });
    }

    /// Keep an answer, and go on with the next name of the search list or finish.
    fn answered(&mut self, number: u64, answer: Answer, now: f64) {
        let open = self.questions.get_mut(&number).expect("an open question");
        let answer = self.cache.keep(&open.current, answer, now);
        let answer = match answer {
            Answer::NoData { .. } | Answer::NoName { .. } => {
                open.note(answer);
                open.next_name(&mut self.cache, now)
            }
            answer => Some(answer),
        };
        match answer {
            Some(answer) => self.finish(number, answer),
            None => self.begin(number, now),
        }
    }

    fn fail(&mut self, number: u64) {
        let why = self.questions.get_mut(&number).expect("an open question").why.clone();
        self.finish(number, Answer::Failed(why));
    }

    fn finish(&mut self, number: u64, answer: Answer) {
        let Some(open) = self.questions.remove(&number) else { return };
        self.timers.remove(&(open.timer.to_bits(), number));
        self.numbers.remove(&open.key);
        if !self.waiting.remove(&number) {
            self.output.push_back(Output::Close { number });
        }
        self.finished.push_back((number, answer));
    }

    /// Begin with questions that wait, while there are places.
    fn fill(&mut self, now: f64) {
        while self.on_wire() < self.limits.questions_max
            && let Some(first) = self.waiting.pop_first()
        {
            self.begin(first, now);
        }
    }

    fn set_timer(&mut self, number: u64, timer: f64) {
        let open = self.questions.get_mut(&number).expect("an open question");
        // Negative times have another order.
        let timer = timer.max(0.0);
        self.timers.remove(&(open.timer.to_bits(), number));
        open.timer = timer;
        self.timers.insert((timer.to_bits(), number));
    }

    fn set_down(&mut self, server: SocketAddr, now: f64) {
        self.down.retain(|(down, _)| *down != server);
        if self.conf.servers.contains(&server) {
            self.down.push((server, now + DOWN_S));
        }
    }
}
