//! What any replica keeps for a while, and any of them finds.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_redis::CALL;
use redis::Value;

use super::{RedisRegister, answers};
use crate::error::Error;
use crate::shelf::Shelf;

impl RedisRegister {
    fn shelved(&self, name: &str) -> String {
        self.farm.keys.shelf(name)
    }

    fn put(&self, name: &str, value: &[u8], life: Duration) -> redis::Cmd {
        let sealed = self.farm.sealer.seal(&[b"shelf", name.as_bytes()], value);
        let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1);
        redis::cmd("SET").arg(self.shelved(name)).arg(sealed).arg("PX").arg(life).to_owned()
    }

    async fn one(&self, command: redis::Cmd) -> Result<Value, Error> {
        let answer = self.farm.reads.calls(vec![command], CALL).await?.into_iter().next().unwrap_or(Ok(Value::Nil));
        Ok(answer.map_err(|error| kiln_redis::failure(self.claims.shown(), &error))?)
    }

    fn opened(&self, name: &str, answer: Value) -> Result<Option<Bytes>, Error> {
        let found: Option<Bytes> = answers::read(self.claims.shown(), answer)?;
        Ok(found.and_then(|sealed| self.farm.sealer.open(&[b"shelf", name.as_bytes()], &sealed)))
    }
}

#[async_trait]
impl Shelf for RedisRegister {
    async fn keep(&self, name: &str, value: &[u8], life: Duration) -> Result<(), Error> {
        self.one(self.put(name, value, life)).await.map(drop)
    }

    async fn renew(&self, name: &str, value: &[u8], life: Duration) -> Result<(), Error> {
        self.one(self.put(name, value, life).arg("XX").to_owned()).await.map(drop)
    }

    async fn kept(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let get = redis::cmd("GET").arg(self.shelved(name)).to_owned();
        self.opened(name, self.one(get).await?)
    }

    async fn take(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let take = redis::cmd("GETDEL").arg(self.shelved(name)).to_owned();
        self.opened(name, self.one(take).await?)
    }
}
