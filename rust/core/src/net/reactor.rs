//! All connections of a process on one descriptor.
//!
//! The owner waits, and calls `poll`, which reads every socket that is ready, lets the dialogues answer, writes, and
//! returns the questions to the owner: a batch of connections costs one call. Only `wait` blocks.

use super::connection::{BLOCKED_OCTETS, Connection, Dialogue, Heard};
use super::outbound::SOCKET_FLAGS;
use super::ready::ready;
use crate::slab::Slab;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{acceptfrom_with, sockopt};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Octets of one read.
const READ_OCTETS: usize = 64 * 1024;
/// Maximum number of sockets that are served each time.
const EVENTS_MAX: usize = 256;
/// Maximum number of times that the poller is asked in one call.
const POLLS_MAX: usize = 4;
/// Maximum number of connections accepted from one listener each time, so that several processes share the clients.
const ACCEPTS_MAX: usize = 8;
/// Events of listeners carry their number with this bit.
const LISTENER: u64 = 1 << 63;

/// The key of a connection. It is never used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    slot: u32,
    serial: u64,
}

impl Key {
    /// The key as a number. It differs from that of the last two thousand million connections.
    pub fn token(self) -> u64 {
        (self.serial << 32 & !LISTENER) | u64::from(self.slot)
    }
}

/// Something that the owner must know. `Lost` is the last one of a connection.
#[derive(Debug)]
pub enum Happening<N> {
    /// A client connected, from this address unless the socket is local. It is read from once it has a dialogue.
    Accepted(Key, Option<SocketAddr>),
    /// No client can be accepted. `accept(true)` tries again.
    AcceptFailed(io::Error),
    /// A connection that was begun is established. A failure is the last event of its connection.
    Connected(Key, Result<(), io::Error>),
    /// The next step of the owner for a dialogue.
    Next(Key, N),
    /// The peer has closed its side.
    Ended(Key),
    /// The output is written; only after `write` has returned that it waits.
    Drained(Key),
    /// The connection is closed, by whichever side.
    Lost(Key),
}

/// The sockets of a process and their dialogues.
pub struct Reactor<D: Dialogue> {
    poller: OwnedFd,
    listeners: Vec<OwnedFd>,
    accepting: bool,
    connections: Slab<Connection<D>>,
    /// Events of the owner's own calls, for the next poll.
    pending: Vec<Happening<D::Next>>,
    buffer: Box<[u8]>,
}

impl<D: Dialogue> Reactor<D> {
    /// Return a reactor without sockets.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poller: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            listeners: Vec::new(),
            accepting: false,
            connections: Slab::default(),
            pending: Vec::new(),
            buffer: vec![0; READ_OCTETS].into(),
        })
    }

    /// Whether a call of the owner made something happen that `poll` will tell.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Return the number of open connections.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Return whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Listen on a copy of this socket. Clients are accepted after `accept(true)`.
    pub fn listen(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        let listener = listener.try_clone_to_owned()?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        // Connections inherit it. A reply does not wait for the acknowledgement of another.
        let _ = sockopt::set_tcp_nodelay(&listener, true);
        self.listeners.push(listener);
        if self.accepting {
            let number = self.listeners.len() - 1;
            self.watch_listener(number)?;
        }
        Ok(())
    }

    /// Accept clients from now on, or leave them in the sockets' queues.
    pub fn accept(&mut self, accepting: bool) -> io::Result<()> {
        if self.accepting == accepting {
            return Ok(());
        }
        self.accepting = accepting;
        for number in 0..self.listeners.len() {
            if accepting {
                self.watch_listener(number)?;
            } else {
                epoll::delete(&self.poller, &self.listeners[number])?;
            }
        }
        Ok(())
    }

    fn watch_listener(&self, number: usize) -> io::Result<()> {
        let data = EventData::new_u64(LISTENER | number as u64);
        Ok(epoll::add(&self.poller, &self.listeners[number], data, EventFlags::IN)?)
    }

    /// Add a connected socket, or one that is `connecting`: then `Connected` follows.
    pub fn open(&mut self, socket: OwnedFd, connecting: bool) -> Key {
        let (slot, serial) = self.connections.insert(Connection::new(socket, connecting));
        let key = Key { slot, serial };
        self.watch(key);
        key
    }

    /// Set the dialogue of a connection, and begin to read.
    pub fn attach(&mut self, key: Key, dialogue: D) {
        if let Some(connection) = self.connection(key) {
            connection.dialogue = Some(dialogue);
            self.watch(key);
        }
    }

    /// Return the dialogue of a connection. Call `flush` after a change that the peer did not cause.
    pub fn dialogue(&mut self, key: Key) -> Option<&mut D> {
        self.connection(key)?.dialogue.as_mut()
    }

    /// Write the dialogue's output, and read again if it wants input. Return whether more than `BLOCKED_OCTETS` wait now:
    /// then `Drained` follows.
    pub fn flush(&mut self, key: Key) -> bool {
        let Some(connection) = self.connection(key).filter(|connection| !connection.closing) else { return false };
        if !connection.say() {
            self.lose(key);
            return false;
        }
        connection.blocked |= connection.unwritten() > BLOCKED_OCTETS;
        let blocked = connection.blocked;
        // A connection that wants no event is often closed next; if not, its next event tells the poller.
        if !connection.wanted().is_empty() {
            self.watch(key);
        }
        blocked
    }

    /// Write the dialogue's output; all further octets go through its TLS channel.
    pub fn secure(&mut self, key: Key) {
        self.flush(key);
        if let Some(connection) = self.connection(key) {
            if connection.secure() {
                self.watch(key);
            } else {
                self.lose(key);
            }
        }
    }

    /// Read once, without waiting for the poller; return what the owner does next if octets were there.
    pub fn hear(&mut self, key: Key, now: f64) -> Option<D::Next> {
        let connection = self.connections.same_mut(key.slot, key.serial)?;
        let heard = connection.read(&mut self.buffer, now);
        if heard == Heard::End || connection.take_end() {
            self.pending.push(Happening::Ended(key));
        }
        match heard {
            Heard::Next(next) => return Some(next),
            Heard::Nothing | Heard::End => {}
            Heard::Broken => self.lose(key),
        }
        None
    }

    /// Return a descriptor that is readable while `poll` has something to do, except for events of the owner's own calls.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }

    /// Append the events of the owner's own calls since the last poll.
    pub fn take_pending(&mut self, happened: &mut Vec<Happening<D::Next>>) {
        happened.append(&mut self.pending);
    }

    /// Write after the output that waits. Return whether more than `BLOCKED_OCTETS` wait now: then `Drained` follows.
    pub fn write(&mut self, key: Key, octets: Vec<u8>) -> bool {
        let Some(connection) = self.connection(key) else {
            return false;
        };
        if connection.closing {
            return false;
        }
        if !connection.write(octets) {
            self.lose(key);
            return false;
        }
        connection.blocked = connection.unwritten() > BLOCKED_OCTETS;
        let blocked = connection.blocked;
        self.watch(key);
        blocked
    }

    /// Write the dialogue's output, and close when everything is written.
    pub fn finish(&mut self, key: Key) {
        if let Some(connection) = self.connection(key)
            && !connection.say_last()
        {
            return self.lose(key);
        }
        self.close(key);
    }

    /// Close when everything is written.
    pub fn close(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else {
            return;
        };
        if connection.unwritten() == 0 {
            return self.lose(key);
        }
        connection.closing = true;
        self.watch(key);
    }

    /// Close at once.
    pub fn abort(&mut self, key: Key) {
        if self.connection(key).is_some() {
            self.lose(key);
        }
    }

    /// Return the number of octets that wait to be written.
    pub fn unwritten(&mut self, key: Key) -> usize {
        self.connection(key).map_or(0, |connection| connection.unwritten())
    }

    /// Wait until `poll` has something to do, with a timeout: for a thread that has no other loop.
    pub fn wait(&self, time: Duration) -> io::Result<()> {
        if !self.pending.is_empty() {
            return Ok(());
        }
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.poller, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Serve all ready sockets, and append the events for the owner to `happened`, in order for each connection.
    pub fn poll(&mut self, now: f64, happened: &mut Vec<Happening<D::Next>>) -> io::Result<()> {
        self.take_pending(happened);
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        for _ in 0..POLLS_MAX {
            if !ready(&self.poller, &mut events)? {
                break;
            }
            let questions = happened.len();
            for event in &events {
                let (data, flags) = (event.data.u64(), event.flags);
                if data & LISTENER != 0 {
                    self.accept_from((data & !LISTENER) as usize, happened);
                } else if let Some(key) = self.key_of(data) {
                    self.serve(key, flags, now, happened);
                }
            }
            happened.append(&mut self.pending);
            if happened.len() > questions {
                // A session waits for the owner's answer.
                break;
            }
        }
        Ok(())
    }

    fn accept_from(&mut self, number: usize, happened: &mut Vec<Happening<D::Next>>) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = self.listeners.get(number).filter(|_| self.accepting) else {
                return;
            };
            match acceptfrom_with(listener, SOCKET_FLAGS) {
                Ok((socket, peer)) => {
                    let key = self.open(socket, false);
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    happened.push(Happening::Accepted(key, peer));
                }
                // The client is gone again.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    // It would stay ready and fail again: the owner says when.
                    if let Err(error) = self.accept(false) {
                        happened.push(Happening::AcceptFailed(error));
                    }
                    happened.push(Happening::AcceptFailed(error.into()));
                    return;
                }
            }
        }
    }

    fn serve(&mut self, key: Key, flags: EventFlags, now: f64, happened: &mut Vec<Happening<D::Next>>) {
        let Some(connection) = self.connections.get_mut(key.slot) else {
            return;
        };
        if connection.connecting {
            connection.connecting = false;
            let made = match sockopt::socket_error(&connection.socket) {
                Ok(made) => made.map_err(io::Error::from),
                Err(error) => Err(error.into()),
            };
            if made.is_err() {
                self.connections.remove(key.slot);
            }
            // The owner attaches a dialogue or closes, which tells the poller what to watch.
            return happened.push(Happening::Connected(key, made));
        }
        if flags.contains(EventFlags::OUT) {
            if !connection.flush() {
                return self.lose(key);
            }
            if connection.unwritten() == 0 {
                if connection.closing {
                    return self.lose(key);
                }
                if std::mem::take(&mut connection.blocked) {
                    happened.push(Happening::Drained(key));
                }
            }
        }
        let broken = EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(EventFlags::IN | broken) {
            if connection.wanted().contains(EventFlags::IN) {
                let heard = connection.read(&mut self.buffer, now);
                let is_over = heard == Heard::End || connection.take_end();
                let mut is_left_to_owner = false;
                match heard {
                    Heard::Nothing | Heard::End => {}
                    Heard::Next(next) if D::is_idle(next) => {}
                    Heard::Next(next) => {
                        // The owner calls `flush` or `close`, which tell the poller what to watch.
                        is_left_to_owner = true;
                        happened.push(Happening::Next(key, next));
                    }
                    Heard::Broken => return self.lose(key),
                }
                if is_over {
                    happened.push(Happening::Ended(key));
                }
                if is_left_to_owner {
                    return;
                }
            } else if flags.intersects(broken) {
                // Nothing is read any more, and nothing can be written.
                return self.lose(key);
            }
        }
        self.watch(key);
    }

    /// Return the open connection of a `Key::token`.
    pub fn key_of(&self, token: u64) -> Option<Key> {
        let slot = token as u32;
        self.connections.get(slot)?;
        let key = Key { slot, serial: self.connections.serial(slot) };
        (key.token() == token).then_some(key)
    }

    fn connection(&mut self, key: Key) -> Option<&mut Connection<D>> {
        if self.connections.is(key.slot, key.serial) { self.connections.get_mut(key.slot) } else { None }
    }

    /// Tell the poller the wanted events of a connection if they changed.
    fn watch(&mut self, key: Key) {
        let poller = &self.poller;
        let Some(connection) = self.connections.get_mut(key.slot) else {
            return;
        };
        let wanted = connection.wanted();
        if connection.watched == Some(wanted) || connection.watched.is_none() && wanted.is_empty() {
            return;
        }
        let data = EventData::new_u64(key.token());
        let told = match connection.watched {
            None => epoll::add(poller, &connection.socket, data, wanted),
            Some(_) => epoll::modify(poller, &connection.socket, data, wanted),
        };
        match told {
            Ok(()) => connection.watched = Some(wanted),
            // Out of memory, or of watches (fs.epoll.max_user_watches).
            Err(_) => self.lose(key),
        }
    }

    fn lose(&mut self, key: Key) {
        // This closes the socket, and the poller forgets it.
        if let Some(connection) = self.connections.remove(key.slot) {
            if let Some(mut dialogue) = connection.dialogue {
                dialogue.lost();
            }
            self.pending.push(Happening::Lost(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketType, socketpair};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    /// Answers each line with its length; `?` is a question to the owner, a line `end` ends.
    #[derive(Default)]
    struct Lengths {
        input: Vec<u8>,
        output: Vec<u8>,
    }

    impl Dialogue for Lengths {
        type Next = i8;

        fn is_idle(next: i8) -> bool {
            next == 0
        }

        fn is_question(next: i8) -> bool {
            next > 0
        }

        fn receive(&mut self, octets: &[u8], _now: f64) -> i8 {
            self.input.extend_from_slice(octets);
            while let Some(at) = self.input.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.input.drain(..=at).collect();
                match &line[..] {
                    b"?\n" => return 1,
                    b"end\n" => return -1,
                    b"flood\n" => self.output.extend(std::iter::repeat_n(b'x', 4_000_000)),
                    line => self.output.extend_from_slice(format!("{}\n", line.len()).as_bytes()),
                }
            }
            0
        }

        fn take_output(&mut self) -> Option<Vec<u8>> {
            (!self.output.is_empty()).then(|| std::mem::take(&mut self.output))
        }
    }

    fn poll_once(reactor: &mut Reactor<Lengths>) -> Vec<Happening<i8>> {
        let mut happened = Vec::new();
        reactor.poll(0.0, &mut happened).unwrap();
        happened
    }

    fn pair(reactor: &mut Reactor<Lengths>) -> (UnixStream, Key) {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SOCKET_FLAGS, None).unwrap();
        let key = reactor.open(ours, false);
        reactor.attach(key, Lengths::default());
        let peer = UnixStream::from(theirs);
        (peer, key)
    }

    fn heard(peer: &mut UnixStream) -> String {
        let mut buffer = [0; 100];
        match peer.read(&mut buffer) {
            Ok(octets) => String::from_utf8_lossy(&buffer[..octets]).into_owned(),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    #[test]
    fn input_without_a_question_is_answered_within_the_poll() {
        let mut reactor = Reactor::new().unwrap();
        let (mut one, _) = pair(&mut reactor);
        let (mut two, key) = pair(&mut reactor);
        one.write_all(b"abc\nde\n").unwrap();
        two.write_all(b"?\n").unwrap();
        let happened = poll_once(&mut reactor);
        assert!(matches!(happened[..], [Happening::Next(asker, 1)] if asker == key), "{happened:?}");
        assert_eq!(heard(&mut one), "4\n3\n");
        assert_eq!(heard(&mut two), "WouldBlock");
        assert!(!reactor.write(key, b"yes\n".to_vec()));
        assert_eq!(heard(&mut two), "yes\n");
        assert!(poll_once(&mut reactor).is_empty());
    }

    #[test]
    fn an_end_is_told_once_and_a_loss_last() {
        let mut reactor = Reactor::new().unwrap();
        let (mut peer, key) = pair(&mut reactor);
        peer.write_all(b"abc\n").unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let happened = poll_once(&mut reactor);
        assert!(matches!(happened[..], [Happening::Ended(ended)] if ended == key), "{happened:?}");
        assert!(poll_once(&mut reactor).is_empty());
        reactor.close(key);
        assert!(reactor.has_pending());
        assert!(matches!(poll_once(&mut reactor)[..], [Happening::Lost(lost)] if lost == key));
        assert!(!reactor.write(key, b"late".to_vec()));
        reactor.abort(key);
        assert!(poll_once(&mut reactor).is_empty() && reactor.is_empty());
        assert_eq!((heard(&mut peer), heard(&mut peer)), ("4\n".into(), String::new()));
    }

    #[test]
    fn a_connection_that_the_peer_breaks_is_lost() {
        let mut reactor = Reactor::new().unwrap();
        let (mut peer, key) = pair(&mut reactor);
        peer.write_all(b"flood\n").unwrap();
        assert!(poll_once(&mut reactor).is_empty());
        assert!(reactor.unwritten(key) > BLOCKED_OCTETS, "it is not read from");
        drop(peer);
        assert!(matches!(poll_once(&mut reactor)[..], [Happening::Lost(lost)] if lost == key));
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_read_from_and_gets_everything_later() {
        let mut reactor = Reactor::new().unwrap();
        let (mut peer, key) = pair(&mut reactor);
        peer.write_all(b"flood\n").unwrap();
        assert!(poll_once(&mut reactor).is_empty());
        assert!(reactor.unwritten(key) > BLOCKED_OCTETS);
        peer.write_all(b"?\n").unwrap();
        assert!(poll_once(&mut reactor).is_empty(), "the question waits in the socket");
        assert!(reactor.write(key, b"end".to_vec()), "more waits than a peer that reads would leave");
        let mut got = 0;
        let mut happened = Vec::new();
        while got < 4_000_003 {
            let mut buffer = [0; 65536];
            match peer.read(&mut buffer) {
                Ok(octets) => got += octets,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            happened.extend(poll_once(&mut reactor));
        }
        happened.extend(poll_once(&mut reactor));
        assert!(matches!(happened[..], [Happening::Drained(_), Happening::Next(_, 1)]), "{happened:?}");
    }

    #[test]
    fn output_goes_out_before_the_connection_closes() {
        let mut reactor = Reactor::new().unwrap();
        let (mut peer, key) = pair(&mut reactor);
        reactor.write(key, vec![b'x'; 4_000_000]);
        reactor.close(key);
        let mut got = 0;
        let mut buffer = [0; 65536];
        loop {
            match peer.read(&mut buffer) {
                Ok(0) => break,
                Ok(octets) => got += octets,
                Err(_) => {
                    poll_once(&mut reactor);
                }
            }
        }
        assert_eq!(got, 4_000_000);
    }

    #[test]
    fn clients_are_accepted_only_while_there_is_room() {
        let mut reactor: Reactor<Lengths> = Reactor::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        reactor.listen(listener.as_fd()).unwrap();
        drop(listener);
        let mut client = TcpStream::connect(address).unwrap();
        assert!(poll_once(&mut reactor).is_empty());
        reactor.accept(true).unwrap();
        let happened = poll_once(&mut reactor);
        let [Happening::Accepted(key, Some(_))] = happened[..] else { panic!("{happened:?}") };
        reactor.accept(false).unwrap();
        let _other = TcpStream::connect(address).unwrap();
        client.write_all(b"early\n").unwrap();
        assert!(poll_once(&mut reactor).is_empty(), "it has no dialogue yet");
        reactor.attach(key, Lengths::default());
        while poll_once(&mut reactor).is_empty() {
            let mut answer = [0; 2];
            client.set_nonblocking(true).unwrap();
            if client.read_exact(&mut answer).is_ok() {
                assert_eq!(&answer, b"6\n");
                break;
            }
        }
        drop(reactor);
        assert!(TcpStream::connect(address).is_err());
    }
}
