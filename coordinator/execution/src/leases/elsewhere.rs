//! Leases that another coordinator of the farm has granted, whose workers read blobs from this one.
//!
//! Invariants: a grant is believed as everywhere, under the farm's key. Only the coordinator that granted a lease knows whether it still
//! lasts, so a worker is served here for [`LASTS`] after that coordinator has answered it; until then, it is the one to be asked. What a
//! lease may read beyond its action is known there only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_auth::Identity;
use kiln_state::{Current, FarmKey};
use kiln_store::Stores;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;
use tonic::Status;

use super::reach::Reach;
use super::{Calls, Grant, LeaseAccess, refused};
use crate::properties::Rules;
use crate::scopes::Scopes;

/// How long a worker is served without asking again whether its lease lasts.
const LASTS: Duration = Duration::from_secs(60);
/// Leases that are remembered.
const REMEMBERED: usize = 16_384;

/// Leases of another coordinator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    key: FarmKey,
    scopes: Scopes,
    seen: Arc<Mutex<HashMap<u64, Seen>>>,
}

#[derive(Debug, Default)]
struct Seen {
    reach: Arc<OnceCell<Reach>>,
    until: Option<Instant>,
}

impl Elsewhere {
    /// Leases under this key; `rules` are those that the coordinator which leads applies to properties.
    pub fn new(key: FarmKey, rules: Current<Rules>) -> Self {
        Self { key, scopes: Scopes::new(rules), seen: Arc::default() }
    }

    /// What a call with this header may access, with its tenant's stores, and whether its lease is known to last.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` if the lease was not granted to this caller.
    pub fn admit(&self, header: &[u8], identity: &Identity) -> Result<(LeaseAccess, bool), Status> {
        let worker = (!identity.is_anonymous()).then_some(identity.name.as_str());
        let grant = Grant::open_header(&self.key, header, worker).map_err(refused)?;
        let mut seen = self.seen.lock();
        let now = Instant::now();
        if seen.len() >= REMEMBERED {
            seen.retain(|_, seen| seen.until.is_some_and(|until| until > now));
        }
        let one = seen.entry(grant.lease).or_default();
        let access = LeaseAccess {
            grant,
            reach: one.reach.clone(),
            shown: Arc::default(),
            key: self.key.clone(),
            agents: None,
            shell: None,
            charge: None,
            calls: Calls::default(),
            alive: watch::channel(()).1,
            scopes: self.scopes.clone(),
            is_elsewhere: true,
        };
        Ok((access, one.until.is_some_and(|until| until > now)))
    }

    /// The stores of a tenant whose leases are read for.
    pub fn reads_from(&self, tenant: &str, stores: &Stores) {
        if self.scopes.of(tenant).is_none() {
            self.scopes.add(tenant, stores);
        }
    }

    /// The coordinator that granted a lease has answered its worker, so it lasts.
    pub fn lasts(&self, access: &LeaseAccess) {
        if let Some(seen) = self.seen.lock().get_mut(&access.grant.lease) {
            seen.until = Some(Instant::now() + LASTS);
        }
    }

    /// Another coordinator leads: what this one knows of leases is out of date.
    pub fn forget(&self) {
        self.seen.lock().clear();
    }
}
