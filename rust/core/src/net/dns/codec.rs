//! A question to octets, and the octets of a reply to what it says (RFC 1035 §4, RFC 6891, RFC 2308).
//!
//! hickory-proto reads and writes messages. This module decides whether a reply belongs to its question, follows CNAMEs
//! inside the reply, and tells an answer from a server that cannot answer.

use super::answer::{Answer, Kind, Question, Record};
use super::name::text;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{self, DNSClass, RData, RecordType};
use std::net::IpAddr;
use thiserror::Error;

/// Size of a reply over UDP that we ask for, in octets: it needs no fragments (RFC 9715).
pub const UDP_PAYLOAD_OCTETS: u16 = 1232;
/// Maximum number of records of an answer that are used.
pub const RECORDS_MAX: usize = 100;
/// Maximum number of CNAMEs from the name of a question to the records.
pub const CNAMES_MAX: usize = 16;
/// Time to live of a negative answer without an SOA record, in seconds.
pub const NEGATIVE_TTL_DEFAULT_S: f64 = 60.0;
/// Octets of the header of a message (RFC 1035 §4.1.1).
const HEADER_OCTETS: usize = 12;
/// The server has no version of EDNS that we have (RFC 6891 §9).
const BADVERS: u16 = 16;

/// The message cannot be the reply to the question: somebody else may have sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a reply to the question")]
pub struct Unrelated;

/// The meaning of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The answer. Its time to live is the name server's.
    Answer(Answer),
    /// The answer does not fit: ask over TCP.
    Truncated,
    /// The server does not know EDNS0 (RFC 6891 §7): ask without.
    NoEdns,
    /// The server cannot answer, for this reason.
    Unusable(Box<str>),
}

/// Write a question. RFC 6840 §5.7: the AD bit in a question asks for the AD bit in the reply.
pub fn encode(question: &Question, id: u16, edns: bool) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.authentic_data = true;
    message.add_query(query(question));
    if edns {
        let mut options = Edns::new();
        options.set_max_payload(UDP_PAYLOAD_OCTETS);
        message.set_edns(options);
    }
    message.to_vec().expect("a name of valid length fits into a message")
}

/// Read a reply to a question that was sent with this ID, with or without EDNS0, over UDP or TCP.
pub fn decode(octets: &[u8], question: &Question, id: u16, edns: bool, tcp: bool) -> Result<Reply, Unrelated> {
    let [high, low, flags, ..] = *octets else { return Err(Unrelated) };
    if octets.len() < HEADER_OCTETS || u16::from_be_bytes([high, low]) != id || flags & 0xF8 != 0x80 {
        return Err(Unrelated);
    }
    if flags & 0x02 != 0 && !tcp {
        // The rest may be cut anywhere.
        return Ok(Reply::Truncated);
    }
    let Ok(message) = Message::from_vec(octets) else {
        return Ok(Reply::Unusable("malformed reply".into()));
    };
    let code = message.metadata.response_code;
    match &message.queries[..] {
        [asked] if *asked == query(question) => {}
        // A server that refuses a question need not repeat it.
        [] if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) => {}
        _ => return Err(Unrelated),
    }
    Ok(match code {
        ResponseCode::NoError => found(&message, question),
        ResponseCode::NXDomain => Reply::Answer(Answer::NoName { ttl: negative_ttl(&message) }),
        ResponseCode::FormErr | ResponseCode::NotImp if edns => Reply::NoEdns,
        // BADVERS has the number of BADSIG.
        other if edns && u16::from(other) == BADVERS => Reply::NoEdns,
        _ => Reply::Unusable(code_text(code).into()),
    })
}

fn query(question: &Question) -> Query {
    let name = rr::Name::from_labels(question.name.labels()).expect("a name is of valid length");
    Query::query(name, record_type(question.kind))
}

fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Mx => RecordType::MX,
        Kind::Ptr => RecordType::PTR,
        Kind::Txt => RecordType::TXT,
        Kind::Tlsa => RecordType::TLSA,
        Kind::Srv => RecordType::SRV,
        Kind::Cname => RecordType::CNAME,
    }
}

/// Return what a reply without an error says: the records at the end of the CNAMEs, or that there are none.
fn found(message: &Message, question: &Question) -> Reply {
    let kind = record_type(question.kind);
    let Some(asked) = message.queries.first() else { return Reply::Unusable("malformed reply".into()) };
    let (mut name, mut ttl) = (&asked.name, u32::MAX);
    for followed in 0..=CNAMES_MAX {
        let here = || message.answers.iter().filter(|record| record.dns_class == DNSClass::IN && record.name == *name);
        let mut list: Vec<Record> = Vec::new();
        for record in here().filter(|record| record.record_type() == kind) {
            if let Some(value) = value(&record.data)
                && list.len() < RECORDS_MAX
                && !list.contains(&value)
            {
                list.push(value);
                ttl = ttl.min(lived(record.ttl));
            }
        }
        if !list.is_empty() {
            let secure = message.metadata.authentic_data;
            return Reply::Answer(Answer::Records { list: list.into(), ttl: f64::from(ttl), secure });
        }
        let alias = here().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((&target.0, record.ttl)),
            _ => None,
        });
        let Some((target, alias_ttl)) = alias else {
            let header = &message.metadata;
            if followed == 0 && !header.authoritative && !header.recursion_available && soa(message).is_none() {
                // Neither its own zone nor recursion: a referral, which is no answer to a stub.
                return Reply::Unusable("lame delegation".into());
            }
            return Reply::Answer(Answer::NoData { ttl: negative_ttl(message) });
        };
        (name, ttl) = (target, ttl.min(lived(alias_ttl)));
    }
    Reply::Unusable("CNAME loop, or too many CNAMEs".into())
}

fn value(data: &RData) -> Option<Record> {
    Some(match data {
        RData::A(address) => Record::Address(IpAddr::V4(address.0)),
        RData::AAAA(address) => Record::Address(IpAddr::V6(address.0)),
        RData::MX(mx) => Record::Mx { preference: mx.preference, host: host(&mx.exchange) },
        RData::PTR(name) => Record::Host(host(&name.0)),
        RData::CNAME(name) => Record::Host(host(&name.0)),
        RData::TXT(txt) => Record::Text(txt.txt_data.concat().into()),
        RData::TLSA(tlsa) => Record::Tlsa {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.clone().into(),
        },
        RData::SRV(srv) => {
            Record::Srv { priority: srv.priority, weight: srv.weight, port: srv.port, host: host(&srv.target) }
        }
        _ => return None,
    })
}

fn host(name: &rr::Name) -> Box<str> {
    text(name.iter())
}

/// Return a time to live; one with the top bit set counts as 0 (RFC 2181 §8).
fn lived(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

fn soa(message: &Message) -> Option<u32> {
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(lived(record.ttl).min(lived(soa.minimum))),
        _ => None,
    })
}

/// Return the time to live of a negative answer: the lesser of the SOA's TTL and its minimum (RFC 2308 §5).
fn negative_ttl(message: &Message) -> f64 {
    soa(message).map_or(NEGATIVE_TTL_DEFAULT_S, f64::from)
}

fn code_text(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::Refused => "REFUSED".into(),
        other => format!("RCODE {}", u16::from(other)),
    }
}
