//! A library of mechanisms for tests: two of them, without cryptography.
//!
//! PLAIN speaks first. LOGIN waits for the server and answers two challenges, with the user and the password; after
//! a challenge `proof` it is content with the server, which it wants when the password is `prove it`.

use super::credentials::Secret;
use super::kind::Kind;
use super::mechanism::{Failure, Mechanism, Mechanisms, Request};

/// The library.
#[derive(Debug)]
pub struct Fake;

#[derive(Debug)]
struct Exchange {
    kind: Kind,
    request: Request,
    step: usize,
    proved: bool,
}

impl Mechanisms for Fake {
    fn start(&self, kind: Kind, request: &Request) -> Result<Box<dyn Mechanism>, Failure> {
        if request.credentials.user.is_empty() {
            return Err(Failure::client("the user has no name"));
        }
        Ok(Box::new(Exchange { kind, request: request.clone(), step: 0, proved: false }))
    }
}

impl Mechanism for Exchange {
    fn begin(&mut self) -> Result<Option<Secret>, Failure> {
        let credentials = &self.request.credentials;
        let plain = [b"\0", credentials.user.as_bytes(), b"\0", credentials.password.expose()].concat();
        Ok(match self.kind {
            Kind::Plain => Some(Secret::new(plain)),
            Kind::External => Some(Secret::default()),
            _ => None,
        })
    }

    fn respond(&mut self, challenge: &[u8]) -> Result<Secret, Failure> {
        if challenge == b"nonsense" {
            return Err(Failure::challenge("this is nonsense"));
        }
        if challenge == b"proof" {
            self.proved = true;
            return Ok(Secret::default());
        }
        self.step += 1;
        match (self.kind, self.step) {
            (Kind::Login, 1) => Ok(Secret::new(self.request.credentials.user.as_bytes())),
            (Kind::Login, 2) => Ok(self.request.credentials.password.clone()),
            (Kind::CramMd5, _) => Ok(Secret::new(challenge)),
            _ => Err(Failure::client("a challenge after the last one")),
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let wants_proof = self.request.credentials.password.expose() == b"prove it";
        if wants_proof && !self.proved { Err(Failure::server("the server proves nothing")) } else { Ok(()) }
    }
}
