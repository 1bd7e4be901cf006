//! The settings of sessions in normal times or under stress, and their caches.
//!
//! A service has one mode, or two when it also has settings for stress. A client that one mode knows may be unknown to
//! the other: their lists may differ.

use crate::smtpd::accepted::Accepted;
use crate::smtpd::listing::Listing;
use crate::smtpd::request::KnownClient;
use crate::smtpd::session::Memory;
use crate::smtpd::site::Site;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Maximum number of known clients; then all are forgotten.
const KNOWN_MAX: usize = 4096;

/// The settings of a session from its beginning to its end, and the caches of its kind.
pub struct Mode {
    /// The settings of new sessions.
    pub site: Arc<Site>,
    known: HashMap<IpAddr, (KnownClient, f64)>,
    accepted: Arc<Accepted>,
}

impl Mode {
    /// Nothing is cached yet.
    pub fn new(site: Arc<Site>) -> Self {
        Self { site, known: HashMap::new(), accepted: Arc::default() }
    }

    /// Remember a client until then.
    pub fn know(&mut self, known: KnownClient, until: f64) {
        let Ok(address) = known.client.address.parse() else { return };
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(address, (known, until));
    }

    /// The client at this address, while it is remembered.
    pub fn known(&self, address: IpAddr, now: f64) -> Option<&KnownClient> {
        self.known.get(&address).filter(|(_, until)| now < *until).map(|(known, _)| known)
    }

    /// Remember accepted recipients; see `Accepted::remember`.
    pub fn remember(&self, group: u8, scope: &str, listing: Listing, until: f64) {
        self.accepted.remember(group, scope, listing, until);
    }

    /// The accepted recipients of a group, for a session.
    pub fn memory(&self, group: u8) -> Memory {
        Memory { accepted: Arc::clone(&self.accepted), group }
    }
}
