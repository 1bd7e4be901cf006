//! A whole session of smtpd: the client, cleanup, the queue and its errors. Any split gives the same replies, log and
//! messages. Each 250 to a message stands for a committed message, and that has exactly its accepted recipients. Those of
//! a remembered domain are accepted by its table of aliases, which is remote.
//!
//! Input: three bytes of settings, the seed of the split, the client's octets.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::ask::Answer;
use postillion_core::cleanup::settings::CleanupSettings;
use postillion_core::log::{Log, LogTarget};
use postillion_core::lookup::{Entry, Maps};
use postillion_core::mail::envelope::Envelope;
use postillion_core::mail::id::{QueueId, SLOT_BITS};
use postillion_core::mail::reply::Reply;
use postillion_core::mail::sink::Sink;
use postillion_core::queue::{Appender, Completion, Incoming, QueueError};
use postillion_core::smtp::server::Next;
use postillion_core::smtp::server::config::ServerConfig;
use postillion_core::smtpd::accepted::Accepted;
use postillion_core::smtpd::flow::Flow;
use postillion_core::smtpd::listing::{Listing, RecipientTables};
use postillion_core::smtpd::request::Opening;
use postillion_core::smtpd::session::{Memory, Session};
use postillion_core::smtpd::site::{Client, Site, SiteSettings};
use postillion_fuzz::{Choices, assert_wire_form, bit, splits};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WALL_US: u64 = 1_795_366_923_000_000;
const MESSAGE_SIZE_LIMIT: u64 = 300;
const FULL: &str = "452 4.3.1 Insufficient system storage";
/// The remembered domain.
const REMEMBERED: &str = "@b.c";

#[derive(Debug, Clone, PartialEq)]
struct Stored {
    envelope: Envelope,
    content: Vec<u8>,
}

/// A queue that keeps committed messages, and for every third one is full or fails to write.
#[derive(Debug, Default)]
struct Queue {
    begun: Mutex<u64>,
    stored: Arc<Mutex<Vec<Stored>>>,
    fails: bool,
}

struct Draft {
    id: QueueId,
    body: Vec<u8>,
    stored: Arc<Mutex<Vec<Stored>>>,
    breaks: bool,
}

impl Sink for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.breaks {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.body.extend_from_slice(bytes);
        Ok(())
    }
}

impl Incoming for Draft {
    fn id(&self) -> QueueId {
        self.id
    }

    fn body_octets(&self) -> u64 {
        self.body.len() as u64
    }

    fn commit(self: Box<Self>, head: &[u8], envelope: &Envelope, _ticket: u64) {
        assert_eq!(envelope.id, self.id);
        let content = [head, &self.body].concat();
        self.stored.lock().expect("no panic").push(Stored { envelope: envelope.clone(), content });
    }
}

impl Appender for Queue {
    fn incoming(&self) -> Result<Box<dyn Incoming>, QueueError> {
        let mut begun = self.begun.lock().expect("no panic");
        *begun += 1;
        if self.fails && begun.is_multiple_of(3) {
            return Err(QueueError::NoSpace);
        }
        let breaks = self.fails && *begun % 3 == 1;
        let id = QueueId((WALL_US + *begun) << SLOT_BITS | 1);
        Ok(Box::new(Draft { id, body: Vec::new(), stored: Arc::clone(&self.stored), breaks }))
    }

    fn completed(&self) -> Vec<Completion> {
        Vec::new()
    }

    fn wait(&self, _timeout: Duration) -> Vec<Completion> {
        Vec::new()
    }

    fn take_announcements(&self, _out: &mut Vec<u8>) {}

    fn hello(&self, _pid: u32, _out: &mut Vec<u8>) {}

    fn event_fd(&self) -> BorrowedFd<'_> {
        unreachable!("nobody waits for this queue")
    }

    fn close(&self) {}
}

/// The owner's decisions, from the input.
struct Rules {
    server: Arc<ServerConfig>,
    cleanup: Arc<CleanupSettings>,
    asks_data: bool,
    asks_content: bool,
    alone: bool,
    fails: bool,
    names_users: bool,
    ends: bool,
    remembers: bool,
}

/// Return the aliases of the site.
fn aliases() -> Maps {
    Maps { tables: Box::new([Entry::Remote { index: 5, takes_parts: true }]) }
}

/// Return the alias of an address or domain.
fn alias(key: &[u8]) -> Answer {
    match key.first() {
        Some(b'r') => Answer::Found(b"t@d.e"[..].into()),
        Some(b'f') => Answer::Failed("down".into()),
        _ => Answer::NotFound,
    }
}

/// Whether the core accepts a recipient.
fn is_listed(address: &str) -> bool {
    let address = address.to_ascii_lowercase();
    address.ends_with(REMEMBERED) && matches!(alias(address.as_bytes()), Answer::Found(_))
}

fn rules(choices: &mut Choices<'_>) -> Rules {
    let (flags, more, limits) = (choices.byte(), choices.byte(), choices.byte());
    let mut server = ServerConfig {
        // The split decides whether a client waited for a reply; nothing else may.
        forbid_unauth_pipelining: false,
        error_sleep_s: 0.0,
        asks_mail: bit(flags, 5),
        hard_error_limit: if bit(limits, 2) { 3 } else { 1000 },
        ..ServerConfig::default()
    };
    server.dialect.smtputf8 = true;
    server.dialect.message_size_limit = if bit(limits, 0) { MESSAGE_SIZE_LIMIT } else { 0 };
    if bit(more, 0) {
        server.auth_mechanisms = vec!["PLAIN".into()];
    }
    let (host, remembers) = ("mx.example.org", bit(more, 3));
    let mut cleanup = CleanupSettings {
        message_size_limit: server.dialect.message_size_limit,
        hopcount_limit: if bit(limits, 1) { 3 } else { 50 },
        long_queue_ids: bit(flags, 4),
        ..CleanupSettings::new(host)
    };
    if remembers {
        cleanup.rewriting.aliases = aliases();
    }
    Rules {
        server: Arc::new(server),
        cleanup: Arc::new(cleanup),
        asks_data: bit(flags, 0),
        asks_content: bit(flags, 1),
        alone: bit(flags, 2),
        fails: bit(flags, 3),
        names_users: bit(more, 1),
        ends: bit(more, 2),
        remembers,
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Heard {
    output: Vec<u8>,
    log: Vec<String>,
    stored: Vec<Stored>,
    kept: Vec<Vec<u8>>,
    /// The queue IDs in replies of 250.
    promised: Vec<String>,
}

struct Owner<'a> {
    rules: &'a Rules,
    session: Session,
    queue: Arc<Queue>,
    /// All recipients that were ever accepted.
    accepted: Vec<String>,
    heard: Heard,
}

impl Owner<'_> {
    /// Answer until the session waits.
    fn run(&mut self, mut next: Next) {
        loop {
            next = match next {
                Next::Message => {
                    let message = self.session.take_message();
                    assert_wire_form(&message);
                    self.heard.kept.push(message);
                    self.session.stored("AB12", None, 0.0)
                }
                Next::Lookup => {
                    let asked = self.session.lookups();
                    let answers = asked.into_iter().map(|lookup| (lookup.clone(), alias(&lookup.key))).collect();
                    self.session.answer_lookups(answers, 0.0).expect("a question is open")
                }
                question if question.is_question() => {
                    let reply = self.decide(question);
                    self.session.reply(&reply, 0.0).expect("a question is open")
                }
                _ if self.session.is_committing() => self.commit(),
                _ => break,
            };
        }
        self.heard.output.extend(self.session.take_output().unwrap_or_default());
    }

    /// Complete the message in the queue.
    fn commit(&mut self) -> Next {
        let mut stored = self.queue.stored.lock().expect("no panic");
        let last = stored.last().expect("what is being committed");
        let id = last.envelope.id.text(self.rules.cleanup.long_queue_ids);
        let error = (self.rules.fails && last.content.len().is_multiple_of(2)).then_some(FULL);
        if error.is_some() {
            stored.pop();
        } else {
            self.heard.promised.push(id);
        }
        drop(stored);
        self.session.committed(error, 0.0)
    }

    fn decide(&mut self, question: Next) -> Reply {
        match question {
            Next::Rcpt => match self.session.server().recipient().unwrap_or_default() {
                address if address.starts_with("bad") => Reply::new(550, [1, 1], "No"),
                address => {
                    self.accepted.push(address.to_owned());
                    Reply::new(250, [1, 5], "Ok")
                }
            },
            Next::Vrfy => Reply::bare(252, ""),
            Next::Data if self.session.server().sender().is_some_and(|sender| sender.starts_with("bad")) => {
                Reply::new(554, [7, 1], "Not from there")
            }
            Next::Data => Reply::bare(354, ""),
            Next::Auth => {
                self.session.authenticate("PLAIN", "user");
                Reply::new(235, [7, 0], "Authentication successful")
            }
            Next::EndOfData => {
                let is_bad = self.session.content().windows(3).any(|window| window == b"bad");
                if is_bad { Reply::new(554, [7, 1], "Refused") } else { Reply::new(250, [0, 0], "Ok") }
            }
            _ => Reply::new(250, [0, 0], "Ok"),
        }
    }
}

fn play(rules: &Rules, pieces: &[&[u8]]) -> Heard {
    let log = Arc::new(Log::new("mx", "postfix", "smtpd", 7, 0, LogTarget::Memory));
    let queue = Arc::new(Queue { fails: rules.fails, ..Queue::default() });
    let site = Arc::new(Site {
        server: Arc::clone(&rules.server),
        settings: SiteSettings {
            log_client_port: true,
            names_users: rules.names_users,
            rewrites_for_users: rules.names_users,
            ..SiteSettings::default()
        },
        tls: None,
        asks_data: rules.asks_data,
        asks_content: rules.asks_content,
        log: Arc::clone(&log),
        cleanup: Arc::clone(&rules.cleanup),
        recipients: RecipientTables {
            aliases: if rules.remembers { aliases() } else { Maps::default() },
            ..RecipientTables::default()
        },
        journal: (!rules.alone).then(|| Arc::clone(&queue) as Arc<dyn Appender>),
        flow: Flow::new(0.0),
        wall_clock: || WALL_US,
    });
    let client = Client {
        name: "client.example".into(),
        reverse_name: "client.example".into(),
        address: "2001:db8::1".into(),
        port: 4000,
        rewrites_headers: false,
        bare_newline_spared: false,
        tls_log_level: None,
    };
    let heard = Heard { output: vec![], log: vec![], stored: vec![], kept: vec![], promised: vec![] };
    let accepted = Arc::new(Accepted::default());
    accepted.remember(1, REMEMBERED, Listing::Aliases, 1.0);
    let memory = rules.remembers.then_some(Memory { accepted, group: 1 });
    let session = Session::new(site, client, memory, 1, 0.0);
    let mut owner = Owner { rules, session, queue, accepted: vec![], heard };
    let next = owner.session.open(Opening::Greet, 0.0);
    owner.run(next);
    for piece in pieces {
        let next = owner.session.receive(piece, 0.0);
        owner.run(next);
    }
    if rules.ends {
        let next = owner.session.eof(0.0);
        owner.run(next);
    }
    let Owner { session, queue, accepted, mut heard, .. } = owner;
    drop(session);
    heard.log = log.take_lines();
    // The split decides how much early input is reported.
    heard.log.retain(|line| !line.starts_with("improper"));
    heard.stored = std::mem::take(&mut queue.stored.lock().expect("no panic"));
    for Stored { envelope, content } in &heard.stored {
        assert!(content.starts_with(b"Received: from "), "no trace");
        assert_wire_form(content);
        assert!(!envelope.recipients.is_empty());
        for recipient in &envelope.recipients {
            let given = recipient.original.as_deref().unwrap_or(&recipient.address);
            let is_ours = rules.remembers && is_listed(given);
            assert!(is_ours || accepted.iter().any(|address| address == given), "{given} was not accepted");
        }
    }
    heard
}

/// Check that the client got a 250 for each message in the queue, and for no other; panic otherwise.
fn compare(heard: &Heard) {
    let output = String::from_utf8_lossy(&heard.output);
    let said = output.lines().filter(|line| line.starts_with("250 2.0.0 Ok: ") && line.contains("queued as "));
    let said: Vec<&str> = said.filter_map(|line| line.rsplit(' ').next()).collect();
    let kept = heard.kept.iter().map(|_| "AB12");
    let promised: Vec<&str> = heard.promised.iter().map(String::as_str).chain(kept).collect();
    assert_eq!(said, promised, "what was said and what was stored");
    assert_eq!(heard.stored.len(), heard.promised.len());
    let ends = heard.log.iter().filter(|line| line.starts_with("disconnect from ")).count();
    assert_eq!(ends, 1, "{:?}", heard.log);
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let rules = rules(&mut choices);
    let seed = choices.byte();
    let dialogue = choices.rest();
    let mut first = None;
    for pieces in splits(dialogue, seed) {
        let heard = play(&rules, &pieces);
        compare(&heard);
        assert_eq!(first.get_or_insert_with(|| heard.clone()), &heard, "in another split");
    }
});
