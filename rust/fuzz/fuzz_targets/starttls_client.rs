//! STARTTLS of the client against a hostile server: nothing that the server says in the clear behind its reply is taken as a
//! reply, no mail goes out in the clear where the level requires TLS, and the wrong server gets QUIT alone.
//!
//! Input: a byte of settings, the length of the injected octets, those octets, then the server's packets, each ended by
//! `|`. The packets behind the one that begins TLS are inside it.
//!
//! Injected octets in the packet of the reply are dropped. In a packet of their own they belong to the handshake, which
//! fails: a network that cuts the stream there changes the outcome, but never to mail for the injecting server. So the
//! splits that must give the same are those inside a reply, or inside the octets in TLS.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::id::QueueId;
use postillion_core::sasl::Login;
use postillion_core::smtp::client::{Client, ClientSettings, Event, Peer, Protocol};
use postillion_core::tls::facts::trust::{ServerCertificate, Trust};
use postillion_core::tls::{Channel, ClientEngines, ClientLevel, Engine, Facts, Failure, Policy};
use postillion_fuzz::{Choices, bit};
use std::sync::Arc;

const PACKET_ENDS: u8 = b'|';
const LEVELS: [ClientLevel; 4] = [ClientLevel::Off, ClientLevel::May, ClientLevel::Encrypt, ClientLevel::Secure];
/// The commands of a client that has said nothing about mail.
const HARMLESS: [&[u8]; 5] = [b"EHLO me", b"HELO me", b"LHLO me", b"STARTTLS", b"QUIT"];
/// The server's half of the handshake. No reply begins with it.
const HELLO: &[u8] = b"\x16hello";

/// A library without cryptography.
#[derive(Debug)]
struct Library {
    matched: bool,
}

impl ClientEngines for Library {
    fn connect(&self, _policy: &Arc<Policy>) -> Result<Box<dyn Engine>, Failure> {
        Ok(Box::new(Plain { matched: self.matched, input: vec![], output: vec![] }))
    }
}

struct Plain {
    matched: bool,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Engine for Plain {
    fn receive(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
    }

    fn shake(&mut self) -> Result<bool, Failure> {
        let compared = self.input.len().min(HELLO.len());
        if self.input[..compared] != HELLO[..compared] {
            return Err(Failure::default());
        }
        let complete = compared == HELLO.len();
        if complete {
            self.input.drain(..compared);
        }
        Ok(complete)
    }

    fn read(&mut self, plain: &mut Vec<u8>) -> Result<bool, Failure> {
        plain.append(&mut self.input);
        Ok(true)
    }

    fn write(&mut self, plain: &[u8]) -> Result<(), Failure> {
        self.output.extend_from_slice(plain);
        Ok(())
    }

    fn close(&mut self) {}

    fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    fn facts(&self) -> Facts {
        let trust = if self.matched { Trust::Verified } else { Trust::Untrusted };
        let server = ServerCertificate { trust, matched: self.matched, ..ServerCertificate::default() };
        Facts { server: Some(server), ..Facts::default() }
    }
}

/// The visible part of a session.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Seen {
    in_clear: Vec<u8>,
    in_tls: Vec<u8>,
    events: Vec<String>,
}

struct Talk {
    client: Client,
    channel: Option<Channel>,
    envelope: Envelope,
    recipient: Recipient,
    seen: Seen,
}

impl Talk {
    fn new(flags: u8) -> Self {
        let mut settings = ClientSettings {
            protocol: if bit(flags, 2) { Protocol::Lmtp } else { Protocol::Smtp },
            helo_name: "me".into(),
            myhostname: "me".into(),
            always_send_ehlo: true,
            line_length_limit: 998,
            ..ClientSettings::default()
        };
        settings.starttls.engines = Some(Arc::new(Library { matched: bit(flags, 3) }));
        let mut peer = Peer::new("mx", "192.0.2.1", 25, "example.net", false, true);
        peer.login = Login::Never;
        peer.tls = Some(Arc::new(Policy { level: level(flags), ..Policy::default() }));
        let mut talk = Self {
            client: Client::new(Arc::new(settings), peer, 0.0),
            channel: None,
            envelope: Envelope::plain(QueueId(1), "s@example.org", vec![]),
            recipient: Recipient::plain("r@example.net"),
            seen: Seen::default(),
        };
        talk.act();
        talk
    }

    /// Take a packet, as the owner of the socket does.
    fn hear(&mut self, packet: &[u8]) {
        let Some(channel) = &mut self.channel else {
            self.client.receive(packet, 0.0);
            return self.act();
        };
        let heard = channel.receive(packet);
        if let Some(facts) = heard.established {
            self.client.secured(&facts, 0.0);
            self.act();
        }
        self.client.receive(&heard.plain, 0.0);
        self.act();
        if heard.failure.is_some() {
            self.client.insecure();
            self.act();
        }
    }

    fn hear_in_pieces(&mut self, packet: &[u8], by_octets: bool) {
        let octets = packet.iter().position(|octet| *octet == b'\n').filter(|_| by_octets).unwrap_or(0);
        // No reply is complete before the first line end.
        packet[..octets].chunks(1).chain([&packet[octets..]]).for_each(|piece| self.hear(piece));
    }

    fn act(&mut self) {
        while let Some(event) = self.client.next_event() {
            self.seen.events.push(format!("{event:?}"));
            match event {
                Event::StartTls => self.switch(),
                Event::Ready => self.client.begin(&self.envelope, [(0, &self.recipient)].into_iter(), false, 0.0),
                Event::Body => self.client.body(b"x\r\n".to_vec(), true, 0.0),
                _ => {}
            }
        }
        self.send();
    }

    /// Write what belongs before the handshake, then begin it.
    fn switch(&mut self) {
        self.send();
        let policy = self.client.policy().cloned().expect("TLS has a policy");
        let engines = self.client.settings().starttls.engines.clone().expect("TLS has a library");
        self.channel = engines.connect(&policy).ok().map(Channel::new);
    }

    fn send(&mut self) {
        let output = self.client.take_output().unwrap_or_default();
        match &mut self.channel {
            None => self.seen.in_clear.extend(output),
            Some(channel) => {
                channel.send(&output);
                self.seen.in_tls.extend(channel.take_output());
            }
        }
    }

    fn switched(&self) -> bool {
        self.channel.is_some()
    }
}

fn level(flags: u8) -> ClientLevel {
    LEVELS[usize::from(flags & 3)]
}

fn is_harmless(said: &[u8]) -> bool {
    said.split(|octet| *octet == b'\n').all(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.is_empty() || HARMLESS.contains(&line)
    })
}

/// Play the packets up to TLS, the last one with `behind` at its end, then those inside TLS. `by_octets`: each packet up to
/// its first line end by single octets.
fn session(flags: u8, clear: &[&[u8]], behind: &[u8], inside: &[&[u8]], by_octets: bool) -> Seen {
    let mut talk = Talk::new(flags);
    let (last, before) = clear.split_last().expect("a packet begins TLS");
    let last = [last, behind].concat();
    for packet in before.iter().copied().chain(std::iter::once(&*last)) {
        talk.hear_in_pieces(packet, by_octets);
    }
    assert!(talk.switched(), "octets behind the reply stop TLS");
    assert!(is_harmless(&talk.seen.in_clear), "mail in the clear before TLS");
    let octets_in_clear = talk.seen.in_clear.len();
    talk.hear(HELLO);
    inside.iter().for_each(|packet| talk.hear_in_pieces(packet, by_octets));
    assert_eq!(octets_in_clear, talk.seen.in_clear.len(), "octets in the clear behind TLS");
    talk.seen
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (flags, length) = (choices.byte(), choices.byte());
    let rest = choices.rest();
    let (behind, rest) = rest.split_at(rest.len().min(usize::from(length)));
    let packets: Vec<&[u8]> = rest.split(|octet| *octet == PACKET_ENDS).collect();
    let mut talk = Talk::new(flags);
    let mut until = 0;
    while until < packets.len() && !talk.switched() {
        talk.hear(packets[until]);
        until += 1;
    }
    assert!(!level(flags).requires_tls() || is_harmless(&talk.seen.in_clear), "mail in the clear");
    if !talk.switched() {
        return;
    }
    let (clear, inside) = packets.split_at(until);
    let clean = session(flags, clear, b"", inside, false);
    for (behind, by_octets) in [(behind, false), (&b""[..], true), (behind, true)] {
        assert_eq!(clean, session(flags, clear, behind, inside, by_octets), "octets in the clear have an effect");
    }
    if level(flags).must_match() && !bit(flags, 3) {
        assert_eq!(clean.in_tls, b"QUIT\r\n", "the wrong server gets more than QUIT");
    }
    alone(flags, clear, behind, inside);
});

/// The injected octets are a packet of their own: they are no reply, and only the server that says `HELLO` is heard.
fn alone(flags: u8, clear: &[&[u8]], behind: &[u8], inside: &[&[u8]]) {
    let mut talk = Talk::new(flags);
    clear.iter().for_each(|packet| talk.hear(packet));
    let before = talk.seen.clone();
    talk.hear(behind);
    if !behind.starts_with(HELLO) {
        let added = &talk.seen.events[before.events.len()..];
        assert!(added.iter().all(|event| event.starts_with("Failed")), "a reply in the clear: {added:?}");
        assert_eq!((&talk.seen.in_clear, &talk.seen.in_tls), (&before.in_clear, &before.in_tls), "an answer to it");
        if !behind.is_empty() && !HELLO.starts_with(behind) {
            talk.hear(HELLO);
            inside.iter().for_each(|packet| talk.hear(packet));
            assert!(talk.seen.in_tls.is_empty(), "a failed handshake goes on");
        }
    }
}
