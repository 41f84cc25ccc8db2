//! Browsers' sessions, in memory: a restart of the coordinator ends them.
//!
//! Invariant: what a browser holds is a random number that is stored here only as a hash; the credentials behind it are not kept.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kiln_auth::Identity;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// How long a session lasts that nobody uses, and at most.
const IDLE: Duration = Duration::from_secs(12 * 60 * 60);
const LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Maximum number of sessions; a further one ends the one that was not used for longest.
const MOST: usize = 10_000;

/// A random text that nobody can guess.
pub(super) fn secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// What is kept of such a text.
pub(super) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[derive(Debug)]
struct Session {
    identity: Identity,
    began: Instant,
    used: Instant,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<[u8; 32], Session>>);

impl Sessions {
    /// Begins a session. Returns its secret.
    pub(super) fn begin(&self, identity: Identity) -> String {
        let secret = secret();
        let now = Instant::now();
        let mut sessions = self.0.lock();
        if sessions.len() >= MOST {
            sessions.retain(|_, session| session.is_good());
        }
        if sessions.len() >= MOST
            && let Some(oldest) = sessions.iter().min_by_key(|(_, session)| session.used).map(|(hash, _)| *hash)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(hash(&secret), Session { identity, began: now, used: now });
        secret
    }

    /// Whose session it is, if it is a session.
    pub(super) fn get(&self, secret: &str) -> Option<Identity> {
        let mut sessions = self.0.lock();
        let session = sessions.get_mut(&hash(secret)).filter(|session| session.is_good())?;
        session.used = Instant::now();
        Some(session.identity.clone())
    }

    pub(super) fn end(&self, secret: &str) {
        self.0.lock().remove(&hash(secret));
    }
}

impl Session {
    fn is_good(&self) -> bool {
        self.used.elapsed() < IDLE && self.began.elapsed() < LIFE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_until_it_is_ended_or_nobody_uses_it() {
        let sessions = Sessions::default();
        let (one, other) = (sessions.begin(Identity::anonymous()), sessions.begin(Identity::anonymous()));
        assert!(sessions.get(&one).is_some() && sessions.get("").is_none());
        sessions.end(&one);
        assert!(sessions.get(&one).is_none() && sessions.get(&other).is_some());
        let Some(long_ago) = Instant::now().checked_sub(IDLE) else { return };
        sessions.0.lock().values_mut().for_each(|session| session.used = long_ago);
        assert!(sessions.get(&other).is_none());
    }
}
