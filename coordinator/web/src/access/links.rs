//! Links that log a browser in: they work once, and only for a minute.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_auth::Identity;
use parking_lot::Mutex;

use super::sessions::{hash, secret};

/// How long a link works.
const LIFE: Duration = Duration::from_secs(60);
/// Maximum number of links at once; a further one replaces the oldest.
const MOST: usize = 1_000;

/// The links that have not been used. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Links(Arc<Mutex<HashMap<[u8; 32], Link>>>);

#[derive(Debug)]
struct Link {
    identity: Identity,
    made: Instant,
}

impl Links {
    /// A new link with which a browser becomes this caller: a path at the pages' address.
    pub fn make(&self, identity: Identity) -> String {
        let code = secret();
        let mut links = self.0.lock();
        links.retain(|_, link| link.made.elapsed() < LIFE);
        if links.len() >= MOST
            && let Some(oldest) = links.iter().min_by_key(|(_, link)| link.made).map(|(hash, _)| *hash)
        {
            links.remove(&oldest);
        }
        links.insert(hash(&code), Link { identity, made: Instant::now() });
        format!("/open/{code}")
    }

    /// Uses a link up.
    pub(super) fn redeem(&self, code: &str) -> Option<Identity> {
        let link = self.0.lock().remove(&hash(code))?;
        (link.made.elapsed() < LIFE).then_some(link.identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_works_once() {
        let links = Links::default();
        let path = links.make(Identity { name: "ann".into(), ..Identity::anonymous() });
        let code = path.strip_prefix("/open/").unwrap();
        assert!(code.len() >= 40 && links.redeem(&code[1..]).is_none());
        assert_eq!(links.redeem(code).unwrap().name, "ann");
        assert!(links.redeem(code).is_none(), "expected the link to be used up");
    }

    #[test]
    fn a_link_that_has_expired_does_not_work() {
        let links = Links::default();
        let path = links.make(Identity::anonymous());
        let Some(long_ago) = Instant::now().checked_sub(LIFE) else { return };
        links.0.lock().values_mut().for_each(|link| link.made = long_ago);
        assert!(links.redeem(path.strip_prefix("/open/").unwrap()).is_none());
    }

    #[test]
    fn links_are_bounded() {
        let links = Links::default();
        let first = links.make(Identity::anonymous());
        (0..MOST).for_each(|_| drop(links.make(Identity::anonymous())));
        assert_eq!(links.0.lock().len(), MOST);
        assert!(links.redeem(first.strip_prefix("/open/").unwrap()).is_none(), "expected the oldest to make room");
    }
}
