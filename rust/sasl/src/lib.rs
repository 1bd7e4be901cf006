//! SASL mechanisms for Postillion's clients: the library behind `postillion_core::sasl`.
//!
//! ```text
//! standard   PLAIN, LOGIN, EXTERNAL and SCRAM, by rsasl
//! scram      the check of a server's SCRAM messages before rsasl reads them
//! cram_md5   CRAM-MD5, which rsasl does not have
//! bearer     OAUTHBEARER and XOAUTH2: rsasl's answer to a server's error is not that of RFC 7628
//! ```

#![forbid(unsafe_code)]

mod bearer;
mod cram_md5;
mod scram;
mod standard;

pub use scram::ITERATIONS_MAX;

use bearer::Bearer;
use cram_md5::CramMd5;
use postillion_core::sasl::{Failure, Kind, Mechanism, Mechanisms, Request};
use standard::Standard;

/// The error for a challenge that a mechanism does not have.
const TOO_MANY: Failure = Failure::client("the server sends a challenge after the last one");

/// All mechanisms.
#[derive(Debug, Clone, Copy)]
pub struct Library;

impl Mechanisms for Library {
    fn start(&self, kind: Kind, request: &Request) -> Result<Box<dyn Mechanism>, Failure> {
        if request.credentials.user.is_empty() && kind != Kind::External {
            return Err(Failure::client("the user name is empty"));
        }
        Ok(match kind {
            Kind::CramMd5 => Box::new(CramMd5::new(request)),
            Kind::OauthBearer | Kind::Xoauth2 => Box::new(Bearer::new(kind, request)?),
            _ => Box::new(Standard::new(kind, request)?),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use postillion_core::sasl::Credentials;
    use std::sync::Arc;

    pub(crate) fn request(user: &str, password: &str) -> Request {
        Request { credentials: Arc::new(Credentials::new(user, password.as_bytes())), names_identity: false }
    }

    #[test]
    fn no_mechanism_shows_the_password() {
        for kind in Kind::ALL {
            let mut mechanism = Library.start(kind, &request("user", "canary")).unwrap();
            let begun = format!("{mechanism:?}");
            let initial = mechanism.begin().unwrap();
            let shown = format!("{begun} {mechanism:?} {initial:?} {:?}", mechanism.respond(b"x"));
            for form in ["canary", "99, 97, 110, 97"] {
                assert!(!shown.contains(form), "{shown}");
            }
        }
    }

    #[test]
    fn a_user_has_a_name() {
        for kind in Kind::ALL {
            assert_eq!(Library.start(kind, &request("", "x")).is_ok(), kind == Kind::External);
        }
    }
}
