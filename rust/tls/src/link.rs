//! The policy of a client's connection and the cache of its sessions, beside the connection in the library.

use crate::resume::Sessions;
use crate::slot::Slot;
use crate::trust;
use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslRef, SslSession};
use postillion_core::tls::Policy;
use std::sync::Arc;
use std::time::Instant;

static LINKS: Slot<Link> = Slot::new();

/// The policy of a connection, and its cache.
pub struct Link {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Where its sessions are kept, if they are.
    pub sessions: Option<Arc<Sessions<SslSession>>>,
}

/// Put a link into a connection.
pub fn put(ssl: &mut Ssl, link: Link) -> Result<(), ErrorStack> {
    LINKS.put(ssl, link)
}

/// Return the policy of a client's connection.
pub fn policy(ssl: &SslRef) -> Option<&Policy> {
    LINKS.of(ssl).map(|link| &*link.policy)
}

/// OpenSSL's callback for each session or ticket of a server: keep it.
pub fn keep(ssl: &mut SslRef, session: SslSession) {
    if let Some(Link { policy, sessions: Some(sessions) }) = LINKS.of(ssl)
        && (!policy.level.must_match() || trust::is_trusted(ssl))
    {
        sessions.keep(policy, session, Instant::now());
    }
}

/// Forget the session of a connection: its handshake has failed.
pub fn forget(ssl: &SslRef) {
    if let Some(Link { policy, sessions: Some(sessions) }) = LINKS.of(ssl) {
        sessions.forget(policy);
    }
}
