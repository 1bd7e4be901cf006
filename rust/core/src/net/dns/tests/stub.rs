//! Servers that fail in every way, and the answers all the same.

use super::super::cache;
use super::super::resolv_conf::{ResolvConf, Search};
use super::super::stub::{Asked, Ids, Limits, Output, STRAYS_MAX, Stub};
use super::*;
use hickory_proto::op::{Edns, ResponseCode};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

struct Counter(u16);

impl Ids for Counter {
    fn next(&mut self) -> u16 {
        self.0 = self.0.wrapping_add(1);
        self.0
    }
}

/// A stub and the time.
struct Net {
    stub: Stub,
    now: f64,
}

/// A message that the stub sent.
struct Sent {
    number: u64,
    server: u8,
    octets: Vec<u8>,
    tcp: bool,
}

impl Net {
    /// Return a stub with this number of servers, 192.0.2.1 the first one.
    fn new(servers: u8, change: impl FnOnce(&mut ResolvConf, &mut Limits)) -> Self {
        let server = |last| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 53);
        let mut conf = ResolvConf::with_servers((1..=servers).map(server).collect());
        let mut limits = Limits::default();
        change(&mut conf, &mut limits);
        Self { stub: Stub::new(conf, limits, Box::new(Counter(0))), now: 1000.0 }
    }

    fn ask(&mut self, name: &str) -> Asked {
        self.stub.ask(&question(name, Kind::A), Search::default(), self.now)
    }

    fn number(&mut self, name: &str) -> u64 {
        match self.ask(name) {
            Asked::Open(number) => number,
            Asked::Answer(answer) => panic!("{answer:?}"),
        }
    }

    fn sent(&mut self) -> Option<Sent> {
        loop {
            match self.stub.take_output()? {
                Output::Send { number, server: SocketAddr::V4(server), octets, tcp } => {
                    return Some(Sent { number, server: server.ip().octets()[3], octets, tcp });
                }
                Output::Send { .. } => panic!("no IPv6 here"),
                Output::Close { .. } => {}
            }
        }
    }

    fn receive(&mut self, sent: &Sent, change: impl FnOnce(&mut Message)) {
        self.stub.receive(sent.number, &reply(&sent.octets, change), self.now);
    }

    /// Go to the next timeout.
    fn wait(&mut self) {
        self.now = self.stub.next_timeout().expect("a timeout");
        self.stub.timeout(self.now);
    }

    fn finished(&mut self) -> Vec<(u64, Answer)> {
        std::iter::from_fn(|| self.stub.take_finished()).collect()
    }

    fn idle(&self) -> bool {
        self.stub.open() == 0 && self.stub.next_timeout().is_none()
    }
}

fn code(code: ResponseCode) -> impl Fn(&mut Message) {
    move |message| message.metadata.response_code = code
}

fn failed(why: &str) -> Answer {
    Answer::Failed(why.into())
}

#[test]
fn askers_of_one_question_share_it_and_then_the_cache_answers() {
    let mut net = Net::new(1, |_, _| ());
    let number = net.number("a.test");
    assert_eq!(net.number("A.test."), number);
    assert_ne!(net.number("b.test"), number);
    let sent = net.sent().unwrap();
    assert_eq!((sent.number, sent.server, sent.tcp), (number, 1, false));
    net.receive(&sent, |message| message.answers.push(a("a.test.", 300, 1)));
    // A second copy finds nobody.
    net.receive(&sent, |message| message.answers.push(a("a.test.", 300, 2)));
    assert_eq!(net.finished(), [(number, records(&[address(1)], 300.0))]);
    net.now += 10.0;
    assert_eq!(net.ask("a.test"), Asked::Answer(records(&[address(1)], 290.0)));
    net.now += 290.0;
    assert!(matches!(net.ask("a.test"), Asked::Open(_)));
}

#[test]
fn each_attempt_has_an_id_of_its_own() {
    let mut net = Net::new(2, |_, _| ());
    net.number("a.test");
    let first = net.sent().unwrap();
    net.wait();
    let second = net.sent().unwrap();
    assert_ne!(first.octets[..2], second.octets[..2]);
    // The first server's late reply: its socket is closed, and its ID is not that of the second.
    net.receive(&first, |message| message.answers.push(a("a.test.", 300, 1)));
    assert!(net.finished().is_empty());
    net.receive(&second, |message| message.answers.push(a("a.test.", 300, 2)));
    assert_eq!(net.finished().len(), 1);
}

#[test]
fn servers_are_asked_in_order_until_one_answers() {
    let mut net = Net::new(3, |_, _| ());
    let number = net.number("a.test");
    let mut order = Vec::new();
    while let Some(sent) = net.sent() {
        order.push(sent.server);
        match sent.server {
            1 => net.receive(&sent, code(ResponseCode::ServFail)),
            2 => net.receive(&sent, |message| message.metadata.recursion_available = false),
            _ => net.wait(),
        }
    }
    // Servers with an error are not asked again.
    assert_eq!(order, [1, 2, 3, 3]);
    assert_eq!(net.finished(), [(number, failed("no answer from 192.0.2.3"))]);
    assert!(net.idle());
}

#[test]
fn silent_server_leaves_time_for_the_others() {
    let mut net = Net::new(3, |_, limits| limits.timeout_s = 3.0);
    let begin = net.now;
    let number = net.number("a.test");
    let mut times = Vec::new();
    while let Some(sent) = net.sent() {
        times.push((sent.server, ((net.now - begin) * 10.0).round() / 10.0));
        net.wait();
    }
    assert_eq!(times, [(1, 0.0), (2, 0.5), (3, 1.0), (1, 1.5), (2, 2.0), (3, 2.5)]);
    assert_eq!(net.finished(), [(number, failed("no answer from 192.0.2.3"))]);
    assert!(net.now - begin <= 3.0 + 1e-6);
    assert!(net.idle());
}

#[test]
fn server_that_did_not_answer_is_the_last_choice_for_a_while() {
    let mut net = Net::new(2, |_, _| ());
    net.number("a.test");
    let first = net.sent().unwrap();
    net.wait();
    let second = net.sent().unwrap();
    assert_eq!((first.server, second.server), (1, 2));
    net.number("b.test");
    assert_eq!(net.sent().unwrap().server, 2);
    net.now += 10.0;
    net.number("c.test");
    assert_eq!(net.sent().unwrap().server, 1);
}

#[test]
fn rotation_begins_with_each_server() {
    let mut net = Net::new(3, |conf, _| conf.rotate = true);
    let mut first = |name| {
        net.number(name);
        net.sent().unwrap().server
    };
    assert_eq!(["a", "b", "c", "d"].map(&mut first), [1, 2, 3, 1]);
}

#[test]
fn replies_that_do_not_belong_to_the_question_change_nothing_but_are_bounded() {
    let mut net = Net::new(2, |_, _| ());
    net.number("a.test");
    let first = net.sent().unwrap();
    for _ in 0..STRAYS_MAX {
        net.receive(&first, |message| message.metadata.id ^= 1);
        assert!(net.sent().is_none());
    }
    net.receive(&first, |message| message.queries[0].name = name("b.test."));
    let second = net.sent().unwrap();
    assert_eq!(second.server, 2);
    net.receive(&second, |message| message.metadata.id ^= 1);
    net.receive(&second, |message| message.answers.push(a("a.test.", 300, 1)));
    assert_eq!(net.finished().len(), 1);
}

#[test]
fn truncated_reply_is_asked_for_over_tcp_from_the_same_server() {
    let mut net = Net::new(2, |_, _| ());
    net.number("a.test");
    let sent = net.sent().unwrap();
    net.receive(&sent, |message| message.metadata.truncation = true);
    let sent = net.sent().unwrap();
    assert_eq!((sent.server, sent.tcp), (1, true));
    net.stub.failed(sent.number, "Connection refused", net.now);
    let sent = net.sent().unwrap();
    assert_eq!((sent.server, sent.tcp), (2, false));
    net.receive(&sent, |message| message.metadata.truncation = true);
    let sent = net.sent().unwrap();
    net.receive(&sent, |message| message.answers.push(a("a.test.", 300, 1)));
    assert_eq!(net.finished().len(), 1);
}

#[test]
fn reply_that_does_not_belong_to_the_question_ends_a_tcp_connection() {
    let mut net = Net::new(1, |conf, _| (conf.tcp, conf.attempts) = (true, 1));
    let number = net.number("a.test");
    let sent = net.sent().unwrap();
    assert!(sent.tcp);
    net.receive(&sent, |message| message.metadata.id ^= 1);
    assert_eq!(net.finished(), [(number, failed("not a reply to the question from 192.0.2.1"))]);
}

#[test]
fn server_that_does_not_know_edns_is_asked_without() {
    let mut net = Net::new(1, |_, _| ());
    let number = net.number("a.test");
    let sent = net.sent().unwrap();
    let has_edns = |sent: &Sent| Message::from_vec(&sent.octets).unwrap().edns.is_some();
    assert!(has_edns(&sent));
    net.receive(&sent, |message| {
        message.edns = None::<Edns>;
        message.metadata.response_code = ResponseCode::FormErr;
    });
    let sent = net.sent().unwrap();
    assert!(!has_edns(&sent));
    net.receive(&sent, code(ResponseCode::FormErr));
    assert_eq!(net.finished(), [(number, failed("FORMERR from 192.0.2.1"))]);
}

#[test]
fn questions_on_the_wire_and_those_that_wait_are_bounded() {
    let mut net = Net::new(1, |_, limits| (limits.questions_max, limits.waiting_max) = (2, 3));
    let numbers: Vec<u64> = ["a", "b", "c", "d", "e"].into_iter().map(|name| net.number(name)).collect();
    assert_eq!(net.ask("f"), Asked::Answer(failed("too many questions wait for name servers")));
    assert_eq!(net.number("e"), numbers[4]);
    let mut seen = Vec::new();
    let (first, second) = (net.sent().unwrap(), net.sent().unwrap());
    assert!(net.sent().is_none());
    seen.extend([first.number, second.number]);
    for sent in [first, second] {
        net.receive(&sent, code(ResponseCode::NXDomain));
    }
    while let Some(sent) = net.sent() {
        seen.push(sent.number);
        net.receive(&sent, code(ResponseCode::NXDomain));
    }
    assert_eq!(seen, numbers);
    assert_eq!(net.finished().len(), 5);
    assert!(net.idle());
}

#[test]
fn question_that_waits_too_long_for_a_place_fails() {
    let mut net = Net::new(1, |_, limits| (limits.questions_max, limits.timeout_s) = (1, 4.0));
    net.number("a");
    net.now += 1.0;
    let second = net.number("b");
    while net.stub.open() > 0 {
        net.wait();
    }
    let answers = net.finished();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[1].0, second);
    assert!(matches!(answers[1].1, Answer::Failed(_)));
    assert_eq!(net.now, 1005.0);
    assert!(net.idle());
}

#[test]
fn many_questions_that_waited_too_long_end_together() {
    let mut net = Net::new(1, |_, limits| limits.questions_max = 1);
    for number in 0..10_000 {
        net.number(&format!("{number}.test"));
    }
    net.now += 1000.0;
    net.stub.timeout(net.now);
    while net.stub.open() > 0 {
        net.wait();
    }
    assert_eq!(net.finished().len(), 10_000);
    assert!(net.idle());
}

#[test]
fn search_list_is_tried_in_the_order_of_the_dots() {
    let (all, first) = (Search { defnames: true, dnsrch: true }, Search { defnames: true, dnsrch: false });
    let dotted = Search { defnames: false, dnsrch: true };
    let ask = |asked: &str, known: &str, search: Search| {
        let mut net = Net::new(1, |conf, _| {
            conf.search = ["one.test", "two.test"].map(|domain| Name::parse(domain).unwrap()).to_vec();
        });
        let Asked::Open(number) = net.stub.ask(&question(asked, Kind::A), search, net.now) else { panic!("no answer") };
        let mut order = Vec::new();
        while let Some(sent) = net.sent() {
            assert_eq!(sent.number, number);
            let name = Message::from_vec(&sent.octets).unwrap().queries[0].name.to_ascii();
            net.receive(&sent, |message| match name == known {
                true => message.answers.push(a(known, 300, 1)),
                false => message.metadata.response_code = ResponseCode::NXDomain,
            });
            order.push(name);
        }
        // All of it is in the cache now.
        let answer = net.finished().remove(0).1;
        assert_eq!(net.stub.ask(&question(asked, Kind::A), search, net.now), Asked::Answer(answer.clone()));
        (order.join(" "), answer)
    };
    let none = Answer::NoName { ttl: 60.0 };
    let rows = [
        ("a", "a.two.test.", all, "a.one.test. a.two.test."),
        ("a", "", all, "a.one.test. a.two.test. a."),
        ("a", "", first, "a.one.test. a."),
        ("a", "", dotted, "a."),
        ("a", "", Search::default(), "a."),
        ("a.b", "", all, "a.b. a.b.one.test. a.b.two.test."),
        ("a.b", "", dotted, "a.b. a.b.one.test. a.b.two.test."),
        ("a.b", "", first, "a.b."),
    ];
    for (asked, known, search, names) in rows {
        let answer = if known.is_empty() { none.clone() } else { records(&[address(1)], 300.0) };
        assert_eq!(ask(asked, known, search), (names.into(), answer));
    }
}

#[test]
fn cache_of_the_stub_is_bounded() {
    let limits = cache::Limits { answers_max: 2, octets_max: 1 << 20 };
    let mut net = Net::new(1, |_, all| all.cache = limits);
    for name in ["a.test", "b.test", "c.test"] {
        net.number(name);
        let sent = net.sent().unwrap();
        net.receive(&sent, code(ResponseCode::NXDomain));
    }
    assert_eq!(net.stub.cached().0, 2);
    assert!(matches!(net.ask("a.test"), Asked::Open(_)));
}

proptest! {
    /// Any order of replies, damage, failures and timeouts: each question gets one answer, in bounded time.
    #[test]
    fn every_question_gets_one_answer(steps in prop::collection::vec((0u8..8, any::<u8>()), 0..300)) {
        let mut net = Net::new(3, |_, limits| (limits.questions_max, limits.waiting_max) = (3, 4));
        let (mut sent, mut opened, mut answered) = (Vec::<Sent>::new(), Vec::new(), Vec::new());
        for (step, value) in steps {
            let some = (!sent.is_empty()).then(|| usize::from(value) % sent.len().max(1));
            match (step, some) {
                (0 | 1, _) => match net.ask(&format!("{}.test", value % 20)) {
                    Asked::Open(number) if !opened.contains(&number) => opened.push(number),
                    _ => {}
                },
                (2, _) if !net.idle() => net.wait(),
                (3, Some(at)) => net.receive(&sent[at], code(ResponseCode::NXDomain)),
                (4, Some(at)) => net.receive(&sent[at], |message| message.metadata.truncation = true),
                (5, Some(at)) => net.receive(&sent[at], |message| message.metadata.id ^= u16::from(value)),
                (6, Some(at)) => net.receive(&sent[at], code(ResponseCode::from(0, value % 6))),
                (7, Some(at)) => net.stub.failed(sent[at].number, "no route", net.now),
                _ => {}
            }
            sent.extend(std::iter::from_fn(|| net.sent()));
            answered.extend(net.finished());
            prop_assert!(net.stub.open() <= 7);
        }
        let begin = net.now;
        while !net.idle() { net.wait(); }
        prop_assert!(net.now - begin <= 30.0 + 1e-6);
        answered.extend(net.finished());
        let mut numbers: Vec<u64> = answered.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        prop_assert_eq!(numbers, opened);
    }
}
