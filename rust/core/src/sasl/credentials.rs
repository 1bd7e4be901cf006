//! A user's name and password. No text of this program holds a password: `Secret` shows none.

use crate::mail::reply::Enhanced;
use std::fmt;
use std::sync::Arc;

/// Octets that no log line, error and debugger's view shows: a password, or a response that holds one.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Box<[u8]>);

/// A user's name and password at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user, in the clear in log lines.
    pub user: Box<str>,
    /// The password, or an OAuth token.
    pub password: Secret,
}

/// The reply to a login that a server has refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reply's status code.
    pub dsn: Enhanced,
    /// The reply on one line.
    pub said: Box<str>,
}

/// A client's login at a server.
#[derive(Debug, Clone, Default)]
pub enum Login {
    /// The client has no account there, or does not log in at all.
    #[default]
    Never,
    /// It logs in.
    As(Arc<Credentials>),
    /// The server has refused the account before: mail gets that reply if the server offers AUTH.
    Refused(Arc<Refusal>),
    /// A table could not say: mail waits if the server offers AUTH.
    Unknown,
}

impl Secret {
    /// Hide these octets.
    pub fn new(octets: impl Into<Box<[u8]>>) -> Self {
        Self(octets.into())
    }

    /// Return the octets: for the mechanism and the server alone.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[password]")
    }
}

impl Credentials {
    /// Return the credentials of a user.
    pub fn new(user: &str, password: &[u8]) -> Self {
        Self { user: user.into(), password: Secret::new(password) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let login = Login::As(Arc::new(Credentials::new("user", b"canary")));
        let shown = format!("{login:?} {login:#?}");
        assert!(shown.contains("user") && shown.contains("[password]"), "{shown}");
        assert!(!shown.contains("canary") && !shown.contains("99"), "{shown}");
    }
}
