//! One socket and its dialogue.

use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Maximum number of octets that wait to be written. Above it the peer is not read from.
pub const BLOCKED_OCTETS: usize = 64 * 1024;

/// The protocol core of a connection: octets in, octets out.
pub trait Dialogue {
    /// The next step of the owner.
    type Next: Copy + std::fmt::Debug + PartialEq;
    /// Whether the output answers everything, so that the owner need not know.
    fn is_idle(next: Self::Next) -> bool;
    /// Whether the output waits for the owner's answer.
    fn is_question(next: Self::Next) -> bool;
    /// Take octets as they came.
    fn receive(&mut self, octets: &[u8], now: f64) -> Self::Next;
    /// The octets to be written.
    fn take_output(&mut self) -> Option<Vec<u8>>;
    /// Whether there is room for more octets. If not, they stay with the peer until a question is answered.
    fn wants_input(&self) -> bool {
        true
    }
    /// The connection is closed.
    fn lost(&mut self) {}
}

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard<N> {
    /// Nothing, for now.
    Nothing,
    /// The dialogue has received octets.
    Next(N),
    /// The peer has closed its side.
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
    /// The peer has closed its side.
    pub ended: bool,
    /// Close when everything is written.
    pub closing: bool,
    /// The owner waits for the output to go out.
    pub blocked: bool,
    /// The events that the poller watches; `None` while it does not know the socket.
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

    /// Number of octets that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.output.len() - self.written
    }

    /// The events that the poller should watch now.
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

    /// Read once and let the dialogue answer.
    pub fn read(&mut self, buffer: &mut [u8], now: f64) -> Heard<D::Next> {
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
        let next = dialogue.receive(&buffer[..octets], now);
        if D::is_question(next) {
            // The owner decides, and its answer goes out with the output so far.
            return Heard::Next(next);
        }
        let written = dialogue.take_output().is_none_or(|output| self.write(output));
        if written { Heard::Next(next) } else { Heard::Broken }
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
                    // Free the memory of written octets.
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
