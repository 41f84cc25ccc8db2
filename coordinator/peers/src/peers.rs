//! The other coordinators, each with its connections, for as long as it is called.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_auth::tls::Files;
use kiln_auth::{Authenticator, FarmKey};
use parking_lot::Mutex;

use crate::dial::Dial;
use crate::network::Network;
use crate::peer::Peer;

/// How long one that is not called is remembered.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// The way to other coordinators. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers {
    dial: Arc<Dial>,
    /// By URL.
    all: Arc<Mutex<HashMap<String, Arc<Peer>>>>,
}

impl Peers {
    /// Over this network, with so many calls at a time; with TLS where the farm has these certificates.
    ///
    /// # Errors
    /// If coordinators could not authenticate each other.
    pub fn open(
        authenticator: Authenticator,
        key: FarmKey,
        files: Option<&Files>,
        network: Network,
        most: usize,
    ) -> anyhow::Result<Self> {
        let dial = Arc::new(Dial::open(authenticator, key, files, network, most)?);
        Ok(Self { dial, all: Arc::default() })
    }

    /// The coordinator at this URL.
    pub(crate) fn at(&self, address: &str) -> Arc<Peer> {
        let mut all = self.all.lock();
        all.retain(|_, peer| Arc::strong_count(peer) > 1 || peer.idle() < IDLE);
        let new = || Arc::new(Peer::at(address, self.dial.clone()));
        all.entry(address.to_owned()).or_insert_with(new).clone()
    }
}
