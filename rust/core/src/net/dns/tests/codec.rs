//! Replies and the answers they give.

use super::super::codec::{CNAMES_MAX, RECORDS_MAX, Reply, Unrelated, decode, encode};
use super::*;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{CNAME, MX, SOA, TXT};
use proptest::prelude::*;

const ID: u16 = 0x1234;

fn cname(owner: &str, target: &str) -> rr::Record {
    record(owner, 250, RData::CNAME(CNAME(name(target))))
}

fn soa(ttl: u32, minimum: u32) -> rr::Record {
    record("test.", ttl, RData::SOA(SOA::new(name("ns.test."), name("h.test."), 1, 2, 3, 4, minimum)))
}

/// Read the reply to a question for addresses of `a.test`.
fn read(change: impl FnOnce(&mut Message)) -> Result<Reply, Unrelated> {
    let question = question("a.test", Kind::A);
    decode(&reply(&encode(&question, ID, true), change), &question, ID, true, false)
}

fn unusable(why: &str) -> Result<Reply, Unrelated> {
    Ok(Reply::Unusable(why.into()))
}

fn answer(answer: Answer) -> Result<Reply, Unrelated> {
    Ok(Reply::Answer(answer))
}

#[test]
fn question_asks_for_recursion_validation_and_small_replies() {
    let message = Message::from_vec(&encode(&question("a.test", Kind::Mx), ID, true)).unwrap();
    assert!(message.metadata.recursion_desired && message.metadata.authentic_data);
    assert_eq!(message.max_payload(), 1232);
    assert!(Message::from_vec(&encode(&question("", Kind::Mx), ID, false)).unwrap().edns.is_none());
}

#[test]
fn reply_gives_its_records() {
    let found = read(|message| {
        message.answers = vec![a("A.test.", 300, 1), a("a.test.", 200, 2), a("a.test.", 200, 1), a("b.test.", 1, 9)];
        message.metadata.authentic_data = true;
    });
    assert_eq!(found, answer(Answer::Records { list: [address(1), address(2)].into(), ttl: 200.0, secure: true }));
    let many = read(|message| message.answers = (0..=255).map(|last| a("a.test.", 9, last)).collect());
    assert!(matches!(many, Ok(Reply::Answer(Answer::Records { list, .. })) if list.len() == RECORDS_MAX));
    assert_eq!(read(|message| message.answers = vec![a("a.test.", u32::MAX, 1)]), answer(records(&[address(1)], 0.0)));
}

#[test]
fn aliases_are_followed_inside_the_reply() {
    let chain = |count: usize| {
        let mut list: Vec<_> = (0..count).map(|n| cname(&format!("{n}.test."), &format!("{}.test.", n + 1))).collect();
        list[0] = cname("a.test.", "1.test.");
        list.push(a(&format!("{count}.test."), 300, 1));
        list.reverse();
        list
    };
    let all = chain(CNAMES_MAX);
    assert_eq!(read(|message| message.answers = all), answer(records(&[address(1)], 250.0)));
    let looped = unusable("CNAME loop, or too many CNAMEs");
    assert_eq!(read(|message| message.answers = chain(CNAMES_MAX + 1)), looped);
    assert_eq!(read(|message| message.answers = vec![cname("a.test.", "A.test.")]), looped);
    let circle = vec![cname("a.test.", "b.test."), cname("b.test.", "a.test.")];
    assert_eq!(read(|message| message.answers = circle), looped);
    let alone = read(|message| message.answers = vec![cname("a.test.", "b.test.")]);
    assert_eq!(alone, answer(Answer::NoData { ttl: 60.0 }));
}

#[test]
fn negative_answer_has_the_time_of_its_soa() {
    let rows = [(None, 60.0), (Some((300, 60)), 60.0), (Some((30, 60)), 30.0)];
    for (times, ttl) in rows {
        let negative = |code| {
            read(move |message| {
                message.metadata.response_code = code;
                message.authorities.extend(times.map(|(ttl, minimum)| soa(ttl, minimum)));
            })
        };
        assert_eq!(negative(ResponseCode::NXDomain), answer(Answer::NoName { ttl }));
        assert_eq!(negative(ResponseCode::NoError), answer(Answer::NoData { ttl }));
    }
}

#[test]
fn server_without_an_answer_is_unusable() {
    let code = |code| read(move |message| message.metadata.response_code = code);
    assert_eq!(code(ResponseCode::ServFail), unusable("SERVFAIL"));
    assert_eq!(code(ResponseCode::Refused), unusable("REFUSED"));
    assert_eq!(code(ResponseCode::NotAuth), unusable("RCODE 9"));
    assert_eq!(code(ResponseCode::FormErr), Ok(Reply::NoEdns));
    assert_eq!(code(ResponseCode::BADVERS), Ok(Reply::NoEdns));
    let refused = read(|message| {
        message.metadata.response_code = ResponseCode::Refused;
        message.queries.clear();
    });
    assert_eq!(refused, unusable("REFUSED"));
    let lame = |change: fn(&mut Message)| {
        read(move |message| {
            message.metadata.recursion_available = false;
            change(message);
        })
    };
    assert_eq!(lame(|_| ()), unusable("lame delegation"));
    assert_eq!(lame(|message| message.metadata.authoritative = true), answer(Answer::NoData { ttl: 60.0 }));
    assert_eq!(lame(|message| message.authorities.push(soa(9, 9))), answer(Answer::NoData { ttl: 9.0 }));
}

#[test]
fn message_that_is_no_reply_to_the_question_is_unrelated() {
    let changes: [fn(&mut Message); 7] = [
        |message| message.metadata.id ^= 1,
        |message| message.metadata.message_type = MessageType::Query,
        |message| message.metadata.op_code = hickory_proto::op::OpCode::Notify,
        |message| message.queries.clear(),
        |message| message.queries.push(message.queries[0].clone()),
        |message| message.queries[0].name = name("b.test."),
        |message| message.queries[0].query_type = rr::RecordType::AAAA,
    ];
    for change in changes {
        assert_eq!(read(change), Err(Unrelated));
    }
}

#[test]
fn truncated_reply_asks_for_tcp_where_it_is_cut() {
    let question = question("a.test", Kind::A);
    let whole = reply(&encode(&question, ID, true), |message| {
        message.metadata.truncation = true;
        message.answers = vec![a("a.test.", 300, 1)];
    });
    for length in 0..=whole.len() {
        let expected = if length < 12 { Err(Unrelated) } else { Ok(Reply::Truncated) };
        assert_eq!(decode(&whole[..length], &question, ID, true, false), expected);
    }
    // Over TCP the bit has no meaning.
    assert_eq!(decode(&whole, &question, ID, true, true), answer(records(&[address(1)], 300.0)));
}

proptest! {
    #[test]
    fn any_octets_are_read(octets in prop::collection::vec(any::<u8>(), 0..600), tcp in any::<bool>(), kind in 0..8usize) {
        let question = question("a.test", Kind::ALL[kind]);
        let _ = decode(&octets, &question, ID, true, tcp);
        // Behind the header and the question of a reply.
        let mut inside = reply(&encode(&question, ID, false), |_| ());
        inside[7] = 3;
        inside.extend(octets);
        let _ = decode(&inside, &question, ID, true, tcp);
    }

    #[test]
    fn any_damage_is_read(at in 0usize..400, value in any::<u8>(), cut in 0usize..400) {
        let question = question("a.test", Kind::Mx);
        let mut whole = reply(&encode(&question, ID, true), |message| {
            for n in 0..9 {
                message.answers.push(record("a.test.", 5, RData::MX(MX::new(n, name("mail.example.org.")))));
            }
            message.answers.push(record("a.test.", 5, RData::TXT(TXT::new(vec!["text".into()]))));
        });
        let octets = whole.len();
        whole[at % octets] ^= value;
        let _ = decode(&whole[..octets - cut % octets], &question, ID, true, false);
    }
}
