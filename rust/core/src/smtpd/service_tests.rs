//! All sessions of a process on socket pairs, a queue in memory, and a clock that the test moves.

use super::accepted::GROUPS_MAX;
use super::flow::Flow;
use super::service::{Acquaintance, Opening, Service, Wish};
use super::session::{Client as Name, Site};
use crate::cleanup::settings::CleanupSettings;
use crate::log::{Destination, Log};
use crate::mail::reply::Reply;
use crate::net::reactor::Key;
use crate::queue::Appender;
use crate::queue::memory::Memory;
use crate::smtp::server::config::ServerConfig;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

const DIALOGUE: [&str; 5] =
    ["EHLO c.example\r\n", "MAIL FROM:<a@c.example>\r\n", "RCPT TO:<b@next.example>\r\n", "DATA\r\n", "x\r\n.\r\n"];

struct Place {
    service: Service,
    memory: Memory,
    log: Arc<Log>,
}

impl Place {
    fn new(limit: usize) -> Self {
        let memory = Memory::default();
        let journal: Arc<dyn Appender> = Arc::new(memory.appender().unwrap());
        let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, Destination::Memory));
        let site = |timeout_s| Site {
            server: Arc::new(ServerConfig { timeout_s, ..ServerConfig::default() }),
            mail_name: "Postfix".into(),
            log_client_port: false,
            names_users: false,
            rewrites_for_users: false,
            asks_data: false,
            asks_content: false,
            log: Arc::clone(&log),
            cleanup: Arc::new(CleanupSettings::new("mx.example.org")),
            journal: Some(Arc::clone(&journal)),
            flow: Flow::new(0.0),
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

    fn wishes(&mut self) -> Vec<Wish> {
        self.service.take_wishes()
    }

    /// What the client hears when it says `words`.
    fn say(&mut self, client: &mut UnixStream, words: &str, now: f64) -> String {
        client.write_all(words.as_bytes()).unwrap();
        self.service.turn(now).unwrap();
        self.service.settle(now);
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

fn acquaintance(last: u8) -> Acquaintance {
    let address = format!("192.0.2.{last}").into();
    let client = Name { name: "c.example".into(), reverse_name: "c.example".into(), address, ..Name::default() };
    Acquaintance { client, group: Some(1) }
}

#[test]
fn who_is_known_and_where_it_may_send_is_served_without_a_wish() {
    let mut place = Place::new(0);
    place.service.know(acquaintance(1), 10.0);
    place.service.remember(1, "@next.example", 10.0);
    let (mut client, _) = place.client(1, 1.0);
    assert_eq!(place.wishes(), [Wish::Sweep]);
    assert_eq!(heard(&mut client), "220 localhost ESMTP Postfix\r\n");
    let answers: Vec<String> = DIALOGUE.iter().map(|words| place.say(&mut client, words, 2.0)).collect();
    let codes: Vec<&str> = answers.iter().map(|answer| &answer[..3]).collect();
    assert_eq!(codes, ["250", "250", "250", "354", "250"]);
    assert_eq!(place.say(&mut client, "QUIT\r\n", 3.0), "221 2.0.0 Bye\r\n(closed)");
    assert_eq!((place.wishes(), place.service.len(), place.memory.records()), (vec![], 0, 1));
    let log = place.log.take_lines();
    assert!(log.last().unwrap().starts_with("disconnect from c.example[192.0.2.1] ehlo=1 mail=1"), "{log:?}");
}

#[test]
fn a_stranger_is_welcomed_and_each_recipient_is_a_question_until_it_is_remembered() {
    let mut place = Place::new(0);
    let (mut client, key) = place.client(2, 1.0);
    assert_eq!(place.wishes(), [Wish::Sweep, Wish::Welcome(key)]);
    assert_eq!(heard(&mut client), "", "it is not greeted yet");
    place.service.begin(key, acquaintance(2), &Opening::Greet, 1.0);
    assert!(heard(&mut client).starts_with("220 "));
    let rcpt = DIALOGUE[2];
    place.say(&mut client, DIALOGUE[0], 1.0);
    assert_eq!(place.say(&mut client, DIALOGUE[1], 1.0), "250 2.1.0 Ok\r\n");
    assert_eq!(place.say(&mut client, rcpt, 1.0), "");
    assert_eq!(place.wishes(), [Wish::Decide(key, 3)]);
    // What the client says meanwhile waits, and the question stays open.
    assert_eq!(place.say(&mut client, "RSET\r\n", 1.0), "");
    assert_eq!(place.wishes(), []);
    let session = place.service.session(key).unwrap();
    let turn = session.lock().unwrap().accept(1.0).unwrap();
    place.service.proceed(key, turn, 1.0);
    assert_eq!(heard(&mut client), "250 2.1.5 Ok\r\n250 2.0.0 Ok\r\n");
    assert_eq!(session.lock().unwrap().accept(1.0), None, "no question is open");
    place.service.remember(1, "b@next.example", 2.0);
    assert_eq!(place.say(&mut client, &[DIALOGUE[1], rcpt].concat(), 1.9), "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    assert_eq!(place.say(&mut client, rcpt, 2.0), "", "that was long ago");
    assert_eq!(place.wishes(), [Wish::Decide(key, 3)]);
    client.shutdown(Shutdown::Write).unwrap();
    place.service.turn(2.0).unwrap();
    assert_eq!(place.wishes(), [], "the question is still open");
    let turn = session.lock().unwrap().reply(&Reply::new(550, [1, 1], "no"), 2.0).unwrap();
    place.service.proceed(key, turn, 2.0);
    assert_eq!(heard(&mut client), "550 5.1.1 no\r\n(closed)");
    assert_eq!(place.wishes(), [Wish::Gone(key)]);
    assert!(place.service.is_empty());
}

#[test]
fn who_speaks_first_is_not_greeted() {
    let mut place = Place::new(0);
    place.service.know(acquaintance(1), 10.0);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"EHLO c.example\r\n").unwrap();
    place.service.adopt(theirs.into(), SocketAddr::from(([192, 0, 2, 1], 1)), 1.0).unwrap();
    assert_eq!(heard(&mut ours), "554 5.5.0 Error: SMTP protocol synchronization\r\n(closed)");
}

#[test]
fn an_acquaintance_is_forgotten_in_time_and_no_group_is_beyond_the_last() {
    let mut place = Place::new(0);
    place.service.know(acquaintance(1), 10.0);
    place.service.remember(GROUPS_MAX as u8, "@next.example", 10.0);
    let (_client, key) = place.client(1, 10.0);
    assert_eq!(place.wishes(), [Wish::Sweep, Wish::Welcome(key)]);
}

#[test]
fn openings_refuse_and_turn_away() {
    let mut place = Place::new(0);
    let refusal = Opening::Refuse(Reply::new(554, [7, 1], "no"));
    for (opening, said) in [
        (refusal, "554 5.7.1 no\r\n"),
        (Opening::TurnAway("Error: too many".into()), "421 4.7.0 localhost Error: too many\r\n(closed)"),
    ] {
        let (mut client, key) = place.client(3, 1.0);
        place.service.begin(key, acquaintance(3), &opening, 1.0);
        assert_eq!(heard(&mut client), said);
    }
}

#[test]
fn silence_ends_a_session_and_stress_ends_it_sooner() {
    let mut place = Place::new(2);
    place.service.know(acquaintance(1), 1e6);
    let (mut first, _) = place.client(1, 0.0);
    let (mut last, _) = place.client(1, 0.0);
    let (mut late, _) = place.client(1, 1.0);
    assert!(place.log.take_lines().iter().any(|line| line.contains("has reached its process limit \"2\"")));
    for client in [&mut first, &mut last, &mut late] {
        assert!(heard(client).starts_with("220 "));
    }
    assert!(place.service.sweep(11.0));
    assert_eq!(heard(&mut late), "421 4.4.2 localhost Error: timeout exceeded\r\n(closed)");
    assert_eq!((heard(&mut first), heard(&mut last)), (String::new(), String::new()));
    assert!(!place.service.sweep(300.0), "nobody is left");
    assert!(heard(&mut first).ends_with("(closed)") && heard(&mut last).ends_with("(closed)"));
    place.wishes();
    let (_client, _) = place.client(1, 301.0);
    assert_eq!(place.wishes(), [Wish::Sweep], "it sweeps again");
}

#[test]
fn a_service_that_stops_lets_a_message_through_and_ends_the_others() {
    let mut place = Place::new(0);
    place.service.know(acquaintance(1), 1e6);
    place.service.remember(1, "@next.example", 1e6);
    let (mut idle, _) = place.client(1, 0.0);
    let (mut busy, key) = place.client(1, 0.0);
    let (mut stranger, _) = place.client(9, 0.0);
    for words in &DIALOGUE[..4] {
        place.say(&mut busy, words, 0.0);
    }
    heard(&mut idle);
    place.service.drain().unwrap();
    place.service.stop(1.0);
    assert!(heard(&mut idle).starts_with("421 4.3.2 "));
    assert_eq!(heard(&mut stranger), "(closed)");
    assert_eq!(heard(&mut busy), "");
    assert!(place.say(&mut busy, DIALOGUE[4], 1.0).starts_with("250 2.0.0 Ok: queued as "));
    place.service.stop(2.0);
    assert!(heard(&mut busy).ends_with("(closed)"));
    assert_eq!((place.wishes().last(), place.memory.records()), (Some(&Wish::Empty), 1));
    assert_eq!(place.service.peer(key), None);
}

#[test]
fn who_drains_accepts_nobody_whatever_else_it_asks_for() {
    let mut place = Place::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    place.service.listen(listener.as_fd()).unwrap();
    place.service.drain().unwrap();
    assert_eq!(place.wishes(), [Wish::Empty]);
    place.service.accept(true).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    place.service.turn(1.0).unwrap();
    assert!(place.service.is_empty());
}

#[test]
fn what_was_said_before_the_end_is_answered_and_a_dot_before_it_counts() {
    let mut place = Place::new(0);
    place.service.know(acquaintance(1), 1e6);
    place.service.remember(1, "@next.example", 1e6);
    let (mut client, _) = place.client(1, 0.0);
    for words in &DIALOGUE[..4] {
        place.say(&mut client, words, 0.0);
    }
    client.write_all(DIALOGUE[4].as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    place.service.turn(1.0).unwrap();
    assert_eq!(heard(&mut client), "");
    place.service.settle(1.0);
    let answer = heard(&mut client);
    assert!(answer.starts_with("250 2.0.0 Ok: queued as ") && answer.ends_with("\r\n(closed)"), "{answer}");
    assert_eq!(place.memory.records(), 1);
    // One that does not wait for the answer has left its message all the same.
    let (mut client, _) = place.client(1, 0.0);
    for words in &DIALOGUE[..4] {
        place.say(&mut client, words, 0.0);
    }
    client.write_all(DIALOGUE[4].as_bytes()).unwrap();
    drop(client);
    place.service.turn(1.0).unwrap();
    place.service.settle(1.0);
    assert_eq!((place.memory.records(), place.service.len()), (2, 0));
}
