//! A TLS connection between a socket and its dialogue.

use super::engine::{Engine, Failure};
use super::facts::{Facts, Shown};

/// The state of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Handshake,
    Open,
    /// Nothing is read or written any more.
    Over,
}

/// The result of octets from the peer.
#[derive(Debug, Default)]
pub struct Heard {
    /// The handshake is complete.
    pub established: Option<Box<Facts>>,
    /// The peer's plaintext.
    pub plain: Vec<u8>,
    /// The peer says nothing behind `plain`: it has sent close_notify.
    pub ended: bool,
    /// The handshake or the connection has failed. The octets before are in `plain`.
    pub failure: Option<Failure>,
}

/// A TLS connection.
pub struct Channel {
    engine: Box<dyn Engine>,
    state: State,
}

impl Channel {
    /// Return a channel that begins with the handshake.
    pub fn new(engine: Box<dyn Engine>) -> Self {
        Self { engine, state: State::Handshake }
    }

    /// Begin the handshake as a client: then `take_output` has the first octets for the server. After a failure the channel
    /// is over.
    pub fn begin(&mut self) -> Result<(), Failure> {
        let begun = self.engine.shake();
        if begun.is_err() {
            self.state = State::Over;
        }
        begun.map(|_| ())
    }

    /// Take octets as the peer sent them. Then `take_output` may have some for the peer.
    pub fn receive(&mut self, octets: &[u8]) -> Heard {
        let mut heard = Heard::default();
        if self.state == State::Over {
            return heard;
        }
        self.engine.receive(octets);
        if let Err(failure) = self.go_on(&mut heard) {
            self.state = State::Over;
            heard.failure = Some(failure);
        }
        heard
    }

    fn go_on(&mut self, heard: &mut Heard) -> Result<(), Failure> {
        if self.state == State::Handshake {
            if !self.engine.shake()? {
                return Ok(());
            }
            self.state = State::Open;
            heard.established = Some(Box::new(self.engine.facts()));
        }
        heard.ended = !self.engine.read(&mut heard.plain)?;
        Ok(())
    }

    /// Encrypt plaintext for the peer. Before the handshake is complete, and after a failure, it is dropped: nothing may
    /// go out in the clear.
    pub fn send(&mut self, plain: &[u8]) {
        if self.state == State::Open && self.engine.write(plain).is_err() {
            self.state = State::Over;
        }
    }

    /// Tell the peer that nothing follows.
    pub fn close(&mut self) {
        if self.state == State::Open {
            self.engine.close();
            self.state = State::Over;
        }
    }

    /// Return what the server has shown in the handshake, for a client that tells it to an administrator.
    pub fn shown(&self) -> Shown {
        self.engine.shown()
    }

    /// Return the octets for the peer since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.engine.take_output()
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{HELLO, Plain};

    #[test]
    fn nothing_goes_out_before_the_handshake_and_after_the_end() {
        let mut channel = Channel::new(Box::new(Plain::default()));
        channel.send(b"secret");
        assert_eq!(channel.take_output(), b"");
        assert!(channel.receive(b"hell").established.is_none());
        let heard = channel.receive(b"o!EHLO");
        assert!(heard.established.is_some());
        assert_eq!(heard.plain, b"EHLO");
        channel.send(b"250 ok");
        assert_eq!(channel.take_output(), b"<shaken><250 ok>");
        channel.close();
        channel.send(b"late");
        assert_eq!(channel.take_output(), b"<bye>");
        assert!(channel.receive(b"late").plain.is_empty());
    }

    #[test]
    fn a_client_speaks_first_and_a_failure_of_its_begin_is_final() {
        let mut channel = Channel::new(Box::new(Plain::default()));
        assert_eq!(channel.begin(), Ok(()));
        assert!(channel.receive(HELLO).established.is_some());
        let mut engine = Plain::default();
        engine.receive(b"220 hello");
        let mut channel = Channel::new(Box::new(engine));
        assert!(channel.begin().is_err());
        channel.send(b"secret");
        assert!(channel.receive(HELLO).established.is_none());
        assert_eq!(channel.take_output(), b"");
    }

    #[test]
    fn a_failure_comes_with_the_plaintext_before_it_and_is_final() {
        let mut channel = Channel::new(Box::new(Plain::default()));
        let heard = channel.receive(b"hello!DATA\x18rest");
        assert_eq!((&heard.plain[..], heard.failure.is_some()), (&b"DATA"[..], true));
        channel.send(b"250");
        assert_eq!(channel.take_output(), b"<shaken>");
        let heard = channel.receive(b"more");
        assert!(heard.plain.is_empty() && heard.failure.is_none());
    }

    #[test]
    fn any_split_of_the_input_gives_the_same() {
        let input = b"hello!EHLO a\r\nMAIL FROM:<>\r\n";
        for at in 0..input.len() {
            let mut channel = Channel::new(Box::new(Plain::default()));
            let (mut plain, mut times) = (Vec::new(), 0);
            for piece in [&input[..at], &input[at..]] {
                let heard = channel.receive(piece);
                times += usize::from(heard.established.is_some());
                plain.extend(heard.plain);
            }
            assert_eq!((&plain[..], times), (&b"EHLO a\r\nMAIL FROM:<>\r\n"[..], 1), "{at}");
        }
    }
}
