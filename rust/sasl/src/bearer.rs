//! OAUTHBEARER (RFC 7628) and XOAUTH2, its older form of Google's: a token in place of a password.
//!
//! A challenge reports that the token is refused. The client confirms that it has read it, and the server's reply ends
//! the exchange.

use crate::TOO_MANY;
use postillion_core::sasl::{Failure, Kind, Mechanism, Request, Secret};

/// Separates the fields.
const CONTROL_A: u8 = 1;

#[derive(Debug)]
pub(crate) struct Bearer {
    kind: Kind,
    request: Request,
    is_refused: bool,
}

impl Bearer {
    pub(crate) fn new(kind: Kind, request: &Request) -> Result<Self, Failure> {
        let (user, token) = (request.credentials.user.as_bytes(), request.credentials.password.expose());
        if user.iter().any(u8::is_ascii_control) {
            return Err(Failure::client("the user name has control characters"));
        }
        // RFC 6750 §2.1.
        if token.is_empty() || !token.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b)) {
            return Err(Failure::client("the password is no OAuth token"));
        }
        Ok(Self { kind, request: request.clone(), is_refused: false })
    }
}

impl Mechanism for Bearer {
    fn begin(&mut self) -> Result<Option<Secret>, Failure> {
        let credentials = &self.request.credentials;
        let mut response = match self.kind {
            Kind::Xoauth2 => format!("user={}", credentials.user),
            // A name has its own form in this header (RFC 5801 §4).
            _ => format!("n,a={},", credentials.user.replace('=', "=3D").replace(',', "=2C")),
        }
        .into_bytes();
        response.push(CONTROL_A);
        response.extend_from_slice(b"auth=Bearer ");
        response.extend_from_slice(credentials.password.expose());
        response.extend_from_slice(&[CONTROL_A, CONTROL_A]);
        Ok(Some(Secret::new(response)))
    }

    fn respond(&mut self, _challenge: &[u8]) -> Result<Secret, Failure> {
        if std::mem::replace(&mut self.is_refused, true) {
            return Err(TOO_MANY);
        }
        // RFC 7628 §3.2.3.
        Ok(if self.kind == Kind::OauthBearer { Secret::new([CONTROL_A]) } else { Secret::default() })
    }

    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::request;

    #[test]
    fn a_token_is_sent_in_the_form_of_its_mechanism() {
        for (kind, user, initial, confirms) in [
            (Kind::Xoauth2, "a=b@x.example", "user=a=b@x.example\x01auth=Bearer ya29.Tok~/+-_==\x01\x01", ""),
            (
                Kind::OauthBearer,
                "a=b,c@x.example",
                "n,a=a=3Db=2Cc@x.example,\x01auth=Bearer ya29.Tok~/+-_==\x01\x01",
                "\x01",
            ),
        ] {
            let mut mechanism = Bearer::new(kind, &request(user, "ya29.Tok~/+-_==")).unwrap();
            assert_eq!(mechanism.begin().unwrap().unwrap().expose(), initial.as_bytes());
            assert_eq!(mechanism.respond(b"{\"status\":\"401\"}").unwrap().expose(), confirms.as_bytes());
            assert_eq!(mechanism.respond(b""), Err(TOO_MANY));
        }
    }

    #[test]
    fn a_token_cannot_add_a_field() {
        for (user, token) in [("u", "a b"), ("u", "a\x01b"), ("u\x01", "ab"), ("u", "")] {
            assert!(Bearer::new(Kind::Xoauth2, &request(user, token)).is_err());
        }
    }
}
