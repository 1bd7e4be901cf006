//! Facts that a server keeps beside a connection: the library's callbacks need them, or find them.

use crate::slot::Slot;
use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslRef};
use postillion_core::tls::Facts;
use postillion_core::tls::facts::ServerName;
use std::sync::{Mutex, MutexGuard, PoisonError};

static GUESTS: Slot<Guest> = Slot::new();

/// Data of one connection.
#[derive(Debug, Default)]
pub struct Guest {
    name: Mutex<Asked>,
}

/// The name that the client has asked for.
#[derive(Debug, Default)]
pub struct Asked {
    /// The answer to it.
    pub answer: Option<ServerName>,
    /// Why the handshake fails for it.
    pub problem: Option<String>,
}

impl Guest {
    /// Keep the data beside a connection.
    pub fn enter(self, ssl: &mut Ssl) -> Result<(), ErrorStack> {
        GUESTS.put(ssl, self)
    }
}

/// Return the place for the name that the client has asked for.
pub fn asked(ssl: &SslRef) -> Option<MutexGuard<'_, Asked>> {
    Some(GUESTS.of(ssl)?.name.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Add what the library does not know.
pub fn add_to(facts: &mut Facts, ssl: &SslRef) {
    facts.server_name = asked(ssl).and_then(|asked| asked.answer.clone());
}
