//! Redis as the register.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_journal::Engine;
use kiln_state::FarmKey;

use crate::error::Error;
use crate::register::{Claimed, Register};
use crate::replica::{Replica, Term};

/// A farm's part of a Redis.
#[derive(Debug)]
pub struct RedisRegister {}

impl RedisRegister {
    /// Connects. All keys begin with `{PREFIX}`, so that a Cluster keeps them on one node; `key` seals what is stored.
    ///
    /// # Errors
    /// If Redis cannot be reached, or its address or credentials are wrong.
    pub async fn open(_address: kiln_redis::Address, _prefix: &str, _key: FarmKey) -> Result<Self, Error> {
        Ok(Self {})
    }
}

#[async_trait]
impl Register for RedisRegister {
    async fn check(&self, _me: &Replica) -> Result<Vec<String>, Error> {
        Err(kiln_redis::Error::Refused { shown: String::new(), why: "not yet".to_owned() }.into())
    }

    async fn claim(&self, _me: &Replica, _held: Option<&Term>, _lease: Duration) -> Result<Claimed, Error> {
        Err(kiln_redis::Error::Refused { shown: String::new(), why: "not yet".to_owned() }.into())
    }

    async fn release(&self, _me: &Replica, _term: &Term) -> Result<(), Error> {
        Err(kiln_redis::Error::Refused { shown: String::new(), why: "not yet".to_owned() }.into())
    }

    #[allow(clippy::unimplemented)]
    fn journal(&self, _tenant: &str, _term: &Term) -> Arc<dyn Engine> {
        unimplemented!("follows")
    }

    async fn tenants(&self) -> Result<Vec<String>, Error> {
        Err(kiln_redis::Error::Refused { shown: String::new(), why: "not yet".to_owned() }.into())
    }
}
