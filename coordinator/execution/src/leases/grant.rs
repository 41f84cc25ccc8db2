//! A lease's grant: what its worker may access, sealed by the coordinator and presented by the worker.
//!
//! Invariant: nothing in a grant is trusted before its MAC has been verified.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::possession::Challenge;
use kiln_proto::{scope, v1};
use prost::Message;

use crate::ToolSpace;
use kiln_state::farm_key::{FarmKey, Purpose};

/// How long a grant outlives its action's timeout: inputs are fetched before the timeout starts, and outputs are uploaded after it.
const BEYOND_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
/// Bytes that entitle to a cache.
const CACHE_BYTES: usize = 16;
/// Maximum size of a sealed grant.
const MAX_BYTES: usize = 4096;

/// A verified grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The lease.
    pub lease: u64,
    /// The worker that holds it.
    pub worker: String,
    /// The tenant's instance, as [`scope::scoped`] writes it.
    pub instance: String,
    /// The action that it runs.
    pub action: Digest,
    /// A blob that it may read besides what the action refers to.
    pub times: Option<Digest>,
    /// The caches that it may take and publish, as [`kiln_proto::root::entitlement`] gives them.
    pub caches: Vec<[u8; CACHE_BYTES]>,
    /// The environment for which it may look up and keep calls of compilers; empty: it may not.
    pub calls: String,
    /// The space whose entries of build tools it may look up and keep.
    pub tools: ToolSpace,
    /// Whether it is a shell: it has no result, and ends with the coordinator that granted it.
    pub shell: bool,
    /// What its worker proves with that it has a blob; none if the worker cannot.
    pub challenge: Option<Challenge>,
}

/// Why a grant is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no lease was presented")]
    Absent,
    #[error("the lease was not granted by this farm")]
    Forged,
    #[error("the lease was granted to another worker")]
    Another,
    #[error("the lease's grant has expired")]
    Expired,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64
}

impl Grant {
    /// The tenant of the lease; empty for the default tenant.
    pub fn tenant(&self) -> &str {
        scope::split(&self.instance).0
    }

    /// Seals it, valid for as long as an action with this timeout can take.
    pub fn seal(&self, key: &FarmKey, timeout: Duration) -> Vec<u8> {
        let grant = v1::Grant {
            lease: self.lease,
            worker: self.worker.clone(),
            instance: self.instance.clone(),
            action_digest: Some(self.action.to_wire()),
            digest_function: self.action.function.to_wire(),
            expires: now().saturating_add((timeout + BEYOND_TIMEOUT).as_secs() as i64),
            nonce: rand::random::<[u8; 16]>().to_vec(),
            times: self.times.map(|times| times.to_wire()),
            caches: self.caches.concat(),
            calls: self.calls.clone(),
            tools: self.tools.name.clone(),
            tools_read_only: self.tools.read_only,
            shell: self.shell,
            challenge: self.challenge.map(|challenge| challenge.to_wire()).unwrap_or_default(),
        };
        let grant = grant.encode_to_vec();
        let mac = key.seal(Purpose::Lease, &[&grant]);
        v1::SealedGrant { grant, mac }.encode_to_vec()
    }

    /// Verifies a grant. `worker`: the worker that presents it, if known.
    pub fn open(key: &FarmKey, sealed: &[u8], worker: Option<&str>) -> Result<Self, Error> {
        if sealed.is_empty() {
            return Err(Error::Absent);
        }
        let sealed = Some(sealed).filter(|sealed| sealed.len() <= MAX_BYTES).ok_or(Error::Forged)?;
        let sealed = v1::SealedGrant::decode(sealed).map_err(|_| Error::Forged)?;
        if !key.verify(Purpose::Lease, &[&sealed.grant], &sealed.mac) {
            return Err(Error::Forged);
        }
        let grant = v1::Grant::decode(sealed.grant.as_slice()).map_err(|_| Error::Forged)?;
        let function = DigestFunction::from_wire(grant.digest_function).map_err(|_| Error::Forged)?;
        let action = Digest::required(function, grant.action_digest.as_ref()).map_err(|_| Error::Forged)?;
        let times = grant.times.as_ref().map(|times| Digest::from_wire(function, times)).transpose();
        let times = times.map_err(|_| Error::Forged)?;
        if worker.is_some_and(|worker| worker != grant.worker) {
            return Err(Error::Another);
        }
        if grant.expires <= now() {
            return Err(Error::Expired);
        }
        let caches = grant.caches.as_chunks::<CACHE_BYTES>().0.to_vec();
        let challenge = Challenge::from_wire(&grant.challenge);
        let v1::Grant { lease, worker, instance, calls, tools: name, tools_read_only: read_only, shell, .. } = grant;
        let tools = ToolSpace { name, read_only };
        Ok(Self { lease, worker, instance, action, times, caches, calls, tools, shell, challenge })
    }

    /// Like [`open`](Self::open), for a call's header.
    pub fn open_header(key: &FarmKey, header: &[u8], worker: Option<&str>) -> Result<Self, Error> {
        let header = Some(header).filter(|header| header.len() <= 2 * MAX_BYTES).ok_or(Error::Forged)?;
        let sealed = URL_SAFE_NO_PAD.decode(header).map_err(|_| Error::Forged)?;
        Self::open(key, &sealed, worker)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant() -> Grant {
        Grant {
            lease: 7,
            worker: "vm".into(),
            instance: "@shop/main".into(),
            action: DigestFunction::Sha256.digest(b"action"),
            times: Some(DigestFunction::Sha256.digest(b"times")),
            caches: vec![[1; 16], [2; 16]],
            calls: "environment".into(),
            tools: ToolSpace::default(),
            shell: true,
            challenge: Some(Challenge::of([7; 32])),
        }
    }

    #[tokio::test]
    async fn a_grant_is_its_workers_and_its_farms() {
        let key = FarmKey::ephemeral();
        let sealed = grant().seal(&key, Duration::from_secs(60));
        assert_eq!(Grant::open(&key, &sealed, Some("vm")), Ok(grant()));
        assert_eq!(Grant::open(&key, &sealed, None).unwrap().tenant(), "shop");
        assert_eq!(Grant::open(&key, &sealed, Some("other")), Err(Error::Another));
        assert_eq!(Grant::open(&FarmKey::ephemeral(), &sealed, Some("vm")), Err(Error::Forged));
        assert_eq!(Grant::open(&key, b"", Some("vm")), Err(Error::Absent));
        let header = URL_SAFE_NO_PAD.encode(&sealed);
        assert_eq!(Grant::open_header(&key, header.as_bytes(), Some("vm")), Ok(grant()));
    }

    proptest! {
        #[test]
        fn no_bit_of_a_grant_can_be_changed(bit in 0_usize..100_000) {
            let key = FarmKey::ephemeral();
            let mut sealed = grant().seal(&key, Duration::from_secs(60));
            let bit = bit % (sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Grant::open(&key, &sealed, Some("vm")).is_err());
        }
    }
}
