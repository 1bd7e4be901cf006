//! Replies for the tests, and the tests of codec and stub.

mod codec;
mod stub;

use super::answer::{Answer, Kind, Question, Record};
use super::name::Name;
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{self, RData};
use std::net::Ipv4Addr;

fn question(name: &str, kind: Kind) -> Question {
    Question { name: Name::parse(name).unwrap(), kind }
}

fn name(text: &str) -> rr::Name {
    rr::Name::from_ascii(text).unwrap()
}

fn record(owner: &str, ttl: u32, data: RData) -> rr::Record {
    rr::Record::from_rdata(name(owner), ttl, data)
}

fn a(owner: &str, ttl: u32, last: u8) -> rr::Record {
    record(owner, ttl, RData::A(Ipv4Addr::new(192, 0, 2, last).into()))
}

/// Return the reply to a query, with these changes.
fn reply(query: &[u8], change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    message.metadata.authentic_data = false;
    change(&mut message);
    message.to_vec().unwrap()
}

fn address(last: u8) -> Record {
    Record::Address(Ipv4Addr::new(192, 0, 2, last).into())
}

fn records(list: &[Record], ttl: f64) -> Answer {
    Answer::Records { list: list.into(), ttl, secure: false }
}
