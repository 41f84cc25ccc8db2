//! Links that log a browser in: they work once, and only for a minute.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_auth::{Identity, Shelf};
use parking_lot::Mutex;

use super::sessions::{hash, secret};

/// How long a link works.
const LIFE: Duration = Duration::from_secs(60);
/// Maximum number of links at once; a further one replaces the oldest.
const MOST: usize = 1_000;

/// The links that have not been used. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Links {
    own: Arc<Mutex<HashMap<[u8; 32], Link>>>,
    /// Where they are instead, if the farm has several coordinators: a browser may come to another one.
    shelf: Option<Arc<dyn Shelf>>,
}

#[derive(Debug)]
struct Link {
    identity: Identity,
    made: Instant,
}

/// A link's name on the shelf.
fn named(code: &str) -> String {
    format!("link:{}", hex::encode(hash(code)))
}

impl Links {
    /// Links that are kept in memory, or on a shelf.
    pub fn new(shelf: Option<Arc<dyn Shelf>>) -> Self {
        Self { own: Arc::default(), shelf }
    }

    /// A new link with which a browser becomes this caller: a path at the pages' address.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub async fn make(&self, identity: Identity) -> Result<String, String> {
        let code = secret();
        if let Some(shelf) = &self.shelf {
            let text = serde_json::to_string(&identity).map_err(|error| error.to_string())?;
            shelf.keep(&named(&code), text, LIFE).await?;
            return Ok(format!("/open/{code}"));
        }
        let mut links = self.own.lock();
        links.retain(|_, link| link.made.elapsed() < LIFE);
        if links.len() >= MOST
            && let Some(oldest) = links.iter().min_by_key(|(_, link)| link.made).map(|(hash, _)| *hash)
        {
            links.remove(&oldest);
        }
        links.insert(hash(&code), Link { identity, made: Instant::now() });
        Ok(format!("/open/{code}"))
    }

    /// Uses a link up.
    pub(super) async fn redeem(&self, code: &str) -> Option<Identity> {
        if let Some(shelf) = &self.shelf {
            let taken = shelf.take(&named(code)).await;
            let text = taken.inspect_err(|error| tracing::warn!(error, "cannot look for a login link")).ok()??;
            return serde_json::from_str(&text).ok();
        }
        let link = self.own.lock().remove(&hash(code))?;
        (link.made.elapsed() < LIFE).then_some(link.identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_works_once() {
        let links = Links::default();
        let path = links.make(Identity { name: "ann".into(), ..Identity::anonymous() }).await.unwrap();
        let code = path.strip_prefix("/open/").unwrap();
        assert!(code.len() >= 40 && links.redeem(&code[1..]).await.is_none());
        assert_eq!(links.redeem(code).await.unwrap().name, "ann");
        assert!(links.redeem(code).await.is_none(), "expected the link to be used up");
    }

    #[tokio::test]
    async fn a_link_that_has_expired_does_not_work() {
        let links = Links::default();
        let path = links.make(Identity::anonymous()).await.unwrap();
        let Some(long_ago) = Instant::now().checked_sub(LIFE) else { return };
        links.own.lock().values_mut().for_each(|link| link.made = long_ago);
        assert!(links.redeem(path.strip_prefix("/open/").unwrap()).await.is_none());
    }

    #[tokio::test]
    async fn links_are_bounded() {
        let links = Links::default();
        let first = links.make(Identity::anonymous()).await.unwrap();
        for _ in 0..MOST {
            links.make(Identity::anonymous()).await.unwrap();
        }
        assert_eq!(links.own.lock().len(), MOST);
        assert!(
            links.redeem(first.strip_prefix("/open/").unwrap()).await.is_none(),
            "expected the oldest to make room"
        );
    }
}
