//! CRAM-MD5 (RFC 2195): the user, and an HMAC of the server's challenge with the password as its key.

use crate::TOO_MANY;
use hmac::{Hmac, Mac};
use md5::Md5;
use postillion_core::sasl::{Failure, Mechanism, Request, Secret};

#[derive(Debug)]
pub(crate) struct CramMd5 {
    request: Request,
    has_answered: bool,
}

impl CramMd5 {
    pub(crate) fn new(request: &Request) -> Self {
        Self { request: request.clone(), has_answered: false }
    }
}

impl Mechanism for CramMd5 {
    fn begin(&mut self) -> Result<Option<Secret>, Failure> {
        Ok(None)
    }

    fn respond(&mut self, challenge: &[u8]) -> Result<Secret, Failure> {
        if std::mem::replace(&mut self.has_answered, true) {
            return Err(TOO_MANY);
        }
        let credentials = &self.request.credentials;
        let mut hmac = Hmac::<Md5>::new_from_slice(credentials.password.expose())
            .map_err(|_| Failure::client("the password is no key"))?;
        hmac.update(challenge);
        let mut response = credentials.user.to_string();
        response.push(' ');
        response.extend(hmac.finalize().into_bytes().iter().map(|octet| format!("{octet:02x}")));
        Ok(Secret::new(response.into_bytes()))
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
    fn the_response_is_that_of_the_rfc() {
        for (user, password, challenge, response) in [
            (
                "tim",
                "tanstaaftanstaaf",
                "<1896.697170952@postoffice.reston.mci.net>",
                "tim b913a602c7eda7a495b4e6e7334d3890",
            ),
            // As Debian's Postfix answers.
            ("user", "pass", "<1896.697170952@postoffice.reston.mci.net>", "user 224f8af1bf9bcf26f4ef0329e061405c"),
            ("user", "pass", "", "user 6f6f78664432e7632bb899845c4782ba"),
        ] {
            let mut mechanism = CramMd5::new(&request(user, password));
            assert_eq!(mechanism.begin(), Ok(None));
            assert_eq!(mechanism.respond(challenge.as_bytes()).unwrap().expose(), response.as_bytes());
            assert_eq!(mechanism.respond(b""), Err(TOO_MANY));
            assert_eq!(mechanism.finish(), Ok(()));
        }
    }
}
