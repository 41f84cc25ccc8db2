//! Browsers' sessions: in memory, where a restart of the coordinator ends them, or on a shelf that several coordinators have in common.
//!
//! Invariant: what a browser holds is a random number that is stored here only as a hash; the credentials behind it are not kept.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kiln_auth::{Identity, Shelf};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How long a session lasts that nobody uses, and at most.
const IDLE: Duration = Duration::from_secs(12 * 60 * 60);
const LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How often it is written down that a session is used.
const USED_EVERY: Duration = Duration::from_secs(60);
/// Maximum number of sessions; a further one ends the one that was not used for longest, or on a shelf the oldest that this coordinator began.
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

/// A session on the shelf, with times in seconds since the epoch.
#[derive(Debug, Serialize, Deserialize)]
struct Shelved {
    identity: Identity,
    began: u64,
    used: u64,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    own: Mutex<HashMap<[u8; 32], Session>>,
    /// Where they are instead, if the farm has several coordinators: a browser may come to another one.
    shelf: Option<Arc<dyn Shelf>>,
    /// The names of those that this coordinator put there, in order.
    shelved: Mutex<VecDeque<String>>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A session's name on the shelf.
fn named(secret: &str) -> String {
    format!("session:{}", hex::encode(hash(secret)))
}

async fn keep(shelf: &dyn Shelf, secret: &str, session: &Shelved) -> Result<(), String> {
    let text = serde_json::to_string(session).map_err(|error| error.to_string())?;
    let left = LIFE.saturating_sub(Duration::from_secs(now().saturating_sub(session.began)));
    shelf.keep(&named(secret), text, IDLE.min(left)).await
}

async fn renew(shelf: &dyn Shelf, secret: &str, session: &Shelved) -> Result<(), String> {
    let text = serde_json::to_string(session).map_err(|error| error.to_string())?;
    let left = LIFE.saturating_sub(Duration::from_secs(now().saturating_sub(session.began)));
    shelf.renew(&named(secret), text, IDLE.min(left)).await
}

impl Sessions {
    /// Sessions that are kept in memory, or on a shelf.
    pub(super) fn new(shelf: Option<Arc<dyn Shelf>>) -> Self {
        Self { shelf, ..Self::default() }
    }

    /// Begins a session. Returns its secret.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub(super) async fn begin(&self, identity: Identity) -> Result<String, String> {
        let secret = secret();
        if let Some(shelf) = &self.shelf {
            keep(&**shelf, &secret, &Shelved { identity, began: now(), used: now() }).await?;
            let oldest = {
                let mut shelved = self.shelved.lock();
                shelved.push_back(named(&secret));
                if shelved.len() > MOST { shelved.pop_front() } else { None }
            };
            if let Some(oldest) = oldest {
                shelf.take(&oldest).await?;
            }
            return Ok(secret);
        }
        let now = Instant::now();
        let mut sessions = self.own.lock();
        if sessions.len() >= MOST {
            sessions.retain(|_, session| session.is_good());
        }
        if sessions.len() >= MOST
            && let Some(oldest) = sessions.iter().min_by_key(|(_, session)| session.used).map(|(hash, _)| *hash)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(hash(&secret), Session { identity, began: now, used: now });
        Ok(secret)
    }

    /// Whose session it is, if it is a session.
    pub(super) async fn get(&self, secret: &str) -> Option<Identity> {
        if let Some(shelf) = &self.shelf {
            return get_shelved(&**shelf, secret).await.unwrap_or_else(|error| {
                tracing::warn!(error, "cannot look for a session");
                None
            });
        }
        let mut sessions = self.own.lock();
        let session = sessions.get_mut(&hash(secret)).filter(|session| session.is_good())?;
        session.used = Instant::now();
        Some(session.identity.clone())
    }

    pub(super) async fn end(&self, secret: &str) {
        match &self.shelf {
            Some(shelf) => {
                if let Err(error) = shelf.take(&named(secret)).await {
                    tracing::warn!(error, "cannot end a session; it ends by itself when nobody uses it");
                }
            }
            None => drop(self.own.lock().remove(&hash(secret))),
        }
    }
}

async fn get_shelved(shelf: &dyn Shelf, secret: &str) -> Result<Option<Identity>, String> {
    let Some(text) = shelf.kept(&named(secret)).await? else { return Ok(None) };
    let Ok(mut session) = serde_json::from_str::<Shelved>(&text) else { return Ok(None) };
    if now().saturating_sub(session.began) >= LIFE.as_secs() {
        return Ok(None);
    }
    if now().saturating_sub(session.used) >= USED_EVERY.as_secs() {
        session.used = now();
        // Whoever logs out meanwhile stays out; and a shelf that takes nothing at the moment locks nobody out.
        if let Err(error) = renew(shelf, secret, &session).await {
            tracing::warn!(error, "cannot write down that a session is used; it may end early");
        }
    }
    Ok(Some(session.identity))
}

impl Session {
    fn is_good(&self) -> bool {
        self.used.elapsed() < IDLE && self.began.elapsed() < LIFE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_lasts_until_it_is_ended_or_nobody_uses_it() {
        let sessions = Sessions::default();
        let one = sessions.begin(Identity::anonymous()).await.unwrap();
        let other = sessions.begin(Identity::anonymous()).await.unwrap();
        assert!(sessions.get(&one).await.is_some() && sessions.get("").await.is_none());
        sessions.end(&one).await;
        assert!(sessions.get(&one).await.is_none() && sessions.get(&other).await.is_some());
        let Some(long_ago) = Instant::now().checked_sub(IDLE) else { return };
        sessions.own.lock().values_mut().for_each(|session| session.used = long_ago);
        assert!(sessions.get(&other).await.is_none());
    }

    /// A shelf on which nothing expires.
    #[derive(Debug, Default)]
    struct Plank(Mutex<HashMap<String, String>>);

    #[tonic::async_trait]
    impl Shelf for Plank {
        async fn keep(&self, name: &str, text: String, _: Duration) -> Result<(), String> {
            self.0.lock().insert(name.to_owned(), text);
            Ok(())
        }

        async fn renew(&self, name: &str, text: String, _: Duration) -> Result<(), String> {
            self.0.lock().entry(name.to_owned()).and_modify(|kept| *kept = text);
            Ok(())
        }

        async fn kept(&self, name: &str) -> Result<Option<String>, String> {
            Ok(self.0.lock().get(name).cloned())
        }

        async fn take(&self, name: &str) -> Result<Option<String>, String> {
            Ok(self.0.lock().remove(name))
        }
    }

    #[tokio::test]
    async fn a_shelf_has_no_more_sessions_of_a_coordinator_than_its_memory_would() {
        let plank = Arc::new(Plank::default());
        let sessions = Sessions::new(Some(plank.clone()));
        let first = sessions.begin(Identity::anonymous()).await.unwrap();
        for _ in 0..MOST {
            sessions.begin(Identity::anonymous()).await.unwrap();
        }
        assert_eq!(plank.0.lock().len(), MOST);
        assert_eq!(sessions.get(&first).await, None, "expected the oldest to have ended");
    }

    #[tokio::test]
    async fn a_session_that_one_coordinator_began_is_known_to_others_and_ends_for_all() {
        let plank = Arc::new(Plank::default());
        let (one, other) = (Sessions::new(Some(plank.clone())), Sessions::new(Some(plank.clone())));
        let ann = Identity { name: "ann".into(), ..Identity::anonymous() };
        let secret = one.begin(ann.clone()).await.unwrap();
        assert_eq!(other.get(&secret).await, Some(ann));
        assert!(plank.0.lock().iter().all(|(name, text)| !name.contains(&secret) && !text.contains(&secret)));
        // It ends after its life even if it is used all the time.
        let name = named(&secret);
        let old = plank.0.lock()[&name].clone();
        let began = now() - LIFE.as_secs();
        let expired = Shelved { identity: Identity::anonymous(), began, used: now() };
        plank.0.lock().insert(name.clone(), serde_json::to_string(&expired).unwrap());
        assert_eq!(other.get(&secret).await, None);
        plank.0.lock().insert(name, old);
        other.end(&secret).await;
        assert_eq!(one.get(&secret).await, None);
    }
}
