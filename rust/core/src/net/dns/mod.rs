//! A stub resolver (RFC 1034 §5.3.1): questions to the name servers of resolv.conf(5), with a cache and limits.
//!
//! ```text
//! name         a domain name, from text and to text
//! answer       kinds of questions, records, answers
//! codec        a question to octets, a reply to an answer
//! cache        answers for their time to live
//! resolv_conf  resolv.conf(5)
//! pending      a question that waits for its answer
//! stub         the machine: the choice of servers, and the meaning of their replies
//! sockets      its sockets
//! ```
//!
//! Only `sockets` does I/O, and reads resolv.conf. The others get octets, `now` and random numbers as arguments.

pub mod answer;
mod cache;
pub mod codec;
pub mod name;
mod pending;
pub mod resolv_conf;
pub mod sockets;
pub mod stub;

#[cfg(test)]
mod tests;
