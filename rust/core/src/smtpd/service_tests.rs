//! All sessions of a process on socket pairs, a queue in memory, and a clock that the test moves.

mod recipients;
mod secure;

use super::accepted::GROUPS_MAX;
use super::flow::Flow;
use super::listing::{Listing, RecipientTables};
use super::request::{KnownClient, Opening, Request};
use super::service::Service;
use super::site::{Client, Site, SiteSettings, SiteTls};
use crate::ask::{Answer, Lookup};
use crate::cleanup::settings::CleanupSettings;
use crate::log::{Log, LogTarget};
use crate::lookup::Maps;
use crate::mail::reply::Reply;
use crate::net::reactor::Key;
use crate::queue::Appender;
use crate::queue::memory::Memory;
use crate::smtp::server::Next;
use crate::smtp::server::config::ServerConfig;
use crate::table::testing::remote;
use crate::tls::settings::Level;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

const DIALOGUE: [&str; 5] =
    ["EHLO c.example\r\n", "MAIL FROM:<a@c.example>\r\n", "RCPT TO:<b@next.example>\r\n", "DATA\r\n", "x\r\n.\r\n"];

struct Fixture {
    service: Service,
    memory: Memory,
    log: Arc<Log>,
}

impl Fixture {
    fn new(limit: usize) -> Self {
        Self::with(limit, CleanupSettings::new("mx.example.org"))
    }

    fn with(limit: usize, cleanup: CleanupSettings) -> Self {
        Self::build(limit, cleanup, None)
    }

    fn build(limit: usize, cleanup: CleanupSettings, tls: Option<fn() -> SiteTls>) -> Self {
        let cleanup = Arc::new(cleanup);
        let memory = Memory::default();
        let journal: Arc<dyn Appender> = Arc::new(memory.appender().unwrap());
        let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, LogTarget::Memory));
        let site = |timeout_s| Site {
            server: Arc::new(ServerConfig {
                timeout_s,
                tls: if tls.is_some() { Level::May } else { Level::Off },
                ..ServerConfig::default()
            }),
            settings: SiteSettings::default(),
            tls: tls.map(|made| made()),
            asks_data: false,
            asks_content: false,
            log: Arc::clone(&log),
            cleanup: Arc::clone(&cleanup),
            recipients: RecipientTables { aliases: cleanup.rewriting.aliases.clone(), ..RecipientTables::default() },
            journal: Some(Arc::clone(&journal)),
            flow: Flow::new(0.0),
            wall_clock: || 1_700_000_000_000_000,
        };
        let (calm, stressed) = (Arc::new(site(300.0)), Arc::new(site(10.0)));
        let service = Service::new("smtp", calm, Some(stressed), limit, journal).unwrap();
        Self { service, memory, log }
    }

    /// A client from `192.0.2.last`.
    fn client(&mut self, last: u8, now: f64) -> (UnixStream, Key) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let key = self.service.adopt(theirs.into(), SocketAddr::from(([192, 0, 2, last], 4025)), now).unwrap();
        (ours, key)
    }

    fn requests(&mut self) -> Vec<Request> {
        self.service.take_requests()
    }

    /// Send `words`; return the answers.
    fn say(&mut self, client: &mut UnixStream, words: &str, now: f64) -> String {
        client.write_all(words.as_bytes()).unwrap();
        self.service.poll(now).unwrap();
        self.service.collect();
        self.service.finish(now);
        heard(client)
    }
}

fn heard(client: &mut UnixStream) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match client.read(&mut buffer) {
            Ok(0) => {
                all.extend_from_slice(b"(closed)");
                break;
            }
            Ok(octets) => all.extend_from_slice(&buffer[..octets]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => {
                all.extend_from_slice(b"(broken)");
                break;
            }
        }
    }
    String::from_utf8(all).unwrap()
}

fn known(last: u8) -> KnownClient {
    let address = format!("192.0.2.{last}").into();
    let client = Client { name: "c.example".into(), reverse_name: "c.example".into(), address, ..Client::default() };
    KnownClient { client, group: Some(1) }
}

#[test]
fn a_known_client_with_remembered_recipients_needs_no_request() {
    let mut fixture = Fixture::new(0);
    fixture.service.know(known(1), 10.0, false);
    fixture.service.remember(1, "@next.example", Listing::All, 10.0, false);
    let (mut client, _) = fixture.client(1, 1.0);
    assert_eq!(fixture.requests(), [Request::Sweep]);
    assert_eq!(heard(&mut client), "220 localhost ESMTP Postfix\r\n");
    let answers: Vec<String> = DIALOGUE.iter().map(|words| fixture.say(&mut client, words, 2.0)).collect();
    let codes: Vec<&str> = answers.iter().map(|answer| &answer[..3]).collect();
    assert_eq!(codes, ["250", "250", "250", "354", "250"]);
    assert_eq!(fixture.say(&mut client, "QUIT\r\n", 3.0), "221 2.0.0 Bye\r\n(closed)");
    assert_eq!((fixture.requests(), fixture.service.len(), fixture.memory.records()), (vec![], 0, 1));
    let log = fixture.log.take_lines();
    assert!(log.last().unwrap().starts_with("disconnect from c.example[192.0.2.1] ehlo=1 mail=1"), "{log:?}");
}

#[test]
fn a_stranger_is_welcomed_and_each_recipient_is_a_question_until_it_is_remembered() {
    let mut fixture = Fixture::new(0);
    let (mut client, key) = fixture.client(2, 1.0);
    assert_eq!(fixture.requests(), [Request::Sweep, Request::Welcome(key)]);
    assert_eq!(heard(&mut client), "", "it is not greeted yet");
    fixture.service.begin(key, known(2), &Opening::Greet, 1.0);
    assert!(heard(&mut client).starts_with("220 "));
    let rcpt = DIALOGUE[2];
    fixture.say(&mut client, DIALOGUE[0], 1.0);
    assert_eq!(fixture.say(&mut client, DIALOGUE[1], 1.0), "250 2.1.0 Ok\r\n");
    assert_eq!(fixture.say(&mut client, rcpt, 1.0), "");
    assert_eq!(fixture.requests(), [Request::Decide(key, Next::Rcpt)]);
    // Input behind the question waits, and the question stays open.
    assert_eq!(fixture.say(&mut client, "RSET\r\n", 1.0), "");
    assert_eq!(fixture.requests(), []);
    let session = fixture.service.session(key).unwrap();
    let next = session.lock().unwrap().accept(1.0).unwrap();
    fixture.service.proceed(key, next, 1.0);
    assert_eq!(heard(&mut client), "250 2.1.5 Ok\r\n250 2.0.0 Ok\r\n");
    assert_eq!(session.lock().unwrap().accept(1.0), None, "no question is open");
    fixture.service.remember(1, "b@next.example", Listing::All, 2.0, false);
    assert_eq!(fixture.say(&mut client, &[DIALOGUE[1], rcpt].concat(), 1.9), "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    assert_eq!(fixture.say(&mut client, rcpt, 2.0), "", "the acceptance is too old");
    assert_eq!(fixture.requests(), [Request::Decide(key, Next::Rcpt)]);
    client.shutdown(Shutdown::Write).unwrap();
    fixture.service.poll(2.0).unwrap();
    assert_eq!(fixture.requests(), [], "the question is still open");
    let next = session.lock().unwrap().reply(&Reply::new(550, [1, 1], "no"), 2.0).unwrap();
    fixture.service.proceed(key, next, 2.0);
    assert_eq!(heard(&mut client), "550 5.1.1 no\r\n(closed)");
    assert_eq!(fixture.requests(), [Request::Gone(key)]);
    assert!(fixture.service.is_empty());
}

#[test]
fn a_client_that_speaks_first_is_not_greeted() {
    let mut fixture = Fixture::new(0);
    fixture.service.know(known(1), 10.0, false);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"EHLO c.example\r\n").unwrap();
    fixture.service.adopt(theirs.into(), SocketAddr::from(([192, 0, 2, 1], 1)), 1.0).unwrap();
    assert_eq!(heard(&mut ours), "554 5.5.0 Error: SMTP protocol synchronization\r\n(closed)");
}

#[test]
fn a_known_client_is_forgotten_in_time_and_a_group_beyond_the_last_is_ignored() {
    let mut fixture = Fixture::new(0);
    fixture.service.know(known(1), 10.0, false);
    fixture.service.remember(GROUPS_MAX as u8, "@next.example", Listing::All, 10.0, false);
    let (_client, key) = fixture.client(1, 10.0);
    assert_eq!(fixture.requests(), [Request::Sweep, Request::Welcome(key)]);
}

#[test]
fn an_opening_refuses_or_dismisses() {
    let mut fixture = Fixture::new(0);
    let refusal = Opening::Refuse(Reply::new(554, [7, 1], "no"));
    for (opening, said) in [
        (refusal, "554 5.7.1 no\r\n"),
        (Opening::Dismiss("Error: too many".into()), "421 4.7.0 localhost Error: too many\r\n(closed)"),
    ] {
        let (mut client, key) = fixture.client(3, 1.0);
        fixture.service.begin(key, known(3), &opening, 1.0);
        assert_eq!(heard(&mut client), said);
    }
}

#[test]
fn a_silent_session_times_out_and_sooner_under_stress() {
    let mut fixture = Fixture::new(2);
    for stressed in [false, true] {
        fixture.service.know(known(1), 1e6, stressed);
    }
    let (mut first, _) = fixture.client(1, 0.0);
    let (mut last, _) = fixture.client(1, 0.0);
    let (mut late, _) = fixture.client(1, 1.0);
    assert!(fixture.log.take_lines().iter().any(|line| line.contains("has reached its process limit \"2\"")));
    for client in [&mut first, &mut last, &mut late] {
        assert!(heard(client).starts_with("220 "));
    }
    assert!(fixture.service.sweep(11.0));
    assert_eq!(heard(&mut late), "421 4.4.2 localhost Error: timeout exceeded\r\n(closed)");
    assert_eq!((heard(&mut first), heard(&mut last)), (String::new(), String::new()));
    assert!(!fixture.service.sweep(300.0), "no session is left");
    assert!(heard(&mut first).ends_with("(closed)") && heard(&mut last).ends_with("(closed)"));
    fixture.requests();
    let (_client, _) = fixture.client(1, 301.0);
    assert_eq!(fixture.requests(), [Request::Sweep], "it sweeps again");
}

#[test]
fn a_session_keeps_the_mode_in_which_it_began_and_the_modes_share_no_cache() {
    let mut fixture = Fixture::new(2);
    fixture.service.know(known(1), 1e6, false);
    fixture.service.remember(1, "@next.example", Listing::All, 1e6, false);
    let (mut first, calm) = fixture.client(1, 0.0);
    let (last, _) = fixture.client(1, 0.0);
    fixture.requests();
    drop(last);
    fixture.service.poll(1.0).unwrap();
    let (mut late, stressed) = fixture.client(1, 2.0);
    assert_eq!((fixture.service.is_stressed(calm), fixture.service.is_stressed(stressed)), (false, true));
    assert_eq!(fixture.requests(), [Request::Welcome(stressed)], "it is known in the other mode");
    fixture.service.begin(stressed, known(1), &Opening::Greet, 2.0);
    let begun = DIALOGUE[..3].iter().map(|words| fixture.say(&mut late, words, 2.0)).collect::<Vec<_>>();
    assert!(begun[1].starts_with("250 ") && begun[2].is_empty(), "{begun:?}");
    assert_eq!(fixture.requests(), [Request::Decide(stressed, Next::Rcpt)]);
    let answers: Vec<String> = DIALOGUE[..3].iter().map(|words| fixture.say(&mut first, words, 3.0)).collect();
    assert!(answers[2].starts_with("250 2.1.5 "), "{answers:?}");
    assert_eq!(fixture.requests(), []);
    // Under stress, too, a recipient is remembered.
    fixture.service.remember(1, "@next.example", Listing::All, 1e6, true);
    let session = fixture.service.session(stressed).unwrap();
    let next = session.lock().unwrap().accept(3.0).unwrap();
    fixture.service.proceed(stressed, next, 3.0);
    assert!(fixture.say(&mut late, DIALOGUE[2], 3.0).ends_with("250 2.1.5 Ok\r\n"));
    assert_eq!(fixture.requests(), []);
    // The stress is over, but not for a session that began under it.
    drop(first);
    fixture.service.poll(1003.0).unwrap();
    let (_next, fresh) = fixture.client(1, 1003.0);
    assert_eq!((fixture.service.is_stressed(fresh), fixture.service.is_stressed(stressed)), (false, true));
}

#[test]
fn a_service_that_stops_lets_a_message_through_and_ends_the_others() {
    let mut fixture = Fixture::new(0);
    fixture.service.know(known(1), 1e6, false);
    fixture.service.remember(1, "@next.example", Listing::All, 1e6, false);
    let (mut idle, _) = fixture.client(1, 0.0);
    let (mut busy, key) = fixture.client(1, 0.0);
    let (mut stranger, _) = fixture.client(9, 0.0);
    for words in &DIALOGUE[..4] {
        fixture.say(&mut busy, words, 0.0);
    }
    heard(&mut idle);
    fixture.service.drain().unwrap();
    fixture.service.stop(1.0);
    assert!(heard(&mut idle).starts_with("421 4.3.2 "));
    assert_eq!(heard(&mut stranger), "(closed)");
    assert_eq!(heard(&mut busy), "");
    assert!(fixture.say(&mut busy, DIALOGUE[4], 1.0).starts_with("250 2.0.0 Ok: queued as "));
    fixture.service.stop(2.0);
    assert!(heard(&mut busy).ends_with("(closed)"));
    assert_eq!((fixture.requests().last(), fixture.memory.records()), (Some(&Request::Empty), 1));
    assert_eq!(fixture.service.peer(key), None);
}

#[test]
fn a_service_that_drains_accepts_no_client() {
    let mut fixture = Fixture::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    fixture.service.listen(listener.as_fd()).unwrap();
    fixture.service.drain().unwrap();
    assert_eq!(fixture.requests(), [Request::Empty]);
    fixture.service.accept(true).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    fixture.service.poll(1.0).unwrap();
    assert!(fixture.service.is_empty());
}

#[test]
fn input_before_the_end_is_answered_and_its_message_is_queued() {
    let mut fixture = Fixture::new(0);
    fixture.service.know(known(1), 1e6, false);
    fixture.service.remember(1, "@next.example", Listing::All, 1e6, false);
    let (mut client, _) = fixture.client(1, 0.0);
    for words in &DIALOGUE[..4] {
        fixture.say(&mut client, words, 0.0);
    }
    client.write_all(DIALOGUE[4].as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    fixture.service.poll(1.0).unwrap();
    assert_eq!(heard(&mut client), "");
    fixture.service.collect();
    fixture.service.finish(1.0);
    let answer = heard(&mut client);
    assert!(answer.starts_with("250 2.0.0 Ok: queued as ") && answer.ends_with("\r\n(closed)"), "{answer}");
    assert_eq!(fixture.memory.records(), 1);
    // A client that does not wait for the answer has sent its message all the same.
    let (mut client, _) = fixture.client(1, 0.0);
    for words in &DIALOGUE[..4] {
        fixture.say(&mut client, words, 0.0);
    }
    client.write_all(DIALOGUE[4].as_bytes()).unwrap();
    drop(client);
    fixture.service.poll(1.0).unwrap();
    fixture.service.collect();
    fixture.service.finish(1.0);
    assert_eq!((fixture.memory.records(), fixture.service.len()), (2, 0));
}

/// A site with these virtual aliases.
fn with_aliases(aliases: Maps) -> CleanupSettings {
    let mut settings = CleanupSettings::new("mx.example.org");
    settings.rewriting.aliases = aliases;
    settings
}

/// Answer the lookups of a session by `found`, until it needs no more; return their keys.
fn answer_all(fixture: &mut Fixture, key: Key, now: f64, found: impl Fn(&str) -> Answer) -> Vec<String> {
    let session = fixture.service.session(key).unwrap();
    let mut keys = Vec::new();
    loop {
        let asked = session.lock().unwrap().lookups();
        assert_eq!(session.lock().unwrap().lookups(), [], "each is taken once");
        let answer = |lookup: Lookup| {
            let key = String::from_utf8(lookup.key.to_vec()).unwrap();
            keys.push(key.clone());
            (lookup, found(&key))
        };
        let answers = asked.into_iter().map(answer).collect();
        let next = session.lock().unwrap().answer_lookups(answers, now).unwrap();
        if next != Next::Lookup {
            fixture.service.proceed(key, next, now);
            return keys;
        }
    }
}

/// Send the message; return the client and its key when the session asks for lookups.
fn until_lookup(fixture: &mut Fixture) -> (UnixStream, Key) {
    fixture.service.know(known(1), 1e6, false);
    fixture.service.remember(1, "@next.example", Listing::All, 1e6, false);
    let (mut client, key) = fixture.client(1, 0.0);
    for words in &DIALOGUE[..4] {
        fixture.say(&mut client, words, 0.0);
    }
    assert_eq!(fixture.say(&mut client, DIALOGUE[4], 0.0), "");
    assert_eq!(fixture.requests().last(), Some(&Request::Decide(key, Next::Lookup)));
    (client, key)
}

#[test]
fn a_message_waits_for_its_lookups_and_input_behind_it_waits_too() {
    let mut fixture = Fixture::with(0, with_aliases(remote(5)));
    let (mut client, key) = until_lookup(&mut fixture);
    let session = fixture.service.session(key).unwrap();
    assert_eq!(fixture.say(&mut client, "NOOP\r\n", 1.0), "");
    assert_eq!(fixture.requests(), [], "it asks once");
    assert_eq!(session.lock().unwrap().accept(1.0), None, "no check answers it");
    assert!(fixture.service.sweep(400.0), "the client waits for us");
    fixture.service.stop(400.0);
    assert_eq!(heard(&mut client), "");
    let found = |key: &str| match key {
        "@next.example" => Answer::Found(b"c@d.example"[..].into()),
        _ => Answer::NotFound,
    };
    let asked = answer_all(&mut fixture, key, 401.0, found);
    assert_eq!(asked, ["b@next.example", "@next.example", "c@d.example", "@d.example"]);
    assert_eq!(session.lock().unwrap().answer_lookups(vec![], 401.0), None, "no lookup is open");
    fixture.service.collect();
    fixture.service.finish(401.0);
    let answer = heard(&mut client);
    assert!(answer.starts_with("250 2.0.0 Ok: queued as ") && answer.ends_with("250 2.0.0 Ok\r\n"), "{answer}");
    assert_eq!(fixture.memory.records(), 1);
}

#[test]
fn a_failed_lookup_refuses_the_message_for_now() {
    let mut fixture = Fixture::with(0, with_aliases(remote(5)));
    let (mut client, key) = until_lookup(&mut fixture);
    let session = fixture.service.session(key).unwrap();
    let lookups = session.lock().unwrap().lookups();
    let answers = lookups.into_iter().map(|lookup| (lookup, Answer::Failed("table x: down".into()))).collect();
    let next = session.lock().unwrap().answer_lookups(answers, 1.0).unwrap();
    fixture.service.proceed(key, next, 1.0);
    assert_eq!(heard(&mut client), "451 4.3.0 Error: queue file write error\r\n");
    let log = fixture.log.take_lines().join("\n");
    assert!(log.contains(": table x: down\n"), "{log}");
    assert!(log.contains("virtual_alias_maps map lookup problem for b@next.example -- message not accepted"), "{log}");
    assert_eq!(fixture.memory.records(), 0);
    assert_eq!(fixture.say(&mut client, "NOOP\r\n", 1.0), "250 2.0.0 Ok\r\n");
}

#[test]
fn a_session_that_is_lost_while_it_asks_drops_its_message() {
    let mut fixture = Fixture::with(0, with_aliases(remote(5)));
    let (client, key) = until_lookup(&mut fixture);
    let session = fixture.service.session(key).unwrap();
    let lookups = session.lock().unwrap().lookups();
    fixture.service.abort(key, 1.0);
    drop(client);
    assert_eq!(fixture.requests().last(), Some(&Request::Gone(key)));
    let answers = lookups.into_iter().map(|lookup| (lookup, Answer::NotFound)).collect();
    assert_eq!(session.lock().unwrap().answer_lookups(answers, 1.0), Some(Next::Close));
    fixture.service.collect();
    fixture.service.finish(1.0);
    assert_eq!((fixture.memory.records(), fixture.service.len()), (0, 0));
}
