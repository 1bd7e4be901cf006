//! The session against scripted servers, without a socket: a queue on disk, and a driver that does what an agent does.

mod changed;
mod checked;
mod large;
mod mapped;
mod probe;
mod script;

use super::assignment::Assignment;
use super::job::tests::job;
use super::job::{JobSettings, word};
use super::session::{Next, Session};
use super::work::{Agent, Work};
use crate::log::{Log, LogTarget};
use crate::lookup::Table;
use crate::mail::envelope::Envelope;
use crate::mail::sink::Sink;
use crate::queue::proofs::testing::Directory;
use crate::queue::segment::record::RECORD_HEADER_OCTETS;
use crate::queue::{Journal, JournalOptions};
use crate::smtp::client::{ClientSettings, Peer, Timeouts};
use crate::table::testing::Fixed;
use std::sync::Arc;
use std::time::Duration;

/// Time at which the agent received the jobs.
const HANDOFF_US: u64 = 10_251_000;
const COMMIT_MAX: Duration = Duration::from_secs(60);

/// A queue directory with messages, and the agent that delivers them.
pub(super) struct Queue {
    directory: Directory,
    journal: Journal,
    pub(super) log: Arc<Log>,
    agent: Arc<Agent>,
}

impl Queue {
    pub(super) fn new() -> Self {
        let directory = Directory::new();
        let options = JournalOptions { minfree_octets: 0, ..JournalOptions::default() };
        let journal = Journal::open(directory.path(), options).unwrap();
        let log = Arc::new(Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory));
        let settings = JobSettings { resolution_digits: 6, long_queue_ids: false, soft_bounce: false };
        let agent = Arc::new(Agent::new(Arc::clone(&log), directory.path().to_owned(), settings));
        Self { directory, journal, log, agent }
    }

    /// Commit a message with this content, split behind its first empty line, and return a job for `recipients`
    /// recipients.
    pub(super) fn job(&self, recipients: u32, content: &[u8], change: impl FnOnce(&mut Envelope)) -> Arc<Work> {
        let mut draft = self.journal.draft().unwrap();
        let head = memchr::memmem::find(content, b"\r\n\r\n").map_or(0, |at| at + 4);
        let (head, body) = content.split_at(head);
        draft.write(body).unwrap();
        let mut job = job(&(0..recipients).collect::<Vec<_>>());
        let mut envelope = Envelope { id: draft.id(), ..Envelope::clone(&job.envelope) };
        change(&mut envelope);
        self.journal.commit(draft, head, &envelope, 0);
        job.locator = self.journal.wait(COMMIT_MAX).remove(0).result.unwrap();
        job.path = format!("incoming/{}", job.locator.segment.file_name()).into();
        job.envelope = Arc::new(envelope);
        Arc::new(Work::new(job, Arc::clone(&self.agent), HANDOFF_US))
    }

    /// Change the first octet of a job's body on disk.
    fn damage(&self, work: &Work) {
        let delivery = work.lock();
        let path = self.directory.path().join(&*delivery.job().path);
        let locator = delivery.job().locator;
        let mut octets = std::fs::read(&path).unwrap();
        octets[locator.offset as usize + RECORD_HEADER_OCTETS] ^= 1;
        std::fs::write(&path, octets).unwrap();
    }
}

/// Return each recipient's status: the outcome, the code and the text; `-` without one.
pub(super) fn statuses(work: &Work) -> Vec<String> {
    let delivery = work.lock();
    let status = |position| delivery.finished(position);
    let told = |position| status(position).map_or("-".into(), |s| format!("{} {} {}", word(s.outcome), s.dsn, s.text));
    (0..delivery.job().recipients.len()).map(told).collect()
}

pub(super) fn settings() -> ClientSettings {
    ClientSettings {
        helo_name: "me".into(),
        myhostname: "me".into(),
        timeouts: Timeouts {
            helo: 10.0,
            mail: 10.0,
            rcpt: 10.0,
            data_init: 10.0,
            data_xfer: 10.0,
            data_done: 10.0,
            rset: 10.0,
        },
        ..ClientSettings::default()
    }
}

fn session(settings: ClientSettings) -> Session {
    Session::new(Arc::new(settings), Peer::new("mx", "192.0.2.1", 25, "example.org", true, true), 0.0)
}

/// An agent's part in the dialogue: it writes the output, sends pieces while it may, and notes how jobs end.
struct Driver {
    session: Session,
    /// The octets for the server; `|` ends a write.
    said: String,
    ends: Vec<Next>,
    /// The connection takes all output at once.
    writable: bool,
    wall_now_us: u64,
}

impl Driver {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: ClientSettings) -> Self {
        Self { session: session(settings), said: String::new(), ends: vec![], writable: true, wall_now_us: HANDOFF_US }
    }

    fn deliver(&mut self, work: &Arc<Work>, last: bool, keep: bool) {
        let assignment = Assignment::new(Arc::clone(work), last, last);
        let next = self.session.deliver(assignment, keep, 0.0, self.wall_now_us).unwrap();
        self.act(next);
    }

    fn follow(&mut self, work: &Arc<Work>, last: bool) {
        let assignment = Assignment::new(Arc::clone(work), last, last);
        self.session.follow(assignment, self.wall_now_us).unwrap();
        self.write();
    }

    fn hear(&mut self, octets: &[u8]) {
        let next = self.session.receive(octets, 0.0, self.wall_now_us);
        self.act(next);
    }

    /// Answer the lookups of the session until it has no more; return their keys.
    fn answer(&mut self, table: &Fixed) -> Vec<String> {
        let mut keys = vec![];
        loop {
            let asked = self.session.asks();
            if asked.is_empty() {
                return keys;
            }
            keys.extend(asked.iter().map(|lookup| String::from_utf8_lossy(&lookup.key).into_owned()));
            let answers = asked.into_iter().map(|lookup| (lookup.clone(), table.lookup(&lookup.key))).collect();
            let next = self.session.answer(answers, 0.0, self.wall_now_us);
            self.act(next);
        }
    }

    fn lose(&mut self) {
        let next = self.session.lost(0.0, self.wall_now_us);
        self.act(next);
    }

    fn act(&mut self, mut next: Next) {
        loop {
            self.write();
            match next {
                Next::More | Next::Asking | Next::StartTls => return,
                Next::Sending if !self.writable => return,
                Next::Sending => next = self.session.send_body(0.0, self.wall_now_us),
                Next::Followed => {
                    self.ends.push(next);
                    next = self.session.next(0.0, self.wall_now_us);
                }
                Next::Finished | Next::Closed | Next::Stale | Next::Clear | Next::Broken => {
                    return self.ends.push(next);
                }
            }
        }
    }

    fn write(&mut self) {
        if let Some(output) = self.session.take_output() {
            self.said.push_str(&String::from_utf8(output).unwrap());
            self.said.push('|');
        }
    }
}
