//! HTTP clients that stay within a reach.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::{Client, ClientBuilder};
use url::Url;

use super::{Reach, Refused, Way};

/// How long clients are used again before others are made: these know of authorities that were added meanwhile.
const LASTING: Duration = Duration::from_secs(60);
/// Of how many registries clients are kept.
const MOST: usize = 256;

/// Two clients with the same settings: one connects to any address, the other one checks each address that it connects to. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    reach: Reach,
    pair: Pair,
}

#[derive(Clone)]
struct Pair {
    open: Client,
    /// `None` without restrictions.
    guarded: Option<Client>,
}

/// Clients that are used again, by name: to make one takes milliseconds, because it reads all authorities that this machine trusts. They
/// keep their connections, too.
#[derive(Default)]
pub(super) struct Kept(Mutex<HashMap<String, (Instant, Pair)>>);

impl Clients {
    /// Clients with these settings. They should follow no redirects: a client follows one without asking [`at`](Self::at) for its target.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(reach: &Reach, settings: impl Fn() -> ClientBuilder) -> Result<Self, reqwest::Error> {
        Ok(Self { reach: reach.clone(), pair: Pair::new(reach, settings)? })
    }

    /// The same, or those that had this name a moment ago and so have the same settings.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub(in crate::registry) fn named(
        reach: &Reach,
        name: &str,
        settings: impl Fn() -> ClientBuilder,
    ) -> Result<Self, reqwest::Error> {
        let is_recent = |made: &Instant| made.elapsed() < LASTING;
        let known = reach.kept.0.lock().get(name).filter(|(made, _)| is_recent(made)).map(|(_, pair)| pair.clone());
        if let Some(pair) = known {
            return Ok(Self { reach: reach.clone(), pair });
        }
        let (made, pair) = (Instant::now(), Pair::new(reach, settings)?);
        let mut kept = reach.kept.0.lock();
        kept.retain(|_, (made, _)| is_recent(made));
        if kept.len() < MOST {
            kept.insert(name.to_owned(), (made, pair.clone()));
        }
        Ok(Self { reach: reach.clone(), pair })
    }

    /// The client that may request this URL.
    ///
    /// # Errors
    /// If the URL itself is not allowed. That its name leads to an address that is not is found when the client connects
    /// ([`Refused::of`]).
    pub fn at(&self, url: &Url) -> Result<&Client, Refused> {
        Ok(match (self.reach.way(url)?, &self.pair.guarded) {
            (Way::Guarded, Some(guarded)) => guarded,
            _ => &self.pair.open,
        })
    }

    /// A client that builds requests; [`at`](Self::at) has the one that may send them.
    pub(in crate::registry) fn builder(&self) -> &Client {
        &self.pair.open
    }

    /// Where they may go.
    pub(in crate::registry) fn reach(&self) -> &Reach {
        &self.reach
    }
}

impl Pair {
    fn new(reach: &Reach, settings: impl Fn() -> ClientBuilder) -> Result<Self, reqwest::Error> {
        let guarded = reach.resolver().map(|guard| settings().no_proxy().dns_resolver(guard).build());
        Ok(Self { open: settings().build()?, guarded: guarded.transpose()? })
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Kept").field("names", &self.0.lock().keys()).finish()
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Clients").field("reach", &self.reach).finish_non_exhaustive()
    }
}
