//! The versions of OpenSSL.

/// The version of the headers that the program was built with, without its date.
pub const COMPILED: &str = env!("POSTILLION_OPENSSL_VERSION");

/// The kinds of keys that a certificate may have, by Postfix's names.
pub const PUBLIC_KEY_ALGORITHMS: [&str; 3] = ["dsa", "ecdsa", "rsa"];

/// Return the version of the library in use, with its date.
pub fn running() -> &'static str {
    openssl::version::version()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_of_one_release_line() {
        let line = |version: &str| version.rsplit_once('.').map(|(line, _)| line.to_owned());
        assert!(COMPILED.starts_with("OpenSSL "), "{COMPILED}");
        assert_eq!(line(COMPILED), line(running().split(' ').take(2).collect::<Vec<_>>().join(" ").as_str()));
    }
}
