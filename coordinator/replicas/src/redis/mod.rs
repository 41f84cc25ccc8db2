//! Redis as the register. It is not trusted: whoever can write to it, but does not have the farm's key, can stop the farm and take it
//! back to what it was, but cannot make up a replica or anything in the journal.

mod answers;
mod check;
mod engine;
mod group;
mod identity;
mod keys;
mod scripts;
mod seal;
mod shelf;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_journal::Engine;
use kiln_redis::{Address, CALL, Call, Wire};
use kiln_state::FarmKey;
use redis::Value;

use crate::error::Error;
use crate::register::{Claimed, Register};
use crate::replica::{Replica, Term};
use engine::{Farm, RedisEngine};
use identity::{Identity, Secret};
use keys::Keys;
use seal::Sealer;

/// How long a replica is known after it was last heard of.
const ANNOUNCED: Duration = Duration::from_secs(15);
/// Time limit for a claim that only looks.
const LOOK: Duration = Duration::from_secs(2);
/// How often a claim is made while other replicas store the farm's identity anew.
const ASKS: usize = 4;
/// Replicas may differ by so many protocols, as other programs of a farm may.
const PROTOCOLS: u32 = 1;

/// A farm's part of a Redis.
pub struct RedisRegister {
    address: Address,
    farm: Arc<Farm>,
    identity: Identity,
    secret: Secret,
    /// Nothing that takes long is sent over this one.
    claims: Wire,
    /// The highest epoch that was seen.
    epoch: AtomicU64,
}

impl std::fmt::Debug for RedisRegister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisRegister")
            .field("address", &self.address)
            .field("farm", &self.farm)
            .finish_non_exhaustive()
    }
}

impl RedisRegister {
    /// Connects, and makes the farm known there if it is not yet. All keys begin with `{PREFIX}`, so that a cluster keeps them on one node;
    /// only who has `key` reads or writes a farm.
    ///
    /// # Errors
    /// If Redis cannot be reached or would not keep a journal, its address or credentials are wrong, or another farm has this prefix.
    pub async fn open(address: Address, prefix: &str, key: FarmKey) -> Result<Self, Error> {
        let keys = Keys::new(prefix).ok_or_else(|| Error::Prefix { prefix: prefix.to_owned() })?;
        let wire = || Wire::new(address.clone(), prefix);
        let (reads, claims) = (wire(), wire());
        check::check(&claims).await?;
        let identity = Identity::new(key, keys.clone());
        let secret = identity.establish(&claims, None).await?;
        let sealer = Sealer::new(&secret, prefix);
        let (commits, waits_for_disk) = (AtomicU64::new(0), AtomicBool::new(true));
        let farm = Arc::new(Farm { keys, sealer, reads, commits, waits_for_disk });
        Ok(Self { address, farm, identity, secret, claims, epoch: AtomicU64::new(0) })
    }

    fn announcement(&self, me: &Replica) -> Result<Vec<u8>, Error> {
        let text = serde_json::to_vec(me).map_err(|error| Error::Away { why: error.to_string() })?;
        Ok(self.farm.sealer.seal(&[b"replica"], &text))
    }

    fn replica(&self, sealed: &Bytes) -> Option<Replica> {
        let text = self.farm.sealer.open(&[b"replica"], sealed)?;
        serde_json::from_slice(&text).ok()
    }

    /// Runs the script of a claim, again if what identifies the farm has changed.
    async fn ask(&self, me: &Replica, held: Option<&Term>, lease: Duration) -> Result<Answer, Error> {
        let (epoch, nonce) = held.map_or((String::new(), ""), |term| (term.epoch.to_string(), &*term.nonce));
        let keys = &self.farm.keys;
        let keys = [keys.lease(), keys.epoch(), keys.announced(), keys.farm()];
        let limit = if lease.is_zero() { LOOK } else { lease * 2 / 5 };
        for _ in 0..ASKS {
            let Some(identity) = self.identity.stored() else {
                self.identity.establish(&self.claims, Some(&self.secret)).await?;
                continue;
            };
            let arguments = vec![
                me.name.clone().into_bytes(),
                self.announcement(me)?,
                epoch.clone().into_bytes(),
                nonce.as_bytes().to_vec(),
                format!("{:016x}", rand::random::<u64>()).into_bytes(),
                lease.as_millis().to_string().into_bytes(),
                ANNOUNCED.max(3 * lease).as_millis().to_string().into_bytes(),
                self.epoch.load(Ordering::Relaxed).to_string().into_bytes(),
                identity.to_vec(),
            ];
            let call = Call { script: &scripts::CLAIM, keys: keys.to_vec(), arguments };
            let (answer, _) = self.claims.script(&call, &[], limit).await?;
            let read = answers::read::<(String, String, String, Bytes, Vec<Bytes>, u8)>(self.claims.shown(), answer)?;
            let (name, epoch, nonce, record, all, is_this_farm) = read;
            if is_this_farm == 1 {
                return Ok((name, epoch, nonce, record, all));
            }
            self.identity.establish(&self.claims, Some(&self.secret)).await?;
        }
        Err(self.refused("what identifies the farm changes again and again"))
    }

    fn refused(&self, why: &str) -> Error {
        kiln_redis::Error::Refused { shown: self.claims.shown().to_owned(), why: why.to_owned() }.into()
    }
}

/// What the script answers: name, epoch, nonce and announcement of the holder, and all announcements.
type Answer = (String, String, String, Bytes, Vec<Bytes>);

#[async_trait]
impl Register for RedisRegister {
    async fn check(&self, me: &Replica) -> Result<Vec<String>, Error> {
        let mut warnings = check::check(&self.claims).await?;
        for other in self.claim(me, None, Duration::ZERO).await?.all {
            if other.protocol.abs_diff(me.protocol) > PROTOCOLS {
                let (theirs, their_protocol) = (other.name, other.protocol);
                return Err(Error::Versions { theirs, their_protocol, protocol: me.protocol });
            }
            if other.version != me.version {
                let (name, theirs, own) = (other.name, other.version, &me.version);
                warnings.push(format!("replica `{name}` is version {theirs} and this one {own}; upgrade all of them"));
            }
        }
        Ok(warnings)
    }

    async fn claim(&self, me: &Replica, held: Option<&Term>, lease: Duration) -> Result<Claimed, Error> {
        let (name, epoch, nonce, record, all) = self.ask(me, held, lease).await?;
        let mut all: Vec<Replica> = all.iter().filter_map(|sealed| self.replica(sealed)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| a.name == b.name);
        if name.is_empty() {
            return Ok(Claimed { holder: None, all });
        }
        let holder = self.replica(&record).filter(|holder| holder.name == name);
        let holder = holder.ok_or_else(|| self.refused("the lease's holder is not sealed with this farm's key"))?;
        let epoch = epoch.parse().map_err(|_| self.refused("the lease has no epoch"))?;
        self.epoch.fetch_max(epoch, Ordering::Relaxed);
        Ok(Claimed { holder: Some((holder, Term { epoch, nonce })), all })
    }

    async fn release(&self, me: &Replica, term: &Term) -> Result<(), Error> {
        let arguments = vec![me.name.clone(), term.epoch.to_string(), term.nonce.clone()];
        let arguments = arguments.into_iter().map(String::into_bytes).collect();
        let keys = vec![self.farm.keys.lease(), self.farm.keys.announced()];
        self.claims.script(&Call { script: &scripts::RELEASE, keys, arguments }, &[], LOOK).await?;
        Ok(())
    }

    fn journal(&self, tenant: &str, term: &Term) -> Arc<dyn Engine> {
        let writes = Wire::new(self.address.clone(), self.farm.keys.tag());
        Arc::new(RedisEngine::new(self.farm.clone(), writes, tenant, term.clone()))
    }

    async fn tenants(&self) -> Result<Vec<String>, Error> {
        let members = redis::cmd("SMEMBERS").arg(self.farm.keys.tenants()).to_owned();
        let answer = self.farm.reads.calls(vec![members], CALL).await?.into_iter().next().unwrap_or(Ok(Value::Nil));
        let answer = answer.map_err(|error| kiln_redis::failure(self.claims.shown(), &error))?;
        let mut tenants: Vec<String> = answers::read(self.claims.shown(), answer)?;
        tenants.sort();
        Ok(tenants)
    }
}
