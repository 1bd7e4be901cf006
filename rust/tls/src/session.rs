//! One end of a TLS connection, in memory.

use crate::{facts, guest, link, shown, verify};
use openssl::error::ErrorStack;
use openssl::ssl::{Error, ErrorCode, ShutdownState, Ssl, SslStream};
use postillion_core::tls::facts::Shown;
use postillion_core::tls::{Engine, Facts, Failure};
use std::io::{self, Read, Write};

/// Octets of plaintext in one record (RFC 8446 §5.1).
const RECORD_OCTETS: usize = 16 * 1024;

/// The octets between the library and the socket's owner.
#[derive(Debug, Default)]
struct Pipe {
    input: Vec<u8>,
    used: usize,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let waiting = &self.input[self.used..];
        if waiting.is_empty() {
            self.input = Vec::new();
            self.used = 0;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let octets = waiting.len().min(buffer.len());
        buffer[..octets].copy_from_slice(&waiting[..octets]);
        self.used += octets;
        Ok(octets)
    }
}

impl Write for Pipe {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One end of a connection.
pub struct Session {
    stream: SslStream<Pipe>,
}

impl Session {
    /// Return the end that waits for the other side's first octets.
    pub fn new(mut ssl: Ssl) -> Result<Self, ErrorStack> {
        ssl.set_accept_state();
        Self::of(ssl)
    }

    /// Return the end of a client, which speaks first.
    pub fn connecting(mut ssl: Ssl) -> Result<Self, ErrorStack> {
        ssl.set_connect_state();
        Self::of(ssl)
    }

    fn of(mut ssl: Ssl) -> Result<Self, ErrorStack> {
        verify::prepare(&mut ssl)?;
        Ok(Self { stream: SslStream::new(ssl, Pipe::default())? })
    }
}

impl Engine for Session {
    fn receive(&mut self, octets: &[u8]) {
        self.stream.get_mut().input.extend_from_slice(octets);
    }

    fn shake(&mut self) -> Result<bool, Failure> {
        match self.stream.do_handshake() {
            Ok(()) => Ok(true),
            Err(error) if waits(&error) => Ok(false),
            Err(error) => {
                link::forget(self.stream.ssl());
                let problem = guest::asked(self.stream.ssl()).and_then(|mut asked| asked.problem.take());
                Err(Failure { warnings: problem.into_iter().collect(), ..failure(&error) })
            }
        }
    }

    fn read(&mut self, plain: &mut Vec<u8>) -> Result<bool, Failure> {
        let mut buffer = [0; RECORD_OCTETS];
        loop {
            match self.stream.ssl_read(&mut buffer) {
                Ok(octets) => plain.extend_from_slice(&buffer[..octets]),
                Err(error) if waits(&error) => return Ok(true),
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => return Ok(false),
                Err(error) => return Err(failure(&error)),
            }
        }
    }

    fn write(&mut self, mut plain: &[u8]) -> Result<(), Failure> {
        while !plain.is_empty() {
            let octets = self.stream.ssl_write(plain).map_err(|error| failure(&error))?;
            plain = &plain[octets..];
        }
        Ok(())
    }

    fn close(&mut self) {
        // Nobody waits for the other side's farewell.
        let _ = self.stream.shutdown();
    }

    fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.stream.get_mut().output)
    }

    fn facts(&self) -> Facts {
        let ssl = self.stream.ssl();
        let mut facts = facts::of(ssl);
        guest::add_to(&mut facts, ssl);
        facts
    }

    fn shown(&self) -> Shown {
        shown::of(self.stream.ssl())
    }
}

impl Drop for Session {
    /// A connection that ends without a farewell keeps its session: otherwise the library would mark it as unusable.
    fn drop(&mut self) {
        self.stream.set_shutdown(ShutdownState::SENT | ShutdownState::RECEIVED);
    }
}

fn waits(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::WANT_READ | ErrorCode::WANT_WRITE)
}

fn failure(error: &Error) -> Failure {
    error.ssl_error().map(crate::failure).unwrap_or_default()
}
