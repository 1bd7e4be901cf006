//! The sockets of the stub resolver, on one descriptor of their own.
//!
//! Each question has a fresh socket that is connected to its server. So the kernel chooses a random port, and drops what
//! comes from other addresses. Nothing here blocks: the owner waits for `descriptor` and for `next_timeout`.

use super::answer::{Answer, Question};
use super::resolv_conf::{FILE_MAX_OCTETS, ResolvConf, Search};
use super::stub::{Asked, Ids, Limits, Output, Stub};
use crate::net::ready::ready;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, netdevice, recv, send, socket_with, sockopt,
};
use rustix::rand::{GetRandomFlags, getrandom};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Time between two checks of resolv.conf, in seconds.
pub const CONF_CHECK_S: f64 = 1.0;
/// Maximum number of sockets that are served each time, and of times in one `poll`.
const EVENTS_MAX: usize = 256;
const POLLS_MAX: usize = 4;
/// Maximum number of datagrams that are read from a socket each time.
const DATAGRAMS_MAX: usize = 8;
/// Maximum size of a message over TCP, with its length (RFC 1035 §4.2.2).
const MESSAGE_MAX_OCTETS: usize = 2 + u16::MAX as usize;
const READ_OCTETS: usize = 64 * 1024;
const IDS: usize = 256;
const SOCKET_FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Where the name servers are named.
pub enum Servers {
    /// In a file like /etc/resolv.conf, which is read again after a change.
    File(PathBuf),
    /// Here.
    Fixed(ResolvConf),
}

/// A stub resolver with its sockets.
pub struct Resolver {
    stub: Stub,
    poller: OwnedFd,
    sockets: HashMap<u64, Socket>,
    file: Option<ConfFile>,
    buffer: Box<[u8]>,
}

enum Socket {
    Udp(OwnedFd),
    Tcp(Stream),
}

struct Stream {
    socket: OwnedFd,
    output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
}

impl Resolver {
    /// Return a resolver without questions.
    pub fn new(servers: Servers, limits: Limits) -> io::Result<Self> {
        let (conf, file) = match servers {
            Servers::Fixed(conf) => (conf, None),
            Servers::File(path) => {
                let mut file = ConfFile { path, stamp: None, checked: f64::NEG_INFINITY };
                let conf = file.changed(f64::NEG_INFINITY).unwrap_or_else(|| parsed(""));
                (conf, Some(file))
            }
        };
        Ok(Self {
            stub: Stub::new(conf, limits, Box::new(Kernel { numbers: [0; IDS], at: IDS })),
            poller: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sockets: HashMap::new(),
            file,
            buffer: vec![0; READ_OCTETS].into(),
        })
    }

    /// Ask; see `Stub::ask`. A question that cannot even be sent is answered at once.
    pub fn ask(&mut self, question: &Question, search: Search, now: f64) -> Asked {
        if let Some(conf) = self.file.as_mut().and_then(|file| file.changed(now)) {
            self.stub.configure(conf);
        }
        let asked = self.stub.ask(question, search, now);
        if let Asked::Open(number) = asked {
            self.flush(now);
            if let Some(answer) = self.stub.take_answer(number) {
                return Asked::Answer(answer);
            }
        }
        asked
    }

    /// Return a descriptor that is readable while `poll` has something to do, except for timeouts.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }

    /// Return when `poll` must be called at the latest.
    pub fn next_timeout(&self) -> Option<f64> {
        if self.stub.has_finished() { Some(0.0) } else { self.stub.next_timeout() }
    }

    /// Serve the sockets that are ready and what is due; return the answers of open questions.
    pub fn poll(&mut self, now: f64) -> io::Result<Vec<(u64, Answer)>> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        for _ in 0..POLLS_MAX {
            if !ready(&self.poller, &mut events)? {
                break;
            }
            for event in &events {
                self.serve(event.data.u64(), now);
            }
            self.flush(now);
        }
        self.stub.timeout(now);
        self.flush(now);
        Ok(std::iter::from_fn(|| self.stub.take_finished()).collect())
    }

    /// Return the number of open questions.
    pub fn open(&self) -> usize {
        self.stub.open()
    }

    /// Return the number and the size in octets of the cached answers.
    pub fn cached(&self) -> (usize, usize) {
        self.stub.cached()
    }

    /// Do what the stub wants with sockets. A question has at most `attempts` for each server, so this ends.
    fn flush(&mut self, now: f64) {
        while let Some(output) = self.stub.take_output() {
            match output {
                Output::Close { number } => {
                    self.sockets.remove(&number);
                }
                Output::Send { number, server, octets, tcp } => {
                    self.sockets.remove(&number);
                    match self.open_socket(number, server, octets, tcp) {
                        Ok(socket) => {
                            self.sockets.insert(number, socket);
                        }
                        Err(error) => self.stub.failed(number, &io::Error::from(error).to_string(), now),
                    }
                }
            }
        }
    }

    fn open_socket(&self, number: u64, server: SocketAddr, octets: Vec<u8>, tcp: bool) -> Result<Socket, Errno> {
        let family = if server.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
        let socket = socket_with(family, kind, SOCKET_FLAGS, None)?;
        match connect(&socket, &server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let data = EventData::new_u64(number);
        if !tcp {
            epoll::add(&self.poller, &socket, data, EventFlags::IN)?;
            send(&socket, &octets, SendFlags::NOSIGNAL)?;
            return Ok(Socket::Udp(socket));
        }
        epoll::add(&self.poller, &socket, data, EventFlags::OUT)?;
        let length = u16::try_from(octets.len()).map_err(|_| Errno::MSGSIZE)?;
        let output = [&length.to_be_bytes()[..], &octets].concat();
        Ok(Socket::Tcp(Stream { socket, output, written: 0, input: Vec::new() }))
    }

    fn serve(&mut self, number: u64, now: f64) {
        let read = match self.sockets.get_mut(&number) {
            None => return,
            Some(Socket::Udp(_)) => return self.read_datagrams(number, now),
            Some(Socket::Tcp(stream)) => stream.serve(number, &self.poller, &mut self.buffer),
        };
        match read {
            Ok(None) => {}
            Ok(Some(message)) => self.stub.receive(number, &message, now),
            Err(error) => self.stub.failed(number, &io::Error::from(error).to_string(), now),
        }
    }

    fn read_datagrams(&mut self, number: u64, now: f64) {
        for _ in 0..DATAGRAMS_MAX {
            let Some(Socket::Udp(socket)) = self.sockets.get(&number) else { return };
            match recv(socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((octets, _)) => self.stub.receive(number, &self.buffer[..octets.min(READ_OCTETS)], now),
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(error) => self.stub.failed(number, &io::Error::from(error).to_string(), now),
            }
            // The answer, or another server: the socket is not needed any more.
            self.flush(now);
        }
    }
}

impl Stream {
    /// Write, or read; return the reply when it is complete.
    fn serve(&mut self, number: u64, poller: &OwnedFd, buffer: &mut [u8]) -> Result<Option<Vec<u8>>, Errno> {
        if self.written < self.output.len() {
            sockopt::socket_error(&self.socket)??;
            match send(&self.socket, &self.output[self.written..], SendFlags::NOSIGNAL) {
                Ok(octets) => self.written += octets,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                Err(error) => return Err(error),
            }
            if self.written == self.output.len() {
                epoll::modify(poller, &self.socket, EventData::new_u64(number), EventFlags::IN)?;
            }
            return Ok(None);
        }
        let wanted = buffer.len().min(MESSAGE_MAX_OCTETS - self.input.len());
        match recv(&self.socket, &mut buffer[..wanted], RecvFlags::empty()) {
            Ok((0, _)) => return Err(Errno::CONNRESET),
            Ok((octets, _)) => self.input.extend_from_slice(&buffer[..octets]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error),
        }
        let [high, low, ..] = self.input[..] else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        Ok(self.input.get(2..2 + length).map(<[u8]>::to_vec))
    }
}

/// resolv.conf, with its state at the last check.
struct ConfFile {
    path: PathBuf,
    /// Inode, size and time of the last change.
    stamp: Option<(u64, u64, i64, i64)>,
    checked: f64,
}

impl ConfFile {
    /// Return the content after a change. A file that cannot be read changes nothing.
    fn changed(&mut self, now: f64) -> Option<ResolvConf> {
        if now - self.checked < CONF_CHECK_S {
            return None;
        }
        self.checked = now;
        let status = fs::metadata(&self.path).ok()?;
        let stamp = Some((status.ino(), status.size(), status.mtime(), status.mtime_nsec()));
        if stamp == self.stamp {
            return None;
        }
        let conf = read(&self.path).ok()?;
        self.stamp = stamp;
        Some(conf)
    }
}

fn read(path: &Path) -> io::Result<ResolvConf> {
    let mut octets = Vec::new();
    File::open(path)?.take(FILE_MAX_OCTETS).read_to_end(&mut octets)?;
    Ok(parsed(&String::from_utf8_lossy(&octets)))
}

fn parsed(text: &str) -> ResolvConf {
    ResolvConf::parse(text, |interface| {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SOCKET_FLAGS, None).ok()?;
        netdevice::name_to_index(&socket, interface).ok()
    })
}

/// Random numbers of the kernel.
struct Kernel {
    numbers: [u8; IDS],
    at: usize,
}

impl Ids for Kernel {
    fn next(&mut self) -> u16 {
        if self.at + 2 > IDS {
            // Up to 256 octets come whole, and cannot fail on a system that has started.
            let filled = getrandom(&mut self.numbers, GetRandomFlags::empty());
            assert_eq!(filled, Ok(IDS), "random numbers");
            self.at = 0;
        }
        self.at += 2;
        u16::from_be_bytes([self.numbers[self.at - 2], self.numbers[self.at - 1]])
    }
}
