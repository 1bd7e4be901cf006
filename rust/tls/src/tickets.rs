//! Keys of session tickets, the same in all processes of the mail system (RFC 5077, RFC 8446 §4.6.1).
//!
//! Master gives each process the same secret. The keys of a period follow from the secret of that period, and so does the
//! secret of the next one; the way back does not exist. So processes need not talk to each other, and a stolen process has
//! no keys of earlier tickets. A period's key writes tickets for this period, and reads them for one more.

use crate::guest;
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtxRef;
use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;
use openssl::sha::Sha256;
use openssl::ssl::SslRef;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time that a session can be resumed, unless it cannot be at all (postconf(5), smtpd_tls_session_cache_timeout).
const PERIOD_MIN_S: u64 = 120;
const PERIOD_MAX_S: u64 = 100 * 24 * 3600;
/// Octets of a secret.
pub const SECRET_OCTETS: usize = 32;

/// The octets in front of a ticket, by which its key is found.
pub type Name = [u8; 16];
/// The octets behind them.
pub type Iv = [u8; 16];
type Secret = [u8; SECRET_OCTETS];

/// A secret, and the time since it was drawn.
pub struct Root {
    /// The secret.
    pub secret: Secret,
    /// Its age.
    pub age: Duration,
}

/// The keys of a server.
pub struct Tickets {
    cipher: Cipher,
    period: Duration,
    begun: Instant,
    /// The age of the secret at `begun`.
    age: Duration,
    state: Mutex<State>,
}

struct State {
    /// The number of the period since the secret was drawn.
    number: u64,
    /// The secret of the next period.
    next: Secret,
    current: Keys,
    earlier: Option<Keys>,
}

#[derive(Clone)]
struct Keys {
    name: Name,
    cipher: [u8; 32],
    mac: Secret,
}

/// A ticket that a client has shown.
pub enum Opened {
    /// Its key writes tickets now. Here and below: the key of its authentication code.
    Current([u8; 32]),
    /// Its key was that of the period before.
    Earlier([u8; 32]),
    /// Its key is another one.
    Unknown,
}

impl Root {
    /// Return a secret for this process alone.
    pub fn draw() -> Result<Self, ErrorStack> {
        let mut secret = [0; SECRET_OCTETS];
        rand_bytes(&mut secret)?;
        Ok(Self { secret, age: Duration::ZERO })
    }
}

impl Tickets {
    /// Return the keys of a secret. `timeout_s`: `smtpd_tls_session_cache_timeout`.
    pub fn new(root: &Root, cipher: Cipher, timeout_s: f64) -> Self {
        let period = Duration::from_secs((timeout_s as u64).clamp(PERIOD_MIN_S, PERIOD_MAX_S));
        // Services with other periods have other secrets.
        let label = format!("period of {} seconds", period.as_secs());
        let state = Mutex::new(State::new(&derive(&root.secret, &label)));
        Self { cipher, period, begun: Instant::now(), age: root.age, state }
    }

    /// Return the time that a session can be resumed, in seconds.
    pub fn lifetime_s(&self) -> u32 {
        u32::try_from(2 * self.period.as_secs()).unwrap_or(u32::MAX)
    }

    /// Return the keys of now.
    fn now(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.advance((self.age + self.begun.elapsed()).as_secs() / self.period.as_secs());
        state
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("period", &self.period).finish_non_exhaustive()
    }
}

impl State {
    fn new(secret: &Secret) -> Self {
        Self { number: 0, next: derive(secret, "next"), current: Keys::of(secret), earlier: None }
    }

    /// Go on to a period. The secrets and keys of earlier ones are overwritten, but for the last key.
    fn advance(&mut self, number: u64) {
        while self.number < number {
            let keys = Keys::of(&self.next);
            self.earlier = Some(std::mem::replace(&mut self.current, keys));
            self.next = derive(&self.next, "next");
            self.number += 1;
        }
    }

    fn find(&self, name: &Name) -> Option<(&Keys, bool)> {
        let earlier = self.earlier.iter().map(|keys| (keys, false));
        std::iter::once((&self.current, true)).chain(earlier).find(|(keys, _)| keys.name == *name)
    }
}

impl Keys {
    fn of(secret: &Secret) -> Self {
        let mut name = Name::default();
        name.copy_from_slice(&derive(secret, "name")[..16]);
        Self { name, cipher: derive(secret, "cipher"), mac: derive(secret, "code") }
    }
}

/// Begin a ticket: write the name of the key and an IV, and prepare the cipher. Return the key of the authentication code;
/// `None` for no ticket.
pub fn begin(
    ssl: &SslRef,
    name: &mut Name,
    iv: &mut Iv,
    context: &mut CipherCtxRef,
) -> Result<Option<[u8; 32]>, ErrorStack> {
    let Some(tickets) = guest::tickets(ssl) else { return Ok(None) };
    let state = tickets.now();
    let keys = &state.current;
    *name = keys.name;
    rand_bytes(iv)?;
    let key = &keys.cipher[..tickets.cipher.key_length()];
    context.encrypt_init(Some(&tickets.cipher), Some(key), Some(iv))?;
    Ok(Some(keys.mac))
}

/// Open a ticket: find the key of this name, and prepare the cipher.
pub fn open(ssl: &SslRef, name: &Name, iv: &Iv, context: &mut CipherCtxRef) -> Result<Opened, ErrorStack> {
    let Some(tickets) = guest::tickets(ssl) else { return Ok(Opened::Unknown) };
    let state = tickets.now();
    let Some((keys, is_current)) = state.find(name) else { return Ok(Opened::Unknown) };
    let key = &keys.cipher[..tickets.cipher.key_length()];
    context.decrypt_init(Some(&tickets.cipher), Some(key), Some(iv))?;
    Ok(if is_current { Opened::Current(keys.mac) } else { Opened::Earlier(keys.mac) })
}

/// Return the cipher of this name; `None` if it is not fit for tickets.
pub fn cipher(name: &str) -> Option<Cipher> {
    let is_cbc = name.to_ascii_lowercase().ends_with("-cbc");
    let cipher = Cipher::fetch(None, name, None).ok().filter(|_| is_cbc)?;
    let is_fit = cipher.block_size() == 16 && cipher.iv_length() == 16 && (16..=32).contains(&cipher.key_length());
    is_fit.then_some(cipher)
}

fn derive(secret: &Secret, label: &str) -> Secret {
    let mut hash = Sha256::new();
    hash.update(secret);
    hash.update(label.as_bytes());
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(age_s: u64, timeout_s: f64) -> Tickets {
        let root = Root { secret: [7; SECRET_OCTETS], age: Duration::from_secs(age_s) };
        Tickets::new(&root, cipher("aes-256-cbc").unwrap(), timeout_s)
    }

    #[test]
    fn processes_of_any_age_have_the_same_keys() {
        let (old, new) = (tickets(0, 3600.0), tickets(2 * 3600 + 5, 3600.0));
        let mut old = old.now();
        old.advance(2);
        let new = new.now();
        assert!(old.current.name == new.current.name && old.current.mac == new.current.mac);
        let earlier = |state: &State| state.earlier.as_ref().unwrap().name;
        assert_eq!(earlier(&old), earlier(&new));
    }

    #[test]
    fn a_key_is_good_for_one_more_period() {
        let (first, second, third) = (tickets(0, 600.0), tickets(600, 600.0), tickets(1200, 600.0));
        let name = first.now().current.name;
        let is_current = |tickets: &Tickets| tickets.now().find(&name).map(|(_, is_current)| is_current);
        assert_eq!([&first, &second, &third].map(is_current), [Some(true), Some(false), None]);
    }

    #[test]
    fn services_with_other_periods_have_other_keys() {
        assert_ne!(tickets(0, 600.0).now().current.name, tickets(0, 3600.0).now().current.name);
        assert_eq!(tickets(0, 1.0).lifetime_s(), 240);
        assert_eq!(tickets(0, 1e9).lifetime_s(), 200 * 24 * 3600);
    }

    #[test]
    fn only_ciphers_in_cbc_mode_are_fit() {
        for (name, is_fit) in [
            ("aes-256-cbc", true),
            ("AES-128-CBC", true),
            ("camellia-192-cbc", true),
            ("aes-256-gcm", false),
            ("des-ede3-cbc", false),
            ("aes-256-ecb", false),
            ("none", false),
        ] {
            assert_eq!(cipher(name).is_some(), is_fit, "{name}");
        }
    }
}
