//! One socket and its dialogue.

use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Output above this is not taken from the kernel: the peer does not read, and is not read from either.
pub const BLOCKED_OCTETS: usize = 64 * 1024;

/// What stands between the octets of a connection: a protocol core.
pub trait Dialogue {
    /// Take octets as they came. 0: the output answers them, or more must come; anything else is for the owner.
    fn receive(&mut self, octets: &[u8], now: f64) -> i8;
    /// What is to be written.
    fn take_output(&mut self) -> Option<Vec<u8>>;
    /// Is there room for more octets? If not, they stay with the peer until something was answered.
    fn wants_input(&self) -> bool {
        true
    }
    /// The connection is closed.
    fn lost(&mut self) {}
}

/// What reading has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing, for now.
    Nothing,
    /// Octets that the dialogue dealt with; the code is for the owner unless it is 0.
    Turn(i8),
    /// The peer says nothing more.
    End,
    /// The connection is broken.
    Broken,
}

/// A socket, what is to be written to it, and whether it is read from.
pub(super) struct Connection<D> {
    pub socket: OwnedFd,
    pub dialogue: Option<D>,
    /// Not written yet: the octets from `written` on.
    output: Vec<u8>,
    written: usize,
    /// A connection that is being made.
    pub connecting: bool,
    /// The peer has said all that it will.
    pub ended: bool,
    /// Close when everything is written.
    pub closing: bool,
    /// The owner waits for the output to go out.
    pub blocked: bool,
    /// What the poller was told to look for; `None` while it does not know the socket.
    pub watched: Option<EventFlags>,
}

impl<D: Dialogue> Connection<D> {
    pub fn new(socket: OwnedFd, connecting: bool) -> Self {
        Self {
            socket,
            dialogue: None,
            output: Vec::new(),
            written: 0,
            connecting,
            ended: false,
            closing: false,
            blocked: false,
            watched: None,
        }
    }

    /// Octets that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.output.len() - self.written
    }

    /// What the poller is to look for now.
    pub fn wanted(&self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        if self.connecting || self.unwritten() > 0 {
            wanted |= EventFlags::OUT;
        }
        let listens = !self.connecting && !self.ended && !self.closing && self.unwritten() <= BLOCKED_OCTETS;
        if listens && self.dialogue.as_ref().is_some_and(Dialogue::wants_input) {
            wanted |= EventFlags::IN;
        }
        wanted
    }

    /// Read once and let the dialogue answer. `buffer` is lent for the time of the call.
    pub fn read(&mut self, buffer: &mut [u8], now: f64) -> Heard {
        let Some(dialogue) = &mut self.dialogue else {
            return Heard::Nothing;
        };
        let octets = match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => {
                self.ended = true;
                return Heard::End;
            }
            Ok((octets, _)) => octets,
            Err(Errno::AGAIN | Errno::INTR) => return Heard::Nothing,
            Err(_) => return Heard::Broken,
        };
        let code = dialogue.receive(&buffer[..octets], now);
        if code > 0 {
            // The owner decides, and the answer goes out with what is there already.
            return Heard::Turn(code);
        }
        let written = dialogue.take_output().is_none_or(|output| self.write(output));
        if written { Heard::Turn(code) } else { Heard::Broken }
    }

    /// Write what can be written now and keep the rest. False when the connection is broken.
    pub fn write(&mut self, octets: Vec<u8>) -> bool {
        if self.unwritten() > 0 || self.connecting {
            self.output.extend_from_slice(&octets);
            return true;
        }
        (self.output, self.written) = (octets, 0);
        self.flush()
    }

    /// Write on. False when the connection is broken.
    pub fn flush(&mut self) -> bool {
        while self.unwritten() > 0 {
            match send(&self.socket, &self.output[self.written..], SendFlags::NOSIGNAL) {
                Ok(octets) => self.written += octets,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Do not carry along for long what is written already.
                    if self.written > BLOCKED_OCTETS {
                        self.output.drain(..self.written);
                        self.written = 0;
                    }
                    return true;
                }
                Err(_) => return false,
            }
        }
        (self.output, self.written) = (Vec::new(), 0);
        true
    }
}
