//! Questions, records and answers.
//!
//! Times to live are seconds. Host names keep the case of the answer and have no dot at the end; the root is empty.

use super::name::Name;
use std::net::IpAddr;
use std::sync::Arc;

/// A kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// IPv4 addresses (RFC 1035 §3.4.1).
    A,
    /// IPv6 addresses (RFC 3596).
    Aaaa,
    /// Mail hosts (RFC 1035 §3.3.9).
    Mx,
    /// The names of an address (RFC 1035 §3.3.12).
    Ptr,
    /// Texts (RFC 1035 §3.3.14).
    Txt,
    /// Certificates (RFC 6698).
    Tlsa,
    /// Hosts of a service (RFC 2782).
    Srv,
    /// The canonical name (RFC 1035 §3.3.1). An answer of another kind follows it.
    Cname,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] =
        [Self::A, Self::Aaaa, Self::Mx, Self::Ptr, Self::Txt, Self::Tlsa, Self::Srv, Self::Cname];

    /// Return the kind with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.text() == text)
    }

    /// Return the name of the kind.
    pub fn text(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Mx => "MX",
            Self::Ptr => "PTR",
            Self::Txt => "TXT",
            Self::Tlsa => "TLSA",
            Self::Srv => "SRV",
            Self::Cname => "CNAME",
        }
    }
}

/// A name and a kind, in the class IN.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The name.
    pub name: Name,
    /// The kind.
    pub kind: Kind,
}

/// The data of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Of A and AAAA.
    Address(IpAddr),
    /// Of MX; the empty host is a null MX (RFC 7505).
    Mx {
        /// The lowest is best.
        preference: u16,
        /// The mail host.
        host: Box<str>,
    },
    /// Of PTR and CNAME.
    Host(Box<str>),
    /// Of TXT: its strings in one, as SPF, DKIM and DMARC read it.
    Text(Box<[u8]>),
    /// Of TLSA (RFC 6698 §2.1).
    Tlsa {
        /// The certificate usage.
        usage: u8,
        /// The part of the certificate.
        selector: u8,
        /// The matching type.
        matching: u8,
        /// Certificate, key or digest.
        data: Box<[u8]>,
    },
    /// Of SRV.
    Srv {
        /// The lowest is best.
        priority: u16,
        /// The share among hosts of one priority.
        weight: u16,
        /// The port.
        port: u16,
        /// The host; empty if there is no such service.
        host: Box<str>,
    },
}

impl Record {
    /// Return the number of octets that it has on the heap beside its own size.
    pub fn heap_octets(&self) -> usize {
        match self {
            Self::Address(_) => 0,
            Self::Mx { host, .. } | Self::Host(host) | Self::Srv { host, .. } => host.len(),
            Self::Text(data) | Self::Tlsa { data, .. } => data.len(),
        }
    }
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The records, in the order of the reply.
    Records {
        /// At least one, each once.
        list: Arc<[Record]>,
        /// The remaining time to live.
        ttl: f64,
        /// The name server validated the answer (the AD bit, RFC 4035 §3.2.3). It is worth as much as the connection
        /// to that server.
        secure: bool,
    },
    /// The name exists without such a record (RFC 2308 §2.2).
    NoData {
        /// The remaining time to live.
        ttl: f64,
    },
    /// The name does not exist (RFC 2308 §2.1).
    NoName {
        /// The remaining time to live.
        ttl: f64,
    },
    /// No server gave a usable answer. A later question may succeed.
    Failed(Box<str>),
}

impl Answer {
    /// Return the answer with another time to live.
    pub fn with_ttl(self, ttl: f64) -> Self {
        match self {
            Self::Records { list, secure, .. } => Self::Records { list, ttl, secure },
            Self::NoData { .. } => Self::NoData { ttl },
            Self::NoName { .. } => Self::NoName { ttl },
            Self::Failed(why) => Self::Failed(why),
        }
    }
}
