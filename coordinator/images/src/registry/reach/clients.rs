//! HTTP clients that stay within a reach.

use std::fmt;

use reqwest::{Client, ClientBuilder};
use url::Url;

use super::{Reach, Refused, Way};

/// Two clients with the same settings: one connects to any address, the other one checks each address that it connects to. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    reach: Reach,
    open: Client,
    /// `None` without restrictions.
    guarded: Option<Client>,
}

impl Clients {
    /// Clients with these settings. They should follow no redirects: a client follows one without asking [`at`](Self::at) for its target.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(reach: &Reach, settings: impl Fn() -> ClientBuilder) -> Result<Self, reqwest::Error> {
        let guarded = reach.resolver().map(|guard| settings().no_proxy().dns_resolver(guard).build());
        Ok(Self { reach: reach.clone(), open: settings().build()?, guarded: guarded.transpose()? })
    }

    /// The client that may request this URL.
    ///
    /// # Errors
    /// If the URL itself is not allowed. That its name leads to an address that is not is found when the client connects
    /// ([`Refused::of`]).
    pub fn at(&self, url: &Url) -> Result<&Client, Refused> {
        Ok(match (self.reach.way(url)?, &self.guarded) {
            (Way::Guarded, Some(guarded)) => guarded,
            _ => &self.open,
        })
    }

    /// A client that builds requests; [`at`](Self::at) has the one that may send them.
    pub(in crate::registry) fn builder(&self) -> &Client {
        &self.open
    }

    /// Where they may go.
    pub(in crate::registry) fn reach(&self) -> &Reach {
        &self.reach
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Clients").field("reach", &self.reach).finish_non_exhaustive()
    }
}
