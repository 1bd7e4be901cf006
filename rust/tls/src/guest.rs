//! Facts that a server keeps beside a connection: the library's callbacks need them, or find them.

use crate::facts;
use crate::slot::Slot;
use crate::tickets::Tickets;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ssl::{Ssl, SslRef};
use postillion_core::tls::Facts;
use postillion_core::tls::facts::{Fingerprints, ServerName};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

static GUESTS: Slot<Guest> = Slot::new();

/// Data of one connection.
#[derive(Default)]
pub struct Guest {
    name: Mutex<Asked>,
    tickets: Option<Arc<Tickets>>,
    digest: Option<MessageDigest>,
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
    /// Return the data of a new connection. `tickets`: the keys of its tickets, if it has any. `digest`: that of
    /// fingerprints.
    pub fn new(tickets: Option<Arc<Tickets>>, digest: MessageDigest) -> Self {
        Self { tickets, digest: Some(digest), ..Self::default() }
    }

    /// Keep the data beside a connection.
    pub fn enter(self, ssl: &mut Ssl) -> Result<(), ErrorStack> {
        GUESTS.put(ssl, self)
    }
}

/// Return the place for the name that the client has asked for.
pub fn asked(ssl: &SslRef) -> Option<MutexGuard<'_, Asked>> {
    Some(GUESTS.of(ssl)?.name.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Return the keys of a connection's tickets.
pub fn tickets(ssl: &SslRef) -> Option<&Tickets> {
    GUESTS.of(ssl)?.tickets.as_deref()
}

/// Add what the library does not know.
pub fn add_to(facts: &mut Facts, ssl: &SslRef) {
    facts.fingerprints = fingerprints(ssl);
    facts.server_name = asked(ssl).and_then(|asked| asked.answer.clone());
}

fn fingerprints(ssl: &SslRef) -> Option<Fingerprints> {
    let digest = GUESTS.of(ssl)?.digest?;
    facts::fingerprints(ssl.peer_certificate()?.as_ref(), digest)
}
