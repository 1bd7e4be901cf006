//! What does a message cost in each core? Drives one core through a number of messages, for a tool that counts
//! instructions.
//!
//! `cargo run --release --example instructions -- CORE MESSAGES`: nothing here waits, reads a clock or draws a number,
//! so that two runs differ by their messages alone. `benches/instructions.py` runs it under callgrind with two numbers
//! of messages and takes the difference. Every message is checked: a core that does less fails instead of being cheap.
//!
//! ```text
//! server-new      EHLO, MAIL, RCPT, DATA, 4 KiB, QUIT, each its own read; a session each
//! server-reused   MAIL, RCPT and DATA in one read, one session for all
//! client-new      the same dialogue from the other side, a connection each
//! client-reused   transaction after transaction on one connection, pipelined
//! cleanup         a message of 4 KiB with twelve headers: completed, framed, its envelope encoded
//! qmgr            one recipient: arrival, route, job, result, removal
//! ```

use postillion_core::cleanup::settings::CleanupSettings;
use postillion_core::cleanup::{Intake, MESSAGE_ID, Options, Origin};
use postillion_core::clock::{Now, SECOND_US};
use postillion_core::ipc::frame::{Arrival, JobResult};
use postillion_core::log::{Log, LogTarget};
use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::id::{QueueId, SLOT_BITS};
use postillion_core::mail::locator::{Locator, SegmentId};
use postillion_core::mail::reply::{Enhanced, Reply};
use postillion_core::mail::status::{Outcome, Status};
use postillion_core::qmgr::route::{Question, Resolved};
use postillion_core::qmgr::scheduler::{self, Scheduler};
use postillion_core::qmgr::settings::{Settings, TransportSettings};
use postillion_core::queue::Fact;
use postillion_core::sasl::Login;
use postillion_core::smtp::client::requiretls::RequireTls;
use postillion_core::smtp::client::{self, Client, ClientSettings, Peer, Protocol, Timeouts};
use postillion_core::smtp::server::config::ServerConfig;
use postillion_core::smtp::server::{self, Next, Server};
use std::hint::black_box;
use std::sync::Arc;

const START_US: u64 = 1_795_000_000 * SECOND_US;
const MESSAGE_OCTETS: usize = 4096;
/// A prime, so that neighbours go to different places.
const DESTINATIONS: u64 = 53;
const CAPACITY: u32 = 20;
const HEADER: &[u8] = b"Received: from client.example (client.example [192.0.2.1])\r\n\tby relay.example (Postfix) \
    with ESMTPS id 4F1A2B3C4D\r\n\tfor <recipient@example.net>; Sun, 22 Nov 2026 17:02:03 +0000\r\n\
    DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=mail;\r\n\tbh=frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/\
    XKdLCPjaYaY=; b=Pz0cHl3A\r\nFrom: Ann Author <sender@example.org>\r\nTo: \"Reader, Ben\" <recipient@example.net>, \
    other@example.net\r\nCc: list@example.com\r\nSubject: how much does a message cost?\r\n\
    Date: Sun, 22 Nov 2026 17:02:03 +0000\r\nMessage-Id: <20261122170203.4F1A2B3C4D@example.org>\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\nX-Mailer: none\r\n\r\n";

/// A message in wire form, without its end.
fn message() -> Vec<u8> {
    let mut wire = HEADER.to_vec();
    while wire.len() < MESSAGE_OCTETS {
        wire.extend_from_slice(b"Lines of seventy octets and a few more, as a person or a program writes.\r\n");
        if wire.len().is_multiple_of(7) {
            wire.extend_from_slice(b"..\r\n");
        }
    }
    wire
}

/// A session with simple rules: everybody is served, and every content counts.
struct Host {
    server: Server,
    stored: Vec<u8>,
    messages: u64,
}

impl Host {
    fn new(config: &Arc<ServerConfig>) -> Self {
        let mut server = Server::new(Arc::clone(config), "client.example[192.0.2.1]", false, 0.0);
        server.greet(0.0);
        assert!(server.take_output().is_some_and(|output| output.starts_with(b"220 ")));
        Self { server, stored: Vec::with_capacity(2 * MESSAGE_OCTETS), messages: 0 }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.server.receive(bytes, 0.0);
        loop {
            let stored = &mut self.stored;
            let reply = match self.server.next_event(|run| stored.extend_from_slice(run)) {
                server::Event::Idle => break,
                server::Event::Log(..) => continue,
                server::Event::StartTls | server::Event::Switch => unreachable!("no client asks for TLS here"),
                server::Event::Ask(Next::Data) => Reply::bare(354, "End data with <CR><LF>.<CR><LF>"),
                server::Event::Ask(_) => Reply::new(250, [1, 5], "Ok"),
                server::Event::EndOfData(end) => {
                    assert!(end.fault.is_none() && self.stored.len() >= MESSAGE_OCTETS);
                    self.stored.clear();
                    self.messages += 1;
                    Reply::new(250, [0, 0], "Ok: queued as 4F1A2B3C4D")
                }
            };
            self.server.reply(&reply, 0.0);
        }
        let output = self.server.take_output();
        assert!(output.is_some_and(|output| output.ends_with(b"\r\n")), "an answer to each read");
    }
}

fn server_new(messages: u64) -> u64 {
    let config = Arc::new(ServerConfig::default());
    let content = [&message()[..], b".\r\n"].concat();
    let mut stored = 0;
    for _ in 0..messages {
        let mut host = Host::new(&config);
        for line in [
            &b"EHLO client.example\r\n"[..],
            b"MAIL FROM:<sender@example.org> SIZE=4096 BODY=8BITMIME\r\n",
            b"RCPT TO:<recipient@example.net>\r\n",
            b"DATA\r\n",
            &content,
            b"QUIT\r\n",
        ] {
            host.hear(line);
        }
        assert!(host.server.ended().is_some());
        stored += host.messages;
    }
    stored
}

fn server_reused(messages: u64) -> u64 {
    let content = [&message()[..], b".\r\n"].concat();
    let mut host = Host::new(&Arc::new(ServerConfig::default()));
    host.hear(b"EHLO client.example\r\n");
    for _ in 0..messages {
        host.hear(b"MAIL FROM:<sender@example.org> SIZE=4096\r\nRCPT TO:<recipient@example.net>\r\nDATA\r\n");
        host.hear(&content);
    }
    host.messages
}

/// A connection to a server that takes everything.
struct Guest {
    client: Client,
    envelope: Envelope,
    recipient: Recipient,
    content: Vec<u8>,
    sent: u64,
}

impl Guest {
    fn new(settings: &Arc<ClientSettings>, content: &[u8]) -> Self {
        let peer = Peer {
            name_address: "mx.example.net[192.0.2.2]".into(),
            name_address_port: "mx.example.net[192.0.2.2]:25".into(),
            nexthop: "example.net".into(),
            loop_detect: true,
            best: true,
            login: Login::Never,
            tls: None,
            requiretls: RequireTls::Disable,
        };
        let recipient = Recipient::plain("recipient@example.net");
        let envelope = Envelope::plain(QueueId(START_US << SLOT_BITS), "sender@example.org", vec![recipient.clone()]);
        let client = Client::new(Arc::clone(settings), peer, 0.0);
        let mut guest = Self { client, envelope, recipient, content: content.to_vec(), sent: 0 };
        guest.hear(b"220 mx.example.net ESMTP\r\n", b"EHLO ");
        guest.hear(b"250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-8BITMIME\r\n250 DSN\r\n", b"");
        guest
    }

    /// The server says `bytes`; what the client says to that begins with `expected`, if that is anything.
    fn hear(&mut self, bytes: &[u8], expected: &[u8]) {
        self.client.receive(bytes, 0.0);
        while let Some(event) = self.client.next_event() {
            match event {
                client::Event::Body => self.client.body(self.content.clone(), true, 0.0),
                client::Event::Recipient { status, .. } => {
                    assert_eq!(status.outcome, Outcome::Sent);
                    self.sent += 1;
                }
                client::Event::Ready | client::Event::Finished { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        let output = self.client.take_output().unwrap_or_default();
        assert!(output.starts_with(expected) && output.is_empty() == expected.is_empty());
    }

    fn transaction(&mut self) {
        self.client.begin(&self.envelope, std::iter::once((0, &self.recipient)), false, 0.0);
        assert!(self.client.take_output().is_some_and(|output| output.ends_with(b"DATA\r\n")));
        self.hear(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n", HEADER);
        self.hear(b"250 2.0.0 Ok: queued as 4F1A2B3C4D\r\n", b"");
    }
}

fn client_settings() -> Arc<ClientSettings> {
    let forever = Timeouts {
        helo: 300.0,
        mail: 300.0,
        rcpt: 300.0,
        data_init: 120.0,
        data_xfer: 180.0,
        data_done: 600.0,
        rset: 20.0,
    };
    Arc::new(ClientSettings {
        protocol: Protocol::Smtp,
        helo_name: "mx.example.org".into(),
        myhostname: "mx.example.org".into(),
        always_send_ehlo: true,
        never_send_ehlo: false,
        skip_5xx_greeting: true,
        discard_ehlo_keywords: vec![],
        timeouts: forever,
        line_length_limit: 998,
        min_data_rate: None,
        ..ClientSettings::default()
    })
}

fn client_new(messages: u64) -> u64 {
    let (settings, content) = (client_settings(), message());
    let mut sent = 0;
    for _ in 0..messages {
        let mut guest = Guest::new(&settings, &content);
        guest.transaction();
        guest.client.quit();
        assert!(guest.client.take_output().is_some_and(|output| output == b"QUIT\r\n"));
        sent += guest.sent;
    }
    sent
}

fn client_reused(messages: u64) -> u64 {
    let mut guest = Guest::new(&client_settings(), &message());
    (0..messages).for_each(|_| guest.transaction());
    guest.sent
}

fn cleanup(messages: u64) -> u64 {
    let (settings, content) = (Arc::new(CleanupSettings::new("mx.example.org")), message());
    let received = "Received: from client.example (client.example [192.0.2.1])\n\tby mx.example.org (Postfix) with ESMTP \
                    id 4F1A2B3C4D\n\tfor <recipient@example.net>; Sun, 22 Nov 2026 17:02:03 +0000 (UTC)";
    let log = Arc::new(Log::new("mx", "postfix", "smtpd", 1, 0, LogTarget::Memory));
    let mut framed = 0;
    for n in 0..messages {
        let id = QueueId((START_US + n) << SLOT_BITS);
        let envelope = Envelope::plain(id, "sender@example.org", vec![Recipient::plain("recipient@example.net")]);
        let sink = Vec::with_capacity(2 * MESSAGE_OCTETS);
        let origin = Origin::Network { trusted: true };
        let (settings, log) = (Arc::clone(&settings), Arc::clone(&log));
        let mut intake = Intake::new(settings, log, sink, envelope, origin, Options::EXTERNAL, START_US + n);
        intake.received(received);
        intake.feed(&content);
        let (body, head, envelope) = intake.finish().expect("nothing is wrong with the message");
        assert!(head.len() + body.len() > content.len() && envelope.attribute(MESSAGE_ID).is_some());
        let mut encoded = Vec::with_capacity(512);
        envelope.encode(&mut encoded);
        framed += u64::from(!black_box(encoded).is_empty());
    }
    framed
}

fn qmgr(messages: u64) -> u64 {
    let mut now = Now { mono_us: 1000 * SECOND_US, wall_us: START_US };
    let mut scheduler = Scheduler::new(Settings::default(), now);
    scheduler.configure_transport(None, TransportSettings::default());
    scheduler.agent(1, "smtp", CAPACITY, now);
    let dsn = Enhanced { class: 2, subject: 0, detail: 0 };
    let text = "250 2.0.0 Ok: queued as 4F1A2B3C4D".into();
    let sent = Status { outcome: Outcome::Sent, dsn, text, remote: Some("mx.example.net[192.0.2.2]:25".into()) };
    let mut removed = 0;
    for n in 1..=messages {
        now = Now { mono_us: now.mono_us + 100, wall_us: now.wall_us + 100 };
        let to = format!("recipient{n}@d{}.example", n % DESTINATIONS);
        let id = QueueId((START_US + n) << SLOT_BITS);
        let envelope = Envelope::plain(id, "sender@example.org", vec![Recipient::plain(&to)]);
        let locator = Locator { segment: SegmentId(START_US), offset: n * 4200, record_octets: 4200 };
        scheduler.arrived(Arrival { locator, envelope: Envelope { size_octets: 4096, ..envelope } }, now);
        while let Some(event) = scheduler.next_event(now) {
            match event {
                scheduler::Event::Resolve { address, sender } => {
                    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
                    let route = Resolved { transport: "smtp", nexthop: domain, recipient: None };
                    scheduler.resolved(Question { address: &address, sender: &sender }, route, now);
                }
                scheduler::Event::Deliver { request, .. } => {
                    let recipients = vec![(request.recipients[0].index, sent.clone())];
                    let result = JobResult { job: request.job, id: request.envelope.id, site: None, recipients };
                    scheduler.result(result, now);
                }
                scheduler::Event::Note(Fact::Removed { .. }) => removed += 1,
                _ => {}
            }
        }
        scheduler.tick(now);
        black_box(scheduler.deadline());
    }
    removed
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [core, messages] = &arguments[..] else { panic!("usage: instructions CORE MESSAGES") };
    let messages = messages.parse().expect("a number");
    let done = match core.as_str() {
        "server-new" => server_new(messages),
        "server-reused" => server_reused(messages),
        "client-new" => client_new(messages),
        "client-reused" => client_reused(messages),
        "cleanup" => cleanup(messages),
        "qmgr" => qmgr(messages),
        other => panic!("there is no core {other}"),
    };
    assert_eq!(done, messages, "every message went all the way");
}
