//! The check of a server's SCRAM messages (RFC 5802 §7) before rsasl reads them.
//!
//! rsasl 2.3.1 panics at a part of fewer than two octets, and computes as many iterations as the server asks for.

use postillion_core::sasl::Failure;

/// Maximum number of iterations, as in the Cyrus library: 15 ms of CPU with SHA-256.
pub const ITERATIONS_MAX: u32 = 65_536;

/// Check `r=nonce,s=salt,i=iterations`, with extensions behind it.
pub(crate) fn check_first(message: &[u8]) -> Result<(), Failure> {
    let parts = parts(message)?;
    let [(b'r', _), (b's', salt), (b'i', iterations), ..] = parts[..] else {
        return Err(Failure::challenge("the server's first SCRAM message is malformed"));
    };
    if salt.is_empty() {
        return Err(Failure::challenge("the server's salt is empty"));
    }
    let iterations = std::str::from_utf8(iterations).ok().and_then(|text| text.parse().ok());
    match iterations {
        Some(1..=ITERATIONS_MAX) => Ok(()),
        Some(0) | None => Err(Failure::challenge("the server's iteration count is malformed")),
        Some(_) => Err(Failure::challenge("the server's iteration count is too big")),
    }
}

/// Check `v=signature`, with extensions behind it.
pub(crate) fn check_final(message: &[u8]) -> Result<(), Failure> {
    match parts(message)?[..] {
        [(b'v', _), ..] => Ok(()),
        [(b'e', _), ..] => Err(Failure::challenge("the server ends SCRAM with an error")),
        _ => Err(Failure::challenge("the server's final SCRAM message is malformed")),
    }
}

/// Return each attribute with its value.
fn parts<'a>(message: &'a [u8]) -> Result<Vec<(u8, &'a [u8])>, Failure> {
    let part = |part: &'a [u8]| match part {
        [name, b'=', value @ ..] if name.is_ascii_alphabetic() => Ok((*name, value)),
        _ => Err(Failure::challenge("an attribute in a SCRAM message is malformed")),
    };
    message.split(|octet| *octet == b',').map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_messages_are_checked() {
        for (message, problem) in [
            ("r=abc,s=QUJD,i=4096", ""),
            ("r=abc,s=QUJD,i=65536,x=y", ""),
            ("r=abc,s=QUJD,i=1", ""),
            ("r=abc,s=QUJD,i=65537", "big"),
            ("r=abc,s=QUJD,i=4294967295", "big"),
            ("r=abc,s=QUJD,i=4294967296", "count is malformed"),
            ("r=abc,s=QUJD,i=0", "count is malformed"),
            ("r=abc,s=QUJD,i=-1", "count is malformed"),
            ("r=abc,s=QUJD,i=", "count is malformed"),
            ("r=abc,s=,i=1", "salt"),
            ("r=abc,s=QUJD", "first"),
            ("s=QUJD,r=abc,i=1", "first"),
            ("m=x,r=abc,s=QUJD,i=1", "first"),
            ("r=abc,", "attribute"),
            ("r=abc,s", "attribute"),
            ("r=abc,,", "attribute"),
            ("", "attribute"),
            ("r=abc,s=QUJD,i=1,", "attribute"),
        ] {
            let told = check_first(message.as_bytes()).err().map_or("", |failure| failure.problem);
            assert!(told.contains(problem) && told.is_empty() == problem.is_empty(), "{message}: {told}");
        }
    }

    #[test]
    fn final_messages_are_checked() {
        for (message, is_good) in [
            ("v=QUJD", true),
            ("v=QUJD,x=y", true),
            ("e=invalid-proof", false),
            ("", false),
            ("v", false),
            ("x=v", false),
        ] {
            assert_eq!(check_final(message.as_bytes()).is_ok(), is_good, "{message}");
        }
    }
}
