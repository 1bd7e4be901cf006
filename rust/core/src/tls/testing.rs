//! An engine without cryptography, for tests: the handshake is `hello!`, octet 0x18 is a failure, octet 0x04 the
//! end.

use super::client::{ClientEngines, Policy};
use super::engine::{Engine, Engines, Failure};
use super::facts::Facts;
use std::sync::Arc;

/// The peer's half of the handshake.
pub const HELLO: &[u8] = b"hello!";
const BROKEN: u8 = 0x18;
const END: u8 = 0x04;

/// An engine whose octets are the plaintext.
#[derive(Debug, Default)]
pub struct Plain {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Engine for Plain {
    fn receive(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
    }

    fn shake(&mut self) -> Result<bool, Failure> {
        let compared = self.input.len().min(HELLO.len());
        if self.input[..compared] != HELLO[..compared] {
            return Err(Failure { problems: vec!["error:wrong version number".into()], ..Failure::default() });
        }
        if compared < HELLO.len() {
            return Ok(false);
        }
        self.input.drain(..HELLO.len());
        self.output.extend_from_slice(b"<shaken>");
        Ok(true)
    }

    fn read(&mut self, plain: &mut Vec<u8>) -> Result<bool, Failure> {
        let input = std::mem::take(&mut self.input);
        let end = input.iter().position(|octet| [BROKEN, END].contains(octet));
        plain.extend_from_slice(&input[..end.unwrap_or(input.len())]);
        match end.map(|end| input[end]) {
            Some(BROKEN) => Err(Failure::default()),
            found => Ok(found.is_none()),
        }
    }

    fn write(&mut self, plain: &[u8]) -> Result<(), Failure> {
        self.output.push(b'<');
        self.output.extend_from_slice(plain);
        self.output.push(b'>');
        Ok(())
    }

    fn close(&mut self) {
        self.output.extend_from_slice(b"<bye>");
    }

    fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    fn facts(&self) -> Facts {
        Facts {
            protocol: "TLSv1.3".into(),
            cipher: "NONE".into(),
            used_bits: 256,
            cipher_bits: 256,
            ..Facts::default()
        }
    }
}

/// The source of such engines.
#[derive(Debug)]
pub struct Plains;

impl ClientEngines for Plains {
    fn connect(&self, _policy: &Arc<Policy>) -> Result<Box<dyn Engine>, Failure> {
        Ok(Box::new(Plain::default()))
    }
}

impl Engines for Plains {
    fn accept(&self) -> Result<Box<dyn Engine>, Failure> {
        Ok(Box::new(Plain::default()))
    }
}
