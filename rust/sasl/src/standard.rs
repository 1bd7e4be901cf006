//! PLAIN (RFC 4616), LOGIN, EXTERNAL (RFC 4422 appendix A) and SCRAM (RFC 5802, RFC 7677), by rsasl.
//!
//! rsasl takes the randomness of a SCRAM nonce from the thread's generator. Names and passwords are sent as they are in
//! the table, as Debian's Postfix does: no SASLprep.

use crate::TOO_MANY;
use crate::scram::{check_final, check_first};
use postillion_core::sasl::{Failure, Kind, Mechanism, Request, Secret};
use rsasl::callback::{Context, Request as Wanted, SessionCallback, SessionData};
use rsasl::config::SASLConfig;
use rsasl::mechanisms::{external, login, plain, scram};
use rsasl::mechname::Mechname;
use rsasl::prelude::{Mechanism as Implementation, Registry, SASLClient, Session, SessionError, State};
use rsasl::property::{AuthId, AuthzId, Password};
use std::fmt;

static MECHANISMS: [Implementation; 6] =
    [plain::PLAIN, login::LOGIN, external::EXTERNAL, scram::SCRAM_SHA1, scram::SCRAM_SHA256, scram::SCRAM_SHA512];

/// An exchange by rsasl.
pub(crate) struct Standard {
    kind: Kind,
    session: Session,
    /// Number of challenges so far.
    challenges: usize,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// rsasl expects no further challenge.
    Complete,
    /// rsasl panics at a further step.
    Failed,
}

/// Gives rsasl the name and the password.
struct Answers(Request);

impl Standard {
    pub(crate) fn new(kind: Kind, request: &Request) -> Result<Self, Failure> {
        let unusable = Failure::client("rsasl does not have the mechanism");
        let config = SASLConfig::builder()
            .with_registry(Registry::with_mechanisms(&MECHANISMS))
            .with_callback(Answers(request.clone()))
            .map_err(|_| unusable.clone())?;
        let name = Mechname::parse(kind.name().as_bytes()).map_err(|_| unusable.clone())?;
        let session = SASLClient::new(config).start_suggested(&[name]).map_err(|_| unusable)?;
        Ok(Self { kind, session, challenges: 0, stage: Stage::Open })
    }

    fn step(&mut self, challenge: Option<&[u8]>) -> Result<Secret, Failure> {
        let mut response = Vec::new();
        self.stage = Stage::Failed;
        let state =
            self.session.step(challenge, &mut response).map_err(|error| failure(&error, challenge.is_none()))?;
        self.stage = if matches!(state, State::Finished(_)) { Stage::Complete } else { Stage::Open };
        Ok(Secret::new(response))
    }

    fn is_scram(&self) -> bool {
        matches!(self.kind, Kind::ScramSha1 | Kind::ScramSha256 | Kind::ScramSha512)
    }
}

impl Mechanism for Standard {
    fn begin(&mut self) -> Result<Option<Secret>, Failure> {
        // LOGIN has no initial response: servers speak first.
        if self.session.are_we_first() { self.step(None).map(Some) } else { Ok(None) }
    }

    fn respond(&mut self, challenge: &[u8]) -> Result<Secret, Failure> {
        if self.stage != Stage::Open {
            return Err(TOO_MANY);
        }
        self.challenges += 1;
        if self.is_scram() {
            if self.challenges == 1 { check_first(challenge) } else { check_final(challenge) }?;
        }
        self.step(Some(challenge))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if self.is_scram() && self.stage != Stage::Complete {
            return Err(Failure::server("the server did not sign the exchange"));
        }
        Ok(())
    }
}

impl fmt::Debug for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standard")
            .field("kind", &self.kind)
            .field("challenges", &self.challenges)
            .finish_non_exhaustive()
    }
}

impl SessionCallback for Answers {
    fn callback(&self, _: &SessionData, _: &Context<'_>, wanted: &mut Wanted<'_>) -> Result<(), SessionError> {
        let Self(Request { credentials, names_identity }) = self;
        wanted.satisfy::<AuthId>(&credentials.user)?.satisfy::<Password>(credentials.password.expose())?;
        if *names_identity {
            wanted.satisfy::<AuthzId>(&credentials.user)?;
        }
        Ok(())
    }
}

/// Return the failure for an error of rsasl, whose text may have octets of the server. `at_start`: no challenge came.
fn failure(error: &SessionError, at_start: bool) -> Failure {
    match error {
        SessionError::MutualAuthenticationFailed => Failure::server("the server's signature is wrong"),
        SessionError::MechanismError(_) if !at_start => Failure::challenge("the server's SCRAM message is wrong"),
        _ => Failure::client("user name and password do not suit the mechanism"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Library;
    use crate::tests::request;
    use postillion_core::sasl::{Fault, Mechanisms};

    fn started(kind: Kind, request: &Request) -> Box<dyn Mechanism> {
        Library.start(kind, request).unwrap()
    }

    fn text(secret: &Secret) -> String {
        String::from_utf8(secret.expose().to_vec()).unwrap()
    }

    #[test]
    fn plaintext_mechanisms_send_user_and_password() {
        let plain = started(Kind::Plain, &request("user", "pass")).begin().unwrap().unwrap();
        assert_eq!(text(&plain), "\0user\0pass");
        let named = Request { names_identity: true, ..request("user", "pass") };
        assert_eq!(text(&started(Kind::Plain, &named).begin().unwrap().unwrap()), "user\0user\0pass");
        let mut login = started(Kind::Login, &request("user", "pass"));
        assert_eq!(login.begin(), Ok(None));
        assert_eq!(text(&login.respond(b"User:").unwrap()), "user");
        assert_eq!(text(&login.respond(b"").unwrap()), "pass");
        assert_eq!(login.respond(b""), Err(TOO_MANY));
        let mut external = started(Kind::External, &request("user", ""));
        assert_eq!(text(&external.begin().unwrap().unwrap()), "");
        assert_eq!(external.finish(), Ok(()));
    }

    #[test]
    fn plain_has_no_form_for_some_names_and_passwords() {
        for (user, password) in [("user", ""), ("us\0er", "pass"), ("user", "pa\0ss")] {
            let failed = started(Kind::Plain, &request(user, password)).begin().unwrap_err();
            assert_eq!(failed.fault, Fault::Client);
        }
    }

    /// The server's side of SCRAM-SHA-1 in RFC 5802 §5 cannot be replayed: the nonce is random.
    #[test]
    fn a_server_of_scram_must_speak_in_form() {
        for kind in [Kind::ScramSha1, Kind::ScramSha256, Kind::ScramSha512] {
            let first = |change: &dyn Fn(&str) -> String| {
                let mut mechanism = started(kind, &request("us,er=", "pass"));
                let said = text(&mechanism.begin().unwrap().unwrap());
                let nonce = said.strip_prefix("n,,n=us=2Cer=3D,r=").unwrap().to_owned();
                let told = mechanism.respond(change(&nonce).as_bytes());
                (mechanism, told)
            };
            let good = |nonce: &str| format!("r={nonce}more,s=QUJD,i=100");
            let (_, told) = first(&good);
            assert!(text(&told.unwrap()).starts_with("c=biws,r="));
            for bad in [
                &(|nonce: &str| format!("r={nonce},s=QUJD,i=100")) as &dyn Fn(&str) -> String,
                &|nonce| format!("r=x{nonce}more,s=QUJD,i=100"),
                &|nonce| format!("r={nonce}more,s=???,i=100"),
                &|nonce| format!("r={nonce}more,s=QUJD,i=65537"),
                &|nonce| format!("r={nonce}more,"),
                &|_| String::new(),
            ] {
                let (mut mechanism, told) = first(bad);
                assert_eq!(told.unwrap_err().fault, Fault::Challenge);
                assert!(mechanism.finish().is_err());
            }
            for (last, fault) in [
                ("v=QUJD", Fault::Server),
                ("v=???", Fault::Challenge),
                ("e=invalid-proof", Fault::Challenge),
                ("", Fault::Challenge),
                ("v", Fault::Challenge),
            ] {
                let (mut mechanism, _) = first(&good);
                assert_eq!(mechanism.respond(last.as_bytes()).unwrap_err().fault, fault, "{last}");
                assert_eq!(mechanism.finish().unwrap_err().fault, Fault::Server);
            }
            let (mut mechanism, _) = first(&good);
            assert_eq!(mechanism.finish().unwrap_err().fault, Fault::Server, "a signature is missing");
        }
    }
}
