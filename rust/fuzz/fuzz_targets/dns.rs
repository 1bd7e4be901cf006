//! The stub resolver: any octets as a reply give an answer to the question or none; with any replies, wrong IDs, failures
//! and timeouts in any order, each question gets one answer in bounded time, with bounded messages.
//!
//! Input: a byte of choices (a reply alone or a stub, TCP, kind). Then the reply behind the ID and the question; or steps
//! of the stub, each with the message that it concerns.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::net::dns::answer::{Answer, Kind, Question, Record};
use postillion_core::net::dns::codec::{RECORDS_MAX, Reply, Unrelated, decode, encode};
use postillion_core::net::dns::name::Name;
use postillion_core::net::dns::resolv_conf::{ResolvConf, Search};
use postillion_core::net::dns::stub::{Asked, Ids, Limits, Output, Stub, TIMEOUT_S};
use postillion_fuzz::{Choices, bit};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

const ID: u16 = 0x1234;
const SERVERS: u8 = 3;
const QUESTIONS_MAX: usize = 3;
const WAITING_MAX: usize = 4;
/// Maximum number of messages for a name: two attempts at each server, and for one of them a second one over TCP or
/// without EDNS0, each of which may be repeated.
const MESSAGES_MAX: usize = 2 * SERVERS as usize * 4;
const NAMES: usize = 3;

struct Counter(u16);

impl Ids for Counter {
    fn next(&mut self) -> u16 {
        self.0 = self.0.wrapping_add(0x9e37);
        self.0
    }
}

fn question(name: &str, kind: Kind) -> Question {
    Question { name: Name::parse(name).expect("a name"), kind }
}

/// Return the start of the reply to a query: its ID, these flags and numbers of records, and its question.
fn reply(query: &[u8], flags: [u8; 2], counts: [u8; 3], records: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|octet| *octet == 0).expect("the root ends a name");
    let mut octets = query[..12 + name + 5].to_vec();
    octets[2..4].copy_from_slice(&[flags[0] | 0x80, flags[1]]);
    octets[6..12].copy_from_slice(&[0, counts[0], 0, counts[1], 0, counts[2]]);
    octets.extend_from_slice(records);
    octets
}

fn check(answer: &Answer, kind: Kind) {
    let Answer::Records { list, ttl, .. } = answer else { return };
    assert!((1..=RECORDS_MAX).contains(&list.len()) && *ttl >= 0.0);
    for record in list.iter() {
        let host = match (kind, record) {
            (Kind::A, Record::Address(address)) => return assert!(address.is_ipv4()),
            (Kind::Aaaa, Record::Address(address)) => return assert!(address.is_ipv6()),
            (Kind::Txt, Record::Text(_)) | (Kind::Tlsa, Record::Tlsa { .. }) => continue,
            (Kind::Mx, Record::Mx { host, .. })
            | (Kind::Ptr | Kind::Cname, Record::Host(host))
            | (Kind::Srv, Record::Srv { host, .. }) => host,
            other => panic!("{other:?}"),
        };
        assert!(host.bytes().all(|octet| octet.is_ascii_graphic()), "{host:?}");
        assert!(Name::parse(host).is_ok(), "{host:?}");
    }
}

fn fuzz_reply(kind: Kind, tcp: bool, octets: &[u8]) {
    let question = question("a.test", kind);
    for edns in [true, false] {
        let query = encode(&question, ID, edns);
        let [high, low, one, two, three, records @ ..] = octets else { return };
        let octets = reply(&query, [*high, *low], [*one, *two, *three], records);
        assert_eq!(decode(&octets, &question, ID ^ 1, edns, tcp), Err(Unrelated));
        match decode(&octets, &question, ID, edns, tcp) {
            Ok(Reply::Answer(answer)) => check(&answer, kind),
            Ok(Reply::Truncated) => assert!(!tcp),
            Ok(Reply::NoEdns) => assert!(edns),
            Ok(Reply::Unusable(_)) | Err(Unrelated) => {}
        }
    }
    let _ = decode(octets, &question, ID, true, tcp);
    if let Some(id) = octets.first_chunk() {
        let _ = decode(octets, &question, u16::from_be_bytes(*id), true, tcp);
    }
}

/// A stub, the messages that it sent, and its open questions with the time of each.
struct Net {
    stub: Stub,
    now: f64,
    sent: Vec<(u64, Vec<u8>)>,
    messages: HashMap<u64, usize>,
    open: HashMap<u64, f64>,
}

impl Net {
    fn ask(&mut self, name: &str, kind: Kind, search: Search) {
        if let Asked::Open(number) = self.stub.ask(&question(name, kind), search, self.now) {
            self.open.entry(number).or_insert(self.now);
        }
    }

    /// Take output and answers.
    fn take(&mut self) {
        while let Some(output) = self.stub.take_output() {
            if let Output::Send { number, octets, .. } = output {
                let messages = self.messages.entry(number).or_default();
                *messages += 1;
                assert!(*messages <= MESSAGES_MAX * NAMES, "too many messages for a question");
                self.sent.push((number, octets));
            }
        }
        while let Some((number, _)) = self.stub.take_finished() {
            let asked = self.open.remove(&number).expect("one answer for an open question");
            assert!(self.now - asked <= TIMEOUT_S + 1e-6, "a late answer");
        }
        assert_eq!(self.stub.open(), self.open.len());
        assert!(self.stub.open() <= QUESTIONS_MAX + WAITING_MAX);
    }

    fn wait(&mut self) {
        if let Some(due) = self.stub.next_timeout() {
            self.now = self.now.max(due);
            self.stub.timeout(self.now);
        }
    }
}

fn fuzz_stub(kind: Kind, tcp: bool, mut choices: Choices<'_>) {
    let servers = (1..=SERVERS).map(|last| SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 53)));
    let mut conf = ResolvConf::with_servers(servers.collect());
    (conf.tcp, conf.rotate) = (tcp, bit(choices.byte(), 0));
    conf.search = ["one.test", "two.test"].map(|domain| Name::parse(domain).expect("a name")).to_vec();
    let limits = Limits { questions_max: QUESTIONS_MAX, waiting_max: WAITING_MAX, ..Limits::default() };
    let stub = Stub::new(conf, limits, Box::new(Counter(0)));
    let mut net = Net { stub, now: 1000.0, sent: Vec::new(), messages: HashMap::new(), open: HashMap::new() };
    while !choices.is_empty() {
        let (step, value) = (choices.byte(), choices.byte());
        let some = net.sent.get(usize::from(value) % net.sent.len().max(1)).cloned();
        match (step % 8, some) {
            (0 | 1, _) => {
                let search = Search { defnames: bit(step, 3), dnsrch: bit(step, 4) };
                net.ask(&format!("{}", value % 20), kind, search);
            }
            (2, _) => net.wait(),
            (3, Some((number, mut query))) => {
                query[0] ^= 1;
                net.stub.receive(number, &reply(&query, [1, 0x80], [0; 3], &[]), net.now);
            }
            (4, Some((number, query))) => {
                let mut record = vec![0xc0, 12];
                let octets: Vec<u8> =
                    std::iter::from_fn(|| Some(choices.byte())).take(usize::from(step >> 3)).collect();
                record.extend(octets);
                net.stub.receive(number, &reply(&query, [1, 0x80], [1, 0, 0], &record), net.now);
            }
            (5, Some((number, _))) => net.stub.failed(number, "no route", net.now),
            // Truncated, or with any code.
            (_, Some((number, query))) => {
                net.stub.receive(number, &reply(&query, [1 | step >> 2 & 2, value], [0; 3], &[]), net.now);
            }
            _ => {}
        }
        net.take();
    }
    while !net.open.is_empty() {
        net.wait();
        net.take();
    }
    assert_eq!(net.stub.next_timeout(), None);
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let flags = choices.byte();
    let kind = Kind::ALL[usize::from(flags >> 2) % Kind::ALL.len()];
    if bit(flags, 0) {
        fuzz_stub(kind, bit(flags, 1), choices);
    } else {
        fuzz_reply(kind, bit(flags, 1), choices.rest());
    }
});
