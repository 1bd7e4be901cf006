//! All connections of an agent against servers on loopback, and a clock that the test moves.

use super::Service;
use crate::delivery::request::Request;
use crate::delivery::server::{Attempt, Server};
use crate::delivery::session::Next;
use crate::delivery::settings::ConnectionSettings;
use crate::delivery::tests::{Queue, settings, statuses};
use crate::delivery::tls_request::TlsRequest;
use crate::delivery::visit::step;
use crate::delivery::work::Work;
use crate::mail::envelope::Envelope;
use crate::mail::status::local_status;
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const WAIT_MAX: Duration = Duration::from_secs(20);
const CONTENT: &[u8] = b"A: 1\r\n\r\nx\r\n";
const MAIL: &str = "MAIL FROM:<s@example.org>\r\nRCPT TO:<r0@example.org>\r\nDATA\r\n";
const MESSAGE: &str = "A: 1\r\n\r\nx\r\n.\r\n";
const ANSWERS: &str = "250 ok\r\n250 ok\r\n354 go\r\n";

struct Fixture {
    service: Service,
    queue: Queue,
    listener: TcpListener,
    now: f64,
}

impl Fixture {
    fn new(connections: ConnectionSettings) -> Self {
        let queue = Queue::new();
        let log = Arc::clone(&queue.log);
        let service = Service::new(Arc::new(settings()), connections, log, || 10_000_000).unwrap();
        Self { service, queue, listener: TcpListener::bind("127.0.0.1:0").unwrap(), now: 100.0 }
    }

    fn start(&mut self) -> Arc<Work> {
        self.start_with(|_| {})
    }

    fn start_with(&mut self, change: impl FnOnce(&mut Envelope)) -> Arc<Work> {
        let work = self.queue.job(1, CONTENT, change);
        self.service.start(Arc::clone(&work), self.now);
        work
    }

    /// Connect for the job of the only request.
    fn connect(&mut self, port: u16) {
        let requests = self.service.take_requests();
        let found: Vec<_> = requests.iter().filter_map(ticket_of).collect();
        let [ticket] = found[..] else { panic!("{requests:?}") };
        let server = Server { host: "mx".into(), address: "127.0.0.1".into(), port, loop_detect: false, best: true };
        let attempt = Attempt { last_address: true, last_session: true, hosts: 1, reuses: true, ..Attempt::default() };
        self.service.connect(ticket, server, attempt, self.now);
    }

    /// Accept the next connection, greet, and answer EHLO with these keywords.
    fn accept(&mut self, keywords: &str) -> TcpStream {
        self.connect(self.listener.local_addr().unwrap().port());
        let (mut server, _) = self.listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        self.say(&mut server, "220 mx\r\n");
        assert_eq!(self.hear(&mut server, 9), "EHLO me\r\n");
        self.say(&mut server, &format!("250-mx\r\n250 {keywords}\r\n"));
        server
    }

    fn say(&mut self, server: &mut TcpStream, reply: &str) {
        server.write_all(reply.as_bytes()).unwrap();
        self.wait();
    }

    /// Serve the sockets when one is ready.
    fn wait(&mut self) {
        self.service.reactor.wait(WAIT_MAX).unwrap();
        self.service.poll(self.now).unwrap();
    }

    /// Read this number of octets from the agent.
    fn hear(&mut self, server: &mut TcpStream, octets: usize) -> String {
        let until = Instant::now() + WAIT_MAX;
        let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
        while heard.len() < octets && Instant::now() < until {
            match server.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => heard.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.service.poll(self.now).unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
        String::from_utf8(heard).unwrap()
    }

    /// Take a message: the commands, and the text behind them.
    fn take(&mut self, server: &mut TcpStream) {
        assert_eq!(self.hear(server, MAIL.len()), MAIL);
        self.say(server, ANSWERS);
        assert_eq!(self.hear(server, MESSAGE.len()), MESSAGE);
    }
}

fn ticket_of(request: &Request) -> Option<u64> {
    if let Request::Find { ticket, .. } = request { Some(*ticket) } else { None }
}

fn kept() -> ConnectionSettings {
    ConnectionSettings { destinations: ["example.org".to_owned()].into(), ..ConnectionSettings::default() }
}

#[test]
fn a_kept_connection_takes_the_next_job_without_a_request() {
    let mut all = Fixture::new(kept());
    let first = all.start();
    let mut server = all.accept("PIPELINING");
    all.take(&mut server);
    all.say(&mut server, "250 taken\r\n");
    assert_eq!(statuses(&first), ["sent 2.0.0 250 taken"]);
    assert!(!all.service.take_results().is_empty());
    assert_eq!(all.service.take_requests(), [Request::Sweep, Request::Done(1)]);
    let second = all.start();
    assert_eq!(all.service.take_requests(), []);
    assert_eq!(all.hear(&mut server, MAIL.len()), MAIL);
    all.say(&mut server, ANSWERS);
    assert_eq!(all.hear(&mut server, MESSAGE.len()), MESSAGE);
    all.say(&mut server, "250 again\r\n");
    assert_eq!(statuses(&second), ["sent 2.0.0 250 again"]);
    assert!(all.service.is_empty());
}

#[test]
fn mail_shares_a_connection_only_with_mail_that_asks_for_the_same_tls() {
    type Change = fn(&mut Envelope);
    let requests: [(Change, TlsRequest); 3] = [
        (|_| {}, TlsRequest::Usual),
        (Envelope::waive_tls, TlsRequest::Waived),
        (|envelope| envelope.requiretls = true, TlsRequest::Required),
    ];
    let limits = ConnectionSettings { requiretls: true, tls_required: true, ..kept() };
    let mut all = Fixture::new(limits);
    let mut servers = Vec::new();
    // The first round has no idle connection for any of them, the second one has one for the first two.
    for (number, (change, expected)) in requests.into_iter().enumerate() {
        all.start_with(change);
        let [Request::Find { tls, .. }] = all.service.requests[..] else { panic!("{:?}", all.service.requests) };
        assert_eq!(tls, expected);
        let mut server = all.accept("PIPELINING");
        all.take(&mut server);
        all.say(&mut server, &format!("250 taken {number}\r\n"));
        all.service.take_requests();
        servers.push(server);
    }
    for ((change, tls), server) in requests.into_iter().zip(&mut servers).rev() {
        let work = all.start_with(change);
        let requests = all.service.take_requests();
        if tls == TlsRequest::Required {
            // The policy of the next message may be stricter than that of this connection.
            assert!(matches!(requests[..], [Request::Find { tls: TlsRequest::Required, .. }]), "{requests:?}");
            assert_eq!(all.hear(server, 6), "QUIT\r\n");
            continue;
        }
        assert_eq!(requests, [], "{tls:?}");
        assert_eq!(all.hear(server, MAIL.len()), MAIL, "{tls:?}");
        all.say(server, ANSWERS);
        all.hear(server, MESSAGE.len());
        all.say(server, "250 again\r\n");
        assert_eq!(statuses(&work), ["sent 2.0.0 250 again"], "{tls:?}");
    }
}

#[test]
fn an_idle_connection_ends_with_quit_after_its_time() {
    let mut all = Fixture::new(kept());
    all.start();
    let mut server = all.accept("PIPELINING");
    all.take(&mut server);
    all.say(&mut server, "250 taken\r\n");
    let limit = ConnectionSettings::default().time_limit;
    assert!(all.service.sweep(all.now + limit - 0.1));
    assert!(!all.service.sweep(all.now + limit));
    assert_eq!(all.hear(&mut server, 7), "QUIT\r\n");
}

#[test]
fn a_refused_connection_asks_for_the_next_server_and_then_fails_the_job() {
    let mut all = Fixture::new(ConnectionSettings::default());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let work = all.start();
    all.connect(port);
    if all.service.requests.iter().all(|request| ticket_of(request).is_none()) {
        all.wait();
    }
    let requests = all.service.take_requests();
    assert!(requests.iter().any(|request| ticket_of(request) == Some(1)), "{requests:?}");
    assert_eq!(statuses(&work), ["-"]);
    all.service.give_up(1);
    assert_eq!(statuses(&work), [format!("deferred 4.4.1 connect to mx[127.0.0.1]:{port}: Connection refused")]);
    assert_eq!(all.service.take_requests(), [Request::Done(1)]);
}

#[test]
fn the_last_reason_counts_when_no_server_is_found() {
    let mut all = Fixture::new(ConnectionSettings::default());
    let rows = [None, Some("first"), Some("second")];
    for (number, reason) in rows.into_iter().enumerate() {
        let work = all.start();
        let ticket = number as u64 + 1;
        reason.into_iter().for_each(|reason| {
            all.service.note(ticket, local_status(super::LOCAL_ERROR, "earlier"));
            all.service.note(ticket, local_status(super::LOCAL_ERROR, reason));
        });
        all.service.give_up(ticket);
        let text = reason.unwrap_or("server unavailable or unable to receive mail");
        assert_eq!(statuses(&work), [format!("deferred 4.3.0 {text}")]);
    }
}

#[test]
fn an_unanswered_connection_attempt_ends_with_its_time() {
    // The queue of this listener is full, so the kernel leaves further clients without an answer.
    let listener = without_queue();
    let port = listener.local_addr().unwrap().port();
    let fillers: Vec<_> = (0..8).map(|_| crate::net::outbound::tcp(([127, 0, 0, 1], port).into(), None)).collect();
    let mut all = Fixture::new(ConnectionSettings { connect_timeout: 5.0, ..ConnectionSettings::default() });
    let work = all.start();
    all.connect(port);
    assert!(all.service.sweep(all.now + 4.9));
    assert_eq!(all.service.take_requests(), [Request::Sweep]);
    assert!(!all.service.sweep(all.now + 5.0));
    assert!(all.service.take_requests().iter().any(|request| ticket_of(request) == Some(1)));
    all.service.give_up(1);
    assert_eq!(statuses(&work), [format!("deferred 4.4.1 connect to mx[127.0.0.1]:{port}: Connection timed out")]);
    drop(fillers);
}

fn without_queue() -> TcpListener {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    listen(&socket, 0).unwrap();
    TcpListener::from(socket)
}

#[test]
fn a_job_that_follows_another_has_its_own_verdict() {
    let rows = [
        // the verdict on the first message, its status, whether the second one stays on the connection
        ("250 taken\r\n", "sent 2.0.0 250 taken", true),
        ("450 later\r\n", "deferred 4.0.0 host mx[127.0.0.1] said: 450 later (in reply to end of DATA command)", true),
        ("550 no\r\n", "bounced 5.0.0 host mx[127.0.0.1] said: 550 no (in reply to end of DATA command)", true),
        ("421 bye\r\n", "deferred 4.0.0 host mx[127.0.0.1] said: 421 bye (in reply to end of DATA command)", false),
    ];
    for (verdict, status, stays) in rows {
        let mut all = Fixture::new(kept());
        all.start();
        let mut server = all.accept("PIPELINING");
        all.take(&mut server);
        all.say(&mut server, "250 taken\r\n");
        let (first, second) = (all.start(), all.start());
        all.service.take_requests();
        assert_eq!(all.hear(&mut server, MAIL.len()), MAIL);
        all.say(&mut server, ANSWERS);
        let ahead = format!("{MESSAGE}{MAIL}");
        assert_eq!(all.hear(&mut server, ahead.len()), ahead, "{verdict}");
        all.say(&mut server, verdict);
        assert_eq!(statuses(&first), [status]);
        let mut server = if stays { server } else { all.accept("PIPELINING") };
        if !stays {
            assert_eq!(all.hear(&mut server, MAIL.len()), MAIL);
        }
        all.say(&mut server, ANSWERS);
        assert_eq!(all.hear(&mut server, MESSAGE.len()), MESSAGE, "{verdict}");
        all.say(&mut server, "250 second\r\n");
        assert_eq!(statuses(&second), ["sent 2.0.0 250 second"], "{verdict}");
    }
}

#[test]
fn a_job_that_waits_too_long_behind_another_gets_its_own_connection() {
    let mut all = Fixture::new(kept());
    all.start();
    let mut server = all.accept("PIPELINING");
    all.take(&mut server);
    all.say(&mut server, "250 taken\r\n");
    all.start();
    let second = all.start();
    all.service.take_requests();
    assert!(all.service.sweep(all.now + 0.9));
    assert_eq!(all.service.take_requests(), []);
    assert!(all.service.sweep(all.now + 1.0));
    let mut other = all.accept("PIPELINING");
    all.take(&mut other);
    all.say(&mut other, "250 other\r\n");
    assert_eq!(statuses(&second), ["sent 2.0.0 250 other"]);
}

#[test]
fn a_server_that_closed_an_idle_connection_is_tried_again() {
    let mut all = Fixture::new(kept());
    all.start();
    let mut server = all.accept("PIPELINING");
    all.take(&mut server);
    all.say(&mut server, "250 taken\r\n");
    all.service.take_requests();
    server.shutdown(Shutdown::Both).unwrap();
    let second = all.start();
    if all.service.requests.is_empty() {
        all.wait();
    }
    let [Request::Find { ticket: 2, ref tried, completed: false, .. }] = all.service.requests[..] else {
        panic!("{:?}", all.service.requests)
    };
    assert_eq!(*tried, None);
    let mut server = all.accept("PIPELINING");
    all.take(&mut server);
    all.say(&mut server, "250 taken\r\n");
    assert_eq!(statuses(&second), ["sent 2.0.0 250 taken"]);
}

#[test]
fn a_drained_service_keeps_no_connection_and_a_stopped_one_reports_its_jobs() {
    let mut all = Fixture::new(kept());
    let first = all.start();
    let mut server = all.accept("PIPELINING");
    all.service.drain();
    all.take(&mut server);
    all.say(&mut server, "250 taken\r\n");
    assert_eq!(statuses(&first), ["sent 2.0.0 250 taken"]);
    assert_eq!(all.hear(&mut server, 6), "QUIT\r\n");
    let second = all.start();
    all.service.take_results();
    all.service.stop(all.now);
    assert!(all.service.is_empty() && !all.service.take_results().is_empty());
    assert_eq!(statuses(&second), ["-"]);
}

#[test]
fn a_panic_ends_one_session_and_defers_its_job() {
    let mut all = Fixture::new(kept());
    let work = all.start();
    let mut server = all.accept("PIPELINING");
    let key = *all.service.visits.keys().next().unwrap();
    let session = all.service.visits[&key].session.clone().unwrap();
    assert_eq!(step(&session, |_, _| panic!("a bug")), Next::Broken);
    all.service.act(key, Next::Broken, all.now);
    assert_eq!(statuses(&work), ["deferred 4.3.0 unexpected failure of the delivery agent"]);
    assert!(all.queue.log.take_lines().iter().any(|line| line.ends_with("delivery failed, deferring: a bug")));
    all.hear(&mut server, MAIL.len() + 1);
    all.start();
    let mut server = all.accept("PIPELINING");
    all.take(&mut server);
}
