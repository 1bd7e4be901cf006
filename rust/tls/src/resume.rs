//! The sessions of a client, by policy: a later connection to the same server may go on with one.
//!
//! A session carries the result of the check of the server's certificate. So only a connection with an equal policy may
//! resume it, and a session with another server than the wanted one is not kept.

use postillion_core::tls::Policy;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of sessions. Each has some kilobytes: the server's chain is in it.
const SESSIONS_MAX: usize = 1000;

/// A cache of sessions.
pub struct Sessions<S> {
    lifetime: Duration,
    max: usize,
    kept: Mutex<HashMap<Arc<Policy>, Kept<S>>>,
}

struct Kept<S> {
    session: S,
    since: Instant,
}

impl<S: Clone> Sessions<S> {
    /// Return an empty cache.
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime, max: SESSIONS_MAX, kept: Mutex::default() }
    }

    /// Return the session of a policy.
    pub fn find(&self, policy: &Arc<Policy>, now: Instant) -> Option<S> {
        let mut kept = self.lock();
        if self.is_over(kept.get(policy)?, now) {
            kept.remove(policy);
            return None;
        }
        kept.get(policy).map(|kept| kept.session.clone())
    }

    /// Return the number of sessions.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Keep a session in place of an earlier one. A full cache loses the oldest session.
    pub fn keep(&self, policy: &Arc<Policy>, session: S, now: Instant) {
        let mut kept = self.lock();
        if kept.len() >= self.max && !kept.contains_key(policy) {
            kept.retain(|_, kept| !self.is_over(kept, now));
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.since).map(|(policy, _)| Arc::clone(policy));
            if kept.len() >= self.max
                && let Some(oldest) = oldest
            {
                kept.remove(&oldest);
            }
        }
        kept.insert(Arc::clone(policy), Kept { session, since: now });
    }

    /// Forget the session of a policy: the handshake with it has failed.
    pub fn forget(&self, policy: &Arc<Policy>) {
        self.lock().remove(policy);
    }

    fn is_over(&self, kept: &Kept<S>, now: Instant) -> bool {
        now.saturating_duration_since(kept.since) >= self.lifetime
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<Policy>, Kept<S>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(session_key: impl Into<String>) -> Arc<Policy> {
        Arc::new(Policy { session_key: session_key.into(), ..Policy::default() })
    }

    #[test]
    fn a_session_lives_for_its_lifetime() {
        let (sessions, now) = (Sessions::new(Duration::from_secs(10)), Instant::now());
        sessions.keep(&policy("a"), 1, now);
        assert_eq!(sessions.find(&policy("a"), now + Duration::from_secs(9)), Some(1));
        assert_eq!(sessions.find(&policy("b"), now), None);
        assert_eq!(sessions.find(&policy("a"), now + Duration::from_secs(10)), None);
        assert_eq!(sessions.find(&policy("a"), now), None, "it is gone");
        sessions.keep(&policy("a"), 2, now);
        sessions.keep(&policy("a"), 3, now + Duration::from_secs(5));
        assert_eq!(sessions.find(&policy("a"), now + Duration::from_secs(14)), Some(3));
        sessions.forget(&policy("a"));
        assert_eq!(sessions.find(&policy("a"), now), None);
    }

    #[test]
    fn a_full_cache_loses_what_is_over_or_the_oldest() {
        let (mut sessions, now) = (Sessions::new(Duration::from_secs(10)), Instant::now());
        sessions.max = 3;
        let at = |seconds| now + Duration::from_secs(seconds);
        for (number, seconds) in [(0, 2), (1, 1), (2, 3)] {
            sessions.keep(&policy(number.to_string()), number, at(seconds));
        }
        let alive = |sessions: &Sessions<u64>, seconds| {
            (0..5)
                .filter(|number: &u64| sessions.find(&policy(number.to_string()), at(seconds)).is_some())
                .collect::<Vec<_>>()
        };
        sessions.keep(&policy("2"), 2, at(3));
        assert_eq!(alive(&sessions, 3), [0, 1, 2], "a new session in place of an old one needs no room");
        sessions.keep(&policy("3"), 3, at(4));
        assert_eq!(alive(&sessions, 4), [0, 2, 3]);
        sessions.keep(&policy("4"), 4, at(13));
        assert_eq!(alive(&sessions, 13), [3, 4]);
    }
}
