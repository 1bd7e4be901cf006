//! resolv.conf(5): name servers, the search list, and options.
//!
//! The options `ndots`, `timeout`, `attempts`, `rotate` and `use-vc` have their effect. `port:N` is our own, for tests.
//! `trust-ad` changes nothing: an answer always says whether the name server validated it.

use super::name::Name;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

/// Maximum number of name servers; further ones are ignored (resolv.conf(5), MAXNS).
pub const SERVERS_MAX: usize = 3;
/// Maximum number of domains of the search list.
pub const SEARCH_MAX: usize = 6;
/// Maximum size of the file, in octets.
pub const FILE_MAX_OCTETS: u64 = 64 * 1024;
/// The port of name servers.
pub const PORT: u16 = 53;
const NDOTS_MAX: u32 = 15;
const TIMEOUT_MAX_S: u32 = 30;
const ATTEMPTS_MAX: u32 = 5;

/// How name servers are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvConf {
    /// The name servers, the first one first; at least one.
    pub servers: Vec<SocketAddr>,
    /// The domains that are tried behind a name.
    pub search: Vec<Name>,
    /// A name with fewer dots is tried in the search list first.
    pub ndots: u32,
    /// Time for one server to answer, in seconds.
    pub timeout_s: f64,
    /// Maximum number of times that each server is asked.
    pub attempts: u32,
    /// Each question begins with the next server.
    pub rotate: bool,
    /// Ask over TCP alone.
    pub tcp: bool,
}

impl ResolvConf {
    /// Return the defaults of resolv.conf(5), with these servers.
    pub fn with_servers(servers: Vec<SocketAddr>) -> Self {
        Self { servers, search: Vec::new(), ndots: 1, timeout_s: 5.0, attempts: 2, rotate: false, tcp: false }
    }

    /// Read a file. `interface` returns the number of a network interface, for addresses such as `fe80::1%eth0`.
    ///
    /// A line that has a mistake is ignored. Without a server, this machine is asked.
    pub fn parse(text: &str, interface: impl Fn(&str) -> Option<u32>) -> Self {
        let mut conf = Self::with_servers(Vec::new());
        let mut port = PORT;
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if conf.servers.len() < SERVERS_MAX => {
                    conf.servers.extend(words.next().and_then(|word| server(word, &interface)));
                }
                // The last one of both counts.
                Some("domain") => conf.search = domains(words.take(1)),
                Some("search") => conf.search = domains(words.take(SEARCH_MAX)),
                Some("options") => words.for_each(|word| conf.option(word, &mut port)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        conf.servers.iter_mut().for_each(|server| server.set_port(port));
        conf
    }

    fn option(&mut self, word: &str, port: &mut u16) {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        let number = value.parse::<u32>().ok();
        match (name, number) {
            ("ndots", Some(ndots)) => self.ndots = ndots.min(NDOTS_MAX),
            ("timeout", Some(timeout)) => self.timeout_s = timeout.clamp(1, TIMEOUT_MAX_S).into(),
            ("attempts", Some(attempts)) => self.attempts = attempts.clamp(1, ATTEMPTS_MAX),
            ("port", Some(number)) => *port = u16::try_from(number).unwrap_or(*port),
            ("rotate", _) => self.rotate = true,
            ("use-vc", _) => self.tcp = true,
            _ => {}
        }
    }
}

/// The names that the search list applies to: the flags RES_DEFNAMES and RES_DNSRCH of resolver(3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Search {
    /// Names without a dot: its first domain, or with `dnsrch` all of it.
    pub defnames: bool,
    /// Names with a dot.
    pub dnsrch: bool,
}

impl Search {
    /// Return the domains to try behind a name.
    pub fn domains<'a>(&self, name: &Name, conf: &'a ResolvConf) -> &'a [Name] {
        let single = name.labels().count() < 2;
        match (single, self.defnames, self.dnsrch) {
            (true, true, false) => &conf.search[..conf.search.len().min(1)],
            (true, true, true) | (false, _, true) => &conf.search,
            (true, false, _) | (false, _, false) => &[],
        }
    }
}

fn server(word: &str, interface: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let Some((address, zone)) = word.split_once('%') else {
        return Some((word.parse::<IpAddr>().ok()?, PORT).into());
    };
    let scope = zone.parse().ok().or_else(|| interface(zone))?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
}

fn domains<'a>(words: impl Iterator<Item = &'a str>) -> Vec<Name> {
    words.filter_map(|word| Name::parse(word).ok()).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ResolvConf {
        ResolvConf::parse(text, |name| (name == "eth0").then_some(7))
    }

    #[test]
    fn servers_are_read() {
        let rows: &[(&str, &[&str])] = &[
            ("", &["127.0.0.1:53"]),
            ("nameserver 192.0.2.1\n", &["192.0.2.1:53"]),
            ("nameserver\t2001:db8::1 # x\n;nameserver 192.0.2.2\n#nameserver 192.0.2.2", &["[2001:db8::1]:53"]),
            ("nameserver fe80::1%eth0\nnameserver fe80::1%3", &["[fe80::1%7]:53", "[fe80::1%3]:53"]),
            ("nameserver fe80::1%none\nnameserver x\nnameserver", &["127.0.0.1:53"]),
            (
                "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4",
                &["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"],
            ),
            ("nameserver 192.0.2.1\noptions port:5353", &["192.0.2.1:5353"]),
        ];
        for (text, expected) in rows {
            let servers: Vec<_> = read(text).servers.iter().map(ToString::to_string).collect();
            assert_eq!(servers, *expected, "{text}");
        }
    }

    #[test]
    fn options_are_within_their_limits() {
        let conf = read("options ndots:3 timeout:2 attempts:4 rotate use-vc trust-ad edns0\n");
        assert_eq!((conf.ndots, conf.timeout_s, conf.attempts), (3, 2.0, 4));
        assert!(conf.rotate && conf.tcp);
        let conf = read("options ndots:99 timeout:0\noptions attempts:0 port:99999 timeout:x\n");
        assert_eq!((conf.ndots, conf.timeout_s, conf.attempts), (15, 1.0, 1));
        assert_eq!(conf.servers[0].port(), 53);
        assert_eq!(read("options timeout:300 attempts:9"), {
            let mut most = read("");
            (most.timeout_s, most.attempts) = (30.0, 5);
            most
        });
    }

    #[test]
    fn last_search_list_counts() {
        let names = |words: &[&str]| words.iter().map(|word| Name::parse(word).unwrap()).collect::<Vec<_>>();
        assert_eq!(read("domain a.test b.test\n").search, names(&["a.test"]));
        assert_eq!(read("domain a.test\nsearch b.test. c.test a..b .\n").search, names(&["b.test", "c.test"]));
        assert_eq!(read("search 1 2 3 4 5 6 7 8\n").search.len(), SEARCH_MAX);
    }
}
