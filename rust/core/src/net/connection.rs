//! One socket and its dialogue, perhaps with TLS between them.

use crate::tls::{self, Channel, Facts, Failure};
use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Maximum number of octets that wait to be written. Above it a client is not read from.
pub const BLOCKED_OCTETS: usize = 64 * 1024;

/// The protocol core of a connection: octets in, octets out.
pub trait Dialogue {
    /// The next step of the owner.
    type Next: Copy + std::fmt::Debug + PartialEq;
    /// Whether the peer is read from while more than `BLOCKED_OCTETS` wait to be written: a server may refuse a message
    /// before its end.
    const HEARS_WHILE_BLOCKED: bool = false;
    /// Whether the output answers everything, so that the owner need not know.
    fn is_idle(next: Self::Next) -> bool;
    /// Whether the output waits for the owner's answer, or for its `finish`.
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
    /// A system call has failed with this error, so the connection is broken. `lost` follows.
    fn broke(&mut self, _why: Errno) {}
    /// The TLS channel through which all further octets go, after a step that asked for it.
    fn take_channel(&mut self) -> Option<Channel> {
        None
    }
    /// The handshake is complete.
    fn secured(&mut self, _facts: Box<Facts>, _now: f64) -> Self::Next {
        unreachable!("a dialogue without a channel has no handshake")
    }
    /// The handshake, or the channel, has failed: nothing more is heard or said.
    fn insecure(&mut self, _failure: &Failure, _now: f64) -> Self::Next {
        unreachable!("a dialogue without a channel has no handshake")
    }
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
    /// All octets go through it, once TLS has begun.
    channel: Option<Channel>,
    /// Not written yet: the octets from `written` on.
    output: Vec<u8>,
    written: usize,
    /// A connection that is being made.
    pub connecting: bool,
    /// The peer has closed its side.
    pub ended: bool,
    /// It has closed its side of the channel, and the owner does not know it yet.
    has_news_of_end: bool,
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
            channel: None,
            output: Vec::new(),
            written: 0,
            connecting,
            ended: false,
            has_news_of_end: false,
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
        let has_room = D::HEARS_WHILE_BLOCKED || self.unwritten() <= BLOCKED_OCTETS;
        let listens = !self.connecting && !self.ended && !self.closing && has_room;
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
            Err(why) => {
                dialogue.broke(why);
                return Heard::Broken;
            }
        };
        let next = match &mut self.channel {
            None => Some(dialogue.receive(&buffer[..octets], now)),
            Some(channel) => {
                let heard = channel.receive(&buffer[..octets]);
                if heard.ended && !self.ended {
                    (self.ended, self.has_news_of_end) = (true, true);
                }
                through(heard, dialogue, now)
            }
        };
        // The octets of a channel wait for no decision of the owner, but they go out with the dialogue's output.
        let is_written = if next.is_some_and(D::is_question) { self.send_sealed() } else { self.say() };
        match next {
            _ if !is_written => Heard::Broken,
            Some(next) => Heard::Next(next),
            None => Heard::Nothing,
        }
    }

    /// Return whether the peer's last octets have closed its side of the channel; true once.
    pub fn take_end(&mut self) -> bool {
        std::mem::take(&mut self.has_news_of_end)
    }

    /// Write the output of the dialogue, and of its channel. False when the connection is broken.
    pub fn say(&mut self) -> bool {
        match self.dialogue.as_mut().and_then(Dialogue::take_output) {
            Some(output) => self.write(output),
            None => self.send_sealed(),
        }
    }

    /// Let all further octets of the dialogue go through its channel, and write what the channel says first. The
    /// dialogue's output before is written already. False when the connection is broken.
    pub fn secure(&mut self) -> bool {
        if self.channel.is_none() {
            self.channel = self.dialogue.as_mut().and_then(Dialogue::take_channel);
        }
        self.send_sealed()
    }

    /// Write the output of the dialogue, and tell the peer that nothing follows. False when the connection is broken.
    pub fn say_last(&mut self) -> bool {
        let Some(channel) = &mut self.channel else { return self.say() };
        if let Some(output) = self.dialogue.as_mut().and_then(Dialogue::take_output) {
            channel.send(&output);
        }
        channel.close();
        self.send_sealed()
    }

    /// Write what can be written now and keep the rest. False when the connection is broken.
    pub fn write(&mut self, octets: Vec<u8>) -> bool {
        match &mut self.channel {
            None => self.send(octets),
            Some(channel) => {
                channel.send(&octets);
                self.send_sealed()
            }
        }
    }

    /// Write the channel's octets for the peer. False when the connection is broken.
    fn send_sealed(&mut self) -> bool {
        let sealed = self.channel.as_mut().map(Channel::take_output).unwrap_or_default();
        sealed.is_empty() || self.send(sealed)
    }

    fn send(&mut self, octets: Vec<u8>) -> bool {
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
                Err(why) => {
                    if let Some(dialogue) = &mut self.dialogue {
                        dialogue.broke(why);
                    }
                    return false;
                }
            }
        }
        (self.output, self.written) = (Vec::new(), 0);
        true
    }
}

/// Let a dialogue hear what came through its channel; return its last step, if it has heard anything.
fn through<D: Dialogue>(heard: tls::Heard, dialogue: &mut D, now: f64) -> Option<D::Next> {
    let mut next = heard.established.map(|facts| dialogue.secured(facts, now));
    if !heard.plain.is_empty() {
        next = Some(dialogue.receive(&heard.plain, now));
    }
    if let Some(failure) = &heard.failure {
        next = Some(dialogue.insecure(failure, now));
    }
    next
}
